"""What the board says at a glance: ranks that ties share, the suite to quote first, remarks that are calm."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.record import Metric
from benchmarks.report import notation
from benchmarks.report.compare import Estimate, best, differ, estimate, ranks
from benchmarks.report.markdown import board
from benchmarks.report.notes import notes
from benchmarks.report.published import comparisons
from benchmarks.report.summary import leaders, summary
from benchmarks.report.tables import tables
from tests.test_board import ENTRIES, ZOO, failed, make
from zoo.registry import registry

errors = st.floats(1e-3, 10.0)
some = st.dictionaries(st.integers(0, 5), st.tuples(st.floats(-100, 100), errors), min_size=2, max_size=6)


def said(records: list[Any]) -> list[str]:
    (table,) = tables(records)
    return ["".join(text for text, _ in sentence) for sentence in summary(table)]


# --- ranks ---


def test_ties_share_a_rank_and_the_next_counts_those_above() -> None:
    values = {"a": 1.0, "b": 1.1, "c": 5.0, "d": 9.0}
    estimates = {key: Estimate(value, 0.1, 10_000) for key, value in values.items()}
    assert ranks(estimates, "lower") == {"a": 1, "b": 1, "c": 3, "d": 4}
    assert ranks(estimates, "higher") == {"d": 1, "c": 2, "b": 3, "a": 3}
    assert ranks(estimates, None) == {}


def test_a_tie_that_is_not_transitive_ranks_by_what_beats_it() -> None:
    # a beats c, and b, between them, differs from neither.
    estimates = {"a": Estimate(0.0, 0.1, 10_000), "b": Estimate(0.25, 0.1, 10_000), "c": Estimate(0.5, 0.1, 10_000)}
    assert ranks(estimates, "lower") == {"a": 1, "b": 1, "c": 2}


def test_no_error_no_rank() -> None:
    estimates = {"a": Estimate(1.0, None, 1), "b": Estimate(2.0, 0.1, 9), "c": Estimate(9.0, 0.1, 9)}
    assert ranks(estimates, "lower") == {"b": 1, "c": 2}
    assert ranks({key: estimates[key] for key in "ab"}, "lower") == {}


def test_a_mean_over_survivors_has_no_rank_and_stands_in_the_way() -> None:
    estimates = {key: Estimate(value, 0.1, 99) for key, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    assert ranks(estimates, "lower", whole=["b", "c"]) == {"b": 2, "c": 3}


@given(some)
def test_ranks_agree_with_the_test_and_with_the_best(numbers: dict[int, tuple[float, float]]) -> None:
    estimates = {key: Estimate(value, stderr, 10_000) for key, (value, stderr) in numbers.items()}
    found = ranks(estimates, "lower")
    assert found.keys() == estimates.keys() and min(found.values()) == 1
    for key, one in estimates.items():
        assert found[key] > sum(other.value < one.value and differ(one, other) for other in estimates.values())
        assert all(found[key] >= found[other] for other in estimates if estimates[other].value <= one.value)
    if (winner := best(estimates, "lower")) is not None:
        assert found[winner] == 1 and list(found.values()).count(1) == 1


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6), errors)
def test_numbers_of_equal_errors_rank_by_what_beats_them(values: list[float], stderr: float) -> None:
    estimates = {key: Estimate(value, stderr, 10_000) for key, value in enumerate(values)}
    assert ranks(estimates, "lower") == {
        key: 1 + sum(other.value < one.value and differ(one, other) for other in estimates.values())
        for key, one in estimates.items()
    }


def test_a_wide_spread_is_no_way_to_the_first_rank() -> None:
    runs = {"good": (-107.0, -108.0, -107.5), "next": (-123.0, -124.0, -124.5), "lost": (-105.0, -108.0, -520.0)}
    numbers = {
        name: estimate([Metric(value=value, stderr=0.1, n=100) for value in values]) for name, values in runs.items()
    }
    assert not differ(numbers["good"], numbers["lost"])
    assert ranks(numbers, "higher") == {"good": 1, "next": 2, "lost": 2}
    records = [make(name, seed, numbers={"elbo": (value, 0.1)})
               for name, values in runs.items() for seed, value in enumerate(values)]  # fmt: skip
    assert said(records)[1] == "Best ELBO: good, -107.50 ± 0.10 nats (not beyond the errors of every other)."
    assert "**-107.50" not in board(records, {}), "bold beats every other"


def test_the_table_ranks_what_is_comparable_only() -> None:
    (table,) = tables(ZOO)
    elbo = next(column for column in table.head if column.metric == "elbo")
    assert {row.label: rank for row, rank in zip(table.rows, table.ranks(elbo), strict=True)} == {
        "vae": 1, "beta_vae": 2, "cvae": None, "vq_vae": None, "iwae": None,
    }  # fmt: skip
    (table,) = tables([*ZOO, failed("vae", 2)])
    assert table.ranks(elbo)[[row.label for row in table.rows].index("vae")] is None


# --- the order of suites ---


def test_the_suite_that_most_training_went_into_stands_first() -> None:
    first_look = [make(name, seed, numbers={"elbo": -1.0}) for name in "ab" for seed in range(3)]
    earnest = [make(name, 0, numbers={"elbo": -1.0}, cell__suite="zz", train__epochs=100) for name in "ab"]
    assert [table.group for table in tables(first_look + earnest)] == ["zz@1", "quick@1"]
    page = board(first_look + earnest, {})
    assert page.index("## zz@1") < page.index("## quick@1")
    # What was lost counts for nothing, and equal suites go by name.
    lost = [failed("c", seed, reason="no").model_copy(update={"train": earnest[0].train}) for seed in range(9)]
    assert [table.group for table in tables(first_look + earnest + lost)] == ["zz@1", "quick@1"]
    twins = [make("a", cell__suite=name) for name in ("y", "x")]
    assert [table.group for table in tables(twins)] == ["x@1", "y@1"]


def test_the_data_sets_of_a_suite_stay_together() -> None:
    records = [
        make("a", cell__dataset="b", data__name="b"), make("a", cell__dataset="a", data__name="a", train__epochs=50),
        make("a", cell__suite="other", train__epochs=20),
    ]  # fmt: skip
    found = [(table.group, table.dataset) for table in tables(records)]
    assert found == [("quick@1", "a"), ("quick@1", "b"), ("other@1", "mnist")]


# --- the summary ---


def test_the_summary_names_winners_and_ties() -> None:
    trio = [make(name, numbers={"elbo": (value, 0.1), "fd": (fd, 0.1)})
            for name, value, fd in (("a", -1.0, 5.0), ("b", -2.0, 5.1), ("c", -3.0, 9.0))]  # fmt: skip
    assert said(trio) == [
        "3 variants on mnist, one seed each.",
        "Best ELBO: a, -1.00 ± 0.10 nats.",
        "Best fd: a tie of a and b (from 5.00 ± 0.10).",
    ]
    assert "Best ELBO: **a**, -1.00 ± 0.10 nats." in board(trio, {})


def test_the_summary_says_which_seeds_a_column_is_of() -> None:
    def pair(*many: int) -> list[Any]:
        return [
            make(name, seed, numbers={"elbo": (elbo + seed / 100, 0.1)} | ({"fd": (fd, 0.1)} if seed < seeds else {}))
            for (name, elbo, fd), seeds in zip((("a", -1.0, 5.0), ("b", -20.0, 9.0)), many, strict=True)
            for seed in range(3)
        ]

    assert said(pair(1, 1)) == [
        "2 variants on mnist, 3 seeds each.",
        "Best ELBO: a, -0.99 ± 0.10 nats.",
        "Best fd: a, 5.00 ± 0.10 (seed 0 alone).",
    ]
    assert said(pair(2, 1))[2] == "Best fd: a, 5.00 ± 0.10 (not every seed of each)."
    tie = [make(name, seed, numbers={"fd": (5.0, 0.1)} if seed < 2 else {}) for name in "ab" for seed in range(3)]
    assert said(tie)[1] == "Best fd: a tie of a and b (from 5.00 ± 0.10; seeds 0 and 1 alone)."
    # What was lost is told of the whole and not of a column.
    lost = said([*pair(3, 3), failed("b", 3, reason="no")])
    assert lost[0].endswith("of 7 runs 1 failed.") and lost[1:] == [
        "Best ELBO: a, -0.99 ± 0.10 nats.",
        "Best fd: a, 5.00 ± 0.10.",
    ]


def test_a_long_tie_is_counted() -> None:
    five = [make(name, numbers={"elbo": (-1.0, 0.1)}) for name in "abcde"]
    assert said(five)[1] == "Best ELBO: a tie of a, b, c and 2 more (from -1.00 ± 0.10 nats)."


def test_the_summary_counts_what_was_lost_and_sets_the_conditional_apart() -> None:
    first, *_, last = said(ZOO)
    assert first == "5 variants on mnist, 1 to 2 seeds each; of 6 runs 1 failed and 1 diverged."
    assert last == "cvae is conditional and is not ranked with the others in nats."
    assert said([failed("a")]) == ["1 variant on mnist, one seed each; of 1 run 1 failed."]


# --- remarks, hashes, differences ---


def test_a_remark_is_one_line_a_metric() -> None:
    records = [
        make(name, seed, numbers={
            "kid": (1.0, 0.1, {"note": f"deviation over 100 subsets: {10 * i + seed}.5"}),
            "units": (1.0, 0.1, {"note": f"of {(32, 124)[i > 1]} dimensions"}),
            "plain": (1.0, 0.1, {"note": "as published"}),
        })
        for i, name in enumerate("abc") for seed in range(2)
    ]  # fmt: skip
    (table,) = tables(records)
    assert notes(table) == [
        ("kid", "deviation over 100 subsets: 0.5 to 21.5 (3 variants)"),
        ("plain", "as published (a, b, c)"),
        ("units", "of 32 (a and b), 124 (c) dimensions"),
    ]
    assert board(records, {}).count("kid: ") == 1


def test_a_commit_of_decimal_digits_is_no_number() -> None:
    remark = "deviation: {}.5; added by `zoo measure` at {}"
    told = [remark.format(i, commit) for i, commit in enumerate(("1000000", "1000000", "6555555", "1234e56"))]
    records = [make(name, numbers={"kid": (1.0, 0.1, {"note": text})}) for name, text in zip("abcd", told, strict=True)]
    (table,) = tables(records)
    assert [note for _, note in notes(table)] == [
        "deviation: 0.5 (a), 1.5 (b); added by `zoo measure` at 1000000", told[2] + " (c)", told[3] + " (d)",
    ]  # fmt: skip


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_remark_can_be_said(texts: list[str]) -> None:
    records = [make("a", seed, numbers={"elbo": (1.0, 0.1, {"note": text})}) for seed, text in enumerate(texts)]
    (table,) = tables(records)
    assert len(notes(table)) <= len([text for text in texts if text])


def test_hashes_are_cut_on_the_board_and_whole_in_the_record() -> None:
    whole = "da8ba6ed9cd7dab293afae40a4b3948f"
    page = board([make("a", numbers={"fd": (1.0, 0.1, {"identity": {"sha256": whole, "n": 10_000}})})], {})
    assert "sha256 = da8ba6ed9cd7" in page and whole not in page
    assert notation.short_hashes("1000000000000000000000 and defaced") == "1000000000000000000000 and defaced"


@given(st.text(), st.integers(1, 12))
def test_a_shortened_text_is_one_line_that_fits_and_says_where_it_was_cut(text: str, width: int) -> None:
    whole, found = " ".join(text.split()), notation.shorten(text, width)
    assert len(found) <= width and (found == whole or len(whole) > width)
    assert found == whole or (found.endswith("…") and whole.startswith(found[:-1]))


@pytest.mark.parametrize(
    ("name", "metrics", "ours"),
    [
        ("fid", ("fid", "fid_bf16"), ["fid"]),
        ("kid", ("kid_digits", "kid_bf16"), []),
        ("nll", ("nll_iwae_64", "nll_iwae_5000", "nll_images"), ["nll_iwae_64", "nll_iwae_5000"]),
    ],
)
def test_a_published_number_speaks_of_no_other_network(name: str, metrics: tuple[str, ...], ours: list[str]) -> None:
    entry = {"published": [{"dataset": "mnist", "metric": name, "value": 1.0, "source": "a table"}]}
    (table,) = tables([make("vae", numbers=dict.fromkeys(metrics, 2.0))])
    (found,) = comparisons(table, {"vae": entry})
    assert [column.metric for column, _ in found.ours] == ours


def test_a_number_of_other_bits_has_no_difference() -> None:
    number = {"dataset": "mnist", "metric": "nll", "value": 84.0, "source": "a table", "same_recipe": True}
    record = make("vae", numbers={"nll_iwae_64": 50.0}, data__binarise="threshold")
    page = board([record], {"vae": {"published": [number | {"binarise": "dynamic"}]}})
    assert "| none | **not the same recipe**: threshold binarisation, theirs dynamic |" in page
    for known in ("threshold", None):
        page = board([record], {"vae": {"published": [number | {"binarise": known}]}})
        assert "| -34.0 | same recipe |" in page


def test_a_bound_on_some_of_the_images_says_so_beside_a_published_one() -> None:
    number = {"dataset": "mnist", "metric": "nll", "value": 84.0, "source": "a table", "note": "longer"}
    for images, said in ((500, "ours of the first 500 of 10,000 test images; longer"), (10_000, "longer")):
        identity = {"split": "test", "k": 512, "images": images}
        record = make("vae", numbers={"nll_iwae_512": (90.0, 1.0, {"n": images, "identity": identity})})
        assert f"| +6.00 | **not the same recipe**: {said} |" in board([record], {"vae": {"published": [number]}})


def test_the_published_bounds_say_of_which_bits_they_are() -> None:
    numbers = [one for entry in registry().variants.values() for one in entry.published if one.metric == "nll"]
    assert numbers and all(one.binarise for one in numbers)


def test_the_difference_to_a_published_number() -> None:
    (table,) = tables(ZOO)
    found = {one.metric: one for one in comparisons(table, ENTRIES)}
    assert found["nll"].differences == [86.1 - 84.45]
    page = board(ZOO, ENTRIES)
    assert re.search(r"\| 84\.45 \| \+1\.65 \|", page) and re.search(r"\| -90\.00 ± 0\.10 \| -0\.100 \|", page)
    assert "| 84.45 | none |" in board([make("vae", numbers={"elbo": -1.0})], ENTRIES)


def test_no_tie_is_best_behind_a_number_without_an_error() -> None:
    # Three runs each of two that tie, and one run of a third: MIG has no error but the spread over seeds.
    tied = [make(name, seed, numbers={"mig": 0.05 + 0.001 * seed}) for name in "ab" for seed in range(3)]
    (table,) = tables(tied)
    assert [row.label for row in leaders(table)[0].first] == ["a", "b"]
    (table,) = tables([*tied, make("c", numbers={"mig": 0.5})])
    assert leaders(table) == []


def test_notes_of_one_variant_that_differ_by_seed_name_it() -> None:
    noted = [{"kid_digits": (1.0, None, {"note": f"standard deviation {value}"})} for value in (129, 142)]
    (table,) = tables([make("m2", seed, numbers=numbers) for seed, numbers in enumerate(noted)])
    assert notes(table) == [("kid_digits", "standard deviation 129 to 142 (m2)")]
