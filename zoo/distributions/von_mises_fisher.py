"""The von Mises-Fisher density on the unit sphere: q(z) = C_m(kappa) exp(kappa mean'z) for z in R^m with |z| = 1.

Its normaliser and its divergence from the uniform density hold modified Bessel functions I_v of order v = m / 2 - 1
(Davidson et al., Hyperspherical Variational Auto-Encoders, UAI 2018, https://arxiv.org/abs/1804.00891), here in float64
and in logarithms, so that no concentration overflows. Functions of the concentration have their derivative written
down, and not followed through the recurrences.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from zoo import noise
from zoo.precision import full, full_precision

# The order is raised by so many before the expansion for large orders is used; of its terms, as they lie in
# https://dlmf.nist.gov/10.41.E10: (powers of t, numerators, denominator).
RAISED = 24
DEBYE = (
    ((1, 3), (3.0, -5.0), 24.0),
    ((2, 4, 6), (81.0, -462.0, 385.0), 1152.0),
    ((3, 5, 7, 9), (30375.0, -369603.0, 765765.0, -425425.0), 414720.0),
    ((4, 6, 8, 10, 12), (4465125.0, -94121676.0, 349922430.0, -446185740.0, 185910725.0), 39813120.0),
)
# Proposals at once for each draw: 0.658 are accepted at the least (on the circle, of a large concentration), so that of
# 10^8 draws at most four have none that is, and take the last.
TRIES = 16
LARGE = 1e6  # the concentration from which on the variance is that of its series
NODES, REACH = 65, 3.2  # of the integral that a draw's derivative is


class VonMisesFisher:
    """Mean directions (B, m), of length 1, and concentrations (B,) > 0."""

    def __init__(self, mean: Tensor, concentration: Tensor) -> None:
        self.mean = full(mean)
        self.kappa = full(concentration).double()
        self.size = mean.shape[-1]

    @functools.cached_property
    def bessel(self) -> Bessel:
        return Bessel(self.kappa, self.size)

    @full_precision
    def rsample(self) -> tuple[Tensor, Tensor]:
        """A reparameterised draw z (B, m) and log q(z) (B,)."""
        learns = torch.is_grad_enabled()
        with torch.no_grad():
            cosine = _cosine(self.kappa, self.size)
            slope = _cosine_slope(cosine, self.kappa, self.bessel.shortfall, self.size) if learns else None
        cosine = self._with_slope(cosine, slope)
        sine = (1 - cosine.square()).clamp_min(1e-24).sqrt()
        # Uniform among the directions across the mean, whatever the mean is.
        across = noise.normal(self.mean)
        across = across - (across * self.mean).sum(-1, keepdim=True) * self.mean
        across = across / across.norm(dim=-1, keepdim=True).clamp_min(1e-20)
        z = (cosine.unsqueeze(-1) * self.mean + sine.unsqueeze(-1) * across).to(self.mean.dtype)
        return z, self._density(1 - cosine)

    @full_precision
    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z) (B,) in nats, for z (B, m) of length 1."""
        # Of vectors of length 1; the cosine itself would be off by kappa roundings.
        return self._density(0.5 * (self.mean.double() - z.double()).square().sum(-1))

    @full_precision
    def kl_uniform(self) -> Tensor:
        """KL(q || the uniform density on the sphere) (B,) in nats, in closed form."""
        with torch.no_grad():
            value = self.bessel.log_peak - self.kappa * self.bessel.shortfall + log_area(self.size)
            slope = self.kappa * self.bessel.variance
        return self._with_slope(value, slope).to(self.mean.dtype)

    def repeat(self, k: int) -> VonMisesFisher:
        """The same q for k * B rows, sample-major: row s * B + b belongs to example b."""
        return VonMisesFisher(self.mean.repeat(k, 1), self.kappa.repeat(k))

    def _density(self, below_one: Tensor) -> Tensor:
        # Of z with 1 - mean'z = ``below_one``.
        log_peak = self._with_slope(self.bessel.log_peak, self.bessel.shortfall)
        return (log_peak - self.kappa * below_one).to(self.mean.dtype)

    def _with_slope(self, value: Tensor, slope: Tensor | None) -> Tensor:
        # ``value``, whose derivative with respect to the concentration is ``slope``.
        return value + slope * (self.kappa - self.kappa.detach()) if torch.is_grad_enabled() else value


class Bessel:
    """What of kappa (B,) in float64 Bessel functions are needed for, on the sphere in R^m; without gradients.

    Attributes:
        log_normaliser: log C_m(kappa) = v log kappa - m / 2 log 2 pi - log I_v(kappa), v = m / 2 - 1.
        log_peak: the logarithm of the density at the mean, log C_m + kappa.
        mean_cosine: A = E[mean'z] = I_{v+1}(kappa) / I_v(kappa), which is -d log C_m / d kappa.
        shortfall: 1 - A, with the digits that A near 1 does not show.
        variance: of mean'z, which is dA / d kappa.
    """

    @torch.no_grad()
    def __init__(self, kappa: Tensor, m: int) -> None:
        v = 0.5 * m - 1
        log_scaled, self.mean_cosine, self.shortfall = _log_and_ratio(v, kappa)
        self.log_peak = v * kappa.log() - 0.5 * m * math.log(2 * math.pi) - log_scaled
        self.log_normaliser = self.log_peak - kappa
        variance = self.shortfall * (2 - self.shortfall) - (m - 1) * self.mean_cosine / kappa
        self.variance = torch.where(kappa > LARGE, _variance_of_large(kappa, m), variance)


