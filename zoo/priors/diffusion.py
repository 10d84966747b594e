"""A learned chain of denoising steps."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from zoo.distributions.diffusion import Chain
from zoo.errors import UsageError
from zoo.priors.base import Prior, PriorSettings


class DiffusionPrior(Prior):
    """What a learned chain makes of noise, a `Chain` of as many ``steps``, which begins as the standard normal. Vahdat,
    Kreis and Kautz, Score-based Generative Modeling in Latent Space, NeurIPS 2021, https://arxiv.org/abs/2106.05931.

    Nobody knows its density at a point. `log_prob` is the log-weight of one path of noise, another at each call: its
    exponential is p(z) in the mean, so that a bound made with it is a bound, of one sample or of k.
    """

    name = "diffusion"
    estimated = True

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__(settings, latent)
        self.chain = Chain(latent, settings.steps, settings.hidden)

    def log_prob(self, z: Tensor) -> Tensor:
        """As `Prior.log_prob`: an estimate, from ``steps`` calls of the network."""
        return self.chain.log_weight(z.reshape(-1, self.latent)).view(z.shape[:-1])

    def log_bound(self, z: Tensor) -> Tensor:
        """As `Prior.log_bound`: the mean of `log_prob`, estimated from a few random steps of the chain."""
        return self.chain.log_bound(z.reshape(-1, self.latent)).view(z.shape[:-1])

    def density(self) -> Callable[[Tensor], Tensor]:
        """Raises `UsageError`: there is no density to be had that is the same at each call."""
        raise UsageError("the diffusion prior has no density to follow: what it says of a code is an estimate.")

    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """As `Prior.sample`, without a gradient; the temperature scales the noise of every step."""
        return self.chain.sample(n, temperature)
