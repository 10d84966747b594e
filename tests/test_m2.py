"""M2 by enumeration, against sums written out; and data of which few labels are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zoo import create_model, noise
from zoo.config import resolve
from zoo.data.images import DataSpec
from zoo.data.mnist import partly_labelled
from zoo.data.synthetic import load_synthetic
from zoo.errors import UsageError
from zoo.models.m2 import M2
from zoo.runs import build_model
from zoo.runs.images import compare_labels, condition_of

SPEC = DataSpec((1, 4, 4), "binary", classes=3)


def still(**settings) -> M2:
    """A model whose q(z | x, y) is so narrow that a bound has no noise to speak of."""
    model = create_model("m2", data=SPEC, latent=2, hidden=[8], **settings).double().requires_grad_(False)
    model.head.bias[2:] = -40.0
    return model


def bits(n: int = 5) -> Tensor:
    return torch.randint(0, 2, (n, 1, 4, 4)).double()


def labelled_bounds(model: M2, x: Tensor) -> Tensor:
    """log p(x, y) >= these, (B, K)."""
    every = torch.eye(3).double().expand(len(x), -1, -1)
    distortion, rate = model.bound(x, every)
    return -(distortion + rate + math.log(3))


def test_the_unlabelled_bound_is_the_sum_over_classes_and_the_entropy() -> None:
    model, x = still(), bits()
    log_q, bounds = model.log_classes(x), labelled_bounds(model, x)
    expected = (log_q.exp() * (bounds - log_q)).sum(1)
    assert torch.allclose(model.terms(x).elbo, expected, atol=1e-3)
    assert (model.terms(x).elbo < torch.logsumexp(bounds, 1)).all()


def test_the_parts_of_the_rate_are_that_of_the_class_and_then_that_of_z() -> None:
    model, x = still(), bits()
    q = model.log_classes(x).exp()
    of_class = torch.stack([sum(p * (p * 3).log() for p in row) for row in q])
    _, of_z = model.bound(x, torch.eye(3).double().expand(5, -1, -1))
    found = model.terms(x).rate
    torch.testing.assert_close(found, torch.stack([of_class, (q * of_z).sum(1)], 1))
    assert (found[:, 0] < math.log(3)).all() and (found[:, 1] > 10).all()


def test_the_bound_is_tight_where_q_is_the_posterior_of_the_class() -> None:
    model, x = still(), bits(1)
    bounds = labelled_bounds(model, x)
    last = model.classifier[-1]
    last.weight.zero_()
    last.bias.copy_(bounds[0])
    assert model.terms(x).elbo.item() == pytest.approx(torch.logsumexp(bounds, 1).item(), abs=1e-3)


def test_a_label_takes_its_column_and_minus_one_takes_none() -> None:
    model, x = still(labelled=0.25, alpha=2.0), bits(4)
    y = torch.tensor([2, -1, 0, -1])
    bounds, log_q = labelled_bounds(model, x), model.log_classes(x)
    unlabelled = -model.terms(x[[1, 3]]).elbo.mean()
    labelled = -(bounds[0, 2] + bounds[2, 0]) / 2
    recognised = -(log_q[0, 2] + log_q[2, 0]) / 2
    expected = 0.75 * unlabelled + 0.25 * labelled + 2.0 * recognised
    assert model.losses(x, y)["vae"].item() == pytest.approx(expected.item(), abs=2e-3)
    nobody = torch.full((4,), -1)
    assert model.losses(x, nobody)["vae"].item() == pytest.approx(-model.terms(x).elbo.mean().item(), abs=2e-3)
    everybody = torch.tensor([2, 1, 0, 1])
    labelled, recognised = (-part[range(4), everybody].mean() for part in (bounds, log_q))
    expected = 0.75 * -model.terms(x).elbo.mean() + 0.25 * labelled + 2.0 * recognised
    assert model.losses(x, everybody)["vae"].item() == pytest.approx(expected.item(), abs=2e-3)
    # A batch in parts would have other shares of labels in each.
    assert model.couples_batch


def test_renaming_the_classes_renames_everything_and_changes_no_bound() -> None:
    model, x = still(), bits()
    before, log_q = model.terms(x).elbo, model.log_classes(x)
    order = torch.tensor([2, 0, 1])
    for weight in (model.classifier[-1].weight, model.classifier[-1].bias):
        weight.copy_(weight[order].clone())
    model.label.weight.copy_(model.label.weight[:, order].clone())
    model.decoder[0][0].weight[:, 2:] = model.decoder[0][0].weight[:, 2:][:, order].clone()
    assert torch.allclose(model.log_classes(x), log_q[:, order])
    assert torch.allclose(model.terms(x).elbo, before, atol=1e-3)


def test_classes_are_drawn_from_q() -> None:
    model, x = still(), bits(2)
    # q(z | x, y) is the prior and the image does not depend on z: a weight tells which class was drawn.
    model.head.weight.zero_()
    model.head.bias.zero_()
    model.decoder[0][0].weight[:, :2] = 0
    with noise.keyed(0, torch.arange(2), range(4000)):
        weights = model.log_weights(x, k=4000)
    log_q, bounds = model.log_classes(x), labelled_bounds(model, x)
    for image in range(2):
        each = bounds[image] - log_q[image]
        drawn = (weights[:, image, None] - each).abs().argmin(1)
        assert torch.allclose(weights[:, image], each[drawn], atol=1e-9)
        shares = drawn.bincount(minlength=3) / 4000
        assert torch.allclose(shares.double(), log_q[image].exp(), atol=0.04)


def test_samples_are_of_every_class_equally_often_or_of_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = still(), []
    monkeypatch.setattr(model, "decode", lambda z, y: given.append((z, y)) or torch.zeros(len(z), 1, 4, 4))
    model.sample(3000)
    model.sample(3000, temperature=0.5)
    model.sample(3, torch.tensor([2, 0, 2]), temperature=0.0)
    for (z, y), deviation in zip(given, (1.0, 0.5), strict=False):
        assert (y.sum(1) == 1).all() and (y.sum(0) - 1000).abs().max() < 4.5 * math.sqrt(3000 * 2 / 9)
        torch.testing.assert_close(z.std(0), torch.full((2,), deviation).double(), rtol=0.06, atol=0)
    z, y = given[2]
    assert (z == 0).all() and y.argmax(1).tolist() == [2, 0, 2]


def test_labels_teach_the_classifier_and_errors_are_counted() -> None:
    images = load_synthetic().prepare("threshold")["train"].subset(300)
    x, y = images.pixels.float() / 255, images.labels
    model = create_model("m2", data=DataSpec((1, 28, 28), "binary", classes=10), hidden=[64], latent=4, alpha=50.0)
    before = model.measure(x, y)["classification_error"].mean()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model.losses(x[:100], y[:100])["vae"].backward()
        optimizer.step()
    after = model.measure(x[:100], y[:100])["classification_error"]
    assert after.mean() < 0.2 < before
    assert len(model.measure(x, torch.where(y == 3, -1, y))["classification_error"]) == (y != 3).sum()
    assert model.measure(x) == {}


def test_some_labels_are_known_evenly_and_seen_as_often_as_asked() -> None:
    whole = load_synthetic(500, 20, 20)
    made = partly_labelled(whole, labelled=20, share=0.2, seed=3)
    labels = made["train"].labels
    assert (labels[:500] == -1).all() and torch.equal(made["train"].pixels[:500], whole["train"].pixels)
    assert labels[500:].bincount(minlength=10).unique().numel() == 1
    assert (labels >= 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert len(made["train"].pixels[500:].flatten(1).unique(dim=0)) <= 20
    assert torch.equal(made["test"].labels, whole["test"].labels) and made.sha256 != whole.sha256
    assert torch.equal(labels, partly_labelled(whole, labelled=20, share=0.2, seed=3)["train"].labels)
    with pytest.raises(UsageError, match="multiple of the 10 classes"):
        partly_labelled(whole, labelled=15)
    with pytest.raises(UsageError, match="no 100 training images"):
        partly_labelled(whole, labelled=1000)


@pytest.mark.parametrize(
    ("told", "labels", "shown"), [(0.04, 20, None), (0.002, 20, "0.04"), (1, None, None), (0.1, None, "1")]
)
def test_a_share_of_labels_that_the_data_has_not_is_told(
    told: float, labels: int | None, shown: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    images = load_synthetic(500, 20, 20)
    options = [f"labelled={told}", "hidden=[8]"]
    if labels is not None:
        images = partly_labelled(images, labels, share=0.2)
        options.append(f"data.options.labelled={labels}")
    config = resolve("m2", "synthetic", settings=options)
    compare_labels(config, build_model(config, images.spec), images)
    said = f"labelled={told:g} is the share of training images that show their label, and in this data that share is"
    assert caplog.messages == [f"{said} {shown}"] * (shown is not None)


def test_training_is_given_the_classes_though_the_bound_is_not_conditional() -> None:
    assert condition_of(still(), SPEC) == "class"
    model, x = still(), bits()
    assert torch.allclose(model.terms(x, torch.zeros(5)).elbo, model.terms(x).elbo, atol=1e-3)
    with pytest.raises(UsageError, match="needs data with classes"):
        create_model("m2", data=DataSpec((1, 4, 4), "binary"))


def test_hidden_layers_begin_as_small_as_they_are_told_and_the_last_ones_as_ever() -> None:
    torch.manual_seed(0)
    told, plain = (create_model("m2", hidden=[300, 200], initial=value) for value in (0.001, None))
    for layer in (told.classifier[0][0], told.classifier[0][2], told.image, told.encoder[1][0], told.decoder[0][0]):
        assert layer.weight.std().item() == pytest.approx(0.001, rel=0.05)
        assert 0.0005 < layer.bias.std().item() < 0.002
    assert told.label.weight.std().item() == pytest.approx(0.001, rel=0.05)
    for name in ("classifier", "decoder"):
        last, as_ever = (getattr(model, name)[-1].weight.std().item() for model in (told, plain))
        assert last == pytest.approx(as_ever, rel=0.1)
    assert told.head.weight.std().item() == pytest.approx(plain.head.weight.std().item(), rel=0.1)
