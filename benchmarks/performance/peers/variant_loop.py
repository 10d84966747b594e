"""Our trainer on a variant of the registry and MNIST, in rounds."""

from __future__ import annotations

import argparse

from benchmarks.performance.peers import rounds
from benchmarks.throughput import trainer_epochs
from zoo.config import resolve
from zoo.runs.images import load_images
from zoo.training.precision import choose


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    endless = ["train.epochs=1048576", "train.checkpoint_seconds=1e9"]
    config = resolve(given.variant, "mnist", settings=["train.compile=false", *given.settings, *endless])
    compute = choose(given.device, config.train.precision)
    images = load_images(config).subset({"train": given.images})
    epoch = trainer_epochs(config, images, compute)
    rounds.serve(lambda: -epoch()["elbo"], given.images, given.device)


if __name__ == "__main__":
    main()
