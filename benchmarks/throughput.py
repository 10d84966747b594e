"""How fast the trainer is beside a bare loop of the same step, in one process: `python -m benchmarks.throughput`.

Both train the same network on the same images with the same batch size, precision and optimiser. The bare loop is what
one would write by hand: index, binarise, forward, backward, fused Adam, and nothing else. They alternate, because two
shared cores drift by a quarter over minutes; the ratio of the medians is the number to quote.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks import environment
from benchmarks.report import terminal
from zoo.config import RunConfig, resolve
from zoo.data.batches import Batches
from zoo.data.images import ImageSet
from zoo.runs import build_model, condition_of, load_images
from zoo.training.precision import Compute, choose
from zoo.training.trainer import Trainer

Loop = Callable[[RunConfig, ImageSet, Compute], float]


def trainer_seconds(config: RunConfig, images: ImageSet, compute: Compute) -> float:
    """Seconds of the trainer's steps over the configured epochs."""
    model = build_model(config, images.spec).to(compute.device)
    validation = _batches(config, images, model, compute, "validation")
    trainer = Trainer(model, _batches(config, images, model, compute, "train"), validation, config.train, compute)
    trainer.validate = lambda: 0.0  # steps are timed here, not validation
    return trainer.fit().seconds


def bare_seconds(config: RunConfig, images: ImageSet, compute: Compute) -> float:
    """Seconds of a hand-written loop over the same steps."""
    model = build_model(config, images.spec).to(compute.device)
    pixels, labels = images["train"].pixels.to(compute.device), images["train"].labels
    labels = labels.to(compute.device) if model.conditional and labels is not None else None
    optimizer = torch.optim.Adam(model.parameters(), lr=config.train.learning_rate, fused=True)
    size, dynamic = config.train.batch_size, images.binarise == "dynamic"
    _wait(compute)
    started = time.perf_counter()
    for _ in range(config.train.epochs):
        order = torch.randperm(len(pixels)).to(compute.device)
        for low in range(0, len(order) - size + 1, size):
            index = order[low : low + size]
            x = pixels[index].float() / 255
            if dynamic:
                x = torch.bernoulli(x)
            with compute.autocast():
                terms = model.terms(x, None if labels is None else labels[index])
                loss = (terms.distortion + terms.rate.sum(1)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    _wait(compute)
    return time.perf_counter() - started


def compare(variant: str, images: int, repeats: int, device: str, settings: list[str]) -> dict[str, float | str | int]:
    """One row: medians of images per second of both, and their ratio (trainer / bare)."""
    config = resolve(variant, "mnist", settings=[*settings, "train.epochs=1"])
    compute = choose(device, config.train.precision)
    data = load_images(config).subset({"train": images})
    steps = len(data["train"]) // config.train.batch_size
    loops: dict[str, Loop] = {"trainer": trainer_seconds, "bare": bare_seconds}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(repeats + 1):
        for name in loops if repeat % 2 else reversed(loops):
            seconds = loops[name](config, data, compute)
            if repeat:  # the first pair warms up
                rates[name].append(steps * config.train.batch_size / seconds)
    trainer, bare = statistics.median(rates["trainer"]), statistics.median(rates["bare"])
    return {
        "variant": variant,
        "device": environment.describe(compute)["device"],
        "precision": compute.name,
        "batch": config.train.batch_size,
        "trainer_images_per_second": round(trainer),
        "bare_images_per_second": round(bare),
        "ratio": round(trainer / bare, 3),
        "repeats": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", default="vae,cvae")
    parser.add_argument("--images", type=int, default=12_800, help="training images of one repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="PATH=VALUE")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = [
        compare(variant, given.images, given.repeats, given.device, given.settings)
        for variant in given.variants.split(",")
    ]
    if given.json:
        print(json.dumps(rows, indent=2))
    else:
        print(terminal.table([list(row.values()) for row in rows], list(rows[0]), width=140))


def _batches(config: RunConfig, images: ImageSet, model: object, compute: Compute, split: str) -> Batches:
    return Batches(
        images[split],
        batch_size=config.train.batch_size,
        device=compute.device,
        binarise_on_the_fly=split == "train" and images.binarise == "dynamic",
        condition=condition_of(model, images.spec),
        shuffle_seed=0,
    )


def _wait(compute: Compute) -> None:
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)


if __name__ == "__main__":
    main()
