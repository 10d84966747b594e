"""What came too dear, or came later than its cell, measured afterwards on the model that the cell kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import environment, matrix, record
from benchmarks.catalogue import DISTANCES, EX_POST
from benchmarks.interrupt import stopping_when
from benchmarks.record import Record
from zoo.errors import UsageError

PARTS = "features"


@dataclass(frozen=True)
class Addable:
    """What can be added to a finished cell: ``asked``, the settings of `evaluate` that ask for it, and ``signs``, the
    metrics or pictures of which a record has one once it was added."""

    asked: dict[str, Any]
    signs: tuple[str, ...]

    def there(self, made: Record) -> bool:
        """Whether the record has it."""
        return any(sign in made.metrics or sign in made.figures for sign in self.signs)


ADDABLE = {
    "fid": Addable({"inception": "yes"}, ("fid",)),
    "fid_bf16": Addable({"inception": "bf16"}, ("fid_bf16",)),
    "latent": Addable({"latent": "yes"}, ("tsne",)),
    "ex_post": Addable({"ex_post": 10}, tuple(name + EX_POST for name in DISTANCES)),
    "fid_ex_post": Addable({"ex_post": 10, "inception": "yes"}, ("fid_ex_post",)),
    "fid_bf16_ex_post": Addable({"ex_post": 10, "inception": "bf16"}, ("fid_bf16_ex_post",)),
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
        UsageError: the cell is not done, or its trained model is neither here nor there.
        Busy: another process is at that cell.
        Stopped: ``should_stop`` said so; the features there are by then are kept for the next call.
    """
    from zoo.runs import exported_run, train_run
    from zoo.runs.folder import CELL_LOCK, finished, locked

    environment.at_start()
    cell, folder = planned.cell, places.run(planned.cell)
    made = matrix.done(planned, places)
    if made is None:
        raise UsageError(f"{cell.stem} is not done yet; `{planned.command}` runs it.")
    if ADDABLE[metric].there(made):
        return made
    if not finished(folder) and weights is None:
        raise UsageError(f"{folder} does not hold the trained model of {cell.stem}; --runs says where it is.")
    with locked(folder, CELL_LOCK):
        made = matrix.done(planned, places) or made  # as whoever had the lock before left it
        if ADDABLE[metric].there(made):
            return made
        if exported := not finished(folder):
            run = exported_run(weights / cell.variant, planned.config, compute)
        else:
            run = train_run(planned.config, folder, compute)
        asked = run.config.evaluate.model_copy(update=ADDABLE[metric].asked)
        run.config = run.config.model_copy(update={"evaluate": asked})
        run.model.eval()
        with stopping_when(should_stop):
            found = _measured(run, metric, folder / PARTS)
        metrics = {name: entry for name, entry in found.metrics.items() if name not in made.metrics}
        skipped = {name: reason for name, reason in found.skipped.items() if name not in made.metrics}
        commit, dirty = environment.at_start()
        at = f" at {commit[:7]}{' (dirty)' if dirty else ''}" if commit else ""
        said = f"added by `{command}`{at}" + (" to the exported model" if exported else "")
        for entry in metrics.values():
            entry["note"] = "; ".join(part for part in (entry["note"], said) if part)
        content = made.model_dump(by_alias=True)
        content["metrics"] |= metrics
        content["skipped"] = {
            name: reason
            for name, reason in (content["skipped"] | skipped).items()
            if name not in (*metrics, *found.pictures)
        }
        content["figures"] |= matrix.draw(planned, found.pictures, places)
        amended = record.parse(content, f"the record of {cell.stem}")
        record.write(amended, places.records)
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        return amended


def _measured(run: Any, metric: str, parts: Any) -> Any:
    from benchmarks.evaluate import Evaluation, latent_space
    from benchmarks.evaluation.ex_post import ex_post
    from benchmarks.evaluation.quality import sample_quality

    if metric == "latent":
        return latent_space(run)
    if metric.endswith("ex_post"):
        return Evaluation(*ex_post(run, parts))
    metrics, skipped = sample_quality(run, only=metric, parts=parts)
    return Evaluation(metrics, skipped)
