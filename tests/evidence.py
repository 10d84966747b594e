"""What weights and bounds have to be beside log p(x), once that is known without them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.models.base import VAE

ERRORS = 4.5  # standard errors that a mean may be away


def evidence_of_draws(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x) (B,) in nats of images x (B, C, H, W), by the mean likelihood over draws z (n, D) of the prior."""
    params = model.decode(z)
    logs = [model.likelihood.log_prob(params, image.expand(len(z), *image.shape)) for image in x]
    return torch.logsumexp(torch.stack(logs), 1) - math.log(len(z))


def is_the_mean_weight(evidence: Tensor, weights: Tensor, within: float = 0.0) -> None:
    """The mean over log weights (k, B) of a weight is p(x), but for its error and the relative error `within` of what
    is known of p(x)."""
    ratios = (weights - evidence).exp()
    assert ((ratios.mean(0) - 1).abs() < ERRORS * ratios.std(0) / math.sqrt(len(ratios)) + within).all()


def is_above_the_bound(evidence: Tensor, model: VAE, x: Tensor, times: int) -> None:
    """The mean weight of a model is p(x), which is known to 1 %, and its ELBO, of so many draws, is the mean
    log weight and below."""
    weights = model.log_weights(x, k=40_000)
    is_the_mean_weight(evidence, weights, within=0.01)
    elbo = torch.stack([model.terms(x).elbo for _ in range(times)])
    errors = elbo.std(0) / math.sqrt(times) + weights.std(0) / math.sqrt(len(weights))
    assert ((elbo.mean(0) - weights.mean(0)).abs() < ERRORS * errors).all()
    assert (elbo.mean(0) < evidence).all()
