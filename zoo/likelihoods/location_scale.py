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
    """

    supports = frozenset({"real"})
    is_density = True
    setting: ClassVar[str]

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

    def standard(self, like: Tensor) -> Tensor:
        u = open_uniform(like) - 0.5
        return -u.sign() * torch.log1p(-2.0 * u.abs())

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        log_scale = self._log.to(params.dtype)
        errors = F.l1_loss(params, x.to(params.dtype), reduction="none").flatten(1).sum(1)
        constant = math.log(2.0) + log_scale + self.log_unit
        return -torch.exp(-log_scale) * errors - params[0].numel() * constant
