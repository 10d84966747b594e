"""What has to hold for every variant in the registry. One that is added there is tested here with no further line."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from zoo import create_model, list_models, noise
from zoo.config import TrainConfig, merge
from zoo.data.batches import Batches
from zoo.data.images import DataSpec, Images
from zoo.data.synthetic import load_synthetic
from zoo.models.base import VAE
from zoo.models.vae import VanillaSettings
from zoo.posteriors import DiagonalGaussian
from zoo.registry import registry
from zoo.training import checkpoint
from zoo.training.optimise import Group, backward
from zoo.training.precision import choose
from zoo.training.trainer import Trainer

NAMES = list_models()
BUILT_IN = [name for name in NAMES if registry().variants[name].origin == "built-in"]
DIGITS = DataSpec((1, 28, 28), "binary", classes=10)
COLOUR = DataSpec((3, 32, 32), "8-bit", classes=10)
# Sizes are cut to these wherever a variant has a setting of that name, at any depth: what is tested has no size.
LARGEST = {
    "latent": 6,
    "hidden": 32,
    "channels": 8,
    "components": 5,
    "flows": 2,
    "context": 4,
    "vectors": 3,
    "groups_per_scale": 2,
    "expansion": 2,
}
every_variant = pytest.mark.parametrize("name", NAMES)


# ---- models and data -------------------------------------------------------------------------------------------------


def cut(settings: BaseModel) -> dict[str, Any]:
    """The settings whose size is over `LARGEST`, with that size instead."""
    small: dict[str, Any] = {}
    for key, value in settings:
        most = LARGEST.get(key, math.inf)
        if isinstance(value, BaseModel):
            small[key] = cut(value)
        elif isinstance(value, int) and value > most:
            small[key] = most
        elif isinstance(value, tuple) and any(isinstance(item, int) and item > most for item in value):
            small[key] = [min(item, most) for item in value]
    return small


def make(name: str, spec: DataSpec = DIGITS, **settings: Any) -> VAE:
    """A small fresh model."""
    entry = registry().variants[name]
    small = cut(entry.load().Settings.model_validate(entry.settings))
    return create_model(name, data=spec, **merge(small, settings))


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """256 black-and-white images and their classes."""
    images = load_synthetic().prepare("threshold")["train"].subset(256)
    return images.pixels.float() / 255, images.labels


def batch(model: VAE, n: int = 16, start: int = 0) -> tuple[Tensor, Tensor | None]:
    x, y = digits()
    return x[start : start + n], y[start : start + n] if model.conditional else None


def fit(model: VAE, name: str, n: int, steps: int, **recipe: Any) -> VAE:
    """Train for so many steps on the same n images, by the trainer and the variant's own recipe."""
    pixels, labels = digits()
    images = Images((pixels[:n] * 255).to(torch.uint8), labels[:n])
    batches = Batches(images, batch_size=n, condition="class" if model.conditional else "none")
    fixed = {"epochs": steps, "batch_size": n, "warmup": 0, "ema": 0, "keep": "last", "validate_every": steps}
    config = TrainConfig.model_validate(registry().variants[name].train | recipe | fixed)
    Trainer(model, batches, batches, config, choose("cpu")).fit()
    return model


@functools.cache
def _known(name: str) -> VAE:
    torch.manual_seed(1)
    return fit(make(name), name, n=64, steps=10).requires_grad_(False).eval()


def known(name: str) -> VAE:
    """A small model after a few steps, in evaluation mode: nothing in it is at the value it was initialised to."""
    return copy.deepcopy(_known(name))


def trainable(name: str) -> VAE:
    return known(name).requires_grad_(True).train()


def ids(n: int, start: int = 0) -> Tensor:
    return torch.arange(start, start + n)


def mean_and_error(draws: Tensor) -> tuple[float, float]:
    """Of independent draws along the first dimension, each averaged over the rest."""
    each = draws.double().flatten(1).mean(1)
    return each.mean().item(), each.std().item() / math.sqrt(len(each))


