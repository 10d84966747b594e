"""`zoo choose`: of the values of a setting the one that is best on validation images, and what it comes to on test
images, which have not chosen it.

The cells are those of `zoo bench`, and the numbers of validation images those of `zoo evaluate RUN --split validation`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import matrix
from benchmarks.catalogue import ALL, COSTS, DENSITIES, DISENTANGLEMENT, METRICS, begins_with, explains
from benchmarks.evaluated import Evaluated
from benchmarks.interrupt import stop_if_asked
from benchmarks.matrix import Places, Planned
from benchmarks.per_example import Records, paired_errors
from benchmarks.record import Cell, Record, content_of, path_of, pretty
from benchmarks.report.compare import Estimate, differ
from benchmarks.report.notation import listed
from benchmarks.report.tables import Column, Row, Table, tables
from benchmarks.suite import Suite
from zoo.errors import UsageError, ZooError, unknown
from zoo.files import atomic_write
from zoo.registry import registry

if TYPE_CHECKING:
    from zoo.data.images import ImageSet

KIND = "choice"
SPLIT = "validation"
CHOSEN, TIE, WORSE, SAME, NO_ERROR = "chosen", "tie", "worse", "same numbers", "no error known"
LOST, MISSING = "runs were lost", "not measured"  # in the way of a choice
#: What was measured on validation images, and its file, by cell.
Evaluations = dict[Cell, tuple[Evaluated, Path]]


@dataclass(frozen=True)
class Sweep:
    """One variant on one data set: ``values`` has the cells of each value, one a seed, by its text ``path=value``; the
    text is empty where there is one value, the suite's."""

    variant: str
    dataset: str
    values: dict[str, list[Planned]]

    @property
    def cells(self) -> list[Planned]:
        return [planned for cells in self.values.values() for planned in cells]


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


# ---- what there is to choose among ----------------------------------------------------------------------------------


def plan(
    suite: Suite,
    variants: Sequence[str],
    datasets: Sequence[str],
    seeds: Sequence[int],
    sweeps: Mapping[str | None, tuple[str, ...]],
) -> list[Sweep]:
    """The cells to choose among, variant by variant on each data set.

    Args:
        variants: names; none is those that ``sweeps`` names, with those of the suite where it has one for all.
        datasets, seeds: none is those of the suite.
        sweeps: the values, as texts ``path=value``, by the variant that they are of; None is all others. A variant
            without any has those of the suite, and one value where that has none.

    Raises:
        UsageError: there is nothing to choose among, or what is swept makes no other model; or as `matrix.plan`.
    """
    known = registry().variant
    own = {known(name)[0]: values for name, values in sweeps.items() if name is not None}
    usual = sweeps.get(None, ())
    given = variants or [*own, *(suite.variants if usual or not own else ())]
    names = list(dict.fromkeys(known(name)[0] for name in given))
    for name in own:
        if name not in names:
            raise UsageError(f"--sweep has values of {name}, which --variants leaves out.")
    sweeps_of: dict[tuple[str, str], Sweep] = {}
    for dataset in datasets or suite.datasets:
        for name in names:
            asked = own.get(name, usual)
            cells = matrix.plan(suite, (name,), (dataset,), tuple(seeds), asked)
            settings = asked or suite.settings or ("",)
            _check_swept(settings)
            # Seeds are outermost: each of them has every value, in their order.
            values = {setting: cells[i :: len(settings)] for i, setting in enumerate(settings)}
            where = cells[0].config.data.asked
            sweeps_of[where, name] = Sweep(name, where, values)
    found = [*sweeps_of.values()]
    if all(len(sweep.values) == 1 for sweep in found):
        raise UsageError("there is one value of each variant, and nothing to choose: give --sweep PATH=A,B.")
    if any(planned.config.evaluate.split == SPLIT for sweep in found for planned in sweep.cells):
        said = f"{suite.asked} measures on {SPLIT} images itself"
        raise UsageError(f"{said}, and has no number of test images to report.")
    return found


def in_turn(sweeps: Iterable[Sweep]) -> list[Planned]:
    """Their cells as a suite runs them, seeds outermost."""
    cells = [planned for sweep in sweeps for planned in sweep.cells]
    seeds = list(dict.fromkeys(planned.config.seed for planned in cells))
    return sorted(cells, key=lambda planned: seeds.index(planned.config.seed))


def _check_swept(settings: Iterable[str]) -> None:
    for setting in settings:
        path = setting.partition("=")[0].strip()
        section = path.replace("-", "_").partition(".")[0]
        if section == "evaluate":
            raise UsageError(f"'{path}' is how a model is measured and makes no other one: there is nothing to choose.")
        if section == "data":
            raise UsageError(f"'{path}' makes other images of the data, and the values would be measured on different "
                             "ones.")  # fmt: skip


