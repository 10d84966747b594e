"""What a long evaluation has come to so far, in a folder of its run: whoever is killed goes on from there."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import environment
from benchmarks.record import KEPT
from zoo.errors import ZooError
from zoo.files import fingerprint, sha256_file
from zoo.runs import Run
from zoo.runs.folder import MODEL
from zoo.training import checkpoint

VALUES, FEATURES = "values.safetensors", "features"
EVERY = 10.0  # seconds between two writings of what grows


class Partial:
    """Values of examples in their order, by name, as far as an evaluation has come.

    Args:
        folder: where they are; None keeps nothing.
        of: what they depend on. What is there of anything else is removed.
    """

    def __init__(self, folder: Path | None = None, of: str = "") -> None:
        self.folder, self.of = folder, of
        self._parts: dict[str, list[Tensor]] = {}
        self._before = 0.0
        self._began = self._written = time.monotonic()
        if folder is not None and folder.exists():
            self._read(folder)

    @property
    def seconds(self) -> float:
        """What the evaluation has taken so far, in all of its sessions."""
        return self._before + time.monotonic() - self._began

    def values(self, name: str) -> Tensor:
        """(m,) float64 on the CPU, of the first m examples."""
        parts = self._parts.get(name, ())
        return torch.cat(list(parts)) if parts else torch.empty(0, dtype=torch.float64)

    def add(self, name: str, values: Tensor) -> None:
        """Keep (b,) float64 of the next b examples, on disk before long."""
        self._parts.setdefault(name, []).append(values.cpu())
        if time.monotonic() - self._written >= EVERY:
            self.write()

    def features(self) -> Path | None:
        """A folder for features of samples (`Extractor.in_parts`)."""
        if self.folder is None:
            return None
        self.write()  # or nothing would say of what they are
        return self.folder / FEATURES

    def write(self) -> None:
        """Write what there is."""
        if self.folder is not None:
            values = {name: self.values(name) for name in self._parts}
            checkpoint.write(self.folder / VALUES, values, {"of": self.of, "seconds": self.seconds})
            self._written = time.monotonic()

    def _read(self, folder: Path) -> None:
        try:
            values, state = checkpoint.read(folder / VALUES)
        except ZooError:
            values, state = {}, {}
        if state.get("of") != self.of:
            shutil.rmtree(folder, ignore_errors=True)
            return
        self._parts = {name: [each] for name, each in values.items()}
        self._before = float(state["seconds"])


@contextlib.contextmanager
def keeping(run: Run, folder: Path, kept: Path | None = None) -> Iterator[Partial]:
    """The `Partial` of the evaluation of the run in ``folder``, written also where the block is stopped. It stays until
    `forget`: what comes after an evaluation may be killed as well. ``kept`` is where, if not in that folder."""
    partial = Partial(kept or folder / KEPT, _depends_on(run, folder))
    try:
        yield partial
    except BaseException:
        with contextlib.suppress(OSError):  # what ended the block is what is said
            partial.write()
        raise


def forget(folder: Path) -> None:
    """Remove what was kept of the evaluation of the run in ``folder``: a record says how it ended."""
    shutil.rmtree(folder / KEPT, ignore_errors=True)


def _depends_on(run: Run, folder: Path) -> str:
    settings: dict[str, Any] = {
        "config": run.config.identity(),
        "weights": sha256_file(folder / MODEL),
        "data": run.images.sha256,
        "compute": f"{run.compute.device.type} {run.compute.name}",
        "code": environment.at_start(),
        "sources": environment.sources(run.config),
        "versions": environment.versions(),
    }
    return fingerprint(settings)
