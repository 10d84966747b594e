"""The diffusion prior: estimates that are unbiased for what they are said to be, and draws that are the model's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from zoo import create_model, noise
from zoo.data.images import DataSpec
from zoo.distributions.diffusion import Chain
from zoo.errors import UsageError
from zoo.priors import DiffusionPrior, PriorSettings, make_prior

SPEC = DataSpec((1, 3, 3), "binary")
PRIOR = {"name": "diffusion", "hidden": 8, "steps": 6}
SMALL = {"latent": 2, "encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}, "prior": PRIOR}


def fresh(latent: int, steps: int, hidden: int = 8) -> DiffusionPrior:
    torch.manual_seed(0)
    return make_prior(PriorSettings(name="diffusion", steps=steps, hidden=hidden), latent).double()


def build(latent: int = 2, steps: int = 12) -> DiffusionPrior:
    """One whose weights are away from their start."""
    prior = fresh(latent, steps)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return prior.requires_grad_(False).eval()


def kept(steps: int) -> list[float]:
    """The share of a code's variance that is left, before the first step and after each."""
    return [1.0, *torch.sigmoid(torch.linspace(9.0, -6.0, steps, dtype=torch.float64)).tolist()]


def step(left: list[float], t: int) -> tuple[float, float, float]:
    """(a, b, w) of step t, from 1 on: what the mean and the variance of noise are, and the weight of f."""
    a2 = left[t] / left[t - 1]
    return math.sqrt(a2), 1 - a2, (1 - a2) * left[t - 1] / (1 - left[t])


def normal(z: Tensor, mean: Tensor | float = 0.0, variance: float = 1.0) -> Tensor:
    """log N(z; mean, variance), elementwise."""
    return -0.5 * (math.log(2 * math.pi * variance) + (z - mean).square() / variance)


def assert_mean(values: Tensor, expected: float | Tensor, slack: float = 1e-6) -> None:
    """The mean over the rows is within four and a half of its errors."""
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - expected).abs() <= 4.5 * error + slack).all(), (values.mean(0), expected, error)


# ---- any network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, 100])
def test_it_begins_as_the_standard_normal_on_every_path(steps: int) -> None:
    prior = fresh(3, steps)
    z = 2.0 * torch.randn(50, 3, dtype=torch.float64) + 1.0
    expected = normal(z).sum(1)
    torch.testing.assert_close(prior.log_prob(z), expected)
    torch.testing.assert_close(prior.log_bound(z), expected)
    for temperature in (1.0, 0.5):
        draws = prior.sample(4000, temperature)
        assert_mean(draws, 0.0)
        assert_mean(draws.square(), temperature**2)


def integrated(chain: Chain, steps: int, z: Tensor) -> Tensor:
    """p(z) (N,) of a chain of codes of one number: from the last layer down, each layer integrated on a grid."""
    left = kept(steps)

    def into(below: Tensor, above: Tensor, density: Tensor, t: int) -> Tensor:
        (a, b, w), width = step(left, t), above[..., 1:2] - above[..., :1]
        mean = a * above + math.sqrt(b * w) * chain.correction(above.reshape(-1, 1), t - 1).view_as(above)
        return (normal(below.unsqueeze(-1), mean, b).exp() * density * width).sum(-1)

    grid = torch.linspace(-9, 9, 1501, dtype=torch.float64)
    # The first step's noise is 0.01 wide, and has a grid of its own around each z.
    last = z.unsqueeze(1) + torch.linspace(-0.1, 0.1, 401, dtype=torch.float64)
    density, layers = normal(last if steps == 1 else grid).exp(), {1: last}
    for t in range(steps, 1, -1):
        below = layers.get(t - 1, grid)
        density = into(below.flatten(), grid, density, t).view_as(below)
    return into(z, last, density, 1)


@pytest.mark.parametrize("steps", [2, 3])
def test_weights_of_paths_average_to_the_density_and_bounds_of_k_come_up_to_it_from_below(steps: int) -> None:
    chain, z = build(1, steps).chain, torch.tensor([-1.5, 0.2, 1.0], dtype=torch.float64)
    exact = integrated(chain, steps, z)
    assert (exact.log() - normal(z)).abs().max() > 0.1
    logs = chain.log_weight(z.repeat(40_000).unsqueeze(1)).view(-1, 3)
    assert_mean(logs.exp(), exact, slack=1e-4)
    single, several = logs, logs.view(-1, 20, 3).logsumexp(1) - math.log(20)
    for bound in (single, several):
        assert (bound.mean(0) <= exact.log() + 4.5 * bound.std(0) / math.sqrt(len(bound)) + 1e-4).all()
    assert (several.mean(0) > single.mean(0)).all()


