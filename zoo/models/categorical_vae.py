"""Categorical VAE: every latent variable is one of K classes; in training a draw is relaxed, so that gradients pass it.

Paper: Jang, Gu and Poole, Categorical Reparameterization with Gumbel-Softmax, ICLR 2017,
https://arxiv.org/abs/1611.01144; the same relaxation by Maddison, Mnih and Teh, The Concrete Distribution, ICLR 2017,
https://arxiv.org/abs/1611.00712.
Official code: https://github.com/ericjang/gumbel-softmax (not read).
Where we differ: the temperature of the relaxation is held, the paper's falls. The rate is that of the classes, and a
relaxed draw is none of them, so that training minimises no bound. What is reported is the bound of discrete draws:
in evaluation nothing is relaxed.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.distributions.categorical import draw, kl_categorical, one_hot, relaxed
from zoo.likelihoods import LikelihoodSettings, make_likelihood
from zoo.models.base import VAE, Settings, Terms, repeat
from zoo.nets import DecoderSettings, EncoderSettings, make_decoder, make_encoder
from zoo.nets.mlp import start_at_mean_image
from zoo.precision import full


class CategoricalSettings(Settings):
    latent: int = Field(30, ge=1, description="number of latent variables")
    classes: int = Field(10, ge=2, description="classes of each latent variable")
    relaxation: float = Field(
        0.67, gt=0, description="temperature of a draw in training: near 0 it is nearly discrete, its gradient noisy"
    )
    straight_through: bool = Field(
        False, description="whether the decoder is trained on discrete draws, whose gradient the relaxed ones are given"
    )
    prior: Literal["uniform", "learned"] = Field("uniform", description="learned: each variable has its frequencies")
    encoder: EncoderSettings = EncoderSettings()
    decoder: DecoderSettings = DecoderSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()


class CategoricalVAE(VAE):
    """N independent variables of K classes each: a draw is z (B, N, K), one-hot unless it is relaxed."""

    Settings: ClassVar[type[Settings]] = CategoricalSettings

    def __init__(self, spec: DataSpec, settings: CategoricalSettings) -> None:
        super().__init__(spec, settings)
        self.size = (settings.latent, settings.classes)
        self.encoder = make_encoder(settings.encoder, spec)
        self.head = nn.Linear(self.encoder.features, math.prod(self.size))
        self.likelihood = make_likelihood(settings.likelihood, spec)
        self.decoder = make_decoder(settings.decoder, math.prod(self.size), self.likelihood.output_shape(spec.shape))
        logits = torch.zeros(self.size)
        if settings.prior == "learned":
            self.prior_logits = nn.Parameter(logits)
        else:
            self.register_buffer("prior_logits", logits, persistent=False)

    @property
    def code_variance(self) -> Tensor:
        p = self.log_prior().exp().flatten()
        return p * (1 - p)

    def log_posterior(self, x: Tensor) -> Tensor:
        """log q(z_n = k | x), (B, N, K) nats."""
        return F.log_softmax(full(self.head(self.encoder(x))).view(len(x), *self.size), -1)

    def log_prior(self) -> Tensor:
        """log p(z_n = k), (N, K) nats."""
        return F.log_softmax(full(self.prior_logits), -1)

    def decode(self, z: Tensor) -> Tensor:
        """(B, N, K) to the likelihood's parameters (B, C', H, W)."""
        return self.decoder(z.flatten(1))

    # ---- the contract ----------------------------------------------------------------------------------------------

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        """As `VAE.terms`; in training mode the draw is relaxed, so that the distortion is no -log p(x | z)."""
        log_q = self.log_posterior(x)
        z = self.relaxed(log_q) if self.training else draw(log_q)
        rate = kl_categorical(log_q, self.log_prior())
        return Terms(-self.likelihood.log_prob(self.decode(z), x), rate.unsqueeze(1), {"z": z.flatten(1)})

    def relaxed(self, log_q: Tensor) -> Tensor:
        """A draw of the relaxed classes (B, N, K), on the simplex."""
        soft = relaxed(log_q, self.settings.relaxation)
        return one_hot(soft) + soft - soft.detach() if self.settings.straight_through else soft

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        """As `VAE.log_weights`, of discrete draws in either mode."""
        log_q = repeat(self.log_posterior(x), k)
        z = draw(log_q)
        log_ratio = (z * (self.log_prior() - log_q)).sum((1, 2))
        return (self.likelihood.log_prob(self.decode(z), repeat(x, k)) + log_ratio).view(k, len(x))

    def categorical_posterior(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.log_posterior(x)

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, N K): the probabilities of the classes."""
        return self.log_posterior(x).exp().flatten(1)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """As `VAE.reconstruct`, at the most probable class of every variable."""
        return self.likelihood.mean(self.decode(one_hot(self.log_posterior(x))))

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """As `VAE.sample`; the prior's log-probabilities are divided by ``temperature``, and 0 takes the most probable
        class each time, the first of several."""
        log_p = self.log_prior().expand(n, -1, -1)
        return self.likelihood.mean(self.decode(draw(log_p, temperature)))

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        """Start a dense Bernoulli decoder at the mean image."""
        start_at_mean_image(self.decoder, x, self.likelihood)
