"""What the spread of a metric over the runs of a suite is of: the variant, its swept setting, or the seed.

The question, and to fit scores by the objective alone and then by objective and setting, are of Locatello et al.,
Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations, ICML 2019,
https://arxiv.org/abs/1811.12359. A fit by groups predicts the mean of the group.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.tables import Column, Table
from zoo.errors import UsageError

# The values of a metric by the place of their row in the table and their seed, turned so that more is better.
Values = Mapping[tuple[int, int], float]


@dataclass(frozen=True)
class Spread:
    """What the variance of one metric over ``runs`` is of.

    ``variant`` is the part that the means of the variants explain, ``setting`` what those of the rows, which are a
    variant with a setting each, explain beyond that, and ``seed`` the rest; in [0, 1]. ``errors`` are their standard
    errors over seeds (`over_seeds`), None where these are too few. ``by_chance`` is what the first two would be on
    average if the same numbers were dealt to the runs at random. ``worst`` and ``best`` are a row's label with its
    mean. ``agreement`` is Spearman's rank correlation with another metric over the runs that have both, both turned so
    that more is better; None where one of the two does not differ in them.
    """

    column: Column
    runs: int
    variant: float
    setting: float
    errors: tuple[float | None, ...]
    by_chance: tuple[float, float]
    worst: tuple[str, float]
    best: tuple[str, float]
    agreement: float | None
    agreement_error: float | None

    @property
    def seed(self) -> float:
        return 1.0 - self.variant - self.setting

    @property
    def parts(self) -> dict[str, float]:
        """The three parts by name, in the order of their ``errors``."""
        return {"variant": self.variant, "setting": self.setting, "seed": self.seed}


def spreads(table: Table, beside: str = "elbo") -> list[Spread]:
    """Of every ranked metric that several rows of a table have, one of them of several seeds, and in which runs differ;
    in the order of the board.

    Args:
        beside: the metric that ranks are compared with.

    Raises:
        UsageError: there is one row, or no row has several seeds; ``beside`` is no ranked metric of the table.
    """
    where = f"{table.group} on {table.dataset}{table.which}"
    if len(table.rows) < 2:
        raise UsageError(f"{where} has one row: what it spreads over is its seeds, as the board says.")
    if all(len(row.done) < 2 for row in table.rows):
        raise UsageError(f"{where} has one finished seed of each row: nothing says what is of the seed.")
    ranked = [column for column in (*table.head, *table.further) if column.better]
    measured = {column: _values(table, column) for column in ranked}
    found = {column: values for column, values in measured.items() if _can_be_told(values)}
    other = next((values for column, values in found.items() if column.metric == beside), None)
    if other is None:
        names = ", ".join(dict.fromkeys(column.metric for column in found)) or "none"
        raise UsageError(f"'{beside}' is no metric in which the runs of {where} differ; these are: {names}.")
    return [_spread(table, column, values, other) for column, values in found.items()]


def explained(values: Sequence[float], groups: Sequence[Hashable]) -> float:
    """The part of the variance of ``values`` that the means of their groups explain, in [0, 1]; they differ."""
    by_group: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        by_group.setdefault(group, []).append(value)
    means = {group: statistics.fmean(some) for group, some in by_group.items()}
    whole = statistics.fmean(values)
    rest = sum((value - means[group]) ** 2 for value, group in zip(values, groups, strict=True))
    return 1.0 - rest / sum((value - whole) ** 2 for value in values)


def over_seeds(values: Values, statistics_of: Callable[[Values], Sequence[float | None]]) -> tuple[float | None, ...]:
    """The standard errors over seeds of numbers that are taken from runs, by the jackknife: each seed is left out of
    all rows in turn, as a seed may have something in common in them. None with fewer than three seeds, and where
    without one of them it cannot be told.

    Source: Efron and Stein, The Jackknife Estimate of Variance, Annals of Statistics 1981.
    """
    seeds = {seed for _, seed in values}
    without = [statistics_of({run: value for run, value in values.items() if run[1] != seed}) for seed in seeds]
    return tuple(
        None if len(found) < 3 or None in found else math.sqrt((len(found) - 1) * statistics.pvariance(found))
        for found in zip(*without, strict=True)
    )


def percent(part: float, error: float | None = None) -> str:
    """``17 %``, of a part in [0, 1], ``17 ± 3 %``, or ``2.1 ± 0.3 %`` where the error is below one in a hundred."""
    if error is None:
        return f"{100 * part:.0f} %"
    digits = 1 if error < 0.01 else 0
    return f"{100 * part:.{digits}f} ± {100 * error:.{digits}f} %"


def correlation(found: Spread) -> str:
    """``0.23 ± 0.05``, how the ranks of a metric go with another's; a dash where it cannot be told."""
    if found.agreement is None:
        return "–"
    return f"{found.agreement:.2f}{'' if found.agreement_error is None else f' ± {found.agreement_error:.2f}'}"


def by_chance(found: Iterable[Spread]) -> str:
    """``3 % and 17 %``, or from where to where each is, as it goes by how many runs have a metric."""
    parts = [sorted(some) for some in zip(*(one.by_chance for one in found), strict=True)]
    return " and ".join(" to ".join(dict.fromkeys((percent(some[0]), percent(some[-1])))) for some in parts)


def rank_correlation(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Spearman's, of two numbers of each run; None where one of the two never differs."""
    from scipy.stats import spearmanr

    if any(len(set(numbers)) < 2 for numbers in (ours, theirs)):
        return None
    return float(spearmanr(ours, theirs).statistic)


def _values(table: Table, column: Column) -> Values:
    sign = -1.0 if column.better == "lower" else 1.0
    return {
        (place, seed): sign * metric.value
        for place, row in enumerate(table.rows)
        if not row.marked(column)
        for seed, metric in row.measured(column)
    }


def _can_be_told(values: Values) -> bool:
    # Several rows, several seeds of one of them, and a difference.
    rows = {place for place, _ in values}
    return 1 < len(rows) < len(values) and len(set(values.values())) > 1


def _spread(table: Table, column: Column, values: Values, other: Values) -> Spread:
    def taken(some: Values) -> tuple[float | None, ...]:
        return *(_parts(table, some) if _can_be_told(some) else (None,) * 3), _agreement(some, other)

    variant, setting, _, agreement = taken(values)
    *errors, agreement_error = over_seeds(values, taken)
    rows = [place for place, _ in values]
    variants = {table.rows[place].variant for place in rows}
    chances = [(len(groups) - 1) / (len(values) - 1) for groups in (variants, {*rows})]
    means = {row.label: row.cells[column].value for row in (table.rows[place] for place in dict.fromkeys(rows))}
    worst, *_, best = sorted(means.items(), key=lambda one: one[1], reverse=column.better == "lower")
    return Spread(
        column, len(values), variant, setting, tuple(errors), (chances[0], chances[1] - chances[0]), worst, best,
        agreement, agreement_error,
    )  # fmt: skip


def _parts(table: Table, values: Values) -> tuple[float, float, float]:
    # What is the variant's, its setting's and the seed's.
    numbers, rows = [*values.values()], [place for place, _ in values]
    variant, row = explained(numbers, [table.rows[place].variant for place in rows]), explained(numbers, rows)
    return variant, row - variant, 1.0 - row


def _agreement(ours: Values, theirs: Values) -> float | None:
    both = [run for run in ours if run in theirs]
    return rank_correlation(*([values[run] for run in both] for values in (ours, theirs)))
