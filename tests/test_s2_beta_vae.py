"""S2-beta-VAE: the supervised loss by hand, which images show their factors and to whom, and where it is refused. What
all variants with that loss have in common is in `tests/test_supervised.py`."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import test_ada_vae
from tests.test_cli import call
from tests.test_partners import a_part_of_a_grid, of_classes
from zoo import create_model, noise, runs
from zoo.config import resolve
from zoo.data.companions import joined, parted
from zoo.data.images import SPLITS, DataSpec, Images, ImageSet
from zoo.data.labelled import Labelled
from zoo.data.mnist import partly_labelled
from zoo.errors import UsageError
from zoo.models.base import Losses
from zoo.models.s2_beta_vae import S2BetaVAE
from zoo.models.supervised import supervised_loss
from zoo.runs.images import condition_of
from zoo.training.precision import choose

grid = test_ada_vae.grid
SPEC = DataSpec((1, 4, 4), "binary", classes=3)
CHEAP = [*test_ada_vae.SMALL, "train.epochs=2", "train.compile=false"]


def make(name: str = "s2_beta_vae", **settings: object) -> torch.nn.Module:
    """A small model in float64."""
    torch.manual_seed(0)
    small = {"encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}, "latent": 4, "beta": 3.0}
    return create_model(name, data=SPEC, **(small | settings)).double()


def some() -> tuple[Tensor, Tensor, Tensor]:
    """Six images, as many labelled ones, and their three factors."""
    x, labelled = torch.rand(2, 6, 1, 4, 4, generator=torch.Generator().manual_seed(1)).round().double()
    factors = torch.rand(6, 3, generator=torch.Generator().manual_seed(2)).double()
    return x, labelled, factors


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_the_supervised_loss_is_that_of_the_first_dimensions_by_hand() -> None:
    # Sigmoids of 3/4, 1/2 and 1/3; the last dimension has no factor.
    codes = torch.tensor([[math.log(3), 0.0, 7.0], [-math.log(2), math.log(3), -7.0]], dtype=torch.float64)
    factors = torch.tensor([[0.5, 0.0], [0.25, 0.75]], dtype=torch.float64)

    def nats(p: float, target: float) -> float:
        return -target * math.log(p) - (1 - target) * math.log(1 - p)

    bce = [nats(3 / 4, 0.5) + nats(1 / 2, 0.0), nats(1 / 3, 0.25) + nats(3 / 4, 0.75)]
    torch.testing.assert_close(supervised_loss(codes, factors, "bce"), torch.tensor(bce, dtype=torch.float64))
    l2 = [0.25**2 + 0.5**2, (1 / 3 - 0.25) ** 2]
    torch.testing.assert_close(supervised_loss(codes, factors, "l2"), torch.tensor(l2, dtype=torch.float64))


# ---- labels alone ----------------------------------------------------------------------------------------------------


def of_same_draws(model: torch.nn.Module, x: Tensor, y: Tensor | None, progress: float = 1.0) -> Losses:
    with noise.keyed(0, torch.arange(len(x))):
        return model.losses(x, y, progress)


def test_with_labels_alone_they_move_the_encoder_and_the_distortion_the_decoder() -> None:
    (x, labelled, factors), y = some(), joined(*some()[1:])
    alone, both = make(labels_alone=True, gamma=7.0), make(gamma=7.0)
    found, terms = of_same_draws(alone, x, y, 0.5), of_same_draws(both, x, y).terms
    # What is reported is the bound, of the same draws as ever.
    assert torch.equal(found.terms.rate, terms.rate) and torch.equal(found.terms.distortion, terms.distortion)
    taught = 7.0 * supervised_loss(both.represent(labelled), factors, "bce").mean()
    torch.testing.assert_close(found["vae"], terms.distortion.mean() + taught)

    def gradients(model: torch.nn.Module, loss: Tensor, parts: tuple[str, ...]) -> list[Tensor]:
        chosen = [value for name, value in model.named_parameters() if name.startswith(parts)]
        assert chosen
        return torch.autograd.grad(loss, chosen, retain_graph=True)

    for parts, expected in ((("encoder", "head"), taught), (("decoder",), terms.distortion.mean())):
        ours, theirs = gradients(alone, found["vae"], parts), gradients(both, expected, parts)
        assert any(one.any() for one in ours)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)
    # Nothing moves the variances of the posterior.
    (of_head,) = gradients(alone, found["vae"], ("head.bias",))
    assert of_head[:3].all() and not of_head[3:].any()


def test_with_labels_alone_the_epoch_that_is_kept_is_that_of_the_best_distortion() -> None:
    x = some()[0]
    for model in (make(labels_alone=True), make()):
        terms = model.terms(x)
        rate = 0.0 if model.settings.labels_alone else 3.0 * terms.rate.sum(1)
        torch.testing.assert_close(model.criterion(x, None, terms), -(terms.distortion + rate))
        assert model.seeks_bound == model.frees_bits == model.warms_up == (not model.settings.labels_alone)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"labelled": 0}, "^labels_alone with labelled=0 leaves nothing that moves the encoder.$"),
        ({"gamma": 0.0}, "^labels_alone with gamma=0 leaves nothing that moves the encoder.$"),
        ({"prior": {"name": "vamp"}}, "^with labels_alone nothing moves prior.name=vamp: leave it at standard.$"),
        ({"posterior": {"name": "iaf"}}, "^with labels_alone nothing moves posterior.name=iaf: leave it at diagonal.$"),
    ],
)
def test_with_labels_alone_what_nothing_would_train_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(labels_alone=True, **settings)
    assert make(**settings).seeks_bound


def test_with_labels_alone_a_weight_of_the_rate_is_refused_and_without_nothing_is_as_before() -> None:
    with pytest.raises(UsageError, match="^beta would do nothing: with labels_alone the rate has no weight.$"):
        resolve("s2_beta_vae", settings=["labels_alone=yes", "beta=2"])
    usual = resolve("s2_beta_vae").identity()
    assert "labels_alone" not in usual["model"]
    assert resolve("s2_beta_vae", settings=["labels_alone=null"]).identity() == usual
    assert resolve("s2_beta_vae", settings=["labels_alone=yes"]).identity()["model"] == usual["model"] | {
        "labels_alone": True
    }


def test_a_training_with_labels_alone_moves_the_encoder_as_labels_do_and_the_decoder(grid: str, tmp_path: Path) -> None:
    # Another weight of the likelihood alone: decoders differ, and the encoder does not see it.
    found = []
    for at, more in enumerate((["likelihood.name=bernoulli"], ["likelihood.name=laplace"])):
        config = resolve("s2_beta_vae", grid, settings=[*CHEAP, "labels_alone=yes", "train.keep=last", *more])
        found.append(runs.train_run(config, tmp_path / str(at), choose("cpu")).model.state_dict())
    begun = runs.fresh_model(config, runs.load_images(config).spec).state_dict()
    for name in (name for name in begun if name.startswith(("encoder", "head"))):
        assert torch.equal(found[0][name], found[1][name]) and not torch.equal(found[0][name], begun[name])
    assert not torch.equal(found[1]["decoder.output.weight"], begun["decoder.output.weight"])


# ---- which images show their factors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_a_training_is_shown_the_factors_of_the_labelled_images_and_of_no_other(
    seed: int,
    grid: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told, alone = [], []
    losses, terms = S2BetaVAE.losses, S2BetaVAE.terms
    monkeypatch.setattr(
        S2BetaVAE, "losses", lambda self, x, y=None, p=1.0: told.append((x, y)) or losses(self, x, y, p)
    )
    monkeypatch.setattr(S2BetaVAE, "terms", lambda self, x, y=None: alone.append(y) or terms(self, x, y))
    run = runs.train_run(resolve("s2_beta_vae", grid, seed, settings=[*CHEAP, "labelled=5"]), tmp_path, choose("cpu"))
    train = run.images["train"]
    # The same five whatever the run's seed is: the first of the order that `label_seed` gives.
    five = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:5]
    known = {
        tuple(train.pixels[i].flatten().tolist()): (train.factors[i] / torch.tensor([8, 8, 2])).tolist() for i in five
    }
    seen = []
    for x, y in told:
        pictures, factors = parted(y, (1, 8, 8))
        assert factors.shape == (len(x), 3)
        for picture, own in zip(pictures, factors.tolist(), strict=True):
            seen.append(tuple((255 * picture).long().flatten().tolist()))
            assert known[seen[-1]] == pytest.approx(own)
    assert len(told) == 2 * 6 and set(seen) == known.keys()
    # Validation images, and what is reported, come without.
    assert alone and all(y is None for y in alone)


def test_who_is_labelled_is_a_matter_of_the_seed_and_fewer_are_the_first_of_more() -> None:
    images = a_part_of_a_grid()
    few, more, other = (Labelled(images, most, seed) for most, seed in ((3, 0), (8, 0), (8, 1)))
    assert torch.equal(more.index[:3], few.index) and set(more.index.tolist()) != set(other.index.tolist())
    assert len(more.index.unique()) == 8
    # Nothing of the others is kept.
    assert few.values.shape == (3, 3)
    torch.testing.assert_close(few.values, images.factors[few.index] / torch.tensor([2.0, 3.0, 4.0]))
    everyone = Labelled(images, 1000)
    assert sorted(everyone.index.tolist()) == [*range(17)]


def test_each_labelled_image_comes_as_often_to_any_image_with_its_own_factors() -> None:
    images = a_part_of_a_grid()
    labelled = Labelled(images, 4)
    numbers = torch.cartesian_prod(torch.arange(12), torch.arange(3))
    for image in (0, 16):
        drawn = labelled.of(torch.full((len(numbers),), image), numbers)
        assert Counter(drawn.tolist()) == dict.fromkeys(labelled.index.tolist(), 9)
    sizes = torch.tensor([2.0, 3.0, 4.0])
    torch.testing.assert_close(labelled.told(numbers), images.factors[drawn] / sizes)
    assert torch.equal(labelled.told(numbers.view(6, 6, 2)), labelled.told(numbers).view(6, 6, 3))


def test_of_images_without_factors_the_class_is_the_one_factor_where_it_is_known() -> None:
    images = of_classes()
    labelled = Labelled(images, 100)
    assert sorted(labelled.index.tolist()) == [*range(9)]
    torch.testing.assert_close(labelled.values[:, 0], images.labels[labelled.index] / 4)
    hidden = Images(images.pixels, labels=torch.where(images.labels == 2, -1, images.labels))
    assert sorted(Labelled(hidden, 100).index.tolist()) == [0, 3, 4, 6, 8]


def test_an_image_that_shows_its_class_several_times_is_one_labelled_image() -> None:
    plain = of_classes()
    splits = dict.fromkeys(SPLITS, Images(plain.pixels, labels=torch.arange(9) % 3))
    whole = ImageSet("nine", splits, DataSpec((1, 1, 1), "8-bit", classes=3))
    train = partly_labelled(whole, labelled=3, share=0.5)["train"]
    assert int((train.labels >= 0).sum()) == 9 and len(train) == 18
    labelled = Labelled(train, 2)
    assert len(train.pixels[labelled.index].unique(dim=0)) == len(labelled.index) == 2
    everyone = Labelled(train, 100)
    assert torch.equal(everyone.index[:2], labelled.index) and len(everyone.index) == 3
    torch.testing.assert_close(everyone.values[:, 0], train.labels[everyone.index] / 3)


def test_what_is_measured_is_never_told_a_class_or_a_factor() -> None:
    assert condition_of(make(), SPEC) == "none"
    model, (x, labelled, factors) = make(), some()
    with noise.keyed(0, torch.arange(6)):
        alone = model.terms(x).elbo
    with noise.keyed(0, torch.arange(6)):
        assert torch.equal(model.terms(x, joined(labelled, factors)).elbo, alone)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_data_that_shows_nothing_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    code, _, said = call(monkeypatch, capsys, "train", "s2_beta_vae", "--data", "ppca", "--out", str(out))
    assert code == 2 and said.startswith("zoo: images that show their factors need data with factors, or with classes.")
    assert said.count("\n") == 1 and not (out / "run.json").exists()
    hidden = Images(of_classes().pixels, labels=torch.full((9,), -1))
    with pytest.raises(UsageError, match="need data with factors"):
        Labelled(hidden, 5)


def test_more_factors_than_dimensions_are_refused() -> None:
    assert make(latent=3).companions(a_part_of_a_grid()).factors == 3
    with pytest.raises(UsageError, match="latent=2 is fewer than the 3 factors of this data"):
        make(latent=2).companions(a_part_of_a_grid())
