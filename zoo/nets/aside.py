"""Running a model beside its training."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import nn

SEED = 0


@contextlib.contextmanager
def aside(model: nn.Module, training: bool = False) -> Iterator[None]:
    """Inside the block ``model`` is in evaluation mode (with ``training`` in training mode), and random numbers come
    from a seed of their own; afterwards the mode of every module and the global random state are as before."""
    modes = {module: module.training for module in model.modules()}
    place = next(itertools.chain(model.parameters(), model.buffers())).device
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.manual_seed(SEED)
        model.train(training)
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
