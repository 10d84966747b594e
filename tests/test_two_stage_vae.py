"""Both stages against what is known exactly, and neither moved by the other's training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from benchmarks.recipe import recipes
from zoo import create_model, noise
from zoo.config import TrainConfig
from zoo.data.batches import Batches
from zoo.data.images import DataSpec, Images
from zoo.distributions.gaussians import LOG_VARIANCE_BOUND
from zoo.errors import UsageError
from zoo.models.base import Progress
from zoo.models.two_stage_vae import SecondStage, SecondStageSettings, TwoStageVAE
from zoo.models.vae import VanillaVAE
from zoo.priors import PriorSettings, make_prior
from zoo.training.optimise import learning_rate
from zoo.training.precision import choose
from zoo.training.trainer import Trainer

BITS = DataSpec((1, 4, 4), "binary")
REAL = DataSpec((1, 1, 6), "real")
SMALL = {"latent": 3, "encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}, "second": {"hidden": [8]}}
LINEAR = {"latent": 2, "encoder": {"hidden": []}, "decoder": {"hidden": []}, "likelihood": {"sigma": 0.7}}
PIXEL = 0.49  # variance of x given z in LINEAR


def small(spec: DataSpec = BITS, **settings) -> TwoStageVAE:
    return create_model("two_stage_vae", data=spec, **SMALL | settings).double()


def bits(n: int = 6) -> Tensor:
    return torch.randint(0, 2, (n, 1, 4, 4)).double()


def moved(model: TwoStageVAE) -> TwoStageVAE:
    """The second stage with nothing at the value that it starts from."""
    with torch.no_grad():
        for parameter in model.second.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def linear(scale: float, shift: float = 0.0) -> tuple[TwoStageVAE, Tensor, Tensor]:
    """Linear Gaussian parts with the exact posteriors, and mean (6,) and covariance (6, 6) of the means of x.

    ``scale`` is that of the decoder's columns; q(u | z) is off by ``shift`` standard deviations in each dimension.
    """
    model = create_model("two_stage_vae", data=REAL, **LINEAR, second={"hidden": [4]}).double().requires_grad_(False)
    a, b, noise_z = torch.tensor([0.8, -1.3]).double(), torch.tensor([0.5, -0.2]).double(), 0.36
    # p(z | u) = N(a u + b, 0.36 I) by coordinates, so that all posteriors are diagonal.
    second = model.second
    second.output.weight.zero_()
    second.output.weight[:, :2] = torch.diag(a)
    second.output.bias.copy_(b)
    second.likelihood.log_sigma.fill_(0.5 * math.log(noise_z))
    precision = a.square() + noise_z
    variance_u = noise_z / precision
    second.head.weight.zero_()
    second.head.weight[:2, :2] = torch.diag(a / precision)
    second.head.bias[:2] = -a * b / precision + shift * variance_u.sqrt()
    second.head.bias[2:] = LOG_VARIANCE_BOUND * torch.atanh(variance_u.log() / LOG_VARIANCE_BOUND)
    # p(x | z) = N(W z + mu, 0.49 I) with orthogonal columns.
    w = scale * torch.linalg.qr(torch.randn(6, 2).double())[0] * torch.tensor([1.5, 0.8])
    mu = torch.full((6,), 0.5).double()
    model.decoder.output.weight.copy_(w)
    model.decoder.output.bias.copy_(mu)
    spread = a.square() + noise_z
    variance_z = 1 / (1 / spread + w.square().sum(0) / PIXEL)
    model.head.weight.copy_(torch.cat([variance_z.unsqueeze(1) * w.T / PIXEL, torch.zeros(2, 6)]))
    model.head.bias.copy_(torch.cat([variance_z * (b / spread - w.T @ mu / PIXEL), variance_z.log()]))
    return model, w @ b + mu, w @ torch.diag(spread) @ w.T


# ---- the bound of the whole ------------------------------------------------------------------------------------------


def test_with_exact_posteriors_every_weight_is_the_likelihood() -> None:
    torch.manual_seed(0)
    model, mean, covariance = linear(1.0)
    x = torch.randn(7, 1, 1, 6).double()
    marginal = torch.distributions.MultivariateNormal(mean, covariance + PIXEL * torch.eye(6))
    exact = marginal.log_prob(x.flatten(1))
    assert torch.allclose(model.log_weights(x, k=5), exact.expand(5, -1), atol=1e-6)


def test_with_a_wrong_posterior_the_bound_is_below_by_its_divergence() -> None:
    torch.manual_seed(0)
    model, mean, covariance = linear(1.0, shift=0.7)
    x = torch.randn(4, 1, 1, 6).double()
    exact = torch.distributions.MultivariateNormal(mean, covariance + PIXEL * torch.eye(6)).log_prob(x.flatten(1))
    draws = 20_000
    ratio = torch.exp(model.log_weights(x, k=draws) - exact)
    error = ratio.std(0) / math.sqrt(draws)
    assert ((ratio.mean(0) - 1).abs() < 5 * error).all() and (error < 0.05).all()
    elbo = model.terms(x.repeat(draws, 1, 1, 1)).elbo.view(draws, len(x))
    error = elbo.std(0) / math.sqrt(draws)
    # q(u | z) is off by 0.7 standard deviations in two dimensions: KL = 0.7^2 / 2 each.
    assert ((exact - elbo.mean(0) - 0.7**2).abs() < 5 * error).all() and (error < 0.03).all()


@pytest.mark.parametrize("posterior", ["diagonal", "planar"])
def test_terms_and_weights_are_of_one_bound(posterior: str) -> None:
    torch.manual_seed(0)
    model, x = moved(small(posterior={"name": posterior})), bits(4).repeat(3000, 1, 1, 1)
    with torch.no_grad():
        terms, weights = model.terms(x), model.log_weights(x)[0]
    assert terms.rate.shape == (len(x), 2) and (terms.rate[:, 0] > 0).all()
    apart = (terms.elbo - weights).view(3000, 4)
    assert (apart.mean(0).abs() < 5 * apart.std(0) / math.sqrt(3000)).all() and apart.std() > 1e-3


# ---- the first stage is a vanilla VAE --------------------------------------------------------------------------------


def vanilla(model: TwoStageVAE) -> VanillaVAE:
    """A vanilla VAE with the weights of the first stage."""
    twin = create_model("vae", data=model.spec, **{key: SMALL[key] for key in ("latent", "encoder", "decoder")})
    twin.load_state_dict({key: v for key, v in model.state_dict().items() if not key.startswith("second.")})
    return twin.double()


def test_the_first_loss_has_the_gradients_of_a_vanilla_vae() -> None:
    torch.manual_seed(0)
    model, x = moved(small()), bits(16)
    twin = vanilla(model)
    torch.manual_seed(1)
    ours = model.losses(x, progress=Progress(0.3, fraction=0.2))
    torch.manual_seed(1)
    theirs = twin.losses(x, progress=0.3)
    assert list(ours) == ["first"]
    ours["first"].backward()
    theirs["vae"].backward()
    expected = {name: parameter.grad for name, parameter in twin.named_parameters()}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("second."), name
        assert parameter.grad is None or torch.equal(parameter.grad, expected[name]), name
    assert expected["head.weight"].abs().sum() > 0


def test_until_the_second_stage_is_trained_the_whole_has_the_bound_of_the_first() -> None:
    torch.manual_seed(0)
    model, x = small(), bits(5)
    with noise.keyed(0, torch.arange(5), range(3)), torch.no_grad():
        ours = model.log_weights(x, k=3)
    with noise.keyed(0, torch.arange(5), range(3)), torch.no_grad():
        theirs = vanilla(model).log_weights(x, k=3)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not torch.allclose(moved(model).log_weights(x, k=3), theirs, atol=0.1)


def test_the_second_loss_is_the_rate_with_codes_that_no_gradient_reaches() -> None:
    torch.manual_seed(0)
    model, x = moved(small()), bits(16)
    torch.manual_seed(1)
    losses = model.losses(x, progress=Progress(1.0, fraction=0.5))
    torch.manual_seed(1)
    terms = model.terms(x)
    assert list(losses) == ["second"]
    assert losses["second"].item() == pytest.approx(terms.rate.sum(1).mean().item(), rel=1e-12)
    losses["second"].backward()
    assert all((p.grad is not None) == name.startswith("second.") for name, p in model.named_parameters())
    assert torch.equal(losses.terms.elbo, terms.elbo)


def test_a_prior_cannot_be_set_because_the_second_stage_is_it() -> None:
    with pytest.raises(UsageError, match="prior"):
        create_model("two_stage_vae", data=BITS, prior={"name": "vamp"})


# ---- training --------------------------------------------------------------------------------------------------------


class Snapshots:
    """Every epoch's end: a copy of all parameters and buffers."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.taken = model, []

    def step(self, state: dict[str, float]) -> None:
        pass

    def epoch(self, row: dict[str, float]) -> None:
        self.taken.append({name: value.clone() for name, value in self.model.state_dict().items()})


