"""The loop: one for every variant, the same on a CPU and a GPU, and the same after a kill as without one."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from zoo import noise
from zoo.config import TrainConfig
from zoo.data.batches import Batches
from zoo.errors import ZooError
from zoo.likelihoods import Likelihood
from zoo.models.base import VAE, Progress
from zoo.stopping import Stopped
from zoo.training import checkpoint, subnormal, tally
from zoo.training.average import Average
from zoo.training.capture import CannotCapture, Recorder
from zoo.training.choice import Choice, is_another, snapshot, validate
from zoo.training.distributed import ALONE, World
from zoo.training.graph import GraphSteps, can_capture
from zoo.training.memory import peak_memory, reset_peak
from zoo.training.optimise import learning_rate
from zoo.training.precision import Compute
from zoo.training.stages import Course
from zoo.training.state import State, capture, copied, restore
from zoo.training.stepper import Stepper
from zoo.training.tally import LOGGED, UNBOUNDED, Tally

log = logging.getLogger(__name__)
# Examples that data-dependent initialisation is shown, and how many numbers they may have in all.
SHOWN_FIRST, SHOWN_NUMBERS = 4096, 4096 * 3 * 64 * 64
# Steps whose numbers are added up at once.
COUNT_STEPS = 64
# A hopeless run goes back to the last epoch that ended well and on with a lower rate, a few times; a run that still
# fails has diverged.
RETREATS = 3
RETREAT_RATE = 0.25
# Processes of one run agree on a pause only so often: each time costs a word with all of them.
AGREE_STEPS = 16


class Diverged(ZooError):
    """Training met non-finite losses or gradients that it could not leave out."""


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
    retreats: int = 0
    together: int = 1
    captured: bool = False
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
        world: the processes that train this run together; ``train`` and ``validation`` are this one's share.
        record: captures steps where they can be (`can_capture`); None is a CUDA graph, and nothing on a CPU.

    Raises:
        Indivisible: the batch is to be divided, and the variant's loss looks at the batch as a whole.
        UsageError: the losses are to be compiled, and there is no compiler.
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
        world: World = ALONE,
        record: Recorder | None = None,
    ) -> None:
        self.world = world
        self.model, self.train, self.validation = model, train, validation
        model.train_size, model.free_bits = train.n, config.free_bits
        self.config, self.folder = config, folder
        self.watchers, self.should_stop = watchers, should_stop
        captured = bool(record or compute.device.type == "cuda") and can_capture(config, train, compute)
        self.stepper = Stepper(model, config, compute, train.batch_size, world, captured)
        # Its own on a GPU, where other runs may train beside this one; a CPU's is the process's.
        self.draw_from(_like_the_device_s(compute.device) if compute.device.type == "cuda" else None)
        self.steps_per_epoch = len(train)
        self.course = Course.of(config, self.steps_per_epoch)
        self.steps = self.course.steps
        self.step = 0
        self.tally = Tally(compute.device)
        self.retreats = 0
        self.good: State | None = None
        self.good_on_disk = -1
        self.seconds = 0.0
        self.peak = 0
        self._clock = self.saved = time.monotonic()
        self.curves: dict[str, list[float]] = {}
        self.choice = Choice(config)
        self.graph = GraphSteps(self, record) if captured else None
        self.captured = False

    @property
    def compute(self) -> Compute:
        """As it was given, but for what could not be compiled."""
        return self.stepper.compute

    # ---- the run ---------------------------------------------------------------------------------------------------

    def fit(self) -> Result:
        """Train to the end, from the newest checkpoint if the folder has one; leaves the best weights in the model.

        Raises:
            Diverged: too many updates in a row had no finite gradient, and going back did not help.
            Stopped: ``should_stop`` said so.
        """
        for _ in self.run():
            pass
        return self.result()

    def run(self) -> Iterator[None]:
        """`fit`, one step for each item that is asked for: who trains several runs beside each other asks in turn."""
        resumed = self.resume()
        if not resumed:
            self.initialise()
        self.world.agree(self.model)
        if self.steps_per_epoch == 0:
            raise ZooError(f"a batch of {self.config.batch_size} is larger than the training set.")
        reset_peak(self.compute.device)
        self.model.train()
        self.saved = time.monotonic()
        if not resumed:
            self.good = copied(capture(self))
        try:
            while self.step < self.steps and not self.choice.stopped_early:
                try:
                    yield from self._epoch()
                except _Hopeless as reason:
                    self._retreat(str(reason))
        finally:
            self._uncapture()
        self.finish()

    def draw_from(self, generator: torch.Generator | None) -> None:
        """Draw the training's random numbers from ``generator``; those of its initialisation from the process's own
        generators as they are now, even if others draw from them before it starts. None: all from the process's own."""
        self.stepper.generator = self.train.generator = generator
        self.began = _process_state(self.compute.device) if generator else None

    def steps_of(self, epoch: int, start: int = 0) -> Iterator[None]:
        """Take the steps of an epoch from its step ``start`` on, one for each item that is asked for: as replays of a
        graph where they can be captured, which is found out at the first one."""
        if self.graph:
            try:
                for _ in self.graph.steps(epoch, start):
                    self.captured = True
                    yield
                return
            except CannotCapture as reason:
                log.info("steps are not captured: %s", reason)
                self.count()
                start, self.captured = self.graph.taken, False
                self._uncapture()
                restore(self, copied(capture(self)))  # and nothing is left of a step that was half captured
        for x, y in self.train.epoch(epoch, start=start):
            self.update(x, y)
            yield

    def update(self, x: Tensor, y: Tensor | None) -> None:
        """One step on one batch. Waits for nothing."""
        with subnormal.as_zero(self.compute.device):
            row, found_inf = self.stepper.apply(x, y, self.progress(), self.rate(self.step))
        if self.stepper.average:
            self.stepper.average.updates += 1
        self.tally.note(row, found_inf)
        self.step += 1
        self.count_if_due()

    def progress(self, step: int | None = None) -> Progress:
        """How far the warm-up, and the whole training, have come at ``step``; None is the next one."""
        return self.course.progress(self.step if step is None else step)

    def rate(self, step: int) -> float:
        """The learning rate of a step, lowered where the training went back."""
        rate = learning_rate(self.config, step, self.steps)
        return rate * RETREAT_RATE**self.retreats if self.retreats else rate

    def validate(self) -> tuple[float, float]:
        """The means of ELBO and criterion over the validation split (`zoo.training.choice.validate`)."""
        return validate(self.model, self.stepper.average, self.validation, self.config.batch_size, self.world)

    def result(self) -> Result:
        epochs = self.step // self.steps_per_epoch if self.steps_per_epoch else 0
        images = self.step * self.config.batch_size
        return Result(
            steps=self.step,
            epochs=epochs,
            best_epoch=self.choice.best_epoch,
            skipped_updates=int(self.tally.skipped.item()),
            seconds=self.seconds,
            images_per_second=images / self.seconds if self.seconds else 0.0,
            peak_memory_bytes=max(self.peak, peak_memory(self.compute.device)),
            stopped_early=self.choice.stopped_early,
            retreats=self.retreats,
            captured=self.captured,
            curves=self.curves,
        )

    # ---- the parts of a fit, for those who train several runs at once ----------------------------------------------

    def initialise(self) -> None:
        """Show the model the first training images, for parts that start from data (`VAE.initialise`)."""
        if self.began:
            _put_back(self.began, self.compute.device)
        most = max(1, min(SHOWN_FIRST, SHOWN_NUMBERS // self.model.spec.dims))
        shown = itertools.islice(self.train.whole().epoch(0), -(-most // self.config.batch_size))
        x, y = zip(*shown, strict=True)
        with torch.no_grad(), noise.source(self.stepper.generator):
            self.model.initialise(torch.cat(x), None if y[0] is None else torch.cat(y))
            if isinstance(likelihood := getattr(self.model, "likelihood", None), Likelihood):
                likelihood.initialise(torch.cat(x))
        if self.stepper.average:  # which follows the weights from where they start
            self.stepper.average = Average(self.model, self.config.ema)

    def pause_if_due(self) -> None:
        """Write a checkpoint if it is time to; raise `Stopped` if somebody asked for it."""
        if self.world.size > 1 and self.step % AGREE_STEPS:
            return
        due = time.monotonic() - self.saved >= self.config.checkpoint_seconds
        stop, due = self.world.any(self.should_stop(), due, device=self.compute.device)
        if stop or due:
            self._check_alive()
            self._lap()
            # Their mean, from which each process goes on: a step counts the same however many take it.
            self.world.add(self.tally.totals).div_(self.world.size)
            self.save()
            self._clock = self.saved = time.monotonic()
        if stop:
            raise Stopped(f"stopped at the user's request, after step {self.step}.")

    def means(self) -> dict[str, float]:
        """The mean numbers of the epoch's steps so far (`zoo.training.tally`); empty where none counts. Waits for the
        device."""
        self.count()
        return self.tally.means(LOGGED if self.model.bounds else UNBOUNDED)

    def count_if_due(self) -> None:
        """`count` every so many steps."""
        if self.step % COUNT_STEPS == 0:
            self.count()

    def count(self) -> None:
        """Count the steps that were taken since the last time. Waits for nothing."""
        if self.tally.waiting:
            self.tally.count()
        elif self.graph and len(taken := self.graph.uncounted()):
            self.tally.add(taken[:, :3], taken[:, 3])

    def end_epoch(self, epoch: int) -> None:
        """What comes after the steps of an epoch: validation, the weights that are kept, curves, watchers."""
        self._check_alive()
        self.world.add(self.tally.totals)
        means = self.means()  # waits for the device, so that the lap is the true one
        self._lap()
        if not means:
            raise _Hopeless(f"no update of epoch {epoch + 1} had a finite loss")
        row = {"epoch": float(epoch + 1)} | {f"train_{name}": value for name, value in means.items()}
        self.tally.totals.zero_()
        last = self.step >= self.steps
        if last or (epoch + 1) % self.config.validate_every == 0:
            elbo, criterion = self.validate()
            # Where there is no bound it is minus the loss, and goes by no other name.
            row |= {"validation_elbo": elbo} if self.model.bounds else {"validation_reconstruction_loss": -elbo}
            row |= {"validation_criterion": criterion} if is_another(self.model) else {}
            # Before the warm-up is over, and in a stage before the last, what is trained is another objective: what was
            # best of that is neither kept nor waited for.
            ends = (self.step, self.choice.best_epoch * self.steps_per_epoch)
            moving = not all(self.course.settled(self.model, step) for step in ends)
            self.choice.consider(criterion, epoch + 1, moving, lambda: snapshot(self.model, self.stepper.average))
        self.peak = max(self.peak, peak_memory(self.compute.device))
        for name, value in row.items():
            self.curves.setdefault(name, []).append(value)
        if all(map(math.isfinite, row.values())) and not self.tally.in_a_row.item():
            self.good = copied(capture(self))
        for watcher in self.watchers:
            watcher.epoch(row | {"step": float(self.step)})
        self._clock = time.monotonic()

    def finish(self) -> None:
        """Leave the weights that are kept in the model, in evaluation mode.

        Raises:
            Diverged: no validation says that they are any good.
        """
        self._uncapture()
        if self.choice.best is not None and not math.isfinite(self.choice.kept):
            raise Diverged("no validation that could be kept had a finite objective.")
        if self.choice.best is not None:
            self.model.load_state_dict(self.choice.best)
        self.model.recollect(self.train.whole(drop_last=False).epoch(self.step // self.steps_per_epoch))
        self.model.eval()

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write everything that the rest of the run depends on."""
        if self.folder is None or not self.world.first:
            return
        if self.good and self.good_on_disk != self.good[1]["step"]:
            checkpoint.write_good(self.folder, self.good[1]["step"], *self.good)
            self.good_on_disk = self.good[1]["step"]
        tensors, values = capture(self)
        if self.good:
            values["good"] = self.good[1]["step"]
        checkpoint.write_step(self.folder, self.step, tensors, values)

    def resume(self) -> bool:
        """Take up the newest readable checkpoint of the folder; false if there is none.

        Raises:
            ZooError: it cannot be read now, or what it holds is not the state of such a run, or the processes of the
                run found different ones.
        """
        found = checkpoint.latest(self.folder) if self.folder else None
        step = found[1].get("step") if found else -1
        at = torch.tensor([step if isinstance(step, int) else -2], device=self.compute.device)
        if (self.world.add(at.clone()) != at * self.world.size).item():
            raise ZooError(f"the processes of this run do not see the same checkpoints in {self.folder}.")
        if found is None:
            return False
        tensors, values = found
        try:
            restore(self, (tensors, values))
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise ZooError(
                f"the checkpoint in {self.folder} is not of this version and configuration ({type(error).__name__}); "
                "remove it to start again."
            ) from None
        if "good" in values:
            try:
                self.good = checkpoint.read_good(self.folder, values["good"])
                self.good_on_disk = values["good"]
            except checkpoint.Unreachable:
                raise
            except ZooError as error:  # then there is nothing to go back to, and nothing else is lost
                log.warning("%s", error)
        return True

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _epoch(self) -> Iterator[None]:
        epoch, start = divmod(self.step, self.steps_per_epoch)
        self._clock = time.monotonic()
        told = self._clock
        for _ in self.steps_of(epoch, start):
            if self.watchers and time.monotonic() - told > 0.5:
                told = time.monotonic()
                self._tell()
            if self.step % self.steps_per_epoch:
                self.pause_if_due()
            yield
        self.end_epoch(epoch)
        if self.step < self.steps and not self.choice.stopped_early:
            self.pause_if_due()

    def _retreat(self, reason: str) -> None:
        # What is gone back to is the end of an epoch and not the newest checkpoint, whose moment the clock decides:
        # a run that was killed must go back to where an undisturbed one does.
        if self.good is None or self.retreats >= RETREATS:
            after = f", after going back {self.retreats} times to a lower learning rate" if self.retreats else ""
            raise Diverged(f"{reason}{after}.")
        self._lap()
        seconds, retreats = self.seconds, self.retreats + 1
        skipped = self.tally.skipped.clone()
        restore(self, self.good)
        if self.graph:
            self.graph.forget()
        self.tally.skipped.copy_(skipped)
        self.seconds, self.retreats = seconds, retreats
        self.save()
        self._clock = self.saved = time.monotonic()

    def _lap(self) -> None:
        # Only steps count as training time: not validation, not writing checkpoints.
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now

    def _tell(self) -> None:
        self._lap()
        rate = self.step * self.config.batch_size / max(self.seconds, 1e-9)
        state = {"step": self.step, "steps": self.steps, "images_per_second": rate} | self.means()
        for watcher in self.watchers:
            watcher.step(state)

    def _check_alive(self) -> None:
        self.count()
        if self.tally.hopeless.item():
            epoch = 1 + (self.step - 1) // self.steps_per_epoch
            raise _Hopeless(f"{tally.HOPELESS} updates in a row had no finite gradient in epoch {epoch}")

    def _uncapture(self) -> None:
        if self.graph:
            self.graph.close()
        self.graph = None


class _Hopeless(Exception):
    pass


def _process_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _put_back(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def _like_the_device_s(device: torch.device) -> torch.Generator:
    return torch.Generator(device).set_state(torch.cuda.get_rng_state(device))
