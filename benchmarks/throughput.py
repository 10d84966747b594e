"""How fast the trainer is beside a bare loop of the same step, and beside pythae: `python -m benchmarks.throughput`.

Everybody trains the same network on the same images with the same batch size. The bare loop is what one would write
by hand: index, binarise, forward, backward, fused Adam, and nothing else; it runs in one process with the trainer.
pythae runs in an environment of its own (`benchmarks.peers`), each of our ways beside it in another process. All of
them alternate, because two shared cores drift by a quarter over minutes: the median of the ratios of the repeats is
the number to quote, and no images per second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import environment
from benchmarks.peers.environment import python as environment_of_pythae
from benchmarks.report import terminal
from zoo.config import RunConfig, resolve
from zoo.data.images import ImageSet
from zoo.errors import ZooError
from zoo.runs import build_model, load_images, make_trainer
from zoo.training.precision import Compute, choose
from zoo.training.trainer import Trainer

Clock = Callable[[], float]
Loop = Callable[[RunConfig, ImageSet, Compute, Clock], float]


def steps_of(trainer: Trainer, epoch: int) -> dict[str, float]:
    """One epoch of the trainer as `Trainer.fit` runs it, without the validation that follows; its mean numbers."""
    for x, y in trainer.train.epoch(epoch):
        trainer.update(x, y)
        trainer._pause_if_due()
    means = trainer._means()
    trainer.totals.zero_()
    return means


def trainer_seconds(config: RunConfig, images: ImageSet, compute: Compute, clock: Clock) -> float:
    """Seconds of the trainer's steps over one epoch."""
    model = build_model(config, images.spec).to(compute.device).train()
    trainer = make_trainer(config, model, images, compute.for_run(model, config.train, len(images["train"])))
    _wait(compute)
    started = clock()
    steps_of(trainer, 0)
    _wait(compute)
    return clock() - started


