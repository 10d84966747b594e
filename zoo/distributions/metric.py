"""A metric over codes whose volume is largest where there are codes of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.precision import full_precision


@dataclass(frozen=True)
class CodeMetric:
    """G(z), by its inverse sum_n exp(-|z - c_n|^2 / T^2) L_n L_n' + lambda I.

    Momenta rho have the density N(rho; 0, G(z)), and the energy -log of that, less what no z and no rho changes:
    rho' G(z)^-1 rho / 2 - log det G(z)^-1 / 2. Half types are taken to float32.

    Attributes:
        centroids: c (N, D).
        scales: L (N, D, D), triangular with a positive diagonal.
        temperature: T, the distance over which a centroid counts.
        floor: lambda.
    """

    centroids: Tensor
    scales: Tensor
    temperature: float
    floor: float

    @full_precision
    def factor(self, z: Tensor) -> Tensor:
        """C (B, D, D), triangular, with C C' the inverse of the metric at z (B, D)."""
        inverse = (self._near(z) @ self._matrices.flatten(1)).view(len(z), *self._matrices.shape[1:])
        eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        return torch.linalg.cholesky_ex(inverse + self.floor * eye).L  # unlike cholesky it waits for no device

    @full_precision
    def velocity(self, z: Tensor, rho: Tensor) -> Tensor:
        """The gradient of the energy with respect to rho, (B, D): G(z)^-1 rho."""
        shares = self._near(z).unsqueeze(2) * self._seen(rho)
        return torch.einsum("nij,bnj->bi", self.scales, shares) + self.floor * rho

    @full_precision
    def pull(self, z: Tensor, rho: Tensor) -> Tensor:
        """The gradient of the energy with respect to z, (B, D)."""
        metric = torch.cholesky_inverse(self.factor(z))
        trace = metric.flatten(1) @ self._matrices.flatten(1).T  # both are symmetric
        along = 0.5 * (self._seen(rho).square().sum(2) - trace) * self._near(z)
        return -2 / self.temperature**2 * (along.sum(1, keepdim=True) * z - along @ self.centroids)

    @property
    def _matrices(self) -> Tensor:
        return self.scales @ self.scales.mT

    def _near(self, z: Tensor) -> Tensor:
        # (B, N)
        apart = (z.unsqueeze(1) - self.centroids).square().sum(2)
        return torch.exp(-apart / self.temperature**2)

    def _seen(self, rho: Tensor) -> Tensor:
        # L' rho, (B, N, D)
        return torch.einsum("bi,nij->bnj", rho, self.scales)


@full_precision
def triangular(free: Tensor, size: int) -> Tensor:
    """(N, D, D), triangular with a positive diagonal, from free numbers (N, D (D + 1) / 2): the logarithms of the
    diagonal first."""
    log_diagonal, below = free.split([size, free.shape[1] - size], 1)
    rows, columns = torch.tril_indices(size, size, -1, device=free.device)
    made = torch.diag_embed(log_diagonal.exp())
    return made.index_put((torch.arange(len(free), device=free.device).unsqueeze(1), rows, columns), below)
