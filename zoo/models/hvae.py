"""HVAE: several stochastic layers, inferred from the image upwards and generated from the top downwards.

Paper: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016, https://arxiv.org/abs/1509.00519
(its networks with two stochastic layers); the model is that of Rezende, Mohamed and Wierstra, Stochastic
Backpropagation and Approximate Inference in Deep Generative Models, ICML 2014, https://arxiv.org/abs/1401.4082.
Official code: https://github.com/yburda/iwae.
Where we differ: log-variances come out of the networks, theirs are log-deviations. q(h1 | x) q(h2 | h1) runs against
p(h2) p(h1 | h2) p(x | h1); the Ladder VAE is the model whose posterior runs with it. The rate of the top layer is
analytic given the layer below, those of the others are one-sample.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian, gaussian, standard_normal
from zoo.likelihoods import LikelihoodSettings, make_likelihood, start_at_mean
from zoo.models.base import VAE, Losses, Settings, Terms, repeat
from zoo.models.iwae import OF_WEIGHTS, glorot, k_sample_bound, k_sample_loss
from zoo.nets import Activation, Width, require
from zoo.nets.mlp import chain


class HVAESettings(Settings):
    latent: int = Field(50, ge=1, description="dimensions of the top layer")
    lower: tuple[Width, ...] = Field((100,), description="dimensions of the layers below it, the lowest first")
    hidden: tuple[tuple[Width, ...], ...] = Field(
        ((200, 200), (100, 100)), description="widths of the networks between two layers, the lowest first"
    )
    activation: Activation = "tanh"
    likelihood: LikelihoodSettings = LikelihoodSettings()
    k: int = Field(1, ge=1, description="posterior samples a training example")
    bound: Literal["iwae", "vae"] = Field("iwae", description="where the k samples are averaged: of weights, of logs")
    initial: Literal["default", "glorot"] = Field("default", description="glorot: uniform, as the official code's")


class HVAE(VAE):
    """A Markov chain x -> h1 -> ... -> hL of Gaussians up, and one down."""

    Settings: ClassVar[type[Settings]] = HVAESettings
    charges_by = OF_WEIGHTS

    def __init__(self, spec: DataSpec, settings: HVAESettings) -> None:
        super().__init__(spec, settings)
        sizes = [*settings.lower, settings.latent]
        require(len(sizes) == len(settings.hidden), "hidden has one tuple of widths for each stochastic layer.")
        self.likelihood = make_likelihood(settings.likelihood, spec)
        self.output = self.likelihood.output_shape(spec.shape)
        self.decodings = settings.k
        self.group_sizes = tuple(reversed(sizes))
        below = [spec.dims, *sizes[:-1]]
        nets = list(zip(below, settings.hidden, sizes, strict=True))
        act = settings.activation
        self.up = nn.ModuleList(chain(before, hidden, 2 * after, act) for before, hidden, after in nets)
        self.down = nn.ModuleList(
            chain(after, hidden[::-1], 2 * before, act) for before, hidden, after in nets[1:]
        )
        self.decoder = chain(sizes[0], settings.hidden[0][::-1], math.prod(self.output), act)

    @property
    def frees_bits(self) -> bool:
        return self.settings.k == 1

    # ---- the two chains --------------------------------------------------------------------------------------------

    def climb(
        self, x: Tensor, centre: bool = False, k: int = 1
    ) -> tuple[list[Tensor], list[DiagonalGaussian], list[Tensor]]:
        """The draw of every layer (k B, D), the lowest first, its q and its log q (k B,); means with ``centre``."""
        value, draws, posteriors, log_q = x.flatten(1), [], [], []
        for level, net in enumerate(self.up):
            q = gaussian(net(value))
            q = q.repeat(k) if k > 1 and level == 0 else q  # an image is encoded once, whatever k
            value, density = (q.mean, q.mean) if centre else q.rsample()
            draws.append(value)
            posteriors.append(q)
            log_q.append(density)
        return draws, posteriors, log_q

    def prior_of(self, level: int, draws: list[Tensor]) -> DiagonalGaussian:
        """p of a layer given the one above it; the top's is N(0, I)."""
        if level == len(self.down):
            return standard_normal(draws[level])
        return gaussian(self.down[level](draws[level + 1]))

    def decode(self, h: Tensor) -> Tensor:
        """The lowest layer (B, D) to the likelihood's parameters (B, C', H, W)."""
        return self.decoder(h).view(len(h), *self.output)

    # ---- the contract ----------------------------------------------------------------------------------------------

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        draws, posteriors, log_q = self.climb(x)
        rates = [log_q[level] - self.prior_of(level, draws).log_prob(draws[level]) for level in range(len(self.down))]
        top, prior = posteriors[-1], self.prior_of(len(self.down), draws)
        rates.append(top.kl(prior).sum(1))
        distortion = -self.likelihood.log_prob(self.decode(draws[0]), x)
        return Terms(distortion, torch.stack(rates[::-1], 1), {"z": torch.cat(draws[::-1], 1)})

    def parts(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(k, B) each: log p(x | h) and log p(h) - log q(h | x)."""
        rows = repeat(x, k)
        draws, _, log_q = self.climb(x, k=k)
        log_ratio = sum(self.prior_of(i, draws).log_prob(h) - log_q[i] for i, h in enumerate(draws))
        log_likelihood = self.likelihood.log_prob(self.decode(draws[0]), rows)
        return log_likelihood.view(k, len(x)), log_ratio.view(k, len(x))

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        return sum(self.parts(x, k))

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """Minus the k-sample bound; as in `zoo.models.iwae`."""
        if self.settings.k == 1:
            return super().losses(x, y, progress)
        log_likelihood, log_ratio = self.parts(x, self.settings.k)
        log_w = log_likelihood + self.rate_weight(progress) * log_ratio
        loss = k_sample_loss(log_w, self.settings.k if self.settings.bound == "vae" else 1)
        terms = Terms(-log_likelihood.mean(0).detach(), -log_ratio.mean(0, keepdim=True).T.detach())
        return Losses({"vae": loss}, terms)

    def criterion(self, x: Tensor, y: Tensor | None, terms: Terms) -> Tensor:
        """As `VAE.criterion`: the k-sample bound, where that is trained."""
        if self.settings.bound == "vae" or self.settings.k == 1:
            return super().criterion(x, y, terms)
        return k_sample_bound(self.log_weights(x, y, self.settings.k))

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D): the means of all layers, the top first, each given the means below it."""
        return torch.cat(self.climb(x, centre=True)[0][::-1], 1)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.decode(gaussian(self.up[0](x.flatten(1))).mean))

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """As `VAE.sample`; the temperature scales every layer's standard deviations."""
        like = next(self.parameters())
        value = temperature * noise.normal(like.new_zeros(n, self.settings.latent))
        for net in reversed(self.down):
            value = gaussian(net(value)).sample(temperature)
        return self.likelihood.mean(self.decode(value))

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        """Glorot's weights where asked for; a Bernoulli decoder starts at the mean image."""
        if self.settings.initial == "glorot":
            glorot(self)
        start_at_mean(self.decoder[-1].bias, x, self.likelihood)
