"""Ada-GVAE: what is shared, its average and the loss of pairs against the paper's by hand, and where it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tests import tape
from tests.in_pieces import in_pieces
from tests.test_cli import call
from zoo import create_model, noise, runs
from zoo.config import resolve
from zoo.data.companions import joined, parted
from zoo.data.grids import grid_set
from zoo.data.images import DataSpec, ImageSet
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.errors import UsageError
from zoo.models.ada_vae import AdaVAE, averaged, mean_of, of_factors, shared
from zoo.registry import DatasetEntry, registry
from zoo.training.precision import choose
from zoo.training.trainer import Trainer

SPEC = DataSpec((1, 4, 4), "binary")


def make(latent: int = 4, **settings: object) -> AdaVAE:
    """A small model in float64 whose posterior depends on the image and is far from its prior."""
    small = {"encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}, "latent": latent}
    torch.manual_seed(0)
    model = create_model("ada_vae", data=SPEC, **(small | settings))
    with torch.no_grad():
        model.head.weight.mul_(5.0)
    return model.double()


def pairs(n: int = 6) -> tuple[Tensor, Tensor]:
    return tuple(torch.rand(2, n, 1, 4, 4, generator=torch.Generator().manual_seed(1)).round().double())


def posteriors(n: int = 5, latent: int = 7) -> tuple[DiagonalGaussian, DiagonalGaussian]:
    drawn = torch.randn(4, n, latent, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return DiagonalGaussian(drawn[0], drawn[1]), DiagonalGaussian(drawn[2], drawn[3])


def normal(q: DiagonalGaussian) -> Normal:
    return Normal(q.mean, q.log_variance.exp().sqrt())


# ---- what is shared --------------------------------------------------------------------------------------------------


def test_a_dimension_is_shared_below_the_middle_of_the_least_and_the_largest_divergence() -> None:
    first, second = posteriors()
    apart = kl_divergence(normal(first), normal(second)).numpy()
    expected = np.array([[d < (min(row) + max(row)) / 2 for d in row] for row in apart])
    assert 0 < expected.mean() < 1 and np.array_equal(shared(first, second).numpy(), expected)
    # Of the first from the second: the other direction has another answer.
    assert not torch.equal(shared(first, second), shared(second, first))


def test_where_all_dimensions_differ_as_much_none_is_shared() -> None:
    first, second = posteriors(latent=1)
    assert not shared(first, second).any() and not shared(first, first).any()


def test_what_is_not_shared_stays_and_what_is_becomes_the_same_for_both() -> None:
    first, second = posteriors()
    both = DiagonalGaussian(*(torch.cat(part) for part in zip(first.moments(), second.moments(), strict=True)))
    here, common = shared(first, second), mean_of(first, second, "gvae")
    for made, q in zip(zip(*(part.chunk(2) for part in averaged(both, "gvae").moments())), (first, second)):
        for value, own, mean in zip(made, q.moments(), common.moments(), strict=True):
            assert torch.equal(value[~here], own[~here]) and torch.equal(value[here], mean[here])


def test_the_averages_are_the_paper_s() -> None:
    first, second = posteriors()
    v1, v2 = first.log_variance.exp(), second.log_variance.exp()
    group = mean_of(first, second, "gvae")
    torch.testing.assert_close(group.mean, (first.mean + second.mean) / 2)
    torch.testing.assert_close(group.log_variance.exp(), (v1 + v2) / 2)
    # The product of both densities, by integration: its mean, and half of the variance.
    z = torch.linspace(-40, 40, 40001, dtype=torch.float64).view(-1, 1, 1)
    product = (normal(first).log_prob(z) + normal(second).log_prob(z)).softmax(0)
    mean = (product * z).sum(0)
    by_precision = mean_of(first, second, "ml_vae")
    torch.testing.assert_close(by_precision.mean, mean)
    torch.testing.assert_close(by_precision.log_variance.exp(), 2 * (product * (z - mean).square()).sum(0))
    for average in ("gvae", "ml_vae"):
        same = mean_of(first, first, average)
        torch.testing.assert_close(same.mean, first.mean)
        torch.testing.assert_close(same.log_variance, first.log_variance)
        extreme = DiagonalGaussian(first.mean, torch.full_like(first.mean, 20.0).float())
        assert (
            mean_of(extreme, DiagonalGaussian(second.mean, -extreme.log_variance), average)
            .log_variance.isfinite()
            .all()
        )


# ---- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["gvae", "ml_vae"])
def test_the_loss_is_the_mean_bound_of_both_images_under_averaged_posteriors(average: str) -> None:
    model, (x, y) = make(average=average, beta=3.0), pairs()
    eps = torch.randn(12, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with noise.given([eps]):
        losses = model.losses(x, y, 0.5)
    expected, rates = [], []
    for pair in range(6):
        q1, q2 = (normal(model.infer(part[pair : pair + 1])) for part in (x, y))
        apart = kl_divergence(q1, q2)[0]
        tau = (apart.min() + apart.max()) / 2
        for image, q, own_eps in ((x[pair], q1, eps[pair]), (y[pair], q2, eps[6 + pair])):
            mean, variance = q.mean[0].clone(), q.variance[0].clone()
            for d in range(4):
                if apart[d] < tau:
                    m1, m2, v1, v2 = q1.mean[0, d], q2.mean[0, d], q1.variance[0, d], q2.variance[0, d]
                    if average == "gvae":
                        mean[d], variance[d] = (m1 + m2) / 2, (v1 + v2) / 2
                    else:
                        mean[d], variance[d] = (m1 / v1 + m2 / v2) / (1 / v1 + 1 / v2), 2 / (1 / v1 + 1 / v2)
            logits = model.decode((mean + variance.sqrt() * own_eps).unsqueeze(0))[0]
            distortion = torch.where(image > 0, -logits.sigmoid().log(), -(-logits).sigmoid().log()).sum()
            rate = 0.5 * (mean.square() + variance - 1 - variance.log()).sum()
            expected.append(distortion + 3.0 * 0.5 * rate)
            rates.append(rate)
    torch.testing.assert_close(losses["vae"], torch.stack(expected).mean())
    assert losses.terms.distortion.shape == (6,) and losses.terms.rate.shape == (6, 1)
    torch.testing.assert_close(losses.terms.rate[:, 0], torch.stack(rates).view(6, 2).mean(1))


@pytest.mark.parametrize("average", ["gvae", "ml_vae"])
def test_of_two_equal_images_the_loss_is_that_of_a_beta_vae(average: str) -> None:
    model, (x, _) = make(average=average, beta=2.0), pairs()
    eps = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with noise.given([eps.flatten(0, 1)]):
        found = model.losses(x, x.clone(), 0.7)["vae"]
    alone = []
    for draw in eps:
        with noise.given([draw]):
            terms = model.terms(x)
        alone.append((terms.distortion + 2.0 * 0.7 * terms.rate.sum(1)).mean())
        with noise.given([draw]):
            torch.testing.assert_close(model.losses(x, None, 0.7)["vae"], alone[-1])
    torch.testing.assert_close(found, sum(alone) / 2)


def test_what_is_kept_is_decided_by_the_bound_of_images_alone() -> None:
    model, (x, _) = make(beta=2.0), pairs()
    with noise.keyed(0, torch.arange(6)):
        terms = model.terms(x)
    with noise.keyed(0, torch.arange(6)):
        torch.testing.assert_close(-model.criterion(x, None, terms).mean(), model.losses(x)["vae"])


@pytest.mark.parametrize("posterior", ["planar", "iaf"])
def test_a_posterior_that_has_no_divergence_of_each_dimension_is_refused(posterior: str) -> None:
    with pytest.raises(UsageError, match="posterior.name=diagonal"):
        create_model("ada_vae", data=SPEC, posterior={"name": posterior})


# ---- what is shared is told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["gvae", "ml_vae"])
def test_what_is_told_to_be_shared_is_averaged_and_each_factor_drawn_anew_keeps_its_dimension(average: str) -> None:
    first, second = posteriors()
    both = DiagonalGaussian(*(torch.cat(part) for part in zip(first.moments(), second.moments(), strict=True)))
    # Two dimensions of seven have no factor: they are averaged whatever a pair shares.
    told = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 0, 0]]).double()
    made = averaged(both, average, of_factors(told, 7))
    common = mean_of(first, second, average)
    for pair in range(5):
        for d in range(7):
            one, other = ((q.mean[pair, d], q.log_variance[pair, d]) for q in (first, second))
            if d >= 5 or told[pair, d]:
                one = other = (common.mean[pair, d], common.log_variance[pair, d])
            for row, expected in ((pair, one), (5 + pair, other)):
                assert (made.mean[row, d], made.log_variance[row, d]) == expected


def test_the_loss_of_pairs_that_are_told_about_is_that_of_their_dimensions() -> None:
    model, (x, y) = make(told="shared", beta=2.0), pairs()
    told = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]]).double()
    eps = torch.randn(12, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with noise.given([eps]):
        losses = model.losses(x, joined(y, told), 0.5)
    q, kept = model.infer(torch.cat([x, y])), torch.cat([told, torch.ones(6, 1).double()], 1).repeat(2, 1)
    mean, variance = (part * (1 - kept) for part in (q.mean, q.log_variance.exp()))
    mean = mean + kept * ((q.mean[:6] + q.mean[6:]) / 2).repeat(2, 1)
    variance = variance + kept * ((q.log_variance[:6].exp() + q.log_variance[6:].exp()) / 2).repeat(2, 1)
    logits, images = model.decode(mean + variance.sqrt() * eps), torch.cat([x, y])
    distortion = torch.where(images > 0, -logits.sigmoid().log(), -(-logits).sigmoid().log()).flatten(1).sum(1)
    rate = 0.5 * (mean.square() + variance - 1 - variance.log()).sum(1)
    torch.testing.assert_close(losses["vae"], (distortion + 2.0 * 0.5 * rate).mean())


def test_a_code_with_fewer_dimensions_than_factors_cannot_be_told_of_them(tmp_path: Path, grid: str) -> None:
    config = resolve("ada_vae", grid, settings=[*SMALL, "latent=2", "told=shared"])
    with pytest.raises(UsageError, match="latent=2 is fewer than the 3 factors"):
        runs.train_run(config, tmp_path, choose("cpu"))
    assert not (tmp_path / "run.json").exists()


def test_nothing_is_told_unless_it_is_asked_for_and_then_it_is_part_of_what_a_run_is() -> None:
    plain, told = (resolve("ada_vae", settings=asked).identity()["model"] for asked in ([], ["told=shared"]))
    assert "told" not in plain and told == plain | {"told": "shared"}


# ---- training on pairs -----------------------------------------------------------------------------------------------


def load_grid() -> ImageSet:
    """128 pictures of bits: a column and a row that are light, of eight each, and whether they are wide."""

    def draw(index: np.ndarray) -> np.ndarray:
        at = np.arange(8)
        column, row = (np.abs(at - index[:, j, None]) <= index[:, 2, None] for j in (0, 1))
        return np.uint8(255) * (row[:, None, :, None] | column[:, None, None, :]).astype(np.uint8)

    spec = DataSpec((1, 8, 8), "binary", classes=2)
    factors = {"column": 8, "row": 8, "shape": 2}
    made = {"source": "here", "classes": ("narrow", "wide"), "n_validation": 12, "n_test": 12, "seed": 0}
    return grid_set("grid", spec, factors=factors, draw=draw, **made)


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> str:
    entry = DatasetEntry(
        load="tests.test_ada_vae:load_grid", title="grid", shape=(1, 8, 8), support="binary", classes=2
    )
    monkeypatch.setitem(registry().datasets, "grid", entry)
    return "grid"


SMALL = ["train.batch_size=16", "latent=4", "encoder.hidden=[16]", "decoder.hidden=[16]", "train.checkpoint_seconds=0"]


def test_a_training_is_shown_pairs_of_its_own_split_that_share_all_but_so_many_factors(
    grid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    losses = AdaVAE.losses
    monkeypatch.setattr(AdaVAE, "losses", lambda self, x, y=None, p=1.0: seen.append((x, y)) or losses(self, x, y, p))
    config = resolve("ada_vae", grid, settings=[*SMALL, "train.epochs=3", "changed=1", "train.compile=false"])
    run = runs.train_run(config, tmp_path, choose("cpu"))
    train = run.images["train"]
    factors = {tuple(image.flatten().tolist()): own for image, own in zip(train.pixels, train.factors, strict=True)}
    assert len(factors) == len(train) == 104 and len(seen) == 3 * 6
    apart = []
    for x, y in seen:
        for one, other in zip(x, y, strict=True):
            a, b = (factors[tuple((255 * image).long().flatten().tolist())] for image in (one, other))
            apart.append(int((a != b).sum()))
    assert set(apart) == {0, 1} and sum(apart) > 0.5 * len(apart)


def test_a_training_is_told_which_factors_each_pair_shares(
    grid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    losses = AdaVAE.losses
    monkeypatch.setattr(AdaVAE, "losses", lambda self, x, y=None, p=1.0: seen.append((x, y)) or losses(self, x, y, p))
    asked = [*SMALL, "latent=3", "train.epochs=2", "told=shared", "train.compile=false"]
    run = runs.train_run(resolve("ada_vae", grid, settings=asked), tmp_path, choose("cpu"))
    train = run.images["train"]
    factors = {tuple(image.flatten().tolist()): own for image, own in zip(train.pixels, train.factors, strict=True)}
    anew = []
    for x, y in seen:
        partners, told = parted(y, (1, 8, 8))
        assert told.shape == (len(x), 3) and ((told == 0) | (told == 1)).all()
        for one, other, same in zip(x, partners, told, strict=True):
            a, b = (factors[tuple((255 * image).long().flatten().tolist())] for image in (one, other))
            assert ((a == b) | (same == 0)).all()
            anew.append(int((same == 0).sum()))
    assert set(anew) == {1, 2} and len(anew) == 2 * 6 * 16


def test_a_training_on_pairs_that_is_killed_or_captured_ends_in_the_same_weights(
    grid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve("ada_vae", grid, settings=[*SMALL, "train.epochs=3", "train.compile=false"])
    whole = runs.train_run(config, tmp_path / "whole", choose("cpu"))
    pieces, stops = in_pieces(
        lambda stop: runs.train_run(config, tmp_path / "pieces", choose("cpu"), should_stop=stop), every=3
    )
    monkeypatch.setattr(runs, "Trainer", lambda *args: Trainer(*args, record=tape.record))
    taped = runs.train_run(config, tmp_path / "taped", choose("cpu"))
    assert stops >= 2 and taped.result.captured and not whole.result.captured
    assert whole.result.curves == pieces.result.curves
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, pieces.model.state_dict()[name]), name
        torch.testing.assert_close(taped.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_data_without_anything_to_share_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    code, _, said = call(monkeypatch, capsys, "train", "ada_vae", "--data", "ppca", "--out", str(out))
    assert code == 2 and said.startswith("zoo: pairs of images that share factors need data with two named factors")
    assert said.count("\n") == 1 and not (out / "run.json").exists()
