"""Free bits: what is charged by hand, the gradient of what is free, and a code that is used where it was not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from zoo import create_model
from zoo.config import TrainConfig, resolve
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models.base import VAE, Terms
from zoo.runs import train_run
from zoo.training.choice import is_another
from zoo.training.distributed import World
from zoo.training.precision import Compute, choose
from zoo.training.stepper import Indivisible, Stepper

SPEC = DataSpec((1, 4, 4), "binary")
SMALL = {"latent": 3, "encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}}
HIERARCHIES = {"ladder_vae": {"latent": 4, "hidden": [8, 8]}, "hvae": {"latent": 2, "lower": [3], "hidden": [[8], [8]]}}


def make(name: str = "vae", free_bits: float | None = None, **settings: object) -> VAE:
    torch.manual_seed(0)
    model = create_model(name, data=SPEC, **HIERARCHIES.get(name, SMALL) | settings).double().train()
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


@pytest.mark.parametrize("name", [*HIERARCHIES, "vae", "flow_vae", "factor_vae", "dip_vae", "info_vae", "geco_vae"])
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


def test_what_is_kept_is_decided_by_what_is_trained() -> None:
    model = make("beta_vae", 0.3, beta=2.0).eval()
    loss, terms = loss_of(model)
    assert -model.criterion(bits(), None, terms).mean().item() == pytest.approx(loss.item())
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


@pytest.mark.parametrize("name", ["iwae", "vq_vae", "annealed_vae", "hvae"])
def test_a_loss_of_another_kind_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    settings = ["train.epochs=1", "train.free_bits=0.1", *(["k=5"] if name == "hvae" else [])]
    with pytest.raises(UsageError, match=f"{name} charges for its rate in a way of its own"):
        train_run(resolve(name, "synthetic", settings=settings), tmp_path, choose("cpu"))
    assert not (tmp_path / "run.json").exists()


def test_runs_without_free_bits_keep_their_identity() -> None:
    assert "free_bits" not in resolve("vae").identity()["train"]
    assert resolve("vae", settings=["train.free_bits=0"]).identity()["train"]["free_bits"] == 0
    with pytest.raises(UsageError, match="free_bits"):
        resolve("vae", settings=["train.free_bits=-1"])
