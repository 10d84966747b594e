"""Records as the one plain JSON value that the page is made from: texts, numbers, and who is ranked where.

All statistics are those of `benchmarks.report.compare` and `benchmarks.report.tables`; here they are written down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import Metric, Record
from benchmarks.report import notation, provenance
from benchmarks.report.compare import estimate
from benchmarks.report.html.pictures import Picture, pictures, usual_first
from benchmarks.report.notes import notes, recipes, taught
from benchmarks.report.published import MARKS, comparisons, part
from benchmarks.report.summary import extent, leaders
from benchmarks.report.tables import COSTS, Column, Gap, Row, Table, flat, tables

Json = dict[str, Any]


def payload(
    records: Iterable[Record],
    entries: Mapping[str, Any],
    folder: str | Path,
    suites: Mapping[str, Any] | None = None,
    datasets: Mapping[str, Any] | None = None,
) -> Json:
    """Everything the page shows.

    Args:
        records: in any order.
        entries: the registry's variants, as for `markdown.board`.
        folder: where the records' figures lie.
        suites: ``name@version`` -> something with ``title`` and ``summary``.
        datasets: name -> something with ``title``. What has no entry is called by its name.
    """
    found = tables(records)
    shown = pictures(found, Path(folder))
    taken: set[str] = set()
    made = [_table(table, entries, shown, suites or {}, datasets or {}, taken) for table in found]
    return {
        "tables": made,
        "datasets": _unique((table["dataset"], table["dataset_title"]) for table in made),
        "families": sorted({row["family"] for table in made for row in table["rows"]}),
    }


def numbers(whole: Json) -> Json:
    """The part of the payload that the page's script sorts by: for each cell (tier, mean, best)."""
    return {
        table["id"]: {
            "columns": [{"title": column["title"], "better": column["better"]} for column in table["columns"]],
            "rows": {row["id"]: [[c["tier"], c.get("mean"), c.get("best")] for c in row["cells"]]
                     for row in table["rows"]},
        }
        for table in whole["tables"]
    }  # fmt: skip


def _table(
    table: Table, entries: Mapping[str, Any], shown: Mapping[str, Picture], suites: Mapping[str, Any],
    datasets: Mapping[str, Any], taken: set[str],
) -> Json:  # fmt: skip
    suite = suites.get(table.group)
    name = f"{table.group}-{table.dataset}" + (f"-{table.part}" if table.part else "")
    here = _slug(name, taken)
    ranks = {column: table.ranks(column) for column in table.columns}
    return {
        "id": here,
        "group": table.group,
        "dataset": table.dataset,
        "dataset_title": str(part(datasets.get(table.dataset), "title") or table.dataset),
        "part": table.part,
        "title": str(part(suite, "title") or table.group),
        "about": str(part(suite, "summary") or "").replace("`", ""),
        "extent": extent(table),
        "leaders": [
            {
                "title": one.title,
                "names": [row.label for row in one.first],
                "number": minus(one.number),
                "remark": one.remark,
            }
            for one in leaders(table)
        ],
        "columns": [_column(column, table) for column in table.columns],
        "rows": [_row(table, i, row, ranks, entries, shown, here, taken) for i, row in enumerate(table.rows)],
        "published": _published(table, entries),
        "notes": [list(note) for note in notes(table)],
        "skipped": {metric: reasons for metric, reasons in table.skipped.items()},
        "recipes": recipes(table),
        "conditional": any(row.conditional for row in table.rows),
        "taught": taught(table.rows, entries),
        "no_likelihood": any(column.metric == "reconstruction_loss" for column in table.head),
        "superseded": [record.cell.stem for record in table.superseded],
        "data": provenance.data(table),
        "span": provenance.span(table),
        "facts": provenance.facts(table),
    }


def _column(column: Column, table: Table) -> Json:
    kind = "cost" if column in table.costs else "head" if column in table.head else "further"
    said = [[key, notation.short_hashes(str(value))] for key, value in column.identity]
    return {
        "metric": column.metric, "title": " ".join(filter(None, [column.name, column.distinction])),
        "direction": column.direction, "unit": column.unit, "better": column.better, "kind": kind, "identity": said,
    }  # fmt: skip


def _row(
    table: Table, place: int, row: Row, ranks: Mapping[Column, Sequence[int | None]], entries: Mapping[str, Any],
    shown: Mapping[str, Picture], here: str, taken: set[str],
) -> Json:  # fmt: skip
    entry = entries.get(row.variant)
    paper = part(entry, "paper")
    first = row.done[0] if row.done else row.records[0]
    return {
        "id": _slug(f"{here}-{row.label}", taken),
        "label": row.label,
        "title": str(part(entry, "title") or row.variant),
        "family": str(part(entry, "family") or "unregistered"),
        "summary": str(part(entry, "summary") or ""),
        "paper": {key: str(part(paper, key) or "") for key in ("title", "authors", "year", "url")} if paper else None,
        "code": str(part(entry, "code") or ""),
        "conditional": row.conditional,
        "class": first.model.class_ if first.model else "",
        "settings": [[name, _plain(value)] for name, value in flat(first.config) if name not in ("seed", "variant")],
        "cells": [_cell(table, row, column, [ranks[column], place]) for column in table.columns],
        "groups": list(_groups(row)),
        "runs": [_run(record, shown) for record in row.records],
    }


