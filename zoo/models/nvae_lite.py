"""NVAE, smaller: groups of latent maps over several scales, residual cells, posteriors relative to the prior.

Paper: Vahdat and Kautz, NVAE: A Deep Hierarchical Variational Autoencoder, NeurIPS 2020,
https://arxiv.org/abs/2007.03898.
Official code: https://github.com/NVlabs/NVAE.
Where we differ: the cells between the image and the first scale are one fold of `patch` x `patch` pixels into
channels and a convolution, and the same backwards, so that no cell runs at full resolution; one cell a group;
no normalising flows, no weight normalisation, no floor under sigma (the soft clamp alone bounds it), and
the clamp is of the prior's moments and of what the posterior adds to them, theirs of the sums; one power
iteration a step instead of four. The rate is the analytic KL in training and in evaluation alike, its
weights only in training.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian, standard_normal
from zoo.likelihoods import LikelihoodSettings
from zoo.models.base import Losses, Settings
from zoo.models.hierarchy import Hierarchy
from zoo.nets.cells import SpectralPenalty, generative_cell, inference_cell
from zoo.precision import full_precision

LARGEST = 5.0  # of a mean, of a log sigma, and of what a posterior adds to either
SMALLEST_WARMUP = 1e-4
BALANCE_OFFSET = 0.01  # nats


class NVAESettings(Settings):
    latent: int = Field(20, ge=1, description="latent channels of each group")
    scales: int = Field(2, ge=1, description="resolutions that latents live at, each half of the one below")
    groups_per_scale: int = Field(5, ge=1)
    channels: int = Field(
        32, ge=2, description="channels at the finest scale of latents, doubled at each halving"
    )
    expansion: int = Field(6, ge=1, description="channels of a depthwise convolution over those of its cell")
    patch: int = Field(
        4, ge=1, description="pixels along each side of the image per pixel of the finest scale"
    )
    outer_cells: int = Field(
        1, ge=0, description="cells between the image and the finest scale, on either way"
    )
    spectral: float = Field(1e-2, ge=0, description="weight of the spectral penalty, in nats")
    likelihood: LikelihoodSettings = LikelihoodSettings()


class NVAELite(Hierarchy):
    """Groups of latents, the coarsest scale first; an image that is not whole patches is padded by zeros."""

    Settings: ClassVar[type[Settings]] = NVAESettings
    frees_bits: ClassVar[bool] = True

    def __init__(self, spec: DataSpec, settings: NVAESettings) -> None:
        super().__init__(spec, settings)
        channels, height, width = spec.shape
        unit = settings.patch * 2 ** (settings.scales - 1)
        self.padding = (*_margins(width, unit), *_margins(height, unit))
        groups, scales = settings.groups_per_scale, settings.scales
        self.levels = groups * scales
        # Of each level, the coarsest scale first: 2 ** depth is its coarseness.
        depths = [depth for depth in reversed(range(scales)) for _ in range(groups)]
        widths = [settings.channels * 2**depth for depth in depths]
        padded = height + sum(self.padding[2:]), width + sum(self.padding[:2])
        self.sizes = [tuple(side // (settings.patch * 2**depth) for side in padded) for depth in depths]
        self.group_sizes = tuple(settings.latent * height * width for height, width in self.sizes)
        area = torch.tensor([float(height * width) for height, width in self.sizes])
        self.register_buffer("area", area, persistent=False)
        begins = range(groups, self.levels, groups)  # the levels at which a finer scale begins

        self.stem = nn.Conv2d(channels * settings.patch**2, settings.channels, 3, padding=1)
        outer_cells = range(settings.outer_cells)
        self.inner = nn.Sequential(*(inference_cell(settings.channels) for _ in outer_cells))
        # All lists are in the order of the way down.
        self.up = nn.ModuleList(map(inference_cell, widths))
        self.halve = nn.ModuleDict({str(level): inference_cell(widths[level], "halve") for level in begins})
        self.top = nn.Parameter(torch.randn(widths[0], *self.sizes[0]))
        self.down = nn.ModuleList(
            generative_cell(widths[level - 1], "double" if level in begins else "keep", settings.expansion)
            for level in range(1, self.levels)
        )
        latent = settings.latent
        self.prior = nn.ModuleList(
            nn.Sequential(nn.ELU(), nn.Conv2d(width, 2 * latent, 1)) for width in widths[1:]
        )
        self.compare = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)
        self.posterior = nn.ModuleList(nn.Conv2d(width, 2 * latent, 3, padding=1) for width in widths)
        self.mix = nn.ModuleList(nn.Conv2d(width + latent, width, 1) for width in widths)
        output = self.likelihood.channels(channels) * settings.patch**2
        self.outer = nn.Sequential(
            *(generative_cell(settings.channels, "keep", settings.expansion) for _ in outer_cells),
            nn.ELU(),
            nn.Conv2d(settings.channels, output, 3, padding=1),
        )
        self.penalty = SpectralPenalty(self)

    # ---- the two passes ------------------------------------------------------------------------------------

    def ascend(self, x: Tensor) -> list[Tensor]:
        """The features of each group, (B, C, H, W)."""
        folded = F.pixel_unshuffle(2.0 * F.pad(x, self.padding) - 1.0, self.settings.patch)
        features = self.inner(self.stem(channels_last(folded)))
        evidence: list[Tensor] = []
        for level in reversed(range(self.levels)):
            features = self.up[level](features)
            evidence.append(features)
            if str(level) in self.halve:
                features = self.halve[str(level)](features)
        return evidence[::-1]

    def start(self, rows: int) -> Tensor:
        return channels_last(self.top.expand(rows, *self.top.shape))

    def generate(self, level: int, state: Tensor) -> tuple[Tensor, DiagonalGaussian]:
        if level == 0:
            size = self.settings.latent * self.sizes[0][0] * self.sizes[0][1]
            return state, standard_normal(self.top.new_zeros(len(state), size))
        state = self.down[level - 1](state)
        return state, DiagonalGaussian(*moments(self.prior[level - 1](state)))

    def infer(self, level: int, state: Tensor, prior: DiagonalGaussian, evidence: Tensor) -> DiagonalGaussian:
        features = evidence + self.compare[level](state)
        return relative(prior, *moments(self.posterior[level](features)))

    def absorb(self, level: int, state: Tensor, z: Tensor) -> Tensor:
        maps = z.view(len(z), self.settings.latent, *self.sizes[level])
        return self.mix[level](torch.cat([state, channels_last(maps).to(state.dtype)], 1))

    def decode(self, state: Tensor) -> Tensor:
        """The likelihood's parameters of the image alone: the padding is cut off before a nat is counted."""
        image = F.pixel_shuffle(self.outer(state), self.settings.patch)
        left, _, above, _ = self.padding
        _, height, width = self.spec.shape
        return image[:, :, above : above + height, left : left + width]

    # ---- training ------------------------------------------------------------------------------------------

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """As `VAE.losses`, with the groups' rates balanced during warm-up, plus the spectral penalty. What a group has
        of free bits is balanced with it."""
        terms = self.terms(x, y)
        rate = (self.charged_parts(terms) * self.balance(terms.rate, progress)).sum(1)
        loss = (terms.distortion + self.rate_weight(progress) * rate).mean()
        if self.settings.spectral:
            loss = loss + self.settings.spectral * self.penalty()
        return Losses({"vae": loss}, terms)

    def rate_weight(self, progress: float | Tensor) -> float | Tensor:
        """The warm-up, which starts at 1e-4."""
        return SMALLEST_WARMUP + (1.0 - SMALLEST_WARMUP) * progress

    @torch.no_grad()
    def balance(self, rate: Tensor, progress: float | Tensor) -> Tensor:
        """(groups,) weights with mean one: during warm-up proportional to a group's rate over its resolution.

        A group that carries little, or that has many places for what it carries, is charged less, so that
        none is switched off before the decoder has learnt to read it. All ones once the warm-up is over.
        """
        weights = (rate.mean(0) + BALANCE_OFFSET) / self.area
        weights = weights / weights.mean()
        if isinstance(progress, Tensor):
            # Already on the device, where nobody can be asked without waiting.
            return torch.where(progress < 1.0, weights, 1.0)
        return weights if progress < 1.0 else torch.ones_like(weights)


