"""`zoo compare`: which of two variants is better, and by how much."""

from __future__ import annotations

import json
import textwrap
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.commands import options
from zoo.errors import UsageError, ZooError, one_line

if TYPE_CHECKING:
    from benchmarks.record import Data, Record
    from benchmarks.report.against import Difference
    from benchmarks.report.compare import Estimate
    from benchmarks.report.tables import Row

ENDING = ".json"
SHARED = "±: half of a 95 % interval, over test images and, from two seeds on, training."
SAMPLES = "fd, FID, KID and the like: over other samples, or others of both."
PAIRED = "paired: of differences image by image, so without the error that both share."
APART = "Not paired are numbers of the same images too: for nats, too wide an interval."
INSIDE = "Better within ±: every run beats every run of the other, beyond t at 90 %."
GIVEN = "† one is told a class, attributes or pixels: its nats are of log p(x | y)."
ONE_SEED = "1, 1: over test images alone; another seed of either may turn it round."


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--suite", "only", help="Only of this suite.")
@click.option("--chosen", multiple=True, type=options.Place(), help="A file of `zoo choose --out`: only what it names.")
@options.board("Folder of the records.")
@options.as_json
def compare(a: str, b: str, only: str | None, chosen: tuple[Path, ...], board: Path, as_json: bool) -> None:
    """Say by how much A is apart from B, two rows of the board, and which is better beyond the errors. Given as
    SUITE/ROW each is of its own suite: what more training is worth. Or two files of `zoo evaluate` (that end in .json):
    of two runs on the same images."""
    from benchmarks import record
    from benchmarks.report import notation, terminal
    from benchmarks.report.against import against
    from benchmarks.report.notes import taught
    from zoo.registry import registry

    records, width = board / "records", terminal.screen_width()
    if a.endswith(ENDING) or b.endswith(ENDING):
        found, a, b = _of_files(a, b, only, chosen)
    else:
        found = against(_only_chosen(record.read_some(records), chosen, records, (a, b)), a, b, only, records)
    if as_json:
        rows = [
            {
                "suite": one.table.group, "suites": [one.table.group, one.other.group],
                "dataset": one.table.dataset, "metric": one.column.metric,
                "unit": one.column.unit, "identity": dict(one.column.identity), "a": one.a.value, "b": one.b.value,
                "difference": one.value, "half_width_95": one.error, "seeds": [one.a.seeds, one.b.seeds],
                "paired": one.paired, "better": one.better,
            }
            for one in found
        ]  # fmt: skip
        click.echo(json.dumps(rows, indent=2))
        return
    shown = dict(zip((a, b), _told_apart(a, b), strict=True))
    heads = ("metric", shown[a], shown[b], "difference", "seeds", "better")
    for _, some in groupby(found, lambda one: (id(one.table), id(one.other))):
        differences = list(some)
        table, other, (ours, theirs) = differences[0].table, differences[0].other, differences[0].rows
        rows = [
            (
                one.column.title.removesuffix(" (nats)"), *(_mean(end) for end in (one.a, one.b)),
                notation.plus_minus(one.value, one.error), f"{one.a.seeds}, {one.b.seeds}",
                shown.get(one.better, one.better),
            )
            for one in differences
        ]  # fmt: skip
        click.echo(" and ".join(dict.fromkeys(f"{one.group}  {one.dataset}{one.which}" for one in (table, other))))
        click.echo(terminal.table(rows, heads, width, right=" rrrkk"))
        if paired := [one.column.name for one in differences if one.paired]:
            click.echo(f"paired: {', '.join(paired)}")
        if other is not table:
            click.echo(textwrap.fill(f"settings apart: {_settings(ours, theirs)}", width))
        click.echo()
    click.echo(SHARED)
    if any("extractor" in dict(one.column.identity) for one in found):
        click.echo(SAMPLES)
    if any(one.paired for one in found):
        click.echo(PAIRED)
    click.echo(APART)
    if any(notation.DAGGER in one.better for one in found):
        click.echo(GIVEN)
    both = [row for one in found for row in one.rows]
    for said in taught(both, registry().variants):
        click.echo(textwrap.fill(said, width))
    if any(one.inside for one in found):
        click.echo(INSIDE)
    if any(one.a.seeds == one.b.seeds == 1 for one in found):
        click.echo(ONE_SEED)


