"""Encoders and decoders that variants share, by name.

An encoder maps images (B, C, H, W), and for conditional models a vector (B, K), to features (B, encoder.features). A
decoder maps codes (B, D + K) to the parameters of a likelihood (B, C', H, W).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.settings import Frozen, ReadBy

Width = Annotated[int, Field(ge=1)]  # of a layer
Activation = Literal["relu", "tanh", "silu", "elu", "leaky_relu", "softplus"]
DENSE = ("mlp", "conv", "residual")
READ_BY = {"hidden": DENSE, "channels": ("conv", "residual"), "activation": DENSE}


class EncoderSettings(Frozen):
    """``name`` picks the network; a timm backbone needs only ``timm=resnet18``."""

    read_by: ClassVar[ReadBy] = READ_BY

    name: Literal["mlp", "conv", "residual", "gated", "timm"] = "mlp"
    hidden: tuple[Width, ...] = Field((400, 400), description="widths of the dense layers of `mlp`, `conv`, `residual`")
    channels: tuple[Width, ...] = Field(
        (32, 64), description="channels of each halving of the resolution by `conv`, `residual`"
    )
    activation: Literal[Activation, "gated"] = Field(
        "relu", description="of `mlp`, `conv`, `residual`; `gated` of `mlp` alone"
    )
    timm: str | None = Field(None, description="name of a timm backbone, which reads none of the three above")
    pretrained: bool = Field(False, description="whether the timm backbone begins with its published weights")


class DecoderSettings(Frozen):
    read_by: ClassVar[ReadBy] = READ_BY

    name: Literal["mlp", "conv", "residual", "gated"] = "mlp"
    hidden: tuple[Width, ...] = Field((400, 400), description="widths of the dense layers of `mlp`, `conv`, `residual`")
    channels: tuple[Width, ...] = Field(
        (64, 32), description="channels at each doubling of the resolution by `conv`, `residual`"
    )
    activation: Literal[Activation, "gated"] = Field(
        "relu", description="of `mlp`, `conv`, `residual`; `gated` of `mlp` alone"
    )


ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
}


def make_encoder(settings: EncoderSettings, spec: DataSpec, condition: int = 0) -> nn.Module:
    """The encoder for images of ``spec``, with ``condition`` numbers beside them; it has ``.features``."""
    require(settings.name == "mlp" or settings.activation != "gated", "activation=gated is for dense networks.")
    named = bool(settings.timm)
    require(named or not settings.pretrained, "encoder.pretrained=yes needs encoder.timm=NAME, such as resnet18.")
    if named or settings.name == "timm":
        name = settings.name
        require(name in ("mlp", "timm"), f"encoder.timm stands in place of encoder.name={name}: give one of the two.")
        from zoo.nets.backbone import TimmEncoder

        return TimmEncoder(settings, spec.shape, condition)
    if settings.name == "mlp":
        from zoo.nets.mlp import MLPEncoder

        return MLPEncoder(settings, spec.shape, condition)
    if settings.name == "gated":
        from zoo.nets.gated import GatedEncoder

        return GatedEncoder(spec.shape, condition)
    from zoo.nets.conv import ConvEncoder

    return ConvEncoder(settings, spec.shape, condition)


def make_decoder(settings: DecoderSettings, size: int, shape: tuple[int, int, int]) -> nn.Module:
    """The decoder from codes of ``size`` numbers to ``shape`` = (channels of the likelihood, H, W)."""
    require(settings.name == "mlp" or settings.activation != "gated", "activation=gated is for dense networks.")
    if settings.name == "mlp":
        from zoo.nets.mlp import MLPDecoder

        return MLPDecoder(settings, size, shape)
    if settings.name == "gated":
        from zoo.nets.gated import GatedDecoder

        return GatedDecoder(size, shape)
    from zoo.nets.conv import ConvDecoder

    return ConvDecoder(settings, size, shape)


def with_planes(x: Tensor, condition: Tensor | None) -> Tensor:
    """Images (B, C, H, W) with a condition (B, K) beside them as constant planes: (B, C + K, H, W)."""
    if condition is None:
        return x
    return torch.cat([x, condition[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


def require(condition: bool, sentence: str) -> None:
    """Raise `UsageError` with ``sentence`` unless ``condition`` holds."""
    if not condition:
        raise UsageError(sentence)
