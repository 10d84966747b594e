"""What a table says, for somebody who has ten seconds: how much was run, and who is best at what."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.report import notation
from benchmarks.report.compare import Estimate
from benchmarks.report.tables import Column, Table

#: A piece of a sentence; True: it is a name to stress.
Piece = tuple[str, bool]
MOST = 4  # columns that a summary speaks of
NAMED = 3  # names of a tie


def summary(table: Table) -> list[list[Piece]]:
    """Sentences of pieces. Who is best follows `Table.winners` and `Table.ranks`; nothing is decided here."""
    sentences = [[(_extent(table), False)]]
    ranked = [column for column in table.head if column.better]
    sentences += [said for column in ranked if (said := list(_best(table, column)))][:MOST]
    apart = [row.label for row in table.rows if row.conditional]
    if apart:
        told = "is given the class and" if len(apart) == 1 else "are given the class and"
        verb = "is" if len(apart) == 1 else "are"
        sentences.append([(f"{notation.listed(apart)} {told} {verb} not ranked with the others in nats.", False)])
    return sentences


def _extent(table: Table) -> str:
    variants = len({row.variant for row in table.rows})
    seeds = sorted({len(row.records) for row in table.rows})
    each = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else "one seed" if seeds == [1] else f"{seeds[0]} seeds"
    said = f"{variants} variant{'s' * (variants != 1)} on {table.dataset}, {each} each"
    lost = [record.status for record in table.records if record.status != "done"]
    states = [f"{lost.count(status)} {status}" for status in ("failed", "diverged") if status in lost]
    return said + (f"; of {len(table.records)} runs {notation.listed(states)}." if lost else ".")


def _best(table: Table, column: Column) -> Iterator[Piece]:
    unit = f" {column.unit}" if column.unit and column.metric != "reconstruction_loss" else ""
    title = " ".join(part for part in (column.name, column.distinction) if part)
    if (winner := table.winners.get(column)) is not None:
        yield f"Best {title}: ", False
        yield winner.label, True
        yield f", {_number(winner.cells[column])}{unit}.", False
        return
    first = [row for row, rank in zip(table.rows, table.ranks(column), strict=True) if rank == 1]
    if len(first) < 2:
        return
    sign = -1.0 if column.better == "higher" else 1.0
    first.sort(key=lambda row: sign * row.cells[column].value)
    yield f"Best {title}: a tie of ", False
    names = [row.label for row in first[:NAMED]]
    rest = len(first) - len(names)
    for i, name in enumerate(names):
        yield ("" if i == 0 else " and " if i == len(names) - 1 and not rest else ", "), False
        yield name, True
    yield (f" and {rest} more" if rest else "") + f" (from {_number(first[0].cells[column])}{unit}).", False


def _number(cell: object) -> str:
    assert isinstance(cell, Estimate)
    return notation.plus_minus(cell.value, cell.stderr)
