"""How fast the trainer is beside a bare loop of the same step, and beside pythae: `python -m benchmarks.throughput`.

Everybody trains the same network on the same images of MNIST with the same batch size. The bare loop is what one would
write by hand: index, binarise, forward, backward, fused Adam, and nothing else; it runs in one process with the
trainer. pythae runs in an environment of its own (`benchmarks.performance.peers`), each of our ways beside it in
another process. All of them alternate, because two shared cores drift by a quarter over minutes: the median of the
ratios of the repeats is the number to quote, and no images per second. Everybody trains on from repeat to repeat, the
first `--warm` of which do not count: a run that has trained for a while is slower on a CPU (`zoo.training.subnormal`).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from benchmarks import environment
from benchmarks.performance.peers.contest import against_malloc, against_pythae, ratio
from benchmarks.report import terminal
from zoo.config import RunConfig, resolve
from zoo.data.companions import NUMBERS, joined
from zoo.data.images import ImageSet
from zoo.nets import products
from zoo.runs import build_model, make_trainer
from zoo.runs.images import condition_of, load_images
from zoo.training import subnormal
from zoo.training.precision import Compute, choose
from zoo.training.trainer import Trainer

Clock = Callable[[], float]
Epoch = Callable[[], Any]


def steps_of(trainer: Trainer, epoch: int) -> dict[str, float]:
    """One epoch of the trainer as `Trainer.fit` runs it, without the validation that follows; its mean numbers."""
    for _ in trainer.steps_of(epoch):
        trainer.pause_if_due()
    means = trainer.means()
    trainer.tally.totals.zero_()
    return means


def trainer_epochs(config: RunConfig, images: ImageSet, compute: Compute) -> Epoch:
    """The trainer's steps, an epoch more at each call."""
    model = build_model(config, images.spec).train()
    compute = compute.for_run(model, config.train, len(images["train"]))
    trainer = make_trainer(config, compute.place(model), images, compute)
    epochs = itertools.count()
    return lambda: steps_of(trainer, next(epochs))


