"""Which value is the best, by what its runs came to on validation images."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import matrix
from benchmarks.catalogue import ALL, COSTS, explains
from benchmarks.choosing.candidates import SPLIT, Sweep, lacking, means, of_no_split
from benchmarks.evaluated import Evaluated
from benchmarks.interrupt import stop_if_asked
from benchmarks.matrix import Places, Planned
from benchmarks.per_example import Records, paired_errors
from benchmarks.record import Cell, Record
from benchmarks.report.compare import Estimate, differ, half_width
from benchmarks.report.notation import listed
from benchmarks.report.tables import Column, Row, Table, tables
from zoo.errors import UsageError, ZooError

CHOSEN, TIE, WORSE, SAME, NO_ERROR = "chosen", "tie", "worse", "same numbers", "no error known"
LOST, MISSING = "runs were lost", "not measured"  # in the way of a choice
#: What was measured on validation images, and its file, by cell.
Evaluations = dict[Cell, tuple[Evaluated, Path]]


@dataclass(frozen=True)
class Value:
    """One value of a setting: what its runs (``asked`` of them, one a seed) came to on validation and on test images,
    None where none has the number, and its ``verdict`` beside the chosen one. ``records`` are those of its cells,
    ``row`` those of its evaluations on validation images, which lie in ``files``."""

    setting: str
    asked: int
    validation: Estimate | None
    test: Estimate | None
    records: list[Record]
    row: Row | None
    files: list[Path]
    verdict: str = ""

    @property
    def lost(self) -> list[Record]:
        return [one for one in self.records if one.status != "done"]

    def whole(self, split: str) -> Estimate | None:
        """Its number on that split where every seed has one: the mean of those that survived cannot win."""
        found = self.validation if split == SPLIT else self.test
        return found if found is not None and found.seeds == self.asked else None


@dataclass(frozen=True)
class Choice:
    """What was chosen for one variant on one data set, None where no value has all of its runs. ``column`` is of the
    ``images`` of the validation split, ``test_column`` of those of the test (None: no run has the number there);
    ``on_test`` is what would have been chosen on these."""

    group: str
    dataset: str
    variant: str
    column: Column
    test_column: Column | None
    images: int
    values: list[Value]
    chosen: Value | None
    on_test: Value | None

    @property
    def marked(self) -> bool:
        """Whether what was chosen is conditional on something, and not ranked with other variants."""
        return self.chosen is not None and self.chosen.row is not None and self.chosen.row.marked(self.column)

    def judged(self, *verdicts: str) -> list[Value]:
        return [value for value in self.values if value.verdict in verdicts]


def measure(
    cells: Sequence[Planned],
    places: Places,
    device: str,
    should_stop: Callable[[], bool] = lambda: False,
    tell: Callable[[Planned], None] = lambda planned: None,
) -> Evaluations:
    """Every finished one of ``cells`` on its validation images, unless it was measured so before; ``tell`` is told of
    each.

    Raises:
        ZooError: a cell has no record yet: another process is at it.
        Stopped: ``should_stop`` said so; what is measured by then is kept.
        UsageError: as `evaluate_again`.
    """
    from benchmarks.running.again import Asked, evaluate_again

    for planned in cells:
        if matrix.recorded(planned, places) is None:
            said = f"{planned.cell.stem} has no record yet, as where another process is at it"
            raise ZooError(f"{said}; the same command goes on once it has.")
    found = {}
    for planned in cells:
        if matrix.done(planned, places) is None:
            continue
        stop_if_asked()
        tell(planned)
        folder = places.run(planned.cell)
        command = shlex.join(["zoo", "evaluate", str(folder), "--split", SPLIT])
        found[planned.cell] = evaluate_again(Asked(folder, SPLIT, command=command), device, should_stop)
    return found


def choose(sweep: Sweep, records: Sequence[Record], found: Evaluations, by: str) -> Choice:
    """The best value of a sweep by the metric ``by`` of validation images.

    Args:
        records: those of its cells, whatever became of them.
        found: what those that are done came to on validation images.

    Raises:
        UsageError: no run has such a number of validation images, or the values were not measured alike.
        ZooError: no run is done.
    """
    known = {one.cell: one for one in records}
    again = {cell: found[cell] for cell in known if cell in found}
    if not again:
        cell, reason = records[0].cell, (records[0].reason or "").rstrip(".")
        raise ZooError(f"no run of {sweep.variant} on '{sweep.dataset}' is done, and seed {cell.seed}: {reason}.")
    stands_for = {cell: made.as_record(sweep.variant) for cell, (made, _) in again.items()}
    shown = _only(tables(stands_for.values()), sweep, f"{SPLIT} images")
    tested = _only(tables(records), sweep, "test images")
    column = _column(shown, by, sweep)
    twin = _twin(tested, column)
    values = []
    for setting, planned in sweep.values.items():
        cells = [one.cell for one in planned]
        measured = [cell for cell in cells if cell in again]
        row = _row(shown, [stands_for[cell].cell for cell in measured])
        numbers = _number(row, column), _number(_row(tested, cells), twin)
        files = [again[cell][1] for cell in measured]
        values.append(Value(setting, len(cells), *numbers, [known[cell] for cell in cells], row, files))
    places = {one.cell: again[cell][1] for cell, one in stands_for.items()}
    best = _best(values, column, SPLIT)
    judged = [replace(value, verdict=_verdict(value, best, column, places.__getitem__)) for value in values]
    chosen, on_test = (
        None if one is None else judged[values.index(one)] for one in (best, _best(values, column, "test"))
    )
    images, group = next(made.images for made, _ in again.values()), records[0].cell.group
    return Choice(group, sweep.dataset, sweep.variant, column, twin, images, judged, chosen, on_test)


def ranks(choices: Sequence[Choice]) -> dict[tuple[str, str], int]:
    """The rank of what was chosen among the variants on a data set, by variant and data set, as the board ranks numbers
    of test images; without those that it does not rank."""
    settled = [one for one in choices if one.chosen]
    found = {}
    for table in tables(made for one in settled for made in one.chosen.records):
        for one in settled:
            row = _row(table, [made.cell for made in one.chosen.records])
            twin = _twin(table, one.column)
            if row is not None and twin is not None:
                rank = table.ranks(twin)[table.rows.index(row)]
                found |= {} if rank is None else {(one.variant, one.dataset): rank}
    return found


def _only(found: list[Table], sweep: Sweep, what: str) -> Table:
    if len(found) > 1:
        raise UsageError(f"the values of {sweep.variant} were not measured on the same {what}: '{sweep.dataset}' was "
                         "another set for some of them.")  # fmt: skip
    return found[0]


def _column(table: Table, by: str, sweep: Sweep) -> Column:
    """The one column that ``by`` names, in full or by how it begins."""
    ranked = [column for column in table.columns if column.better and column.metric not in COSTS and column.identity]
    found = [column for column in ranked if column.metric == by]
    if not found:
        found = [column for column in ranked if means(by, column.metric)]
        whole = {column.metric.removesuffix(ALL) for column in found if column.metric.endswith(ALL)}
        found = [column for column in found if column.metric not in whole]
    names = list(dict.fromkeys(column.metric for column in found))
    if len(names) > 1:
        raise UsageError(f"'{by}' is one of several numbers of {sweep.variant}: give {' or '.join(names)}.")
    if not found:
        reasons = [said for name, said in table.skipped.items() if explains(name, by)]
        there = listed(list(dict.fromkeys(column.metric for column in ranked)))
        why = "; ".join(reasons[0]) if reasons else f"measured are {there}"
        raise lacking(by, sweep, why)
    if len(found) > 1:
        raise UsageError(f"the values of {sweep.variant} have a '{names[0]}' each that was measured otherwise: none is "
                         "the better.")  # fmt: skip
    (column,) = found
    if dict(column.identity).get("split") != SPLIT:
        raise of_no_split(by, sweep.dataset)
    return column


def _twin(table: Table, column: Column) -> Column | None:
    """The column of test images that has the same metric, the one with most numbers where there are several."""
    twins = [one for one in table.columns if one.metric == column.metric and dict(one.identity).get("split") == "test"]
    return max(twins, key=lambda one: sum(_number(row, one) is not None for row in table.rows), default=None)


def _row(table: Table, cells: Collection[Cell]) -> Row | None:
    return next((row for row in table.rows if any(one.cell in cells for one in row.records)), None)


def _number(row: Row | None, column: Column | None) -> Estimate | None:
    found = None if row is None or column is None else row.cells[column]
    return found if isinstance(found, Estimate) else None


def _best(values: Sequence[Value], column: Column, split: str) -> Value | None:
    """The value of the best number, the first one of equal ones."""
    sign = 1.0 if column.better == "higher" else -1.0
    whole = [value for value in values if value.whole(split) is not None]
    return max(whole, key=lambda value: sign * value.whole(split).value, default=None)


def _verdict(value: Value, best: Value | None, column: Column, files: Records) -> str:
    number = value.whole(SPLIT)
    if number is None:
        return LOST if value.lost else MISSING
    if value is best:
        return CHOSEN
    first = best.validation
    if number.runs == first.runs:
        return SAME
    paired = paired_errors(best.row.done, value.row.done, files).get(column.metric)
    if half_width(first, number, paired) is None:
        return NO_ERROR
    return WORSE if differ(first, number, paired) else TIE
