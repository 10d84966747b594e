"""Feature vectors: what every sample-quality metric compares, checked once so that none is silently wrong."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.errors import UsageError

Features = Tensor
"""(n, D) float64 on the CPU, n >= 2, all finite: one row an image, as `as_features` returns it."""


class Estimate(NamedTuple):
    """A value, its standard error (None: there is none), how many it is over (mostly images), and a caveat."""

    value: float
    stderr: float | None
    n: int
    note: str | None = None


def in_range(images: Tensor) -> bool:
    """Whether floats lie in [0, 1] but for rounding; NaN does not."""
    return not images.numel() or bool((images.amin() >= -1e-6) & (images.amax() <= 1 + 1e-6))


def entry(
    estimate: Estimate, better: str | None, identity: dict[str, Any], unit: str = ""
) -> dict[str, Any]:
    """A metric in the format of a record."""
    return estimate._asdict() | {"unit": unit, "better": better, "identity": identity}


def mean_and_error(values: Tensor) -> Estimate:
    """Mean of (n,) values and its standard error, s / sqrt(n), in float64; no error where there is one value."""
    n, values = len(values), values.double()
    return Estimate(values.mean().item(), values.std().item() / math.sqrt(n) if n > 1 else None, n)


def as_features(features: Any, name: str = "features") -> Features:
    """Check and convert a (n, D) array or tensor to `Features`.

    Raises UsageError when it is not two-dimensional, has fewer than two rows, or holds a NaN or an infinity.
    """
    tensor = (
        features.detach()
        if isinstance(features, Tensor)
        else torch.from_numpy(np.ascontiguousarray(features))
    )
    tensor = tensor.to("cpu", torch.float64)
    if tensor.ndim != 2:
        raise UsageError(
            f"{name} must be a table of n images by D numbers, but the shape is {tuple(tensor.shape)}."
        )
    if tensor.shape[0] < 2:
        raise UsageError(
            f"{name} has {tensor.shape[0]} sample(s); a distribution needs at least 2 to be compared."
        )
    broken = int((~torch.isfinite(tensor)).any(dim=1).sum())
    if broken:
        raise UsageError(f"{name} has NaN or infinite numbers in {broken} of {tensor.shape[0]} rows.")
    return tensor


def as_pair(fake: Any, real: Any) -> tuple[Features, Features]:
    """Check two sets of features to be compared. Raises UsageError, also when their dimensions differ."""
    fake, real = as_features(fake, "the first feature set"), as_features(real, "the second feature set")
    if fake.shape[1] != real.shape[1]:
        sizes = f"{fake.shape[1]} and {real.shape[1]}"
        raise UsageError(f"the two feature sets have {sizes} dimensions; they need the same extractor.")
    return fake, real
