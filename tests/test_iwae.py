"""The k-sample bound and its two gradients, against what is known exactly."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from zoo import create_model
from zoo.config import RunConfig, TrainConfig, resolve
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models.hvae import HVAE
from zoo.models.iwae import IWAE
from zoo.training.optimise import Group, learning_rate

BITS = DataSpec((1, 4, 4), "binary")
REAL = DataSpec((1, 1, 6), "real")
SMALL = {"latent": 2, "encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}}
LINEAR = {"latent": 2, "encoder": {"hidden": []}, "decoder": {"hidden": []}, "likelihood": {"sigma": 0.7}}


def iwae(spec: DataSpec = BITS, **settings) -> IWAE:
    return create_model("iwae", data=spec, **SMALL | settings).double()


def bits(n: int = 6) -> Tensor:
    return torch.randint(0, 2, (n, 1, 4, 4)).double()


def gradients(model: torch.nn.Module, x: Tensor, seed: int, progress: float | Tensor = 1.0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model.zero_grad()
    model.losses(x, None, progress)["vae"].backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_one_sample_is_the_vae_s_one_sample_bound() -> None:
    model, x = iwae(k=1), bits()
    torch.manual_seed(3)
    loss = model.losses(x)["vae"]
    torch.manual_seed(3)
    assert loss.item() == pytest.approx(-model.log_weights(x).mean().item(), rel=1e-12)


@pytest.mark.parametrize("bound", ["iwae", "vae"])
def test_the_gradient_of_one_sample_is_that_of_the_vae_s_one_sample_bound(bound: str) -> None:
    torch.manual_seed(0)
    model, x = iwae(k=1, bound=bound), bits()
    vae = create_model("vae", data=BITS, **SMALL).double()
    vae.load_state_dict(model.state_dict())
    found = gradients(model, x, seed=3)
    torch.manual_seed(3)
    mean, log_variance = vae.head(vae.encoder(x, None)).chunk(2, 1)
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    q, prior = torch.distributions.Normal(mean, (0.5 * log_variance).exp()), torch.distributions.Normal(0.0, 1.0)
    pixels = torch.distributions.Bernoulli(logits=vae.decode(z)).log_prob(x).flatten(1).sum(1)
    (q.log_prob(z).sum(1) - prior.log_prob(z).sum(1) - pixels).mean().backward()
    for name, parameter in vae.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-9, msg=name)
        assert parameter.grad.abs().max() > 0, name


def test_the_bounds_are_the_log_of_the_mean_and_the_mean_of_logs() -> None:
    x = bits(1)
    weights = {}
    for bound in ("iwae", "vae"):
        torch.manual_seed(0)
        model = iwae(k=7, bound=bound)
        torch.manual_seed(3)
        weights[bound] = model.losses(x)["vae"].item()
        # One image: k draws of it are the noise of one call with seven samples.
        torch.manual_seed(3)
        log_w = model.log_weights(x, k=7)
    assert weights["vae"] == pytest.approx(-log_w.mean().item(), rel=1e-12)
    assert weights["iwae"] == pytest.approx(-(log_w.exp().mean().log()).item(), rel=1e-12)
    assert weights["iwae"] < weights["vae"]


@pytest.mark.parametrize("progress", [0.0, torch.tensor(0.5), 1.0], ids=["start", "warm-up", "over"])
def test_both_gradients_have_one_expectation_and_dreg_the_smaller_spread(progress: float | Tensor) -> None:
    torch.manual_seed(0)
    plain = iwae(k=8)
    doubly = iwae(k=8, gradient="doubly")
    doubly.load_state_dict(plain.state_dict())
    # Many copies of two images are many draws of the same gradient.
    x = bits(2)
    draws = {}
    for name, model in (("plain", plain), ("doubly", doubly)):
        each = [gradients(model, x.repeat(40, 1, 1, 1), seed, progress) for seed in range(60)]
        draws[name] = {key: torch.stack([one[key] for one in each]) for key in each[0]}
    for key, of_plain in draws["plain"].items():
        of_doubly = draws["doubly"][key]
        error = torch.sqrt((of_plain.var(0) + of_doubly.var(0)) / len(of_plain))
        far = (of_plain.mean(0) - of_doubly.mean(0)).abs() > 5 * error + 1e-9
        assert not far.any(), key
        if key.startswith(("encoder", "head")) and progress == 1.0:
            assert of_doubly.var(0).sum() < of_plain.var(0).sum(), key


def test_with_the_exact_posterior_weights_are_constant_and_dreg_leaves_the_encoder_alone() -> None:
    torch.manual_seed(0)
    model = create_model("iwae", data=REAL, k=5, gradient="doubly", **LINEAR).double()
    with torch.no_grad():
        # Orthogonal columns make the posterior diagonal: N(M^-1 W^T (x - mu), s2 M^-1), M = W^T W + s2 I.
        w = torch.linalg.qr(torch.randn(6, 2).double())[0] * torch.tensor([1.5, 0.8])
        mu, s2 = torch.randn(6).double(), 0.49
        model.decoder.output.weight.copy_(w)
        model.decoder.output.bias.copy_(mu)
        inverse = torch.linalg.inv(w.T @ w + s2 * torch.eye(2))
        model.head.weight.copy_(torch.cat([inverse @ w.T, torch.zeros(2, 6)]))
        model.head.bias.copy_(torch.cat([-inverse @ w.T @ mu, (s2 * inverse.diagonal()).log()]))
    x = torch.randn(9, 1, 1, 6).double()
    covariance = w @ w.T + s2 * torch.eye(6)
    exact = torch.distributions.MultivariateNormal(mu, covariance).log_prob(x.flatten(1))
    assert torch.allclose(model.log_weights(x, k=5), exact.expand(5, -1), atol=1e-6)
    made = gradients(model, x, 1)
    assert made["head.weight"].abs().max() < 1e-6 and made["head.bias"].abs().max() < 1e-6
    assert made["decoder.output.weight"].abs().max() > 1e-2
    plain = create_model("iwae", data=REAL, k=5, **LINEAR).double()
    plain.load_state_dict(model.state_dict())
    assert gradients(plain, x, 1)["head.bias"].abs().max() > 1e-3


def two_linear_layers() -> tuple[HVAE, Tensor, Tensor]:
    """A linear Gaussian model of two layers, and the mean (6,) and covariance (6, 6) of its pixels' means."""
    torch.manual_seed(0)
    settings = {"latent": 1, "lower": [2], "hidden": [[], []], "likelihood": {"sigma": 0.7}}
    model: HVAE = create_model("hvae", data=REAL, **settings).double().requires_grad_(False)
    (bottom,), (top,) = model.decoder[1:], model.down[0][1:]
    variance = torch.exp(top.bias[2:])
    top.weight[2:] = 0  # the variance of h1 does not depend on h2: the marginal is a Gaussian
    inner = top.weight[:2] @ top.weight[:2].T + torch.diag(variance)
    covariance = bottom.weight @ inner @ bottom.weight.T
    mean = bottom.weight @ top.bias[:2] + bottom.bias
    return model, mean, covariance


