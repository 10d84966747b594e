"""The Frechet (2-Wasserstein) distance between Gaussians fitted to two sets of features: FID when they are Inception's.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

Heusel et al. 2017 (arXiv:1706.08500); Dowson & Landau 1982 for the formula. With any factor S2 = R R' the
last trace is the sum of the square roots of the eigenvalues of R' S1 R, which is symmetric: a Cholesky
factorisation and a symmetric eigenvalue problem in float64, instead of a general matrix square root.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.metrics.features import Estimate, Features, as_pair
from zoo.errors import UsageError


def frechet(mean1: Any, covariance1: Any, mean2: Any, covariance2: Any) -> float:
    """The squared Frechet distance between N(mean1, covariance1) and N(mean2, covariance2).

    Means (D,), covariances (D, D) symmetric and positive semi-definite (a scalar is taken as D = 1); arrays
    or tensors. Raises UsageError when shapes do not fit, a covariance is not symmetric, or a number is not
    finite.
    """
    mean1, covariance1 = _as_moments(mean1, covariance1, "first")
    mean2, covariance2 = _as_moments(mean2, covariance2, "second")
    if mean1.shape != mean2.shape:
        raise UsageError(
            f"the two Gaussians have {len(mean1)} and {len(mean2)} dimensions; they must be the same."
        )
    root = square_root(covariance2)
    overlap = _roots(torch.linalg.eigvalsh(root.T @ covariance1 @ root), len(root)).sum()
    traces = covariance1.trace() + covariance2.trace()
    return max(0.0, float((mean1 - mean2).square().sum() + traces - 2 * overlap))


def frechet_from_features(fake: Any, real: Any) -> float:
    """The squared Frechet distance between Gaussians fitted to (n, D) and (m, D) features (covariances over n - 1).

    When a set has fewer samples than dimensions its covariance has no full rank, and the trace is taken from the
    smaller Gram matrix of the samples instead: the same number, sooner, and without the rounding of null directions.
    Raises UsageError for the input that `as_pair` refuses.
    """
    fake, real = as_pair(fake, real)
    dimensions = fake.shape[1]
    if len(fake) >= dimensions and len(real) >= dimensions:
        return frechet(fake.mean(0), fake.T.cov(), real.mean(0), real.T.cov())
    squares = torch.linalg.eigvalsh(_smaller_gram(_overlap(fake, real)))
    overlap = _roots(squares, _rank(fake, real)).sum()
    return max(0.0, float(_distance(fake, real, overlap)))


def frechet_estimate(fake: Any, real: Any) -> Estimate:
    """`frechet_from_features` with a standard error: how much the value would move with another draw of ``fake``.

    The standard error is the infinitesimal jackknife's (Efron 1982): the distance is differentiated with
    respect to the weight of each fake sample, and the spread of those n influences, over sqrt(n), is
    reported. ``real`` is held fixed, as it is on a board where every model meets the same reference. It is
    right when the distributions differ; when they do not, the distance is at its minimum, the first-order
    influence vanishes, and it is about 1.4 times too large. It does not contain the bias, which falls as 1/n
    and is the larger error of the two for small n.
    """
    fake, real = as_pair(fake, real)
    n, dimensions = fake.shape
    product = _overlap(fake, real)
    # With product = U s V', the derivative of sum(s) with respect to sample i's weight is sum_j U_ij^2 s_j / 2w_i.
    if n <= product.shape[1]:
        squares, left = torch.linalg.eigh(product @ product.T)
        roots = _roots(squares, _rank(fake, real))
        influence = left.square() @ roots
    else:
        squares, right = torch.linalg.eigh(product.T @ product)
        roots = _roots(squares, _rank(fake, real))
        # Directions without any variance hold only rounding noise, and dividing by their root would blow it up.
        floor = squares[-1].clamp_min(0) * torch.finfo(squares.dtype).eps * dimensions
        kept = (squares > floor) & (roots > 0)
        influence = (product @ right[:, kept]).square() @ (1 / roots[kept])
    centred = fake - fake.mean(0)
    # The covariance is over n - 1, and so n / (n - 1) times the weighted one; in `product` that is at work already.
    spread = n / (n - 1) * centred.square().sum(1)
    gradient = 2 * centred @ (fake.mean(0) - real.mean(0)) + spread - n * influence
    value = max(0.0, float(_distance(fake, real, roots.sum())))
    return Estimate(value, float(gradient.std() / n**0.5), n, small_sample_note(n, len(real), dimensions))


def small_sample_note(n: int, m: int, dimensions: int) -> str | None:
    """The caveat for a Frechet distance from fewer samples than dimensions, or None with enough."""
    if min(n, m) >= dimensions:
        return None
    return f"biased upwards: {min(n, m)} samples for {dimensions} feature dimensions"


def square_root(covariance: Tensor) -> Tensor:
    """Any (D, D) matrix R with R R' = covariance (D, D): Cholesky's, or spectral where that is singular."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()


def _overlap(fake: Features, real: Features) -> Tensor:
    """(n, min(m, D)), its singular values the roots of the eigenvalues of the product of the covariances."""
    m, dimensions = real.shape
    centred = (real - real.mean(0)) / (m - 1) ** 0.5
    root = centred.T if m < dimensions else square_root(centred.T @ centred)
    return (fake - fake.mean(0)) @ root / (len(fake) - 1) ** 0.5


def _distance(fake: Features, real: Features, overlap: Tensor) -> Tensor:
    traces = fake.var(0).sum() + real.var(0).sum()
    return (fake.mean(0) - real.mean(0)).square().sum() + traces - 2 * overlap


def _smaller_gram(matrix: Tensor) -> Tensor:
    return matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix


def _roots(eigenvalues: Tensor, rank: int) -> Tensor:
    # Ascending eigenvalues. Those beyond the rank are rounding noise of 1e-16, whose root would be a sizeable 1e-8.
    roots = eigenvalues.clamp_min(0).sqrt()
    roots[: len(roots) - rank] = 0
    return roots


def _rank(fake: Features, real: Features) -> int:
    # Centring takes one direction from each set.
    return min(len(fake) - 1, len(real) - 1, fake.shape[1])


def _as_moments(mean: Any, covariance: Any, which: str) -> tuple[Tensor, Tensor]:
    mean = torch.atleast_1d(torch.as_tensor(np.asarray(mean), dtype=torch.float64))
    covariance = torch.atleast_2d(torch.as_tensor(np.asarray(covariance), dtype=torch.float64))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        shapes = f"mean {tuple(mean.shape)} and covariance {tuple(covariance.shape)}"
        raise UsageError(f"the {which} Gaussian has {shapes}; they must be (D,) and (D, D).")
    if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
        raise UsageError(f"the {which} Gaussian has NaN or infinite numbers in its mean or covariance.")
    if not torch.allclose(covariance, covariance.T, rtol=1e-6, atol=1e-9 * float(covariance.abs().max())):
        raise UsageError(f"the covariance of the {which} Gaussian is not symmetric.")
    return mean, covariance
