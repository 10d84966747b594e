"""Hyperbolic space of curvature -c, in the coordinates of its exponential map at the origin.

A point u (..., D) lies at the distance |u| from the origin, in the direction of u: all of R^D, so that nothing
saturates at an edge as in the Poincaré ball, whose point is tanh(sqrt(c) |u| / 2) / sqrt(c) in that direction.
Distances, transport and planes are computed on the hyperboloid x_0^2 - |x|^2 = 1, where they are products of vectors
(Nagano et al., A Wrapped Normal Distribution on Hyperbolic Space, ICML 2019, https://arxiv.org/abs/1902.02992).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo import noise
from zoo.distributions.gaussians import LOG_2PI, LOG_VARIANCE_BOUND
from zoo.precision import full, full_precision

# In units of the radius of curvature, 1 / sqrt(c): how far a mean may lie, where nothing overflows (a step leading back
# to the origin loses its digits from 15 on, but of several dimensions few do); how wide a posterior may be; and
# from where on the planes of a decoder, in float32, tell no distances apart.
FARTHEST, WIDEST, SEEN = 50.0, math.exp(2.0), 30.0


def length(vector: Tensor) -> Tensor:
    """(..., 1): the norm, but at least 1e-8, where its derivative is zero and not undefined."""
    return vector.square().sum(-1, keepdim=True).clamp_min(1e-16).sqrt()


def log_sinhc(r: Tensor) -> Tensor:
    """log(sinh(r) / r) for r > 0, which overflows for no r."""
    return r + torch.log(-torch.expm1(-2 * r)) - torch.log(2 * r)


class WrappedNormal:
    """The normal N(0, diag(e^log_variance)) around the origin's tangent space, transported to ``mean`` and wrapped onto
    the space by its exponential map; all (B, D).

    Densities are with respect to du, and not to the volume of the space, which is (sinh(s) / s)^(D-1) du at
    s = sqrt(c) |u|: a prior over u is then a prior like any other, N(0, I) the wrapped normal at the origin, and the
    ratio of two densities is the same by either.
    """

    def __init__(self, mean: Tensor, log_variance: Tensor, curvature: float) -> None:
        self.curvature, self.root = curvature, math.sqrt(curvature)
        mean = full(mean)
        self.mean = mean * (FARTHEST / (self.root * length(mean))).clamp_max(1.0)
        self.log_variance = full(log_variance).clamp(-LOG_VARIANCE_BOUND, 2 * math.log(WIDEST / self.root))

    @property
    def centre(self) -> Tensor:
        """The code of x (B, D): the mean."""
        return self.mean

    @full_precision
    def rsample(self) -> tuple[Tensor, Tensor]:
        """A reparameterised draw u (B, D) and log q(u) (B,), in float64 within: on the way back to the origin large
        numbers cancel."""
        eps = noise.normal(self.mean)
        step = torch.exp(0.5 * self.log_variance).double() * eps.double()
        u, log_det = shift(self.root * self.mean.double(), self.root * step)
        log_q = -0.5 * (LOG_2PI + self.log_variance + eps.square()).sum(-1)
        return (u / self.root).to(self.mean.dtype), log_q - log_det.to(log_q.dtype)

    def kl(self, prior: object) -> None:
        """No analytic KL: the rate is the one-sample log q(u) - log p(u)."""
        return None

    def repeat(self, k: int) -> WrappedNormal:
        """The same q for k * B rows, sample-major: row s * B + b belongs to example b."""
        return WrappedNormal(self.mean.repeat(k, 1), self.log_variance.repeat(k, 1), self.curvature)


def shift(mean: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Where one arrives from ``mean`` along ``step``, a vector of the origin's tangent space that is transported there
    along the geodesic; both (B, D) in units of 1 / sqrt(c).

    Returns:
        The point (B, D), and log|det| of its derivative with respect to ``step`` (B,).
    """
    away, far = length(mean), length(step)
    space = mean * (torch.sinh(away) / away)
    along = (space * step).sum(-1, keepdim=True) / (1 + torch.cosh(away))
    point = torch.cosh(far) * space + torch.sinh(far) / far * (step + along * space)
    size = length(point)
    reached = torch.asinh(size)
    log_det = (mean.shape[-1] - 1) * (log_sinhc(far) - log_sinhc(reached))
    return point * (reached / size), log_det.squeeze(-1)


class Gyroplanes(nn.Module):
    """Signed distances of points u (B, D) to hyperplanes, each times a gain: (B, planes), a decoder's first layer
    (Ganea et al., Hyperbolic Neural Networks, NeurIPS 2018, https://arxiv.org/abs/1805.09112).

    A plane stands across the direction of its weight (D,), whose norm is the gain, at ``offset`` from the origin.
    Towards c = 0 this is the dense layer weight u - |weight| offset.
    """

    def __init__(self, latent: int, planes: int, curvature: float) -> None:
        super().__init__()
        self.root = math.sqrt(curvature)
        self.weight = nn.Parameter(torch.empty(planes, latent).uniform_(-1, 1) / math.sqrt(latent))
        self.offset = nn.Parameter(torch.empty(planes).uniform_(-1, 1) / math.sqrt(latent))

    @full_precision
    def forward(self, u: Tensor) -> Tensor:
        away = length(u)
        seen = (self.root * away).clamp_max(SEEN)
        gain = length(self.weight)
        offset = (self.root * self.offset).clamp(-SEEN / 3, SEEN / 3).unsqueeze(-1)
        normal = torch.cat([self.weight / gain * torch.cosh(offset), -torch.sinh(offset)], -1)
        point = torch.cat([u / away * torch.sinh(seen), torch.cosh(seen)], -1)
        return torch.asinh(point @ normal.T) * gain.squeeze(-1) / self.root
