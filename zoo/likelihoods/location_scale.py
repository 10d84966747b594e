"""Densities of real pixels: a location each, and one scale for all."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import noise
from zoo.distributions.gaussians import LOG_2PI
from zoo.likelihoods.base import Likelihood, LikelihoodSettings, open_uniform
from zoo.precision import full, full_precision


class LocationScale(Likelihood):
    """Each pixel is its location plus a scale times noise of its own; ``params`` are the locations, unbounded. A
    density, of real-valued data.

    The scale is fixed, or one learned number for all pixels.

    Attributes:
        setting: what the field calls the scale. Its logarithm is ``log_<setting>``: a parameter if learned, else a
            buffer that is not saved.
        deviation: the standard deviation of the noise at scale 1.
    """

    supports = frozenset({"real"})
    is_density = True
    setting: ClassVar[str]
    deviation: float

    def __init__(self, settings: LikelihoodSettings | None = None, confined: bool = True) -> None:
        super().__init__(settings, confined)
        scale = getattr(self.settings, self.setting)
        if scale == "learned":
            self.register_parameter(f"log_{self.setting}", nn.Parameter(torch.zeros(())))
        else:
            self.register_buffer(f"log_{self.setting}", torch.tensor(math.log(scale)), persistent=False)

    @property
    def _log(self) -> Tensor:
        return full(getattr(self, f"log_{self.setting}"))

    @property
    def scale(self) -> Tensor:
        """The scale in pixel units, a scalar tensor."""
        return self._log.exp()

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Where asked for (``start=data``), a learned scale begins where the noise has the standard deviation of the
        images about their mean, or 0.001 where they hardly differ."""
        log_scale = getattr(self, f"log_{self.setting}")
        if self.settings.start == "data" and isinstance(log_scale, nn.Parameter):
            spread = (x - x.mean(0)).square().mean().sqrt().clamp_min(1e-3)
            log_scale.copy_(torch.log(spread / self.deviation))

    def standard(self, like: Tensor) -> Tensor:
        """Noise of location 0 and scale 1, with the shape of ``like``."""
        raise NotImplementedError

    @full_precision
    def mean(self, params: Tensor) -> Tensor:
        return self.within(params)

    @full_precision
    def sample(self, params: Tensor) -> Tensor:
        return self.within(params + self.scale.to(params.dtype) * self.standard(params))


class Gaussian(LocationScale):
    """Independent Gaussian pixels about their means.

    With a learned ``sigma`` (sigma-VAE, Rybkin, Daniilidis & Levine 2021) the optimum is sigma^2 = mean squared
    error, where the log-likelihood is -D/2 log(2 pi e MSE).
    """

    name = "gaussian"
    setting = "sigma"
    deviation = 1.0

    @property
    def sigma(self) -> Tensor:
        """The standard deviation in pixel units, a scalar tensor."""
        return self.scale

    def standard(self, like: Tensor) -> Tensor:
        return noise.normal(like)

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        log_sigma = self._log.to(params.dtype)
        # Squares are added first: sigma and the constants then cost a number an example instead of one a pixel.
        squares = F.mse_loss(params, x.to(params.dtype), reduction="none").flatten(1).sum(1)
        constant = 0.5 * LOG_2PI + log_sigma + self.log_unit
        return -0.5 * torch.exp(-2.0 * log_sigma) * squares - params[0].numel() * constant


class Laplace(LocationScale):
    """Independent Laplace pixels about their medians, which are their means too: the absolute error as a density.

    With a learned ``scale`` the optimum is scale = mean absolute error, where the log-likelihood is
    -D log(2 e MAE).
    """

    name = "laplace"
    setting = "scale"
    deviation = math.sqrt(2.0)

    def standard(self, like: Tensor) -> Tensor:
        u = open_uniform(like) - 0.5
        return -u.sign() * torch.log1p(-2.0 * u.abs())

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        log_scale = self._log.to(params.dtype)
        errors = F.l1_loss(params, x.to(params.dtype), reduction="none").flatten(1).sum(1)
        constant = math.log(2.0) + log_scale + self.log_unit
        return -torch.exp(-log_scale) * errors - params[0].numel() * constant


