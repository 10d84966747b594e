"""What turns a grid of real vectors into a grid of codes: a learned codebook, used once or several times at each place,
or rounding to fixed levels, of which signs are two.

A quantiser maps z (B, D, h, w) to codes (B, h, w) in [0, K) and their vectors (B, D, h, w). The gradient of those
vectors passes the rounding unchanged (straight-through): fsq hands it through its tanh, the others to z as it is. All
of it is float32 (float64 for float64 inputs) outside autocast: a nearest neighbour found in half precision is another.
"""

from __future__ import annotations

from zoo.quantisers.base import Quantised, Quantiser, QuantiserSettings, straight_through
from zoo.quantisers.codebook import VectorQuantiser
from zoo.quantisers.finite_scalar import FiniteScalarQuantiser
from zoo.quantisers.lookup_free import LookupFreeQuantiser
from zoo.quantisers.residual import ResidualQuantiser
from zoo.quantisers.usage import code_counts, code_use, perplexity

__all__ = [
    "FiniteScalarQuantiser", "LookupFreeQuantiser", "Quantised", "Quantiser", "QuantiserSettings", "ResidualQuantiser",
    "VectorQuantiser", "code_counts", "code_use", "make_quantiser", "perplexity", "straight_through",
]  # fmt: skip


def make_quantiser(settings: QuantiserSettings, size: int) -> Quantiser:
    """The quantiser of those settings; ``size`` is the D of a codebook's vectors (fsq has one number per level, lfq one
    per bit)."""
    if settings.name == "fsq":
        return FiniteScalarQuantiser(settings)
    if settings.name == "lfq":
        return LookupFreeQuantiser(settings)
    return VectorQuantiser(settings, size) if settings.name == "vq" else ResidualQuantiser(settings, size)