# ---- the registry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_entry_says_what_it_is_and_states_the_class_s_own_defaults(name: str) -> None:
    entry = registry().variants[name]
    assert entry.title and entry.summary.endswith(".") and entry.paper and entry.paper.url.startswith("https://")
    kind = entry.load().Settings
    stated = kind.model_validate(entry.settings)
    # Fields that are the vanilla VAE's are not repeated, unless the class or the entry gives them another default.
    shared = {key for key, field in VanillaSettings.model_fields.items() if kind.model_fields.get(key) == field}
    missing = set(kind.model_fields) - shared - set(entry.settings)
    optional = {key for key in missing if isinstance(getattr(stated, key), BaseModel | None)}
    assert missing <= optional, f"settings that the entry does not state: {sorted(missing - optional)}"
    for key in set(entry.settings) - {"latent"}:
        assert getattr(stated, key) == kind.model_fields[key].get_default(), f"'{key}' has two defaults"


@pytest.mark.parametrize("spec", [DIGITS, COLOUR], ids=["digits", "colour"])
@every_variant
def test_the_defaults_make_a_model_that_can_be_trained(name: str, spec: DataSpec) -> None:
    model = create_model(name, data=spec)
    x = torch.randint(0, 2, (2, *spec.shape)).float()
    losses = model.losses(x, torch.tensor([3, 7]) if model.conditional else None, 1.0)
    assert set(losses) <= set(model.parameter_groups())
    assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())


# ---- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [DIGITS, COLOUR], ids=["digits", "colour"])
@every_variant
def test_shapes_and_types(name: str, spec: DataSpec) -> None:
    model = make(name, spec).eval()
    x = torch.rand(5, *spec.shape).round() if spec.support == "binary" else torch.randint(256, (5, *spec.shape)) / 255
    y = torch.arange(5) if model.conditional else None
    with torch.no_grad():
        terms = model.terms(x, y)
        assert terms.distortion.shape == terms.elbo.shape == (5,)
        assert terms.rate.dim() == 2 and len(terms.rate) == 5
        assert torch.equal(terms.elbo, -(terms.distortion + terms.rate.sum(1)))
        weights = model.log_weights(x, y, 3)
        assert weights.shape == (3, 5)
        codes = model.represent(x, y)
        assert codes.dim() == 2 and len(codes) == 5
        for images in (model.reconstruct(x, y), model.sample(5, y), model.sample(5, y, temperature=0.5)):
            assert images.shape == (5, *spec.shape)
            assert images.min() >= 0 and images.max() <= 1
        for value in (terms.distortion, terms.rate, weights, codes, images):
            assert value.dtype == torch.float32 and torch.isfinite(value).all()


@every_variant
def test_double_precision_stays_double(name: str) -> None:
    model = known(name).double()
    x, y = batch(model)
    terms = model.terms(x.double(), y)
    assert terms.distortion.dtype == terms.rate.dtype == model.log_weights(x.double(), y, 2).dtype == torch.float64


@every_variant
def test_only_a_conditional_variant_reads_the_class(name: str) -> None:
    model = known(name)
    x, y = digits()[0][:16], digits()[1][:16]

    def elbo(y: Tensor | None) -> Tensor:
        with noise.keyed(0, ids(16)):
            return model.terms(x, y).elbo

    if model.conditional:
        assert (elbo(y) != elbo((y + 1) % 10)).all()
        with pytest.raises(ValueError, match="needs y"):
            elbo(None)
    else:
        assert torch.equal(elbo(None), elbo(y))


# ---- gradients -------------------------------------------------------------------------------------------------------


@every_variant
def test_the_groups_share_out_the_parameters(name: str) -> None:
    model = make(name)
    grouped = [id(parameter) for members in model.parameter_groups().values() for parameter in members]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters()}


