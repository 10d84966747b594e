"""The aggregate posterior q(z) = 1/N sum_n q(z | x_n), where every q(z | x_n) is a diagonal Gaussian.

Nothing is approximated but the expectation: q(z) of N given images is a mixture of N Gaussians whose density, and
that of each dimension alone, can be written down, and draws from it cost nothing. No minibatch weighting
(Chen et al. 2018, https://arxiv.org/abs/1802.04942, appendix C) is needed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.interrupt import stoppable
from benchmarks.metrics.codes import Undefined
from benchmarks.metrics.features import Estimate, mean_and_error
from zoo.distributions.gaussians import LOG_2PI

ELEMENTS = 1 << 19  # of a block of log-densities: small enough for a processor's cache
ROUNDING = 1e-3  # of codes, in deviations, from which on densities are float64


@torch.no_grad()
def total_correlation(
    mean: Tensor, log_variance: Tensor, samples: int = 1000, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """KL(q(z) || prod_j q(z_j)) of the mixture, and the mutual information of z and the image's number; in nats.

    Means over draws z ~ q(z) of log q(z) - sum_j log q(z_j) and of log q(z | x_n) - log q(z), each with its
    standard error: unbiased for the mixture of *these* N images, which is not that of all images. The mutual
    information cannot exceed log N; where it comes near, the components do not overlap, and the total correlation
    is a statement about N as much as about the code.

    Args:
        mean, log_variance: (N, D), of q(z | x_n).
        samples: draws, at most one an image, from images spread evenly over the N.

    Raises:
        Undefined: moments that are not finite, or fewer than two images.
    """
    n, dims = mean.shape
    if n < 2:
        raise Undefined("an aggregate posterior needs at least two images")
    if not (mean.isfinite().all() and log_variance.isfinite().all()):
        raise Undefined("the posterior's moments are not finite")
    mean, log_variance = mean.cpu().double(), log_variance.cpu().double()
    chosen = torch.linspace(0, n - 1, min(samples, n)).round().long()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(chosen), dims, generator=generator, dtype=torch.float64)
    z = mean[chosen] + (0.5 * log_variance[chosen]).exp() * noise
    given = -0.5 * (LOG_2PI + log_variance[chosen] + noise.square()).sum(1)

    # (D, N) and each dimension by itself: all that is touched at once is one block of draws by images. Float32 is
    # enough for a difference and its square, unless it rounds the codes by a part of their deviation that counts; for
    # what is summed over dimensions it is not.
    middle = mean.mean(0)
    centre, spread = (mean - middle).T.contiguous(), (-0.5 * log_variance.T).exp().contiguous()
    rounding = torch.finfo(torch.float32).eps * float((centre.abs().amax(1) * spread.amax(1)).max())
    kind = torch.float32 if rounding < ROUNDING else torch.float64
    offset = (-0.5 * (LOG_2PI + log_variance.T)).to(kind).contiguous()
    centre, spread = centre.to(kind), spread.to(kind)
    joint, product = [], []
    for block in stoppable((z - middle).to(kind).split(max(1, ELEMENTS // n))):
        total = torch.zeros(len(block), n, dtype=kind)
        alone = torch.zeros(len(block), dtype=torch.float64)
        for j in range(dims):
            log_q = ((block[:, j, None] - centre[j]) * spread[j]).square_().mul_(-0.5).add_(offset[j])
            total += log_q
            alone += torch.logsumexp(log_q, 1).double() - math.log(n)
        joint.append(torch.logsumexp(total.double(), 1) - math.log(n))
        product.append(alone)
    log_q, log_product = torch.cat(joint), torch.cat(product)
    return mean_and_error(log_q - log_product), mean_and_error(given - log_q)
