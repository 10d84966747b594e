"""The Hamiltonian VAE against a linear model, where all is known, and its leapfrog steps against derivatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.check.examine import Finding, examine
from benchmarks.check.subject import Subject
from benchmarks.metrics.likelihood import bound
from tests.evidence import is_the_mean_weight
from tests.test_oracles import batches, data, solved
from zoo import create_model, noise
from zoo.data.images import DataSpec
from zoo.data.synthetic import ppca_log_prob
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.errors import UsageError
from zoo.models.hamiltonian_vae import HamiltonianVAE
from zoo.models.vae import VanillaVAE
from zoo.registry import registry

SPEC = DataSpec((1, 4, 4), "binary")
SMALL = {"encoder": {"hidden": [8]}, "decoder": {"hidden": [8], "activation": "tanh"}}
TEMPERINGS = ["none", "fixed", "quadratic", "free"]
every_tempering = pytest.mark.parametrize("tempering", TEMPERINGS)


def make(latent: int = 2, **settings: Any) -> HamiltonianVAE:
    """A small model in float64 whose likelihood depends on the code, with another step size in each dimension."""
    torch.manual_seed(0)
    model = create_model("hamiltonian_vae", data=SPEC, latent=latent, **SMALL, **settings).double()
    with torch.no_grad():
        model.decoder.output.weight.mul_(6.0)
        model.free_step.add_(torch.linspace(-0.5, 0.5, latent))
        if hasattr(model, "free_cooling"):
            model.free_cooling.add_(torch.randn_like(model.free_cooling))
    return model.eval()


def bits(n: int = 5) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1)).round().double()


def still(model: HamiltonianVAE) -> HamiltonianVAE:
    """The model with steps of no size."""
    with torch.no_grad():
        model.free_step.fill_(-1e9)
    return model


# ---- a linear model --------------------------------------------------------------------------------------------------


def linear(x: Tensor, **settings: Any) -> tuple[HamiltonianVAE, VanillaVAE]:
    """The maximum-likelihood model of x (N, D) with a wrong posterior of z_0, and the VAE that has that posterior."""
    vanilla = solved(x, shift=0.3, widen=0.7)
    parts = {"encoder": {"hidden": []}, "decoder": {"hidden": []}}
    model = create_model("hamiltonian_vae", data="ppca", latent=3, **parts, **settings).double()
    missing, unexpected = model.load_state_dict(vanilla.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("free_") for name in missing)
    with torch.no_grad():
        model.free_step.add_(torch.tensor([0.4, 0.0, -0.4]))
    return model.requires_grad_(False), vanilla


def closed_form(model: HamiltonianVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) and the bound, (N,) nats each: the one less the divergence of the carried Gaussian of z and the momenta,
    which are linear in where they began, from the posterior beside N(0, I)."""
    d, eye = 3, torch.eye(3).double()
    weight, mean = model.decoder.output.weight, model.decoder.output.bias
    s2 = model.likelihood.sigma.double() ** 2
    pull = weight.T @ weight / s2 + eye  # the precision of p(z | x)
    centres = torch.linalg.solve(pull, weight.T @ (x - mean).T / s2).T
    # In coordinates about the posterior's centre a step is a matrix.
    step, cooling, zero = model.step_size().diag(), model.cooling(), torch.zeros(d, d).double()
    half = torch.cat([torch.cat([eye, zero], 1), torch.cat([-0.5 * step @ pull, eye], 1)])
    drift = torch.cat([torch.cat([eye, step], 1), torch.cat([zero, eye], 1)])
    carried = torch.block_diag(eye, eye / cooling.prod())
    for alpha in cooling:
        carried = torch.block_diag(eye, alpha * eye) @ half @ drift @ half @ carried
    q = model.start(x)
    begun = torch.block_diag(q.log_variance[0].exp().diag(), eye)
    covariance = carried @ begun @ carried.T
    middle = torch.cat([q.mean - centres, torch.zeros_like(centres)], 1) @ carried.T
    precision = torch.block_diag(pull, eye)
    apart = torch.trace(precision @ covariance) - 2 * d - torch.linalg.slogdet(precision @ covariance)[1]
    evidence = ppca_log_prob(x, weight, mean, s2)
    return evidence, evidence - 0.5 * (apart + (middle @ precision * middle).sum(1))


@every_tempering
def test_the_bound_of_a_linear_model_is_its_closed_form_and_the_mean_weight_the_evidence(tempering: str) -> None:
    x = data()[:64]
    model, _ = linear(data(), tempering=tempering, beta_0=0.4, steps=3)
    images, (evidence, expected) = x.view(64, 1, 1, -1), closed_form(model, x)
    torch.manual_seed(2)
    with torch.no_grad():
        weights = model.log_weights(images, k=4000)
        one = model.terms(images.repeat(400, 1, 1, 1)).elbo.view(400, 64)
    for drawn in (weights, one):
        apart = (drawn.mean(0) - expected) / (drawn.std(0) / math.sqrt(len(drawn)))
        assert apart.abs().max() < 4.5 and apart.square().mean().sqrt() < 1.4
    is_the_mean_weight(evidence, weights)
    assert (expected < evidence).all()


