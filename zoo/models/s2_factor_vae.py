"""S2-FactorVAE: a FactorVAE whose first dimensions are taught the factors of a few labelled images.

Paper: Locatello, Tschannen, Bauer, Rätsch, Schölkopf and Bachem, Disentangling Factors of Variation Using Few Labels,
ICLR 2020, https://arxiv.org/abs/1905.01258.
Official code: https://github.com/google-research/disentanglement_lib (read: the losses and how labels are drawn).
Where we differ: as `zoo.models.supervised` says, and `zoo.models.factor_vae`. The weight of the supervised loss is
`supervised_weight`, for `gamma` weighs the total correlation here as in a FactorVAE. The discriminator sees codes of
unlabelled images alone, as theirs does.
"""

from __future__ import annotations

from typing import ClassVar

from zoo.models.base import Settings
from zoo.models.factor_vae import FactorSettings, FactorVAE
from zoo.models.supervised import SupervisedSettings, SupervisedVAE


class S2FactorSettings(SupervisedSettings, FactorSettings):
    pass


class S2FactorVAE(SupervisedVAE, FactorVAE):
    """A FactorVAE with a supervised loss of a few labelled images, which ties dimension j of the code to factor j and
    moves the VAE alone."""

    Settings: ClassVar[type[Settings]] = S2FactorSettings
