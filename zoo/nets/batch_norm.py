"""Batch normalisation's statistics for evaluation, collected anew from the weights that are evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.nets.aside import aside


@torch.no_grad()
def recollect(
    model: nn.Module, batches: Iterable[tuple[Tensor, Any]], forward: Callable[[Tensor, Any], Any]
) -> None:
    """Replace the running averages of every batch-norm layer by the plain mean over ``batches``.

    A running average lags behind the weights, and remembers weights that are gone (or, with averaged weights,
    never were). Sonderby et al. (2016) therefore collect the statistics again before every test; so does
    this.

    Args:
        model: any module; its training mode and its layers' momenta are as before afterwards.
        batches: shuffled training batches (x, y) of the training batch size. Read to the end; one that is smaller than
            the first is left out, since each counts the same and one example has no variance.
        forward: called with every batch, the layers in training mode; runs everything that evaluation runs.

    The global random state is the same afterwards: noise and bits drawn here come from a seed of their own,
    so collecting changes no training run.
    """
    layers = [
        layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats
    ]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    with aside(model, training=True):
        for layer in layers:
            layer.reset_running_stats()
            # None is torch's word for a cumulative average.
            layer.momentum = None
        try:
            size = None
            for x, y in batches:
                size = size or len(x)
                if len(x) == size:
                    forward(x, y)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
