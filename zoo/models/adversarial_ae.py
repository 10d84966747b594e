"""Adversarial autoencoder: in place of the rate, a discriminator asks that the codes of all images look like the prior.

Paper: Makhzani, Shlens, Jaitly, Goodfellow and Frey, Adversarial Autoencoders, 2015, https://arxiv.org/abs/1511.05644.
With a squared cost it is the WAE-GAN of Tolstikhin, Bousquet, Gelly and Schoelkopf, Wasserstein Auto-Encoders, ICLR
2018, https://arxiv.org/abs/1711.01558.
Official code: none was published with the paper; of WAE https://github.com/tolstikhin/wae (not read).
Where we differ: the encoder is a Gaussian, which the paper tries, and both papers report deterministic ones. One step
moves all parts on the same codes, where the paper has a phase for each. The pixels' likelihood stands where they have a
squared error: that is ``likelihood.name=gaussian`` with ``likelihood.sigma=0.70711``.

Nothing that is trained keeps the variances of the encoder from vanishing, unless ``rate`` is above 0, so that it is
nearly a deterministic one after all. The ELBO that `terms` reports is a bound for any variance, with the whole rate of
that posterior: comparable with every other variant's, and not what is trained. The weights that are kept are those of
the smallest distortion, with what stays of the rate: the opinion of a discriminator that has itself changed cannot
choose among epochs.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.models.base import Losses, Settings, set_apart
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.nets import Width, require
from zoo.nets.code_discriminator import CodeDiscriminator, verdict
from zoo.precision import full_precision


class AdversarialSettings(VanillaSettings):
    scale: float = Field(10.0, ge=0, description="lambda, the weight of the verdict on the codes in training")
    judge: tuple[Width, ...] = Field((256, 256), description="widths of the discriminator; two of 1000 in the paper")
    rate: float = Field(0.0, ge=0, description="weight of the rate that stays in training; none does in the paper")


class AdversarialAE(VanillaVAE):
    """Two groups: the autoencoder and the discriminator of its codes."""

    Settings: ClassVar[type[Settings]] = AdversarialSettings

    def __init__(self, spec: DataSpec, settings: AdversarialSettings) -> None:
        super().__init__(spec, settings)
        learns = settings.rate > 0 or not list(self.prior.parameters())
        require(learns, f"prior.name={settings.prior.name} learns from the rate alone: it needs rate above 0.")
        self.discriminator = CodeDiscriminator(settings.latent, settings.judge)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return set_apart(self, "discriminator", [self.discriminator])

    def rate_weight(self, progress: float | Tensor) -> float | Tensor:
        return self.settings.rate * progress

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """The autoencoder's loss: distortion + scale * `deceive`, and what stays of the rate; the discriminator's: its
        `verdict` on as many draws of the prior as there are codes."""
        terms = self.terms(x, y)
        z = terms.aux["z"]
        kept = terms.distortion + self.rate_weight(progress) * terms.rate.sum(1)
        loss = (kept + self.settings.scale * deceive(self.discriminator(z))).mean()
        drawn = self.prior.sample(len(z)).detach()
        discern = verdict(self.discriminator(drawn), self.discriminator(z.detach()))
        return Losses({"vae": loss, "discriminator": discern}, terms)


@full_precision
def deceive(logits: Tensor) -> Tensor:
    """(B,) nats: minus the log-probability of being the prior's that the discriminator gives codes, from its logits
    (B,). The non-saturating cost of a generator."""
    return F.softplus(-logits)
