"""`zoo compare`: which of two variants is better, and by how much."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.commands import options

if TYPE_CHECKING:
    from benchmarks.report.compare import Estimate

SHARED = (
    "±: half of a 95 % interval, over test images and, from two seeds on, training.\n"
    "Both have the same test images, which is not taken out: for nats it is too wide."
)
ONE_SEED = "1, 1: over test images alone; another seed of either may turn it round."


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--suite", "only", help="Only of this suite.")
@options.board("Folder of the records.")
@options.as_json
def compare(a: str, b: str, only: str | None, board: Path, as_json: bool) -> None:
    """Say by how much A is apart from B, two rows of the board, and which is better beyond the errors."""
    from benchmarks import record
    from benchmarks.report import notation, terminal
    from benchmarks.report.against import against

    found = against(record.read_all(board / "records"), a, b, only)
    if as_json:
        rows = [
            {
                "suite": one.table.group, "dataset": one.table.dataset, "metric": one.column.metric,
                "unit": one.column.unit, "identity": dict(one.column.identity), "a": one.a.value, "b": one.b.value,
                "difference": one.value, "half_width_95": one.error, "seeds": [one.a.seeds, one.b.seeds],
                "better": one.better,
            }
            for one in found
        ]  # fmt: skip
        click.echo(json.dumps(rows, indent=2))
        return
    for _, some in groupby(found, lambda one: id(one.table)):
        differences = list(some)
        table = differences[0].table
        rows = [
            (
                one.column.title.removesuffix(" (nats)"), *(_mean(end) for end in (one.a, one.b)),
                notation.plus_minus(one.value, one.error), f"{one.a.seeds}, {one.b.seeds}", one.better,
            )
            for one in differences
        ]  # fmt: skip
        click.echo(f"{table.group}  {table.dataset}" + (f" (set {table.part})" if table.part else ""))
        click.echo(terminal.table(rows, ("metric", a, b, "difference", "seeds", "better"), right=" rrr") + "\n")
    click.echo(SHARED)
    if any(one.a.seeds == one.b.seeds == 1 for one in found):
        click.echo(ONE_SEED)


def _mean(one: Estimate) -> str:
    from benchmarks.report import notation

    return notation.plus_minus(one.value, one.stderr).partition(" ")[0]
