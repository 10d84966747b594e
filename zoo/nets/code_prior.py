"""An autoregressive prior over grids of codes: exact, causal in raster order, and cheap to sample on a CPU.

Each code is predicted from a window of codes above it and to its left (a masked convolution of one-hot codes, as the
first layer of PixelCNN, van den Oord et al. 2016) and from all codes before it (a table for each position, summed, as
in NADE, Larochelle and Murray 2011). Both are sums of looked-up vectors; residual layers at each position and a
softmax follow. Because nothing later in the network looks at another position, sampling does each position's work
once: it costs no more arithmetic than evaluating the same grids.

Where a position has several codes, one for each depth of a residual quantiser, they follow one another: each is
predicted from all codes of earlier positions and from those before it at its own. (Lee et al. 2022 factorise so too,
with a transformer over positions and another over depths.)

A grid may be predicted from something else beside: features that each position is told.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.precision import full_precision
from zoo.settings import Frozen

# Up to this many rows a table is cheaper to multiply with one-hot vectors than to look up, whose gradient sorts.
ONE_HOT = 512


class CodePriorSettings(Frozen):
    """Attributes:
    window: how far the window reaches up, left and right, in codes.
    context: whether all earlier codes are summed too; its table has h * w * K * hidden numbers, times the depth.
    hidden: features at each position.
    blocks: residual layers at each position.
    """

    window: int = Field(3, ge=1)
    context: bool = True
    hidden: int = Field(96, ge=1)
    blocks: int = Field(1, ge=0)


class CodePrior(nn.Module):
    """p(codes) = product over i of p(c_i | c_<i), over (h, w) grids of K codes. Uniform until trained. What it is
    ``told``, (B, h * w, hidden), is added to the features of each position.

    Args:
        settings: see `CodePriorSettings`.
        grid: (h, w).
        codes: K.
        depth: how many codes there are at each position; grids are then (h, w, depth). None is one, in grids (h, w).
    """

    neighbours: Tensor
    earlier: Tensor

    def __init__(
        self, settings: CodePriorSettings, grid: tuple[int, int], codes: int, depth: int | None = None
    ) -> None:
        super().__init__()
        self.settings, self.grid, self.codes = settings, grid, codes
        self.shape = grid if depth is None else (*grid, depth)
        self.depth = depth or 1
        self.length = math.prod(self.shape)
        hidden, reach = settings.hidden, settings.window
        above = [(-up, side) for up in range(1, reach + 1) for side in range(-reach, reach + 1)]
        self.offsets = [*above, *[(0, -left) for left in range(1, reach + 1)]]
        # Row i: where in the padded, flattened grid the neighbours of position i lie, each with all of its codes.
        width = grid[1] + 2 * reach
        rows = [
            [(y + dy + reach) * width + x + dx + reach for dy, dx in self.offsets]
            for y in range(grid[0])
            for x in range(grid[1])
        ]
        self.register_buffer("neighbours", torch.tensor(rows), persistent=False)
        earlier = torch.ones(self.length, self.length).tril(-1)
        self.register_buffer("earlier", earlier, persistent=False)
        # One code more than there are stands for what lies outside the grid.
        taps = len(self.offsets) * self.depth
        self.window = nn.Parameter(torch.randn(taps * (codes + 1), hidden) * 0.6 / math.sqrt(taps))
        self.place = nn.Parameter(torch.randn(self.length, hidden) * 0.1)
        self.context = nn.Parameter(torch.randn(self.length * codes, hidden) * 0.03) if settings.context else None
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
            for _ in range(settings.blocks)
        )
        self.head = nn.Linear(hidden, codes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        # What the codes at a position say of the deeper ones there.
        shallower = (self.depth - 1) * codes
        self.within = nn.Parameter(torch.randn(shallower, hidden) * 0.6 / math.sqrt(self.depth)) if shallower else None

    def logits(self, codes: Tensor, told: Tensor | None = None) -> Tensor:
        """(B, h, w) or (B, h, w, depth) int64 to (B, h * w * depth, K): row i depends on the codes before i alone."""
        around = self._padded(codes)[:, self.neighbours]
        features = self._look(around.flatten(0, 1).flatten(1)).view(len(codes), -1, 1, self.settings.hidden)
        if told is not None:
            features = features + told.unsqueeze(2)
        features = (features + self.place.view(-1, self.depth, self.settings.hidden)).flatten(1, 2)
        # Products with a triangle instead of running sums, whose order on a GPU is not fixed.
        if self.within is not None:
            here = codes.reshape(len(codes), -1, self.depth)[..., :-1]
            rows = torch.arange(self.depth - 1, device=codes.device) * self.codes + here
            earlier = self.earlier[: self.depth, : self.depth - 1].to(features.dtype)
            features = features + (earlier @ F.embedding(rows, self.within)).flatten(1, 2)
        if self.context is not None:
            rows = torch.arange(self.length, device=codes.device) * self.codes + codes.flatten(1)
            features = features + self.earlier.to(features.dtype) @ F.embedding(rows, self.context)
        return self._predict(features)

    @full_precision
    def log_prob(self, codes: Tensor, told: Tensor | None = None) -> Tensor:
        """(B, h, w) or (B, h, w, depth) int64 to (B,) nats."""
        logits = self.logits(codes, told)
        return torch.log_softmax(logits, 2).gather(2, codes.flatten(1).unsqueeze(2)).sum((1, 2))

    def uniform_rate(self, codes: Tensor) -> Tensor:
        """(B,) nats: minus `log_prob` of a prior that no step has moved."""
        return torch.full((len(codes),), self.length * math.log(self.codes), device=codes.device)

    @torch.no_grad()
    @full_precision
    def sample(self, n: int, temperature: float = 1.0, told: Tensor | None = None) -> Tensor:
        """(n, h, w) or (n, h, w, depth) int64; the logits are divided by ``temperature``, and 0 takes the most probable
        code each time."""
        reach, width = self.settings.window, self.grid[1]
        uniform = noise.uniform(self.place.new_zeros(n, self.length))
        codes = torch.full((n, self.length), self.codes, dtype=torch.int64, device=self.place.device)
        padded = self._padded(codes)
        seen = torch.zeros(n, self.settings.hidden, dtype=self.place.dtype, device=self.place.device)
        for i in range(self.length):
            position, level = divmod(i, self.depth)
            if level == 0:
                around, here = self._look(padded[:, self.neighbours[position]].flatten(1)), torch.zeros_like(seen)
                if told is not None:
                    around = around + told[:, position]
            logits = self._predict(around + self.place[i] + here + seen) / max(temperature, 1e-6)
            below = torch.softmax(logits, 1).cumsum(1)
            # The sum of all probabilities is one up to rounding: scale by what it is.
            code = (below < uniform[:, i : i + 1] * below[:, -1:]).sum(1).clamp_max(self.codes - 1)
            y, x = divmod(position, width)
            codes[:, i] = code
            padded[:, (y + reach) * (width + 2 * reach) + x + reach, level] = code
            if self.within is not None and level < self.depth - 1:
                here += self.within[level * self.codes + code]
            if self.context is not None:
                seen += self.context[i * self.codes + code]
        return codes.view(n, *self.shape)

    def _padded(self, codes: Tensor) -> Tensor:
        # (B, (h + r) * (w + 2 r), depth): nothing below is ever looked at.
        reach = self.settings.window
        stacked = codes.reshape(len(codes), *self.grid, self.depth)
        return F.pad(stacked, (0, 0, reach, reach, reach, 0), value=self.codes).flatten(1, 2)

    def _look(self, around: Tensor) -> Tensor:
        # (R, taps) codes to (R, hidden): the sum over the taps of what each says.
        rows = around + torch.arange(around.shape[1], device=around.device) * (self.codes + 1)
        if len(self.window) > ONE_HOT:
            return F.embedding_bag(rows, self.window, mode="sum")
        hot = torch.zeros(len(rows), len(self.window), dtype=self.window.dtype, device=rows.device)
        return hot.scatter_(1, rows, 1.0) @ self.window

    def _predict(self, features: Tensor) -> Tensor:
        for block in self.blocks:
            features = features + block(features)
        return self.head(features.relu())
