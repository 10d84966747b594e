"""How well groups of images that were made without their classes agree with these: accuracy, information, pairs.

The groups are those of k-means over codes, or those that a model makes itself. Accuracy is over the best one-to-one
matching of groups to classes, so that it needs no group of a class to be known and cannot gain from more groups.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import sklearn

from benchmarks.metrics.codes import Undefined

RESTARTS, ITERATIONS, TOLERANCE = 30, 300, 1e-4


class Agreement(NamedTuple):
    """``right`` (N,) of 0 and 1: which images are in the group that is matched to their class. ``nmi``: the mutual
    information of group and class over the arithmetic mean of their entropies, 0 to 1. ``ari``: the adjusted Rand
    index, the share of pairs on which both agree, scaled so that chance is 0 and the same partition 1 (Hubert and
    Arabie 1985, https://doi.org/10.1007/BF01908075)."""

    right: np.ndarray
    nmi: float
    ari: float


def k_means(z: Any, k: int, seed: int = 0) -> np.ndarray:
    """(N,) numbers below ``k``: the clusters of codes (N, D), by Lloyd's algorithm from `RESTARTS` beginnings of
    k-means++, of which the one that ends with the least squared distance is kept.

    Euclidean distances between the codes as they are, because a prior gives its dimensions one scale and a collapsed
    one must not count like the others. It runs in float64 on one thread, because sums that several threads share end in
    other bits each time.

    Raises:
        Undefined: codes that are not (N, D) or not finite, or of which there are fewer different ones than clusters.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    z = np.asarray(z, np.float64)
    if z.ndim != 2 or not z.size:
        raise Undefined(f"codes are (N, D), not {z.shape}")
    if not np.isfinite(z).all():
        raise Undefined("the codes are not finite")
    if not (z.max(0) > z.min(0)).any():
        raise Undefined("every dimension of the code is constant")
    if (different := len(np.unique(z, axis=0))) < k:
        raise Undefined(f"{different} different codes do not make {k} clusters")
    means = KMeans(k, n_init=RESTARTS, max_iter=ITERATIONS, tol=TOLERANCE, random_state=seed % 2**32)
    with threadpool_limits(limits=1):
        return means.fit_predict(z)


def agreement(groups: Any, classes: Any) -> Agreement:
    """How (N,) groups agree with (N,) classes, both any numbers: which number a group has changes nothing.

    Raises:
        Undefined: shapes that do not fit, or fewer than two classes.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    groups, classes = np.asarray(groups), np.asarray(classes)
    if groups.ndim != 1 or groups.shape != classes.shape:
        raise Undefined(f"groups and classes are (N,) both, not {groups.shape} and {classes.shape}")
    kinds, number = np.unique(classes, return_inverse=True)
    if len(kinds) < 2:
        raise Undefined("the codes are all of one class")
    names, group = np.unique(groups, return_inverse=True)
    matched = np.full(len(names), -1)  # of a group that is left over: no class
    rows, columns = linear_sum_assignment(contingency_matrix(group, number), maximize=True)
    matched[rows] = columns
    right = (matched[group] == number).astype(np.float64)
    nmi = normalized_mutual_info_score(number, group, average_method="arithmetic")
    return Agreement(right, float(nmi), float(adjusted_rand_score(number, group)))


def k_means_identity() -> dict[str, Any]:
    """The settings of `k_means`, and the version of the library that decides its last digits."""
    return {
        "estimator": "KMeans", "restarts": RESTARTS, "max_iter": ITERATIONS, "tol": TOLERANCE,
        "codes": "not standardised", "sklearn": sklearn.__version__,
    }  # fmt: skip
