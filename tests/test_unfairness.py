"""Unfairness of predictions from codes: by hand, by chance, against the definition spelt out, and where it has none."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier

from benchmarks import score
from benchmarks.metrics import dci
from benchmarks.metrics.codes import Codes, Undefined
from benchmarks.metrics.disentanglement import METRICS, score_codes
from benchmarks.metrics.unfairness import by_chance, total_variation, unfairness_matrices
from tests.test_cli import call
from tests.test_disentanglement import NAMES, SIZES, planted, sample

FAST = METRICS["unfairness@hist-gbt"].scores


def crossed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    table = np.zeros((a.max() + 1, b.max() + 1), np.int64)
    np.add.at(table, (a, b), 1)
    return table


def told(z: np.ndarray, classes: np.ndarray, seed: int) -> tuple[dci.Predict, np.ndarray]:
    """No estimator: the prediction of the factor that was given is a latent that equals it on the training sample."""
    which = int((z == classes[:, None]).all(0).argmax())
    return (lambda codes: codes[:, which].astype(np.int64)), np.eye(z.shape[1])[which]


@pytest.mark.parametrize(
    ("table", "by_hand"),
    [
        ([[2, 0], [0, 2]], Fraction(1, 2)),
        ([[1, 2], [2, 4]], Fraction(0)),
        ([[3, 1], [1, 3]], Fraction(1, 4)),
        # One value of four images, 1/6 from the shares 5/6 and 1/6 of all, and one of two that is 1/3 from them.
        ([[4, 1], [0, 1]], Fraction(2, 9)),
        ([[5, 3], [0, 0]], Fraction(0)),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], 1 - Fraction(1 + 1 + 4, 16)),
    ],
)
def test_it_is_what_it_is_by_hand(table: list[list[int]], by_hand: Fraction) -> None:
    assert total_variation(np.array(table)) == pytest.approx(float(by_hand), abs=1e-15)


@pytest.mark.parametrize("seed", range(6))
def test_what_chance_gives_is_the_mean_over_all_permutations(seed: int) -> None:
    random = np.random.default_rng(seed)
    predicted, sensitive = random.integers(0, (1, 2, 2, 3, 3, 4)[seed], 6), random.integers(0, 3, 6)
    dealt = [total_variation(crossed(predicted, np.array(one))) for one in itertools.permutations(sensitive)]
    assert by_chance(crossed(predicted, sensitive)) == pytest.approx(np.mean(dealt), abs=1e-12)
    assert (max(dealt) > 0) == (seed > 0)


def test_it_is_the_definition_spelt_out() -> None:
    random = np.random.default_rng(0)
    train, test = (random.integers(0, (3, 4, 2), (n, 3)) for n in (60, 50))
    test[:, 1] = np.where(random.random(50) < 0.7, test[:, 0], test[:, 1])  # unequal and dependent
    test[:2, 2] = (5, 7)  # not in the training sample: one value
    measured = [np.linspace(0, 1, len(part))[:, None] for part in (train, test)]
    codes = Codes(
        train * 1.0, np.c_[train, measured[0]], (test + 1) % 3 * 1.0, np.c_[test, measured[1]], ("a", "b", "c", "d")
    )

    def fit(z: np.ndarray, classes: np.ndarray, seed: int) -> tuple[dci.Predict, np.ndarray]:
        return (lambda code: ((code[:, 0] + code[:, 1] * classes.max()) % 3).astype(np.int64)), np.ones(3)

    found, chance = unfairness_matrices(codes, fit)
    values = codes.classes_test.tolist()
    assert {row[2] for row in values} == {-1, 0, 1} and len({row[3] for row in values}) == 20
    for j, k in itertools.permutations(range(4), 2):
        highest = int(codes.classes_train[:, j].max())
        said = [int(row[0] + row[1] * highest) % 3 for row in codes.z_test.tolist()]
        distance = Fraction(0)
        for s in {row[k] for row in values}:
            given = [y for y, row in zip(said, values, strict=True) if row[k] == s]
            apart = sum(abs(Fraction(given.count(y), len(given)) - Fraction(said.count(y), 50)) for y in range(3))
            distance += Fraction(len(given), 50) * apart / 2
        assert found[j, k] == pytest.approx(float(distance), abs=1e-12), (j, k)
    assert np.isnan(np.diag(found)).all() and np.isnan(np.diag(chance)).all()


def test_a_code_that_is_independent_factors_is_as_unfair_as_chance_and_no_more() -> None:
    codes = planted((3, 4, 2), n=2000)
    scores = score_codes(codes, ["informativeness_test@hist-gbt", *FAST])
    assert scores["informativeness_test@hist-gbt"] == 1
    assert 0.005 < scores["unfairness_chance@hist-gbt"] < 0.03
    assert scores["unfairness@hist-gbt"] == pytest.approx(scores["unfairness_chance@hist-gbt"], abs=0.01)
    assert scores["unfairness@hist-gbt"] <= scores["unfairness_worst@hist-gbt"] < 0.05


def test_a_target_that_is_the_sensitive_factor_has_all_that_there_is() -> None:
    codes = planted((3, 2), n=1000)
    again = [0, 1, 0]
    twice = Codes(codes.z_train, codes.factors_train[:, again], codes.z_test, codes.factors_test[:, again])
    shares = np.bincount(codes.factors_test[:, 0]) / len(codes.factors_test)
    found, chance = unfairness_matrices(twice, told)
    assert found[0, 2] == found[2, 0] == pytest.approx(1 - np.sum(shares**2), abs=1e-12)
    assert chance[0, 2] < 0.05 and found[0, 1] < 0.06 and found[1, 0] < 0.06
    scores = score_codes(twice, FAST)
    assert scores["unfairness_worst@hist-gbt"] == pytest.approx(1 - np.sum(shares**2), abs=1e-12)
    assert scores["unfairness@hist-gbt"] == pytest.approx(np.nanmean(found), abs=1e-12)
    assert scores["unfairness_chance@hist-gbt"] == pytest.approx(np.nanmean(chance), abs=1e-12)


def test_of_whom_is_the_row_and_towards_what_the_column() -> None:
    # The third latent is the second factor in training and the first one in the test sample.
    codes = planted((2, 3), n=600)
    train = np.c_[codes.z_train[:, 0], codes.z_train[:, 2], codes.z_train[:, 1]]
    test = np.c_[codes.z_test[:, 0], codes.z_test[:, 2], codes.z_test[:, 0]]
    found, _ = unfairness_matrices(Codes(train, codes.factors_train, test, codes.factors_test), told)
    assert found[1, 0] == pytest.approx(0.5, abs=0.01) and found[0, 1] < 0.06


def test_the_order_of_factors_orders_the_matrix_that_of_latents_does_not_and_a_constant_prediction_is_fair() -> None:
    codes, order = planted((2, 3, 4), n=400), [2, 0, 1]
    shuffled = Codes(codes.z_train, codes.factors_train[:, order], codes.z_test, codes.factors_test[:, order])
    for one, other in zip(unfairness_matrices(codes, told), unfairness_matrices(shuffled, told), strict=True):
        assert np.array_equal(one[np.ix_(order, order)], other, equal_nan=True)
    turned = Codes(codes.z_train[:, ::-1], codes.factors_train, codes.z_test[:, ::-1], codes.factors_test)
    for one, other in zip(unfairness_matrices(codes, told), unfairness_matrices(turned, told), strict=True):
        assert np.array_equal(one, other, equal_nan=True)
    flat = Codes(*(np.zeros_like(part) if i % 2 == 0 else part for i, part in enumerate(
        (codes.z_train, codes.factors_train, codes.z_test, codes.factors_test)
    )))  # fmt: skip
    assert dict(score_codes(flat, FAST)) == dict.fromkeys(FAST, 0.0)


def test_dci_and_unfairness_are_of_one_fit_for_each_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []

    class Counted(HistGradientBoostingClassifier):
        def fit(self, *args):
            fits.append(self)
            return super().fit(*args)

    monkeypatch.setattr(dci, "HistGradientBoostingClassifier", Counted)
    codes = planted((2, 3), n=100)
    together = score_codes(codes, ["dci@hist-gbt", *FAST])
    assert len(fits) == 2
    alone = score_codes(planted((2, 3), n=100), FAST)
    assert len(fits) == 4 and dict(alone) == {name: together[name] for name in FAST}


def test_the_estimator_of_the_paper_has_the_plain_names() -> None:
    random = np.random.default_rng(0)
    z, factors = random.standard_normal((180, 2)), random.integers(0, (2, 3), (180, 2))
    codes = Codes(z[:120], factors[:120], z[120:], factors[120:])
    plain, fast = (score_codes(codes, [f"unfairness@{name}-gbt"]) for name in ("sklearn", "hist"))
    assert list(plain) == ["unfairness", "unfairness_worst", "unfairness_chance"]
    trees = GradientBoostingClassifier(random_state=0).fit(z[:120], factors[:120, 0])
    pairs = [total_variation(crossed(trees.predict(z[120:]), factors[120:, 1]))]
    trees = GradientBoostingClassifier(random_state=0).fit(z[:120], factors[:120, 1])
    pairs += [total_variation(crossed(trees.predict(z[120:]), factors[120:, 0]))]
    assert (plain["unfairness"], plain["unfairness_worst"]) == pytest.approx((np.mean(pairs), max(pairs)), abs=1e-12)
    assert abs(plain["unfairness"] - fast["unfairness@hist-gbt"]) > 1e-3
    assert plain.identity["unfairness"]["estimator"] == "GradientBoostingClassifier"
    assert plain.identity["unfairness"]["n_test"] == 60


def test_where_there_is_no_other_factor_or_no_other_value_it_says_so() -> None:
    codes = planted((3,), n=60)
    with pytest.raises(Undefined, match="another factor and there is one"):
        score_codes(codes, FAST)
    assert set(FAST) <= set(score_codes(codes, [*FAST, "mig"], strict=False).skipped)
    two = planted((3, 2), n=60)
    still = Codes(two.z_train, two.factors_train, two.z_test, two.factors_test * [1, 0], ("shape", "colour"))
    with pytest.raises(Undefined, match="'colour' has one in the test sample"):
        score_codes(still, FAST)
    # One latent has no completeness, and predictions all the same.
    one = Codes(two.z_train[:, :1], two.factors_train, two.z_test[:, :1], two.factors_test)
    scores = score_codes(one, ["dci@hist-gbt", *FAST], strict=False)
    assert set(scores) == set(FAST) and "there is one" in scores.skipped["completeness@hist-gbt"]


def test_zoo_score_gives_it_of_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    codes = planted((2, 3), n=100)
    np.savez(tmp_path / "codes.npz", **{name: getattr(codes, name) for name in score.ARRAYS})
    words = ("score", str(tmp_path / "codes.npz"), "--metrics")
    code, out, err = call(monkeypatch, capsys, *words, ",".join(FAST), "--json")
    assert code == 0 and json.loads(out) == dict(score_codes(codes, FAST)), err
    code, out, err = call(monkeypatch, capsys, *words, "unfairness@sklearn-gbt")
    assert code == 0 and "unfairness_chance" in out and "hist" not in out, err


def test_of_the_factors_of_dsprites_chance_alone_gives_what_the_page_says() -> None:
    codes = sample("perfect")
    told_all = Codes(codes.factors_train * 1.0, codes.factors_train, codes.factors_test * 1.0, codes.factors_test)
    found, chance = unfairness_matrices(told_all, told)
    assert NAMES[2:4] == ("orientation", "pos_x") and len(codes.z_test) == 5000
    assert (np.nanmean(found), np.nanmax(found)) == pytest.approx((0.095, 0.194), abs=5e-4)
    assert (np.nanmean(chance), chance[2, 3]) == pytest.approx((0.094, 0.196), abs=5e-4)
    sizes = np.array(SIZES)
    normal = np.sqrt(np.outer(sizes - 1, sizes - 1) / (2 * np.pi * 5000))
    apart = ~np.eye(5, dtype=bool)
    assert chance[apart] == pytest.approx(normal[apart], rel=0.01)
