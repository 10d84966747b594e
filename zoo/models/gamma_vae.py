"""Gamma VAE: each dimension of the code is positive, Gamma distributed under the prior and under the posterior.

Paper: Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, NeurIPS 2018,
https://arxiv.org/abs/1805.08498. Gamma posteriors before it: Knowles, Stochastic gradient variational Bayes for gamma
approximating distributions, 2015, https://arxiv.org/abs/1509.01631; of such variables the Dirichlet VAE is made (Joo,
Lee, Park and Moon, 2019, https://arxiv.org/abs/1901.02739).
Official code: none was published with the paper.
Where we differ: the derivative of the distribution function with respect to the shape is a difference quotient in
float64. The encoder gives the logarithms of shape and mean, as what they are beyond those of the prior, so that zeros
are the prior; no shape is smaller than 0.03. The prior's defaults are those of PyTorch-VAE's model of this name.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.distributions.gamma import SMALLEST_SHAPE, Gamma
from zoo.likelihoods import LikelihoodSettings, make_likelihood
from zoo.models.base import Settings, repeat
from zoo.models.vae import VanillaVAE
from zoo.nets import DecoderSettings, EncoderSettings, make_decoder, make_encoder
from zoo.precision import full
from zoo.priors import Prior, PriorSettings


class GammaSettings(Settings):
    prior_shape: float = Field(2.0, ge=SMALLEST_SHAPE, le=1000, description="shape of each dimension under the prior")
    prior_rate: float = Field(1.0, ge=0.001, le=1000, description="rate of each dimension under the prior")
    encoder: EncoderSettings = EncoderSettings()
    decoder: DecoderSettings = DecoderSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()


class GammaPrior(Prior):
    """Independent Gamma variables of one shape and rate."""

    name = "gamma"

    def __init__(self, latent: int, shape: float, rate: float) -> None:
        super().__init__(PriorSettings(), latent)
        self.register_buffer("log_shape", torch.full((latent,), math.log(shape)), persistent=False)
        self.register_buffer("log_mean", torch.full((latent,), math.log(shape / rate)), persistent=False)

    @property
    def gamma(self) -> Gamma:
        """The density of one code, (D,)."""
        return Gamma(self.log_shape, self.log_mean)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.gamma.log_prob(z)

    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """As `Prior.sample`: at another temperature a Gamma of the same mean and of so many times the deviation, as far
        as shapes go (`Gamma`): at the most 1 / sqrt(0.03) = 5.8 times the mean, at the least a thousandth of it."""
        mean = self.log_mean.expand(n, -1)
        if temperature == 0:
            return mean.exp()
        return Gamma(self.log_shape.expand(n, -1) - 2 * math.log(temperature), mean).rsample()[0]


class GammaVAE(VanillaVAE):
    """A vanilla VAE whose latents are Gamma distributed."""

    Settings: ClassVar[type[Settings]] = GammaSettings
    one_gaussian = False

    def build(self, spec: DataSpec, settings: GammaSettings) -> None:
        self.encoder = make_encoder(settings.encoder, spec)
        self.head = nn.Linear(self.encoder.features, 2 * settings.latent)
        self.likelihood = make_likelihood(settings.likelihood, spec)
        self.decoder = make_decoder(settings.decoder, settings.latent, self.likelihood.output_shape(spec.shape))
        self.prior = GammaPrior(settings.latent, settings.prior_shape, settings.prior_rate)

    @property
    def code_variance(self) -> float:
        return self.settings.prior_shape / self.settings.prior_rate**2

    def infer(self, x: Tensor, y: Tensor | None = None) -> Gamma:
        """q(z | x)."""
        log_shape, log_mean = full(self.head(self.encoder(x))).chunk(2, -1)
        return Gamma(self.prior.log_shape + log_shape, self.prior.log_mean + log_mean)

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        q = self.infer(x).repeat(k)
        # Both densities from the logarithm of the draw: the draw may be 0.
        log_z = q.log_draw()
        log_ratio = self.prior.gamma.log_density(log_z) - q.log_density(log_z)
        log_likelihood = self.log_likelihood(self.decode(log_z.exp().to(q.log_mean.dtype)), repeat(x, k))
        return (log_likelihood + log_ratio.to(log_likelihood.dtype)).view(k, len(x))
