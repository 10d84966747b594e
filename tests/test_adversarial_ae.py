"""The adversarial autoencoder: its bound against the integral over the code, its discriminator against known densities,
its losses against those of the paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.evidence import is_the_mean_weight
from zoo import create_model
from zoo.config import TrainConfig
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models.adversarial_ae import AdversarialAE, deceive
from zoo.models.base import Terms
from zoo.training.optimise import Group, backward

SPEC = DataSpec((1, 4, 4), "binary")
SMALL = {"latent": 3, "encoder": {"hidden": [16]}, "decoder": {"hidden": [16]}, "judge": [32, 32]}
LEARNED = ["diagonal", "mixture", "vamp", "flow", "energy", "diffusion"]


def make(**settings: object) -> AdversarialAE:
    torch.manual_seed(0)
    return create_model("adversarial_ae", data=SPEC, **SMALL | settings)


def bits(n: int = 8) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1)).round()


def train(model: AdversarialAE, x: Tensor, steps: int, **recipe: object) -> AdversarialAE:
    config = TrainConfig(learning_rate=3e-3, **recipe)
    groups = {
        key: Group(key, [one for one in members if one.requires_grad], config)
        for key, members in model.parameter_groups().items()
    }
    for _ in range(steps):
        losses = model.losses(x)
        backward(losses, groups)
        for key in losses:
            groups[key].step()
    return model


def test_its_bound_is_the_integral_over_the_code() -> None:
    x = bits().double()
    model = train(make(latent=1).double(), x, 100).requires_grad_(False).eval()
    z = torch.linspace(-10, 10, 8001).double()
    params = model.decode(z.unsqueeze(1))
    likelihood = torch.stack([model.likelihood.log_prob(params, row.expand(len(z), -1, -1, -1)) for row in x])
    log_p = -0.5 * (z.square() + math.log(2 * math.pi)) + likelihood
    q = model.infer(x)
    log_q = -0.5 * ((z - q.mean).square() / q.log_variance.exp() + q.log_variance + math.log(2 * math.pi))
    elbo = torch.trapezoid(log_q.exp() * (log_p - log_q), z)
    evidence = torch.trapezoid(log_p.exp(), z).log()
    torch.manual_seed(2)
    drawn = model.terms(x.repeat(4000, 1, 1, 1)).elbo.view(-1, len(x))
    assert ((drawn.mean(0) - elbo).abs() < 4.5 * drawn.std(0) / math.sqrt(len(drawn))).all()
    is_the_mean_weight(evidence, model.log_weights(x, k=4000))
    assert (elbo < evidence).all() and (evidence - elbo).max() > 0.05


def test_the_best_discriminator_gives_the_log_ratio_of_prior_and_codes() -> None:
    """And its verdict is log 2 less the divergence of Jensen and Shannon, here by the trapezoidal rule."""
    model = make(latent=1)
    mean, deviation = 0.8, 0.6

    def codes(x: Tensor, y: Tensor | None) -> Terms:
        # Whatever the images, their codes are of this normal.
        z = mean + deviation * torch.randn(len(x), 1)
        return Terms(z[:, 0], z[:, :1], {"z": z})

    model.terms = codes
    optimiser = torch.optim.Adam(model.discriminator.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 400)
    x = bits(2000)
    for _ in range(400):
        optimiser.zero_grad()
        model.losses(x)["discriminator"].backward()
        optimiser.step()
        schedule.step()
    z = torch.linspace(-8, 8, 4001)
    log_p = -0.5 * (z.square() + math.log(2 * math.pi))
    log_q = -0.5 * (((z - mean) / deviation).square() + math.log(2 * math.pi)) - math.log(deviation)
    with torch.no_grad():
        found = model.discriminator(z.unsqueeze(1))
    seen = log_q > math.log(0.05)
    torch.testing.assert_close(found[seen], (log_p - log_q)[seen], rtol=0, atol=0.15)
    middle = torch.logaddexp(log_p, log_q) - math.log(2)
    halves = [torch.trapezoid(log.exp() * (log - middle), z) for log in (log_p, log_q)]
    divergence = 0.5 * sum(halves).item()
    verdicts = torch.stack([model.losses(x)["discriminator"].detach() for _ in range(50)])
    assert divergence > 0.1
    assert verdicts.mean().item() == pytest.approx(math.log(2) - divergence, abs=0.01)


def test_codes_are_pulled_as_by_two_divergences() -> None:
    """Before the best discriminator: KL(q || p) - 2 JS(q, p), whose derivative is that of the cost with the
    discriminator held (Arjovsky and Bottou 2017)."""
    z = torch.linspace(-12, 12, 20_001).double()
    log_p = -0.5 * (z.square() + math.log(2 * math.pi))
    at = torch.tensor([0.8, -0.5], dtype=torch.float64, requires_grad=True)  # mean and log-deviation

    def log_q(at: Tensor) -> Tensor:
        return -0.5 * (((z - at[0]) / at[1].exp()).square() + math.log(2 * math.pi)) - at[1]

    of_cost = torch.trapezoid(log_q(at).exp() * deceive(log_p - log_q(at).detach()), z)
    q = log_q(at)
    middle = torch.logaddexp(log_p, q) - math.log(2)
    both = torch.trapezoid(log_p.exp() * (log_p - middle), z) + torch.trapezoid(q.exp() * (q - middle), z)
    divergence = torch.trapezoid(q.exp() * (q - log_p), z) - both
    given, wanted = (torch.autograd.grad(value, at)[0] for value in (of_cost, divergence))
    torch.testing.assert_close(given, wanted)
    assert given.abs().min() > 0.05


def by_hand(model: AdversarialAE, z: Tensor) -> Tensor:
    """(B,) the probability that the discriminator gives z of being the prior's."""
    values = list(model.discriminator.state_dict().values())
    for weight, bias in zip(values[:-2:2], values[1:-2:2], strict=True):
        z = z @ weight.T + bias
        z = torch.where(z > 0, z, 0.2 * z)
    return 1 / (1 + torch.exp(-(z @ values[-2].T + values[-1]).squeeze(1)))


