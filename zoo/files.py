"""Files that are whole or absent: atomic writes, content hashes, and the place where assets are cached."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.errors import UsageError, one_line

#: What numpy raises of a file that is no whole npz of plain numbers.
BROKEN_NPZ = (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that becomes ``path`` when the block ends well, and vanishes otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = _held_part(path)
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk is met in a write, which knows no name
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)
        os.close(handle)


def sweep(folder: str | Path) -> None:
    """Remove the temporary files that writers which were killed have left in ``folder``; those of living ones, in
    whatever process, stay."""
    for part in Path(folder).glob(".*.part"):
        with contextlib.suppress(OSError), open(part, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _held_part(path: Path) -> tuple[int, Path]:
    # Its writer holds a lock on it, which the system frees when the writer dies: so `sweep` knows.
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):
            return handle, Path(name)
        os.close(handle)  # swept between the two calls


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Write ``content`` so that a reader, or a crash, sees the old file or the new one and nothing between."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_if_changed(path: str | Path, text: str) -> bool:
    """`atomic_write`, unless the file holds ``text`` already; whether it was written."""
    path = Path(path)
    changed = not path.exists() or path.read_bytes() != text.encode()
    if changed:
        atomic_write(path, text)
    return changed


@contextlib.contextmanager
def one_at_a_time(folder: str | Path, name: str = ".written-lock") -> Iterator[None]:
    """Hold a lock on ``folder`` inside the block: one process at a time reads there and writes what follows from it.
    ``name`` is the lock's file."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a file system without locks, or a folder that is only read
            os.makedirs(folder, exist_ok=True)
            file = held.enter_context(open(Path(folder) / name, "w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_writable(path: str | Path, folder: str | Path | None = None) -> None:
    """Raise `UsageError` that ``path`` cannot be written, where nothing can be in ``folder`` (or in ``path``, a folder
    itself), or, as long as that is not there, in the nearest folder above it. Nothing is left there."""
    start = Path(path if folder is None else folder).absolute()
    there = next((part for part in (start, *start.parents) if os.path.exists(part)), start)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}).") from None


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values have equal text. NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """The SHA-256 of plain values, by way of their canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def npz_error(path: Path, error: Exception) -> UsageError:
    """The sentence for one of `BROKEN_NPZ` that numpy raised of ``path``. What is no zip at all it takes for pickled
    objects, and says how to load them."""
    if isinstance(error, OSError) and error.errno:
        return UsageError(f"{path} cannot be read ({error.strerror}).")
    said = error if zipfile.is_zipfile(path) else "an npz is a zip file, and this is none, or not all of one"
    return UsageError(f"{path} is not an npz of plain numbers: {one_line(said).rstrip('.')}.")


def expanded(path: str | Path) -> Path:
    """``path`` with the folder of a user in place of ``~`` or ``~name``; `UsageError` where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"'{path}' is in the folder of a user that is not known here.") from None


def cache_dir() -> Path:
    """Where assets live: ``$VAE_ZOO_CACHE``, else ``$XDG_CACHE_HOME/vae-zoo``, else ``~/.cache/vae-zoo``."""
    if chosen := os.environ.get("VAE_ZOO_CACHE"):
        return expanded(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vae-zoo"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # A rename is only durable once the folder that holds the name is on disk too.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
