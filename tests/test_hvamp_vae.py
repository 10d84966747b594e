"""The hierarchical VampPrior VAE: its prior, its bound where the likelihood is known, and what learns from what."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from zoo import create_model
from zoo.data.images import DataSpec
from zoo.models.hierarchy import draw
from zoo.models.hvamp_vae import HVampVAE

BITS = DataSpec((1, 4, 4), "binary")
REAL = DataSpec((1, 1, 6), "real")
SMALL = {"latent": 3, "lower": 2, "hidden": [8, 8], "prior": {"name": "vamp", "components": 5}}
SIGMA = 0.7


def small(**settings) -> HVampVAE:
    """A model of bits, far enough from its start that no two of its Gaussians are alike."""
    model = create_model("hvamp_vae", data=BITS, **SMALL | settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.initialise(bits(40))
    return model


def bits(n: int = 6) -> Tensor:
    return torch.randint(0, 2, (n, 1, 4, 4)).double()


def normal(mean: Tensor, log_variance: Tensor) -> Independent:
    return Independent(Normal(mean, (0.5 * log_variance).exp()), 1)


def encoded(model: HVampVAE, x: Tensor) -> Independent:
    """q(z2 | x) by the encoder's own layers."""
    mean, log_variance = model.upper_posterior(x.flatten(1)).chunk(2, 1)
    return normal(mean, log_variance.clamp(-6, 2))


# ---- the prior -------------------------------------------------------------------------------------------------------


def mixture_of(parts: Independent) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(logits=torch.zeros(parts.batch_shape).double()), parts)


def test_the_prior_is_the_mean_of_the_posteriors_of_the_pseudo_inputs() -> None:
    model, z = small(), torch.randn(30, 3).double()
    pseudo_inputs = model.prior.free_inputs.clamp(0, 1)
    assert pseudo_inputs.shape == (5, 1, 4, 4)
    expected = mixture_of(encoded(model, pseudo_inputs)).log_prob(z)
    torch.testing.assert_close(model.prior.log_prob(z), expected, rtol=0, atol=1e-10)
    # It is what the upper layer pays, at the very draw that is decoded.
    x = bits()
    layers, _ = model.descend(draw, 6, model.ascend(x))
    upper = layers[0]
    paid = encoded(model, x).log_prob(upper.z) - mixture_of(encoded(model, pseudo_inputs)).log_prob(upper.z)
    torch.testing.assert_close(upper.rate(), paid)


def test_training_images_as_pseudo_inputs_make_the_prior_their_aggregate_posterior() -> None:
    model, x = small(), bits(5)
    with torch.no_grad():
        model.prior.free_inputs.copy_(x)
    z = torch.randn(30, 3).double()
    each = torch.stack([encoded(model, image[None]).log_prob(z) for image in x])
    torch.testing.assert_close(model.prior.log_prob(z), each.exp().mean(0).log())


def test_pseudo_inputs_begin_at_training_images() -> None:
    model, x = small(), bits(40)
    model.initialise(x)
    distance = (model.prior.pseudo_inputs().unsqueeze(1) - x).abs().amax((2, 3, 4))
    assert (distance.amin(1) < 0.1).all()


def test_the_decoder_begins_at_the_mean_image_and_variances_keep_to_the_official_bounds() -> None:
    model, x = small(), bits(400)
    x[:, :, 0] = 1.0
    model.initialise(x)
    bias = model.decoder.both[-1].bias.view(x.shape[1:])
    torch.testing.assert_close(bias.sigmoid(), x.mean(0).clamp(0.001, 0.999).to(bias.dtype))
    for level, (sign, bound) in itertools.product((0, 1), ((50.0, 2.0), (-50.0, -6.0))):
        network = model.lower_prior if level else model.upper_posterior
        torch.nn.init.constant_(network[-1].bias, sign)
        state = torch.zeros(3, model.settings.latent, dtype=bias.dtype)
        q = model.generate(1, state)[1] if level else model.infer_upper(x[:3])
        assert (q.log_variance == bound).all()


