"""Ladder VAE: each layer's posterior merges, weighted by precision, what the image and what the prior say.

Paper: Sonderby et al., Ladder Variational Autoencoders, NeurIPS 2016, https://arxiv.org/abs/1602.02282.
Official code: https://github.com/casperkaae/LVAE (Theano; changed after the paper, as its author says).
Where we differ: the hidden layer d goes up, as in the paper, where the code passes its mean mu on. The
statistics of batch normalisation are those of `recollect`, as theirs. Gradients are clipped where the recipe says
so, by their norm alone. Warm-up and learning rate are the recipe's. Either end may be another network of
`zoo.nets`, for images that are not digits.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian, standard_normal
from zoo.likelihoods import LikelihoodSettings, start_at_mean
from zoo.models.base import Settings
from zoo.models.hierarchy import Hierarchy
from zoo.nets import DecoderSettings, EncoderSettings, Width, make_decoder, make_encoder
from zoo.precision import full_precision

SLOPE = 0.1  # of the leaky rectifiers
SMALLEST_VARIANCE = 1e-5


class LadderSettings(Settings):
    latent: int = Field(
        64, ge=1, description="dimensions of the lowest layer; each above has half of the one below"
    )
    hidden: tuple[Width, ...] = Field(
        (512, 256, 128, 64, 32), min_length=1, description="units of each layer's networks, the lowest first"
    )
    depth: int = Field(2, ge=1, description="dense layers between one layer of latents and the next")
    encoder: EncoderSettings | None = Field(None, description="from the image, instead of dense layers")
    decoder: DecoderSettings | None = Field(None, description="to the image, instead of dense layers")
    likelihood: LikelihoodSettings = LikelihoodSettings()


@full_precision
def merge(
    mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the normalised product of two Gaussians, elementwise.

    The precisions add, and each mean counts by its share: v = 1 / (1/v1 + 1/v2), m = v (m1/v1 + m2/v2).
    """
    share = torch.sigmoid(log_variance2 - log_variance1)
    return torch.lerp(mean2, mean1, share), -torch.logaddexp(-log_variance1, -log_variance2)


class LadderVAE(Hierarchy):
    """Dense layers up, dense layers down, a merge at every layer."""

    Settings: ClassVar[type[Settings]] = LadderSettings

    def __init__(self, spec: DataSpec, settings: LadderSettings) -> None:
        super().__init__(spec, settings)
        self.levels = len(settings.hidden)
        output = self.likelihood.output_shape(spec.shape)
        # The lowest first here; `level` counts from the top.
        self.sizes = [max(1, settings.latent >> index) for index in range(self.levels)]
        self.group_sizes = tuple(reversed(self.sizes))
        self.first = None if settings.encoder is None else make_encoder(settings.encoder, spec)
        features = math.prod(spec.shape) if self.first is None else self.first.features
        below = [features, *settings.hidden[:-1]]
        self.up = nn.ModuleList(
            normalised(before, after, settings.depth)
            for before, after in zip(below, settings.hidden, strict=True)
        )
        self.evidence = nn.ModuleList(map(Moments, settings.hidden, self.sizes))
        pairs = list(zip(self.sizes[1:], settings.hidden[1:], strict=True))
        self.down = nn.ModuleList(normalised(latent, hidden, settings.depth) for latent, hidden in pairs)
        self.prior = nn.ModuleList(
            Moments(hidden, size) for (_, hidden), size in zip(pairs, self.sizes, strict=False)
        )
        if settings.decoder is None:
            hidden = settings.hidden[0]
            layers = normalised(self.sizes[0], hidden, settings.depth)
            self.decoder = nn.Sequential(
                layers, nn.Linear(hidden, math.prod(output)), nn.Unflatten(1, output)
            )
        else:
            self.decoder = make_decoder(settings.decoder, self.sizes[0], output)

    def ascend(self, x: Tensor) -> list[Tensor]:
        """The moments of each layer as the image alone gives them, (B, 2 D)."""
        hidden = x.flatten(1) if self.first is None else self.first(x)
        evidence = []
        for layers, moments in zip(self.up, self.evidence, strict=True):
            hidden = layers(hidden)
            evidence.append(torch.cat(moments(hidden), 1))
        return evidence[::-1]

    def start(self, rows: int) -> Tensor:
        # Nothing is above the top layer; the tensor says how many rows, and of what kind.
        return next(self.parameters()).new_zeros(rows, 0)

    def generate(self, level: int, state: Tensor) -> tuple[Tensor, DiagonalGaussian]:
        index = self.levels - 1 - level
        if level == 0:
            return state, standard_normal(state.new_zeros(len(state), self.sizes[index]))
        return state, DiagonalGaussian(*self.prior[index](self.down[index](state)))

    def infer(self, level: int, state: Tensor, prior: DiagonalGaussian, evidence: Tensor) -> DiagonalGaussian:
        mean, log_variance = evidence.chunk(2, 1)
        if level == 0:
            return DiagonalGaussian(mean, log_variance)
        return DiagonalGaussian(*merge(mean, log_variance, prior.mean, prior.log_variance))

    def absorb(self, level: int, state: Tensor, z: Tensor) -> Tensor:
        return z

    def decode(self, state: Tensor) -> Tensor:
        return self.decoder(state)

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        """Start a dense Bernoulli decoder at the mean image."""
        if self.settings.decoder is None:
            start_at_mean(self.decoder[1].bias, x, self.likelihood)


class Moments(nn.Module):
    """(B, size) to a mean and a log-variance (B, latent) each; softplus of a batch norm is the variance."""

    def __init__(self, size: int, latent: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, 2 * latent, bias=False), nn.BatchNorm1d(2 * latent))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return _moments(self.layers(hidden))


@full_precision
def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    mean, spread = features.chunk(2, 1)
    return mean, torch.log(F.softplus(spread) + SMALLEST_VARIANCE)


def normalised(before: int, after: int, depth: int) -> nn.Sequential:
    """``depth`` dense layers, each with batch norm (which makes a bias needless) and a leaky rectifier."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.LeakyReLU(SLOPE)]
        before = after
    return nn.Sequential(*layers)
