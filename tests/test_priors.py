"""Priors: normalised, sampled as they are evaluated, and a VampPrior that is the encoder's own mixture."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from zoo import create_model, noise
from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian, kl_diagonal, log_normal
from zoo.errors import UsageError
from zoo.posteriors import PosteriorSettings, make_posterior
from zoo.priors import (
    PRIORS,
    EnergyPrior,
    MixturePrior,
    Prior,
    PriorSettings,
    VampPrior,
    energy,
    make_prior,
    mixtures,
    unchanged,
)  # fmt: skip

SPEC = DataSpec((1, 3, 3), "binary")
# What the diffusion prior says of a point is an estimate: tests/test_diffusion_prior.py asks the same of that.
EXACT = [name for name in PRIORS if name != "diffusion"]


class Encoder(nn.Module):
    """A model as small as can be: what a VampPrior is given is the bound method `infer`."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.layer = nn.Linear(9, 2 * latent)

    def infer(self, x: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(*(2.0 * self.layer(x.flatten(1))).chunk(2, -1))


class Model(Encoder):
    def __init__(self, latent: int, components: int, spec: DataSpec = SPEC) -> None:
        super().__init__(latent)
        self.prior = make_prior(PriorSettings(name="vamp", components=components), latent, self.infer, spec)


def build(name: str, latent: int = 2, components: int = 5) -> Prior:
    """A small prior in float64, in evaluation mode, whose parameters, if any, are away from their start."""
    encoder = Encoder(latent).double()
    settings = PriorSettings(name=name, components=components, flows=4, hidden=16)
    prior = make_prior(settings, latent, encoder.infer, SPEC).double().eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.25 * torch.randn_like(parameter))
        if name == "vamp":
            prior.free_inputs.copy_(torch.rand_like(prior.free_inputs))
    return prior


