"""Ladder VAE, NVAE-lite and what they share: merge, residual posterior, bound, batch norm, penalty."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from zoo import noise
from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian, kl_diagonal
from zoo.models.hierarchy import Layer, draw
from zoo.models.ladder_vae import LadderSettings, LadderVAE, _moments, merge, normalised
from zoo.models.nvae_lite import NVAELite, NVAESettings, moments, relative
from zoo.nets.cells import SpectralPenalty, generative_cell, inference_cell

BINARY = DataSpec((1, 28, 28), "binary")
COLOUR = DataSpec((3, 64, 64), "8-bit")


def ladder(spec: DataSpec = BINARY, **settings):
    return LadderVAE(spec, LadderSettings(**{"latent": 8, "hidden": (32, 16, 8)} | settings))


def nvae(spec: DataSpec = BINARY, **settings):
    small = {"latent": 2, "groups_per_scale": 2, "channels": 8, "expansion": 2}
    return NVAELite(spec, NVAESettings(**small | settings))


MODELS = {"ladder": ladder, "nvae": nvae}


def pictures(spec: DataSpec = BINARY, n: int = 16) -> torch.Tensor:
    levels = 1 if spec.support == "binary" else 255
    return (torch.rand(n, *spec.shape) * levels).round() / levels


def settled(model, spec: DataSpec = BINARY):
    """In evaluation mode, with batch-norm statistics that are not the initial ones."""
    model.recollect([(pictures(spec, 32), None) for _ in range(4)])
    return model.eval()


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


# ---- the merge and the residual posterior ------------------------------------------------------------------


def gaussians(n: int = 200):
    return [torch.randn(n, dtype=torch.float64) * 3 for _ in range(4)]


def test_merge_is_the_product_of_the_two_densities():
    m1, lv1, m2, lv2 = gaussians()
    mean, log_variance = merge(m1, lv1, m2, lv2)
    merged, first, second = (
        torch.distributions.Normal(m, (0.5 * lv).exp())
        for m, lv in ((mean, log_variance), (m1, lv1), (m2, lv2))
    )
    # log N1 + log N2 - log N is the same at every z: the log-normaliser, which is that of N(m1; m2, v1 + v2).
    normaliser = torch.distributions.Normal(m2, (lv1.exp() + lv2.exp()).sqrt()).log_prob(m1)
    for z in (mean - 2.0, mean, mean + 0.7):
        product = first.log_prob(z) + second.log_prob(z)
        torch.testing.assert_close(product, merged.log_prob(z) + normaliser, rtol=1e-10, atol=1e-9)


def test_merge_adds_precisions():
    m1, lv1, m2, lv2 = gaussians()
    mean, log_variance = merge(m1, lv1, m2, lv2)
    v1, v2 = lv1.exp(), lv2.exp()
    v = 1 / (1 / v1 + 1 / v2)
    torch.testing.assert_close(log_variance.exp(), v)
    torch.testing.assert_close(mean, v * (m1 / v1 + m2 / v2))


def test_merge_with_an_infinite_variance_is_the_other():
    m1, lv1, m2, lv2 = gaussians()
    infinite = torch.full_like(lv1, math.inf)
    for merged in (merge(m1, lv1, m2, infinite), merge(m2, infinite, m1, lv1)):
        assert torch.equal(merged[0], m1)
        assert torch.equal(merged[1], lv1)


def test_merge_is_exact_for_a_linear_gaussian_model_of_two_layers():
    # z2 ~ N(0, 1), z1 | z2 ~ N(a z2, v), x | z1 ~ N(z1, s): z1 given z2 and x is a Kalman update.
    a, v, s, z2, x = 0.7, 0.5, 0.2, 1.3, -0.4
    value = torch.tensor([x, math.log(s), a * z2, math.log(v)], dtype=torch.float64)
    mean, log_variance = merge(*value)
    gain = v / (v + s)
    assert mean.item() == pytest.approx(a * z2 + gain * (x - a * z2), abs=1e-12)
    assert log_variance.exp().item() == pytest.approx((1 - gain) * v, abs=1e-12)
    # With the exact posteriors of both layers the bound is log p(x) for every draw.
    total = a * a + v + s
    top_mean, top_variance = a * x / total, 1 - a * a / total
    z2 = top_mean + math.sqrt(top_variance) * torch.randn(50, dtype=torch.float64)
    mean, log_variance = merge(value[0], value[1], a * z2, value[3])
    z1 = mean + (0.5 * log_variance).exp() * torch.randn(50, dtype=torch.float64)

    def log_normal(at, mean, variance):
        deviation = torch.as_tensor(variance, dtype=torch.float64).sqrt()
        return torch.distributions.Normal(mean, deviation).log_prob(at)

    observed = torch.tensor(x, dtype=torch.float64)
    joint = log_normal(z2, 0.0, 1.0) + log_normal(z1, a * z2, v) + log_normal(observed, z1, s)
    weight = joint - log_normal(z2, top_mean, top_variance) - log_normal(z1, mean, log_variance.exp())
    torch.testing.assert_close(weight, log_normal(observed, 0.0, total).expand(50), rtol=1e-12, atol=1e-12)


def test_residual_posterior_has_the_closed_form_kl():
    mean, log_variance, shift, log_ratio = (value.view(20, 10) for value in gaussians())
    prior = DiagonalGaussian(mean, log_variance)
    posterior = relative(prior, shift, log_ratio)
    expected = 0.5 * (shift**2 / log_variance.exp() + log_ratio.exp() - log_ratio - 1)
    torch.testing.assert_close(Layer(prior, posterior, mean, None).rate(), expected.sum(1))
    same = relative(prior, torch.zeros_like(shift), torch.zeros_like(log_ratio))
    assert torch.equal(Layer(prior, same, mean, None).rate(), torch.zeros(20, dtype=torch.float64))


def test_soft_clamp_keeps_every_variance_inside_the_hard_bound():
    mean, log_variance = moments(torch.full((1, 4, 2, 2), 1e4))
    posterior = relative(DiagonalGaussian(mean, log_variance), mean, log_variance)
    assert posterior.log_variance.max() <= 20 and posterior.mean.max() <= 10
    assert torch.equal(posterior.log_variance, 2 * log_variance)


def test_ladder_s_rectifiers_leak_a_tenth() -> None:
    leaky = normalised(4, 4, 1)[-1]
    assert leaky(torch.tensor([-1.0, 2.0])).tolist() == pytest.approx([-0.1, 2.0])


def test_ladder_s_variances_end_at_a_hundred_thousandth() -> None:
    features = torch.tensor([[0.0, -200.0]], dtype=torch.float64)
    assert _moments(features)[1].exp().item() == pytest.approx(1e-5)


# ---- the bound ---------------------------------------------------------------------------------------------


def test_rate_uses_the_moments_that_z_was_drawn_from(model):
    """The KL of the merged (ladder) or shifted (nvae) posterior, whose log-density weighs the samples."""
    settled(model)
    x = pictures()
    with torch.no_grad():
        layers, _ = model.descend(draw, len(x), model.ascend(x))
    assert len(layers) == model.levels
    for layer in layers:
        q, p = layer.posterior, layer.prior
        torch.testing.assert_close(q.log_prob(layer.z), layer.log_q, rtol=1e-4, atol=1e-3)
        by_torch = torch.distributions.kl_divergence(
            *(
                torch.distributions.Normal(d.mean.double(), (0.5 * d.log_variance.double()).exp())
                for d in (q, p)
            )
        )
        torch.testing.assert_close(layer.rate().double(), by_torch.sum(1), rtol=1e-4, atol=1e-4)


def test_ladder_rate_is_not_that_of_the_upward_moments():
    model = settled(ladder())
    x = pictures()
    with torch.no_grad():
        evidence = model.ascend(x)
        layers, _ = model.descend(draw, len(x), evidence)
    for layer, alone in list(zip(layers, evidence, strict=True))[1:]:
        wrong = kl_diagonal(*alone.chunk(2, 1), layer.prior.mean, layer.prior.log_variance).sum(1)
        assert (layer.rate() - wrong).abs().min() > 1e-3
        assert (layer.posterior.log_variance < layer.prior.log_variance).all()


def test_group_rates_sum_to_the_total(model):
    settled(model)
    x = pictures(n=4)
    with torch.no_grad():
        terms = model.terms(x)
        k = 4000
        weights = model.log_weights(x[:1], k=k)
        repeated = model.terms(x[:1].expand(k, -1, -1, -1)).elbo
    assert terms.rate.shape == (4, model.levels) and (terms.rate >= 0).all()
    torch.testing.assert_close(terms.elbo, -(terms.distortion + terms.rate.sum(1)))
    # The mean weight is the bound whose KLs are analytic.
    error = math.hypot(weights.std().item(), repeated.std().item()) / math.sqrt(k)
    assert weights.mean().item() == pytest.approx(repeated.mean().item(), abs=4 * error)


def test_weights_are_the_joint_density_over_the_posterior(model):
    settled(model)
    x, k = pictures(n=3), 5
    ids = torch.arange(3)
    with torch.no_grad(), noise.keyed(1, ids, range(k)):
        weights = model.log_weights(x, k=k)
    for sample in range(k):
        with torch.no_grad(), noise.keyed(1, ids, [sample]):
            layers, params = model.descend(draw, 3, model.ascend(x))
        expected = model.likelihood.log_prob(params, x)
        for layer in layers:
            expected = expected + layer.prior.log_prob(layer.z) - layer.posterior.log_prob(layer.z)
        torch.testing.assert_close(weights[sample], expected, rtol=1e-4, atol=2e-2)


def test_temperature_zero_leaves_one_sample(model):
    settled(model)
    with torch.no_grad():
        cold, warm = model.sample(4, temperature=0.0), model.sample(4)
    torch.testing.assert_close(cold, cold[:1].expand_as(cold))
    assert (warm[0] - warm[1]).abs().max() > 1e-4


def test_ladder_may_have_other_ends():
    model = settled(ladder(COLOUR, encoder={"name": "conv"}, decoder={"name": "conv"}), COLOUR)
    with torch.no_grad():
        assert torch.isfinite(model.terms(pictures(COLOUR, 2)).elbo).all()


def test_distortion_is_over_the_pixels_of_the_image_alone():
    model = nvae()
    assert model.padding == (2, 2, 2, 2)
    # A decoder that says nothing: log 2 for each of 784 pixels, not of the 1024 that the network works on.
    last = model.outer[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    settled(model)
    with torch.no_grad():
        distortion = model.terms(pictures()).distortion
    torch.testing.assert_close(distortion, torch.full((16,), 784 * math.log(2.0)))


def test_crop_returns_the_pixels_that_were_padded():
    model = nvae()
    x = pictures(n=2)
    padded = nn.functional.pad(x, model.padding)
    folded = nn.functional.pixel_unshuffle(padded, model.settings.patch)
    model.outer = nn.Identity()
    assert torch.equal(model.decode(folded), x)


def test_image_of_whole_patches_is_not_padded():
    assert nvae(patch=2).padding == (0, 0, 0, 0)
    assert nvae(COLOUR).padding == (0, 0, 0, 0)


# ---- training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_gradient_reaches_every_parameter_of_a_model_of_colours_in_its_warm_up(make):
    model = make(COLOUR)
    model.losses(pictures(COLOUR, 32), progress=0.5)["vae"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_every_group_has_its_gradient_through_the_rate_alone(model):
    """Every layer's posterior and every layer's prior but the top, which is fixed, answers for its KL."""
    terms = model.terms(pictures(n=32))
    owners = model.evidence[::-1] if isinstance(model, LadderVAE) else model.posterior
    for level, owner in enumerate(owners):
        gradient = torch.autograd.grad(
            terms.rate[:, level].sum(), list(owner.parameters()), retain_graph=True
        )
        assert all(part.abs().max() > 0 for part in gradient)


def test_balance_acts_in_the_losses_during_warm_up_only():
    model = nvae(spectral=0.0)
    x = pictures(n=32)

    def both(progress):
        torch.manual_seed(1)
        losses = model.losses(x, progress=progress)
        return losses["vae"], losses.terms

    loss, terms = both(1.0)
    torch.testing.assert_close(loss, -terms.elbo.mean())
    halfway, warm_terms = both(0.5)
    torch.testing.assert_close(warm_terms.elbo, terms.elbo)
    plain = (terms.distortion + model.rate_weight(0.5) * terms.rate.sum(1)).mean()
    assert (halfway - plain).abs() > 1e-3
    balanced = (terms.rate * model.balance(terms.rate, 0.5)).sum(1)
    torch.testing.assert_close(halfway, (terms.distortion + model.rate_weight(0.5) * balanced).mean())
    torch.testing.assert_close(both(torch.tensor(0.5))[0], halfway)
    assert model.rate_weight(0.0) == pytest.approx(1e-4) and model.rate_weight(1.0) == 1.0


def test_balance_charges_little_to_what_carries_little():
    model = nvae()  # two groups at 4x4, two at 8x8
    rate = torch.tensor([[8.0, 2.0, 8.0, 0.0]]).expand(5, 4)
    weights = model.balance(rate, 0.3)
    assert weights.mean().item() == pytest.approx(1.0)
    assert weights[0] > weights[1] > weights[3] > 0
    assert (weights[0] / weights[2]).item() == pytest.approx(4.0, rel=1e-3)
    assert (weights[3] / weights[2]).item() == pytest.approx(0.01 / 8.01, rel=1e-4)
    assert torch.equal(model.balance(rate, 1.0), torch.ones(4))
    assert torch.equal(model.balance(rate, torch.tensor(1.0)), torch.ones(4))


def test_penalty_is_the_largest_singular_values_and_gammas():
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 5, groups=6), nn.Conv2d(6, 3, 1)
    )
    network[1].weight.data = torch.tensor([0.1, -4.0, 1.0, 0.0, 2.0, 3.0])
    penalty = SpectralPenalty(network)
    for _ in range(200):
        value = penalty()
    convolutions = [network[0], network[2], network[3]]
    exact = sum(torch.linalg.matrix_norm(conv.weight.flatten(1), ord=2) for conv in convolutions) + 4.0
    torch.testing.assert_close(value, exact, rtol=1e-4, atol=1e-4)
    value.backward()
    assert network[1].weight.grad.tolist() == [0, -1, 0, 0, 0, 0]
    # The derivative of a singular value is the outer product of its vectors.
    left, _, right = torch.linalg.svd(network[3].weight.detach().flatten(1))
    torch.testing.assert_close(
        network[3].weight.grad.flatten(1), torch.outer(left[:, 0], right[0]), rtol=1e-2, atol=1e-2
    )


def test_penalty_is_in_the_loss_and_in_no_other_number():
    free, bound = nvae(spectral=0.0), nvae(spectral=0.5)
    bound.load_state_dict(free.state_dict())
    x = pictures(n=32)
    torch.manual_seed(2)
    without = free.losses(x, progress=1.0)
    expected = 0.5 * copy.deepcopy(bound).penalty()
    torch.manual_seed(2)
    with_penalty = bound.losses(x, progress=1.0)
    torch.testing.assert_close(without.terms.elbo, with_penalty.terms.elbo)
    difference = with_penalty["vae"] - without["vae"]
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=1e-3)
    assert expected > 1


def test_penalty_owns_no_parameters_and_rests_in_evaluation():
    model = nvae()
    assert not list(model.penalty.parameters())
    before = {name: value.clone() for name, value in model.penalty.named_buffers()}
    model.eval().losses(pictures(), progress=1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.penalty.named_buffers())
    model.train().losses(pictures(), progress=1.0)
    assert any(not torch.equal(value, before[name]) for name, value in model.penalty.named_buffers())


def test_state_holds_all_that_the_next_loss_depends_on(model):
    """Two steps, then a fresh model with the saved state: the third loss is the same to the bit."""
    x = pictures(n=32)

    def step(model):
        torch.manual_seed(4)
        loss = model.losses(x, progress=0.5)["vae"]
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 1e-3 * parameter.grad
                parameter.grad = None
        return loss.detach()

    step(model), step(model)
    torch.manual_seed(99)
    fresh = type(model)(model.spec, model.settings)
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    for _ in range(2):
        assert torch.equal(step(fresh), step(model))


# ---- batch normalisation -----------------------------------------------------------------------------------


def test_recollected_statistics_are_the_means_over_the_batches(model):
    batches = [(pictures(n=32), None) for _ in range(3)]
    name, layer = next(
        (n, m) for n, m in model.named_modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))
    )
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.recollect(batches)
    hook.remove()
    dims = [0, *range(2, seen[0].dim())]
    means = torch.stack([value.mean(dims) for value in seen]).mean(0)
    variances = torch.stack([value.var(dims) for value in seen]).mean(0)
    torch.testing.assert_close(layer.running_mean, means)
    torch.testing.assert_close(layer.running_var, variances)


def test_a_batch_that_is_not_full_counts_for_nothing(model):
    batches = [(pictures(n=32), None) for _ in range(2)]
    model.recollect(batches)
    full = copy.deepcopy(model.state_dict())
    model.recollect([*batches, (1 - pictures(n=1), None)])
    assert all(torch.equal(value, full[name]) for name, value in model.state_dict().items())


def test_recollecting_forgets_the_past_and_leaves_everything_else(model):
    batches = [(pictures(n=32), None) for _ in range(2)]
    model.recollect(batches)
    first = copy.deepcopy(model.state_dict())
    for _ in range(3):
        model.terms(1 - pictures(n=32))
    model.eval()
    momenta = [m.momentum for m in model.modules() if hasattr(m, "momentum")]
    random_state = torch.get_rng_state()
    model.recollect(batches)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module.training for module in model.modules())
    assert momenta == [m.momentum for m in model.modules() if hasattr(m, "momentum")] and None not in momenta
    for name, value in model.state_dict().items():
        assert torch.equal(value, first[name]), name


def test_evaluation_uses_the_collected_statistics(model):
    x = pictures(n=8)
    settled(model)
    with torch.no_grad():
        code = model.represent(x)
        alone = model.represent(x[:1])
        model.recollect([(1 - 0.5 * pictures(n=32), None)])
        other = model.represent(x)
    torch.testing.assert_close(alone, code[:1], rtol=1e-4, atol=1e-5)
    assert (other - code).abs().max() > 1e-3


# ---- cells -------------------------------------------------------------------------------------------------


def test_a_cell_adds_a_tenth_of_its_branch() -> None:
    cell, x = inference_cell(4).eval(), torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(cell(x), cell.skip(x) + cell.branch(x) / 10)


@pytest.mark.parametrize(
    ("make", "resolution", "shape"),
    [
        (inference_cell, "keep", (8, 6, 6)),
        (inference_cell, "halve", (16, 3, 3)),
        (generative_cell, "keep", (8, 6, 6)),
        (generative_cell, "double", (4, 12, 12)),
    ],
)
def test_cells_change_the_resolution(make, resolution, shape):
    assert make(8, resolution)(torch.randn(2, 8, 6, 6)).shape == (2, *shape)


def test_generative_cell_mixes_space_by_depthwise_convolutions_only():
    spatial = [
        m for m in generative_cell(8).modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)
    ]
    assert spatial and all(conv.groups == conv.in_channels == 48 for conv in spatial)
