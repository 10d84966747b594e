"""UDR, the unsupervised disentanglement ranking: how nearly each code of a model is one code of another model.

The other models have the same settings and another seed, and do not share what was chance in training. No factor is
needed. Source: Duan et al. 2020 (arXiv:1905.12614); docs/metrics.md says where the paper and the code of its authors
(the reference, in disentanglement_lib) differ, and which is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import Lasso
from threadpoolctl import threadpool_limits

from benchmarks.interrupt import stoppable
from benchmarks.metrics.codes import Undefined, as_matrix
from zoo.errors import UsageError

ALPHA = 0.1  # of the Lasso, on standardised codes
INFORMATIVE = 0.01  # nats: a code whose mean KL is no more says nothing
# Of the gap to the optimum, over the squares of what is predicted; the reference stops at scikit-learn's 1e-4.
TOLERANCE, STEPS = 1e-10, 10_000


def standardised(z: np.ndarray) -> np.ndarray:
    """(N, D) float64: each code less its mean, over its deviation; 0 where it is constant."""
    z = z.astype(np.float64)
    reach = np.ptp(z, axis=0)
    # First to [0, 1], where no square is too small or too large.
    z = (z - z.min(axis=0)) / np.where(reach > 0, reach, 1.0)
    z -= z.mean(axis=0)
    return z / np.where(reach > 0, z.std(axis=0), 1.0)


def ranked(z: np.ndarray) -> np.ndarray:
    """(N, D) float64: the `standardised` ranks of each code; equal values share the mean of theirs."""
    return standardised(rankdata(z, axis=0))


def correlations(z: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(D, E): the absolute correlation of each code of z (N, D) and of other (N, E), both standardised; of `ranked`
    ones, Spearman's."""
    return np.minimum(np.abs(z.T @ other) / len(z), 1.0)


