"""What holds inside of a block, for whatever is called there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def holding(variable: ContextVar[T], value: T) -> Iterator[T]:
    """Inside the block ``variable`` is ``value``, which the block is given; afterwards it is what it was."""
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)
