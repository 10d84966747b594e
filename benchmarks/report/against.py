"""One row against another, of one suite or of two: the difference of every ranked number that both have, with its
error."""

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

    ``better`` is the better one of ``names``, "tie", or why neither can be called so. ``rows`` are those of a and b, of
    ``table`` and ``other``: one table, unless they are rows of two suites.
    """

    table: Table
    other: Table
    rows: tuple[Row, Row]
    names: tuple[str, str]
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
        return self.better in self.names and self.error is not None and abs(self.value) <= self.error


def against(
    records: Iterable[Record], a: str, b: str, suite: str | None = None, folder: Records | None = None
) -> list[Difference]:
    """Every difference between rows ``a`` and ``b`` (labels as on the board), in the order of the board.

    Where both are given as SUITE/ROW (the suite with or without its version) each is looked for in its own suite, and
    the two are compared on every data set that both suites have with the same content.

    Args:
        folder: where the records lie, to find what each test example came to beside them; None pairs nothing.

    Raises:
        UsageError: no such row, one that stands for several, or no number that both have; ``suite`` (with or without
            its version) has no records; a suite for one of the two rows, or twice.
    """
    found = tables(records)
    if suite is not None:
        found = of_suite(found, suite)
    places = [place(name) for name in (a, b)]
    if any(of for of, _ in places):
        if suite is not None:
            raise UsageError(f"{a} and {b}: a suite is in a name, leave out --suite.")
        pairs = _across(found, (a, b), places)
    else:
        for name in (a, b):
            rows = [row for table in found for row in table.rows]
            if not any(name in (row.label, row.variant) for row in rows):
                raise unknown("row of the board", name, {row.label for row in rows}, "zoo leaderboard")
        pairs = [(table, table) for table in found if all(_rows(table, name) for name in (a, b))]
    differences: list[Difference] = []
    for ends in pairs:
        rows = [_row(table, row) for table, (_, row) in zip(ends, places, strict=True)]
        differences += _of_rows(ends, (rows[0], rows[1]), (a, b), folder)
    if not differences:
        raise UsageError(f"there is no number that both {a} and {b} have, measured alike.")
    return differences


def place(name: str) -> tuple[str, str]:
    """The suite and the row of SUITE/ROW, and no suite of anything else."""
    # In brackets, where a label says what a setting is, a slash is one of a value.
    suite, slash, row = name.partition("/")
    return (suite, row) if slash and "(" not in suite else ("", name)


def _across(found: list[Table], names: tuple[str, str], places: list[tuple[str, str]]) -> list[tuple[Table, Table]]:
    """The tables of two suites that have the rows and are of the same images."""
    ends = []
    for name, (suite, row) in zip(names, places, strict=True):
        if not suite:
            raise UsageError(f"{name} is in no suite, and {names[name == names[0]]} is in one: give SUITE/{name}.")
        of = of_suite(found, suite)
        if len(groups := sorted({table.group for table in of})) > 1:
            raise UsageError(f"{suite} has records of several versions: give one of {', '.join(groups)}.")
        if not any(_rows(table, row) for table in of):
            labels = {one.label for table in of for one in table.rows}
            raise unknown(f"row of {groups[0]}", row, labels, "zoo leaderboard")
        ends.append([table for table in of if _rows(table, row)])
    pairs = [(one, other) for one in ends[0] for other in ends[1] if one.same_images(other)]
    if not pairs:
        raise UsageError(f"{names[0]} and {names[1]} are on no data in common: no two of their numbers are of the same "
                         "images.")  # fmt: skip
    return pairs


def _of_rows(
    ends: tuple[Table, Table], rows: tuple[Row, Row], names: tuple[str, str], folder: Records | None
) -> Iterator[Difference]:
    paired = paired_errors(*(row.done for row in rows), folder) if folder else {}
    table, other = ends
    for column in [*table.head, *table.further]:
        theirs = next((one for one in [*other.head, *other.further] if one.alike(column)), None)
        if theirs is None or not column.better:
            continue
        one, two = rows[0].cells[column], rows[1].cells[theirs]
        if isinstance(one, Estimate) and isinstance(two, Estimate):
            # Of all seeds, and so no error of a mean over some of them.
            whole = all(end.seeds == len(row.done) for end, row in zip((one, two), rows, strict=True))
            error = paired.get(column.metric) if whole else None
            width, better = half_width(one, two, error), _better(column, rows, names, one, two, error)
            yield Difference(table, other, rows, names, column, one, two, width, better, error is not None)


def _rows(table: Table, name: str) -> list[Row]:
    return [row for row in table.rows if row.label == name] or [row for row in table.rows if row.variant == name]


def _row(table: Table, name: str) -> Row:
    if len(several := _rows(table, name)) > 1:
        labels = ", ".join(f"'{row.label}'" for row in several)
        raise UsageError(f"{table.group} has several rows of {name}: give one of {labels}.")
    return several[0]


def _better(
    column: Column, rows: tuple[Row, Row], names: tuple[str, str], a: Estimate, b: Estimate, paired: float | None
) -> str:
    # As the board decides: nats of log p(x | y) are not ranked, and a mean over the runs that survived cannot win.
    if any(row.marked(column) for row in rows):
        return f"not ranked {DAGGER}"
    if half_width(a, b, paired) is None:
        return "no error known"
    if not differ(a, b, paired):
        return "tie"
    first = (a.value > b.value) != (column.better == "higher")
    return names[first] if len(rows[first].done) == len(rows[first].records) else "runs were lost"
