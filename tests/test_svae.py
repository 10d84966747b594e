"""The von Mises-Fisher density against closed forms, SciPy's Bessel functions and its own moments; the S-VAE on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor

from benchmarks.metrics.likelihood import active_units
from tests.evidence import evidence_of_draws, is_above_the_bound
from zoo import create_model, noise
from zoo.data.images import DataSpec
from zoo.distributions.von_mises_fisher import TRIES, Bessel, VonMisesFisher, log_area, proposals
from zoo.models.svae import on_sphere

CONCENTRATIONS = torch.tensor([1e-2, 1.0, 3.0, 10.0, 40.0, 200.0, 1000.0], dtype=torch.float64)


def density(m: int, kappa: float, rows: int = 1) -> VonMisesFisher:
    mean = on_sphere(torch.arange(1.0, m + 1).double() * torch.tensor([1.0, -1.0]).repeat(m)[:m])
    return VonMisesFisher(mean.expand(rows, m), torch.full((rows,), kappa, dtype=torch.float64))


@pytest.mark.parametrize("m", [2, 3, 5, 11, 32, 129])
def test_bessel_functions_are_scipy_s(m: int) -> None:
    found = Bessel(CONCENTRATIONS, m)
    kappa, v = CONCENTRATIONS.numpy(), m / 2 - 1
    scaled, next_one = special.ive(v, kappa), special.ive(v + 1, kappa)
    known = torch.from_numpy(scaled > 1e-280)
    expected = torch.from_numpy(v * special.xlogy(1, kappa) - m / 2 * math.log(2 * math.pi)) - CONCENTRATIONS
    expected = expected - torch.from_numpy(special.xlogy(1, scaled))
    ratio = torch.from_numpy(next_one / scaled)
    torch.testing.assert_close(found.log_normaliser[known], expected[known], rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(found.mean_cosine[known], ratio[known], rtol=1e-9, atol=0)


def test_in_three_dimensions_everything_is_elementary() -> None:
    found, kappa = Bessel(CONCENTRATIONS, 3), CONCENTRATIONS
    # 2 sinh(kappa) without its overflow.
    log_sinh = kappa + torch.log(-torch.expm1(-2 * kappa))
    torch.testing.assert_close(found.log_normaliser, kappa.log() - math.log(2 * math.pi) - log_sinh, rtol=0, atol=1e-8)
    langevin = 1 / torch.tanh(kappa) - 1 / kappa
    torch.testing.assert_close(found.mean_cosine, langevin, rtol=1e-8, atol=1e-12)
    variance = 1 / kappa.square() - 1 / torch.sinh(kappa).square()
    torch.testing.assert_close(found.variance, variance, rtol=1e-5, atol=1e-12)
    assert log_area(2) == pytest.approx(math.log(2 * math.pi)) and log_area(3) == pytest.approx(math.log(4 * math.pi))


LARGE_ONES = [1e3, 1e4, 1e5, 3e5, 9.999e5, 1.0001e6, 1e7, 1e8, 1e10]


def test_at_large_concentrations_nothing_cancels_in_three_dimensions() -> None:
    kappa = torch.tensor(LARGE_ONES, dtype=torch.float64)
    found = Bessel(kappa, 3)
    # coth and 1 / sinh are 1 and 0 here.
    torch.testing.assert_close(found.shortfall, 1 / kappa, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.variance, 1 / kappa.square(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.log_peak, torch.log(kappa / (2 * math.pi)), rtol=1e-13, atol=0)
    concentration = kappa.clone().requires_grad_()
    q = VonMisesFisher(density(3, 1.0, len(kappa)).mean, concentration)
    divergence = q.kl_uniform()
    torch.testing.assert_close(divergence.detach(), torch.log(2 * kappa) - 1, rtol=1e-12, atol=0)
    (slope,) = torch.autograd.grad(divergence.sum(), concentration)
    torch.testing.assert_close(slope, 1 / kappa, rtol=1e-6, atol=0)


@pytest.mark.parametrize("m", [2, 3, 5, 16, 129, 1001])
@pytest.mark.parametrize("kappa", [1.0, 30.0, *LARGE_ONES])
def test_the_variance_is_the_slope_of_the_mean_cosine_on_both_sides_of_the_series(m: int, kappa: float) -> None:
    step = 1e-4 * kappa
    low, here, high = (Bessel(torch.tensor([kappa + d], dtype=torch.float64), m) for d in (-step, 0.0, step))
    numeric = (low.shortfall - high.shortfall) / (2 * step)
    torch.testing.assert_close(here.variance, numeric, rtol=1e-6, atol=0)
    torch.testing.assert_close(here.mean_cosine, 1 - here.shortfall, rtol=0, atol=1e-14)


@pytest.mark.parametrize("m", [3, 16])
@pytest.mark.parametrize("kappa", [1e5, 1e6, 1e8])
def test_narrow_draws_and_their_gradient_are_those_of_the_closed_form(m: int, kappa: float) -> None:
    torch.manual_seed(4)
    concentration = torch.full((20_000,), kappa, dtype=torch.float64, requires_grad=True)
    q = VonMisesFisher(density(m, kappa, 20_000).mean, concentration)
    z, log_q = q.rsample()
    ratio = log_q.detach() + log_area(m)
    assert abs(ratio.mean() - q.kl_uniform()[0]) < 4.5 * ratio.std() / math.sqrt(len(ratio))
    torch.testing.assert_close(q.log_prob(z.detach()).detach(), log_q.detach(), rtol=0, atol=1e-3)
    # 1 - mean'z is a gamma variable over kappa there, so that its slope is minus itself over kappa.
    below_one = 0.5 * (z - q.mean).square().sum(1)
    (slope,) = torch.autograd.grad(below_one.sum(), concentration)
    torch.testing.assert_close(slope, -below_one.detach() / kappa, rtol=1e-3, atol=1e-3 / kappa**2)


def cosine_cdf(m: int, kappa: float):
    """The distribution function of mean'z, by quadrature over the angle."""
    whole = integrate.quad(lambda s: math.exp(kappa * (math.cos(s) - 1)) * math.sin(s) ** (m - 2), 0, math.pi)[0]

    def at(w: float) -> float:
        part = integrate.quad(
            lambda s: math.exp(kappa * (math.cos(s) - 1)) * math.sin(s) ** (m - 2), math.acos(w), math.pi
        )
        return part[0] / whole

    return at


