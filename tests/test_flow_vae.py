"""A flow that does nothing leaves a vanilla VAE."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zoo import create_model, noise
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.flows import Householder
from zoo.models.flow_vae import FlowVAE
from zoo.models.vae import VanillaVAE

SPEC = DataSpec((1, 8, 8), "binary")
LATENT = 5
NETS = {"encoder": {"hidden": [16]}, "decoder": {"hidden": [16]}, "latent": LATENT}
FLOWS = ["planar", "radial", "sylvester", "iaf", "spline"]


def make(flow: str) -> FlowVAE:
    posterior = {"name": flow, "flows": 3, "hidden": 12, "context": 4, "vectors": 2}
    return create_model("flow_vae", data=SPEC, posterior=posterior, **NETS).double().requires_grad_(False)


def still(model: FlowVAE) -> FlowVAE:
    """The same model with a flow that is the identity."""
    # Planar and Sylvester steps are all context, and a spline begins as the identity.
    model.head.weight[2 * LATENT :] = 0
    model.head.bias[2 * LATENT :] = 0
    for name, parameter in model.posterior.flow.named_parameters():
        if ".shift." in name or ".gate." in name:
            # sigmoid(40) is 1 to rounding: an autoregressive step that keeps z.
            parameter.fill_(40.0 if name.endswith("gate.bias") else 0.0)
    return model


def vanilla(model: FlowVAE) -> VanillaVAE:
    """A vanilla VAE with the same networks."""
    twin = create_model("vae", data=SPEC, **NETS).double().requires_grad_(False)
    twin.encoder.load_state_dict(model.encoder.state_dict())
    twin.decoder.load_state_dict(model.decoder.state_dict())
    twin.head.weight.copy_(model.head.weight[: 2 * LATENT])
    twin.head.bias.copy_(model.head.bias[: 2 * LATENT])
    return twin


def images() -> Tensor:
    return (torch.rand(12, *SPEC.shape) < 0.4).double()


@pytest.mark.parametrize("flow", FLOWS)
def test_an_identity_flow_gives_the_vanilla_bound_with_the_same_noise(flow: str) -> None:
    model, x = still(make(flow)), images()
    twin = vanilla(model)
    ids = torch.arange(len(x))
    with noise.keyed(0, ids, range(4)):
        weights = model.log_weights(x, k=4)
    with noise.keyed(0, ids, range(4)):
        expected = twin.log_weights(x, k=4)
    assert torch.allclose(weights, expected, atol=1e-8)
    with noise.keyed(0, ids):
        terms = model.terms(x)
    with noise.keyed(0, ids):
        vanilla_terms = twin.terms(x)
    assert torch.allclose(terms.distortion, vanilla_terms.distortion, atol=1e-8)
    # One-sample against analytic rate: the bound at that draw is the vanilla log-weight's.
    assert torch.allclose(terms.elbo, expected[0], atol=1e-8)
    assert torch.allclose(model.represent(x), twin.represent(x))


@pytest.mark.parametrize("flow", FLOWS)
def test_a_flow_that_moves_changes_the_bound(flow: str) -> None:
    model, x = make(flow), images()
    for parameter in model.posterior.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    twin = vanilla(model)
    with noise.keyed(0, torch.arange(len(x))):
        one = model.log_weights(x)
    with noise.keyed(0, torch.arange(len(x))):
        assert (one - twin.log_weights(x)).abs().min() > 1e-4


def test_the_posterior_is_one_setting() -> None:
    made = {type(make(flow).posterior.flow) for flow in FLOWS}
    assert len(made) == len(FLOWS)


@pytest.mark.parametrize("name", FLOWS)
def test_the_code_of_an_image_is_where_a_posterior_without_spread_would_be(name: str) -> None:
    model = create_model("flow_vae", posterior={"name": name}).eval()
    with torch.no_grad():
        model.head.weight.normal_(0, 0.05)
        model.head.weight[64:].normal_(0, 0.15)
        model.head.bias[32:64] = -60.0  # log-variances, bounded at -20
        model.head.weight[32:64] = 0.0
        for parameter in model.posterior.flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x = (torch.rand(6, 1, 28, 28) < 0.3).float()
    z, _ = model.infer(x).rsample()
    # The spread that is left is e^-10 times the slopes of the flow: little beside how far the flow carries the mean.
    moved = (model.represent(x) - model.infer(x).mean).abs().max()
    assert (model.represent(x) - z).abs().max() < 0.05 * moved


def test_householder_steps_are_reflections_that_keep_volume() -> None:
    flow = Householder(4, 3)
    z, context = torch.randn(6, 4).double(), torch.randn(6, flow.context).double()
    moved, log_det = flow(z, context)
    assert torch.allclose(moved.norm(dim=1), z.norm(dim=1)) and not log_det.any()
    for i in range(6):
        jacobian = torch.autograd.functional.jacobian(lambda v, i=i: flow(v[None], context[i : i + 1])[0][0], z[i])
        assert torch.allclose(jacobian @ jacobian.T, torch.eye(4).double())
        assert torch.linalg.det(jacobian).item() == pytest.approx(-1.0)  # three reflections
    again, _ = flow(moved, context.view(6, 3, 4).flip(1).flatten(1))
    assert torch.allclose(again, z), "a reflection undoes itself"


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_fewer_householder_steps_than_dimensions_leave_the_other_directions_alone(steps: int) -> None:
    flow, context = Householder(6, steps), torch.randn(1, 6 * steps).double()
    turned, _ = flow(torch.eye(6).double(), context.expand(6, -1))
    assert torch.linalg.matrix_rank(turned - torch.eye(6)) == steps
    assert torch.linalg.det(turned).item() == pytest.approx((-1) ** steps)


def test_the_gated_networks_are_the_paper_s() -> None:
    nets = {"encoder": {"name": "gated"}, "decoder": {"name": "gated"}}
    model = create_model("vae", data=DataSpec((1, 28, 28), "binary"), latent=64, **nets)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(3.07e6, rel=0.005)
    x = (torch.rand(2, 1, 28, 28) < 0.4).float()
    terms = model.terms(x)
    assert terms.elbo.shape == (2,)
    (-terms.elbo.mean()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert create_model("vae", data=DataSpec((3, 32, 32), "8-bit"), **nets).sample(2).shape == (2, 3, 32, 32)
    assert create_model("cvae", data=DataSpec((1, 8, 8), "binary", classes=3), **nets).sample(2).shape == (2, 1, 8, 8)
    with pytest.raises(UsageError, match="square images"):
        create_model("vae", data=DataSpec((1, 30, 28), "binary"), **nets)
