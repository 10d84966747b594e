"""From an image to a map of a lower resolution and back, with the residual blocks of VQ-VAE in between (van den Oord et
al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo.nets import Width
from zoo.settings import Frozen


class HalvingSettings(Frozen):
    """Of an encoder by `halvings` and a decoder by `doublings`."""

    channels: tuple[Width, ...] = Field(
        (16, 32), min_length=1, description="channels of each halving of the resolution"
    )
    residual: int = Field(1, ge=0, description="residual blocks at the lowest resolution, in each network")
    hidden: int = Field(32, ge=1, description="channels inside a residual block")


@dataclass(frozen=True)
class Halved:
    """How images of ``size`` (H, W) fit a ``grid`` (h, w) after so many halvings: a size that these do not divide is
    padded by zeros below and to the right, and cropped there again."""

    size: tuple[int, int]
    times: int

    @property
    def grid(self) -> tuple[int, int]:
        factor = 2**self.times
        return -(-self.size[0] // factor), -(-self.size[1] // factor)

    def padded(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) of the size that halvings divide, channels last."""
        below, beside = (side * 2**self.times - had for side, had in zip(self.grid, self.size, strict=True))
        padded = F.pad(x, (0, beside, 0, below)) if below or beside else x
        return padded.contiguous(memory_format=torch.channels_last)

    def cropped(self, params: Tensor) -> Tensor:
        return params[:, :, : self.size[0], : self.size[1]]


class Block(nn.Module):
    """x + W1 relu(W3 relu(x)), with a 3x3 convolution to ``hidden`` channels and a 1x1 one back."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def halvings(channels: int, widths: Sequence[int], blocks: int, hidden: int) -> list[nn.Module]:
    """The layers from ``channels`` to the last of ``widths``: each width is a halving of the resolution, and ``blocks``
    follow the last. They end in a ReLU."""
    layers: list[nn.Module] = []
    for before, after in zip([channels, *widths], widths, strict=False):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
    return [*layers[:-1], *(Block(widths[-1], hidden) for _ in range(blocks)), nn.ReLU()]


def doublings(channels: int, widths: Sequence[int], blocks: int, hidden: int) -> list[nn.Module]:
    """The layers from ``channels`` to the last of ``widths``: ``blocks`` at the first width, and each later width is a
    doubling of the resolution. They end in a convolution."""
    inner = [Block(widths[0], hidden) for _ in range(blocks)]
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1), *inner]
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.ReLU(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
    return layers
