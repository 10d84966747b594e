"""One run of its own, outside of any suite: a folder with the model, its pictures and its record. Under `torchrun` all
processes train it together."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import matrix, record
from benchmarks.matrix import Planned
from benchmarks.record import Record
from zoo.config import RunConfig, check_model
from zoo.errors import UsageError

RECORD = "record.json"


def planned(config: RunConfig, settings: tuple[str, ...]) -> Planned:
    """The run as a cell of the suite ``run``, with the command that makes it."""
    words = ["zoo", "train", config.variant, "--data", config.data.asked, "--seed", str(config.seed)]
    words += [word for text in settings for word in ("--set", text)]
    return Planned(record.cell_of(config, "run", "1"), config, shlex.join(words))


def finished(folder: Path, config: RunConfig) -> Record | None:
    """The record of the run if it is done; a failed one is tried again, as is one whose weights were removed.

    Raises:
        UsageError: the folder holds another run, or there are no such settings.
        ZooError: its record cannot be read.
    """
    from zoo import runs

    path = folder / RECORD
    if not path.exists():
        return None
    made = record.read(path)
    if made.cell.key != record.cell_key(config.identity()):
        check_model(config)  # one that is misspelt makes another run as well
        raise UsageError(f"{folder} holds another run ({made.command}); give another --out.")
    if made.status != "done" or not runs.finished(folder):
        return None
    matrix.clear(folder)  # of whoever was killed before it came to that
    return made


def talks() -> bool:
    """Whether this process, where it is one of several, is the one that says what came of the run."""
    from zoo.training.distributed import asked_for

    return asked_for().first


def run(planned: Planned, folder: Path, device: str, observe: Callable[[Planned], Any]) -> Record | None:
    """Train, evaluate and record, however it ends; None on all processes of several but the first.

    Raises:
        UsageError: what was asked for cannot be trained: that is no result, and nothing is recorded.
        Stopped: the user asked for it.
    """
    from benchmarks.interrupt import graceful
    from benchmarks.partial import forget
    from benchmarks.report.figures import grid
    from zoo.files import atomic_write
    from zoo.runs import train_run
    from zoo.runs.folder import CELL_LOCK, locked
    from zoo.training.distributed import asked_for, joined
    from zoo.training.precision import choose

    if asked_for().size > 1 and device in ("auto", "cuda"):
        import torch

        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    compute = choose(device, planned.config.train.precision)

    def finish(content: dict[str, Any], found: Any) -> None:
        for name, images in found.pictures.items():
            grid(images, folder / f"{name}.png", columns=8)

    # Joined first: whoever waits for the others hears nothing, and would not stop for want of a next step.
    with joined(compute.device) as world, graceful() as should_stop:
        if not world.first:
            train_run(planned.config, folder, compute, (), should_stop, world)
            return None
        with locked(folder, CELL_LOCK):
            outcome, _ = matrix.outcome_of(
                planned, planned.config, folder, compute, observe, should_stop, finish, world, (UsageError,)
            )
            made = matrix.make_record(planned, compute, outcome)
            atomic_write(folder / RECORD, record.dump(made))
            forget(folder)
    return made
