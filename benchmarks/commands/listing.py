"""`zoo list`, `zoo show`: what there is, and all that is known of one thing."""

from __future__ import annotations

import json
from typing import Any

import click

from benchmarks.commands import options
from benchmarks.commands.options import LONGEST
from benchmarks.report.terminal import screen_width, table
from zoo.errors import UsageError, fold, one_line, unknown


@click.command("list")
@click.argument("what", default="variants")
@options.as_json
def list_(what: str, as_json: bool) -> None:
    """List the variants, or WHAT else there is: datasets, suites or metrics."""
    kinds = {"variants": _variants, "datasets": _datasets, "suites": _suites, "metrics": _metrics}
    kind = next((kind for kind in kinds if fold(kind) in (fold(what), fold(what) + "s")), None)
    if kind is None:
        raise unknown("listing", what, kinds, "zoo list --help")
    headers, rows = kinds[kind]()
    if as_json:
        click.echo(json.dumps([dict(zip(headers, row, strict=True)) for row in rows], indent=2))
    else:
        # What a line of 80 columns has no room for is in --json and in `zoo show`.
        kept = [i for i, header in enumerate(headers) if header not in ("unit", "needs", "shape", "support")]
        click.echo(table([[row[i] for i in kept] for row in rows], [headers[i] for i in kept], screen_width()))


@click.command()
@click.argument("name")
@options.as_json
def show(name: str, as_json: bool) -> None:
    """Show everything known of a variant, data set, suite or metric."""
    import yaml

    from benchmarks.suite import suites

    described = _described(name)
    if described["kind"] == "variant":
        described["what_settings_do"] = _what_settings_do(described["name"])
    for one in (described, *described.get("also", ())):  # a data set may have the name of a suite
        if one["kind"] == "suite" and (contested := suites()[one["name"]].contested()):
            one["which_value_holds"] = contested
    if as_json:
        click.echo(json.dumps(described, indent=2))
    else:
        click.echo(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=screen_width()).rstrip())


def _variants() -> tuple[list[str], list[list[Any]]]:
    from zoo.registry import registry

    rows = [
        [name, entry.title, entry.family, entry.paper.year if entry.paper else None, entry.summary, entry.origin]
        for name, entry in registry().variants.items()
    ]
    return _without_constant(["name", "title", "family", "year", "summary", "origin"], rows)


def _datasets() -> tuple[list[str], list[list[Any]]]:
    from zoo.registry import registry

    rows = [
        [name, "x".join(map(str, entry.shape or ())), entry.support, entry.factors or "", entry.summary]
        for name, entry in registry().datasets.items()
    ]
    return ["name", "shape", "support", "factors", "summary"], rows


def _suites() -> tuple[list[str], list[list[Any]]]:
    from benchmarks.suite import suites

    rows = [[suite.name, suite.version, suite.size, suite.title] for suite in suites().values()]
    return ["name", "version", "cells", "title"], rows


def _metrics() -> tuple[list[str], list[list[Any]]]:
    from benchmarks.catalogue import METRICS

    rows = [[metric.name, metric.unit, metric.better or "", metric.needs, metric.summary] for metric in METRICS]
    return ["name", "unit", "better", "needs", "summary"], rows


def _without_constant(headers: list[str], rows: list[list[Any]]) -> tuple[list[str], list[list[Any]]]:
    from zoo.registry import BUILT_IN

    # The same word in every row tells nobody anything.
    if all(row[-1] == BUILT_IN for row in rows):
        return headers[:-1], [row[:-1] for row in rows]
    return headers, rows


def _described(name: str) -> dict[str, Any]:
    from benchmarks.catalogue import METRICS, listed
    from benchmarks.suite import suites
    from zoo.registry import registry

    named: dict[str, list[dict[str, Any]]] = {}
    for kind, entries in (("variant", registry().variants), ("dataset", registry().datasets), ("suite", suites())):
        for key, entry in entries.items():
            described = {"kind": kind, "name": key} | entry.model_dump(mode="json", by_alias=True)
            if kind == "variant":
                described["published"] = [one.model_dump(mode="json", exclude_none=True) for one in entry.published]
            named.setdefault(fold(key), []).append(described)
    for metric in METRICS:
        named.setdefault(fold(metric.name), []).append({"kind": "metric"} | metric.__dict__)
    if fold(name) not in named and (metric := listed(fold(name))):  # as a record calls it, with its K or its outliers
        named[fold(name)] = [{"kind": "metric"} | metric.__dict__]
    if fold(name) not in named:
        raise unknown("variant, data set, suite or metric", name, [key for key in named], "zoo list")
    found = [
        {key: value for key, value in described.items() if value not in (None, [], {}, "")}
        for described in named[fold(name)]
    ]
    return found[0] | ({"also": found[1:]} if found[1:] else {})


def _what_settings_do(variant: str) -> dict[str, str] | str:
    """What each of a variant's settings does, where its class says so, and what it is unless told; of a part with
    settings of its own which these are (what they do is on a page of their own); or why the class cannot be asked."""
    from pydantic import BaseModel

    from benchmarks.report.notation import spelled
    from zoo.models import settings_of
    from zoo.registry import registry

    _, entry = registry().variant(variant)
    try:
        made = settings_of(entry, entry.settings)
    # Whatever somebody's module raises: what else is known of it is shown all the same.
    except UsageError as error:
        return f"its class cannot be asked: {error}"
    except (Exception, SystemExit) as error:
        return f"its class cannot be asked ({type(error).__name__}, {one_line(error)[:LONGEST]})"
    told = {}
    for name, field in type(made).model_fields.items():
        value = getattr(made, name)
        if isinstance(value, BaseModel):
            fields = type(value).model_fields
            one = f"--set {name}.{(first := next(iter(fields)))}={spelled(getattr(value, first))}"
            told[name] = f"has settings of its own, as {one}: {', '.join(fields)}"
        elif field.description:
            told[name] = f"{field.description} (default {spelled(value) if isinstance(value, tuple) else value})"
    return told