def test_each_stage_holds_still_while_the_other_is_trained() -> None:
    torch.manual_seed(0)
    model = small().float()
    # Statistics are state that a forward pass alone would move.
    model.encoder.layers.append(nn.BatchNorm1d(8))
    images = Images(torch.randint(0, 2, (64, 1, 4, 4), dtype=torch.uint8) * 255, torch.zeros(64, dtype=torch.long))
    batches = Batches(images, batch_size=16)
    watcher = Snapshots(model)
    config = TrainConfig(epochs=4, weight_decay=0.1, keep="last")
    Trainer(model, batches, batches, config, choose("cpu"), watchers=(watcher,)).fit()
    states = watcher.taken
    for name in states[0]:
        same = [torch.equal(one[name], other[name]) for one, other in zip(states, states[1:], strict=False)]
        assert same == ([True, False, False] if name.startswith("second.") else [False, True, True]), name
    assert "encoder.layers.2.running_var" in states[0]


def test_the_second_stage_learns_a_density_that_is_not_normal() -> None:
    torch.manual_seed(0)
    stage = SecondStage(SecondStageSettings(hidden=(64, 64)), 1)
    optimizer, standard = torch.optim.Adam(stage.parameters(), 3e-3), make_prior(PriorSettings(), 1)

    def codes(n: int) -> Tensor:
        return 0.96 * (2.0 * torch.randint(2, (n, 1)) - 1) + 0.28 * torch.randn(n, 1)

    def cost(z: Tensor) -> Tensor:
        q = stage.infer(z)
        u, _ = q.rsample()
        return (q.kl(standard).sum(1) - stage.log_prob(z, u)).mean()

    # Two well separated normals of equal weight, of the mean and variance of N(0, 1).
    entropy = math.log(2) + 0.5 * math.log(2 * math.pi * math.e * 0.28**2)
    normal = 0.5 * math.log(2 * math.pi * math.e)
    with torch.no_grad():
        before = cost(codes(20_000)).item()
    assert before == pytest.approx(normal, abs=0.03)
    for _ in range(800):
        optimizer.zero_grad()
        cost(codes(128)).backward()
        optimizer.step()
    with torch.no_grad():
        after = cost(codes(20_000)).item()
    assert entropy - 0.03 < after < 0.5 * (entropy + normal), "no bound is above minus the entropy, and half is gained"


