"""Hierarchical VampPrior VAE: two layers of latents, both inferred with the image in view, under a prior of posteriors.

Paper: Tomczak and Welling, VAE with a VampPrior, AISTATS 2018, https://arxiv.org/abs/1705.07120, section 4:
q(z2 | x) q(z1 | x, z2) against p(z2) p(z1 | z2) p(x | z1, z2), where p(z2) is the mean of q(z2 | u) over pseudo-inputs.
Official code: https://github.com/jmtomczak/vae_vampprior.
Where we differ: the rate of z1 is analytic given z2, theirs one-sample. Pseudo-inputs begin at training images and the
decoder at their mean, theirs at noise; weights begin as torch's, theirs as He's. Samples draw a component at random,
where the official code takes the first. Only the dense networks are here. The prior of z2 is any of `zoo.priors`.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.likelihoods import LikelihoodSettings, start_at_mean
from zoo.models.base import Settings
from zoo.models.hierarchy import Hierarchy
from zoo.nets import Activation, Width
from zoo.nets.mlp import chain, dense
from zoo.priors import Prior, PriorSettings, make_prior

LOG_VARIANCES = (-6.0, 2.0)  # the official code's bounds


class HVampSettings(Settings):
    latent: int = Field(40, ge=1, description="dimensions of the upper layer, z2")
    lower: int = Field(40, ge=1, description="dimensions of the layer below it, z1")
    hidden: tuple[Width, ...] = Field(
        (300, 300), description="widths of every network; of two inputs each goes alone through all but the last"
    )
    activation: Literal[Activation, "gated"] = "gated"
    likelihood: LikelihoodSettings = LikelihoodSettings()
    prior: PriorSettings = PriorSettings(name="vamp")


def gaussian(features: Tensor) -> DiagonalGaussian:
    """The Gaussian whose means and then log-variances, before their bounds, are the features (B, 2 D)."""
    mean, log_variance = features.chunk(2, 1)
    return DiagonalGaussian(mean, log_variance.clamp(*LOG_VARIANCES))


class Joint(nn.Module):
    """A network of two inputs (B, first) and (B, second) to (B, after): some layers of each alone, then of both."""

    def __init__(self, first: int, second: int, after: int, settings: HVampSettings) -> None:
        super().__init__()
        alone, both, act = settings.hidden[:-1], settings.hidden[-1:], settings.activation
        self.first = dense([first, *alone], act)
        self.second = dense([second, *alone], act)
        self.both = chain([first, *alone][-1] + [second, *alone][-1], both, after, act)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``first`` comes through its own layers already, so that one image passes them once for all its draws."""
        return self.both(torch.cat([first, self.second(second)], 1))


class HVampVAE(Hierarchy):
    """Level 0 is z2, level 1 is z1; the state on the way down is what has been drawn so far."""

    Settings: ClassVar[type[Settings]] = HVampSettings
    levels = 2

    def __init__(self, spec: DataSpec, settings: HVampSettings) -> None:
        super().__init__(spec, settings)
        self.output = self.likelihood.output_shape(spec.shape)
        self.group_sizes = upper, lower = settings.latent, settings.lower
        self.upper_posterior = chain(spec.dims, settings.hidden, 2 * upper, settings.activation)
        self.lower_posterior = Joint(spec.dims, upper, 2 * lower, settings)
        self.lower_prior = chain(upper, settings.hidden, 2 * lower, settings.activation)
        self.decoder = Joint(lower, upper, math.prod(self.output), settings)
        self.prior = make_prior(settings.prior, upper, encode=self.infer_upper, spec=spec)

    def infer_upper(self, x: Tensor) -> DiagonalGaussian:
        """q(z2 | x): of images, and of pseudo-inputs."""
        return gaussian(self.upper_posterior(x.flatten(1)))

    # ---- the steps of the two passes -------------------------------------------------------------------------------

    def ascend(self, x: Tensor) -> list[Tensor]:
        flat = x.flatten(1)
        return [self.upper_posterior(flat), self.lower_posterior.first(flat)]

    def start(self, rows: int) -> Tensor:
        return next(self.parameters()).new_zeros(rows, 0)

    def generate(self, level: int, state: Tensor) -> tuple[Tensor, DiagonalGaussian | Prior]:
        return state, gaussian(self.lower_prior(state)) if level else self.prior

    def infer(self, level: int, state: Tensor, prior: DiagonalGaussian | Prior, evidence: Tensor) -> DiagonalGaussian:
        return gaussian(self.lower_posterior(evidence, state) if level else evidence)

    def absorb(self, level: int, state: Tensor, z: Tensor) -> Tensor:
        return torch.cat([state, z], 1)

    def decode(self, state: Tensor) -> Tensor:
        upper, lower = state.split([self.settings.latent, self.settings.lower], 1)
        return self.decoder(self.decoder.first(lower), upper).view(len(state), *self.output)

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        """A Bernoulli decoder starts at the mean image, and the prior from the data."""
        start_at_mean(self.decoder.both[-1].bias, x, self.likelihood)
        self.prior.initialise(x)
