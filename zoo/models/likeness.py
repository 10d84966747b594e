"""What models share that are trained on another likeness of two images than the likelihood of their pixels.

The ELBO that `terms` reports is that of the pixels under the likelihood, comparable with every other variant's. It is
not what is trained, so a Bernoulli's logits are calibrated (`zoo.models.calibrated`), and a learned scale is fitted.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from zoo.likelihoods import LocationScale
from zoo.models.base import Losses, Settings, Terms
from zoo.models.calibrated import CalibratedVAE
from zoo.models.vae import VanillaSettings


class LikenessSettings(VanillaSettings):
    weight: float = Field(1.0, ge=0, description="weight of how unlike the images are in training, in nats")
    pixel: float = Field(0.0, ge=0, description="weight of the pixels' distortion beside it")


class LikenessVAE(CalibratedVAE):
    """A vanilla VAE whose training has `unlike` in place of the distortion."""

    Settings: ClassVar[type[Settings]] = LikenessSettings
    seeks_likelihood: ClassVar[bool] = False

    def unlike(self, x: Tensor, shown: Tensor) -> Tensor:
        """(B,): 0 where an image (B, C, H, W) and what is `shown` of it are the same, else more."""
        raise NotImplementedError

    def shown(self, params: Tensor) -> Tensor:
        """The mean of p(x | z), (B, C, H, W); where that is the decoder's output itself not clipped, as a clipped pixel
        has no gradient."""
        return params if isinstance(self.likelihood, LocationScale) else self.likelihood.mean(params)

    def bound(self, q: Any, x: Tensor, y: Tensor | None = None) -> tuple[Terms, Tensor]:
        terms, params = super().bound(q, x, y)
        terms.aux["unlike"] = self.unlike(x, self.shown(params))
        return terms, params

    def objective(self, terms: Terms, progress: float | Tensor) -> Tensor:
        """(B,) nats: weight * `unlike` + pixel * distortion + rate, the rate as far as the warm-up has come."""
        loss = self.settings.weight * terms.aux["unlike"]
        if self.settings.pixel:
            loss = loss + self.settings.pixel * terms.distortion
        return loss + self.rate_weight(progress) * terms.rate.sum(1)

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """The batch mean of `objective`, and of a likelihood with a learned scale what fits that to the errors."""
        terms, params = self.bound(self.infer(x, y), x, y)
        return Losses({"vae": self.objective(terms, progress).mean() + self.misfit(params, x)}, terms)

    def criterion(self, x: Tensor, y: Tensor | None, terms: Terms) -> Tensor:
        """As `VAE.criterion`: minus the `objective`."""
        return -self.objective(terms, 1.0)