def test_it_is_the_cooling_and_not_the_dynamics_that_brings_the_bound_nearer() -> None:
    """Dynamics that keep energy and volume keep the divergence from the posterior beside N(0, I): what small steps come
    to without cooling is the bound of z_0, however many they are."""
    x = data()[:64]

    def gap(**settings: Any) -> float:
        evidence, found = closed_form(linear(data(), **settings)[0], x)
        return (evidence - found).mean().item()

    right, vanilla = solved(data()).infer(x), linear(data())[1].infer(x)
    of_start = vanilla.kl(right).sum(1).mean().item()
    small = {"steps": 100, "step_size": 0.01}
    assert gap(tempering="none", **small) == pytest.approx(of_start, rel=2e-3)
    assert gap(tempering="quadratic", beta_0=0.67, **small) < 0.8 * of_start
    assert gap() < 0.7 * of_start


def test_it_is_a_bound_whatever_moves_the_momenta() -> None:
    x = data()[:16]
    model, _ = linear(data(), beta_0=0.9, steps=2, step_size=0.05)
    model.force = lambda z, x, _: 0.3 * torch.sign(z) - 0.3 * z.flip(1).sin()
    evidence, _ = closed_form(model, x)
    torch.manual_seed(3)
    weights = model.log_weights(x.view(16, 1, 1, -1), k=20_000)
    is_the_mean_weight(evidence, weights)
    assert (weights.mean(0) < evidence).all()


def test_the_loss_of_the_paper_has_the_same_mean_and_varies_more() -> None:
    """Algorithm 1: the densities of z_0 and of gamma_0 in place of their logarithms' values at the draw."""
    model, x = make(3, beta_0=0.5), bits(1).expand(40_000, -1, -1, -1)
    torch.manual_seed(4)
    with torch.no_grad(), noise.keyed(0, torch.arange(len(x))):
        ours = model.terms(x).elbo
    with torch.no_grad(), noise.keyed(0, torch.arange(len(x))):
        q = model.start(x)
        z, rho = model.leapfrog(q.rsample()[0], noise.normal(q.mean), x)
        joint = model.log_likelihood(model.decode(z), x) - 0.5 * (z.square() + rho.square()).sum(1)
        theirs = joint + 0.5 * q.log_variance.sum(1) + q.mean.shape[1]
    apart = ours - theirs
    assert apart.mean().abs() < 4.5 * apart.std() / math.sqrt(len(x))
    assert ours.std() < 0.7 * theirs.std()


# ---- leapfrog steps --------------------------------------------------------------------------------------------------


def momenta_and_all(model: HamiltonianVAE, x: Tensor) -> Any:
    return lambda both: torch.cat(model.leapfrog(both[None, :2], both[None, 2:], x), 1)[0]


@every_tempering
def test_heating_and_steps_and_cooling_leave_volume_as_it_is(tempering: str) -> None:
    model, x = make(tempering=tempering, beta_0=0.3, steps=5), bits(1)
    for both in torch.randn(6, 4).double():
        matrix = torch.autograd.functional.jacobian(momenta_and_all(model, x), both)
        assert torch.linalg.slogdet(matrix)[1].abs() < 1e-9
        assert (matrix - torch.eye(4)).abs().max() > 0.1


@every_tempering
def test_the_first_momenta_are_as_hot_as_the_schedule_says(tempering: str) -> None:
    model, x = make(tempering=tempering, beta_0=0.3, steps=5), bits(1)
    model.force = lambda z, x, _: torch.zeros_like(z)
    gamma, zero = torch.ones(1, 2).double(), torch.zeros(1, 2).double()
    z, rho = model.leapfrog(zero, gamma, x)
    torch.testing.assert_close(rho, gamma)
    # Without a force z goes as far as the momenta of each step: those of k = 1 are at the temperature of k = 0.
    share = torch.arange(5).double() / 5
    hot = {"none": torch.ones(5), "free": 1 / model.cooling().flip(0).cumprod(0).flip(0)}
    hot = hot.get(tempering, (1 / 0.3 + (1 - 1 / 0.3) * share**2).sqrt())
    torch.testing.assert_close(z[0], model.step_size() * hot.sum(), rtol=1e-6, atol=0)
    learned = {name for name, _ in model.named_parameters() if name.startswith("free_")} - {"free_step"}
    assert learned == {"quadratic": {"free_beta"}, "free": {"free_cooling"}}.get(tempering, set())


