"""The cyclical warm-up: the weight of the rate at each step by hand, what is kept, and what is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from tests.in_pieces import in_pieces
from tests.test_training import run, same, settings, weights
from tests.test_training_settings import state, trainer_of
from zoo import create_model
from zoo.config import TrainConfig, resolve
from zoo.errors import UsageError
from zoo.runs import train_run
from zoo.training.precision import choose
from zoo.training.stages import Course, check_recipe


def rises(epoch: int, **train: float) -> list[float]:
    """The progress of the warm-up at each step, of epochs of so many."""
    course = Course.of(TrainConfig(**train), epoch)
    return [course.progress(step) for step in range(course.steps)]


@pytest.mark.parametrize(
    ("epoch", "train", "expected"),
    [
        (4, {"epochs": 3, "cycles": 3}, [0, 1 / 2, 1, 1] * 3),
        (6, {"epochs": 2, "cycles": 2, "warmup": 1 / 3}, [0, 1 / 2, 1, 1, 1, 1] * 2),
        (5, {"epochs": 2, "cycles": 4}, [0, 0.8, 1, 0.4, 1] * 2),  # cycles of two steps and a half
        (5, {"epochs": 2, "cycles": 6}, [0, 1, 0.4, 1, 0.8] * 2),  # of one and two thirds
        (4, {"epochs": 2}, [1] * 8),
    ],
)
def test_the_weight_by_hand_at_each_step(epoch: int, train: dict[str, float], expected: list[float]) -> None:
    assert rises(epoch, **train) == pytest.approx(expected)


def test_one_cycle_is_a_warm_up_of_its_length() -> None:
    assert rises(7, epochs=4, cycles=1) == rises(7, epochs=4, warmup=2.0)
    assert rises(7, epochs=4, cycles=1, warmup=0.7) == rises(7, epochs=4, warmup=0.7)


def test_it_is_over_for_good_where_the_last_weight_has_risen() -> None:
    model = create_model("vae", data="synthetic", latent=2)
    for cycles, warmup, first in ((1, 5.0, 5), (3, 5.0, 25), (4, 3.75, 27), (None, 5.0, 5)):
        course = Course.of(TrainConfig(epochs=30, warmup=warmup, cycles=cycles), 1)
        assert [course.settled(model, step) for step in range(31)] == [step >= first for step in range(31)]
        assert all(course.progress(step) == 1.0 for step in range(first, 30))


def test_training_is_told_and_keeps_what_the_end_of_the_last_cycle_is_best_at() -> None:
    trainer, falling, told = trainer_of(epochs=9, cycles=2, warmup=2, patience=2), iter(range(0, -9, -1)), []
    losses = trainer.model.losses
    trainer.model.losses = lambda x, y, progress: told.append(float(progress)) or losses(x, y, progress)
    trainer.validate = lambda: (float(next(falling)),) * 2
    result = trainer.fit()
    # The second cycle begins after four epochs and a half, and its weight has risen two later.
    assert (result.epochs, result.best_epoch, result.stopped_early) == (9, 7, True)
    half = trainer.steps / 2
    assert told == pytest.approx([min(1.0, step % half / (4 * half / 9)) for step in range(trainer.steps)])
    assert told.count(0.0) >= 1 and told[-1] == 1.0


def test_one_cycle_ends_in_the_weights_of_the_warm_up() -> None:
    one, other, several = (trainer_of(epochs=2, **more) for more in ({"cycles": 1}, {"warmup": 1.0}, {"cycles": 2}))
    for trainer in (one, other, several):
        torch.manual_seed(0)
        trainer.fit()
    assert same(state(one.model), state(other.model)) and not same(state(one.model), state(several.model))


def test_a_training_that_is_stopped_within_a_cycle_ends_in_the_same_weights(tmp_path: Path) -> None:
    cycles = ("train.epochs=3", "train.cycles=2", "train.checkpoint_seconds=0")
    run(tmp_path / "whole", *cycles)
    config = resolve("vae", "synthetic", settings=settings(*cycles))
    _, stops = in_pieces(lambda stop: train_run(config, tmp_path / "run", choose("cpu"), should_stop=stop), every=3)
    assert stops >= 2 and same(weights(tmp_path / "whole"), weights(tmp_path / "run"))


def test_what_contradicts_a_cycle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a warm-up of 2 epochs leaves nothing of a cycle, of which there are 4 in 8"):
        resolve("vae", settings=["train.epochs=8", "train.cycles=4", "train.warmup=2"])
    assert resolve("vae", settings=["train.epochs=8", "train.cycles=4", "train.warmup=1.5"])
    with pytest.raises(UsageError, match="train.cycles"):
        resolve("vae", settings=["train.cycles=0"])
    staged = ["train.epochs=2", "train.warmup=0.5"]
    with pytest.raises(UsageError, match="parts two stages, and train.cycles=2 would go back to the first"):
        train_run(resolve("quadrant_cvae", "synthetic", settings=[*staged, "train.cycles=2"]), tmp_path, choose("cpu"))


@pytest.mark.parametrize("name", ["vq_vae", "vq_vae_2", "rae", "adversarial_ae"])
def test_cycles_are_refused_where_no_weight_rises_and_the_warm_up_of_a_suite_is_not(name: str) -> None:
    model = create_model(name)
    for cycles, refused in (("2", True), ("1", True), ("null", False)):
        config = resolve(name, settings=[f"train.cycles={cycles}"], defaults=[{"train": {"warmup": 2}}])
        said = f"{name} has no weight here that rises over a warm-up: it knows no train.cycles"
        for images in (None, 50_000):
            with pytest.raises(UsageError, match=said) if refused else contextlib.nullcontext():
                check_recipe(config, model, images)


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        (["train.cycles=3"], None),
        (["train.cycles=4"], "each of train.cycles=4 would have 1.5 steps, and the weight of the rate rises over 0.75"),
        (["train.cycles=1000"], "each of train.cycles=1000 would have 0.006 steps"),
        (["train.cycles=2", "train.warmup=0.6"], None),
        (["train.cycles=2", "train.warmup=0.8"], "each of train.cycles=2 would have 3 steps, .* rises over 2.4"),
        (["train.cycles=1000", "train.epochs=0"], None),
    ],
)
def test_a_cycle_too_short_to_rise_is_refused(more: list[str], refused: str | None) -> None:
    config = resolve("vae", "synthetic", settings=["train.epochs=2", "train.batch_size=64", *more])
    model = create_model("vae", data="synthetic", latent=2)
    with pytest.raises(UsageError, match=refused) if refused else contextlib.nullcontext():
        check_recipe(config, model, 192)
    told = rises(3, **config.train.model_dump(include={"epochs", "cycles", "warmup"}))
    assert refused or not told or told[-1] == 1.0


def test_runs_without_cycles_keep_their_identity() -> None:
    assert "cycles" not in resolve("vae").identity()["train"]
    found = {resolve("vae", settings=more).identity()["train"].get("cycles") for more in ([], ["train.cycles=1"])}
    assert found == {None, 1}
