"""leaderboard/index.html: one file with everything in it, readable without its script, and the same bytes each time."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

from benchmarks.record import Record
from benchmarks.report.html.markup import Markup, escape, join, link, tag
from benchmarks.report.html.payload import Json, numbers, payload
from benchmarks.report.html.plots import RATE_DISTORTION, quality_against_cost, rate_distortion
from benchmarks.report.html.variant import GALLERY, details, figure, first_seen, link_to
from benchmarks.report.notation import CONDITIONAL, DAGGER, NO_LIKELIHOOD, SETS

HERE = Path(__file__).parent
STATUS = {
    "failed": "✕ failed", "diverged": "∿ diverged", "skip": "skip", "column": "see the other column",
    "absent": "not measured",
}  # fmt: skip


def page(
    records: Iterable[Record],
    entries: Mapping[str, Any],
    folder: str | Path,
    suites: Mapping[str, Any] | None = None,
    datasets: Mapping[str, Any] | None = None,
    command: str = "zoo leaderboard",
) -> str:
    """The whole page as text; the arguments are those of `payload.payload`, ``command`` is what made this page.

    No request leaves it: style, script and pictures are inside, and its policy forbids the browser any other.
    """
    whole = payload(records, entries, folder, suites, datasets)
    style, script, frame = ((HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html"))
    policy = [
        "default-src 'none'", "img-src data:", f"style-src {_hash(style)}", f"script-src {_hash(script)}",
        "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    return Template(frame).substitute(
        policy="; ".join(policy),
        style=style,
        script=script,
        data=embedded(numbers(whole)),
        lede=_lede(whole),
        suites=_suites(whole) or "",
        controls=_controls(whole),
        boards=join(*(_board(table) for table in whole["tables"])),
        command=escape(command),
    )


def embedded(value: Any) -> str:
    """JSON that no text in it can end or leave: between script tags and nowhere special to HTML."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _lede(whole: Json) -> Markup:
    if not whole["tables"]:
        return tag("p", "There are no records yet. ", tag("code", "make bench"), " makes the first.", class_="lede")
    first = whole["tables"][0]
    said = f"{first['extent']} One trainer and one evaluation for all; every number comes from a record that one "
    return join(tag("p", said, "command made.", class_="lede"), _leaders(first))


def _leaders(table: Json) -> Markup | None:
    facts = []
    for one in table["leaders"]:
        names, rest = one["names"][:3], len(one["names"]) - 3
        text = ", ".join(names) + (f" and {rest} more" if rest > 0 else "")
        tie = f"{len(one['names'])} tie from " if len(one["names"]) > 1 else ""
        remark = f" ({one['remark']})" if one["remark"] else ""
        number = tag("span", tie, one["number"], remark, class_="muted")
        facts.append(tag("div", tag("dt", f"Best {one['title']}"), tag("dd", tag("b", text), number)))
    return tag("dl", *facts, class_="leaders") if facts else None


def _suites(whole: Json) -> Markup | None:
    if len(whole["tables"]) < 2:
        return None
    links = [
        tag("li", tag("a", table["title"], href=f"#{table['id']}"), f" {_dataset(table)}, {table['group']}")
        for table in whole["tables"]
    ]
    return tag("nav", tag("ul", *links), aria_label="Suites", class_="suites")


def _controls(whole: Json) -> Markup:
    datasets = [["", "all data sets"], *whole["datasets"]]
    families = [["", "all families"], *([name, name] for name in whole["families"])]
    return join(
        _select("dataset", "data set", datasets), _select("family", "family", families),
        _choice("seeds", "seeds", [("mean", "mean"), ("best", "best")]),
        _choice("columns", "columns", [("main", "main"), ("all", "all")]),
    )  # fmt: skip


def _select(name: str, label: str, options: list[list[str]]) -> Markup:
    made = [tag("option", text, value=value) for value, text in options]
    return tag("label", tag("span", label), tag("select", *made, name=name, autocomplete="off"), class_="control")


def _choice(name: str, label: str, options: list[tuple[str, str]]) -> Markup:
    made = [
        tag("label", tag("input", type="radio", name=name, value=value, checked=not i, autocomplete="off"), text)
        for i, (value, text) in enumerate(options)
    ]
    return tag("fieldset", tag("legend", label), tag("div", *made, class_="segments"), class_="control")


def _board(table: Json) -> Markup:
    return tag(
        "section", *_sections(table), class_="board", id=table["id"], data_dataset=table["dataset"],
        aria_labelledby=f"{table['id']}-h",
    )  # fmt: skip


