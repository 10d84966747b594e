"""Hyperbolic space against the formulae of the Poincaré ball and derivatives; the Poincaré VAE on it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zoo import create_model, noise
from zoo.data.images import DataSpec
from zoo.distributions.gaussians import log_normal
from zoo.distributions.hyperbolic import Gyroplanes, WrappedNormal, length, log_sinhc, shift

DIMENSIONS = pytest.mark.parametrize("d", [1, 2, 3, 16])


def points(n: int, d: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_ball(u: Tensor, c: float) -> Tensor:
    """The point of the Poincaré ball of radius 1 / sqrt(c)."""
    return u / length(u) * torch.tanh(math.sqrt(c) * length(u) / 2) / math.sqrt(c)


def mobius_add(x: Tensor, y: Tensor, c: float) -> Tensor:
    xy, xx, yy = (x * y).sum(-1, keepdim=True), x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    above = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
    return above / (1 + 2 * c * xy + c**2 * xx * yy)


def distance(x: Tensor, y: Tensor, c: float) -> Tensor:
    """Of two points of the ball (..., D)."""
    apart = (x - y).square().sum(-1)
    below = (1 - c * x.square().sum(-1)) * (1 - c * y.square().sum(-1))
    return torch.acosh(1 + 2 * c * apart / below) / math.sqrt(c)


def test_log_sinhc_is_its_definition() -> None:
    r = torch.tensor([1e-8, 1e-3, 0.1, 1.0, 5.0, 300.0], dtype=torch.float64)
    torch.testing.assert_close(log_sinhc(r), torch.log(torch.sinh(r) / r), rtol=1e-12, atol=1e-12)
    assert log_sinhc(torch.tensor(1e4)).item() == pytest.approx(1e4 - math.log(2e4))


@DIMENSIONS
def test_a_step_goes_where_mobius_addition_says(d: int) -> None:
    mean, step = points(50, d), points(50, d, seed=1)
    found, _ = shift(mean, step)
    torch.testing.assert_close(in_ball(found, 1.0), mobius_add(in_ball(mean, 1.0), in_ball(step, 1.0), 1.0))
    torch.testing.assert_close(distance(in_ball(mean, 1.0), in_ball(found, 1.0), 1.0), step.norm(dim=-1))


@DIMENSIONS
def test_the_log_determinant_is_that_of_the_derivative(d: int) -> None:
    for mean, step in zip(points(6, d, 2.0), points(6, d, seed=1)):
        matrix = torch.autograd.functional.jacobian(lambda v: shift(mean, v)[0], step)  # noqa: B023
        torch.testing.assert_close(shift(mean, step)[1], torch.linalg.slogdet(matrix)[1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("c", [0.3, 1.0, 4.0])
def test_the_density_is_one_over_all_of_space(c: float) -> None:
    # The mean of p / q under q is the integral of p, here the wrapped normal at the origin.
    torch.manual_seed(0)
    n, d = 400_000, 3
    mean = torch.tensor([0.4, -0.3, 0.2]).expand(n, d)
    u, log_q = WrappedNormal(mean, torch.full((n, d), 0.6), c).rsample()
    ratio = (log_normal(u, torch.zeros(d), torch.zeros(d)).sum(-1) - log_q).double().exp()
    assert ratio.mean().item() == pytest.approx(1.0, abs=5 * ratio.std().item() / math.sqrt(n))
    assert ratio.std() < 5


def test_a_draw_is_the_step_of_its_noise_in_double_precision_on_the_way_back_to_the_origin_too() -> None:
    ids = torch.arange(256)
    mean, log_variance = torch.full((256, 2), 5.0), torch.full((256, 2), 3.5)
    with noise.keyed(0, ids):
        u, log_q = WrappedNormal(mean, log_variance, 1.0).rsample()
    with noise.keyed(0, ids):
        eps = noise.normal(mean).double()
    point, log_det = shift(mean.double(), torch.exp(0.5 * log_variance).double() * eps)
    torch.testing.assert_close(u.double(), point, rtol=1e-5, atol=1e-5)
    expected = log_normal(eps, torch.zeros(2), log_variance * 0).sum(-1) - log_variance.sum(1) / 2 - log_det
    torch.testing.assert_close(log_q.double(), expected, rtol=1e-5, atol=1e-5)


def test_on_a_line_there_is_no_curvature() -> None:
    mean, log_variance = torch.randn(64, 1), torch.randn(64, 1)
    with noise.keyed(0, torch.arange(64)):
        u, log_q = WrappedNormal(mean, log_variance, 2.0).rsample()
    torch.testing.assert_close(log_q, log_normal(u, mean, log_variance).sum(-1), rtol=1e-4, atol=1e-4)


@DIMENSIONS
def test_without_curvature_it_is_the_normal(d: int) -> None:
    mean, log_variance = torch.randn(64, d), torch.randn(64, d)
    u, log_q = WrappedNormal(mean, log_variance, 1e-8).rsample()
    torch.testing.assert_close(log_q, log_normal(u, mean, log_variance).sum(-1), rtol=1e-3, atol=2e-3)
    planes = Gyroplanes(d, 7, 1e-8)
    dense = u @ planes.weight.T - planes.weight.norm(dim=-1) * planes.offset
    torch.testing.assert_close(planes(u), dense, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("c", [0.5, 1.0, 3.0])
@DIMENSIONS
def test_gyroplanes_are_signed_distances_times_their_gain(d: int, c: float) -> None:
    planes = Gyroplanes(d, 9, c).double()
    u = points(40, d)
    normal = planes.weight / planes.weight.norm(dim=-1, keepdim=True)
    on_it = in_ball(normal * planes.offset.unsqueeze(-1), c)  # where the plane is nearest to the origin
    away = mobius_add(-on_it.expand(40, 9, d), in_ball(u, c).unsqueeze(1).expand(40, 9, d), c)
    # Ganea et al. 2018, theorem 5.
    sine = 2 * math.sqrt(c) * (away * normal).sum(-1) / (1 - c * away.square().sum(-1))
    torch.testing.assert_close(planes(u), planes.weight.norm(dim=-1) * torch.asinh(sine) / math.sqrt(c))
    assert planes(normal * planes.offset.unsqueeze(-1)).diagonal().abs().max() < 1e-9


def test_nothing_overflows_and_every_gradient_is_finite() -> None:
    for mean, log_variance in ((0.0, -60.0), (0.0, 0.0), (1e6, 60.0), (60.0, -5.0), (-1e6, 0.0)):
        features = [torch.full((8, 16), value, requires_grad=True) for value in (mean, log_variance)]
        u, log_q = WrappedNormal(*features, 4.0).rsample()
        planes = Gyroplanes(16, 5, 4.0)
        (planes(u).sum() + log_q.sum()).backward()
        grads = [tensor.grad for tensor in (*features, planes.weight, planes.offset)]
        assert all(torch.isfinite(tensor).all() for tensor in (u, log_q, *grads)), (mean, log_variance)
    planes, far = Gyroplanes(2, 5, 4.0), torch.tensor([[100.0, 0.0], [-1e3, 1e4]], requires_grad=True)
    planes(far).sum().backward()
    grads = [far.grad, planes.weight.grad, planes.offset.grad]
    assert all(torch.isfinite(tensor).all() for tensor in (planes(far), *grads))


@pytest.mark.parametrize("isotropic", [None, True])
def test_the_model_s_bound_is_of_hyperbolic_space(isotropic: bool | None) -> None:
    torch.manual_seed(0)
    small = {"encoder": {"hidden": [16]}, "decoder": {"hidden": [16, 16]}, "curvature": 2.0, "isotropic": isotropic}
    model = create_model("poincare_vae", data=DataSpec((1, 4, 4), "binary"), latent=2, **small).eval()
    x = (torch.rand(3, 1, 4, 4) < 0.5).float()
    with torch.no_grad():
        z = torch.randn(200_000, 2)
        given = torch.stack([model.log_likelihood(model.decode(z), image.expand(200_000, -1, -1, -1)) for image in x])
        expected = given.double().logsumexp(1) - math.log(200_000)
        weights = model.log_weights(x, k=20_000).double()
    torch.testing.assert_close(weights.logsumexp(0) - math.log(20_000), expected, rtol=0, atol=0.02)
    assert (weights.mean(0) < expected).all()
    spread = model.infer(x).log_variance
    assert bool((spread == spread[:, :1]).all()) is bool(isotropic)


def test_the_curvature_that_is_set_is_that_of_the_posterior_and_of_the_decoder() -> None:
    small = {"encoder": {"hidden": [16]}, "decoder": {"hidden": [16, 8]}, "curvature": 2.0}
    model = create_model("poincare_vae", data=DataSpec((1, 4, 4), "binary"), latent=2, **small).eval()
    x, z, ids = torch.rand(7, 1, 4, 4).round(), 3 * torch.randn(7, 2), torch.arange(7)
    planes = Gyroplanes(2, 16, 2.0)
    planes.load_state_dict(model.planes.state_dict())
    with torch.no_grad():
        model.head.weight.mul_(200)  # means as far as they may lie
        assert torch.equal(model.decode(z), model.decoder(torch.relu(planes(z))))
        mean, log_variance = model.head(model.encoder(x)).chunk(2, -1)
        found = model.infer(x)
        with noise.keyed(0, ids):
            expected = WrappedNormal(mean, log_variance, 2.0).rsample()
        with noise.keyed(0, ids):
            drawn = found.rsample()
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))
    assert found.centre.norm(dim=1).max().item() == pytest.approx(50 / math.sqrt(2.0), rel=1e-5)
    assert [tuple(layer.weight.shape) for layer in model.decoder.modules() if isinstance(layer, torch.nn.Linear)] == [
        (8, 16), (16, 8),
    ]  # fmt: skip
