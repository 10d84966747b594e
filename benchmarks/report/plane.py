"""The rate-distortion plane as an SVG: a point a variant, a line for each sum of the two, curves through the betas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from benchmarks.record import cell_key
from benchmarks.report import notation
from benchmarks.report.compare import Estimate
from benchmarks.report.html.axes import without_few
from benchmarks.report.tables import Row, Table
from zoo.config import decisive

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 60, 230, 20, 50
COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa8800", "#66ccee", "#aa3377", "#777777", "#000000")


@dataclass(frozen=True)
class Point:
    """One variant under one recipe, in nats; ``beta`` of a VAE and a beta-VAE. ``curve`` is equal where the recipes
    differ in it alone."""

    label: str
    rate: float
    distortion: float
    rate_text: str
    distortion_text: str
    beta: float | None
    curve: str = ""


def points(table: Table) -> list[Point]:
    """Rows with a rate and a distortion of log p(x) measured alike, best sum first; a conditional one has neither."""
    found = []
    for row in table.rows:
        if row.conditional or (pair := _pair(table, row)) is None:
            continue
        texts = [notation.estimate(one, len(row.records)) for one in pair]
        found.append(Point(row.label, *(one.value for one in pair), *texts, beta=_beta(row), curve=_rest(row)))
    return sorted(found, key=lambda one: (one.rate + one.distortion, one.label))


def svg(found: list[Point]) -> str:
    """The drawing; the same points always give the same text. What lies further from the others than these spread is at
    the edge, hollow, and named as off the scale."""
    low_x, high_x, step_x = _scale(without_few(sorted(one.rate for one in found)))
    low_y, high_y, step_y = _scale(without_few(sorted(one.distortion for one in found)))

    def x(rate: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (rate - low_x) / (high_x - low_x)

    def y(distortion: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (distortion - low_y) / (high_y - low_y)

    def inside(one: Point) -> tuple[float, float]:
        return min(max(one.rate, low_x), high_x), min(max(one.distortion, low_y), high_y)

    whole = max(HEIGHT, _line(len(found)))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {whole}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{whole}" fill="#ffffff"/>',
        f'<clipPath id="plane"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath>',
    ]
    for total in _ticks(low_x + low_y, high_x + high_y, step_y):
        ends = f'x1="{x(low_x):.1f}" y1="{y(total - low_x):.1f}" x2="{x(high_x):.1f}" y2="{y(total - high_x):.1f}"'
        lines.append(f'<line {ends} stroke="#dddddd" clip-path="url(#plane)"/>')
    for rate in _ticks(low_x, high_x, step_x):
        lines.append(f'<text x="{x(rate):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{rate:g}</text>')
    for distortion in _ticks(low_y, high_y, step_y):
        lines.append(f'<text x="{LEFT - 6}" y="{y(distortion) + 4:.1f}" text-anchor="end">{distortion:g}</text>')
    lines.append(
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" fill="none" '
        'stroke="#333333"/>'
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    lines.append(f'<text x="{middle:.0f}" y="{HEIGHT - 12}" text-anchor="middle">rate (nats)</text>')
    lines.append(
        f'<text transform="translate(16 {HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">distortion (nats)</text>'
    )
    for curve in _curves(found):
        path = " ".join(f"{x(one.rate):.1f},{y(one.distortion):.1f}" for one in curve)
        dashes = 'fill="none" stroke="#333333" stroke-dasharray="4 3" clip-path="url(#plane)"'
        lines.append(f'<polyline points="{path}" {dashes}/>')
    lines.append(f'<text x="{WIDTH - RIGHT + 16}" y="{TOP + 12}" fill="#555555">rate + distortion</text>')
    for place, one in enumerate(found):
        colour = COLOURS[place % len(COLOURS)]
        height = _line(place)
        name = escape(one.label) + ("" if one.beta is None else f", beta {one.beta:g}")
        rate, distortion = inside(one)
        paint = f'fill="{colour}"'
        if (rate, distortion) != (one.rate, one.distortion):
            paint, name = f'fill="none" stroke="{colour}" stroke-width="2"', f"{name}, off the scale"
        lines.append(
            f'<circle cx="{x(rate):.1f}" cy="{y(distortion):.1f}" r="5" {paint}><title>{name}</title></circle>'
        )
        lines.append(f'<circle cx="{WIDTH - RIGHT + 21}" cy="{height - 4}" r="5" {paint}/>')
        lines.append(f'<text x="{WIDTH - RIGHT + 34}" y="{height}">{one.rate + one.distortion:.1f}  {name}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _line(place: int) -> int:
    """Where the name of the point ``place`` stands in the list beside the plane."""
    return TOP + 34 + 20 * place


def _pair(table: Table, row: Row) -> tuple[Estimate, Estimate] | None:
    """The rate and the distortion of a row, of one identity; of several the first."""
    for one in table.columns:
        for other in table.columns:
            if (one.metric, other.metric) == ("rate", "distortion") and one.identity == other.identity:
                rate, distortion = row.cells[one], row.cells[other]
                if isinstance(rate, Estimate) and isinstance(distortion, Estimate):
                    return rate, distortion
    return None


def _beta(row: Row) -> float | None:
    if row.variant == "vae":
        return 1.0
    model: Any = row.records[0].config.get("model", {})
    return float(model["beta"]) if row.variant == "beta_vae" and "beta" in model else None


def _rest(row: Row) -> str:
    # The recipe less the variant and beta: a VAE is a beta-VAE of beta 1.
    config = {name: value for name, value in row.records[0].config.items() if name not in ("seed", "variant")}
    model = {name: value for name, value in config.get("model", {}).items() if name != "beta"}
    return cell_key(decisive({**config, "model": model}))


def _curves(found: list[Point]) -> list[list[Point]]:
    """The points of each curve through the betas, the lowest beta first; of a single point there is none."""
    curves: dict[str, list[Point]] = {}
    for one in sorted((one for one in found if one.beta is not None), key=lambda one: one.beta or 0.0):
        curves.setdefault(one.curve, []).append(one)
    return [curve for curve in curves.values() if len(curve) > 1]


def _scale(values: Sequence[float]) -> tuple[float, float, float]:
    """Both ends of an axis that holds the values, and the step of its ticks: 1, 2 or 5 times a power of ten."""
    # A tick has six digits: of a narrower axis those of several are the same.
    span = max(max(values) - min(values), 1e-4 * max(1.0, *map(abs, values)))
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(size * power for size in (1, 2, 5, 10) if size * power * 5 >= span)
    return step * math.floor(min(values) / step - 0.25), step * math.ceil(max(values) / step + 0.25), step


def _ticks(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * number, 9) for number in range(first, last + 1)]
