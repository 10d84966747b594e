"""How much of the class a representation holds: what a linear map, and what its neighbours, read off it.

Both learn from codes of training images and are scored on codes of others. They return one number an image, 1
where the class is right and 0 where not: the accuracy is their mean, and its standard error that of a mean over
the images scored, the fitted probe held fixed.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn

from benchmarks.metrics.codes import Undefined

C, TOLERANCE, ITERATIONS = 1.0, 1e-4, 200
NEIGHBOURS = 10

LINEAR = {"estimator": "LogisticRegression", "C": C, "tol": TOLERANCE, "max_iter": ITERATIONS, "codes": "standardised"}
NEAREST = {"k": NEIGHBOURS, "distance": "euclidean"}


def linear_probe(z_train: Any, y_train: Any, z_test: Any, y_test: Any) -> np.ndarray:
    """(M,) of 0 and 1: which test codes a multinomial logistic regression puts into their class.

    Codes are standardised by the training codes' mean and standard deviation, dimensions that are constant there
    left out; the penalty is |W|^2 / 2C beside the summed cross-entropy, the intercept free. It is fitted in float64
    whatever the codes are: in float32 the solver stops wherever the sums of this processor's BLAS round it to. Alain
    and Bengio 2016, https://arxiv.org/abs/1610.01644, for the idea.

    Args:
        z_train, z_test: (N, D) and (M, D) codes. y_train, y_test: (N,) and (M,) class numbers.

    Raises:
        Undefined: shapes that do not fit, codes that are not finite or all constant, fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression

    z_train, y_train, z_test, y_test = _checked(z_train, y_train, z_test, y_test)
    z_train, z_test = z_train.astype(np.float64), z_test.astype(np.float64)
    moves = z_train.max(0) > z_train.min(0)
    mean, spread = z_train[:, moves].mean(0), z_train[:, moves].std(0)
    probe = LogisticRegression(C=C, tol=TOLERANCE, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        # Where the iterations end is part of the identity.
        warnings.filterwarnings("ignore", message=".*failed to converge")
        probe.fit((z_train[:, moves] - mean) / spread, y_train)
    return (probe.predict((z_test[:, moves] - mean) / spread) == y_test).astype(np.float64)


def knn(z_train: Any, y_train: Any, z_test: Any, y_test: Any, k: int = NEIGHBOURS) -> np.ndarray:
    """(M,) of 0 and 1: which test codes have their class in the majority of their ``k`` nearest training codes.

    Euclidean distances between the codes as they are, because a prior gives its dimensions one scale and a
    collapsed one must not count like the others. Of classes with equally many votes the smallest number wins.

    Raises:
        Undefined: as `linear_probe`, or fewer training codes than ``k``.
    """
    from sklearn.neighbors import NearestNeighbors

    z_train, y_train, z_test, y_test = _checked(z_train, y_train, z_test, y_test)
    if len(z_train) < k:
        raise Undefined(f"{len(z_train)} training codes do not have {k} neighbours")
    near = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(z_train).kneighbors(z_test, return_distance=False)
    classes, numbers = np.unique(y_train, return_inverse=True)
    votes = np.zeros((len(z_test), len(classes)), np.int64)
    for neighbour in near.T:
        votes[np.arange(len(votes)), numbers[neighbour]] += 1
    return (classes[votes.argmax(1)] == y_test).astype(np.float64)


def linear_identity() -> dict[str, Any]:
    """The settings of `linear_probe`, and the version of the solver that decides its last digits."""
    return {**LINEAR, "sklearn": sklearn.__version__}


def _checked(z_train: Any, y_train: Any, z_test: Any, y_test: Any) -> tuple[np.ndarray, ...]:
    z_train, z_test = (np.asarray(z) for z in (z_train, z_test))
    y_train, y_test = (np.asarray(y) for y in (y_train, y_test))
    for z, y in ((z_train, y_train), (z_test, y_test)):
        if z.ndim != 2 or y.shape != (len(z),) or not z.size:
            raise Undefined(f"codes are (N, D) and classes (N,), not {z.shape} and {y.shape}")
        if not np.isfinite(z).all():
            raise Undefined("the codes are not finite")
    if z_train.shape[1] != z_test.shape[1]:
        raise Undefined(f"training codes have {z_train.shape[1]} dimensions and the others {z_test.shape[1]}")
    if len(np.unique(y_train)) < 2:
        raise Undefined("the training codes are all of one class")
    if not (z_train.max(0) > z_train.min(0)).any():
        raise Undefined("every dimension of the code is constant")
    return z_train, y_train, z_test, y_test
