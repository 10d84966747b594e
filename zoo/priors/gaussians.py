"""One Gaussian: the standard normal, or one that is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.distributions.gaussians import DiagonalGaussian, bound_log_variance, log_normal
from zoo.precision import full
from zoo.priors.base import Prior, PriorSettings


class DiagonalPrior(Prior):
    """A Gaussian with learned mean and variances, which begins as the standard normal."""

    name = "diagonal"

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__(settings, latent)
        self.mean = nn.Parameter(torch.zeros(latent))
        self.log_variance = nn.Parameter(torch.zeros(latent))

    def moments(self) -> tuple[Tensor, Tensor]:
        return full(self.mean), bound_log_variance(full(self.log_variance))

    def log_prob(self, z: Tensor) -> Tensor:
        return log_normal(z, *self.moments()).sum(-1)

    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        return DiagonalGaussian(*(part.expand(n, -1) for part in self.moments())).sample(temperature)


class StandardPrior(DiagonalPrior):
    """N(0, I)."""

    name = "standard"

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        Prior.__init__(self, settings, latent)
        self.register_buffer("mean", torch.zeros(latent), persistent=False)
        self.register_buffer("log_variance", torch.zeros(latent), persistent=False)
