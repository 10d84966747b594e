"""Gated convolutions: the networks that van den Berg et al. (2018) compare flows on.

Every convolution has two outputs, a and b, and gives a sigmoid(b). Five of them, two of which halve the resolution, and
one as large as the image that is left: the decoder mirrors them. For 28x28 these are the paper's networks (3.07 million
weights with the heads of 64 latents).
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.nets import require, with_planes

WIDE = 256  # features that the encoder gives


class GatedConv(nn.Module):
    """A convolution, or a transposed one, times the sigmoid of another."""

    def __init__(self, kind: type[nn.Module], before: int, after: int, kernel: int, **rest: int) -> None:
        super().__init__()
        # Both in one: the same numbers, one pass over the input.
        self.both = kind(before, 2 * after, kernel, **rest)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.glu(self.both(x), 1)


class GatedEncoder(nn.Module):
    """(B, C, H, W) and (B, K) to (B, 256)."""

    def __init__(self, shape: tuple[int, int, int], condition: int = 0) -> None:
        super().__init__()
        channels, height, width = shape
        left = quarter(height, width)
        plan = [(channels + condition, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2), (64, 64, 1)]
        layers = [GatedConv(nn.Conv2d, before, after, 5, stride=s, padding=2) for before, after, s in plan]
        self.layers = nn.Sequential(*layers, GatedConv(nn.Conv2d, 64, WIDE, left))
        self.features = WIDE

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.layers(with_planes(x, condition)).flatten(1)


class GatedDecoder(nn.Module):
    """(B, D) to (B, *shape)."""

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        left = quarter(height, width)
        plan = [(64, 64, 1), (64, 32, 2), (32, 32, 1), (32, 32, 2), (32, 32, 1)]
        layers = [
            GatedConv(nn.ConvTranspose2d, before, after, 5, stride=s, padding=2, output_padding=s - 1)
            for before, after, s in plan
        ]
        self.layers = nn.Sequential(GatedConv(nn.ConvTranspose2d, size, 64, left), *layers, nn.Conv2d(32, channels, 1))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])


def quarter(height: int, width: int) -> int:
    """Side of the image that two halvings leave; a gated network is for squares that can be halved twice."""
    require(height == width and height % 4 == 0, "gated networks are for square images whose side four divides.")
    return height // 4
