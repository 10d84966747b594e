"""How numbers are written, and how foreign text is made harmless in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from benchmarks.report.compare import Estimate
from benchmarks.report.terminal import plain
from zoo.errors import one_line

MAX_DECIMALS = 6
MAX_WHOLE = 1e16  # from here on not every whole number has a float
DAGGER = "†"
CONDITIONAL = f"{DAGGER} conditional on class, attributes or pixels: log p(x | y), not ranked with log p(x)."
NO_LIKELIHOOD = (
    "reconstruction loss: a Bernoulli term on grey pixels, a density at bytes or a squared error, which is no "
    "likelihood of the data; it is neither nats nor comparable with an ELBO."
)
SETS = (
    "A set is what some runs had under the name of this data. Other sets of it are other content (see Data, below the "
    "table), as where M2's labelled images come again with their label, and share no table with it."
)


def number(value: float, digits: int = 4) -> str:
    """``value`` with ``digits`` significant digits, thousands separated: 12,346  90.25  0.001235. Very small or large
    ones have two: 1.2e-07  1.2e+17."""
    if value == 0.0:
        return "0"
    if abs(value) < 10.0**-MAX_DECIMALS or abs(value) >= MAX_WHOLE:
        return f"{value:.1e}"
    return _fixed(value, digits - 1 - _magnitude(value, digits))


def spelled(value: Any) -> str:
    """A value as it is written after ``--set name=``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(spelled(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {spelled(one)}" for key, one in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def error(value: float) -> str:
    """A standard error or a spread: two significant digits."""
    return number(value, 2)


def plus_minus(value: float, stderr: float | None) -> str:
    """``-90.25 ± 0.31``: the error with two significant digits, the value with as many decimals, six at most."""
    if stderr is None:
        # A whole number without an error is a count, such as that of active units.
        return f"{int(value):,}" if float(value).is_integer() and abs(value) < 10**6 else number(value)
    if stderr < 10.0**-MAX_DECIMALS:
        exact = _fixed(value, MAX_DECIMALS).rstrip("0").rstrip(".") if stderr and abs(value) < MAX_WHOLE else ""
        return f"{max(number(value), exact, key=len)} ± {error(stderr)}"
    decimals = 1 - _magnitude(stderr, 2)
    return f"{_fixed(value, decimals)} ± {_fixed(stderr, decimals)}"


def estimate(one: Estimate, total_seeds: int = 1) -> str:
    """``-90.25 ± 0.31 [0.12, 2 seeds]``: test-set standard error after ±, spread over seeds in brackets.

    The number of seeds is also named where only some of ``total_seeds`` gave the number.
    """
    text = plus_minus(one.value, one.stderr)
    if total_seeds == one.seeds == 1:
        return text
    seeds = f"{one.seeds} seeds" if total_seeds == one.seeds else f"{one.seeds} of {total_seeds} seeds"
    return f"{text} [{seeds}]" if one.spread is None else f"{text} [{error(one.spread)}, {seeds}]"


def difference(value: float) -> str:
    """A signed difference in three significant digits: ``+9.34``."""
    return "0" if value == 0.0 else ("+" if value > 0 else "-") + number(abs(value), 3)


def short_hashes(text: str) -> str:
    """The text with only 12 digits of each hash; the whole one is in the record."""
    return re.sub(r"\b(?=[0-9a-f]*[a-f])([0-9a-f]{12})[0-9a-f]{8,}\b", r"\1", text)


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def count(value: int) -> str:
    """A large whole number in three digits: 842 k, 1.23 M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= size * 0.9995:  # what rounds to a thousand of the smaller one
            return f"{number(value / size, 3)} {letter}"
    return str(value)


def shorten(text: str, width: int) -> str:
    """One line of at most ``width`` characters, with … where something was cut."""
    line = one_line(text)
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def escape(text: object) -> str:
    """Text that shows as itself anywhere in Markdown, a table cell included: one line, no markup, no HTML."""
    line = plain(text)
    # Backslashes first: entities have a # of their own. An underscore or an @ inside a word is plain text.
    line = re.sub(r"([\\`*\[\]|~$#]|(?<!\w)_|_(?!\w))", r"\\\1", line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?<!\w)@", "&#64;", line)


def code(text: str) -> str:
    """Text as a code span that no backtick inside can end. Not for tables, where a | ends the cell."""
    line = one_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def link(text: str, url: str | None) -> str:
    """``[text](url)`` for a web address, else only the text."""
    if not url or urlsplit(url).scheme not in ("http", "https"):
        return escape(text)
    return f"[{escape(text)}]({quote(url, safe=':/?#@!$&*+,;=%~')})"


def address(path: str) -> str:
    """The path of a picture as the target of a link."""
    return quote(path, safe="/@")


def superscript(value: int) -> str:
    """A footnote mark: ¹ ² … ¹²."""
    return str(value).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _magnitude(value: float, digits: int) -> int:
    # The power of ten of the first of so many digits, once rounded: 0.0996 has it where 0.1 has it.
    return int(f"{abs(value):.{digits - 1}e}".partition("e")[2])


def _fixed(value: float, decimals: int) -> str:
    if abs(value) >= MAX_WHOLE:
        return f"{value:.{min(max(_magnitude(value, 2) + decimals, 1), 15)}e}"
    text = f"{value:,.{min(max(decimals, 0), MAX_DECIMALS)}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text
