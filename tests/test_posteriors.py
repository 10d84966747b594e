"""Posteriors: densities that know themselves, KLs that equal their definition, noise of the example."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from zoo import noise
from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian, bound_log_variance, kl_diagonal
from zoo.errors import UsageError
from zoo.posteriors import POSTERIORS, PosteriorSettings, make_posterior
from zoo.priors import PRIORS, PriorSettings, make_prior

FLOW_POSTERIORS = [name for name in POSTERIORS if name != "diagonal"]


def build(name: str, latent: int = 4) -> nn.Module:
    """A small posterior in float64 whose own parameters, if any, are away from their start."""
    settings = PosteriorSettings(name=name, flows=3, hidden=16, context=5, vectors=2, bins=4)
    posterior = make_posterior(settings, latent).double()
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return posterior


def features(posterior: nn.Module, n: int) -> Tensor:
    return 0.7 * torch.randn(n, posterior.size, dtype=torch.float64)


def assert_mean(samples: Tensor, expected: float, errors: float = 4.0) -> None:
    """The mean of independent samples is the expected number up to a few standard errors."""
    assert abs(samples.mean().item() - expected) < errors * samples.std().item() / math.sqrt(len(samples))


# ---- KL ----------------------------------------------------------------------------------------------------


def test_kl_equals_torch_at_every_log_variance() -> None:
    log_variances = torch.tensor([-20.0, -5.0, 0.0, 1.0, 20.0], dtype=torch.float64)
    lv1, lv2 = torch.cartesian_prod(log_variances, log_variances).T
    m1, m2 = torch.randn(2, 25, dtype=torch.float64)
    expected = kl_divergence(Normal(m1, (0.5 * lv1).exp()), Normal(m2, (0.5 * lv2).exp()))
    torch.testing.assert_close(kl_diagonal(m1, lv1, m2, lv2), expected, rtol=1e-6, atol=1e-6)


def test_kl_is_zero_only_between_equals() -> None:
    m, lv = torch.randn(2, 1000)
    assert kl_diagonal(m, lv, m, lv).abs().max() == 0.0
    near = kl_diagonal(m, lv, m, lv + 1e-4 * (1 + torch.rand(1000)))
    assert (near > 0).all()  # float32: exp(r) - 1 - r would round many of these to zero or below
    assert (kl_diagonal(m, lv, m + 0.1, lv) > 0).all()


@pytest.mark.parametrize("name", ["standard", "diagonal"])
def test_analytic_kl_is_the_expectation(name: str) -> None:
    prior = make_prior(PriorSettings(name=name), 3).double()
    if name == "diagonal":
        with torch.no_grad():
            prior.mean.copy_(torch.tensor([0.5, -1.0, 0.0]))
            prior.log_variance.copy_(torch.tensor([-1.0, 0.5, 2.0]))
    q = DiagonalGaussian(torch.tensor([[1.0, -0.5, 0.2]]).double(), torch.tensor([[-2.0, 0.0, 1.0]]).double())
    analytic = q.kl(prior)
    assert analytic.shape == (1, 3)
    many = q.repeat(100_000)
    z, log_q = many.rsample()
    assert_mean(log_q - prior.log_prob(z), analytic.sum().item())


def test_no_analytic_kl_where_there_is_none() -> None:
    def encode(x: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(x.flatten(1)[:, :4], x.flatten(1)[:, :4])

    gaussian = build("diagonal")
    for name in PRIORS:
        prior = make_prior(PriorSettings(name=name, components=3), 4, encode, DataSpec((1, 2, 2), "binary"))
        kl = gaussian(features(gaussian, 2)).kl(prior)
        assert (kl is not None) == (name in ("standard", "diagonal"))
        for other in FLOW_POSTERIORS:
            flow = build(other)
            assert flow(features(flow, 2)).kl(prior) is None


# ---- the diagonal Gaussian ---------------------------------------------------------------------------------


def test_diagonal_density_equals_torch() -> None:
    q = DiagonalGaussian(torch.randn(6, 4).double(), torch.randn(6, 4).double())
    expected = Independent(Normal(q.mean, (0.5 * q.log_variance).exp()), 1)
    z, log_q = q.rsample()
    torch.testing.assert_close(log_q, expected.log_prob(z))
    torch.testing.assert_close(q.log_prob(z), expected.log_prob(z))


@pytest.mark.parametrize("log_variance", [-1e4, -20.0, 20.0, 1e4, math.inf])
def test_extreme_log_variances_are_bounded_and_finite(log_variance: float) -> None:
    q = DiagonalGaussian(torch.randn(8, 4), torch.full((8, 4), log_variance))
    assert q.log_variance.abs().max() == 20.0
    z, log_q = q.rsample()
    for value in (z, log_q, q.log_prob(z), q.kl(make_prior(PriorSettings(), 4))):
        assert value.isfinite().all()


def test_the_bound_is_hard() -> None:
    raw = torch.tensor([-25.0, -19.0, 19.0, 25.0], requires_grad=True)
    bound_log_variance(raw).sum().backward()
    assert raw.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_detached_density_only_passes_gradient_through_z() -> None:
    params = torch.randn(5, 8, requires_grad=True)
    q = DiagonalGaussian(*params.chunk(2, -1))
    assert not q.detach().log_prob(torch.randn(5, 4)).requires_grad
    # Sticking the landing: with p = q the gradient of log p(z) - log q(z) vanishes for every sample, not on
    # average.
    z, log_q = q.rsample()
    p = Independent(Normal(q.mean.detach(), (0.5 * q.log_variance.detach()).exp()), 1)
    for density, vanishes in ((q.detach().log_prob(z), True), (log_q, False)):
        (gradient,) = torch.autograd.grad((p.log_prob(z) - density).sum(), params, retain_graph=True)
        assert (gradient.abs().max() < 1e-5) == vanishes


# ---- every posterior ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"name": "planer"}, {"flows": 0}, {"bins": 1}, {"flow": 2}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PosteriorSettings(**wrong)


@pytest.mark.parametrize("name", POSTERIORS)
def test_shapes_and_the_representation(name: str) -> None:
    posterior = build(name)
    params = features(posterior, 6)
    q = posterior(params)
    z, log_q = q.rsample()
    assert z.shape == (6, 4) and log_q.shape == (6,)
    assert torch.equal(q.mean, params[:, :4])


@pytest.mark.parametrize("name", POSTERIORS)
def test_noise_belongs_to_the_example_and_repeat_is_sample_major(name: str) -> None:
    posterior = build(name)
    params, ids = features(posterior, 6), torch.arange(6)
    with noise.keyed(1, ids, samples=range(3)):
        z, log_q = posterior(params).repeat(3).rsample()
    for s in range(3):
        for rows in (slice(0, 2), slice(2, 6)):
            with noise.keyed(1, ids[rows], samples=[s]):
                alone, log_alone = posterior(params[rows]).rsample()
            torch.testing.assert_close(z.view(3, 6, 4)[s, rows], alone, rtol=0, atol=1e-12)
            torch.testing.assert_close(log_q.view(3, 6)[s, rows], log_alone, rtol=0, atol=1e-12)
    assert torch.equal(posterior(params).repeat(3).mean, params[:, :4].repeat(3, 1))


@pytest.mark.parametrize("name", POSTERIORS)
def test_density_is_normalised_and_is_that_of_the_samples(name: str) -> None:
    # E_q[p(z) / q(z) 1_A(z)] = P_p(A) for any p inside q's support: wrong by any factor in log q, it fails.
    posterior = build(name, latent=2)
    q = posterior(features(posterior, 1).expand(200_000, -1))
    with torch.no_grad():
        z, log_q = q.rsample()
        centre, spread = z.mean(0), 0.36 * z.T.cov()
    p = MultivariateNormal(centre, spread)
    ratio = (p.log_prob(z) - log_q).exp()
    assert ratio.std() / math.sqrt(len(ratio)) < 0.02
    assert_mean(ratio, 1.0)
    for direction in torch.eye(2, dtype=torch.float64):
        assert_mean(ratio * ((z - centre) @ direction > 0), 0.5)


@pytest.mark.parametrize("name", POSTERIORS)
def test_half_precision_features_are_computed_in_float32(name: str) -> None:
    posterior = build(name).float()
    params = features(posterior, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16), noise.keyed(0, torch.arange(6)):
        z, log_q = posterior(params).rsample()
    with noise.keyed(0, torch.arange(6)):
        z_full, log_q_full = posterior(params.float()).rsample()
    assert z.dtype == log_q.dtype == torch.float32
    assert torch.equal(z, z_full) and torch.equal(log_q, log_q_full)


@pytest.mark.parametrize("name", POSTERIORS)
def test_float32_agrees_with_float64(name: str) -> None:
    posterior = build(name)
    params = features(posterior, 200)
    with noise.keyed(0, torch.arange(200)):
        z, log_q = posterior(params).rsample()
    with noise.keyed(0, torch.arange(200)):
        z32, log_q32 = posterior.float()(params.float()).rsample()
    torch.testing.assert_close(z32.double(), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_q32.double(), log_q, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", [-50.0, -20.0, 20.0, 50.0])
@pytest.mark.parametrize("name", POSTERIORS)
def test_extreme_features_stay_finite(name: str, level: float) -> None:
    posterior = build(name).float()
    params = torch.full((8, posterior.size), level, requires_grad=True)
    z, log_q = posterior(params).rsample()
    (gradient,) = torch.autograd.grad(1e-6 * z.square().sum() + log_q.sum(), params)
    assert z.isfinite().all() and log_q.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("name", POSTERIORS)
def test_gradient_reaches_every_feature_and_parameter(name: str) -> None:
    posterior = build(name)
    params = features(posterior, 64).requires_grad_()
    z, log_q = posterior(params).rsample()
    (log_q + z.square().sum(1) + z.prod(1)).sum().backward()
    assert (params.grad.abs().amax(0) > 0).all()
    for parameter_name, parameter in posterior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", FLOW_POSTERIORS)
def test_identity_parameters_give_the_diagonal_posterior(name: str) -> None:
    posterior = make_posterior(PosteriorSettings(name=name, flows=3, hidden=16, context=5), 4)
    params = torch.randn(10, posterior.size)
    if name in ("planar", "radial", "sylvester", "householder"):
        params[:, 8:] = 0.0
    if name == "iaf":
        for made in posterior.flow.steps:
            nn.init.zeros_(made.gate.weight)
            nn.init.constant_(made.gate.bias, 40.0)
    with noise.keyed(0, torch.arange(10)):
        z, log_q = posterior(params).rsample()
    with noise.keyed(0, torch.arange(10)):
        z0, log_q0 = make_posterior(PosteriorSettings(), 4)(params[:, :8]).rsample()
    torch.testing.assert_close(z, z0, rtol=0, atol=1e-5)
    torch.testing.assert_close(log_q, log_q0, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FLOW_POSTERIORS)
def test_a_posterior_has_as_many_steps_and_vectors_as_it_is_told(name: str) -> None:
    flow = {n: make_posterior(PosteriorSettings(name=name, flows=n, hidden=8, vectors=2), 4).flow for n in (1, 3)}
    if name in ("iaf", "spline"):
        assert [len(getattr(one.steps, "transforms", one.steps)) for one in flow.values()] == [1, 3]
    else:
        assert flow[3].context == 3 * flow[1].context
    if name == "sylvester":
        wide = make_posterior(PosteriorSettings(name=name, vectors=9), 4).flow
        assert (flow[1].vectors, wide.vectors) == (2, 4)


@pytest.mark.parametrize("name", FLOW_POSTERIORS)
def test_a_flow_reaches_a_correlated_posterior(name: str) -> None:
    """Fitted to a correlated Gaussian a flow beats the best diagonal q, and its KL stays above zero."""
    target = MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    best_diagonal = -0.5 * math.log(1 - 0.9**2)  # KL with variances 1 / precision_ii, 0.83 nats
    posterior = make_posterior(PosteriorSettings(name=name, flows=4, hidden=32, context=4, vectors=2), 2)
    params = nn.Parameter(0.1 * torch.randn(1, posterior.size))
    optimiser = torch.optim.Adam([params, *posterior.parameters()], lr=0.02)
    for _ in range(300):
        z, log_q = posterior(params.expand(256, -1)).rsample()
        loss = (log_q - target.log_prob(z)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        z, log_q = posterior(params.expand(20_000, -1)).rsample()
        kl = log_q - target.log_prob(z)
    # A radial step knows no direction: four of them go half of the way.
    assert kl.mean() < (0.6 if name == "radial" else 0.3) * best_diagonal
    assert kl.mean() > -4 * kl.std() / math.sqrt(len(kl))


@pytest.mark.parametrize("latent", [1, 2, 7])
@pytest.mark.parametrize("name", ["iaf", "spline"])
def test_an_autoregressive_posterior_leaves_no_dimension_out_or_is_refused(name: str, latent: int) -> None:
    """With as many hidden units as dimensions each output depends on its own input and on every one before it."""
    settings = PosteriorSettings(name=name, flows=1, hidden=latent, context=3)
    flow = make_posterior(settings, latent).flow.double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    z = torch.randn(200, latent, dtype=torch.float64, requires_grad=True)
    moved, _ = flow(z, torch.randn(200, 3, dtype=torch.float64))
    slopes = [torch.autograd.grad(moved[:, i].sum(), z, retain_graph=True)[0].abs().amax(0) for i in range(latent)]
    assert (torch.stack(slopes) != 0).equal(torch.ones(latent, latent).tril().bool())
    with pytest.raises(UsageError, match=f"posterior.hidden is {latent}, fewer than the {latent + 1} latent"):
        make_posterior(settings, latent + 1)