def test_gradients_reach_pseudo_inputs_and_encoder_through_the_upper_rate_alone() -> None:
    model, x = small(), bits()
    terms = model.terms(x)
    inputs, encoder = model.prior.free_inputs, model.upper_posterior[-1].weight
    (upper,) = torch.autograd.grad(terms.rate[:, 0].sum(), inputs, retain_graph=True)
    assert (upper.abs().amax((1, 2, 3)) > 0).all()
    rest = (terms.rate[:, 1] + terms.distortion).sum()
    (below,) = torch.autograd.grad(rest, inputs, retain_graph=True, allow_unused=True)
    assert below is None or not below.any()
    (of_prior,) = torch.autograd.grad(model.prior.log_prob(torch.zeros(1, 3).double()).sum(), encoder)
    assert of_prior.abs().max() > 0
    assert not [name for name, _ in small(prior={"name": "standard"}).named_parameters() if name.startswith("prior")]


# ---- the bound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["standard", "vamp"])
def test_each_layer_s_rate_is_the_divergence_of_its_own_gaussians(prior: str) -> None:
    model, x = small(prior={"name": prior}), bits()
    (upper, lower), params = model.descend(draw, 6, model.ascend(x))
    own, before = model.lower_posterior, upper.z
    features = own.both(torch.cat([own.first(x.flatten(1)), own.second(before)], 1)).chunk(2, 1)
    q = normal(features[0], features[1].clamp(-6, 2))
    above = model.lower_prior(before).chunk(2, 1)
    p = normal(above[0], above[1].clamp(-6, 2))
    torch.testing.assert_close(lower.rate(), torch.distributions.kl_divergence(q, p))
    if prior == "standard":
        standard = normal(torch.zeros(6, 3).double(), torch.zeros(6, 3).double())
        torch.testing.assert_close(upper.rate(), torch.distributions.kl_divergence(encoded(model, x), standard))
    # Both layers are decoded.
    for z in (upper.z, lower.z):
        (gradient,) = torch.autograd.grad(params.sum(), z, retain_graph=True)
        assert (gradient.abs().amax(0) > 0).all()


def linear() -> tuple[HVampVAE, MultivariateNormal]:
    """A linear Gaussian model, its exact posteriors in the encoder, and p(x).

    z2 ~ N(0, I), z1 ~ N(A z2 + a, V), x ~ N(B1 z1 + B2 z2 + b, s2 I), where A is diagonal and the columns of B1 and B2
    are orthogonal, of each other too: then so are those of C = B1 A + B2, the covariance of x given z2 is diagonal in
    their basis, and both posteriors are diagonal Gaussians.
    """
    settings = {"latent": 2, "lower": 2, "hidden": [], "likelihood": {"sigma": SIGMA}, "prior": {"name": "standard"}}
    model = create_model("hvamp_vae", data=REAL, **settings).double().requires_grad_(False)
    s2, eye2, eye6 = SIGMA**2, torch.eye(2).double(), torch.eye(6).double()
    basis = torch.linalg.qr(torch.randn(6, 6).double())[0]
    b1, b2 = basis[:, :2] * torch.tensor([1.5, 0.8]), basis[:, 2:4] * torch.tensor([0.9, 1.2])
    down, shift, b = torch.diag(torch.tensor([0.6, -1.1]).double()), torch.randn(2).double(), torch.randn(6).double()
    variance = torch.tensor([0.5, 0.3]).double()
    through, mean = b1 @ down + b2, b1 @ shift + b
    spread = b1 @ torch.diag(variance) @ b1.T + s2 * eye6  # of x given z2
    # Decoder: (z1, z2) in this order; prior of z1: means, then log-variances.
    fill(model.decoder.both[-1], torch.cat([b1, b2], 1), b)
    fill(model.lower_prior[-1], torch.cat([down, 0 * down]), torch.cat([shift, variance.log()]))
    precision = eye2 + through.T @ torch.linalg.solve(spread, through)
    gain = torch.linalg.solve(precision, torch.linalg.solve(spread, through).T)
    assert (precision - torch.diag(precision.diagonal())).abs().max() < 1e-12
    fill(
        model.upper_posterior[-1],
        torch.cat([gain, torch.zeros(2, 6).double()]),
        torch.cat([-gain @ mean, -precision.diagonal().log()]),
    )
    precision = torch.diag(1 / variance) + b1.T @ b1 / s2
    # z1 given (x, z2): precision^-1 ((A z2 + a) / V + B1^T (x - B2 z2 - b) / s2).
    of_x = torch.linalg.solve(precision, b1.T / s2)
    of_z2 = torch.linalg.solve(precision, down / variance[:, None]) - of_x @ b2
    rest = torch.linalg.solve(precision, shift / variance) - of_x @ b
    fill(
        model.lower_posterior.both[-1],
        torch.cat([torch.cat([of_x, of_z2], 1), torch.zeros(2, 8).double()]),
        torch.cat([rest, -precision.diagonal().log()]),
    )
    return model, MultivariateNormal(mean, through @ through.T + spread)