def test_two_linear_layers_have_the_likelihood_of_their_marginal() -> None:
    model, mean, covariance = two_linear_layers()
    covariance = covariance + 0.49 * torch.eye(6)
    x = torch.randn(4, 1, 1, 6).double() * 0.5
    exact = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x.flatten(1))
    ratio = torch.exp(model.log_weights(x, k=20_000) - exact)
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - 1).abs() < 5 * error).all() and (error < 0.05).all()


@pytest.mark.parametrize("lower", [[3], [4, 3]], ids=str)
def test_each_layer_s_rate_is_of_its_own_gaussians(lower: list[int]) -> None:
    torch.manual_seed(0)
    model = create_model("hvae", data=BITS, latent=2, lower=lower, hidden=[[8]] * (len(lower) + 1)).double()
    for net in (*model.up, *model.down):
        torch.nn.init.normal_(net[-1].weight)  # far from each other: next to the prior both divergences are the same
    x = bits()
    torch.manual_seed(3)
    rate = model.terms(x).rate
    torch.manual_seed(3)
    draws, posteriors, _ = model.climb(x)
    below = [torch.distributions.Normal(q.mean, (0.5 * q.log_variance).exp()) for q in posteriors]
    above = [model.prior_of(level, draws) for level in range(len(lower))]
    above = [torch.distributions.Normal(p.mean, (0.5 * p.log_variance).exp()) for p in above]
    top = torch.distributions.kl_divergence(below[-1], torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(rate[:, 0], top)
    for column, q, p, h in zip(rate[:, 1:].flip(1).T, below, above, draws):
        torch.testing.assert_close(column, (q.log_prob(h) - p.log_prob(h)).sum(1))


def test_samples_go_through_both_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, mean, covariance = two_linear_layers()
    monkeypatch.setattr(model.likelihood, "mean", lambda params: params)  # not brought into [0, 1]
    for temperature in (1.0, 0.5):
        drawn = model.sample(40_000, temperature=temperature).flatten(1)
        assert torch.allclose(drawn.mean(0), mean, atol=0.05)
        assert torch.allclose(drawn.T.cov(), temperature**2 * covariance, atol=0.05 * covariance.abs().max())


def test_dreg_is_refused_where_it_is_not_defined() -> None:
    with pytest.raises(UsageError, match="diagonal posterior"):
        iwae(gradient="doubly", posterior={"name": "planar"})
    with pytest.raises(UsageError, match="bound=iwae"):
        iwae(gradient="doubly", bound="vae")


def losses_of(x: Tensor, **settings) -> tuple[IWAE, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = iwae(k=6, **settings)
    torch.manual_seed(3)
    return model, model.losses(x)


def test_between_the_two_bounds_are_those_of_groups_and_of_a_share() -> None:
    x = bits(4)
    model, tight = losses_of(x)
    _, loose = losses_of(x, bound="vae")
    torch.manual_seed(3)
    log_w = model.log_weights(x, k=6)
    for groups in (1, 2, 3, 6):
        _, found = losses_of(x, bound="miwae", groups=groups)
        of_each = [part.exp().mean(0).log() for part in log_w.chunk(groups)]
        assert found["vae"].item() == pytest.approx(-torch.stack(of_each).mean().item(), rel=1e-12)
        assert tight["vae"] <= found["vae"] <= loose["vae"]
    for share in (0.0, 0.25, 1.0):
        _, found = losses_of(x, bound="ciwae", share=share)
        expected = share * loose["vae"].item() + (1 - share) * tight["vae"].item()
        assert found["vae"].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "settings",
    [{}, {"bound": "miwae", "groups": 2}, {"bound": "miwae", "groups": 3}, {"bound": "piwae", "groups": 2},
     {"bound": "ciwae", "share": 0.25}],
    ids=str,
)  # fmt: skip
def test_what_is_kept_goes_by_the_bound_that_is_trained_and_what_is_logged_is_the_elbo(settings: dict) -> None:
    model, x = iwae(k=6, **settings), bits()
    with torch.no_grad():
        model.head.bias.add_(1.0)  # a rate of some nats
        terms, found = model.terms(x), []
        for ask in (model.losses, lambda x: model.criterion(x, None, terms), lambda x: model.log_weights(x, k=6)):
            torch.manual_seed(3)
            found.append(ask(x))
    losses, criterion, log_w = found
    assert criterion.mean().item() == pytest.approx(-losses["vae"].item(), rel=1e-9)
    assert losses.terms.elbo.mean().item() == pytest.approx(log_w.mean().item(), rel=1e-9)
    assert losses.terms.rate.mean() > 0.5


@pytest.mark.parametrize("bound", ["iwae", "vae"])
@pytest.mark.parametrize("name", ["iwae", "hvae"])
def test_a_warm_up_weighs_the_rate_inside_of_every_sample_s_weight(name: str, bound: str) -> None:
    torch.manual_seed(0)
    sizes = SMALL if name == "iwae" else {"latent": 2, "lower": [3], "hidden": [[8], [8]]}
    model, x = create_model(name, data=BITS, k=6, bound=bound, **sizes).double(), bits(4)
    torch.manual_seed(3)
    if isinstance(model, HVAE):
        log_likelihood, log_ratio = model.parts(x, 6)
    else:
        z, log_q = model.infer(x).repeat(6).rsample()
        log_likelihood = model.log_likelihood(model.decode(z), x.repeat(6, 1, 1, 1)).view(6, 4)
        log_ratio = (model.prior.log_prob(z) - log_q).view(6, 4)
    for progress in (0.0, 0.25, 1.0):
        log_w = log_likelihood + progress * log_ratio
        expected = log_w.exp().mean(0).log() if bound == "iwae" else log_w.mean(0)
        torch.manual_seed(3)
        assert model.losses(x, None, progress)["vae"].item() == pytest.approx(-expected.mean().item(), rel=1e-12)


def test_piwae_trains_the_encoder_on_groups_and_the_rest_on_all_samples() -> None:
    x = bits(4)
    model, losses = losses_of(x, bound="piwae", groups=3, prior={"name": "diagonal"})
    members = model.parameter_groups()
    assert {id(one) for group in members.values() for one in group} == {id(one) for one in model.parameters()}
    names = {id(one): name for name, one in model.named_parameters()}
    for group, other in (("vae", {}), ("encoder", {"bound": "miwae", "groups": 3})):
        alone, expected = losses_of(x, prior={"name": "diagonal"}, **other)
        assert losses[group].item() == expected["vae"].item()
        expected["vae"].backward()
        gradients = dict(alone.named_parameters())
        for one, found in zip(members[group], torch.autograd.grad(losses[group], members[group], retain_graph=True)):
            torch.testing.assert_close(found, gradients[names[id(one)]].grad)
    assert {names[id(one)].split(".")[0] for one in members["encoder"]} == {"encoder", "head"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bound": "miwae"}, "groups is for"),
        ({"groups": 2}, "groups is for"),
        ({"bound": "piwae", "groups": 4}, r"k \(6\) samples are not 4 groups"),
        ({"bound": "ciwae"}, "share is for"),
        ({"bound": "vae", "share": 0.5}, "share is for"),
        ({"bound": "miwae", "groups": 2, "gradient": "doubly"}, "bound=iwae"),
    ],
)
def test_a_bound_that_is_not_told_what_it_needs_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        iwae(k=6, **settings)


