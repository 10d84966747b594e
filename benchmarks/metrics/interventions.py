"""The beta-VAE and the FactorVAE score: which factor was held fixed in a batch of codes?

Both set factors by hand, so they need a `FactorSpace`. All draws come from one legacy generator in the
reference's order, so a seed gives the reference's own batches; one call draws thousands of batches at a time.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.metrics.codes import FactorSpace

BATCH = 64
TRAIN, EVALUATION = 10_000, 5_000  # points (votes)
VARIANCE_SAMPLE = 10_000
PRUNE_BELOW = 0.05  # standard deviation under which FactorVAE calls a latent collapsed
CHUNK = 500  # points drawn and encoded together: 64 000 codes for beta-VAE


def _draws(space: FactorSpace, points: int, batches: int, random: np.random.RandomState) -> tuple[np.ndarray, ...]:
    """(points,) the factor to hold fixed and (points, batches, 64, F) factors, as scalar draws give them."""
    factors = len(space.sizes)
    bounds = np.concatenate([[factors], np.tile(np.repeat(space.sizes, BATCH), batches)])
    drawn = random.randint(0, bounds, size=(points, len(bounds)), dtype=np.int64)
    return drawn[:, 0], drawn[:, 1:].reshape(points, batches, factors, BATCH).swapaxes(2, 3)


def _chunks(points: int) -> list[int]:
    return [min(CHUNK, points - start) for start in range(0, points, CHUNK)]


def beta_vae_points(space: FactorSpace, points: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """(points, D) mean |z1 - z2| over 64 pairs that agree in one factor, and (points,) which one."""
    features, labels = [], []
    for count in _chunks(points):
        fixed, factors = _draws(space, count, 2, random)
        rows = np.arange(count)
        factors[rows, 1, :, fixed] = factors[rows, 0, :, fixed]
        codes = space.codes(factors)
        features.append(np.abs(codes[:, 0] - codes[:, 1]).mean(axis=1))
        labels.append(fixed)
    return np.concatenate(features), np.concatenate(labels)


def fit_beta_vae(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> dict[str, float]:
    """Accuracy on such points of scikit-learn's default logistic regression, spelt out."""
    x_train, x_test = x_train.astype(np.float64), x_test.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred steps are part of the definition
        model = LogisticRegression(C=1.0, tol=1e-4, solver="lbfgs", max_iter=100).fit(x_train, y_train)
    return {
        "beta_vae_score": float(np.mean(model.predict(x_test) == y_test)),
        "beta_vae_score_train": float(np.mean(model.predict(x_train) == y_train)),
    }


def beta_vae_score(
    space: FactorSpace, seed: int = 0, train: int = TRAIN, evaluation: int = EVALUATION
) -> dict[str, float]:
    """The beta-VAE score: accuracy of a linear classifier that names the factor two batches share.

    Source: Higgins et al. 2017 (openreview.net/forum?id=Sy2fzU9gl), settings of Locatello et al. 2019. No
    standardisation; .98 for a clearly entangled code, so it mostly tells noise from codes.
    """
    space = space.cached(wanted=2 * BATCH * (train + evaluation))
    random = np.random.RandomState(seed)
    x_train, y_train = beta_vae_points(space, train, random)
    x_test, y_test = beta_vae_points(space, evaluation, random)
    return fit_beta_vae(x_train, y_train, x_test, y_test)


def factor_vae_votes(
    space: FactorSpace,
    points: int,
    global_variance: np.ndarray,
    active: np.ndarray,
    random: np.random.RandomState,
) -> np.ndarray:
    """(F, A) votes: for each factor held fixed, how often each active latent varied least of all."""
    latents = int(active.sum())
    votes = np.zeros(len(space.sizes) * latents, dtype=np.int64)
    for count in _chunks(points):
        fixed, factors = _draws(space, count, 1, random)
        rows, factors = np.arange(count), factors[:, 0]
        factors[rows, :, fixed] = factors[rows, 0, fixed][:, None]
        variance = space.codes(factors).var(axis=1, ddof=1)
        vote = np.argmin(variance[:, active] / global_variance[active], axis=1)
        votes += np.bincount(fixed * latents + vote, minlength=len(votes))
    return votes.reshape(len(space.sizes), latents)


def factor_vae_accuracy(train_votes: np.ndarray, votes: np.ndarray) -> float:
    """Share of ``votes`` (F, A) that the majority in ``train_votes`` (latent -> factor) gets right."""
    return float(votes[train_votes.argmax(axis=0), np.arange(votes.shape[1])].sum() / votes.sum())


def active_latents(variance: np.ndarray, threshold: float = PRUNE_BELOW) -> np.ndarray:
    """(D,) bool: latents with a standard deviation of at least ``threshold``; never a constant one."""
    return (np.sqrt(variance) >= threshold) & (variance > 0)


def factor_vae_score(
    space: FactorSpace,
    seed: int = 0,
    train: int = TRAIN,
    evaluation: int = EVALUATION,
    threshold: float = PRUNE_BELOW,
) -> dict[str, float]:
    """The FactorVAE score: accuracy of a majority vote on the latent that varies least.

    Source: Kim & Mnih 2018 (arXiv:1802.05983), settings of Locatello et al. 2019. No active latent scores 0.
    ``factor_vae_active`` counts the latents left after pruning (the reference reports all of them).
    """
    space = space.cached(wanted=VARIANCE_SAMPLE + BATCH * (train + evaluation))
    random = np.random.RandomState(seed)
    sample = space.codes(space.draw(VARIANCE_SAMPLE, random, batch=VARIANCE_SAMPLE))
    variance = sample.var(axis=0, ddof=1)
    active = active_latents(variance, threshold)
    scores = {
        "factor_vae_score": 0.0,
        "factor_vae_score_train": 0.0,
        "factor_vae_active": float(active.sum()),
    }
    if active.any():
        train_votes = factor_vae_votes(space, train, variance, active, random)
        votes = factor_vae_votes(space, evaluation, variance, active, random)
        scores["factor_vae_score"] = factor_vae_accuracy(train_votes, votes)
        scores["factor_vae_score_train"] = factor_vae_accuracy(train_votes, train_votes)
    return scores
