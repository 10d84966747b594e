"""A training that is stopped again and again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TypeVar

from zoo.training.trainer import Stopped

T = TypeVar("T")


def in_pieces(train: Callable[[Callable[[], bool]], T], every: int = 1) -> tuple[T, int]:
    """What ``train(should_stop)`` returns, called again until it does, and how often it was stopped: each time that
    ``should_stop`` has been asked ``every`` times."""
    asked = count(1)
    for stops in range(1000):
        try:
            return train(lambda: next(asked) % every == 0), stops
        except Stopped:
            continue
    raise AssertionError("it does not come to its end")
