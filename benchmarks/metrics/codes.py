"""Codes beside their ground-truth factors: what every disentanglement metric looks at, checked once.

A metric that only needs a sample takes `Codes`; one that must set a factor by hand (beta-VAE and FactorVAE
score) takes a `FactorSpace`, which can represent any combination of factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from zoo.errors import UsageError

MEASURED_BINS = 20  # equal-frequency bins of a measured factor, where a metric needs classes
MOST_SIZE = 1e15  # of a latent: the squares of 10^8 such numbers still add up in float32
MOST_VALUES = 256  # an integer factor with more distinct values than this is a measurement, not classes
MOST_GRID_POINTS = 2_000_000  # codes of all factor combinations are kept up to here (dSprites has 737 280)
OBSERVATION_BATCH = 16  # the reference's batch: it fixes the order in which factors are drawn, nothing else


class Undefined(UsageError):
    """A metric has no value on these codes (one latent, a constant latent, a missing class); says why."""


@dataclass(frozen=True)
class Codes:
    """A training and a test sample of codes with their factors.

    ``z_*`` (N, D) float32 or float64, kept as given; ``factors_*`` (N, F) numbers. A factor is *exact*
    (classes, attributes, grid indices: integers, at most 256 of them) or *measured* (anything else). Metrics
    that need classes see a measured factor in 20 equal-frequency bins, cut on the training sample.

    Raises:
        UsageError: not finite, latents beyond 1e15, not two-dimensional, shapes that do not fit.
        Undefined: fewer than two samples, a constant factor.
    """

    z_train: np.ndarray
    factors_train: np.ndarray
    z_test: np.ndarray
    factors_test: np.ndarray
    factor_names: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        for name in ("z_train", "factors_train", "z_test", "factors_test"):
            object.__setattr__(self, name, as_matrix(name, getattr(self, name), floating=name.startswith("z_")))
        for part in ("train", "test"):
            z, factors = getattr(self, f"z_{part}"), getattr(self, f"factors_{part}")
            if len(z) != len(factors):
                raise UsageError(f"z_{part} has {len(z)} rows but factors_{part} has {len(factors)}")
            if len(z) < 2:
                raise Undefined(f"z_{part} has {len(z)} sample(s); a score needs at least two")
        for kind, what in (("z", "latents"), ("factors", "factors")):
            train, test = (getattr(self, f"{kind}_{part}").shape[1] for part in ("train", "test"))
            if train != test:
                raise UsageError(f"{kind}_train has {train} {what} but {kind}_test has {test}")
        names = tuple(str(name) for name in self.factor_names) or tuple(
            f"factor_{k}" for k in range(self.factors_train.shape[1])
        )
        if len(names) != self.factors_train.shape[1]:
            raise UsageError(f"{len(names)} factor names for {self.factors_train.shape[1]} factors")
        object.__setattr__(self, "factor_names", names)
        for k, name in enumerate(names):
            if (self.factors_train[:, k] == self.factors_train[0, k]).all():
                raise Undefined(f"factor '{name}' has a single value in factors_train: leave it out")

    @cached_property
    def constant_latents(self) -> list[int]:
        """Columns of ``z_train`` that never change."""
        return [int(d) for d in np.flatnonzero(np.ptp(self.z_train, axis=0) == 0)]

    @cached_property
    def measured(self) -> tuple[bool, ...]:
        """For each factor, whether it is a measurement (binned where classes are needed) or exact."""
        pairs = zip(self.factors_train.T, self.factors_test.T, strict=True)
        return tuple(_is_measured(train, test) for train, test in pairs)

    @cached_property
    def classes_train(self) -> np.ndarray:
        """(N, F) int64 class of each training example, 0 to K-1 for each factor."""
        return self._classes[0]

    @cached_property
    def classes_test(self) -> np.ndarray:
        """(N, F) int64 class of each test example; -1 for a value that the training sample does not have."""
        return self._classes[1]

    @cached_property
    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        columns = [
            _bins(a, b) if measured else _values(a, b)
            for a, b, measured in zip(self.factors_train.T, self.factors_test.T, self.measured, strict=True)
        ]
        train, test = zip(*columns, strict=True)
        return np.stack(train, axis=1), np.stack(test, axis=1)

    @cached_property
    def fitted(self) -> dict[Any, Any]:
        """What `benchmarks.metrics.dci.fitted` keeps of these codes, by estimator."""
        return {}

    def identity(self) -> dict[str, str | int | float]:
        """What any score of these codes must be read with: sizes, precision, which factors, how cut."""
        names = self.factor_names
        kinds = [f"{name}:measured" if m else name for name, m in zip(names, self.measured, strict=True)]
        return {
            "n_train": len(self.z_train),
            "n_test": len(self.z_test),
            "latents": self.z_train.shape[1],
            "dtype": str(self.z_train.dtype),
            "factors": ",".join(kinds),
            **({"measured_bins": MEASURED_BINS} if any(self.measured) else {}),
        }


def as_matrix(name: str, array: np.ndarray, floating: bool) -> np.ndarray:
    """``array`` as a finite two-dimensional array of numbers; codes keep single or double precision."""
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{name} holds {array.dtype}, not numbers")
    if array.ndim != 2 or array.shape[1] == 0:
        raise UsageError(f"{name} has shape {array.shape}; it must be (samples, columns)")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        place = f"row {bad[0][0]}, column {bad[0][1]}"
        raise UsageError(f"{name} has {len(bad)} value(s) that are not finite, the first at {place}")
    if floating and array.size and (largest := max(abs(float(array.max())), abs(float(array.min())))) > MOST_SIZE:
        raise UsageError(f"{name} has a value of size {largest:.3g}; the metrics take codes up to {MOST_SIZE:g}")
    if floating and array.dtype not in (np.float32, np.float64):
        return array.astype(np.float64)
    return array


def _is_measured(train: np.ndarray, test: np.ndarray) -> bool:
    if train.dtype.kind == "f" and not (np.all(train == np.rint(train)) and np.all(test == np.rint(test))):
        return True
    return len(np.unique(train)) > MOST_VALUES


def _values(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, classes = np.unique(train, return_inverse=True)
    place = np.searchsorted(values, test).clip(max=len(values) - 1)
    return classes.astype(np.int64), np.where(values[place] == test, place, -1).astype(np.int64)


def _bins(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inner = np.quantile(train, np.linspace(0, 1, MEASURED_BINS + 1)[1:-1])
    cut = np.searchsorted(inner, train, side="right")
    bins, classes = np.unique(cut, return_inverse=True)  # ties (many zeros, say) leave some bins empty
    place = np.searchsorted(bins, np.searchsorted(inner, test, side="right")).clip(max=len(bins) - 1)
    return classes.astype(np.int64), place.astype(np.int64)


@dataclass(frozen=True)
class FactorSpace:
    """A full grid of factors together with the code of every combination.

    ``sizes`` the number of values of each factor, ``names`` theirs, ``represent`` maps factor indices (N, F)
    int64 to codes (N, D): render, encode, take the mean. It must be a function of the factors alone.
    """

    sizes: tuple[int, ...]
    names: tuple[str, ...]
    represent: Callable[[np.ndarray], np.ndarray]
    table: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes))
        object.__setattr__(self, "names", tuple(self.names))
        if len(self.sizes) != len(self.names):
            raise UsageError(f"{len(self.names)} factor names for {len(self.sizes)} factors")
        for name, size in zip(self.names, self.sizes, strict=True):
            if size < 2:
                raise UsageError(f"factor '{name}' has {size} value(s): leave it out of the factor space")

    def codes(self, factors: np.ndarray) -> np.ndarray:
        """Codes (..., D) of factor indices (..., F)."""
        if self.table is not None:
            strides = np.cumprod((1, *self.sizes[:0:-1]))[::-1]
            return self.table[factors @ strides]
        flat = factors.reshape(-1, factors.shape[-1])
        codes = np.asarray(self.represent(flat))
        if codes.ndim != 2 or len(codes) != len(flat) or not np.isfinite(codes).all():
            raise UsageError(f"represent gave {codes.shape} codes, or not finite ones, for {len(flat)} factors")
        return codes.reshape(*factors.shape[:-1], codes.shape[1])

    def cached(self, wanted: int, batch: int = 4096) -> FactorSpace:
        """The same space with every combination encoded once, if ``wanted`` encodes are more work."""
        points = prod(self.sizes)
        if self.table is not None or points > min(wanted, MOST_GRID_POINTS):
            return self
        parts = []
        for start in range(0, points, batch):
            numbers = np.arange(start, min(start + batch, points))
            parts.append(self.codes(np.stack(np.unravel_index(numbers, self.sizes), axis=1)))
        return replace(self, table=np.concatenate(parts))

    def draw(self, n: int, random: np.random.RandomState, batch: int = OBSERVATION_BATCH) -> np.ndarray:
        """(n, F) uniform indices with replacement, drawn as the reference does: factor by factor in a batch.

        One call for all batches: the legacy generator draws an array of bounds in C order, each as a scalar
        draw.
        """
        parts = []
        for size, count in ((batch, n // batch), (n % batch, 1)):
            if size and count:
                bounds = np.repeat(self.sizes, size)
                drawn = random.randint(0, bounds, size=(count, len(bounds)), dtype=np.int64)
                by_example = drawn.reshape(count, len(self.sizes), size).transpose(0, 2, 1)
                parts.append(by_example.reshape(-1, len(self.sizes)))
        return np.concatenate(parts)

    def sample(self, n_train: int = 10_000, n_test: int = 5_000, seed: int = 0) -> Codes:
        """Codes at the reference's default sizes: the same draw as the reference's for the same seed."""
        random = np.random.RandomState(seed)
        train, test = self.draw(n_train, random), self.draw(n_test, random)
        return Codes(self.codes(train), train, self.codes(test), test, self.names)
