"""Disentanglement of a run's codes, where its data has factors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.catalogue import listed
from benchmarks.evaluation.representation import LEARNT_FROM
from benchmarks.interrupt import stoppable
from benchmarks.metrics.features import Estimate, entry
from zoo.config import EvaluateConfig
from zoo.data.batches import dequantised, floats
from zoo.data.images import Images
from zoo.models.base import VAE
from zoo.runs import Run

ROWS = 1024
#: Every number of a code is scored against every factor by a classifier of its own: maps of codes would take hours.
LARGEST = 512


def disentanglement(run: Run) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Metrics and skipped metrics in the record's format.

    Where the pictures can be drawn from chosen factors, codes are those of factors drawn at random, and the scores
    that intervene are measured too; elsewhere they are those of the training and the evaluated split. Classes alone
    are not factors: a code that separates ten digits is not thereby disentangled.
    """
    from benchmarks.metrics.codes import Codes, FactorSpace, Undefined
    from benchmarks.metrics.disentanglement import score_codes, score_space

    config, images = run.config.evaluate, run.images
    shown = images[config.split]
    if reason := lacking(config, run.model, shown):
        return {}, {"disentanglement": reason}
    dimensions = _represent(run, shown.pixels[:1]).shape[1]
    if dimensions > LARGEST:
        return {}, {"disentanglement": f"needs a code of at most {LARGEST} numbers, and this one has {dimensions}"}
    n_train = config.factor_images
    n_test = max(2, n_train // 2)
    of: dict[str, Any] = {"factor_kind": shown.factor_kind}
    try:
        if images.render is not None:
            space = FactorSpace(shown.factor_sizes, shown.factor_names, lambda factors: _drawn(run, factors))
            scores = score_space(space, seed=config.seed, n_train=n_train, n_test=n_test, strict=False)
        else:
            if config.split == "train":
                raise Undefined(LEARNT_FROM)
            train, test = images["train"].subset(n_train), shown.subset(n_test)
            varying = (train.factors != train.factors[0]).any(0)
            if not varying.any():
                raise Undefined(f"needs a factor that varies, and none does in {len(train)} training images")
            names = [name for name, kept in zip(shown.factor_names, varying.tolist(), strict=True) if kept]
            factors = [part.factors[:, varying].numpy() for part in (train, test)]
            codes = Codes(_codes(run, train), factors[0], _codes(run, test), factors[1], names)
            scores = score_codes(codes, strict=False)
            of |= {} if config.split == "test" else {"split": config.split}  # as the first records have it
    except Undefined as reason:
        return {}, {"disentanglement": str(reason)}
    metrics = {}
    for name, value in scores.items():
        known, identity = listed(name), scores.identity[name]
        metrics[name] = entry(Estimate(value, None, identity[known.over]), known.better, identity | of)
    return metrics, scores.skipped


def lacking(config: EvaluateConfig, model: VAE, shown: Images) -> str | None:
    """Why the codes of a model have no scores on images that are ``shown`` to it; None where they may have."""
    if shown.factors is None:
        return "needs factors"
    if model.conditional:
        return "needs a code of the image alone, and this model is told the condition"
    return None if config.factor_images else "evaluate.factor_images is 0"


def _drawn(run: Run, factors: np.ndarray) -> np.ndarray:
    return _represent(run, run.images.observe(factors))


def _codes(run: Run, images: Images) -> np.ndarray:
    # The training split of a set that is binarised anew at each visit holds grey bytes: a code is that of one drawing.
    pixels = images.pixels
    if run.images.binarise == "dynamic" and not _is_binary(pixels):
        generator = torch.Generator().manual_seed(run.config.evaluate.seed)
        drawn = torch.rand(pixels.shape, generator=generator) * 255 < pixels
        pixels = drawn.to(torch.uint8) * 255
    return _represent(run, pixels)


@torch.no_grad()
def _represent(run: Run, pixels: Tensor) -> np.ndarray:
    # Of dequantised bytes the middle of the noise: a code that is scored is one of the picture alone.
    noisy, parts = run.images.spec.support == "dequantised", []
    for part in stoppable(pixels.split(ROWS)):
        placed = part.to(run.compute.device)
        x = dequantised(placed.float(), 0.5) if noisy else floats(placed)
        parts.append(run.model.represent(x).float().flatten(1).cpu())
    return torch.cat(parts).numpy()


def _is_binary(pixels: Tensor) -> bool:
    return bool(((pixels == 0) | (pixels == 255)).all())