def lasso_weights(z: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(D, E): the absolute weights of the Lasso that predicts each code of z (N, D) from those of other (N, E), both
    standardised: argmin_w |z_a - other w|^2 / 2N + alpha |w|_1, alpha = 0.1.

    Of uncorrelated codes in ``other`` they are the correlations less alpha, or 0: 0.9 at most.
    """
    if not z.shape[1] or not other.shape[1]:
        return np.zeros((z.shape[1], other.shape[1]))
    model = Lasso(ALPHA, fit_intercept=False, precompute=True, tol=TOLERANCE, max_iter=STEPS)
    return np.abs(model.fit(other, z).coef_.reshape(z.shape[1], other.shape[1]))


# How the codes of one model are prepared, and how alike those of two then are.
SIMILARITIES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "lasso": (standardised, lasso_weights),
    "spearman": (ranked, correlations),
}


def relative_strength(similarity: np.ndarray) -> float:
    """The mean over all rows and columns of ``similarity`` (D, E) of (largest entry)^2 / sum: 1 where each has one
    entry, and that is 1. A row or column of zeros counts as 0, and 0 is the value where D = E = 0."""
    total = 0.0
    for axis in (0, 1):
        largest, whole = similarity.max(axis=axis, initial=0.0), similarity.sum(axis=axis)
        total += float(np.sum(largest * (largest / np.where(whole > 0, whole, 1.0))))
    return total / max(sum(similarity.shape), 1)


def informative(kl: np.ndarray) -> np.ndarray:
    """(D,) bool: which codes have a mean KL (D,) of more than 0.01 nats."""
    return np.asarray(kl) > INFORMATIVE


def pairwise(
    codes: Sequence[np.ndarray], kl: Sequence[np.ndarray], similarity: str = "lasso", names: Sequence[str] = ()
) -> np.ndarray:
    """(M, M): the UDR of each model (row) beside each other one (column), NaN on the diagonal; informative codes alone.

    Args:
        codes: of each model (N, D), of the same N images in the same order; D may differ.
        kl: of each model (D,) nats, the KL of each code to its prior, averaged over images.
        similarity: "lasso" or "spearman". That of Spearman is symmetric; the Lasso predicts the row's model from the
            column's.
        names: what an error calls the models; "model 0" and so on.

    Raises:
        UsageError: fewer than two models, other numbers of images, a KL that does not fit or is below -0.01, what is
            not finite.
        Undefined: fewer than two images.
    """
    names = names or [f"model {i}" for i in range(len(codes))]
    kept = _informative_codes(codes, kl, names)
    prepare, relate = SIMILARITIES[similarity]
    found = np.full((len(kept), len(kept)), np.nan)
    # Many small problems: threads inside each only wait for each other.
    with threadpool_limits(1):
        prepared = [prepare(z) for z in kept]
        for i, j in stoppable(np.argwhere(~np.eye(len(kept), dtype=bool))):
            found[i, j] = relative_strength(relate(prepared[i], prepared[j]))
    return found


def udr(pairs: np.ndarray) -> np.ndarray:
    """(M,): the median of each row of `pairwise` over the other models, the higher the better."""
    return np.nanmedian(pairs, axis=1)


@dataclass(frozen=True)
class Agreement:
    """A model beside others: ``scores`` has its UDR by similarity, ``pairs`` what that is the median of, by the other
    model's name; ``informative`` of its ``latents`` codes count."""

    scores: dict[str, float]
    pairs: dict[str, dict[str, float]]
    informative: int
    latents: int
    images: int

    @property
    def others(self) -> int:
        return len(self.pairs["lasso"])

    def identity(self) -> dict[str, Any]:
        """What its scores must be read with, beside which images they are of."""
        return {
            "n": self.images, "latents": self.latents, "others": self.others,
            "informative_above": INFORMATIVE, "alpha": ALPHA,
        }  # fmt: skip


def agreements(codes: Sequence[np.ndarray], kl: Sequence[np.ndarray], names: Sequence[str]) -> list[Agreement]:
    """Of each model its agreement with all others by both similarities; arguments and errors as `pairwise` has them."""
    matrices = {name: pairwise(codes, kl, name, names) for name in SIMILARITIES}
    found = []
    for i in range(len(names)):
        rest = [j for j in range(len(names)) if j != i]
        found.append(
            Agreement(
                scores={name: float(udr(matrix)[i]) for name, matrix in matrices.items()},
                pairs={name: {names[j]: float(matrix[i, j]) for j in rest} for name, matrix in matrices.items()},
                informative=int(informative(kl[i]).sum()),
                latents=len(kl[i]),
                images=len(codes[i]),
            )
        )
    return found


def _informative_codes(
    codes: Sequence[np.ndarray], kl: Sequence[np.ndarray], names: Sequence[str]
) -> list[np.ndarray]:
    if len(codes) < 2:
        raise UsageError(f"UDR compares a model with others, and here is {len(codes)}")
    kept = []
    for name, z, rates in zip(names, codes, kl, strict=True):
        z, rates = as_matrix(f"the code of {name}", z, floating=True), np.asarray(rates, dtype=np.float64)
        if rates.shape != z.shape[1:] or not np.isfinite(rates).all():
            raise UsageError(f"the KL of {name} has shape {rates.shape}; it must be {z.shape[1:]} and finite")
        if (rates < -INFORMATIVE).any():  # an estimate of one that is 0 may come to less than that
            lowest = f"the KL of {name} is {rates.min():.3g} nats in code {rates.argmin()}"
            raise UsageError(f"{lowest}, and no KL is negative: its sign may be that of a term of the bound")
        kept.append(z[:, informative(rates)])
        if len(z) != len(kept[0]):
            counts = f"{names[0]} has codes of {len(kept[0])} images and {name} of {len(z)}"
            raise UsageError(f"{counts}; UDR needs those of the same images")
    if len(kept[0]) < 2:
        raise Undefined(f"UDR needs the codes of at least two images, and these are of {len(kept[0])}")
    return kept
