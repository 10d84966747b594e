"""Flows: a log-determinant is the Jacobian's, the constraints hold, dimensions keep their order."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from zoo.flows import IAF, MADE, MARGIN, Coupling, Flow, Planar, Radial, Spline, Sylvester

LATENT = 4
FLOWS = {
    "planar": lambda flows=3, d=LATENT: Planar(d, flows),
    "radial": lambda flows=3, d=LATENT: Radial(d, flows),
    "sylvester": lambda flows=3, d=LATENT: Sylvester(d, flows, min(3, d)),
    "sylvester full": lambda flows=3, d=LATENT: Sylvester(d, flows, d),
    "iaf": lambda flows=3, d=LATENT: IAF(d, flows, context=6, hidden=24),
    "spline": lambda flows=3, d=LATENT: Spline(d, flows, context=6, hidden=24, bins=5),
}


def stirred(module: nn.Module, scale: float = 0.3) -> nn.Module:
    """The module in float64, its parameters moved: an initialised flow is too near the identity to test."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module


def jacobian(z: Tensor, output: Tensor) -> Tensor:
    """d output / d z row by row, (N, D, D)."""
    rows = [torch.autograd.grad(output[:, i].sum(), z, retain_graph=True)[0] for i in range(output.shape[1])]
    return torch.stack(rows, 1)