def test_a_few_random_steps_are_the_mean_of_whole_paths() -> None:
    steps, draws = 5, 40_000
    prior, left = build(2, steps), kept(steps)
    z = torch.tensor([0.8, -0.6], dtype=torch.float64)
    rows = z.expand(draws, -1)
    paths = prior.log_prob(rows)
    estimates = [prior.train(training).log_bound(rows) for training in (True, False)]
    # Every step of the chain, of which the estimate shows a few: E log p(z_{t-1} | z_t) / r(z_{t-1} | z_t) each.
    each = [normal(rows).sum(1)]
    for t in range(1, steps + 1):
        a, b, w = step(left, t)
        before = math.sqrt(left[t - 1]) * rows + math.sqrt(1 - left[t - 1]) * torch.randn_like(rows)
        after = a * before + math.sqrt(b) * torch.randn_like(rows)
        shift = math.sqrt(b * w) * prior.chain.correction(after, t - 1)
        each.append((normal(before, a * after + shift, b) - normal(before, a * after, b)).sum(1))
    assert sum(part.mean() for part in each[1:]).abs() > 0.5
    assert_mean(paths - sum(each), 0.0, slack=1e-5)
    for estimate in estimates:
        assert_mean(estimate - sum(each), 0.0, slack=1e-5)
        # Their exponentials are not alike: that of an estimate of a logarithm is no estimate of p(z).
        apart = estimate.exp() - paths.exp()
        assert apart.mean().abs() > 6 * apart.std() / math.sqrt(draws)


def test_steps_that_are_shown_are_one_of_each_equal_parts_with_noise_of_their_own_and_more_in_evaluation() -> None:
    steps, n, prior = 30, 500, build(2, 30)
    z, left = torch.randn(n, 2, dtype=torch.float64), torch.tensor(kept(steps), dtype=torch.float64)
    weights = torch.tensor([step(kept(steps), t)[2] for t in range(1, steps + 1)], dtype=torch.float64)
    upper = weights.cumsum(0) / weights.sum()
    lower, correction, seen = upper - weights / weights.sum(), prior.chain.correction, []
    prior.chain.correction = lambda noisy, t: (seen.append((noisy, t)), correction(noisy, t))[1]
    for training in (True, False):
        prior.train(training).log_bound(z)
    for noisy, t in seen:
        t, shown = t.view(n, -1), len(t) // n
        part = torch.arange(shown) / shown
        assert (upper[t] > part - 1e-6).all() and (lower[t] < part + 1 / shown + 1e-6).all()
        g = left[t + 1].unsqueeze(2)
        eps = (noisy.view(n, shown, 2) - g.sqrt() * z.unsqueeze(1)) / (1 - g).sqrt()
        assert_mean(eps.flatten().square(), 1.0)
        assert_mean((eps[:, 1:] * eps[:, :-1]).flatten(), 0.0)
    assert len(seen[0][1]) < len(seen[1][1])


def test_draws_have_the_density_that_the_weights_have() -> None:
    """The mean over draws of any function is its mean over standard normal codes, weighed."""
    prior, n = build(2, 12), 30_000
    draws, z = prior.sample(n), 2.0 * torch.randn(n, 2, dtype=torch.float64)
    weights = (prior.log_prob(z) - normal(z, 0.0, 2.0**2).sum(1)).exp()
    assert_mean(weights, 1.0)
    for moment in (lambda z: z, torch.square, lambda z: z.prod(1), lambda z: (z > 0.3).double()):
        here, there = moment(draws).view(n, -1), moment(z).view(n, -1) * weights.unsqueeze(1)
        assert_mean(here - there, 0.0)
    assert draws.mean(0).abs().max() > 0.1


def test_a_path_is_not_kept_where_no_gradient_is_asked_for_and_has_one_where_it_is() -> None:
    prior = fresh(2, 6)
    z = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    for ask in (prior.log_prob, prior.log_bound):
        gradients = torch.autograd.grad(ask(z).sum(), [z, prior.chain.output.weight])
        assert all(bool(gradient.any()) for gradient in gradients)
    with torch.no_grad():
        assert prior.log_prob(z).grad_fn is None
    assert not prior.sample(3).requires_grad


# ---- a network that knows --------------------------------------------------------------------------------------------


