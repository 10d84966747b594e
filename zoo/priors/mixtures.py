"""Mixtures of Gaussians: free ones, or the posteriors of pseudo-inputs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import noise
from zoo.distributions.gaussians import LOG_2PI, DiagonalGaussian
from zoo.errors import UsageError
from zoo.nets.pseudo_inputs import free_inputs, images_of, start_at
from zoo.precision import full, full_precision
from zoo.priors.base import Prior, PriorSettings, computed


class _Mixture(Prior):
    """A weighted sum of diagonal Gaussians; which ones is left to `components`."""

    def components(self) -> tuple[DiagonalGaussian, Tensor]:
        """The Gaussians, their moments (K, D), and the log-weights (K,)."""
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """log sum_k w_k N(z; m_k, v_k)."""
        return self.density()(z)

    def density(self) -> Callable[[Tensor], Tensor]:
        known = computed.get()
        known = {} if known is None else known
        if self not in known:
            gaussians, log_weights = self.components()
            known[self] = _factors(gaussians.mean, gaussians.log_variance, log_weights)
        factors, constant = known[self]
        return lambda z: _log_mixture(z, factors, constant)

    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        gaussians, log_weights = self.components()
        k = noise.component(log_weights.exp(), n)
        return DiagonalGaussian(gaussians.mean[k], gaussians.log_variance[k]).sample(temperature)


# Log-densities (rows * components) held at once.
_HELD = 1 << 22


@full_precision
def _factors(mean: Tensor, log_variance: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    # The squares expanded, so that one matrix product does them. In float32 they would cancel where components are
    # narrow; in float64 a component of the smallest variance there is, exp(-20), keeps its density to 1e-5.
    precision = torch.exp(-log_variance.double())
    mean = mean.double()
    factors = torch.cat([-0.5 * precision, mean * precision], 1).T
    return factors, -0.5 * (mean.square() * precision + log_variance + LOG_2PI).sum(1) + log_weights


@full_precision
def _log_mixture(z: Tensor, factors: Tensor, constant: Tensor) -> Tensor:
    logs = []
    for piece in z.reshape(-1, z.shape[-1]).split(max(1, _HELD // len(constant))):
        rows = piece.double()
        terms = torch.addmm(constant, torch.cat([rows.square(), rows], 1), factors)
        logs.append(terms.to(z.dtype).logsumexp(-1))
    return torch.cat(logs).view(z.shape[:-1])


class MixturePrior(_Mixture):
    """Gaussians with learned weights, means and variances; the means begin as standard normal draws."""

    name = "mixture"

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__(settings, latent)
        self.logits = nn.Parameter(torch.zeros(settings.components))
        self.means = nn.Parameter(torch.randn(settings.components, latent))
        self.log_variances = nn.Parameter(torch.zeros(settings.components, latent))

    def components(self) -> tuple[DiagonalGaussian, Tensor]:
        return DiagonalGaussian(self.means, self.log_variances), F.log_softmax(full(self.logits), dim=0)


class VampPrior(_Mixture):
    """The average of q(z | u_k) over K learned pseudo-inputs u_k (Tomczak & Welling 2018, arXiv 1705.07120), which are
    ``confined`` where the data lies in [0, 1] (`zoo.nets.pseudo_inputs`).

    ``encode`` is the model's own encoder, and the gradient of the prior reaches it. It is called, never
    owned: give a bound method (or the module), not a closure, so that a copied model's prior follows the
    copied encoder. It sees the pseudo-inputs as one batch; batch normalisation would mix their statistics
    with the data's.
    """

    name = "vamp"

    def __init__(
        self,
        settings: PriorSettings,
        latent: int,
        encode: Callable[[Tensor], DiagonalGaussian],
        shape: tuple[int, ...],
        confined: bool = True,
    ) -> None:
        super().__init__(settings, latent)
        self.confined = confined
        # A tuple hides a module from registration: its parameters belong to the model.
        self._encode = (encode,)
        self.free_inputs = free_inputs(settings.components, shape)

    def pseudo_inputs(self) -> Tensor:
        """The images (K, C, H, W) whose posteriors are the components."""
        return images_of(self.free_inputs, self.confined)

    def initialise(self, x: Tensor, spread: float = 0.02) -> None:
        """Set the pseudo-inputs to random rows of x (N, C, H, W), plus a little noise."""
        start_at(self.free_inputs, x, self.confined, spread)

    def components(self) -> tuple[DiagonalGaussian, Tensor]:
        q = self._encode[0](self.pseudo_inputs())
        if not isinstance(q, DiagonalGaussian):
            raise UsageError("the vamp prior needs a diagonal posterior: a flow has no density at a given z.")
        k = len(self.free_inputs)
        return q, torch.full((k,), -math.log(k), dtype=q.mean.dtype, device=q.mean.device)