@pytest.mark.parametrize(("m", "kappa"), [(2, 1.5), (3, 6.0), (11, 30.0), (32, 8.0)])
def test_draws_lie_on_the_sphere_and_have_their_distribution(m: int, kappa: float) -> None:
    torch.manual_seed(0)
    q = density(m, kappa, 20_000)
    z, log_q = q.rsample()
    torch.testing.assert_close(z.norm(dim=1), torch.ones(len(z)).double())
    torch.testing.assert_close(log_q, q.log_prob(z), rtol=1e-9, atol=1e-9)
    cosine = (z * q.mean).sum(1)
    at = cosine_cdf(m, kappa)
    assert stats.kstest(cosine[:1500].numpy(), lambda values: np.array([at(w) for w in values])).pvalue > 1e-3
    # All moments up to the second: E[z z'] = A / kappa I + (1 - m A / kappa) mean mean'.
    known = Bessel(torch.tensor([kappa]).double(), m)
    a = known.mean_cosine.item()
    assert ((z.mean(0) - a * q.mean[0]).abs() < 4.5 * z.std(0) / math.sqrt(len(z))).all()
    expected = a / kappa * torch.eye(m).double() + (1 - m * a / kappa) * torch.outer(q.mean[0], q.mean[0])
    products = z.unsqueeze(2) * z.unsqueeze(1)
    assert ((products.mean(0) - expected).abs() < 5 * products.std(0) / math.sqrt(len(z)) + 1e-12).all()


