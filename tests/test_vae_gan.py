"""Which loss of the VAE-GAN moves whom, what its discriminator is shown, and who has to wait."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from zoo import create_model
from zoo.config import TrainConfig
from zoo.data.images import DataSpec
from zoo.models.calibrated import calibrate
from zoo.models.vae_gan import VAEGAN
from zoo.training.optimise import Group, backward

SPEC = DataSpec((1, 8, 8), "binary")
GROUPS = ("encoder", "decoder", "discriminator")


def make(spec: DataSpec = SPEC, **settings) -> VAEGAN:
    nets = {"encoder": {"hidden": [16]}, "decoder": {"hidden": [16]}, "latent": 4}
    discriminator = {"channels": [4, 4], "hidden": 8}
    torch.manual_seed(0)
    return create_model("vae_gan", data=spec, discriminator=discriminator, **nets, **settings)


def images() -> Tensor:
    return (torch.rand(32, *SPEC.shape, generator=torch.Generator().manual_seed(1)) < 0.3).float()


def gradients(model: VAEGAN, **changed) -> dict[str, list[Tensor]]:
    """What the trainer gives every group, with some settings changed and the weights and the noise as they were."""
    model = copy.deepcopy(model)
    model.settings = model.settings.model_copy(update=changed)
    groups = {name: Group(name, members, TrainConfig()) for name, members in model.parameter_groups().items()}
    torch.manual_seed(7)
    backward(model.losses(images()), groups)
    return {name: [parameter.grad for parameter in group.parameters] for name, group in groups.items()}


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in zip(a, b, strict=True))


def by_hand(model: VAEGAN) -> tuple[Tensor, Tensor]:
    """The similarity and the decoder's verdicts alone, with the noise of `gradients`."""
    torch.manual_seed(7)
    losses = model.losses(images())
    similarity = losses.terms.aux["similarity"].mean()
    return similarity, losses["decoder"] - model.settings.gamma * similarity


def test_the_encoder_and_the_discriminator_do_not_feel_the_weight_of_the_decoder() -> None:
    model = make(margin=None)
    low, high = gradients(model, gamma=0.5), gradients(model, gamma=5.0)
    assert same(low["encoder"], high["encoder"])
    assert same(low["discriminator"], high["discriminator"])
    assert not same(low["decoder"], high["decoder"])


def test_the_decoder_feels_both_and_the_encoder_no_verdict() -> None:
    model = make(margin=None)
    members = model.parameter_groups()
    similarity, deceive = by_hand(model)
    similar = torch.autograd.grad(similarity, members["decoder"], retain_graph=True)
    deceiving = torch.autograd.grad(deceive, members["decoder"], retain_graph=True)
    assert all(gradient.abs().max() > 0 for gradient in (*similar, *deceiving))
    given = gradients(model, gamma=2.0)
    assert same(given["decoder"], [2.0 * a + b for a, b in zip(similar, deceiving, strict=True)])
    # The verdicts could move the encoder, through its reconstructions; they are not let.
    through = torch.autograd.grad(deceive, members["encoder"], retain_graph=True)
    assert max(gradient.abs().max() for gradient in through) > 0
    torch.manual_seed(7)
    terms = model.losses(images()).terms
    wanted = terms.rate.sum(1).mean() + terms.aux["similarity"].mean()
    assert same(given["encoder"], list(torch.autograd.grad(wanted, members["encoder"])))


