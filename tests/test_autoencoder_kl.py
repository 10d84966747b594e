"""The grid of codes, the pulls on the decoder, the prior's own loss, and the judge of patches of latent diffusion's
autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo import create_model, load_run
from zoo.config import resolve
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models.autoencoder_kl import AutoencoderKL
from zoo.models.base import Progress
from zoo.models.dfc_vae import distance
from zoo.nets.patches import PatchDiscriminator, hinge
from zoo.runs import fresh_model, train_run
from zoo.training.precision import choose

BITS = DataSpec((1, 16, 16), "binary")
BYTES = DataSpec((3, 16, 16), "8-bit")


def make(spec: DataSpec = BITS, **settings: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    nets = {"channels": [4, 8], "hidden": 8, "latent": 2, "discriminator": [4, 8], "features": {"channels": [4, 8]}}
    return create_model("autoencoder_kl", data=spec, **(nets | settings))


def images(spec: DataSpec = BITS, n: int = 8) -> Tensor:
    x = torch.rand(n, *spec.shape, generator=torch.Generator().manual_seed(1))
    return (x < 0.3).float() if spec.support == "binary" else x


def pulls(loss: Tensor, parameters: list[Tensor]) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))


# ---- the grid --------------------------------------------------------------------------------------------------------


def test_a_place_of_the_grid_is_decoded_where_it_lies() -> None:
    model = make(residual=0).eval()
    z = torch.zeros(1, 2 * 4 * 4)
    moved = z.view(1, 2, 4, 4).clone()
    moved[0, :, 0, 0] = 3.0
    change = (model.decode(moved.flatten(1)) - model.decode(z)).abs()[0, 0]
    assert change[:4, :4].max() > 0
    # A 3 x 3 convolution reaches one place further, two transposed ones of 4 x 4 three pixels more.
    assert change[11:].max() == change[:, 11:].max() == 0


def test_the_code_of_an_image_is_that_of_its_patches() -> None:
    model = make(residual=0).eval()
    x = images(n=1)
    other = x.clone()
    other[..., 12:, 12:] = 1 - other[..., 12:, 12:]
    change = (model.represent(other) - model.represent(x)).view(2, 4, 4).abs().sum(0)
    assert change[3, 3] > 0 and change[:2].max() == change[:, :2].max() == 0


def test_a_grid_has_as_many_places_as_the_padded_image_has_halvings() -> None:
    model = make(DataSpec((1, 18, 13), "binary"))
    assert model.grid == (2, 5, 4)
    assert model.represent(images(model.spec)).shape == (8, 2 * 5 * 4)
    assert model.reconstruct(images(model.spec)).shape == (8, 1, 18, 13)


# ---- what each group is pulled by ------------------------------------------------------------------------------------


def test_the_objective_is_pixels_and_features_and_next_to_nothing_of_the_rate() -> None:
    model = make(beta=0.01, weight=3.0, pixel=0.5, adversary=0.0)
    torch.manual_seed(2)
    losses = model.losses(images(), progress=0.5)
    torch.manual_seed(2)
    terms, params = model.bound(model.infer(images()), images())
    maps = zip(model.features(images()), model.features(params.sigmoid()), strict=True)
    unlike = sum(distance(*some) for some in maps)
    wanted = (3.0 * unlike + 0.5 * terms.distortion + 0.5 * 0.01 * terms.rate.sum(1)).mean()
    torch.testing.assert_close(losses["vae"], wanted)


@pytest.mark.parametrize("adversary", (0.25, 2.0))
def test_the_adversary_pulls_on_the_last_weights_as_hard_as_was_asked_for(adversary: float) -> None:
    model, alone = make(adversary=adversary), make(adversary=0.0)
    alone.load_state_dict(model.state_dict(), strict=False)
    found = []
    for one in (model, alone):
        torch.manual_seed(3)
        (pull,) = pulls(one.losses(images())["vae"], [one.decoder[-1].weight])
        found.append(pull)
    both, rest = found
    torch.testing.assert_close((both - rest).norm(), adversary * rest.norm(), rtol=1e-2, atol=0.0)


def test_the_adversary_pulls_towards_being_taken_for_real() -> None:
    model = make(BYTES, likelihood={"name": "laplace"}, weight=0.0, pixel=0.0, beta=0.0)
    with torch.no_grad():  # no likeness is asked for: what is left has no pull to be measured by
        assert float(model.balance(torch.zeros(()), torch.ones(()))) == 1.0
    model.balance = lambda loss, unfooled: torch.ones(())
    optimizer = torch.optim.Adam([*model.encoder.parameters(), *model.decoder.parameters()], lr=0.01)
    x, logits = images(BYTES), []
    for _ in range(20):
        optimizer.zero_grad()
        model.losses(x)["vae"].backward()
        optimizer.step()
        logits.append(model.discriminator(model.reconstruct(x)).mean().item())
    assert logits[-1] > logits[0]


def test_each_group_feels_its_own_loss_alone() -> None:
    model = make(prior={"name": "flow", "hidden": 8})
    losses = model.losses(images())
    groups = model.parameter_groups()
    assert losses.keys() == groups.keys() == {"vae", "prior", "discriminator"}
    judge = pulls(losses["discriminator"], groups["vae"])
    assert all(pull is None for pull in judge)  # the verdict on what was made teaches the decoder nothing there
    assert any(float(pull.abs().max()) > 0 for pull in pulls(losses["discriminator"], groups["discriminator"]))
    assert all(pull is not None for pull in pulls(losses["prior"], groups["prior"]))


def test_a_prior_learns_of_the_whole_rate_and_the_encoder_feels_beta_of_it() -> None:
    model = make(prior={"name": "diagonal"}, beta=0.25, weight=0.0, pixel=0.0, adversary=0.0)
    losses = model.losses(images())
    encoder = list(model.encoder.parameters())
    whole, felt = pulls(losses["prior"], encoder), pulls(losses["vae"], encoder)
    for one, other in zip(whole, felt, strict=True):
        torch.testing.assert_close(other, 0.25 * one)
    rate = losses.terms.rate.sum(1).mean()
    for one, other in zip(
        pulls(losses["prior"], [*model.prior.parameters()]), pulls(rate, [*model.prior.parameters()]), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_prior_without_parameters_has_no_group() -> None:
    assert make().parameter_groups().keys() == {"vae", "discriminator"}
    assert make(adversary=0.0).parameter_groups().keys() == {"vae"}


# ---- when ------------------------------------------------------------------------------------------------------------


def test_there_is_no_adversary_before_its_share_of_training() -> None:
    model = make(judged_from=0.5)
    early, late = Progress(1.0, fraction=0.49), Progress(1.0, fraction=0.5)
    assert (model.stage(early), model.stage(late), model.stage(1.0)) == ("alone", "judged", "judged")
    assert set(model.trained_in("alone")) == {"vae"} and set(model.trained_in("judged")) == {"vae", "discriminator"}
    for progress, names in ((early, {"vae"}), (late, {"vae", "discriminator"})):
        torch.manual_seed(4)
        losses = model.losses(images(), progress=progress)
        assert losses.keys() == names
        torch.manual_seed(4)
        plain = model.objective(model.bound(model.infer(images()), images())[0], 1.0).mean()
        assert torch.equal(losses["vae"], plain) == (progress is early)
    assert make(judged_from=0.0).stage(Progress(0.0, fraction=0.0)) == "judged"


def test_a_run_trains_every_group_and_is_loaded_as_it_was(tmp_path: Path) -> None:
    settings = [
        "latent=2", "channels=[4,8]", "hidden=8", "discriminator=[4,8]", "features.channels=[4]", "prior.name=flow",
        "prior.hidden=8", "judged_from=0.5", "train.epochs=2",
    ]  # fmt: skip
    config = resolve("autoencoder_kl", "synthetic", settings=settings)
    run = train_run(config, tmp_path, choose("cpu"))
    fresh = fresh_model(config, run.images.spec)
    for name, group in run.model.parameter_groups().items():
        assert any(not torch.equal(*pair) for pair in zip(group, fresh.parameter_groups()[name], strict=True)), name
    loaded = load_run(tmp_path).state_dict()
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


# ---- the judge -------------------------------------------------------------------------------------------------------


def test_a_logit_is_of_its_patch_and_of_nothing_else() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(1, (4, 8), (32, 32))
    x = images(DataSpec((1, 32, 32), "binary"), 2)
    logits = judge(x)
    assert logits.shape == (2, 8, 8)
    other = x.clone()
    other[0, :, :8, :8] = 1 - other[0, :, :8, :8]
    change = (judge(other) - logits).abs()
    assert change[0, 0, 0] > 0 and change[0, 5:].max() == change[0, :, 5:].max() == 0
    assert change[1].max() == 0


def test_a_judge_pays_for_what_is_not_clearly_on_its_side() -> None:
    real, made = torch.tensor([[2.0, 0.5], [-1.0, 1.0]]), torch.tensor([-3.0, 0.0])
    assert float(hinge(real, made)) == pytest.approx(0.5 * ((0 + 0.5 + 2 + 0) / 4 + (0 + 1) / 2))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"discriminator": []}, "a discriminator needs at least one number in discriminator."),
        ({"discriminator": [4] * 5}, "discriminator halves (16, 16) too often."),
    ],
)
def test_a_judge_without_patches_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        make(**settings)
    assert str(error.value) == said
