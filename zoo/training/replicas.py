"""Several seeds of one variant trained at once, as one stacked model.

The parameters of all replicas lie behind each other in one tensor a layer, `torch.func.vmap` makes one batched matrix
product of their products, and one fused optimiser moves them: a step launches as many kernels as that of one model,
which is what a small network costs on a GPU. On a CPU it does not pay (`docs/performance.md`), there seeds are
processes.

Every replica has its own initialisation, order of the data and noise: those of a run of the same seed alone, whose
result it equals but for the rounding of batched products. What surrounds the steps (validation, the weights that are
kept, early stopping) is each replica's own `Trainer`, whose model looks into the stack.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from zoo import noise
from zoo.config import RunConfig
from zoo.errors import UsageError
from zoo.likelihoods import stacked
from zoo.models.base import VAE
from zoo.training import subnormal
from zoo.training.average import Average
from zoo.training.capture import Captured, Recorder, Table
from zoo.training.optimise import make_optimizer, on_device, set_rate
from zoo.training.precision import CONVOLUTIONS
from zoo.training.trainer import Diverged, Result, Stopped, Trainer

# What replicas may differ in: a sweep of the weight of the rate, the number by which a loss alone differs.
SWEPT = ("beta",)


def common(config: RunConfig) -> dict:
    """What the runs of a stack have in common: the identity of a run but for its seed and what may be swept."""
    return config.model_copy(update={"seed": 0, "model": _fixed(config)}).identity()


def why_not(configs: Sequence[RunConfig], models: Sequence[VAE]) -> str | None:
    """Why these runs cannot be one stack; None if they can."""
    first, kind = configs[0], type(models[0])
    if any(common(config) != common(first) for config in configs):
        return f"they differ in more than the seed and {' or '.join(SWEPT)}"
    if kind.losses is not VAE.losses or kind.parameter_groups is not VAE.parameter_groups:
        return f"{kind.__name__} has losses of its own"
    if kind.after_step is not VAE.after_step or kind.recollect is not VAE.recollect:
        return f"{kind.__name__} has state that no gradient moves"
    wrong = (*CONVOLUTIONS, nn.modules.batchnorm._BatchNorm)
    if any(isinstance(module, wrong) for model in models for module in model.modules()):
        return "stacked convolutions are slower than one model after the other"
    if any(model.drops for model in models):
        return "dropout would draw for all of them from one random generator"
    train = first.train
    if train.optimizer != "adam" or train.micro_batch is not None or train.compile is True:
        return "only Adam on whole batches, not compiled, is stacked"
    return None


class Replicas:
    """Trains the models of several trainers in lockstep.

    Args:
        trainers: one for each replica, of the same configuration but for the seed and what may be swept, without
            folders: a stack that is stopped begins again.
        generators: the state of the random generator at the start of each replica's training, its device's.
        record: captures steps; None is a CUDA graph, and nothing on a CPU.

    Raises:
        UsageError: there is nothing to train, or the batch is divided, or losses are scaled (fp16).
    """

    def __init__(
        self, trainers: Sequence[Trainer], generators: Sequence[Tensor], record: Recorder | None = None
    ) -> None:
        if not trainers:
            raise UsageError("no replicas to train.")
        first = trainers[0]
        if first.stepper.divided or first.compute.scaled:
            raise UsageError("replicas train on whole batches, in float32 or bf16.")
        if not first.train.resident:
            raise UsageError("replicas train on pictures that fit onto the device.")
        self.trainers = list(trainers)
        self.device, self.config, self.compute = first.compute.device, first.config, first.compute
        self.generators = [torch.Generator(self.device).set_state(state) for state in generators]
        self.model = first.model.train()
        self.draws: list[noise.Draw] | None = None
        self.parameters = _stacked([trainer.model for trainer in trainers], nn.Module.named_parameters)
        for name, value in self.parameters.items():
            if value.dim() == 3:  # its gradient comes transposed, and is no copy where it lies so too
                self.parameters[name] = value.transpose(1, 2).contiguous().transpose(1, 2)
        self.buffers = _stacked([trainer.model for trainer in trainers], nn.Module.named_buffers)
        for index, trainer in enumerate(trainers):
            for name, parameter in trainer.model.named_parameters():
                parameter.data = self.parameters[name].data[index]
            if trainer.stepper.average:  # it follows the tensors that it was made with
                trainer.stepper.average = Average(trainer.model, self.config.ema)
        self.leaves = [nn.Parameter(value) for value in self.parameters.values()]
        for name, leaf in zip(self.parameters, self.leaves, strict=True):
            self.parameters[name] = leaf
        more = on_device(self.leaves, self.config) if record or self.device.type == "cuda" else {}
        self.optimizer = make_optimizer(self.leaves, self.config, **more)
        # A step is told its learning rate, what counts in the average, and each replica's weight of the rate.
        batch, replicas = first.train.batch_size, len(trainers)
        self.table = Table(first.steps_per_epoch, replicas * batch, 2 + replicas, 4 * replicas, self.device)
        self.step = Captured(self._step, self.device, self.generators, record)

    def fit(self, should_stop: Callable[[], bool] = lambda: False) -> list[Result | Diverged]:
        """Train all to the end and leave the weights that each keeps in its model.

        A replica that met a number that is not finite is given back as `Diverged`: alone it would have skipped the
        update or gone back, which a stack cannot do for one of its replicas. So is one whose validation was never
        finite, as it is alone.

        Raises:
            Stopped: ``should_stop`` said so after a step. Nothing is kept.
        """
        seconds = 0.0
        lost: dict[int, Diverged] = {}
        first = self.trainers[0]
        for epoch in range(self.config.epochs):
            began = time.monotonic()
            self._epoch(epoch, should_stop)
            first.means()  # waits for the device
            seconds += time.monotonic() - began
            for index, trainer in enumerate(self.trainers):
                if index in lost or trainer.choice.stopped_early:
                    continue
                means, tally = trainer.means(), trainer.tally
                if not means or tally.in_a_row.item() or tally.totals[-1].item() < first.steps_per_epoch:
                    lost[index] = Diverged(f"a number of replica {index} was not finite in epoch {epoch + 1}.")
                    continue
                trainer.seconds, trainer._clock = seconds, time.monotonic()
                trainer.end_epoch(epoch)
            if all(index in lost or trainer.choice.stopped_early for index, trainer in enumerate(self.trainers)):
                break
        results: list[Result | Diverged] = []
        for index, trainer in enumerate(self.trainers):
            if index in lost:
                results.append(lost[index])
                continue
            try:
                trainer.finish()
            except Diverged as reason:
                results.append(reason)
                continue
            results.append(dataclasses.replace(trainer.result(), together=len(self.trainers)))
        return results

    def _epoch(self, epoch: int, should_stop: Callable[[], bool]) -> None:
        for _ in self.steps_of(epoch):
            if should_stop():
                raise Stopped("stopped at the user's request; seeds that train at once begin again.")
        rows = self.table.results.view(-1, len(self.trainers), 4)
        for index, trainer in enumerate(self.trainers):
            if not trainer.choice.stopped_early:
                trainer.tally.add(rows[:, index, :3], rows[:, index, 3])
                trainer.step += len(rows)

    def steps_of(self, epoch: int) -> Iterator[None]:
        """Take the steps of an epoch, all replicas at once, one for each item that is asked for. Waits for nothing."""
        if self.draws is None:
            self._listen(epoch)
        steps, batch = self.trainers[0].steps_per_epoch, self.trainers[0].train.batch_size
        orders = [trainer.train.order(epoch)[: steps * batch].view(steps, batch) for trainer in self.trainers]
        self.table.begin(torch.cat(orders, 1), [self._numbers(epoch * steps + place) for place in range(steps)], 0)
        for _ in range(steps):
            with subnormal.as_zero(self.device):
                self.step()
            yield

    def _numbers(self, step: int) -> list[float]:
        first = self.trainers[0]
        averaged = first.stepper.average.weight(step) if first.stepper.average else 0.0
        weights = [float(trainer.model.rate_weight(trainer.progress(step))) for trainer in self.trainers]
        return [first.rate(step), averaged, *weights]

    def _listen(self, epoch: int) -> None:
        # What a run alone draws in a step after its batch's bits, in its order.
        trainer, before = self.trainers[0], torch.get_rng_state()
        x, y = next(trainer.train.epoch(epoch))
        with noise.listen() as self.draws, torch.no_grad(), self.compute.autocast():
            trainer.model.terms(x, y)
        torch.set_rng_state(before)

    def _step(self) -> None:
        """One update of all replicas. Leaves (R, 4) in the table: loss, rate, distortion, and 1 where a gradient is not
        finite."""
        index, numbers = self.table.here()
        rate, averaged, weight = numbers[0], numbers[1], numbers[2:]
        x, y = self.trainers[0].train.take(index.view(len(self.trainers), -1), self.generators)
        draws = tuple(draw.again(self.generators) for draw in self.draws)
        set_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        with self.compute.autocast(), stacked():
            distortion, kl, charged = vmap(self._terms, in_dims=(0, 0, 0, None if y is None else 0, 0))(
                self.parameters, self.buffers, x, y, draws
            )
        loss = (distortion + weight.unsqueeze(1) * charged).mean(1)
        loss.sum().backward()
        with torch.no_grad():
            gradients = [leaf.grad for leaf in self.leaves if leaf.grad is not None]
            norms = torch._foreach_norm([part for gradient in gradients for part in gradient.unbind(0)])
            norm = torch.stack(norms).view(len(gradients), -1).norm(dim=0)
            if self.config.clip is not None:
                factor = (self.config.clip / (norm + 1e-6)).clamp(max=1.0)
                for gradient in gradients:
                    gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
            self.optimizer.step()
            for trainer in self.trainers:
                if trainer.stepper.average:
                    trainer.stepper.average.blend(averaged)
            bad = (norm - norm).ne_(0)
            self.table.leave(torch.stack([loss.float(), kl.mean(1), distortion.mean(1), bad], 1).flatten())

    def _terms(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor | None, draws: tuple
    ) -> tuple[Tensor, Tensor, Tensor]:
        with noise.given(draws):
            terms = functional_call(_Terms(self.model), _named(parameters | buffers), (x, y))
        return terms


class _Terms(nn.Module):
    """What `VAE.losses` adds up as the forward of a module, which is what `functional_call` calls."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        terms = self.model.terms(x, y)
        return terms.distortion, terms.rate.sum(1), self.model.charged(terms)


def _stacked(models: list[VAE], named: Callable) -> dict[str, Tensor]:
    parts = [dict(named(model)) for model in models]
    return {name: torch.stack([part[name].detach() for part in parts]) for name in parts[0]}


def _named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": value for name, value in tensors.items()}


def _fixed(config: RunConfig) -> dict:
    return {name: value for name, value in config.model.items() if name not in SWEPT}
