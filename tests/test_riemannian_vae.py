"""The metric against derivatives, and the steps that follow it against the Hamiltonian VAE and a linear model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.evidence import is_the_mean_weight
from tests.test_hamiltonian_vae import SMALL, SPEC, bits
from tests.test_oracles import data, solved
from zoo import create_model, noise
from zoo.data.synthetic import ppca_log_prob
from zoo.distributions.metric import CodeMetric, MetricAt, squares
from zoo.errors import UsageError
from zoo.models.riemannian_vae import RiemannianVAE


def make(latent: int = 2, **settings: Any) -> RiemannianVAE:
    """A small model in float64 whose metric depends on the code, with another step size in each dimension."""
    torch.manual_seed(0)
    settings = {"centroids": 4, "temperature": 1.5, **settings}
    model = create_model("riemannian_vae", data=SPEC, latent=latent, **SMALL, **settings).double()
    model.initialise(torch.rand(9, 1, 4, 4).round().double())
    with torch.no_grad():
        model.decoder.output.weight.mul_(6.0)
        model.free_step.add_(torch.linspace(-0.5, 0.5, latent))
        torch.nn.init.normal_(model.metric_head.weight, std=0.3)
        model.head.weight.mul_(3.0)
    return model.eval()


def some_metric(size: int = 3, floor: float = 0.3) -> CodeMetric:
    torch.manual_seed(1)
    matrices = squares(0.5 * torch.randn(5, size * (size + 1) // 2).double(), size)
    return CodeMetric(torch.randn(5, size).double(), matrices, 1.5, floor)


def inverse_at(found: CodeMetric, z: Tensor) -> Tensor:
    """The sum that defines the inverse metric at z (D,), term by term."""
    total = found.floor * torch.eye(len(z)).double()
    for centroid, matrix in zip(found.centroids, found.matrices):
        total = total + torch.exp(-((z - centroid) ** 2).sum() / found.temperature**2) * matrix
    return total


# ---- the metric ------------------------------------------------------------------------------------------------------


def test_the_factor_is_that_of_the_sum_and_far_away_the_floor_is_all_there_is() -> None:
    found, z = some_metric(), torch.randn(6, 3).double()
    here, inverse = found.at(z), torch.stack([inverse_at(found, each) for each in z])
    assert (here.factor.triu(1) == 0).all() and (here.factor.diagonal(dim1=1, dim2=2) > 0).all()
    torch.testing.assert_close(here.factor @ here.factor.mT, inverse)
    torch.testing.assert_close(here.log_volume, 0.5 * torch.logdet(inverse))
    torch.testing.assert_close(found.at(z + 1e3).inverse, 0.3 * torch.eye(3).double().expand(6, -1, -1))


def test_the_energy_s_gradients_are_those_of_autograd() -> None:
    found = some_metric()
    z, rho = torch.randn(2, 6, 3).double().unbind(0)
    z.requires_grad_(), rho.requires_grad_()
    inverse = torch.stack([inverse_at(found, each) for each in z])
    energy = 0.5 * torch.einsum("bi,bij,bj->", rho, inverse, rho) - 0.5 * torch.logdet(inverse).sum()
    of_z, of_rho = torch.autograd.grad(energy, (z, rho))
    torch.testing.assert_close(found.at(z).pull(rho), of_z)
    torch.testing.assert_close(found.at(z).velocity(rho), of_rho)
    assert of_z.abs().max() > 0.1


def test_free_numbers_are_the_logarithms_of_the_diagonal_and_what_is_below_it() -> None:
    made = squares(torch.tensor([[0.0, math.log(2), math.log(3), 5.0, 6.0, 7.0]]), 3)
    root = torch.tensor([[1.0, 0, 0], [5, 2, 0], [6, 7, 3]])
    torch.testing.assert_close(made, (root @ root.T)[None])


def test_no_half_precision_gets_into_the_metric() -> None:
    found = some_metric()
    single = CodeMetric(found.centroids.float(), found.matrices.float(), 1.5, 0.3)
    z, rho = torch.randn(2, 4, 3).unbind(0)

    def answers() -> list[Tensor]:
        here = single.at(z)
        return [here.inverse, here.factor, here.log_volume, here.velocity(rho), here.pull(rho)]

    expected = answers()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (z @ z.T).dtype == torch.bfloat16
        assert all(torch.equal(before, within) for before, within in zip(expected, answers(), strict=True))


# ---- the steps -------------------------------------------------------------------------------------------------------


def test_the_volume_is_that_of_the_jacobian() -> None:
    model, x = make(steps=3, beta_0=0.3), bits(1)
    found = model.metric()

    def all_of(numbers: Tensor) -> Tensor:
        z, came, _ = model.carry(found, numbers[None, :2], numbers[2:].view(1, 3, 2), x)
        return torch.cat([z.flatten(), came.flatten()])

    volumes = []
    for numbers in torch.randn(3, 8).double():
        matrix = torch.autograd.functional.jacobian(all_of, numbers)
        volumes.append(model.carry(found, numbers[None, :2], numbers[2:].view(1, 3, 2), x)[2].item())
        assert torch.linalg.slogdet(matrix)[1].item() == pytest.approx(volumes[-1], abs=1e-9)
    assert max(map(abs, volumes)) > 0.05


@pytest.mark.parametrize("tempering", ["none", "quadratic"])
def test_where_the_metric_is_flat_it_is_the_hamiltonian_vae(tempering: str) -> None:
    """The copies are then where they began, and cost nothing: draw by draw it is the same bound."""
    model, x = make(3, floor=1.0, tempering=tempering), bits(8)
    with torch.no_grad():
        model.metric_head.weight.zero_()
        model.metric_head.bias.zero_()
        model.metric_head.bias[:3] = -1e3
    other = create_model("hamiltonian_vae", data=SPEC, latent=3, **SMALL, steps=3, tempering=tempering)
    other = other.double().eval()
    beside = ("metric_head.", "free_inputs")
    other.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith(beside)})
    z, drawn = torch.randn(8, 3).double(), torch.randn(8, 3, 3).double()
    expected = other.leapfrog(z, drawn[:, 0], x)
    there, came, volume = model.carry(model.metric(), z, drawn, x)
    assert (there - z).abs().max() > 0.1
    torch.testing.assert_close(there, expected[0])
    torch.testing.assert_close(came, torch.stack([expected[1], drawn[:, 1], drawn[:, 2]], 1))
    torch.testing.assert_close(volume, torch.zeros(8).double())
    torch.testing.assert_close(model.represent(x), other.represent(x))


def linear(x: Tensor, **settings: Any) -> tuple[RiemannianVAE, Tensor]:
    """The maximum-likelihood model of x (N, D) with a wrong posterior of z_0 and a metric that bends, and log p(x)."""
    vanilla = solved(x, shift=0.3, widen=0.7)
    parts = {"encoder": {"hidden": []}, "decoder": {"hidden": []}, "centroids": 5, "temperature": 2.0, "floor": 0.3}
    torch.manual_seed(0)
    model = create_model("riemannian_vae", data="ppca", latent=3, **parts, **settings).double()
    model.initialise(x.view(len(x), 1, 1, -1))
    model.load_state_dict(vanilla.state_dict(), strict=False)
    torch.nn.init.normal_(model.metric_head.weight, std=0.05)
    output, s2 = vanilla.decoder.output, vanilla.likelihood.sigma.double() ** 2
    return model.requires_grad_(False), ppca_log_prob(x, output.weight, output.bias, s2)


@pytest.mark.parametrize("whatever", [False, True], ids=["metric", "anything"])
def test_it_is_a_bound_whatever_moves_what(whatever: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x = data()[:16]
    model, evidence = linear(data(), beta_0=0.9, steps=2, step_size=0.04)
    if whatever:
        model.force = lambda z, x, _: 0.3 * torch.sign(z) - 0.3 * z.flip(1).sin()
        monkeypatch.setattr(MetricAt, "pull", lambda self, rho: 0.3 * (self.z + rho).cos())
        monkeypatch.setattr(MetricAt, "velocity", lambda self, rho: 0.3 * self.z.sin() * rho.flip(1))
    torch.manual_seed(3)
    weights = model.log_weights(x.view(16, 1, 1, -1), k=5000)
    is_the_mean_weight(evidence[:16], weights)
    assert (weights.mean(0) < evidence[:16]).all()


def test_energy_is_kept_to_the_second_order_of_the_step_size_where_the_copies_begin_together() -> None:
    x = bits()
    torch.manual_seed(5)
    z = torch.randn(5, 2).double()
    drawn = torch.cat([torch.randn(5, 1, 2), torch.zeros(5, 2, 2)], 1).double()
    lost, copies = [], []
    for steps in (8, 16, 32):
        model = make(tempering="none", steps=steps, step_size=0.8 / steps)
        with torch.no_grad():
            model.free_step.fill_(math.log(0.8 / steps / (0.5 - 0.8 / steps)))
        found = model.metric()

        def energy(z: Tensor, gamma: Tensor) -> Tensor:
            joint = model.log_likelihood(model.decode(z), x) + model.prior.log_prob(z)  # noqa: B023
            return 0.5 * gamma.square().sum(1) - found.at(z).log_volume - joint  # noqa: B023

        there, came, _ = model.carry(found, z, drawn, x)
        lost.append((energy(there, came[:, 0]) - energy(z, drawn[:, 0])).abs().mean().item())
        copies.append(came[:, 1:].norm().item())
    assert lost[0] > 1e-3
    assert lost[0] / lost[1] == pytest.approx(4, rel=0.25) and lost[1] / lost[2] == pytest.approx(4, rel=0.1)
    assert copies[0] > 2 * copies[1] > 4 * copies[2] > 0


def test_the_gradient_of_the_loss_is_that_of_finite_differences() -> None:
    model, x = make(steps=2), bits(3)
    with torch.no_grad():
        model.free_inputs.uniform_(0.2, 0.8)
    asked = [model.free_step, model.metric_head.bias, model.free_inputs, model.head.bias, model.decoder.output.bias]

    def loss(*_: Tensor) -> Tensor:
        with noise.keyed(0, torch.arange(3)):
            return model.losses(x)["vae"]

    assert torch.autograd.gradcheck(loss, asked)


# ---- the model -------------------------------------------------------------------------------------------------------


def test_the_centroids_are_the_codes_of_pseudo_inputs_that_begin_at_images() -> None:
    torch.manual_seed(0)
    model = create_model("riemannian_vae", data=SPEC, latent=2, **SMALL, centroids=6)
    images = torch.rand(40, 1, 4, 4).round()
    model.initialise(images)
    found = model.metric()
    inputs = model.free_inputs.clamp(0, 1)
    torch.testing.assert_close(found.centroids, model.start(inputs).mean)
    nearest = torch.cdist(inputs.flatten(1), images.flatten(1)).min(1).values
    assert (nearest < 0.3).all()
    # Codes are together before training, and there the inverse metric begins as 1 + lambda.
    expected = (1 + model.settings.floor) * torch.eye(2).expand(6, -1, -1)
    torch.testing.assert_close(found.at(found.centroids).inverse, expected, atol=0.1, rtol=0)


def test_a_flow_posterior_is_refused() -> None:
    with pytest.raises(UsageError, match="need posterior.name=diagonal"):
        create_model("riemannian_vae", data=SPEC, posterior={"name": "planar"})


@pytest.mark.parametrize("wrong", ["floor", "temperature", "apart"])
def test_a_number_that_is_not_finite_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match=f"setting '{wrong}': .*finite number"):
        create_model("riemannian_vae", data=SPEC, **{wrong: math.inf})
