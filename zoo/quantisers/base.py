"""What every quantiser has: its settings, what it makes of a grid, and the gradient that passes the rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from zoo.settings import Frozen, ReadBy


class QuantiserSettings(Frozen):
    """``vq``: a codebook that follows the encoder; ``fsq``: fixed levels, nothing to learn and nothing to collapse.

    Attributes:
        codes: vq, the number of codes. Few are best for the ELBO of small black-and-white images: more of them store
            the noise of the pixels, which costs more nats of rate than it saves of distortion. Colour wants hundreds.
        decay: vq, of the moving averages that the codebook is made of.
        commitment: vq, beta: the weight of |z - e|^2, which keeps the encoder near its codes.
        restart_below: vq, a code used less than this times its fair share moves to a vector of the batch; 0 never.
        levels: fsq, the number of levels of each dimension; there are prod(levels) codes.
    """

    read_by: ClassVar[ReadBy] = {
        **dict.fromkeys(("codes", "decay", "commitment", "restart_below"), ("vq",)), "levels": ("fsq",)
    }

    name: Literal["vq", "fsq"] = "vq"
    codes: int = Field(4, ge=1)
    decay: float = Field(0.97, ge=0, lt=1)
    commitment: float = Field(0.25, ge=0, description="vq: weight of |z - e|^2 in training")
    restart_below: float = Field(0.03, ge=0, lt=1)
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field((8, 6, 5), min_length=1)


@dataclass
class Quantised:
    """What a quantiser made of z.

    Attributes:
        vectors: (B, D, h, w), the codes' vectors, whose gradient to z is that of z itself (of tanh(z) with fsq).
        codes: (B, h, w) int64 in [0, K).
        commitment: (B,) the term that keeps z near its codes, summed over the grid; 0 without one.
    """

    vectors: Tensor
    codes: Tensor
    commitment: Tensor


class Quantiser(nn.Module):
    """Attributes: ``size``, the D of its vectors; ``codes``, their number K."""

    size: int
    codes: int

    def forward(self, z: Tensor) -> Quantised:
        raise NotImplementedError

    def embed(self, codes: Tensor) -> Tensor:
        """The vectors of codes: (B, h, w) int64 to (B, D, h, w)."""
        raise NotImplementedError

    def initialise(self, z: Tensor) -> None:
        """Start from a large batch of encoder outputs."""

    def observe(self, z: Tensor, codes: Tensor) -> None:
        """Count a training batch towards the next `after_step`; batches add up until then."""

    def after_step(self) -> None:
        """Take up what was observed. Never waits for the device."""


def straight_through(z: Tensor, quantised: Tensor) -> Tensor:
    """``quantised`` to the last bit as a value, the identity in z as a gradient."""
    return quantised.detach() + (z - z.detach())


def as_rows(z: Tensor) -> Tensor:
    """(B, D, h, w) as (B h w, D), an image's rows one after the other."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def as_grid(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_rows`, for a batch and a grid as those of ``like``."""
    return rows.view(len(like), *like.shape[2:], -1).movedim(-1, 1)
