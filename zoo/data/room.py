"""The renderer of the coloured shapes: one object in a room of one floor and one wall colour, 64x64.

A geometry (scale, shape, orientation) is ray-cast once, into how much light each pixel gets from floor, wall
and object; a picture is these three maps times three colours. The maps are whole numbers of 2^-14 and so
small that float32 holds every sum exactly: a picture does not depend on the order of additions, and so not on
the machine.
"""

from __future__ import annotations

import colorsys
from functools import cache

import numpy as np

SIDE = 64
SIZES = (10, 10, 10, 8, 4, 15)  # floor hue, wall hue, object hue, scale, shape, orientation
SAMPLES = 3  # rays along each side of a pixel
UNIT = 2**14
CHUNK = 64
FLOOR, WALL, OBJECT = range(3)
AMBIENT = 0.45
LIGHT = np.array([0.4, 1.0, 0.7]) / np.sqrt(0.4**2 + 1.0**2 + 0.7**2)
HALF_ROOM = 3.2
EYE_DISTANCE, EYE_HEIGHT, AIM_HEIGHT, HALF_ANGLE = 4.6, 2.3, 0.75, 25.0


def render(factors: np.ndarray) -> np.ndarray:
    """Factor indices (N, 6) below `SIZES` -> uint8 (N, 3, 64, 64)."""
    factors = np.asarray(factors)
    out = np.empty((len(factors), 3, SIDE, SIDE), np.uint8)
    geometry = np.ravel_multi_index(factors[:, 3:].T, SIZES[3:])
    order = np.argsort(geometry, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(geometry[order])) + 1):
        for rows in np.split(group, range(CHUNK, len(group), CHUNK)):
            if len(rows):
                colours = _palette()[factors[rows, :3]].transpose(0, 2, 1)  # (n, rgb, region)
                light = _light(*factors[rows[0], 3:].tolist())
                sums = colours.reshape(-1, 3) @ light  # exact: at most 255 * 2^14
                out[rows] = ((sums + UNIT / 2) / UNIT).astype(np.uint8).reshape(-1, 3, SIDE, SIDE)
    return out


@cache
def _palette() -> np.ndarray:
    hues = [colorsys.hsv_to_rgb(k / SIZES[0], 1, 1) for k in range(SIZES[0])]
    return np.rint(255 * np.array(hues)).astype(np.float32)


@cache
def _light(scale: int, shape: int, turn: int) -> np.ndarray:
    """float32 (3, 64*64), whole numbers of 2^-14: light from floor, wall and object; together at most one."""
    eye, rays = _rays(turn)
    size = 0.75 + 0.5 * scale / (SIZES[3] - 1)
    region, reached, normal = _room(eye, rays)
    distance, facing = _hit(shape, size, np.broadcast_to(eye, rays.shape), rays)
    seen = distance < reached
    region = np.where(seen, OBJECT, region)
    normal = np.where(seen[:, None], facing, normal)
    point = eye + np.where(seen, distance, reached)[:, None] * rays
    lit = np.clip(normal @ LIGHT, 0, None)
    # A thing in the object's shadow gets the ambient light only. The object shades itself by its normals.
    others = np.flatnonzero(~seen)
    shaded, _ = _hit(shape, size, point[others], np.broadcast_to(LIGHT, (len(others), 3)))
    lit[others[np.isfinite(shaded)]] = 0
    bright = AMBIENT + (1 - AMBIENT) * lit
    maps = np.stack([np.where(region == part, bright, 0) for part in (FLOOR, WALL, OBJECT)])
    pixels = maps.reshape(3, SIDE, SAMPLES, SIDE, SAMPLES).mean((2, 4))
    return np.rint(pixels * UNIT).astype(np.float32).reshape(3, -1)


