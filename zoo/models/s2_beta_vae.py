"""S2-beta-VAE: a beta-VAE whose first dimensions are taught the factors of a few labelled images.

Paper: Locatello, Tschannen, Bauer, Rätsch, Schölkopf and Bachem, Disentangling Factors of Variation Using Few Labels,
ICLR 2020, https://arxiv.org/abs/1905.01258.
Official code: https://github.com/google-research/disentanglement_lib (read: the losses and how labels are drawn).
Where we differ: as `zoo.models.supervised` says. The weight of the supervised loss is `gamma` here.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from zoo.models.base import Settings
from zoo.models.beta_vae import BetaSettings, BetaVAE
from zoo.models.supervised import LabelledSettings, SupervisedVAE


class S2BetaSettings(LabelledSettings, BetaSettings):
    of_labels: ClassVar[tuple[str, ...]] = (*LabelledSettings.of_labels, "gamma")

    gamma: float = Field(100.0, ge=0, description="weight of the supervised loss")


class S2BetaVAE(SupervisedVAE, BetaVAE):
    """A beta-VAE with a supervised loss of a few labelled images, which ties dimension j of the code to factor j."""

    Settings: ClassVar[type[Settings]] = S2BetaSettings
    frees_bits: ClassVar[bool] = True

    @property
    def supervised_weight(self) -> float:
        return self.settings.gamma
