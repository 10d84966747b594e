"""One variant against another: the difference of every ranked number that both have, with its error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.per_example import Records, paired_errors
from benchmarks.record import Record
from benchmarks.report.compare import Estimate, differ, half_width
from benchmarks.report.notation import DAGGER
from benchmarks.report.tables import Column, Row, Table, of_suite, tables
from zoo.errors import UsageError, unknown


@dataclass(frozen=True)
class Difference:
    """``value`` is a - b in the unit of the column and ``error`` half of its 95 % interval (None: no error is known),
    which is ``paired`` where it is of differences example by example.

    ``better`` is the label of the better one, "tie", or why neither can be called so.
    """

    table: Table
    column: Column
    a: Estimate
    b: Estimate
    error: float | None
    better: str
    paired: bool = False

    @property
    def value(self) -> float:
        return self.a.value - self.b.value

    @property
    def inside(self) -> bool:
        """Whether one is called better though the interval has 0: its runs are all beyond those of the other."""
        named = any(row.label == self.better for row in self.table.rows)
        return named and self.error is not None and abs(self.value) <= self.error


def against(
    records: Iterable[Record], a: str, b: str, suite: str | None = None, folder: Records | None = None
) -> list[Difference]:
    """Every difference between rows ``a`` and ``b`` (labels as on the board), in the order of the board.

    Args:
        folder: where the records lie, to find what each test example came to beside them; None pairs nothing.

    Raises:
        UsageError: no such row, one that stands for several, or no number that both have; ``suite`` (with or without
            its version) has no records.
    """
    found = tables(records)
    if suite is not None:
        found = of_suite(found, suite)
    for name in (a, b):
        rows = [row for table in found for row in table.rows]
        if not any(name in (row.label, row.variant) for row in rows):
            raise unknown("row of the board", name, {row.label for row in rows}, "zoo leaderboard")
    differences = [one for table in found for one in _of_table(table, a, b, folder)]
    if not differences:
        raise UsageError(f"there is no number that both {a} and {b} have, measured alike.")
    return differences


def _of_table(table: Table, a: str, b: str, folder: Records | None) -> Iterator[Difference]:
    found = [_rows(table, name) for name in (a, b)]
    if not all(found):
        return
    for name, several in zip((a, b), found, strict=True):
        if len(several) > 1:
            labels = ", ".join(f"'{row.label}'" for row in several)
            raise UsageError(f"{table.group} has several rows of {name}: give one of {labels}.")
    rows = (found[0][0], found[1][0])
    paired = paired_errors(*(row.done for row in rows), folder) if folder else {}
    for column in [*table.head, *table.further]:
        one, two = (row.cells[column] for row in rows)
        if column.better and isinstance(one, Estimate) and isinstance(two, Estimate):
            # Of all seeds, and so no error of a mean over some of them.
            whole = all(end.seeds == len(row.done) for end, row in zip((one, two), rows, strict=True))
            error = paired.get(column.metric) if whole else None
            width, better = half_width(one, two, error), _better(column, rows, one, two, error)
            yield Difference(table, column, one, two, width, better, error is not None)


def _rows(table: Table, name: str) -> list[Row]:
    return [row for row in table.rows if row.label == name] or [row for row in table.rows if row.variant == name]


def _better(column: Column, rows: tuple[Row, Row], a: Estimate, b: Estimate, paired: float | None) -> str:
    # As the board decides: nats of log p(x | y) are not ranked, and a mean over the runs that survived cannot win.
    if any(row.marked(column) for row in rows):
        return f"not ranked {DAGGER}"
    if not (a.has_error and b.has_error):
        return "no error known"
    if not differ(a, b, paired):
        return "tie"
    first = rows[(a.value > b.value) != (column.better == "higher")]
    return first.label if len(first.done) == len(first.records) else "runs were lost"
