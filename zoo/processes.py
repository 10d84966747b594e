"""Sums over the processes that train one run: for the trainer, and for what no gradient moves."""

from __future__ import annotations

from collections import deque

import torch.distributed as dist
from torch import Tensor

# What gloo's two threads may still hold. One that is the last to let go of a tensor needs Python's lock, which PyTorch
# 2.6 does not give away while it waits for those threads to end: a run that was finished could hang there.
_latest: deque[Tensor] = deque(maxlen=2)


def several() -> bool:
    """Whether this process trains its run together with others."""
    return dist.is_available() and dist.is_initialized()


def add(tensor: Tensor) -> Tensor:
    """Sum over `several` processes, in place; the same bits on each."""
    _latest.append(tensor)
    dist.all_reduce(tensor)
    return tensor


def parted() -> None:
    """Let go of what was added up last: the processes are together no more."""
    _latest.clear()
