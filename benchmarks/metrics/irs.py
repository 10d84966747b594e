"""IRS, the interventional robustness score: how little a latent moves when only nuisance factors change."""

from __future__ import annotations

import numpy as np

from benchmarks.metrics.codes import Codes, Undefined
from benchmarks.metrics.mutual_information import discretise

QUANTILE = 0.99


def irs_matrix(z: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D, F) robustness of each latent given each factor, and (D,) the largest deviation of each latent.

    Entry (d, k): the 99th percentile of |z_d - its mean at that value of factor k|, averaged over the values
    of the factor (20 equal-width bins) and divided by the largest |z_d - mean|; subtracted from one.
    """
    largest = np.abs(z - z.mean(axis=0)).max(axis=0)
    matrix = np.empty((z.shape[1], factors.shape[1]))
    for k, values in enumerate(discretise(factors).T):
        order = np.argsort(values, kind="stable")
        groups = np.split(z[order], np.flatnonzero(np.diff(values[order])) + 1)
        spread = [_percentile(np.abs((group - group.mean(axis=0)).T)) for group in groups]
        matrix[:, k] = 1 - np.mean(spread, axis=0, dtype=np.float64) / largest
    return matrix, largest


def _percentile(deviations: np.ndarray) -> np.ndarray:
    """The 99th percentile of each row, linearly interpolated: only two order statistics are needed."""
    place = (deviations.shape[1] - 1) * QUANTILE
    low = int(place)
    high = min(low + 1, deviations.shape[1] - 1)
    ordered = np.partition(deviations, (low, high), axis=1)
    return ordered[:, low] + (ordered[:, high] - ordered[:, low]) * (place - low)


def irs(codes: Codes) -> dict[str, float]:
    """IRS: mean of the latents' best entries, weighted by largest deviation; constant latents left out.

    Source: Suter et al. 2019 (arXiv:1811.00007), settings of the reference. Pure noise scores about .37, so
    compare only with scores of the same sample size. It needs no interventions: it conditions on the factors
    of a sample.
    """
    # Not by their variance: where the mean rounds, that of a constant latent is not 0.
    active = codes.z_train[:, ~np.isin(np.arange(codes.z_train.shape[1]), codes.constant_latents)]
    if not active.shape[1]:
        raise Undefined("irs has nothing to score: every latent is constant")
    matrix, largest = irs_matrix(active, codes.factors_train.astype(np.float64, copy=False))
    return {"irs": float(np.average(matrix.max(axis=1), weights=largest))}
