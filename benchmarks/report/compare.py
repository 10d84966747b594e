"""One number out of several seeds, and when two such numbers differ by more than their errors.

Two errors are kept apart. The *test-set standard error* says how far the number would move with other test
images; every seed is measured on the same images, so more seeds do not shrink it. The *spread over seeds*
says how far it would move if the model were trained again. Samples are each seed's own: where they are judged, the
spread has the error over samples as well, and both are added all the same, which errs towards a tie.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from benchmarks.record import Metric

Key = TypeVar("Key", bound=Hashable)

#: Runs that each of two variants needs before the order of all of them says anything.
SEPARABLE = 3

#: A spread of less than this part of the number is of the arithmetic.
ROUNDING = 1e-9

# Student's t, two-sided 95 % and 90 %, for 1 to 30 degrees of freedom; last what holds beyond: at 95 % the rule of two
# standard errors.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    2.0,
)  # fmt: skip
_T90 = (
    6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753,
    1.746, 1.740, 1.734, 1.729, 1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697,
    1.645,
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A mean over ``seeds`` runs, in the unit of the metric.

    ``stderr`` is the test-set standard error (None: unknown) over ``n`` items, ``spread`` the standard
    deviation over seeds (None: a single seed), ``runs`` the number that each seed came to, where that is known.
    """

    value: float
    stderr: float | None
    n: int
    seeds: int = 1
    spread: float | None = None
    runs: tuple[float, ...] = ()

    @property
    def has_error(self) -> bool:
        """Whether there is any error to compare by."""
        return self.stderr is not None or self.spread is not None


def estimate(metrics: Sequence[Metric]) -> Estimate:
    """The mean over seeds of one metric, one Metric a seed (at least one, all of the same identity).

    The test-set standard error of the mean is the mean of the seeds' standard errors: the images are shared,
    and for errors that are fully correlated that is exact, for others it is an upper bound.
    """
    values = [metric.value for metric in metrics]
    errors = [metric.stderr for metric in metrics if metric.stderr is not None]
    # Rounded, the mean of seven times 0.9998 is another number: of equal ones it is that one.
    mean = min(max(math.fsum(values) / len(values), min(values)), max(values))
    spread = None
    if len(values) > 1:
        spread = math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1)
    stderr = math.fsum(errors) / len(errors) if len(errors) == len(values) else None
    return Estimate(mean, stderr, min(metric.n for metric in metrics), len(values), spread, tuple(values))


def half_width(a: Estimate, b: Estimate, paired: float | None = None) -> float | None:
    """Half of a 95 % confidence interval of a - b, None where either is without any error, or where both have no other
    than the spread of runs that all came to one number.

    t * sqrt(v), where v adds the squared test-set standard errors of both and, where there are two
    seeds or more, spread^2 / seeds. t is 2, or Student's t (two-sided 95 %) at the degrees of freedom of
    Welch and Satterthwaite where seeds are few and their spread matters. A single run beside several is taken to be
    of their spread: without one of its own it would count as the mean of endless runs. With one seed each there is
    no spread, and the interval is over test images alone. Both are of the same test images: with ``paired``, the
    standard error of the differences image by image, what the images share is out of it, without it the interval is
    wider than it has to be.
    """
    return _half_width(a, b, paired, _T95)


def _half_width(a: Estimate, b: Estimate, paired: float | None, t: Sequence[float]) -> float | None:
    # ``t``: by degrees of freedom from 1, the last one for all beyond.
    if not (a.has_error and b.has_error):
        return None
    spread = [one for one in (a, b) if one.spread is not None]
    lone = 1.0 if len(spread) == 1 else 0.0
    # In units of the largest error: squares of very small or large ones have no float.
    images = [(one.stderr, one.n) for one in (a, b) if one.stderr is not None]
    if paired is not None:
        images = [(paired, min(a.n, b.n))]
    size = max([error for error, _ in images] + [one.spread for one in spread])
    if not images and size <= ROUNDING * max(abs(a.value), abs(b.value)):
        return None  # a share of few images comes to one number by chance: that it never varies was not seen
    if size == 0.0:
        return 0.0
    # (variance of the mean, degrees of freedom)
    parts = [((error / size) ** 2, max(n - 1, 1)) for error, n in images]
    parts += [((one.spread / size) ** 2 * (1 / one.seeds + lone), one.seeds - 1) for one in spread]
    variance = math.fsum(part for part, _ in parts)
    freedom = 1.0 / math.fsum((part / variance) ** 2 / degrees for part, degrees in parts)
    return t[min(max(int(freedom), 1), len(t)) - 1] * math.sqrt(variance) * size


def differ(a: Estimate, b: Estimate, paired: float | None = None) -> bool:
    """Whether a and b are further apart than their errors: than `half_width`, which has ``paired``.

    Or, with three seeds or more of each, every run of one is beyond every run of the other by twice the test-set
    errors, and the means are further apart than half of a 90 % interval: t at two degrees of freedom and 95 % calls a
    lost run a tie with everything. Of variants with the same mean this calls one pair in ten different, and no more
    however unequal their spreads: the order alone would call one in four so where one of them hardly varies. A number
    without any error differs from nothing.
    """
    width = half_width(a, b, paired)
    if width is None:
        return False
    return abs(a.value - b.value) > width or _separate(a, b, paired)


def _separate(a: Estimate, b: Estimate, paired: float | None) -> bool:
    narrower = _half_width(a, b, paired, _T90)
    if min(len(a.runs), len(b.runs)) < SEPARABLE or narrower is None:
        return False
    error = math.hypot(a.stderr or 0.0, b.stderr or 0.0) if paired is None else paired
    gap = max(min(a.runs) - max(b.runs), min(b.runs) - max(a.runs))
    return gap > 2.0 * error and abs(a.value - b.value) > narrower


def best(
    estimates: Mapping[Key, Estimate],
    better: Literal["lower", "higher"] | None,
    whole: Sequence[Key] | None = None,
) -> Key | None:
    """The key of the number that beats every other one beyond the errors, or None.

    None too where there is nothing to beat, or where the best is not among ``whole`` (default: all): a mean
    over only those seeds that survived can stand in another's way, but cannot win.
    """
    if better is None or len(estimates) < 2:
        return None
    sign = 1.0 if better == "higher" else -1.0
    first = max(estimates, key=lambda key: sign * estimates[key].value)
    if whole is not None and first not in whole:
        return None
    others = (other for key, other in estimates.items() if key != first)
    return first if all(differ(estimates[first], other) for other in others) else None


def ranks(
    estimates: Mapping[Key, Estimate],
    better: Literal["lower", "higher"] | None,
    whole: Collection[Key] | None = None,
) -> dict[Key, int]:
    """1 + how many numbers beat this one beyond the errors (`differ`), and at least the rank of every better number:
    whatever ties shares a rank, and no spread is so wide that a worse number ranks before a better one.

    The relation is not transitive (a may beat c while b ties with both), which is why a rank counts what beats a
    number and is no place in a sorted list. A number without any error has no rank, nor has one that is not among
    ``whole`` (default: all), though the latter still stands in the way of others. Empty where fewer than two
    numbers can be compared.
    """
    known = {key: one for key, one in estimates.items() if one.has_error}
    if better is None or len(known) < 2:
        return {}
    sign = 1.0 if better == "higher" else -1.0
    beaten = {
        key: sum(sign * (other.value - one.value) > 0 and differ(one, other) for other in known.values())
        for key, one in known.items()
    }
    return {
        key: 1 + max(beaten[other] for other in known if sign * (known[other].value - one.value) >= 0)
        for key, one in known.items()
        if whole is None or key in whole
    }
