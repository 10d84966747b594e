"""A convolutional discriminator that also gives the features its verdict rests on."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo.nets import Width, require
from zoo.settings import Frozen


class DiscriminatorSettings(Frozen):
    channels: tuple[Width, ...] = Field((16, 32), description="channels of each halving of the resolution")
    hidden: int = Field(128, ge=1, description="width of the dense layer before the verdict")
    layer: int = Field(-1, description="which convolution's output is the features; -1 is the last")
    norm: Literal["layer", "none"] = "layer"


class Discriminator(nn.Module):
    """(B, C, H, W) to features (B, F) and a logit (B,), positive for real.

    The features are the normalised output of convolution ``layer``, before its activation, with zero mean and unit
    variance over an example's F numbers: a distance between two of them is at most 2 F however training rescales the
    network. The normalisation is per example, so that a verdict does not depend on the rest of the batch.
    """

    def __init__(self, settings: DiscriminatorSettings, shape: tuple[int, int, int]) -> None:
        super().__init__()
        count = len(settings.channels)
        require(count > 0, "a discriminator needs at least one number in discriminator.channels.")
        require(-count <= settings.layer < count, f"discriminator.layer is one of {count} convolutions.")
        self.layer = settings.layer % count
        before, height, width = shape
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for i, after in enumerate(settings.channels):
            require(min(height, width) >= 2, f"discriminator.channels halves {shape[1:]} too often.")
            self.convolutions.append(nn.Conv2d(before, after, 4, stride=2, padding=1))
            # Not the first, unless it is the features: it would take brightness away before anything has seen it.
            normalised = settings.norm == "layer" and (i > 0 or self.layer == 0)
            self.norms.append(nn.GroupNorm(1, after, affine=False) if normalised else nn.Identity())
            before, height, width = after, height // 2, width // 2
        self.dense = nn.Linear(before * height * width, settings.hidden)
        self.verdict = nn.Linear(settings.hidden, 1)
        # A third faster on a CPU: convolutions of few channels.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = x
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = norm(convolution(x))
            if i == self.layer:
                features = x.flatten(1)
            x = F.leaky_relu(x, 0.2)
        return features, self.verdict(F.leaky_relu(self.dense(x.flatten(1)), 0.2)).squeeze(1)
