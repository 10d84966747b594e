"""The charts as SVG: points that can be tabbed to and read out, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.report.html.axes import Axis, axis, steps, tick
from benchmarks.report.html.markup import Markup, tag
from benchmarks.report.html.payload import minus

WIDTH, HEIGHT = 460, 340
LEFT, RIGHT, TOP, BOTTOM = 60, 48, 38, 50
Line = tuple[Sequence[float | None], Sequence[float | None]]  # epochs, and a value at each
LETTER = 7.4  # what a letter of a label takes, about; labels are kept apart by it


@dataclass(frozen=True)
class Point:
    """One variant: its mean, its seeds, and what is read out. ``target`` is the id of its details."""

    label: str
    target: str
    x: float
    y: float
    said: str
    seeds: Sequence[tuple[float, float]] = ()
    hollow: bool = False


@dataclass
class _Boxes:
    """Rectangles that labels must not cover."""

    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def free(self, left: float, top: float, right: float, bottom: float) -> bool:
        inside = left >= LEFT + 2 and right <= WIDTH - 2 and top >= TOP and bottom <= HEIGHT - BOTTOM
        return inside and not any(
            left < r and right > l and top < b and bottom > t for l, t, r, b in self.taken
        )


def scatter(
    here: str, title: str, description: str, x: Axis, y: Axis, points: Sequence[Point], contours: str = ""
) -> Markup:
    """Points on two axes. ``contours`` names what x + y is the negative of: lines where that is equal."""
    parts: list[object] = [_frame(x, y)]
    places = [(_x(x, point.x), _y(y, point.y)) for point in points]
    boxes = _Boxes([(px - 6, py - 6, px + 6, py + 6) for px, py in places])
    if contours:
        parts.append(_contours(x, y, contours, boxes))
    for point, (px, py) in sorted(zip(points, places, strict=True), key=lambda pair: pair[1]):
        parts.append(_point(point, px, py, x, y, boxes))
    return _svg(here, title, description, parts)


def curves(here: str, title: str, unit: str, series: Mapping[str, Sequence[Line]]) -> Markup | None:
    """Lines over epochs, one a seed for each name of ``series``; None where there is nothing to draw.

    The first points of a run dwarf what comes later: what is far from the other points is off the scale.
    """
    drawn = [line for lines in series.values() for line in lines]
    known = [value for _, values in drawn for value in values if value is not None]
    times = [time for epochs, _ in drawn for time in epochs if time is not None]
    if len(known) < 2 or len(set(times)) < 2:
        return None
    x = Axis("epoch", min(times), max(times))
    y = axis(unit, known, cut="run")
    parts: list[object] = [_frame(x, y)]
    for i, lines in enumerate(series.values()):
        parts += [tag("path", d=_path(x, y, *line), class_=f"line l{i % 4}") for line in lines]
    said = f"{', '.join(series)} over {tick(max(times))} epochs, a line for each seed."
    return _svg(here, title, said, parts)


def _svg(here: str, title: str, description: str, parts: Sequence[object]) -> Markup:
    return tag(
        "svg", tag("title", title, id=f"{here}-t"), tag("desc", description, id=f"{here}-d"), *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="group", aria_labelledby=f"{here}-t", aria_describedby=f"{here}-d",
        class_="chart",
    )  # fmt: skip


def _frame(x: Axis, y: Axis) -> list[Markup]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in x.ticks():
        px = _f(_x(x, value))
        parts.append(tag("path", d=f"M{px} {TOP}V{bottom}", class_="grid"))
        parts.append(tag("text", minus(tick(value)), x=px, y=bottom + 16, class_="tick mid"))
    for value in y.ticks():
        py = _y(y, value)
        parts.append(tag("path", d=f"M{LEFT} {_f(py)}H{right}", class_="grid"))
        parts.append(tag("text", minus(tick(value)), x=LEFT - 7, y=_f(py + 4), class_="tick far"))
    parts.append(tag("path", d=f"M{LEFT} {TOP}V{bottom}H{right}", class_="axis"))
    parts.append(tag("text", x.label, x=(LEFT + right) / 2, y=HEIGHT - 10, class_="label mid"))
    parts.append(tag("text", y.label, x=4, y=14, class_="label"))
    return parts


def _contours(x: Axis, y: Axis, name: str, boxes: _Boxes) -> list[Markup]:
    parts = []
    right = WIDTH - RIGHT
    for total in steps(x.low + y.low, x.high + y.high, 9):
        # From where the line comes in, at the left or the top, to where it goes out, at the right or the bottom.
        start = max(x.low, total - y.high)
        end = min(x.high, total - y.low)
        if end - start < 0.04 * (x.high - x.low):
            continue
        x1, y1, x2, y2 = _x(x, start), _y(y, total - start), _x(x, end), _y(y, total - end)
        parts.append(tag("path", d=f"M{_f(x1)} {_f(y1)}L{_f(x2)} {_f(y2)}", class_="contour"))
        text = minus(tick(-total))
        if end == x.high:
            parts.append(tag("text", text, x=right + 4, y=_f(y2 + 4), class_="contour-label"))
            boxes.taken.append((right, y2 - 8, WIDTH, y2 + 8))
        elif start > x.low:
            parts.append(tag("text", text, x=_f(x1), y=TOP - 5, class_="contour-label mid"))
    if parts:
        parts.append(tag("text", name, x=WIDTH - 4, y=14, class_="contour-label far"))
    return parts


def _point(point: Point, px: float, py: float, x: Axis, y: Axis, boxes: _Boxes) -> Markup:
    parts: list[Markup] = [tag("title", point.said)]
    off = (point.x > x.high) - (point.x < x.low), (point.y > y.high) - (point.y < y.low)
    if off == (0, 0):
        for sx, sy in point.seeds:
            if x.low <= sx <= x.high and y.low <= sy <= y.high:
                parts.append(tag("circle", cx=_f(_x(x, sx)), cy=_f(_y(y, sy)), r=2.4, class_="seed"))
        parts.append(tag("circle", cx=_f(px), cy=_f(py), r=5, class_="dot hollow" if point.hollow else "dot"))
        text = point.label
    else:
        turn = {(0, 1): 0, (1, 1): 45, (1, 0): 90, (1, -1): 135, (0, -1): 180}.get(off, 270)
        place = f"translate({_f(px)} {_f(py)}) rotate({turn})"
        parts.append(tag("path", d="M0 -6L6 5H-6Z", transform=place, class_="dot hollow" if point.hollow else "dot"))
        text = f"{point.label} ({minus(tick(_short(point.y if off[1] else point.x)))})"
    parts.append(_label(text, px, py, boxes))
    return tag(
        "a", *parts, href=f"#{point.target}", class_="point", data_row=point.target, aria_label=point.said, tabindex=0
    )


def _label(text: str, px: float, py: float, boxes: _Boxes) -> Markup:
    """The label beside its point where nothing is covered, further away with a line to it if need be."""
    width = LETTER * len(text)
    for distance in (0, 14, 28, 42, 56):
        for dx, dy in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            if distance and not dy:
                continue
            left = px + dx * (9 + distance / 2) - (width if dx < 0 else width / 2 if dx == 0 else 0)
            middle = py + dy * (13 + distance)
            box = (left, middle - 7, left + width, middle + 7)
            if boxes.free(*box):
                boxes.taken.append(box)
                at, anchor = {1: (left, ""), 0: (px, " mid"), -1: (left + width, " far")}[dx]
                words = tag("text", text, x=_f(at), y=_f(middle + 4), class_=f"name{anchor}")
                if not distance:
                    return words
                near = min(max(px, left), left + width)
                edge = middle - 7 * math.copysign(1, dy)
                return Markup(tag("path", d=f"M{_f(px)} {_f(py)}L{_f(near)} {_f(edge)}", class_="leader") + words)
    return Markup("")


def _path(x: Axis, y: Axis, times: Sequence[float | None], line: Sequence[float | None]) -> str:
    words, pen = [], "M"
    for time, value in zip(times, line, strict=False):
        if time is None or value is None:
            pen = "M"
            continue
        # What is off the scale is drawn towards its edge; the page cuts nothing out of sight.
        words.append(f"{pen}{_f(_x(x, time))} {_f(_y(y, min(max(value, y.low), y.high)))}")
        pen = "L"
    return "".join(words)


def _x(x: Axis, value: float) -> float:
    return LEFT + min(max(x.at(value), 0.0), 1.0) * (WIDTH - LEFT - RIGHT)


def _y(y: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - min(max(y.at(value), 0.0), 1.0) * (HEIGHT - TOP - BOTTOM)


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _f(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
