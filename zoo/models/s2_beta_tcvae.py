"""S2-beta-TCVAE: a beta-TCVAE whose first dimensions are taught the factors of a few labelled images.

Paper: Locatello, Tschannen, Bauer, Rätsch, Schölkopf and Bachem, Disentangling Factors of Variation Using Few Labels,
ICLR 2020, https://arxiv.org/abs/1905.01258.
Official code: https://github.com/google-research/disentanglement_lib (read: the losses and how labels are drawn).
Where we differ: as `zoo.models.supervised` says, and `zoo.models.beta_tcvae`. The weight of the supervised loss is
`supervised_weight`, for `gamma` weighs the rates of single dimensions here as in a beta-TCVAE.
"""

from __future__ import annotations

from typing import ClassVar

from zoo.models.base import Settings
from zoo.models.beta_tcvae import BetaTCVAE, TCSettings
from zoo.models.supervised import SupervisedSettings, SupervisedVAE


class S2TCSettings(SupervisedSettings, TCSettings):
    pass


class S2BetaTCVAE(SupervisedVAE, BetaTCVAE):
    """A beta-TCVAE with a supervised loss of a few labelled images, which ties dimension j of the code to factor j."""

    Settings: ClassVar[type[Settings]] = S2TCSettings
