"""Likelihoods: normalised, finite, in the right units, and drawn from as they are evaluated."""

from __future__ import annotations

import contextlib
import functools
import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

from zoo import likelihoods, noise
from zoo.config import resolve
from zoo.data.images import DataSpec
from zoo.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    BetaBinomial,
    DiscretisedLogistic,
    Laplace,
    Likelihood,
    LikelihoodSettings,
    LogCosh,
    StudentT,
    make_likelihood,
    start_at_mean,
)
from zoo.models import create_model
from zoo.runs import load_images, train_run
from zoo.training.precision import choose

SUPPORTS = ("binary", "8-bit", "real")
LOG_2 = math.log(2.0)

DENSITIES = [name for name, kind in LIKELIHOODS.items() if kind.is_density]


def build(name: str, **settings: object) -> Likelihood:
    return LIKELIHOODS[name](LikelihoodSettings(name=name, **settings))


def bytes_like(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(0, 256, shape) / 255.0


def every_byte(likelihood: Likelihood, params: Tensor) -> Tensor:
    """log p of each of the 256 bytes of a one-pixel grey image, (256,), for params (channels,)."""
    x = (torch.arange(256, dtype=params.dtype) / 255.0).view(256, 1, 1, 1)
    return likelihood.log_prob(params.view(1, -1, 1, 1).expand(256, -1, -1, -1), x)


@pytest.mark.parametrize("support", SUPPORTS)
def test_auto_is_a_likelihood_of_the_data(support: str) -> None:
    assert make_likelihood(LikelihoodSettings(), DataSpec((1, 2, 2), support)).is_nll_of(support)


@pytest.mark.parametrize(
    ("variant", "name"),
    [("vae", "gaussian"), ("vae", "laplace"), ("rae", None), ("vae_gan", "gaussian"), ("vae_gan", "laplace")],
)
@pytest.mark.parametrize(("support", "low", "high"), [("real", -3.0, 4.0), ("8-bit", 0.0, 1.0)])
def test_real_data_is_shown_as_it_is_and_other_data_within_its_range(
    variant: str, name: str | None, support: str, low: float, high: float
) -> None:
    settings = {"likelihood": {"name": name}} if name else {}
    likelihood = create_model(variant, data=DataSpec((1, 28, 28), support), **settings).likelihood
    params = torch.tensor([-3.0, 4.0]).view(1, 1, 1, 2)
    if variant == "rae" and support == "8-bit":
        params = params * 30  # its outputs go through a sigmoid
    assert likelihood.mean(params).flatten().tolist() == pytest.approx([low, high], abs=1e-6)
    if variant != "rae":  # which draws its mean
        drawn = likelihood.sample(params.expand(4000, 1, 1, 2))
        assert (drawn.amin().item() < low - 0.5) == (drawn.amax().item() > high + 0.5) == (support == "real")


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_each_is_a_likelihood_of_one_kind_of_data(name: str) -> None:
    """Of that which its probabilities add up to one over, and of no other."""
    of = []
    for support in SUPPORTS:
        likelihood = make_likelihood(LikelihoodSettings(name=name), DataSpec((1, 1, 1), support))
        assert likelihood.name == name
        x, weight = everything(support)
        params = torch.randn(1, likelihood.channels(1), 1, 1, dtype=torch.float64).expand(len(x), -1, -1, -1)
        total = weight * likelihood.double().log_prob(params, x).exp().sum().item()
        if total == pytest.approx(1.0, abs=1e-6):
            of.append(support)
    assert of == [support for support in SUPPORTS if likelihood.is_nll_of(support)] == sorted(likelihood.supports)
    assert likelihood.is_density == (of == ["real"]) and len(of) == 1


def everything(support: str) -> tuple[Tensor, float]:
    """All values of one pixel (N, 1, 1, 1), and what each weighs: of real numbers the middles of cells, to 40 away."""
    if support == "real":
        x, weight = torch.arange(-40 * 4096, 41 * 4096, dtype=torch.float64).add(0.5) / 4096, 1 / 4096
    else:
        x, weight = torch.linspace(0, 1, {"binary": 2, "8-bit": 256}[support], dtype=torch.float64), 1.0
    return x.view(-1, 1, 1, 1), weight


@pytest.mark.parametrize(
    "wrong",
    [{"sigma": -1.0}, {"sigma": "optimal"}, {"sigma": math.inf}, {"scale": 0.0}, {"scale": math.inf},
     {"sharpness": math.inf}, {"components": 0}, {"sigmas": 1.0},
     {"sharpness": 0.0}, {"degrees": 1.0}, {"degrees": math.inf}, {"start": "mean"}, {"start": "data", "degrees": 2.0}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LikelihoodSettings(**wrong)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_each_can_be_made_without_memory(name: str) -> None:
    with torch.device("meta"):
        made = build(name)
    parts, real = ([*one.parameters(), *one.buffers()] for one in (made, build(name)))
    assert all(part.is_meta for part in parts) and [part.shape for part in parts] == [part.shape for part in real]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_shapes_and_ranges(name: str, channels: int) -> None:
    likelihood = build(name)
    params = 3.0 * torch.randn(5, likelihood.channels(channels), 4, 6)
    assert likelihood.log_prob(params, bytes_like((5, channels, 4, 6))).shape == (5,)
    for images in (likelihood.mean(params), likelihood.sample(params)):
        assert images.shape == (5, channels, 4, 6)
        assert images.min() >= 0.0 and images.max() <= 1.0


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_prob_is_the_sum_over_pixels(name: str) -> None:
    likelihood = build(name)
    params, x = torch.randn(3, likelihood.channels(2), 4, 4), bytes_like((3, 2, 4, 4))
    by_pixel = sum(
        likelihood.log_prob(params[..., i, j][..., None, None], x[..., i, j][..., None, None])
        for i in range(4)
        for j in range(4)
    )
    torch.testing.assert_close(likelihood.log_prob(params, x), by_pixel, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    likelihood = build(name)
    params, x = torch.randn(3, likelihood.channels(1), 28, 28).to(dtype), bytes_like((3, 1, 28, 28))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = likelihood.log_prob(params, x)
        assert likelihood.mean(params).dtype == likelihood.sample(params).dtype == torch.float32
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, likelihood.log_prob(params.float(), x), rtol=0, atol=0)


@pytest.mark.parametrize("level", [-1e4, -50.0, -20.0, 0.0, 20.0, 50.0, 1e4])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_extreme_outputs_stay_finite(name: str, level: float) -> None:
    likelihood = build(name)
    params = torch.full((2, likelihood.channels(1), 3, 3), level, requires_grad=True)
    for x in (torch.zeros(2, 1, 3, 3), torch.full((2, 1, 3, 3), 127 / 255), torch.ones(2, 1, 3, 3)):
        log_prob = likelihood.log_prob(params, x)
        (gradient,) = torch.autograd.grad(log_prob.sum(), params)
        assert log_prob.isfinite().all() and gradient.isfinite().all()
    assert likelihood.mean(params).isfinite().all() and likelihood.sample(params).isfinite().all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_float64_agrees_with_float32(name: str) -> None:
    likelihood = build(name)
    params = torch.randn(4, likelihood.channels(1), 28, 28, dtype=torch.float64)
    x = bytes_like((4, 1, 28, 28)).double()
    exact = likelihood.double().log_prob(params, x)
    assert exact.dtype == torch.float64
    single = likelihood.float().log_prob(params.float(), x.float())
    torch.testing.assert_close(single.double(), exact, rtol=2e-6, atol=0)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_each_maps_over_stacked_models(name: str) -> None:
    likelihood = build(name)
    params, x = torch.randn(4, 5, likelihood.channels(2), 3, 3), torch.rand(4, 5, 2, 3, 3).round()

    def loss(params: Tensor, x: Tensor) -> Tensor:
        return likelihood.log_prob(params, x).sum()

    gradients = torch.stack([torch.func.grad(loss)(one, other) for one, other in zip(params, x, strict=True)])
    values = torch.stack([likelihood.log_prob(one, other) for one, other in zip(params, x, strict=True)])
    for block in (contextlib.nullcontext, likelihoods.stacked):
        with block():
            torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(params, x), gradients)
            torch.testing.assert_close(torch.func.vmap(likelihood.log_prob)(params, x), values)


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_of_a_density_have_its_mean_variance_and_entropy(name: str) -> None:
    """Each by the quadrature of the density that is evaluated, within four standard errors of the draws."""
    likelihood = make_likelihood(LikelihoodSettings(name=name), DataSpec((1, 1, 1), "real")).double()
    x, weight = everything("real")
    for location in (-3.0, 0.0, 0.7):
        params = torch.full((1, 1, 1, 1), location, dtype=torch.float64)
        log_p = likelihood.log_prob(params.expand(len(x), 1, 1, 1), x)
        p, x_ = weight * log_p.exp(), x.flatten()
        mean = (p * x_).sum()
        assert likelihood.mean(params).item() == pytest.approx(mean.item(), abs=1e-6)
        drawn = likelihood.sample(params.expand(100_000, 1, 1, 1))
        found = likelihood.log_prob(params.expand_as(drawn), drawn)
        for of_draws, expected in (
            (drawn.flatten(), mean),
            ((drawn.flatten() - mean).square(), (p * (x_ - mean).square()).sum()),
            (found, (p * log_p.clamp_min(-1e3)).sum()),
        ):
            assert (of_draws.mean() - expected).abs() <= 4 * of_draws.std() / math.sqrt(len(drawn)), location


# ---- Bernoulli ---------------------------------------------------------------------------------------------


def test_bernoulli_logits_equal_probabilities() -> None:
    logits = torch.linspace(-12, 12, 97, dtype=torch.float64).view(-1, 1, 1, 1)
    for value in (0.0, 1.0):
        x = torch.full_like(logits, value)
        expected = torch.distributions.Bernoulli(probs=torch.sigmoid(logits)).log_prob(x).flatten()
        torch.testing.assert_close(build("bernoulli").log_prob(logits, x), expected, rtol=0, atol=1e-6)


def test_bernoulli_far_logits_cost_their_size() -> None:
    logits = torch.tensor([50.0, -50.0]).view(2, 1, 1, 1)
    wrong = build("bernoulli").log_prob(logits, (logits < 0).float())
    torch.testing.assert_close(wrong, torch.tensor([-50.0, -50.0]))


def test_bernoulli_has_second_derivatives_and_those_of_the_image() -> None:
    logits = torch.randn(2, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    x = torch.rand(2, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    log_prob = build("bernoulli").log_prob
    assert torch.autograd.gradcheck(log_prob, (logits, x))
    assert torch.autograd.gradgradcheck(log_prob, (logits, x))


def test_a_stacked_bernoulli_s_far_logits_cost_their_size() -> None:
    with likelihoods.stacked():
        far = torch.tensor([[[[90.0, -90.0]]]])
        assert build("bernoulli").log_prob(far, torch.zeros_like(far)).item() == pytest.approx(-90.0)


def test_grey_pixel_costs_at_least_log_two() -> None:
    logits = torch.linspace(-5, 5, 101).view(-1, 1, 1, 1)
    log_prob = build("bernoulli").log_prob(logits, torch.full_like(logits, 0.5))
    assert log_prob.argmax() == 50
    assert log_prob.max().item() == pytest.approx(-math.log(2.0), abs=1e-6)


def test_bernoulli_samples_have_the_stated_frequency() -> None:
    logits = torch.tensor([-2.0, -0.3, 0.0, 1.5]).view(1, 1, 2, 2).expand(20_000, -1, -1, -1)
    likelihood = build("bernoulli")
    samples = likelihood.sample(logits)
    assert set(samples.unique().tolist()) == {0.0, 1.0}
    p = torch.sigmoid(logits[0])
    assert ((samples.mean(0) - p).abs() < 4.0 * (p * (1 - p) / 20_000).sqrt()).all()
    fair = likelihood.log_prob(torch.zeros(1, 1, 2, 2), samples[:1])
    assert likelihood.bits_per_dim(-fair, 4).item() == pytest.approx(1.0)


# ---- continuous Bernoulli ----------------------------------------------------------------------------------

#: of every size, on either side of where the way to compute changes, and 0
SIZES = (0.0, 1e-30, 1e-8, 1e-3, 0.2499, 0.25, 0.3, 2.0, 30.0, 200.0, 1e4)
LOGITS = sorted({sign * size for size in SIZES for sign in (-1.0, 1.0)})


@pytest.mark.parametrize("value", [0.0, 0.2, 0.5, 1.0])
def test_continuous_bernoulli_equals_its_density(value: float) -> None:
    log_prob = build("continuous_bernoulli").log_prob
    logits = torch.cat([torch.linspace(-12, 12, 601), torch.logspace(-9, 1, 100)]).double().view(-1, 1, 1, 1)
    x = torch.full_like(logits, value)
    expected = torch.distributions.ContinuousBernoulli(logits=logits).log_prob(x).flatten()
    torch.testing.assert_close(log_prob(logits, x), expected, rtol=0, atol=1e-9)
    # PyTorch's goes by the probability, which is 1 of larger logits; e^l x over its integral from 0 to 1 does not.
    far = torch.linspace(10, 600, 60, dtype=torch.float64).view(-1, 1, 1, 1)
    expected = (far * value - (torch.expm1(far) / far).log()).flatten()
    torch.testing.assert_close(log_prob(far, torch.full_like(far, value)), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_prob(-far, torch.full_like(far, 1 - value)), expected, rtol=1e-12, atol=1e-12)


def test_at_a_logit_of_zero_every_grey_is_as_likely_and_the_constant_is_log_two() -> None:
    x = torch.linspace(0, 1, 11).view(-1, 1, 1, 1)
    log_prob = build("continuous_bernoulli").log_prob(torch.zeros_like(x), x)
    assert torch.equal(log_prob, torch.zeros(11))
    torch.testing.assert_close(log_prob - build("bernoulli").log_prob(torch.zeros_like(x), x), torch.full((11,), LOG_2))


def test_the_gradient_of_a_logit_is_the_pixel_less_the_mean() -> None:
    """In float32, at every size of a logit; that of the mean is the variance, between 0 and 1/12."""
    likelihood = build("continuous_bernoulli")
    logits = torch.tensor(LOGITS).view(-1, 1, 1, 1).requires_grad_()
    mean = likelihood.mean(logits)
    (variance,) = torch.autograd.grad(mean.sum(), logits, retain_graph=True)
    assert (variance > -1e-6).all() and (variance < 1 / 12 + 1e-5).all()
    for value in (0.0, 0.3, 1.0):
        x = torch.full_like(logits, value)
        (gradient,) = torch.autograd.grad(likelihood.log_prob(logits, x).sum(), logits)
        torch.testing.assert_close(gradient, x - mean.detach(), rtol=0, atol=2e-6)


def test_continuous_bernoulli_mean_is_exact_and_monotone() -> None:
    logits = torch.cat([-torch.logspace(4, -4, 500), torch.zeros(1), torch.logspace(-4, 4, 500)]).view(-1, 1, 1, 1)
    mean, exact = (build("continuous_bernoulli").mean(one).flatten() for one in (logits, logits.double()))
    assert (exact.diff() > 0).all() and exact.min() > 0 and exact.max() < 1
    torch.testing.assert_close(mean.double(), exact, rtol=2e-6, atol=0)
    torch.testing.assert_close(exact + exact.flip(0), torch.ones_like(exact))
    some = logits.double().flatten()[logits.flatten().abs() > 0.01]
    by_formula = 1 / -torch.expm1(-some) - 1 / some
    torch.testing.assert_close(exact[logits.flatten().abs() > 0.01], by_formula, rtol=0, atol=1e-10)


def test_continuous_bernoulli_has_second_derivatives_and_those_of_the_image() -> None:
    logits = torch.tensor([0.0, 1e-4, -0.24, 0.26, -3.0, 8.0], dtype=torch.float64).view(2, 1, 1, 3).requires_grad_()
    x = torch.rand(2, 1, 1, 3, dtype=torch.float64, requires_grad=True)
    likelihood = build("continuous_bernoulli")
    assert torch.autograd.gradcheck(likelihood.log_prob, (logits, x))
    assert torch.autograd.gradgradcheck(likelihood.log_prob, (logits, x))
    assert torch.autograd.gradcheck(likelihood.mean, (logits,))


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_samples_have_its_distribution_function(logit: float) -> None:
    n = 50_000
    drawn = build("continuous_bernoulli").sample(torch.full((n, 1, 1, 1), logit)).double().flatten()
    # What lies below a draw is uniform; of the far end the rounding of x is more than the last of what lies above.
    dark = 1 - drawn if logit > 0 else drawn
    size = abs(logit)
    below = torch.expm1(-size * dark) / math.expm1(-size) if size > 1e-8 else dark
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert abs(below.mean().item() - 1 / 2) < 4 * math.sqrt(1 / 12 / n) + size * 1e-7
    assert abs(below.square().mean().item() - 1 / 3) < 4 * math.sqrt(4 / 45 / n) + size * 1e-7


def test_outside_of_its_range_real_data_has_no_density() -> None:
    likelihood = make_likelihood(LikelihoodSettings(name="continuous_bernoulli"), DataSpec((1, 1, 2), "real"))
    params = torch.tensor([0.3, -2.0]).expand(4, 1, 1, 2).clone().requires_grad_()
    x = torch.tensor([[0.0, 1.0], [0.4, 0.6], [-1e-6, 0.5], [0.5, 1.5]]).view(4, 1, 1, 2)
    log_prob = likelihood.log_prob(params, x)
    assert log_prob.isfinite().tolist() == [True, True, False, False] and log_prob[2] == log_prob[3] == -math.inf
    assert torch.autograd.grad(log_prob[:2].sum(), params)[0].isfinite().all()


def test_a_continuous_bernoulli_of_bits_has_no_bound() -> None:
    logits = torch.tensor([1e1, 1e2, 1e3, 1e4]).view(-1, 1, 1, 1)
    log_prob = build("continuous_bernoulli").log_prob(logits, torch.ones_like(logits))
    torch.testing.assert_close(log_prob, logits.flatten().log(), rtol=0, atol=5e-5)


# ---- Gaussian and Laplace ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0])
@pytest.mark.parametrize(
    ("name", "setting", "known"),
    [("gaussian", "sigma", torch.distributions.Normal), ("laplace", "scale", torch.distributions.Laplace)],
)
def test_a_location_and_a_scale_give_the_known_density(name: str, setting: str, known: type, scale: float) -> None:
    location, x = torch.randn(3, 2, 4, 4).double(), torch.rand(3, 2, 4, 4).double()
    expected = known(location, scale).log_prob(x).flatten(1).sum(1)
    log_prob = build(name, **{setting: scale}).double().log_prob(location, x)
    torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "setting"),
    [("gaussian", "sigma"), ("laplace", "scale"), ("log_cosh", "scale"), ("student_t", "scale")],
)
def test_a_fixed_scale_is_no_parameter_and_a_learned_one_is(name: str, setting: str) -> None:
    fixed, learned = build(name, **{setting: 0.1}), build(name, **{setting: "learned"})
    assert not list(fixed.parameters()) and not fixed.state_dict()
    assert [(key, value.shape) for key, value in learned.state_dict().items()] == [(f"log_{setting}", ())]
    assert [parameter.shape for parameter in learned.parameters()] == [()]
    assert fixed.scale.item() == pytest.approx(0.1)
    # As it arrives from a command line.
    assert getattr(LikelihoodSettings(**{setting: "0.25"}), setting) == 0.25


def test_learned_sigma_is_best_at_the_mean_squared_error() -> None:
    likelihood = build("gaussian", sigma="learned").double()
    mean, x = torch.rand(16, 1, 5, 5).double(), torch.rand(16, 1, 5, 5).double()
    mse = (x - mean).square().mean()
    with torch.no_grad():
        likelihood.log_sigma.copy_(0.5 * mse.log())
    log_prob = likelihood.log_prob(mean, x).mean()
    log_prob.backward()
    assert log_prob.item() == pytest.approx(-25 / 2 * math.log(2 * math.pi * math.e * mse.item()), abs=1e-9)
    assert abs(likelihood.log_sigma.grad.item()) < 1e-9
    assert likelihood.sigma.item() == pytest.approx(mse.sqrt().item())


def test_learned_scale_is_best_at_the_mean_absolute_error() -> None:
    likelihood = build("laplace", scale="learned").double()
    location, x = torch.rand(16, 1, 5, 5).double(), torch.rand(16, 1, 5, 5).double()
    mae = (x - location).abs().mean()
    with torch.no_grad():
        likelihood.log_scale.copy_(mae.log())
    log_prob = likelihood.log_prob(location, x).mean()
    log_prob.backward()
    assert log_prob.item() == pytest.approx(-25 * math.log(2 * math.e * mae.item()), abs=1e-9)
    assert abs(likelihood.log_scale.grad.item()) < 1e-9
    assert likelihood.scale.item() == pytest.approx(mae.item())


@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
def test_laplace_samples_have_the_stated_spread(scale: float) -> None:
    n = 200_000
    likelihood = Laplace(LikelihoodSettings(scale=scale), confined=False)
    drawn = likelihood.sample(torch.full((n, 1, 1, 1), 0.4)).double() - 0.4
    # Var = 2 b^2, and E|x|^4 = 24 b^4.
    assert abs(drawn.mean().item()) < 4 * math.sqrt(2 / n) * scale
    assert abs(drawn.square().mean().item() / scale**2 - 2) < 4 * math.sqrt(20 / n)
    assert abs(drawn.abs().mean().item() / scale - 1) < 4 / math.sqrt(n)


@pytest.mark.parametrize("end", [0.0, 1 - 2.0**-24])
def test_samples_are_finite_where_a_uniform_number_is_at_its_ends(end: float) -> None:
    params, wide = torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2)
    with noise.given([torch.full_like(params, end)]):
        drawn = Laplace(LikelihoodSettings(scale=1.0), confined=False).sample(params)
    assert torch.isfinite(drawn).all() and (drawn.sign() == (1 if end else -1)).all() and (drawn.abs() > 10).all()
    with noise.given([torch.full_like(params, end)] * 2):
        drawn = DiscretisedLogistic(LikelihoodSettings(components=1)).sample(wide)
    assert (drawn == (1.0 if end else 0.0)).all()


def test_gaussian_samples_have_the_entropy_of_the_density() -> None:
    likelihood = build("gaussian", sigma=0.05)  # far from the clip at 0 and 1
    params = torch.full((20_000, 1, 2, 2), 0.5)
    samples = likelihood.sample(params)
    log_prob = likelihood.log_prob(params, samples)
    entropy = 4 * 0.5 * math.log(2 * math.pi * math.e * 0.05**2)
    assert abs(log_prob.mean().item() + entropy) < 4 * log_prob.std().item() / math.sqrt(20_000)
    assert ((samples.mean(0) - 0.5).abs() < 4 * 0.05 / math.sqrt(20_000)).all()


def test_a_density_adds_eight_bits() -> None:
    # The uniform density on [0, 1] has log-density 0 and its bytes need 8 bits.
    assert build("gaussian").bits_per_dim(0.0, 784) == 8.0
    assert build("gaussian").is_density and not build("gaussian").is_nll_of("8-bit")
    assert not build("bernoulli").is_density and not build("logistic").is_density


# ---- log-cosh ------------------------------------------------------------------------------------------------

SHARPNESSES = (0.01, 0.3, 1.0, 5.0, 200.0)


def log_density(likelihood: Likelihood, x: Tensor) -> Tensor:
    """Of one pixel whose decoder says 0, at each of x (N,)."""
    x = x.view(-1, 1, 1, 1)
    return likelihood.log_prob(torch.zeros_like(x), x)


@pytest.mark.parametrize("scale", [0.01, 0.3, 2.0])
def test_log_cosh_is_the_hyperbolic_secant(scale: float) -> None:
    location, x = torch.randn(3, 2, 4, 4).double(), torch.rand(3, 2, 4, 4).double()
    expected = torch.as_tensor(stats.hypsecant(location.numpy(), scale).logpdf(x.numpy())).flatten(1).sum(1)
    log_prob = build("log_cosh", scale=scale).double().log_prob(location, x)
    torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sharpness", SHARPNESSES)
def test_log_cosh_integrates_to_one_and_its_noise_has_the_deviation_that_it_says(sharpness: float) -> None:
    likelihood = build("log_cosh", sharpness=sharpness, scale=0.5)
    # Cells that are the finer, the nearer to the location, where a sharp density bends.
    edges = torch.cat([torch.zeros(1), torch.logspace(-6, math.log10(40 * likelihood.deviation), 40_000)]).double()
    x, width = 0.5 * (edges[1:] + edges[:-1]), edges.diff()
    p = 2 * width * log_density(likelihood, x).exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert (p * x.square()).sum().sqrt().item() == pytest.approx(0.5 * likelihood.deviation, rel=1e-6)


def test_a_sharp_log_cosh_is_a_laplace_and_a_blunt_one_a_gaussian() -> None:
    x = torch.linspace(-1.0, 1.0, 41, dtype=torch.float64)
    sharp, blunt = build("log_cosh", sharpness=1e6, scale=0.2), build("log_cosh", sharpness=1e-6, scale=3e-4)
    laplace, gaussian = stats.laplace(scale=0.2), stats.norm(scale=0.3)  # 0.3 = 3e-4 / sqrt(1e-6)
    torch.testing.assert_close(log_density(sharp, x), torch.as_tensor(laplace.logpdf(x.numpy())), rtol=0, atol=1e-5)
    torch.testing.assert_close(log_density(blunt, x), torch.as_tensor(gaussian.logpdf(x.numpy())), rtol=0, atol=1e-4)


@pytest.mark.parametrize("weight", [1.0, 50.0])
def test_log_cosh_and_the_loss_of_chen_differ_by_a_constant(weight: float) -> None:
    a, x = 10.0, torch.linspace(-1.0, 1.0, 21, dtype=torch.float64)
    likelihood = build("log_cosh", sharpness=a / weight, scale=1.0 / weight)
    off = log_density(likelihood, x) + weight * torch.log(torch.cosh(a * x)) / a
    torch.testing.assert_close(off, off[:1].expand_as(off), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sharpness", [1e-3, 1.0, 1e3])
def test_log_cosh_and_its_gradient_are_as_exact_in_float32(sharpness: float) -> None:
    x = torch.cat([torch.zeros(1), torch.logspace(-6, 4, 60)]).double()
    found = []
    for dtype in (torch.float32, torch.float64):
        place = x.to(dtype).view(-1, 1, 1, 1).requires_grad_()
        likelihood = build("log_cosh", sharpness=sharpness, scale=0.3).to(dtype)
        log_prob = likelihood.log_prob(torch.zeros_like(place), place)
        (gradient,) = torch.autograd.grad(log_prob.sum(), place)
        found.append((log_prob.detach().double(), gradient.double()))
    for single, exact in zip(*found, strict=True):
        torch.testing.assert_close(single, exact, rtol=1e-5, atol=1e-5)


def test_log_cosh_has_second_derivatives_and_those_of_the_image() -> None:
    params = torch.tensor([0.0, 0.2, -0.9, 1.1, -3.0, 60.0], dtype=torch.float64).view(2, 1, 1, 3).requires_grad_()
    x = torch.rand(2, 1, 1, 3, dtype=torch.float64, requires_grad=True)
    log_prob = build("log_cosh", sharpness=1.3).double().log_prob
    assert torch.autograd.gradcheck(log_prob, (params, x))
    assert torch.autograd.gradgradcheck(log_prob, (params, x))


@pytest.mark.parametrize("sharpness", [0.01, 0.3, 1.0, 5.0])
def test_a_log_cosh_draw_is_the_inverse_of_its_distribution_function(sharpness: float) -> None:
    u, scale = torch.cat([torch.tensor([1e-6, 1e-4]), torch.linspace(0.001, 0.499, 250)]), 0.2
    u = torch.cat([u, 1.0 - u]).double().view(-1, 1, 1, 1)
    likelihood = LogCosh(LikelihoodSettings(scale=scale, sharpness=sharpness), confined=False)
    with noise.given([u]):
        drawn = likelihood.sample(torch.zeros_like(u)).flatten()
    # sigmoid(2 a noise / scale) is a draw of Beta(nu / 2, nu / 2), nu = 1 / a.
    small = torch.sigmoid(-2 * sharpness * drawn.abs() / scale).numpy()
    further = torch.as_tensor(stats.beta.cdf(small, 0.5 / sharpness, 0.5 / sharpness))
    torch.testing.assert_close(further, torch.minimum(u, 1.0 - u).flatten(), rtol=1e-4, atol=0)
    assert torch.equal(drawn.sign(), (u - 0.5).sign().flatten())


def test_a_sharp_log_cosh_s_draws_are_those_of_a_laplace() -> None:
    u, drawn = torch.rand(1, 1, 50, 50), []
    for likelihood in (build("laplace", scale=0.2), build("log_cosh", scale=0.2, sharpness=1e6)):
        likelihood.confined = False
        with noise.given([u]):
            drawn.append(likelihood.sample(torch.zeros_like(u)))
    torch.testing.assert_close(*drawn, rtol=0, atol=1e-4)


@pytest.mark.parametrize("end", [0.0, 1 - 2.0**-24])
def test_a_log_cosh_draw_at_the_ends_of_a_uniform_number_is_far_and_finite(end: float) -> None:
    params = torch.zeros(1, 1, 2, 2)
    with noise.given([torch.full_like(params, end)]):
        drawn = LogCosh(LikelihoodSettings(scale=1.0), confined=False).sample(params)
    assert torch.isfinite(drawn).all() and (drawn.sign() == (1 if end else -1)).all() and (drawn.abs() > 10).all()


# ---- Student-t -----------------------------------------------------------------------------------------------

DEGREES = (1.01, 2.0, 6.0, 50.0, 1e6)


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("scale", [0.01, 0.3, 2.0])
def test_student_t_is_the_known_density(scale: float, degrees: float) -> None:
    location, x = torch.randn(3, 2, 4, 4).double(), torch.rand(3, 2, 4, 4).double()
    expected = torch.distributions.StudentT(degrees, location, scale).log_prob(x).flatten(1).sum(1)
    likelihood = build("student_t", scale=scale, degrees=degrees).double()
    torch.testing.assert_close(likelihood.log_prob(location, x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("degrees", DEGREES)
def test_student_t_integrates_to_one_and_its_noise_has_the_deviation_that_it_says(degrees: float) -> None:
    likelihood = build("student_t", degrees=degrees, scale=0.5)
    # Cells of the place t at which x is sinh t: they reach where even the heaviest tail has ended.
    place = torch.linspace(-40.0, 40.0, 200_001, dtype=torch.float64)
    x = place.sinh()
    p = 80.0 / 200_000 * place.cosh() * log_density(likelihood, x).exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-6)
    if degrees > 2.0:
        assert (p * x.square()).sum().sqrt().item() == pytest.approx(0.5 * likelihood.deviation, rel=1e-6)
    else:
        assert likelihood.deviation == math.inf


def test_a_student_t_of_no_degrees_has_six_and_so_the_kurtosis_of_a_laplace() -> None:
    x = torch.linspace(-2.0, 2.0, 41)
    assert torch.equal(log_density(build("student_t"), x), log_density(build("student_t", degrees=6.0), x))
    assert stats.t(StudentT().degrees).stats(moments="k") == pytest.approx(stats.laplace.stats(moments="k"))


def test_of_many_degrees_a_student_t_is_a_gaussian_and_of_few_far_pixels_cost_little() -> None:
    x = torch.linspace(-1.0, 1.0, 41, dtype=torch.float64)
    many = build("student_t", degrees=1e6, scale=0.3)
    expected = torch.as_tensor(stats.norm(scale=0.3).logpdf(x.numpy()))
    torch.testing.assert_close(log_density(many, x), expected, rtol=0, atol=1e-4)
    # Ten times as far: of three degrees four times the logarithm of ten, whatever the scale.
    near, far = log_density(build("student_t", degrees=3.0, scale=1e-4), torch.tensor([0.1, 1.0]).double())
    assert (near - far).item() == pytest.approx(4 * math.log(10), rel=1e-4)


def test_student_t_and_its_gradient_are_as_exact_in_float32() -> None:
    x = torch.cat([torch.zeros(1), torch.logspace(-6, 4, 60)]).double()
    for degrees in DEGREES:
        found = []
        for dtype in (torch.float32, torch.float64):
            place = x.to(dtype).view(-1, 1, 1, 1).requires_grad_()
            likelihood = build("student_t", degrees=degrees, scale=0.3).to(dtype)
            log_prob = likelihood.log_prob(torch.zeros_like(place), place)
            (gradient,) = torch.autograd.grad(log_prob.sum(), place)
            found.append((log_prob.detach().double(), gradient.double()))
        for single, exact in zip(*found, strict=True):
            torch.testing.assert_close(single, exact, rtol=1e-5, atol=1e-5)


def test_student_t_has_second_derivatives_and_those_of_the_image() -> None:
    params = torch.tensor([0.0, 0.2, -0.9, 1.1, -3.0, 60.0], dtype=torch.float64).view(2, 1, 1, 3).requires_grad_()
    x = torch.rand(2, 1, 1, 3, dtype=torch.float64, requires_grad=True)
    log_prob = build("student_t", degrees=2.5).double().log_prob
    assert torch.autograd.gradcheck(log_prob, (params, x))
    assert torch.autograd.gradgradcheck(log_prob, (params, x))


@pytest.mark.parametrize("degrees", DEGREES)
def test_student_t_draws_have_its_distribution_function(degrees: float) -> None:
    n, likelihood = 50_000, StudentT(LikelihoodSettings(scale=0.2, degrees=degrees), confined=False)
    drawn = likelihood.sample(torch.full((n, 1, 1, 1), 0.4)).double().flatten()
    below = torch.as_tensor(stats.t(degrees, 0.4, 0.2).cdf(drawn.numpy())).sort().values
    # Nowhere further from what is uniform than Massart's bound allows once in a million times.
    places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert (below - places).abs().max() < math.sqrt(math.log(2e6) / (2 * n)) + 0.5 / n


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("end", [0.0, 1 - 2.0**-24])
def test_student_t_draws_are_finite_at_the_ends_of_both_uniform_numbers(end: float, degrees: float) -> None:
    params = torch.zeros(1, 1, 2, 2)
    for other in (0.0, 1 - 2.0**-24):
        with noise.given([torch.full_like(params, end), torch.full_like(params, other)]):
            drawn = StudentT(LikelihoodSettings(scale=1.0, degrees=degrees), confined=False).sample(params)
        assert drawn.isfinite().all() and (drawn > 5 if end == 0.0 else drawn < 1e-2).all()


# ---- where a learned scale begins ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gaussian", "laplace", "log_cosh", "student_t"])
def test_a_scale_that_starts_from_data_makes_noise_of_the_images_spread(name: str) -> None:
    x = 0.3 + 0.2 * torch.rand(400, 2, 3, 3) * torch.arange(1.0, 4.0)
    spread = (x - x.mean(0)).square().mean().sqrt().item()
    likelihood = LIKELIHOODS[name](LikelihoodSettings(name=name, start="data"), confined=False)
    likelihood.initialise(x)
    drawn = likelihood.sample(torch.zeros(50_000, 1, 1, 1)).flatten()
    # A square of a Laplace's noise has a deviation of sqrt(5) times its mean, and none of the four a larger one.
    assert abs(drawn.square().mean().item() / spread**2 - 1) < 4 * math.sqrt(5 / 50_000)
    likelihood.initialise(x[:1])
    assert likelihood.scale.item() == pytest.approx(0.001 / likelihood.deviation, rel=1e-4)


@pytest.mark.parametrize("name", ["gaussian", "laplace", "log_cosh", "student_t"])
def test_a_scale_begins_at_one_and_a_fixed_one_stays(name: str) -> None:
    x, setting = torch.rand(20, 1, 3, 3), "sigma" if name == "gaussian" else "scale"
    for settings, scale in (({}, 1.0), ({"start": "data", setting: 0.4}, 0.4)):
        likelihood = build(name, **settings)
        likelihood.initialise(x)
        assert likelihood.scale.item() == pytest.approx(scale)


def test_a_training_that_starts_from_data_begins_at_its_spread(tmp_path: Path) -> None:
    asked = ["likelihood.name=laplace", "data.dequantise=uniform", "train.epochs=0", "latent=2",
             "encoder.hidden=[4]", "decoder.hidden=[4]"]  # fmt: skip
    begun, plain = (
        train_run(resolve("vae", "synthetic", settings=settings), tmp_path / str(len(settings)), choose("cpu")).model
        for settings in ([*asked, "likelihood.start=data"], asked)
    )
    x = load_images(resolve("vae", "synthetic", settings=asked))["train"].pixels.double().flatten(1) / 256
    spread = (x - x.mean(0)).square().mean().sqrt().item()
    assert begun.likelihood.scale.item() * math.sqrt(2) == pytest.approx(spread, rel=0.03)
    assert plain.likelihood.scale.item() == 1.0
    rest = [key for key in plain.state_dict() if key != "likelihood.log_scale"]
    assert all(torch.equal(begun.state_dict()[key], plain.state_dict()[key]) for key in rest)


# ---- dequantised bytes -----------------------------------------------------------------------------------------------


def of_bytes(name: str, dims: int = 1, **settings: object) -> Likelihood:
    """The likelihood for ``dims`` dequantised pixels."""
    return make_likelihood(LikelihoodSettings(name=name, **settings), DataSpec((1, 1, dims), "dequantised"))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_only_a_density_that_is_one_of_bytes_bounds_their_likelihood(name: str) -> None:
    assert of_bytes(name).is_nll_of("dequantised") == (name in DENSITIES)
    # One that nobody told is in units of [0, 1].
    assert not build(name).is_nll_of("dequantised")
    assert of_bytes(name).is_nll_of("8-bit") == build(name).is_nll_of("8-bit")


@pytest.mark.parametrize("name", DENSITIES)
def test_of_dequantised_bytes_a_density_is_less_by_log_256_a_pixel_and_nothing_else_is(name: str) -> None:
    mine, plain = of_bytes(name, 12), build(name)
    params, x = torch.randn(5, 1, 1, 12), torch.rand(5, 1, 1, 12)
    torch.testing.assert_close(mine.log_prob(params, x), plain.log_prob(params, x) - 12 * math.log(256))
    assert torch.equal(mine.mean(params), plain.mean(params))


def test_the_uniform_density_needs_eight_bits_a_pixel() -> None:
    likelihood, x = of_bytes("continuous_bernoulli", 784), torch.rand(3, 1, 1, 784)
    nats = -likelihood.log_prob(torch.zeros(3, 1, 1, 784), x)
    assert likelihood.bits_per_dim(nats, 784).tolist() == pytest.approx([8.0] * 3, rel=1e-6)


@pytest.mark.parametrize("spread", [0.001, 0.01, 0.3])
@pytest.mark.parametrize("name", DENSITIES)
def test_a_density_of_dequantised_bytes_bounds_the_logarithm_of_their_probability(name: str, spread: float) -> None:
    settings = {"gaussian": {"sigma": spread}} | dict.fromkeys(("laplace", "log_cosh", "student_t"), {"scale": spread})
    likelihood = of_bytes(name, **settings.get(name, {})).double()
    param = {"continuous_bernoulli": 1 / spread}.get(name, 0.4)
    # Every byte at 2,000 values of the noise: the density's mean is its probability, the logarithm's the bound.
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    x = ((torch.arange(256, dtype=torch.float64).unsqueeze(1) + u) / 256).view(-1, 1, 1, 1)
    log_density = likelihood.log_prob(torch.full_like(x, param), x).view(256, 2000)
    probability, bound = torch.logsumexp(log_density, 1) - math.log(2000), log_density.mean(1)
    assert (bound <= probability + 1e-9).all()
    inside = 1.0  # what of the density lies in [0, 1]
    if name != "continuous_bernoulli":
        same = {"gaussian": stats.norm, "laplace": stats.laplace, "log_cosh": stats.hypsecant}
        known = (same | {"student_t": functools.partial(stats.t, 6)})[name](0.4, spread)
        edges = torch.as_tensor(known.cdf(torch.arange(257, dtype=torch.float64).numpy() / 256))
        inside = (edges[-1] - edges[0]).item()
        several = edges.diff() > 1e-12
        torch.testing.assert_close(probability.exp()[several], edges.diff()[several], rtol=1e-3, atol=0)
    assert probability.exp().sum().item() == pytest.approx(inside, abs=1e-4)
    # The wider the density, the less is lost.
    lost = (probability.exp() * (probability - bound)).sum().item()
    assert lost > 0 and (lost < 1e-4 or spread < 0.3)


# ---- discretised logistic mixture --------------------------------------------------------------------------


@pytest.mark.parametrize("log_scale", [-20.0, -7.0, -4.0, -1.0, 0.0, 3.0, 20.0])
@pytest.mark.parametrize("centre", [-3.0, -1.0, -0.2, 0.9999, 2.5])
def test_discretised_logistic_sums_to_one(log_scale: float, centre: float) -> None:
    likelihood = build("logistic", components=3)
    params = torch.cat([torch.randn(3), centre + 0.1 * torch.randn(3), log_scale + torch.randn(3)])
    assert every_byte(likelihood, params).exp().sum().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("bound", [-7.0, 7.0])
def test_the_scales_of_a_discretised_logistic_end_where_they_are_said_to(bound: float) -> None:
    at, beyond, within = (
        every_byte(build("logistic", components=1), torch.tensor([0.0, 0.1, log_scale], dtype=torch.float64))
        for log_scale in (bound, 3 * bound, 0.99 * bound)
    )
    assert torch.equal(at, beyond) and not torch.allclose(at, within)


def test_two_channels_sum_to_one_and_share_their_component() -> None:
    likelihood = build("logistic", components=2)
    # Component 0 is dark in both channels, component 1 bright in both; the means go component by component.
    params = torch.tensor([0.0, 0.0] + [-0.8, -0.8, 0.8, 0.8] + [-3.0] * 4)
    values = torch.arange(256) / 255.0
    x = torch.cartesian_prod(values, values).view(-1, 2, 1, 1)
    p = likelihood.log_prob(params.view(1, -1, 1, 1).expand(len(x), -1, -1, -1), x).exp().view(256, 256)
    assert p.sum().item() == pytest.approx(1.0, abs=1e-5)
    together = p[:128, :128].sum() + p[128:, 128:].sum()
    assert together.item() > 0.999
    samples = likelihood.sample(params.view(1, -1, 1, 1).expand(2000, -1, -1, -1)).view(2000, 2)
    assert ((samples[:, 0] > 0.5) == (samples[:, 1] > 0.5)).float().mean() > 0.99
    assert abs((samples[:, 0] > 0.5).float().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(2000)


def test_every_pixel_draws_from_its_own_component() -> None:
    likelihood = build("logistic", components=3)
    chosen = torch.randint(3, (4, 1, 5, 6))
    logits = torch.zeros(4, 3, 5, 6).scatter_(1, chosen, 60.0)
    means = 1.8 * torch.rand(4, 3, 2, 5, 6) - 0.9
    params = torch.cat([logits, means.flatten(1, 2), torch.full((4, 6, 5, 6), -7.0)], 1)
    expected = 0.5 * (means.gather(1, chosen.unsqueeze(2).expand(4, 1, 2, 5, 6)).squeeze(1) + 1.0)
    for images in (likelihood.sample(params), likelihood.mean(params)):
        torch.testing.assert_close(images, expected, rtol=0, atol=0.01)


def test_uniform_over_the_bytes_is_eight_bits_per_dim() -> None:
    likelihood = build("logistic", components=256)
    centres = 2 * torch.arange(256) / 255.0 - 1
    params = torch.cat([torch.zeros(256), centres, torch.full((256,), -7.0)])
    log_prob = every_byte(likelihood, params)
    assert likelihood.bits_per_dim(-log_prob, 1).sub(8.0).abs().max() < 1e-3


def test_interior_bytes_equal_the_difference_of_distribution_functions() -> None:
    likelihood = build("logistic", components=1)
    params = torch.tensor([0.0, 0.13, -1.7], dtype=torch.float64)
    edges = (2 * torch.arange(257, dtype=torch.float64) - 1) / 255 - 1
    cdf = torch.sigmoid((edges - 0.13) / math.exp(-1.7))
    cdf[0], cdf[-1] = 0.0, 1.0
    torch.testing.assert_close(every_byte(likelihood, params).exp(), cdf.diff(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("log_scale", [-5.5, -3.0, -1.0, 1.0])
def test_logistic_mean_and_samples_are_those_of_the_probabilities(log_scale: float) -> None:
    likelihood = DiscretisedLogistic(LikelihoodSettings(components=2))
    params = torch.tensor([0.3, -0.4, -0.95, 0.4, log_scale, log_scale + 0.5])
    p = every_byte(likelihood, params).exp().double()
    values = torch.arange(256) / 255.0
    mean = (p * values).sum().item()
    assert likelihood.mean(params.view(1, -1, 1, 1)).item() == pytest.approx(mean, abs=1e-4)

    n = 50_000
    samples = likelihood.sample(params.view(1, -1, 1, 1).expand(n, -1, -1, -1)).flatten()
    counts = torch.bincount((samples * 255).round().long(), minlength=256).double()
    often = n * p > 10
    observed = torch.cat([counts[often], counts[~often].sum()[None]])
    expected = n * torch.cat([p[often], p[~often].sum()[None]]).clamp_min(1e-4)
    degrees = len(expected) - 1
    chi2 = ((observed - expected).square() / expected)[expected > 5].sum().item()
    assert abs(chi2 - degrees) < 5 * math.sqrt(2 * degrees)


@pytest.mark.parametrize("centre", [-0.35, 0.0, 0.11])
def test_narrow_logistic_mean_is_within_half_a_byte(centre: float) -> None:
    likelihood = build("logistic", components=1)
    params = torch.tensor([0.0, centre, -7.0])
    mean = (every_byte(likelihood, params).exp() * torch.arange(256) / 255.0).sum()
    assert (likelihood.mean(params.view(1, -1, 1, 1)).squeeze() - mean).abs() < 0.5 / 255


# ---- beta-binomial -------------------------------------------------------------------------------------------

#: of alpha and of beta: their logarithms, from one bound to the other
LOGS = (-15.0, -6.0, -1.0, 0.0, 2.0, 5.0, 9.0, 15.0)


@pytest.mark.parametrize("log_beta", LOGS)
@pytest.mark.parametrize("log_alpha", LOGS)
def test_beta_binomial_is_that_of_255_trials_and_sums_to_one(log_alpha: float, log_beta: float) -> None:
    params = torch.tensor([log_alpha, log_beta], dtype=torch.float64)
    found = every_byte(build("beta_binomial"), params)
    known = stats.betabinom(255, math.exp(log_alpha), math.exp(log_beta)).logpmf(range(256))
    torch.testing.assert_close(found, torch.as_tensor(known), rtol=1e-9, atol=1e-6)
    assert found.exp().sum().item() == pytest.approx(1.0, abs=1e-7)


def test_equal_bytes_cost_eight_bits_where_the_decoder_says_nothing() -> None:
    likelihood, x = build("beta_binomial"), bytes_like((3, 2, 4, 4))
    nats = -likelihood.log_prob(torch.zeros(3, 4, 4, 4), x)
    assert likelihood.bits_per_dim(nats, 32).tolist() == pytest.approx([8.0] * 3, rel=1e-6)


@pytest.mark.parametrize("size", [15.0, 200.0])
def test_of_two_large_numbers_float32_outputs_give_the_binomial(size: float) -> None:
    """Log-gammas of numbers of 3e6, which float32 would round by whole nats; beyond the bound they stay there."""
    found = every_byte(build("beta_binomial"), torch.full((2,), size)).double()
    known = torch.as_tensor(stats.binom(255, 0.5).logpmf(range(256)))
    torch.testing.assert_close(found, known, rtol=0, atol=0.01)


@pytest.mark.parametrize("logs", [(-4.0, 1.0), (0.5, -0.5), (8.0, 3.0), (14.0, 14.5)])
def test_beta_binomial_outputs_have_the_gradient_of_the_float64_numbers_in_float32(logs: tuple[float, float]) -> None:
    x = torch.tensor([0.0, 3.0, 128.0, 255.0]).view(4, 1, 1, 1) / 255
    gradients = []
    for dtype in (torch.float32, torch.float64):
        params = torch.tensor(logs, dtype=dtype).view(1, 2, 1, 1).repeat(4, 1, 1, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(build("beta_binomial").log_prob(params, x.to(dtype)).sum(), params)
        gradients.append(gradient.double())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    exact = torch.tensor(logs, dtype=torch.float64).view(1, 2, 1, 1).repeat(4, 1, 1, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda params: build("beta_binomial").log_prob(params, x.double()), (exact,))


def test_what_is_no_byte_counts_as_the_nearest() -> None:
    params = torch.randn(2, 2, 1, 3)
    x = torch.tensor([[-3.0, 0.2, 1.7], [0.001, 0.5001, 0.9999]]).view(2, 1, 1, 3)
    near = torch.tensor([[0.0, 51.0, 255.0], [0.0, 128.0, 255.0]]).view(2, 1, 1, 3) / 255
    likelihood = build("beta_binomial")
    assert torch.equal(likelihood.log_prob(params, x), likelihood.log_prob(params, near))


def test_each_channel_has_its_own_alpha_and_beta() -> None:
    alphas, betas = torch.tensor([9.0, 2.0]).log(), torch.tensor([1.0, 6.0]).log()
    params = torch.cat([alphas, betas]).view(1, 4, 1, 1)
    assert build("beta_binomial").mean(params).flatten().tolist() == pytest.approx([0.9, 0.25])


@pytest.mark.parametrize("logs", [(-15.0, -15.0), (-1.0, 0.5), (0.0, 0.0), (2.0, 3.0), (6.0, 5.0), (15.0, 15.0)])
def test_beta_binomial_mean_and_samples_are_those_of_the_probabilities(logs: tuple[float, float]) -> None:
    n, likelihood = 20_000, BetaBinomial()
    params = torch.tensor(logs, dtype=torch.float64)
    p, values = every_byte(likelihood, params).exp(), torch.arange(256, dtype=torch.float64) / 255
    mean = (p * values).sum()
    assert likelihood.mean(params.view(1, 2, 1, 1)).item() == pytest.approx(mean.item(), abs=1e-7)
    drawn = likelihood.sample(params.float().view(1, 2, 1, 1).expand(n, -1, -1, -1)).double().flatten()
    # The draws' own distribution function, nowhere further from that of the probabilities than Massart's bound allows
    # once in a million times.
    counts = torch.bincount((drawn * 255).round().long(), minlength=256).double()
    assert (counts.cumsum(0) / n - p.cumsum(0)).abs().max() < math.sqrt(math.log(2e6) / (2 * n))


@pytest.mark.parametrize(("u", "byte"), [(2.0**-25, 0.0), (1 - 2.0**-24, 1.0)])
def test_a_beta_binomial_draw_at_the_ends_of_a_uniform_number_is_an_end(u: float, byte: float) -> None:
    params = torch.zeros(1, 2, 2, 2)
    with noise.given([torch.full((1, 1, 2, 2), u)]):
        assert (BetaBinomial().sample(params) == byte).all()


def test_pixels_that_never_change_begin_a_thousandth_away_from_certainty() -> None:
    bias, x = torch.zeros(3), torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    start_at_mean(bias, x.view(2, 1, 1, 3), Bernoulli())
    assert bias.sigmoid().tolist() == pytest.approx([0.001, 0.999, 0.5])