class Best(Chain):
    """The chain whose f is the mean that it should be, of codes from N(``centre``, ``spread``^2)."""

    centre, spread = 0.7, 0.4

    def line(self, t: int) -> tuple[float, float]:
        """f_t(z) = slope * z + offset, t from 1 on."""
        g = kept(len(self.steps))[t]
        learnt = math.sqrt(g) * self.spread**2 / (g * self.spread**2 + 1 - g)
        slope, offset = learnt - math.sqrt(g), self.centre * (1 - learnt * math.sqrt(g))
        return slope / math.sqrt(1 - g), offset / math.sqrt(1 - g)

    def correction(self, z: Tensor, t: int | Tensor) -> Tensor:
        lines = torch.tensor([self.line(step + 1) for step in range(len(self.steps))], dtype=z.dtype)
        slope, offset = lines[t].unsqueeze(-2).unbind(-1) if isinstance(t, int) else lines[t].unsqueeze(1).unbind(-1)
        return slope * z + offset


@pytest.mark.parametrize("steps", [3, 160])
def test_of_gaussian_codes_weights_and_draws_are_those_of_a_gaussian_in_closed_form(steps: int) -> None:
    chain, left = Best(1, steps, 8).double(), kept(steps)
    mean, variance = 0.0, 1.0
    for t in range(steps, 0, -1):
        (a, b, w), (slope, offset) = step(left, t), chain.line(t)
        slope, offset = a + math.sqrt(b * w) * slope, math.sqrt(b * w) * offset
        mean, variance = slope * mean + offset, slope**2 * variance + b
    draws = chain.sample(10_000)
    assert_mean(draws, mean)
    assert_mean((draws - mean).square(), variance)
    for z in torch.tensor([[0.2], [0.7], [1.3]], dtype=torch.float64):
        logs = chain.log_weight(z.expand(5000, -1))
        assert_mean(logs.exp(), normal(z, mean, variance).exp())
    if steps == 160:  # many small steps end where the codes are
        assert mean == pytest.approx(chain.centre, abs=0.01) and variance == pytest.approx(chain.spread**2, rel=0.05)


@pytest.mark.parametrize("steps", [20, 100])
def test_what_the_best_chain_loses_is_a_small_part_of_what_it_gains(steps: int) -> None:
    """On average it is ahead of the standard normal by half of sum w_t E f_t^2. Behind the truth it is because a step's
    variance is b_t and not the best one, which costs the less the more steps there are."""
    chain, left = Best(1, steps, 8).double(), kept(steps)
    z = chain.centre + chain.spread * torch.randn(8000, 1, dtype=torch.float64)
    gain, largest = 0.0, 0.0
    for t in range(1, steps + 1):
        (_, _, w), (slope, offset), g = step(left, t), chain.line(t), left[t]
        of_step = math.sqrt(g) * chain.centre
        second = (slope * of_step + offset) ** 2 + slope**2 * (g * chain.spread**2 + 1 - g)
        gain, largest = gain + 0.5 * w * second, max(largest, w if t > 1 else 0.0)
    truth = normal(z, chain.centre, chain.spread**2).sum(1)
    assert_mean(chain.log_weight(z) - normal(z).sum(1), gain)
    assert_mean(chain.log_bound(z) - normal(z).sum(1), gain)
    exact = 0.5 * (chain.spread**2 + chain.centre**2 - 1 - 2 * math.log(chain.spread))
    assert 0 < exact - gain < largest * exact
    assert_mean(truth - normal(z).sum(1), exact)


