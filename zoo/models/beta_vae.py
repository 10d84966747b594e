"""beta-VAE: the rate weighs beta times in training, so that the code pays more for every nat.

Paper: Higgins et al., beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework, ICLR 2017,
https://openreview.net/forum?id=Sy2fzU9gl.
Official code: none was published.
Where we differ: nothing but the shared networks. beta multiplies the summed rate against the summed distortion, never
a mean against a sum. The ELBO that is reported has beta = 1, as for every variant.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from zoo.models.base import Settings
from zoo.models.vae import VanillaSettings, VanillaVAE


class BetaSettings(VanillaSettings):
    beta: float = Field(4.0, ge=0, description="weight of the rate in training")


class BetaVAE(VanillaVAE):
    """A vanilla VAE whose training weighs the rate."""

    Settings: ClassVar[type[Settings]] = BetaSettings

    def rate_weight(self, progress: float | Tensor) -> float | Tensor:
        return self.settings.beta * progress
