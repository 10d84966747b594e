"""`python -m benchmarks.performance.metrics`: our metrics beside the reference's algorithms, in one run.

The baseline is the reference (Locatello et al. 2019, arXiv:1811.12359) as its definitions read: one
scikit-learn call a pair, one draw a batch, one look-up a batch. Both sides see the same codes, take turns,
and must agree.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import click
import numpy as np
from scipy.linalg import sqrtm
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.svm import LinearSVC
from tqdm import tqdm

from benchmarks.metrics import disentanglement
from benchmarks.metrics.codes import Codes, FactorSpace

FULL, QUICK = (3, 6, 40, 32, 32), (3, 3, 4, 3, 3)
NAMES = ("shape", "scale", "orientation", "pos_x", "pos_y")
SLOW = 5.0  # a metric whose baseline takes longer than this (seconds) is timed once, others seven times
REPEATS = 7


def entangled_space(sizes: tuple[int, ...], seed: int = 0) -> FactorSpace:
    """Ten codes of five factors, entangled as a VAE's: rotated positions, a circle, weak copies, noise."""
    grid = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
    u = (grid - (np.array(sizes) - 1) / 2) / np.sqrt((np.array(sizes) ** 2 - 1) / 12)
    z = np.random.RandomState(seed).standard_normal((len(grid), 10))
    turn, angle = np.deg2rad(40), 2 * np.pi * grid[:, 2] / sizes[2]
    z[:, 0] = np.cos(turn) * u[:, 3] + np.sin(turn) * u[:, 4] + 0.3 * z[:, 0]
    z[:, 1] = np.cos(turn) * u[:, 4] - np.sin(turn) * u[:, 3] + 0.3 * z[:, 1]
    z[:, 2] = 0.8 * u[:, 1] + 0.4 * u[:, 0] + 0.4 * z[:, 2]
    z[:, 3] = np.sqrt(2) * np.cos(angle) + 0.5 * z[:, 3]
    z[:, 4] = np.sqrt(2) * np.sin(angle) + 0.5 * z[:, 4]
    z[:, 5] = 0.5 * u[:, 0] + np.sqrt(0.75) * z[:, 5]
    z[:, 6] = 0.5 * u[:, 1] + np.sqrt(0.75) * z[:, 6]
    return FactorSpace(sizes, NAMES, lambda factors: factors, table=z.astype(np.float32))