def test_it_learns_what_a_normal_prior_cannot_be() -> None:
    lobes = MixtureSameFamily(Categorical(torch.ones(2, 2)), Normal(torch.tensor([[-1.3, 1.3]]).expand(2, 2), 0.35))
    target = Independent(lobes, 1)
    prior = fresh(2, 20, 32).float()
    optimiser = torch.optim.Adam(prior.parameters(), lr=0.01)
    for _ in range(400):
        loss = -prior.log_bound(target.sample((128,))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        z = target.sample((4000,))
        behind = target.log_prob(z) - prior.log_prob(z)
        normals = target.log_prob(z) - normal(z).sum(1)
    error = behind.std() / math.sqrt(len(z))
    assert -4 * error < behind.mean() < 0.4 * normals.mean()


# ---- what is asked of a prior ----------------------------------------------------------------------------------------


def test_shapes_types_and_points_far_away() -> None:
    prior = build(3).float()
    for ask in (prior.log_prob, prior.log_bound):
        for shape in ((4, 5, 3), (7, 3), (3,)):
            assert ask(torch.randn(shape)).shape == shape[:-1]
        half = torch.randn(50, 3).bfloat16()
        found = []
        for z, inside in ((half, False), (half.float(), False), (half, True)):
            torch.manual_seed(1)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
                found.append(ask(z))
        assert found[0].dtype == torch.float32 and torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
        far = torch.tensor([[0.0, 0.0, 0.0], [1e5, -1e5, 1e5]], requires_grad=True)
        value = ask(far)
        assert value.isfinite().all() and torch.autograd.grad(value.sum(), far)[0].isfinite().all()
    double = build(3)
    z = torch.randn(5, 3, dtype=torch.float64)
    assert {double.log_prob(z).dtype, double.log_bound(z).dtype, double.sample(2).dtype} == {torch.float64}


def test_under_keyed_noise_each_code_has_its_own_numbers_whatever_is_asked_for_beside_it() -> None:
    prior, z = build(2), torch.randn(10, 2, dtype=torch.float64)
    asks = (prior.log_prob, prior.log_bound, lambda z: prior.sample(len(z)))
    for ask in asks:
        found = []
        for rows in (slice(0, 10), slice(0, 10), slice(4, 10)):
            with noise.keyed(3, torch.arange(10)[rows]):
                found.append(ask(z[rows]))
        assert torch.equal(found[0], found[1])
        torch.testing.assert_close(found[0][4:], found[2])
        with noise.keyed(4, torch.arange(10)):
            assert not torch.allclose(ask(z), found[0])


def test_temperature_zero_is_one_point_and_one_half_is_narrower() -> None:
    prior = build(2)
    cold, cool, warm = (prior.sample(4000, temperature) for temperature in (0.0, 0.5, 1.0))
    assert cold.std(0).max() < 1e-9 and cold.abs().max() > 1e-3
    assert (cool.std(0) < 0.9 * warm.std(0)).all()


@pytest.mark.parametrize("training", [False, True])
def test_log_weights_of_a_model_average_to_the_probability_of_an_image_in_either_mode(training: bool) -> None:
    torch.manual_seed(0)
    model = create_model("diffusion_vae", data=SPEC, **SMALL).double().requires_grad_(False).train(training)
    # So much that an exponential of the other estimate, `log_bound`, has another mean.
    torch.nn.init.normal_(model.prior.chain.output.weight, std=4.0)
    x = torch.rand(1, 1, 3, 3, dtype=torch.float64).round()
    n = 30_000
    means = model.sample(n)
    assert_mean(means.flatten(1).mean(1), means.mean().item())
    drawn = torch.where(x > 0.5, means, 1 - means).flatten(1).prod(1)
    weights = model.log_weights(x, k=n).squeeze(1)
    assert_mean(weights.exp() - drawn, 0.0)
    elbo = torch.cat([model.terms(x.expand(1000, -1, -1, -1)).elbo for _ in range(10)])
    assert elbo.mean() < drawn.mean().log()
    assert_mean(elbo - weights[: len(elbo)], 0.0)


def test_what_follows_from_the_settings_is_not_saved_with_what_is_learned() -> None:
    prior = build(3)
    assert set(prior.state_dict()) == {name for name, _ in prior.named_parameters()}


def test_a_density_to_follow_is_refused() -> None:
    with pytest.raises(UsageError, match="no density to follow"):
        build().density()
    with pytest.raises(UsageError, match="prior.name=diffusion .* has no gradient"):
        create_model("hamiltonian_vae", data=SPEC, prior={"name": "diffusion"})
    with pytest.raises(UsageError, match="prior.name=diffusion learns from the rate alone"):
        create_model("info_vae", data=SPEC, alpha=1.0, prior={"name": "diffusion"})


def test_the_upper_layer_of_a_hierarchy_may_have_it() -> None:
    torch.manual_seed(0)
    model = create_model("hvamp_vae", data=SPEC, latent=2, lower=2, hidden=[8, 8], prior=PRIOR).requires_grad_(False)
    torch.nn.init.normal_(model.prior.chain.output.weight, std=4.0)
    x = torch.rand(1, 1, 3, 3).round()
    n = 20_000
    elbo, weights = model.terms(x.expand(n, -1, -1, -1)).elbo, model.log_weights(x, k=n).squeeze(1)
    assert_mean(elbo - weights, 0.0)
    drawn = model.sample(n)
    drawn = torch.where(x > 0.5, drawn, 1 - drawn).flatten(1).prod(1)
    assert_mean(weights.exp() - drawn, 0.0)
    assert elbo.mean() < drawn.mean().log()
