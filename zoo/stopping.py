"""A stop that somebody asked for, as loops hear of it that nobody hands anything: those that read, draw or measure.

They pass through `stoppable`, which does nothing unless somebody further up said `stopping_when`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TypeVar

from zoo.context import holding
from zoo.errors import ZooError

Item = TypeVar("Item")
_should_stop: ContextVar[Callable[[], bool] | None] = ContextVar("_should_stop", default=None)


class Stopped(ZooError):
    """Somebody asked for a stop: what is on disk is whole, and the same call goes on from it."""


def stopping_when(should_stop: Callable[[], bool]) -> AbstractContextManager[Callable[[], bool]]:
    """Inside the block `stoppable` loops ask ``should_stop`` and raise `Stopped` if it says so, or if what is asked
    outside of the block does. The block is given the function that asks both."""
    outer = _should_stop.get()
    alone = outer is None or outer is should_stop
    return holding(_should_stop, should_stop if alone else lambda: should_stop() or outer())


def stoppable(items: Iterable[Item], where: str) -> Iterator[Item]:
    """``items``, each of them a place to stop; ``where`` is as for `stop_if_asked`."""
    for item in items:
        stop_if_asked(where)
        yield item


def stop_if_asked(where: str) -> None:
    """A place to stop, for what is no loop; ``where`` ends the sentence that says so."""
    should_stop = _should_stop.get()
    if should_stop is not None and should_stop():
        raise Stopped(f"stopped at the user's request, {where}.")
