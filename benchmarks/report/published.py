"""Numbers that others printed beside ours, with the difference; and the registry's entries as reports read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.report.compare import Estimate
from benchmarks.report.tables import Column, Row, Table, of_family

MARKS = {"R": "read there", "2": "read at second hand", "B": "quoted"}


@dataclass(frozen=True)
class Comparison:
    """One published number and what we measured of the same family (``nll`` is any NLL), in this table."""

    row: Row
    metric: str
    ours: list[tuple[Column, Estimate]]
    value: float
    stderr: float | None
    same_recipe: bool
    note: str
    source: str
    mark: str

    @property
    def differences(self) -> list[float]:
        """Ours less theirs, one for each of ``ours``, in the unit of the metric."""
        return [estimate.value - self.value for _, estimate in self.ours]


def comparisons(table: Table, entries: Mapping[str, Any]) -> Iterator[Comparison]:
    """The published numbers for the table's variants on its data set, in the order of its rows."""
    for row in table.rows:
        for entry in part(entries.get(row.variant), "published") or ():
            if part(entry, "dataset") != table.dataset:
                continue
            family = str(part(entry, "metric"))
            ours = [
                (column, cell)
                for column in [*table.head, *table.further]
                if of_family(column.metric, family)
                if isinstance(cell := row.cells[column], Estimate)
            ]
            yield Comparison(
                row, family, ours, part(entry, "value"), part(entry, "stderr"), bool(part(entry, "same_recipe")),
                str(part(entry, "note") or ""), str(part(entry, "source")), str(part(entry, "mark") or ""),
            )  # fmt: skip


def part(entry: Any, name: str) -> Any:
    """A part of a registry entry, which may be an object or a mapping; None where there is none."""
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)