@pytest.mark.parametrize("made", ["rebuilt", "sampled"])
def test_the_decoder_feels_the_verdict_of_reconstructions_and_of_samples(
    made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(gamma=0.0)
    monkeypatch.setattr(model, "verdicts", lambda real, rebuilt, sampled: (
        {"rebuilt": rebuilt, "sampled": sampled}[made].mean(), real.mean()
    ))  # fmt: skip
    found = torch.autograd.grad(model.losses(images())["decoder"], list(model.decoder.parameters()))
    assert all(bool((gradient != 0).any()) for gradient in found)


def test_a_prior_that_learns_and_every_other_parameter_is_in_one_group() -> None:
    model = make(prior={"name": "diagonal"}, likelihood={"name": "gaussian"}, spec=DataSpec((1, 8, 8), "real"))
    members = [id(parameter) for group in model.parameter_groups().values() for parameter in group]
    assert sorted(members) == sorted(map(id, model.parameters()))
    assert id(model.prior.mean) in map(id, model.parameter_groups()["encoder"])


def test_the_discriminator_feels_verdicts_alone() -> None:
    model = make(margin=None)
    members = model.parameter_groups()["discriminator"]
    torch.manual_seed(7)
    logits = model.losses(images()).terms.aux["logits"]
    signs = torch.cat([-torch.ones(32), torch.ones(64)])
    wanted = torch.nn.functional.softplus(signs * logits).sum() / 32
    given = gradients(model)["discriminator"]
    assert same(given, list(torch.autograd.grad(wanted, members, retain_graph=True)))
    similarity, _ = by_hand(model)
    toward = torch.autograd.grad(similarity, members, allow_unused=True)
    assert max(gradient.abs().max() for gradient in toward if gradient is not None) > 0


def test_the_similarity_is_half_the_squared_distance_of_features_beside_the_pixels_asked_for() -> None:
    model, x = make(DataSpec((1, 8, 8), "real"), pixel=0.25), images()
    torch.manual_seed(7)
    found = model.losses(x).terms
    torch.manual_seed(7)
    terms, params = model.bound(model.infer(x), x)
    apart = model.discriminator(x)[0] - model.discriminator(model.seen(params))[0]
    expected = 0.5 * apart.square().sum(1) + 0.25 * terms.distortion
    torch.testing.assert_close(found.aux["similarity"], expected)
    assert torch.equal(found.distortion, terms.distortion)


@pytest.mark.parametrize(
    ("real", "made", "moving"),
    [(6.0, -6.0, {"decoder"}), (-6.0, 6.0, {"discriminator"}), (0.0, 0.0, {"decoder", "discriminator"})],
    ids=["ahead", "behind", "level"],
)
def test_a_side_that_is_far_ahead_waits(real: float, made: float, moving: set[str]) -> None:
    logits = [torch.full((8,), value, requires_grad=True) for value in (real, made, made)]
    deceive, discern = make().verdicts(*logits)
    for name, loss in (("decoder", deceive), ("discriminator", discern)):
        found = torch.autograd.grad(loss, logits, allow_unused=True, retain_graph=True)
        assert any(g is not None and g.abs().max() > 0 for g in found) == (name in moving), name
    deceive, discern = make(margin=None).verdicts(*logits)
    assert deceive > 0 and discern > 0


def test_verdicts_are_the_logarithms_of_what_is_believed_of_each_image() -> None:
    real, rebuilt, sampled = (torch.randn(9, dtype=torch.float64) + shift for shift in (1.0, -1.0, -2.0))
    deceive, discern = make(margin=None).verdicts(real, rebuilt, sampled)
    p, q, r = (logits.sigmoid() for logits in (real, rebuilt, sampled))
    assert deceive.item() == pytest.approx(-(q.log() + r.log()).mean().item())
    assert discern.item() == pytest.approx(-(p.log() + (1 - q).log() + (1 - r).log()).mean().item())


def test_a_discriminator_that_cannot_tell_pays_log_2_a_verdict() -> None:
    deceive, discern = make().verdicts(*torch.zeros(3, 8))
    assert deceive.item() == pytest.approx(2 * math.log(2))
    assert discern.item() == pytest.approx(3 * math.log(2))


def test_of_bits_it_is_shown_bits_with_the_gradient_of_the_mean() -> None:
    model = make()
    params = torch.randn(5, *SPEC.shape, requires_grad=True)
    shown = model.seen(params)
    assert (shown * (1 - shown)).abs().max() < 1e-6
    weight = torch.randn_like(params)
    (given,) = torch.autograd.grad((shown * weight).sum(), params)
    mean = torch.sigmoid(params)
    assert torch.allclose(given, (weight * mean * (1 - mean)).detach(), atol=1e-6)


def test_of_other_data_it_is_shown_the_mean() -> None:
    model = make(DataSpec((1, 8, 8), "8-bit"))
    params = model.decode(torch.randn(5, 4))
    assert torch.equal(model.seen(params), model.likelihood.mean(params))


def test_a_learned_sigma_is_fitted_without_touching_the_decoder() -> None:
    model = make(DataSpec((1, 8, 8), "real"), margin=None)
    fixed = make(DataSpec((1, 8, 8), "real"), margin=None)
    with torch.no_grad():
        fixed.load_state_dict(model.state_dict())
        fixed.likelihood.log_sigma.fill_(1.0)
    given, other = gradients(model)["decoder"], gradients(fixed)["decoder"]
    assert same(given[:-1], other[:-1])
    assert given[-1].abs() > 0 and not torch.allclose(given[-1], other[-1])


def test_a_verdict_does_not_depend_on_the_batch() -> None:
    discriminator = make().discriminator
    x = images()
    features, logits = discriminator(x)
    alone = [discriminator(row.unsqueeze(0)) for row in x]
    assert torch.allclose(torch.cat([one for one, _ in alone]), features, atol=1e-5)
    assert torch.allclose(torch.cat([one for _, one in alone]), logits, atol=1e-5)
    assert features.mean(1).abs().max() < 1e-5
    assert torch.allclose(features.var(1, correction=0), torch.ones(len(x)), atol=1e-2)


def test_calibration_recovers_the_scale_and_the_offset_of_logits_that_are_too_sure() -> None:
    random = torch.Generator().manual_seed(0)
    true = torch.randn(200_000, generator=random, dtype=torch.float64)
    x = (torch.rand(true.shape, generator=random, dtype=torch.float64) < true.sigmoid()).double()
    scale, offset = calibrate((true - 0.7) / 0.2, x)
    assert float(scale) == pytest.approx(0.2, abs=0.01)
    assert float(offset) == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("x", [torch.zeros(50), torch.ones(50), (torch.arange(50) % 2).float()], ids=["0", "1", "both"])
def test_calibration_is_finite_and_never_worse_than_none(x: Tensor) -> None:
    x, logits = x.double(), torch.linspace(-60, 60, 50, dtype=torch.float64)
    scale, offset = calibrate(logits, x)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    assert torch.isfinite(torch.stack([scale, offset])).all()
    assert loss(scale * logits + offset, x) <= loss(logits, x)


def test_after_training_the_bound_is_calibrated_and_nothing_else_has_changed() -> None:
    model, x = make(), images()
    with torch.no_grad():
        model.decoder.output.bias.fill_(30.0)  # sure of white everywhere
    model.eval()
    torch.manual_seed(3)
    before, pictures = model.terms(x).distortion.mean(), model.reconstruct(x)
    weights = copy.deepcopy(dict(model.named_parameters()))
    state = torch.get_rng_state()
    model.recollect([(x, None)])
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(3)
    assert model.terms(x).distortion.mean() < 0.2 * before
    assert torch.equal(model.reconstruct(x), pictures)
    assert all(torch.equal(weights[name], value) for name, value in model.named_parameters())
    assert not model.training


def test_the_calibration_sees_as_many_images_as_it_says_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.models.calibrated.CALIBRATION_IMAGES", 80)
    seen = []

    def batches():
        for _ in range(10):
            seen.append(32)
            yield images(), None

    make().recollect(batches())
    assert sum(seen) == 96
