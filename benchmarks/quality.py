"""How good the samples of a run are: generate once, compare with the real images in the features that apply."""

from __future__ import annotations

from typing import Any

import torch

from zoo.config import EvaluateConfig
from zoo.data.images import DataSpec
from zoo.runs import Run, load_grey


def sample_quality(run: Run) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Metrics and skipped metrics for ``evaluate.quality_samples`` samples of the run.

    The reference is the grey images of the split: samples are means of p(x | z), which are grey too.
    """
    config: EvaluateConfig = run.config.evaluate
    if not config.quality_samples:
        return {}, {"fd_digits": "evaluate.quality_samples is 0", "fid": "evaluate.quality_samples is 0"}
    from benchmarks.evaluate import generate
    from benchmarks.metrics.extractors import extractor
    from benchmarks.metrics.quality import image_quality

    metrics, skipped = {}, {}
    fake = real = None
    for name, reason in wanted(config, run.images.spec, run.compute.device).items():
        if reason:
            skipped[name] = reason
            continue
        if fake is None:
            fake = generate(run.model, config.quality_samples, config.seed, run.compute.device)
            real = load_grey(run.config)[config.split]
        found = image_quality(
            fake,
            real.pixels,
            extractor("digits" if name == "fd_digits" else "inception", run.compute.device),
            cache_key=f"{real.sha256}",
            split=config.split,
        )
        metrics |= found
    return metrics, skipped


def wanted(config: EvaluateConfig, spec: DataSpec, device: torch.device) -> dict[str, str | None]:
    """For each family of sample metrics, None if it is to be measured, else the reason why not."""
    digits = None if spec.shape == (1, 28, 28) else "needs 1x28x28 images"
    if config.inception == "yes" or (config.inception == "auto" and device.type == "cuda"):
        inception = None
    else:
        inception = "no GPU; ask with --set evaluate.inception=yes" if config.inception == "auto" else "switched off"
    return {"fd_digits": digits, "fid": inception}