class Reference:
    """The reference's algorithms on a sample of codes and on the space; methods are named like our scores."""

    def __init__(self, codes: Codes, space: FactorSpace, train: int, evaluation: int) -> None:
        self.codes, self.space, self.train, self.evaluation = codes, space, train, evaluation
        self.z, self.y = codes.z_train, codes.factors_train
        self.z_test, self.y_test = codes.z_test, codes.factors_test
        self.latents, self.factors = self.z.shape[1], self.y.shape[1]

    @staticmethod
    def histogram(values: np.ndarray, bins: int = 20) -> np.ndarray:
        binned = [np.digitize(column, np.histogram(column, bins)[1][:-1]) for column in values.T]
        return np.stack(binned, axis=1)

    def information(self) -> np.ndarray:
        binned, matrix = self.histogram(self.z), np.zeros((self.latents, self.factors))
        for d in range(self.latents):
            for k in range(self.factors):
                matrix[d, k] = mutual_info_score(self.y[:, k], binned[:, d])
        return matrix

    def mig(self) -> float:
        matrix = np.sort(self.information(), axis=0)[::-1]
        entropy = np.array([mutual_info_score(column, column) for column in self.y.T])
        return float(np.mean((matrix[0] - matrix[1]) / entropy))

    def modularity(self) -> float:
        squares = self.information() ** 2
        best = squares.max(axis=1)
        return float(np.mean(1 - (squares.sum(axis=1) - best) / (best * (self.factors - 1))))

    def sap_discrete(self) -> float:
        matrix = np.zeros((self.latents, self.factors))
        for d in range(self.latents):
            for k in range(self.factors):
                svm = LinearSVC(C=0.01, class_weight="balanced").fit(self.z[:, d : d + 1], self.y[:, k])
                matrix[d, k] = np.mean(svm.predict(self.z_test[:, d : d + 1]) == self.y_test[:, k])
        matrix.sort(axis=0)
        return float(np.mean(matrix[-1] - matrix[-2]))

    def sap_continuous(self) -> float:
        matrix = np.zeros((self.latents, self.factors))
        for d in range(self.latents):
            for k in range(self.factors):
                covariance = np.cov(self.z[:, d], self.y[:, k], ddof=1)
                if covariance[0, 0] > 1e-12:
                    matrix[d, k] = covariance[0, 1] ** 2 / (covariance[0, 0] * covariance[1, 1])
        matrix.sort(axis=0)
        return float(np.mean(matrix[-1] - matrix[-2]))

    def explicitness_test(self) -> float:
        z, z_test = self.z.astype(np.float64), self.z_test.astype(np.float64)  # in float32: one machine's number
        mean, deviation, areas = z.mean(axis=0), z.std(axis=0), {"train": [], "test": []}
        train, test = (z - mean) / deviation, (z_test - mean) / deviation
        for k in range(self.factors):
            model = LogisticRegression().fit(train, self.y[:, k])
            binarizer = MultiLabelBinarizer().fit(self.y[:, k : k + 1])
            for side, z, y in (("train", train, self.y), ("test", test, self.y_test)):
                truth = binarizer.transform(y[:, k : k + 1])
                areas[side].append(roc_auc_score(truth, model.predict_proba(z)))
        return float(np.mean(areas["test"]))

    def irs(self) -> float:
        binned, spread = self.histogram(self.y), np.zeros((self.latents, self.factors))
        largest = np.abs(self.z - self.z.mean(axis=0)).max(axis=0)
        for k in range(self.factors):
            values = np.unique(binned[:, k])
            for value in values:
                group = self.z[binned[:, k] == value]
                spread[:, k] += np.percentile(np.abs(group - group.mean(axis=0)), 99, axis=0) / len(values)
        return float(np.average((1 - spread / largest[:, None]).max(axis=1), weights=largest))

    def gaussian_total_correlation(self) -> float:
        covariance = np.cov(self.z.T)
        return float(0.5 * (np.sum(np.log(np.diag(covariance))) - np.linalg.slogdet(covariance)[1]))

    def gaussian_wasserstein_correlation(self) -> float:
        covariance = np.cov(self.z.T)
        root = sqrtm(covariance * np.diag(covariance)[:, None])
        return float(2 * np.trace(covariance) - 2 * np.trace(root).real)

    def mutual_info_score(self) -> float:
        binned, matrix = self.histogram(self.z), np.zeros((self.latents, self.latents))
        for i in range(self.latents):
            for j in range(self.latents):
                matrix[i, j] = mutual_info_score(binned[:, i], binned[:, j])
        return float((matrix.sum() - np.trace(matrix)) / (self.latents * (self.latents - 1)))

    def disentanglement(self) -> float:
        importance, accuracy = np.zeros((self.latents, self.factors)), []
        for k in range(self.factors):
            model = GradientBoostingClassifier().fit(self.z, self.y[:, k])
            importance[:, k] = np.abs(model.feature_importances_)
            accuracy.append((np.mean(model.predict(self.z) == self.y[:, k]),
                             np.mean(model.predict(self.z_test) == self.y_test[:, k])))  # fmt: skip
        shares = (importance.T + 1e-11) / (importance.T + 1e-11).sum(axis=0)
        scores = 1 + np.sum(shares * np.log(shares), axis=0) / np.log(self.factors)
        return float(np.sum(scores * importance.sum(axis=1) / importance.sum()))

    def batch(self, random: np.random.RandomState, n: int = 64) -> np.ndarray:
        return np.stack([random.randint(size, size=n) for size in self.space.sizes], axis=1)

    def beta_vae_score(self) -> float:
        random = np.random.RandomState(0)

        def points(n: int) -> tuple[np.ndarray, np.ndarray]:
            features, labels = np.zeros((n, self.latents)), np.zeros(n, dtype=np.int64)
            for i in range(n):
                labels[i] = random.randint(self.factors)
                first, second = self.batch(random), self.batch(random)
                second[:, labels[i]] = first[:, labels[i]]
                features[i] = np.mean(np.abs(self.space.codes(first) - self.space.codes(second)), axis=0)
            return features, labels

        model = LogisticRegression().fit(*points(self.train))
        return float(model.score(*points(self.evaluation)))

    def factor_vae_score(self) -> float:
        random = np.random.RandomState(0)
        variance = np.var(self.space.codes(self.batch(random, 10_000)), axis=0, ddof=1)
        active = np.sqrt(variance) >= 0.05

        def votes(n: int) -> np.ndarray:
            counts = np.zeros((self.factors, self.latents), dtype=np.int64)
            for _ in range(n):
                k, factors = random.randint(self.factors), self.batch(random)
                factors[:, k] = factors[0, k]
                local = np.var(self.space.codes(factors), axis=0, ddof=1)
                counts[k, np.argmin(local[active] / variance[active])] += 1
            return counts

        majority, evaluated = votes(self.train).argmax(axis=0), votes(self.evaluation)
        return float(evaluated[majority, np.arange(self.latents)].sum() / evaluated.sum())


