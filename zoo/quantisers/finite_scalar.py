"""Rounding to fixed levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.precision import full_precision
from zoo.quantisers.base import Quantised, Quantiser, QuantiserSettings, straight_through


class FiniteScalarQuantiser(Quantiser):
    """Each of D numbers rounded to one of L_d fixed levels (Mentzer et al. 2024, https://arxiv.org/abs/2309.15505).

    z is bounded to ((L - 1) / 2) tanh(z) and rounded to the levels -(L - 1)/2, ..., (L - 1)/2, one apart; the vectors
    that leave are those divided by (L - 1)/2, so in [-1, 1]. The paper shifts an even number of levels by a half, which
    makes them lopsided around 0; here they are symmetric, and rounding is to the nearest half-integer instead.
    """

    spread: Tensor
    basis: Tensor

    def __init__(self, settings: QuantiserSettings) -> None:
        super().__init__()
        self.settings = settings
        self.levels = settings.levels
        self.size, self.codes = len(self.levels), math.prod(self.levels)
        basis = [math.prod(self.levels[:d]) for d in range(self.size)]
        self.register_buffer("spread", (torch.tensor(self.levels).float() - 1.0) / 2.0, persistent=False)
        self.register_buffer("basis", torch.tensor(basis), persistent=False)

    @full_precision
    def forward(self, z: Tensor) -> Quantised:
        spread = self._spread(z)
        bounded = spread * torch.tanh(z)
        levels = straight_through(bounded, self.round(bounded))
        with torch.no_grad():
            digits = (levels + spread).round().long()
            codes = (digits * self.basis.view(1, -1, *[1] * (z.dim() - 2))).sum(1)
        return Quantised(levels / spread, codes, z.new_zeros(len(z)))

    def round(self, bounded: Tensor) -> Tensor:
        """The nearest level of each number of (B, D, h, w), already bounded; levels stay what they are."""
        spread = self._spread(bounded)
        return torch.minimum(torch.round(bounded + spread).clamp_min(0.0), 2.0 * spread) - spread

    def embed(self, codes: Tensor) -> Tensor:
        sizes = torch.tensor(self.levels, device=codes.device)
        digits = codes.unsqueeze(-1) // self.basis % sizes
        return ((digits - self.spread) / self.spread).movedim(-1, 1)  # to the last bit what the encoder's become

    def _spread(self, like: Tensor) -> Tensor:
        return self.spread.to(like.dtype).view(1, -1, *[1] * (like.dim() - 2))
