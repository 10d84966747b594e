"""`zoo rank RUN RUN ...`: finished runs by UDR, how nearly their codes are those of other seeds of the same settings.

The codes are the posterior means of the same test images, and the KL of a code is that to its prior, averaged over
them. Nothing is recorded: a run has its UDR among the runs that it is given with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.export import record_of
from benchmarks.finished import Finished
from benchmarks.interrupt import stoppable
from benchmarks.metrics import udr
from benchmarks.record import Metric
from zoo.config import DataConfig, RunConfig
from zoo.errors import UsageError
from zoo.files import canonical_json
from zoo.runs.folder import Described, describe_run

IMAGES, SEED = 10_000, 0  # at most, and by which seed they are chosen


@dataclass(frozen=True)
class Ranked(udr.Agreement):
    """A run beside the others of its settings, by their folders; ``mig`` as its record has it."""

    folder: Path
    config: RunConfig
    mig: Metric | None

    def identity(self) -> dict[str, Any]:
        """What its scores must be read with."""
        return {"split": "test", "seed": SEED} | super().identity()


def rank(folders: Sequence[Path], n: int = IMAGES, device: str = "auto", board: Path | None = None) -> list[Ranked]:
    """The runs, those of the highest UDR (Lasso) first, each beside the others of its variant, settings and training.

    Args:
        folders: finished runs on the same data, of each settings two seeds at least.
        n: how many test images, or all of them if there are fewer.
        board: where the record of a suite's run is looked for.

    Raises:
        UsageError: one run alone, or one without another seed of its settings; a run twice; runs on different data; a
            model whose code has no KL by dimension, or is told a condition; codes that are not finite.
        ZooError: a run is not finished, or its files are damaged.
    """
    described = {folder: describe_run(folder) for folder in folders}
    _check_data(described)
    groups = _groups(folders, described)
    coded = {folder: _codes(Finished(folder, device), n) for folder in stoppable(described)}
    found = [one for group in groups for one in _scored(group, described, coded, board)]
    return sorted(found, key=lambda one: -one.scores["lasso"])


def _groups(folders: Sequence[Path], described: dict[Path, Described]) -> list[list[Path]]:
    # By all that training depends on but the seed; that the data are the same is asked by their content.
    if len(folders) < 2:
        raise UsageError("a run is ranked beside other seeds of its settings: give two runs at least.")
    groups: dict[str, dict[int, Path]] = {}
    for folder in folders:
        config = described[folder].config
        told = config.identity()
        group = groups.setdefault(canonical_json({name: told[name] for name in ("variant", "model", "train")}), {})
        if config.seed in group:
            same = f"{config.variant}, seed {config.seed}"
            raise UsageError(f"{group[config.seed]} and {folder} are the same run: {same}.")
        group[config.seed] = folder
    for group in groups.values():
        if len(group) < 2:
            ((seed, folder),) = group.items()
            alone = f"{folder} ({described[folder].config.variant}, seed {seed})"
            raise UsageError(f"{alone} is the only run of its settings here, and UDR needs another seed of them.")
    return [list(group.values()) for group in groups.values()]


def _check_data(described: dict[Path, Described]) -> None:
    (first, ours), *others = described.items()
    for folder, theirs in others:
        if _data(ours) != _data(theirs):
            names = " and ".join(_named(one.config.data) for one in (ours, theirs))
            raise UsageError(f"{first} and {folder} are on different data ({names}): their codes are of other images.")


def _named(data: DataConfig) -> str:
    return f"{data.name}, {data.binarise}" + (", dequantised" if data.dequantise != "none" else "")


def _data(described: Described) -> tuple[str, dict[str, Any]]:
    return described.data_sha256, described.config.data.preparation


@torch.no_grad()
def _codes(run: Finished, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The means (N, D) of the test images and the mean KL (D,) of each dimension."""
    if run.model.conditional:
        raise UsageError(f"{run.folder} has no code of the image alone: {run.described.config.variant} is conditional.")
    means, total = [], 0.0
    for _, x, _ in stoppable(run.test(n, SEED).sequential()):
        q = run.model.diagonal_posterior(x)
        divergence = None if q is None else q.kl(run.model.prior)
        if divergence is None:
            raise UsageError(
                f"{run.folder} has no KL by dimension, which UDR needs: posterior and prior of this "
                f"{run.described.config.variant} are not both diagonal Gaussians."
            )
        means.append(q.centre.cpu().numpy())
        total = total + divergence.double().sum(0).cpu().numpy()
    z = np.concatenate(means)
    return z, total / len(z)


def _scored(
    group: list[Path],
    described: dict[Path, Described],
    coded: dict[Path, tuple[np.ndarray, np.ndarray]],
    board: Path | None,
) -> list[Ranked]:
    codes, kl = zip(*(coded[folder] for folder in group), strict=True)
    found = []
    for folder, agreement in zip(group, udr.agreements(codes, kl, list(map(str, group))), strict=True):
        config = described[folder].config
        found.append(Ranked(**vars(agreement), folder=folder, config=config, mig=_mig(folder, board, config)))
    return found


def _mig(folder: Path, board: Path | None, config: RunConfig) -> Metric | None:
    record = record_of(folder, board, config)
    return None if record is None or record.status != "done" else record.metrics.get("mig")
