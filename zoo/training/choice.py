"""Which weights a training keeps, and when it has waited long enough for better ones."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from zoo import noise
from zoo.config import TrainConfig
from zoo.data.batches import Batches
from zoo.models.base import VAE
from zoo.training.average import Average
from zoo.training.distributed import World

VALIDATION_ROWS = 1024
VALIDATION_SEED = 1
CRITERION_SEED = 2  # of what `VAE.criterion` draws beside it
Weights = dict[str, Tensor]


class Choice:
    """What the validations so far come to.

    Attributes:
        best, kept, best_epoch: the weights that are kept, their criterion, and the epoch that they are of.
        highest, waited: what patience compares with, whatever is kept, and how many validations were not above it.
        stopped_early: whether that was as often as it may be.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.keep, self.patience = config.keep, config.patience
        self.best: Weights | None = None
        self.kept, self.best_epoch = -float("inf"), 0
        self.highest, self.waited = -float("inf"), 0
        self.stopped_early = False

    def consider(self, criterion: float, epoch: int, moving: bool, weights: Callable[[], Weights]) -> None:
        """A validation after ``epoch`` epochs came to ``criterion``. ``moving``: what is trained is not yet what it is
        at the end, or was not when the best weights were kept, so that those are neither kept nor waited for."""
        better = self.best is None or math.isnan(self.highest) or criterion > self.highest
        better = better or (moving and math.isfinite(criterion))
        if better or self.keep == "last":
            self.kept, self.best_epoch = criterion, epoch
            self.best = weights()
        self.highest = criterion if better else self.highest
        self.waited = 0 if better or moving else self.waited + 1
        self.stopped_early = self.patience is not None and self.waited >= self.patience


@torch.no_grad()
def validate(
    model: VAE, average: Average | None, batches: Batches, batch_size: int, world: World
) -> tuple[float, float]:
    """Two means over ``batches``, with the weights that would be kept: of the ELBO in nats (of a model that bounds
    nothing minus the reconstruction loss), and of what is kept and waited for, `VAE.criterion`."""
    # What is of a whole batch is of one as in training; of many samples an example there is room for fewer.
    rows = batch_size if model.couples_losses else max(1, VALIDATION_ROWS // model.drawn)
    with evaluating(model, average):
        sums = torch.zeros(3, dtype=torch.float64, device=batches.device)
        for ids, x, y in batches.sequential(rows):
            with noise.keyed(VALIDATION_SEED, ids):
                terms = model.terms(x, y)
            with noise.keyed(CRITERION_SEED, ids, range(model.drawn)):
                criterion = model.criterion(x, y, terms)
            found = torch.stack([terms.elbo.double().sum(), criterion.double().sum()])
            sums += torch.cat([found, found.new_full((1,), len(ids))])
        elbo, criterion, count = world.add(sums).tolist()
        return elbo / count, criterion / count


def is_another(model: VAE) -> bool:
    """Whether what is kept and waited for is another number than the ELBO."""
    own = type(model).criterion is not VAE.criterion or model.free_bits is not None
    return own or float(model.rate_weight(1.0)) != 1.0


def snapshot(model: VAE, average: Average | None) -> Weights:
    """A copy of the weights that a validation looks at."""
    with evaluating(model, average):
        return {name: value.detach().clone() for name, value in model.state_dict().items()}


@contextlib.contextmanager
def evaluating(model: VAE, average: Average | None) -> Iterator[None]:
    """The model in evaluation mode, with its averaged weights where there are any, and in training mode afterwards."""
    model.eval()
    with average.applied() if average else contextlib.nullcontext():
        yield
    model.train()
