"""Numbers below float32's normal range: as zero in training on a CPU, as they are everywhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.conftest import ROOT
from zoo.config import resolve
from zoo.runs import fresh_model, make_trainer
from zoo.runs.images import load_images
from zoo.training import subnormal
from zoo.training.precision import choose
from zoo.training.trainer import Trainer

CPU = torch.device("cpu")
CAN = torch.set_flush_denormal(True)
torch.set_flush_denormal(False)
needs_mode = pytest.mark.skipif(not CAN, reason="this processor has no such mode")
TINY = torch.finfo(torch.float32).tiny


def subnormals(tensors: list[Tensor]) -> int:
    return sum(((tensor != 0) & (tensor.abs() < TINY)).sum().item() for tensor in tensors)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """What other tests made PyTorch's threads do does not matter."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(steps: int) -> Trainer:
    """After steps on black pictures with a white middle; a corner was lit in the first one alone."""
    settings = ["train.batch_size=8", "encoder.hidden=[16]", "decoder.hidden=[16]"]
    config = resolve("vae", "synthetic", settings=settings)
    images = load_images(config)
    trainer = make_trainer(config, fresh_model(config, images.spec).train(), images, choose("cpu"))
    x = torch.zeros(8, *images.spec.shape)
    x[:, :, 10:14, 10:14] = 1
    x[0, :, 0, 0] = 1
    for _ in range(steps):
        trainer.update(x, None)
        x[0, :, 0, 0] = 0
    return trainer


def state_of(trainer: Trainer) -> list[Tensor]:
    (group,) = trainer.stepper.groups.values()
    return [tensor for state in group.optimizer.state.values() for tensor in state.values() if tensor.dim()]


@needs_mode
def test_no_such_number_stays_in_the_optimiser_and_no_weight_knows(
    one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushing = trained(1000)
    assert subnormals(state_of(flushing)) == 0
    with monkeypatch.context() as patched:
        patched.setattr(subnormal.torch, "set_flush_denormal", lambda mode: False)
        keeping = trained(1000)
    # Else the test shows nothing: the pixel's mean gradient has become such a number.
    assert subnormals(state_of(keeping)) > 0
    for name, value in keeping.model.state_dict().items():
        assert torch.equal(value, flushing.model.state_dict()[name]), name


@needs_mode
def test_the_mode_ends_with_the_block_and_belongs_to_whoever_set_it_before() -> None:
    assert not subnormal.flushed()
    with subnormal.as_zero(CPU):
        assert subnormal.flushed()
        assert (torch.tensor(TINY) / 2).item() == 0
        with subnormal.as_zero(CPU):
            pass
        assert subnormal.flushed()
    assert not subnormal.flushed()
    with pytest.raises(ZeroDivisionError), subnormal.as_zero(CPU):
        raise ZeroDivisionError
    assert not subnormal.flushed()
    with subnormal.as_zero(torch.device("cuda")):
        assert not subnormal.flushed()


@needs_mode
def test_all_of_the_threads_count_them_as_zero() -> None:
    program = """
import torch
from zoo.training import subnormal
from zoo.training.precision import choose
torch.set_num_threads(4)
choose("cpu")
small = torch.full((1 << 20,), 1e-30)
with subnormal.as_zero(torch.device("cpu")):
    print(torch.get_num_threads(), (small * 1e-10).count_nonzero().item())
print(subnormal.flushed())
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "0", "False"]