# The reference computes some scores together; so its units are what is timed. Unit -> (its scores, ours).
UNITS: dict[str, dict[str, str]] = {
    "beta_vae_score": {"beta_vae_score": "beta_vae_score"},
    "factor_vae_score": {"factor_vae_score": "factor_vae_score"},
    "mig": {"mig": "mig"},
    "dci (ours: dci@hist-gbt)": {"disentanglement": "disentanglement@hist-gbt"},
    "sap_discrete": {"sap_discrete": "sap_discrete"},
    "sap_continuous": {"sap_continuous": "sap_continuous"},
    "modularity, explicitness": {name: name for name in ("modularity", "explicitness_test")},
    "irs": {"irs": "irs"},
    "unsupervised": {
        name: name for name in ("gaussian_total_correlation", "gaussian_wasserstein_correlation", "mutual_info_score")
    },
}


@dataclass(frozen=True)
class Row:
    """One unit's two sides: CPU and wall seconds, best of its repeats, and the largest difference."""

    unit: str
    reference_cpu: float
    reference_wall: float
    ours_cpu: float
    ours_wall: float
    difference: float


def timed(call: Callable[[], list[float]]) -> tuple[float, float, list[float]]:
    """CPU-seconds, wall seconds and the values of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    values = call()
    return time.process_time() - cpu, time.perf_counter() - wall, values


def compare(quick: bool = False) -> list[Row]:
    """Times every unit on both sides, by turns; quick shrinks factors, samples and points for a test."""
    space = entangled_space(QUICK if quick else FULL)
    n_train, n_test, points, evaluation = (300, 200, 200, 100) if quick else (10_000, 5_000, 10_000, 5_000)
    codes = space.sample(n_train, n_test)
    reference = Reference(codes, space, points, evaluation)
    owner = {score: metric for metric in disentanglement.METRICS.values() for score in metric.scores}

    def theirs(scores: dict[str, str]) -> list[float]:
        return [getattr(reference, score)() for score in scores]

    def ours(scores: dict[str, str]) -> list[float]:
        fresh = Codes(codes.z_train, codes.factors_train, codes.z_test, codes.factors_test)
        of_space, of_sample = (space, 0, points, evaluation), (fresh,)
        metrics = [owner[score] for score in scores.values()]
        results = [metric.compute(*(of_space if metric.intervenes else of_sample)) for metric in metrics]
        return [result[score] for result, score in zip(results, scores.values(), strict=True)]

    rows = []
    for unit, scores in tqdm(UNITS.items(), disable=not sys.stderr.isatty(), unit="metric"):
        sides: tuple[list, list] = ([], [])
        while not sides[0] or (len(sides[0]) < REPEATS and sides[0][0][1] < SLOW):
            sides[0].append(timed(partial(theirs, scores)))
            sides[1].append(timed(partial(ours, scores)))
        best = [min(run[i] for run in side) for side in sides for i in (0, 1)]
        rows.append(Row(unit, *best, float(np.abs(np.subtract(sides[0][0][2], sides[1][0][2])).max())))
    return rows


def table(rows: list[Row]) -> str:
    """The comparison as text, with the total in the last line."""
    lines = [f"{'CPU-seconds':28}{'reference':>11}{'ours':>9}{'faster':>9}{'by wall':>9}{'difference':>12}"]
    times = [(row.reference_cpu, row.reference_wall, row.ours_cpu, row.ours_wall) for row in rows]
    named = [(row.unit, f"{row.difference:12.1e}") for row in rows] + [("total", "")]
    for (name, difference), (cpu, wall, our_cpu, our_wall) in zip(
        named, [*times, tuple(map(sum, zip(*times, strict=True)))], strict=True
    ):
        faster = f"{cpu / our_cpu:8.1f}x{wall / our_wall:8.1f}x"
        lines.append(f"{name:28}{cpu:11.3f}{our_cpu:9.3f}{faster}{difference}")
    return "\n".join(lines)


@click.command()
@click.option("--quick", is_flag=True, help="Small factors and samples: seconds, for tests.")
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON.")
def main(quick: bool, as_json: bool) -> None:
    """Time every disentanglement metric beside the reference's algorithm (six minutes, most for DCI)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a hundred steps are the reference's default, converged or not
        rows = compare(quick)
    click.echo(json.dumps([vars(row) for row in rows], indent=1) if as_json else table(rows))


if __name__ == "__main__":
    main()
