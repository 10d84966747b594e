"""The Gamma density of shape a and rate b: q(z) = b^a z^(a - 1) exp(-b z) / Gamma(a) for z > 0.

A draw is one of rate 1 over the rate, and its derivative with respect to the shape is the implicit one, at a fixed
value of the distribution function (Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, NeurIPS 2018,
https://arxiv.org/abs/1805.08498). It is computed in float64, and a draw is known by its logarithm: of a small shape
most of the mass lies closer to zero than any number of float32.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from zoo import noise
from zoo.precision import full, full_precision

# From the smallest shape on no draw is beneath what float64 holds; at the largest the deviation is a thousandth of the
# mean.
SMALLEST_SHAPE, LARGEST_SHAPE = 0.03, 1e6
LOG_MEAN_BOUND = 20.0
# Proposals at once for each draw: 0.951 are accepted at the least, so that of 10^8 draws at most two have none that is,
# and take the last.
TRIES = 6
LEAST = 2.0**-24  # in place of a uniform number that is 0 in float32
STEP = 1e-4  # of the difference quotient in the shape, in units in which the distribution changes by about one


class HasShape(Protocol):
    """Independent Gamma variables: one of these, or a prior of them."""

    log_shape: Tensor
    log_mean: Tensor


class Gamma:
    """Independent Gamma variables by the logarithms of their shapes and means, both (..., D); a rate is the shape over
    the mean. Shapes are clamped to [0.03, 1e6] and logarithms of means to [-20, 20], outside of which no gradient
    passes."""

    def __init__(self, log_shape: Tensor, log_mean: Tensor) -> None:
        self.log_shape = full(log_shape).clamp(math.log(SMALLEST_SHAPE), math.log(LARGEST_SHAPE))
        self.log_mean = full(log_mean).clamp(-LOG_MEAN_BOUND, LOG_MEAN_BOUND)

    @property
    def centre(self) -> Tensor:
        """The code of x (B, D): the mean."""
        return self.log_mean.exp()

    @full_precision
    def moments_of_cube_root(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the cube root of z, both (..., D)."""
        shape = self.log_shape.double().exp()
        # E[z^p] = Gamma(shape + p) / Gamma(shape) rate^-p.
        first, second = (
            (torch.lgamma(shape + p) - torch.lgamma(shape) - p * self._log_rate).exp() for p in (1 / 3, 2 / 3)
        )
        return first.to(self.log_mean.dtype), (second - first.square()).sqrt().to(self.log_mean.dtype)

    @full_precision
    def rsample(self) -> tuple[Tensor, Tensor]:
        """A reparameterised draw z (..., D) and log q(z) (...), which is that of the draw before one too small for its
        type became 0."""
        log_z = self.log_draw()
        return log_z.exp().to(self.log_mean.dtype), self.log_density(log_z).to(self.log_mean.dtype)

    @full_precision
    def log_draw(self) -> Tensor:
        """The logarithm of a reparameterised draw, (..., D) in float64."""
        shape, learns = self.log_shape.double().exp(), torch.is_grad_enabled()
        with torch.no_grad():
            log_draw = _log_draw_of_rate_one(shape)
            slope = _slope(log_draw, shape) if learns else None
        if learns:
            log_draw = log_draw + slope * (shape - shape.detach())
        return log_draw - self._log_rate

    @full_precision
    def log_density(self, log_z: Tensor) -> Tensor:
        """log q(z) with respect to dz, (...) nats in float64, for log z (..., D)."""
        shape, log_scaled = self.log_shape.double().exp(), self._log_rate + log_z.double()
        return (shape * log_scaled - log_scaled.exp() - torch.lgamma(shape) - log_z).sum(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z) (...) in nats, for z > 0 (..., D)."""
        return self.log_density(z.double().log()).to(self.log_mean.dtype)

    @full_precision
    def kl(self, prior: HasShape) -> Tensor:
        """KL(q || prior) per dimension (..., D) in nats, in closed form."""
        log_ratio = self.log_shape.double() - prior.log_shape.double()
        of_means = self.log_mean.double() - prior.log_mean.double()
        a, a0 = self.log_shape.double().exp(), prior.log_shape.double().exp()
        of_shapes = (a - a0) * (torch.digamma(a) - 1) - torch.lgamma(a) + torch.lgamma(a0) + a0 * log_ratio
        return (of_shapes + a0 * (torch.expm1(of_means) - of_means)).to(self.log_mean.dtype)

    def repeat(self, k: int) -> Gamma:
        """The same q for k * B rows, sample-major: row s * B + b belongs to example b."""
        return Gamma(self.log_shape.repeat(k, 1), self.log_mean.repeat(k, 1))

    @property
    def _log_rate(self) -> Tensor:
        return self.log_shape.double() - self.log_mean.double()


def _log_draw_of_rate_one(shape: Tensor) -> Tensor:
    # Of one more than the shape by Marsaglia and Tsang 2000, times a uniform number to the power of 1 / shape, which is
    # a draw of the shape itself, in logarithms.
    proposed, accepted = proposals(shape + 1)
    accepted[..., -1] = True
    of_next = proposed.gather(-1, accepted.float().argmax(-1, keepdim=True)).squeeze(-1)
    u = noise.uniform(shape.new_empty(shape.shape, dtype=torch.float32)).clamp_min(LEAST)
    return of_next + u.double().log() / shape


def proposals(shape: Tensor) -> tuple[Tensor, Tensor]:
    """`TRIES` proposals for the logarithm of a Gamma variable of each shape (..., D), at least 1, and rate 1, and which
    of them are accepted: (..., D, `TRIES`) each."""
    like = shape.new_empty(*shape.shape, TRIES, dtype=torch.float32)
    normal, u = noise.normal(like).double(), noise.uniform(like).double()
    d = (shape - 1 / 3).unsqueeze(-1)
    root = 1 + normal / (9 * d).sqrt()
    log_cube = 3 * root.clamp_min(1e-30).log()
    accepted = (root > 0) & (u.log() < 0.5 * normal.square() + d * (1 - root**3 + log_cube))
    return d.log() + log_cube, accepted


def _slope(log_draw: Tensor, shape: Tensor) -> Tensor:
    # Of the logarithm of a draw of rate 1 at a fixed value of its distribution function F: -(dF / dshape) / (z F'(z)).
    # PyTorch has no derivative of F in the shape, and its own of a draw is not for stacked replicas.
    z, step = log_draw.exp(), STEP * torch.minimum(shape, shape.sqrt())
    above, below = (torch.special.gammainc(shape + sign * step, z) for sign in (1, -1))
    return (below - above) / (2 * step) * (z + torch.lgamma(shape) - shape * log_draw).exp()
