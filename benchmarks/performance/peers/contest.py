"""Training loops as processes of their own that run one round after the other in turn: pythae's beside ours, and ours
beside itself where malloc is left as it comes."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.performance.peers.environment import python as environment_of_pythae
from zoo.config import resolve
from zoo.errors import ZooError
from zoo.runs.images import load_grey


@dataclass(frozen=True)
class Contestant:
    """A training loop in a process of its own."""

    name: str
    module: str
    options: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


PYTHAE = Contestant("pythae", "benchmarks.performance.peers.pythae_loop")
LOOP, BARE = "benchmarks.performance.peers.zoo_loop", "benchmarks.performance.peers.bare_loop"
VARIANT = "benchmarks.performance.peers.variant_loop"
# A tunable that changes nothing, and by which the environment says how malloc is to behave.
KEPT, AS_IT_COMES = (
    Contestant("kept", VARIANT),
    Contestant("as it comes", VARIANT, env=(("GLIBC_TUNABLES", "glibc.malloc.perturb=0"),)),
)
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
# There every step is captured, and bf16 is what `auto` takes.
ON_GPU = {
    "mlp": (
        Contestant("float32", LOOP),
        Contestant("bf16", LOOP, HALF),
        Contestant("bf16, compile", LOOP, HALF + COMPILED),
    ),
    "conv": (
        Contestant("float32", LOOP),
        Contestant("bf16", LOOP, HALF),
        Contestant("fast", LOOP, ("--precision", "fast")),
    ),
}


def against_pythae(network: str, images: int, rounds: tuple[int, int], device: str, clock: str) -> list[dict[str, Any]]:
    """A row for each way to train ``network``, ours and a bare loop's: medians beside pythae's, and peak memory.
    ``rounds`` are those that do not count, and those that do.

    Raises:
        ZooError: pythae could not be installed, or one of the processes ended.
    """
    theirs = environment_of_pythae()
    contestants = (PYTHAE, *(ON_GPU if device == "cuda" else OTHERS)[network])
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures.npy"
        np.save(pictures, load_grey(resolve("vae", "mnist"))["train"].pixels[:images].numpy())
        told = ["--network", network, "--pictures", str(pictures), "--device", device]
        found = _in_turn(contestants, told, rounds, theirs)
    rates = {name: [1 / line[clock] for line in lines] for name, lines in found.items()}
    return [
        {
            "network": network,
            "loop": name,
            "images/s": round(statistics.median(rates[name])),
            "loss": round(found[name][-1]["loss"], 2),
            "peak MB": _peak(found[name]),
        }
        | ratio("loop / pythae", rates[name], rates[PYTHAE.name])
        for name in rates
    ]


def against_malloc(
    variant: str, images: int, rounds: tuple[int, int], device: str, settings: list[str], clock: str
) -> dict[str, Any]:
    """One row: training on MNIST with what is freed kept (`zoo.training.memory`), beside malloc as it comes."""
    told = ["--variant", variant, "--images", str(images), "--device", device]
    for setting in settings:
        told += ["--set", setting]
    found = _in_turn((KEPT, AS_IT_COMES), told, rounds)
    row: dict[str, Any] = {"variant": variant}
    row |= ratio("kept / as it comes", *([1 / line[clock] for line in lines] for lines in found.values()))
    row |= {f"{name}, pages an image": round(lines[-1]["pages"]) for name, lines in found.items()}
    return row | {f"{name}, peak MB": _peak(lines) for name, lines in found.items()}


def _in_turn(
    contestants: tuple[Contestant, ...], told: list[str], rounds: tuple[int, int], theirs: Path | None = None
) -> dict[str, list[dict[str, float]]]:
    """What each answers in the rounds that count, by its name; every other round in the opposite order.

    Raises:
        ZooError: one of the processes ended.
    """
    warm, repeats = rounds
    root = Path(__file__).resolve().parents[3]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    env["TQDM_DISABLE"] = "1"
    found: dict[str, list[dict[str, float]]] = {contestant.name: [] for contestant in contestants}
    with contextlib.ExitStack() as stack:
        processes = {}
        for contestant in contestants:
            python = str(theirs) if contestant is PYTHAE else sys.executable
            command = [python, "-m", contestant.module, *told, *contestant.options]
            process = subprocess.Popen(
                command, env=env | dict(contestant.env), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            processes[contestant.name] = stack.enter_context(process)
        for repeat in range(warm + repeats):
            for name in processes if repeat % 2 else reversed(processes):
                line = _round(processes[name])
                if not line:
                    raise ZooError(f"the process of {name} ended before its {warm + repeats} rounds.")
                if repeat >= warm:
                    found[name].append(json.loads(line))
    return found


def _peak(lines: list[dict[str, float]]) -> int:
    return round(max(line["peak"] for line in lines) / 2**20)


def _round(process: subprocess.Popen) -> str:
    try:
        process.stdin.write("go\n")
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    return process.stdout.readline()


def ratio(name: str, ours: list[float], others: list[float]) -> dict[str, Any]:
    """The median and the range of the ratio of each repeat's pair: what disturbs a repeat disturbs both halves."""
    ratios = [a / b for a, b in zip(ours, others, strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return {name: round(statistics.median(ratios), 3), name.replace(" / ", " to ") + ", range": spread}
