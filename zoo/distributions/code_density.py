"""A density of the codes of training images, fitted once an autoencoder is trained: a mixture of full Gaussians.

An autoencoder without a posterior has no prior to draw codes from; Ghosh et al. (2020) call what is fitted afterwards
an ex-post density estimate. The fit is scikit-learn's expectation-maximisation, which begins from k-means. It runs on
one thread, because sums that several threads share end in other bits each time.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.precision import full_precision
from zoo.settings import Frozen

SEED = 0
#: of expectation-maximisation: the gain in nats a code at which it stops, its longest run, and what is added to every
#: variance, so that a dimension which says nothing is no division by zero
TOLERANCE, ROUNDS, FLOOR = 1e-3, 2000, 1e-6


class CodeDensitySettings(Frozen):
    """Attributes:
    components: Gaussians of the mixture, each with a covariance of its own; 1 is one Gaussian.
    """

    components: int = Field(10, ge=1)


class CodeDensity(nn.Module):
    """sum_k w_k N(z; m_k, L_k L_k') over codes of D numbers. The standard normal until fitted.

    Everything is a buffer: weights (K,), means (K, D) and the triangular scales (K, D, D) are saved with the model.

    Args:
        settings: see `CodeDensitySettings`.
        latent: D.
    """

    weights: Tensor
    means: Tensor
    scales: Tensor

    def __init__(self, settings: CodeDensitySettings, latent: int) -> None:
        super().__init__()
        self.settings, self.latent = settings, latent
        k = settings.components
        self.register_buffer("weights", torch.full((k,), 1.0 / k))
        self.register_buffer("means", torch.zeros(k, latent))
        self.register_buffer("scales", torch.eye(latent).repeat(k, 1, 1))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """Take the place of codes (N, D). The same codes give the same density; no generator of torch is asked.

        Where different codes are fewer than components, the components beyond them get no weight.
        """
        from sklearn.mixture import GaussianMixture
        from threadpoolctl import threadpool_limits

        k = min(self.settings.components, len(codes.unique(dim=0)))
        mixture = GaussianMixture(k, tol=TOLERANCE, max_iter=ROUNDS, reg_covar=FLOOR, random_state=SEED)
        with threadpool_limits(limits=1):
            mixture.fit(codes.double().cpu().numpy())
        scales = torch.linalg.cholesky(torch.from_numpy(mixture.covariances_))
        self.weights.zero_()
        for buffer, found in (
            (self.weights, torch.from_numpy(mixture.weights_)),
            (self.means, torch.from_numpy(mixture.means_)),
            (self.scales, scales),
        ):
            buffer[:k].copy_(found)
        # Nobody draws from these, but they are to be as good as any other.
        self.means[k:], self.scales[k:] = self.means[0], self.scales[0]

    @full_precision
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) (N,) in nats of codes (N, D)."""
        apart = (z.unsqueeze(1) - self.means).permute(1, 2, 0)  # (K, D, N)
        units = torch.linalg.solve_triangular(self.scales, apart, upper=False)
        log_volumes = self.scales.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = self.weights.log() - log_volumes - 0.5 * self.latent * math.log(2 * math.pi)
        return torch.logsumexp(constant.unsqueeze(1) - 0.5 * units.square().sum(1), 0)

    @full_precision
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """n codes (n, D); ``temperature`` scales the deviations of every component, not its mean."""
        k = noise.component(self.weights, n)
        drawn = noise.normal(self.means[k]).unsqueeze(2)
        return self.means[k] + temperature * (self.scales[k] @ drawn).squeeze(2)
