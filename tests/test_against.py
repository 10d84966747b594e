"""`zoo compare`: the difference of two rows of the board, its interval, and what the board says of the two."""

from __future__ import annotations

import errno
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import per_example, record
from benchmarks.metrics.features import mean_and_error
from benchmarks.record import Metric
from benchmarks.report.against import Difference, against
from benchmarks.report.compare import best, differ, estimate, half_width, ranks
from benchmarks.report.notes import taught
from benchmarks.report.tables import tables
from tests.conftest import ROOT
from tests.test_board import FD, ZOO, failed, make
from tests.test_cli import call
from zoo.errors import UsageError
from zoo.registry import registry

THREE = [
    make(name, seed, numbers={"elbo": (mean + off, 0.1)})
    for name, mean in (("vae", -90.0), ("flow_vae", -80.0))
    for seed, off in enumerate((-0.3, 0.0, 0.3))
]


def test_the_difference_its_interval_and_the_better_one() -> None:
    (one,) = (one for one in against(THREE, "vae", "flow_vae") if one.column.metric == "elbo")
    # v = 2 (0.01 + 0.03), of which 0.03 twice have 2 degrees of freedom: 0.08^2 / 0.03^2 = 7.1, t = 2.365 (a t table)
    assert one.value == pytest.approx(-10.0) and one.better == "flow_vae"
    assert one.error == pytest.approx(2.365 * math.sqrt(2 * (0.1**2 + 0.3**2 / 3)), rel=1e-3)
    (back,) = (one for one in against(THREE, "flow_vae", "vae") if one.column.metric == "elbo")
    assert (back.value, back.error, back.better) == (-one.value, one.error, "flow_vae")


def test_a_mean_over_seeds_is_of_as_many_images_as_the_fewest_and_its_spread_is_that_of_a_sample() -> None:
    values = (90.0, 93.0, 99.0)
    found = estimate([Metric(value=value, stderr=0.5, n=n) for value, n in zip(values, (100, 60, 80), strict=True)])
    assert (found.value, found.stderr, found.n, found.seeds, found.runs) == (94.0, 0.5, 60, 3, values)
    assert found.spread == pytest.approx(np.std(values, ddof=1))


def test_the_order_of_all_runs_says_nothing_of_fewer_than_three() -> None:
    def of(*values: float) -> object:
        return estimate([Metric(value=value, stderr=1e-3, n=10_000) for value in values])

    # Apart by more than half of a 90 % interval and less than one of 95 %: by the order of runs alone.
    assert not differ(of(0.0, 1.0), of(2.5, 3.5)) and differ(of(0.0, 1.0), of(3.5, 4.5))
    assert differ(of(0.0, 0.5, 1.0), of(1.05, 1.55, 2.05)) and not differ(of(0.0, 0.5, 1.0), of(0.95, 1.45, 1.95))


def test_the_best_beats_all_others_and_no_width_puts_a_worse_number_before_a_better_one() -> None:
    def of(value: float, stderr: float) -> object:
        return estimate([Metric(value=value, stderr=stderr, n=10_000)])

    far, near, wide = of(-9.0, 0.1), of(-0.1, 0.1), of(-1.5, 9.0)
    first = of(0.0, 0.1)
    assert best({"a": first, "b": far}, "higher") == "a" == best({"b": far, "a": first, "c": of(-3.0, 0.1)}, "higher")
    for other in (near, wide):
        assert best({"a": first, "b": far, "c": other}, "higher") is None
    assert ranks({"a": first, "b": of(-1.0, 0.1), "c": wide}, "higher") == {"a": 1, "b": 2, "c": 2}


@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (1, 3), (5, 2), (1, 2)])
@pytest.mark.parametrize("image", [0.05, 0.3, 1.0])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(seeds: tuple[int, int], image: float) -> None:
    generator = np.random.default_rng(0)

    def measured(many: int) -> list[Metric]:
        shared = generator.normal(0.0, image)
        return [Metric(value=shared + value, stderr=image, n=10_000) for value in generator.normal(0.0, 1.0, many)]

    inside = 0
    for _ in range(1000):
        a, b = (estimate(measured(many)) for many in seeds)
        inside += abs(a.value - b.value) <= half_width(a, b)
    # Degrees of freedom are themselves estimated, from two runs where it is least.
    assert inside >= (860 if min(seeds) == 1 else 910)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 2.0])
