"""How far codes are from independent: Gaussian total correlation, its Wasserstein twin, pairwise information.

Source: Locatello et al. 2019 (arXiv:1811.12359), section 4 on the total correlation of the mean
representation. These need no factors; a low value is necessary for disentangled codes and far from
sufficient.
"""

from __future__ import annotations

import numpy as np

from benchmarks.metrics.codes import Codes, Undefined
from benchmarks.metrics.mutual_information import contingency_information, discretise


def _covariance(codes: Codes) -> np.ndarray:
    covariance = np.atleast_2d(np.cov(codes.z_train, rowvar=False))
    # Where its mean rounds, a constant latent is left with some.
    covariance[codes.constant_latents] = covariance[:, codes.constant_latents] = 0
    return covariance


def gaussian_total_correlation(codes: Codes) -> dict[str, float]:
    """Total correlation in nats of the Gaussian with the covariance S of ``z_train``.

    (sum log diag S - log det S) / 2.

    Scale-free: a collapsed latent that copies a factor faintly counts in full.

    Raises:
        Undefined: a constant latent, latents that are exact combinations of others, or no more codes than latents
            (it is not finite).
    """
    if codes.constant_latents:
        raise Undefined(f"gaussian_total_correlation is not finite: latent {codes.constant_latents[0]} is constant")
    covariance = _covariance(codes)
    scale = np.sqrt(np.diag(covariance))
    with np.errstate(under="ignore"):
        volumes = np.outer(scale, scale)
    if not volumes.all():
        raise Undefined("gaussian_total_correlation is not finite: a variance is below the least number of float64")
    # Of a singular matrix rounding leaves a determinant that is as often positive as not: the rank tells.
    if np.linalg.matrix_rank(covariance / volumes, hermitian=True) < len(scale):
        raise Undefined("gaussian_total_correlation is not finite: the latents' covariance is singular")
    log_det = np.linalg.slogdet(covariance)[1]
    return {"gaussian_total_correlation": float(0.5 * (np.log(np.diag(covariance)).sum() - log_det))}


def gaussian_wasserstein_correlation(codes: Codes) -> dict[str, float]:
    """Squared 2-Wasserstein distance of that Gaussian to the product of its marginals; ``_norm``: over tr S.

    2 tr S - 2 tr (diag(S) S)^(1/2), the trace of the root from the eigenvalues of the symmetric matrix
    similar to diag(S) S. A constant latent adds nothing.
    """
    covariance = _covariance(codes)
    variance = np.diag(covariance)
    if not variance.any():
        raise Undefined("gaussian_wasserstein_correlation_norm is 0/0: every latent is constant")
    scale = np.sqrt(variance)
    eigenvalues = np.linalg.eigvalsh(scale[:, None] * covariance * scale)
    distance = 2 * variance.sum() - 2 * np.sqrt(eigenvalues.clip(min=0)).sum()
    return {
        "gaussian_wasserstein_correlation": float(distance),
        "gaussian_wasserstein_correlation_norm": float(distance / variance.sum()),
    }


def mutual_info_score(codes: Codes) -> dict[str, float]:
    """Mean mutual information (nats) of two different latents of ``z_train``, each in 20 equal-width bins."""
    latents = codes.z_train.shape[1]
    if latents < 2:
        raise Undefined("mutual_info_score compares latents and these codes have one")
    binned = discretise(codes.z_train).T
    pairs = [contingency_information(binned[i], binned[j]) for i in range(latents) for j in range(i)]
    return {"mutual_info_score": float(np.mean(pairs))}