def test_glorot_s_weights_are_bounded_and_the_bias_is_the_mean_image() -> None:
    model = iwae(initial="glorot")
    x = bits(50)
    model.initialise(x)
    first = model.encoder.layers[0]
    bound = math.sqrt(6 / (16 + 8))
    assert 0.8 * bound < first.weight.abs().max() <= bound and not first.bias.any()
    assert torch.allclose(torch.sigmoid(model.decoder.output.bias), x.mean(0).flatten().clamp(0.001, 0.999))


def test_glorot_s_weights_leave_flows_the_identity_that_they_begin_as() -> None:
    model = iwae(initial="glorot", posterior={"name": "spline"}, prior={"name": "flow"})
    started = copy.deepcopy(model)
    model.initialise(bits(50))
    for part in ("posterior", "prior"):
        before = getattr(started, part).state_dict()
        assert all(torch.equal(value, before[key]) for key, value in getattr(model, part).state_dict().items())
    assert not torch.equal(model.head.weight, started.head.weight)


def test_stages_are_the_schedule_of_burda() -> None:
    stages = [[3**i, round(1e-3 * 10 ** (-i / 7), 7)] for i in range(8)]
    config = TrainConfig(epochs=3280, schedule="stages", stages=stages)
    rates = [learning_rate(config, step, 2 * 3280) for step in (0, 1, 2, 7, 8, 6559)]
    assert rates == [1e-3, 1e-3, stages[1][1], stages[1][1], stages[2][1], 1e-4]
    assert sum(length for length, _ in stages) == 3280