@pytest.mark.parametrize(("m", "kappa"), [(2, 1.2), (3, 6.0), (11, 30.0), (64, 300.0)])
def test_the_divergence_is_the_mean_of_log_ratios_and_its_derivative_that_of_its_value(m: int, kappa: float) -> None:
    torch.manual_seed(1)
    q = density(m, kappa, 20_000)
    _, log_q = q.rsample()
    ratio = log_q + log_area(m)
    found = q.kl_uniform()[0].item()
    assert abs(ratio.mean().item() - found) < 4.5 * ratio.std().item() / math.sqrt(len(ratio)) and found > 0

    def value(kappa: float) -> float:
        return density(m, kappa).kl_uniform().item()

    concentration = torch.tensor([kappa], dtype=torch.float64, requires_grad=True)
    VonMisesFisher(q.mean[:1], concentration).kl_uniform().sum().backward()
    step = 1e-4 * kappa
    numeric = (value(kappa + step) - value(kappa - step)) / (2 * step)
    assert concentration.grad.item() == pytest.approx(numeric, rel=1e-5)


@pytest.mark.parametrize(("m", "kappa"), [(2, 1.5), (3, 4.0), (11, 20.0), (40, 100.0)])
def test_the_gradient_through_a_draw_is_that_of_the_expectation(m: int, kappa: float) -> None:
    """Of E[(b'z)^2] = A / kappa + (1 - m A / kappa) (b'mean)^2 for |b| = 1, in the concentration and the direction."""
    torch.manual_seed(2)
    b = on_sphere(torch.eye(m).double()[0] + 0.7 * torch.eye(m).double()[1])
    direction = (2 * torch.eye(m).double()[0]).requires_grad_()
    concentration = torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
    known = Bessel(concentration.detach()[None], m)
    a = known.mean_cosine[0] + known.variance[0] * (concentration - concentration.detach())
    exact = a / concentration + (1 - m * a / concentration) * (b @ on_sphere(direction)).square()
    expected = torch.autograd.grad(exact, (concentration, direction))
    draws = []
    for _ in range(40):
        q = VonMisesFisher(on_sphere(direction).expand(1000, m), concentration.expand(1000))
        z, _ = q.rsample()
        draws.append(torch.autograd.grad((z @ b).square().mean(), (concentration, direction)))
    for found, wanted in zip(zip(*draws, strict=True), expected, strict=True):
        found = torch.stack(found)
        error = found.std(0) / math.sqrt(len(found))
        assert ((found.mean(0) - wanted).abs() < 4.5 * error + 1e-12).all()
        assert (wanted.abs() > 20 * error).any(), "an estimate so coarse shows nothing"


def test_each_example_has_its_own_density_in_every_sample() -> None:
    q = VonMisesFisher(on_sphere(torch.randn(3, 5, dtype=torch.float64)), torch.tensor([1.0, 20.0, 300.0]).double())
    z = on_sphere(torch.randn(3, 5, dtype=torch.float64))
    torch.testing.assert_close(q.repeat(2).log_prob(z.repeat(2, 1)).view(2, 3), q.log_prob(z).expand(2, 3))