def _only_chosen(
    records: list[Record], files: tuple[Path, ...], folder: Path, rows: tuple[str, str]
) -> list[Record]:
    """Those that one of the files of `zoo choose` names; all where there is no such file. `UsageError` where ``rows``,
    that are to be compared, are not among them."""
    if not files:
        return records
    from benchmarks.choosing.written import chosen_in, record_name
    from benchmarks.report.against import place
    from benchmarks.report.tables import tables

    names = {name for file in files for name in chosen_in(file)}
    found = {record_name(one): one for one in records}
    if gone := sorted(names - found.keys()):
        raise UsageError(f"{gone[0]} was chosen, and is not in {folder}: --board says where it is.")
    kept = [found[name] for name in sorted(names)]
    left = {name for table in tables(kept) for row in table.rows for name in (row.label, row.variant)}
    if lacking := [row for row in rows if place(row)[1] not in left]:
        said = f"{lacking[0]} is not chosen in {' or '.join(map(str, files))}"
        raise UsageError(f"{said}: without --chosen any two rows of the board are compared.")
    return kept


def _of_files(a: str, b: str, only: str | None, chosen: tuple[Path, ...]) -> tuple[list[Difference], str, str]:
    """The differences between two evaluations, and what they are called."""
    from benchmarks import evaluated
    from benchmarks.report.against import against

    if only is not None:
        raise UsageError("a file of `zoo evaluate` is of no suite: leave out --suite.")
    if chosen:
        raise UsageError("--chosen is of rows of the board, and a file of `zoo evaluate` is none: leave it out.")
    try:
        one, two = (evaluated.read(Path(name)) for name in (a, b))
    except ZooError as error:
        raise UsageError(str(error)) from None
    on = [f"the {each.split} split of '{each.data.name}'" for each in (one, two)]
    if (one.split, one.data) != (two.split, two.data):
        raise UsageError(f"{a} is of {on[0]}, {b} of {on[1] if on[0] != on[1] else _apart(one.data, two.data)}: no two "
                         "of their numbers are of the same images.")  # fmt: skip
    names = evaluated.labels(one, two)
    records = [each.as_record(name) for each, name in zip((one, two), names, strict=True)]
    places = {each.cell: Path(file) for each, file in zip(records, (a, b), strict=True)}
    return against(records, *names, folder=places.__getitem__), *names


def _apart(ours: Data, theirs: Data) -> str:
    """What a split of ``theirs`` is to that of ``ours``, which has its name."""
    if (ours.sha256, ours.n) != (theirs.sha256, theirs.n):
        return "another set of that name"
    if ours.support != theirs.support:
        return f"the same as {theirs.support} data, not {ours.support}"
    if ours.binarise != theirs.binarise:
        return f"the same made bits in another way (data.binarise={theirs.binarise}, not {ours.binarise})"
    drawn = "noise on its bytes" if ours.support == "dequantised" else "bits"
    return f"the same with other {drawn} (data.test_bits_seed={theirs.test_bits_seed}, not {ours.test_bits_seed})"


def _told_apart(a: str, b: str) -> tuple[str, str]:
    """What two rows are called beside each other: without the suite, or the row, that both have in their names."""
    from benchmarks.report.against import place

    (ours, one), (theirs, two) = place(a), place(b)
    return (one, two) if ours == theirs else (ours, theirs) if one == two else (a, b)


def _settings(ours: Row, theirs: Row) -> str:
    """What the recipes of two rows do not share: ``train.epochs 15, 75``."""
    from benchmarks.report.notation import spelled
    from benchmarks.report.tables import apart

    names, (one, two) = apart([row.records[0].config for row in (ours, theirs)])

    def said(name: str) -> str:
        return ", ".join(spelled(row[name]) if name in row else "not given" for row in (one, two))

    return one_line("; ".join(f"{name} {said(name)}" for name in names)) or "none"


def _mean(one: Estimate) -> str:
    from benchmarks.report import notation

    return notation.plus_minus(one.value, one.stderr).partition(" ")[0]
