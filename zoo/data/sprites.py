"""The renderer of the shapes data: point-sampled squares, ellipses and hearts, 64x64, black and white.

Everything that decides a pixel is integer arithmetic: lengths are in units of 2^-20/62 of a pixel, in which
the centres (16 + 32 k/31) and the pixel centres are whole numbers, and sines and outlines are rounded once,
far more coarsely than mathematical libraries differ. So the same factors give the same picture on every
machine.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SIDE = 64
SIZES = (3, 6, 40, 32, 32)  # shape, scale, orientation, position x, position y
BITS = 20
STEP = 14  # outlines are tabulated every 2^14 units, 1/3968 of a pixel
PIXEL = 62 << BITS
REACH = 13.58  # pixels from its centre to the corner of the largest square
CHUNK = 256


def render(factors: np.ndarray) -> np.ndarray:
    """Factor indices (N, 5) below `SIZES` -> uint8 (N, 1, 64, 64) of 0 and 255."""
    out = np.zeros((len(factors), 1, SIDE, SIDE), np.uint8)
    render_into(out, factors)
    return out


def render_into(out: np.ndarray, factors: np.ndarray) -> None:
    """`render` into an array (N, 1, 64, 64) that is black already."""
    factors = np.asarray(factors)
    kind = factors[:, 0] * SIZES[1] + factors[:, 1]
    # Pictures of one shape and scale are drawn together, each in a window around its centre.
    order = np.argsort(kind, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(kind[order])) + 1):
        for rows in np.split(group, range(CHUNK, len(group), CHUNK)):
            if len(rows):
                _draw(out, rows, factors[rows])


def _draw(out: np.ndarray, rows: np.ndarray, factors: np.ndarray) -> None:
    shape, scale = factors[0, :2].tolist()
    reach = int(np.ceil(REACH * (5 + scale) / 10 - 0.5))
    width = 2 * reach + 1
    x0, dx = _window(factors[:, 3], reach, width)
    y0, dy = _window(factors[:, 4], reach, width)
    cosine, sine = (table[factors[:, 2], None] for table in _turns())
    # The shape turns counter-clockwise (y points down), so a pixel is turned back before it is looked up.
    u = (dx * cosine)[:, None, :] - (dy * sine)[:, :, None]
    v = (dx * sine)[:, None, :] + (dy * cosine)[:, :, None]
    inside = _inside(shape, scale, u, v)
    pixels = np.multiply(inside, 255, dtype=np.uint8)
    for k, (row, x, y) in enumerate(zip(rows.tolist(), x0.tolist(), y0.tolist(), strict=True)):
        out[row, 0, y : y + width, x : x + width] = pixels[k]


def _window(position: np.ndarray, reach: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """First pixel of the window along an axis, and (N, width) offsets of the pixel centres in 1/62 pixel."""
    first = 16 + 32 * position // 31 - reach
    offset = 62 * (first[:, None] + np.arange(width)) + 31 - 62 * 16 - 64 * position[:, None]
    return first, offset.astype(np.int32)


def _inside(shape: int, scale: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    if shape == 0:
        half = _units(9.6 * (5 + scale) / 10)
        return (np.abs(u) <= half) & (np.abs(v) <= half)
    upper, lower = _outline(shape, scale)
    if shape == 1:  # the same in all four quarters
        return np.abs(v) <= lower.take(np.abs(u) >> STEP)
    at = (u >> STEP) + len(upper) // 2
    return (v >= upper.take(at)) & (v <= lower.take(at))


@cache
def _turns() -> tuple[np.ndarray, np.ndarray]:
    angle = 2 * np.pi * np.arange(SIZES[2]) / (SIZES[2] - 1)
    return (
        np.rint(np.cos(angle) * 2**BITS).astype(np.int32),
        np.rint(np.sin(angle) * 2**BITS).astype(np.int32),
    )


@cache
def _outline(shape: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower edge (y down) over the columns of `STEP`; the ellipse from its centre rightwards."""
    columns = (21 * PIXEL) >> STEP  # no window reaches farther than 21 pixels along its diagonal
    start = 0 if shape == 1 else -columns
    u = (np.arange(start, columns) + 0.5) * 2**STEP / PIXEL / ((5 + scale) / 10)
    edges = _ellipse(u) if shape == 1 else _heart(u)
    size = (5 + scale) / 10
    # Rounded to 1/63488 of a pixel, so that the last bit of a square root decides nothing.
    upper, lower = (
        np.rint(np.nan_to_num(edge) * size * PIXEL / 1024).astype(np.int32) * 1024 for edge in edges
    )
    outside = np.isnan(edges[0])
    upper[outside], lower[outside] = 2**31 - 1, -(2**31)
    return upper, lower


def _ellipse(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    corner = 2 * np.pi * np.arange(16, -1, -1) / 64
    edge = np.interp(u, 12.78 * np.cos(corner), 7.22 * np.sin(corner), right=np.nan)
    return -edge, edge


def _heart(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # x = 9.6 sin^3 t has one t with cos t >= 0 (the upper edge) and one with cos t <= 0 (the lower).
    with np.errstate(invalid="ignore"):
        cosine = np.sqrt(1 - np.cbrt(u / (64 * 0.15)) ** 2)
    return _heart_y(cosine), _heart_y(-cosine)


def _heart_y(c: np.ndarray) -> np.ndarray:
    # cos 2t, 3t and 4t as polynomials of c = cos t.
    wave = 13 * c - 5 * (2 * c**2 - 1) - 2 * (4 * c**3 - 3 * c) - (8 * c**4 - 8 * c**2 + 1)
    return 64 * (-0.0225 - 0.01035 * wave)


def _units(pixels: float) -> int:
    return round(pixels * PIXEL)
