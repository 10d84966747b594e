"""Pictures too many for memory: a uint8 memory map in the cache, built once and known by its hash."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.files import atomic_path, atomic_write, cache_dir, canonical_json, sha256_file


def mapped_pixels(
    folder: str,
    recipe: Mapping[str, Any],
    shape: tuple[int, ...],
    fill: Callable[[np.ndarray], None],
    about: Mapping[str, Any] | None = None,
) -> tuple[np.ndarray, str]:
    """A read-only uint8 array and its SHA-256, built by ``fill(array)`` unless the cache has it whole.

    Args:
        folder: the folder of the cache it lies in.
        recipe: everything that decides its content, as plain values; another recipe is another file.
        shape: of the array.
        fill: writes every element; if it raises, nothing is left behind.
        about: further facts for the JSON note that lies beside the map.

    A map that is cut short, damaged, or without its note (the note is written last) is built again.
    """
    place = cache_dir() / folder
    path = place / f"{fingerprint(recipe)[:16]}.u8"
    note = path.with_suffix(".json")
    place.mkdir(parents=True, exist_ok=True)
    with open(place / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = _whole(path, note, shape)
        if digest is None:
            for left in place.glob(f".{path.name}.*.part"):  # of a build that was killed
                left.unlink()
            note.unlink(missing_ok=True)
            with atomic_path(path) as part:
                array = np.memmap(part, np.uint8, "w+", shape=shape)
                fill(array)
                array.flush()
                digest = sha256_file(part)
            facts = {**recipe, **(about or {}), "shape": list(shape), "sha256": digest}
            atomic_write(note, json.dumps(facts, indent=1) + "\n")
    return np.memmap(path, np.uint8, "r", shape=shape), digest


def fingerprint(value: object) -> str:
    """SHA-256 of plain values, by way of their canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _whole(path: Path, note: Path, shape: tuple[int, ...]) -> str | None:
    """The SHA-256 of a memory map that is there and is what its note says, else None."""
    try:
        digest = json.loads(note.read_text())["sha256"]
        whole = path.stat().st_size == np.prod(shape) and sha256_file(path) == digest
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if whole else None