def _sections(table: Json) -> Iterator[Markup | None]:
    where = f"{_dataset(table)} · {table['group']}"
    yield tag("h2", table["title"], " ", tag("small", where), id=f"{table['id']}-h")
    yield tag("p", table["extent"], f" {table['about']}" if table["about"] else None, class_="extent")
    yield _main(table)
    yield tag("p", "No variant of this family is in this table.", class_="none muted", hidden=True)
    yield _remarks(table)
    yield _measured(table)
    if (drawn := rate_distortion(table)) is not None:
        yield tag("h3", "Rate and distortion")
        yield tag("div", drawn, tag("div", tag("p", RATE_DISTORTION), _points_legend(table)), class_="plots")
    if (drawn := quality_against_cost(table)) is not None:
        yield tag("h3", "Quality against cost")
        yield drawn
    yield from _gallery(table)
    yield from _published(table)
    yield tag("h3", "Every variant", class_="articles-head")
    yield tag("div", *(details(table, row) for row in table["rows"]), class_="articles")
    yield _provenance(table)


def _dataset(table: Json) -> str:
    return table["dataset_title"] + (f" (set {table['part']})" if table["part"] else "")


def _main(table: Json) -> Markup:
    heads = [tag("th", tag("span", "variant", class_="head"), scope="col", class_="name")]
    heads += [_head(table, i, column) for i, column in enumerate(table["columns"])]
    heads.append(tag("th", tag("span", "seeds", class_="head"), scope="col", class_="seeds"))
    caption = f"{table['title']} on {_dataset(table)}: a row for each variant, the best of the first column first."
    body = [_line(table, row) for row in table["rows"]]
    whole = tag(
        "table", tag("caption", caption, class_="vh"), tag("thead", tag("tr", *heads)), tag("tbody", *body),
        class_="main", data_table=table["id"],
    )  # fmt: skip
    label = f"Table: {table['title']}, {_dataset(table)}, {table['group']}"
    return tag("div", whole, class_="scroll", role="region", aria_label=label, tabindex=0)


def _head(table: Json, place: int, column: Json) -> Markup:
    here = f"{table['id']}-i{place}"
    said = "; ".join(f"{key} {value}" for key, value in column["identity"]) or "no further identity"
    better = {"higher": "more is better", "lower": "less is better", None: "neither end is better"}[column["better"]]
    n = dict(column["identity"]).get("n", "")
    below = " · ".join(filter(None, [column["unit"], f"n {int(n):,}" if n.isdigit() else ""]))
    arrow = {"higher": "↑", "lower": "↓", None: ""}[column["better"]]
    return tag(
        "th",
        tag("span", column["title"], f" {arrow}" if arrow else None, class_="head"),
        tag("span", below, class_="below") if below else None,
        tag("span", f"{column['title']}: {better}. {said}.", id=here, hidden=True),
        scope="col", class_=f"num {column['kind']}", data_column=place, data_tip=here,
    )  # fmt: skip


def _line(table: Json, row: Json) -> Markup:
    cells = [tag("th", link_to(row), f" {DAGGER}" if row["conditional"] else None, scope="row", class_="name")]
    told = False
    for column, cell in zip(table["columns"], row["cells"], strict=True):
        cells.append(_cell(column, cell, told))
        told = told or cell.get("gap") in ("failed", "diverged")
    seeds = [
        tag("span", f"{run['seed']}" if run["status"] == "done" else f"{run['seed']} {STATUS[run['status']]}",
            class_="seed-chip" if run["status"] == "done" else "seed-chip bad", title=run["reason"] or None)
        for run in row["runs"]
    ]  # fmt: skip
    spaced = [part for seed in seeds for part in (seed, " ")][:-1]
    cells.append(tag("td", *spaced, class_="seeds"))
    return tag("tr", *cells, data_row=row["id"], data_family=row["family"])


def _cell(column: Json, cell: Json, told: bool) -> Markup:
    kind = column["kind"]
    if "mean" not in cell:
        lost = cell["gap"] in ("failed", "diverged")
        reason = cell["text"].partition(": ")[2]
        shown = tag("span", STATUS[cell["gap"]], class_="bad" if lost else None)
        said = tag("span", reason, class_="reason") if reason and not (lost and told) else None
        return tag("td", shown, " " if said else None, said, class_=f"gap {kind}")
    dagger = f" {DAGGER}" if cell["tier"] else ""
    parts: list[object] = [tag("span", *_rank(cell), *_value(cell["text"], cell["wins"]), dagger, class_="line")]
    below = [f"spread {cell['spread']}" if cell["spread"] else ""]
    if kind != "cost" and cell["seeds"] != cell["of"]:
        below.append(f"{cell['seeds']} of {cell['of']} seeds")
    if any(below):
        parts.append(tag("span", " · ".join(filter(None, below)), class_="below"))
    if "best" not in cell:
        return tag("td", *parts, class_=f"num {kind}")
    best = [tag("span", *_value(cell["best_text"], False), dagger, class_="line"),
            tag("span", f"seed {cell['best_seed']}", class_="below")]  # fmt: skip
    return tag("td", tag("span", *parts, class_="mean"), tag("span", *best, class_="best", hidden=True),
               class_=f"num {kind}")  # fmt: skip


def _rank(cell: Json) -> list[Markup]:
    if cell["rank"] is None:
        return []
    text = ("=" if cell["tied"] else "") + str(cell["rank"])
    first = " first" if cell["rank"] == 1 else ""
    return [tag("span", tag("span", "rank ", class_="vh"), text, class_=f"rank{first}"), Markup(" ")]


