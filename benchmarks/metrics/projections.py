"""Codes in the plane: principal components and t-SNE."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.metrics.codes import Undefined

PERPLEXITY = 30.0
WIDEST = 50  # dimensions that t-SNE is given; more are brought down to so many principal components, as is usual


def pca(codes: Any, dimensions: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(N, dimensions) coordinates along the leading principal axes of the codes, and each axis's share of variance.

    The sign of an axis is such that its largest entry is positive. Axes that a narrow code lacks are zeros.

    Raises:
        Undefined: codes that are not finite, are all the same, or are fewer than two.
    """
    codes = _checked(codes)
    centred = codes - codes.mean(0)
    # The triangle of a tall matrix's QR decomposition has the same axes and singular values, and costs a fraction.
    tall = len(codes) > codes.shape[1]
    _, singular, axes = np.linalg.svd(np.linalg.qr(centred, mode="r") if tall else centred, full_matrices=False)
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    kept = min(dimensions, len(axes))
    coordinates, shares = np.zeros((len(codes), dimensions)), np.zeros(dimensions)
    coordinates[:, :kept] = centred @ axes[:kept].T
    shares[:kept] = (singular**2 / (singular**2).sum())[:kept]
    return coordinates, shares


def tsne(codes: Any, seed: int = 0) -> np.ndarray:
    """(N, 2): t-SNE (van der Maaten and Hinton 2008) by scikit-learn, perplexity 30, begun at the principal components.

    Neighbours mean something in it; distances between clusters, their sizes and their number do not.

    Raises:
        Undefined: as `pca`.
    """
    from sklearn.manifold import TSNE

    codes = _checked(codes)
    if codes.shape[1] > WIDEST:
        codes, _ = pca(codes, WIDEST)
    perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
    start = pca(codes)[0]
    start *= 1e-4 / start[:, 0].std()
    model = TSNE(perplexity=perplexity, init=start.astype(np.float32), random_state=seed)
    return model.fit_transform(codes.astype(np.float32))


def _checked(codes: Any) -> np.ndarray:
    codes = np.asarray(codes, dtype=np.float64)
    if codes.ndim != 2 or len(codes) < 2 or not codes.shape[1]:
        raise Undefined(f"codes are (N, D) with at least two rows, not {codes.shape}")
    if not np.isfinite(codes).all():
        raise Undefined("the codes are not finite")
    if not (codes.max(0) > codes.min(0)).any():
        raise Undefined("every dimension of the code is constant")
    return codes
