"""The flow that is fitted to codes, against densities that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zoo import noise
from zoo.distributions import code_flow
from zoo.distributions.code_density import CodeDensity, CodeDensitySettings
from zoo.distributions.code_flow import FEWEST, WIDEST, CodeFlow, CodeFlowSettings
from zoo.errors import UsageError
from zoo.stopping import Stopped, stopping_when

MIX = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.4, 2.0]])
SHIFT = torch.tensor([5.0, 0.0, -1.0])


def normals(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def gaussian(n: int, seed: int = 0) -> Tensor:
    return SHIFT + normals(n, 3, seed) @ MIX.T


def curve(n: int, seed: int = 0) -> Tensor:
    """Along a parabola, whose density is known: z_2 is z_1 squared and a little noise."""
    u = normals(n, 2, seed)
    return torch.stack([u[:, 0], u[:, 0].square() + 0.3 * u[:, 1]], 1)


def log_curve(z: Tensor) -> Tensor:
    u = torch.stack([z[:, 0], (z[:, 1] - z[:, 0].square()) / 0.3], 1)
    return -0.5 * u.square().sum(1) - math.log(2 * math.pi) - math.log(0.3)


def flow(latent: int, flows: int = 2) -> CodeFlow:
    return CodeFlow(CodeFlowSettings(flows=flows, hidden=32), latent)


def fitted(codes: Tensor, steps: int, made: CodeFlow | None = None) -> CodeFlow:
    made = made or flow(codes.shape[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_flow, "STEPS", steps)
        made.fit(codes)
    return made


@pytest.fixture(scope="module")
def curved() -> CodeFlow:
    return fitted(curve(5000), 200)


def test_of_codes_of_a_gaussian_it_is_that_gaussian() -> None:
    made, unseen = fitted(gaussian(5000), 100), gaussian(5000, seed=1)
    truth = torch.distributions.MultivariateNormal(SHIFT, scale_tril=MIX)
    gap = truth.log_prob(unseen).mean() - made.log_prob(unseen).mean()
    assert -0.01 < gap.item() < 0.03
    drawn = made.sample(4000)
    assert torch.allclose(drawn.mean(0), SHIFT, atol=0.15)
    assert torch.allclose(torch.cov(drawn.T), MIX @ MIX.T, atol=0.3)


def test_it_follows_a_curve_that_one_gaussian_does_not(curved: CodeFlow) -> None:
    unseen = curve(5000, seed=1)
    one = CodeDensity(CodeDensitySettings(components=1), 2)
    one.fit(curve(5000))
    truth, found, plain = (
        log_prob(unseen).mean().item() for log_prob in (log_curve, curved.log_prob, one.log_prob)
    )
    assert truth - 0.1 < found < truth + 0.01 and plain < truth - 1


def test_the_density_integrates_to_one_and_is_what_is_drawn(curved: CodeFlow) -> None:
    axes = torch.linspace(-7, 7, 281), torch.linspace(-5, 30, 701)
    cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    grid = torch.cartesian_prod(*axes)
    mass = (curved.log_prob(grid).double().exp() * cell).unsqueeze(1)
    assert mass.sum().item() == pytest.approx(1, abs=5e-3)
    torch.manual_seed(0)
    drawn = curved.sample(20_000).double()
    mean = (mass * grid).sum(0)
    covariance = (mass * (grid - mean)).T @ (grid - mean).double()
    assert torch.allclose(drawn.mean(0), mean, atol=0.05)
    assert torch.allclose(torch.cov(drawn.T), covariance, rtol=0.1, atol=0.05)


def test_codes_in_other_units_have_the_same_density_in_those_units() -> None:
    one, other = (fitted(scale * curve(1000) + shift, 30) for scale, shift in ((1, 0), (100, -7)))
    unseen = curve(1000, seed=1)
    found = other.log_prob(100 * unseen - 7) + 2 * math.log(100)
    assert torch.allclose(found, one.log_prob(unseen), atol=0.05)


def test_a_draw_is_where_the_flow_carries_noise_back_to_and_the_temperature_scales_that_noise(
    curved: CodeFlow,
) -> None:
    for temperature in (1.0, 0.3, 0.0):
        with noise.keyed(3, torch.arange(200)):
            z = curved.sample(200, temperature)
        with noise.keyed(3, torch.arange(200)):
            u = temperature * noise.normal(torch.empty(200, 2))
        there = z.clone().requires_grad_()
        carried = (there - curved.mean) / curved.deviation
        for step in curved.steps.transforms:
            carried = step(None)(carried)
        assert torch.allclose(carried, u, atol=1e-3)
        slopes = torch.stack([torch.autograd.grad(carried[:, d].sum(), there, retain_graph=True)[0] for d in (0, 1)], 1)
        expected = torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(1) + torch.linalg.slogdet(slopes)[1]
        assert torch.allclose(curved.log_prob(z), expected, atol=5e-3)


def test_before_it_is_fitted_it_is_the_standard_normal() -> None:
    z = normals(50, 4)
    assert torch.allclose(flow(4).log_prob(z), torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1), atol=1e-5)
    with noise.keyed(0, torch.arange(5)):
        drawn = flow(4).sample(5)
    with noise.keyed(0, torch.arange(5)):
        assert torch.allclose(drawn, noise.normal(drawn), atol=1e-6)


def test_a_fit_is_the_same_each_time_and_leaves_the_generator_and_the_threads_alone() -> None:
    codes, made, before = curve(300), [], torch.get_num_threads()
    for seed, threads, used in ((0, 1, None), (1, 2, fitted(normals(300, 2), 10))):
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        made.append(fitted(codes, 30, used).state_dict())
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(seed)))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())
    changed = fitted(curve(300, seed=1), 30).state_dict()
    assert not torch.equal(made[0]["steps.transforms.0.hyper.0.weight"], changed["steps.transforms.0.hyper.0.weight"])


def test_a_dimension_that_does_not_vary_is_a_narrow_gaussian_of_its_own() -> None:
    codes, unseen = curve(2000), curve(500, seed=1)
    made, plain = (fitted(part, 60) for part in (torch.nn.functional.pad(codes, (1, 0), value=7.0), codes))
    with_it = torch.nn.functional.pad(unseen, (1, 0), value=7.0)
    narrow = -0.5 * math.log(2 * math.pi * code_flow.FLOOR)
    assert made.log_prob(with_it).mean().item() == pytest.approx(plain.log_prob(unseen).mean().item() + narrow, abs=0.5)
    drawn = made.sample(200)
    assert drawn.isfinite().all() and torch.allclose(drawn[:, 0], torch.full((200,), 7.0), atol=0.01)


def test_codes_that_are_all_one_or_one_of_two_have_no_infinite_density() -> None:
    for codes in (torch.ones(100, 2), torch.tensor([[1.0, 2.0], [3.0, -1.0]]).repeat(100, 1)):
        made = fitted(codes, 60)
        assert (made.log_prob(codes).mean() < -math.log(2 * math.pi * code_flow.FLOOR) + 0.5).all()
        assert made.sample(50).isfinite().all() and made.log_prob(made.sample(50)).isfinite().all()


def test_of_few_codes_no_more_is_learnt_than_holds_for_others() -> None:
    few, unseen = normals(60, 6), normals(2000, 6, seed=1)
    gain = fitted(few, 1000).log_prob(unseen).mean() - flow(6).log_prob(unseen).mean()
    assert gain.item() > -1.5


def test_of_one_dimension_it_is_the_gaussian_of_the_codes() -> None:
    codes = 3 + 2 * normals(500, 1)
    made = fitted(codes, 10)
    expected = torch.distributions.Normal(codes.mean(), codes.std()).log_prob(codes).squeeze(1)
    assert torch.allclose(made.log_prob(codes), expected, atol=1e-4)
    assert made.sample(2000).std().item() == pytest.approx(2, rel=0.1)


def test_a_stop_in_the_middle_of_a_fit_which_has_one_thread_is_heard() -> None:
    threads, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        should_stop = lambda: threads.append(torch.get_num_threads()) or len(threads) == 5  # noqa: E731
        with stopping_when(should_stop), pytest.raises(Stopped, match="while a flow was fitted"):
            fitted(curve(300), 100)
        assert threads == [1] * 5 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_a_flow_cannot_be_fitted_to_is_refused() -> None:
    with pytest.raises(UsageError, match=f"its codes have {WIDEST + 1} dimensions; {WIDEST} is the most for a flow"):
        flow(WIDEST + 1)
    with pytest.raises(UsageError, match=f"needs at least {FEWEST} training images, and there are {FEWEST - 1}"):
        flow(2).fit(normals(FEWEST - 1, 2))
    made = fitted(normals(FEWEST, 2), 5)
    assert made.log_prob(normals(5, 2)).isfinite().all()
