"""MIG and modularity: what single latents say about single factors, in nats, by histogram.

Both follow the procedure of Locatello et al. 2019 (arXiv:1811.12359): latents in 20 equal-width bins between
their own extremes, factors by their index.
"""

from __future__ import annotations

import numpy as np

from benchmarks.metrics.codes import Codes, Undefined

BINS = 20


def discretise(z: np.ndarray) -> np.ndarray:
    """(N, D) bin of each value between its column's extremes; edges have the precision of ``z``.

    A constant column is all in bin 0.
    """
    columns = []
    for d, column in enumerate(np.ascontiguousarray(z.T)):
        if (column == column[0]).all():  # whatever its size: next to a large one there are no edges
            columns.append(np.zeros(len(column), np.int64))
            continue
        try:
            edges = np.histogram_bin_edges(column, BINS)
        except ValueError:
            raise Undefined(f"latent {d} varies by less than {BINS} steps of {z.dtype}: it cannot be binned") from None
        columns.append(np.searchsorted(edges[1:-1], column, side="right"))
    return np.stack(columns, axis=1)


def contingency_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information in nats of two columns of non-negative integers (N,), from their joint histogram."""
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    joint = np.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns) / len(a)
    outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    seen = joint > 0
    return max(float(np.sum(joint[seen] * np.log(joint[seen] / outer[seen]))), 0.0)


def information_matrix(z: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(D, F) mutual information in nats between the binned latents ``z`` (N, D) and ``classes`` (N, F)."""
    return np.array([[contingency_information(a, b) for b in classes.T] for a in discretise(z).T])


def entropy(classes: np.ndarray) -> np.ndarray:
    """(F,) empirical entropy in nats of each column of ``classes`` (N, F)."""
    shares = [np.bincount(column)[np.unique(column)] / len(column) for column in classes.T]
    return np.array([-np.sum(p * np.log(p)) for p in shares])


def mig(codes: Codes) -> dict[str, float]:
    """Mutual information gap: best minus second best latent's share of a factor's entropy, mean over factors.

    Source: Chen et al. 2018 (arXiv:1802.04942), with means and histograms as in Locatello et al. 2019. A
    perfect code of 40-valued factors gets less than 1, because 20 bins cannot tell 40 values apart.
    """
    if codes.z_train.shape[1] < 2:
        raise Undefined("mig compares the best two latents and these codes have one")
    information = np.sort(information_matrix(codes.z_train, codes.classes_train), axis=0)
    return {"mig": float(np.mean((information[-1] - information[-2]) / entropy(codes.classes_train)))}


def modularity(codes: Codes) -> dict[str, float]:
    """Modularity: how much of a latent's squared information is about one factor, mean over latents.

    1 - (sum over the other factors) / ((F - 1) times the best factor's).

    Source: Ridgeway & Mozer 2018 (arXiv:1802.05312). A latent that says nothing of any factor counts as 0.
    """
    factors = codes.factors_train.shape[1]
    if factors < 2:
        raise Undefined("modularity compares factors and there is one")
    squares = information_matrix(codes.z_train, codes.classes_train) ** 2
    best = squares.max(axis=1)
    informative = best > 0
    others = np.where(informative, squares.sum(axis=1) - best, 0.0) / np.where(informative, best, 1.0)
    return {"modularity": float(np.mean(np.where(informative, 1 - others / (factors - 1), 0.0)))}
