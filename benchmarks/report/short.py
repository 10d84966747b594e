"""The board in eighty columns, as `zoo bench` prints it: what matters of each variant, and how its cells ended."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

from benchmarks.record import GroupRate, Record
from benchmarks.report import notation
from benchmarks.report.compare import Estimate
from benchmarks.report.notes import taught
from benchmarks.report.tables import Column, Gap, Row, Table, tables
from benchmarks.report.terminal import plain, table
from zoo.registry import registry


def board(records: Iterable[Record], width: int = 80) -> str:
    """A table per suite@version and dataset, at most ``width`` columns wide, with a line for every cell not done.

    Numbers are means over seeds with their test-set standard error; the page in Markdown has the rest.
    """
    return "\n\n".join(_board(one, width) for one in tables(records))


def of_groups(rates: Sequence[GroupRate], width: int = 80) -> str:
    """A table of the rate of each group of latents, at most ``width`` columns wide."""
    rows = [
        (one.name, notation.plus_minus(one.value, one.stderr), *(_count(n) for n in (one.active, one.dimensions)))
        for one in rates
    ]
    return table(rows, ("group", "rate (nats)", "active", "dimensions"), width, right=" rrr")


def _count(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def _board(one: Table, width: int) -> str:
    wanted = (("elbo", "reconstruction_loss"), ("nll", "iwae_loss"), ("fd", "fid", "mig"))
    columns = [_first(one, starts) for starts in wanted]
    measured = [column for column in columns if column is not None]
    costs = [_first(one, (name,)) for name in ("images_per_second", "seconds")]
    rows = [
        [
            row.label + ("†" if row.conditional else ""),
            *(_short(row, column) for column in measured),
            *(_cost(row, column) for column in costs),
            ", ".join(sorted({record.status for record in row.records})),
        ]
        for row in one.rows
    ]
    heads = ["variant", *(_head(column) for column in measured), "img/s", "s", "status"]
    lines = [f"{one.group}  {one.dataset}{one.which}", table(rows, heads, width, " " + "r" * (len(heads) - 2))]
    for row in one.rows:
        for record in row.records:
            if record.status != "done":
                said = f"{row.label} seed {record.cell.seed} {record.status}: {plain(record.reason or '')}"
                lines.append(notation.shorten(said, width))
    if any(row.conditional for row in one.rows):
        lines.append("† conditional (on class, attributes or pixels): not ranked with the others")
    for said in taught(one.rows, registry().variants):
        lines += textwrap.wrap(said, width)
    return "\n".join(lines)


def _first(one: Table, starts: tuple[str, ...]) -> Column | None:
    """The column that most rows have a number in, of those whose metric begins with the first of ``starts`` that any
    metric does."""

    def filled(column: Column) -> int:
        return sum(isinstance(row.cells[column], Estimate) for row in one.rows)

    for start in starts:
        if found := [column for column in [*one.head, *one.costs] if column.metric.startswith(start)]:
            return max(reversed(found), key=filled)
    return None


def _short(row: Row, column: Column) -> str:
    cell = row.cells[column]
    if isinstance(cell, Estimate):
        return notation.plus_minus(cell.value, cell.stderr).replace(" ", "")
    return _gap(cell.kind)


def _head(column: Column) -> str:
    name = re.sub(r"[()]|, all\b", "", column.name).replace(" = ", "=").replace("efficientnet_lite0", "effnet")
    return f"{name} {column.direction[:1]}".rstrip()


def _cost(row: Row, column: Column | None) -> str:
    cell = row.cells[column] if column is not None else None
    if isinstance(cell, Gap):
        # The status says of a lost run what it says here.
        return _gap(cell.kind) if cell.kind == "column" else "-"
    return "-" if cell is None else notation.number(cell.value, 3)


def _gap(kind: str) -> str:
    return {"skip": "skip", "column": "other", "absent": "-"}.get(kind, kind)
