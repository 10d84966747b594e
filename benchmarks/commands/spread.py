"""`zoo spread`: what the spread of each metric over the runs of a suite is of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands import options
from zoo.errors import UsageError, fold, unknown

if TYPE_CHECKING:
    from benchmarks.report.spread import Spread

PARTS = """\
variant, setting, seed: % of the variance over the runs, with standard errors
over seeds. Means of the runs of a variant, and then of a row, which is a
setting, explain the first two."""
AGREEMENT = "rank: Spearman's correlation with {} over the runs, more being better in both."
HEADS = ("metric", "variant", "setting", "seed", "rank", "best mean")


@click.command()
@click.argument("suite")
@click.option("--datasets", multiple=True, help="Only these.")
@click.option("--beside", default="elbo", show_default=True, help="The metric that ranks are compared with.")
@options.board("Folder of the records.")
@options.as_json
def spread(suite: str, datasets: tuple[str, ...], beside: str, board: Path, as_json: bool) -> None:
    """Take apart how each metric of a SUITE spreads over its runs: what is of the variant, of its setting (a sweep) and
    of the seed. The suite has records of several rows, and of several seeds."""
    from benchmarks import record
    from benchmarks.report import terminal
    from benchmarks.report.spread import by_chance, spreads
    from benchmarks.report.tables import of_suite, tables

    found = of_suite(tables(record.read_some(board / "records")), suite)
    names = options.names(datasets, "--datasets")
    if lacking := [name for name in names if name not in {table.dataset for table in found}]:
        raise unknown("data set with records", lacking[0], {table.dataset for table in found}, "zoo leaderboard")
    found = [table for table in found if not names or table.dataset in names]
    taken, unfit = [], []
    for table in found:
        try:
            taken.append((table, spreads(table, fold(beside))))
        except UsageError as error:
            unfit.append(error)
    if not taken:
        raise unfit[0]
    for error in unfit:
        click.echo(f"left out: {error}", err=True)
    if as_json:
        rows = [
            {"suite": table.group, "dataset": table.dataset} | _plain(one) for table, some in taken for one in some
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for table, some in taken:
        click.echo(f"{table.group}  {table.dataset}{table.which}  {len(table.done)} runs")
        click.echo(terminal.table(map(_row, some), HEADS, terminal.screen_width(), right=" rrrrk"))
        click.echo()
    click.echo(PARTS)
    dealt = by_chance(one for _, some in taken for one in some)
    click.echo(f"Dealt at random the same numbers would come to {dealt} on average.")
    click.echo(AGREEMENT.format(beside))


def _row(one: Spread) -> tuple[str, ...]:
    from benchmarks.report.spread import correlation, percent

    parts = [part.removesuffix(" %") for part in map(percent, one.parts.values(), one.errors)]
    numbers = (text.replace(" ± ", "±") for text in (*parts, correlation(one)))
    return one.column.title.removesuffix(" (nats)"), *numbers, one.best[0]


def _plain(one: Spread) -> dict[str, Any]:
    by_chance = dict(zip(("variant", "setting"), one.by_chance, strict=True))
    errors = dict(zip(one.parts, one.errors, strict=True))
    rows = {name: {"row": row, "mean": mean} for name, (row, mean) in (("worst", one.worst), ("best", one.best))}
    column = {"metric": one.column.metric, "unit": one.column.unit, "identity": dict(one.column.identity)}
    agreement = {"agreement": one.agreement, "agreement_error": one.agreement_error}
    return column | {"runs": one.runs} | one.parts | {"errors": errors, "by_chance": by_chance} | agreement | rows
