"""A standard normal of which a learned energy rejects some draws."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import noise
from zoo.distributions.gaussians import log_normal
from zoo.nets.mlp import dense
from zoo.precision import full_precision
from zoo.priors.base import Prior, PriorSettings

# Draws that the normaliser of an energy is a mean over: in a training step; in evaluation, and of these at once.
SHARED, COUNTED, AT_ONCE = 1 << 10, 1 << 18, 1 << 14
# A share of accepted draws nearer to 1 is taken for this one: there nothing is left for the last draw.
MOST_ACCEPTED = 1 - 1e-6


class EnergyPrior(Prior):
    """A standard normal reshaped by a learned energy E(z) >= 0: draw z ~ N(0, I), accept it with probability
    exp(-E(z)), else draw anew, and accept the last of T ``tries`` in any case. The density of what comes out is

        p(z) = N(z; 0, I) ((1 - r) exp(-E(z)) / Z + r),   Z = E_{z ~ N(0, I)} exp(-E(z)),   r = (1 - Z)^(T - 1),

    and for a large T the energy-based N(z; 0, I) exp(-E(z)) / Z. Bauer and Mnih, Resampled Priors for Variational
    Autoencoders, AISTATS 2019, https://arxiv.org/abs/1810.11428, whose acceptance function is exp(-E).

    An energy with a lower bound has samples that are exact after at most T draws, where Langevin dynamics end somewhere
    near them, and a normaliser that is the mean of numbers in (0, 1), whose error is known. In training Z is the mean
    over `SHARED` draws that the examples of a batch share (the paper smooths it over steps too); in evaluation over
    `COUNTED` fixed ones.
    """

    name = "energy"
    estimated = True

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__(settings, latent)
        width = settings.hidden
        self.network = dense([latent, width, width], "tanh").append(nn.Linear(width, 1))
        self.register_buffer("zero", torch.zeros(latent), persistent=False)
        self._counted: tuple[list[Tensor], tuple[Tensor, Tensor]] | None = None

    @full_precision
    def energy(self, z: Tensor) -> Tensor:
        """E(z) (...) >= 0 in nats, for z (..., D)."""
        return F.softplus(-self.network(z).squeeze(-1))

    @full_precision
    def log_normaliser(self) -> Tensor:
        """log Z (), in nats. In evaluation its value is `counted`, and its gradient that of `SHARED` of the draws."""
        if self.training:
            draws = noise.normal(self.zero.expand(SHARED, -1), shared=True)  # PyTorch 2.6's compiler may break here
            return self._log_mean(draws)
        value = self.counted()[0]
        if not torch.is_grad_enabled():
            return value
        guess = self._log_mean(next(self._fixed(SHARED)))
        return value + guess - guess.detach()

    @torch.no_grad()
    @full_precision
    def counted(self) -> tuple[Tensor, Tensor]:
        """log Z and its standard error, () each in nats, from `COUNTED` draws that are always the same; counted anew
        where weights are others than the last time. On average it is too small by half the square of the error."""
        weights = list(self.network.parameters())
        if self._counted is None or not all(map(_same, self._counted[0], weights)):
            accepted = torch.cat([torch.exp(-self.energy(z)).double() for z in self._fixed(COUNTED)])
            mean = accepted.mean()
            error = accepted.std() / (mean * math.sqrt(COUNTED))
            found = mean.log().to(self.zero.dtype), error.to(self.zero.dtype)
            self._counted = [weight.clone() for weight in weights], found
        return self._counted[1]

    def _fixed(self, n: int) -> Iterator[Tensor]:
        # The same on every device.
        generator = torch.Generator().manual_seed(0)
        for start in range(0, n, AT_ONCE):
            yield torch.randn(min(AT_ONCE, n - start), self.latent, generator=generator).to(self.zero)

    def _log_mean(self, z: Tensor) -> Tensor:
        return torch.logsumexp(-self.energy(z), 0) - math.log(len(z))

    @full_precision
    def log_prob(self, z: Tensor) -> Tensor:
        log_z = self.log_normaliser()
        log_last = (self.settings.tries - 1) * torch.log1p(-log_z.exp().clamp_max(MOST_ACCEPTED))
        log_before = torch.log(-torch.expm1(log_last))
        ratio = torch.logaddexp(log_before - log_z - self.energy(z), log_last)
        return log_normal(z, self.zero, self.zero).sum(-1) + ratio

    @full_precision
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """As `Prior.sample`; the temperature scales every draw before it is accepted or not."""
        z, accepted = self.zero.expand(n, -1), self.zero.new_zeros(n, 1, dtype=torch.bool)
        for _ in range(self.settings.tries):
            drawn = temperature * noise.normal(z)
            z = torch.where(accepted, z, drawn)
            accepted = accepted | (noise.uniform(z[:, :1]).log() < -self.energy(drawn).unsqueeze(1))
        return z


def _same(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)
