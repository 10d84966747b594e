"""DIP-VAE: the covariance of the code is pulled towards the identity.

Paper: Kumar, Sattigeri and Balakrishnan, Variational Inference of Disentangled Latent Concepts from Unlabeled
Observations, ICLR 2018, https://arxiv.org/abs/1711.00848.
Official code: none was published.
Where we differ: nothing but the shared networks. Version I takes the covariance of the means of q(z | x), version II
that of z, which adds the mean of their variances; both of a batch. The diagonal is often weighed ten times more than
the rest in version I; that is for the recipe to say.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.models.base import Losses, Settings, Terms
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.nets import require
from zoo.precision import full_precision


class DIPSettings(VanillaSettings):
    version: Literal["I", "II"] = "II"
    off_diagonal: float = Field(10.0, ge=0, description="weight of squared covariances of two dimensions, in training")
    diagonal: float = Field(10.0, ge=0, description="weight of squared (variance - 1), in training")


class DIPVAE(VanillaVAE):
    """A vanilla VAE with a penalty on the covariance of its code."""

    Settings: ClassVar[type[Settings]] = DIPSettings
    couples_examples: ClassVar[bool] = True
    frees_bits: ClassVar[bool] = True

    def __init__(self, spec: DataSpec, settings: DIPSettings) -> None:
        super().__init__(spec, settings)
        diagonal = settings.posterior.name == "diagonal"
        require(diagonal, "the covariance of the code needs a diagonal posterior: posterior.name=diagonal.")

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        q = self.infer(x, y)
        terms, _ = self.bound(q, x, y)
        bound = (terms.distortion + self.rate_weight(progress) * self.charged(terms)).mean()
        return Losses({"vae": bound + self.penalty(q)}, terms)

    def criterion(self, x: Tensor, y: Tensor | None, terms: Terms) -> Tensor:
        """As `VAE.criterion`: the bound less the penalty."""
        return super().criterion(x, y, terms) - self.penalty(self.infer(x, y))

    def penalty(self, q: DiagonalGaussian) -> Tensor:
        """What the posteriors of a batch add to the loss, a scalar."""
        return departure(covariance(q, self.settings.version), self.settings.off_diagonal, self.settings.diagonal)


@full_precision
def covariance(q: DiagonalGaussian, version: str) -> Tensor:
    """(D, D): that of the means over the batch, and in version II the mean variance on its diagonal."""
    centred = q.mean - q.mean.mean(0)
    matrix = centred.T @ centred / len(centred)
    return matrix if version == "I" else matrix + torch.diag(q.log_variance.exp().mean(0))


@full_precision
def departure(matrix: Tensor, off_diagonal: float, diagonal: float) -> Tensor:
    """How far (D, D) is from the identity: weighted squares beside the diagonal and on it."""
    variances = matrix.diagonal()
    beside = matrix - torch.diag(variances)
    return off_diagonal * beside.square().sum() + diagonal * (variances - 1.0).square().sum()
