"""Numbers below float32's normal range, 1.2e-38, count as zero while a CPU trains.

Adam's mean gradient of a weight whose pixel is nearly always black shrinks by a tenth a step and, from some 800 steps
on, is such a number for good; so are the gradients of a sample of small importance weight. A processor takes a hundred
times as long for one of them, and no weight moves by it: the smallest step that float32 adds to a weight of 0.01 is
1e-9. A GPU computes with them at full speed and is left alone.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator

import torch

_SMALLEST = sys.float_info.min


def flushed() -> bool:
    """Whether they count as zero in this thread now."""
    return _SMALLEST / 2 == 0.0


@contextlib.contextmanager
def as_zero(device: torch.device) -> Iterator[None]:
    """Inside the block they count as zero where ``device`` is a CPU whose processor can do that: in this thread, and
    in PyTorch's others if `start_threads` started them."""
    if device.type != "cpu" or flushed():
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@functools.cache
def start_threads() -> None:
    """Have PyTorch start its threads, unless it has some, with such numbers counting as zero in them for good.

    A thread takes the mode from the one that starts it, and nothing changes it from outside later.
    """
    with as_zero(torch.device("cpu")):
        torch.zeros(torch.get_num_threads() << 16)  # large enough to be divided among all of them
