"""What a training image may come with, as y, in place of a condition: another image, and what is told beside that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

NUMBERS = 2**62  # what is drawn is below it, so that a remainder is even but for nothing


class Companions(Protocol):
    """Another image for each, as a function of two random numbers; nothing in it waits for the device."""

    def to(self, device: torch.device) -> Companions:
        """The same on a device."""

    def of(self, index: Tensor, numbers: Tensor) -> Tensor:
        """int64, the companions of the images ``index``, of the same shape; ``numbers`` (..., 2) are drawn evenly from
        0 to `NUMBERS`."""

    def told(self, numbers: Tensor) -> Tensor | None:
        """float32 (..., F), what is told with the companions that ``numbers`` give; None where that is nothing."""


def joined(images: Tensor, told: Tensor | None) -> Tensor:
    """The y of a batch: the images (..., C, H, W), or with what is ``told`` of them (..., F) the numbers of both,
    (..., C*H*W + F)."""
    return images if told is None else torch.cat([images.flatten(-3), told], -1)


def parted(y: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """What `joined` made ``y`` (B, ...) of, for images of the ``shape`` (C, H, W)."""
    if y.dim() > 2:
        return y, None
    dims = math.prod(shape)
    return y[:, :dims].unflatten(1, tuple(shape)), y[:, dims:]