def fill(layer: torch.nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


def test_with_exact_posteriors_every_weight_is_the_likelihood() -> None:
    model, marginal = linear()
    x = marginal.sample((7,)).view(7, 1, 1, 6)
    exact = marginal.log_prob(x.flatten(1))
    torch.testing.assert_close(model.log_weights(x, k=4), exact.expand(4, -1), rtol=0, atol=1e-6)
    bound = model.terms(x.repeat(2000, 1, 1, 1)).elbo.view(2000, 7)
    error = bound.std(0) / math.sqrt(len(bound))
    assert ((bound.mean(0) - exact).abs() < 5 * error).all() and (error < 0.1).all()


def test_with_other_posteriors_the_weights_have_the_likelihood_as_their_mean_and_the_bound_is_below() -> None:
    model, marginal = linear()
    model.upper_posterior[-1].bias += torch.tensor([0.3, -0.2, 0.2, 0.3])
    model.lower_posterior.both[-1].bias += torch.tensor([0.1, 0.2, 0.2, 0.1])
    x = marginal.sample((4,)).view(4, 1, 1, 6)
    log_weights = model.log_weights(x, k=20_000)
    ratio = torch.exp(log_weights - marginal.log_prob(x.flatten(1)))
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - 1).abs() < 5 * error).all() and (error < 0.05).all()
    assert (log_weights.mean(0) < marginal.log_prob(x.flatten(1)) - 0.05).all()


@pytest.mark.parametrize("prior", ["standard", "vamp"])
def test_the_elbo_is_the_mean_weight_and_below_the_importance_weighted_bound(prior: str) -> None:
    model, x, k = small(prior={"name": prior, "components": 5}).requires_grad_(False), bits(3), 3000
    weights = model.log_weights(x, k=k)
    elbo = model.terms(x.repeat(k, 1, 1, 1)).elbo.view(k, 3)
    error = torch.sqrt((weights.var(0) + elbo.var(0)) / k)
    assert ((weights.mean(0) - elbo.mean(0)).abs() < 5 * error).all()
    assert (elbo.mean(0) + 5 * error < torch.logsumexp(weights, 0) - math.log(k)).all()


# ---- what it generates -----------------------------------------------------------------------------------------------


def test_samples_go_through_both_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, marginal = linear()
    monkeypatch.setattr(model.likelihood, "mean", lambda params: params)  # not brought into [0, 1]
    drawn = model.sample(40_000).flatten(1)
    expected = marginal.covariance_matrix - SIGMA**2 * torch.eye(6)  # the means of p(x | z), without its noise
    assert torch.allclose(drawn.mean(0), marginal.mean, atol=0.05)
    assert torch.allclose(drawn.T.cov(), expected, atol=0.08)
    assert (model.sample(3, temperature=0.0).flatten(1) - marginal.mean).abs().max() < 1e-12


def test_cold_samples_are_of_the_pseudo_inputs_means() -> None:
    model = small().requires_grad_(False)
    upper = model.infer_upper(model.prior.pseudo_inputs()).mean
    lower = model.lower_prior(upper)[:, :2]
    centres = torch.sigmoid(model.decode(torch.cat([upper, lower], 1)))
    distance = (model.sample(60, temperature=0.0).unsqueeze(1) - centres).abs().amax((2, 3, 4))
    assert (distance.amin(1) < 1e-9).all()
    assert len(distance.argmin(1).unique()) == 5
