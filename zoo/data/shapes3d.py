"""Coloured shapes: an object in a room, with the factors of 3D Shapes and exact values for every picture.

After Burgess and Kim 2018: floor, wall and object hue (10 each), scale (8), shape (4: box, cylinder, ball, capsule),
orientation (15), 64x64, RGB. A look-alike drawn by `zoo.data.room`, not the original pictures: no sky, no
pattern on the wall, another camera and light. Numbers made with it stand beside no published ones.
"""

from __future__ import annotations

from zoo.data import room
from zoo.data.grids import every_nth, grid_set
from zoo.data.images import DataSpec, ImageSet
from zoo.errors import UsageError

NAMES = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
GRIDS = {"full": (10, 10, 10, 8, 4, 15), "mini": (5, 5, 5, 4, 4, 5)}
RENDERER = 1  # rises when a picture changes


def load_shapes3d(
    grid: str = "full", n_validation: int = 10_000, n_test: int = 10_000, seed: int = 0
) -> ImageSet:
    """All pictures of the grid, split by a random permutation; class labels are the shapes.

    Args:
        grid: ``"full"``, 480,000 pictures (5.9 GB, drawn once into the cache), or ``"mini"``, the 10,000 of
            every other hue and scale and every third orientation.
        n_validation, n_test: sizes of these splits, each at most a tenth of the grid; the rest is for
            training.
        seed: of the permutation.

    Raises:
        UsageError: there is no such grid.
    """
    if grid not in GRIDS:
        raise UsageError(f"the grids of shapes3d are {', '.join(GRIDS)}, not '{grid}'.")
    sizes = GRIDS[grid]
    return grid_set(
        "shapes3d" if grid == "full" else f"shapes3d_{grid}",
        DataSpec((3, room.SIDE, room.SIDE), "8-bit", classes=4),
        factors=dict(zip(NAMES, sizes, strict=True)),
        draw=lambda index: room.render(every_nth(index, sizes, room.SIZES)),
        source=f"renderer {RENDERER}",
        classes=("box", "cylinder", "ball", "capsule"),
        n_validation=n_validation,
        n_test=n_test,
        seed=seed,
    )