def test_steps_are_undone_by_the_momenta_turned_round() -> None:
    model, x = make(3, tempering="none", steps=6), bits()
    z, momentum = torch.randn(2, 5, 3).double().unbind(0)
    there, arrived = model.leapfrog(z, momentum, x)
    back, returned = model.leapfrog(there, -arrived, x)
    assert (there - z).abs().max() > 0.5
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(-returned, momentum)


def test_energy_is_kept_to_the_second_order_of_the_step_size() -> None:
    x = bits()
    torch.manual_seed(5)
    z, momentum = torch.randn(2, 5, 2).double().unbind(0)
    lost = []
    for steps in (8, 16, 32):
        model = make(tempering="none", steps=steps, step_size=0.8 / steps)
        with torch.no_grad():
            model.free_step.fill_(math.log(0.8 / steps / (0.5 - 0.8 / steps)))

        def energy(z: Tensor, momentum: Tensor) -> Tensor:
            joint = model.log_likelihood(model.decode(z), x) + model.prior.log_prob(z)  # noqa: B023
            return 0.5 * momentum.square().sum(1) - joint

        lost.append((energy(*model.leapfrog(z, momentum, x)) - energy(z, momentum)).abs().mean().item())
    assert lost[0] > 1e-3
    assert lost[0] / lost[1] == pytest.approx(4, rel=0.15) and lost[1] / lost[2] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
def test_the_force_is_the_gradient_whoever_asks(half: bool) -> None:
    model, x = make(3).float(), bits().float()
    z = torch.randn(5, 3, requires_grad=True)
    joint = model.log_likelihood(model.decode(z), x) + model.prior.log_prob(z)
    expected = torch.autograd.grad(joint.sum(), z)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        with torch.no_grad():
            quiet = model.force(z.detach(), x)
        asked = model.force(z, x)
    assert asked.dtype == quiet.dtype == torch.float32 and not quiet.requires_grad
    for found in (quiet, asked):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.05 * half + 1e-5)
    toward = torch.randn(5, 3)
    again = torch.autograd.grad((asked * toward).sum(), [z, model.decoder.output.weight])
    wanted = torch.autograd.functional.vhp(
        lambda z: (model.log_likelihood(model.decode(z), x) + model.prior.log_prob(z)).sum(), z, toward
    )[1]
    torch.testing.assert_close(again[0], wanted, rtol=1e-4, atol=0.1 * half + 1e-4)
    assert again[1].abs().max() > 0


@every_tempering
def test_the_gradient_of_the_loss_is_that_of_finite_differences(tempering: str) -> None:
    model, x = make(steps=2, tempering=tempering), bits(3)
    inner = [parameter for name, parameter in model.named_parameters() if name.startswith("free_")]
    asked = [*inner, model.head.bias, model.decoder.output.bias, model.decoder.layers[0].weight]

    def loss(*_: Tensor) -> Tensor:
        with noise.keyed(0, torch.arange(3)):
            return model.losses(x)["vae"]

    assert torch.autograd.gradcheck(loss, asked)


# ---- the model -------------------------------------------------------------------------------------------------------


@every_tempering
def test_with_steps_of_no_size_it_is_the_vae(tempering: str) -> None:
    model, x = still(make(3, tempering=tempering)), bits(8)
    vanilla = create_model("vae", data=SPEC, latent=3, **SMALL).double().eval()
    vanilla.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("free_")})
    found = []
    for each in (model, vanilla):
        with noise.keyed(0, torch.arange(8), range(4)):
            found.append(each.log_weights(x, k=4))
    torch.testing.assert_close(*found)
    for ask in ("represent", "reconstruct"):
        torch.testing.assert_close(getattr(model, ask)(x), getattr(vanilla, ask)(x))


def test_the_code_is_where_the_steps_end_in_every_answer() -> None:
    model, x = make(3), bits(8)
    q = model.start(x)
    code = model.represent(x)
    expected, _ = model.leapfrog(q.mean, torch.zeros_like(q.mean), x)
    torch.testing.assert_close(code, expected)
    assert (code - q.mean).abs().max() > 0.01
    # It is nearer to where p(x, z) is largest than where it began.
    at = [model.log_likelihood(model.decode(z), x) + model.prior.log_prob(z) for z in (q.mean, code)]
    assert (at[1] > at[0]).all()
    torch.testing.assert_close(model.reconstruct(x), model.likelihood.mean(model.decode(code)))
    assert model.diagonal_posterior(x) is None and model.infer(x).kl(model.prior) is None
    terms = model.terms(x)
    torch.testing.assert_close(terms.distortion, -model.log_likelihood(model.decode(terms.aux["z"]), x))


