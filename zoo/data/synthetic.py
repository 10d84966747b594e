"""Small made-up sets that need no download: grey blobs in ten classes, and data of a known linear model."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from zoo.data.images import SPLITS, DataSpec, Images, ImageSet

CLASSES = 10


def load_synthetic(
    n_train: int = 512,
    n_validation: int = 256,
    n_test: int = 256,
    shape: tuple[int, int, int] = (1, 28, 28),
    seed: int = 0,
) -> ImageSet:
    """Synthetic strokes: class c is a fixed curve of three points, jittered and blurred for each image.

    For tests and smoke runs only: nothing learnt from it says anything about digits.
    """
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    anchors = 0.2 + 0.6 * rng.random((CLASSES, 3, 2))
    tints = 0.6 + 0.4 * rng.random((CLASSES, channels))
    splits = {}
    for split, n in zip(SPLITS, (n_train, n_validation, n_test), strict=True):
        labels = rng.integers(0, CLASSES, n)
        points = anchors[labels] + 0.04 * rng.standard_normal((n, 3, 2))
        spread = 0.05 + 0.02 * rng.random(n)
        ink = _strokes(points, spread, height, width)[:, None] * tints[labels][:, :, None, None]
        splits[split] = Images(np.rint(255 * ink).astype(np.uint8), torch.from_numpy(labels))
    spec = DataSpec((channels, height, width), "8-bit", classes=CLASSES)
    return ImageSet("synthetic", splits, spec, classes=tuple(f"stroke {c}" for c in range(CLASSES)))


def _strokes(points: np.ndarray, spread: np.ndarray, height: int, width: int) -> np.ndarray:
    t = np.linspace(0, 1, 24)[None, :, None]
    a, b, c = (points[:, k, None] for k in range(3))
    curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c  # (N, 24, 2)
    y = (np.arange(height) + 0.5) / height
    x = (np.arange(width) + 0.5) / width
    scale = -0.5 / spread[:, None, None] ** 2
    rows = np.exp(scale * (y[None, :, None] - curve[:, None, :, 0]) ** 2)  # (N, H, 24)
    columns = np.exp(scale * (x[None, :, None] - curve[:, None, :, 1]) ** 2)
    # A bell in each point is a product of a row and a column, so their sum is one small matrix product an image.
    return np.clip(0.6 * np.einsum("nht,nwt->nhw", rows, columns), 0, 1)


def load_ppca(
    n_train: int = 4096,
    n_validation: int = 1024,
    n_test: int = 1024,
    dims: int = 10,
    latent: int = 3,
    s2: float = 0.3,
    seed: int = 0,
) -> ImageSet:
    """Real data of shape (1, 1, dims) drawn from x = W z + mu + N(0, s2 I), z ~ N(0, I) of size ``latent``.

    Its likelihood is known in closed form (`ppca_log_prob`, `ppca_ml_optimum`), and a linear VAE can reach
    it.
    """
    weight, mean = ppca_truth(dims, latent, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    splits = {}
    for split, n in zip(SPLITS, (n_train, n_validation, n_test), strict=True):
        z = torch.randn(n, latent, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, dims, generator=generator, dtype=torch.float64)
        x = z @ weight.T + mean + math.sqrt(s2) * noise
        splits[split] = Images(x.to(torch.float32).view(n, 1, 1, dims))
    return ImageSet("ppca", splits, DataSpec((1, 1, dims), "real"))


def ppca_truth(dims: int = 10, latent: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The W (dims, latent) and mu (dims,) that `load_ppca` draws from, float64."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(dims, latent, generator=generator, dtype=torch.float64)
    return weight, torch.randn(dims, generator=generator, dtype=torch.float64)


def ppca_log_prob(x: Tensor, weight: Tensor, mean: Tensor, s2: float | Tensor) -> Tensor:
    """log p(x) in nats, (N,), of x (N, D) under N(mean, W W^T + s2 I)."""
    dims = weight.shape[0]
    covariance = weight @ weight.T + s2 * torch.eye(dims, dtype=weight.dtype, device=weight.device)
    factor = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(factor, (x.to(weight.dtype) - mean).T, upper=False)
    log_det = 2 * factor.diagonal().log().sum()
    return -0.5 * (dims * math.log(2 * math.pi) + log_det + white.square().sum(0))


def ppca_ml_optimum(x: Tensor, latent: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The maximum-likelihood fit to x (N, D): W (D, latent), mu (D,), s2, and its mean log p(x) in nats;
    float64.

    Tipping and Bishop 1999: s2 is the mean of the D - latent smallest eigenvalues l of the sample covariance,
    W = U (L - s2 I)^(1/2), and the mean log p is -1/2 [D log 2 pi + sum of the log l kept + (D - latent) log
    s2 + D].
    """
    x = x.reshape(len(x), -1).to(torch.float64)
    dims = x.shape[1]
    if not 0 < latent < dims:
        raise ValueError(f"latent is between 1 and {dims - 1}, not {latent}")
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values, vectors = values.flip(0), vectors.flip(1)
    s2 = values[latent:].mean()
    weight = vectors[:, :latent] * (values[:latent] - s2).sqrt()
    log_p = -0.5 * (
        dims * math.log(2 * math.pi) + values[:latent].log().sum() + (dims - latent) * s2.log() + dims
    )
    return weight, mean, s2, log_p