def _groups(row: Row) -> Iterator[Json]:
    """The rate of each of several groups of latents, over the seeds that have it."""
    for name in dict.fromkeys(one.name for record in row.done for one in record.rates):
        found = [(record.cell.seed, one) for record in row.done for one in record.rates if one.name == name]
        # All are over the images of one split: how many are not said here.
        mean = estimate([Metric(value=one.value, stderr=one.stderr, n=0) for _, one in found])
        first, active = found[0][1], [str(one.active) for _, one in found if one.active is not None]
        yield {
            "name": name, "text": minus(notation.plus_minus(mean.value, mean.stderr)),
            "spread": None if mean.spread is None else notation.error(mean.spread),
            "dimensions": "" if first.dimensions is None else f"{first.dimensions:,}", "active": ", ".join(active),
            "by_seed": [[seed, minus(notation.plus_minus(one.value, one.stderr))] for seed, one in found],
        }  # fmt: skip


def _cell(table: Table, row: Row, column: Column, ranking: list[Any]) -> Json:
    cell = row.cells[column]
    if isinstance(cell, Gap):
        # There are no footnotes on the page: the column of the same name is the one meant.
        elsewhere = cell.kind == "column"
        return {"tier": 2, "gap": cell.kind, "text": "see the other column" if elsewhere else cell.text(10_000)}
    ranks, place = ranking
    rank = ranks[place]
    seeds = row.measured(column)
    made: Json = {
        "tier": int(row.marked(column)), "mean": cell.value, "n": cell.n, "seeds": cell.seeds, "of": len(row.records),
        "text": _written(column, cell.value, cell.stderr),
        "spread": None if cell.spread is None or column in table.costs else notation.error(cell.spread),
        "rank": rank, "tied": rank is not None and ranks.count(rank) > 1, "wins": table.winners.get(column) is row,
        "by_seed": [[seed, _written(column, metric.value, metric.stderr), metric.value] for seed, metric in seeds],
    }  # fmt: skip
    if column.better and len(seeds) > 1:
        choose = max if column.better == "higher" else min
        seed, metric = choose(seeds, key=lambda pair: pair[1].value)
        made |= {"best": metric.value, "best_seed": seed, "best_text": _written(column, metric.value, metric.stderr)}
    return made


def _written(column: Column, value: float, stderr: float | None) -> str:
    return minus(column.cost(value) if column.metric in COSTS else notation.plus_minus(value, stderr))


def _run(record: Record, shown: Mapping[str, Picture]) -> Json:
    train, environment = record.train, record.environment
    return {
        "seed": record.cell.seed,
        "stem": record.cell.stem,
        "status": record.status,
        "reason": record.reason or "",
        "log": record.log_tail,
        "command": record.command,
        "when": record.when,
        "training": {
            "steps": f"{train.steps:,}", "epochs": notation.number(train.epochs),
            "best epoch": "" if train.best_epoch is None else str(train.best_epoch),
            "stopped early": "yes" if train.stopped_early else "",
            "skipped updates": str(train.skipped_updates or ""),
        } if train else {},
        "seconds": {name: notation.number(value, 3) for name, value in record.seconds if value is not None},
        "environment": {
            name: _plain(value) for name, value in environment.model_dump().items() if value is not None
        },
        "skipped": dict(sorted(record.skipped.items())),
        "curves": record.curves,
        "moments": {name: record.moments(name) for name in record.curves},
        "figures": [[name, vars(shown[record.figures[name]])] for name in sorted(record.figures, key=_order)],
    }  # fmt: skip


def _order(kind: str) -> tuple[int, str]:
    return usual_first(kind), kind


def _published(table: Table, entries: Mapping[str, Any]) -> list[Json]:
    return [
        {
            "label": one.row.label, "metric": one.metric,
            "ours": [[c.title, minus(notation.estimate(cell, len(one.row.records)))] for c, cell in one.ours],
            "value": minus(notation.plus_minus(one.value, one.stderr)),
            "differences": [minus(notation.difference(value)) for value in one.differences],
            "same_recipe": one.same_recipe, "note": one.note, "source": one.source,
            "mark": MARKS.get(one.mark, one.mark),
        }
        for one in comparisons(table, entries)
    ]  # fmt: skip


def minus(text: str) -> str:
    """A number with the sign that is as wide as a plus."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ({}, [], ()):
        return "none"
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def _slug(text: str, taken: set[str]) -> str:
    base = re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-") or "x"
    slug, i = base, 1
    while slug in taken:
        i += 1
        slug = f"{base}-{i}"
    taken.add(slug)
    return slug


def _unique(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    return [list(pair) for pair in dict.fromkeys(pairs)]
