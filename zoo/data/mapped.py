"""Pictures too many for memory: a uint8 memory map in the cache, built once and known by its hash."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from zoo.errors import ZooError, one_line
from zoo.files import atomic_path, atomic_write, cache_dir, fingerprint, one_at_a_time, sha256_file, sweep
from zoo.stopping import stoppable

WHERE = "before all images were read (they are read anew)"

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


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
    # Without the lock first: a cache may be another's, to read and not to write.
    digest = _whole(path, note, shape)
    if digest is None:
        with one_at_a_time(place, ".lock"):
            digest = _whole(path, note, shape) or _built(path, note, shape, fill, {**recipe, **(about or {})})
    return np.memmap(path, np.uint8, "r", shape=shape), digest


def _built(
    path: Path, note: Path, shape: tuple[int, ...], fill: Callable[[np.ndarray], None], facts: Mapping[str, Any]
) -> str:
    for left in path.parent.glob(f".{path.name}.*.part"):  # of a build that was killed
        left.unlink()
    sweep(path.parent)
    note.unlink(missing_ok=True)
    with atomic_path(path) as part:
        with open(part, "rb+") as file:
            # A map is written to without a word of the system: a disk that is too small has to say so now.
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        array = np.memmap(part, np.uint8, "r+", shape=shape)
        fill(array)
        array.flush()
        digest = sha256_file(part)
    atomic_write(note, json.dumps({**facts, "shape": list(shape), "sha256": digest}, indent=1) + "\n")
    return digest


def decode_all(
    names: Sequence[str], decode: Callable[[str], np.ndarray], out: np.ndarray, place: str, title: str
) -> None:
    """Fill row i of ``out`` with ``decode(names[i])``, on all cores, behind a bar with that title.

    Raises:
        ZooError: some cannot be decoded; the message says how many of ``place`` and names the first ones.
        Stopped: somebody asked for it (`zoo.stopping`).
    """

    def fill(row: int) -> str | None:
        try:
            out[row] = decode(names[row])
        except Exception as error:  # whatever is wrong with one file, the others are looked at too
            return f"{names[row]} ({_reason(error)})"
        return None

    # Threads: decoding and resizing leave the interpreter lock, and each writes its own row of the map.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = tqdm(pool.map(fill, range(len(names))), title, len(names), unit=" images", disable=None)
        try:
            bad = [reason for reason in stoppable(done, WHERE) if reason]
        except BaseException:  # or the pool would end with the last image
            pool.shutdown(cancel_futures=True)
            raise
    if bad:
        raise ZooError(f"{count(bad, 'image')} of {place} cannot be read: {listed(bad)}.")


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def count(names: Sequence[str], noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{len(names):,} {noun}{'' if len(names) == 1 else 's'}"


def _whole(path: Path, note: Path, shape: tuple[int, ...]) -> str | None:
    """The SHA-256 of a memory map that is there and is what its note says, else None."""
    try:
        digest = json.loads(note.read_text())["sha256"]
        whole = path.stat().st_size == np.prod(shape) and sha256_file(path) == digest
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if whole else None


def _reason(error: Exception) -> str:
    return "it is gone" if isinstance(error, FileNotFoundError) else one_line(error) or "unreadable"
