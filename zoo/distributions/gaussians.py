"""The diagonal Gaussian, which posteriors and priors are made of; in nats and in float32 (float64 for float64)."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from zoo import noise
from zoo.precision import full, full_precision

LOG_2PI = math.log(2.0 * math.pi)
LOG_VARIANCE_BOUND = 20.0


def bound_log_variance(log_variance: Tensor) -> Tensor:
    """Clamp to [-20, 20]: variances from 2e-9 to 5e8, whose exponentials and their squares float32 holds.

    A hard clamp: outside the bounds no gradient passes.
    """
    return log_variance.clamp(-LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND)


@full_precision
def kl_diagonal(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(mean1, e^log_variance1) || N(mean2, e^log_variance2)), elementwise, in nats; shapes broadcast."""
    ratio = log_variance1 - log_variance2
    # expm1(r) - r, not exp(r) - 1 - r: near r = 0 the latter loses every digit in float32.
    return 0.5 * (torch.expm1(ratio) - ratio + (mean1 - mean2).square() * torch.exp(-log_variance2))


@full_precision
def log_normal(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(z; mean, e^log_variance), elementwise, in nats; shapes broadcast."""
    return -0.5 * (LOG_2PI + log_variance + ((z - mean) * torch.exp(-0.5 * log_variance)).square())


class HasMoments(Protocol):
    """A density that says whether it is a diagonal Gaussian: one of these, or a `zoo.priors.Prior`."""

    def moments(self) -> tuple[Tensor, Tensor] | None: ...


class DiagonalGaussian:
    """N(mean, diag(e^log_variance)), both (..., D); log-variances are clamped to [-20, 20]."""

    def __init__(self, mean: Tensor, log_variance: Tensor) -> None:
        self.mean = full(mean)
        self.log_variance = bound_log_variance(full(log_variance))

    @property
    def centre(self) -> Tensor:
        """The code of x (B, D): the mean."""
        return self.mean

    @full_precision
    def rsample(self) -> tuple[Tensor, Tensor]:
        """A reparameterised draw z (..., D) and log q(z) (...)."""
        eps = noise.normal(self.mean)
        z = self.mean + torch.exp(0.5 * self.log_variance) * eps
        # From eps, not from (z - mean) / sigma: the same number without the rounding of z.
        return z, -0.5 * (LOG_2PI + self.log_variance + eps.square()).sum(-1)

    @full_precision
    def noise_of(self, z: Tensor) -> Tensor:
        """The noise (..., D) of which `rsample` makes z (..., D)."""
        return (z - self.mean) * torch.exp(-0.5 * self.log_variance)

    def sample(self, temperature: float = 1.0) -> Tensor:
        """A draw (..., D), its standard deviations times ``temperature``."""
        return self.mean + temperature * torch.exp(0.5 * self.log_variance) * noise.normal(self.mean)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z) (...) for z (..., D)."""
        return log_normal(z, self.mean, self.log_variance).sum(-1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, so that this may be the prior of another (`zoo.priors.Prior.moments`)."""
        return self.mean, self.log_variance

    def kl(self, prior: HasMoments) -> Tensor | None:
        """KL(q || prior) per dimension (..., D) where the prior is a diagonal Gaussian, else None."""
        moments = prior.moments()
        return None if moments is None else kl_diagonal(self.mean, self.log_variance, *moments)

    def repeat(self, k: int) -> DiagonalGaussian:
        """The same q for k * B rows, sample-major: row s * B + b belongs to example b."""
        return DiagonalGaussian(self.mean.repeat(k, 1), self.log_variance.repeat(k, 1))

    def detach(self) -> DiagonalGaussian:
        """The same density, its parameters held fixed (sticking the landing, doubly reparameterised)."""
        return DiagonalGaussian(self.mean.detach(), self.log_variance.detach())


def gaussian(features: Tensor) -> DiagonalGaussian:
    """The Gaussian whose means and then log-variances are the features (..., 2 D)."""
    return DiagonalGaussian(*features.chunk(2, -1))


def standard_normal(like: Tensor) -> DiagonalGaussian:
    """N(0, I) over tensors of the shape (..., D), device and type of ``like``."""
    zeros = torch.zeros_like(like)
    return DiagonalGaussian(zeros, zeros)
