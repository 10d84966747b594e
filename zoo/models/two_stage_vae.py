"""Two-stage VAE: a second VAE learns how the codes of the first are distributed, and samples are drawn through both.

Paper: Dai and Wipf, Diagnosing and Enhancing VAE Models, ICLR 2019, https://arxiv.org/abs/1903.05789.
Official code: https://github.com/daib13/TwoStageVAE.
Where we differ: the likelihood is that of the data, so that the bound is comparable; the paper's, a Gaussian of
learned sigma, is ``likelihood.name=gaussian``. Both stages are one run, its first ``first_stage`` for the first, with
one recipe (whose ``stages`` can begin again with the second). The codes are drawn anew from images at each step,
theirs from means and deviations that are stored. The second stage is smaller, and starts as N(0, I) over z, not at
random.

The first stage is trained on its own bound with p(z) = N(0, I), as any VAE, by an objective that the warm-up weighs;
the second on the codes of a first one that no longer moves. What is reported in either is the bound of the whole,
log p(x) >= E log p(x | z) - log q(z | x) + log p(z | u) + log p(u) - log q(u | z), over z from q(z | x) and u from
q(u | z). As long as no step has moved the second stage its p(z) is N(0, I) and its q(u | z) exact, and the whole has
the bound of the first stage alone. Weights of the first stage are never kept, nor is its end: ``keep: best`` chooses
among the epochs of the second, whose first stage is the one that training ended with, and patience waits for it.
"""

from __future__ import annotations

import contextlib
import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.data.images import DataSpec
from zoo.distributions.gaussians import LOG_VARIANCE_BOUND, DiagonalGaussian
from zoo.errors import UsageError
from zoo.likelihoods import Gaussian, LikelihoodSettings
from zoo.models.base import Losses, Settings, Terms, parameters_of, repeat, require_draws
from zoo.models.vae import VanillaVAE
from zoo.nets import Activation, DecoderSettings, EncoderSettings, Width
from zoo.nets.mlp import dense
from zoo.posteriors import PosteriorSettings
from zoo.precision import full
from zoo.priors import PriorSettings
from zoo.settings import Frozen

# How much of the variance of z under an untrained second stage is of u; the rest is noise. With much of it the stage
# learns sooner: of eight small clusters in a ring 500 steps learn 0.62 nats at 0.9, 0.23 at 0.5, and none near 0.
FROM_U = 0.9
# Log-variances of u are bounded softly: far from the codes that a network knows it may say anything, and the house's
# clamp at the same bound would pass no gradient.
WIDEST = LOG_VARIANCE_BOUND


class SecondStageSettings(Frozen):
    """Attributes:
    hidden: widths of both networks; three of 1024 in the paper.
    activation: of the dense layers.
    """

    hidden: tuple[Width, ...] = Field((256, 256, 256), min_length=1)
    activation: Activation = "relu"


class TwoStageSettings(Settings):
    encoder: EncoderSettings = EncoderSettings()
    decoder: DecoderSettings = DecoderSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()
    posterior: PosteriorSettings = PosteriorSettings()
    second: SecondStageSettings = SecondStageSettings()
    first_stage: float = Field(0.5, gt=0, lt=1, description="share of training for the first stage; the rest: second")
    #: what the first stage is trained with; the second stage is there to learn a better one
    prior: ClassVar[PriorSettings] = PriorSettings(name="standard")


class SecondStage(nn.Module):
    """A VAE of codes z (B, D): q(u | z), and p(z | u) = N(mean(u), sigma^2 I) with one learned sigma; u (B, D) too.

    Its last layers see what goes in beside the last hidden layer, as in the official code.
    """

    def __init__(self, settings: SecondStageSettings, latent: int) -> None:
        super().__init__()
        sizes = [latent, *settings.hidden]
        self.encoder, self.decoder = dense(sizes, settings.activation), dense(sizes, settings.activation)
        self.head = nn.Linear(latent + sizes[-1], 2 * latent)
        self.output = nn.Linear(latent + sizes[-1], latent)
        self.likelihood = Gaussian(LikelihoodSettings(sigma="learned"))
        with torch.no_grad():
            # z = a u + sqrt(1 - a^2) noise is N(0, I) for any a, and its exact posterior is linear and diagonal too.
            # With a = 0 this would be a collapsed posterior, which is a stationary point.
            for layer in (self.head, self.output):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
                layer.weight[:latent, :latent] = math.sqrt(FROM_U) * torch.eye(latent)
            self.head.bias[latent:] = WIDEST * math.atanh(math.log(1.0 - FROM_U) / WIDEST)
            self.likelihood.log_sigma.fill_(0.5 * math.log(1.0 - FROM_U))

    def infer(self, z: Tensor) -> DiagonalGaussian:
        """q(u | z)."""
        mean, log_variance = full(self.head(torch.cat([z, self.encoder(z)], 1))).chunk(2, -1)
        return DiagonalGaussian(mean, WIDEST * torch.tanh(log_variance / WIDEST))

    def decode(self, u: Tensor) -> Tensor:
        """The mean of p(z | u), (B, D)."""
        return self.output(torch.cat([u, self.decoder(u)], 1))

    def log_prob(self, z: Tensor, u: Tensor) -> Tensor:
        """log p(z | u), (B,) nats."""
        return self.likelihood.log_prob(self.decode(u), z)

    def sample(self, u: Tensor, temperature: float = 1.0) -> Tensor:
        """A draw of p(z | u), (B, D), its standard deviation times ``temperature``."""
        mean = self.decode(u)
        return mean + temperature * self.likelihood.sigma * noise.normal(mean)


