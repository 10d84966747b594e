"""An autoregressive prior over grids of codes: exact, causal in raster order, and cheap to sample on a CPU.

Each code is predicted from a window of codes above it and to its left (a masked convolution of one-hot codes, as the
first layer of PixelCNN, van den Oord et al. 2016) and from all codes before it (a table for each position, summed, as
in NADE, Larochelle and Murray 2011). Both are sums of looked-up vectors; residual layers at each position and a
softmax follow. Because nothing later in the network looks at another position, sampling does each position's work
once: it costs no more arithmetic than evaluating the same grids.
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
    context: whether all earlier codes are summed too; its table has h * w * K * hidden numbers.
    hidden: features at each position.
    blocks: residual layers at each position.
    """

    window: int = Field(3, ge=1)
    context: bool = True
    hidden: int = Field(96, ge=1)
    blocks: int = Field(1, ge=0)


class CodePrior(nn.Module):
    """p(codes) = product over positions i of p(c_i | c_<i), over (h, w) grids of K codes. Uniform until trained.

    Args:
        settings: see `CodePriorSettings`.
        grid: (h, w).
        codes: K.
    """

    neighbours: Tensor
    earlier: Tensor

    def __init__(self, settings: CodePriorSettings, grid: tuple[int, int], codes: int) -> None:
        super().__init__()
        self.settings, self.grid, self.codes = settings, grid, codes
        self.length = grid[0] * grid[1]
        hidden, reach = settings.hidden, settings.window
        above = [(-up, side) for up in range(1, reach + 1) for side in range(-reach, reach + 1)]
        self.offsets = [*above, *[(0, -left) for left in range(1, reach + 1)]]
        # Row i: where in the padded, flattened grid the neighbours of position i lie.
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
        taps = len(self.offsets)
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

    def logits(self, codes: Tensor) -> Tensor:
        """(B, h, w) int64 to (B, h * w, K): row i depends on the codes before i alone."""
        around = self._padded(codes)[:, self.neighbours]
        features = self._look(around.view(-1, len(self.offsets))).view(len(codes), self.length, -1) + self.place
        if self.context is not None:
            rows = torch.arange(self.length, device=codes.device) * self.codes + codes.flatten(1)
            # A product with a triangle instead of a running sum, whose order on a GPU is not fixed.
            features = features + self.earlier.to(features.dtype) @ F.embedding(rows, self.context)
        return self._predict(features)

    @full_precision
    def log_prob(self, codes: Tensor) -> Tensor:
        """(B, h, w) int64 to (B,) nats."""
        logits = self.logits(codes)
        return torch.log_softmax(logits, 2).gather(2, codes.flatten(1).unsqueeze(2)).sum((1, 2))

    def uniform_rate(self, codes: Tensor) -> Tensor:
        """(B,) nats: minus `log_prob` of a prior that no step has moved."""
        return torch.full((len(codes),), self.length * math.log(self.codes), device=codes.device)

    @torch.no_grad()
    @full_precision
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """(n, h, w) int64; the logits are divided by ``temperature``, and 0 takes the most probable code each time."""
        reach, width = self.settings.window, self.grid[1]
        uniform = noise.uniform(self.place.new_zeros(n, self.length))
        codes = torch.full((n, *self.grid), self.codes, dtype=torch.int64, device=self.place.device)
        padded = self._padded(codes)
        seen = torch.zeros(n, self.settings.hidden, dtype=self.place.dtype, device=self.place.device)
        for i in range(self.length):
            features = self._look(padded[:, self.neighbours[i]]) + self.place[i]
            logits = self._predict(features + seen) / max(temperature, 1e-6)
            below = torch.softmax(logits, 1).cumsum(1)
            # The sum of all probabilities is one up to rounding: scale by what it is.
            code = (below < uniform[:, i : i + 1] * below[:, -1:]).sum(1).clamp_max(self.codes - 1)
            y, x = divmod(i, width)
            codes[:, y, x] = code
            padded[:, (y + reach) * (width + 2 * reach) + x + reach] = code
            if self.context is not None:
                seen += self.context[i * self.codes + code]
        return codes

    def _padded(self, codes: Tensor) -> Tensor:
        # (B, (h + r) * (w + 2 r)): nothing below is ever looked at.
        reach = self.settings.window
        return F.pad(codes, (reach, reach, reach, 0), value=self.codes).flatten(1)

    def _look(self, around: Tensor) -> Tensor:
        # (R, taps) codes to (R, hidden): the sum over the taps of what each says.
        rows = around + torch.arange(len(self.offsets), device=around.device) * (self.codes + 1)
        if len(self.window) > ONE_HOT:
            return F.embedding_bag(rows, self.window, mode="sum")
        hot = torch.zeros(len(rows), len(self.window), dtype=self.window.dtype, device=rows.device)
        return hot.scatter_(1, rows, 1.0) @ self.window

    def _predict(self, features: Tensor) -> Tensor:
        for block in self.blocks:
            features = features + block(features)
        return self.head(features.relu())
