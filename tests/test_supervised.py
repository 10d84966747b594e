"""Variants that are taught the factors of a few labelled images: each is another variant and a supervised loss beside
its own, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import test_ada_vae
from zoo import create_model, noise, runs
from zoo.config import resolve
from zoo.data.companions import joined
from zoo.data.images import DataSpec
from zoo.models.base import VAE, Losses
from zoo.models.supervised import supervised_loss
from zoo.registry import registry
from zoo.training.precision import choose

grid = test_ada_vae.grid
SPEC = DataSpec((1, 4, 4), "binary", classes=3)
CHEAP = [*test_ada_vae.SMALL, "train.epochs=1", "train.compile=false"]
#: What each is beside its supervised loss, and the setting that weighs that.
ALONE = {
    "s2_beta_vae": ("beta_vae", "gamma"),
    "s2_beta_tcvae": ("beta_tcvae", "supervised_weight"),
    "s2_factor_vae": ("factor_vae", "supervised_weight"),
    "s2_dip_vae": ("dip_vae", "supervised_weight"),
}
#: Settings that are not the defaults, so that none is lost on the way.
OWN = {
    "beta_vae": {"beta": 3.0},
    "beta_tcvae": {"alpha": 0.5, "beta": 3.0, "gamma": 2.0},
    "factor_vae": {"gamma": 3.0, "judge": [8]},
    "dip_vae": {"version": "I", "off_diagonal": 3.0, "diagonal": 2.0},
}
each = pytest.mark.parametrize("name", ALONE)


def make(name: str, weight: float | None = None, **settings: object) -> VAE:
    """A small model in float64, with the weights of any other here."""
    alone, weighs = ALONE.get(name, (name, ""))
    settings = {"latent": 5, **OWN[alone], **({} if weight is None else {weighs: weight}), **settings}
    torch.manual_seed(0)
    model = create_model(name, data=SPEC, encoder={"hidden": [8]}, decoder={"hidden": [8]}, **settings).double()
    model.train_size = 60
    return model


def some() -> tuple[Tensor, Tensor, Tensor]:
    """Six images, as many labelled ones, and their three factors."""
    x, labelled = torch.rand(2, 6, 1, 4, 4, generator=torch.Generator().manual_seed(1)).round().double()
    factors = torch.rand(6, 3, generator=torch.Generator().manual_seed(2)).double()
    return x, labelled, factors


def losses(model: VAE, x: Tensor, y: Tensor | None = None, progress: float = 1.0) -> Losses:
    """Of the same draws as any other here."""
    with noise.keyed(0, torch.arange(len(x))):
        return model.losses(x, y, progress)


def gradients(loss: Tensor, parameters: Iterable[Tensor]) -> list[Tensor | None]:
    return torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)


def same(ours: Iterable[Tensor | None], theirs: Iterable[Tensor | None]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


def test_these_are_all_that_are_taught_factors() -> None:
    assert {name for name, entry in registry().variants.items() if entry.load().factor_supervised} == ALONE.keys()
    for name, (alone, _) in ALONE.items():
        ours, theirs = make(name), make(alone)
        assert isinstance(ours, type(theirs)) and ours.frees_bits == theirs.frees_bits
        assert registry().variants[name].taught == "the factors of some images"


@each
@pytest.mark.parametrize("kind", ["bce", "l2"])
def test_the_loss_is_the_variant_s_and_the_weight_times_the_mean_over_labelled_images(name: str, kind: str) -> None:
    model, (x, labelled, factors) = make(name, 5.0, supervised=kind), some()
    plain = make(ALONE[name][0])
    found, expected = losses(model, x, joined(labelled, factors), 0.5), losses(plain, x, None, 0.5)
    one_by_one = [supervised_loss(plain.represent(labelled[i : i + 1]), factors[i : i + 1], kind) for i in range(6)]
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found.pop("vae"), expected.pop("vae") + 5.0 * torch.cat(one_by_one).mean())
    assert same(found.values(), expected.values()) and torch.equal(found.terms.elbo, expected.terms.elbo)


@each
@pytest.mark.parametrize("weight", [None, 0.0])
def test_without_labels_or_without_their_weight_it_is_the_variant_bit_for_bit(name: str, weight: float | None) -> None:
    model, plain, (x, labelled, factors) = make(name, weight), make(ALONE[name][0]), some()
    y = None if weight is None else joined(labelled, factors)
    found, expected = losses(model, x, y, 0.5), losses(plain, x, None, 0.5)
    assert found.keys() == expected.keys() == model.parameter_groups().keys()
    for group, members in model.parameter_groups().items():
        assert torch.equal(found[group], expected[group])
        ours = gradients(found[group], members)
        assert same(ours, gradients(expected[group], plain.parameter_groups()[group]))
        assert any(one is not None and one.any() for one in ours)


@each
def test_the_training_without_labels_is_the_variant_s_bit_for_bit(name: str, grid: str, tmp_path: Path) -> None:
    alone, _ = ALONE[name]
    found = [
        runs.train_run(resolve(one, grid, settings=[*CHEAP, *own]), tmp_path / one, choose("cpu"))
        for one, own in ((name, ["labelled=0"]), (alone, []))
    ]
    assert found[0].result.curves == found[1].result.curves
    ours, theirs = (run.model.state_dict() for run in found)
    assert ours.keys() == theirs.keys() and same(ours.values(), theirs.values())


@each
def test_labels_pull_at_the_first_dimensions_of_labelled_codes_alone(name: str) -> None:
    (x, labelled, factors), model = some(), make(name, 5.0)
    codes = model.represent(labelled).detach().requires_grad_()
    model.represent = lambda images: codes
    (pull,) = gradients(losses(model, x, joined(labelled, factors))["vae"], [codes])
    assert pull.shape == (6, 5) and (pull[:, :3] != 0).all() and (pull[:, 3:] == 0).all()


@each
def test_what_the_labels_add_has_its_gradient_from_labelled_images_alone(name: str) -> None:
    (x, labelled, factors), given = some(), []
    x.requires_grad_(), labelled.requires_grad_()
    for weight in (0.0, 5.0):
        given.append(losses(make(name, weight), x, joined(labelled, factors))["vae"])
    (of_images,) = torch.autograd.grad(given[0], x, retain_graph=True)
    of_both, of_labelled = torch.autograd.grad(given[1], (x, labelled))
    assert of_images.abs().sum() > 0 and torch.equal(of_images, of_both)
    assert (of_labelled.flatten(1).abs().sum(1) > 0).all()


@each
def test_labels_move_no_part_that_has_a_loss_of_its_own(name: str) -> None:
    (x, labelled, factors), model = some(), make(name, 5.0)
    found = losses(model, x, joined(labelled.requires_grad_(), factors))
    plain = losses(model, x)
    for group, members in model.parameter_groups().items():
        if group != "vae":
            assert gradients(found[group], [labelled]) == (None,)
            assert same(gradients(found["vae"], members), gradients(plain["vae"], members))


@each
def test_what_is_kept_is_decided_as_without_labels(name: str) -> None:
    x, _, _ = some()
    found = []
    for one in (name, ALONE[name][0]):
        model = make(one)
        with noise.keyed(0, torch.arange(6)):
            terms = model.terms(x)
        with noise.keyed(1, torch.arange(6)):
            found.append(model.criterion(x, None, terms))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", [name for name in ALONE if make(name).frees_bits])
def test_free_bits_are_free_beside_labels_as_without_them(name: str) -> None:
    x, y = some()[0], joined(*some()[1:])
    model, plain = make(name, 5.0), make(ALONE[name][0])
    added = (losses(model, x, y)["vae"] - losses(plain, x)["vae"]).item()
    charged = losses(model, x)["vae"].item()
    model.free_bits = plain.free_bits = 2.0
    found = losses(model, x, y)["vae"].item()
    assert found - losses(plain, x)["vae"].item() == pytest.approx(added)
    assert found - added > charged + 0.1
