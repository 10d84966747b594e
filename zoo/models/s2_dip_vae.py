"""S2-DIP-VAE: a DIP-VAE whose first dimensions are taught the factors of a few labelled images.

Paper: Locatello, Tschannen, Bauer, Rätsch, Schölkopf and Bachem, Disentangling Factors of Variation Using Few Labels,
ICLR 2020, https://arxiv.org/abs/1905.01258.
Official code: https://github.com/google-research/disentanglement_lib (read: the losses and how labels are drawn).
Where we differ: as `zoo.models.supervised` says. The weight of the supervised loss is `supervised_weight`, as that of
the variants whose `gamma` is another one.
"""

from __future__ import annotations

from typing import ClassVar

from zoo.models.base import Settings
from zoo.models.dip_vae import DIPVAE, DIPSettings
from zoo.models.supervised import SupervisedSettings, SupervisedVAE


class S2DIPSettings(SupervisedSettings, DIPSettings):
    pass


class S2DIPVAE(SupervisedVAE, DIPVAE):
    """A DIP-VAE with a supervised loss of a few labelled images, which ties dimension j of the code to factor j."""

    Settings: ClassVar[type[Settings]] = S2DIPSettings
