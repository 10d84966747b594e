"""The steps of a `Trainer` as replays of one graph, where device, variant and recipe allow it."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.models.base import moving
from zoo.training.capture import Captured, Recorder, Table, rehearsal
from zoo.training.state import capture, copied, restore

if TYPE_CHECKING:
    from zoo.config import TrainConfig
    from zoo.data.batches import Batches
    from zoo.training.precision import Compute
    from zoo.training.trainer import Trainer


def can_capture(config: TrainConfig, train: Batches, compute: Compute) -> bool:
    """Whether the recipe allows it: whole batches that lie on the device, and no loss scale; on a CPU, which captures
    in tests alone, Adam and nothing compiled.

    Whether the variant does, only a `rehearsal` tells.
    """
    whole = train.resident and train.drop_last and train.world == 1
    whole = whole and (config.micro_batch is None or config.micro_batch >= train.batch_size)
    adam = config.optimizer in ("adam", "adamnormgrad")
    known = compute.device.type == "cuda" or (adam and not compute.compiled)
    return config.capture and whole and known and not compute.scaled


class GraphSteps:
    """Captures the steps of a trainer, one graph a stage. What changes during an epoch is read from a `Table`; random
    numbers are those that the steps draw when they are not captured."""

    def __init__(self, trainer: Trainer, record: Recorder | None = None) -> None:
        self.trainer = trainer
        device = trainer.compute.device
        self.table = Table(trainer.steps_per_epoch, trainer.train.batch_size, 4, 4, device)
        self.record = record
        self.captured: dict[Hashable, Captured] = {}  # of each stage
        self.stages: list[Hashable] = []  # of each step of this epoch
        self.first, self.taken = 0, 0  # steps of this epoch that were counted, and that were taken

    def steps(self, epoch: int, start: int) -> Iterator[None]:
        """Take the steps of an epoch from ``start`` on, one for each item that is asked for. Waits for nothing.

        Raises:
            CannotCapture: before a step that was not taken.
        """
        self._begin(epoch, start)
        trainer = self.trainer
        while self.taken < trainer.steps_per_epoch:
            stage = self.stages[self.taken]
            if stage not in self.captured:
                trainer.count()
                self._rehearse(stage)
                self._begin(epoch, self.taken)
            self.captured[stage]()
            self.taken += 1
            if average := trainer.stepper.average:
                average.updates += 1
            trainer.step += 1
            trainer.count_if_due()
            yield

    def uncounted(self) -> Tensor:
        """(n, 4): loss, rate, distortion, and 1 for a skipped update, of the steps since this was asked last."""
        rows = self.table.results[self.first : self.taken]
        self.first = self.taken
        return rows

    def forget(self) -> None:
        """Drop the graphs: the tensors of the trainer are in another place of memory now."""
        for captured in self.captured.values():
            captured.forget()

    def close(self) -> None:
        """Let go of what was captured now: it holds on to this, and would wait for somebody to collect garbage."""
        self.captured.clear()

    def _begin(self, epoch: int, start: int) -> None:
        trainer, steps = self.trainer, self.trainer.steps_per_epoch
        order = trainer.train.order(epoch)[: steps * trainer.train.batch_size].view(steps, -1)
        average = trainer.stepper.average
        averaged = average.updates - start if average else 0
        schedule, self.stages = [], []
        for place in range(steps):
            progress = trainer.progress(epoch * steps + place)
            weight = average.weight(averaged + place) if average and place >= start else 0.0
            rate = trainer.rate(epoch * steps + place)
            self.stages.append(trainer.model.stage(progress))
            schedule.append([float(progress), progress.fraction, rate, weight])
        self.table.begin(order, schedule, start)
        self.first = self.taken = start

    def _step(self, stage: Hashable) -> None:
        index, numbers = self.table.here()
        warmup, fraction, rate, weight = numbers.unbind(0)
        x, y = self.trainer.train.take(index)
        row, found_inf = self.trainer.stepper.apply(x, y, moving(warmup, fraction, stage), rate, weight)
        self.table.leave(torch.cat([row, found_inf.view(1)]))

    def _rehearse(self, stage: Hashable) -> None:
        # A whole step, taken back: what waits for the device raises here, where nothing is lost by it.
        trainer, device = self.trainer, self.trainer.compute.device
        generators = [trainer.stepper.generator] if trainer.stepper.generator else []
        captured = Captured(functools.partial(self._step, stage), device, generators, self.record)
        before = copied(capture(trainer))
        try:
            # On the stream of the capture: what autograd keeps of a parameter belongs to the stream that made it.
            with captured.on_its_stream():
                if trainer.compute.compiled:
                    self._step(stage)  # the compiler waits for the device as much as it likes
                with rehearsal(device, watched=not trainer.compute.compiled):
                    self._step(stage)
        finally:
            restore(trainer, before)
            self.forget()
        self.captured[stage] = captured
