"""Unfairness: how far the prediction of one factor from a code depends on another factor, which it should not see.

Source: Locatello et al. 2019, On the Fairness of Disentangled Representations (arXiv:1905.13662), with the
predictions of the boosted trees that DCI fits, so that it is named after their estimator as DCI is. The paper sets
the sensitive factor by hand; here it is what it is in the test sample. What chance alone gives is a score beside it.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import hypergeom

from benchmarks.metrics.codes import Codes, Undefined
from benchmarks.metrics.dci import Fit, fit_hist_gbt, fit_sklearn_gbt, fitted


def total_variation(counts: np.ndarray) -> float:
    """Total variation distance between the shares of the rows in one column and in all, mean over columns.

    Args:
        counts: (Y, S) integers: how many have prediction y and sensitive value s. A column weighs what it counts.

    Returns:
        From 0, where the two are independent, to less than 1.
    """
    n = int(counts.sum())
    independent = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0)
    return float(np.abs(counts * n - independent).sum()) / (2 * n**2)


def by_chance(counts: np.ndarray) -> float:
    """The mean of `total_variation` over all ways to deal the sensitive values out anew, whatever was predicted.

    Each count is then hypergeometric, and its mean absolute deviation has a closed form, as de Moivre found for the
    binomial (Diaconis & Zabell 1991, Statistical Science 6, 284-302).

    Args:
        counts: (Y, S) as for `total_variation`.
    """
    n = int(counts.sum())
    rows, columns = counts.sum(axis=1, keepdims=True), counts.sum(axis=0)
    above = rows * columns // n + 1  # the least that is more than the mean
    deviation = 2 / n * above * (n - rows - columns + above) * hypergeom.pmf(above, n, rows, columns)
    return float(deviation.sum()) / (2 * n)


def unfairness_matrices(codes: Codes, fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """(F, F) unfairness of the prediction of factor j (row) towards factor k (column) on the test sample, and
    `by_chance` of the same; both are NaN where j is k.

    A measured factor is in the bins of the training sample; all values that it lacks count as one.

    Raises:
        Undefined: one factor only, or one that has a single value in the test sample.
    """
    factors = codes.factors_test.shape[1]
    if factors < 2:
        raise Undefined("unfairness is towards another factor and there is one")
    found, chance = np.full((2, factors, factors), np.nan)
    sensitive = [np.unique(column, return_inverse=True) for column in codes.classes_test.T]
    for (values, _), name in zip(sensitive, codes.factor_names, strict=True):
        if len(values) < 2:
            raise Undefined(f"unfairness compares the values of a factor and '{name}' has one in the test sample")
    for j, predicted in enumerate(fitted(codes, fit).test.T):
        for k, (values, which) in enumerate(sensitive):
            if j != k:
                rows = int(predicted.max()) + 1
                counts = np.bincount(predicted * len(values) + which, minlength=rows * len(values))
                table = counts.reshape(rows, len(values))
                found[j, k], chance[j, k] = total_variation(table), by_chance(table)
    return found, chance


def _scores(codes: Codes, fit: Fit, suffix: str = "") -> dict[str, float]:
    found, chance = unfairness_matrices(codes, fit)
    return {
        f"unfairness{suffix}": float(np.nanmean(found)),
        f"unfairness_worst{suffix}": float(np.nanmax(found)),
        f"unfairness_chance{suffix}": float(np.nanmean(chance)),
    }


def unfairness_sklearn_gbt(codes: Codes) -> dict[str, float]:
    """Mean over all pairs of factors, the worst pair, and the mean by chance, with the estimator of the paper."""
    return _scores(codes, fit_sklearn_gbt)


def unfairness_hist_gbt(codes: Codes) -> dict[str, float]:
    """The same with the fast trees; every name ends in ``@hist-gbt``."""
    return _scores(codes, fit_hist_gbt, "@hist-gbt")
