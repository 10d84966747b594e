"""Ctrl-C once: stop at the next step with everything saved. Twice: stop now."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator


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