class TwoStageVAE(VanillaVAE):
    """p(u) p(z | u) p(x | z), inferred by q(z | x) q(u | z); two parameter groups: ``first``, ``second``."""

    Settings: ClassVar[type[Settings]] = TwoStageSettings
    one_gaussian = False
    group_names = ("u", "z")

    def __init__(self, spec: DataSpec, settings: TwoStageSettings) -> None:
        super().__init__(spec, settings)
        self.second = SecondStage(settings.second, settings.latent)

    @property
    def first(self) -> list[nn.Module]:
        """The parts of the first stage."""
        return [module for name, module in self.named_children() if name != "second"]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"first": parameters_of(self.first), "second": parameters_of([self.second])}

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        """The bound of the whole; groups of the rate are u and z."""
        return self.whole(super().terms(x, y))

    def whole(self, terms: Terms) -> Terms:
        """The terms of the first stage, whose prior is N(0, I), with the second stage for a prior."""
        z = terms.aux["z"]
        q = self.second.infer(z)
        u, _ = q.rsample()
        of_z = terms.rate.squeeze(1) + self.prior.log_prob(z) - self.second.log_prob(z, u)
        return Terms(terms.distortion, torch.stack([q.kl(self.prior).sum(1), of_z], 1), {"z": z, "u": u})

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """The first stage's own bound, then the rate under the second; both where nobody says how far training is."""
        stage = self.stage_of(progress)
        fits_first, fits_second = stage != "second", stage != "first"
        for module in self.first:
            # What the second stage learns from are codes as they are evaluated, and statistics stay as they are.
            module.train(self.training and fits_first)
        losses = {}
        with contextlib.nullcontext() if fits_first else torch.no_grad():
            terms = super().terms(x, y)
        if fits_first:
            losses["first"] = (terms.distortion + self.rate_weight(progress) * terms.rate.sum(1)).mean()
        if fits_second:
            z = {"z": terms.aux["z"].detach()}
            terms = self.whole(Terms(terms.distortion.detach(), terms.rate.detach(), z))
            losses["second"] = terms.rate.sum(1).mean()
        return Losses(losses, terms)

    def stage(self, progress: float | Tensor) -> str:
        fraction = getattr(progress, "fraction", None)
        if fraction is None:
            return "both"
        return "first" if fraction < self.settings.first_stage else "second"

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        """As `VAE.log_weights`, with z and u drawn together."""
        z, log_q_z = self.infer(x, y).repeat(k).rsample()
        u, log_q_u = self.second.infer(z).rsample()
        log_prior = self.prior.log_prob(u) + self.second.log_prob(z, u)
        log_likelihood = self.log_likelihood(self.decode(z, y), repeat(x, k))
        return (log_likelihood + log_prior - log_q_z - log_q_u).view(k, len(x))

    def simulate(self, n: int, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_draws(self.likelihood)
        u = self.prior.sample(n)
        z = self.second.sample(u)
        x = self.draw(self.decode(z, y))
        q = self.diagonal_posterior(x, y)
        if q is None:
            raise UsageError("its posterior is not one diagonal Gaussian.")
        return x, torch.cat([q.noise_of(z), self.second.infer(z).noise_of(u)], 1)

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """As `VAE.sample`; the temperature scales the standard deviations of u and of z given u."""
        z = self.second.sample(self.prior.sample(n, temperature), temperature)
        return self.likelihood.mean(self.decode(z, y))
