"""One codebook, used several times at each place: what a code leaves over is quantised by the next."""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.precision import full_precision
from zoo.quantisers.base import Quantised, QuantiserSettings, as_grid, as_rows, straight_through
from zoo.quantisers.codebook import VectorQuantiser, shown

# Where nobody says how many.
DEPTH = 2


class ResidualQuantiser(VectorQuantiser):
    """A sum of ``depth`` vectors of one codebook, each the nearest to what those before it have left of z (Lee et al.
    2022, https://arxiv.org/abs/2203.01941).

    As in the paper, all depths share the codebook, and the commitment is a sum over the depths d of |z - e_1 - ... -
    e_d|^2. Where we differ: it starts from data, a part of it from each depth; codes are not sampled nor softened in
    training. At depth 1 it is the `VectorQuantiser`.

    Codes are (B, h, w, depth): each place has K ** depth of them.
    """

    depth: int

    def __init__(self, settings: QuantiserSettings, size: int) -> None:
        super().__init__(settings, size)
        self.depth = settings.depth or DEPTH

    @full_precision
    def forward(self, z: Tensor) -> Quantised:
        rows = as_rows(z)
        with torch.no_grad():
            codes = self._codes(rows)
            sums = self._sums(codes)
        distance = (rows.unsqueeze(1) - sums).square()
        commitment = self.settings.commitment * distance.view(len(z), -1).sum(1)
        return Quantised(
            straight_through(z, as_grid(sums[:, -1], z)), codes.view(len(z), *z.shape[2:], self.depth), commitment
        )

    def embed(self, codes: Tensor) -> Tensor:
        return self._sums(codes)[..., -1, :].movedim(-1, 1)

    @torch.no_grad()
    @full_precision
    def initialise(self, z: Tensor) -> None:
        """Each depth has its share of the codes spread over what the shares of those before it leave of a batch."""
        rows, start = shown(z), 0
        for depth in range(1, self.depth + 1):
            stop = self.codes * depth // self.depth
            if start:
                before = self.codebook[:start]
                rows = rows - before[torch.cdist(rows, before).argmin(1)]
            self._spread(rows, start, stop)
            start = stop
        self._restart()

    def _chosen_for(self, z: Tensor, codes: Tensor) -> Tensor:
        rows, codes = as_rows(z), codes.reshape(-1, self.depth)
        found = F.pad(self._sums(codes)[:, :-1], (0, 0, 1, 0))
        return (rows.unsqueeze(1) - found).flatten(0, 1)

    def _codes(self, rows: Tensor) -> Tensor:
        # (N, D) to (N, depth).
        codes, found = [], torch.zeros_like(rows)
        for _ in range(self.depth):
            codes.append(self.nearest(rows - found))
            found = found + self.codebook[codes[-1]]
        return torch.stack(codes, 1)

    def _sums(self, codes: Tensor) -> Tensor:
        # (..., depth) to (..., depth, D): the sum of the vectors so far, added one after the other.
        return torch.stack(list(accumulate(self.codebook[codes].unbind(-2))), -2)
