"""A model that completes images: what it is shown, what it is asked, and when its guess is trained."""

from __future__ import annotations

import pytest
import torch

from zoo import create_model, noise
from zoo.data.images import DataSpec
from zoo.models.base import Progress
from zoo.models.quadrant_cvae import QuadrantCVAE

SPEC = DataSpec((1, 6, 6), "binary")


def make(observed: int, spec: DataSpec = SPEC) -> QuadrantCVAE:
    return create_model("quadrant_cvae", data=spec, observed=observed, latent=3, hidden=[8]).double()


def bits(n: int = 4) -> torch.Tensor:
    return torch.randint(0, 2, (n, 1, 6, 6)).double()


@pytest.mark.parametrize("observed", [1, 2, 3])
def test_shown_and_asked_quadrants_make_the_image(observed: int) -> None:
    model = make(observed)
    count = torch.zeros(1, 6, 6)
    for rows, columns in model.asked:
        count[:, rows, columns] += 1
    assert torch.equal(count + model.shown, torch.ones(1, 6, 6))
    assert model.shown[0, 5, 0] and not model.shown[0, 5, 5]
    assert model.predicted == 36 - 9 * observed
    assert make(observed, DataSpec((3, 7, 5), "binary")).predicted % 3 == 0


@pytest.mark.parametrize("observed", [1, 2, 3])
def test_the_prior_and_the_guess_see_the_shown_part_alone(observed: int) -> None:
    model, x = make(observed), bits()
    other = torch.where(model.shown, x, 1 - x)
    assert torch.equal(model.guessed(x), model.guessed(other))
    assert torch.equal(model.prior(x).mean, model.prior(other).mean)
    changed = torch.where(model.shown, 1 - x, x)
    assert not torch.equal(model.prior(x).mean, model.prior(changed).mean)
    params = torch.randn(4, 1, 6, 6).double()
    assert torch.equal(model.log_likelihood(params, x), model.log_likelihood(params, changed))
    expected = (params * x - torch.nn.functional.softplus(params)) * ~model.shown
    assert torch.allclose(model.log_likelihood(params, x), expected.flatten(1).sum(1))


def test_the_guess_is_shown_minus_one_where_the_image_is_hidden() -> None:
    model, x, seen = make(2), bits(), []
    model.guess.register_forward_pre_hook(lambda _, given: seen.append(given[0].view(4, 1, 6, 6)))
    model.guessed(x)
    assert torch.equal(seen[0], torch.where(model.shown, x, -1.0))


def test_of_real_data_the_guess_and_the_completion_reach_beyond_the_range_of_pictures() -> None:
    model = make(1, DataSpec((1, 6, 6), "real"))
    x, seen = torch.randn(4, 1, 6, 6).double(), []
    last = [layer for layer in model.guess.modules() if isinstance(layer, torch.nn.Linear)][-1]
    torch.nn.init.constant_(last.bias, -3.0)
    model.prior_net.register_forward_pre_hook(lambda _, given: seen.append(given[0].view(4, 1, 6, 6)))
    model.prior(x)
    assert torch.equal(seen[0], torch.where(model.shown, x, model.guessed(x))) and seen[0].min() < -2
    decoded = model.decode(model.represent(x))
    assert decoded.min() < 0 and torch.equal(model.reconstruct(x), torch.where(model.shown, x, decoded))


def test_completions_keep_what_was_shown() -> None:
    model, x = make(2), bits()
    rebuilt = model.reconstruct(x)
    assert torch.equal(rebuilt[:, :, :, :3], x[:, :, :, :3]) and rebuilt[:, :, :, 3:].max() < 1
    model.initialise(x)
    sampled = model.sample(50)[:, :, :, :3].flatten(1).unique(dim=0)
    assert {tuple(row.tolist()) for row in sampled} <= {tuple(row.tolist()) for row in x[:, :, :, :3].flatten(1)}


def test_the_guess_is_trained_first_and_then_held_fixed() -> None:
    model, x = make(1), bits()
    warm = model.losses(x, None, Progress(0.5, 0.1))
    assert list(warm) == ["guess"]
    warm["guess"].backward()
    moved = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == {"guess"}
    model.zero_grad(set_to_none=True)
    later = model.losses(x, None, Progress(1.0, 0.5))
    assert list(later) == ["vae"]
    later["vae"].backward()
    moved = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == {"prior_net", "encoder", "decoder"}


def test_what_it_measures_is_its_bound_and_its_guess() -> None:
    model, x = make(1), bits()
    with noise.keyed(0, torch.arange(4)):
        found = model.measure(x)
    with noise.keyed(0, torch.arange(4)):
        assert torch.equal(found["completion_loss"], -model.terms(x).elbo)
    assert set(found) == set(model.measures)
    each = torch.nn.functional.binary_cross_entropy_with_logits(model.guessed(x), x, reduction="none")
    of_hidden = (each * ~model.shown).sum((1, 2, 3))
    torch.testing.assert_close(found["guess_loss"], of_hidden)
    torch.testing.assert_close(model.losses(x, None, Progress(0.5, 0.1))["guess"], of_hidden.mean())


def test_the_sampled_rate_has_the_mean_of_the_closed_form() -> None:
    torch.manual_seed(0)
    plain, sampled = (
        create_model("quadrant_cvae", data=SPEC, observed=2, latent=3, hidden=[8], rate=rate).double()
        for rate in (None, "sampled")
    )
    sampled.load_state_dict(plain.state_dict())
    x = bits(1).expand(20_000, -1, -1, -1)
    with torch.no_grad():
        exact, drawn = plain.terms(x).rate[0, 0], sampled.terms(x).rate[:, 0]
    assert drawn.std() > 0.01
    assert abs(drawn.mean() - exact) < 4 * drawn.std() / len(x) ** 0.5
