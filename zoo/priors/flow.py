"""A standard normal seen through invertible maps."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo import noise
from zoo.distributions.gaussians import log_normal
from zoo.flows import Coupling
from zoo.precision import full_precision
from zoo.priors.base import Prior, PriorSettings


class FlowPrior(Prior):
    """Affine coupling steps between z and a standard normal; ``temperature`` scales the latter."""

    name = "flow"

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__(settings, latent)
        self.flow = Coupling(latent, settings.flows, settings.hidden)
        self.register_buffer("zero", torch.zeros(latent), persistent=False)

    @full_precision
    def log_prob(self, z: Tensor) -> Tensor:
        u, log_det = self.flow(z.reshape(-1, z.shape[-1]))
        return (log_normal(u, self.zero, self.zero).sum(-1) + log_det).view(z.shape[:-1])

    @full_precision
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        return self.flow.inverse(temperature * noise.normal(self.zero.expand(n, -1)))
