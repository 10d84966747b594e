"""beta-TCVAE: the rate is taken apart, and the total correlation of the code weighs beta times.

Paper: Chen, Li, Grosse and Duvenaud, Isolating Sources of Disentanglement in Variational Autoencoders, NeurIPS 2018,
https://arxiv.org/abs/1802.04942.
Official code: https://github.com/rtqichen/beta-tcvae.
Where we differ: the estimators of q(z) are those of `zoo.distributions.aggregate`: stratified sampling is exact where
a batch is the data, and weighted sampling is without its constant, which is 9 log N for ten dimensions and in the
printed numbers of the official code. beta weighs in training only; the total correlation that the board shows is
measured on the evaluated split, for every variant alike.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from zoo.data.images import DataSpec
from zoo.distributions.aggregate import Estimator, aggregate
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.models.base import Losses, Settings, Terms
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.nets import require


class TCSettings(VanillaSettings):
    alpha: float = Field(1.0, ge=0, description="weight of the mutual information of image and code in training")
    beta: float = Field(6.0, ge=0, description="weight of the total correlation in training")
    gamma: float = Field(1.0, ge=0, description="weight of the rates of single dimensions in training")
    estimator: Estimator = Field("mss", description="of q(z): minibatch stratified or weighted sampling")


class BetaTCVAE(VanillaVAE):
    """A vanilla VAE whose training weighs the three parts of the rate."""

    Settings: ClassVar[type[Settings]] = TCSettings
    couples_examples: ClassVar[bool] = True
    charges_by = "by three parts of it, none of which is the rate of a dimension"

    def __init__(self, spec: DataSpec, settings: TCSettings) -> None:
        super().__init__(spec, settings)
        diagonal = settings.posterior.name == "diagonal"
        require(diagonal, "the parts of the rate need a diagonal posterior: posterior.name=diagonal.")

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        q = self.infer(x, y)
        z, log_q = q.rsample()
        distortion = -self.log_likelihood(self.decode(z, y), x)
        log_p = self.prior.log_bound(z)
        terms = Terms(distortion, (log_q - log_p).unsqueeze(1), {"z": z})
        return Losses({"vae": (distortion + progress * self.weighed(q, z, log_q, log_p)).mean()}, terms)

    def criterion(self, x: Tensor, y: Tensor | None, terms: Terms) -> Tensor:
        """As `VAE.criterion`: with the rate's three parts as they are weighed."""
        q, z = self.infer(x, y), terms.aux["z"]
        return -(terms.distortion + self.weighed(q, z, q.log_prob(z), self.prior.log_bound(z)))

    def weighed(self, q: DiagonalGaussian, z: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
        """(B,) nats, the weighed sum of the rate's three parts; of codes z, log q(z | x) and log p(z)."""
        found = aggregate(z, q, self.train_size or len(z), self.settings.estimator)
        information = log_q - found.joint
        dimensions = found.marginals.sum(1) - log_p
        weights = self.settings
        return weights.alpha * information + weights.beta * found.total_correlation + weights.gamma * dimensions
