"""DCI: disentanglement, completeness, informativeness from the importances of boosted trees.

Source: Eastwood & Williams 2018 (openreview.net/forum?id=By-7dz-AZ), with the estimator of Locatello et al.
2019. The level of the score depends on the estimator and on the sample size, so both are part of the metric's
name and identity:

- ``dci@sklearn-gbt``: scikit-learn's `GradientBoostingClassifier` with its defaults, as the reference has it.
  Minutes.
- ``dci@hist-gbt``: `HistGradientBoostingClassifier` grown to the same depth and number of stages, its split
  gains summed by latent and normalised for each factor. Seconds; measured differences are in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from benchmarks.interrupt import stoppable
from benchmarks.metrics.codes import Codes, Undefined
from zoo.errors import ZooError

STAGES = 100
DEPTH = 3
LEARNING_RATE = 0.1
FLOOR = 1e-11  # added to importances before their entropy is taken
SEED = 0

Predict = Callable[[np.ndarray], np.ndarray]  # codes (N, D) -> classes (N,)
Fit = Callable[[np.ndarray, np.ndarray, int], tuple[Predict, np.ndarray]]


def disentanglement(importance: np.ndarray) -> float:
    """1 - entropy (base F) of the rows of ``importance`` (D, F), averaged with their mass as weight.

    Raises:
        Undefined: one factor only.
    """
    return _concentration(importance, "disentanglement", "factor")


def completeness(importance: np.ndarray) -> float:
    """1 - entropy (base D) of the columns of ``importance`` (D, F), averaged with their mass as weight.

    Raises:
        Undefined: one latent only.
    """
    return _concentration(importance.T, "completeness", "latent")


def _concentration(rows: np.ndarray, name: str, of: str) -> float:
    if rows.shape[1] < 2:
        raise Undefined(f"{name} compares {of}s and there is one")
    rows = np.abs(rows)
    if not rows.any():
        raise Undefined(f"{name} has no importances to compare: no latent tells anything of any factor")
    shares = rows + FLOOR
    shares /= shares.sum(axis=1, keepdims=True)
    entropy = -np.sum(shares * np.log(shares), axis=1) / np.log(rows.shape[1])
    return float(np.sum((1 - entropy) * rows.sum(axis=1)) / rows.sum())


def fit_sklearn_gbt(z: np.ndarray, classes: np.ndarray, seed: int) -> tuple[Predict, np.ndarray]:
    """The reference's estimator and its importances (D,), summing to one.

    The reference leaves the generator unseeded and so breaks ties between equal splits differently each time.
    """
    model = GradientBoostingClassifier(
        n_estimators=STAGES, learning_rate=LEARNING_RATE, max_depth=DEPTH, random_state=seed
    ).fit(z, classes)
    return model.predict, np.abs(model.feature_importances_)


def fit_hist_gbt(z: np.ndarray, classes: np.ndarray, seed: int) -> tuple[Predict, np.ndarray]:
    """Histogram boosting to the same depth, and its split gains summed by latent (D,), normalised to one.

    Without the normalisation the factors with most classes would drown the others: pure noise then scores D =
    .18.

    Raises:
        ZooError: this version of scikit-learn keeps its trees elsewhere (there is no public way to them).
    """
    model = HistGradientBoostingClassifier(
        max_iter=STAGES,
        learning_rate=LEARNING_RATE,
        max_depth=DEPTH,
        max_leaf_nodes=None,
        min_samples_leaf=1,
        early_stopping=False,
        random_state=seed,
    )
    with threadpool_limits(1, user_api="openmp"):  # thousands of tiny trees: threads only wait for each other
        model.fit(z, classes)
    try:
        trees = Trees([[tree.nodes for tree in stage] for stage in model._predictors], model._baseline_prediction)
        gain = trees.gain(z.shape[1])
    except (AttributeError, ValueError, IndexError, KeyError, TypeError) as problem:
        raise ZooError(
            "dci@hist-gbt reads the trees of HistGradientBoostingClassifier and this version of scikit-learn"
            f" keeps them elsewhere ({problem}): use dci@sklearn-gbt or the version in constraints.txt"
        ) from problem
    return trees.predict, gain / gain.sum() if gain.any() else gain


class Trees:
    """The fitted trees, read once for their gains and evaluated by whole columns.

    ``stages[i][k]`` are the nodes of stage i's tree for class k, ``baseline`` (1, K) the score before any
    tree.
    """

    def __init__(self, stages: list[list[np.ndarray]], baseline: np.ndarray) -> None:
        self.stages = stages
        self.baseline = np.reshape(baseline, (1, len(stages[0]))).astype(np.float64)

    def gain(self, latents: int) -> np.ndarray:
        """(D,) summed gain of all splits on each latent."""
        nodes = np.concatenate([tree for stage in self.stages for tree in stage])
        splits = nodes[nodes["is_leaf"] == 0]
        return np.bincount(splits["feature_idx"], weights=splits["gain"], minlength=latents)

    def predict(self, z: np.ndarray) -> np.ndarray:
        """Classes (N,) of codes (N, D), equal to the model's own `predict` in a third of its time.

        The splits share a few thousand thresholds, so each comparison with a column is made once, and a tree
        is a handful of byte operations on all rows.
        """
        names = self.stages[0][0].dtype.names
        fields = itemgetter(
            *(names.index(name) for name in ("is_leaf", "value", "feature_idx", "num_threshold", "left", "right"))
        )
        columns = np.ascontiguousarray(z.T, dtype=np.float64)
        everywhere = np.ones(len(z), dtype=np.uint8)
        goes_left: dict[tuple[int, float], np.ndarray] = {}
        score = np.repeat(self.baseline.T, len(z), axis=1)
        for stage in self.stages:
            for k, nodes in enumerate(stage):
                records, values = nodes.tolist(), []
                leaf = np.zeros(len(z), dtype=np.uint8)
                pending = [(0, everywhere)]
                for number, here in pending:
                    is_leaf, value, latent, threshold, left, right = fields(records[number])
                    if is_leaf:
                        if values:
                            leaf += here * np.uint8(len(values))
                        values.append(value)
                        continue
                    if (latent, threshold) not in goes_left:
                        goes_left[latent, threshold] = (columns[latent] <= threshold).view(np.uint8)
                    going = here & goes_left[latent, threshold]
                    pending += [(left, going), (right, here ^ going)]
                score[k] += np.array(values)[leaf]
        return (score[0] > 0).astype(np.int64) if len(score) == 1 else score.argmax(axis=0)


@dataclass(frozen=True)
class Fitted:
    """``importance`` (D, F) of each latent for each factor, and the classes that were predicted of both samples,
    ``train`` (N, F) and ``test`` (M, F)."""

    importance: np.ndarray
    train: np.ndarray
    test: np.ndarray


def fitted(codes: Codes, fit: Fit) -> Fitted:
    """What the estimator makes of these codes, a model for each factor; fitted once, whoever asks."""
    if fit not in codes.fitted:
        importance, train, test = [], [], []
        for classes in stoppable(codes.classes_train.T):
            predict, gained = fit(codes.z_train, classes, SEED)
            importance.append(gained)
            train.append(predict(codes.z_train))
            test.append(predict(codes.z_test))
        codes.fitted[fit] = Fitted(*(np.stack(columns, axis=1) for columns in (importance, train, test)))
    return codes.fitted[fit]


def dci(codes: Codes, fit: Fit) -> tuple[dict[str, float], np.ndarray]:
    """The four scores, and the importances (D, F) that they come from.

    Informativeness is the mean over factors of the *accuracy*, not of the error.
    """
    found = fitted(codes, fit)
    scores = {
        "informativeness_train": float(np.mean(np.mean(found.train == codes.classes_train, axis=0))),
        "informativeness_test": float(np.mean(np.mean(found.test == codes.classes_test, axis=0))),
        "disentanglement": disentanglement(found.importance),
        "completeness": completeness(found.importance),
    }
    return scores, found.importance


def dci_sklearn_gbt(codes: Codes) -> dict[str, float]:
    """DCI as the reference has it; the names are the reference's."""
    return dci(codes, fit_sklearn_gbt)[0]


def dci_hist_gbt(codes: Codes) -> dict[str, float]:
    """The fast DCI; every name ends in ``@hist-gbt`` so that it cannot be taken for the reference's."""
    return {f"{name}@hist-gbt": value for name, value in dci(codes, fit_hist_gbt)[0].items()}
