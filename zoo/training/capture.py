"""A step as one CUDA graph: what a small network costs on a GPU is the launching of its kernels, one by one.

The first calls run as they are, on a side stream as capturing wants it, and are steps like any other; then the step is
captured once and replayed from then on. What changes from step to step is looked up on the device (`Table`), which
also keeps what each step gave, so that a step costs the host one launch. Random numbers are drawn inside: a graph
moves the generators that it was captured with, and draws what the step alone would draw.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WARM_UP = 3
Step = Callable[[], None]
# (step, the generators that it draws from besides the device's own) -> replay it
Recorder = Callable[[Step, Sequence[torch.Generator]], Callable[[], None]]
_WAITING = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "item"})
_COPYING = frozenset({"_to_copy", "copy_"})
_INDEXING = frozenset({"index", "index_put", "index_put_"})


class CannotCapture(Exception):
    """The step does something that no graph can: it waits for the device, most often."""


class Captured:
    """Calls ``step`` a few times to warm up, then captures it and replays the capture from then on.

    Args:
        step: everything that it reads and writes lies in the same place at every call.
        device: where it runs.
        generators: what it draws from besides the generator of the device.
        record: what captures; None takes CUDA graphs on a GPU and captures nothing on a CPU.
    """

    def __init__(
        self,
        step: Step,
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
        record: Recorder | None = None,
    ) -> None:
        self.step, self.device, self.generators = step, device, generators
        # Its own: a library's scratch memory belongs to a stream, and graphs that run at once may not share it.
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.record = record or (_cuda_graph if device.type == "cuda" else None)
        self.forget()

    def forget(self) -> None:
        """Capture anew: what the step reads or writes lies elsewhere now."""
        self.calls = 0
        self.replay: Callable[[], None] | None = None

    def __call__(self) -> None:
        """One step.

        Raises:
            CannotCapture: and nothing was done.
        """
        if self.record is None:
            return self.step()
        if self.replay is None and self.calls < WARM_UP:
            self.calls += 1
            return self._aside()
        if self.replay is None:
            try:
                with self.on_its_stream():
                    self.replay = self.record(self.step, self.generators)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise CannotCapture(str(error)) from error
        self.replay()

    def _aside(self) -> None:
        with self.on_its_stream():
            self.step()

    @contextlib.contextmanager
    def on_its_stream(self) -> Iterator[None]:
        """What is queued inside the block is queued after what the caller had queued, and before what comes later."""
        if self.stream is None:
            yield
            return
        callers = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(callers)
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:  # also of a step that fails half way, which is then taken back
            callers.wait_stream(self.stream)


class Table:
    """The inputs and results of an epoch's steps on the device, a row each, and a counter that each step moves on.

    Args:
        steps: of an epoch.
        batch: examples of a step.
        numbers: how many numbers a step is told (its learning rate, say).
        results: how many numbers come of a step.
    """

    def __init__(self, steps: int, batch: int, numbers: int, results: int, device: torch.device) -> None:
        self.order = torch.zeros(steps, batch, dtype=torch.int64, device=device)
        self.schedule = torch.zeros(steps, numbers, device=device)
        self.results = torch.zeros(steps, results, device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)

    def begin(self, order: Tensor, schedule: list[list[float]], start: int) -> None:
        """Put in an epoch, (steps, batch) example numbers and (steps, numbers), and go to its step ``start``."""
        self.order.copy_(order)
        self.schedule.copy_(torch.tensor(schedule))
        self.at.fill_(start)

    def here(self) -> tuple[Tensor, Tensor]:
        """The examples (batch,) and the numbers (numbers,) of this step."""
        return self.order.index_select(0, self.at).squeeze(0), self.schedule.index_select(0, self.at).squeeze(0)

    def leave(self, results: Tensor) -> None:
        """Keep the results (results,) of this step and go to the next one."""
        self.results.index_copy_(0, self.at, results.unsqueeze(0))
        self.at += 1


@contextlib.contextmanager
def rehearsal(device: torch.device, watched: bool = True) -> Iterator[None]:
    """Raise `CannotCapture` where the block waits for the device, before a graph that is half captured would.

    Operations are ``watched`` one by one, which a compiled function does not bear; a GPU tells by itself of most.
    """
    on_gpu = device.type == "cuda"
    before = torch.cuda.get_sync_debug_mode() if on_gpu else 0
    if on_gpu:
        torch.cuda.set_sync_debug_mode("error")
    try:
        with _NoWaiting() if watched else contextlib.nullcontext():
            yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        raise CannotCapture("an operation waits for the device") from error
    finally:
        if on_gpu:
            torch.cuda.set_sync_debug_mode(before)


class _NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in _INDEXING and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in _WAITING or by_mask:
            raise CannotCapture(f"{name} waits for the device")
        made = func(*args, **(kwargs or {}))
        if name in _COPYING:
            here = {value.device.type for value in (*args[:2], made) if isinstance(value, Tensor)}
            if len(here) > 1:
                raise CannotCapture(f"{name} goes from one device to another, and waits for it")
        return made


def _cuda_graph(step: Step, generators: Sequence[torch.Generator]) -> Callable[[], None]:
    try:
        graph = _recorded(step, generators)
    except BaseException:
        # Up to PyTorch 2.11 generators that were in a capture that failed, and graphs that they are in, are of no use
        # until they were in one that did not fail. The device's own is in every one.
        with contextlib.suppress(RuntimeError):
            _recorded(functools.partial(torch.zeros, 1, device="cuda"), generators)
        raise
    return graph.replay


def _recorded(step: Callable[[], Any], generators: Sequence[torch.Generator]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    if hasattr(graph, "register_generator_state"):  # newer ones find out by themselves
        for generator in generators:
            graph.register_generator_state(generator)
    # Other threads (whoever reports progress) may go on with what they do.
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        step()
    return graph