def log_area(m: int) -> float:
    """The logarithm of the area of the unit sphere in R^m."""
    return math.log(2) + 0.5 * m * math.log(math.pi) - math.lgamma(0.5 * m)


def _log_and_ratio(v: float, kappa: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # log I_v - kappa, I_{v+1} / I_v and 1 minus it, from the expansion for large orders at a raised one. From there the
    # ratios follow from each other downwards, where errors do not grow, and the logarithm comes down along them.
    logs, ratio, shortfall = _bessel_of_large(v + RAISED, kappa)
    for step in range(RAISED, 0, -1):
        gap = 2 * (v + step) / kappa
        ratio = 1 / (gap + ratio)
        shortfall = (gap - shortfall) * ratio
        logs = logs - torch.where(shortfall < 0.5, torch.log1p(-shortfall), ratio.log())
    return logs, ratio, shortfall


def _bessel_of_large(order: float, kappa: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # As `_log_and_ratio`. The ratio is I' / I - order / kappa, so that the exponentials of the two expansions cancel
    # and do not leave kappa roundings; of the expansion of I' only its difference from that of I is written.
    z, e = kappa / order, order / kappa
    root = torch.sqrt(1 + z.square())
    t = 1 / root
    series, slopes = torch.ones_like(t), torch.full_like(t, 0.5)
    for place, (powers, numerators, denominator) in enumerate(DEBYE, 1):
        term = sum(numerator * t**power for power, numerator in zip(powers, numerators, strict=True))
        slope = sum((0.5 + p) * numerator * t**p for p, numerator in zip(powers, numerators, strict=True))
        series = series + term / (denominator * order**place)
        slopes = slopes + slope / (denominator * order**place)
    exponent = order * (1 / (root + z) - torch.asinh(e))
    logs = exponent - 0.5 * (math.log(2 * math.pi * order) + root.log()) + series.log()
    steep = torch.sqrt(1 + e.square())
    correction = steep * t * (z * t).square() * slopes / (order * series)
    return logs, 1 / (steep + e) - correction, e - e.square() / (1 + steep) + correction


def _variance_of_large(kappa: Tensor, m: int) -> Tensor:
    # dA / dkappa, whose 1 / kappa cancels in the closed form: from A' = 1 - A^2 - (m - 1) A / kappa, with A in powers
    # of 1 / kappa.
    n, r = m - 1, 1 / kappa
    return 0.5 * n * r.square() * (1 - 0.5 * (m - 3) * r * (1 + 1.5 * r))


def _cosine(kappa: Tensor, m: int) -> Tensor:
    # (B,): the first proposal that is accepted.
    cosines, accepted = proposals(kappa, m)
    accepted[:, -1] = True
    return cosines.gather(1, accepted.float().argmax(1, keepdim=True)).squeeze(1)


def proposals(kappa: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """`TRIES` proposals for mean'z of each kappa (B,), and which of them are accepted, (B, `TRIES`) each."""
    # Rejection from a transformed beta density (Ulrich 1984, as in the paper's algorithm).
    n = m - 1
    root = torch.sqrt(4 * kappa.square() + n**2)
    b = (n / (2 * kappa + root)).unsqueeze(1)
    a = ((n + 2 * kappa + root) / 4).unsqueeze(1)
    # A coordinate of a uniform direction in R^m is 2 beta - 1.
    drawn = noise.normal(kappa.new_empty(len(kappa), TRIES, m, dtype=torch.float32)).double()
    beta = 0.5 * (1 + drawn[..., 0] / drawn.norm(dim=-1).clamp_min(1e-30))
    below = 1 - (1 - b) * beta
    t = 2 * a * b / below
    log_ratio = n * t.log() - t + 4 * a * b / (1 + b) - n * math.log(n)
    u = noise.uniform(kappa.new_empty(len(kappa), TRIES, dtype=torch.float32)).double()
    return (1 - (1 + b) * beta) / below, u.log() <= log_ratio


def _cosine_slope(cosine: Tensor, kappa: Tensor, shortfall: Tensor, m: int) -> Tensor:
    # Of the cosine w at a fixed value of its distribution function F: -(dF / dkappa) / F'. With w = cos a and the mean
    # cosine A that is sin a * int_0^a (cos s - A) exp(kappa (cos s - w)) (sin s / sin a)^(m - 2) ds.
    angle = torch.acos(cosine.clamp(-1, 1)).unsqueeze(1)
    # The integral by the rule of Takahasi and Mori 1974, which needs no table: s = a (1 + tanh(pi / 2 sinh u)) / 2.
    u = torch.linspace(-REACH, REACH, NODES, dtype=kappa.dtype, device=kappa.device)
    inner = 0.5 * math.pi * u.sinh()
    weights = (2 * REACH / (NODES - 1)) * 0.5 * math.pi * u.cosh() / inner.cosh().square()
    s = 0.5 * angle * (1 + inner.tanh())
    sine = angle.sin().clamp_min(1e-30)
    # Differences of cosines that are all next to 1 where kappa is large: cos s - w and cos s - A.
    above_w = 2 * torch.sin(0.5 * (angle + s)) * torch.sin(0.5 * (angle - s))
    above_mean = shortfall.unsqueeze(1) - 2 * torch.sin(0.5 * s).square()
    log_density = kappa.unsqueeze(1) * above_w + (m - 2) * (s.sin().clamp_min(1e-30) / sine).log()
    integrand = above_mean * log_density.exp()
    return (0.5 * angle * sine).squeeze(1) * (integrand * weights).sum(1)
