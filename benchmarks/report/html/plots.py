"""The figures of a table: rate against distortion, quality against cost, and the curves of a variant's training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.report.html.axes import axis
from benchmarks.report.html.charts import Point, curves, scatter
from benchmarks.report.html.markup import Markup, join, tag
from benchmarks.report.html.payload import Json

COSTS = {"images_per_second": "images/s in training", "parameters": "parameters"}
RATE_DISTORTION = (
    "Rate is what the code costs, distortion what is lost, both in nats. The dashed lines join points of equal ELBO, "
    "which is the negative of their sum: nearer to the lower left is better."
)
MOST = 6  # ranked columns that quality against cost can show


def rate_distortion(table: Json) -> Markup | None:
    """Every variant's distortion over its rate, with lines of equal ELBO; None where that was not measured."""
    rate, distortion = _fullest(table, "rate"), _fullest(table, "distortion")
    if rate is None or distortion is None:
        return None
    points = list(_points(table, rate, distortion))
    if len(points) < 2:
        return None
    chart = scatter(
        f"{table['id']}-rd", "Rate and distortion", RATE_DISTORTION,
        axis("rate (nats)", [point.x for point in points], cut="few"),
        axis("distortion (nats)", [point.y for point in points], cut="few"), points, "ELBO",
    )  # fmt: skip
    return tag("figure", chart, class_="plot")


def quality_against_cost(table: Json) -> Markup | None:
    """One chart for each ranked column and each cost; those after the first column are shown on demand."""
    columns = [i for i, column in enumerate(table["columns"]) if column["kind"] == "head" and column["better"]][:MOST]
    costs = [(i, label) for metric, label in COSTS.items() if (i := _fullest(table, metric)) is not None]
    made: dict[int, list[Markup]] = {}
    for column in columns:
        for cost, label in costs:
            # A logarithmic scale has no zero, which is the speed of what was never trained.
            points = [point for point in _points(table, cost, column) if point.x > 0]
            if len(points) < 2:
                continue
            head = table["columns"][column]
            name = f"{head['title']} {head['direction']}"
            chart = scatter(
                f"{table['id']}-c{column}-{cost}", f"{head['title']} against {label}",
                f"{name} of each variant against {label}, on a logarithmic scale.",
                axis(label, [point.x for point in points], log=True),
                axis(name, [point.y for point in points], cut="few"), points,
            )  # fmt: skip
            made.setdefault(column, []).append(_figure(f"{head['title']} against {label}", chart))
    if not made:
        return None
    first = next(iter(made))
    here = f"{table['id']}-quality"
    options = [tag("option", table["columns"][i]["title"], value=f"{here}-{i}") for i in made]
    chosen = tag("p", tag("label", "quality ", tag("select", *options, data_plots=here)), class_="pick", hidden=True)
    groups = [
        tag("div", *figures, class_="plots", id=f"{here}-{i}", data_plot=here, hidden=i != first)
        for i, figures in made.items()
    ]
    return join(chosen if len(made) > 1 else None, *groups)


def training(row: Json) -> Markup | None:
    """The curves of a row's seeds: bound, its two terms, and whatever else was recorded."""
    runs = [run for run in row["runs"] if run["curves"].get("epoch")]
    names = list(dict.fromkeys(name for run in runs for name in run["curves"] if name != "epoch"))
    groups: dict[str, list[str]] = {}
    for name in names:
        group = "ELBO" if "elbo" in name else "Rate and distortion" if name.endswith(("rate", "distortion")) else "Loss"
        groups.setdefault(group, []).append(name)
    figures = []
    for group in ("ELBO", "Rate and distortion", "Loss"):
        if group in groups:
            series = {
                name.replace("_", " "): [(run["moments"].get(name, []), run["curves"].get(name, [])) for run in runs]
                for name in groups[group]
            }
            unit = "" if group == "Loss" else "nats"
            here = f"{row['id']}-{group.split()[0].lower()}"
            chart = curves(here, group, unit, series)
            figures.append(_figure(group, chart, list(series)) if chart else None)
    drawn = [figure for figure in figures if figure is not None]
    return tag("div", *drawn, class_="plots") if drawn else None


def _figure(title: str, chart: Markup, lines: Sequence[str] = ()) -> Markup:
    key = [tag("span", name, class_=f"key k{i % 4}") for i, name in enumerate(lines)]
    return tag("figure", tag("figcaption", tag("b", title), *key), chart, class_="plot")


def _fullest(table: Json, metric: str) -> int | None:
    """The column of a metric that most rows have a number in: there may be one for each machine, or k."""
    found = [i for i, column in enumerate(table["columns"]) if column["metric"] == metric]
    return max(found, key=lambda i: sum("mean" in row["cells"][i] for row in table["rows"]), default=None)


def _points(table: Json, x: int, y: int) -> Iterator[Point]:
    heads = [table["columns"][i]["title"] for i in (x, y)]
    for row in table["rows"]:
        across, up = row["cells"][x], row["cells"][y]
        done = any(run["status"] == "done" for run in row["runs"])
        if "mean" in across and "mean" in up and done:
            said = f"{row['label']}: {heads[0]} {across['text']}, {heads[1]} {up['text']}"
            said += ", conditional" if row["conditional"] else ""
            seeds = _seeds(across, up)
            yield Point(row["label"], row["id"], across["mean"], up["mean"], said, seeds, row["conditional"])


def _seeds(across: dict[str, Any], up: dict[str, Any]) -> list[tuple[float, float]]:
    known = {seed: value for seed, _, value in across["by_seed"]}
    return [(known[seed], value) for seed, _, value in up["by_seed"] if seed in known and len(known) > 1]
