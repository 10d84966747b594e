"""FactorVAE: a discriminator tells codes from codes with shuffled dimensions, and its logit is the total correlation.

Paper: Kim and Mnih, Disentangling by Factorising, ICML 2018, https://arxiv.org/abs/1802.05983.
Official code: none was published.
Where we differ: the discriminator has one logit instead of two, which is the difference of theirs. Its two sides
come from two halves of a batch, where the paper draws a second batch. Both optimisers have the recipe's settings,
the paper's have their own.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.data.images import DataSpec
from zoo.models.base import Losses, Settings, set_apart
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.nets import Width
from zoo.nets.code_discriminator import CodeDiscriminator, verdict


class FactorSettings(VanillaSettings):
    gamma: float = Field(10.0, ge=0, description="weight of the total correlation in training")
    judge: tuple[Width, ...] = Field((256, 256), description="widths of the discriminator; six of 1000 in the paper")


class FactorVAE(VanillaVAE):
    """Two groups: the VAE and the discriminator of its codes."""

    Settings: ClassVar[type[Settings]] = FactorSettings
    couples_examples: ClassVar[bool] = True
    frees_bits: ClassVar[bool] = True

    def __init__(self, spec: DataSpec, settings: FactorSettings) -> None:
        super().__init__(spec, settings)
        self.discriminator = CodeDiscriminator(settings.latent, settings.judge)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return set_apart(self, "discriminator", [self.discriminator])

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        terms = self.terms(x, y)
        z = terms.aux["z"]
        total_correlation = self.discriminator(z)
        bound = terms.distortion + self.rate_weight(progress) * self.charged(terms)
        terms.aux["total_correlation"] = total_correlation.detach()
        codes, half = z.detach(), (len(x) + 1) // 2
        rest = slice(len(x) // 2, None)
        shuffled = shuffle(codes[rest], noise.uniform(codes)[rest])
        discern = verdict(self.discriminator(codes[:half]), self.discriminator(shuffled))
        loss = (bound + self.settings.gamma * total_correlation).mean()
        return Losses({"vae": loss, "discriminator": discern}, terms)


def shuffle(z: Tensor, u: Tensor) -> Tensor:
    """z (B, D) with every dimension in the order of its column of u: draws from the product of the marginals."""
    return z.gather(0, u.argsort(0))
