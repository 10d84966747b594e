"""Dense networks over flattened images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.likelihoods import Likelihood, start_at_mean
from zoo.nets import ACTIVATIONS, DecoderSettings, EncoderSettings


def dense(sizes: Sequence[int], activation: str) -> nn.Sequential:
    """Linear layers of the given sizes, an activation after each; ``gated`` is a times sigmoid(b) of two of them."""
    layers: list[nn.Module] = []
    for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True):
        if activation == "gated":
            layers += [nn.Linear(size_in, 2 * size_out), nn.GLU()]
            continue
        layers += [nn.Linear(size_in, size_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


def chain(before: int, hidden: Sequence[int], after: int, activation: str) -> nn.Sequential:
    """Dense layers, and a linear one at the end."""
    return nn.Sequential(dense([before, *hidden], activation), nn.Linear([before, *hidden][-1], after))


class MLPEncoder(nn.Module):
    """(B, C, H, W) and (B, K) to (B, hidden[-1]); without hidden layers the flattened input itself (a linear VAE)."""

    def __init__(self, settings: EncoderSettings, shape: tuple[int, int, int], condition: int = 0) -> None:
        super().__init__()
        sizes = [math.prod(shape) + condition, *settings.hidden]
        self.layers = dense(sizes, settings.activation)
        self.features = sizes[-1]

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        flat = x.flatten(1)
        return self.layers(flat if condition is None else torch.cat([flat, condition], 1))


class MLPDecoder(nn.Module):
    """(B, D) to (B, *shape)."""

    def __init__(self, settings: DecoderSettings, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.layers = dense([size, *settings.hidden], settings.activation)
        self.output = nn.Linear([size, *settings.hidden][-1], math.prod(shape))

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.layers(z)).view(len(z), *self.shape)


def start_at_mean_image(decoder: nn.Module, x: Tensor, likelihood: Likelihood) -> None:
    """`zoo.likelihoods.start_at_mean` of a dense decoder; another kind is left alone."""
    if isinstance(decoder, MLPDecoder):
        start_at_mean(decoder.output.bias, x, likelihood)