@every_variant
def test_each_loss_reaches_its_whole_group_and_nothing_else(name: str) -> None:
    model = trainable(name)
    x, y = batch(model, 32)
    names = {id(parameter): key for key, parameter in model.named_parameters()}

    def losses(model: VAE) -> dict[str, Tensor]:
        torch.manual_seed(5)
        return model.losses(x, y, 1.0)

    twins = {group: copy.deepcopy(model) for group in model.parameter_groups()}
    groups = {key: Group(key, members, TrainConfig()) for key, members in model.parameter_groups().items()}
    moved = losses(model)
    assert moved
    backward(moved, groups)
    for key, group in groups.items():
        # The gradient of this loss alone, by autograd, in a model that nobody else has differentiated.
        alone = losses(twins[key])
        members = twins[key].parameter_groups()[key]
        if key in moved:
            expected = torch.autograd.grad(alone[key], members, allow_unused=True)
        else:
            expected = [None] * len(members)
        for parameter, gradient in zip(group.parameters, expected, strict=True):
            where = f"{key}: {names[id(parameter)]}"
            assert (gradient is not None) == (key in moved), where
            assert (parameter.grad is not None) == (key in moved), where
            if gradient is not None:
                assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0, where
                assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6 * gradient.abs().max()), where


# ---- the bound -------------------------------------------------------------------------------------------------------


@every_variant
def test_a_rate_is_not_negative(name: str) -> None:
    model = known(name)
    x, y = batch(model, 32)
    rates = torch.stack([model.terms(x, y).rate.sum(1) for _ in range(64)])
    if rates.std(0).max() < 1e-5:
        assert rates.min() >= -1e-5
    else:
        mean, error = mean_and_error(rates)
        assert mean >= -4 * error
    for group in model.terms(x, y).rate.T:
        assert torch.isfinite(group).all()


@every_variant
def test_the_bound_is_below_zero_for_bits_before_anything_is_learnt(name: str) -> None:
    model = make(name).eval()
    terms = model.terms(*batch(model, 64))
    assert (terms.distortion > 0).all()
    assert terms.elbo.mean() < 0


@every_variant
def test_terms_and_log_weights_are_one_bound(name: str) -> None:
    model = known(name)
    x, y = batch(model, 32)
    one = torch.stack([model.terms(x, y).elbo for _ in range(200)])
    other = model.log_weights(x, y, 200)
    (mean1, error1), (mean2, error2) = mean_and_error(one), mean_and_error(other)
    assert abs(mean1 - mean2) <= 4 * math.hypot(error1, error2) + 1e-5 * abs(mean1)
    assert math.hypot(error1, error2) < 0.01 * abs(mean1)


@every_variant
def test_more_samples_tighten_the_bound(name: str) -> None:
    model = known(name)
    x, y = batch(model, 32)

    def bound(k: int, draws: int) -> tuple[float, float]:
        weights = torch.stack([model.log_weights(x, y, k) for _ in range(draws)])
        return mean_and_error(torch.logsumexp(weights, 1) - math.log(k))

    elbo = mean_and_error(torch.stack([model.terms(x, y).elbo for _ in range(200)]))
    bounds = [elbo, bound(5, 40), bound(50, 8)]
    for (less, error1), (more, error2) in zip(bounds[:-1], bounds[1:], strict=True):
        assert less <= more + 4 * math.hypot(error1, error2) + 1e-5 * abs(more)


@every_variant
def test_the_training_weight_of_the_rate_is_not_in_the_bound(name: str) -> None:
    kind = registry().variants[name].load().Settings
    weights = [key for key in ("beta", "gamma", "pixel", "spectral") if key in kind.model_fields]
    model = known(name)
    x, y = batch(model)
    with noise.keyed(0, ids(16)):
        expected = model.terms(x, y).elbo
    for key in weights:
        model.settings = model.settings.model_copy(update={key: 10.0})
        with noise.keyed(0, ids(16)):
            assert torch.equal(model.terms(x, y).elbo, expected), key


def test_beta_weighs_the_rate_in_training_only() -> None:
    states = []
    for beta in (1.0, 10.0):
        torch.manual_seed(0)
        model = make("beta_vae", beta=beta)
        x, _ = batch(model)
        with noise.keyed(0, ids(16)):
            terms = model.terms(x)
        with noise.keyed(0, ids(16)):
            loss = model.losses(x)["vae"]
        assert loss.item() == pytest.approx((terms.distortion + beta * terms.rate.sum(1)).mean().item(), rel=1e-6)
        states.append(terms)
    assert torch.equal(states[0].elbo, states[1].elbo)