# ---- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_have_the_mean_and_the_covariance_of_both_decoders(temperature: float) -> None:
    torch.manual_seed(0)
    model, mean, covariance = linear(0.02)  # far from the ends of [0, 1], where means are cut off
    n = 20_000
    drawn = model.sample(n, temperature=temperature).flatten(1)
    covariance = temperature**2 * covariance
    assert ((drawn.mean(0) - mean).abs() < 5 * (covariance.diagonal() / n).sqrt()).all()
    size = covariance.diagonal().max()
    assert (torch.cov(drawn.T) - covariance).abs().max() < 5 * math.sqrt(2 / n) * size
    assert torch.allclose(model.sample(3, temperature=0.0).flatten(1), mean.expand(3, -1))


# ---- the recipe ------------------------------------------------------------------------------------------------------


def test_the_recipe_begins_its_rates_again_with_the_second_stage() -> None:
    config = recipes()["two_stage_mnist"].run_config(0)
    train, first = config.train, config.model["first_stage"]
    per_epoch = 59_000 // 64
    steps = train.epochs * per_epoch
    start = 400 * per_epoch
    assert sum(length for length, _ in train.stages) == train.epochs == 1200
    # As the model decides which stage a step is of.
    assert (start - 1) / steps < first <= start / steps
    at = (0, 150 * per_epoch, start - 1, start, start + 300 * per_epoch)
    assert [learning_rate(train, step, steps) for step in at] == [1e-4, 5e-5, 2.5e-5, 1e-4, 5e-5]
