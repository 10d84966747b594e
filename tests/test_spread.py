"""`zoo spread`: what of a metric's spread is the variant's, its setting's and the seed's; and sweeps of one variant."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import matrix, record
from benchmarks.record import Record
from benchmarks.report.spread import Spread, explained, percent, spreads
from benchmarks.report.tables import tables
from benchmarks.suite import read_suite, suite_named
from tests.test_board import failed, make
from tests.test_cli import call
from zoo.errors import UsageError

MIG = {"better": "higher", "identity": {"bins": 20}}


def runs(numbers: dict[tuple[str, float], list[float]], name: str = "mig", **more: Any) -> list[Record]:
    """A record for each number: of a variant with a beta, the seeds in their order."""
    return [
        make(variant, seed, numbers={name: (number, None, MIG | more), "elbo": -100.0 + number},
             settings={"model": {"beta": beta}})
        for (variant, beta), some in numbers.items()
        for seed, number in enumerate(some)
    ]  # fmt: skip


def of(records: list[Record], metric: str = "mig", beside: str = "elbo") -> Spread:
    (table,) = tables(records)
    (found,) = (one for one in spreads(table, beside) if one.column.metric == metric)
    return found


# Means 1 and 5 of two variants about 3; 0 and 2, 4.5 and 5.5 of their settings; +-1 over two seeds of each. Squares:
# between variants 8 * 4 = 32, between settings 4 * 1 + 4 * 0.25 = 5, between seeds 8 * 1 = 8.
BY_HAND = {("a", 1.0): [-1.0, 1.0], ("a", 2.0): [1.0, 3.0], ("b", 1.0): [3.5, 5.5], ("b", 2.0): [6.5, 4.5]}


def test_the_parts_are_those_of_a_sum_of_squares_by_hand() -> None:
    found = of(runs(BY_HAND))
    assert (found.variant, found.setting, found.seed) == pytest.approx((32 / 45, 5 / 45, 8 / 45))
    assert found.by_chance == pytest.approx((1 / 7, 2 / 7)) and found.runs == 8
    assert found.worst == ("a (beta=1)", 0.0) and found.best == ("b (beta=2)", 5.5)


def test_a_shifted_scaled_or_turned_metric_has_the_same_parts() -> None:
    found = of(runs(BY_HAND))
    turned = {row: [7.0 - 3.0 * number for number in some] for row, some in BY_HAND.items()}
    other = of(runs(turned, "fd", better="lower"), "fd")
    assert (other.variant, other.setting) == pytest.approx((found.variant, found.setting))
    assert other.best == ("b (beta=2)", 7.0 - 16.5) and other.worst == ("a (beta=1)", 7.0)


def test_chance_is_what_the_same_numbers_come_to_over_all_ways_to_deal_them() -> None:
    numbers, groups = [0.0, 1.0, 1.5, 4.0, -2.0, 9.0], "aabccc"
    dealt = [explained(order, groups) for order in itertools.permutations(numbers)]
    assert np.mean(dealt) == pytest.approx((3 - 1) / (6 - 1))
    assert min(dealt) >= 0.0 and max(dealt) < 1.0
    record_of = {"a": ("a", 1.0), "b": ("a", 2.0), "c": ("b", 1.0)}
    found = of(runs({record_of[name]: [numbers[i] for i in range(6) if groups[i] == name] for name in "abc"}))
    assert found.by_chance == pytest.approx((1 / 5, 1 / 5))


def test_where_all_is_of_one_cause_it_has_all() -> None:
    alike = {("a", 1.0): [1.0, 1.0], ("a", 2.0): [1.0, 1.0], ("b", 1.0): [2.0, 2.0]}
    found = of(runs(alike))
    assert (found.variant, found.setting, found.seed) == pytest.approx((1.0, 0.0, 0.0))
    found = of(runs({("a", 1.0): [1.0, 1.0], ("a", 2.0): [3.0, 3.0], ("b", 1.0): [2.0, 2.0]}))
    assert (found.variant, found.setting, found.seed) == pytest.approx((0.0, 1.0, 0.0))
    found = of(runs({("a", 1.0): [1.0, 3.0], ("a", 2.0): [3.0, 1.0], ("b", 1.0): [2.0, 2.0]}))
    assert (found.variant, found.setting, found.seed) == pytest.approx((0.0, 0.0, 1.0))


def test_the_errors_are_those_of_leaving_each_seed_out_by_hand() -> None:
    three = {("a", 1.0): [0.0, 1.0, 5.0], ("b", 1.0): [4.0, 6.0, 5.0]}
    found = of(runs(three))
    without = [of(runs({row: [x for i, x in enumerate(some) if i != left] for row, some in three.items()}))
               for left in range(3)]  # fmt: skip
    for which, name in enumerate(("variant", "setting", "seed")):
        parts = [getattr(one, name) for one in without]
        squares = sum((part - sum(parts) / 3) ** 2 for part in parts)
        assert found.errors[which] == pytest.approx((2 / 3 * squares) ** 0.5)
    assert found.errors[1] == 0.0 < found.errors[0] == found.errors[2]  # each variant has one setting
    ranks = [one.agreement for one in without]
    assert found.agreement == pytest.approx(1.0) and found.agreement_error == 0.0 == max(ranks) - min(ranks)
    other = {row: [5.0 * i - x for i, x in enumerate(some)] for row, some in three.items()}
    both = [one.model_copy(update={"metrics": one.metrics | {"elbo": two.metrics["mig"]}})
            for one, two in zip(runs(three), runs(other), strict=True)]  # fmt: skip
    ranks = [of([one for one in both if one.cell.seed != left]).agreement for left in range(3)]
    squares = sum((rank - sum(ranks) / 3) ** 2 for rank in ranks)
    assert len({*ranks}) > 1 and of(both).agreement_error == pytest.approx((2 / 3 * squares) ** 0.5)
    assert of(runs(BY_HAND)).errors == (None, None, None)  # of two seeds each, one is no spread


def test_the_errors_are_how_far_the_parts_move_with_the_seeds() -> None:
    draw = np.random.default_rng(0)
    seeds = 6
    means = {("a", 1.0): 0.0, ("a", 2.0): 1.0, ("b", 1.0): 3.0, ("b", 2.0): 2.0}
    parts, errors = [], []
    for _ in range(60):
        found = of(runs({row: list(mean + draw.normal(size=seeds)) for row, mean in means.items()}))
        parts.append((found.variant, found.setting, found.seed))
        errors.append(found.errors)
    moved, told = np.std(parts, axis=0), np.sqrt(np.mean(np.square(errors), axis=0))
    assert told == pytest.approx(moved, rel=0.35)
    assert moved.min() > 0.02


def test_a_small_error_has_a_digit_of_its_own() -> None:
    assert [percent(0.021, error) for error in (None, 0.0034, 0.0, 0.01, 0.07)] == [
        "2 %", "2.1 ± 0.3 %", "2.1 ± 0.0 %", "2 ± 1 %", "2 ± 7 %",
    ]  # fmt: skip


def test_ranks_are_compared_with_both_turned_so_that_more_is_better() -> None:
    records = runs(BY_HAND)
    assert of(records).agreement == pytest.approx(1.0) == of(records, beside="mig").agreement
    falling = runs(BY_HAND, "fd", better="lower")  # the worse, the higher the ELBO
    assert of(falling, "fd").agreement == pytest.approx(-1.0)
    flat = [make("a", seed, numbers={"mig": (0.1, None, MIG), "elbo": -1.0 - seed}) for seed in (0, 1)]
    flat += [make("b", seed, numbers={"mig": (0.1 * seed, None, MIG)}) for seed in (0, 1)]
    flat += [make("c", seed, numbers={"elbo": -3.0 - seed}) for seed in (0, 1)]
    assert of(flat).agreement is None  # where both were measured one of them is the same


def test_a_run_that_failed_and_a_number_that_is_told_y_take_no_part() -> None:
    records = runs(BY_HAND)
    lost = failed("b", 2).model_copy(update={"config": {**records[-1].config, "seed": 2}})
    assert of([*records, lost]).variant == of(records).variant
    told = [make("c", seed, numbers={"elbo": -1.0 - seed}, model__conditional=True) for seed in (0, 1)]
    assert of([*records, *told], "elbo").runs == 8


def test_what_has_one_row_or_one_seed_or_no_difference_cannot_be_taken_apart() -> None:
    (table,) = tables(runs({("a", 1.0): [1.0, 2.0]}))
    with pytest.raises(UsageError, match="has one row"):
        spreads(table)
    (table,) = tables(runs({("a", 1.0): [1.0], ("b", 1.0): [2.0]}))
    with pytest.raises(UsageError, match="one finished seed of each row"):
        spreads(table)
    (table,) = tables(runs({("a", 1.0): [1.0, 1.0], ("b", 1.0): [1.0, 1.0]}))
    with pytest.raises(UsageError, match="'elbo' is no metric in which the runs of .* differ; these are: none"):
        spreads(table)
    (table,) = tables(runs(BY_HAND))
    with pytest.raises(UsageError, match="'fd' is no metric .* these are: elbo, mig"):
        spreads(table, "fd")
    once = [make("a", 0, numbers={"fd": 1.0}), make("b", 0, numbers={"fd": 2.0})]
    (table,) = tables([*runs(BY_HAND), *once])
    assert {one.column.metric for one in spreads(table)} == {"elbo", "mig"}  # fd has one seed a row


def test_the_command_prints_it_and_has_it_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    for made in runs(BY_HAND):
        record.write(made, tmp_path / "records")
    board = ("--board", str(tmp_path))
    code, out, _ = call(monkeypatch, capsys, "spread", "quick", *board)
    assert code == 0 and "quick@1  mnist  8 runs" in out
    assert next(line for line in out.splitlines() if line.startswith("MIG ↑")).split()[2:] == (
        "71 11 18 1.00 b (beta=2)".split()
    )
    assert max(map(len, out.splitlines())) <= 80
    assert "at random the same numbers would come to 14 % and 29 % on average" in out
    found = json.loads(call(monkeypatch, capsys, "spread", "quick@1", "--json", "--beside", "MIG", *board)[1])
    (mig,) = (one for one in found if one["metric"] == "mig")
    assert mig["variant"] + mig["setting"] + mig["seed"] == pytest.approx(1.0) and mig["identity"]["bins"] == 20
    assert mig["errors"] == {"variant": None, "setting": None, "seed": None}
    assert mig["best"] == {"row": "b (beta=2)", "mean": 5.5} and mig["by_chance"]["setting"] == pytest.approx(2 / 7)
    record.write(make("a", 0, numbers={"elbo": 1.0}, cell__dataset="shapes"), tmp_path / "records")
    code, out, err = call(monkeypatch, capsys, "spread", "quick", *board)
    assert code == 0 and "shapes" not in out and "left out: quick@1 on shapes has one row" in err
    for words, said in (
        (("slow",), "no suite with records 'slow'"),
        (("quick", "--datasets", "shapes"), "quick@1 on shapes has one row"),
        (("quick", "--datasets", "mnist,shades"), "no data set with records 'shades'"),
        (("quick", "--beside", "fd"), "'fd' is no metric"),
    ):
        code, _, err = call(monkeypatch, capsys, "spread", *words, *board)
        assert code == 2 and said in err and err.count("\n") == 1


# ---- a sweep of one variant alone -----------------------------------------------------------------------------------


def suite(folder: Path, sweep: str, variants: str = "[vae, beta_vae, iwae]") -> Path:
    path = folder / "swept.yaml"
    path.write_text(
        f'schema: 1\nname: swept\nversion: "1"\ntitle: Swept\ndatasets: [synthetic]\nvariants: {variants}\n'
        f"seeds: [0, 1]\nsweep: {sweep}\n"
    )
    return path


def test_a_suite_sweeps_each_variant_over_a_setting_of_its_own(tmp_path: Path) -> None:
    wanted = suite_named(str(suite(tmp_path, "{latent: [2, 3], beta-vae:beta: [1, 4, 8]}", "[vae, Beta-VAE, iwae]")))
    cells = matrix.plan(wanted)
    assert wanted.size == len(cells) == 2 * (2 + 3 + 2)
    swept = {(one.config.variant, one.command.rsplit("--sweep ", 1)[1]) for one in cells}
    betas = {("beta_vae", f"beta={value}") for value in (1, 4, 8)}
    assert swept == betas | {(name, f"latent={value}") for name in ("vae", "iwae") for value in (2, 3)}
    # What is asked for by hand takes the place of the suite's.
    cells = matrix.plan(wanted, ("vae", "beta_vae"), (), (0,), {"beta_vae": ("beta=2",)})
    assert [one.command.rsplit(" ", 1)[1] for one in cells] == ["latent=2", "latent=3", "beta=2"]
    cells = matrix.plan(wanted, ("vae", "beta_vae"), (), (0,), {None: ("latent=5",)})
    assert [one.command.rsplit(" ", 1)[1] for one in cells] == ["latent=5", "latent=5"]


def test_a_cell_of_a_sweep_is_planned_by_its_own_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = str(suite(tmp_path, "{beta_vae:beta: [1, 4]}", "[vae, beta_vae]"))
    code, out, _ = call(monkeypatch, capsys, "bench", path, "--plan")
    lines = out.splitlines()
    assert code == 0 and len(lines) == len(set(lines)) == 2 * 3
    for line in lines:
        assert call(monkeypatch, capsys, *line.split()[1:], "--plan")[1] == line + "\n"
    words = ("bench", path, "--plan", "--sweep", "vae:latent=2,3", "--sweep", "beta_vae:latent=4")
    assert [line.rsplit(" ", 1)[1] for line in call(monkeypatch, capsys, *words)[1].splitlines()] == [
        "latent=2", "latent=3", "latent=4",
    ] * 2  # fmt: skip


@pytest.mark.parametrize(
    "sweep, said",
    [
        ("{beta_vae:beta: [1, 2], beta-vae:latent: [1]}", "two settings of beta_vae"),
        ("{latent: [1, 2], train.epochs: [1]}", "two settings of all variants"),
        ("{cvae:latent: [1, 2]}", "values of cvae, which is none of its variants"),
        ("{latent: []}", "sweep has no value for 'latent'"),
        ("{latent: [2, 4, 2]}", "sweep has a value twice for 'latent'"),
        ("{beta_vea:beta: [1, 2]}", "no variant 'beta_vea'. Did you mean 'beta_vae'?"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_by_name(tmp_path: Path, sweep: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_suite(suite(tmp_path, sweep))


def test_a_sweep_of_a_variant_that_is_not_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = ("bench", "smoke", "--variants", "vae", "--plan", "--sweep")
    code, _, err = call(monkeypatch, capsys, *words, "beta_vae:beta=1,2")
    assert code == 2 and "values of beta_vae, which is not among the variants" in err
    code, _, err = call(monkeypatch, capsys, *words, "latent=1,2", "--sweep", "latent=3")
    assert code == 2 and "all variants have two sweeps" in err
