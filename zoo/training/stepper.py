"""What one step of a training does on the device: gradients, of a batch as a whole or in parts, and the update."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from zoo import noise
from zoo.config import TrainConfig
from zoo.errors import UsageError
from zoo.models.base import VAE, Losses, Progress
from zoo.training.average import Average
from zoo.training.compiled import Compiled, has_compiler
from zoo.training.distributed import World
from zoo.training.optimise import Group, LossScale, backward
from zoo.training.precision import Compute

log = logging.getLogger(__name__)


class Indivisible(UsageError):
    """A batch is to be computed in parts, and the variant's objective looks at it as a whole."""


class Stepper:
    """Takes the steps of one model.

    Args:
        batch_size: examples that a step is given.
        captured: the optimisers keep their numbers on the device.

    Attributes:
        compute: as given, but for what could not be compiled.
        generator: what a step's noise is drawn from; None is the process's own.
        average: of the weights, None where none is kept.

    Raises:
        Indivisible: the batch is to be divided, and the variant's loss looks at the batch as a whole.
        UsageError: the losses are to be compiled, and there is no compiler.
    """

    def __init__(
        self, model: VAE, config: TrainConfig, compute: Compute, batch_size: int, world: World, captured: bool
    ) -> None:
        self.model, self.compute, self.world = model, compute, world
        self.generator: torch.Generator | None = None
        self.groups = {
            name: Group(name, parameters, config, captured) for name, parameters in model.parameter_groups().items()
        }
        self.average = Average(model, config.ema) if config.ema else None
        # What a forward pass moves, and an update that is skipped has to leave as it was.
        self.statistics = [
            value for module in model.modules() if isinstance(module, _BatchNorm)
            for value in (module.running_mean, module.running_var) if value is not None
        ]  # fmt: skip
        self.scale = LossScale(compute.scaled, compute.device)
        self.micro_batch = min(config.micro_batch or batch_size, batch_size)
        self.divided = self.micro_batch < batch_size or world.size > 1
        if self.divided and model.couples_batch:
            name = type(model).__name__ + ("" if model.free_bits is None else " with train.free_bits")
            raise Indivisible(f"{name} needs each batch as a whole, and cannot be trained on parts of one.")
        self.forward: Callable[..., tuple[dict[str, Tensor], Tensor]] = functools.partial(_measured, model)
        self.compiled: Compiled | None = None
        if compute.compiled:
            give_up = self._not_compiled if config.compile == "auto" else None
            if compute.device.type == "cuda" or has_compiler():
                self.compiled = Compiled(_measured, give_up)
                self.forward = functools.partial(self.compiled, model)
            elif give_up:
                give_up("there is no C++ compiler any more")
            else:
                raise UsageError("a compiled training needs a C++ compiler (g++ or clang++), and there is none.")

    def apply(
        self,
        x: Tensor,
        y: Tensor | None,
        progress: Progress | Tensor,
        rate: float | Tensor,
        averaged: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One step on one batch, in the learning rate ``rate``. Waits for nothing.

        Args:
            averaged: what the live weights count for in their average, 0-dim; None is what comes next.

        Returns:
            (3,) loss, rate and distortion, and 0-dim: how many groups' updates were skipped.
        """
        scale = self.scale.scale if self.compute.scaled else 1.0
        before = [value.clone() for value in self.statistics]
        find = functools.partial(self._gradients, x, y, progress, scale)
        names, row = self.compiled.attempt(self.model, progress, find) if self.compiled else find()
        skipped = []
        for name in names:
            group = self.groups[name]
            group.set_rate(rate)
            if self.world.size > 1:
                self.world.average(value.grad for value in group.parameters if value.grad is not None)
            skipped.append(group.step(scale))
        found_inf = skipped[0] if len(skipped) == 1 else torch.stack(skipped).sum()
        self.scale.update(found_inf)
        for value, old in zip(self.statistics, before, strict=True):
            value.copy_(torch.where(found_inf > 0, old, value))
        self.model.after_step()
        if self.average:
            self.average.blend(self.average.weight(self.average.updates) if averaged is None else averaged)
        return row, found_inf

    def _gradients(
        self, x: Tensor, y: Tensor | None, progress: Progress | Tensor, scale: float | Tensor
    ) -> tuple[list[str], Tensor]:
        # The groups that have a gradient now, and `_row`.
        if self.divided:
            return self._in_parts(x, y, progress, scale)
        if self.compute.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with noise.source(self.generator), self.compute.autocast():
            losses, row = self.forward(x, y, progress)
        backward(losses, self.groups, scale)
        return list(losses), row

    def _in_parts(
        self, x: Tensor, y: Tensor | None, progress: Progress | Tensor, scale: float | Tensor
    ) -> tuple[list[str], Tensor]:
        # The same gradient as of the whole batch at once, but for rounding: every part has the noise of its rows.
        names: list[str] = []
        tape: list[Tensor] = []
        row = torch.zeros(3, device=self.compute.device)
        first = self.world.rank * len(x)
        for low in range(0, len(x), self.micro_batch):
            high = min(low + self.micro_batch, len(x))
            rows = slice(low, high)
            share = (high - low) / len(x)
            with (
                noise.part_of(len(x) * self.world.size, first + low, first + high, tape),
                noise.source(self.generator),
                self.compute.autocast(),
            ):
                losses, part = self.forward(x[rows], None if y is None else y[rows], progress)
            backward(losses, self.groups, scale * share, add=low > 0)
            names = list(losses)
            row += share * part
        return names, row

    def _not_compiled(self, reason: str) -> None:
        log.info("%s: the losses are trained as they are", reason)
        self.compute = replace(self.compute, compiled=False)
        self.compiled, self.forward = None, functools.partial(_measured, self.model)


def _measured(
    model: VAE, x: Tensor, y: Tensor | None, progress: Progress | Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    # The losses of the groups, and `_row`: one function, so that it is compiled as one.
    losses = model.losses(x, y, progress)
    return dict(losses), _row(losses)


@torch.no_grad()
def _row(losses: Losses) -> Tensor:
    # Loss, rate, distortion: as few operations as will do, each costs a small network a thousandth of its step.
    loss = next(iter(losses.values())) if len(losses) == 1 else sum(losses.values())
    rate, distortion = losses.terms.rate.sum(1).mean(), losses.terms.distortion.mean()
    return torch.stack([loss.float(), rate, distortion])
