"""Our trainer on pythae's networks, in rounds."""

from __future__ import annotations

import itertools
import math

import torch

from benchmarks.performance.peers import networks, rounds
from benchmarks.throughput import steps_of
from zoo.config import TrainConfig
from zoo.data.batches import Batches
from zoo.data.images import Images
from zoo.training.precision import choose
from zoo.training.trainer import Trainer


def main() -> None:
    given = rounds.arguments()
    torch.manual_seed(0)
    model = networks.build(given.network)
    config = TrainConfig(
        epochs=1 << 20,
        batch_size=given.batch,
        learning_rate=rounds.LEARNING_RATE,
        compile=given.compile == "yes",
        checkpoint_seconds=1e9,
    )
    images = Images(rounds.pictures(given))
    compute = choose(given.device, given.precision).for_run(model, config, len(images))
    batches = Batches(images, batch_size=given.batch, device=compute.device, shuffle_seed=0)
    trainer = Trainer(compute.place(model), batches, batches, config, compute)
    trainer.model.train()
    epochs = itertools.count()
    # pythae's loss has no constant of the Gaussian.
    constant = 0.5 * networks.SPEC.dims * math.log(2 * math.pi)
    rounds.serve(lambda: -steps_of(trainer, next(epochs))["elbo"] - constant, len(images), given.device)


if __name__ == "__main__":
    main()
