"""A learned codebook: moving averages of what the encoder makes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zoo import noise, processes
from zoo.precision import full_precision
from zoo.quantisers.base import Quantised, Quantiser, QuantiserSettings, as_grid, as_rows, straight_through

# Vectors that a codebook is started from.
SHOWN = 16384


class VectorQuantiser(Quantiser):
    """The nearest of K vectors, each the moving average of the encoder outputs it was chosen for.

    Neural Discrete Representation Learning (van den Oord et al. 2017), appendix A.1, with the counts in units of a
    code's fair share: a batch of N vectors of which n_k went to code k counts K n_k / N. So sizes start at one and stay
    about one on average, whatever the batch size, and no division by an almost empty count blows up a vector.

    The decay rises to its setting as (1 + n) / (10 + n) with the number of updates n.

    Buffers: ``codebook`` (K, D), ``cluster_size`` (K,), ``cluster_sum`` (K, D), ``updates`` (); none has a gradient.
    """

    codebook: Tensor
    cluster_size: Tensor
    cluster_sum: Tensor
    updates: Tensor

    def __init__(self, settings: QuantiserSettings, size: int) -> None:
        super().__init__()
        self.settings = settings
        self.size, self.codes = size, settings.codes
        codebook = torch.randn(self.codes, size) / math.sqrt(size)
        self.register_buffer("codebook", codebook)
        self.register_buffer("cluster_size", torch.ones(self.codes))
        self.register_buffer("cluster_sum", codebook.clone())
        self.register_buffer("updates", torch.zeros(()))
        self._observed: tuple[Tensor, Tensor, Tensor] | None = None  # counts (K,), sums (K, D), candidates (K, D)

    @full_precision
    def forward(self, z: Tensor) -> Quantised:
        rows = as_rows(z)
        with torch.no_grad():
            codes = self.nearest(rows)
            chosen = self.codebook[codes]
        codes = codes.view(len(z), *z.shape[2:])
        commitment = self.settings.commitment * (rows - chosen).square().view(len(z), -1).sum(1)
        return Quantised(straight_through(z, as_grid(chosen, z)), codes, commitment)

    def nearest(self, rows: Tensor) -> Tensor:
        """(N, D) to (N,): the code of the least |z|^2 - 2 z.e + |e|^2, of which the first term decides nothing."""
        # Both less the middle of the codes: what all have in common would take the digits that tell them apart.
        middle = self.codebook.mean(0)
        apart = self.codebook - middle
        return torch.addmm(apart.square().sum(1), rows - middle, apart.T, alpha=-2.0).argmin(1)

    def embed(self, codes: Tensor) -> Tensor:
        return self.codebook[codes].movedim(-1, 1)

    @torch.no_grad()
    @full_precision
    def initialise(self, z: Tensor) -> None:
        """Spread the codes over the vectors of a batch: each is drawn in proportion to its squared distance from those
        already chosen (k-means++, Arthur and Vassilvitskii 2007). Drawn evenly, most would be the background."""
        self._spread(shown(z), 0, self.codes)
        self._restart()

    def _spread(self, rows: Tensor, start: int, stop: int) -> None:
        far = torch.ones_like(rows[:, 0])
        for code in range(start, stop):
            chosen = rows[torch.multinomial(far.clamp_min(1e-30), 1)[0]]
            self.codebook[code] = chosen
            distance = (rows - chosen).square().sum(1)
            far = distance if code == start else torch.minimum(far, distance)

    def _restart(self) -> None:
        self.cluster_size.fill_(1.0)
        self.cluster_sum.copy_(self.codebook)

    @torch.no_grad()
    @full_precision
    def observe(self, z: Tensor, codes: Tensor) -> None:
        rows = self._chosen_for(z, codes)
        # A product with the one-hot matrix instead of a scatter: on a GPU the latter adds in no fixed order, and a
        # resumed run would not be the same run.
        hot = torch.zeros(len(rows), self.codes, dtype=rows.dtype, device=rows.device)
        hot.scatter_(1, codes.reshape(-1, 1), 1.0)
        found = hot.sum(0), hot.T @ rows, noise.picked(rows, self.codes)
        if self._observed is not None:
            found = tuple(part + before for part, before in zip(found, self._observed, strict=True))
        self._observed = found

    def _chosen_for(self, z: Tensor, codes: Tensor) -> Tensor:
        # (N, D): what each of the codes was the nearest to, those of an image one after the other.
        return as_rows(z)

    def _load_from_state_dict(self, *given: Any) -> None:
        # What a step counted that never came to its end is not of the step that comes after other weights.
        self._observed = None
        super()._load_from_state_dict(*given)

    @torch.no_grad()
    def after_step(self) -> None:
        if self._observed is None:
            return
        counts, sums, candidates = self._observed
        self._observed = None
        if processes.several():
            for part in (counts, sums, candidates):
                processes.add(part)
        # The first batches count for more: at the start the encoder moves faster than a long average can follow.
        decay = ((1 + self.updates) / (10 + self.updates)).clamp_max(self.settings.decay)
        share = self.codes / counts.sum()
        size = torch.lerp(counts * share, self.cluster_size, decay)
        total = torch.lerp(sums * share, self.cluster_sum, decay)
        dead = size < self.settings.restart_below
        size = torch.where(dead, torch.ones_like(size), size)
        total = torch.where(dead.unsqueeze(1), candidates, total)
        # A code that nobody uses keeps its place: its size and its sum shrink together until nothing is left of them.
        moved = torch.where((size > 1e-6).unsqueeze(1), total / size.clamp_min(1e-6).unsqueeze(1), self.codebook)
        # The trainer leaves out an update that is not finite; so does the codebook.
        finite = torch.isfinite(sums).all()
        self.codebook.copy_(torch.where(finite, moved, self.codebook))
        self.cluster_size.copy_(torch.where(finite, size, self.cluster_size))
        self.cluster_sum.copy_(torch.where(finite, total, self.cluster_sum))
        self.updates += finite


def shown(z: Tensor) -> Tensor:
    """(N, D): vectors of a batch (B, D, h, w), in random order, no more than a codebook is started from."""
    rows = as_rows(z)
    return rows[torch.randperm(len(rows), device=rows.device)[:SHOWN]]