def test_the_density_follows_the_concentration_where_the_draw_is_held() -> None:
    z = on_sphere(torch.randn(5, 7, dtype=torch.float64))

    def log_q(concentration: Tensor) -> Tensor:
        return VonMisesFisher(on_sphere(torch.ones(5, 7).double()), concentration).log_prob(z)

    concentration = torch.tensor([1.0, 2.0, 9.0, 50.0, 400.0], dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(log_q(concentration).sum(), concentration)[0]
    step = 1e-4 * concentration.detach()
    numeric = (log_q(concentration.detach() + step) - log_q(concentration.detach() - step)) / (2 * step)
    torch.testing.assert_close(found, numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("m", [2, 3, 11, 64, 512])
def test_at_every_concentration_numbers_are_finite_and_most_proposals_accepted(m: int) -> None:
    concentration = torch.logspace(0, 5, 200, dtype=torch.float32).requires_grad_()
    mean = on_sphere(torch.randn(200, m)).requires_grad_()
    q = VonMisesFisher(mean, concentration)
    z, log_q = q.rsample()
    (z.sum() + log_q.sum() + q.kl_uniform().sum()).backward()
    for value in (z, log_q, q.kl_uniform(), concentration.grad, mean.grad):
        assert torch.isfinite(value).all()
    assert (q.kl_uniform() >= 0).all() and z.dtype == log_q.dtype == torch.float32
    _, accepted = proposals(concentration.detach().double().repeat(50), m)
    assert accepted.shape == (10_000, TRIES) and accepted.unflatten(0, (50, 200)).double().mean((0, 2)).min() > 0.6


@pytest.mark.parametrize("latent", [2, 16, 400])
def test_active_units_of_the_sphere_are_counted_against_its_own_variance(latent: int) -> None:
    model = create_model("svae", data=DataSpec((1, 4, 4), "binary"), latent=latent)
    codes = on_sphere(torch.randn(2000, latent, generator=torch.Generator().manual_seed(0)).double())
    assert codes.var(0).mean().item() == pytest.approx(model.code_variance, rel=0.05)
    assert active_units(codes, model.code_variance) == latent
    codes[:, 0] = 0.05 * codes[:, 0]
    assert active_units(codes, model.code_variance) == latent - 1
    assert active_units(codes * latent**0.5) == latent - 1, "the count does not depend on the unit of length"


@torch.no_grad()
def test_the_concentration_is_one_more_than_a_softplus() -> None:
    model = create_model("svae", data=DataSpec((1, 4, 4), "binary"), latent=3)
    for feature in (-60.0, 0.0, 3.0):
        model.head.weight[-1], model.head.bias[-1] = 0.0, feature
        kappa = model.infer(torch.rand(5, 1, 4, 4)).kappa
        torch.testing.assert_close(kappa, torch.full_like(kappa, 1 + math.log1p(math.exp(feature))), rtol=1e-6, atol=0)


@torch.no_grad()
def test_samples_are_of_uniform_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    model, codes = create_model("svae", data=DataSpec((1, 4, 4), "binary"), latent=3), []
    monkeypatch.setattr(model, "decode", lambda z: codes.append(z) or torch.zeros(len(z), 1, 4, 4))
    model.sample(20_000)
    (z,) = codes
    torch.testing.assert_close(z.norm(dim=1), torch.ones(20_000))
    # On the sphere in three dimensions each coordinate is uniform (Archimedes), whatever the direction.
    turned, _ = torch.linalg.qr(torch.randn(3, 3))
    for axis in (*torch.eye(3), *turned):
        assert stats.kstest((z @ axis).numpy(), "uniform", (-1, 2)).pvalue > 1e-4


@torch.no_grad()
def test_the_model_s_bound_is_of_the_sphere() -> None:
    torch.manual_seed(3)
    spec = DataSpec((1, 4, 4), "binary")
    model = create_model("svae", data=spec, latent=3, encoder={"hidden": [8]}, decoder={"hidden": [8]}).double().eval()
    model.head.weight.mul_(8.0)
    model.decoder.output.weight.mul_(5.0)
    x = torch.rand(4, 1, 4, 4).round().double()
    z = on_sphere(torch.randn(200_000, 3).double())
    is_above_the_bound(evidence_of_draws(model, x, z), model, x, times=2000)
    with noise.keyed(0, torch.arange(6)):
        warm = model.sample(6)
    with noise.keyed(0, torch.arange(6)):
        assert torch.equal(model.sample(6, temperature=0.0), warm)
