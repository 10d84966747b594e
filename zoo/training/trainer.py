"""The loop: one for every variant, the same on a CPU and a GPU, and the same after a kill as without one."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo import noise
from zoo.config import TrainConfig
from zoo.data.batches import Batches
from zoo.errors import ZooError
from zoo.models.base import VAE, Progress
from zoo.training import checkpoint
from zoo.training.average import Average
from zoo.training.memory import peak_memory, reset_peak
from zoo.training.optimise import Group, LossScale, backward, learning_rate
from zoo.training.precision import Compute

LOGGED = ("loss", "elbo", "rate", "distortion")
VALIDATION_ROWS = 1024
VALIDATION_SEED = 1
# Examples that data-dependent initialisation is shown.
SHOWN_FIRST = 4096
# A run whose updates are skipped this many times in a row will not recover by waiting.
HOPELESS = 100


class Diverged(ZooError):
    """Training met non-finite losses or gradients that it could not leave out."""


class Stopped(ZooError):
    """Somebody asked the run to stop; its checkpoint is written and the same call goes on from it."""


class Watcher(Protocol):
    """Whoever looks on: the bar, Weights & Biases. Nothing a watcher does changes a run."""

    def step(self, state: dict[str, float]) -> None: ...

    def epoch(self, row: dict[str, float]) -> None: ...


@dataclass
class Result:
    """What a finished training says of itself."""

    steps: int
    epochs: int
    best_epoch: int
    skipped_updates: int
    seconds: float
    images_per_second: float
    peak_memory_bytes: int
    stopped_early: bool
    curves: dict[str, list[float]] = field(default_factory=dict)


class Trainer:
    """Trains one model on one set of batches.

    Args:
        model: on its device already.
        train, validation: the two splits as `Batches`.
        config: the recipe.
        compute: device and precision.
        folder: where checkpoints go; None keeps none.
        watchers: told of progress about twice a second and after every epoch.
        should_stop: asked after every step; true writes a checkpoint and raises `Stopped`.
    """

    def __init__(
        self,
        model: VAE,
        train: Batches,
        validation: Batches,
        config: TrainConfig,
        compute: Compute,
        folder: Path | None = None,
        watchers: tuple[Watcher, ...] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.model, self.train, self.validation = model, train, validation
        model.train_size = train.n
        self.config, self.compute, self.folder = config, compute, folder
        self.watchers, self.should_stop = watchers, should_stop
        self.groups = {
            name: Group(name, parameters, config) for name, parameters in model.parameter_groups().items()
        }
        self.average = Average(model, config.ema) if config.ema else None
        self.scale = LossScale(compute.scaled, compute.device)
        self.steps_per_epoch = len(train)
        self.steps = config.epochs * self.steps_per_epoch
        self.warmup_steps = config.warmup * self.steps_per_epoch
        self.step = 0
        self.totals = torch.zeros(len(LOGGED) + 1, device=compute.device, dtype=torch.float64)
        self.in_a_row = torch.zeros((), device=compute.device)
        self.seconds = 0.0
        self.peak = 0
        self._clock = self.saved = time.monotonic()
        self.curves: dict[str, list[float]] = {}
        self.best: dict[str, Tensor] | None = None
        self.best_elbo, self.best_epoch, self.waited = -float("inf"), 0, 0
        self.stopped_early = False
        self.forward = torch.compile(model.losses) if config.compile else model.losses

    # ---- the run ---------------------------------------------------------------------------------------------------

    def fit(self) -> Result:
        """Train to the end, from the newest checkpoint if the folder has one; leaves the best weights in the model.

        Raises:
            Diverged: too many updates in a row had no finite gradient.
            Stopped: ``should_stop`` said so.
        """
        if not self.resume():
            self._initialise()
        if self.steps_per_epoch == 0:
            raise ZooError(f"a batch of {self.config.batch_size} is larger than the training set.")
        reset_peak(self.compute.device)
        self.model.train()
        self.saved = time.monotonic()
        while self.step < self.steps and not self.stopped_early:
            epoch, start = divmod(self.step, self.steps_per_epoch)
            self._clock = time.monotonic()
            told = self._clock
            for x, y in self.train.epoch(epoch, start=start):
                self.update(x, y)
                if self.watchers and time.monotonic() - told > 0.5:
                    told = time.monotonic()
                    self._tell()
                if self.step % self.steps_per_epoch:
                    self._pause_if_due()
            self._end_epoch(epoch)
            if self.step < self.steps and not self.stopped_early:
                self._pause_if_due()
        self._finish()
        return self.result()

    def update(self, x: Tensor, y: Tensor | None) -> None:
        """One step on one batch. Waits for nothing."""
        with self.compute.autocast():
            losses = self.forward(x, y, self.progress())
        backward(losses, self.groups, self.scale.scale if self.compute.scaled else 1.0)
        rate = learning_rate(self.config, self.step, self.steps)
        found_inf = torch.zeros((), device=self.compute.device)
        for name in losses:
            group = self.groups[name]
            group.set_rate(rate)
            found_inf = torch.maximum(found_inf, group.step(self.scale.scale if self.compute.scaled else 1.0))
        self.scale.update(found_inf)
        self.model.after_step()
        if self.average:
            self.average.update()
        self._count(losses, found_inf)
        self.step += 1

    def progress(self) -> Progress:
        """How far the warm-up, and the whole training, have come."""
        warmup = min(1.0, self.step / self.warmup_steps) if self.warmup_steps else 1.0
        return Progress(warmup, fraction=self.step / self.steps)

    @torch.no_grad()
    def validate(self) -> float:
        """The mean ELBO of the validation split in nats, with the weights that would be kept."""
        with _evaluating(self.model, self.average):
            total = torch.zeros((), dtype=torch.float64, device=self.compute.device)
            count = 0
            for ids, x, y in self.validation.sequential(VALIDATION_ROWS):
                with noise.keyed(VALIDATION_SEED, ids):
                    total += self.model.terms(x, y).elbo.double().sum()
                count += len(ids)
            return (total / count).item()

    def result(self) -> Result:
        epochs = self.step // self.steps_per_epoch if self.steps_per_epoch else 0
        images = self.step * self.config.batch_size
        return Result(
            steps=self.step,
            epochs=epochs,
            best_epoch=self.best_epoch,
            skipped_updates=sum(int(group.skipped.item()) for group in self.groups.values()),
            seconds=self.seconds,
            images_per_second=images / self.seconds if self.seconds else 0.0,
            peak_memory_bytes=max(self.peak, peak_memory(self.compute.device)),
            stopped_early=self.stopped_early,
            curves=self.curves,
        )

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write everything that the rest of the run depends on."""
        if self.folder is None:
            return
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for name, group in self.groups.items():
            for index, slots in group.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{name}/{index}/{slot}": value for slot, value in slots.items()}
            tensors[f"skipped/{name}"] = group.skipped
        if self.average:
            tensors |= {f"average/{name}": value for name, value in self.average.tensors.items()}
        if self.best:
            tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {"totals": self.totals, "in_a_row": self.in_a_row}
        tensors |= {"scale": self.scale.scale, "good": self.scale.good, "rng/cpu": torch.get_rng_state()}
        if self.compute.device.type == "cuda":
            tensors["rng/cuda"] = torch.cuda.get_rng_state(self.compute.device)
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "peak": max(self.peak, peak_memory(self.compute.device)),
            "curves": self.curves,
            "best_elbo": self.best_elbo,
            "best_epoch": self.best_epoch,
            "waited": self.waited,
            "stopped_early": self.stopped_early,
            "averaged": self.average.updates if self.average else 0,
        }
        checkpoint.write_step(self.folder, self.step, tensors, state)

    def resume(self) -> bool:
        """Take up the newest readable checkpoint of the folder; false if there is none."""
        found = checkpoint.latest(self.folder) if self.folder else None
        if found is None:
            return False
        tensors, state, _ = found
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            head, _, rest = name.partition("/")
            parts.setdefault(head, {})[rest] = value
        self.model.load_state_dict(parts["model"])
        for name, group in self.groups.items():
            _load_optimizer(group, parts.get("optimizer", {}), name)
            group.skipped.copy_(parts["skipped"][name])
        if self.average:
            self.average.load(parts["average"])
            self.average.updates = state["averaged"]
        if "best" in parts:
            self.best = {name: value.to(self.compute.device) for name, value in parts["best"].items()}
        self.totals.copy_(tensors["totals"])
        self.in_a_row.copy_(tensors["in_a_row"])
        self.scale.scale.copy_(tensors["scale"])
        self.scale.good.copy_(tensors["good"])
        self.step, self.seconds, self.peak = state["step"], state["seconds"], state["peak"]
        self.curves, self.waited = state["curves"], state["waited"]
        self.best_elbo, self.best_epoch = state["best_elbo"], state["best_epoch"]
        self.stopped_early = state["stopped_early"]
        # Last: whatever was drawn while building the model must not count.
        torch.set_rng_state(tensors["rng/cpu"])
        if "rng/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng/cuda"], self.compute.device)
        return True

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _initialise(self) -> None:
        shown = itertools.islice(self.train.epoch(0), -(-SHOWN_FIRST // self.config.batch_size))
        x, y = zip(*shown, strict=True)
        with torch.no_grad():
            self.model.initialise(torch.cat(x), None if y[0] is None else torch.cat(y))
        if self.average:
            self.average = Average(self.model, self.config.ema)

    def _count(self, losses: Any, found_inf: Tensor) -> None:
        with torch.no_grad():
            terms = losses.terms
            loss = sum(losses.values()).detach()
            rate, distortion = terms.rate.sum(1).mean(), terms.distortion.mean()
            row = torch.stack([loss.float(), -(rate + distortion), rate, distortion, torch.ones_like(rate)])
            # A skipped update's numbers are not finite and would hide the epoch's.
            good = torch.isfinite(row).all() & (found_inf == 0)
            self.totals += torch.where(good, row, torch.zeros_like(row))
            self.in_a_row = torch.where(found_inf > 0, self.in_a_row + 1, torch.zeros_like(self.in_a_row))

    def _means(self) -> dict[str, float]:
        *sums, count = self.totals.tolist()
        return {name: value / count for name, value in zip(LOGGED, sums, strict=True)} if count else {}

    def _pause_if_due(self) -> None:
        stop = self.should_stop()
        if stop or time.monotonic() - self.saved >= self.config.checkpoint_seconds:
            self._check_alive()
            self._lap()
            self.save()
            self._clock = self.saved = time.monotonic()
        if stop:
            raise Stopped("stopped at the user's request; the same command goes on from here.")

    def _lap(self) -> None:
        # Only steps count as training time: not validation, not writing checkpoints.
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now

    def _tell(self) -> None:
        self._lap()
        rate = self.step * self.config.batch_size / max(self.seconds, 1e-9)
        state = {"step": self.step, "steps": self.steps, "images_per_second": rate} | self._means()
        for watcher in self.watchers:
            watcher.step(state)

    def _check_alive(self) -> None:
        if self.in_a_row.item() >= HOPELESS:
            raise Diverged(f"{HOPELESS} updates in a row had no finite gradient (step {self.step}).")

    def _end_epoch(self, epoch: int) -> None:
        self._check_alive()
        means = self._means()  # waits for the device, so that the lap is the true one
        self._lap()
        if not means:
            raise Diverged(f"no update of epoch {epoch + 1} had a finite loss.")
        row = {"epoch": float(epoch + 1)} | {f"train_{name}": value for name, value in means.items()}
        self.totals.zero_()
        last = self.step >= self.steps
        if last or (epoch + 1) % self.config.validate_every == 0:
            elbo = self.validate()
            row["validation_elbo"] = elbo
            warm = self.step >= self.warmup_steps
            keep_last = self.config.keep == "last"
            if elbo > self.best_elbo or self.best is None or keep_last:
                self.best_elbo, self.best_epoch, self.waited = elbo, epoch + 1, 0
                self.best = self._snapshot()
            elif warm:
                # Before the warm-up is over the objective still moves: waiting then says nothing.
                self.waited += 1
                self.stopped_early = self.config.patience is not None and self.waited >= self.config.patience
        self.peak = max(self.peak, peak_memory(self.compute.device))
        for name, value in row.items():
            self.curves.setdefault(name, []).append(value)
        for watcher in self.watchers:
            watcher.epoch(row | {"step": float(self.step)})

    def _finish(self) -> None:
        if self.best is not None:
            self.model.load_state_dict(self.best)
        self.model.recollect(self.train.epoch(self.step // self.steps_per_epoch))
        self.model.eval()

    def _snapshot(self) -> dict[str, Tensor]:
        with _evaluating(self.model, self.average):
            return {name: value.detach().clone() for name, value in self.model.state_dict().items()}


@contextlib.contextmanager
def _evaluating(model: VAE, average: Average | None) -> Iterator[None]:
    model.eval()
    with average.applied() if average else contextlib.nullcontext():
        yield
    model.train()


def _load_optimizer(group: Group, tensors: dict[str, Tensor], name: str) -> None:
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        owner, index, slot = key.split("/")
        if owner == name:
            slots.setdefault(int(index), {})[slot] = value
    for index, parameter in enumerate(group.parameters):
        for slot, value in slots.get(index, {}).items():
            # A file holds tensors in their plain order; a fused optimiser wants the memory layout of the parameter.
            if value.shape == parameter.shape:
                slots[index][slot] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    state = group.optimizer.state_dict()
    group.optimizer.load_state_dict({"state": slots, "param_groups": state["param_groups"]})
