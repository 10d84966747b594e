"""Plain text tables: they fit the terminal, and carry no colour or control codes when piped."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterable, Sequence

from zoo.errors import one_line

GAP = "  "
NARROWEST = 3


def cell_width(text: str) -> int:
    """How many terminal columns ``text`` takes: wide characters two, combining ones none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def table(rows: Iterable[Sequence[object]], headers: Sequence[str], width: int = 80, right: str = "") -> str:
    """A table of at most ``width`` columns: head, rule, one line a row.

    What is too wide is cut and ends in …: the widest text column first, then the first column (names), and
    those aligned right (numbers, which are no use cut) only when all text is as narrow as it gets, their heads first.

    Args:
        rows: cells are turned into one line of text each.
        headers: one a column.
        width: below ``5 * len(headers)`` the table is wider than that.
        right: a letter a column, "r" to align it right, "k" for text that is kept whole, as are numbers beside it, even
            where the table is then wider; columns beyond its end are aligned left.
    """
    lines = [[plain(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(cell_width(line[i]) for line in lines) for i in range(len(headers))]
    spare = width - len(GAP) * (len(widths) - 1)
    numbers = [i for i in range(len(widths)) if right[i : i + 1] == "r"]
    text = [i for i in range(len(widths)) if right[i : i + 1] not in ("r", "k")]
    least = [max([NARROWEST, *(cell_width(line[i]) for line in lines[1:])]) for i in range(len(headers))]
    narrowest = [NARROWEST] * len(headers)
    steps = [(text[1:], narrowest), (text[:1], narrowest), (numbers, least)]
    for group, floor in [*steps, (numbers, least if "k" in right else narrowest)]:
        while sum(widths) > spare and (wider := [i for i in group if widths[i] > floor[i]]):
            widths[max(wider, key=widths.__getitem__)] -= 1
    lines.insert(1, ["-" * size for size in widths])
    return "\n".join(
        GAP.join(
            _pad(_cut(cell, size), size, right[i : i + 1] == "r")
            for i, (cell, size) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def screen_width() -> int:
    """How many columns a table on this terminal may have, from 80 to 140."""
    return max(80, min(shutil.get_terminal_size((80, 24)).columns, 140))


def plain(cell: object) -> str:
    """Anything as one line that a terminal shows as it is."""
    return one_line("".join(c if c.isprintable() else " " for c in str(cell)))


def _cut(text: str, width: int) -> str:
    if cell_width(text) <= width:
        return text
    while text and cell_width(text) > width - 1:
        text = text[:-1]
    return text + "…"


def _pad(text: str, width: int, right: bool) -> str:
    fill = " " * (width - cell_width(text))
    return fill + text if right else text + fill
