"""KID, precision, recall, density and coverage on sets whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.metrics import manifold
from benchmarks.metrics.manifold import kernel_distance, manifold_quality, squared_mmd
from zoo.errors import UsageError


def test_squared_mmd_is_its_definition() -> None:
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)
    ]
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert squared_mmd(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_kid_is_unbiased() -> None:
    values = torch.tensor([squared_mmd(*torch.randn(2, 40, 8, dtype=torch.float64)) for _ in range(600)])
    mean, error = float(values.mean()), float(values.std() / len(values) ** 0.5)
    assert abs(mean) < 4 * error
    # The biased (V-statistic) form would be off by far more than that.
    assert 4 * error < 0.02


def test_kid_standard_error_is_the_spread_over_fresh_samples() -> None:
    found = [
        kernel_distance(torch.randn(200, 8) + 0.4, torch.randn(200, 8), 40, seed=i)[0] for i in range(120)
    ]
    spread = np.std([e.value for e in found], ddof=1)
    assert np.mean([e.stderr for e in found]) == pytest.approx(spread, rel=0.2)


def test_few_subsets_of_a_large_set_are_in_the_error_of_kid() -> None:
    fake, real = torch.randn(3000, 8) + 0.4, torch.randn(3000, 8)
    found = [kernel_distance(fake, real, 4, size=40, seed=seed)[0] for seed in range(150)]
    spread = np.std([e.value for e in found], ddof=1)
    # Nearly all of what it moves by is which images the subsets have.
    assert np.mean([e.stderr for e in found]) == pytest.approx(spread, rel=0.2)


def test_kid_sees_a_shift_and_repeats_itself() -> None:
    fake, real = torch.randn(300, 8), torch.randn(400, 8)
    same, std = kernel_distance(fake, real)
    moved, _ = kernel_distance(fake + 1, real)
    assert abs(same.value) < 4 * same.stderr < moved.value
    assert std > 0 and same.n == 300
    assert kernel_distance(fake, real)[0] == same
    assert kernel_distance(fake, real, seed=1)[0].value != same.value


def test_kid_agrees_with_torchmetrics_polynomial_kernel() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = torch.randn(50, 16, dtype=torch.float64), torch.randn(50, 16, dtype=torch.float64) + 0.5
    assert squared_mmd(x, y) == pytest.approx(float(kid.poly_mmd(x, y)), rel=1e-9)


def test_two_clusters_one_of_which_is_covered() -> None:
    # Real: two far clusters. Fake: half in the first, half in nowhere.
    real = torch.cat([torch.randn(100, 4), torch.randn(100, 4) + 100])
    fake = torch.cat([torch.randn(100, 4), torch.randn(100, 4) - 100])
    quality = manifold_quality(fake, real)
    assert quality["precision"].value == pytest.approx(0.5, abs=0.04)
    assert quality["recall"].value == pytest.approx(0.5, abs=0.1)
    assert 0.4 < quality["coverage"].value <= 0.5
    assert quality["density"].value == pytest.approx(0.5, abs=0.1)
    huddled = manifold_quality(torch.cat([fake[:100] * 0.3, fake[100:]]), real)
    assert huddled["density"].value > 1.5 * quality["density"].value
    assert huddled["coverage"].value < quality["coverage"].value
    assert quality["precision"].stderr == pytest.approx((0.25 / 200) ** 0.5, rel=0.02)


def test_density_is_a_count_over_k_to_the_last_digit() -> None:
    density = manifold_quality(torch.randn(50, 4), torch.randn(60, 4))["density"].value
    assert density * 50 * 5 == pytest.approx(round(density * 50 * 5), rel=1e-14)


def test_equal_sets_are_perfect_and_far_sets_are_nothing() -> None:
    x = torch.randn(60, 4)
    same, far = manifold_quality(x, x), manifold_quality(x, x + 1000)
    assert [same[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    # k + 1 images in a ball, itself one of them; the one that lies on its edge may fall to either side.
    assert 1 <= same["density"].value <= 1.2 + 1e-6
    assert [estimate.value for estimate in far.values()] == [0, 0, 0, 0]


def test_images_that_are_all_one_and_the_same_are_each_other_s_neighbours() -> None:
    quality = manifold_quality(torch.ones(20, 4), torch.ones(30, 4))
    assert [quality[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert quality["density"].value == 30 / 5


@pytest.mark.parametrize("different", [7, 50, 129])
def test_copies_of_real_images_are_inside_whatever_the_products_round_to(different: int) -> None:
    # Of eight copies each the balls have no size, and the generated images lie in their middles.
    images = torch.rand(different, 2048)
    copies = images.repeat(8, 1)[torch.randperm(8 * different)]
    for fake, real in ((images, copies), (copies, images)):
        quality = manifold_quality(fake, real)
        assert [quality[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert manifold_quality(images, copies)["density"].value == pytest.approx(8 / 5)


def test_an_offset_that_all_features_share_changes_no_neighbour() -> None:
    fake, real = torch.randn(2, 80, 4, dtype=torch.float64)
    here, there = manifold_quality(fake, real), manifold_quality(fake + 1e7, real + 1e7)
    assert {name: one.value for name, one in there.items()} == {name: one.value for name, one in here.items()}


def test_same_distribution_has_the_expected_density_and_coverage() -> None:
    real, fake = torch.randn(2, 1500, 16)
    quality = manifold_quality(fake, real, coverage_k=5)
    assert quality["density"].value == pytest.approx(1, abs=0.12)
    assert quality["coverage"].value == pytest.approx(1 - 2**-5, abs=0.015)


def test_brute_force_agrees_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = torch.randn(37, 3) * 1.3 + 50, torch.randn(29, 3) + 50
    expected = manifold_quality(fake, real, k=2, coverage_k=4)

    def radii(x: torch.Tensor, k: int) -> torch.Tensor:
        return torch.cdist(x.double(), x.double()).sort(dim=1).values[:, k]

    across = torch.cdist(fake.double(), real.double(), compute_mode="donot_use_mm_for_euclid_dist")
    inside = across <= radii(real, 2)
    reached = across <= radii(fake, 2)[:, None]
    counted = across <= radii(real, 4)
    assert expected["precision"].value == pytest.approx(float(inside.any(1).double().mean()))
    assert expected["recall"].value == pytest.approx(float(reached.any(0).double().mean()))
    assert expected["density"].value == pytest.approx(float(counted.sum(1).double().mean() / 4))
    assert expected["coverage"].value == pytest.approx(float(counted.any(0).double().mean()))
    monkeypatch.setattr(manifold, "ROWS", 8)
    assert manifold_quality(fake, real, k=2, coverage_k=4) == expected


@pytest.mark.parametrize("many", [1, 40])
def test_radii_in_halves_are_those_of_each_half_by_itself(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifold, "ROWS", 16)
    rows = torch.randn(101, 3).repeat_interleave(many, 0)[:150]  # each so many times: more than are looked at first
    whole, *halves = manifold._radii_in_halves(rows.double(), 2)
    assert len(halves) == manifold.HALVES and torch.equal(whole, manifold._radii(rows.double(), 2)[0])
    for radii in halves:
        inside = radii >= 0
        assert inside.sum() == len(rows) // 2
        torch.testing.assert_close(radii[inside], manifold._radii(rows[inside].double(), 2)[0], rtol=1e-6, atol=1e-9)
    assert len({tuple((radii >= 0).tolist()) for radii in halves}) == len(halves)


@pytest.mark.parametrize(("dimensions", "shift", "few"), [(2, 1.0, None), (8, 0.0, None), (24, 0.1, 4)])
def test_the_error_of_recall_is_the_deviation_over_generated_sets(
    dimensions: int, shift: float, few: int | None
) -> None:
    """Where neighbourhoods are many and where few reach far: with them held fixed it was down to a third of it."""
    torch.manual_seed(0)
    real, found = torch.randn(300, dimensions), []
    for _ in range(150):
        fake = torch.randn(300, dimensions)
        if few is not None:  # Student's t
            fake = fake * (few / torch.distributions.Chi2(few).sample((300, 1))).sqrt()
        found.append(manifold_quality(fake + shift, real)["recall"])
    deviation = torch.tensor([one.value for one in found]).std()
    assert 0.8 < deviation / torch.tensor([one.stderr for one in found]).mean() < 1.25


def test_precision_and_recall_exchange_with_their_arguments() -> None:
    fake, real = torch.randn(80, 4) * 0.5, torch.randn(90, 4)
    one, other = manifold_quality(fake, real), manifold_quality(real, fake)
    precision, recall = one["precision"], one["recall"]
    assert precision.value > recall.value
    assert (other["precision"].value, other["recall"].value) == (recall.value, precision.value)
    assert (precision.n, recall.n) == (80, 90)


@pytest.mark.parametrize("function", [kernel_distance, manifold_quality])
@pytest.mark.parametrize(
    ("fake", "said"),
    [
        (torch.full((20, 4), torch.nan), "NaN or infinite numbers in 20 of 20 rows"),
        (torch.ones(1, 4), "1 sample"),
        (torch.ones(20, 3), "3 and 4 dimensions"),
        (torch.ones(20, 4, 1), "shape is"),
    ],
)
def test_bad_features_are_refused(function, fake: torch.Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        function(fake, torch.randn(20, 4))


def test_bad_settings_are_refused() -> None:
    x = torch.randn(5, 2)
    with pytest.raises(UsageError, match="k = 5 neighbours"):
        manifold_quality(x, x, k=5)
    with pytest.raises(UsageError, match="k = 0 neighbours"):
        manifold_quality(x, x, coverage_k=0)
    with pytest.raises(UsageError, match="subset of 5 images"):
        kernel_distance(x, x, size=5)
    with pytest.raises(UsageError, match="subset of 1 images"):
        kernel_distance(x[:3], x)
    with pytest.raises(UsageError, match="at least 2 subsets"):
        kernel_distance(x, x, subsets=1)