def check_metric(by: str, sweeps: Sequence[Sweep]) -> None:
    """Raise `UsageError` where nothing can be chosen by a metric, before anything is trained: there is none of that
    name, no value of it is better than another, it is none of validation images, or one of the variants will not have
    it with any of its values, as far as `benchmarks.evaluation.foreseen` tells."""
    from zoo.runs.images import load_images

    if by in COSTS:
        raise UsageError(f"'{by}' is what a run cost, and nothing that was measured on {SPLIT} images.")
    known = [one for one in METRICS if one.matches(by)] or [one for one in METRICS if _means(by, one.name)]
    directions = {one.better for one in known}
    if not known:
        measures = [registry().variant(sweep.variant)[1].load().measures for sweep in sweeps]
        directions = {one[by][1] for one in measures if by in one}
    if not directions:
        raise unknown("metric", by, [one.name for one in METRICS if one.better], "zoo list metrics")
    if directions == {None}:
        raise UsageError(f"no value of '{by}' is better than another: choose by one that `zoo list metrics` has an "
                         "arrow for.")  # fmt: skip
    configs = [planned.config for sweep in sweeps for planned in sweep.cells]
    if bound := re.fullmatch(rf"nll_iwae_(\d+)({ALL})?", by):
        used = sorted({config.evaluate.nll_samples for config in configs})
        if int(bound[1]) not in used:
            raise UsageError(f"'{by}' is not measured here: evaluate.nll_samples is {listed([*map(str, used)])}.")
    for config in {config.data.model_dump_json(): config for config in configs}.values():
        images, name = load_images(config), config.data.asked
        if not len(images[SPLIT]):
            raise UsageError(f"'{name}' has no {SPLIT} images to choose on.")
        if images.render is not None and any(one.needs in DISENTANGLEMENT for one in known):
            raise _of_no_split(by, name)
        for sweep in sweeps:
            if sweep.cells[0].config.data == config.data:
                _check_measured(by, sweep, images)


def _check_measured(by: str, sweep: Sweep, images: ImageSet) -> None:
    # As far as it is known before a training: what else is missing `_column` says afterwards.
    import torch

    from benchmarks.evaluation.foreseen import foreseen
    from zoo.runs import build_model

    reasons = []
    for config in {json.dumps(one.config.model): one.config for one in sweep.cells}.values():
        try:
            with torch.random.fork_rng(devices=[]):
                model = build_model(config, images.spec)
        except Exception:  # what is wrong is said where it is trained
            return
        if any(begins_with(name, by) for name in model.measures):
            return
        lacks = foreseen(config.evaluate.model_copy(update={"split": SPLIT}), model, images)
        meant = [one.name for one in METRICS if one.better and (one.matches(by) or _means(by, one.name))]
        why = [next((lacks[name] for name in lacks if explains(name, metric)), "") for metric in meant]
        if not all(why):
            return
        reasons += why or ["it measures no such thing"]
    raise _lacking(by, sweep, reasons[0])


def _means(by: str, metric: str) -> bool:
    """Whether ``by`` is a metric's name or how it begins; a distance by one density of codes is none by another."""
    return metric == by or (begins_with(metric, by) and not by.endswith(DENSITIES))


def _lacking(by: str, sweep: Sweep, why: str) -> UsageError:
    return UsageError(f"{sweep.variant} has no '{by}' of {SPLIT} images of '{sweep.dataset}': {why}.")


def _of_no_split(by: str, dataset: str) -> UsageError:
    said = f"'{by}' of '{dataset}' is of pictures that are drawn from its factors, the same for every split"
    return UsageError(f"{said}: it has no number of {SPLIT} images alone.")


def check_models(cells: Iterable[Planned], places: Places) -> None:
    """Raise `UsageError` where a cell has its record and no model any more: it would not be trained again."""
    from zoo.runs.folder import finished

    for planned in cells:
        folder = places.run(planned.cell)
        if matrix.done(planned, places) and not finished(folder):
            said = f"{planned.cell.stem} has a record in {places.records}, and {folder} does not hold its model"
            raise UsageError(f"{said}: --runs says where it is, and with another --board it is trained again.")


# ---- measured on validation images ----------------------------------------------------------------------------------


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


