"""What a training minimises when: its warm-up, and the stages of a variant that trains one part after another."""

from __future__ import annotations

import itertools

from zoo.config import RunConfig, TrainConfig
from zoo.errors import UsageError
from zoo.models.base import VAE, Progress


def progress_at(step: int, warmup: float, steps: int) -> Progress:
    """How far a warm-up of so many steps, and a training of ``steps``, have come at a step."""
    return Progress(min(1.0, step / warmup) if warmup else 1.0, fraction=step / steps)


def settled(model: VAE, step: int, warmup: float, steps: int) -> bool:
    """Whether what was trained in the last of ``step`` steps is what is trained at the end: the warm-up is over, and
    the stage is the last one."""
    at, end = (model.stage(progress_at(place, warmup, steps)) for place in (max(step, 1) - 1, steps - 1))
    return step > 0 and step >= warmup and at == end


def check_stages(config: RunConfig, model: VAE, images: int) -> None:
    """Raise `UsageError` where a training on so many images would leave a part of the model as it began."""
    if left := _untrained(model, config.train, images):
        names, train = " and ".join(f"'{name}'" for name in sorted(left)), config.train
        raise UsageError(
            f"no step of this training would move {names} of {config.variant}: its stages need another train.warmup "
            f"({train.warmup:g}) or train.epochs ({train.epochs})."
        )


def _untrained(model: VAE, config: TrainConfig, images: int) -> set[str]:
    # The parameter groups that no step would move.
    epoch = images // config.batch_size
    steps, left = config.epochs * epoch, set(model.parameter_groups())
    # The last step first: nearly always the first and the last one are enough.
    for step in itertools.chain(range(min(1, steps)), range(steps - 1, 0, -1)):
        left -= set(model.trained_in(model.stage(progress_at(step, config.warmup * epoch, steps))))
        if not left:
            break
    return left if steps else set()