def grid(prior: Prior, reach: float = 12.0, n: int = 801) -> tuple[Tensor, Tensor]:
    """Points of the plane (n * n, 2) and the probability of the cell around each."""
    axis = torch.linspace(-reach, reach, n, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        return z, prior.log_prob(z).exp() * (2 * reach / (n - 1)) ** 2


@pytest.mark.parametrize(
    "wrong", [{"name": "vampire"}, {"components": 0}, {"flows": 0}, {"k": 1}, {"tries": 1}, {"steps": 0}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PriorSettings(**wrong)


@pytest.mark.parametrize("name", EXACT)
def test_shapes(name: str) -> None:
    prior = build(name, latent=3)
    z = torch.randn(4, 5, 3, dtype=torch.float64)
    assert prior.log_prob(z).shape == (4, 5)
    torch.testing.assert_close(prior.log_prob(z)[2], prior.log_prob(z[2]))
    assert prior.log_prob(z[0, 0]).shape == ()
    assert prior.sample(7).shape == (7, 3)


@pytest.mark.parametrize("name", EXACT)
def test_integrates_to_one_and_is_what_is_sampled(name: str) -> None:
    prior = build(name)
    z, p = grid(prior)
    assert p.sum().item() == pytest.approx(1.0, abs=1e-3)
    n = 40_000
    with torch.no_grad():
        samples = prior.sample(n)
    for moment in (lambda z: z[:, 0], lambda z: z[:, 1], lambda z: z[:, 0] ** 2, lambda z: z[:, 1] ** 2,
                   lambda z: z[:, 0] * z[:, 1], lambda z: (z[:, 0] > 0.3).double()):  # fmt: skip
        values = moment(samples)
        expected = (p * moment(z)).sum().item()
        assert abs(values.mean().item() - expected) < 4.5 * values.std().item() / math.sqrt(n) + 1e-3
    with torch.no_grad():
        log_prob = prior.log_prob(samples)
    negative_entropy = torch.special.xlogy(p, p / (24 / 800) ** 2).sum().item()
    assert abs(log_prob.mean().item() - negative_entropy) < 4.5 * log_prob.std().item() / math.sqrt(n) + 1e-3


@pytest.mark.parametrize("name", EXACT)
def test_half_precision_is_computed_in_float32(name: str) -> None:
    prior = build(name).float()
    if name == "vamp":
        prior._encode[0].__self__.float()
    z = torch.randn(50, 2).bfloat16()
    log_prob = prior.log_prob(z)
    assert log_prob.dtype == torch.float32
    assert torch.equal(log_prob, prior.log_prob(z.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = prior.log_prob(z)
    assert inside.dtype == torch.float32
    if name != "vamp":  # there the encoder does run in the surrounding precision, as it does on the data
        assert torch.equal(log_prob, inside)


@pytest.mark.parametrize("name", PRIORS)
def test_far_points_stay_finite(name: str) -> None:
    prior = build(name).float()
    if name == "vamp":
        prior._encode[0].__self__.float()
    z = torch.tensor([[0.0, 0.0], [1e3, -1e3], [1e5, 1e5]], requires_grad=True)
    log_prob = prior.log_prob(z)
    (gradient,) = torch.autograd.grad(log_prob.sum(), z)
    assert log_prob.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("name", PRIORS)
def test_temperature_zero_is_without_noise_and_one_half_is_narrower(name: str) -> None:
    prior = build(name, components=1)
    with torch.no_grad():
        cold, cool, warm = (prior.sample(4000, temperature=t) for t in (0.0, 0.5, 1.0))
    assert cold.std(0).max() < 1e-9
    ratio = cool.std(0) / warm.std(0)
    if name in ("flow", "energy", "diffusion"):  # neither a curved map nor what is accepted scales exactly
        assert (ratio < 0.9).all()
    else:
        torch.testing.assert_close(ratio, torch.full_like(ratio, 0.5), rtol=0.06, atol=0)


@pytest.mark.parametrize("name", ["diagonal", "mixture", "vamp"])
def test_a_temperature_leaves_the_mean_of_a_component_where_it_is(name: str) -> None:
    prior = build(name, components=1)
    with torch.no_grad():
        mean = prior.moments()[0] if name == "diagonal" else prior.components()[0].mean[0]
        assert mean.abs().max() > 0.1
        torch.testing.assert_close(prior.sample(3, temperature=0.0), mean.expand(3, -1))


def test_the_temperature_of_a_flow_is_that_of_the_noise_that_it_carries() -> None:
    prior, ids = build("flow"), torch.arange(50)
    with torch.no_grad(), noise.keyed(0, ids):
        warm = prior.flow(prior.sample(50))[0]
    with torch.no_grad(), noise.keyed(0, ids):
        cool = prior.flow(prior.sample(50, temperature=0.5))[0]
    torch.testing.assert_close(cool, 0.5 * warm, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PRIORS)
def test_sampling_under_keyed_noise_is_reproducible(name: str) -> None:
    prior = build(name)
    draws = []
    for rows in (slice(0, 10), slice(0, 10), slice(4, 10)):
        ids = torch.arange(10)[rows]
        with noise.keyed(3, ids):
            draws.append(prior.sample(len(ids)))
    assert torch.equal(draws[0], draws[1])
    torch.testing.assert_close(draws[0][4:], draws[2])


@pytest.mark.parametrize("name", ["diagonal", "mixture", "flow"])
def test_a_learned_prior_fits_what_it_is_shown(name: str) -> None:
    """Maximum likelihood on an anisotropic Gaussian comes near its entropy, and not below it."""
    scale, shift = torch.tensor([0.3, 2.0]), torch.tensor([1.0, -1.0])
    prior = make_prior(PriorSettings(name=name, components=4, flows=4, hidden=32), 2)
    optimiser = torch.optim.Adam(prior.parameters(), lr=0.03)
    for _ in range(250):
        loss = -prior.log_prob(shift + scale * torch.randn(256, 2)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    entropy = (0.5 * math.log(2 * math.pi * math.e) + scale.log()).sum().item()
    with torch.no_grad():
        log_prob = prior.log_prob(shift + scale * torch.randn(20_000, 2))
    nll, error = -log_prob.mean().item(), log_prob.std().item() / math.sqrt(20_000)
    assert entropy - 4 * error < nll < entropy + 0.05 + 4 * error


@pytest.mark.parametrize(("learned", "bounded"), [(100.0, 20.0), (-100.0, -20.0)])
def test_a_learned_variance_is_bounded_wherever_it_is_asked_for(learned: float, bounded: float) -> None:
    prior = build("diagonal").float()
    torch.nn.init.constant_(prior.log_variance, learned)
    assert (prior.moments()[1] == bounded).all()
    z = prior.sample(1000)
    assert z.isfinite().all() and prior.log_prob(z).isfinite().all()
    assert (z - prior.mean).std().log().item() == pytest.approx(bounded / 2, abs=0.1)


def test_standard_has_no_parameters_and_the_diagonal_begins_as_it() -> None:
    standard, diagonal = (make_prior(PriorSettings(name=name), 4) for name in ("standard", "diagonal"))
    assert not list(standard.parameters()) and not standard.state_dict()
    z = torch.randn(5, 4)
    expected = Independent(Normal(torch.zeros(4), torch.ones(4)), 1).log_prob(z)
    for prior in (standard, diagonal):
        torch.testing.assert_close(prior.log_prob(z), expected)


# ---- mixtures ----------------------------------------------------------------------------------------------


def as_torch(prior: MixturePrior | VampPrior) -> MixtureSameFamily:
    gaussians, log_weights = prior.components()
    parts = Independent(Normal(gaussians.mean, (0.5 * gaussians.log_variance).exp()), 1)
    return MixtureSameFamily(Categorical(logits=log_weights), parts)


@pytest.mark.parametrize("name", ["mixture", "vamp"])
def test_mixture_equals_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = build(name, latent=6, components=11)
    z = torch.randn(50, 6, dtype=torch.float64)
    expected = as_torch(prior).log_prob(z)
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=0, atol=1e-9)
    monkeypatch.setattr(mixtures, "_HELD", 11 * 7)  # pieces of 7 rows, the last one shorter
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("log_variance", [-9.0, -19.0])
def test_mixture_equals_torch_in_float32_with_narrow_components(log_variance: float) -> None:
    # Float32 squares of the second, expanded, would be wrong by thousands of nats.
    prior = make_prior(PriorSettings(name="mixture", components=7), 5)
    with torch.no_grad():
        prior.means.add_(30.0)
        prior.log_variances.fill_(log_variance)
    z = prior.means[3:5].detach() + math.exp(0.5 * log_variance)
    exact = as_torch(copy.deepcopy(prior).double()).log_prob(z.double())
    torch.testing.assert_close(prior.log_prob(z).double(), exact, rtol=1e-4, atol=1e-4)


def test_mixture_samples_follow_the_weights() -> None:
    prior = make_prior(PriorSettings(name="mixture", components=4), 1)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    with torch.no_grad():
        prior.logits.copy_(weights.log())
        prior.means.copy_(torch.tensor([[0.0], [100.0], [200.0], [300.0]]))
        samples = prior.sample(20_000)
    counts = torch.bincount((samples.flatten() / 100).round().long(), minlength=4)
    chi2 = ((counts - 20_000 * weights).square() / (20_000 * weights)).sum()
    assert chi2 < 16.3  # 3 degrees of freedom, one in a thousand


# ---- VampPrior ---------------------------------------------------------------------------------------------


def test_equal_pseudo_inputs_are_a_single_gaussian() -> None:
    model = Model(3, components=6).double()
    x = torch.rand(1, 1, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        model.prior.free_inputs.copy_(x.expand(6, -1, -1, -1))
    q = model.infer(x)
    z = torch.randn(20, 3, dtype=torch.float64)
    torch.testing.assert_close(model.prior.log_prob(z), q.log_prob(z))
    # ... whose KL is analytic: of q itself zero for every sample, of another Gaussian the formula's.
    own, log_own = q.repeat(50).rsample()
    torch.testing.assert_close(model.prior.log_prob(own), log_own)
    other = DiagonalGaussian(q.mean + 0.5, q.log_variance - 1.0)
    z, log_q = other.repeat(50_000).rsample()
    with torch.no_grad():
        rate = log_q - model.prior.log_prob(z)
    analytic = kl_diagonal(other.mean, other.log_variance, q.mean, q.log_variance).sum()
    assert abs(rate.mean() - analytic) < 4 * rate.std() / math.sqrt(50_000)


def test_the_prior_moves_the_encoder_and_does_not_own_it() -> None:
    model = Model(3, components=4)
    assert [name for name, _ in model.prior.named_parameters()] == ["free_inputs"]
    model.prior.initialise(torch.rand(4, 1, 3, 3))
    model.prior.log_prob(torch.randn(8, 3)).sum().backward()
    assert model.layer.weight.grad.abs().max() > 0
    assert (model.prior.free_inputs.grad.flatten(1).abs().amax(1) > 0).all()


def test_a_module_may_be_given_and_is_not_registered() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), make_posterior(PosteriorSettings(), 2))
    prior = make_prior(PriorSettings(name="vamp", components=3), 2, encoder, SPEC)
    assert list(prior.state_dict()) == ["free_inputs"]
    assert prior.sample(2).shape == (2, 2)


def test_a_copied_model_has_a_prior_of_its_own_encoder() -> None:
    model = Model(3, components=4)
    twin = copy.deepcopy(model)
    z = torch.randn(5, 3)
    before = model.prior.log_prob(z).detach()
    with torch.no_grad():
        twin.layer.weight.add_(1.0)
        twin.layer.bias.add_(1.0)
    assert torch.equal(model.prior.log_prob(z), before)
    assert not torch.allclose(twin.prior.log_prob(z), before)


def test_pseudo_inputs_are_images() -> None:
    model = Model(3, components=4)
    with torch.no_grad():
        model.prior.free_inputs.copy_(5.0 * torch.randn(4, 1, 3, 3))
    images = model.prior.pseudo_inputs()
    assert images.shape == (4, 1, 3, 3)
    assert images.min() == 0.0 and images.max() == 1.0


@pytest.mark.parametrize("n", [2, 50])
def test_initialised_from_data_every_pixel_can_move(n: int) -> None:
    model = Model(3, components=20)
    x = (torch.rand(n, 1, 3, 3) < 0.5).float()
    model.prior.initialise(x)
    images = model.prior.pseudo_inputs()
    distance = (images.flatten(1)[:, None] - x.flatten(1)[None]).abs().amax(2).amin(1)
    assert distance.max() < 0.15  # each is one of the images, noise and margin apart
    if n > 20:
        assert len(images.flatten(1).round().unique(dim=0)) > 10
    (gradient,) = torch.autograd.grad(images.sum(), model.prior.free_inputs)
    assert (gradient == 1.0).all()


def test_pseudo_inputs_begin_at_different_random_images_with_noise_about_them() -> None:
    x = torch.linspace(0.3, 0.7, 400).view(-1, 1, 1, 1).expand(-1, *SPEC.shape)
    begun = []
    for _ in range(2):
        prior = Model(2, 200).prior
        prior.initialise(x)
        begun.append(prior.free_inputs.detach().clone())
        prior.initialise(x, spread=0.0)
        levels = prior.free_inputs.detach().flatten(1)
        assert (levels == levels[:, :1]).all() and len(levels[:, 0].unique()) == 200
        assert levels.max() > 0.65 and (levels[:, 0].diff() < 0).any()
    assert not torch.equal(*begun)
    apart = torch.stack([one - one.flatten(1).mean(1).view(-1, 1, 1, 1) for one in begun])
    assert apart.std().item() == pytest.approx(0.02, rel=0.2)
    assert torch.cat(begun).mean().item() == pytest.approx(0.5, abs=0.03)


def test_pseudo_inputs_of_real_data_are_not_confined() -> None:
    model = Model(3, components=20, spec=DataSpec((1, 3, 3), "real"))
    x = 5.0 * torch.randn(50, 1, 3, 3)
    model.prior.initialise(x)
    images = model.prior.pseudo_inputs()
    assert (images.flatten(1)[:, None] - x.flatten(1)[None]).abs().amax(2).amin(1).max() < 0.15
    assert images.min() < -1.0 and images.max() > 2.0


def test_components_are_sampled_uniformly_not_in_order() -> None:
    model = Model(1, components=5)
    with torch.no_grad():
        model.layer.weight.zero_()
        model.layer.weight[0] = 10.0
        model.layer.bias.copy_(torch.tensor([0.0, -2.0]))
        model.prior.free_inputs.copy_(torch.linspace(0.0, 1.0, 5).view(5, 1, 1, 1).expand(5, 1, 3, 3))
        centres = model.prior.components()[0].mean.flatten()
        draws = torch.cat([model.prior.sample(5) for _ in range(2000)]).flatten()
    nearest = (draws[:, None] - centres).abs().argmin(1)
    counts = torch.bincount(nearest, minlength=5)
    assert ((counts - 2000).square() / 2000).sum() < 18.5  # 4 degrees of freedom, one in a thousand
    assert (nearest.view(2000, 5).sort(1).values != torch.arange(5)).any(1).float().mean() > 0.9


def test_vamp_says_what_it_needs() -> None:
    with pytest.raises(UsageError, match="encoder"):
        make_prior(PriorSettings(name="vamp"), 4)
    posterior = make_posterior(PosteriorSettings(name="planar", flows=1), 2)
    prior = make_prior(
        PriorSettings(name="vamp", components=3), 2, lambda x: posterior(x.flatten(1)[:, :9]), SPEC
    )
    with pytest.raises(UsageError, match="diagonal"):
        prior.log_prob(torch.randn(1, 2))


def test_while_weights_are_unchanged_pseudo_inputs_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = Model(2, components=5), Model(2, components=5)
    z = torch.randn(7, 2)
    calls = []
    components = VampPrior.components
    monkeypatch.setattr(VampPrior, "components", lambda prior: calls.append(prior) or components(prior))
    with torch.no_grad():
        expected = [one.prior.log_prob(z) for one in (model, other)]
        calls.clear()
        with unchanged():
            for _ in range(3):
                assert torch.equal(model.prior.log_prob(z), expected[0])
                assert torch.equal(other.prior.log_prob(z), expected[1])
        assert calls == [model.prior, other.prior]
        model.layer.weight += 1
        assert not torch.allclose(model.prior.log_prob(z), expected[0])
        with unchanged():  # nothing is left of the block before
            assert not torch.allclose(model.prior.log_prob(z), expected[0])


# ---- energy ------------------------------------------------------------------------------------------------


def half(tries: int) -> EnergyPrior:
    """A prior that accepts what has a positive first coordinate, and nothing else."""
    prior = make_prior(PriorSettings(name="energy", tries=tries, hidden=2), 2).double().eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.zero_()
        first, _, second, _, last = prior.network
        first.weight[0, 0], second.weight[0, 0], last.weight[0, 0] = 1e6, 1e6, 1e3
    return prior


@pytest.mark.parametrize("tries", [2, 3, 100])
def test_the_last_draw_is_accepted_in_any_case(tries: int) -> None:
    prior = half(tries)
    z = torch.tensor([[0.7, -1.0], [-0.7, -1.0]], dtype=torch.float64)
    rest = 0.5 ** (tries - 1)
    normal = Independent(Normal(torch.zeros(2).double(), torch.ones(2).double()), 1).log_prob(z)
    expected = normal + torch.tensor([2 * (1 - rest) + rest, rest], dtype=torch.float64).log()
    with torch.no_grad():
        error = prior.counted()[1].item()
        # Where nothing but the last draw can come from, its share is of Z^(T-1), and so is the error of its logarithm.
        found, slack = prior.log_prob(z), torch.tensor([1.0, tries - 1.0]).double() * 4 * error
        assert ((found - expected).abs() < slack).all()
        samples = prior.sample(20_000)
    negative = (samples[:, 0] < 0).double()
    assert abs(negative.mean() - rest / 2) < 4.5 * math.sqrt(rest / 2 / 20_000) + 1e-9
    assert (tries < 100) == bool(negative.any())


def test_a_constant_energy_changes_nothing() -> None:
    prior = make_prior(PriorSettings(name="energy"), 3).eval()
    with torch.no_grad():
        prior.network[-1].weight.zero_()
        prior.network[-1].bias.fill_(-2.0)
        z = torch.randn(50, 3)
        torch.testing.assert_close(prior.log_prob(z), make_prior(PriorSettings(), 3).log_prob(z))
        assert prior.counted()[1] < 1e-6


def test_the_normaliser_is_the_integral_and_its_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = build("energy")
    with torch.no_grad():
        prior.network[-1].weight.mul_(8.0)
        axis = torch.linspace(-9, 9, 1201, dtype=torch.float64)
        z = torch.cartesian_prod(axis, axis)
        normal = log_normal(z, prior.zero, prior.zero).sum(1)
        exact = torch.logsumexp(normal - prior.energy(z), 0) + 2 * math.log(18 / 1200)
        value, error = prior.counted()
        assert 0 < error < 0.01 and abs(value - exact) < 4 * error
        # From other and fewer draws: as far from it as the error says.
        monkeypatch.setattr(energy, "COUNTED", 2000)
        far = []
        for seed in range(60):
            generator = torch.Generator().manual_seed(100 + seed)
            draws = torch.randn(2000, 2, generator=generator).double()
            monkeypatch.setattr(prior, "_fixed", lambda n, draws=draws: iter([draws]))
            prior._counted = None
            value, error = prior.counted()
            far.append((value - exact) / error)
        assert 0.75 < torch.stack(far).square().mean().sqrt() < 1.25


def test_a_model_measures_the_share_of_draws_that_its_prior_accepts_and_the_error_of_its_logarithm() -> None:
    model = create_model("energy_vae", data=SPEC, latent=2).eval()
    with torch.no_grad():
        for parameter in model.prior.parameters():
            parameter.mul_(3)
        found = model.measure(torch.zeros(1, 1, 3, 3))
        z = torch.randn(200_000, 2)
        accepted = (torch.rand(200_000) < torch.exp(-model.prior.energy(z))).double()
    share, error = found["acceptance"].item(), found["log_normaliser_error"].item()
    assert share == pytest.approx(accepted.mean().item(), abs=4 * accepted.std().item() / math.sqrt(200_000))
    assert abs(share - 0.5) > 0.02
    weights = torch.exp(-model.prior.energy(z)).detach().double()
    counts = [part.mean().log().item() for part in weights.split(1000)]
    # Of a mean over so many times more draws the deviation is smaller by the root of that number.
    assert error == pytest.approx(np.std(counts, ddof=1) * math.sqrt(1000 / energy.COUNTED), rel=0.25)


def test_the_normaliser_is_counted_again_when_a_weight_moves_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, counts = build("energy"), []
    fixed = EnergyPrior._fixed
    monkeypatch.setattr(EnergyPrior, "_fixed", lambda self, n: counts.append(n) or fixed(self, n))
    z = torch.randn(4, 2, dtype=torch.float64)
    with torch.no_grad():
        before = [prior.log_prob(z) for _ in range(3)]
        assert counts == [energy.COUNTED] and torch.equal(before[0], before[2])
        state = {key: value.clone() for key, value in prior.state_dict().items()}
        prior.network[0].weight.data.mul_(1.5)
        moved = prior.log_prob(z)
        assert len(counts) == 2 and not torch.equal(moved, before[0])
        prior.load_state_dict(state)
        assert torch.equal(prior.log_prob(z), before[0]) and len(counts) == 3
    assert set(state) == {f"network.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}


def test_in_training_the_normaliser_is_that_of_evaluation_on_average_and_is_learned_in_both() -> None:
    prior = build("energy")
    value, error = prior.counted()

    def gradient() -> Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(prior.log_normaliser(), prior.parameters())])

    prior.train()
    drawn = torch.stack([prior.log_normaliser() for _ in range(200)]).detach()
    assert drawn.std() > 0 and abs(drawn.mean() - value) < 4 * (drawn.std() / math.sqrt(200) + error)
    learned = torch.stack([gradient() for _ in range(200)])
    mean, apart = learned.mean(0), learned.std(0)
    prior.eval()
    assert ((gradient() - mean).abs() <= 5 * apart).all() and mean.norm() > 0.1
    with torch.no_grad():
        assert torch.equal(prior.log_normaliser(), value)


def test_an_energy_learns_what_a_normal_prior_cannot_be() -> None:
    """Four lobes within what the normal reaches: near their entropy, and not below it."""
    lobes = MixtureSameFamily(Categorical(torch.ones(2, 2)), Normal(torch.tensor([[-1.3, 1.3]]).expand(2, 2), 0.35))
    target = Independent(lobes, 1)
    torch.manual_seed(0)
    prior = make_prior(PriorSettings(name="energy", hidden=64), 2)
    optimiser = torch.optim.Adam(prior.parameters(), lr=0.01)
    for _ in range(300):
        loss = -prior.log_prob(target.sample((256,))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    prior.eval()
    with torch.no_grad():
        z = target.sample((20_000,))
        apart = target.log_prob(z) - prior.log_prob(z)
        normal = target.log_prob(z) - make_prior(PriorSettings(), 2).log_prob(z)
    error = apart.std() / math.sqrt(len(z)) + prior.counted()[1]
    assert -4 * error < apart.mean() < 0.25 * normal.mean()


def test_a_batch_that_is_divided_shares_its_normaliser() -> None:
    prior = build("energy").train()
    z = torch.randn(6, 2, dtype=torch.float64)
    torch.manual_seed(4)
    whole = prior.log_prob(z)
    for size in (1, 2, 3):
        torch.manual_seed(4)
        tape: list[Tensor] = []
        parts = []
        for start in range(0, 6, size):
            with noise.part_of(6, start, start + size, tape):
                parts.append(prior.log_prob(z[start : start + size]))
        # Not to the bit: a product of one row may round otherwise than one of six, as it does on AMD's Zen 5.
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=0.0)