class LogCosh(LocationScale):
    """Independent pixels about their means m, the density of each proportional to cosh(a (x - m) / b)^(-1 / a): the
    log-cosh loss as a density.

    Far from m it falls as a Laplace's of ``scale`` b does, within b / a of it as a Gaussian's of variance b^2 / a: the
    ``sharpness`` a, which nothing learns, goes from the one to the other. At 1 it is the hyperbolic secant. As cosh^-nu
    integrates to B(nu / 2, 1 / 2), the constant is (b / a) B(1 / (2 a), 1 / 2).

    The loss of Chen et al. (2019, https://openreview.net/forum?id=rkglvsC9Ym), log cosh(a (x - m)) / a, is minus the
    log-density at b = 1 but for the constant. With a weight w on it, it is that at b = 1 / w and a sharpness of a / w.
    """

    name = "log_cosh"
    setting = "scale"
    #: of the table that draws are read from: entries, and the largest -log of the share of noise that is further out
    entries: ClassVar[int] = 4096
    farthest: ClassVar[float] = 18.0

    def __init__(self, settings: LikelihoodSettings | None = None, confined: bool = True) -> None:
        super().__init__(settings, confined)
        self.sharpness = self.settings.sharpness or 1.0
        half = 0.5 / self.sharpness
        self.constant = math.lgamma(half) + math.lgamma(0.5) - math.lgamma(half + 0.5) - math.log(self.sharpness)
        # The variance of cosh^-nu is trigamma(nu / 2) / 2.
        trigamma = torch.special.polygamma(1, torch.tensor(half, dtype=torch.float64, device="cpu")).item()
        self.deviation = math.sqrt(0.5 * trigamma) / self.sharpness
        self.register_buffer("quantiles", self._table(), persistent=False)

    def _table(self) -> Tensor:
        # (entries + 1,) sizes of the noise at scale 1, by -log of the share that is larger, from 0 in even steps.
        far = self.farthest + 2.0 + 8.0 * self.deviation
        size = torch.linspace(0.0, far, 8 * self.entries, dtype=torch.float64)
        density = 2.0 * torch.exp(-log_cosh(self.sharpness * size) / self.sharpness - self.constant)
        parts = 0.5 * (density[1:] + density[:-1]) * size.diff()
        # Beyond the last size it falls by 1 for each unit.
        larger = torch.cat([parts, density[-1:]]).flip(0).cumsum(0).flip(0)
        surprise = torch.log(larger[0] / larger)
        asked = torch.linspace(0.0, self.farthest, self.entries + 1, dtype=torch.float64)
        after = torch.searchsorted(surprise, asked).clamp(1, len(size) - 1)
        share = (asked - surprise[after - 1]) / (surprise[after] - surprise[after - 1])
        return torch.lerp(size[after - 1], size[after], share).float()

    def standard(self, like: Tensor) -> Tensor:
        u = open_uniform(like) - 0.5
        place = torch.log1p(-2.0 * u.abs()) * (-self.entries / self.farthest)
        before = place.long().clamp_max(self.entries - 1)
        table = self.quantiles.to(u.dtype)
        return u.sign() * torch.lerp(table[before], table[before + 1], place - before)

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        log_scale = self._log.to(params.dtype)
        errors = log_cosh(self.sharpness * torch.exp(-log_scale) * (params - x.to(params.dtype)))
        constant = self.constant + log_scale + self.log_unit
        return -errors.flatten(1).sum(1) / self.sharpness - params[0].numel() * constant


class StudentT(LocationScale):
    """Independent Student-t pixels about their locations, which are their means: a Gaussian whose tails fall as a power
    of the error, so that a few far pixels cost little.

    With nu ``degrees`` of freedom and a ``scale`` s the density is proportional to
    (1 + ((x - m) / s)^2 / nu)^(-(nu + 1) / 2). Its noise is one coordinate of a point in the plane whose radius exceeds
    r with probability (1 + r^2 / nu)^(-nu / 2): two uniform numbers a pixel and nothing to reject (Bailey, Polar
    Generation of Random Variates with the t-Distribution, Mathematics of Computation 1994).
    """

    name = "student_t"
    setting = "scale"

    def __init__(self, settings: LikelihoodSettings | None = None, confined: bool = True) -> None:
        super().__init__(settings, confined)
        self.degrees = nu = self.settings.degrees or 6.0
        self.constant = math.lgamma(0.5 * nu) - math.lgamma(0.5 * nu + 0.5) + 0.5 * math.log(math.pi * nu)
        self.deviation = math.sqrt(nu / (nu - 2.0)) if nu > 2.0 else math.inf

    def standard(self, like: Tensor) -> Tensor:
        surprise = -torch.log(open_uniform(like))
        radius = torch.sqrt(self.degrees * torch.expm1(2.0 * surprise / self.degrees))
        return radius * torch.cos(2.0 * math.pi * noise.uniform(like))

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        log_scale = self._log.to(params.dtype)
        errors = torch.exp(-log_scale) * (params - x.to(params.dtype))
        logs = torch.log1p(errors.square() / self.degrees).flatten(1).sum(1)
        constant = self.constant + log_scale + self.log_unit
        return -0.5 * (self.degrees + 1.0) * logs - params[0].numel() * constant


def log_cosh(u: Tensor) -> Tensor:
    """log cosh u, to the precision of ``u`` near 0 and without an overflow far from it; its derivative is tanh u."""
    near = u.abs() < 1.0
    small, size = u.masked_fill(~near, 0.0), u.abs().masked_fill(near, 1.0)
    return torch.where(near, 0.5 * torch.log1p(small.sinh().square()), size + F.softplus(-2.0 * size) - math.log(2.0))
