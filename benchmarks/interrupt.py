"""Ctrl-C once: stop at the next step with everything saved. Twice: stop now.

Training is handed a function that says whether to stop. An evaluation is many loops in many files, most of which are of
use without it too: they pass through `stoppable`, which does nothing unless somebody further up said `stopping_when`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from zoo.context import holding

Item = TypeVar("Item")
_should_stop: ContextVar[Callable[[], bool] | None] = ContextVar("benchmarks_should_stop", default=None)


@contextlib.contextmanager
def graceful() -> Iterator[Callable[[], bool]]:
    """A function that says whether a stop was asked for by SIGINT or SIGTERM since the block began."""
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
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopping_when(should_stop: Callable[[], bool]) -> contextlib.AbstractContextManager[Callable[[], bool]]:
    """Inside the block `stoppable` loops ask ``should_stop`` and raise `zoo.training.trainer.Stopped` if it says so."""
    return holding(_should_stop, should_stop)


def stoppable(items: Iterable[Item]) -> Iterator[Item]:
    """``items``, each of them a place to stop."""
    for item in items:
        stop_if_asked()
        yield item


def stop_if_asked() -> None:
    """A place to stop, for what is no loop."""
    should_stop = _should_stop.get()
    if should_stop is not None and should_stop():
        from zoo.training.trainer import Stopped

        raise Stopped("stopped at the user's request, in the middle of an evaluation (the trained model is kept).")