# ---- chosen ---------------------------------------------------------------------------------------------------------


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
        found = [column for column in ranked if _means(by, column.metric)]
        whole = {column.metric.removesuffix(ALL) for column in found if column.metric.endswith(ALL)}
        found = [column for column in found if column.metric not in whole]
    names = list(dict.fromkeys(column.metric for column in found))
    if len(names) > 1:
        raise UsageError(f"'{by}' is one of several numbers of {sweep.variant}: give {' or '.join(names)}.")
    if not found:
        reasons = [said for name, said in table.skipped.items() if explains(name, by)]
        there = listed(list(dict.fromkeys(column.metric for column in ranked)))
        why = "; ".join(reasons[0]) if reasons else f"measured are {there}"
        raise _lacking(by, sweep, why)
    if len(found) > 1:
        raise UsageError(f"the values of {sweep.variant} have a '{names[0]}' each that was measured otherwise: none is "
                         "the better.")  # fmt: skip
    (column,) = found
    if dict(column.identity).get("split") != SPLIT:
        raise _of_no_split(by, sweep.dataset)
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
    if not (number.has_error and first.has_error):
        return NO_ERROR
    paired = paired_errors(best.row.done, value.row.done, files).get(column.metric)
    return WORSE if differ(first, number, paired) else TIE


# ---- written and read -----------------------------------------------------------------------------------------------


def content(choices: Sequence[Choice], by: str, command: str) -> dict[str, Any]:
    """What was chosen as plain values: the file that ``--out`` writes."""
    return {"kind": KIND, "schema": 1, "by": by, "command": command, "choices": [_plain(one) for one in choices]}


def _plain(one: Choice) -> dict[str, Any]:
    chosen = one.chosen
    return {
        "suite": one.group, "dataset": one.dataset, "variant": one.variant, "metric": one.column.metric,
        "unit": one.column.unit, "better": one.column.better, "identity": dict(one.column.identity),
        "images": one.images, "tried": len(one.values),
        "values": [
            {
                "setting": value.setting, "verdict": value.verdict, "seeds": value.asked,
                "validation": _estimate(value.validation), "lost": [_lost(made) for made in value.lost],
                "evaluations": [str(path) for path in value.files],
            }
            for value in one.values
        ],
        "chosen": None if chosen is None else chosen.setting,
        "test": None if chosen is None else _estimate(chosen.test),
        "records": [] if chosen is None else [record_name(made) for made in chosen.records],
        "chosen_on_test": one.on_test and {"setting": one.on_test.setting, "test": _estimate(one.on_test.test)},
    }  # fmt: skip


def _estimate(one: Estimate | None) -> dict[str, Any] | None:
    return one and {
        "value": one.value, "stderr": one.stderr, "n": one.n, "seeds": one.seeds, "spread": one.spread,
        "runs": list(one.runs),
    }  # fmt: skip


def _lost(made: Record) -> dict[str, Any]:
    return {"seed": made.cell.seed, "status": made.status, "reason": made.reason}


def check_free(path: Path) -> None:
    """Raise `UsageError` where ``path`` holds anything but a choice."""
    if os.path.lexists(path):
        read(path)


def write(found: Mapping[str, Any], path: Path) -> None:
    """Write what was chosen, whole or not at all. A file that holds the same stays, whatever the command was; one of
    the same choice that lacked runs which were lost is written anew; `UsageError` where it holds another choice, which
    is not written over."""
    text = pretty(found) + "\n"
    now, before = json.loads(text), read(path) if os.path.lexists(path) else None
    if before is not None and before | {"command": ""} == now | {"command": ""}:
        return
    if before is not None and not (_lacks_runs(before) and _asked(before) == _asked(now)):
        raise UsageError(f"{path} holds another choice, and is not written over: give another --out.")
    atomic_write(path, text)


def _asked(found: Mapping[str, Any]) -> Any:
    # What a choice is among, whatever came of it; None of a file that somebody changed.
    try:
        return found["by"], [
            (one["suite"], one["dataset"], one["variant"], [(each["setting"], each["seeds"]) for each in one["values"]])
            for one in found["choices"]
        ]
    except (KeyError, TypeError):
        return None


def _lacks_runs(found: Mapping[str, Any]) -> bool:
    return _asked(found) is not None and any(value.get("lost") for one in found["choices"] for value in one["values"])


def read(path: Path) -> dict[str, Any]:
    """The choice in a file of at most 5 MB; `UsageError` where it holds anything else."""
    try:
        found = content_of(path, KIND)
    except ZooError as error:
        raise UsageError(f"{str(error).rstrip('.')}.") from None
    if not isinstance(found, dict) or (found.get("kind"), found.get("schema")) != (KIND, 1):
        raise UsageError(f"{path} is not what `zoo choose --out` writes.")
    return found


def record_name(made: Record) -> str:
    """Where a record lies below the folder of records, as the file of a choice names it."""
    return path_of(made.cell, "").as_posix()


def chosen_in(path: Path) -> set[str]:
    """The records of the cells that were chosen, as they lie below the folder of records."""
    choices = read(path).get("choices")
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise UsageError(f"{path} is not what `zoo choose --out` writes.")
    names = [one.get("records") for one in choices]
    if not all(isinstance(some, list) for some in names):
        raise UsageError(f"{path} is not what `zoo choose --out` writes.")
    return {str(name) for some in names for name in some}