def points(n: int, flow: Flow, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    z = 1.5 * torch.randn(n, LATENT, dtype=torch.float64)
    return z.requires_grad_(), scale * torch.randn(n, flow.context, dtype=torch.float64)


@pytest.mark.parametrize("flows", [1, 2, 3])
@pytest.mark.parametrize("name", FLOWS)
def test_log_determinant_is_that_of_the_jacobian(name: str, flows: int) -> None:
    flow = stirred(FLOWS[name](flows))
    z, context = points(200, flow)
    output, log_det = flow(z, context)
    expected = torch.linalg.slogdet(jacobian(z, output)).logabsdet
    assert log_det.std() > 1e-2
    torch.testing.assert_close(log_det, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", FLOWS)
def test_rows_do_not_see_each_other(name: str) -> None:
    flow = stirred(FLOWS[name]())
    z, context = points(6, flow)
    output, log_det = flow(z, context)
    alone = [flow(z[i : i + 1], context[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(output, torch.cat([a for a, _ in alone]), rtol=0, atol=1e-12)
    torch.testing.assert_close(log_det, torch.cat([b for _, b in alone]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FLOWS)
def test_every_dimension_is_conditioned_on_the_context(name: str) -> None:
    flow = stirred(FLOWS[name]())
    z, context = points(50, flow)
    output, _ = flow(z, context.requires_grad_())
    for i in range(LATENT):
        (gradient,) = torch.autograd.grad(output[:, i].sum(), context, retain_graph=True)
        assert gradient.abs().max() > 1e-6


@pytest.mark.parametrize("name", FLOWS)
def test_one_dimension(name: str) -> None:
    flow = stirred(FLOWS[name](2, 1))
    z = torch.randn(50, 1, dtype=torch.float64, requires_grad=True)
    context = torch.randn(50, flow.context, dtype=torch.float64, requires_grad=True)
    output, log_det = flow(z, context)
    torch.testing.assert_close(log_det, jacobian(z, output)[:, 0, 0].abs().log(), rtol=0, atol=1e-9)
    assert torch.autograd.grad(output.sum(), context)[0].abs().max() > 1e-6


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("name", FLOWS)
def test_wild_features_stay_finite_in_float32(name: str, scale: float) -> None:
    flow = FLOWS[name]().float()
    z = (scale * torch.randn(500, LATENT)).requires_grad_()
    context = (scale * torch.randn(500, flow.context)).requires_grad_()
    output, log_det = flow(z, context)
    assert output.isfinite().all() and log_det.isfinite().all()
    for gradient in torch.autograd.grad(output.mean() + log_det.mean(), (z, context)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["planar", "radial", "sylvester", "sylvester full"])
def test_zero_features_are_the_identity(name: str) -> None:
    flow = FLOWS[name]()
    z, _ = points(20, flow)
    context = torch.zeros(20, flow.context, dtype=torch.float64, requires_grad=True)
    output, log_det = flow(z, context)
    torch.testing.assert_close(output, z, rtol=0, atol=0)
    assert log_det.abs().max() == 0.0
    (gradient,) = torch.autograd.grad(output.sum() + log_det.sum(), context)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["planar", "radial", "sylvester"])
def test_small_features_are_near_the_identity(name: str) -> None:
    flow = FLOWS[name]()
    z, context = points(200, flow, scale=1e-3)
    output, log_det = flow(z, context)
    assert (output - z).abs().max() < 0.02 and log_det.abs().max() < 0.02


# ---- planar ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
def test_planar_is_invertible_whatever_the_encoder_says(scale: float) -> None:
    u, w = scale * torch.randn(2, 10_000, 8, dtype=torch.float64)
    corrected, inner = Planar.constrain(u, w)
    product = (w * corrected).sum(-1, keepdim=True)
    assert ((w * u).sum(-1) < 0).any()
    assert product.min() > -1.0
    torch.testing.assert_close(product, inner, rtol=1e-9, atol=1e-9)


def test_planar_corrects_along_w_only() -> None:
    u, w = torch.randn(2, 100, 8, dtype=torch.float64)
    change = Planar.constrain(u, w)[0] - u
    along = (change * w).sum(-1, keepdim=True) / w.square().sum(-1, keepdim=True) * w
    torch.testing.assert_close(change, along)


# ---- radial ------------------------------------------------------------------------------------------------


def test_a_radial_step_is_finite_at_its_centre_however_narrow_it_is() -> None:
    flow, z = Radial(3, 1), torch.randn(5, 3, requires_grad=True)
    narrow = torch.cat([z.detach(), torch.full((5, 1), -1e3), torch.ones(5, 1)], 1).requires_grad_()
    output, log_det = flow(z, narrow)
    assert torch.equal(output, z) and log_det.isfinite().all()
    for gradient in torch.autograd.grad(output.sum() + log_det.sum(), (z, narrow)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_radial_keeps_the_order_along_every_ray(scale: float) -> None:
    flow = Radial(8, 1)
    context = scale * torch.randn(200, flow.context, dtype=torch.float64)
    centre, ray = context[:, :8], torch.nn.functional.normalize(torch.randn(200, 8, dtype=torch.float64), dim=1)
    radii = torch.linspace(0, 30, 100, dtype=torch.float64)
    where = torch.stack([flow(centre + r * ray, context)[0] - centre for r in radii])
    found = (where * ray).sum(-1)
    torch.testing.assert_close(where, found.unsqueeze(-1) * ray, rtol=0, atol=1e-9)
    assert (context[:, -1] < 0).any() and found[0].abs().max() < 1e-9 and (found.diff(dim=0) > 0).all()


def test_radial_is_the_formula_of_the_paper() -> None:
    alpha, beta, centre = 2.0, -1.5, torch.tensor([1.0, -1.0], dtype=torch.float64)
    z = torch.tensor([[4.0, 3.0]], dtype=torch.float64)  # five from the centre
    free = torch.tensor([[*centre, math.log(math.expm1(alpha)), math.log(math.expm1(1 + beta / alpha / (1 - MARGIN)))]])
    free = free.double()
    free[:, 2:] -= math.log(math.expm1(1.0))
    output, log_det = Radial(2, 1)(z, free)
    torch.testing.assert_close(output, z + beta / (alpha + 5) * (z - centre), rtol=1e-6, atol=1e-6)
    h, slope = 1 / (alpha + 5), -1 / (alpha + 5) ** 2
    expected = math.log(1 + beta * h) + math.log(1 + beta * h + beta * slope * 5)
    assert log_det.item() == pytest.approx(expected, rel=1e-6)


# ---- Sylvester ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("latent", "vectors"), [(1, 1), (5, 5), (40, 8), (64, 32)])
@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 100.0])
def test_sylvester_columns_are_orthonormal(latent: int, vectors: int, scale: float) -> None:
    flow = Sylvester(latent, 1, vectors)
    for dtype, tolerance in ((torch.float32, 5e-6), (torch.float64, 1e-13)):
        q = flow.orthonormal(scale * torch.randn(100, latent * vectors, dtype=dtype))
        assert q.shape == (100, latent, vectors)
        assert (q.mT @ q - torch.eye(vectors, dtype=dtype)).abs().max() < tolerance


def test_sylvester_columns_are_a_product_of_reflections() -> None:
    flow, raw = Sylvester(5, 1, 3), torch.randn(1, 15, dtype=torch.float64)
    eye = torch.eye(5, dtype=torch.float64)
    vectors = raw.view(5, 3) + eye[:, :3]
    product = eye
    for v in vectors.T:
        product = product @ (eye - 2 * torch.outer(v, v) / v.square().sum())
    torch.testing.assert_close(flow.orthonormal(raw)[0], product[:, :3])


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_sylvester_diagonals_keep_it_invertible(scale: float) -> None:
    flow = Sylvester(8, 1, 4)
    r1, r2 = flow.triangular(scale * torch.randn(10_000, 4, 4), scale * torch.randn(10_000, 4))
    assert (r1.tril(-1) == 0).all() and (r2.tril(-1) == 0).all()
    assert (r1 * r2).diagonal(dim1=-2, dim2=-1).abs().max() < 1.0
    assert r1.triu(1).std() > 0 and not torch.equal(r1.triu(1), r2.triu(1))


# ---- autoregressive ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iaf", "spline"])
def test_one_autoregressive_step_has_a_triangular_jacobian(name: str) -> None:
    flow = stirred(FLOWS[name](1))
    z, context = points(50, flow)
    j = jacobian(z, flow(z, context)[0])
    assert j.triu(1).abs().max() == 0.0
    below = torch.tril_indices(LATENT, LATENT, -1)
    assert (j[:, below[0], below[1]].abs().amax(0) > 0).all()
    assert (j.diagonal(dim1=1, dim2=2) > 0).all()


@pytest.mark.parametrize("name", ["iaf", "spline"])
def test_two_autoregressive_steps_run_in_both_orders(name: str) -> None:
    flow = stirred(FLOWS[name](2))
    z, context = points(50, flow)
    j = jacobian(z, flow(z, context)[0])
    assert (j.abs().amax(0) > 0).all()
    # Each dimension still is itself: on average it moves most with its own input.
    assert (j.abs().mean(0).argmax(1) == torch.arange(LATENT)).all()


def test_made_is_strictly_triangular() -> None:
    made = stirred(MADE(LATENT, context=3, hidden=20))
    z = torch.randn(50, LATENT, dtype=torch.float64, requires_grad=True)
    for output in made(z, torch.randn(50, 3, dtype=torch.float64)):
        j = jacobian(z, output)
        assert j.triu().abs().max() == 0.0
        assert j.abs().amax(0).tril(-1).count_nonzero() == LATENT * (LATENT - 1) // 2


def test_iaf_begins_near_the_identity_and_reaches_it() -> None:
    flow = IAF(LATENT, 2, context=6, hidden=24).double()
    z, context = points(50, flow)
    log_det = flow(z, context)[1]
    assert (log_det > -2.0).all() and (log_det < 0.0).all()
    with torch.no_grad():
        for made in flow.steps:
            made.gate.weight.zero_()
            made.gate.bias.fill_(40.0)
    output, log_det = flow(z, context)
    torch.testing.assert_close(output, z, rtol=0, atol=1e-12)
    assert log_det.abs().max() < 1e-12


def test_iaf_gate_may_close_far() -> None:
    flow = IAF(LATENT, 1, context=6, hidden=24)
    with torch.no_grad():
        flow.steps[0].gate.weight.zero_()
        flow.steps[0].gate.bias.fill_(-120.0)  # sigmoid(-120) is 0 in float32, its logarithm is not
    log_det = flow(torch.randn(3, LATENT), torch.randn(3, 6))[1]
    torch.testing.assert_close(log_det, torch.full((3,), -120.0 * LATENT))


def test_spline_begins_as_the_identity() -> None:
    flow = FLOWS["spline"]().double()
    z, context = points(200, flow, scale=3.0)
    output, log_det = flow(z, context)
    torch.testing.assert_close(output, z, rtol=0, atol=1e-12)
    assert log_det.abs().max() < 1e-12


# ---- coupling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_coupling_inverts_and_knows_its_determinant(latent: int) -> None:
    flow = Coupling(latent, 4, 16)
    z = torch.randn(200, latent, dtype=torch.float64, requires_grad=True)
    untouched, log_det = flow.double()(z)
    torch.testing.assert_close(untouched, z)
    assert log_det.abs().max() == 0.0
    u, log_det = stirred(flow)(z)
    torch.testing.assert_close(flow.inverse(u), z, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian(z, u)).logabsdet, rtol=0, atol=1e-9)
    assert (u - z).abs().mean(0).min() > 1e-2
