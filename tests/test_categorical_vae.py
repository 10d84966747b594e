"""The categorical VAE against the sum over all of its codes, and its draws against their probabilities."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from tests.evidence import is_the_mean_weight
from zoo import create_model, noise
from zoo.data.images import DataSpec
from zoo.distributions.categorical import draw, gumbel, one_hot
from zoo.models.categorical_vae import CategoricalVAE

SPEC = DataSpec((1, 4, 4), "binary")
VARIABLES, CLASSES = 2, 3


def make(**settings: object) -> CategoricalVAE:
    """A small model in float64 whose posterior depends on the image and is far from its prior."""
    small = {"encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}, "latent": VARIABLES, "classes": CLASSES}
    torch.manual_seed(0)
    model = create_model("categorical_vae", data=SPEC, **small, **settings).double()
    with torch.no_grad():
        model.head.weight.mul_(4.0)
        model.decoder.output.weight.mul_(3.0)
        model.prior_logits.add_(0.5 * torch.randn_like(model.prior_logits))
    return model.eval()


def bits(n: int = 5) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1)).round().double()


def enumerated(model: CategoricalVAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x | z), log p(z) and log q(z | x), (B, K^N) each, of every code."""
    codes = torch.tensor(list(itertools.product(range(CLASSES), repeat=VARIABLES)))
    z = torch.nn.functional.one_hot(codes, CLASSES).double()
    params = model.decode(z)
    likelihood = torch.stack([model.likelihood.log_prob(params, row.expand(len(z), -1, -1, -1)) for row in x])
    of_prior = (z * model.log_prior()).sum((1, 2)).expand(len(x), -1)
    of_posterior = torch.einsum("znk,bnk->bz", z, model.log_posterior(x))
    return likelihood, of_prior, of_posterior


@pytest.mark.parametrize("prior", ["uniform", "learned"])
@torch.no_grad()
def test_bound_and_evidence_are_the_sums_over_all_codes(prior: str) -> None:
    model, x = make(prior=prior), bits()
    likelihood, of_prior, of_posterior = enumerated(model, x)
    for density in (of_prior, of_posterior):
        torch.testing.assert_close(density.exp().sum(1), torch.ones(len(x)).double())
    q = of_posterior.exp()
    elbo = (q * (likelihood + of_prior - of_posterior)).sum(1)
    evidence = torch.logsumexp(likelihood + of_prior, 1)
    torch.manual_seed(2)
    terms = [model.terms(x) for _ in range(4000)]
    torch.testing.assert_close(terms[0].rate.sum(1), (q * (of_posterior - of_prior)).sum(1))
    drawn = torch.stack([each.elbo for each in terms])
    assert ((drawn.mean(0) - elbo).abs() < 4.5 * drawn.std(0) / math.sqrt(len(drawn))).all()
    weights = model.log_weights(x, k=4000)
    assert ((weights.mean(0) - elbo).abs() < 4.5 * weights.std(0) / math.sqrt(len(weights))).all()
    is_the_mean_weight(evidence, weights, within=1e-9)
    assert (elbo < evidence).all() and (evidence - elbo).max() > 0.05


@torch.no_grad()
def test_in_evaluation_a_draw_is_discrete_and_in_training_it_is_relaxed() -> None:
    model, x = make(), bits(50)
    z = model.terms(x).aux["z"].view(50, VARIABLES, CLASSES)
    assert ((z == 0) | (z == 1)).all() and (z.sum(-1) == 1).all()
    model.train()
    z = model.terms(x).aux["z"].view(50, VARIABLES, CLASSES)
    torch.testing.assert_close(z.sum(-1), torch.ones(50, VARIABLES).double())
    assert ((z > 0) & (z < 1)).all()
    assert torch.isfinite(model.log_weights(x, k=3)).all()
    torch.manual_seed(3)
    rows = model.log_weights(x, k=2)
    torch.manual_seed(3)
    assert torch.equal(model.eval().log_weights(x, k=2), rows)


