"""How often a cell was tried, and what a failure means: for memory there is a smaller second try, for a process that
died another one, and what one worker saw fail its neighbours do not try again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zoo.config import RunConfig
from zoo.files import atomic_write

FILE = "attempt.json"
# A process that dies takes its reason along. Twice may be bad luck (somebody else's memory); then it is the cell.
DEATHS = 2
# What the system says when the place for files is the trouble, and no cell is.
FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)
SMALLER = 4


@dataclass(frozen=True)
class Attempt:
    """What is known of a cell's tries by one harness, which is one call of the command with all of its workers."""

    harness: str
    number: int
    ended: bool
    oom_kills: int
    short_of_memory: bool = False
    when: str = ""


def begin(folder: Path, harness: str, recorded: str = "") -> Attempt | None:
    """Note that this harness tries the cell of ``folder``; the caller holds the cell's lock.

    None if it tried the cell before and the outcome is recorded: the record of the moment ``recorded`` is of that try.
    A process that died left no record, or an older one.
    """
    before = _read(folder)
    mine = before is not None and before.harness == harness
    if mine and before.ended and before.when == recorded:
        return None
    kills = oom_kills()
    attempt = Attempt(
        harness=harness,
        number=before.number + 1 if mine else 1,
        ended=False,
        oom_kills=kills,
        short_of_memory=mine and (before.short_of_memory or kills > before.oom_kills),
    )
    _write(folder, attempt)
    return attempt


def end(folder: Path, attempt: Attempt, when: str = "") -> None:
    """Note that the cell has an outcome, of the moment ``when``."""
    _write(folder, replace(attempt, ended=True, when=when))


def take_back(folder: Path, attempt: Attempt) -> None:
    """Note that the cell was not tried after all: its process lives, and another has the cell or is to have it."""
    with contextlib.suppress(OSError):
        _write(folder, replace(attempt, number=attempt.number - 1))


def is_about_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short, on the GPU or the host."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(re.search(r"out of memory|can't allocate memory", str(error)))


def breaks_device(error: BaseException) -> bool:
    """Whether a GPU is of no use to this process any more: after such an error every later call fails as well."""
    import torch

    kind = getattr(torch, "AcceleratorError", ())
    about = isinstance(error, kind) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))
    return about and not is_about_memory(error)


def is_about_disk(error: BaseException) -> bool:
    """Whether an error says that files cannot be written here: the trouble of every cell and the failure of none."""
    return isinstance(error, OSError) and error.errno in FULL_OR_CLOSED


def free_memory() -> None:
    """Give back what the process holds of what is not used any more, on the GPU too."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def smaller(config: RunConfig) -> RunConfig:
    """The same run in less memory: parts of a batch at once, fewer rows in evaluation. Its numbers are the same but for
    rounding, and so is its identity."""
    train, evaluate = config.train, config.evaluate
    part = max(1, min(train.micro_batch or train.batch_size, train.batch_size) // SMALLER)
    fewer = evaluate.model_copy(update={"rows": max(min(64, evaluate.rows), evaluate.rows // SMALLER)})
    return with_parts(config, part).model_copy(update={"evaluate": fewer})


def with_parts(config: RunConfig, micro_batch: int | None) -> RunConfig:
    """The same run with another number of examples at once in training."""
    return config.model_copy(update={"train": config.train.model_copy(update={"micro_batch": micro_batch})})


def oom_kills() -> int:
    """How many processes the system has killed for memory so far, as far as it tells."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            found = re.search(r"^oom_kill (\d+)$", Path(path).read_text(), re.M)
        except OSError:
            continue
        if found:
            return int(found[1])
    return 0


_DATA = ("VAE_ZOO_", "XDG_CACHE_HOME")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD")
_LOOKS_SECRET = re.compile(r"\bwandb_v\d_\w{20,}|\b[0-9a-f]{40}\b|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")


def publishable(lines: list[str]) -> list[str]:
    """Lines of a log without where this machine keeps its files and without keys: a record is published."""
    root = str(Path(__file__).resolve().parents[2])
    home = str(Path.home())
    places = _places()
    secrets = [value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= 8]
    kept = []
    for line in lines:
        for secret in secrets:
            line = line.replace(secret, "***")
        line = _LOOKS_SECRET.sub("***", line)
        for place, name in places:
            line = line.replace(place, name)
        kept.append(line.replace(root + "/", "").replace(home, "~"))
    return kept


def _places() -> list[tuple[str, str]]:
    """Folders of this machine that may lie outside of home, each with its name for whoever is elsewhere: those that
    variables name for data and the cache, and Python's environment; what lies within another first."""
    found = {sys.prefix: "$VIRTUAL_ENV"} if sys.prefix != sys.base_prefix else {}
    for variable, value in os.environ.items():
        path = Path(os.path.expanduser(value)) if variable.startswith(_DATA) and value else Path()
        if path.is_absolute() and path != Path(path.anchor):
            found |= dict.fromkeys((str(path), str(path.resolve())), f"${variable}")
    return sorted(found.items(), key=lambda place: -len(place[0]))


def _read(folder: Path) -> Attempt | None:
    try:
        content: Any = json.loads((folder / FILE).read_bytes()[:4096])
        attempt = Attempt(**content)
        whole = isinstance(attempt.number, int) and isinstance(attempt.oom_kills, int)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return attempt if whole else None


def _write(folder: Path, attempt: Attempt) -> None:
    atomic_write(folder / FILE, json.dumps(asdict(attempt)) + "\n")
