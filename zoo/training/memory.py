"""What a CPU does with freed memory, and the most that a training held: on the GPU what tensors took, on a CPU what
the whole process did.

glibc gives freed memory back to the system after nearly every step, and the next step has each page made and zeroed
anew: up to a seventh of the time of a training whose activations take some megabytes. `keep_freed` ends that.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any

import torch

# Of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER, KEPT = -1, 1 << 30
# By these a user says how malloc is to behave, who then is not overruled.
ASKED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


@functools.cache
def keep_freed() -> bool:
    """Have the process keep what it frees, up to 1 GiB at once, for what it allocates next, from now on; false where
    malloc is not glibc's, or the environment says how it is to behave."""
    if any(name in os.environ for name in ASKED):
        return False
    set_option = _of_malloc("mallopt")
    return set_option is not None and bool(
        set_option(M_MMAP_THRESHOLD, KEPT) and set_option(M_TRIM_THRESHOLD, NEVER)
    )


def give_back() -> None:
    """Return what is kept and free to the system, once."""
    trim = _of_malloc("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _of_malloc(name: str) -> Any:
    with contextlib.suppress(OSError, AttributeError):
        return getattr(ctypes.CDLL(None), name)
    return None


def reset_peak(device: torch.device) -> None:
    """Begin to measure: what was held before does not count, where the system can forget it (CUDA, Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    give_back()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes: the largest allocation on the GPU, or the largest resident size of the process, since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if peak := _status("VmHWM"):
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_memory() -> int | None:
    """Bytes that the process holds now, or None where the system has no /proc."""
    return _status("VmRSS")


def _status(field: str) -> int | None:
    with contextlib.suppress(OSError):
        found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
        return int(found[1]) * 1024 if found else None
    return None