def test_the_interval_of_what_judges_samples_errs_towards_a_tie(spread: float) -> None:
    # Each seed has samples of its own: their error, of 1, is in the spread over seeds as well.
    generator = np.random.default_rng(4)
    inside = 0
    for _ in range(1000):
        a, b = (
            estimate(
                [
                    Metric(value=value, stderr=1.0, n=10_000)
                    for value in generator.normal(0.0, math.hypot(spread, 1.0), 3)
                ]
            )
            for _ in range(2)
        )
        inside += abs(a.value - b.value) <= half_width(a, b)
    assert inside >= 970


@pytest.mark.parametrize(
    ("variants", "image", "place"), [(25, 0.0, 0), (25, 0.3, 1), (25, 1.0, None), (8, 0.0, 2), (8, 0.3, 3)]
)
def test_of_equally_good_variants_none_is_bold_and_some_are_left_out_of_the_first_rank_as_often_as_the_page_says(
    variants: int, image: float, place: int | None
) -> None:
    page = " ".join((ROOT / "docs" / "howto" / "compare.md").read_text().split())
    pattern = (
        r"of 25 equally good ones with three seeds each, none was bold .* but in (\.\d+) of them a given one was left "
        r"out of that tie \(in (\.\d+) where .* is \.3 of the spread .* of eight, in (\.\d+) and (\.\d+);"
    )
    said = [*map(float, re.search(pattern, page).groups()), 0.0][-1 if place is None else place]
    generator, left = np.random.default_rng(5), []
    for _ in range(400):
        # What the error over images is of is the same for all: they are of the same images.
        runs = generator.normal(size=(variants, 3))
        board = {
            name: estimate([Metric(value=value, stderr=image, n=10_000) for value in values])
            for name, values in enumerate(runs)
        }
        assert best(board, "higher") is None
        left.append(np.mean([rank > 1 for rank in ranks(board, "higher").values()]))
    # The number of the page is itself of made-up boards.
    assert abs(np.mean(left) - said) < 3 * np.std(left) / len(left) ** 0.5 + 0.01


