"""VAE with free bits: the first few nats of each latent dimension cost nothing in training.

Paper: Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, NeurIPS 2016, appendix C.8,
https://arxiv.org/abs/1606.04934.
Official code: https://github.com/openai/iaf (not read).
Where we differ: one dimension is a group. The reported ELBO charges for every nat, as for any variant.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from zoo.data.images import DataSpec
from zoo.models.base import Losses, Settings, Terms
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.nets import require


class FreeBitsSettings(VanillaSettings):
    free: float = Field(0.1, ge=0, description="nats of each dimension that are not charged for, on batch average")


class FreeBitsVAE(VanillaVAE):
    """A vanilla VAE with a floor under what each dimension is charged."""

    Settings: ClassVar[type[Settings]] = FreeBitsSettings
    # The floor is under an average over the batch, so that a loss is not a mean over its examples.
    couples_examples: ClassVar[bool] = True

    def __init__(self, spec: DataSpec, settings: FreeBitsSettings) -> None:
        super().__init__(spec, settings)
        plain = settings.posterior.name == "diagonal" and settings.prior.name in ("standard", "diagonal")
        require(plain, "free_bits_vae needs a rate of each dimension: a diagonal posterior under such a prior.")

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        q = self.infer(x, y)
        z, _ = q.rsample()
        distortion = -self.likelihood.log_prob(self.decode(z, y), x)
        rate = q.kl(self.prior)  # (B, D) nats
        loss = distortion.mean() + self.rate_weight(progress) * self.charged(rate)
        return Losses({"vae": loss}, Terms(distortion, rate.sum(1, keepdim=True)))

    def criterion(self, x: Tensor, y: Tensor | None, terms: Terms) -> Tensor:
        """As `VAE.criterion`: what is charged of the batch is on each of its examples."""
        return -(terms.distortion + self.rate_weight(1.0) * self.charged(self.infer(x, y).kl(self.prior)))

    def charged(self, rate: Tensor) -> Tensor:
        """What a batch pays for its rate (B, D) in nats, a scalar."""
        return rate.mean(0).clamp_min(self.settings.free).sum()
