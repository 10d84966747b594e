"""Of bits and of pixels in [0, 1] by a logit each."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo import noise
from zoo.likelihoods.base import Likelihood, is_stacked
from zoo.precision import full_precision


class Bernoulli(Likelihood):
    """Independent binary pixels; ``params`` are logits. A likelihood of binary data only."""

    name = "bernoulli"
    supports = frozenset({"binary"})

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """The sum of x log p + (1 - x) log(1 - p), (B,); of grey x minus the cross-entropy."""
        x = x.to(params.dtype)
        if is_stacked():
            return (params * x - F.softplus(params)).flatten(1).sum(1)
        return -F.binary_cross_entropy_with_logits(params, x, reduction="none").flatten(1).sum(1)

    @full_precision
    def mean(self, params: Tensor) -> Tensor:
        return torch.sigmoid(params)

    @full_precision
    def sample(self, params: Tensor) -> Tensor:
        return (noise.uniform(params) < torch.sigmoid(params)).to(params.dtype)


@torch.no_grad()
def start_at_mean(bias: Tensor, x: Tensor, likelihood: Likelihood) -> None:
    """Set the last bias (C * H * W,) of a dense Bernoulli decoder to the logits of the mean of images (B, C, H, W), as
    Burda et al. (2016) do; those of pixels that never change stay finite. Of other likelihoods it is left alone."""
    if likelihood.name == "bernoulli":
        bias.copy_(x.mean(0).clamp(0.001, 0.999).logit().flatten())


class ContinuousBernoulli(Likelihood):
    """Independent pixels in [0, 1], the density of each proportional to e^(logit x); ``params`` are the logits.

    It is the expression of a Bernoulli with the constant that it lacks of grey pixels (Loaiza-Ganem & Cunningham
    2019): of lambda = sigmoid(logit) log C = log(2 artanh(1 - 2 lambda) / (1 - 2 lambda)), and log C - softplus(logit)
    is -logit / 2 - log(sinh(logit / 2) / (logit / 2)).

    A density of real data in [0, 1]. Of byte / 255 it is no probability of the byte; where many bytes are 0 or 255 it
    has no upper bound, but grows with the logarithm of the logits. Dequantised bytes have one.
    """

    name = "continuous_bernoulli"
    supports = frozenset({"real"})
    is_density = True
    bounded = True
    #: below it powers of a logit are added up: gradients are 5e-11 off, and those of larger ones 4e-7 in float32
    near: ClassVar[float] = 0.25
    #: of log(sinh(l / 2) / (l / 2)), that of l^2 first
    powers: ClassVar[tuple[float, float, float]] = (1 / 24, -1 / 2880, 1 / 181440)

    def _parts(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Which logits are near 0, those, and the sizes of the others; neither has anything else in it, for no gradient
        # of the one way to compute may be infinite where the other is taken.
        near = params.abs() < self.near
        return near, params.masked_fill(~near, 0.0), params.abs().masked_fill(near, self.near)

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """The log-density, (B,), which may be above 0; minus infinity of real data outside of [0, 1]."""
        x = x.to(params.dtype)
        near, small, size = self._parts(params)
        first, second, third = self.powers
        square = small.square()
        middle = small * (x - 0.5) - square * (first + square * (second + square * third))
        # From the end that the logit asks for: the half of a large logit, twice, would round the rest away.
        away = torch.where(params > 0.0, 1.0 - x, x)
        log_prob = torch.where(near, middle, -size * away - torch.log(torch.expm1(-size) / -size))
        if not self.confined:
            log_prob = log_prob.masked_fill((x < 0.0) | (x > 1.0), -math.inf)
        return log_prob.flatten(1).sum(1) - params[0].numel() * self.log_unit

    @full_precision
    def mean(self, params: Tensor) -> Tensor:
        """1 / (1 - e^-logit) - 1 / logit, which is nearer to 1/2 than sigmoid(logit) is."""
        near, small, size = self._parts(params)
        first, second, third = self.powers
        square = small.square()
        middle = 0.5 + small * (2 * first + square * (4 * second + square * (6 * third)))
        rest = torch.exp(-size)
        dark = 1.0 / size - rest / (1.0 - rest)
        return torch.where(near, middle, torch.where(params < 0.0, dark, 1.0 - dark))

    @full_precision
    def sample(self, params: Tensor) -> Tensor:
        """By the inverse of the distribution function."""
        far = params.abs().clamp_min(1e-8)  # at a logit of 0 it would be 0 / 0
        dark = -torch.log1p(noise.uniform(params) * torch.expm1(-far)) / far
        return torch.where(params < 0.0, dark, 1.0 - dark).clamp(0.0, 1.0)
