"""Run folders filled by several trainings at once, as one stack or beside each other, as if each had been alone."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from zoo import runs
from zoo.config import RunConfig
from zoo.errors import UsageError
from zoo.runs.folder import claimed, decided, finished, locked, remember
from zoo.runs.images import load_images
from zoo.training.beside import AT_ONCE, fit_beside, on_stream
from zoo.training.capture import WARM_UP
from zoo.training.precision import Compute
from zoo.training.replicas import Replicas, why_not
from zoo.training.stages import check_recipe
from zoo.training.trainer import Diverged, Result, Trainer

TIMED_STEPS = 20
BURSTS = 5


def train_together(
    configs: Sequence[RunConfig],
    folders: Sequence[Path],
    compute: Compute,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[bool]:
    """Train ``configs`` at once; each that ends well leaves a finished run in its folder, which `zoo.runs.train_run`
    then loads, with ``together`` in its result saying of how many it was one. What is finished already is left alone.

    Returns:
        For each whether its folder holds a finished run now. One whose numbers stopped being finite does not; it is
        to be trained alone.

    Raises:
        UsageError: they cannot be one stack (the sentence says why), or a folder holds another run.
        Stopped: ``should_stop``, asked after every step, said so. Nothing is kept: the next call begins again.
    """
    images = load_images(configs[0])
    with contextlib.ExitStack() as held:
        for folder in folders:
            held.enter_context(locked(folder))
        # Another harness may have come to them since they were planned.
        left = {folder: config for config, folder in zip(configs, folders, strict=True) if not finished(folder)}
        if left:
            trainers, generators, compute = _prepared([*left.values()], compute)
            for folder, config in left.items():
                held.enter_context(claimed(folder, config, images.spec, images))
                remember(folder, compute)
            results = Replicas(trainers, generators).fit(should_stop)
            for folder, trainer, result in zip(left, trainers, results, strict=True):
                _leave(folder, trainer, result)
        return [finished(folder) for folder in folders]


def train_beside(
    configs: Sequence[RunConfig],
    folders: Sequence[Path],
    computes: Sequence[Compute],
    should_stop: Callable[[], bool] = lambda: False,
) -> list[bool]:
    """Train runs beside each other on one GPU, of any variant, as `zoo.training.beside` does; as `train_together`, but
    that a run goes on from its checkpoint.

    Raises:
        UsageError: a folder holds another run, or another process is training in it; or a run shares its random
            generator with the others, as all do on a CPU, and those with dropout on a GPU.
        Stopped: ``should_stop`` said so. The next call goes on.
    """
    with contextlib.ExitStack() as held:
        trainers: dict[Trainer, Path] = {}
        for config, folder, compute in zip(configs, folders, computes, strict=True):
            held.enter_context(locked(folder))
            if finished(folder):
                continue
            images = load_images(config)
            model = runs.fresh_model(config, images.spec)
            check_recipe(config, model, len(images["train"]))
            held.enter_context(claimed(folder, config, images.spec, images))
            own = decided(folder, compute, model, config.train, len(images["train"]))
            rest = (folder / "checkpoints", (), should_stop)
            trainer = runs.make_trainer(config, own.place(model), images, own, *rest)
            if trainer.stepper.generator is None or model.drops:
                shared = "on a CPU" if trainer.stepper.generator is None else "with dropout"
                raise UsageError(f"runs {shared} draw from one random generator, and cannot train beside each other.")
            trainers[trainer] = folder
        fit_beside([*trainers], lambda trainer, result: _leave(trainers[trainer], trainer, result))
        return [finished(folder) for folder in folders]


def _leave(folder: Path, trainer: Trainer, result: Result | Diverged) -> None:
    if not isinstance(result, Diverged):
        runs.write_finished(folder, trainer.model, result)


def gain_beside(
    configs: Sequence[RunConfig],
    compute: Compute,
    steps: int = TIMED_STEPS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """As `gain`, of the runs beside each other, as many as are trained so at once."""
    trainers = []
    for config in (configs[0], *configs[:AT_ONCE]):
        images = load_images(config)
        model = runs.fresh_model(config, images.spec)
        own = compute.for_run(model, config.train, len(images["train"]))
        trainers.append(runs.make_trainer(config, own.place(model).train(), images, own))
        trainers[-1].initialise()
    alone, *others = trainers
    walks = [on_stream(trainer.steps_of(0), compute.device) for trainer in others]
    many = (None for _ in zip(*walks, strict=True))
    return _gain(len(others), compute, clock, alone, many, steps)


def gain(
    configs: Sequence[RunConfig],
    compute: Compute,
    steps: int = TIMED_STEPS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """How many times as fast the stack trains as one run after the other: medians of alternating bursts, of ``steps``
    steps in all. The single run captures its steps where it can, as the stack does."""
    (alone, *_), _, _ = _prepared(configs[:1], compute)
    trainers, generators, compute = _prepared(configs, compute)
    stack = Replicas(trainers, generators)
    alone.model.train()
    return _gain(len(trainers), compute, clock, alone, stack.steps_of(0), steps)


def _gain(
    runs_at_once: int, compute: Compute, clock: Callable[[], float], alone: Trainer, many: Iterator[None], steps: int
) -> float:
    one = alone.steps_of(0)
    # The first steps warm up, and capture.
    warm = min(2 * WARM_UP, alone.steps_per_epoch - 1)
    left = alone.steps_per_epoch - warm
    bursts, burst = min(BURSTS, left), max(1, min(steps, left) // BURSTS)
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(1 + bursts):
        for times, walker in zip(took, (one, many), strict=True):
            seconds = _timed(compute, clock, walker, burst if number else warm)
            if number:
                times.append(seconds)
    return runs_at_once * statistics.median(took[0]) / max(statistics.median(took[1]), 1e-9)


def _prepared(configs: Sequence[RunConfig], compute: Compute) -> tuple[list[Trainer], list[Tensor], Compute]:
    images = load_images(configs[0])
    models = [runs.fresh_model(config, images.spec) for config in configs]
    if reason := why_not(configs, models):
        raise UsageError(f"these runs cannot be trained as one stack: {reason}.")
    # A stack captures its steps where it can, and is never compiled.
    compute = replace(compute.for_run(models[0], configs[0].train, len(images["train"])), compiled=False)
    trainers, generators = [], []
    for config, model in zip(configs, models, strict=True):
        trainer = runs.make_trainer(config, compute.place(model), images, compute)
        trainer.initialise()
        trainers.append(trainer)
        generators.append(trainer.stepper.generator.get_state() if trainer.stepper.generator else torch.get_rng_state())
    return trainers, generators, compute


def _timed(compute: Compute, clock: Callable[[], float], walker: Iterator[None], steps: int) -> float:
    started = clock()
    for _ in itertools.islice(walker, steps):
        pass
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)
    return clock() - started
