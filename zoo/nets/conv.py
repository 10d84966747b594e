"""Convolutional and residual networks that halve and double the resolution."""

from __future__ import annotations

import math

from torch import Tensor, nn

from zoo.nets import ACTIVATIONS, DecoderSettings, EncoderSettings, require, with_planes
from zoo.nets.mlp import dense


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to their input; the second starts at zero, so the block starts as the identity."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        act = ACTIVATIONS[activation]
        self.layers = nn.Sequential(act(), nn.Conv2d(channels, channels, 3, padding=1), act(), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ConvEncoder(nn.Module):
    """(B, C, H, W) and (B, K) to (B, features); a condition enters as constant planes beside the image."""

    def __init__(self, settings: EncoderSettings, shape: tuple[int, int, int], condition: int = 0) -> None:
        super().__init__()
        channels, height, width = shape
        require(bool(settings.channels), "a convolutional encoder needs at least one number in encoder.channels.")
        layers: list[nn.Module] = []
        before = channels + condition
        for after in settings.channels:
            require(min(height, width) >= 2, f"encoder.channels halves {shape[1:]} too often.")
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), ACTIVATIONS[settings.activation]()]
            if settings.name == "residual":
                layers.append(ResidualBlock(after, settings.activation))
            before, height, width = after, height // 2, width // 2
        self.layers = nn.Sequential(*layers)
        self.dense = dense([before * height * width, *settings.hidden], settings.activation)
        self.features = [before * height * width, *settings.hidden][-1]

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.dense(self.layers(with_planes(x, condition)).flatten(1))


class ConvDecoder(nn.Module):
    """(B, D) to (B, *shape): dense layers, then a doubling of the resolution per entry of ``channels``."""

    def __init__(self, settings: DecoderSettings, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        require(bool(settings.channels), "a convolutional decoder needs at least one number in decoder.channels.")
        self.shape = shape
        factor = 2 ** len(settings.channels)
        low = (settings.channels[0], math.ceil(shape[1] / factor), math.ceil(shape[2] / factor))
        self.low = low
        self.dense = dense([size, *settings.hidden, math.prod(low)], settings.activation)
        layers: list[nn.Module] = []
        for before, after in zip(settings.channels, [*settings.channels[1:], shape[0]], strict=True):
            if settings.name == "residual":
                layers.append(ResidualBlock(before, settings.activation))
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), ACTIVATIONS[settings.activation]()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, z: Tensor) -> Tensor:
        image = self.layers(self.dense(z).view(len(z), *self.low))
        return image[:, :, : self.shape[1], : self.shape[2]]
