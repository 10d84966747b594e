"""The Gamma density against SciPy, integrals and analytic moments; the Gamma VAE on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor

from tests.conftest import ROOT
from tests.evidence import evidence_of_draws, is_above_the_bound
from zoo import create_model, noise
from zoo.data.images import DataSpec
from zoo.distributions.gamma import LARGEST_SHAPE, SMALLEST_SHAPE, TRIES, Gamma, _slope, proposals
from zoo.errors import UsageError

SPEC = DataSpec((1, 4, 4), "binary")
SHAPES = [SMALLEST_SHAPE, 0.3, 1.0, 4.0, 60.0, 1e4, LARGEST_SHAPE]
shapes = pytest.mark.parametrize("shape", SHAPES)


def gamma(shape: float | Tensor, rate: float | Tensor, *rows: int) -> Gamma:
    shape, rate = (torch.as_tensor(value, dtype=torch.float64) for value in (shape, rate))
    return Gamma(shape.log().expand(*rows, 1), (shape / rate).log().expand(*rows, 1))


def within(found: Tensor, expected: float | Tensor) -> bool:
    """Whether the mean of independent numbers is what is expected, by their own spread."""
    return bool(((found.mean(0) - expected).abs() < 4.5 * found.std(0) / math.sqrt(len(found))).all())


# ---- the density -----------------------------------------------------------------------------------------------------


@shapes
def test_the_density_is_scipy_s(shape: float) -> None:
    rate = 0.7
    known = stats.gamma(shape, scale=1 / rate)
    z = known.ppf([0.4, 0.6, 0.9, 1 - 1e-6])
    found = gamma(shape, rate, 4).log_prob(torch.from_numpy(z).unsqueeze(1))
    np.testing.assert_allclose(found, known.logpdf(z), rtol=1e-8, atol=1e-8)


def test_the_density_of_several_dimensions_is_their_product_and_each_example_has_its_own() -> None:
    drawn = torch.Generator().manual_seed(0)
    log_shape, log_mean, log_z = torch.randn(3, 3, 5, generator=drawn, dtype=torch.float64)
    q = Gamma(log_shape, log_mean)
    by_hand = torch.distributions.Gamma(log_shape.exp(), (log_shape - log_mean).exp()).log_prob(log_z.exp()).sum(1)
    torch.testing.assert_close(q.log_density(log_z), by_hand)
    torch.testing.assert_close(q.repeat(2).log_density(log_z.repeat(2, 1)).view(2, 3), by_hand.expand(2, 3))


@shapes
def test_draws_have_their_distribution_and_come_with_their_density(shape: float) -> None:
    torch.manual_seed(0)
    rate = 3.0
    q = gamma(shape, rate, 20_000)
    z, log_q = q.rsample()
    assert (z > 0).all() and stats.kstest(z[:, 0].numpy(), stats.gamma(shape, scale=1 / rate).cdf).pvalue > 1e-3
    torch.testing.assert_close(log_q, q.log_prob(z), rtol=1e-9, atol=1e-6)
    assert within(z, shape / rate) and within((z - shape / rate).square(), shape / rate**2)
    assert within(z.log(), special.psi(shape) - math.log(rate))


@pytest.mark.parametrize(("shape", "rate"), [(0.05, 3.0), (0.5, 0.2), (2.5, 1.0), (30.0, 40.0), (300.0, 100.0)])
@pytest.mark.parametrize(("shape_0", "rate_0"), [(2.0, 1.0), (0.3, 0.3), (10.0, 10.0)])
def test_the_divergence_is_the_integral_and_the_mean_of_log_ratios(
    shape: float, rate: float, shape_0: float, rate_0: float
) -> None:
    torch.manual_seed(1)
    q, p = gamma(shape, rate, 20_000), gamma(shape_0, rate_0)
    found = q.kl(p)[0].item()
    of_q, of_p = stats.gamma(shape, scale=1 / rate), stats.gamma(shape_0, scale=1 / rate_0)

    def weighed(log_z: float) -> float:
        z = math.exp(log_z)
        return z * of_q.pdf(z) * (of_q.logpdf(z) - of_p.logpdf(z))

    low, middle, high = (math.log(of_q.ppf(u)) for u in (1e-13, 0.5, 1 - 1e-13))
    exact = sum(integrate.quad(weighed, *ends, limit=200)[0] for ends in ((low, middle), (middle, high)))
    assert found == pytest.approx(exact, rel=1e-5, abs=1e-7) and found > 0
    log_z = q.log_draw()
    assert within(q.log_density(log_z) - p.log_density(log_z), found)


@shapes
def test_the_divergence_of_a_density_from_itself_is_nothing(shape: float) -> None:
    log_shape, log_mean = torch.tensor([[shape]]).log().requires_grad_(), torch.zeros(1, 1, requires_grad=True)
    q = Gamma(log_shape, log_mean)
    assert q.kl(Gamma(log_shape.detach(), log_mean.detach())).item() == 0
    slopes = torch.autograd.grad(q.kl(Gamma(log_shape.detach(), log_mean.detach())).sum(), (log_shape, log_mean))
    assert [slope.item() for slope in slopes] == pytest.approx([0, 0], abs=1e-6)


def test_the_derivative_of_the_divergence_is_that_of_its_value() -> None:
    log_shape, log_mean = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    p = gamma(2.0, 1.0)
    given = (log_shape.mul(2).requires_grad_(), log_mean.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, m: Gamma(a, m).kl(p), given)


# ---- the derivative of a draw ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("deviations", [-4.0, -1.0, 0.0, 1.0, 4.0])
@shapes
def test_the_derivative_of_a_draw_is_that_at_a_fixed_value_of_its_distribution_function(
    shape: float, deviations: float
) -> None:
    known = stats.gamma(shape)
    z = known.ppf(stats.norm.cdf(deviations)) if deviations < 1 else known.isf(stats.norm.sf(deviations))
    found = _slope(torch.tensor([math.log(z)], dtype=torch.float64), torch.tensor([shape], dtype=torch.float64)).item()

    def of_shape(log_t: float) -> float:  # d/dshape of the density of log t, over that of log z
        t = math.exp(log_t)
        return (log_t - special.psi(shape)) * math.exp(shape * (log_t - math.log(z)) - t + z)

    width = math.sqrt(special.polygamma(1, shape))  # the deviation of log t
    ends = [math.log(z) - steps * width for steps in (60, 20, 10, 5, 3, 2, 1, 0)]
    whole = sum(integrate.quad(of_shape, *pair, limit=200)[0] for pair in zip(ends, ends[1:], strict=False))
    assert found == pytest.approx(-whole, rel=2e-6)


@pytest.mark.parametrize(("shape", "rate"), [(0.1, 2.0), (0.7, 0.5), (3.0, 1.0), (50.0, 10.0)])
def test_the_gradient_through_a_draw_is_that_of_the_expectation(shape: float, rate: float) -> None:
    """Of E[z] = a / b, E[z^2] = a (a + 1) / b^2 and E[log z] = psi(a) - log b, in the shape and the rate."""
    torch.manual_seed(3)
    a, b = (torch.full((40_000,), value, dtype=torch.float64, requires_grad=True) for value in (shape, rate))
    log_z = Gamma(a.log().unsqueeze(1), (a / b).log().unsqueeze(1)).log_draw().squeeze(1)
    expected = {
        log_z.exp(): (1 / rate, -shape / rate**2),
        log_z.exp().square(): ((2 * shape + 1) / rate**2, -2 * shape * (shape + 1) / rate**3),
        log_z: (special.polygamma(1, shape), -1 / rate),
    }
    for of_draws, wanted in expected.items():
        for found, exact in zip(torch.autograd.grad(of_draws.sum(), (a, b), retain_graph=True), wanted, strict=True):
            error = found.std() / math.sqrt(len(found))
            assert abs(found.mean() - exact) < 4.5 * error + 1e-6
            assert abs(exact) > 10 * error, "an estimate so coarse shows nothing"


# ---- ends of the range -----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_most_proposals_are_accepted_at_every_shape() -> None:
    torch.manual_seed(4)
    _, accepted = proposals(1 + torch.logspace(-1.5, 6, 40, dtype=torch.float64).repeat(5000, 1))
    share = accepted.double().mean((0, 2)).min()
    assert accepted.shape == (5000, 40, TRIES) and share > 0.945
    assert 1e8 * (1 - share) ** TRIES < 4  # of so many draws two are to have none


def test_the_first_proposal_that_is_accepted_is_taken_or_else_the_last_and_no_logarithm_is_of_zero() -> None:
    """Marsaglia and Tsang by hand, of three draws, from numbers that are given."""
    shape, d = 0.4, 1.4 - 1 / 3

    def of(normal: float) -> float:  # the logarithm of a proposal
        return math.log(d) + 3 * math.log(1 + normal / math.sqrt(9 * d))

    def least(normal: float) -> float:  # a uniform number from which on it is refused
        cube = (1 + normal / math.sqrt(9 * d)) ** 3
        return math.exp(normal**2 / 2 + d * (1 - cube + math.log(cube)))

    # A root that is negative is refused, whatever u is.
    refused, wide = (-4.0, 0.0), (3.0, least(3.0) + 1e-4)
    first = [(1.0, least(1.0) - 1e-4)] + [(-1.0, 0.5)] * (TRIES - 1)
    third = [refused, wide, (0.5, 0.5)] + [(-1.0, 0.5)] * (TRIES - 3)
    never = [refused] * (TRIES - 1) + [wide]
    normal, u = torch.tensor([first, third, never]).unbind(-1)
    power = torch.tensor([[0.25], [0.5], [0.0]])
    q = gamma(shape, shape, 3)
    with torch.no_grad(), noise.given([normal.unsqueeze(1), u.unsqueeze(1), power]):
        found = q.log_draw().squeeze(1) + math.log(shape)
    expected = [of(1.0) + math.log(0.25) / shape, of(0.5) + math.log(0.5) / shape, of(3.0) - 24 * math.log(2) / shape]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("log_shape", [-1e30, -4.0, 0.0, 9.0, 1e30])
@pytest.mark.parametrize("log_mean", [-1e30, 0.0, 1e30])
def test_whatever_an_encoder_says_numbers_and_gradients_are_finite(log_shape: float, log_mean: float) -> None:
    torch.manual_seed(5)
    given = [torch.full((2000, 1), value, requires_grad=True) for value in (log_shape, log_mean)]
    q = Gamma(*given)
    z, log_q = q.rsample()
    divergence = q.kl(gamma(2.0, 1.0))
    slopes = torch.autograd.grad(z.sum() + log_q.sum() + divergence.sum(), given)
    for value in (z, log_q, divergence, *slopes):
        assert value.dtype == torch.float32 and torch.isfinite(value).all()
    assert (z >= 0).all() and (divergence >= 0).all()


def test_a_draw_that_is_too_small_for_float32_keeps_its_density() -> None:
    torch.manual_seed(6)
    q = Gamma(torch.full((4000, 1), math.log(SMALLEST_SHAPE)), torch.zeros(4000, 1))
    torch.manual_seed(6)
    log_z = q.log_draw()
    torch.manual_seed(6)
    z, log_q = q.rsample()
    zero = z[:, 0] == 0
    assert 0.02 < zero.double().mean() < 0.1 and (log_z[zero] < -87).all()
    torch.testing.assert_close(log_q, q.log_density(log_z).float())


def test_features_in_half_precision_are_computed_in_float32() -> None:
    log_shape, log_mean = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(7)).bfloat16()
    p, found = gamma(2.0, 1.0), []
    for half in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half), noise.keyed(0, torch.arange(6)):
            q = Gamma(*(part if half else part.float() for part in (log_shape, log_mean)))
            found.append((*q.rsample(), q.kl(p), q.centre, q.log_shape))
    for one, other in zip(*found, strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other)


def test_a_batch_that_is_drawn_in_parts_is_the_batch() -> None:
    q = Gamma(*torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(8)))
    generator = torch.Generator().manual_seed(9)
    with noise.source(generator):
        whole = q.log_draw()
        again, parts, tape = torch.Generator().manual_seed(9), [], []
    for start in (0, 2, 4):
        rows = slice(start, start + 2)
        with noise.source(again), noise.part_of(6, start, start + 2, tape):
            parts.append(Gamma(q.log_shape[rows], q.log_mean[rows]).log_draw())
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(generator.get_state(), again.get_state())


# ---- the model -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_an_encoder_that_says_nothing_gives_the_prior_and_no_rate() -> None:
    model = create_model("gamma_vae", data=SPEC, latent=3, prior_shape=0.5, prior_rate=4.0).eval()
    model.head.weight.zero_(), model.head.bias.zero_()
    x = torch.rand(5, 1, 4, 4)
    assert (model.terms(x).rate == 0).all() and (model.terms(x).divergence == 0).all()
    torch.testing.assert_close(model.represent(x), torch.full((5, 3), 0.125))
    # Features are of the shape, then of the mean.
    model.head.bias[:3], model.head.bias[3:] = math.log(3.0), math.log(5.0)
    q = model.infer(x)
    torch.testing.assert_close(q.log_shape.exp(), torch.full((5, 3), 1.5))
    torch.testing.assert_close(q.centre, torch.full((5, 3), 0.625))


@torch.no_grad()
@pytest.mark.parametrize("shape", [0.1, 2.0])
def test_the_model_s_bound_is_of_the_gamma_prior(shape: float) -> None:
    torch.manual_seed(10)
    small = {"encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}, "prior_shape": shape, "prior_rate": shape}
    model = create_model("gamma_vae", data=SPEC, latent=2, **small).double().eval()
    model.head.weight.mul_(4.0)
    model.decoder.output.weight.mul_(5.0)
    x = torch.rand(4, 1, 4, 4).round().double()
    # Draws of NumPy's.
    z = torch.from_numpy(np.random.default_rng(0).gamma(shape, 1 / shape, (100_000, 2)))
    is_above_the_bound(evidence_of_draws(model, x, z), model, x, times=1000)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_scales_the_deviation_of_the_prior_and_not_its_mean(temperature: float) -> None:
    torch.manual_seed(11)
    prior = create_model("gamma_vae", data=SPEC, latent=1, prior_shape=3.0, prior_rate=2.0).prior
    z = prior.sample(20_000, temperature)
    assert (z > 0).all() and within(z, 1.5) and within((z - 1.5).square(), 0.75 * temperature**2)
    assert torch.equal(prior.sample(4, 0.0), torch.full((4, 1), 1.5))
    known = stats.gamma(3.0, scale=0.5).logpdf(z[:5, 0].numpy())
    np.testing.assert_allclose(prior.log_prob(z[:5]), known, rtol=1e-5)


@torch.no_grad()
def test_a_temperature_beyond_the_smallest_shape_is_the_one_of_that_shape() -> None:
    model = create_model("gamma_vae", data=SPEC, latent=1)
    text = " ".join((ROOT / "docs" / "variants" / "gamma_vae.md").read_text().split())
    last = math.sqrt(model.settings.prior_shape / SMALLEST_SHAPE)
    most = 1 / math.sqrt(SMALLEST_SHAPE)
    assert f"at the most {most:.1f} means, that of the defaults at a temperature of {last:.0f};" in text
    found = []
    for temperature in (0.99 * last, 1.01 * last, 100.0):
        torch.manual_seed(12)
        found.append(model.prior.sample(1000, temperature))
    assert torch.equal(found[1], found[2]) and not torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    ("setting", "value"), [("prior_shape", 0.02), ("prior_shape", 1001.0), ("prior_rate", 0.0), ("prior_rate", 1e4)]
)
def test_a_prior_beyond_the_bounds_of_a_posterior_is_refused(setting: str, value: float) -> None:
    with pytest.raises(UsageError, match=setting):
        create_model("gamma_vae", data=SPEC, **{setting: value})
