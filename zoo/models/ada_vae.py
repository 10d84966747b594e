"""Ada-GVAE: trained on pairs of images that share some of their factors: which is estimated, or told.

Paper: Locatello et al., Weakly-Supervised Disentanglement Without Compromises, ICML 2020,
https://arxiv.org/abs/2002.02886.
Official code: https://github.com/google-research/disentanglement_lib (read: the losses and how pairs are made).
Where we differ: partners are images of the training split (`zoo.data.partners`), theirs any of the grid. One of two of
their pairs has a single factor drawn anew, whatever the other has; ours has each number as often. Both estimate what is
shared by the divergence of the first posterior from the second, in this direction alone. Averaged by precision
(Ada-ML-VAE), a shared dimension has the harmonic mean of the variances, as there, and not the half of it that a product
of two densities would have. Where it is told what a pair shares, all dimensions of factors that are drawn anew are left
as they are; theirs leaves that of the last one alone, which is the same where one factor is drawn anew. The weights
that are kept are those whose bound of single images, at beta, is the best on validation images; they keep the last.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zoo.data.companions import Companions, parted
from zoo.data.images import DataSpec, Images
from zoo.data.partners import Partners
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.models.base import Losses, Settings, Terms
from zoo.models.beta_vae import BetaSettings, BetaVAE
from zoo.nets import require

Average = Literal["gvae", "ml_vae"]
LOG_2 = math.log(2.0)


class AdaSettings(BetaSettings):
    beta: float = Field(1.0, ge=0, description="weight of the rate in training")
    changed: int | None = Field(
        None, ge=1, description="factors of a partner that are drawn anew; none: 1 to all but one, each as often"
    )
    average: Average = Field(
        "gvae", description="of shared dimensions: gvae, means of means and variances; ml_vae, weighed by precision"
    )
    told: Literal["shared"] | None = Field(
        None, description="shared: which factors a pair shares is known, and dimension j is factor j's; none: estimated"
    )


class AdaVAE(BetaVAE):
    """A beta-VAE of pairs, whose posteriors are averaged in the dimensions where they hardly differ, or of factors that
    the pair is known to share.

    Raises:
        UsageError: the posterior is no diagonal Gaussian.
    """

    Settings: ClassVar[type[Settings]] = AdaSettings
    paired: ClassVar[bool] = True
    frees_bits: ClassVar[bool] = True

    def __init__(self, spec: DataSpec, settings: AdaSettings) -> None:
        super().__init__(spec, settings)
        require(
            settings.posterior.name == "diagonal",
            "'ada_vae' compares posteriors dimension by dimension, which needs posterior.name=diagonal.",
        )
        self.changed = settings.changed
        self.decodings = 2  # an image and its partner

    def companions(self, images: Images) -> Companions:
        """As `VAE.companions`: partners.

        Raises:
            UsageError: as `Partners`; or it is told what a pair shares, and there are more factors than dimensions.
        """
        tell, count, latent = self.settings.told is not None, len(images.factor_names), self.settings.latent
        require(
            not tell or count <= latent,
            f"told=shared ties a dimension to each factor: latent={latent} is fewer than the {count} factors of this "
            "data.",
        )
        return Partners(images, self.changed, tell)

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """As `VAE.losses`, of x and its partners y under averaged posteriors: a pair counts as its mean image. y is
        (B, C, H, W), or (B, C*H*W + F) with 1 for each factor that is shared. Without y the images are alone."""
        if y is None:
            return super().losses(x, None, progress)
        terms = self.of_pairs(x, *parted(y, x.shape[1:]))
        loss = (terms.distortion + self.rate_weight(progress) * self.charged(terms)).mean()
        return Losses({"vae": loss}, terms)

    def of_pairs(self, x: Tensor, y: Tensor, factors: Tensor | None = None) -> Terms:
        """The means over each pair, (B,), (B, 1) and (B, D), of the terms of both images under their averaged
        posteriors; ``factors`` (B, F) is 1 where one is shared, or None where nobody knows."""
        both = torch.cat([x, y])
        here = None if factors is None else of_factors(factors, self.settings.latent)
        terms, _ = self.bound(averaged(self.infer(both), self.settings.average, here), both)
        distortion, rate, divergence = (
            None if part is None else part.unflatten(0, (2, -1)).mean(0)
            for part in (terms.distortion, terms.rate, terms.divergence)
        )  # fmt: skip
        return Terms(distortion, rate, divergence=divergence)


def averaged(q: DiagonalGaussian, average: Average, here: Tensor | None = None) -> DiagonalGaussian:
    """The posteriors of pairs, (2 B, D), first images and then their partners, with the average of both ``here``, bool
    (B, D); None is where a dimension is `shared`."""
    first, second = (
        DiagonalGaussian(*moments) for moments in zip(q.mean.chunk(2), q.log_variance.chunk(2), strict=True)
    )
    common = mean_of(first, second, average)
    here = (shared(first, second) if here is None else here).repeat(2, 1)
    return DiagonalGaussian(
        torch.where(here, common.mean.repeat(2, 1), q.mean),
        torch.where(here, common.log_variance.repeat(2, 1), q.log_variance),
    )


@torch.no_grad()
def shared(first: DiagonalGaussian, second: DiagonalGaussian) -> Tensor:
    """bool (B, D): where KL(first || second) is below the middle of its least and its largest dimension."""
    apart = first.kl(second)
    low, high = apart.aminmax(dim=1, keepdim=True)
    return apart < 0.5 * (low + high)


def of_factors(factors: Tensor, latent: int) -> Tensor:
    """bool (B, D): the dimensions of factors (B, F) that are 1, dimension j of factor j, and those without a factor."""
    return F.pad(factors > 0, (0, latent - factors.shape[1]), value=True)


def mean_of(first: DiagonalGaussian, second: DiagonalGaussian, average: Average) -> DiagonalGaussian:
    """One Gaussian between two: `gvae`, with the means of their means and of their variances; `ml_vae`, with their
    product's mean and the harmonic mean of their variances."""
    a, b = first.log_variance, second.log_variance
    if average == "gvae":
        return DiagonalGaussian(0.5 * (first.mean + second.mean), torch.logaddexp(a, b) - LOG_2)
    weight = torch.sigmoid(b - a)  # of the first: its share of the precision
    return DiagonalGaussian(weight * first.mean + (1 - weight) * second.mean, LOG_2 - torch.logaddexp(-a, -b))
