"""The disentangling relatives of the VAE, each against what its objective is known to be."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from zoo import create_model
from zoo.data.images import DataSpec
from zoo.distributions.aggregate import aggregate, log_weights
from zoo.distributions.gaussians import DiagonalGaussian, log_normal
from zoo.errors import UsageError
from zoo.models.base import Terms
from zoo.models.dip_vae import covariance, departure
from zoo.models.factor_vae import FactorVAE, shuffle
from zoo.models.info_vae import discrepancy, sliced_distance

SPEC = DataSpec((1, 4, 4), "binary")
SMALL = {"latent": 3, "encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}}


def make(name: str, **settings):
    return create_model(name, data=SPEC, **SMALL | settings).double()


def bits(n: int = 8) -> Tensor:
    return torch.randint(0, 2, (n, 1, 4, 4)).double()


def codes(n: int, dims: int = 3) -> tuple[Tensor, DiagonalGaussian]:
    q = DiagonalGaussian(torch.randn(n, dims).double(), 0.5 * torch.randn(n, dims).double() - 1)
    return q.rsample()[0], q


def exact(z: Tensor, q: DiagonalGaussian) -> tuple[Tensor, Tensor]:
    """log q(z) (B,) and log q(z_d) (B, D) of the mixture of all q."""
    each = log_normal(z.unsqueeze(1), q.mean, q.log_variance)
    count = math.log(len(q.mean))
    return torch.logsumexp(each.sum(2), 1) - count, torch.logsumexp(each, 1) - count


# ---- q(z) ------------------------------------------------------------------------------------------------------------


def test_weights_sum_to_one_and_the_draw_s_own_example_counts_as_one_of_n() -> None:
    weights = log_weights(6, 100, "mss").exp()
    assert torch.allclose(weights.sum(1), torch.ones(6, dtype=weights.dtype))
    assert torch.allclose(weights.diagonal(), torch.full((6,), 0.01, dtype=weights.dtype))
    assert len(weights[~torch.eye(6, dtype=torch.bool)].unique()) == 1
    assert torch.allclose(log_weights(6, 100, "mws").exp().sum(1), torch.ones(6))


@pytest.mark.parametrize("estimator", ["mss", "mws"])
def test_a_batch_that_is_the_data_gives_the_exact_aggregate(estimator: str) -> None:
    z, q = codes(7)
    found = aggregate(z, q, 7, estimator)
    joint, marginals = exact(z, q)
    assert torch.allclose(found.joint, joint) and torch.allclose(found.marginals, marginals)
    assert torch.allclose(found.total_correlation, joint - marginals.sum(1))


def test_over_all_batches_stratified_sampling_is_unbiased_and_weighted_is_not() -> None:
    z, q = codes(6)
    joint, marginals = exact(z, q)
    for estimator, unbiased in (("mss", True), ("mws", False)):
        sums = [torch.zeros(6).double(), torch.zeros(6, 3).double(), torch.zeros(6)]
        for members in itertools.combinations(range(6), 3):
            index = torch.tensor(members)
            part = DiagonalGaussian(q.mean[index], q.log_variance[index])
            found = aggregate(z[index], part, 6, estimator)
            sums[0][index] += found.joint.exp()
            sums[1][index] += found.marginals.exp()
            sums[2][index] += 1
        means = sums[0] / sums[2], sums[1] / sums[2].unsqueeze(1)
        for mean, log in zip(means, (joint, marginals), strict=True):
            assert torch.allclose(mean, log.exp()) == unbiased


def test_the_total_correlation_of_an_independent_code_is_near_nothing() -> None:
    grid = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).double()
    q = DiagonalGaussian(grid, torch.full_like(grid, -3.0))
    assert abs(aggregate(q.rsample()[0], q, 64).total_correlation.mean()) < 1e-6
    tied = DiagonalGaussian(grid[:, :1].expand(-1, 2), torch.full_like(grid, -3.0))
    # Two dimensions that say the same thing share log 8 nats (and what their noise smooths away).
    assert aggregate(tied.rsample()[0], tied, 64).total_correlation.mean() > 0.8 * math.log(8)


# ---- the five objectives ---------------------------------------------------------------------------------------------


def test_beta_tcvae_with_unit_weights_is_a_vae_and_beta_weighs_the_total_correlation() -> None:
    x = bits(12)
    losses = {}
    for beta in (1.0, 3.0):
        torch.manual_seed(0)
        model = make("beta_tcvae", beta=beta)
        torch.manual_seed(1)
        found = model.losses(x)
        losses[beta] = found["vae"].item()
        assert beta != 1.0 or losses[beta] == pytest.approx(-found.terms.elbo.mean().item(), rel=1e-9)
    torch.manual_seed(1)
    q = model.infer(x)
    total = aggregate(q.rsample()[0], q, 12).total_correlation.mean().item()
    assert losses[3.0] - losses[1.0] == pytest.approx(2 * total, rel=1e-9)
    model.train_size = 1000
    torch.manual_seed(1)
    assert model.losses(x)["vae"].item() != losses[3.0], "the size of the data set is in the weights"


@pytest.mark.parametrize("name", ["beta_tcvae", "dip_vae", "s2_beta_tcvae", "s2_dip_vae"])
def test_what_is_computed_from_diagonal_posteriors_refuses_others(name: str) -> None:
    with pytest.raises(UsageError, match="diagonal posterior"):
        make(name, posterior={"name": "planar"})


@pytest.mark.parametrize("estimator", ["mss", "mws"])
def test_beta_tcvae_weighs_each_of_its_three_parts_by_its_own_weight(estimator: str) -> None:
    model, x = make("beta_tcvae", alpha=0.5, beta=3.0, gamma=2.0, estimator=estimator), bits(12)
    model.train_size = 1000
    torch.manual_seed(1)
    found = model.losses(x, None, 0.25)
    torch.manual_seed(1)
    q = model.infer(x)
    z, log_q = q.rsample()
    of_all = aggregate(z, q, 1000, estimator)
    information, dimensions = log_q - of_all.joint, of_all.marginals.sum(1) - model.prior.log_prob(z)
    rate = 0.5 * information + 3.0 * of_all.total_correlation + 2.0 * dimensions
    expected = (found.terms.distortion + 0.25 * rate).mean()
    assert found["vae"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_optimal_discriminator_of_factor_vae_gives_the_total_correlation() -> None:
    torch.manual_seed(0)
    rho = 0.8
    z = torch.randn(4000, 2)
    z[:, 1] = rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]
    shuffled = shuffle(z, torch.rand_like(z))
    assert abs(torch.corrcoef(shuffled.T)[0, 1]) < 0.06
    assert torch.equal(shuffled.sort(0).values, z.sort(0).values)
    model: FactorVAE = create_model("factor_vae", data=SPEC, **SMALL | {"latent": 2}, judge=[32, 32])
    # Whatever the images, these are their codes.
    model.terms = lambda x, y: Terms(z[:, 0], z[:, :1], {"z": z})
    optimizer = torch.optim.Adam(model.discriminator.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.losses(z)["discriminator"].backward()
        optimizer.step()
    assert model.discriminator(z).mean().item() == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.12)


def test_factor_vae_s_two_losses_leave_each_other_alone() -> None:
    model, x = make("factor_vae", gamma=2.0), bits(9)
    losses = model.losses(x)
    own = {id(parameter) for parameter in model.discriminator.parameters()}
    losses["discriminator"].backward()
    moved = {id(parameter) for parameter in model.parameters() if parameter.grad is not None}
    assert moved == own and losses["discriminator"].item() == pytest.approx(math.log(2), abs=0.1)
    terms = losses.terms
    expected = (terms.distortion + terms.rate.sum(1) + 2.0 * terms.aux["total_correlation"]).mean()
    assert losses["vae"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_annealed_vae_pays_for_distance_from_its_capacity_on_both_sides() -> None:
    model, x = make("annealed_vae", capacity=7.0, gamma=3.0), bits()
    for progress in (0.0, 0.5, 1.0):
        losses = model.losses(x, None, progress)
        rate = losses.terms.rate.sum(1).mean().item()
        expected = losses.terms.distortion.mean().item() + 3.0 * abs(rate - 7.0 * progress)
        assert losses["vae"].item() == pytest.approx(expected, rel=1e-9)


def test_dip_vae_takes_the_covariance_of_the_means_or_of_the_draws() -> None:
    q = DiagonalGaussian(torch.randn(500, 3).double() @ torch.randn(3, 3).double(), torch.randn(500, 3).double())
    of_means, of_draws = covariance(q, "I"), covariance(q, "II")
    assert torch.allclose(of_means, torch.cov(q.mean.T, correction=0))
    draws = torch.cat([q.rsample()[0] for _ in range(200)])
    assert torch.allclose(of_draws, torch.cov(draws.T, correction=0), atol=0.1)
    assert departure(torch.eye(3), 10.0, 10.0) == 0
    matrix = torch.tensor([[3.0, 0.5], [0.5, 1.0]])
    assert departure(matrix, 10.0, 2.0).item() == pytest.approx(10 * 2 * 0.25 + 2 * 4)
    for version in ("I", "II"):
        model, x = make("dip_vae", version=version, off_diagonal=30.0, diagonal=2.0), bits()
        found = model.losses(x)
        penalty = departure(covariance(model.infer(x), version), 30.0, 2.0)
        assert found["vae"].item() == pytest.approx((-found.terms.elbo.mean() + penalty).item(), rel=1e-9)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_discrepancy_is_unbiased_and_sees_a_shift(kernel: str) -> None:
    draws = [discrepancy(torch.randn(40, 3), torch.randn(40, 3), kernel).item() for _ in range(200)]
    mean = sum(draws) / len(draws)
    spread = torch.tensor(draws).std().item() / math.sqrt(len(draws))
    assert abs(mean) < 4 * spread and min(draws) < 0
    assert discrepancy(torch.randn(200, 3) + 1.0, torch.randn(200, 3), kernel) > 0.05
    # Two points that are further apart by the width of the kernel, 2 D.
    near, far = torch.zeros(2, 3), torch.full((2, 3), math.sqrt(2.0))
    between = 0.5 if kernel == "imq" else math.exp(-1)
    assert discrepancy(near, far, kernel).item() == pytest.approx(2 - 2 * between, rel=1e-6)
    if kernel == "rbf":
        # E k(a, b) of standard normals in closed form: (1 + 4 / (2 D))^(-D/2).
        a, b = torch.randn(3000, 3), torch.randn(3000, 3) + 1.0
        same, far = (1 + 4 / 6) ** -1.5, (1 + 4 / 6) ** -1.5 * math.exp(-3 / (6 + 4))
        assert discrepancy(a, b, kernel).item() == pytest.approx(2 * same - 2 * far, abs=0.02)


def test_the_sliced_distance_is_the_mean_over_lines_of_sorted_differences() -> None:
    a, lines, shift = torch.randn(50, 3), torch.randn(20, 3), torch.tensor([1.0, -2.0, 0.5])
    units = lines / lines.norm(dim=1, keepdim=True)
    shuffled = (a + shift)[torch.randperm(50)]
    assert sliced_distance(a, shuffled, lines).item() == pytest.approx((units @ shift).square().mean().item(), rel=1e-5)
    line = a[:, :1]
    squares = (line.sort(0).values - (2 * line + 1).sort(0).values).square().mean().item()
    assert sliced_distance(line, 2 * line + 1, torch.tensor([[3.0], [-0.1]])).item() == pytest.approx(squares, rel=1e-5)
    # Of Gaussians (u m)^2 + (s - t)^2 along u, where both are round.
    a, b = torch.randn(40_000, 3), 1.5 * torch.randn(40_000, 3) + shift
    expected = (units @ shift).square().mean().item() + 0.25
    assert sliced_distance(a, b, lines).item() == pytest.approx(expected, rel=0.02)


def test_an_energy_that_no_loss_would_move_is_refused() -> None:
    with pytest.raises(UsageError, match="needs alpha below 1"):
        make("info_vae", alpha=1.0, prior={"name": "energy"})
    model = make("info_vae", alpha=0.9, prior={"name": "energy"})
    gradients = torch.autograd.grad(model.losses(bits())["vae"], [*model.prior.parameters()])
    assert all(bool((gradient != 0).any()) for gradient in gradients)


def test_info_vae_trades_the_rate_for_the_discrepancy() -> None:
    x = bits()
    torch.manual_seed(0)
    model = make("info_vae", alpha=1.0, scale=0.0)
    found = model.losses(x)
    assert found["vae"].item() == pytest.approx(found.terms.distortion.mean().item(), rel=1e-9)
    model = make("info_vae", alpha=0.0, scale=1.0)
    found = model.losses(x)
    assert found["vae"].item() == pytest.approx(-found.terms.elbo.mean().item(), rel=1e-9)


@pytest.mark.parametrize("kernel", ["rbf", "imq", "sliced"])
def test_info_vae_weighs_the_distance_and_its_gradient_reaches_the_encoder(kernel: str) -> None:
    model, x = make("info_vae", alpha=0.25, scale=5.0, kernel=kernel), bits()
    torch.manual_seed(1)
    found = model.losses(x)["vae"]
    torch.manual_seed(1)
    terms = model.terms(x)
    z, draws = terms.aux["z"], model.prior.sample(len(x))
    sliced = kernel == "sliced"
    distance = sliced_distance(z, draws, torch.randn_like(z)) if sliced else discrepancy(z, draws, kernel)
    expected = (terms.distortion + 0.75 * terms.rate.sum(1)).mean() + 4.25 * distance
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    given, wanted = (torch.autograd.grad(loss, model.head.weight)[0] for loss in (found, expected))
    torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize("kernel", ["rbf", "imq", "sliced"])
def test_info_vae_s_distance_is_from_its_own_prior(kernel: str) -> None:
    model = make("info_vae", kernel=kernel, prior={"name": "diagonal"})
    with torch.no_grad():
        model.prior.mean.fill_(2.0)
        z = model.prior.sample(300)
        assert abs(model.distance(z).item()) < 0.1 * model.distance(z - 2.0).item()
