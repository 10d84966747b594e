"""What a table says, for somebody who has ten seconds: how much was run, and who is best at what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.report import notation
from benchmarks.report.compare import Estimate
from benchmarks.report.tables import Column, Row, Table

#: A piece of a sentence; True: it is a name to stress.
Piece = tuple[str, bool]
MOST = 4  # columns that a summary speaks of
NAMED = 3  # names of a tie


@dataclass(frozen=True)
class Leader:
    """Who is best in a column: the rows of rank 1, which is one, or several that tie.

    ``first`` holds them with the best number first, ``number`` is that number with its error and unit. ``remark`` says
    of which seeds the column is where it misses some that the rows have, and whether the one row of rank 1 does not
    beat every other beyond the errors, as one that is worse may be of a wide spread ("" where there is nothing to say).
    """

    column: Column
    first: list[Row]
    number: str
    remark: str = ""

    @property
    def title(self) -> str:
        return " ".join(part for part in (self.column.name, self.column.distinction) if part)


def leaders(table: Table) -> list[Leader]:
    """The leaders of the first ranked columns, by `Table.winners` and `Table.ranks`; nothing is decided here."""
    found = (_leader(table, column) for column in table.head if column.better)
    return [leader for leader in found if leader is not None][:MOST]


def summary(table: Table) -> list[list[Piece]]:
    """Sentences of pieces."""
    sentences = [[(extent(table), False)]] + [list(_sentence(leader)) for leader in leaders(table)]
    apart = [row.label for row in table.rows if row.conditional]
    if apart:
        verb = "is" if len(apart) == 1 else "are"
        told = f"{notation.listed(apart)} {verb} conditional and {verb} not ranked with the others in nats."
        sentences.append([(told, False)])
    return sentences


def extent(table: Table) -> str:
    """``8 variants on mnist, 3 seeds each.``, and how many runs were lost."""
    variants = len({row.variant for row in table.rows})
    seeds = sorted({len(row.records) for row in table.rows})
    each = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else "one seed" if seeds == [1] else f"{seeds[0]} seeds"
    said = f"{variants} variant{'s' * (variants != 1)} on {table.dataset}, {each} each"
    lost = [record.status for record in table.records if record.status != "done"]
    states = [f"{lost.count(status)} {status}" for status in ("failed", "diverged") if status in lost]
    runs = f"{len(table.records)} run{'s' * (len(table.records) != 1)}"
    return said + (f"; of {runs} {notation.listed(states)}." if lost else ".")


def _leader(table: Table, column: Column) -> Leader | None:
    sign = -1.0 if column.better == "higher" else 1.0
    first = [row for row, rank in zip(table.rows, table.ranks(column), strict=True) if rank == 1]
    first.sort(key=lambda row: sign * _estimate(row, column).value)
    if not first:
        return None  # nothing can be compared
    best = _estimate(first[0], column)
    better = [one for row in table.ranked(column) if sign * ((one := _estimate(row, column)).value - best.value) < 0]
    # The best is a mean over the seeds that survived, with which several may tie, or has no error.
    if better and (len(first) == 1 or not all(one.has_error for one in better)):
        return None
    unit = f" {column.unit}" if column.unit and column.metric != "reconstruction_loss" else ""
    number = notation.plus_minus(best.value, best.stderr) + unit
    clear = len(first) > 1 or column in table.winners
    remarks = [_seeds(table, column), "" if clear else "not beyond the errors of every other"]
    return Leader(column, first, number, "; ".join(filter(None, remarks)))


def _seeds(table: Table, column: Column) -> str:
    # ``seed 0 alone``. A run that failed is no part of this: the extent counts those.
    rows = [row for row in table.rows if isinstance(row.cells[column], Estimate) and not row.marked(column)]
    measured = [[seed for seed, _ in row.measured(column)] for row in rows]
    if all(len(seeds) == len(row.done) for seeds, row in zip(measured, rows, strict=True)):
        return ""
    if any(seeds != measured[0] for seeds in measured):
        return "not every seed of each"
    return f"seed{'s' * (len(measured[0]) > 1)} {notation.listed([str(seed) for seed in measured[0]])} alone"


def _sentence(leader: Leader) -> Iterator[Piece]:
    yield f"Best {leader.title}: " + ("a tie of " if len(leader.first) > 1 else ""), False
    names = [row.label for row in leader.first[:NAMED]]
    rest = len(leader.first) - len(names)
    for i, name in enumerate(names):
        if i:
            yield " and " if i == len(names) - 1 and not rest else ", ", False
        yield name, True
    more = f" and {rest} more" if rest else ""
    if len(leader.first) > 1:
        yield f"{more} (from {'; '.join(filter(None, [leader.number, leader.remark]))}).", False
    else:
        yield f", {leader.number}" + (f" ({leader.remark})." if leader.remark else "."), False


def _estimate(row: Row, column: Column) -> Estimate:
    cell = row.cells[column]
    assert isinstance(cell, Estimate)
    return cell
