"""What the decoder's output says about the image: Bernoulli, continuous Bernoulli, Gaussian, Laplace, discretised
logistic mixture.

A likelihood names the data it is a likelihood *of* (`supports`). Others may be trained with it - grey pixels
under a Bernoulli is a tradition - but the number is then a reconstruction loss, not nats of the data, and the
harness says so.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.context import holding
from zoo.distributions.gaussians import LOG_2PI
from zoo.precision import full, full_precision
from zoo.settings import Frozen, ReadBy

if TYPE_CHECKING:
    from zoo.data.images import DataSpec

LOG_256 = math.log(256.0)
_stacked: ContextVar[bool] = ContextVar("zoo_likelihoods_stacked", default=False)


def stacked() -> AbstractContextManager[bool]:
    """Likelihoods inside the block are computed for models that `torch.func.vmap` stacks: the same but for rounding, of
    operations that it does not take apart."""
    return holding(_stacked, True)


class LikelihoodSettings(Frozen):
    """Which likelihood, and its own settings.

    Attributes:
        name: ``auto`` takes the one that is a likelihood of the data: binary -> bernoulli, 8-bit -> logistic,
            dequantised and real -> gaussian.
        sigma: ``gaussian`` only. A number (in units of the pixels, which lie in [0, 1]), or ``learned``: one
            parameter shared by all pixels.
        scale: ``laplace`` only, its mean absolute deviation b. A number or ``learned``, as ``sigma`` is.
        components: ``logistic`` only, the number of components of the mixture.
    """

    read_by: ClassVar[ReadBy] = {
        "sigma": ("gaussian",), "scale": ("laplace",), "components": ("logistic",)
    }  # fmt: skip

    name: Literal["auto", "bernoulli", "continuous_bernoulli", "gaussian", "laplace", "logistic"] = "auto"
    sigma: Annotated[float, Field(gt=0)] | Literal["learned"] = "learned"
    scale: Annotated[float, Field(gt=0)] | Literal["learned"] = "learned"
    components: int = Field(default=5, ge=1)


class Likelihood(nn.Module):
    """p(x | z) from the decoder's raw output ``params`` (B, channels(C), H, W), for x (B, C, H, W) in [0, 1] or real.

    Attributes:
        supports: the kinds of data (`DataSpec.support`) whose negative log-likelihood this is.
        is_density: a density over the reals, not a probability: it depends on the units of x, may exceed 1.
        bounded: that density is 0 outside of [0, 1].
        log_unit: nats that its logarithm is less by for each pixel: log 256 for dequantised bytes, where it is that of
            a density of byte + u, whose mean over u in [0, 1) bounds the log-probability of the byte; else 0.
        confined: what is drawn and shown lies in [0, 1], as x does; real data may lie anywhere.
    """

    name: ClassVar[str]
    supports: ClassVar[frozenset[str]]
    is_density: ClassVar[bool] = False
    bounded: ClassVar[bool] = False
    log_unit: float = 0.0

    def __init__(self, settings: LikelihoodSettings | None = None, confined: bool = True) -> None:
        super().__init__()
        self.settings = settings or LikelihoodSettings()
        self.confined = confined

    def is_nll_of(self, support: str) -> bool:
        """Whether minus `log_prob` is a negative log-likelihood of data with that support, or a bound on that of the
        bytes that were dequantised."""
        if support == "dequantised":
            return self.is_density and self.log_unit == LOG_256
        return support in self.supports

    def channels(self, image_channels: int) -> int:
        """How many channels the decoder has to give for an image with ``image_channels``."""
        return image_channels

    def output_shape(self, image: tuple[int, int, int]) -> tuple[int, int, int]:
        """What the decoder has to give for an image of shape (C, H, W): (C', H, W)."""
        return self.channels(image[0]), *image[1:]

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-likelihood in nats, summed over pixels and channels, (B,)."""
        raise NotImplementedError

    def mean(self, params: Tensor) -> Tensor:
        """E[x | params], clipped to [0, 1] where that is `confined`, (B, C, H, W)."""
        raise NotImplementedError

    def sample(self, params: Tensor) -> Tensor:
        """A draw of x, clipped to [0, 1] where that is `confined`, (B, C, H, W)."""
        raise NotImplementedError

    def within(self, x: Tensor) -> Tensor:
        """``x`` clipped to [0, 1] where that is `confined`."""
        return x.clamp(0.0, 1.0) if self.confined else x

    def bits_per_dim(self, nats: Tensor | float, dims: int) -> Tensor | float:
        """Bits per dimension of a negative log-likelihood (``nats`` per example, ``dims`` = C * H * W).

        For a density 8 = log2(256) is added, unless its nats have them already (`log_unit`): the density of x in [0, 1]
        becomes that of the byte. What results bounds the discrete code length of 8-bit data only if the density was
        evaluated on uniformly dequantised data, x = (byte + u) / 256; on plain byte / 255 it bounds nothing.
        """
        bits = nats / (dims * math.log(2.0))
        return bits + 8.0 if self.is_density and not self.log_unit else bits


class Bernoulli(Likelihood):
    """Independent binary pixels; ``params`` are logits. A likelihood of binary data only."""

    name = "bernoulli"
    supports = frozenset({"binary"})

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """The sum of x log p + (1 - x) log(1 - p), (B,); of grey x minus the cross-entropy."""
        x = x.to(params.dtype)
        if _stacked.get():
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
        u = _open_uniform(like) - 0.5
        return -u.sign() * torch.log1p(-2.0 * u.abs())

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        log_scale = self._log.to(params.dtype)
        errors = F.l1_loss(params, x.to(params.dtype), reduction="none").flatten(1).sum(1)
        constant = math.log(2.0) + log_scale + self.log_unit
        return -torch.exp(-log_scale) * errors - params[0].numel() * constant


class DiscretisedLogistic(Likelihood):
    """A mixture of logistics integrated over each of the 256 bytes; of 8-bit data, x = byte / 255.

    Every pixel has K mixture weights shared by its channels; given the component the channels are
    independent. That is PixelCNN++ (Salimans et al. 2017) without its linear regression of green on red and
    of blue on both: one likelihood for any number of channels, and `sample` needs no order. The first and
    last byte take the tails, so the 256 probabilities sum to one.

    ``params``: K logits, then K * C means, then K * C log-scales, the last two on the pixel range [-1, 1];
    log-scales are clamped to [-7, 7].
    """

    name = "logistic"
    supports = frozenset({"8-bit"})
    half_bin: ClassVar[float] = 1.0 / 255.0  # of the range [-1, 1]

    def channels(self, image_channels: int) -> int:
        return self.settings.components * (1 + 2 * image_channels)

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # logits (B, K, H, W), means and log-scales (B, K, C, H, W)
        k = self.settings.components
        each = (params.shape[1] - k) // 2
        logits, means, log_scales = params.split([k, each, each], dim=1)
        return logits, means.unflatten(1, (k, -1)), log_scales.unflatten(1, (k, -1)).clamp(-7.0, 7.0)

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability of the bytes, (B,), at most 0."""
        logits, means, log_scales = self._split(params)
        x = (2.0 * x - 1.0).unsqueeze(1)
        precision = torch.exp(-log_scales)
        below = F.logsigmoid((x - means + self.half_bin) * precision)
        above = F.logsigmoid((means - x + self.half_bin) * precision)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a)): exact at any scale, where the
        # difference of two sigmoids near 1 is 0 in float32 and needs a fallback density.
        width = torch.log(-torch.expm1(-2.0 * self.half_bin * precision))
        log_prob = torch.where(x > 1.0 - self.half_bin, above, below + above + width)
        log_prob = torch.where(x < self.half_bin - 1.0, below, log_prob).sum(2)
        return torch.logsumexp(F.log_softmax(logits, dim=1) + log_prob, dim=1).flatten(1).sum(1)

    @full_precision
    def mean(self, params: Tensor) -> Tensor:
        """E[clip(X, 0, 1)] before rounding: that of the bytes but for the midpoint rule over 255 steps."""
        logits, means, log_scales = self._split(params)
        middle, scale = 0.5 * (means + 1.0), 0.5 * torch.exp(log_scales)
        # The integral over t in [0, 1] of P(X > t).
        mean = scale * (F.softplus(middle / scale) - F.softplus((middle - 1.0) / scale))
        return (torch.softmax(logits, dim=1).unsqueeze(2) * mean).sum(1).clamp(0.0, 1.0)

    @full_precision
    def sample(self, params: Tensor) -> Tensor:
        """A draw of the bytes, divided by 255."""
        logits, means, log_scales = self._split(params)
        gumbel = -torch.log(-torch.log(_open_uniform(logits)))
        component = (logits + gumbel).argmax(1, keepdim=True).unsqueeze(2).expand_as(means[:, :1])
        mean, log_scale = means.gather(1, component).squeeze(1), log_scales.gather(1, component).squeeze(1)
        u = _open_uniform(mean)
        x = mean + torch.exp(log_scale) * (torch.log(u) - torch.log1p(-u))
        return (127.5 * (x + 1.0)).round().clamp(0.0, 255.0) / 255.0


def _open_uniform(like: Tensor) -> Tensor:
    # The ordinary generator can return 0, whose logarithm is infinite.
    return noise.uniform(like).clamp_min(2.0**-25)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    kind.name: kind for kind in (Bernoulli, ContinuousBernoulli, Gaussian, Laplace, DiscretisedLogistic)
}
AUTO = {"binary": "bernoulli", "8-bit": "logistic", "dequantised": "gaussian", "real": "gaussian"}


def make_likelihood(settings: LikelihoodSettings, spec: DataSpec) -> Likelihood:
    """The likelihood of those settings; ``auto`` takes the one that is a likelihood of ``spec.support``."""
    name = AUTO[spec.support] if settings.name == "auto" else settings.name
    made = LIKELIHOODS[name](settings, confined=spec.support != "real")
    if made.is_density and spec.support == "dequantised":
        made.log_unit = LOG_256
    return made
