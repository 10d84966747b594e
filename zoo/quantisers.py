"""What turns a grid of real vectors into a grid of codes: a learned codebook, or rounding to fixed levels.

A quantiser maps z (B, D, h, w) to codes (B, h, w) in [0, K) and their vectors (B, D, h, w). The gradient of those
vectors passes the rounding unchanged (straight-through): vq hands it to z as it is, fsq through its tanh. All of it is
float32 (float64 for float64 inputs) outside autocast: a nearest neighbour found in half precision is another one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import noise, processes
from zoo.precision import full_precision
from zoo.settings import Frozen, ReadBy

# Vectors that a codebook is started from.
SHOWN = 16384


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
        rows = _rows(z)
        with torch.no_grad():
            codes = self.nearest(rows)
            chosen = self.codebook[codes]
        codes = codes.view(len(z), *z.shape[2:])
        commitment = self.settings.commitment * (rows - chosen).square().view(len(z), -1).sum(1)
        return Quantised(straight_through(z, _grid(chosen, z)), codes, commitment)

    def nearest(self, rows: Tensor) -> Tensor:
        """(N, D) to (N,): the code of the least |z|^2 - 2 z.e + |e|^2, of which the first term decides nothing."""
        return torch.addmm(self.codebook.square().sum(1), rows, self.codebook.T, alpha=-2.0).argmin(1)

    def embed(self, codes: Tensor) -> Tensor:
        return self.codebook[codes].movedim(-1, 1)

    @torch.no_grad()
    @full_precision
    def initialise(self, z: Tensor) -> None:
        """Spread the codes over the vectors of a batch: each is drawn in proportion to its squared distance from those
        already chosen (k-means++, Arthur and Vassilvitskii 2007). Drawn evenly, most would be the background."""
        rows = _rows(z)
        rows = rows[torch.randperm(len(rows), device=rows.device)[:SHOWN]]
        far = torch.ones_like(rows[:, 0])
        for code in range(self.codes):
            chosen = rows[torch.multinomial(far.clamp_min(1e-30), 1)[0]]
            self.codebook[code] = chosen
            distance = (rows - chosen).square().sum(1)
            far = distance if code == 0 else torch.minimum(far, distance)
        self.cluster_size.fill_(1.0)
        self.cluster_sum.copy_(self.codebook)

    @torch.no_grad()
    @full_precision
    def observe(self, z: Tensor, codes: Tensor) -> None:
        rows = _rows(z)
        # A product with the one-hot matrix instead of a scatter: on a GPU the latter adds in no fixed order, and a
        # resumed run would not be the same run.
        hot = torch.zeros(len(rows), self.codes, dtype=rows.dtype, device=rows.device)
        hot.scatter_(1, codes.reshape(-1, 1), 1.0)
        found = hot.sum(0), hot.T @ rows, noise.picked(rows, self.codes)
        if self._observed is not None:
            found = tuple(part + before for part, before in zip(found, self._observed, strict=True))
        self._observed = found

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
        return (digits / self.spread - 1.0).movedim(-1, 1)

    def _spread(self, like: Tensor) -> Tensor:
        return self.spread.to(like.dtype).view(1, -1, *[1] * (like.dim() - 2))


def make_quantiser(settings: QuantiserSettings, size: int) -> Quantiser:
    """The quantiser of those settings; ``size`` is the D of a codebook's vectors (fsq has one number per level)."""
    return VectorQuantiser(settings, size) if settings.name == "vq" else FiniteScalarQuantiser(settings)


def straight_through(z: Tensor, quantised: Tensor) -> Tensor:
    """``quantised`` to the last bit as a value, the identity in z as a gradient."""
    return quantised.detach() + (z - z.detach())


def code_counts(codes: Tensor, number: int) -> Tensor:
    """(number,) how often each code occurs in int64 ``codes`` of any shape; counts of several batches add up."""
    flat = codes.reshape(-1)
    counts = torch.zeros(number, device=flat.device)
    return counts.scatter_add_(0, flat, torch.ones_like(flat, dtype=counts.dtype))


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of the codes, 0-dim in [1, K]. It depends on how many codes were counted: few of them cannot
    have a large one."""
    frequency = counts / counts.sum()
    return torch.exp(-torch.special.xlogy(frequency, frequency).sum())


def code_use(counts: Tensor) -> Tensor:
    """The share of the K codes that occur at all, 0-dim in [0, 1]."""
    return (counts > 0).to(counts.dtype).mean()


def _rows(z: Tensor) -> Tensor:
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def _grid(rows: Tensor, like: Tensor) -> Tensor:
    return rows.view(len(like), *like.shape[2:], -1).movedim(-1, 1)
