"""What a variant opens to: its paper, numbers, settings, commands, environment, curves and pictures."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.report.html.markup import Markup, join, link, tag
from benchmarks.report.html.payload import Json
from benchmarks.report.html.plots import training

#: The gallery of a table shows these; details point to them instead of carrying them twice.
GALLERY = "samples"


def details(table: Json, row: Json) -> Markup:
    """The folded details of one row; the page's script shows them in a dialog."""
    return tag(
        "details",
        tag("summary", row["label"], tag("span", f" {row['title']}", class_="muted") if row["title"] else None),
        tag("div", *_parts(table, row), class_="body"),
        id=row["id"], class_="variant", data_family=row["family"], data_row=row["id"],
    )  # fmt: skip


def _parts(table: Json, row: Json) -> Iterator[Markup | None]:
    yield _about(row)
    for run in row["runs"]:
        if run["status"] != "done":
            yield _lost(run)
    yield from _pictures(row)
    if (drawn := training(row)) is not None:
        yield tag("h4", "Training")
        yield drawn
    yield tag("h4", "Numbers")
    yield _numbers(table, row)
    if row["groups"]:
        yield tag("h4", "Rate of each group of latents")
        yield _groups(row)
    yield tag("h4", "Commands")
    yield tag("p", "Each made one record of this row, with the code and versions below.", class_="muted")
    for run in row["runs"]:
        yield tag(
            "div", tag("span", f"seed {run['seed']}", class_="muted"), tag("code", run["command"]),
            tag("button", "Copy", type="button", class_="copy", hidden=True, aria_label=f"Copy: {run['command']}"),
            class_="command",
        )  # fmt: skip
    yield tag("h4", "Settings")
    yield _pairs(row["settings"])
    yield tag("h4", "Runs")
    yield _runs(row)
    yield tag("h4", "Environment")
    yield _pairs(list(_environment(row)))


def _about(row: Json) -> Markup:
    lines: list[object] = [tag("p", row["summary"])] if row["summary"] else []
    if (paper := row["paper"]) is not None:
        whence = f" {paper['authors']}, {paper['year']}."
        lines.append(tag("p", "Paper: ", tag("cite", link(paper["title"], paper["url"])), ".", whence))
    if row["code"]:
        lines.append(tag("p", "Code of its authors: ", link(row["code"], row["code"]), "."))
    known = [f"family {row['family']}", f"class {row['class']}" if row["class"] else ""]
    known.append("conditional: its nats are of log p(x | y)" if row["conditional"] else "")
    lines.append(tag("p", "; ".join(filter(None, known)) + ".", class_="muted"))
    return tag("div", *lines, class_="about")


def _lost(run: Json) -> Markup:
    log = None
    if run["log"]:
        log = tag("details", tag("summary", "The end of its log"), tag("pre", "\n".join(run["log"]), tabindex=0))
    head = tag("b", f"Seed {run['seed']} {run['status']}")
    return tag("div", tag("p", head, f": {run['reason']}"), log, class_="lost")


def _pictures(row: Json) -> Iterator[Markup]:
    for i, run in enumerate(row["runs"]):
        if not run["figures"]:
            continue
        yield tag("h4", f"Pictures, seed {run['seed']}")
        shown, absent = [], []
        for name, picture in run["figures"]:
            if not picture["content"]:
                absent.append(f"{name} ({picture['why']}): leaderboard/{picture['path']}")
            elif name == GALLERY and i == first_seen(row):
                shown.append(figure(row, run, name, picture, copied=True))
            else:
                shown.append(figure(row, run, name, picture))
        if shown:
            yield tag("div", *shown, class_="pictures")
        if absent:
            yield tag("p", "; ".join(absent), class_="muted")


def first_seen(row: Json) -> int | None:
    """Which run the gallery shows: the first that is done and has a picture to show, or None."""
    for i, run in enumerate(row["runs"]):
        if run["status"] == "done" and any(name == GALLERY and one["content"] for name, one in run["figures"]):
            return i
    return None


def figure(row: Json, run: Json, name: str, picture: Json, copied: bool = False, titled: bool = False) -> Markup:
    """One picture with its name. ``copied``: the script takes its content from the gallery; ``titled``: the gallery's
    own, under the variant's name."""
    said = f"{name.replace('_', ' ')} of {row['label']}, seed {run['seed']}"
    size = {"width": picture["width"], "height": picture["height"]} if picture["width"] else {}
    small = "pixels" if 0 < picture["width"] <= 400 else None
    caption = link_to(row) if titled else name.replace("_", " ")
    if copied:
        shown = tag("a", "see the gallery of the table", href=f"#{row['id']}-gallery", data_copy=f"{row['id']}-gallery")
    else:
        shown = tag("img", src=picture["content"], alt=said, class_=small, decoding="async", **size)
    return tag(
        "figure", shown, tag("figcaption", caption), class_="picture",
        id=f"{row['id']}-gallery" if titled else None, data_name=name, data_row=row["id"], data_seed=run["seed"],
    )  # fmt: skip


