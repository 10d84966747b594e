"""A discriminator of codes: dense layers that tell the draws of one density from those of another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.precision import full, full_precision


class CodeDiscriminator(nn.Sequential):
    """Codes (B, D) to logits (B,), positive for the first side of `verdict`.

    At its best the logit is the log-ratio of the densities of the two sides (Goodfellow et al. 2014).
    """

    def __init__(self, latent: int, widths: Sequence[int]) -> None:
        sizes = [latent, *widths]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, z: Tensor) -> Tensor:
        return full(super().forward(z)).squeeze(1)


@full_precision
def verdict(first: Tensor, second: Tensor) -> Tensor:
    """The discriminator's loss in nats, a scalar, from logits (A,) and (B,) of its two sides: log 2 where it cannot
    tell them apart."""
    return 0.5 * (F.softplus(-first).mean() + F.softplus(second).mean())