@pytest.mark.parametrize("prior", ["diagonal", "mixture", "vamp", "flow"])
def test_any_prior_with_a_gradient_gives_a_bound_that_is_measured_as_it_is(prior: str) -> None:
    settings = {"prior": {"name": prior}}
    torch.manual_seed(0)
    model = create_model("hamiltonian_vae", data="ppca", latent=3, **SMALL, **settings).eval()
    images = batches(16)
    (ids, x, _), *_ = images.sequential(16)
    with noise.keyed(3, ids):
        expected = model.terms(x).elbo
    found = bound(model, images, seed=3).elbo  # in which a prior's components are computed once
    torch.testing.assert_close(found.float(), expected)
    assert torch.isfinite(found).all()
    if prior == "vamp":
        gaussians, _ = model.prior.components()
        assert isinstance(gaussians, DiagonalGaussian)
        torch.testing.assert_close(gaussians.mean, model.start(model.prior.pseudo_inputs()).mean)


def test_steps_follow_a_vamp_prior_whose_encoder_normalises_batches_and_encode_its_pseudo_inputs_once() -> None:
    """Batch normalisation writes down what it sees, which nothing may do whose gradient is being taken."""
    settings = {"encoder": {"timm": "resnet18"}, "prior": {"name": "vamp", "components": 3}}
    torch.manual_seed(0)
    model = create_model("hamiltonian_vae", data=DataSpec((1, 16, 16), "binary"), latent=2, **settings)
    x, norms = torch.rand(4, 1, 16, 16).round(), model.encoder.backbone.bn1
    model.losses(x)["vae"].backward()
    assert norms.num_batches_tracked == 3  # of x, of the pseudo-inputs for the steps, and for the bound
    assert model.prior.free_inputs.grad.abs().max() > 0
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_gradient_of_the_loss_goes_through_a_prior_that_the_steps_follow() -> None:
    model, x = make(steps=2, prior={"name": "vamp", "components": 2}), bits(3)

    def loss(*_: Tensor) -> Tensor:
        with noise.keyed(0, torch.arange(3)):
            return model.losses(x)["vae"]

    with torch.no_grad():
        model.prior.free_inputs.uniform_(0.2, 0.8)
    assert torch.autograd.gradcheck(loss, [model.prior.free_inputs, model.head.bias])


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"prior": {"name": "energy"}}, "has no gradient"), ({"step_size": 0.5}, "must begin below")],
)
def test_what_leapfrog_steps_cannot_do_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        create_model("hamiltonian_vae", data=SPEC, **settings)


class Normalised(HamiltonianVAE):
    """A decoder of one's own that normalises its codes."""

    norm: type[nn.Module] = nn.BatchNorm1d

    def __init__(self, spec: DataSpec, settings: Any) -> None:
        super().__init__(spec, settings)
        self.decoder = nn.Sequential(self.norm(settings.latent), self.decoder)


class OfEachImage(Normalised):
    norm = nn.LayerNorm


def test_a_decoder_that_normalises_batches_is_refused_in_a_sentence_before_training() -> None:
    _, entry = registry().variant("hamiltonian_vae")

    def found(name: str) -> list[Finding]:
        mine = entry.model_copy(update={"target": f"tests.test_hamiltonian_vae:{name}"})
        return [*examine(Subject("mine", mine), ("shapes",))]

    refused, taken = found("Normalised"), found("OfEachImage")
    assert [finding.status for finding in taken] == ["holds"]
    wrong = refused[-1]
    assert (wrong.property, wrong.status) == ("trains", "wrong")
    assert "no decoder with batch normalisation" in wrong.what and "nn.LayerNorm" in wrong.what
    assert "RuntimeError" not in wrong.what


@pytest.mark.parametrize("kept", [True, False])  # without statistics an ELBO in evaluation is of a batch as well
def test_a_layer_that_normalises_batches_is_found_however_deep_it_lies(kept: bool) -> None:
    model = create_model("hamiltonian_vae", data=DataSpec((1, 4, 4), "binary"), latent=2)
    x = torch.ones(3, 1, 4, 4)
    model.initialise(x)
    norm = nn.BatchNorm2d(1, track_running_stats=kept)
    model.decoder = nn.Sequential(model.decoder, nn.Sequential(nn.Sequential(nn.Identity(), norm)))
    with pytest.raises(UsageError, match="leapfrog steps follow no decoder with batch normalisation"):
        model.initialise(x)


def test_the_likelihood_is_followed_whatever_it_is() -> None:
    for spec in (DataSpec((3, 8, 8), "8-bit"), DataSpec((1, 8, 8), "real")):
        for network in ("mlp", "conv", "residual", "gated"):
            shape = {"hidden": [8], "channels": [4]} if network != "gated" else {}
            torch.manual_seed(0)
            model = create_model("hamiltonian_vae", data=spec, latent=2, decoder={"name": network, **shape})
            losses = model.losses(torch.rand(4, *spec.shape))
            losses["vae"].backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), (spec, network, name)
