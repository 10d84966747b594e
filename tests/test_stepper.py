"""One step of a training beside the same step by hand: what it tells of itself, in parts, and what else it moves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from zoo import create_model
from zoo.config import TrainConfig
from zoo.data.images import DataSpec
from zoo.models.base import Progress
from zoo.training.distributed import World
from zoo.training.precision import Compute
from zoo.training.stepper import Stepper

CPU, SPEC, BATCH = torch.device("cpu"), DataSpec((1, 4, 4), "binary"), 12


def stepper(variant: str, compute: Compute | None = None, kind: torch.dtype = torch.float32, **train: Any) -> Stepper:
    torch.manual_seed(0)
    model = create_model(variant, data=SPEC).to(kind).train()
    return Stepper(model, TrainConfig(**train), compute or Compute(CPU), BATCH, World(), captured=False)


def bits(seed: int = 0) -> torch.Tensor:
    return (torch.rand(BATCH, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


@pytest.mark.parametrize("variant", ["vae", "joint_vae", "two_stage_vae", "vae_gan"])
def test_a_step_tells_the_sum_of_its_losses_and_rate_and_distortion_an_example(variant: str) -> None:
    made, progress = stepper(variant), Progress(0.5, 0.25)
    before = copy.deepcopy(made.model)
    torch.manual_seed(1)
    row, skipped = made.apply(bits(), None, progress, 1e-3)
    torch.manual_seed(1)
    losses = before.losses(bits(), None, progress)
    terms = losses.terms
    expected = [sum(losses.values()), terms.rate.sum() / BATCH, terms.distortion.sum() / BATCH]
    assert row.tolist() == pytest.approx([number.item() for number in expected], rel=1e-5) and not skipped


@pytest.mark.parametrize("variant", ["vae", "two_stage_vae"])
def test_steps_in_parts_are_the_steps_of_the_whole(variant: str) -> None:
    found = []
    for size in (BATCH, 5):  # two parts and a smaller third
        made = stepper(variant, kind=torch.float64, micro_batch=size)
        torch.manual_seed(1)
        rows = [made.apply(bits(seed).double(), None, 1.0, 1e-3)[0].float() for seed in (1, 2, 3)]
        found.append([*rows, *made.model.parameters()])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-8)


def test_a_codebook_follows_with_each_step() -> None:
    made = stepper("vq_vae")
    for number in (1, 2):
        before = made.model.quantiser.codebook.clone()
        made.apply(bits(), None, Progress(1.0, 0.0), 1e-3)
        assert not torch.equal(made.model.quantiser.codebook, before)
        assert made.model.quantiser.updates == number


def test_a_step_that_is_skipped_halves_the_loss_scale_of_half_precision() -> None:
    made = stepper("vae", Compute(CPU, torch.float16))
    first = made.scale.scale.item()
    for x, scale in ((bits(), first), (bits() * torch.nan, first / 2), (bits(), first / 2)):
        _, skipped = made.apply(x, None, 1.0, 1e-3)
        assert made.scale.scale == scale and bool(skipped) == bool(x.isnan().any())
