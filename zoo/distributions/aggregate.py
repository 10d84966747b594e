"""q(z), the mean of q(z | x) over the data, estimated from one batch: minibatch weighted and stratified sampling.

Chen, Li, Grosse and Duvenaud, Isolating Sources of Disentanglement in Variational Autoencoders, NeurIPS 2018,
https://arxiv.org/abs/1802.04942, appendix C. ``mws`` divides each density by N, so that its log q(z) is too small by
log N, and a total correlation of D dimensions too large by (D - 1) log N: we take log N out, which changes no gradient.
``mss`` is unbiased for q(z) itself. The paper gives one of the batch's other examples the weight that the rest of the
data has; here all of them share it evenly, which has the same expectation and less variance, and is exact where the
batch is the data. (The matrix of public code puts 1/N into a column instead of the diagonal.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.distributions.gaussians import DiagonalGaussian, log_normal
from zoo.precision import full_precision

Estimator = Literal["mss", "mws"]


@dataclass
class Aggregate:
    """At a draw of each example: log q(z) (B,), and log q(z_d) of every dimension (B, D), in nats."""

    joint: Tensor
    marginals: Tensor

    @property
    def total_correlation(self) -> Tensor:
        """(B,) nats, one draw's log q(z) - sum_d log q(z_d); its mean is the total correlation."""
        return self.joint - self.marginals.sum(1)


@full_precision
def aggregate(z: Tensor, q: DiagonalGaussian, examples: int, estimator: Estimator = "mss") -> Aggregate:
    """q(z) at z (B, D), where row b of z was drawn from row b of q.

    Args:
        examples: N, how many there are in the data; at least B.
    """
    log_densities = log_normal(z.unsqueeze(1), q.mean.unsqueeze(0), q.log_variance.unsqueeze(0))
    # Made where they are used: a copy from the host would wait for the device, and no graph could hold it.
    weights = log_weights(len(z), max(examples, len(z)), estimator, z.device).to(log_densities)
    joint = torch.logsumexp(log_densities.sum(2) + weights, 1)
    return Aggregate(joint, torch.logsumexp(log_densities + weights.unsqueeze(2), 1))


def log_weights(
    batch: int, examples: int, estimator: Estimator, device: torch.device | str | None = None
) -> Tensor:
    """(B, B) log-weights of q(. | x_j) in the estimate of q at the draw of example i; each row's weights sum to one."""
    if estimator == "mws" or batch == 1:
        return torch.full((batch, batch), -math.log(batch), device=device)
    other = math.log((examples - 1) / (examples * (batch - 1)))
    others = torch.full((batch, batch), other, dtype=torch.float64, device=device)
    return others.fill_diagonal_(-math.log(examples))
