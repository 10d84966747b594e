"""The trainer: the same weights twice, the same after a kill as without one, and updates that nothing can spoil."""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import importlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
import timm
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.check.subject import cut
from benchmarks.metrics.likelihood import bound
from tests.conftest import ROOT
from tests.faults.children import fork, wait
from tests.in_pieces import in_pieces
from zoo import list_models, runs
from zoo.config import TrainConfig, resolve
from zoo.data.images import DataSpec, Images, ImageSet
from zoo.errors import UsageError, ZooError
from zoo.models import settings_of
from zoo.models.base import Losses, Progress
from zoo.models.vae import VanillaVAE
from zoo.registry import registry
from zoo.runs import fresh_model, load_run, make_trainer, train_run
from zoo.runs.folder import Busy, claimed, describe_run, locked
from zoo.runs.images import load_images
from zoo.runs.together import train_together
from zoo.settings import merge
from zoo.training import checkpoint
from zoo.training.average import Average
from zoo.training.choice import VALIDATION_SEED
from zoo.training.optimise import Group, LeanAdam, LossScale, backward, learning_rate
from zoo.training.precision import choose
from zoo.training.state import TALLIED, capture, copied, restore
from zoo.training.trainer import Diverged, Stopped, Trainer

SMALL = ["encoder.hidden=[16]", "decoder.hidden=[16]", "latent=4", "train.batch_size=64"]
FULL = ["train.ema=0.9", "train.warmup=1", "train.clip=1.0", "train.schedule=cosine", "train.checkpoint_seconds=0"]


def settings(*more: str) -> list[str]:
    return [*SMALL, *more]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_run(folder).state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run(folder: str | Path, *more: str, seed: int = 0, should_stop=lambda: False):
    config = resolve("vae", "synthetic", seed, settings=settings(*more))
    return train_run(config, folder, choose("cpu"), should_stop=should_stop)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, *FULL, "train.epochs=2", seed=seed)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_the_folder_of_a_run_is_a_text_or_a_path(tmp_path: Path) -> None:
    made = run(str(tmp_path / "run"), "train.epochs=1")
    assert same(made.model.state_dict(), weights(tmp_path / "run"))
    again = run(tmp_path / "run", "train.epochs=1")
    assert again.result.curves == made.result.curves


@pytest.mark.parametrize("optimizer", ["adam", "adamax", "rmsprop"])
def test_a_run_that_is_stopped_at_every_step_ends_in_the_same_weights(tmp_path: Path, optimizer: str) -> None:
    options = [*FULL, "train.epochs=3", f"train.optimizer={optimizer}"]
    whole = run(tmp_path / "whole", *options)
    pieces, stops = in_pieces(lambda stop: run(tmp_path / "pieces", *options, should_stop=stop))
    assert stops >= 20
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "pieces"))
    assert pieces.result.curves == whole.result.curves
    assert pieces.result.best_epoch == whole.result.best_epoch


def test_a_run_on_dequantised_bytes_that_is_stopped_ends_in_the_same_weights(tmp_path: Path) -> None:
    options = [*FULL, "train.epochs=2", "data.dequantise=uniform"]
    whole = run(tmp_path / "whole", *options)
    pieces, stops = in_pieces(lambda stop: run(tmp_path / "pieces", *options, should_stop=stop))
    assert stops >= 10 and same(weights(tmp_path / "whole"), weights(tmp_path / "pieces"))
    assert pieces.result.curves == whole.result.curves
    assert load_run(tmp_path / "whole").spec.support == "dequantised"
    with pytest.raises(UsageError, match="holds another run"):
        run(tmp_path / "whole", *FULL, "train.epochs=2", "data.binarise=none", "likelihood.name=gaussian")


