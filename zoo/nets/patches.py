"""A discriminator that judges patches of an image, each by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nets import require
from zoo.precision import full_precision


class PatchDiscriminator(nn.Sequential):
    """(B, C, H, W) to logits (B, h, w) of being real, one a patch, positive for real (Isola et al. 2017,
    https://arxiv.org/abs/1611.07004).

    Args:
        channels: of the images.
        widths: of each halving of the resolution.
        size: of the images, (H, W).

    Each place is normalised over its own channels, which leaves the patches apart and the examples of a batch too; the
    paper normalises over the batch.

    Raises:
        UsageError: no width, or so many that a halving has nothing left to halve.
    """

    def __init__(self, channels: int, widths: Sequence[int], size: tuple[int, int]) -> None:
        require(len(widths) > 0, "a discriminator needs at least one number in discriminator.")
        require(min(size) >= 2 ** len(widths), f"discriminator halves {size} too often.")
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip((channels, *widths), widths, strict=False)):
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1))
            if i > 0:  # not the first: it would take brightness away before anything has seen it
                layers.append(ChannelNorm())
            layers.append(nn.LeakyReLU(0.2))
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous(memory_format=torch.channels_last)).squeeze(1)


class ChannelNorm(nn.Module):
    """Zero mean and unit variance over the channels of each place of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.movedim(1, -1), (x.shape[1],)).movedim(-1, 1)


@full_precision
def hinge(real: Tensor, made: Tensor) -> Tensor:
    """(): what a discriminator pays for logits of any shape: nothing beyond 1 on the right side (Lim and Ye 2017,
    https://arxiv.org/abs/1705.02894)."""
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + made).mean())
