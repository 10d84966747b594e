"""What is said below a table: the remarks of the records, one line a metric, and how recipes differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.report.notation import listed
from benchmarks.report.published import part
from benchmarks.report.tables import Row, Table, apart

# What follows "at" is the commit that a measurement was added at, a name even where its digits are all decimal.
_NUMBER = re.compile(r"(?<![\w.])(?<!\bat )-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")
FEW = 4  # values that are told apart; of more, the range


def notes(table: Table) -> list[tuple[str, str]]:
    """(metric, note), sorted. Notes that differ in their numbers only are one: with the variants of each number
    where every variant has one and there are few, else with the range."""
    said: dict[tuple[str, str], dict[str, set[tuple[str, ...]]]] = {}
    for record in table.records:
        for name, metric in record.metrics.items():
            if metric.note:
                note = metric.note.replace("\0", " ")
                words, numbers = _NUMBER.sub("\0", note), tuple(_NUMBER.findall(note))
                said.setdefault((name, words), {}).setdefault(record.cell.variant, set()).add(numbers)
    return sorted((name, _merged(words, by_variant)) for (name, words), by_variant in said.items())


def _merged(words: str, by_variant: dict[str, set[tuple[str, ...]]]) -> str:
    every = {numbers for found in by_variant.values() for numbers in found}
    columns = [sorted(set(values), key=float) for values in zip(*every, strict=True)]
    varying = [i for i, values in enumerate(columns) if len(values) > 1]
    if not varying:
        return _filled(words, [values[0] for values in columns]) + f" ({', '.join(sorted(by_variant))})"
    constant = all(len(found) == 1 for found in by_variant.values())
    if len(varying) == 1 and constant and len(columns[varying[0]]) <= FEW:
        place = varying[0]
        owners = {
            value: listed(sorted(name for name, found in by_variant.items() if next(iter(found))[place] == value))
            for value in columns[place]
        }
        told = ", ".join(f"{value} ({names})" for value, names in owners.items())
        return _filled(words, [told if i == place else values[0] for i, values in enumerate(columns)])
    ranges = [values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}" for values in columns]
    whose = f"{len(by_variant)} variants" if len(by_variant) > 1 else next(iter(by_variant))
    return _filled(words, ranges) + f" ({whose})"


def _filled(words: str, numbers: list[str]) -> str:
    pieces = words.split("\0")
    return "".join(piece + number for piece, number in zip(pieces, [*numbers, ""], strict=True))


def taught(rows: Iterable[Row], entries: Mapping[str, Any]) -> list[str]:
    """What the variants saw in training whose numbers are of images alone, though they were told more: what they are
    better at than others may be that. A sentence for all that were told the same; of a variant whose rows were not,
    its rows."""
    told: dict[str, dict[str, str]] = {}
    for row in rows:
        told.setdefault(row.variant, {})[row.label] = _taught(row, entries.get(row.variant))
    named = {}
    for variant, by_label in told.items():
        named |= by_label if len({*by_label.values()}) > 1 else {variant: next(iter(by_label.values()))}
    alike: dict[str, list[str]] = {}
    for name, what in sorted(named.items()):
        alike.setdefault(what, []).append(name)
    return [
        f"{listed(names)} {'learn' if names[1:] else 'learns'} from more than images: {what}."
        for what, names in alike.items() if what
    ]  # fmt: skip


def _taught(row: Row, entry: Any) -> str:
    given = row.records[0].config.get("model", {})
    more = [what for setting, what in (part(entry, "taught_by") or {}).items() if given.get(setting) is not None]
    return ", and ".join(filter(None, [str(part(entry, "taught") or ""), *more]))


def recipes(table: Table) -> str:
    """How the recipes of a variant differ: the settings that are not the same in all of them; empty where the labels
    say so themselves."""
    text = ""
    for variant in sorted({row.variant for row in table.rows if row.label != row.variant and "=" not in row.label}):
        rows = [row for row in table.rows if row.variant == variant]
        names, settings = apart([row.records[0].config for row in rows])
        for row, one in sorted(zip(rows, settings, strict=True), key=lambda pair: pair[0].label):
            text += f" {row.label} " + ", ".join(f"{name} = {one.get(name)}" for name in names) + "."
    return text.strip()
