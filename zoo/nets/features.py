"""Feature maps of images, by networks that are never trained: what two images are compared in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.errors import UsageError, one_line
from zoo.nets import Width, require
from zoo.nets.backbone import fetches, require_fit, require_timm
from zoo.settings import Frozen, ReadBy

SEED = 0  # of the random convolutions, which are the same in every run


class FeatureSettings(Frozen):
    """``name`` picks the network; one of timm needs only ``timm=vgg19``."""

    read_by: ClassVar[ReadBy] = {"channels": ("random",), "layers": ("timm",)}

    name: Literal["random", "timm"] = "random"
    channels: tuple[Width, ...] = Field(
        (16, 32, 64), min_length=1, description="maps of each convolution of `random`; the first keeps the resolution"
    )
    timm: str | None = Field(None, description="name of a timm network, which has its published weights")
    layers: tuple[Width, ...] = Field(
        (1, 2, 3), min_length=1, description="which maps of the timm network; the finest is 1"
    )


def make_features(settings: FeatureSettings, spec: DataSpec) -> nn.Module:
    """What maps images (B, C, H, W) of ``spec`` to a list of maps (B, channels, height, width)."""
    if settings.timm is None:
        require(settings.name == "random", "features.name=timm needs features.timm=NAME, such as vgg19.")
        return RandomFeatures(spec.shape[0], settings.channels)
    return TimmFeatures(settings.timm, settings.layers, spec.shape)


class RandomFeatures(nn.Module):
    """Maps of convolutions of 3 x 3 with random weights, each after its ReLU; all but the first halve the resolution.

    Args:
        channels: of the images.
        widths: how many maps each convolution makes.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        self.depth = len(widths)
        for layer, (before, after) in enumerate(zip((channels, *widths), widths, strict=False)):
            weight = torch.randn(after, before, 3, 3, generator=generator, device="cpu")
            # Of He et al. (2015): the maps are about as large as what they are made from.
            self.register_buffer(f"weight{layer}", weight * math.sqrt(2.0 / (9 * before)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Of images (B, C, H, W) in [0, 1], the maps (B, width, ...) of each convolution."""
        maps = [2.0 * x - 1.0]
        for layer in range(self.depth):
            weight = getattr(self, f"weight{layer}")
            maps.append(F.conv2d(maps[-1], weight, stride=2 if layer else 1, padding=1).relu())
        return maps[1:]


class TimmFeatures(nn.Module):
    """Maps of a timm network with its published weights, which are shown images as they were in their training.

    Args:
        name: in timm, such as ``vgg19``.
        layers: which of its maps; the finest is 1.
        shape: of an image, (C, H, W).

    Raises:
        UsageError: timm has no network of that name, it has no such maps, or it cannot take images of this shape.
    """

    def __init__(self, name: str, layers: Sequence[int], shape: tuple[int, int, int]) -> None:
        super().__init__()
        import timm
        from timm.layers import freeze_batch_norm_2d

        require_timm(name)
        require(shape[0] in (1, 3), f"features.timm={name} takes images of one channel or of three, not of {shape[0]}.")
        try:
            indices = [layer - 1 for layer in layers]
            network = timm.create_model(name, pretrained=fetches(), features_only=True, out_indices=indices)
        except (AssertionError, IndexError, RuntimeError, ValueError) as error:
            asked = f"features.layers={','.join(map(str, layers))}"
            raise UsageError(f"features.timm={name} has no maps {asked} ({one_line(error)}).") from error
        known = timm.get_pretrained_cfg(name)
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(getattr(known, key)).view(-1, 1, 1))
        self.network = frozen(freeze_batch_norm_2d(network))
        if self.mean.is_meta:  # of a model that is only built on paper
            return
        require_fit(self, f"features.timm={name}", shape)

    def train(self, mode: bool = True) -> TimmFeatures:
        """It is never in training."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Of images (B, C, H, W) in [0, 1], the maps of each layer; a grey image is shown as three channels alike."""
        return self.network((x.expand(-1, 3, -1, -1) - self.mean) / self.std)


def frozen(network: nn.Module) -> nn.Module:
    """Its parameters as buffers: no optimiser moves them, they are no parameters of a model, and a run keeps them."""
    for module in network.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
    return network.eval()