def _value(text: str, wins: bool) -> list[Markup]:
    value, _, error = text.partition(" ± ")
    shown = tag("b" if wins else "span", value, class_="value")
    return [shown, tag("span", f" ± {error}", class_="error")] if error else [shown]


def _remarks(table: Json) -> Markup | None:
    said = []
    if table["conditional"]:
        said.append(CONDITIONAL)
    said += table["taught"]
    if table["no_likelihood"]:
        said.append(NO_LIKELIHOOD[0].upper() + NO_LIKELIHOOD[1:])
    if table["recipes"]:
        said.append(f"Digits after a name tell recipes of one variant apart: {table['recipes']}")
    if table["part"]:
        said.append(SETS)
    lost = [
        tag("p", tag("b", f"{row['label']}, seed {run['seed']} {run['status']}"), f": {run['reason']}", class_="bad")
        for row in table["rows"] for run in row["runs"] if run["status"] != "done"
    ]  # fmt: skip
    parts = [*lost, *(tag("p", text) for text in said)]
    return tag("div", *parts, class_="remarks") if parts else None


def _measured(table: Json) -> Markup:
    lines = []
    for column in table["columns"]:
        said = ", ".join(f"{key} = {value}" for key, value in column["identity"])
        lines.append(tag("div", tag("dt", f"{column['title']} {column['direction']}".strip()), tag("dd", said or "–")))
    lines += [tag("div", tag("dt", metric), tag("dd", note)) for metric, note in table["notes"]]
    for metric, reasons in table["skipped"].items():
        lines.append(tag("div", tag("dt", metric), tag("dd", f"measured for none: skip: {'; '.join(reasons)}")))
    return tag("details", tag("summary", "What exactly was measured"), tag("dl", *lines, class_="pairs"))


def _points_legend(table: Json) -> Markup:
    marks = ["A point is the mean over a variant's seeds, small dots are the seeds; select one for its details."]
    if table["conditional"]:
        marks.append("Open points are conditional models.")
    marks.append("A triangle points to a variant that is off the scale, with its value.")
    return tag("ul", *(tag("li", mark) for mark in marks), class_="legend muted")


def _gallery(table: Json) -> Iterator[Markup]:
    shown, without = [], []
    for row in table["rows"]:
        if (first := first_seen(row)) is None:
            without.append(row["label"])
            continue
        run = row["runs"][first]
        picture = next(one for name, one in run["figures"] if name == GALLERY)
        shown.append(figure(row, run, GALLERY, picture, titled=True))
    if not shown:
        return
    names = sorted({name for row in table["rows"] for run in row["runs"] for name, one in run["figures"]})
    options = [tag("option", name.replace("_", " "), value=name, selected=name == GALLERY) for name in names]
    pick = tag("p", tag("label", "pictures ", tag("select", *options, data_gallery=table["id"])), class_="pick",
               hidden=True)  # fmt: skip
    yield tag("h3", "Pictures")
    missing = f" None of {', '.join(without)}." if without else ""
    yield tag("p", f"Of the first seed that is done, not chosen.{missing}", class_="muted")
    yield join(pick if len(names) > 1 else None, tag("div", *shown, class_="gallery", id=f"{table['id']}-gallery"))


def _published(table: Json) -> Iterator[Markup]:
    if not table["published"]:
        return
    yield tag("h3", "Published numbers beside ours")
    names = ("variant", "metric", "ours", "published", "difference", "recipe", "source")
    lines = []
    for one in table["published"]:
        ours = "; ".join(f"{title}: {text}" for title, text in one["ours"]) or "not measured"
        recipe = "same recipe" if one["same_recipe"] else "not the same recipe"
        source = link(one["source"], one["source"])
        lines.append(
            tag(
                "tr", tag("th", one["label"], scope="row"), tag("td", one["metric"]), tag("td", ours),
                tag("td", one["value"], class_="num"), tag("td", "; ".join(one["differences"]) or "–", class_="num"),
                tag("td", tag("span", recipe, class_="value" if one["same_recipe"] else "warn"),
                    f": {one['note']}" if one["note"] else None),
                tag("td", source, f" ({one['mark']})" if one["mark"] else None),
            )
        )  # fmt: skip
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    label = f"Published numbers: {table['title']}, {_dataset(table)}, {table['group']}"
    whole = tag("table", head, tag("tbody", *lines), class_="plain")
    yield tag("div", whole, class_="scroll", role="region", aria_label=label, tabindex=0)


def _provenance(table: Json) -> Markup:
    facts = "; ".join(f"{name} {value}" for name, value in table["facts"].items())
    data = f"Data: {table['data']}. " if table["data"] else ""
    again = f" Left out, because that seed was run again: {', '.join(table['superseded'])}."
    text = f"{data}{table['span']} under leaderboard/records/{table['group']}. {facts}."
    return tag("p", text + (again if table["superseded"] else ""), class_="provenance muted")
