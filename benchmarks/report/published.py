"""Numbers that others printed beside ours, with the difference; and the registry's entries as reports read them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.catalogue import ALL
from benchmarks.report.compare import Estimate
from benchmarks.report.tables import Column, Row, Table

MARKS = {"R": "read there", "2": "read at second hand", "B": "quoted"}
MARK_LEGEND = ", ".join(f"{mark} {meaning}" for mark, meaning in MARKS.items())


@dataclass(frozen=True)
class Comparison:
    """One published number and what we measured of it (``nll`` is any NLL), in this table.

    ``bits`` says how our pixels and theirs differ where theirs are known to be others: such numbers have no difference.
    """

    row: Row
    metric: str
    ours: list[tuple[Column, Estimate]]
    value: float
    stderr: float | None
    same_recipe: bool
    note: str
    source: str
    mark: str
    bits: str = ""

    @property
    def differences(self) -> list[float]:
        """Ours less theirs, one for each of ``ours``, in the unit of the metric."""
        return [] if self.bits else [estimate.value - self.value for _, estimate in self.ours]


def comparisons(table: Table, entries: Mapping[str, Any]) -> Iterator[Comparison]:
    """The published numbers for the table's variants on its data set, in the order of its rows."""
    for row in table.rows:
        for entry in part(entries.get(row.variant), "published") or ():
            if part(entry, "dataset") != table.dataset:
                continue
            name, bits = str(part(entry, "metric")), _bits(table, part(entry, "binarise"))
            ours = [
                (column, cell)
                for column in [*table.head, *table.further]
                if speaks_of(name, column.metric)
                if isinstance(cell := row.cells[column], Estimate)
            ]
            whole = {column.metric for column, _ in ours}
            ours = [(column, cell) for column, cell in ours if column.metric + ALL not in whole]
            yield Comparison(
                row, name, ours, part(entry, "value"), part(entry, "stderr"),
                bool(part(entry, "same_recipe")) and not bits,
                "; ".join(filter(None, [bits, *dict.fromkeys(_parts(table, ours)), str(part(entry, "note") or "")])),
                str(part(entry, "source")), str(part(entry, "mark") or ""), bits,
            )  # fmt: skip


def speaks_of(published: str, metric: str) -> bool:
    """Whether a published ``nll`` is of our ``nll_iwae_5000``, or that of all images: a number of samples may follow,
    and no other word, as what ``fid_bf16`` and ``kid_digits`` add is another network."""
    return re.fullmatch(rf"{re.escape(published)}((_iwae)?_\d+({ALL})?)?", metric) is not None


def _parts(table: Table, ours: list[tuple[Column, Estimate]]) -> Iterator[str]:
    # Published bounds are of all images, and the first ones of a split are no random sample of it.
    for column, _ in ours:
        identity = dict(column.identity)
        images, split = identity.get("images"), identity.get("split")
        whole = getattr(table.data.n, str(split), 0) if table.data else 0
        if isinstance(images, int) and images < whole and not column.metric.endswith(ALL):
            yield f"ours of the first {images:,} of {whole:,} {split} images"


def _bits(table: Table, theirs: str | None) -> str:
    ours = table.data.binarise if table.data else None
    return f"{ours} binarisation, theirs {theirs}" if ours and theirs and ours != theirs else ""


def part(entry: Any, name: str) -> Any:
    """A part of a registry entry, which may be an object or a mapping; None where there is none."""
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)
