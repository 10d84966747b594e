"""What every quantiser has: its settings, what it makes of a grid, and the gradient that passes the rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from zoo.settings import Frozen, ReadBy


class QuantiserSettings(Frozen):
    """``vq``: a codebook that follows the encoder; ``fsq``: fixed levels, nothing to learn and nothing to collapse;
    ``residual``: a codebook that is used several times at each place; ``lfq``: signs.

    Attributes:
        codes: vq and residual, the number of codes. Few are best for the ELBO of small black-and-white images: more of
            them store the noise of the pixels, which costs more nats of rate than it saves of distortion. Colour wants
            hundreds.
        decay: vq and residual, of the moving averages that the codebook is made of.
        commitment: beta: the weight of |z - e|^2, which keeps the encoder near its codes.
        restart_below: vq and residual, a code used less than this times its fair share moves to a vector of the batch;
            0 never.
        levels: fsq, the number of levels of each dimension; there are prod(levels) codes.
        depth: residual, the number of codes at each place; none is 2.
        bits: lfq, the number of signs; there are 2^bits codes; none is 4.
        entropy: lfq, of the penalty of codes that are unsure or not all used.
    """

    read_by: ClassVar[ReadBy] = {
        **dict.fromkeys(("codes", "decay", "restart_below"), ("vq", "residual")),
        "commitment": ("vq", "residual", "lfq"), "levels": ("fsq",), "depth": ("residual",), "bits": ("lfq",),
        "entropy": ("lfq",),
    }  # fmt: skip

    name: Literal["vq", "fsq", "residual", "lfq"] = "vq"
    codes: int = Field(4, ge=1)
    decay: float = Field(0.97, ge=0, lt=1)
    commitment: float = Field(0.25, ge=0, description="all but fsq: weight of |z - e|^2 in training")
    restart_below: float = Field(0.03, ge=0, lt=1)
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field((8, 6, 5), min_length=1)
    depth: int | None = Field(None, ge=1)
    bits: int | None = Field(None, ge=1, le=18)
    entropy: float | None = Field(
        None, ge=0, description="lfq: weight of the penalty of codes that are unsure or not all used; none is 0.1"
    )


@dataclass
class Quantised:
    """What a quantiser made of z.

    Attributes:
        vectors: (B, D, h, w), the codes' vectors, whose gradient to z is that of z itself (of tanh(z) with fsq).
        codes: (B, h, w) int64 in [0, K); (B, h, w, depth) where a place has several.
        commitment: (B,) the term that keeps z near its codes, summed over the grid; 0 without one.
    """

    vectors: Tensor
    codes: Tensor
    commitment: Tensor


class Quantiser(nn.Module):
    """Attributes:
    size: the D of its vectors.
    codes: their number K.
    depth: how many codes a place has, in a dimension of their own; None is one, without that dimension.
    couples_examples: whether it has a `penalty`.
    """

    size: int
    codes: int
    depth: int | None = None
    couples_examples: bool = False

    def forward(self, z: Tensor) -> Quantised:
        raise NotImplementedError

    def embed(self, codes: Tensor) -> Tensor:
        """The vectors of codes: (B, h, w) or (B, h, w, depth) int64 to (B, D, h, w)."""
        raise NotImplementedError

    def penalty(self, z: Tensor) -> Tensor | None:
        """What training adds to the loss of a batch as a whole, 0-dim and weighed; None is nothing."""
        return None

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