def bare_epochs(config: RunConfig, images: ImageSet, compute: Compute, captured: bool = False) -> Epoch:
    """A hand-written loop over the same steps; ``captured`` has its update as one CUDA graph."""
    model = build_model(config, images.spec).to(compute.device)
    pixels, labels = images["train"].pixels.to(compute.device), images["train"].labels
    labels = labels.to(compute.device) if condition_of(model, images.spec) == "class" else None
    partners = model.companions(images["train"])
    partners = partners.to(compute.device) if partners else None
    optimizer = torch.optim.Adam(model.parameters(), lr=config.train.learning_rate, fused=True, capturable=captured)
    size, dynamic = config.train.batch_size, images.binarise == "dynamic"
    noisy = images.dequantise == "uniform"

    def shown(index: torch.Tensor) -> torch.Tensor:
        x = pixels[index].float()
        x = (x + torch.rand_like(x)) / 256 if noisy else x / 255
        return (torch.rand_like(x) < x).float() if dynamic else x  # a third of what torch.bernoulli takes on a CPU

    def told(index: torch.Tensor) -> torch.Tensor | None:
        if partners:
            numbers = torch.randint(NUMBERS, (len(index), 2), device=compute.device)
            return joined(shown(partners.of(index, numbers)), partners.told(numbers))
        return None if labels is None else labels[index]

    def update(x: torch.Tensor, y: torch.Tensor | None) -> None:
        with compute.autocast():
            loss = sum(model.losses(x, y).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    if captured:
        first = torch.arange(size, device=compute.device)
        update = _as_graph(update, shown(first), told(first))

    @subnormal.as_zero(compute.device)
    def epoch() -> None:
        order = torch.randperm(len(pixels)).to(compute.device)
        for low in range(0, len(order) - size + 1, size):
            index = order[low : low + size]
            update(shown(index), told(index))

    return epoch


def _with_subnormals(epoch: Epoch) -> Epoch:
    # As the trainer would be without `zoo.training.subnormal`; of its own thread alone, others keep how they started.
    def slower() -> None:
        with mock.patch.object(subnormal, "as_zero", lambda device: contextlib.nullcontext()):
            epoch()

    return slower


def _as_graph(update: Callable[..., None], x: torch.Tensor, y: torch.Tensor | None) -> Callable[..., None]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            update(x, y)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update(x, y)

    def replay(new_x: torch.Tensor, new_y: torch.Tensor | None) -> None:
        x.copy_(new_x)
        if y is not None:
            y.copy_(new_y)
        graph.replay()

    return replay


def compare(
    variant: str, images: int, rounds: tuple[int, int], device: str, settings: list[str], clock: Clock
) -> dict[str, Any]:
    """One row: medians of images per second of both, and the median over repeats of trainer / bare. ``rounds`` are
    those that do not count, and those that do."""
    config, compute, data = _ready(variant, images, rounds, device, ["train.compile=false", *settings])
    seen = len(data["train"]) // config.train.batch_size * config.train.batch_size
    loops = {"trainer": trainer_epochs(config, data, compute), "bare": bare_epochs(config, data, compute)}
    if compute.device.type == "cuda":
        loops["bare, captured"] = bare_epochs(config, data, compute, captured=True)
    else:
        loops["subnormals"] = _with_subnormals(trainer_epochs(config, data, compute))
    took = _alternately(loops, rounds, compute, clock)
    rates = {name: [seen / seconds for seconds in found[rounds[0] :]] for name, found in took.items()}
    row: dict[str, Any] = {"variant": variant, "precision": compute.name}
    row |= {f"{name}, images/s": round(statistics.median(found)) for name, found in rates.items()}
    for name in list(loops)[1:]:
        row |= ratio(f"trainer / {name}", rates["trainer"], rates[name])
    return row


def against_uncompiled(
    variant: str, images: int, rounds: tuple[int, int], device: str, settings: list[str], clock: Clock
) -> dict[str, Any]:
    """One row: the trainer on MNIST with its losses compiled beside itself without, and what compiling took."""
    loops = {}
    for name, compiled in (("compiled", "true"), ("as it is", "false")):
        asked = [*settings, f"train.compile={compiled}"]
        config, compute, data = _ready(variant, images, rounds, device, asked)
        loops[name] = trainer_epochs(config, data, compute)
    took = _alternately(loops, rounds, compute, clock)
    row = {"variant": variant, "precision": compute.name} | _beside(took, rounds, len(data["train"]), config)
    return row | {"compiling, s": round(took["compiled"][0] - statistics.median(took["compiled"][rounds[0] :]), 1)}


def against_mkl(
    variant: str, images: int, rounds: tuple[int, int], device: str, settings: list[str], clock: Clock
) -> dict[str, Any]:
    """One row: the trainer on MNIST with dense layers that multiply by oneDNN (`zoo.nets.products`), whatever this
    processor is, beside itself with PyTorch's own."""
    config, compute, data = _ready(variant, images, rounds, device, ["train.compile=false", *settings])
    loops = {}
    for name, quick in (("oneDNN", True), ("MKL", False)):
        with mock.patch.object(products, "quick", lambda quick=quick: quick):
            loops[name] = trainer_epochs(config, data, compute)
    took = _alternately(loops, rounds, compute, clock)
    return {"variant": variant, "precision": compute.name} | _beside(took, rounds, len(data["train"]), config)


def _beside(took: dict[str, list[float]], rounds: tuple[int, int], images: int, config: RunConfig) -> dict[str, Any]:
    # Of two loops, the first beside the second.
    kept = {name: found[rounds[0] :] for name, found in took.items()}
    steps = images // config.train.batch_size
    row = {f"{name}, ms a step": round(1000 * statistics.median(found) / steps, 2) for name, found in kept.items()}
    return row | ratio(" / ".join(kept), *([1 / seconds for seconds in found] for found in kept.values()))


def _ready(
    variant: str, images: int, rounds: tuple[int, int], device: str, settings: list[str]
) -> tuple[RunConfig, Compute, ImageSet]:
    # A run of MNIST that lasts all rounds, and so many of its training images.
    lasting = [f"train.epochs={sum(rounds)}", "train.checkpoint_seconds=1e9"]
    config = resolve(variant, "mnist", settings=[*settings, *lasting])
    return config, choose(device, config.train.precision), load_images(config).subset({"train": images})


def _alternately(
    loops: dict[str, Epoch], rounds: tuple[int, int], compute: Compute, clock: Clock
) -> dict[str, list[float]]:
    # Seconds of each loop in each round, with those that do not count; every other round in the opposite order.
    took: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(sum(rounds)):
        for name in loops if repeat % 2 else reversed(loops):
            took[name].append(_timed(loops[name], compute, clock))
    return took


def at_once(variant: str, seeds: int, device: str, settings: list[str], clock: Clock) -> dict[str, Any]:
    """One row: what ``seeds`` at once cost in times of one run alone, on MNIST; one after the other is ``seeds``."""
    from zoo.runs.together import gain, gain_beside

    configs = [resolve(variant, "mnist", seed, settings=settings) for seed in range(seeds)]
    compute = choose(device, configs[0].train.precision)
    steps = 2000 if compute.device.type == "cuda" else 20
    row: dict[str, Any] = {"variant": variant, "precision": compute.name, "seeds": seeds}
    row["stack / one"] = round(seeds / gain(configs, compute, steps=steps, clock=clock), 2)
    if compute.device.type == "cuda":
        row["streams / one"] = round(seeds / gain_beside(configs, compute, steps=steps, clock=clock), 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = "bare; pythae's nets: mlp, conv; compile; products; memory; seeds"
    parser.add_argument("--rows", default="bare,mlp,conv", help=rows)
    parser.add_argument("--variants", default="vae,cvae", help="for all but pythae's nets")
    parser.add_argument("--images", type=int, default=12_800, help="training images of one repeat (conv: a fiftieth)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warm", type=int, default=1, help="repeats before those that count")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--clock", choices=("wall", "processor"), default="wall",
        help="processor: seconds of CPU time, for one thread on a machine that is shared",
    )  # fmt: skip
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="PATH=VALUE")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    clock = {"wall": time.perf_counter, "processor": time.process_time}[given.clock]
    device = choose(given.device).device.type
    rounds, variants = (given.warm, given.repeats), given.variants.split(",")
    of_a_variant = {"bare": compare, "compile": against_uncompiled, "products": against_mkl}
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in given.rows.split(","):
        if row in of_a_variant:
            tables[row] = [
                of_a_variant[row](variant, given.images, rounds, device, given.settings, clock) for variant in variants
            ]
        elif row == "memory":
            tables[row] = [
                against_malloc(variant, given.images, rounds, device, given.settings, given.clock)
                for variant in variants
            ]
        elif row == "seeds":
            tables[row] = [at_once(variant, 8, device, given.settings, clock) for variant in variants]
        else:
            # A CPU's convolutions take a fiftieth of them.
            images = given.images if row == "mlp" or device == "cuda" else max(128, given.images // 50)
            tables[row] = against_pythae(row, images, rounds, device, given.clock)
    about = {"device": environment.describe(choose(device))["device"], "threads": torch.get_num_threads()}
    about |= {"torch": torch.__version__, "clock": given.clock}
    about |= {"images": given.images, "warm": given.warm, "repeats": given.repeats}
    if given.json:
        print(json.dumps({"about": about} | tables, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for rows in tables.values():
        print("\n" + terminal.table([list(row.values()) for row in rows], list(rows[0]), width=170))


def _timed(work: Callable[[], object], compute: Compute, clock: Clock) -> float:
    _wait(compute)
    started = clock()
    work()
    _wait(compute)
    return clock() - started


def _wait(compute: Compute) -> None:
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)


if __name__ == "__main__":
    main()