def make_dropping(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the encoder of every run drops units and whole rows, with numbers that are not of `zoo.noise`."""
    original = runs.build_model

    def built(*given: object) -> VanillaVAE:
        model = original(*given)
        model.encoder.layers.append(torch.nn.Dropout(0.3)).append(timm.layers.DropPath(0.2))
        return model

    monkeypatch.setattr(runs, "build_model", built)


def test_a_run_with_dropout_that_is_stopped_ends_in_the_same_weights(tmp_path: Path, monkeypatch) -> None:
    plain = run(tmp_path / "plain", *FULL, "train.epochs=2")
    make_dropping(monkeypatch)
    whole = run(tmp_path / "whole", *FULL, "train.epochs=2")
    pieces, stops = in_pieces(lambda stop: run(tmp_path / "pieces", *FULL, "train.epochs=2", should_stop=stop))
    assert stops >= 10 and whole.result.curves != plain.result.curves
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "pieces"))
    assert pieces.result.curves == whole.result.curves


def test_the_state_of_a_training_on_a_gpu_has_the_generator_that_dropout_draws_from(monkeypatch) -> None:
    config = resolve("vae", "synthetic", settings=settings("train.epochs=1"))
    images, drawn = load_images(config), torch.arange(16, dtype=torch.uint8)
    trainer = make_trainer(config, fresh_model(config, images.spec), images, choose("cpu"))
    trainer.stepper.compute = replace(trainer.compute, device=torch.device("cuda"))
    there = {"state": drawn}
    monkeypatch.setattr("zoo.training.state.peak_memory", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: there["state"])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: there.update(state=state))
    before = capture(trainer)
    there["state"] = drawn + 1
    restore(trainer, before)
    assert torch.equal(there["state"], drawn)


WORDS = ("train", "vae", "--data", "synthetic", "--wandb", "disabled")
LONG = ["train.epochs=16", "train.checkpoint_seconds=0", "evaluate.nll_samples=0", "evaluate.quality_samples=0"]


def words(folder: Path) -> list[str]:
    """The command of a run that takes long, into ``folder``."""
    return [*WORDS, *(word for text in settings(*LONG) for word in ("--set", text)), "--out", str(folder)]


def start(folder: Path) -> subprocess.Popen:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.cli", *words(folder)]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(folder: Path, said: Path) -> dict[str, Any]:
    """The record of the command in a child of this process, with one thread as `start` has it."""
    said.mkdir()
    child = fork(said, *words(folder), prepare=lambda: threadpool_limits(1))
    assert wait(child) == 0, (said / "said").read_text()
    return json.loads((folder / "record.json").read_text())


@pytest.mark.slow
def test_a_command_that_is_killed_twice_goes_on_and_ends_in_the_same_weights(tmp_path: Path) -> None:
    def last() -> int:
        return max((int(path.stem.split("-")[1]) for path in folder.glob("checkpoints/step-*.safetensors")), default=0)

    folder, steps = tmp_path / "killed", [0]
    for kill in (signal.SIGTERM, signal.SIGKILL):
        process = start(folder)
        deadline = time.monotonic() + 120
        while last() <= steps[-1]:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(kill)
        _, said = process.communicate(timeout=60)
        assert process.returncode == (-kill if kill == signal.SIGKILL else 130), said
        assert not (folder / "model.safetensors").exists()
        steps.append(last())
    importlib.import_module("benchmarks.evaluate")  # once, so that both children find it loaded
    killed, undisturbed = finish(folder, tmp_path / "again"), finish(tmp_path / "whole", tmp_path / "once")
    assert same(weights(tmp_path / "whole"), weights(folder))
    assert undisturbed["metrics"] == killed["metrics"]
    assert undisturbed["curves"] == killed["curves"]


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path, "train.epochs=1")
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    again = run(tmp_path, "train.epochs=1")
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    assert same(again.model.state_dict(), weights(tmp_path))


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    run(tmp_path, "train.epochs=1")
    with pytest.raises(UsageError, match="another run"):
        run(tmp_path, "train.epochs=2")
    with pytest.raises(UsageError, match="not a run"):
        load_run(tmp_path / "nothing")


def test_a_run_that_is_refused_before_it_trains_leaves_a_folder_as_it_was(tmp_path: Path) -> None:
    def refused(folder: Path) -> None:
        config = resolve("ladder_vae", "synthetic", settings=["train.epochs=1", "train.micro_batch=16"])
        with pytest.raises(UsageError, match="needs each batch as a whole"):
            train_run(config, folder, choose("cpu"))

    refused(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    there = tmp_path / "there"
    there.mkdir()
    (there / "notes.txt").write_text("mine")
    refused(there)
    assert {path.name for path in there.iterdir()} == {"notes.txt", ".lock"}
    run(there, "train.epochs=1")  # it belongs to nobody
    before = (there / "run.json").read_bytes()
    with pytest.raises(UsageError, match="another run"):
        train_run(resolve("cvae", "synthetic"), there, choose("cpu"))
    assert (there / "run.json").read_bytes() == before and load_run(there)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(UsageError, match="another process"):
        run(tmp_path, "train.epochs=1")


def test_a_folder_that_cannot_be_locked_is_trained_in_with_a_warning(tmp_path: Path, monkeypatch, caplog) -> None:
    def unknown(*args) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unknown)
    assert run(tmp_path, "train.epochs=1").result.steps == 8
    assert "nothing else may be at work in it" in caplog.text


def test_a_lock_that_was_taken_away_and_made_anew_is_another_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, others = fcntl.flock, []

    def late(handle: TextIO, how: int) -> None:
        # Whoever held the folder has removed it, and the next one is in there already.
        (tmp_path / ".lock").unlink()
        others.append(open(tmp_path / ".lock", "w"))
        lock(others[0], how)
        lock(handle, how)

    monkeypatch.setattr("fcntl.flock", late)
    with pytest.raises(Busy), locked(tmp_path):
        pass
    others[0].close()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_model_that_is_told_the_class_is_not_shown_images_whose_class_is_hidden(split: str) -> None:
    config = resolve("cvae", "synthetic", settings=settings("train.epochs=1"))
    images = load_images(config)
    labels = torch.full_like(images[split].labels, -1)
    hidden = replace(images, splits={**images.splits, split: replace(images[split], labels=labels)})
    said = f"cvae is told the class of each image, and this data hides that of some in its {split} split"
    with pytest.raises(UsageError, match=said):
        make_trainer(config, fresh_model(config, images.spec), hidden, choose("cpu"))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_density_on_the_unit_interval_is_not_trained_on_real_data_outside_of_it(split: str) -> None:
    wanted = settings("train.epochs=1", "likelihood.name=continuous_bernoulli", "data.options.n_train=256")
    config = resolve("vae", "ppca", settings=wanted)
    images = load_images(config)
    with pytest.raises(UsageError, match="continuous_bernoulli is a density on .0, 1. alone, and .* of 'ppca'"):
        make_trainer(config, fresh_model(config, images.spec), images, choose("cpu"))
    within = {name: replace(part, pixels=part.pixels.sigmoid()) for name, part in images.splits.items()}
    assert make_trainer(config, fresh_model(config, images.spec), replace(images, splits=within), choose("cpu"))
    within[split].pixels[7, 0, 0, 3] = 1.001
    with pytest.raises(UsageError, match=f"and 1 of the .* images of the {split} split"):
        make_trainer(config, fresh_model(config, images.spec), replace(images, splits=within), choose("cpu"))


def test_each_part_of_a_batch_is_told_its_own_classes() -> None:
    found = []
    for size in (64, 24):  # the whole, and two parts with a smaller third
        config = resolve("cvae", "synthetic", settings=settings("train.epochs=1", f"train.micro_batch={size}"))
        images = load_images(config)
        trainer = make_trainer(config, fresh_model(config, images.spec), images, choose("cpu"))
        torch.manual_seed(1)
        row, _ = trainer.stepper.apply(*next(trainer.train.epoch(0)), trainer.progress(), 1e-3)
        found.append([row, *(parameter.grad for parameter in trainer.model.parameters())])
    for whole, parts in zip(*found, strict=True):
        assert (whole - parts).abs().max() <= 1e-4 * whole.abs().max()


@pytest.mark.parametrize(("share", "together"), [(0.1, True), (0.0, False)])
def test_a_network_that_drops_what_it_likes_is_not_trained_on_parts(share: float, together: bool) -> None:
    config = resolve("vae", "synthetic", settings=settings("train.epochs=1", "train.micro_batch=16"))
    images = load_images(config)
    for part in (torch.nn.Dropout(share), timm.layers.DropPath(share)):
        model = fresh_model(config, images.spec)
        model.encoder.drop = part
        assert model.couples_batch is together
    with pytest.raises(UsageError, match="needs each batch as a whole") if together else contextlib.nullcontext():
        make_trainer(config, model, images, choose("cpu"))


def test_the_kept_weights_are_those_of_the_best_validation(tmp_path: Path) -> None:
    # A learning rate that ruins the model after some epochs: the best epoch is not the last.
    made = run(tmp_path, "train.epochs=12", "train.learning_rate=0.05", "train.patience=3")
    validation = made.result.curves["validation_elbo"]
    assert made.result.best_epoch == 1 + validation.index(max(validation))
    if made.result.stopped_early:
        assert len(validation) == made.result.best_epoch + 3


def validations(monkeypatch: pytest.MonkeyPatch, *elbos: float) -> None:
    """What the validations of the next run find, one after the other."""
    found = iter(elbos)
    monkeypatch.setattr(Trainer, "validate", lambda self: (next(found),) * 2)


def test_weights_are_kept_and_waited_for_by_the_criterion(tmp_path: Path, monkeypatch) -> None:
    found = iter([(-9.0, -2.0), (-5.0, -1.0), (-1.0, -3.0), (0.0, -4.0)])
    monkeypatch.setattr(Trainer, "validate", lambda self: next(found))
    config = resolve("beta_vae", "synthetic", settings=settings("train.epochs=9", "train.patience=2"))
    result = train_run(config, tmp_path, choose("cpu")).result
    assert (result.best_epoch, result.epochs, result.stopped_early) == (2, 4, True)
    assert result.curves["validation_elbo"] == [-9.0, -5.0, -1.0, 0.0]
    assert result.curves["validation_criterion"] == [-2.0, -1.0, -3.0, -4.0]


def test_iwae_keeps_the_weights_of_its_own_bound(tmp_path: Path) -> None:
    config = resolve("iwae", "synthetic", settings=settings("train.epochs=3", "k=8"))
    curves = train_run(config, tmp_path / "iwae", choose("cpu")).result.curves
    assert len(curves["validation_criterion"]) == 3
    assert all(k > one for k, one in zip(curves["validation_criterion"], curves["validation_elbo"], strict=True))
    assert "validation_criterion" not in run(tmp_path / "vae", "train.epochs=1").result.curves, "the ELBO itself"


@pytest.mark.parametrize(("variant", "highest"), [("vae", -3.0), ("beta_vae", math.nan)])
def test_a_checkpoint_from_before_there_was_a_criterion_goes_on(variant: str, highest: float) -> None:
    config = resolve(variant, "synthetic", settings=settings("train.epochs=2"))
    images = load_images(config)
    trainers = [make_trainer(config, fresh_model(config, images.spec), images, choose("cpu")) for _ in range(2)]
    tensors, values = capture(trainers[0])
    del values["kept"]
    restore(trainers[1], (tensors, values | {"best_elbo": -3.0, "highest": -3.0}))
    assert trainers[1].choice.kept == -3.0 and trainers[1].choice.highest == pytest.approx(highest, nan_ok=True)


def test_all_that_a_trainer_captures_is_put_back() -> None:
    config = resolve("vae", "synthetic", settings=settings(*FULL))
    images = load_images(config)
    first, second = (make_trainer(config, fresh_model(config, images.spec), images, choose("cpu")) for _ in range(2))
    first.initialise()
    for x, y in itertools.islice(first.train.epoch(0), 3):
        first.update(x, y)
    # What a CPU has no use for, or a short run does not come to.
    for number, tensor in enumerate((getattr(first.tally, name) for name in TALLIED), 2):
        tensor.fill_(number)
    first.stepper.scale.scale.fill_(32.0)
    first.stepper.scale.good.fill_(7.0)
    first.choice.best = {name: value + 1 for name, value in first.model.state_dict().items()}
    first.curves["train_loss"] = [3.0, 2.0]
    chosen = {"kept": -4.0, "best_epoch": 2, "highest": -3.0, "waited": 1, "stopped_early": True}
    numbers = {"step": 3, "seconds": 1.5, "retreats": 2}
    for owner, given in ((first, numbers), (first.choice, chosen)):
        for name, value in given.items():
            setattr(owner, name, value)
    expected, values = copied(capture(first))
    torch.rand(5)
    restore(second, (expected, values))
    found, found_values = copied(capture(second))
    assert same(found, expected) and found_values | {"peak": 0} == values | {"peak": 0}
    for owner, given in ((second, numbers), (second.choice, chosen)):
        assert {name: getattr(owner, name) for name in given} == given
    assert second.stepper.average.updates == 3


def test_a_run_begins_with_weights_and_sees_bits_in_an_order_that_are_its_seed_s() -> None:
    begun = []
    for seed in (0, 0, 1):
        config = resolve("vae", "synthetic", seed, settings=settings("data.binarise=dynamic"))
        images = load_images(config)
        trainer = make_trainer(config, fresh_model(config, images.spec), images, choose("cpu"))
        bits = [next(trainer.train.epoch(0))[0] for _ in range(2)]
        begun.append((trainer.model.head.weight, trainer.train.order(0), torch.get_rng_state(), *bits))
    one, same_seed, other = begun
    assert all(map(torch.equal, one, same_seed)) and not any(map(torch.equal, one, other))
    _, order, _, first, again = one
    assert set(first.unique().tolist()) == {0.0, 1.0} and not torch.equal(first, again), "drawn anew at each visit"
    assert not torch.equal(order, order.sort().values)


def test_weights_from_before_the_end_of_the_warm_up_are_not_kept(tmp_path: Path, monkeypatch) -> None:
    options = ["train.warmup=2", "train.epochs=4"]
    validations(monkeypatch, -1.0, -4.0, -3.0, -5.0)
    assert run(tmp_path / "a", *options).result.best_epoch == 3
    validations(monkeypatch, -1.0, -2.0, -3.0, -4.0)  # the first of the whole objective at the end of the second
    assert run(tmp_path / "b", *options).result.best_epoch == 2
    validations(monkeypatch, -1.0, -4.0)
    assert run(tmp_path / "c", "train.warmup=3", "train.epochs=2").result.best_epoch == 2


def test_a_bound_that_is_not_finite_takes_no_place_of_one_that_is(tmp_path: Path, monkeypatch) -> None:
    validations(monkeypatch, -2.0, -1.0, float("nan"))
    assert run(tmp_path, "train.warmup=3", "train.epochs=3").result.best_epoch == 2


def test_patience_waits_for_the_last_stage(tmp_path: Path, monkeypatch) -> None:
    validations(monkeypatch, *(-float(n) for n in range(10)))
    config = resolve("vq_vae", "synthetic", settings=["train.epochs=10", "train.patience=2", "prior_from=0.5"])
    found = train_run(config, tmp_path, choose("cpu")).result
    # The prior's stage begins after five epochs; its first validation is what the next ones are compared with.
    assert (found.best_epoch, found.epochs, found.stopped_early) == (6, 8, True)


@pytest.mark.parametrize(("keep", "kept"), [("best", 3), ("last", 5)])
def test_patience_waits_for_a_better_bound_whatever_is_kept(tmp_path: Path, monkeypatch, keep: str, kept: int) -> None:
    validations(monkeypatch, -1.0, -9.0, -4.0, -6.0, -5.0, -7.0)
    found = run(tmp_path, f"train.keep={keep}", "train.warmup=2", "train.patience=2", "train.epochs=6").result
    assert (found.epochs, found.best_epoch, found.stopped_early) == (5, kept, True)


def test_validation_and_checkpoints_are_no_time_of_training(tmp_path: Path, monkeypatch) -> None:
    now, validate = [0.0], Trainer.validate

    def slow(self: Trainer) -> float:
        now[0] += 1000
        return validate(self)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Trainer, "validate", slow)
    assert run(tmp_path / "a", "train.epochs=3", "train.checkpoint_seconds=100").result.seconds == 0
    config = resolve("vae", "synthetic", settings=settings("train.epochs=3"))
    train_together([config], [tmp_path / "b"], choose("cpu"))
    assert train_run(config, tmp_path / "b", choose("cpu")).result.seconds == 0


def test_a_batch_that_is_not_finite_leaves_running_statistics_as_they_were(tmp_path: Path) -> None:
    config = resolve("ladder_vae", "synthetic", settings=["train.epochs=1", "train.batch_size=32"])
    images = load_images(config)
    trainer = make_trainer(config, fresh_model(config, images.spec), images, choose("cpu"))
    trainer.model.train()
    x, y = next(trainer.train.epoch(0))
    trainer.update(x, y)
    before = copy.deepcopy(trainer.model.state_dict())
    spoilt = x.clone()
    spoilt[0] = torch.inf
    trainer.update(spoilt, y)
    counted = [name for name in before if name.endswith("num_batches_tracked")]
    assert any(name.endswith("running_mean") for name in before)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items()
               if name not in counted)  # fmt: skip
    trainer.update(x, y)
    assert not same(trainer.model.state_dict(), before)


def test_a_gradient_that_is_not_finite_counts_in_whichever_group_it_is() -> None:
    config = resolve("factor_vae", "synthetic", settings=settings())
    images = load_images(config)
    trainer = make_trainer(config, fresh_model(config, images.spec), images, choose("cpu"))
    losses = trainer.model.losses
    for spoilt in ("vae", "discriminator"):

        def spoil(*given, spoilt: str = spoilt) -> Losses:
            found = losses(*given)
            return Losses(found | {spoilt: found[spoilt] * math.inf}, found.terms)

        trainer.model.losses = spoil
        before = copy.deepcopy(trainer.model.state_dict())
        trainer.update(*next(trainer.train.epoch(0)))
        assert trainer.tally.waiting[-1][1].item() == 1
        moved = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
        assert moved and all(name.startswith("discriminator") == (spoilt == "vae") for name in moved)


def test_large_pictures_are_shown_to_the_initialisation_few_at_a_time(tmp_path: Path, monkeypatch) -> None:
    shown: list[int] = []
    monkeypatch.setattr(VanillaVAE, "initialise", lambda self, x, y: shown.append(len(x)))
    run(tmp_path / "a", "train.epochs=0")
    monkeypatch.setattr("zoo.training.trainer.SHOWN_NUMBERS", 100 * 28 * 28)
    run(tmp_path / "b", "train.epochs=0")
    assert shown == [512, 128]  # whole batches of 64


@pytest.mark.parametrize("keep", ["best", "last"])
def test_after_training_every_example_is_shown_once_to_the_weights_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    shown: list[tuple[list[int], dict[str, Tensor]]] = []

    def recollect(model: VanillaVAE, batches: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        pictures = [hash(x.numpy().tobytes()) for part, _ in batches for x in part]
        shown.append((pictures, copy.deepcopy(model.state_dict())))

    monkeypatch.setattr(VanillaVAE, "recollect", recollect)
    # 120 examples are one batch of 64 and most of another. The second of two epochs is too fast to be the best.
    small = ["data.options.n_train=120", "data.binarise=threshold", "train.epochs=2", f"train.keep={keep}"]
    run(tmp_path, *small, "train.schedule=stages", "train.stages=[[1,1e-3],[1,1.0]]", "train.clip=null")
    ((pictures, kept),) = shown
    train = load_images(resolve("vae", "synthetic", settings=settings(*small)))["train"]
    assert sorted(pictures) == sorted(hash(x.numpy().tobytes()) for x in (train.pixels > 127).float())
    assert same(kept, weights(tmp_path))


def test_validation_does_not_move_training(tmp_path: Path) -> None:
    run(tmp_path / "often", "train.epochs=4", "train.keep=last")
    run(tmp_path / "once", "train.epochs=4", "train.keep=last", "train.validate_every=4")
    assert same(weights(tmp_path / "often"), weights(tmp_path / "once"))


def test_validation_is_in_evaluation_mode_and_moves_no_statistics() -> None:
    config = resolve("ladder_vae", "synthetic", settings=["train.epochs=1", "train.batch_size=32"])
    images = load_images(config)
    trainer = make_trainer(config, fresh_model(config, images.spec), images, choose("cpu"))
    trainer.update(*next(trainer.train.epoch(0)))
    before = copy.deepcopy(trainer.model.state_dict())
    found = trainer.validate()
    assert trainer.model.training and same(trainer.model.state_dict(), before)
    expected = bound(trainer.model.eval(), trainer.validation, VALIDATION_SEED).elbo.mean().item()
    assert found[0] == pytest.approx(expected, rel=1e-5)
    trainer.model.train()
    trainer.finish()
    assert not trainer.model.training


def test_validation_is_the_mean_over_all_images_however_they_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve("iwae", "synthetic", settings=settings("data.options.n_validation=70", "k=4"))
    images = load_images(config)
    trainer = make_trainer(config, fresh_model(config, images.spec), images, choose("cpu"))
    whole = trainer.validate()
    expected = bound(trainer.model.eval(), trainer.validation, VALIDATION_SEED).elbo
    assert len(expected) == 70 and whole[0] == pytest.approx(expected.mean().item(), rel=1e-5)
    monkeypatch.setattr("zoo.training.choice.VALIDATION_ROWS", 24 * trainer.model.drawn)
    # 24 images, 24 more and 22.
    assert trainer.validate() == pytest.approx(whole, rel=1e-5)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    count = 0

    def after(n: int):
        def stop() -> bool:
            nonlocal count
            count += 1
            return count >= n

        return stop

    options = [*FULL, "train.epochs=3"]
    run(tmp_path / "whole", *options)
    with pytest.raises(Stopped):
        run(tmp_path / "cut", *options, should_stop=after(10))
    older, newer = sorted((tmp_path / "cut" / "checkpoints").glob(checkpoint.PATTERN))
    data = newer.read_bytes()
    for broken in (data[: len(data) // 2], b"", data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]):
        newer.write_bytes(broken)
        found = checkpoint.latest(newer.parent)
        assert found is not None
        assert found[1]["step"] == int(older.stem.split("-")[1])
        assert len(caplog.messages) == 1 and str(newer) in caplog.messages[0]
        caplog.clear()
    run(tmp_path / "cut", *options)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_checkpoint_that_cannot_be_read_now_is_no_reason_to_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, asked = [*FULL, "train.epochs=2"], iter([False] * 9 + [True])
    run(tmp_path / "whole", *options)
    with pytest.raises(Stopped):
        run(tmp_path / "cut", *options, should_stop=lambda: next(asked))
    there = sorted((tmp_path / "cut" / "checkpoints").iterdir())

    def gone(path: Path, framework: str) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch, pytest.raises(ZooError, match=r"cannot be read now \(Stale file handle\)"):
        patch.setattr(checkpoint, "safe_open", gone)
        run(tmp_path / "cut", *options)
    assert sorted((tmp_path / "cut" / "checkpoints").iterdir()) == there
    run(tmp_path / "cut", *options)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_checkpoint_that_carries_a_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (mark,))

    path = tmp_path / "step-000000001.safetensors"
    torch.save({"model": Bomb()}, path)
    with pytest.raises(ZooError, match="not a readable checkpoint"):
        checkpoint.read(path)
    assert not mark.exists()


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    tensors = {"a": base, "view": base.t(), "bits": torch.tensor([1, 0], dtype=torch.bool), "none": torch.zeros(0, 3)}
    checkpoint.write(tmp_path / "x", tensors, {"step": 3, "best": float("-inf")})
    read, state = checkpoint.read(tmp_path / "x")
    assert all(torch.equal(read[name], value) for name, value in tensors.items())
    assert state == {"step": 3, "best": float("-inf")}


# ---- the update ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "adamax", "rmsprop"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e20])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_an_update_with_a_bad_gradient_changes_nothing(optimizer: str, bad: float, clip: float | None) -> None:
    # The square of 1e20 is infinite: Adam would never move that weight again.
    parameter = torch.nn.Parameter(torch.randn(5))
    group = Group("g", [parameter], TrainConfig(optimizer=optimizer, clip=clip))
    parameter.grad = torch.ones(5)
    group.step()
    before, state = parameter.detach().clone(), {k: v.clone() for k, v in group.optimizer.state[parameter].items()}
    parameter.grad = torch.tensor([1.0, bad, 1.0, 1.0, 1.0])
    assert group.step() == 1
    assert torch.equal(parameter, before)
    assert all(torch.equal(group.optimizer.state[parameter][name], value) for name, value in state.items())
    parameter.grad = torch.ones(5)
    group.step()
    assert not torch.equal(parameter, before)


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e9])
def test_a_gradient_of_any_finite_size_moves_the_weights(size: float) -> None:
    parameter = torch.nn.Parameter(torch.ones(5))
    group = Group("g", [parameter], TrainConfig(epsilon=0.1 * size))
    parameter.grad = torch.full((5,), size)
    assert group.step() == 0
    assert (parameter < 1).all()


def test_lean_adam_is_pytorch_s_bit_for_bit() -> None:
    # Also where a gradient is missing, an update is skipped, and the state comes from elsewhere.
    torch.manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.ones(n)) for n in (7, 3, 40)] for _ in range(2))
    lean, adam = LeanAdam(ours, lr=0.1, fused=True), torch.optim.Adam(theirs, lr=0.1, fused=True)
    for step in range(12):
        if step == 6:
            state = copy.deepcopy(adam.state_dict())
            lean.load_state_dict(copy.deepcopy(state))
            adam.load_state_dict(state)
        for optimizer in (lean, adam):
            optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(float(step == 4))
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        if step in (2, 8):
            ours[1].grad = theirs[1].grad = None
        lean.step()
        adam.step()
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
            assert all(torch.equal(lean.state[a][slot], adam.state[b][slot]) for slot in adam.state[b])


def test_clipping_bounds_the_norm_and_leaves_small_gradients() -> None:
    for size, expected in ((10.0, 1.0), (0.5, 0.5)):
        parameter = torch.nn.Parameter(torch.zeros(4))
        group = Group("g", [parameter], TrainConfig(clip=1.0))
        parameter.grad = torch.tensor([size, 0.0, 0.0, 0.0])
        group.step()
        assert parameter.grad.norm().item() == pytest.approx(expected, rel=1e-5)


def test_each_loss_moves_its_own_group_only() -> None:
    a, b = torch.nn.Parameter(torch.tensor(2.0)), torch.nn.Parameter(torch.tensor(3.0))
    groups = {name: Group(name, [p], TrainConfig()) for name, p in (("a", a), ("b", b))}
    backward({"a": a * b, "b": a * a * b}, groups)
    assert (a.grad.item(), b.grad.item()) == (3.0, 4.0)


def test_gradients_of_several_groups_are_scaled_and_added_up_and_no_old_one_is_left() -> None:
    a, b, c = (torch.nn.Parameter(torch.tensor(value)) for value in (2.0, 3.0, 5.0))
    groups = {"one": Group("one", [a, c], TrainConfig()), "two": Group("two", [b], TrainConfig())}
    for add, times in ((False, 8), (True, 16), (False, 8)):
        backward({"one": a * b, "two": a * a * b}, groups, 8.0, add=add)
        assert (a.grad.item(), b.grad.item(), c.grad) == (3 * times, 4 * times, None)
    backward({"one": c * b, "two": a * b}, groups, 8.0, add=True)
    assert (a.grad.item(), b.grad.item(), c.grad.item()) == (24, 32 + 16, 24)
    backward({"one": c * b, "two": a * b}, groups)
    assert (a.grad, b.grad.item(), c.grad.item()) == (None, 2, 3)


def test_the_loss_scale_stays_between_one_and_where_pytorch_s_begins() -> None:
    scale = LossScale(True, torch.device("cpu"))
    for _ in range(20):
        scale.update(torch.tensor(1.0))
    assert scale.scale == 1
    for _ in range(20):
        scale.good += scale.GROWTH_INTERVAL - 1
        scale.update(torch.tensor(0.0))
    assert scale.scale == 2.0**16


def test_the_loss_scale_halves_on_overflow_and_doubles_after_many_good_steps() -> None:
    scale = LossScale(True, torch.device("cpu"))
    scale.update(torch.tensor(1.0))
    assert scale.scale == 2.0**6
    for _ in range(LossScale.GROWTH_INTERVAL):
        scale.update(torch.tensor(0.0))
    assert scale.scale == 2.0**7
    for found_inf in (*[0.0] * (LossScale.GROWTH_INTERVAL - 1), 1.0, 0.0):
        scale.update(torch.tensor(found_inf))
    assert scale.scale == 2.0**6, "in a row"


def test_a_scaled_step_equals_an_unscaled_one() -> None:
    results = []
    for scale in (1.0, torch.tensor(1024.0)):
        parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        group = Group("g", [parameter], TrainConfig(clip=0.5))
        backward({"g": (parameter**2).sum()}, {"g": group}, scale)
        group.step(scale)
        results.append(parameter.detach().clone())
    assert torch.allclose(*results, atol=1e-7)


@pytest.mark.parametrize("optimizer", ["adam", "adamax", "rmsprop"])
@pytest.mark.parametrize("clip", [None, 0.5, 50.0], ids=str)
def test_the_loss_scale_is_out_of_a_gradient_before_it_is_clipped(optimizer: str, clip: float | None) -> None:
    # Only beside a large epsilon do these optimisers see the size of a gradient.
    recipe = TrainConfig(optimizer=optimizer, clip=clip, epsilon=1.0, learning_rate=0.1)
    results = []
    for scales in ((1.0, 1.0, 1.0), (torch.tensor(1024.0), torch.tensor(512.0), torch.tensor(1024.0))):
        parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        group = Group("g", [parameter], recipe)
        for scale in scales:
            backward({"g": (parameter**2).sum()}, {"g": group}, scale)
            group.step(scale)
        results.append(parameter.detach().clone())
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


def test_cosine_ends_where_it_should() -> None:
    config = TrainConfig(schedule="cosine", learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(config, step, 101) for step in (0, 50, 100)]
    assert rates == pytest.approx([1.0, 0.55, 0.1])


def test_the_average_follows_and_is_put_back() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = Average(model, decay=0.5)
    torch.nn.init.ones_(model.weight)
    for update in range(40):
        average.blend(average.weight(update))
    with average.applied():
        assert model.weight.item() == pytest.approx(1.0, abs=1e-6)
        torch.nn.init.zeros_(average.tensors["weight"])
    assert model.weight.item() == 1.0


def test_the_average_follows_ever_slower_until_its_decay_is_reached() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = Average(model, decay=0.9)
    # The first update, the last one whose decay is below 0.9, the one that reaches it, and any later one.
    assert [average.weight(n) for n in (0, 79, 80, 10_000)] == pytest.approx([0.9, 9 / 89, 0.1, 0.1])
    torch.nn.init.zeros_(average.tensors["weight"])
    torch.nn.init.ones_(model.weight)
    for weight, expected in ((0.9, 0.9), (torch.tensor(0.5), 0.95), (0.5, 0.975)):
        average.blend(weight)
        assert average.tensors["weight"].item() == pytest.approx(expected)


def test_the_average_has_the_statistics_of_batch_normalisation_too() -> None:
    model = torch.nn.BatchNorm1d(1)
    average = Average(model, decay=0.75)
    model(torch.full((8, 1), 20.0))
    live = model.running_mean.item()
    average.blend(average.weight(updates=1000))
    with average.applied():
        assert model.running_mean.item() == pytest.approx(0.25 * live) != 0
    assert model.running_mean.item() == live


def test_the_warm_up_runs_from_nothing_to_one() -> None:
    seen = []

    def losses(model, original):
        def inner(x: Tensor, y: Tensor | None, progress: Progress) -> Losses:
            seen.append((float(progress), progress.fraction))
            return original(x, y, progress)

        return inner

    from zoo.data.batches import Batches
    from zoo.models import create_model
    from zoo.runs.images import load_images
    from zoo.training.trainer import Trainer

    config = resolve("vae", "synthetic", settings=settings("train.epochs=4", "train.warmup=2"))
    images = load_images(config)
    model = create_model("vae", data=images.spec, **config.model)
    batches = Batches(images["train"], batch_size=64, shuffle_seed=0)
    trainer = Trainer(model, batches, Batches(images["validation"], batch_size=64), config.train, choose("cpu"))
    model.losses = losses(model, model.losses)
    trainer.fit()
    warm = 2 * len(batches)
    assert [progress for progress, _ in seen] == pytest.approx([min(1, i / warm) for i in range(2 * warm)])
    assert seen[0][1] == 0 and seen[-1][1] == pytest.approx((2 * warm - 1) / (2 * warm))


def test_a_run_that_cannot_train_is_called_diverged(tmp_path: Path) -> None:
    with pytest.raises(Diverged):
        run(tmp_path, "train.epochs=3", "train.learning_rate=1e30", "train.checkpoint_seconds=0")


def test_an_unknown_device_is_wrong_use() -> None:
    for device in ("tpu", "gpu0", "mps"):
        with pytest.raises(UsageError, match="Give auto, cpu"):
            choose(device)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="0 CUDA devices"):
            choose("cuda")


def test_peak_memory_sees_what_was_held_and_forgets_what_was_before() -> None:
    from zoo.training.memory import peak_memory, reset_peak

    device = torch.device("cpu")
    reset_peak(device)
    before = peak_memory(device)
    held = torch.ones(40 << 20)  # 160 MiB of float32, touched
    assert peak_memory(device) - before > 140 << 20
    del held
    reset_peak(device)
    if sys.platform == "linux":
        assert peak_memory(device) - before < 140 << 20


@pytest.mark.parametrize("variant", list_models())
def test_every_variant_goes_on_where_it_was_stopped(tmp_path: Path, variant: str) -> None:
    from benchmarks.suite import suite_named

    config = suite_named("smoke").config(variant, "synthetic", 0)
    warmup = min(config.train.warmup, 1)  # a variant whose stages it parts is trained in both
    train = config.train.model_copy(update={"epochs": 2, "batch_size": 32, "ema": 0.9, "warmup": warmup})
    data = config.data.model_copy(update={"options": {"n_train": 256, "n_validation": 64, "n_test": 64}})
    # What has a state to be put back is the same at any width.
    model = merge(config.model, cut(settings_of(registry().variants[variant], config.model)))
    config = config.model_copy(update={"train": train, "data": data, "model": model})
    train_run(config, tmp_path / "whole", choose("cpu"))
    _, stops = in_pieces(lambda stop: train_run(config, tmp_path / "pieces", choose("cpu"), should_stop=stop), every=5)
    assert stops >= 2
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "pieces"))


@pytest.mark.parametrize("number", [100, 20_000, 70_000])
def test_a_run_on_very_many_classes_can_be_read_again(tmp_path: Path, number: int) -> None:
    spec = DataSpec((1, 2, 2), "8-bit", classes=number)
    shown = Images(np.zeros((3, 1, 2, 2), np.uint8), labels=np.array([0, 1, number - 1]))
    names = tuple(f"the folder of class {i}" for i in range(number))
    images = ImageSet("mine", dict.fromkeys(("train", "validation", "test"), shown), spec, classes=names)
    with claimed(tmp_path, resolve("vae", "synthetic"), spec, images):
        pass
    found = describe_run(tmp_path)
    assert found.spec == spec and found.classes in (names, ()) and (found.classes or number > 100)