def link_to(row: Json) -> Markup:
    """The variant's name; it opens the details."""
    return tag("a", row["label"], href=f"#{row['id']}", class_="open", data_row=row["id"])


def _numbers(table: Json, row: Json) -> Markup:
    lines = []
    for column, cell in zip(table["columns"], row["cells"], strict=True):
        if "mean" not in cell:
            lines.append(_line(column, tag("td", cell["text"], colspan=4, class_="gap")))
            continue
        rank = "" if cell["rank"] is None else ("=" if cell["tied"] else "") + str(cell["rank"])
        lines.append(
            _line(
                column, tag("td", cell["text"], class_="num"), tag("td", cell["spread"] or "–", class_="num"),
                tag("td", rank or "–", class_="num"), _by_seed(row, [pair[:2] for pair in cell["by_seed"]]),
            )
        )  # fmt: skip
    body = tag("table", _heads("metric", "mean ± error", "spread", "rank"), tag("tbody", *lines))
    return tag("div", body, class_="scroll", role="region", aria_label=f"Numbers of {row['label']}", tabindex=0)


def _by_seed(row: Json, seeds: list[list[object]]) -> Markup:
    # Of one of several runs, too: it is said which.
    shown = [[tag("span", tag("span", f"{seed}: ", class_="muted"), text, class_="one"), " "] for seed, text in seeds]
    return tag("td", shown if len(row["runs"]) > 1 else "–")


def _heads(first: str, *numeric: str) -> Markup:
    heads = [tag("th", name, scope="col", class_="num") for name in numeric]
    return tag("thead", tag("tr", tag("th", first, scope="col"), *heads, tag("th", "by seed", scope="col")))


def _groups(row: Json) -> Markup:
    lines = [
        tag(
            "tr", tag("th", one["name"], scope="row"), tag("td", one["text"], class_="num"),
            *(tag("td", one[name] or "–", class_="num") for name in ("spread", "dimensions", "active")),
            _by_seed(row, one["by_seed"]),
        )
        for one in row["groups"]
    ]  # fmt: skip
    head = _heads("group", "mean ± error (nats)", "spread", "dimensions", "active")
    body = tag("table", head, tag("tbody", *lines))
    said = f"Rate of each group of latents of {row['label']}"
    return tag("div", body, class_="scroll", role="region", aria_label=said, tabindex=0)


def _line(column: Json, *cells: Markup) -> Markup:
    return tag("tr", tag("th", f"{column['title']} {column['direction']}".strip(), scope="row"), *cells)


def _runs(row: Json) -> Markup:
    heads = ["seed", "status", "when", "steps", "epochs", "best epoch", "stopped early", "skipped updates", "seconds",
             "record"]  # fmt: skip
    lines = []
    for run in row["runs"]:
        train = run["training"]
        seconds = ", ".join(f"{name} {value}" for name, value in run["seconds"].items())
        cells = [run["status"], run["when"][:16].replace("T", " ") + " UTC"]
        cells += [train.get(name) or "–" for name in heads[3:8]] + [seconds or "–", run["stem"]]
        lines.append(tag("tr", tag("th", run["seed"], scope="row"), *(tag("td", cell) for cell in cells)))
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in heads)))
    whole = tag("table", head, tag("tbody", *lines), class_="plain")
    skipped = {metric: why for run in row["runs"] for metric, why in run["skipped"].items()}
    said = [tag("li", f"{metric}: skip: {why}") for metric, why in skipped.items()]
    area = tag("div", whole, class_="scroll", role="region", aria_label=f"Runs of {row['label']}", tabindex=0)
    return join(area, tag("ul", *said, class_="muted") if said else None)


def _environment(row: Json) -> Iterator[list[str]]:
    names = list(dict.fromkeys(name for run in row["runs"] for name in run["environment"]))
    for name in names:
        values = dict.fromkeys(run["environment"].get(name, "none") for run in row["runs"])
        yield [name.replace("_", " "), ", ".join(values)]


def _pairs(pairs: list[list[str]]) -> Markup:
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_="pairs")
