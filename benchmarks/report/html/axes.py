"""The axes of the charts: what range they cover, where their ticks are, and what lies off the scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``, linear or logarithmic (then both are positive)."""

    label: str
    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value, 0 at ``low`` and 1 at ``high``; beyond for what is off the scale."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values inside the axis, three to seven of them, a seventh of it apart where it is logarithmic."""
        if not self.log:
            return steps(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        sets = [[d * 10.0**e for d in digits for e in decades] for digits in ((1,), (1, 3), (1, 2, 5), (1, 5, 2, 3, 7))]
        sets += [steps(self.low, self.high), steps(self.low, self.high, 12)]  # less than a decade
        found = (self._apart([value for value in values if self.low <= value <= self.high]) for values in sets)
        return next(ticks for ticks in found if len(ticks) >= 3)

    def _apart(self, values: Sequence[float]) -> list[float]:
        """Those of ``values``, the more welcome first, whose labels have room beside those before them, in order."""
        kept: list[float] = []
        for value in values:
            if all(abs(self.at(value) - self.at(other)) >= 1 / 7 for other in kept):
                kept.append(value)
        return sorted(kept)


def axis(label: str, values: Sequence[float], log: bool = False, cut: Literal["few", "run"] | None = None) -> Axis:
    """An axis with some air around the values.

    With ``cut`` some may be off the scale: "few", one in five that lies further from the others than they spread;
    "run", the beginning of a run, which dwarfs what comes later.
    """
    low, high = min(values), max(values)
    if log and low > 0:
        air = max((high / low) ** 0.08, 1.15)
        return Axis(label, low / air, high * air, log=True)
    if cut:
        low, high = (without_few if cut == "few" else _without_start)(sorted(values))
    air = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
    return Axis(label, low - air, high + air)


def steps(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from ``low`` to ``high``, at most ``most`` + 1 of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def tick(value: float) -> str:
    """A tick's label: 12 k, 1.5 M, 0.25, 1e+17."""
    for start, size, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if start <= abs(value) < 1e15:
            return f"{value / size:.6g} {letter}"
    return f"{value:,.6g}"


def without_few(values: Sequence[float]) -> tuple[float, float]:
    """The least and the largest of sorted values, but for one in five that lies further from the others than these
    spread."""
    inside = list(values)
    for _ in range(len(values) // 5):
        gaps = {0: inside[1] - inside[0], -1: inside[-1] - inside[-2]}
        end = max(gaps, key=lambda place: gaps[place])
        rest = inside[1:] if end == 0 else inside[:-1]
        if gaps[end] > 1.5 * (rest[-1] - rest[0]) > 0:
            inside = rest
    return inside[0], inside[-1]


def _without_start(values: Sequence[float]) -> tuple[float, float]:
    # Three box lengths beyond the box of the middle half; of few values none is far.
    if len(values) < 5:
        return values[0], values[-1]
    quarter = len(values) // 4
    box_low, box_high = values[quarter], values[-1 - quarter]
    reach = 3.0 * (box_high - box_low) or math.inf
    inside = [value for value in values if box_low - reach <= value <= box_high + reach]
    return inside[0], inside[-1]
