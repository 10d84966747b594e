"""The exponential moving average of the weights, evaluated in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Average:
    """A moving average of every floating tensor of a model's state, buffers included.

    The decay rises as (1 + n) / (10 + n) to its final value, so that short runs are not stuck at their start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.live = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
        self.tensors = {name: value.detach().clone() for name, value in self.live.items()}

    def weight(self, updates: int) -> float:
        """What the live weights count for in the update after ``updates`` others."""
        return 1 - min(self.decay, (1 + updates) / (10 + updates))

    @torch.no_grad()
    def blend(self, weight: float | Tensor) -> None:
        """One update with a `weight`, a number or 0-dim on the device; it is not counted."""
        averaged, live = list(self.tensors.values()), list(self.live.values())
        if isinstance(weight, Tensor):
            difference = torch._foreach_sub(live, averaged)
            torch._foreach_mul_(difference, weight)
            torch._foreach_add_(averaged, difference)
        else:
            torch._foreach_lerp_(averaged, live, weight)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the block."""
        kept = {name: value.detach().clone() for name, value in self.live.items()}
        _copy(self.live, self.tensors)
        try:
            yield
        finally:
            _copy(self.live, kept)

    def load(self, tensors: dict[str, Tensor]) -> None:
        _copy(self.tensors, tensors)


@torch.no_grad()
def _copy(into: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, tensor in into.items():
        tensor.copy_(values[name])
