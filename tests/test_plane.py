"""The rate-distortion plane as it is drawn: what can be read off it is what it was made of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from benchmarks.report import plane
from benchmarks.report.tables import tables
from tests.test_board import make


def numbers(pattern: str, text: str) -> np.ndarray:
    return np.array([[float(part) for part in found] for found in re.findall(pattern, text)])


def drawings(many: int) -> Iterator[list[plane.Point]]:
    """Points of all sizes and spreads, none far from the others, those of even places on one curve."""
    generator = np.random.default_rng(0)
    for _ in range(many):
        middle, spread = generator.uniform(-3, 3, 2), 10 ** generator.uniform(-2, 3, 2)
        apart = generator.permuted(np.linspace(-0.8, 0.8, 6)[:, None].repeat(2, 1), axis=0)
        places = (middle + apart + generator.uniform(-0.2, 0.2, (6, 2))) * spread
        betas = [float(k + 1) if k % 2 == 0 else None for k in (4, 1, 0, 3, 2, 5)]
        yield [plane.Point(f"v{k}", *place, "", "", beta) for k, (place, beta) in enumerate(zip(places, betas))]


def test_the_plane_has_each_point_and_each_tick_and_each_sum_where_it_belongs() -> None:
    low, high = np.array([plane.LEFT, plane.HEIGHT - plane.BOTTOM]), np.array([plane.WIDTH - plane.RIGHT, plane.TOP])
    for points in drawings(40):
        svg = plane.svg(points)
        x = numbers(r'<text x="([\d.]+)" y="406" text-anchor="middle">([^<]+)', svg)
        y = numbers(r'<text x="54" y="([\d.-]+)" text-anchor="end">([^<]+)', svg) - [4, 0]
        scales = [np.polyfit(axis[:, 1], axis[:, 0], 1) for axis in (x, y)]
        assert scales[0][0] > 0 > scales[1][0], "rate grows to the right and distortion upwards"

        def place(values: np.ndarray, scales: list[np.ndarray] = scales) -> np.ndarray:
            return np.stack([np.polyval(scale, column) for scale, column in zip(scales, values.T)], 1)

        at = numbers(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5" fill="[^"]*"><title>', svg)
        expected = place(np.array([(one.rate, one.distortion) for one in points]))
        assert np.abs(at - expected).max() < 0.5
        inside = (at - low) / (high - low)
        assert inside.min() > 0 and inside.max() < 1
        # Ticks are the multiples of 1, 2 or 5 times a power of ten that there are in the frame, few enough to be read.
        steps = []
        for axis, (slope, offset), ends in zip((x, y), scales, zip(low, high)):
            step = np.diff(axis[:, 1]).mean()
            steps.append(step)
            whole = axis[:, 1] / step
            assert np.abs(whole - whole.round()).max() < 1e-3 * max(1, np.abs(whole).max())
            assert min(abs(step / 10 ** np.floor(np.log10(step) + 1e-6) - size) for size in (1, 2, 5)) < 1e-2
            first, last = ((end - offset) / slope / step for end in ends)
            assert len(axis) == math.floor(last + 0.01) - math.ceil(first - 0.01) + 1 and 4 <= len(axis) <= 9
            values = np.array([one.rate if axis is x else one.distortion for one in points]) / step
            assert values.min() - first > 0.24 and last - values.max() > 0.24, "a quarter of a step from the frame"
            spread = np.ptp(values) * step
            assert 2 * step < spread <= 5 * step * 1.001
            # No more room than the points need.
            assert (last - first) * step <= spread + 2.6 * step
        lines = numbers(r'<line x1="([\d.-]+)" y1="([\d.-]+)" x2="([\d.-]+)" y2="([\d.-]+)" stroke="#dddddd"', svg)
        assert np.abs(lines[:, 0] - low[0]).max() < 0.1 and np.abs(lines[:, 2] - high[0]).max() < 0.1
        ends = [(lines[:, k : k + 2] - [scale[1] for scale in scales]) / [scale[0] for scale in scales] for k in (0, 2)]
        one, other = (end.sum(1) for end in ends)
        near = 0.02 * steps[1] + 0.004 * steps[0]
        assert np.abs(one - other).max() < 2 * near + 1e-3 * np.abs(one).max()
        assert np.abs(np.diff(one) - steps[1]).max() < near + 1e-3 * np.abs(one).max() and len(lines) >= 3
        corners = [sum((corner[k] - scales[k][1]) / scales[k][0] for k in (0, 1)) for corner in (low, high)]
        assert one[0] - corners[0] < 1.02 * steps[1] and corners[1] - one[-1] < 1.02 * steps[1]


def test_what_lies_far_from_the_others_is_hollow_at_the_edge_and_moves_no_scale() -> None:
    near = [plane.Point(f"v{k}", 20.0 + k, 100.0 - 3 * k, "", "", None) for k in range(5)]
    far = plane.Point("far", 1250.0, 95.0, "", "", None)
    ticks = r'<text x="[\d.]+" y="406" text-anchor="middle">[^<]+'
    alone, beside = plane.svg(near), plane.svg([*near, far])
    assert re.findall(ticks, alone) == re.findall(ticks, beside)
    # Said at its point and in its line of the list.
    assert "off the scale" not in alone and beside.count("far, off the scale") == 2
    hollow = r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5" fill="none" stroke="[^"]*" stroke-width="2"><title>far'
    filled = r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5" fill="#[^"]*"><title>v'
    ((x, y),) = numbers(hollow, beside)
    assert x == plane.WIDTH - plane.RIGHT and len(numbers(filled, beside)) == 5
    heights = numbers(filled, beside)[:, 1]
    assert heights[1] < y < heights[2], "between distortions of 97 and 94"


def test_the_plane_names_each_point_in_its_colour_with_its_sum_and_joins_a_curve_in_the_order_of_beta() -> None:
    for points in drawings(5):
        svg = plane.svg(points)
        shown = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5" fill="([^"]*)"><title>([^<]*)', svg)
        listed = re.findall(r'<circle cx="511" cy="\d+" r="5" fill="([^"]*)"/>\n<text x="524" y="(\d+)">([^<]*)', svg)
        names = [one.label + (f", beta {one.beta:g}" if one.beta else "") for one in points]
        assert [name for *_, name in shown] == names and len({colour for *_, colour, _ in shown}) == len(points)
        assert [colour for colour, *_ in listed] == [colour for *_, colour, _ in shown]
        sums = [f"{one.rate + one.distortion:.1f}  {name}" for one, name in zip(points, names)]
        assert [text for *_, text in listed] == sums
        heights = [int(y) for _, y, _ in listed]
        assert min(np.diff(heights)) >= 16 and heights[0] > plane.TOP + 12
        (curve,) = re.findall(r'<polyline points="([^"]*)"', svg)
        order = sorted((one for one in points if one.beta), key=lambda one: one.beta)
        assert curve.split() == [",".join(shown[points.index(one)][:2]) for one in order]


def run(variant: str, rate: float, distortion: float, seed: int = 0, **changes: object) -> object:
    return make(variant, seed, numbers={"rate": (rate, 0.1), "distortion": (distortion, 0.4)}, **changes)


def test_the_best_sum_is_first_and_what_is_conditional_is_not_there() -> None:
    told = run("cvae", 1.0, 1.0, model__conditional=True)
    (table,) = tables([told, run("vae", 30.0, 60.0), run("m2", 5.0, 80.0), run("iwae", 15.0, 90.0)])
    assert [one.label for one in plane.points(table)] == ["m2", "vae", "iwae"]


def test_a_rate_and_a_distortion_of_other_images_are_no_point() -> None:
    def of(variant: str, first: str, second: str) -> object:
        splits = [{"identity": {"split": split}} for split in (first, second)]
        return make(variant, numbers={"rate": (20.0, 0.1, splits[0]), "distortion": (70.0, 0.4, splits[1])})

    splits = {"vae": ("test", "test"), "iwae": ("validation", "validation"), "m2": ("test", "validation")}
    (table,) = tables([of(name, *ends) for name, ends in splits.items()])
    assert [one.label for one in plane.points(table)] == ["iwae", "vae"]


def test_a_beta_is_that_of_a_beta_vae_and_its_curve_looks_at_what_decides_a_number() -> None:
    def beta(variant: str, **changes: object) -> object:
        return run(variant, 10.0, 90.0, settings={"model": {"beta": 4.0}, **changes})

    usual = {"model": {}, "train": {"learning_rate": 0.001, "checkpoint_seconds": 5.0}}
    # The VAE's first seed is another, and so is how often it was written down.
    records = [run("vae", 20.0, 80.0, seed=3, settings=usual), beta("beta_vae"), beta("beta_tcvae")]
    found = {one.label: one for one in plane.points(tables(records)[0])}
    assert {label: one.beta for label, one in found.items()} == {"vae": 1.0, "beta_vae": 4.0, "beta_tcvae": None}
    assert found["vae"].curve == found["beta_vae"].curve
    other = plane.points(tables([records[0], beta("beta_vae", train={"learning_rate": 0.1})])[0])
    assert len({one.curve for one in other}) == 2