@cache
def _rays(turn: int) -> tuple[np.ndarray, np.ndarray]:
    """The eye (3,) and unit directions (rays, 3) of one orientation, -30 to 30 degrees around the object."""
    angle = np.radians(-30 + 60 * turn / (SIZES[5] - 1))
    eye = np.array([EYE_DISTANCE * np.sin(angle), EYE_HEIGHT, EYE_DISTANCE * np.cos(angle)])
    ahead = np.array([0, AIM_HEIGHT, 0]) - eye
    ahead /= np.sqrt((ahead**2).sum())
    right = np.array([np.cos(angle), 0, -np.sin(angle)])
    up = np.cross(right, ahead)
    across = np.tan(np.radians(HALF_ANGLE)) * ((np.arange(SIDE * SAMPLES) + 0.5) / (SIDE * SAMPLES) * 2 - 1)
    rays = ahead + across[None, :, None] * right - across[:, None, None] * up
    rays = rays.reshape(-1, 3)
    return eye, rays / np.sqrt((rays**2).sum(1, keepdims=True))


def _room(eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which part of the room each ray meets first, how far away, and its normal."""
    normals = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0], [-1, 0, 0]], float)  # floor, back, left, right
    offsets = np.array([0, HALF_ROOM, HALF_ROOM, HALF_ROOM])
    toward = -(rays @ normals.T)
    with np.errstate(divide="ignore"):
        distance = np.where(toward > 1e-9, (eye @ normals.T + offsets) / toward, np.inf)
    first = distance.argmin(1)
    return np.where(first == 0, FLOOR, WALL), distance.min(1), normals[first]


def _hit(shape: int, size: float, start: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance along each ray to the object (infinite if missed) and the object's normal there."""
    if shape == 0:
        return _box(np.array([0.55, 1.1, 0.55]) * size, start, ray)
    if shape == 1:
        return _cylinder(0.58 * size, 1.15 * size, start, ray)
    if shape == 2:
        return _ball(0.65 * size, 0.65 * size, start, ray)
    radius, height = 0.42 * size, 1.5 * size  # a capsule: the sides of a cylinder and a ball at either end
    parts = [
        _cylinder(radius, height - radius, start, ray, low=radius),
        _ball(radius, radius, start, ray),
        _ball(radius, height - radius, start, ray),
    ]
    nearest = np.argmin([distance for distance, _ in parts], axis=0)
    distance = np.choose(nearest, [distance for distance, _ in parts])
    return distance, np.choose(nearest[:, None], [normal for _, normal in parts])


def _box(half: np.ndarray, start: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.array([-half[0], 0, -half[2]]), np.array([half[0], half[1], half[2]])
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (low - start) / ray, (high - start) / ray
    near, far = np.fmin(a, b), np.fmax(a, b)
    axis = near.argmax(1)
    enter = near.max(1)
    normal = -np.sign(ray) * (np.arange(3) == axis[:, None])
    return np.where((enter <= far.min(1)) & (enter > 1e-6), enter, np.inf), normal


def _ball(radius: float, height: float, start: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    away = start - np.array([0, height, 0])
    along = (away * ray).sum(1)
    inside = along**2 - (away**2).sum(1) + radius**2
    distance = -along - np.sqrt(np.clip(inside, 0, None))
    distance = np.where((inside > 0) & (distance > 1e-6), distance, np.inf)
    return distance, (away + np.where(np.isfinite(distance), distance, 0)[:, None] * ray) / radius


def _cylinder(
    radius: float, high: float, start: np.ndarray, ray: np.ndarray, low: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    flat = ray[:, [0, 2]]
    squared = (flat**2).sum(1)
    along = (start[:, [0, 2]] * flat).sum(1)
    inside = along**2 - squared * ((start[:, [0, 2]] ** 2).sum(1) - radius**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        side = (-along - np.sqrt(np.clip(inside, 0, None))) / squared
        y = start[:, 1] + side * ray[:, 1]
        side = np.where((inside > 0) & (side > 1e-6) & (y >= low) & (y <= high), side, np.inf)
        top = (high - start[:, 1]) / ray[:, 1]
        reach = ((start[:, [0, 2]] + top[:, None] * flat) ** 2).sum(1)
    top = np.where((reach <= radius**2) & (top > 1e-6), top, np.inf)
    distance = np.fmin(side, top)
    point = start + np.where(np.isfinite(distance), distance, 0)[:, None] * ray
    round_ = point * np.array([1, 0, 1]) / radius
    return distance, np.where((top < side)[:, None], np.array([0.0, 1, 0]), round_)
