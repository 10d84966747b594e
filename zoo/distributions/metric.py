"""A metric over codes whose volume is largest where there are codes of images."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.precision import full_precision


@dataclass(frozen=True)
class CodeMetric:
    """G(z), by its inverse sum_n exp(-|z - c_n|^2 / T^2) M_n + lambda I.

    Attributes:
        centroids: c (N, D).
        matrices: M (N, D, D), symmetric and positive definite.
        temperature: T, the distance over which a centroid counts.
        floor: lambda.
    """

    centroids: Tensor
    matrices: Tensor
    temperature: float
    floor: float

    @full_precision
    def at(self, z: Tensor) -> MetricAt:
        """The metric at each z (B, D)."""
        near = torch.exp(-(z.unsqueeze(1) - self.centroids).square().sum(2) / self.temperature**2)
        inverse = (near @ self.matrices.flatten(1)).view(-1, *self.matrices.shape[1:])
        return MetricAt(self, z, near, inverse + self.floor * torch.eye(z.shape[1], dtype=z.dtype, device=z.device))


@dataclass(frozen=True)
class MetricAt:
    """A `CodeMetric` at B codes. Momenta rho have the density N(rho; 0, G(z)) there, and the energy is minus its
    logarithm, less a constant: rho' G(z)^-1 rho / 2 - log det G(z)^-1 / 2. Half types are taken to float32.

    Attributes:
        z: the codes (B, D).
        near: exp(-|z - c_n|^2 / T^2), (B, N).
        inverse: of the metric, (B, D, D).
    """

    metric: CodeMetric
    z: Tensor
    near: Tensor
    inverse: Tensor

    @functools.cached_property
    def factor(self) -> Tensor:
        """C (B, D, D), triangular, with C C' the inverse of the metric; not a number where that has none."""
        factor, wrong = torch.linalg.cholesky_ex(self.inverse)  # unlike cholesky it waits for no device
        return torch.where((wrong == 0)[:, None, None], factor, torch.nan)

    @functools.cached_property
    def log_volume(self) -> Tensor:
        """(B,): the logarithm of the determinant of `factor`."""
        return self.factor.diagonal(dim1=1, dim2=2).log().sum(1)

    @full_precision
    def velocity(self, rho: Tensor) -> Tensor:
        """The gradient of the energy with respect to rho, (B, D): G(z)^-1 rho."""
        return (self.inverse @ rho.unsqueeze(2)).squeeze(2)

    @full_precision
    def pull(self, rho: Tensor) -> Tensor:
        """The gradient of the energy with respect to z, (B, D)."""
        metric = torch.cholesky_inverse(self.factor)
        apart = rho.unsqueeze(2) * rho.unsqueeze(1) - metric
        along = 0.5 * self.near * (apart.flatten(1) @ self.metric.matrices.flatten(1).T)
        toward = along.sum(1, keepdim=True) * self.z - along @ self.metric.centroids
        return -2 / self.metric.temperature**2 * toward


@full_precision
def squares(free: Tensor, size: int) -> Tensor:
    """L L' (N, D, D), of triangular L whose diagonal is positive, from free numbers (N, D (D + 1) / 2): the logarithms
    of the diagonal first."""
    log_diagonal, below = free.split([size, free.shape[1] - size], 1)
    rows, columns = torch.tril_indices(size, size, -1, device=free.device)
    each = torch.arange(len(free), device=free.device).unsqueeze(1)
    root = torch.diag_embed(log_diagonal.exp()).index_put((each, rows, columns), below)
    return root @ root.mT
