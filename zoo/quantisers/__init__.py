"""What turns a grid of real vectors into a grid of codes: a learned codebook, or rounding to fixed levels.

A quantiser maps z (B, D, h, w) to codes (B, h, w) in [0, K) and their vectors (B, D, h, w). The gradient of those
vectors passes the rounding unchanged (straight-through): vq hands it to z as it is, fsq through its tanh. All of it is
float32 (float64 for float64 inputs) outside autocast: a nearest neighbour found in half precision is another one.
"""

from __future__ import annotations

from zoo.quantisers.base import Quantised, Quantiser, QuantiserSettings, straight_through
from zoo.quantisers.codebook import VectorQuantiser
from zoo.quantisers.finite_scalar import FiniteScalarQuantiser
from zoo.quantisers.usage import code_counts, code_use, perplexity

__all__ = [
    "FiniteScalarQuantiser", "Quantised", "Quantiser", "QuantiserSettings", "VectorQuantiser", "code_counts",
    "code_use", "make_quantiser", "perplexity", "straight_through",
]  # fmt: skip


def make_quantiser(settings: QuantiserSettings, size: int) -> Quantiser:
    """The quantiser of those settings; ``size`` is the D of a codebook's vectors (fsq has one number per level)."""
    return VectorQuantiser(settings, size) if settings.name == "vq" else FiniteScalarQuantiser(settings)
