"""The sign of each number, and the entropy penalty that spreads what is encoded over all signs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.precision import full_precision
from zoo.quantisers.base import Quantised, Quantiser, QuantiserSettings, as_grid, as_rows, straight_through

# Where nobody says how many, and what their penalty weighs.
BITS, ENTROPY = 4, 0.1
# So many bits have their joint distribution counted; of more, it is that of groups of as many.
JOINT = 8


class LookupFreeQuantiser(Quantiser):
    """The signs of D numbers, -1 or 1 (Yu et al. 2024, https://arxiv.org/abs/2310.05737): bit d of a code is 1 where
    z_d > 0, and K = 2 ** D.

    Where we differ: z is what the encoder gives less its mean over the first batch, divided by its deviation there. The
    numbers of an encoder that nothing has moved are nearly the same at all places, and so would all signs be.

    With q(c | z) the softmax over the codes c of -|z - c|^2, which is independent bits of log-odds 4 z_d, the paper's
    penalty of a batch is E[H(q)] - H(E[q]), the means over its places: each place should be sure of its code, and the
    codes all be used. Here it is in nats and, as the commitment is, of a whole grid. Where there are more than
    `JOINT` bits the entropy of the mean is the sum of those of groups of bits, its upper bound.

    Buffers: ``mean`` (D,), ``deviation`` (D,), 0 and 1 until `initialise`.
    """

    basis: Tensor
    signs: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: QuantiserSettings) -> None:
        super().__init__()
        self.settings = settings
        self.size = settings.bits or BITS
        self.codes = 2**self.size
        self.weight = ENTROPY if settings.entropy is None else settings.entropy
        self.couples_examples = self.weight > 0
        self.register_buffer("basis", 2 ** torch.arange(self.size), persistent=False)
        self.register_buffer("signs", torch.tensor([-1.0, 1.0]), persistent=False)
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("deviation", torch.ones(self.size))

    @full_precision
    def forward(self, z: Tensor) -> Quantised:
        z = as_grid(self._standard(z), z)
        with torch.no_grad():
            codes = ((z > 0).long() * self.basis.view(1, -1, *[1] * (z.dim() - 2))).sum(1)
            vectors = self.embed(codes).to(z.dtype)
        commitment = self.settings.commitment * (z - vectors).square().flatten(1).sum(1)
        return Quantised(straight_through(z, vectors), codes, commitment)

    def embed(self, codes: Tensor) -> Tensor:
        return self.signs[codes.unsqueeze(-1) // self.basis % 2].movedim(-1, 1)

    @torch.no_grad()
    @full_precision
    def initialise(self, z: Tensor) -> None:
        rows = as_rows(z)
        self.mean.copy_(rows.mean(0))
        deviation = rows.std(0, correction=0)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    @full_precision
    def penalty(self, z: Tensor) -> Tensor | None:
        if not self.couples_examples:
            return None
        logits = 4.0 * self._standard(z)
        far = logits.abs()
        # The entropy of a bit, without the difference of two large numbers.
        own = (F.softplus(-far) + far * torch.sigmoid(-far)).sum(1).mean()
        together = sum(_entropy(part) for part in torch.sigmoid(logits).split(JOINT, 1))
        return self.weight * (len(logits) / len(z)) * (own - together)

    def _standard(self, z: Tensor) -> Tensor:
        return (as_rows(z) - self.mean) / self.deviation


def _entropy(bits: Tensor) -> Tensor:
    # Of the mean over the rows of independent bits, (N, D) probabilities of a one; 0-dim, in nats.
    joint = torch.ones_like(bits[:, :1])
    for one in bits.unbind(1):
        joint = torch.cat([joint * (1.0 - one).unsqueeze(1), joint * one.unsqueeze(1)], 1)
    # What never occurs has no entropy, and no gradient, whose logarithm would be infinite.
    mean = joint.mean(0).clamp_min(torch.finfo(joint.dtype).tiny)
    return -(mean * mean.log()).sum()
