"""What a training minimises when: its warm-up, and the stages of a variant that trains one part after another."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch

from zoo.config import RunConfig, TrainConfig
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models import build
from zoo.models.base import VAE, Progress
from zoo.nets.backbone import unfetched
from zoo.registry import registry

ANY_SHAPE = (3, 64, 64)  # of images that have none until they are loaded: no stage goes by it
MOMENTS = 100  # at which a training that may have any number of steps is asked for its stage


@dataclass(frozen=True)
class Course:
    """How long a training is: ``steps`` in all, and ``warmup`` of them over which the weight of the rate rises, in each
    of ``cycles`` anew (Fu et al. 2019, https://arxiv.org/abs/1903.10145), which need not be whole steps long."""

    steps: int
    warmup: float = 0.0
    cycles: int = 1

    @classmethod
    def of(cls, config: TrainConfig, epoch: int) -> Course:
        """That of a recipe, where an epoch has so many steps."""
        steps, cycles = config.epochs * epoch, config.cycles or 1
        half = config.cycles and not config.warmup
        return cls(steps, steps / (2 * cycles) if half else config.warmup * epoch, cycles)

    def progress(self, step: float) -> Progress:
        """How far the warm-up, and the whole training, have come at a step."""
        steps, cycles = self.steps, self.cycles
        since = step * cycles % steps / cycles if step < steps else steps / cycles
        return Progress(min(1.0, since / self.warmup) if self.warmup else 1.0, fraction=step / steps)

    def settled(self, model: VAE, step: int) -> bool:
        """Whether what was trained in the last of ``step`` steps is what is trained from there to the end: the last
        warm-up is over, and the stage is the last one."""
        at, end = (model.stage(self.progress(place)) for place in (max(step, 1) - 1, self.steps - 1))
        over = step * self.cycles >= self.steps * (self.cycles - 1) + self.warmup * self.cycles
        return step > 0 and over and at == end


def check_ahead(config: RunConfig) -> None:
    """As `check_recipe`, as far as the settings tell before any data are loaded. What is wrong with the variant itself
    is left to whoever trains it."""
    data = registry().dataset(config.data.name)[1]
    spec = DataSpec(data.shape or ANY_SHAPE, data.support, data.classes, data.attributes)
    try:
        entry = registry().variant(config.variant)[1]
        kind, plain = entry.load(), (VAE.stage, VAE.trained_in)
        if config.train.free_bits is None and config.train.cycles is None and (kind.stage, kind.trained_in) == plain:
            return  # and no model is built for nothing
        # On the meta device it would take no memory, and PyTorch seconds to load what that needs.
        with unfetched(), torch.random.fork_rng(devices=[]):
            model = build(entry, spec.prepared(config.data.binarise, config.data.dequantise), config.model)
    except (Exception, SystemExit):
        return
    check_recipe(config, model, None)


def check_recipe(config: RunConfig, model: VAE, images: int | None) -> None:
    """Raise `UsageError` where a training on so many images would leave a part of the model as it began, or go back to
    a stage that was over, or have a cycle in which the weight of the rate never comes to 1, or where its losses know no
    free bits, or no weight that rises, and are to have them. None is a number that nobody knows yet: what is refused is
    wrong with any."""
    if config.train.free_bits is not None and not model.frees_bits:
        how = f", {model.charges_by}" if model.charges_by else ""
        said = f"{config.variant} charges for its rate in a way of its own{how}"
        raise UsageError(f"{said}: it knows no train.free_bits.")
    # A suite gives all of its variants one warm-up, and is not asked why.
    if config.train.cycles is not None and not model.warms_up:
        raise UsageError(f"{config.variant} has no weight here that rises over a warm-up: it knows no train.cycles.")
    starts, over = (model.stage(Progress(warmup, fraction=1.0)) for warmup in (0.0, 1.0))
    if (config.train.cycles or 1) > 1 and starts != over:
        said = f"the warm-up of {config.variant} parts two stages"
        raise UsageError(f"{said}, and train.cycles={config.train.cycles} would go back to the first one.")
    left = _never_trained(model, config.train)
    if images is not None:
        epoch = images // config.train.batch_size
        _check_cycles(config.train, epoch)
        left = left or _untrained(model, config.train, epoch)
    if left:
        names, train = " and ".join(f"'{name}'" for name in sorted(left)), config.train
        raise UsageError(
            f"no step of this training would move {names} of {config.variant}: its stages need another train.warmup "
            f"({train.warmup:g}) or train.epochs ({train.epochs})."
        )


def _check_cycles(config: TrainConfig, epoch: int) -> None:
    # A cycle of L steps has one that is at least L - 1 steps into it, and need not have a later one.
    course = Course.of(config, epoch)
    if config.cycles and course.steps and course.warmup + 1 > (length := course.steps / course.cycles):
        said = f"each of train.cycles={course.cycles} would have {length:.3g} steps"
        raise UsageError(f"{said}, and the weight of the rate rises over {course.warmup:.3g}: it would not come to 1.")


def _untrained(model: VAE, config: TrainConfig, epoch: int) -> set[str]:
    # The parameter groups that no step would move.
    course, left = Course.of(config, epoch), set(model.parameter_groups())
    # The last step first: nearly always the first and the last one are enough.
    for step in itertools.chain(range(min(1, course.steps)), range(course.steps - 1, 0, -1)):
        left -= set(model.trained_in(model.stage(course.progress(step))))
        if not left:
            break
    return left if course.steps else set()


def _never_trained(model: VAE, config: TrainConfig) -> set[str]:
    # The parameter groups that no step would move, however many steps an epoch has: the last one comes near the end.
    if not config.epochs:
        return set()
    course = Course.of(config, 1)
    moments = (*(config.epochs * i / MOMENTS for i in range(MOMENTS)), math.nextafter(config.epochs, 0))
    stages = {model.stage(course.progress(at)) for at in moments}
    # Of several stages there may be one more between two moments.
    return set(model.parameter_groups()).difference(*map(model.trained_in, stages)) if len(stages) == 1 else set()