def test_straight_through_is_discrete_forwards_and_relaxed_backwards() -> None:
    soft, hard = make().train(), make(straight_through=True).train()
    log_q = soft.log_posterior(bits()).detach().requires_grad_()
    toward = torch.randn(VARIABLES, CLASSES, dtype=torch.float64)
    gradients = []
    for model in (soft, hard):
        torch.manual_seed(4)
        z = model.relaxed(log_q)
        gradients.append(torch.autograd.grad((z * toward).sum(), log_q)[0])
    torch.testing.assert_close(z, one_hot(z.detach()), rtol=0, atol=1e-12)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


def test_at_a_low_temperature_the_gradient_is_nearly_that_of_the_bound() -> None:
    """Of the expectation over all codes, which is differentiable; what the relaxation adds goes away with it."""
    x = bits()
    model = make()
    likelihood, of_prior, of_posterior = enumerated(model, x)
    elbo = (of_posterior.exp() * (likelihood + of_prior - of_posterior)).sum(1).mean()
    exact = torch.autograd.grad(-elbo, model.head.weight)[0].flatten()
    near = []
    for relaxation in (0.2, 5.0):
        model = make(relaxation=relaxation).train()
        torch.manual_seed(5)
        terms = model.terms(x.repeat(4000, 1, 1, 1))
        found = torch.autograd.grad(-terms.elbo.mean(), model.head.weight)[0].flatten()
        near.append(torch.cosine_similarity(found, exact, 0).item())
    assert near[0] > 0.97 and near[0] > near[1]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_have_their_probabilities(temperature: float) -> None:
    log_p = torch.tensor([0.1, 0.2, 0.7]).log()
    torch.manual_seed(6)
    counts = draw(log_p.expand(30_000, -1), temperature).sum(0)
    expected = 30_000 * torch.softmax(log_p / temperature, 0)
    assert ((counts - expected).square() / expected).sum() < 13.8  # 2 degrees of freedom, one in a thousand
    cold = draw(log_p.expand(100, -1), 0.0)
    assert (cold[:, 2] == 1).all()


def test_gumbel_noise_is_finite_where_a_uniform_number_is_at_its_ends() -> None:
    ends = torch.tensor([0.0, 1.0, 0.5])
    with noise.given([ends]):
        drawn = gumbel(torch.zeros(3))
    assert torch.isfinite(drawn).all() and drawn[0] < -2 and drawn[1] > 16
    assert drawn[2] == pytest.approx(-math.log(math.log(2)), rel=1e-6)


def test_a_learned_prior_comes_to_the_frequencies_of_the_classes() -> None:
    model, x = make(prior="learned"), bits(40)
    q = model.log_posterior(x).detach().exp()
    optimiser = torch.optim.Adam([model.prior_logits], lr=0.1)
    for _ in range(300):
        loss = model.terms(x).rate.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(model.log_prior().exp(), q.mean(0), rtol=0, atol=1e-3)
    assert not make().prior_logits.requires_grad and "prior_logits" not in make().state_dict()


@torch.no_grad()
def test_samples_are_of_the_codes_as_often_as_the_prior_says() -> None:
    model, n = make(prior="learned"), 20_000
    codes = torch.tensor(list(itertools.product(range(CLASSES), repeat=VARIABLES)))
    pictures = model.likelihood.mean(model.decode(torch.nn.functional.one_hot(codes, CLASSES).double())).flatten(1)
    apart = torch.cdist(model.sample(n).flatten(1), pictures)
    assert apart.amin(1).max() < 1e-6
    counts, expected = apart.argmin(1).bincount(minlength=len(codes)), n * enumerated(model, bits(1))[1][0].exp()
    assert ((counts - expected).square() / expected).sum() < 26.1  # 8 degrees of freedom, one in a thousand


@torch.no_grad()
def test_the_code_is_the_probabilities_and_the_picture_that_of_the_likeliest_classes() -> None:
    model, x = make(), bits()
    code = model.represent(x).view(len(x), VARIABLES, CLASSES)
    torch.testing.assert_close(code, model.log_posterior(x).exp())
    likelihood, _, of_posterior = enumerated(model, x)
    best = of_posterior.argmax(1)
    p = model.reconstruct(x)
    found = (x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(found, likelihood[torch.arange(len(x)), best])
