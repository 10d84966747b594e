"""What variants have in common whose training has another likeness in place of the likelihood."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo import create_model
from zoo.data.images import DataSpec
from zoo.models.likeness import LikenessVAE
from zoo.registry import registry

BITS = DataSpec((1, 16, 16), "binary")
LIKENESSES = ("dfc_vae", "ms_ssim_vae", "autoencoder_kl")
each = pytest.mark.parametrize("name", LIKENESSES)


def make(name: str, spec: DataSpec = BITS, **settings: Any) -> LikenessVAE:
    nets: dict[str, Any] = {"encoder": {"hidden": [16]}, "decoder": {"hidden": [16]}, "latent": 4}
    if name == "autoencoder_kl":  # with the rate and the pixels weighed as by the others, and without its adversary
        nets = {"channels": [4, 8], "latent": 2, "beta": 1.0, "pixel": 0.0, "adversary": 0.0}
    torch.manual_seed(0)
    return create_model(name, data=spec, **(nets | settings))


def bits(n: int = 32) -> Tensor:
    return (torch.rand(n, *BITS.shape, generator=torch.Generator().manual_seed(1)) < 0.3).float()


def test_these_are_all_of_them() -> None:
    kinds = {name: entry.load() for name, entry in registry().variants.items()}
    assert {name for name, kind in kinds.items() if issubclass(kind, LikenessVAE)} == set(LIKENESSES)


@each
@pytest.mark.parametrize("pixel", [0.0, 0.25])
def test_training_minimises_what_is_unlike_and_the_rate_and_the_pixels_asked_for(name: str, pixel: float) -> None:
    model, x = make(name, weight=30.0, pixel=pixel), bits()
    torch.manual_seed(7)
    losses = model.losses(x, None, 0.3)
    torch.manual_seed(7)
    q = model.infer(x)
    logits = model.decode(q.rsample()[0])
    unlike = model.unlike(x, torch.sigmoid(logits))
    cross_entropy = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
    expected = 30.0 * unlike + 0.3 * q.kl(model.prior).sum(1) + pixel * cross_entropy
    assert unlike.shape == (32,) and (unlike > 0).all()
    torch.testing.assert_close(losses["vae"], expected.mean())
    torch.testing.assert_close(losses.terms.distortion, cross_entropy)
    whole = 30.0 * unlike + q.kl(model.prior).sum(1) + pixel * cross_entropy
    torch.testing.assert_close(model.criterion(x, None, losses.terms), -whole)


@each
def test_without_weight_the_rate_alone_is_trained(name: str) -> None:
    model = make(name, weight=0.0)
    losses = model.losses(bits(), None, 0.5)
    torch.testing.assert_close(losses["vae"], 0.5 * losses.terms.rate.sum(1).mean())
    losses["vae"].backward()
    assert not any((parameter.grad != 0).any() for parameter in model.decoder.parameters())
    assert any((parameter.grad != 0).any() for parameter in model.encoder.parameters())


@each
def test_a_learned_scale_is_fitted_without_touching_the_decoder(name: str) -> None:
    gradients, x = [], bits() * 0.5 + 0.2
    for log_sigma in (0.0, -1.0):
        model = make(name, DataSpec(BITS.shape, "8-bit"), likelihood={"name": "gaussian"})
        with torch.no_grad():
            model.likelihood.log_sigma.fill_(log_sigma)
        torch.manual_seed(7)
        losses = model.losses(x)
        gradients.append(torch.autograd.grad(losses["vae"], [*model.decoder.parameters(), model.likelihood.log_sigma]))
        squares = losses.terms.distortion.detach() - 256 * (0.5 * torch.log(torch.tensor(2 * torch.pi)) + log_sigma)
        torch.testing.assert_close(gradients[-1][-1], 256 - 2 * squares.mean(), rtol=1e-4, atol=1e-3)
    for one, other in zip(*(each[:-1] for each in gradients), strict=True):
        torch.testing.assert_close(one, other)


@each
def test_after_training_the_bound_is_calibrated_and_the_pictures_are_not(name: str) -> None:
    model, x = make(name), bits()
    *_, bias = model.decoder.parameters()
    with torch.no_grad():
        bias.fill_(30.0)  # sure of white everywhere
    model.eval()
    torch.manual_seed(3)
    before, pictures = model.terms(x).distortion.mean(), model.reconstruct(x)
    model.recollect([(x, None)])
    torch.manual_seed(3)
    assert model.terms(x).distortion.mean() < 0.2 * before
    assert torch.equal(model.reconstruct(x), pictures)


@each
def test_a_pixel_that_is_shown_as_black_has_a_gradient(name: str) -> None:
    model = make(name, DataSpec(BITS.shape, "8-bit"), likelihood={"name": "laplace"})
    params = torch.full((2, *BITS.shape), -0.2, requires_grad=True)
    assert not model.likelihood.mean(params).any()
    (gradient,) = torch.autograd.grad(model.unlike(bits(2), model.shown(params)).sum(), params)
    assert (gradient != 0).all()
