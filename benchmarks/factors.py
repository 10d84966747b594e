"""Disentanglement of a run's codes, where its data has factors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zoo.runs import Run


def disentanglement(run: Run, representation: Tensor) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Metrics and skipped metrics in the record's format for the codes (N, D) of the evaluated split.

    Classes of a data set without other factors are not factors: a code that separates ten digits is not thereby
    disentangled.
    """
    images = run.images[run.config.evaluate.split]
    if images.factors is None:
        return {}, {"disentanglement": "needs factors"}
    return {}, {"disentanglement": "not wired yet"}