def bare_seconds(config: RunConfig, images: ImageSet, compute: Compute, clock: Clock) -> float:
    """Seconds of a hand-written loop over the same steps."""
    model = build_model(config, images.spec).to(compute.device)
    pixels, labels = images["train"].pixels.to(compute.device), images["train"].labels
    labels = labels.to(compute.device) if model.conditional and labels is not None else None
    optimizer = torch.optim.Adam(model.parameters(), lr=config.train.learning_rate, fused=True)
    size, dynamic = config.train.batch_size, images.binarise == "dynamic"
    _wait(compute)
    started = clock()
    order = torch.randperm(len(pixels)).to(compute.device)
    for low in range(0, len(order) - size + 1, size):
        index = order[low : low + size]
        x = pixels[index].float() / 255
        if dynamic:
            x = (torch.rand_like(x) < x).float()  # a third of what torch.bernoulli takes on a CPU
        with compute.autocast():
            terms = model.terms(x, None if labels is None else labels[index])
            loss = (terms.distortion + terms.rate.sum(1)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    _wait(compute)
    return clock() - started


def compare(
    variant: str, images: int, repeats: int, device: str, settings: list[str], clock: Clock
) -> dict[str, Any]:
    """One row: medians of images per second of both, and the median over repeats of trainer / bare."""
    config = resolve(variant, "mnist", settings=[*settings, "train.epochs=1", "train.checkpoint_seconds=1e9"])
    compute = choose(device, config.train.precision)
    data = load_images(config).subset({"train": images})
    seen = len(data["train"]) // config.train.batch_size * config.train.batch_size
    loops: dict[str, Loop] = {"trainer": trainer_seconds, "bare": bare_seconds}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(repeats + 1):
        for name in loops if repeat % 2 else reversed(loops):
            seconds = loops[name](config, data, compute, clock)
            if repeat:  # the first pair warms up
                rates[name].append(seen / seconds)
    return {
        "variant": variant,
        "precision": compute.name,
        "trainer, images/s": round(statistics.median(rates["trainer"])),
        "bare, images/s": round(statistics.median(rates["bare"])),
    } | _ratio("trainer / bare", rates["trainer"], rates["bare"])


@dataclass(frozen=True)
class Contestant:
    """A training loop in a process of its own."""

    name: str
    module: str
    options: tuple[str, ...] = ()


PYTHAE = Contestant("pythae", "benchmarks.peers.pythae_loop")
LOOP, BARE = "benchmarks.peers.zoo_loop", "benchmarks.peers.bare_loop"
COMPILED, HALF = ("--compile", "yes"), ("--precision", "bf16")
OTHERS = {
    "mlp": (
        Contestant("float32", LOOP),
        Contestant("float32, compile", LOOP, COMPILED),
        Contestant("bf16", LOOP, HALF),
        Contestant("bf16, compile", LOOP, HALF + COMPILED),
        Contestant("bare, float32", BARE),
        Contestant("bare, float32, compile", BARE, COMPILED),
        Contestant("bare, bf16, compile", BARE, HALF + COMPILED),
    ),
    "conv": (
        Contestant("float32", LOOP),
        Contestant("fast", LOOP, ("--precision", "fast")),
    ),
}


def against_pythae(network: str, images: int, repeats: int, device: str, clock: str) -> list[dict[str, Any]]:
    """A row for each way to train ``network``, ours and a bare loop's: medians beside pythae's, and peak memory.

    Raises:
        ZooError: pythae could not be installed, or one of the processes ended.
    """
    theirs = environment_of_pythae()
    contestants = (PYTHAE, *OTHERS[network])
    told = ["--network", network, "--images", str(images), "--device", device]
    root = Path(__file__).resolve().parent.parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    env["TQDM_DISABLE"] = "1"
    found: dict[str, list[dict[str, float]]] = {contestant.name: [] for contestant in contestants}
    with contextlib.ExitStack() as stack:
        processes = {}
        for contestant in contestants:
            python = str(theirs) if contestant is PYTHAE else sys.executable
            command = [python, "-m", contestant.module, *told, *contestant.options]
            process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            processes[contestant.name] = stack.enter_context(process)
        for repeat in range(repeats + 1):
            for name in processes if repeat % 2 else reversed(processes):
                line = _round(processes[name])
                if not line:
                    raise ZooError(f"the process of {name} ended before its {repeats + 1} rounds.")
                if repeat:
                    found[name].append(json.loads(line))
    rates = {name: [1 / line[clock] for line in lines] for name, lines in found.items()}
    peaks = {name: round(max(line["peak"] for line in lines) / 2**20) for name, lines in found.items()}
    return [
        {
            "network": network,
            "loop": name,
            "images/s": round(statistics.median(rates[name])),
            "loss": round(found[name][-1]["loss"], 2),
            "peak MB": peaks[name],
        }
        | _ratio("loop / pythae", rates[name], rates[PYTHAE.name])
        for name in processes
    ]


def at_once(hidden: int, seeds: int, device: str, clock: Clock) -> dict[str, Any]:
    """One row: what a stack of ``seeds`` gains over one run after the other, for an MLP of that width on MNIST."""
    from zoo.together import gain

    settings = [f"encoder.hidden=[{hidden}]", f"decoder.hidden=[{hidden}]", "train.epochs=1"]
    configs = [resolve("vae", "mnist", seed, settings=settings) for seed in range(seeds)]
    times = gain(configs, choose(device, configs[0].train.precision), clock=clock)
    return {"hidden": hidden, "seeds": seeds, "stack / one by one": round(times, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="bare,mlp,conv", help="bare loop; pythae's nets (mlp, conv); seeds at once")
    parser.add_argument("--variants", default="vae,cvae", help="for the bare loop")
    parser.add_argument("--images", type=int, default=12_800, help="training images of one repeat (conv: a fiftieth)")
    parser.add_argument("--repeats", type=int, default=7)
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
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in given.rows.split(","):
        if row == "bare":
            tables[row] = [
                compare(variant, given.images, given.repeats, device, given.settings, clock)
                for variant in given.variants.split(",")
            ]
        elif row == "seeds":
            tables[row] = [at_once(hidden, 8, device, clock) for hidden in (64, 400)]
        else:
            images = given.images if row == "mlp" else max(128, given.images // 50)
            tables[row] = against_pythae(row, images, given.repeats, device, given.clock)
    about = {"device": environment.describe(choose(device))["device"], "threads": torch.get_num_threads()}
    about |= {"torch": torch.__version__, "clock": given.clock, "repeats": given.repeats}
    if given.json:
        print(json.dumps({"about": about} | tables, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for rows in tables.values():
        print("\n" + terminal.table([list(row.values()) for row in rows], list(rows[0]), width=140))


def _round(process: subprocess.Popen) -> str:
    try:
        process.stdin.write("go\n")
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    return process.stdout.readline()


def _ratio(name: str, ours: list[float], others: list[float]) -> dict[str, Any]:
    # Of the pair of each repeat: what disturbs a repeat disturbs both of its halves.
    ratios = [a / b for a, b in zip(ours, others, strict=True)]
    return {name: round(statistics.median(ratios), 3), "range": f"{min(ratios):.2f} to {max(ratios):.2f}"}


def _wait(compute: Compute) -> None:
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)


if __name__ == "__main__":
    main()
