"""The state of a run in one file: tensors and JSON in a safetensors file, written whole or not at all.

Nothing is ever unpickled. The JSON part travels in the header of the same file, so the two cannot disagree; a CRC over
the tensors tells a damaged file, and the checkpoint before it is kept for that case.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from zoo.errors import ZooError
from zoo.files import atomic_path

log = logging.getLogger(__name__)
PATTERN = "step-*.safetensors"
GOOD = "good-*.safetensors"
KEPT = 2


class Unreachable(ZooError):
    """A file that is there and cannot be read now: nothing is known of what it holds."""


def write(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors (moved to the CPU) and a JSON-able state as one file, atomically."""
    on_cpu = {name: _plain(tensor) for name, tensor in tensors.items()}
    header = {"state": json.dumps(state, allow_nan=True), "crc": str(_checksum(on_cpu))}
    with atomic_path(path) as part:
        try:
            save_file(on_cpu, part, metadata=header)
        except SafetensorError as error:
            # Its one error for everything; the number that the system gave is in its text.
            number = re.search(r"os error (\d+)|code: (\d+)", str(error))
            code = int(number[1] or number[2]) if number else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from None


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the state of a file that `write` made.

    Raises:
        Unreachable: the system does not let it be read (a disk that went away, too many open files).
        ZooError: the file is truncated, damaged, or something else.
    """
    try:
        with open(path, "rb"), safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        state = json.loads(header["state"])
        if not isinstance(state, dict):
            raise ValueError
        intact = int(header["crc"]) == _checksum(tensors)
    except FileNotFoundError:
        raise ZooError(f"{path} is not there.") from None
    except OSError as error:
        raise Unreachable(f"{path} cannot be read now ({error.strerror or type(error).__name__}).") from None
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError, RuntimeError) as error:
        raise ZooError(f"{path} is not a readable checkpoint ({type(error).__name__}).") from None
    if not intact:
        raise ZooError(f"{path} is damaged: its tensors do not have the checksum it states.")
    return tensors, state


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's tensors, without reading them. Raises ZooError as `read` does."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ZooError(f"{path} is not a readable checkpoint ({type(error).__name__}).") from None


def write_step(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of a step and keep it and the one before. Those of later steps go: a run that went back
    has left them behind."""
    path = folder / f"step-{step:09d}.safetensors"
    write(path, tensors, state)
    there = sorted(folder.glob(PATTERN))
    earlier = [other for other in there if other.name <= path.name]
    for old in (*earlier[:-KEPT], *there[len(earlier) :]):
        old.unlink(missing_ok=True)
    return path


def write_good(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write the state that a run goes back to when its numbers are no longer finite, and keep the one before: the two
    checkpoints that are kept need no other."""
    write(folder / f"good-{step:09d}.safetensors", tensors, state)
    for old in sorted(folder.glob(GOOD))[:-KEPT]:
        old.unlink(missing_ok=True)


def read_good(folder: Path, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_good` wrote; raises ZooError as `read` does."""
    return read(folder / f"good-{step:09d}.safetensors")


def clear(folder: Path) -> None:
    """Remove what a finished run no longer needs."""
    for pattern in (PATTERN, GOOD):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def latest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint of a folder that is whole, None if there is none. What is damaged is passed over, and said.

    Raises:
        Unreachable: one cannot be read now; what it holds may be newer than what can.
    """
    damaged = False
    for path in sorted(folder.glob(PATTERN), reverse=True):
        try:
            return read(path)
        except Unreachable:
            raise
        except ZooError as error:
            damaged = True
            log.warning("%s", error)
    if damaged:
        log.warning("no checkpoint in %s is whole: the training starts again.", folder)
    return None


def _plain(tensor: Tensor) -> Tensor:
    # clone: safetensors refuses views that share memory, and a caller may go on training meanwhile.
    return tensor.detach().to("cpu").contiguous().clone()


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(name.encode(), crc)
        flat = tensors[name].reshape(-1)
        if flat.numel():
            crc = zlib.crc32(flat.view(torch.uint8).numpy(), crc)
    return crc
