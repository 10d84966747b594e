"""Several runs trained beside each other in one process, each on a stream of its own.

A small network fills a fiftieth of a GPU, and most of its step is waiting for one kernel after the other. Captured
steps cost the host a launch each, so that one thread keeps many streams busy: the runs may be of any variants and
recipes, and each is, bit for bit, the run that it is alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch

from zoo.training.trainer import Diverged, Result, Stopped, Trainer

# PyTorch has 32 streams and hands them out in turn. A run takes one to be queued on and one a stage to be captured on,
# and two graphs with one stream have one scratch memory, which may not be used at once.
AT_ONCE = 10


def fit_beside(
    trainers: Sequence[Trainer], ended: Callable[[Trainer, Result | Diverged], None] = lambda trainer, result: None
) -> list[Result | Diverged]:
    """`Trainer.fit` of all, a step of each in turn, `AT_ONCE` of them and then the next ones. On a GPU, for a CPU's
    runs share one random generator. ``ended`` is told of each when it is at its end, so that nothing that comes to the
    others takes its result.

    Raises:
        Stopped: every run that had begun and was not at its end has written its checkpoint.
    """
    lots = [trainers[low : low + AT_ONCE] for low in range(0, len(trainers), AT_ONCE)]
    return [result for lot in lots for result in _fit_lot(lot, ended)]


def _fit_lot(
    trainers: Sequence[Trainer], ended: Callable[[Trainer, Result | Diverged], None]
) -> list[Result | Diverged]:
    walks = [on_stream(trainer.run(), trainer.compute.device) for trainer in trainers]
    results: dict[int, Result | Diverged] = {}
    stopped: Stopped | None = None
    open_ones = set(range(len(trainers)))
    while open_ones:
        for index in sorted(open_ones):
            try:
                next(walks[index])
                continue
            except StopIteration:
                result = trainers[index].result()
                results[index] = dataclasses.replace(result, together=len(trainers))
            except Diverged as lost:
                results[index] = lost
            except Stopped as asked:
                stopped = asked
            open_ones.discard(index)
            if index in results:
                ended(trainers[index], results[index])
    if stopped:
        raise stopped
    return [results[index] for index in range(len(trainers))]


def on_stream(walk: Iterator[None], device: torch.device) -> Iterator[None]:
    """``walk``, whose work is queued on a stream of its own; whoever asks for an item stays on theirs."""
    if device.type != "cuda":
        yield from walk
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    ended = object()
    while True:
        with torch.cuda.stream(stream):
            item = next(walk, ended)
        if item is ended:
            break
        yield
    stream.synchronize()
