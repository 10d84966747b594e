"""Deep feature consistent VAE: reconstructions are compared with images in the maps of a network, not pixel by pixel.

Paper: Hou, Shen, Sun and Qiu, Deep Feature Consistent Variational Autoencoder, WACV 2017,
https://arxiv.org/abs/1610.00291. That maps of random convolutions do for comparing images is of He, Wang and Hopcroft,
A Powerful Generative Model Using Random Weights for the Deep Image Representation, NeurIPS 2016,
https://arxiv.org/abs/1606.04801.
Official code: https://github.com/houxianxu/DFC-VAE (not read).
Where we differ: the network is one of random convolutions, the same in every run, unless ``features.timm`` names one
that has its published weights; the paper's is VGG-19 (``features.timm=vgg19``), trained on ImageNet. timm's maps are
those at the end of each resolution, the paper's at its beginning. What is compared is the mean of p(x | z).

The ELBO is that of the pixels, which are not what is trained (`zoo.models.likeness`), unless ``pixel`` is above 0.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from zoo.data.images import DataSpec
from zoo.models.base import Settings
from zoo.models.likeness import LikenessSettings, LikenessVAE
from zoo.nets import require
from zoo.nets.features import FeatureSettings, make_features
from zoo.precision import full


class DFCSettings(LikenessSettings):
    weight: float = Field(1000.0, ge=0, description="weight of the distance of features in training, in nats")
    features: FeatureSettings = FeatureSettings()


class DFCVAE(LikenessVAE):
    """A vanilla VAE whose training has a distance of features in place of the likelihood."""

    Settings: ClassVar[type[Settings]] = DFCSettings

    def __init__(self, spec: DataSpec, settings: DFCSettings) -> None:
        super().__init__(spec, settings)
        require(
            not settings.features.timm or spec.support != "real" or self.likelihood.bounded,
            f"features.timm={settings.features.timm} knows pixels in [0, 1], and real data may lie anywhere; with "
            "likelihood.name=continuous_bernoulli none lies outside.",
        )
        self.features = make_features(settings.features, spec)

    def unlike(self, x: Tensor, shown: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.features(x)
        return torch.stack([distance(*maps) for maps in zip(wanted, self.features(shown), strict=True)]).sum(0)


def distance(maps: Tensor, others: Tensor) -> Tensor:
    """(B,): half of the mean squared difference of maps (B, C, H, W)."""
    return 0.5 * (full(maps) - full(others)).square().flatten(1).mean(1)
