"""Chequered images of four field sizes, made on the spot."""

from __future__ import annotations

import numpy as np

from zoo.data.images import SPLITS, DataSpec, Images, ImageSet

SIDES = (1, 2, 4, 8)


def load_checkers(size: int = 16, n: int = 512, seed: int = 0) -> ImageSet:
    """``n`` training images (a quarter of that for validation and test) of ``size`` pixels; the class is the field."""
    rng = np.random.default_rng(seed)
    splits = {}
    for split, count in zip(SPLITS, (n, n // 4, n // 4), strict=True):
        labels = rng.integers(0, len(SIDES), count)
        shift = rng.integers(0, 16, (count, 2))
        rows, columns = np.indices((size, size))
        side = np.array(SIDES)[labels][:, None, None]
        fields = (rows + shift[:, 0, None, None]) // side + (columns + shift[:, 1, None, None]) // side
        pixels = (fields % 2 * 200 + rng.integers(0, 56, (count, size, size))).astype(np.uint8)
        splits[split] = Images(pixels[:, None], labels.astype(np.int64))
    spec = DataSpec((1, size, size), "8-bit", classes=len(SIDES))
    return ImageSet("checkers", splits, spec, classes=tuple(f"fields of {side}" for side in SIDES))