@pytest.mark.parametrize("width", [28, 56])
@every_variant
def test_distortion_is_a_sum_over_pixels(name: str, width: int) -> None:
    torch.manual_seed(0)
    model = make(name, DataSpec((1, 28, width), "binary", classes=10)).eval()
    x, y = batch(model, 32)
    distortion = model.terms(x.repeat(1, 1, 1, width // 28), y).distortion.mean().item()
    # Before training every pixel that is not shown to the model costs about log 2, and they add up.
    assert model.predicted == 28 * width or model.completes
    assert distortion == pytest.approx(model.predicted * math.log(2), rel=0.2)


# ---- batches ---------------------------------------------------------------------------------------------------------


def keyed_terms(model: VAE, x: Tensor, y: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    parts = []
    for start in range(0, len(x), size):
        piece = slice(start, start + size)
        with noise.keyed(3, ids(len(x))[piece]):
            terms = model.terms(x[piece], None if y is None else y[piece])
        parts.append((terms.distortion, terms.rate))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


@every_variant
def test_a_bound_does_not_depend_on_the_batch(name: str) -> None:
    model = known(name)
    x, y = batch(model, 64)
    distortion, rate = keyed_terms(model, x, y, 64)
    for size in (1, 7):
        pieces = keyed_terms(model, x, y, size)
        assert torch.allclose(pieces[0], distortion, rtol=1e-4, atol=1e-3)
        assert torch.allclose(pieces[1], rate, rtol=1e-4, atol=1e-3)


@every_variant
def test_log_weights_do_not_depend_on_how_the_samples_are_taken(name: str) -> None:
    model = known(name)
    x, y = batch(model, 8)

    def weights(samples: range) -> Tensor:
        with noise.keyed(3, ids(8), samples):
            return model.log_weights(x, y, len(samples))

    whole = weights(range(6))
    parts = torch.cat([weights(range(4)), weights(range(4, 5)), weights(range(5, 6))])
    assert torch.allclose(whole, parts, rtol=1e-4, atol=1e-3)
    with noise.keyed(3, ids(8), range(6)):
        backwards = model.log_weights(x.flip(0), None if y is None else y.flip(0), 6)
    if whole.std(0).max() > 1e-3:
        assert not torch.allclose(backwards.flip(1), whole, rtol=1e-4, atol=1e-3), "the noise is the example's own"


@every_variant
def test_a_loss_is_a_mean_over_the_batch(name: str) -> None:
    model = known(name)
    if getattr(model, "couples_examples", False):
        pytest.skip("its objective compares the examples of a batch with each other")
    x, y = batch(model, 64)

    def losses(piece: slice) -> dict[str, Tensor]:
        with noise.keyed(3, ids(64)[piece]):
            return model.losses(x[piece], None if y is None else y[piece], 1.0)

    whole, first, second = losses(slice(0, 64)), losses(slice(0, 32)), losses(slice(32, 64))
    for group, loss in whole.items():
        assert 0.5 * (first[group] + second[group]).item() == pytest.approx(loss.item(), rel=1e-4)


# ---- codes, reconstructions, samples ---------------------------------------------------------------------------------


@every_variant
def test_codes_and_reconstructions_are_not_random(name: str) -> None:
    model = known(name)
    x, y = batch(model)
    assert torch.equal(model.represent(x, y), model.represent(x, y))
    assert torch.equal(model.reconstruct(x, y), model.reconstruct(x, y))
    assert model.represent(x, y).std(0).max() > 0, "the code does not depend on the image"


@every_variant
def test_samples_differ_and_at_temperature_zero_are_the_prior_s_centres(name: str) -> None:
    model = known(name)
    n = 24
    y = torch.full((n,), 3) if model.conditional else None
    assert len(model.sample(n, y).flatten(1).unique(dim=0)) > 1
    cold = model.sample(n, y, temperature=0.0).flatten(1)
    prior = getattr(model, "prior", None)
    centres = prior.settings.components if hasattr(prior, "components") else model.centres
    assert len((cold * 1e4).round().unique(dim=0)) <= centres
    torch.manual_seed(1)
    with noise.keyed(0, ids(n)):
        first = model.sample(n, y)
    with noise.keyed(0, ids(n)):
        assert torch.equal(first, model.sample(n, y))


# ---- files and precision ---------------------------------------------------------------------------------------------


@every_variant
def test_a_saved_model_gives_the_same_bits(name: str, tmp_path) -> None:
    model = known(name)
    x, y = batch(model)
    checkpoint.write(tmp_path / "model", model.state_dict(), {})
    again = make(name).eval()
    again.load_state_dict(checkpoint.read(tmp_path / "model")[0])
    made = []
    for one in (model, again):
        with noise.keyed(0, ids(16)), torch.no_grad():
            terms = one.terms(x, y)
            made.append((terms.distortion, terms.rate, one.represent(x, y), one.reconstruct(x, y), one.sample(16, y)))
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


@every_variant
def test_half_precision_is_near_full_precision(name: str) -> None:
    model = trainable(name)
    x, y = batch(model, 64)

    def run() -> tuple[Any, dict[str, Tensor]]:
        torch.manual_seed(2)
        twin = copy.deepcopy(model)
        losses = twin.losses(x, y, 1.0)
        return losses.terms, losses

    terms, losses = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half_terms, half_losses = run()
    assert half_terms.distortion.dtype == half_terms.rate.dtype == torch.float32
    # bfloat16 has 8 bits: 1 % of the sums, half a nat for what is near zero.
    for full, half in ((terms.distortion, half_terms.distortion), (terms.rate.sum(1), half_terms.rate.sum(1))):
        assert (half.mean() - full.mean()).abs() <= 0.01 * full.mean().abs() + 0.5
    for group, loss in losses.items():
        assert half_losses[group].dtype == torch.float32
        assert abs(half_losses[group] - loss) <= 0.02 * abs(loss) + 0.5


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
@every_variant
def test_the_largest_and_smallest_variances_stay_finite(name: str, half: bool, monkeypatch) -> None:
    model = trainable(name)
    x, y = batch(model)
    seen = []
    original = DiagonalGaussian.__init__

    def extreme(self: DiagonalGaussian, mean: Tensor, log_variance: Tensor) -> None:
        signs = torch.ones_like(log_variance)
        signs[..., ::2] = -1
        original(self, mean, log_variance + 100 * signs)
        seen.append(self.log_variance.detach().abs().min().item())

    monkeypatch.setattr(DiagonalGaussian, "__init__", extreme)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        losses = model.losses(x, y, 1.0)
    if not seen:
        pytest.skip("it has no Gaussian latents")
    assert min(seen) == 20
    assert torch.isfinite(losses.terms.elbo).all()
    assert all(torch.isfinite(loss) for loss in losses.values())
    backward(losses, {key: Group(key, members, TrainConfig()) for key, members in model.parameter_groups().items()})
    for key, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), key


# ---- training --------------------------------------------------------------------------------------------------------


@every_variant
def test_one_batch_can_be_learnt(name: str) -> None:
    torch.manual_seed(0)
    model = make(name)
    x, y = batch(model, 32)
    before = model.terms(x, y).elbo.mean()
    fit(model, name, n=32, steps=200, learning_rate=3e-3)
    after = torch.stack([model.terms(x, y).elbo.detach() for _ in range(8)]).mean()
    if len(model.parameter_groups()) == 1:
        # What an adversarial variant minimises is not the bound.
        assert after > before / 3
    error = (model.reconstruct(x, y) - x).square().mean()
    assert error < 0.75 * (x - x.mean(0)).square().mean(), "it reconstructs hardly better than the mean image"


@every_variant
def test_colour_images_can_be_learnt(name: str) -> None:
    torch.manual_seed(0)
    model = make(name, COLOUR)
    x = load_synthetic(32, 1, 1, shape=COLOUR.shape)["train"]
    pixels = x.pixels.float() / 255
    groups = {key: Group(key, members, TrainConfig()) for key, members in model.parameter_groups().items()}
    bits = []
    for _ in range(10):
        losses = model.losses(pixels, x.labels if model.conditional else None, 1.0)
        backward(losses, groups)
        for key in losses:
            assert groups[key].step() == 0
        bits.append(losses.terms.distortion.mean().item() / (COLOUR.dims * math.log(2)))
    assert 0 < bits[-1] < 16
