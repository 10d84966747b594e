"""The autoencoder of latent diffusion (AutoencoderKL): a grid of Gaussian codes that hardly pays for its rate.

Paper: Rombach, Blattmann, Lorenz, Esser and Ommer, High-Resolution Image Synthesis with Latent Diffusion Models,
CVPR 2022, https://arxiv.org/abs/2112.10752 (section 3.1, appendix G). The losses but for the rate are of Esser,
Rombach and Ommer, Taming Transformers for High-Resolution Image Synthesis (VQGAN), CVPR 2021,
https://arxiv.org/abs/2012.09841.
Official code: https://github.com/CompVis/latent-diffusion (not read).
Where we differ: the networks are those of our VQ-VAE, without attention, so that the two differ in their codes alone.
Pixels are compared by minus their log-likelihood in nats (``likelihood.name=laplace`` is the paper's absolute error)
and perceived by random convolutions, unless ``features.timm`` names a network (the paper's is VGG-16 with the weights
of LPIPS). The adversary begins after a share of training, ``judged_from``, where the paper counts steps, and normalises
every place by itself instead of the batch.

The rate weighs next to nothing, so codes lie where they like and samples of a standard normal prior decode to little.
A prior with parameters learns where: it has a group and a loss of its own, the whole of the rate, of which the encoder
feels ``beta`` times as much. With ``prior.name=diffusion`` that is latent diffusion in one run; the paper trains the
diffusion afterwards.

The ELBO is that of the pixels under that prior: comparable with every other variant's and not what is trained.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.likelihoods import LikelihoodSettings, make_likelihood
from zoo.models.base import Losses, Settings, parameters_of
from zoo.models.dfc_vae import DFCVAE
from zoo.nets import Width
from zoo.nets.features import FeatureSettings
from zoo.nets.halvings import Halved, HalvingSettings, doublings, halvings
from zoo.nets.patches import PatchDiscriminator, hinge
from zoo.posteriors import DiagonalPosterior
from zoo.precision import full
from zoo.priors import PriorSettings, make_prior

LARGEST_BALANCE = 1e4
LEAST_PULL = 1e-4  # what the pull of the adversary counts at least, in nats a unit of weight


class AutoencoderKLSettings(HalvingSettings, Settings):
    latent: int = Field(4, ge=1, description="numbers of the code at each place of the grid")
    beta: float = Field(1e-6, ge=0, description="weight of the rate in training")
    weight: float = Field(1000.0, ge=0, description="weight of the distance of features in training, in nats")
    pixel: float = Field(1.0, ge=0, description="weight of the pixels' distortion beside it")
    adversary: float = Field(0.5, ge=0, description="pull of the adversary on the decoder, in pulls of the rest")
    judged_from: float = Field(0.4, ge=0, lt=1, description="share of training after which there is an adversary")
    discriminator: tuple[Width, ...] = Field((16, 32), description="channels of each halving by the adversary")
    features: FeatureSettings = FeatureSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()
    prior: PriorSettings = PriorSettings()


class AutoencoderKL(DFCVAE):
    """A convolutional autoencoder with a grid of Gaussians in its middle, its adversary, and its prior if that has
    parameters: a group each. Of an image, z (B, D) is the grid (latent, h, w), flattened."""

    Settings: ClassVar[type[Settings]] = AutoencoderKLSettings
    seeks_bound: ClassVar[bool] = False

    def build(self, spec: DataSpec, settings: AutoencoderKLSettings) -> None:
        self.halved = Halved(spec.shape[1:], len(settings.channels))
        self.grid = (settings.latent, *self.halved.grid)
        channels, last, depth = spec.shape[0], settings.channels[-1], (settings.residual, settings.hidden)
        self.likelihood = make_likelihood(settings.likelihood, spec)
        output = self.likelihood.channels(channels)
        self.encoder = nn.Sequential(
            *halvings(channels, settings.channels, *depth), nn.Conv2d(last, 2 * settings.latent, 1)
        )
        self.decoder = nn.Sequential(*doublings(settings.latent, [*reversed(settings.channels), output], *depth))
        size = settings.latent * self.grid[1] * self.grid[2]
        self.posterior = DiagonalPosterior(size)
        self.prior = make_prior(settings.prior, size, encode=self.infer, spec=spec)
        if settings.adversary:
            self.discriminator = PatchDiscriminator(channels, settings.discriminator, spec.shape[1:])
        for network in (self.encoder, self.decoder):  # a third faster on a CPU, and what tensor cores want
            network.to(memory_format=torch.channels_last)

    def infer(self, x: Tensor, y: Tensor | None = None) -> DiagonalGaussian:
        """q(z | x)."""
        return self.posterior(self.encoder(self.halved.padded(x)).flatten(1))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D) to the likelihood's parameters (B, C', H, W)."""
        grid = z.view(len(z), *self.grid).contiguous(memory_format=torch.channels_last)
        return self.halved.cropped(self.decoder(grid))

    # ---- training --------------------------------------------------------------------------------------------------

    @property
    def couples_batch(self) -> bool:
        # How much an adversary pulls is decided by the gradients of a whole batch.
        return super().couples_batch or self.settings.adversary > 0

    def rate_weight(self, progress: float | Tensor) -> float | Tensor:
        return self.settings.beta * progress

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        groups = {
            "vae": parameters_of([self.encoder, self.decoder, self.likelihood]),
            "prior": parameters_of([self.prior]),
            "discriminator": parameters_of([self.discriminator] if self.settings.adversary else []),
        }
        return {name: group for name, group in groups.items() if group}

    def stage(self, progress: float | Tensor) -> str:
        """``alone`` before there is an adversary, and ``judged`` from then on."""
        fraction = getattr(progress, "fraction", None)
        alone = not self.settings.adversary or (fraction is not None and fraction < self.settings.judged_from)
        return "alone" if alone else "judged"

    def trained_in(self, stage: Hashable) -> Collection[str]:
        return self.parameter_groups().keys() - ({"discriminator"} if stage == "alone" else set())

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """The objective of the autoencoder and what fools its adversary, the rate of the prior, and the hinge loss of
        the adversary; each moves its own group only."""
        terms, params = self.bound(self.infer(x, y), x, y)
        loss = self.objective(terms, progress).mean()
        losses = {"vae": loss + self.misfit(params, x)}
        if parameters_of([self.prior]):
            losses["prior"] = terms.rate.sum(1).mean()
        if self.stage_of(progress) == "judged":
            shown = self.seen(params)
            unfooled = -full(self.discriminator(shown)).mean()
            losses["vae"] = losses["vae"] + self.settings.adversary * self.balance(loss, unfooled) * unfooled
            losses["discriminator"] = hinge(self.discriminator(x), self.discriminator(shown.detach()))
        return Losses(losses, terms)

    def balance(self, loss: Tensor, unfooled: Tensor) -> Tensor:
        """(): how many times the pull of ``unfooled`` on the last weights of the decoder goes into that of ``loss``
        (Esser et al. 2021, equation 7); 1 where nobody asks for gradients."""
        last = self.decoder[-1].weight
        if not (torch.is_grad_enabled() and last.requires_grad):
            return torch.ones_like(unfooled)
        pulls = [torch.autograd.grad(one, last, retain_graph=True)[0] for one in (loss, unfooled)]
        wanted, had = (full(pull).norm() for pull in pulls)
        return (wanted / (had + LEAST_PULL)).clamp(max=LARGEST_BALANCE)
