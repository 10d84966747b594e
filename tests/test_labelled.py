"""Labels that are imprecise, against planted factors: how many are wrong and how, what bins are, how values are
permuted, and which factors are told. That all labels are right without these settings is in
`tests/test_s2_beta_vae.py`."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.test_cli import call
from tests.test_partners import of_classes, some
from tests.test_supervised import ALONE, each, gradients, losses, make
from zoo.config import resolve
from zoo.data.companions import joined
from zoo.data.images import Images
from zoo.data.labelled import Labelled
from zoo.errors import UsageError
from zoo.settings import parse_setting

SIZES = (2, 5, 12)


def planted(n: int = 4000, sizes: tuple[int, ...] = SIZES) -> Images:
    """Images with factors that are drawn evenly."""
    drawn = torch.Generator().manual_seed(7)
    factors = torch.stack([torch.randint(size, (n,), generator=drawn) for size in sizes], 1)
    return Images(
        torch.zeros(n, 1, 1, 1, dtype=torch.uint8),
        factors=factors,
        factor_names=tuple(f"factor {j}" for j in range(len(sizes))),
        factor_sizes=sizes,
        factor_kind="exact",
    )


def numbers(labelled: Labelled, sizes: tuple[int, ...] = SIZES) -> Tensor:
    """(n, F), which value each label says."""
    return (labelled.values.double() * torch.tensor(sizes)).round().long()


def close(count: int, chance: float, n: int) -> bool:
    """Within five standard errors of what is expected."""
    return abs(count - n * chance) < 5 * math.sqrt(n * chance * (1 - chance))


# ---- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_so_many_labels_are_drawn_anew_each_by_itself_and_any_value_as_often(noise: float) -> None:
    images = planted()
    labelled = Labelled(images, 4000, noise=noise)
    told, true = numbers(labelled), images.factors[labelled.index]
    wrong = told != true
    # A label that is drawn anew may come to be right.
    chances = [noise * (1 - 1 / size) for size in SIZES]
    for j, (size, chance) in enumerate(zip(SIZES, chances, strict=True)):
        assert close(int(wrong[:, j].sum()), chance, 4000)
        off = Counter(((told - true)[wrong[:, j], j] % size).tolist())
        assert off.keys() == set(range(1, size))
        assert all(close(times, chance / (size - 1), 4000) for times in off.values())
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert close(int((wrong[:, a] & wrong[:, b]).sum()), chances[a] * chances[b], 4000)


def test_where_each_is_drawn_anew_labels_say_nothing() -> None:
    images = planted()
    labelled = Labelled(images, 4000, noise=1.0)
    told, true = numbers(labelled), images.factors[labelled.index]
    for j, size in enumerate(SIZES):
        assert close(int((told[:, j] == true[:, j]).sum()), 1 / size, 4000)
        assert all(close(int((told[:, j] == value).sum()), 1 / size, 4000) for value in range(size))


def test_what_is_wrong_is_a_matter_of_the_seed_and_not_of_how_many_are_labelled() -> None:
    images = planted()
    before = images.factors.clone()
    few, more, again = (Labelled(images, most, 3, noise=0.5) for most in (10, 1000, 1000))
    assert torch.equal(more.values, again.values) and torch.equal(more.values[:10], few.values)
    assert torch.equal(images.factors, before)
    # The same images as without noise.
    assert torch.equal(more.index, Labelled(images, 1000, 3).index)
    # Under another seed other places of the order are wrong.
    told = {seed: Labelled(images, 4000, seed, noise=0.5) for seed in (3, 4)}
    wrong = {seed: (numbers(one) != images.factors[one.index])[:, 2] for seed, one in told.items()}
    assert close(int((wrong[3] & wrong[4]).sum()), (0.5 * 11 / 12) ** 2, 4000)


# ---- bins ------------------------------------------------------------------------------------------------------------


def test_bins_are_of_like_size_and_in_order() -> None:
    factors = torch.tensor([[min(value, 1), min(value, 4), min(value, 6), value] for value in range(12)])
    labelled = Labelled(some(factors, (2, 5, 7, 12)), 12, bins=5)
    told = labelled.values[labelled.index.argsort()].double()
    # Two and five values stay as they are; of seven the bins begin at 0, 1.4, 2.8, ..., of twelve at 0, 2.4, 4.8, ...
    expected = [
        [value / 2 for value in (0, *[1] * 11)],
        [value / 5 for value in (0, 1, 2, 3, *[4] * 8)],
        [value / 5 for value in (0, 0, 1, 2, 2, 3, *[4] * 6)],
        [value / 5 for value in (0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4)],
    ]
    torch.testing.assert_close(told.T, torch.tensor(expected, dtype=torch.float64), atol=1e-7, rtol=0)


def test_labels_that_are_drawn_anew_are_so_before_they_are_rounded() -> None:
    images = planted()
    exact, rounded = (Labelled(images, 1000, noise=0.5, bins=bins) for bins in (None, 3))
    assert torch.equal(numbers(rounded, (2, 3, 3)), numbers(exact) * torch.tensor([2, 3, 3]) // torch.tensor(SIZES))


# ---- permuted values -------------------------------------------------------------------------------------------------


def test_the_values_of_each_factor_have_each_other_s_numbers_by_one_permutation_of_all() -> None:
    images, found = planted(400), []
    before = images.factors.clone()
    for seed in range(40):
        labelled = Labelled(images, 400, seed, permuted=True)
        told, true = numbers(labelled), images.factors[labelled.index]
        each = [dict(zip(true[:, j].tolist(), told[:, j].tolist(), strict=True)) for j in range(3)]
        for j, size in enumerate(SIZES):
            assert torch.equal(told[:, j], torch.tensor([each[j][value] for value in true[:, j].tolist()]))
            assert each[j].keys() == {*each[j].values()} == set(range(size))
        assert torch.equal(labelled.index, Labelled(images, 400, seed).index)
        found.append(each)
    # Any number as often for a value, and other ones under another seed.
    for j, size in enumerate(SIZES):
        assert close(sum(each[j][0] == 0 for each in found), 1 / size, 40)
    assert len({tuple(sorted(each[2].items())) for each in found}) == 40
    assert torch.equal(images.factors, before)


def test_two_factors_of_as_many_values_have_two_permutations() -> None:
    alike, images = (12, 12), planted(400, (12, 12))
    images.factors[:, 1] = images.factors[:, 0]
    for seed in range(5):
        told = numbers(Labelled(images, 400, seed, permuted=True), alike)
        assert not torch.equal(told[:, 0], told[:, 1])


def test_how_values_are_permuted_does_not_depend_on_how_many_images_are_labelled() -> None:
    images = planted()
    few, more = (Labelled(images, most, 3, permuted=True) for most in (2, 1000))
    assert torch.equal(more.values[:2], few.values)


def test_what_is_permuted_are_bins_and_labels_that_were_drawn_anew_and_each_factor_has_its_own() -> None:
    images = planted()
    rounded, both = (Labelled(images, 1000, noise=0.5, bins=3, permuted=permuted) for permuted in (False, True))
    told, mixed = (numbers(one, (2, 3, 3)) for one in (rounded, both))
    assert not torch.equal(told, mixed)
    for j, size in enumerate((2, 3, 3)):
        each = dict(zip(told[:, j].tolist(), mixed[:, j].tolist(), strict=True))
        assert {*each.values()} == set(range(size))
        assert torch.equal(mixed[:, j], torch.tensor([each[value] for value in told[:, j].tolist()]))
    kept = Labelled(images, 50, permuted=True, kept=1)
    whole = Labelled(images, 50, permuted=True)
    of_one, of_all = Labelled(images, 50, kept=1).values, Labelled(images, 50).values
    (plain,) = (j for j in range(3) if torch.equal(of_one[:, 0], of_all[:, j]))
    assert torch.equal(kept.values, whole.values[:, [plain]])


# ---- a part of the factors -------------------------------------------------------------------------------------------


def test_labels_of_a_part_of_the_factors_are_of_those_that_the_seed_draws_in_their_order() -> None:
    images = planted(50)
    every, seen = Labelled(images, 50, 0), Counter()
    for seed in range(60):
        labelled, whole = Labelled(images, 50, seed, kept=2), Labelled(images, 50, seed)
        assert labelled.factors == 2 and torch.equal(labelled.index, whole.index)
        pairs = [pair for pair in ((0, 1), (0, 2), (1, 2)) if torch.equal(labelled.values, whole.values[:, pair])]
        assert len(pairs) == 1
        seen[pairs[0]] += 1
    assert len(seen) == 3 and all(close(times, 1 / 3, 60) for times in seen.values())
    # And the same ones however many images are labelled, and whatever else is wrong with their labels.
    (column,) = (j for j in range(3) if torch.equal(Labelled(images, 50, kept=1).values[:, 0], every.values[:, j]))
    assert torch.equal(Labelled(images, 7, kept=1).values, every.values[:7, [column]])
    noisy = Labelled(images, 50, noise=0.5, bins=4)
    assert torch.equal(Labelled(images, 50, noise=0.5, bins=4, kept=1).values, noisy.values[:, [column]])


# ---- of the variants -------------------------------------------------------------------------------------------------


@each
def test_a_variant_is_told_what_its_settings_say(name: str) -> None:
    images = planted(300)
    settings = {"labelled": 200, "label_seed": 5, "label_bins": 3, "label_noise": 0.25, "label_permuted": True}
    told = make(name, **settings, label_factors=2).companions(images)
    expected = Labelled(images, 200, 5, bins=3, noise=0.25, permuted=True, kept=2)
    assert torch.equal(told.index, expected.index) and torch.equal(told.values, expected.values)
    perfect = make(name, labelled=200, label_seed=5).companions(images)
    torch.testing.assert_close(perfect.values, images.factors[perfect.index] / torch.tensor(SIZES))


@each
def test_factors_that_are_not_told_pull_at_nothing(name: str) -> None:
    model = make(name, label_factors=2)
    images = planted(6)
    told = model.companions(images).told(torch.zeros(6, 2, dtype=torch.int64))
    codes = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    model.represent = lambda _: codes
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    (pull,) = gradients(losses(model, x, joined(x, told.double()))["vae"], [codes])
    assert (pull[:, :2] != 0).all() and (pull[:, 2:] == 0).all()
    # There is a dimension for each factor that is told, and need be none for others.
    assert make(name, latent=2, label_factors=2).companions(images).factors == 2


@each
def test_perfect_labels_have_the_identity_that_they_had_before_there_were_others(name: str) -> None:
    perfect = resolve(name).identity()
    assert not {"label_bins", "label_noise", "label_permuted", "label_factors"} & perfect["model"].keys()
    imprecise = {"label_bins": 5, "label_noise": 0.1, "label_permuted": True, "label_factors": 2}
    for given, otherwise in imprecise.items():
        assert resolve(name, settings=[f"{given}=null"]).identity() == perfect
        assert resolve(name, settings=[f"{given}={otherwise}"]).identity()["model"] == perfect["model"] | {
            given: otherwise
        }


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "asked", "said"),
    [
        (planted(20), {"bins": 12}, "label_bins=12: no factor of this data has more than 12 values"),
        (of_classes(), {"bins": 4}, "label_bins=4: no factor of this data has more than 4 values"),
        (planted(20), {"kept": 3}, "label_factors=3 leaves out none of this data's factors: it has 3"),
        (of_classes(), {"kept": 1}, "label_factors=1 leaves out none of this data's factors: it has 1"),
    ],
)
def test_what_would_change_nothing_is_refused(images: Images, asked: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Labelled(images, 5, **asked)
    assert Labelled(images, 5, bins=2).values.shape[0] == 5


def test_a_setting_that_the_data_cannot_follow_is_refused_before_a_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    words = ["train", "s2_beta_vae", "--data", "synthetic", "--set", "label_factors=2", "--out", str(out)]
    code, _, said = call(monkeypatch, capsys, *words)
    assert code == 2 and said.count("\n") == 1 and not (out / "run.json").exists()
    assert said.startswith("zoo: label_factors=2 leaves out none of this data's factors")


@each
@pytest.mark.parametrize("asked", ["label_bins=2", "label_noise=0.5", "label_permuted=yes", "label_factors=1"])
def test_how_imprecise_labels_are_is_refused_where_none_is_told(name: str, asked: str) -> None:
    settings = parse_setting(asked)["model"]
    with pytest.raises(UsageError, match=f"^{asked.partition('=')[0]} does nothing with labelled=0"):
        make(name, labelled=0, **settings)
    assert make(name, labelled=1, **settings).factor_supervised


WEIGHTS = {name: "gamma" if name == "s2_beta_vae" else "supervised_weight" for name in ALONE}


@each
def test_a_setting_of_labels_is_refused_where_none_is_told_and_somebody_gave_it(name: str) -> None:
    for asked in ("label_seed=3", "supervised=l2", f"{WEIGHTS[name]}=7"):
        setting = asked.partition("=")[0]
        with pytest.raises(UsageError, match=f"^{setting} would do nothing: with labelled=0 no label is told.$"):
            resolve(name, "synthetic", settings=["labelled=0", asked])
        assert resolve(name, "synthetic", settings=["labelled=1", asked])
        # What a suite gives to all of its cells is not looked at, nor what is the default.
        assert resolve(name, "synthetic", defaults=[parse_setting(asked)], settings=["labelled=0"])
    assert resolve(name, "synthetic", settings=["labelled=0", "label_seed=0", "supervised=bce"])
    # Of the others gamma, where they have one, is another weight.
    if name in ("s2_beta_tcvae", "s2_factor_vae"):
        assert resolve(name, "synthetic", settings=["labelled=0", "gamma=7"])


def test_what_no_label_is_told_for_is_refused_in_a_sentence_before_a_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    words = ["train", "s2_beta_vae", "--data", "synthetic", "--set", "labelled=0", "--set", "label_seed=2"]
    code, _, said = call(monkeypatch, capsys, *words, "--out", str(out))
    assert (code, said) == (2, "zoo: label_seed would do nothing: with labelled=0 no label is told.\n")
    assert not out.exists()
