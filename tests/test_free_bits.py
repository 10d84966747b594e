"""Free bits: what is charged by hand, the gradient of what is free, and a code that is used where it was not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from tests.test_capture import OneDevice, assert_same, taped  # noqa: F401  (a fixture)
from zoo import create_model, runs
from zoo.config import TrainConfig, resolve
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models.base import VAE, Progress, Terms
from zoo.runs import train_run
from zoo.training.choice import is_another
from zoo.training.compiled import Compiled
from zoo.training.distributed import World
from zoo.training.precision import Compute, choose
from zoo.training.stages import check_recipe
from zoo.training.stepper import Indivisible, Stepper

SPEC = DataSpec((1, 4, 4), "binary")
SMALL = {"latent": 3, "encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}}
HIERARCHIES = {"ladder_vae": {"latent": 4, "hidden": [8, 8]}, "hvae": {"latent": 2, "lower": [3], "hidden": [[8], [8]]}}
#: what makes the loss of a variant another one
OTHERWISE = {"hvae": ["k=5"], "s2_beta_vae": ["labels_alone=yes"]}
# Two groups of maps of one place, and two of four.
NVAE = {"latent": 2, "channels": 4, "expansion": 2, "patch": 2, "groups_per_scale": 2, "spectral": 0.0}


def make(name: str = "vae", free_bits: float | None = None, **settings: object) -> VAE:
    torch.manual_seed(0)
    small = NVAE if name == "nvae_lite" else HIERARCHIES.get(name, SMALL)
    model = create_model(name, data=SPEC, **small | settings).double().train()
    model.free_bits = free_bits
    return model


def bits(n: int = 16) -> Tensor:
    return torch.randint(0, 2, (n, 1, 4, 4), generator=torch.Generator().manual_seed(1)).double()


def loss_of(model: VAE, progress: float = 1.0) -> tuple[Tensor, Terms]:
    torch.manual_seed(2)
    found = model.losses(bits(), None, progress)
    return found["vae"], found.terms


def test_what_is_charged_by_hand() -> None:
    model = make(free_bits=0.5)
    # The means over the batch are 0.25, 0.5 and 2 nats: only the last part is over.
    parts = torch.tensor([[0.5, 0.9, 1.0], [0.0, 0.1, 3.0]])
    alone = Terms(torch.zeros(2), parts)
    assert model.charged(alone).tolist() == pytest.approx([2.0, 4.0])
    of_dimensions = Terms(torch.zeros(2), parts.sum(1, keepdim=True), divergence=parts)
    assert torch.equal(model.charged(of_dimensions), model.charged(alone))
    model.free_bits = None
    assert torch.equal(model.charged(of_dimensions), parts.sum(1))


def test_the_gradient_of_a_part_is_nothing_below_and_as_it_was_above() -> None:
    parts = torch.tensor([[0.5, 0.9, 1.0], [0.0, 0.1, 3.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(make(free_bits=0.5).charged(Terms(torch.zeros(2), parts)).mean(), parts)
    assert torch.equal(gradient, torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5]]))


@pytest.mark.parametrize(
    "name", [*HIERARCHIES, "vae", "flow_vae", "factor_vae", "dip_vae", "info_vae", "gamma_vae", "geco_vae"]
)
def test_free_bits_of_nothing_are_the_plain_loss_and_of_some_the_parts_by_hand(name: str) -> None:
    plain, terms = loss_of(make(name), 0.5)
    means = (terms.rate if terms.divergence is None else terms.divergence).mean(0)
    assert len(means) == {"flow_vae": 1, "ladder_vae": 2, "hvae": 2}.get(name, 3)
    nothing, _ = loss_of(model := make(name, 0.0), 0.5)
    members = model.parameter_groups()["vae"]
    same, _ = loss_of(plainly := make(name), 0.5)
    expected = torch.autograd.grad(same, plainly.parameter_groups()["vae"])
    assert torch.equal(nothing, plain) and all(map(torch.equal, torch.autograd.grad(nothing, members), expected))
    free = means.min().item() + 0.01
    some, others = loss_of(make(name, free), 0.5)
    assert torch.equal(terms.rate, others.rate) and torch.equal(terms.elbo, others.elbo)
    missing = (free - means).clamp(min=0).sum().item()
    assert some.item() - plain.item() == pytest.approx(float(model.rate_weight(0.5)) * missing) and missing >= 0.0099


@pytest.mark.parametrize("progress", [0.5, 1.0])
def test_free_bits_of_groups_are_balanced_with_them_during_the_warm_up(progress: float) -> None:
    plain, terms = loss_of(make("nvae_lite"), progress)
    nothing, _ = loss_of(make("nvae_lite", 0.0), progress)
    assert torch.equal(plain, nothing)
    means = terms.rate.mean(0)
    free = means.median().item() + 1e-6  # the lower of the two in the middle: two of the four groups are over
    model = make("nvae_lite", free)
    loss, others = loss_of(model, progress)
    assert torch.equal(terms.rate, others.rate) and int((means > free).sum()) == 2
    weights = model.balance(terms.rate, progress)
    assert (weights == 1).all() == (progress == 1.0)
    charged = sum(w * max(free, mean) for w, mean in zip(weights.tolist(), means.tolist(), strict=True))
    assert loss.item() == pytest.approx(terms.distortion.mean().item() + model.rate_weight(progress) * charged)
    assert charged - (weights * means).sum().item() > 1e-6
    assert torch.equal(loss_of(make("nvae_lite", free), torch.tensor(progress, dtype=torch.float64))[0], loss)


@pytest.mark.parametrize("progress", [0.5, 1.0])
def test_groups_that_are_free_have_the_gradient_of_the_distortion_alone(progress: float) -> None:
    loss, terms = loss_of(model := make("nvae_lite", 1e3), progress)
    assert (terms.rate.mean(0) < 1e3).all()
    members = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ours = torch.autograd.grad(loss, members, retain_graph=True, allow_unused=True)
    expected = torch.autograd.grad(terms.distortion.mean(), members, allow_unused=True)
    assert sum(one is not None for one in expected) > 20
    for one, other in zip(ours, expected, strict=True):
        assert (one is None and other is None) or torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_free_bits_of_pairs_are_of_the_mean_of_both_images_in_each_dimension() -> None:
    x, y = bits(12).split(6)
    found, divergence = {}, None
    for free in (None, 0.0, 0.02):
        model = make("ada_vae", free, beta=3.0)
        torch.manual_seed(2)
        losses = model.losses(x, y)
        found[free], divergence = losses["vae"], losses.terms.divergence
        torch.testing.assert_close(divergence.sum(1, keepdim=True), losses.terms.rate)
    means = divergence.mean(0)
    assert means.shape == (3,) and (means < 0.02).any() and (means > 0.02).any()
    assert found[0.0].item() == pytest.approx(found[None].item(), rel=1e-12)
    missing = (0.02 - means).clamp(min=0).sum().item()
    assert found[0.02].item() - found[None].item() == pytest.approx(3.0 * missing)
    # Under a mixture there is no rate of a dimension: the whole is a part.
    model = make("ada_vae", 50.0, prior={"name": "mixture", "components": 2})
    losses = model.losses(x, y)
    assert losses.terms.divergence is None
    assert losses["vae"].item() == pytest.approx(losses.terms.distortion.mean().item() + 50.0)


def test_a_step_of_balanced_free_bits_has_nothing_from_the_host() -> None:
    model = make("nvae_lite", 0.5).float().to("meta")
    progress = torch.zeros((), device="meta")
    with OneDevice():
        loss = model.losses(torch.zeros(8, 1, 4, 4, device="meta"), None, progress)["vae"]
        torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)


def test_balanced_free_bits_are_the_same_compiled() -> None:
    def graphs(free: float | None) -> list[int]:
        model, backend, found = make("nvae_lite", free, groups_per_scale=1), CompileCounter(), []
        compiled = Compiled(lambda model, *given: dict(model.losses(*given)), backend=backend)
        for progress in (0.5, 1.0):
            torch.manual_seed(2)
            loss = compiled(model, bits(), None, Progress(progress, progress / 2))["vae"]
            assert loss.item() == pytest.approx(loss_of(model, progress)[0].item(), rel=1e-6)
            found.append(backend.frame_count)
        return found

    first, second = graphs(0.5)
    assert first == second
    # Under torch 2.6 each draw of a number parts a graph in two.
    assert first == 1 or graphs(None)[0] > 1


def test_balanced_free_bits_are_the_same_captured(tmp_path: Path, taped: None) -> None:  # noqa: F811
    settings = [f"{name}={value}" for name, value in NVAE.items()]
    settings += ["patch=7", "train.optimizer=adam", "train.free_bits=0.5", "train.epochs=2", "train.warmup=1"]
    settings += ["train.batch_size=16", "data.options.n_train=96", "data.options.n_validation=32"]
    config = resolve("nvae_lite", "synthetic", settings=settings)
    free = config.model_copy(update={"train": config.train.model_copy(update={"capture": False})})
    one, other = (runs.train_run(c, tmp_path / str(at), choose("cpu")) for at, c in enumerate((free, config)))
    assert other.result.captured and not one.result.captured and "validation_criterion" in other.result.curves
    assert_same(one, other)


def test_what_is_kept_is_decided_by_what_is_trained() -> None:
    for model in (make("beta_vae", 0.3, beta=2.0).eval(), make("nvae_lite", 0.3).eval()):
        loss, terms = loss_of(model)
        assert -model.criterion(bits(), None, terms).mean().item() == pytest.approx(loss.item())
        model.free_bits = None
        assert loss.item() > loss_of(model)[0].item() + 0.01, "free bits count on validation images too"
    plain = make()
    assert not is_another(plain)
    plain.free_bits = 0.3
    assert is_another(plain)


def test_a_code_that_is_not_used_comes_into_use() -> None:
    x, found = bits(), {}
    for free in (None, 0.5):
        model = make("beta_vae", free, beta=20.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            losses = model.losses(x)
            losses["vae"].backward()
            optimizer.step()
        found[free] = int((model.represent(x).var(0) > 0.01).sum()), losses.terms.rate.sum(1).mean().item()
    assert found[None][0] == 0 and found[None][1] < 0.1
    assert found[0.5][0] == 3 and found[0.5][1] == pytest.approx(3 * 0.5, abs=0.4)


def test_it_is_of_the_batch_as_a_whole() -> None:
    model, config = make(free_bits=0.1), TrainConfig(micro_batch=4, free_bits=0.1)
    with pytest.raises(Indivisible, match="VanillaVAE with train.free_bits needs each batch as a whole"):
        Stepper(model, config, Compute(torch.device("cpu")), 8, World(), captured=False)
    model.free_bits = None
    assert Stepper(model, config, Compute(torch.device("cpu")), 8, World(), captured=False).divided


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("iwae", ", by the log-weights of k samples"), ("hvae", ", by the log-weights of k samples"),
        ("vq_vae", ", in the training of its prior alone"), ("annealed_vae", ", by how far it is from a capacity"),
        ("m2", ", by two bounds, one of images that show their class"), ("beta_tcvae", ", by three parts of it"),
        ("s2_beta_vae", ", with labels_alone not at all: it knows no"), ("vae_gan", ": it knows no"),
    ],
)  # fmt: skip
def test_a_loss_of_another_kind_is_refused_before_anything_is_written(name: str, why: str, tmp_path: Path) -> None:
    settings = ["train.epochs=1", "train.free_bits=0.1", *OTHERWISE.get(name, [])]
    with pytest.raises(UsageError, match=f"{name} charges for its rate in a way of its own{why}"):
        train_run(resolve(name, "synthetic", settings=settings), tmp_path, choose("cpu"))
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("name", ["nvae_lite", "ada_vae", "hvae", "s2_beta_vae"])
def test_what_charges_by_its_parts_takes_them(name: str) -> None:
    config = resolve(name, "synthetic", settings=["train.free_bits=0.1"])
    check_recipe(config, create_model(name), None)
    with pytest.raises(UsageError, match="s2_beta_tcvae charges for its rate in a way of its own, by three parts"):
        check_recipe(resolve("s2_beta_tcvae", "synthetic", settings=["train.free_bits=0.1"]),
                     create_model("s2_beta_tcvae"), None)  # fmt: skip


def test_runs_without_free_bits_keep_their_identity() -> None:
    assert "free_bits" not in resolve("vae").identity()["train"]
    assert resolve("vae", settings=["train.free_bits=0"]).identity()["train"]["free_bits"] == 0
    with pytest.raises(UsageError, match="free_bits"):
        resolve("vae", settings=["train.free_bits=-1"])
