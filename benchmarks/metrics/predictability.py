"""SAP and explicitness: how well a linear classifier reads factors off one latent, or off all of them."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from benchmarks.interrupt import stoppable
from benchmarks.metrics.codes import Codes, Undefined
from zoo.processor import cores

SVC_C = 0.01
LEAST_VARIANCE = 1e-12


def threads() -> int:
    """Threads to use: OMP_NUM_THREADS where it is set, else the cores this process may run on."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) else cores()


def _gap(matrix: np.ndarray, name: str) -> float:
    """Mean over factors (columns) of the best entry minus the second best."""
    if len(matrix) < 2:
        raise Undefined(f"{name} compares the best two latents and these codes have one")
    ordered = np.sort(matrix, axis=0)
    return float(np.mean(ordered[-1] - ordered[-2]))


def sap_discrete_matrix(codes: Codes) -> np.ndarray:
    """(D, F) test accuracy of a linear SVM (C 0.01, balanced classes) that sees one latent.

    One fit per entry, in threads: liblinear releases the lock and its primal solver draws no random numbers,
    so the result is that of scikit-learn's `LinearSVC` one after the other.
    """
    z_train, z_test = codes.z_train.astype(np.float64), codes.z_test.astype(np.float64)
    latents, factors = z_train.shape[1], codes.factors_train.shape[1]
    weights = []
    for column in codes.classes_train.T:
        counts = np.bincount(column)
        weights.append(dict(enumerate(len(column) / (len(counts) * counts))))  # class_weight="balanced", counted once
    train = codes.classes_train.astype(np.int16)

    def accuracy(entry: tuple[int, int]) -> float:
        d, k = entry
        svm = LinearSVC(C=SVC_C, class_weight=weights[k], dual=False)
        with config_context(assume_finite=True, skip_parameter_validation=True):  # checked once, in Codes
            svm.fit(z_train[:, d : d + 1], train[:, k])
        scores = z_test[:, d : d + 1] * svm.coef_[:, 0] + svm.intercept_
        predicted = (scores[:, 0] > 0).astype(np.int64) if scores.shape[1] == 1 else scores.argmax(axis=1)
        return float(np.mean(svm.classes_[predicted] == codes.classes_test[:, k]))

    entries = [(d, k) for k in range(factors) for d in range(latents)]
    with ThreadPoolExecutor(threads()) as pool:
        return np.array(list(pool.map(accuracy, entries))).reshape(factors, latents).T


def sap_continuous_matrix(z: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """(D, F) squared correlation of each latent with each factor; 0 where a latent's variance is <= 1e-12."""
    z = z.astype(np.float64)
    z -= z.mean(axis=0)
    values = factors.astype(np.float64)
    values -= values.mean(axis=0)
    n = len(z) - 1
    variance, covariance = (z * z).sum(axis=0) / n, z.T @ values / n
    alive = variance > LEAST_VARIANCE
    safe = np.where(alive, variance, 1.0)[:, None]
    return np.where(alive[:, None], covariance**2 / (safe * ((values * values).sum(axis=0) / n)), 0.0)


def sap_discrete(codes: Codes) -> dict[str, float]:
    """SAP with classes: best minus second best latent's test accuracy, mean over factors.

    Source: Kumar et al. 2018 (arXiv:1711.00848), settings of Locatello et al. 2019. A perfect dSprites code
    scores .24: a one-dimensional one-against-rest SVM cannot single out a middle class.
    """
    return {"sap_discrete": _gap(sap_discrete_matrix(codes), "sap_discrete")}


def sap_continuous(codes: Codes) -> dict[str, float]:
    """SAP with values: the same gap of squared correlations, on the training sample."""
    return {"sap_continuous": _gap(sap_continuous_matrix(codes.z_train, codes.factors_train), "sap_continuous")}


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve of ``scores`` (N,): P(positive > negative) + P(they tie) / 2."""
    negatives = np.sort(scores[~positive])
    wins = np.searchsorted(negatives, scores[positive], side="left").sum()
    ties_too = np.searchsorted(negatives, scores[positive], side="right").sum()
    return float((wins + ties_too) / (2 * len(negatives) * positive.sum()))


def explicitness(codes: Codes) -> dict[str, float]:
    """Explicitness: macro one-against-rest ROC area of a logistic regression on all (standardised) latents.

    Source: Ridgeway & Mozer 2018 (arXiv:1802.05312). scikit-learn's defaults, spelt out: lbfgs, multinomial,
    C 1, tolerance 1e-4, 100 steps; with the solver of scikit-learn 0.21 (liblinear, one against rest) it is
    up to .055 away. It is fitted in float64 whatever the codes are: in float32 the solver stops wherever the
    sums of this processor's BLAS round it to, up to 1e-5 apart.

    Raises:
        Undefined: a constant latent cannot be standardised; a class is missing in the test sample.
    """
    z_train, z_test = codes.z_train.astype(np.float64), codes.z_test.astype(np.float64)
    deviation = z_train.std(axis=0)
    if codes.constant_latents or not deviation.all():
        constant = (codes.constant_latents or list(np.flatnonzero(deviation == 0)))[0]
        raise Undefined(f"explicitness standardises each latent and latent {constant} is constant")
    mean = z_train.mean(axis=0)
    # Column-major as in the reference: it decides how the solver's sums round.
    train, test = (np.asfortranarray((z - mean) / deviation) for z in (z_train, z_test))
    sides = {"train": [], "test": []}
    for k, name in enumerate(stoppable(codes.factor_names)):
        labels = {"train": codes.classes_train[:, k], "test": codes.classes_test[:, k]}
        classes = int(labels["train"].max()) + 1
        missing = np.setdiff1d(np.arange(classes), labels["test"])
        if len(missing):
            raise Undefined(
                f"explicitness needs every class in the test sample and it lacks {len(missing)} of {classes}"
                f" of factor '{name}'"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred steps are part of the definition
            model = LogisticRegression(C=1.0, tol=1e-4, solver="lbfgs", max_iter=100)
            model.fit(train, labels["train"])
        for side, z in (("train", train), ("test", test)):
            columns = np.ascontiguousarray(model.predict_proba(z).T)
            areas = [area_under_curve(column, labels[side] == c) for c, column in enumerate(columns)]
            sides[side].append(np.mean(areas))
    return {f"explicitness_{side}": float(np.mean(areas)) for side, areas in sides.items()}
