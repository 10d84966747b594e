"""VAE-GAN: reconstructions match the image in a discriminator's features instead of its pixels, and have to fool it.

Paper: Larsen et al., Autoencoding beyond pixels using a learned similarity metric, ICML 2016,
https://arxiv.org/abs/1512.09300.
Official code: https://github.com/andersbll/autoencoding_beyond_pixels (read: `aegan.py`, `model/aegan.py`).
Where we differ: all three of data, reconstructions and samples are judged, each with the same weight, as in the
paper (the official code can leave out either of the last two, and weighs both together like the data). The decoder's
verdict is the non-saturating one. The discriminator normalises every example by itself instead of over the batch,
which also fixes the scale of its features. The official code stops a side that is ahead by a margin, by either of
its costs on real or made images; here by their mean, and only the verdict waits: the decoder still has its
similarity.

Binary data: grey means and black-and-white images are told apart at a glance, so the discriminator is shown a draw
of p(x | z), with the gradient of its mean passed straight through (Bengio et al. 2013). Of other data it is shown
the mean.

The ELBO that `terms` reports is that of the pixels under the likelihood, comparable with every other variant's. It
is not what is trained: nobody asks this decoder for pixel probabilities that are calibrated, unless ``pixel`` is
above 0. A Bernoulli's logits are therefore calibrated (`zoo.models.calibrated`). Pictures stay what the discriminator
judged.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.models.base import Losses, Settings, parameters_of
from zoo.models.calibrated import CalibratedVAE
from zoo.models.vae import VanillaSettings
from zoo.nets.discriminator import Discriminator, DiscriminatorSettings
from zoo.precision import full_precision

LOG_2 = math.log(2.0)  # what a verdict costs when real and made cannot be told apart


class VAEGANSettings(VanillaSettings):
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    gamma: float = Field(1.0, ge=0, description="weight of the similarity in the decoder's loss, beside the verdict")
    margin: float | None = Field(0.35, gt=0, description="how far, in nats a verdict, a side may get ahead; None: any")
    pixel: float = Field(0.0, ge=0, description="weight of the pixels' distortion beside the similarity")


class VAEGAN(CalibratedVAE):
    """Three groups: the encoder (with the prior), the decoder (with the likelihood), the discriminator."""

    Settings: ClassVar[type[Settings]] = VAEGANSettings

    def __init__(self, spec: DataSpec, settings: VAEGANSettings) -> None:
        super().__init__(spec, settings)
        self.discriminator = Discriminator(settings.discriminator, spec.shape)

    @property
    def couples_batch(self) -> bool:
        # Which side waits is decided by the verdicts of a whole batch.
        return super().couples_batch or self.settings.margin is not None

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {
            "encoder": parameters_of([self.encoder, self.head, self.posterior, self.prior]),
            "decoder": parameters_of([self.decoder, self.likelihood]),
            "discriminator": parameters_of([self.discriminator]),
        }

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """The encoder's loss: rate + similarity; the decoder's: gamma * similarity + its verdicts; the
        discriminator's: all verdicts. Each moves its own group only."""
        terms, params = self.bound(self.infer(x, y), x, y)
        samples = self.decode(self.prior.sample(len(x)), y)
        # One call each, not one for all: a gradient then passes only through the images that its loss looks at.
        features, real = self.discriminator(x)
        rebuilt_features, rebuilt = self.discriminator(self.seen(params))
        _, sampled = self.discriminator(self.seen(samples))
        similarity = distance(features, rebuilt_features) + self.settings.pixel * terms.distortion
        terms.aux |= {"similarity": similarity, "logits": torch.cat([real, rebuilt, sampled])}

        deceive, discern = self.verdicts(real, rebuilt, sampled)
        encoder = (self.rate_weight(progress) * terms.rate.sum(1) + similarity).mean()
        # A learned scale is in no image that the discriminator sees.
        decoder = self.settings.gamma * similarity.mean() + deceive + self.misfit(params, x)
        return Losses({"encoder": encoder, "decoder": decoder, "discriminator": discern}, terms)

    @full_precision
    def verdicts(self, real: Tensor, rebuilt: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor]:
        """Scalars in nats: the decoder's non-saturating loss and the discriminator's, from logits of being real."""
        deceive = F.softplus(-rebuilt).mean() + F.softplus(-sampled).mean()
        miss, believe = F.softplus(-real).mean(), 0.5 * (F.softplus(rebuilt) + F.softplus(sampled)).mean()
        discern = miss + 2.0 * believe
        if self.settings.margin is None:
            return deceive, discern
        # Decided on the device: whoever has to wait gets a gradient of zero, and the host is not asked.
        lead = LOG_2 - 0.5 * (miss + believe).detach()
        zero = torch.zeros_like(lead)
        deceive = torch.where(lead < -self.settings.margin, zero, deceive)
        return deceive, torch.where(lead > self.settings.margin, zero, discern)


@full_precision
def distance(real: Tensor, reconstructed: Tensor) -> Tensor:
    """(B,) nats: -log N(features of x; features of its reconstruction, I), its constant left out."""
    return 0.5 * (real - reconstructed).square().sum(1)
