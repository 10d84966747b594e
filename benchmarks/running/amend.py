"""What came too dear, or came later than its cell, measured afterwards on the model that the cell kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import environment, matrix, record
from benchmarks.interrupt import stopping_when
from benchmarks.record import Record
from zoo.errors import UsageError

PARTS = "features"


@dataclass(frozen=True)
class Addable:
    """What can be added to a finished cell: ``asked``, the settings of `evaluate` that ask for it, and ``sign``, the
    metric or picture that a record has once it was added."""

    asked: dict[str, str]
    sign: str


ADDABLE = {
    "fid": Addable({"inception": "yes"}, "fid"),
    "fid_bf16": Addable({"inception": "bf16"}, "fid_bf16"),
    "latent": Addable({"latent": "yes"}, "tsne"),
}


def amend(
    planned: matrix.Planned,
    places: matrix.Places,
    compute: Any,
    metric: str,
    command: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> Record:
    """Measure ``metric`` (one of `ADDABLE`, with the metrics that come of the same features or codes, and the pictures
    of codes) on the finished run of a cell, and write them into its record, each with a note of the ``command``. A
    record that has it is left alone.

    Raises:
        UsageError: the cell is not done, or its trained model is not in ``places.runs``.
        Busy: another process is at that cell.
        Stopped: ``should_stop`` said so; the features there are by then are kept for the next call.
    """
    from zoo.runs import train_run
    from zoo.runs.folder import CELL_LOCK, finished, locked

    environment.at_start()
    cell, folder = planned.cell, places.run(planned.cell)
    made = matrix.done(planned, places)
    if made is None:
        raise UsageError(f"{cell.stem} is not done yet; `{planned.command}` runs it.")
    if ADDABLE[metric].sign in (*made.metrics, *made.figures):
        return made
    if not finished(folder):
        raise UsageError(f"{folder} does not hold the trained model of {cell.stem}; --runs says where it is.")
    with locked(folder, CELL_LOCK):
        made = matrix.done(planned, places) or made  # as whoever had the lock before left it
        if ADDABLE[metric].sign in (*made.metrics, *made.figures):
            return made
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
        for entry in metrics.values():
            entry["note"] = "; ".join(part for part in (entry["note"], f"added by `{command}`{at}") if part)
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
    from benchmarks.evaluation.quality import sample_quality

    if metric == "latent":
        return latent_space(run)
    metrics, skipped = sample_quality(run, only=metric, parts=parts)
    return Evaluation(metrics, skipped)
