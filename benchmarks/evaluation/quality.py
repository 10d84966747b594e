"""How good the pictures of a run are: samples against real images in the features that apply, and reconstructions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.catalogue import distance_of
from benchmarks.evaluation.representation import once
from benchmarks.interrupt import stoppable
from benchmarks.metrics.codes import Undefined
from benchmarks.metrics.features import in_range
from benchmarks.pictures import CHANNELS, generate
from zoo.config import EvaluateConfig
from zoo.data.batches import Batches
from zoo.data.images import DataSpec
from zoo.runs import Run
from zoo.runs.images import load_grey

if TYPE_CHECKING:
    from benchmarks.metrics.extractors import Extractor

RECONSTRUCTION = ("psnr", "ssim")
Metrics = dict[str, dict[str, Any]]
Maker = Callable[[str], "Extractor"]


def maker(device: torch.device) -> Maker:
    """What makes an extractor by its name, each once: who asks again is given the same one."""
    from benchmarks.metrics.extractors import make_extractor

    return functools.cache(lambda name: make_extractor(name, device))


def sample_quality(
    run: Run, only: str | None = None, parts: Path | None = None, made: Maker | None = None
) -> tuple[Metrics, dict[str, str]]:
    """Metrics and skipped metrics for ``evaluate.quality_samples`` samples of the run; ``only`` those of the extractor
    that the metric of this name stands for, if one is given. ``parts`` is a folder to go on from, see `image_quality`;
    ``made`` makes the extractors.

    The reference is the grey images of the split: samples are means of p(x | z), which are grey too. Samples and
    reference have as many images as the smaller of the two.
    """
    config = run.config.evaluate
    left, skipped = wanted(config, run.images.spec, run.compute.device)
    if only is not None:
        left = {extractor: name for extractor, name in left.items() if name == only}
        skipped = {name: reason for name, reason in skipped.items() if name == only}
    if not left:
        return {}, skipped
    try:
        real = reference(run)
    except Undefined as reason:
        return {}, skipped | dict.fromkeys(left.values(), str(reason))
    from benchmarks.metrics.quality import image_quality

    made = made or maker(run.compute.device)
    fake = generate(run.model, min(config.quality_samples, len(real)), config.seed, run.compute.device)
    metrics: Metrics = {}
    for extractor in left:
        metrics |= image_quality(fake, real, made(extractor), f"{run.images.name}-{config.split}", config.split, parts)
    return metrics, skipped


def reference(run: Run) -> Tensor:
    """The grey images (n, C, H, W) of the split that samples are compared with. Raises `Undefined` where they cannot be
    compared."""
    from benchmarks.metrics.quality import FEWEST

    config = run.config.evaluate
    shown = load_grey(run.config)[config.split]
    real = (once(shown) if config.split == "train" else shown).pixels[: config.quality_samples]
    if len(real) < FEWEST:
        raise Undefined(f"needs at least {FEWEST} images, and there are {len(real)}")
    if real.is_floating_point() and not in_range(real):
        raise Undefined("real data that leaves [0, 1] has no bytes to compare samples with")
    return real


def wanted(config: EvaluateConfig, spec: DataSpec, device: torch.device) -> tuple[dict[str, str], dict[str, str]]:
    """The extractors whose features are to be compared, each with the metric that stands for it, and such metrics of
    the others with the reason why not. That of Inception speaks for its bfloat16 as well, which is left out where it
    was not asked for."""
    grey = spec.shape[0] == 1
    digits = None if spec.shape == (1, 28, 28) else "needs 1x28x28 images"
    colour = "needs colour images" if grey else None
    if config.inception == "yes" or (config.inception == "auto" and device.type == "cuda"):
        heavy = None
    elif config.inception == "bf16":
        heavy = "measured in bfloat16"
    elif config.inception == "auto":
        heavy = "no GPU; --set evaluate.inception=yes asks for it"
    else:
        heavy = "switched off"
    reasons: dict[str, str | None] = {"digits": digits, "efficientnet_lite0": colour, "inception": heavy}
    if not config.quality_samples:
        reasons = dict.fromkeys(reasons, "evaluate.quality_samples is 0")
    elif spec.shape[0] not in CHANNELS:
        reasons = dict.fromkeys(reasons, "needs images of 1 or 3 channels")
    elif config.inception == "bf16":
        reasons["inception_bf16"] = None
    left = {extractor: distance_of(extractor) for extractor, reason in reasons.items() if reason is None}
    return left, {distance_of(extractor): reason for extractor, reason in reasons.items() if reason is not None}


@torch.no_grad()
def reconstruction(run: Run, batches: Batches) -> tuple[Metrics, dict[str, str]]:
    """PSNR and SSIM of the reconstructions of the first ``evaluate.quality_samples`` images of the split."""
    from benchmarks.metrics.reconstruction import reconstruction_quality

    config = run.config.evaluate
    if reason := lacking(config, run.images.spec):
        return {}, dict.fromkeys(RECONSTRUCTION, reason)
    shown, rebuilt = [], []
    for _, x, y in stoppable(batches.sequential()):
        shown.append(x)
        rebuilt.append(run.model.reconstruct(x, y).clamp(0, 1))
        if sum(map(len, shown)) >= config.quality_samples:
            break
    found = reconstruction_quality(*(torch.cat(parts)[: config.quality_samples] for parts in (shown, rebuilt)))
    for metric in found.values():
        metric["identity"] = metric["identity"] | {"split": config.split}
    return found, {}


def lacking(config: EvaluateConfig, spec: DataSpec) -> str | None:
    """Why reconstructions are not measured; None where they are."""
    from benchmarks.metrics.reconstruction import WINDOW

    if not config.quality_samples:
        return "evaluate.quality_samples is 0"
    if spec.support == "real":
        return "real data has no range to measure against"
    return f"needs images of at least {WINDOW}x{WINDOW}" if min(spec.shape[1:]) < WINDOW else None
