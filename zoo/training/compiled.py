"""The losses of a step compiled, and as they are where the compiler fails."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.base import VAE, Progress, moving

T = TypeVar("T")


@functools.cache
def has_compiler() -> bool:
    """Whether there is a C++ compiler, without which torch.compile can do nothing for a processor."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++"))


class Compiled:
    """A function of a model's losses, compiled at its first call. It draws the same noise as the function that is not
    compiled, so that the two differ by rounding alone.

    Args:
        measured: of model, images, labels and progress; whatever it returns.
        give_up: told in a sentence why it cannot be compiled, when a step finds that out; from then on steps are to
            call ``measured``. None raises in its place.
        backend: what compiles it.
    """

    def __init__(
        self,
        measured: Callable[..., Any],
        give_up: Callable[[str], None] | None = None,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        def at(
            model: VAE, x: Tensor, y: Tensor | None, warmup: Tensor, fraction: Tensor | None, stage: Hashable
        ) -> Any:
            return measured(model, x, y, moving(warmup, fraction, stage))

        self._give_up = give_up
        self._stages: set[Hashable] = set()  # of which a step has worked
        torch.compiler.reset()  # the compiler gives up on a function that it has met with eight other models
        options = {"fallback_random": True} if backend == "inductor" else None
        # Each size of a part has code of its own: which of two would answer depends on what was called before a kill.
        self._compiled = torch.compile(at, backend=backend, options=options, dynamic=False)

    def __call__(self, model: VAE, x: Tensor, y: Tensor | None, progress: Progress | Tensor) -> Any:
        return self._compiled(model, x, y, *_on_device(model, x, progress))

    def attempt(self, model: VAE, progress: Progress | Tensor, step: Callable[[], T]) -> T:
        """Take ``step()``, which calls this with ``model`` and then takes the gradient. Where the compiler fails in
        either, which it does at the first step of a stage, give it up, undo what the step changed and take it again.

        Raises:
            UsageError: it fails, and there is no ``give_up``.
        """
        stage = model.stage_of(progress)
        if stage in self._stages:
            return step()
        from torch._dynamo.exc import TorchDynamoException

        # Nothing to go back to is kept where nobody goes back: on a GPU it would be captured.
        buffers = [buffer.clone() for buffer in model.buffers()] if self._give_up else []
        drawn = torch.get_rng_state()
        try:
            found = step()
        except TorchDynamoException as error:
            reason = f"the losses cannot be compiled ({(str(error).splitlines() or [''])[0].rstrip('.')})"
            if self._give_up is None:
                raise UsageError(f"{reason}; train.compile=false trains them as they are.") from error
            torch.set_rng_state(drawn)
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
            self._give_up(reason)
            found = step()
        self._stages.add(stage)
        return found


def _on_device(model: VAE, x: Tensor, progress: Progress | Tensor) -> tuple[Tensor, Tensor | None, Hashable]:
    # A compiler takes a float for a constant, and compiles each step of a warm-up anew; a tensor it takes as it comes.
    if isinstance(progress, Tensor):
        return progress, progress.fraction, progress.stage
    fraction = None if progress.fraction is None else x.new_full((), progress.fraction, dtype=torch.float32)
    return x.new_full((), progress, dtype=torch.float32), fraction, model.stage(progress)
