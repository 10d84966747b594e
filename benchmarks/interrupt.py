"""Ctrl-C once: stop at the next step with everything saved. Twice: stop now.

Training is handed a function that says whether to stop. An evaluation is many loops in many files, most of which are of
use without it too, and so is the reading of images: they pass through `zoo.stopping`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from zoo import stopping

Item = TypeVar("Item")
WHERE = "in the middle of an evaluation (the trained model is kept)"


@contextlib.contextmanager
def graceful() -> Iterator[Callable[[], bool]]:
    """A function that says whether a stop was asked for by SIGINT or SIGTERM since the block began; what is `stoppable`
    asks it too."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        asked = True
        print("stopping at the next step; once more stops now.", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with stopping.stopping_when(lambda: asked) as should_stop:
            yield should_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stoppable(items: Iterable[Item]) -> Iterator[Item]:
    """``items`` of an evaluation, each of them a place to stop."""
    return stopping.stoppable(items, WHERE)


def stop_if_asked() -> None:
    """A place to stop in an evaluation, for what is no loop."""
    stopping.stop_if_asked(WHERE)
