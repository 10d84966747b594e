"""A graph's stand-in for a CPU: it writes down every operation of a step and does the same ones again.

As of a CUDA graph: what Python decided or computed while the step was recorded stays as it was then, and operations
read and write the memory that they had then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        before = {place(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        outputs = [value for value in tree_leaves(made) if isinstance(value, Tensor)]
        is_view = bool(outputs) and not func._schema.is_mutable and all(place(value) in before for value in outputs)
        if not is_view:
            fresh = [] if func._schema.is_mutable else outputs
            self.operations.append((func, args, kwargs or {}, fresh))
        return made


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def record(step: Callable[[], None], generators: Sequence[torch.Generator] = ()) -> Callable[[], None]:
    """Recording takes the step, so that the first replay has nothing to do."""
    tape = _Tape()
    with tape:
        step()
    replays = 0

    @torch.no_grad()
    def replay() -> None:
        nonlocal replays
        replays += 1
        if replays == 1:
            return
        for func, args, kwargs, fresh in tape.operations:
            made = [value for value in tree_leaves(func(*args, **kwargs)) if isinstance(value, Tensor)]
            for old, new in zip(fresh, made, strict=False):
                old.copy_(new)

    return replay