@pytest.mark.parametrize("seeds", [(3, 3), (4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("narrow", [1.0, 0.3, 0.1, 0.01, 0.001])
def test_runs_that_are_all_apart_are_so_by_chance_once_in_ten_times(seeds: tuple[int, int], narrow: float) -> None:
    generator = np.random.default_rng(3)
    wrong = 0
    for _ in range(2000):
        a, b = (
            estimate([Metric(value=value, stderr=1e-6, n=10_000) for value in generator.normal(0.0, spread, many)])
            for many, spread in zip(seeds, (narrow, 1.0), strict=True)
        )
        wrong += differ(a, b)
    # The standard error of a share of 0.1 is 0.007.
    assert wrong <= 2000 * (0.1 + 3 * 0.0067)


@pytest.mark.parametrize("seeds", [(1, 1), (3, 3), (1, 4)])
def test_the_paired_interval_holds_it_as_often_and_is_narrower(seeds: tuple[int, int], tmp_path: Path) -> None:
    generator, spread = np.random.default_rng(1), 0.0 if seeds == (1, 1) else 0.1
    inside, widths = 0, np.zeros(2)
    for _ in range(400):
        images = generator.normal(0.0, 5.0, 200)
        rows = []
        for name, many in zip(("vae", "flow_vae"), seeds, strict=True):
            rows.append([])
            for seed in range(many):
                values = images + generator.normal(0.0, spread) + generator.normal(0.0, 1.0, 200)
                rows[-1].append(kept(name, seed, values, tmp_path))
        error = per_example.paired_errors(*rows, tmp_path)["elbo"]
        a, b = (estimate([one.metrics["elbo"] for one in row]) for row in rows)
        inside += abs(a.value - b.value) <= half_width(a, b, error)
        widths += half_width(a, b, error), half_width(a, b)
    assert inside >= 360 and widths[0] < 0.6 * widths[1]


def kept(name: str, seed: int, values: np.ndarray, records: Path) -> record.Record:
    """A record of these values, an image each, and the file beside it."""
    tensor = torch.from_numpy(values)
    one = make(name, seed, metrics__elbo=mean_and_error(tensor)._asdict() | {"unit": "nats", "better": "higher"})
    per_example.write({"elbo": tensor}, one.cell, records)
    return one


def test_differences_are_paired_where_all_of_both_are_known(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    images = generator.normal(-90.0, 5.0, 50)
    values = {(name, seed): images + generator.normal(0.0, 0.1, 50) + (name == "vae")
              for name in ("vae", "flow_vae") for seed in range(2)}  # fmt: skip
    records = [kept(name, seed, each, tmp_path) for (name, seed), each in values.items()]
    a, b = (np.mean([values[name, seed] for seed in range(2)], 0) for name in ("vae", "flow_vae"))
    error = per_example.paired_errors(records[:2], records[2:], tmp_path)["elbo"]
    assert error == pytest.approx((a - b).std(ddof=1) / math.sqrt(50), rel=1e-3)

    def found(folder: Path | None) -> Difference:
        (one,) = (one for one in against(records, "vae", "flow_vae", None, folder) if one.column.metric == "elbo")
        return one

    assert found(tmp_path).paired and found(tmp_path).better == "vae"
    assert not found(None).paired and found(None).better == "tie"
    assert found(tmp_path).error == half_width(found(None).a, found(None).b, error) < 0.1 * found(None).error
    # One of another run of the cell, of other examples, broken or lost: all are compared as without any.
    path = per_example.path_of(records[3].cell, tmp_path)
    for values in (images + 1, images[:49]):
        per_example.write({"elbo": torch.from_numpy(values)}, records[3].cell, tmp_path)
        assert not found(tmp_path).paired
    for content in (b"", path.read_bytes()[:-20], b"PK"):
        path.write_bytes(content)
        assert not found(tmp_path).paired
    path.unlink()
    assert not found(tmp_path).paired
    others = [kept("iwae", seed, images, tmp_path) for seed in range(2)]
    assert per_example.paired_errors(records[:2], others, tmp_path).keys() == {"elbo"}
    moved = [one.model_copy(update={"data": one.data.model_copy(update={"test_bits_seed": 5})}) for one in others]
    assert per_example.paired_errors(records[:2], moved, tmp_path) == {}


def test_values_that_come_later_stand_beside_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = kept("vae", 0, np.arange(4.0), tmp_path)
    path, more = per_example.path_of(one.cell, tmp_path), {"ais_gap": torch.ones(3), "nll_iwae_2_all": torch.ones(4)}
    per_example.add(more, one.cell, tmp_path)
    per_example.add({}, one.cell, tmp_path)
    with np.load(path) as file:
        found = {name: file[name].tolist() for name in file.files}
    assert found == {"elbo": [0.0, 1.0, 2.0, 3.0], "ais_gap": [1.0, 1.0, 1.0]}
    assert per_example.read(one, tmp_path).keys() == {"elbo"}, "the record has no other metric"
    for there in (b"", path.read_bytes()[:-20], None):
        path.unlink() if there is None else path.write_bytes(there)
        per_example.add(more, one.cell, tmp_path)
        with np.load(path) as file:
            assert file.files == ["ais_gap"]
    there = path.read_bytes()

    def fails(*given: Any, **more: Any) -> None:
        raise OSError(errno.EIO, "of the disk")

    monkeypatch.setattr(np, "load", fails)
    with pytest.raises(OSError, match="of the disk"):
        per_example.add({"elbo": torch.ones(4)}, one.cell, tmp_path)
    assert path.read_bytes() == there


@pytest.mark.parametrize("other", ["vae", "flow_vae"])
def test_a_mean_over_some_of_the_runs_is_not_paired(other: str, tmp_path: Path) -> None:
    images = np.random.default_rng(5).normal(-90.0, 5.0, 50)
    records = []
    for name in ("vae", "flow_vae"):
        for seed in range(2):
            one = kept(name, seed, images + seed + 0.1 * np.arange(50) * (name == "vae"), tmp_path)
            if (name, seed) == (other, 1):  # measured in another way, and so in a column of its own
                told = one.metrics["elbo"].model_copy(update={"identity": {"split": "test", "of": "another kind"}})
                one = one.model_copy(update={"metrics": one.metrics | {"elbo": told}})
            records.append(one)
    assert "elbo" in per_example.paired_errors(records[:2], records[2:], tmp_path)
    (one,) = (one for one in against(records, "vae", "flow_vae", None, tmp_path) if one.column.metric == "elbo")
    assert {one.a.seeds, one.b.seeds} == {1, 2} and not one.paired


def test_a_run_that_failed_leaves_the_others_paired(tmp_path: Path) -> None:
    images = np.random.default_rng(6).normal(-90.0, 5.0, 50)
    records = [kept(name, seed, images + seed, tmp_path) for name in ("vae", "flow_vae") for seed in range(2)]
    found = against([*records, failed("vae", 2)], "vae", "flow_vae", None, tmp_path)
    assert {one.column.metric: one.paired for one in found}["elbo"]


def test_it_says_of_two_rows_what_the_board_says_of_them() -> None:
    (table,) = tables(ZOO)
    pairs = [(a, b) for a in table.rows for b in table.rows if a is not b]
    for a, b in pairs:
        try:
            found = against(ZOO, a.label, b.label)
        except UsageError:
            continue
        for one in found:
            if one.table.winners.get(one.column) is a:
                assert one.better == a.label
            if a.marked(one.column) or b.marked(one.column):
                assert one.better == "not ranked †"


def test_all_that_is_ranked_is_compared_in_the_order_of_the_board_and_nothing_else() -> None:
    numbers = {"psnr": (20.0, 0.1), "elbo": (-90.0, 0.1), "ssim": (0.9, 0.01), "fd_digits": (30.0, 1.0, FD)}
    unranked = {"rate": (12.0, 0.1)}
    records = [make(name, numbers=numbers | unranked) for name in ("vae", "flow_vae")]
    (table,) = tables(records)
    assert {column.metric for column in table.further if column.better is None} == {"rate"}
    found = [one.column for one in against(records, "vae", "flow_vae")]
    assert found == [column for column in (*table.head, *table.further) if column.better]
    assert {column.metric for column in found} == numbers.keys()
    assert {"psnr", "ssim"} <= {column.metric for column in table.further}


def test_a_tie_is_inside_of_nothing() -> None:
    records = [make(name, numbers={"elbo": (value, 1.0)}) for name, value in (("vae", -90.0), ("flow_vae", -90.5))]
    (one,) = against(records, "vae", "flow_vae")
    assert one.better == "tie" and abs(one.value) < one.error and not one.inside


def test_a_suite_is_told_by_its_name_with_or_without_its_version() -> None:
    other = [make(name, cell__version="2", numbers={"elbo": (-1.0, 0.1)}) for name in ("vae", "flow_vae")]
    for suite, wanted in (("quick@2", {"quick@2"}), ("quick", {"quick@1", "quick@2"}), (None, {"quick@1", "quick@2"})):
        assert {one.table.group for one in against([*THREE, *other], "vae", "flow_vae", suite)} == wanted


def test_either_name_that_is_on_no_board_is_refused_with_the_nearest() -> None:
    for names in (("vae", "flow_vea"), ("flow_vea", "vae")):
        with pytest.raises(UsageError, match="Did you mean 'flow_vae'"):
            against(THREE, *names)


def test_a_mean_over_the_runs_that_survived_wins_nothing() -> None:
    records = [*THREE, failed("flow_vae", 3)]
    (one,) = (one for one in against(records, "flow_vae", "vae") if one.column.metric == "elbo")
    assert one.better == "runs were lost" and one.value == pytest.approx(10.0)
    # But it can lose.
    (one,) = (one for one in against([*THREE, failed("vae", 3)], "flow_vae", "vae") if one.column.metric == "elbo")
    assert one.better == "flow_vae"


def test_the_order_of_paired_runs_is_held_to_the_error_image_by_image() -> None:
    lost, usual = (
        estimate([Metric(value=value, stderr=8.0, n=500) for value in values])
        for values in ((-90.0, -90.3, -104.0), (-80.3, -80.0, -79.7))
    )
    assert half_width(lost, usual, 0.1) > 15 and not differ(lost, usual) and differ(lost, usual, 0.1)


def test_of_few_images_the_interval_is_student_s_too() -> None:
    one, two = (estimate([Metric(value=value, stderr=0.1, n=3)]) for value in (0.0, 1.0))
    # Four degrees of freedom, and paired two (a t table).
    assert half_width(one, two) == pytest.approx(2.776 * 0.1 * math.sqrt(2))
    assert half_width(one, two, 0.1) == pytest.approx(4.303 * 0.1)


def test_runs_that_all_came_to_one_number_show_no_error() -> None:
    # A score without an error over images is often a share of few of them: two runs of one number are no spread of 0.
    def of(*values: float, stderr: float | None = None):
        return estimate([Metric(value=value, stderr=stderr, n=41, better="higher") for value in values])

    none, rounded = of(0.0, 0.0), of(1 / 41, 1 / 41 + 3e-17)
    assert 0 < rounded.spread and half_width(none, rounded) is half_width(rounded, of(0.5, 0.5)) is None
    assert not differ(none, rounded) and best({"a": none, "b": rounded}, "higher") is None
    assert ranks({"a": none, "b": rounded}, "higher") == {"a": 1, "b": 1}
    # The spread of one of the two is one, and so is an error over images, also of 0.
    assert half_width(none, of(0.1, 0.2)) == pytest.approx(12.706 * 0.05)
    assert differ(of(0.0, 0.0, stderr=0.0), of(1.0, 1.0, stderr=0.0))
    records = [
        make(name, seed, numbers={"elbo": (-90.0, 0.1), "sap_discrete": (value, None, {"better": "higher"})})
        for name, value in (("vae", 0.0), ("beta_vae", 1 / 41))
        for seed in (0, 1)
    ]
    (one,) = (one for one in against(records, "vae", "beta_vae") if one.column.metric == "sap_discrete")
    assert one.error is None and one.better == "no error known"


def test_a_better_one_within_its_interval_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    # One run of the VAE is lost: its spread is as wide as the difference, and all of its runs are worse.
    lost = [make("vae", seed, numbers={"elbo": (value, 0.1)}) for seed, value in enumerate((-90.0, -90.3, -104.0))]
    for runs, told in (([*lost, *THREE[3:]], True), (THREE, False)):
        for one in runs:
            record.write(one, tmp_path / str(told) / "records")
        _, out, _ = call(monkeypatch, capsys, "compare", "vae", "flow_vae", "--board", str(tmp_path / str(told)))
        (line,) = (line for line in out.splitlines() if line.startswith("ELBO"))
        value, error = (abs(float(number)) for number in line.split("  3, 3")[0].split()[-3::2])
        assert line.split()[-1] == "flow_vae" and (value <= error) == told
        assert ("Better within ±" in out) == told and max(map(len, out.splitlines())) <= 80


def test_what_judges_samples_is_not_said_to_be_over_test_images_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    for name, numbers, told in (("elbo", (-90.0, 0.1), False), ("fd_digits", (12.0, 0.1, FD), True)):
        for variant in ("vae", "flow_vae"):
            record.write(make(variant, numbers={name: numbers}), tmp_path / name / "records")
        _, out, _ = call(monkeypatch, capsys, "compare", "vae", "flow_vae", "--board", str(tmp_path / name))
        assert ("over other samples" in out) == told and max(map(len, out.splitlines())) <= 80


def test_a_dagger_has_its_footnote(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    for conditional in (True, False):
        board = tmp_path / str(conditional)
        for name in ("vae", "cvae"):
            one = make(name, numbers={"elbo": (-90.0, 0.1)}, model__conditional=conditional and name == "cvae")
            record.write(one, board / "records")
        _, out, _ = call(monkeypatch, capsys, "compare", "vae", "cvae", "--board", str(board))
        assert ("not ranked †" in out) == ("\n† one is told" in out) == conditional
        assert max(map(len, out.splitlines())) <= 80


def test_of_a_variant_that_was_told_more_than_images_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    for name in ("vae", "beta_vae", "ada_vae"):
        record.write(make(name, numbers={"elbo": (-90.0, 0.1)}), tmp_path / "records")
    for other, told in (("ada_vae", 1), ("beta_vae", 0)):
        for pair in (("vae", other), (other, "vae")):
            _, out, _ = call(monkeypatch, capsys, "compare", *pair, "--board", str(tmp_path))
            assert out.count("\nada_vae learns from more than images: pairs of images") == told
            assert max(map(len, out.splitlines())) <= 80


def test_rows_of_a_variant_that_were_told_more_than_others_say_so_each() -> None:
    def said(*told: str | None) -> list[str]:
        settings = [{"model": {"beta": 1.0} | ({} if one is None else {"told": one})} for one in told]
        made = [make("ada_vae", numbers={"elbo": (-90.0, 0.1)}, settings=one) for one in settings]
        return taught(tables([*made, make("vae", numbers={"elbo": (-90.0, 0.1)})])[0].rows, registry().variants)

    pairs, more = "learns from more than images: pairs of images that share factors", ", and which factors these are."
    assert said(None) == [f"ada_vae {pairs}."] and said("shared") == [f"ada_vae {pairs}{more}"]
    assert said(None, "shared") == [f"ada_vae (told not given) {pairs}.", f"ada_vae (told=shared) {pairs}{more}"]


def test_what_several_variants_were_told_is_said_once_and_in_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    for name in ("s2_factor_vae", "ada_vae", "vae", "s2_beta_vae"):
        record.write(make(name, numbers={"elbo": (-90.0, 0.1)}), tmp_path / "records")
    labels = "s2_beta_vae and s2_factor_vae learn from more than images: the factors of some images."
    pairs = "ada_vae learns from more than images: pairs of images that share factors."
    for words in (("compare", "s2_factor_vae", "s2_beta_vae"), ("leaderboard",)):
        _, out, _ = call(monkeypatch, capsys, *words, "--board", str(tmp_path))
        wide = [line for line in out.splitlines() if len(line) > 80 and str(tmp_path) not in line]
        assert labels in " ".join(out.split()) and not wide
        assert (pairs in out) == (words == ("leaderboard",))
    assert labels in (tmp_path / "README.md").read_text()


def test_a_narrow_terminal_cuts_no_verdict_and_no_seeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    long = "a_metric_of_a_name_that_is_as_long_as_that_of_some_of_the_scores_of_factors"
    names = ("quadrant_cvae", "two_stage_vae")
    for name, value in zip(names, (-900.25, -80.5), strict=True):
        for seed in range(12):
            shift = 0.01 * seed
            one = make(name, seed, numbers={"elbo": (value + shift, 0.1), long: (value + shift, 0.1)})
            record.write(one, tmp_path / "records")
    code, out, err = call(monkeypatch, capsys, "compare", *names, "--board", str(tmp_path))
    assert code == 0 and max(map(len, out.splitlines())) <= 80, err
    rows = [line for line in out.splitlines() if "12, 12" in line]
    assert len(rows) == 2 and any("…" in line for line in rows)
    assert {line.split()[-1] for line in rows} == set(names)


def test_a_row_that_is_not_there_or_is_several_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="Did you mean 'vae'"):
        against(THREE, "vea", "flow_vae")
    with pytest.raises(UsageError, match="quikc"):
        against(THREE, "vae", "flow_vae", "quikc")
    sweep = [make("iwae", numbers={"elbo": -1.0}, config__model={"k": k}) for k in (1, 5)]
    with pytest.raises(UsageError, match=r"'iwae \(k=1\)', 'iwae \(k=5\)'"):
        against([*THREE, *sweep], "iwae", "vae")
    within = [make(name, cell__suite="ick", numbers={"elbo": (-1.0, 0.1)}) for name in ("vae", "flow_vae")]
    assert {one.table.group for one in against([*THREE, *within], "vae", "flow_vae", "ick")} == {"ick@1"}
    # Where the other is not, it does not matter.
    elsewhere = [make("iwae", cell__suite="k", numbers={"elbo": -1.0}, config__model={"k": k}) for k in (1, 5)]
    assert against([*THREE, make("iwae", numbers={"elbo": (-1.0, 0.1)}), *elsewhere], "iwae", "vae")
    alike = [make("vae", numbers={"elbo": -1.0}), make("iwae", numbers={"psnr": 9.0})]
    with pytest.raises(UsageError, match="no number that both"):
        against(alike, "vae", "iwae")


def test_the_command_prints_what_fits_a_terminal_and_all_of_it_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    board = ("--board", str(ROOT / "leaderboard"))
    code, out, err = call(monkeypatch, capsys, "compare", "ladder_vae", "vae", *board)
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80 and "mnist@1  mnist" in out and "1, 1: over test images alone" in out
    code, out, err = call(monkeypatch, capsys, "compare", "ladder_vae", "vae", "--suite", "mnist", "--json", *board)
    rows = json.loads(out)
    elbo = next(row for row in rows if row["metric"] == "elbo")
    values = {
        name: [one.metrics["elbo"].value for one in record.read_all(ROOT / "leaderboard" / "records")
               if one.cell.suite == "mnist" and one.cell.variant == name]
        for name in ("ladder_vae", "vae")
    }  # fmt: skip
    assert elbo["difference"] == pytest.approx(np.mean(values["ladder_vae"]) - np.mean(values["vae"]))
    assert {row["suite"] for row in rows} == {"mnist@1"} and 0 < elbo["half_width_95"] < elbo["difference"]
    assert call(monkeypatch, capsys, "compare", "vae", "vea", *board)[0] == 2


# ---- rows of two suites


def trained_for(epochs: int, seed: int, mean: float, variant: str = "vae", **changes: Any) -> record.Record:
    numbers, settings = {"elbo": (mean, 0.1)}, {"train": {"epochs": epochs, "learning_rate": 0.001}}
    changes = {"cell__suite": {15: "quick"}.get(epochs, "long")} | changes
    return make(variant, seed, numbers=numbers, settings=settings, **changes)


SHORT = [trained_for(15, seed, mean) for seed, mean in enumerate((-90.3, -90.0, -89.7))]
LONG = [trained_for(75, seed, mean) for seed, mean in enumerate((-85.3, -85.0, -84.7))]


def test_rows_of_two_suites_are_compared_as_two_of_one_are() -> None:
    (one,) = against([*SHORT, *LONG], "quick/vae", "long@1/vae")
    within = [make("flow_vae", number, numbers={"elbo": (each.metrics["elbo"].value, 0.1)})
              for number, each in enumerate(LONG)]  # fmt: skip
    (same,) = against([*SHORT, *within], "vae", "flow_vae")
    assert (one.value, one.error, one.paired) == (same.value, same.error, False) and one.value == pytest.approx(-5.0)
    assert one.better == "long@1/vae" and (one.table.group, one.other.group) == ("quick@1", "long@1")
    (back,) = against([*SHORT, *LONG], "long/vae", "quick/vae")
    assert (back.value, back.error, back.better) == (-one.value, one.error, "long/vae")
    lost = failed("vae", 3).model_copy(update={"cell": LONG[0].cell.model_copy(update={"seed": 3}),
                                               "config": LONG[0].config})  # fmt: skip
    assert against([*SHORT, *LONG, lost], "quick/vae", "long/vae")[0].better == "runs were lost"


def test_a_suite_before_both_rows_may_be_one_suite() -> None:
    records = [*THREE, *LONG]
    (plain,), (given,) = against(records, "vae", "flow_vae"), against(records, "quick/vae", "quick@1/flow_vae")
    assert (given.value, given.error) == (plain.value, plain.error)
    assert (plain.better, given.better) == ("flow_vae", "quick@1/flow_vae")
    assert given.table is given.other and plain.names == ("vae", "flow_vae")


def test_of_two_suites_too_differences_are_paired_on_the_same_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    images = generator.normal(-90.0, 5.0, 50)
    values, records = {}, []
    for epochs in (15, 75):
        for seed in range(2):
            each = images + generator.normal(0.0, 0.1, 50) + epochs / 75
            told = mean_and_error(torch.from_numpy(each))._asdict() | {"unit": "nats", "better": "higher"}
            values[epochs, seed], one = each, trained_for(epochs, seed, 0.0, metrics__elbo=told)
            per_example.write({"elbo": torch.from_numpy(each)}, one.cell, tmp_path)
            records.append(one)
    (one,) = against(records, "quick/vae", "long/vae", None, tmp_path)
    a, b = (np.mean([values[epochs, seed] for seed in range(2)], 0) for epochs in (15, 75))
    assert one.paired and one.better == "long/vae" and one.value == pytest.approx((a - b).mean())
    assert one.error == pytest.approx(half_width(one.a, one.b, (a - b).std(ddof=1) / math.sqrt(50)), rel=1e-3)
    (apart,) = against(records, "quick/vae", "long/vae")
    assert not apart.paired and apart.better == "tie" and one.error < 0.2 * apart.error


def test_two_suites_are_compared_on_the_same_images_and_in_what_was_measured_alike() -> None:
    other = {"data__sha256": "ef" * 32}
    moved = [trained_for(75, seed, -85.0, **other) for seed in range(3)]
    with pytest.raises(UsageError) as caught:
        against([*SHORT, *moved], "quick/vae", "long/vae")
    assert str(caught.value) == (
        "quick/vae and long/vae are on no data in common: no two of their numbers are of the same images."
    )
    elsewhere = [trained_for(75, seed, -85.0, cell__dataset="fashion_mnist") for seed in range(3)]
    with pytest.raises(UsageError, match="no data in common"):
        against([*SHORT, *elsewhere], "quick/vae", "long/vae")
    # Of several contents that which is the same, and of several data sets each.
    both = [trained_for(15, seed, -70.0, cell__dataset="fashion_mnist") for seed in range(3)]
    found = against([*SHORT, *both, *LONG, *moved, *elsewhere], "quick/vae", "long/vae")
    assert {(one.table.dataset, round(one.value)) for one in found} == {("mnist", -5), ("fashion_mnist", 15)}
    unlike = [one.model_copy(update={"metrics": {"elbo": one.metrics["elbo"].model_copy(update={"n": 500})}})
              for one in LONG]  # fmt: skip
    with pytest.raises(UsageError, match="no number that both quick/vae and long/vae have, measured alike"):
        against([*SHORT, *unlike], "quick/vae", "long/vae")
    more = [one.model_copy(update={"metrics": one.metrics | unlike[0].metrics}) if i == 0 else one
            for i, one in enumerate(LONG)]  # fmt: skip
    assert against([*SHORT, *more], "quick/vae", "long/vae")[0].b.seeds == 2


@pytest.mark.parametrize(
    ("names", "suite", "said"),
    [
        (("quick/vae", "vae"), None, "vae is in no suite, and quick/vae is in one: give SUITE/vae."),
        (("vae", "long/vae"), None, "vae is in no suite, and long/vae is in one: give SUITE/vae."),
        (("quick/vae", "long/vae"), "quick", "quick/vae and long/vae: a suite is in a name, leave out --suite."),
        (
            ("quick/vae", "logn/vae"), None,
            "no suite with records 'logn'. Did you mean 'long@1'? `zoo leaderboard` shows all.",
        ),
        (("long/vea", "quick/vae"), None, "no row of long@1 'vea'. Did you mean 'vae'? `zoo leaderboard` shows all."),
        (
            ("quick/iwae", "long/vae"), None,
            "quick@1 has several rows of iwae: give one of 'iwae (k=1)', 'iwae (k=5)'.",
        ),
        (("twice/vae", "long/vae"), None, "twice has records of several versions: give one of twice@1, twice@2."),
        (
            ("iwae (k=a/b)", "vae"), None,
            "no row of the board 'iwae (k=a/b)'. Did you mean 'iwae (k=5)'? `zoo leaderboard` shows all.",
        ),
    ],
)  # fmt: skip
def test_rows_of_two_suites_that_cannot_be_compared_are_refused_in_a_sentence(
    names: tuple[str, str], suite: str | None, said: str
) -> None:
    sweep = [make("iwae", numbers={"elbo": -1.0}, config__model={"k": k}) for k in (1, 5)]
    twice = [trained_for(15, 0, -90.0, cell__suite="twice", cell__version=version) for version in ("1", "2")]
    with pytest.raises(UsageError) as caught:
        against([*SHORT, *LONG, *sweep, *twice], *names, suite)
    assert str(caught.value) == said
    assert against([*SHORT, *LONG, *sweep, *twice], "twice@2/vae", "long/vae")
    assert against([*SHORT, *LONG, *sweep, *twice], "quick/iwae (k=5)", "long/vae")


def test_the_command_says_of_two_suites_which_they_are_and_what_sets_them_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    for one in (*SHORT, *LONG):
        record.write(one, tmp_path / "records")
    words = ("compare", "quick/vae", "long@1/vae", "--board", str(tmp_path))
    code, out, err = call(monkeypatch, capsys, *words)
    lines = out.splitlines()
    assert code == 0 and lines[0] == "quick@1  mnist and long@1  mnist" and max(map(len, lines)) <= 80, err
    (elbo,) = (line for line in lines if line.startswith("ELBO"))
    assert elbo.split()[-1] == "long@1" and "settings apart: train.epochs 15, 75" in lines
    assert lines[1].split() == ["metric", "quick", "long@1", "difference", "seeds", "better"]
    (row,) = json.loads(call(monkeypatch, capsys, *words, "--json")[1])
    assert row["suites"] == ["quick@1", "long@1"] and row["better"] == "long@1/vae"
    # Of one suite there is one, and no word on settings.
    record.write(THREE[-1], tmp_path / "records")
    for names in (("vae", "flow_vae"), ("quick/vae", "quick/flow_vae")):
        _, out, _ = call(monkeypatch, capsys, "compare", *names, *words[3:])
        assert out.splitlines()[0] == "quick@1  mnist" and "settings apart" not in out
        assert out.splitlines()[1].split()[1:3] == ["vae", "flow_vae"] and " flow_vae\n" in out
    assert call(monkeypatch, capsys, *words, "--suite", "quick")[0] == 2


def test_what_one_of_two_recipes_leaves_out_is_not_given_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    for suite, model in (("quick", {"encoder": {"name": "conv"}, "free": None}), ("long", {"latent": 8})):
        one = make("vae", numbers={"elbo": (-90.0, 0.1)}, settings={"model": model}, cell__suite=suite)
        record.write(one, tmp_path / "records")
    _, out, _ = call(monkeypatch, capsys, "compare", "quick/vae", "long/vae", "--board", str(tmp_path))
    said = "settings apart: model.encoder.name conv, not given; model.latent not given, 8"
    assert said in " ".join(out.split())


def test_of_two_suites_too_it_is_said_what_a_variant_was_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    for epochs, name in ((15, "vae"), (75, "ada_vae")):
        record.write(trained_for(epochs, 0, -90.0, name), tmp_path / "records")
    _, out, _ = call(monkeypatch, capsys, "compare", "quick/vae", "long/ada_vae", "--board", str(tmp_path))
    assert out.count("\nada_vae learns from more than images: pairs of images") == 1
    assert out.splitlines()[1].split()[1:3] == ["quick/vae", "long/ada_vae"]
    assert "settings apart: train.epochs 15, 75; variant vae, ada_vae\n" in out
