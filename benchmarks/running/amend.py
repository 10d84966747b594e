"""What came too dear, or came later than its cell, measured afterwards on the model that the cell kept."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import environment, matrix, per_example, record
from benchmarks.catalogue import ALL, ANNEALED, DISTANCES, EX_POST, EX_POST_FLOW, GAPS
from benchmarks.record import Record
from zoo.errors import UsageError
from zoo.files import check_writable
from zoo.stopping import stopping_when

PARTS = "features"
OF_VALUES = "nll_all"
RATES = "rates"


@dataclass(frozen=True)
class Addable:
    """What can be added to a finished cell: ``asked``, the settings of `evaluate` that ask for it, and ``signs``, the
    metrics, pictures or (`RATES`) other parts of which a record has one once it was added."""

    asked: dict[str, Any]
    signs: tuple[str, ...]

    def there(self, made: Record, folder: Path) -> bool:
        """Whether the record of the run in ``folder`` has it. Pictures of private data lie there alone, and the record
        says no more than that they are not skipped."""
        recorded = {*made.metrics, *made.figures, *([RATES] if made.rates else [])}
        drawn = {sign for sign in self.signs if sign not in made.skipped and (folder / f"{sign}.png").exists()}
        return not recorded.isdisjoint(self.signs) or bool(drawn)


# What asks for one density alone: a cell that asks for both has that of the other already.
MIXTURE, FLOW = {"ex_post": 10, "ex_post_flow": 0}, {"ex_post": 0, "ex_post_flow": 5}
ADDABLE = {
    "fid": Addable({"inception": "yes"}, ("fid",)),
    "fid_bf16": Addable({"inception": "bf16"}, ("fid_bf16",)),
    "latent": Addable({"latent": "yes"}, ("tsne",)),
    "clusters": Addable({"clustering": True}, ("cluster_accuracy", "choice_accuracy")),
    "ex_post": Addable(MIXTURE, tuple(name + EX_POST for name in DISTANCES)),
    "ex_post_flow": Addable(FLOW, tuple(name + EX_POST_FLOW for name in DISTANCES)),
    "ais": Addable({"ais": 100}, ANNEALED),
    OF_VALUES: Addable({}, ()),
    "gaps": Addable({"gaps": 100}, GAPS),
    RATES: Addable({}, (RATES,)),
    "fid_ex_post": Addable(MIXTURE | {"inception": "yes"}, ("fid_ex_post",)),
    "fid_bf16_ex_post": Addable(MIXTURE | {"inception": "bf16"}, ("fid_bf16_ex_post",)),
    "fid_ex_post_flow": Addable(FLOW | {"inception": "yes"}, ("fid_ex_post_flow",)),
    "fid_bf16_ex_post_flow": Addable(FLOW | {"inception": "bf16"}, ("fid_bf16_ex_post_flow",)),
}


def amend(
    planned: matrix.Planned,
    places: matrix.Places,
    compute: Any,
    metric: str,
    command: str,
    should_stop: Callable[[], bool] = lambda: False,
    weights: Path | None = None,
) -> Record:
    """Measure ``metric`` (one of `ADDABLE`, with the metrics that come of the same features or codes, and the pictures
    of codes) on the finished run of a cell, and write them into its record, each with a note of the ``command``. A
    record that has it is left alone. Where the run is not in ``places.runs`` its model is that of its variant in
    ``weights``, a folder of what `zoo export` left.

    Raises:
        UsageError: the cell is not done, or its trained model is neither here nor there, or is of another training
            than its record; or the record cannot be written.
        Busy: another process is at that cell.
        Stopped: ``should_stop`` said so; the features and gaps there are by then are kept for the next call.
    """
    from zoo.runs.folder import CELL_LOCK, finished, locked

    environment.at_start()
    cell, folder = planned.cell, places.run(planned.cell)
    made = matrix.done(planned, places)
    if made is None:
        raise UsageError(f"{cell.stem} is not done yet; `{planned.command}` runs it.")
    if ADDABLE[metric].there(made, folder):
        return made
    if metric != OF_VALUES and not finished(folder) and weights is None:
        raise UsageError(f"{folder} does not hold the trained model of {cell.stem}; --runs says where it is.")
    check_writable(places.records)
    with locked(folder, CELL_LOCK):
        made = matrix.done(planned, places) or made  # as whoever had the lock before left it
        if ADDABLE[metric].there(made, folder):
            return made
        if metric == OF_VALUES:
            return _with(made, _of_all(made, places), planned, places, command)
        exported = None if finished(folder) else weights / cell.variant
        run = _kept(made, planned, folder, exported, compute)
        asked = run.config.evaluate.model_copy(update=ADDABLE[metric].asked)
        run.config = run.config.model_copy(update={"evaluate": asked})
        run.model.eval()
        parts = folder / PARTS / metric  # its own: another metric that was stopped goes on from what it has
        with stopping_when(should_stop):
            found = _measured(run, metric, parts, exported or folder)
        amended = _with(made, found, planned, places, command, " to the exported model" if exported else "")
        shutil.rmtree(parts, ignore_errors=True)
        return amended


def _kept(made: Record, planned: matrix.Planned, folder: Path, exported: Path | None, compute: Any) -> Any:
    """The run that the record is of, as its folder has it, or the one that `zoo export` left in ``exported``."""
    from zoo.runs import exported_run, train_run

    if exported is None:
        run = train_run(planned.config, folder, compute)
    else:
        run = exported_run(exported, planned.config, compute)
    # How long a training took is the same in no other one, though it be of the same settings.
    recorded, kept = made.model_dump(by_alias=True)["train"], asdict(run.result)
    other = any(kept[name] != value for name, value in recorded.items() if name in kept)
    if other or made.data.sha256 != run.images.sha256:
        place = exported or folder
        raise UsageError(f"{place} holds the model of another training than that of the record of {made.cell.stem}.")
    return run


def _with(
    made: Record, found: Any, planned: matrix.Planned, places: matrix.Places, command: str, of: str = ""
) -> Record:
    """The record with what was ``found`` (a `benchmarks.evaluate.Evaluation`) and it lacks, written if that is
    anything, after the values of its images (`benchmarks.per_example.add`); each metric, and each rate of a group, has
    a note of the command."""
    commit, dirty = environment.at_start()
    at = f" at {commit[:7]}{' (dirty)' if dirty else ''}" if commit else ""
    content, added = made.model_dump(by_alias=True), f"added by `{command}`{at}{of}"
    for name, entry in found.metrics.items():
        note = "; ".join(part for part in (entry["note"], added) if part)
        content["metrics"].setdefault(name, entry | {"note": note})
    content["rates"] = content["rates"] or [one | {"note": added} for one in found.rates]
    here = {*content["metrics"], *found.pictures}
    skipped = content["skipped"] | found.skipped
    content["skipped"] = {name: reason for name, reason in skipped.items() if name not in here}
    content["figures"] |= matrix.draw(planned, found.pictures, places)
    amended = record.parse(content, f"the record of {made.cell.stem}")
    if amended != made:
        new = {name: each for name, each in found.per_example.items() if name not in made.metrics}
        per_example.add(new, made.cell, places.records)
        record.write(amended, places.records)
    return amended


def _of_all(made: Record, places: matrix.Places) -> Any:
    # Of what the record's examples came to: no model is needed.
    from torch import from_numpy

    from benchmarks.evaluate import Evaluation
    from benchmarks.metrics.features import entry, mean_and_error

    values = per_example.read(made, places.records)
    found = {}
    for name, metric in made.metrics.items():
        if not (re.fullmatch(r"nll_iwae_\d+", name) and 1 < metric.n < made.metrics["elbo"].n):
            continue
        if not {name, "elbo"} <= values.keys():
            raise UsageError(f"{made.cell.stem} has no values of its images beside its record, which {name} comes of.")
        each = -per_example.of_all(values["elbo"], -values[name])
        found[name + ALL] = entry(mean_and_error(from_numpy(each)), "lower", metric.identity, "nats")
    return Evaluation(found)


def _measured(run: Any, metric: str, parts: Path, model: Path) -> Any:
    # ``model`` is the folder that the run's model came from.
    from benchmarks.evaluate import Evaluation, clusters, latent_space, rates
    from benchmarks.evaluation.annealing import annealing
    from benchmarks.evaluation.ex_post import ex_post
    from benchmarks.evaluation.foreseen import unbounded
    from benchmarks.evaluation.inference import inference_gaps
    from benchmarks.evaluation.quality import sample_quality
    from benchmarks.evaluation.representation import batches_of
    from benchmarks.partial import keeping

    if metric == "latent":
        return latent_space(run)
    if metric == "clusters":
        return clusters(run)
    if metric == RATES:
        return rates(run)
    if metric in ("ais", "gaps"):
        measure = annealing if metric == "ais" else inference_gaps
        batches = batches_of(run, run.images[run.config.evaluate.split])
        with keeping(run, model, parts) as partial:
            metrics, skipped, values = measure(run, batches, unbounded(run.model), partial)
            return Evaluation(metrics, skipped, per_example=values)
    if "ex_post" in metric:
        return Evaluation(*ex_post(run, parts))
    return Evaluation(*sample_quality(run, only=metric, parts=parts))
