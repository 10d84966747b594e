"""Measured factors of a digit's stroke: how thick, slanted, wide and tall it is, by moments of its ink.

After Morpho-MNIST (Castro, Tan, Kainz, Konukoglu, Glocker 2019) in spirit; the measures here are simpler,
from moments alone. They are measured from the pictures, not known: two of them may go together as they do in
handwriting, and a disentanglement score on them is not one on exact factors. Sets that carry them say so
(factor kind "measured").
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.data.images import Images, ImageSet
from zoo.data.mnist import load_mnist
from zoo.errors import UsageError

MEASURES = ("thickness", "slant", "width", "height")
BINS = 10
CHUNK = 512  # of which every step fits a processor's cache


def load_mnist_strokes(root: str | Path | None = None) -> ImageSet:
    """MNIST with its class and four measured factors of ten values each; ``root`` as for `load_mnist`."""
    return with_stroke_factors(load_mnist(root))


def measure_strokes(pixels: Tensor) -> Tensor:
    """Measures of grey pictures, uint8 (N, 1, H, W) -> float64 (N, 4), in the order of `MEASURES`.

    With ink I = byte/255, its total A, and central second moments m_xx, m_yy and m_xy of the ink:

    - thickness: A / L in pixels, with L half the total variation of the ink, which is the length of a stroke
      that is long for its width;
    - slant: -m_xy / m_yy, the horizontal shift per row upwards (positive leans to the right);
    - width: 4 sqrt(m_xx - m_xy^2 / m_yy), of the digit with its slant taken out, in pixels;
    - height: 4 sqrt(m_yy), in pixels.

    A picture without ink measures zero throughout.
    """
    return torch.cat([_measure(part) for part in pixels.split(CHUNK)]) if len(pixels) else torch.zeros(0, 4)


def _measure(pixels: Tensor) -> Tensor:
    ink = pixels[:, 0].to(torch.float64) / 255
    _, height, width = ink.shape
    x = torch.arange(width, dtype=torch.float64)
    y = torch.arange(height, dtype=torch.float64)
    area = ink.sum((1, 2))
    safe = area.clamp_min(1e-12)
    columns, rows = ink.sum(1), ink.sum(2)
    dx = x - (columns @ x / safe).unsqueeze(1)
    dy = y - (rows @ y / safe).unsqueeze(1)
    m_xx = (columns * dx**2).sum(1) / safe
    m_yy = (rows * dy**2).sum(1) / safe
    m_xy = (torch.bmm(ink, dx.unsqueeze(2)).squeeze(2) * dy).sum(1) / safe
    flat = m_yy.clamp_min(1e-12)

    padded = torch.nn.functional.pad(ink, (1, 1, 1, 1))
    right = padded[:, :-1, 1:] - padded[:, :-1, :-1]
    down = padded[:, 1:, :-1] - padded[:, :-1, :-1]
    length = (right**2 + down**2).sqrt().sum((1, 2)) / 2

    upright = (m_xx - m_xy**2 / flat).clamp_min(0)
    measures = [area / length.clamp_min(1e-12), -m_xy / flat, 4 * upright.sqrt(), 4 * m_yy.sqrt()]
    return torch.where((area > 0).unsqueeze(1), torch.stack(measures, dim=1), 0.0)


def with_stroke_factors(images: ImageSet) -> ImageSet:
    """The set with factors: its class first, then the measures as indices of quantile bins.

    The edges are quantiles of the training split, used for all splits, so that each bin holds about the same
    share of the training digits.

    Raises:
        UsageError: the set has no classes, is not grey, was prepared already, or has factors of its own.
    """
    if images.spec.classes == 0 or images.spec.shape[0] != 1 or images.spec.support != "8-bit":
        raise UsageError(
            f"strokes are measured on grey 8-bit pictures with classes, which {images.name} has not."
        )
    if images["train"].factors is not None:
        raise UsageError(f"{images.name} has factors already.")
    measures = {split: measure_strokes(part.pixels) for split, part in images.splits.items()}
    edges = np.quantile(measures["train"].numpy(), np.arange(1, BINS) / BINS, axis=0)
    splits = {
        split: _with_factors(part, measures[split].numpy(), edges, images)
        for split, part in images.splits.items()
    }
    return replace(images, name=f"{images.name}_strokes", splits=splits, known_sha256=None)


def _with_factors(part: Images, measures: np.ndarray, edges: np.ndarray, images: ImageSet) -> Images:
    binned = [np.searchsorted(edges[:, k], measures[:, k], side="right") for k in range(len(MEASURES))]
    factors = torch.from_numpy(np.stack([part.labels.numpy(), *binned], axis=1).astype(np.int64))
    return replace(
        part,
        factors=factors,
        factor_names=("class", *MEASURES),
        factor_sizes=(images.spec.classes, *(len(edges) + 1,) * len(MEASURES)),
        factor_kind="measured",
    )
