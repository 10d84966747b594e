"""Annealed VAE: the rate is held at a capacity that grows in training.

Paper: Burgess et al., Understanding disentangling in beta-VAE, 2018, https://arxiv.org/abs/1804.03599.
Official code: none was published.
Where we differ: the capacity grows over the warm-up, whose length is the recipe's; it is compared with the mean rate of
a batch, as re-implementations do, where the paper writes it for one example; gamma is 10 for short trainings, 1,000 in
the paper.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from zoo.models.base import Losses, Settings, Terms
from zoo.models.vae import VanillaSettings, VanillaVAE


class AnnealedSettings(VanillaSettings):
    capacity: float = Field(25.0, ge=0, description="nats that the rate is held at when the warm-up is over")
    gamma: float = Field(10.0, ge=0, description="weight of how far the rate is from it, in training")


class AnnealedVAE(VanillaVAE):
    """distortion + gamma |rate - capacity|."""

    Settings: ClassVar[type[Settings]] = AnnealedSettings
    seeks_bound: ClassVar[bool] = False
    couples_examples: ClassVar[bool] = True
    charges_by = "by how far it is from a capacity"

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        terms = self.terms(x, y)
        return Losses({"vae": terms.distortion.mean() + self.excess(terms, progress)}, terms)

    def criterion(self, x: Tensor, y: Tensor | None, terms: Terms) -> Tensor:
        """As `VAE.criterion`: less what the rate's distance from the capacity costs."""
        return -(terms.distortion + self.excess(terms))

    def excess(self, terms: Terms, progress: float | Tensor = 1.0) -> Tensor:
        """What the mean rate of a batch adds to the loss, a scalar."""
        return self.settings.gamma * distance(terms.rate.sum(1), self.settings.capacity * progress)


def distance(rate: Tensor, capacity: float | Tensor) -> Tensor:
    """How far the mean of rates (B,) is from a capacity, all in nats: a scalar."""
    return (rate.mean() - capacity).abs()
