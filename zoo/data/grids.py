"""Sets of every combination of their factors' values: drawn or read once, split by a recorded permutation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo.data.images import DataSpec, Images, ImageSet, pieces
from zoo.data.mapped import WHERE, mapped_pixels
from zoo.files import fingerprint
from zoo.stopping import stoppable

IN_MEMORY = 2**28  # bytes; a larger set is kept in a memory map
CHUNK = 1 << 13
Draw = Callable[[np.ndarray], np.ndarray]


def grid_set(
    name: str,
    spec: DataSpec,
    *,
    factors: dict[str, int],
    draw: Draw,
    source: str,
    classes: tuple[str, ...],
    n_validation: int,
    n_test: int,
    seed: int,
    keep: bool = False,
) -> ImageSet:
    """The `ImageSet` of a whole grid.

    Args:
        name: of the set, and of its folder in the cache.
        spec: of its pictures.
        factors: name -> number of values; the first varies slowest.
        draw: factor indices (N, F) -> uint8 (N, C, H, W).
        source: what the pictures come from; another source is another file in the cache.
        classes: names of the values of the factor ``shape``, which is the class of a picture too.
        n_validation, n_test: sizes of these splits, each at most a tenth of the grid; the rest is for
            training.
        seed: of the permutation.
        keep: for a ``draw`` that reads a file: it is asked for pictures in the order of the grid, once, and whoever
            observes some later gets those of the splits.
    """
    names, sizes = tuple(factors), tuple(factors.values())
    total = int(np.prod(sizes))
    held = min(n_validation, total // 10), min(n_test, total // 10)
    # The legacy generator: numpy promises that its stream never changes.
    order = np.random.RandomState(seed).permutation(total)
    index = np.stack(np.unravel_index(order, sizes), axis=1).astype(np.int64)
    place = np.argsort(order) if keep else None  # in the order of the grid, where each picture lies

    def fill(out: np.ndarray) -> None:
        rows = np.arange(total) if place is None else place
        for start in stoppable(range(0, total, CHUNK), WHERE):
            part = rows[start : start + CHUNK]
            out[part] = draw(index[part])

    shape = (total, *spec.shape)
    if total * spec.dims <= IN_MEMORY:
        pixels, known = np.empty(shape, np.uint8), None
        fill(pixels)
    else:
        recipe = {"source": source, "factors": [list(names), list(sizes)], "seed": seed}
        pixels, digest = mapped_pixels(name, recipe, shape, fill)
        known = fingerprint({"pixels": digest, "held": held, **recipe})

    parts = pieces({"train": total - sum(held), "validation": held[0], "test": held[1]})
    splits = {
        split: Images(
            pixels[part],
            labels=np.ascontiguousarray(index[part, names.index("shape")]),
            factors=index[part],
            factor_names=names,
            factor_sizes=sizes,
            factor_kind="exact",
        )
        for split, part in parts.items()
    }
    render = draw if place is None else _among(pixels, place, sizes)
    return ImageSet(name, splits, spec, classes=classes, render=render, known_sha256=known)


def every_nth(index: np.ndarray, sizes: tuple[int, ...], full: tuple[int, ...]) -> np.ndarray:
    """Indices on a grid as indices on the full one: value k of a factor is value k * (full/size) there."""
    return index * (np.array(full) // np.array(sizes))


def _among(pixels: np.ndarray, place: np.ndarray, sizes: tuple[int, ...]) -> Draw:
    return lambda index: np.ascontiguousarray(pixels[place[np.ravel_multi_index(index.T, sizes)]])
