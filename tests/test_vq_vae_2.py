"""VQ-VAE-2: a bound over two grids of codes, of which the lower is made from the upper and told by it."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch import Tensor

from benchmarks.latents import interpolate
from benchmarks.pictures import to_bytes
from tests import test_vq_vae as one_grid
from tests.test_vq_vae import every_image
from zoo import noise
from zoo.data.images import DataSpec
from zoo.models import create_model
from zoo.models.base import Progress
from zoo.models.vq_vae_2 import DEVIATION, VQVAE2

#: Of 2 x 4 binary pixels, with a 1 x 1 grid of codes above one of 1 x 2.
tiny = functools.partial(one_grid.tiny, variant="vq_vae_2")


def every_code(model: VQVAE2) -> list[Tensor]:
    """All 27 pairs of grids: (27, 1, 1) and (27, 1, 2)."""
    codes = torch.tensor(list(itertools.product(range(3), repeat=3)))
    return [codes[:, :1].view(27, 1, 1), codes[:, 1:].view(27, 1, 2)]


def log_prior(model: VQVAE2, codes: list[Tensor]) -> Tensor:
    """log p(upper) + log p(lower | upper), (N,)."""
    top, bottom = codes
    told = model.told(1, codes)
    return model.top_prior.log_prob(top) + model.bottom_prior.log_prob(bottom, told)


def test_the_bound_is_below_the_exact_log_likelihood_and_sums_to_at_most_one() -> None:
    model, x = tiny(), every_image()
    with torch.no_grad():
        model.initialise(x)
        elbo, codes = model.terms(x).elbo, every_code(model)
        output = model.decode(*(vectors.double() for vectors in model.embedded(codes)))
        joint = torch.stack([model.likelihood.log_prob(o.expand(256, -1, -1, -1), x) for o in output])
        exact = torch.logsumexp(joint + log_prior(model, codes).unsqueeze(1), 0)
    assert torch.logsumexp(log_prior(model, codes), 0).item() == pytest.approx(0.0, abs=1e-10)
    assert torch.logsumexp(exact, 0).item() == pytest.approx(0.0, abs=1e-10)
    assert (elbo <= exact + 1e-12).all()
    assert elbo.exp().sum() < 1.0
    for _, q in model.quantise(x):
        assert len(q.codes.flatten(1).unique(dim=0)) > 1


def test_the_rate_has_a_group_for_each_grid_and_the_lower_is_told_the_upper_codes_of_its_own_image() -> None:
    model, x = tiny(), every_image()
    model.initialise(x)
    terms, (top, bottom) = model.terms(x), [q for _, q in model.quantise(x)]
    output = model.decode(top.vectors, bottom.vectors)
    torch.testing.assert_close(terms.distortion, -model.likelihood.log_prob(output, x))
    upper = -model.top_prior.log_prob(top.codes)
    lower = torch.cat([
        -model.bottom_prior.log_prob(bottom.codes[i : i + 1], model.told(1, [top.codes[i : i + 1]])) for i in range(256)
    ])  # fmt: skip
    torch.testing.assert_close(terms.rate, torch.stack([upper, lower], 1))
    other = -model.bottom_prior.log_prob(bottom.codes, model.told(1, [top.codes.roll(1, 0)]))
    assert (other - lower).abs().max() > 0.01
    assert torch.equal(model.log_weights(x, k=3), terms.elbo.expand(3, 256))
    assert torch.equal(terms.aux["codes_top"], top.codes) and torch.equal(terms.aux["codes_bottom"], bottom.codes)
    torch.testing.assert_close(terms.aux["commitment"], top.commitment + bottom.commitment)


def test_the_lower_grid_and_the_picture_are_made_of_the_upper_codes_too() -> None:
    model, x = tiny(), every_image()
    model.initialise(x)
    before = [z for z, _ in model.quantise(x)]
    model.top.codebook.add_(1.0)
    after = [z for z, _ in model.quantise(x)]
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
    codes = [torch.zeros(3, 1, 1, dtype=torch.int64), torch.zeros(3, 1, 2, dtype=torch.int64)]
    codes[0][:, 0, 0] = torch.arange(3)
    pictures = model.decode(*model.embedded(codes))
    assert len(pictures.flatten(1).unique(dim=0)) == 3


def test_samples_are_decoded_codes_of_both_priors() -> None:
    model = tiny()
    codes = every_code(model)
    with torch.no_grad():
        possible = model.likelihood.mean(model.decode(*model.embedded(codes))).flatten(1)
        assert torch.pdist(possible).min() > 1e-6
        distance, which = torch.cdist(model.sample(4000).flatten(1), possible).min(1)
        expected = log_prior(model, codes).exp()
    assert distance.max() < 1e-6
    frequency = torch.bincount(which, minlength=27).double() / 4000
    error = (expected * (1 - expected) / 4000).sqrt()
    assert ((frequency - expected).abs() < 4.5 * error + 1e-3).all()


def test_each_sample_is_a_function_of_its_own_number() -> None:
    model = tiny()
    with noise.keyed(1, torch.arange(200)):
        together = model.sample(200)
    with noise.keyed(1, torch.arange(150, 200)):
        apart = model.sample(50)
    torch.testing.assert_close(together[150:], apart)
    assert len(together.flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (1, 7, 9), (3, 5, 2)])
@pytest.mark.parametrize("halvings", [1, 2])
def test_any_size_of_image(shape: tuple[int, int, int], halvings: int) -> None:
    spec = DataSpec(shape=shape, support="8-bit")
    model = create_model("vq_vae_2", data=spec, channels=[4] * halvings, hidden=4, prior={"hidden": 4})
    x = torch.rand(2, *shape)
    assert model.reconstruct(x).shape == model.sample(2).shape == x.shape
    lower = tuple(math.ceil(side / 2**halvings) for side in shape[1:])
    upper = tuple(math.ceil(side / 2) for side in lower)
    assert [q.codes.shape[1:] for _, q in model.quantise(x)] == [upper, lower]
    assert [prior.grid for prior in model.priors] == [upper, lower]
    assert torch.isfinite(model.terms(x).elbo).all()


def test_both_grids_begin_standardised_and_with_codes_in_use() -> None:
    torch.manual_seed(0)
    model = create_model("vq_vae_2", data=DataSpec((1, 28, 28), "binary"))
    x = torch.bernoulli(torch.rand(64, 1, 28, 28))
    fresh = [z.std((0, 2, 3)).max() for z, _ in model.quantise(x)]
    model.initialise(x)
    for was, quantiser, (z, q) in zip(fresh, model.quantisers, model.quantise(x)):
        assert was < 0.5 * DEVIATION
        torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(16), atol=1e-4, rtol=0)
        torch.testing.assert_close(z.std((0, 2, 3)), torch.full((16,), DEVIATION), atol=1e-4, rtol=0)
        assert len(q.codes.unique()) == quantiser.codes
        rows = z.movedim(1, -1).flatten(0, -2)
        assert torch.cdist(quantiser.codebook, rows).min(1).values.max() < 1e-2


def test_levels_begin_with_most_of_them_in_use() -> None:
    torch.manual_seed(0)
    model = create_model("vq_vae_2", data=DataSpec((1, 28, 28), "binary"), quantiser={"name": "fsq", "levels": [5, 3]})
    x = torch.bernoulli(torch.rand(64, 1, 28, 28))
    model.initialise(x)
    for _, q in model.quantise(x):
        assert len(q.codes.unique()) >= 12


@pytest.mark.parametrize("images", [1, 3])
def test_what_does_not_differ_begins_as_it_is(images: int) -> None:
    torch.manual_seed(0)
    model = create_model("vq_vae_2", data=DataSpec((1, 2, 2), "binary"), channels=[4])
    x = torch.ones(images, 1, 2, 2)
    before = model.upward[-1].weight.clone()
    model.initialise(x)
    assert torch.equal(before, model.upward[-1].weight)
    assert all(z.abs().max() < 1e-4 for z, _ in model.quantise(x)) and torch.isfinite(model.terms(x).elbo).all()


def test_the_prior_trains_alone_in_its_stage_and_both_codebooks_stand_still_then() -> None:
    model, x = tiny(prior_from=0.5).train(), every_image()
    model.initialise(x)

    def moved(progress: float) -> list[bool]:
        before = [quantiser.codebook.clone() for quantiser in model.quantisers]
        losses = model.losses(x, None, progress)
        model.after_step()
        assert set(losses) == ({"vae"} if progress.fraction < 0.5 else {"prior"})
        return [not torch.equal(a, quantiser.codebook) for a, quantiser in zip(before, model.quantisers)]

    assert moved(Progress(1.0, 0.0)) == [True, True]
    assert moved(Progress(1.0, 0.5)) == [False, False]


def test_the_losses_are_the_terms() -> None:
    model, x = tiny(), every_image()
    model.initialise(x)
    terms, losses = model.terms(x), model.losses(x)
    torch.testing.assert_close(losses["vae"], (terms.distortion + terms.aux["commitment"]).mean())
    torch.testing.assert_close(losses["prior"], terms.rate.sum(1).mean())
    assert {id(p) for p in model.parameter_groups()["prior"]} >= {id(p) for p in model.tell.parameters()}


def test_both_quantisers_have_their_penalty() -> None:
    model, x = tiny(quantiser={"name": "lfq", "bits": 3, "entropy": 0.7}), every_image()
    model.initialise(x)
    terms = model.terms(x)
    penalties = [quantiser.penalty(z) for quantiser, (z, _) in zip(model.quantisers, model.quantise(x))]
    assert min(abs(penalty.item()) for penalty in penalties) > 1e-3
    expected = (terms.distortion + terms.aux["commitment"]).mean() + sum(penalties)
    torch.testing.assert_close(model.losses(x)["vae"], expected)
    assert model.couples_examples


def test_the_code_of_an_image_is_what_its_reconstruction_needs_and_a_way_between_images_ends_at_them() -> None:
    model, x = tiny(), every_image()
    model.initialise(x)
    code = model.represent(x)
    top, bottom = code[:, :4].view(256, 4, 1, 1), code[:, 4:].view(256, 4, 1, 2)
    rebuilt = model.reconstruct(x)
    torch.testing.assert_close(model.likelihood.mean(model.decode(top, bottom)), rebuilt)
    way = interpolate(model, x[3:4], x[250:251], steps=5)
    assert torch.equal(way[[0, -1]], to_bytes(rebuilt[[3, 250]])) and not torch.equal(way[0], way[-1])