def test_new_settings_at_their_default_leave_the_key_of_a_run_alone() -> None:
    base = resolve("vae")
    assert "stages" not in base.identity()["train"]
    changed = resolve("vae", settings=["train.schedule=stages", "train.stages=[[1, 0.1]]"])
    assert changed.identity()["train"]["stages"] == [[1.0, 0.1]]
    assert RunConfig.model_validate(changed.identity()).identity() == changed.identity()


def test_adamnormgrad_does_not_see_the_size_of_a_gradient() -> None:
    moved = []
    for size in (1.0, 1000.0):
        parameter = torch.nn.Parameter(torch.zeros(3))
        group = Group("vae", [parameter], TrainConfig(optimizer="adamnormgrad", epsilon=0.1))
        for _ in range(2):
            parameter.grad = size * torch.tensor([3.0, 4.0, 0.0])
            group.step()
        moved.append(copy.deepcopy(parameter.detach()))
    assert torch.allclose(moved[0], moved[1]) and moved[0][0] < 0


def test_adamnormgrad_divides_each_tensor_s_gradient_by_its_own_norm() -> None:
    small, large = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    group = Group("vae", [small, large], TrainConfig(optimizer="adamnormgrad", epsilon=0.1))
    for size, parameter in ((1.0, small), (1000.0, large)):
        parameter.grad = size * torch.tensor([3.0, 4.0, 0.0])
    group.step()
    assert torch.allclose(small, large) and small[0] < 0