@full_precision
def moments(params: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2 L, H, W) to a mean and a log-variance (B, L H W) each; mean and log sigma softly within 5."""
    mean, log_sigma = (LARGEST * torch.tanh(params / LARGEST)).chunk(2, 1)
    return mean.flatten(1), 2.0 * log_sigma.flatten(1)


@full_precision
def relative(prior: DiagonalGaussian, shift: Tensor, log_ratio: Tensor) -> DiagonalGaussian:
    """The posterior N(mean + shift, variance * e^log_ratio) about a prior (the paper's residual Normal).

    Its KL from the prior is 1/2 (shift^2 / variance + e^log_ratio - log_ratio - 1): when the prior moves the
    posterior moves along. Both log sigmas are within 5, so the bound of 20 on a log-variance is never met.
    """
    return DiagonalGaussian(prior.mean + shift, prior.log_variance + log_ratio)


def channels_last(maps: Tensor) -> Tensor:
    """The same maps with a pixel's channels side by side in memory.

    Convolutions keep the layout of what they are given. In this one a 5x5 depthwise convolution and its
    derivative take a CPU a ninth of the time. The weights stay as they are: optimisers expect their own
    layout after a resume.
    """
    return maps.contiguous(memory_format=torch.channels_last)


def _margins(side: int, unit: int) -> tuple[int, int]:
    missing = -side % unit
    return missing // 2, missing - missing // 2