@pytest.mark.parametrize("prior", ["standard", "mixture", "flow"])
@torch.no_grad()
def test_its_losses_are_those_of_the_paper(prior: str) -> None:
    rate = 0.0 if prior == "standard" else 0.3
    model, x = make(scale=7.0, rate=rate, prior={"name": prior}).double(), bits(9).double()
    torch.manual_seed(3)
    losses = model.losses(x, None, 0.5)
    torch.manual_seed(3)
    terms = model.terms(x)
    target = model.prior.sample(len(x))
    z = terms.aux["z"]
    # The reconstruction, and the generator's cost that does not saturate; what stays of the rate is warmed up.
    expected = terms.distortion - 7.0 * by_hand(model, z).log() + 0.5 * rate * terms.rate.sum(1)
    assert losses["vae"].item() == pytest.approx(expected.mean().item(), rel=1e-9)
    judged = by_hand(model, target).log().mean() + (1 - by_hand(model, z)).log().mean()
    assert losses["discriminator"].item() == pytest.approx(-0.5 * judged.item(), rel=1e-9)


@torch.no_grad()
def test_with_this_sigma_its_distortion_is_the_squared_cost_of_wae() -> None:
    model, x = make(likelihood={"name": "gaussian", "sigma": math.sqrt(0.5)}).double(), bits().double()
    torch.manual_seed(3)
    terms = model.terms(x)
    squares = (x - model.decode(terms.aux["z"])).square().sum((1, 2, 3))
    torch.testing.assert_close(terms.distortion - squares, torch.full((len(x),), 8 * math.log(math.pi)).double())


@pytest.mark.parametrize("settings", [{}, {"rate": 0.5, "prior": {"name": "mixture", "components": 4}}])
def test_its_two_losses_leave_each_other_alone(settings: dict) -> None:
    model, x = make(**settings), bits()
    own = set(model.discriminator.parameters())
    groups = model.parameter_groups()
    assert set(groups["discriminator"]) == own and set(groups["vae"]) == set(model.parameters()) - own
    model.losses(x)["discriminator"].backward()
    assert {parameter for parameter in model.parameters() if parameter.grad is not None} == own


def test_codes_come_to_lie_as_the_prior_does() -> None:
    """As a prior away from where codes begin, by the largest difference of two distribution functions."""
    x = bits(200)
    model = make(latent=1, rate=1e-6, prior={"name": "diagonal"})
    with torch.no_grad():
        model.prior.mean.fill_(1.0)
        model.prior.log_variance.fill_(2 * math.log(0.7))
    model.prior.requires_grad_(False)

    def apart() -> float:
        z = torch.cat([model.infer(x).rsample()[0].detach() for _ in range(5)])
        at = torch.linspace(-4, 6, 801)
        exact = torch.distributions.Normal(1.0, 0.7).cdf(at)
        return ((z < at).float().mean(0) - exact).abs().max().item()

    before = apart()
    train(model, x, 300, betas=(0.0, 0.999))
    assert before > 0.3 and apart() < 0.12


@pytest.mark.parametrize("name", LEARNED)
def test_a_prior_that_no_loss_would_move_is_refused(name: str) -> None:
    prior = {"name": name} | ({"components": 4} if name in ("mixture", "vamp") else {})
    with pytest.raises(UsageError, match=f"prior.name={name} learns from the rate alone: it needs rate above 0"):
        make(prior=prior)
    # A flow begins as the identity, where its first layers have no gradient yet.
    model = train(make(prior=prior, rate=0.5), bits(), 2)
    gradients = torch.autograd.grad(model.losses(bits())["vae"], [*model.prior.parameters()])
    assert all(bool((gradient != 0).any()) for gradient in gradients)


def test_a_posterior_that_nothing_restrains_narrows_and_the_rate_that_stays_holds_it() -> None:
    x = bits()
    rates = []
    for rate in (0.0, 1.0):
        model = train(make(rate=rate, scale=1.0), x, 300).eval()
        rates.append(model.terms(x).rate.sum(1).mean().item())
    assert rates[0] > 3 * rates[1]
