"""How loose the bound of a run is: annealed importance sampling beside it, and how far that may be off itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.catalogue import ANNEALED
from benchmarks.metrics import annealed, likelihood
from benchmarks.metrics.features import entry, mean_and_error
from benchmarks.partial import Partial
from zoo.config import EvaluateConfig
from zoo.data.batches import Batches
from zoo.errors import UsageError
from zoo.models.base import VAE, condition_size
from zoo.runs import Run

NLL, GAIN, GAP = ANNEALED


def annealing(
    run: Run, batches: Batches, unbounded: str | None, partial: Partial | None = None
) -> tuple[dict[str, dict[str, Any]], dict[str, str], dict[str, Tensor]]:
    """Metrics and skipped metrics, and (n,) nats by name, of the first `evaluate.ais_images` images: minus the annealed
    bound; what it is better by than the K-sample bound of the same images; and how far apart the two bounds of
    bidirectional Monte Carlo are on as many images that are drawn from the model. ``unbounded`` is as for `lacking`."""
    config, model = run.config.evaluate, run.model
    if reason := lacking(config, model, unbounded):
        return {}, dict.fromkeys(ANNEALED, reason), {}
    rest = (config.seed, config.rows, config.ais_images)
    bound, accepted = annealed.annealed(model, batches, config.ais, *rest, partial).unbind(1)
    identity = {
        "split": config.split, "images": len(bound), "steps": config.ais, "leapfrog": annealed.LEAPFROG,
        "chains": annealed.CHAINS, "path": "posterior to joint",
    }  # fmt: skip
    of_images = identity | likelihood.of_noise(model.spec.support)
    found = mean_and_error(-bound)._replace(note=_moves(accepted, config.ais))
    metrics, skipped = {NLL: entry(found, "lower", of_images, "nats")}, {}
    if k := config.nll_samples:
        tight = likelihood.importance_weighted(model, batches, k, *rest, "ais_nll", partial)
        metrics[GAIN] = entry(mean_and_error(bound - tight), None, of_images | {"k": k}, "nats")
    else:
        skipped[GAIN] = "evaluate.nll_samples is 0"
    try:
        lower, upper, accepted = annealed.bidirectional(model, batches, config.ais, *rest, partial).unbind(1)
    except UsageError as error:
        return metrics, skipped | {GAP: str(error).rstrip(".")}, {NLL: -bound}
    found = mean_and_error(upper - lower)._replace(note=_moves(accepted, config.ais))
    metrics[GAP] = entry(found, None, identity | {"data": "simulated"}, "nats")
    return metrics, skipped, {NLL: -bound}


def lacking(config: EvaluateConfig, model: VAE, unbounded: str | None) -> str | None:
    """Why the bound of a model is not annealed; None where it is. ``unbounded``: why it has none on log p(x)."""
    if not config.ais:
        return "evaluate.ais is 0"
    if unbounded:
        return unbounded
    device, spec = next(model.parameters()).device, model.spec
    y = torch.zeros(1, dtype=torch.int64, device=device) if spec.classes else torch.zeros(1, condition_size(spec))
    try:
        annealed.Noise(model, torch.zeros(1, *spec.shape, device=device), y.to(device) if model.conditional else None)
    except UsageError as error:
        return str(error).rstrip(".")
    return None


def _moves(accepted: Tensor, steps: int) -> str:
    if steps == 1:
        return "no moves: one temperature"
    return f"{accepted.mean():.0%} of the moves accepted, of the image with the fewest {accepted.min():.0%}"
