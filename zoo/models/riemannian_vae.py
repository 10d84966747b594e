"""Riemannian Hamiltonian VAE: leapfrog steps whose momenta follow a learned metric of the code.

Paper: Chadebec, Mantoux and Allassonniere, Geometry-Aware Hamiltonian Variational Auto-Encoder, 2020,
https://arxiv.org/abs/2010.11518.
Official code: https://github.com/clementchadebec/benchmark_VAE, which its first author maintains; not read.
Where we differ: their steps are those of the generalised leapfrog, whose implicit equations a few iterations solve, so
that nobody knows its volume and what is reported need not be a bound. Ours are explicit (Tao 2016, Physical Review E
94, 043303): position and momenta have a copy each, one pair moves by what the other says, and volume is kept exactly.
Where the copies begin and end costs rate, as any auxiliary variable does. The metric's centroids are the codes of
learned pseudo-inputs, as many as are asked for, theirs of all training images; its matrices are a linear map of the
encoder's features, theirs of a network of its own. Samples are of the prior, which the bound is of; theirs follow the
volume of the metric, which has no finite integral. All else is as in `zoo.models.hamiltonian_vae`.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.data.images import DataSpec
from zoo.distributions.metric import CodeMetric, MetricAt, squares
from zoo.models.base import Settings
from zoo.models.hamiltonian_vae import Carried, HamiltonianSettings, HamiltonianVAE, excess
from zoo.nets import require
from zoo.nets.pseudo_inputs import free_inputs, images_of, start_at
from zoo.precision import full, full_precision


class RiemannianSettings(HamiltonianSettings):
    steps: int = Field(3, ge=1, description="K: leapfrog steps")
    centroids: int = Field(50, ge=1, description="N: pseudo-inputs, about whose codes the metric is learned")
    temperature: float = Field(4.0, gt=0, description="T: the distance in the code over which a centroid counts")
    floor: float = Field(1.0, gt=0, description="lambda: the inverse metric far from every centroid")
    apart: float = Field(0.1, gt=0, description="deviation of the copies, measured by the metric, where they begin")


class RiemannianVAE(HamiltonianVAE):
    """A Hamiltonian VAE whose momenta have the density N(rho; 0, G(z))."""

    Settings: ClassVar[type[Settings]] = RiemannianSettings

    def __init__(self, spec: DataSpec, settings: RiemannianSettings) -> None:
        super().__init__(spec, settings)
        diagonal = settings.posterior.name == "diagonal"
        require(diagonal, "the centroids of a metric need posterior.name=diagonal: a flow has no centre.")
        size = settings.latent * (settings.latent + 1) // 2
        self.metric_head = nn.Linear(self.encoder.features, size)
        # Where all codes are together, as they are before training, the inverse metric begins as 1 + lambda.
        nn.init.zeros_(self.metric_head.weight)
        nn.init.zeros_(self.metric_head.bias)
        nn.init.constant_(self.metric_head.bias[: settings.latent], -0.5 * math.log(settings.centroids))
        self.confined = spec.support != "real"
        self.free_inputs = free_inputs(settings.centroids, tuple(spec.shape))

    def infer(self, x: Tensor, y: Tensor | None = None) -> CarriedAlong:
        """q(z_K, rho_K and their copies | x)."""
        return CarriedAlong(self.start(x), functools.partial(self.carry, self.metric()), x)

    def metric(self) -> CodeMetric:
        """The metric as it is now. The encoder sees the pseudo-inputs as one batch: batch normalisation, as in a timm
        backbone, mixes their statistics with the data's, by which the codes of an evaluation are made."""
        features = self.encoder(images_of(self.free_inputs, self.confined))
        matrices = squares(self.metric_head(features), self.settings.latent)
        centroids = full(self.posterior(self.head(features)).centre)
        return CodeMetric(centroids, matrices, self.settings.temperature, self.settings.floor)

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        super().initialise(x, y)
        start_at(self.free_inputs, x, self.confined)

    def carry(self, metric: CodeMetric, z: Tensor, drawn: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z_K (B, D), what of the three that were ``drawn`` (B, 3, D) from N(0, I) has come, and the logarithm of the
        volume (B,).

        The three are the momenta, and how far the copies of z and of the momenta lie from them, each in units of the
        metric where z is. Every part of a step changes some of the four by a function of the others.
        """
        step, cooling, log_prior = self.step_size(), self.cooling(), self.prior.density()
        first = here = metric.at(z)
        rho, other_z, other_rho = _leave(here, drawn, self.settings.apart)
        rho, other_rho = rho / cooling.prod(), other_rho / cooling.prod()
        force = self.force(z, x, log_prior)
        for alpha in cooling.unbind():
            kick = 0.5 * step * force
            rho, other_rho = rho + kick, other_rho + kick
            rho, other_z = _moved(here, other_rho, rho, other_z, 0.5 * step)
            other_rho, z = _moved(metric.at(other_z), rho, other_rho, z, step)
            here = metric.at(z)
            rho, other_z = _moved(here, other_rho, rho, other_z, 0.5 * step)
            # Momenta that differ carry the copies apart, by what is known at the end as well.
            other_z = other_z - step * here.velocity(other_rho - rho)
            force = self.force(z, x, log_prior)
            kick = 0.5 * step * force
            rho, other_rho = alpha * (rho + kick), alpha * (other_rho + kick)
        came = _arrive(here, rho, other_z, other_rho, self.settings.apart)
        return z, came, here.log_volume - first.log_volume


class CarriedAlong(Carried):
    """The density of z_K and of three more vectors, which are N(0, I) where all began."""

    @property
    def centre(self) -> Tensor:
        """Where the centre of z_0 is carried from rest (B, D)."""
        start = self.start.centre
        return self.leapfrog(start, torch.zeros_like(start).unsqueeze(1).repeat(1, 3, 1), self.x)[0]

    def rsample(self) -> tuple[Tensor, Tensor]:
        """As `Carried.rsample`."""
        z, log_q = self.start.rsample()
        drawn = noise.normal(z.unsqueeze(1).repeat(1, 3, 1))
        z, came, log_volume = self.leapfrog(z, drawn, self.x)
        return z, log_q + excess(came.flatten(1), drawn.flatten(1)) - log_volume


def _moved(here: MetricAt, rho: Tensor, other_rho: Tensor, other_z: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    # The momenta and the position of one pair, moved by what those of the other say.
    return other_rho - step * here.pull(rho), other_z + step * here.velocity(rho)


@full_precision
def _leave(here: MetricAt, drawn: Tensor, apart: float) -> tuple[Tensor, Tensor, Tensor]:
    # rho ~ N(0, G), z~ ~ N(z, apart^2 G^-1), rho~ ~ N(rho, apart^2 G), (B, D) each; the volumes of copies cancel.
    gamma, xi, zeta = drawn.unbind(1)
    both = torch.stack([gamma, zeta], 2)
    rho, beside = torch.linalg.solve_triangular(here.factor.mT, both, upper=True).unbind(2)
    return rho, here.z + apart * _times(here.factor, xi), rho + apart * beside


@full_precision
def _arrive(here: MetricAt, rho: Tensor, other_z: Tensor, other_rho: Tensor, apart: float) -> Tensor:
    # (B, 3, D), the inverse of `_leave`.
    away = (other_z - here.z).unsqueeze(2)
    xi = torch.linalg.solve_triangular(here.factor, away, upper=False).squeeze(2) / apart
    return torch.stack([_times(here.factor.mT, rho), xi, _times(here.factor.mT, other_rho - rho) / apart], 1)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(2)).squeeze(2)
