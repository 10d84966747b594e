"""How much of its bound a model loses by its encoder, and how much by the family of its posterior."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmarks.catalogue import GAPS
from benchmarks.metrics.features import entry, mean_and_error
from benchmarks.metrics.inference import gaps, stated
from benchmarks.metrics.likelihood import of_noise
from benchmarks.partial import Partial
from zoo.config import EvaluateConfig
from zoo.data.batches import Batches
from zoo.models.base import VAE
from zoo.runs import Run


def inference_gaps(
    run: Run, batches: Batches, unbounded: str | None, partial: Partial | None = None
) -> tuple[dict[str, dict[str, Any]], dict[str, str], dict[str, Tensor]]:
    """Metrics and skipped metrics, and (n,) nats of each: the gaps of the first `evaluate.gaps` images. ``unbounded``
    is why the terms of the model are no bound, None where they are one."""
    config, model = run.config.evaluate, run.model
    if reason := lacking(config, model, unbounded):
        return {}, dict.fromkeys(GAPS, reason), {}
    found = gaps(model, batches, config.gaps, config.seed, config.rows, partial)
    identity = {"split": config.split} | of_noise(model.spec.support)
    identity |= {"images": len(found.late)} | stated()
    late = f"of it {found.late.mean():.3f} nats came in the last fifth of the steps"
    metrics, values = {}, dict(zip(GAPS, found[:2], strict=True))
    for (name, each), note in zip(values.items(), (late, None), strict=True):
        metrics[name] = entry(mean_and_error(each)._replace(note=note), "lower", identity, "nats")
    return metrics, {}, values


def lacking(config: EvaluateConfig, model: VAE, unbounded: str | None) -> str | None:
    """Why no gap of a model is measured; None where they are. ``unbounded`` is as for `inference_gaps`."""
    if not config.gaps:
        return "evaluate.gaps is 0"
    if unbounded or model.one_gaussian:
        return unbounded
    return "its latents are not one vector under a diagonal Gaussian posterior and a prior whose density is known"
