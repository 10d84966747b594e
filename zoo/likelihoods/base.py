"""What a likelihood is asked for, and its settings."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from zoo import noise
from zoo.context import holding
from zoo.settings import Frozen, ReadBy

LOG_256 = math.log(256.0)
_stacked: ContextVar[bool] = ContextVar("zoo_likelihoods_stacked", default=False)


def stacked() -> AbstractContextManager[bool]:
    """Likelihoods inside the block are computed for models that `torch.func.vmap` stacks: the same but for rounding, of
    operations that it does not take apart."""
    return holding(_stacked, True)


def is_stacked() -> bool:
    """Whether this is inside of a `stacked` block."""
    return _stacked.get()


class LikelihoodSettings(Frozen):
    """Which likelihood, and its own settings.

    Attributes:
        name: ``auto`` takes the one that is a likelihood of the data: binary -> bernoulli, 8-bit -> logistic,
            dequantised and real -> gaussian.
        sigma: ``gaussian`` only. A number (in units of the pixels, which lie in [0, 1]), or ``learned``: one
            parameter shared by all pixels.
        scale: ``laplace``, its mean absolute deviation b, ``log_cosh``, whose density far out falls as that of a
            Laplace of this b, and ``student_t``, with many degrees a Gaussian's deviation. A number or ``learned``, as
            ``sigma`` is.
        sharpness: ``log_cosh`` only, a: the larger, the nearer it is to a Laplace; none is 1, the hyperbolic secant.
        degrees: ``student_t`` only, of freedom: the fewer, the heavier its tails; it has a mean above 1 alone. None is
            6, where it has the kurtosis of a Laplace.
        start: of ``gaussian``, ``laplace``, ``log_cosh`` and ``student_t``. ``data`` begins a learned scale at the
            spread of training images about their mean, none at 1.
        components: ``logistic`` only, the number of components of the mixture.
    """

    read_by: ClassVar[ReadBy] = {
        "sigma": ("gaussian",), "scale": ("laplace", "log_cosh", "student_t"), "sharpness": ("log_cosh",),
        "degrees": ("student_t",), "start": ("gaussian", "laplace", "log_cosh", "student_t"),
        "components": ("logistic",),
    }  # fmt: skip

    name: Literal[
        "auto", "bernoulli", "continuous_bernoulli", "gaussian", "laplace", "log_cosh", "student_t", "logistic",
        "beta_binomial",
    ] = "auto"
    sigma: Annotated[float, Field(gt=0)] | Literal["learned"] = "learned"
    scale: Annotated[float, Field(gt=0)] | Literal["learned"] = "learned"
    sharpness: Annotated[float, Field(gt=0)] | None = None
    degrees: Annotated[float, Field(gt=1, le=1e6)] | None = None
    start: Literal["data"] | None = None
    components: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _has_a_spread(self) -> LikelihoodSettings:
        if self.start == "data" and self.degrees is not None and self.degrees <= 2:
            raise ValueError("start=data needs more than 2 degrees: the noise of fewer has no standard deviation")
        return self

    def idle(self, name: str) -> dict[str, str]:
        """Settings that the likelihood ``name`` reads and that do nothing beside the others, each with why."""
        scale = next((key for key in ("sigma", "scale") if name in self.read_by[key]), None)
        value = getattr(self, scale) if scale else "learned"
        return {} if value == "learned" else {"start": f"{scale} is fixed at {value}"}


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

    @property
    def clips(self) -> bool:
        """Whether `sample` draws from another density than that of `log_prob`: one whose tails are cut off."""
        return self.is_density and self.confined and not self.bounded

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

    def initialise(self, x: Tensor) -> None:
        """Called once before training with many images (B, C, H, W), for what starts from data."""

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


def open_uniform(like: Tensor) -> Tensor:
    """`zoo.noise.uniform` without 0, which the ordinary generator can return, and whose logarithm is infinite."""
    return noise.uniform(like).clamp_min(2.0**-25)
