"""Plain text tables: they fit the terminal, and carry no colour or control codes when piped."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TextIO

from benchmarks.record import Record
from benchmarks.report import notation
from benchmarks.report.compare import Estimate
from benchmarks.report.tables import Column, Row, Table, tables

GAP = "  "
NARROWEST = 3


def cell_width(text: str) -> int:
    """How many terminal columns ``text`` takes: wide characters two, combining ones none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def table(rows: Iterable[Sequence[object]], headers: Sequence[str], width: int = 80, right: str = "") -> str:
    """A table of at most ``width`` columns: head, rule, one line a row.

    What is too wide is cut and ends in …: the widest text column first, and those aligned right (numbers,
    which are no use cut) only when text is as narrow as it gets.

    Args:
        rows: cells are turned into one line of text each.
        headers: one a column.
        width: below ``5 * len(headers)`` the table is wider than that.
        right: a letter a column, "r" to align it right; columns beyond its end are aligned left.
    """
    lines = [[_plain(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(cell_width(line[i]) for line in lines) for i in range(len(headers))]
    spare = width - len(GAP) * (len(widths) - 1)
    numbers = [i for i in range(len(widths)) if right[i : i + 1] == "r"]
    for group in ([i for i in range(len(widths)) if i not in numbers], numbers):
        while sum(widths) > spare and max((widths[i] for i in group), default=0) > NARROWEST:
            widths[max(group, key=widths.__getitem__)] -= 1
    lines.insert(1, ["-" * size for size in widths])
    return "\n".join(
        GAP.join(
            _pad(_cut(cell, size), size, right[i : i + 1] == "r")
            for i, (cell, size) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def print_board(records: Iterable[Record], file: TextIO | None = None, width: int = 80) -> None:
    """The short board at the end of `zoo bench`: variant, ELBO, NLL, Frechet distance, cost, status."""
    print("\n\n".join(_board(one, width) for one in tables(records)), file=file or sys.stdout)


def _board(one: Table, width: int) -> str:
    columns = [_first(one, start) for start in (("elbo", "reconstruction_loss"), ("nll",), ("fd", "fid"))]
    measured = [column for column in columns if column is not None]
    costs = [_first(one, (name,)) for name in ("images_per_second", "seconds")]
    rows = [
        [
            row.label + ("†" if row.conditional else ""),
            *(_short(row, column) for column in measured),
            *(_cost(row, column) for column in costs),
            ", ".join(sorted({record.status for record in row.records})),
        ]
        for row in one.rows
    ]
    heads = ["variant", *(_head(column) for column in measured), "img/s", "s", "status"]
    lines = [f"{one.group}  {one.dataset}" + (f" (set {one.part})" if one.part else "")]
    lines.append(table(rows, heads, width, " " + "r" * (len(heads) - 2)))
    for row in one.rows:
        for record in row.records:
            if record.status != "done":
                said = f"{row.label} seed {record.cell.seed} {record.status}: {_plain(record.reason or '')}"
                lines.append(notation.shorten(said, width))
    if any(row.conditional for row in one.rows):
        lines.append("† given the class: not ranked with the others")
    return "\n".join(lines)


def _first(one: Table, starts: tuple[str, ...]) -> Column | None:
    """The column that most rows have a number in, of those whose metric begins with one of ``starts``."""

    def filled(column: Column) -> int:
        return sum(isinstance(row.cells[column], Estimate) for row in one.rows)

    for start in starts:
        if found := [column for column in [*one.head, *one.costs] if column.metric.startswith(start)]:
            return max(reversed(found), key=filled)
    return None


def _short(row: Row, column: Column) -> str:
    cell = row.cells[column]
    if isinstance(cell, Estimate):
        return notation.plus_minus(cell.value, cell.stderr).replace(" ", "")
    return _gap(cell.kind)


def _head(column: Column) -> str:
    name = column.name.replace("(", "").replace(")", "").replace(" = ", "=")
    return f"{name} {column.direction[:1]}".rstrip()


def _cost(row: Row, column: Column | None) -> str:
    cell = row.cells[column] if column is not None else None
    return notation.number(cell.value, 3) if isinstance(cell, Estimate) else "-"


def _gap(kind: str) -> str:
    return {"skip": "skip", "column": "other", "absent": "-"}.get(kind, kind)


def _plain(cell: object) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in str(cell)).split())


def _cut(text: str, width: int) -> str:
    if cell_width(text) <= width:
        return text
    while text and cell_width(text) > width - 1:
        text = text[:-1]
    return text + "…"


def _pad(text: str, width: int, right: bool) -> str:
    fill = " " * (width - cell_width(text))
    return fill + text if right else text + fill
