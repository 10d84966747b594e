"""What there is to choose among, and whether it can be chosen: asked before anything is trained."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import matrix
from benchmarks.catalogue import ALL, COSTS, DENSITIES, DISENTANGLEMENT, METRICS, begins_with, explains
from benchmarks.matrix import Places, Planned
from benchmarks.report.notation import listed
from benchmarks.suite import Suite, Sweeps, check_sweeps, swept
from zoo.errors import UsageError, unknown
from zoo.registry import registry

if TYPE_CHECKING:
    from zoo.data.images import ImageSet

SPLIT = "validation"


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


def plan(
    suite: Suite,
    variants: Sequence[str],
    datasets: Sequence[str],
    seeds: Sequence[int],
    sweeps: Sweeps,
) -> list[Sweep]:
    """The cells to choose among, variant by variant on each data set.

    Args:
        variants: names; none is those that ``sweeps`` names, with those of the suite where it has one for all.
        datasets, seeds: none is those of the suite.
        sweeps: the values. A variant without any has those of the suite, and one value where that has none.

    Raises:
        UsageError: there is nothing to choose among, or what is swept makes no other model; or as `matrix.plan`.
    """
    known = registry().variant
    own = {known(name)[0]: values for name, values in sweeps.items() if name is not None}
    usual = sweeps.get(None, ())
    given = variants or [*own, *(suite.variants if usual or not own else ())]
    names = list(dict.fromkeys(known(name)[0] for name in given))
    check_sweeps(own, names)
    sweeps_of: dict[tuple[str, str], Sweep] = {}
    for dataset in datasets or suite.datasets:
        for name in names:
            asked = {name: own.get(name, usual)}
            cells = matrix.plan(suite, (name,), (dataset,), tuple(seeds), asked)
            settings = swept(name, asked, suite.sweeps)
            _check_swept(settings)
            # Seeds are outermost: each of them has every value, in their order.
            values = {setting or "": cells[i :: len(settings)] for i, setting in enumerate(settings)}
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


def _check_swept(settings: Iterable[str | None]) -> None:
    for setting in filter(None, settings):
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
    known = [one for one in METRICS if one.matches(by)] or [one for one in METRICS if means(by, one.name)]
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
            raise of_no_split(by, name)
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
        known = [one for one in METRICS if one.matches(by)] or [one for one in METRICS if means(by, one.name)]
        meant = [one.name for one in known if one.better]
        why = [next((lacks[name] for name in lacks if explains(name, metric)), "") for metric in meant]
        if not all(why):
            return
        reasons += why or ["it measures no such thing"]
    raise lacking(by, sweep, reasons[0])


def means(by: str, metric: str) -> bool:
    """Whether ``by`` is a metric's name or how it begins; a distance by one density of codes is none by another."""
    return metric == by or (begins_with(metric, by) and not by.endswith(DENSITIES))


def lacking(by: str, sweep: Sweep, why: str) -> UsageError:
    return UsageError(f"{sweep.variant} has no '{by}' of {SPLIT} images of '{sweep.dataset}': {why}.")


def of_no_split(by: str, dataset: str) -> UsageError:
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
