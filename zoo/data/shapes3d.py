"""Coloured shapes: an object in a room, with the factors of 3D Shapes and exact values for every picture.

After Burgess and Kim 2018: floor, wall and object hue (10 each), scale (8), shape (4: box, cylinder, ball, capsule),
orientation (15), 64x64, RGB. A look-alike drawn by `zoo.data.room`, not the original pictures: no sky, no
pattern on the wall, another camera and light. Numbers made with it stand beside no published ones. Who has the original
file gives its path and gets the real pictures; reading it needs ``h5py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data import room
from zoo.data.grids import every_nth, grid_set
from zoo.data.images import DataSpec, ImageSet
from zoo.errors import UsageError, ZooError
from zoo.files import expanded, sha256_file

NAMES = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
GRIDS = {"full": (10, 10, 10, 8, 4, 15), "mini": (5, 5, 5, 4, 4, 5)}
RENDERER = 1  # rises when a picture changes
BLOCK = 4096  # pictures of the original file that are read at once


def load_shapes3d(
    grid: str = "full",
    h5: str | Path | None = None,
    n_validation: int = 10_000,
    n_test: int = 10_000,
    seed: int = 0,
) -> ImageSet:
    """All pictures of the grid, split by a random permutation; class labels are the shapes.

    Args:
        grid: ``"full"``, 480,000 pictures (5.9 GB, drawn once into the cache), or ``"mini"``, the 10,000 of
            every other hue and scale and every third orientation.
        h5: the original ``3dshapes.h5``, default ``$VAE_ZOO_SHAPES3D``; without either the pictures are drawn.
        n_validation, n_test: sizes of these splits, each at most a tenth of the grid; the rest is for
            training.
        seed: of the permutation.

    Raises:
        UsageError: there is no such grid or h5.
        ZooError: it is not 3D Shapes, or ``h5py`` is not installed.
    """
    if grid not in GRIDS:
        raise UsageError(f"the grids of shapes3d are {', '.join(GRIDS)}, not '{grid}'.")
    h5 = h5 or os.environ.get("VAE_ZOO_SHAPES3D")
    if h5:
        name, draw, source = "3dshapes", *_original(expanded(h5))
    else:
        name, draw, source = "shapes3d", room.render, f"renderer {RENDERER}"
    sizes, full = GRIDS[grid], GRIDS["full"]
    return grid_set(
        name if grid == "full" else f"{name}_{grid}",
        DataSpec((3, room.SIDE, room.SIDE), "8-bit", classes=4),
        factors=dict(zip(NAMES, sizes, strict=True)),
        draw=lambda index: draw(every_nth(index, sizes, full)),
        source=source,
        classes=("box", "cylinder", "ball", "capsule"),
        n_validation=n_validation,
        n_test=n_test,
        seed=seed,
        keep=bool(h5),
    )


def _original(path: Path) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """A way to look pictures up in the original file, which is quick for neighbours, and the file's hash."""
    if not path.is_file():
        raise UsageError(f"there is no 3D Shapes file {path}.")
    try:
        import h5py
    except ImportError:
        raise ZooError(f"{path} is read by h5py: `pip install h5py`.") from None
    full = GRIDS["full"]

    @cache
    def pictures() -> Any:
        try:
            file = h5py.File(path, "r")
            images, labels = file["images"], file["labels"][:]
        except (OSError, KeyError):
            raise ZooError(f"{path} is damaged, or not 3dshapes.h5.") from None
        expected = np.unravel_index(np.arange(np.prod(full)), full)
        shapes = (len(expected[0]), room.SIDE, room.SIDE, 3), (len(expected[0]), len(full))
        # The file has the factors' values, of which only the order is asked.
        if (images.shape, labels.shape) != shapes or not all(
            np.array_equal(np.unique(values, return_inverse=True)[1], index)
            for values, index in zip(labels.T, expected, strict=True)
        ):
            raise ZooError(f"{path} does not hold the 480,000 pictures of 3D Shapes in their order.")
        return images

    def look_up(index: np.ndarray) -> np.ndarray:
        flat = np.ravel_multi_index(index.T, full)
        out = np.empty((len(flat), 3, room.SIDE, room.SIDE), np.uint8)
        for start in np.unique(flat // BLOCK) * BLOCK:
            rows = np.flatnonzero(flat // BLOCK * BLOCK == start)
            try:
                block = pictures()[start : start + BLOCK]
            except OSError:
                raise ZooError(f"{path} is damaged.") from None
            out[rows] = block[flat[rows] - start].transpose(0, 3, 1, 2)
        return out

    return look_up, sha256_file(path)
