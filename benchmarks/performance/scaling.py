"""How cost grows with the data, the resolution, the latent size and k.

`python -m benchmarks.performance.scaling [--plot FILE]`: every row is one vanilla VAE on synthetic bytes, a few steps
of the trainer or one evaluation, the median of several. Memory is what the row added to the process at its peak, so 0
where what an earlier row had freed sufficed. A table, and with ``--plot`` the same on logarithmic axes.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.metrics.likelihood import importance_weighted
from benchmarks.report import terminal
from zoo.config import ROWS, TrainConfig
from zoo.data.batches import Batches
from zoo.data.images import DataSpec, Images
from zoo.models import create_model
from zoo.models.base import VAE
from zoo.training.memory import peak_memory, reset_peak
from zoo.training.precision import Compute, choose
from zoo.training.trainer import Trainer

DATA = (10_000, 100_000, 1_000_000)
RESOLUTIONS = (28, 64, 128)
LATENTS = (8, 32, 128, 512)
SAMPLES = (1, 16, 64, 256)
CONVOLUTIONS = {"name": "conv", "channels": (32, 64), "hidden": (256,)}
EVALUATED = 128


def rows(compute: Compute, repeats: int, clock: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """The table, row by row."""
    for n in DATA:
        yield {"grows": "data", "value": n} | _trained(compute, repeats, clock, n=n)
    for size in RESOLUTIONS:
        nets = {"encoder": CONVOLUTIONS, "decoder": CONVOLUTIONS | {"channels": (64, 32)}}
        yield {"grows": "resolution", "value": size} | _trained(compute, repeats, clock, size=size, batch=32, **nets)
    for latent in LATENTS:
        yield {"grows": "latent", "value": latent} | _trained(compute, repeats, clock, latent=latent)
    for k in SAMPLES:
        yield {"grows": "k", "value": k} | _evaluated(compute, repeats, clock, k)


def _trained(
    compute: Compute, repeats: int, clock: Callable[[], float], n: int = 10_000, size: int = 28, batch: int = 128,
    **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    before = _start(compute)
    model = _model(size, **settings).to(compute.device).train()
    batches = Batches(_images(n, size), batch_size=batch, device=compute.device, shuffle_seed=0)
    trainer = Trainer(model, batches, batches, TrainConfig(batch_size=batch, epochs=1000), compute)
    supply = batches.epoch(0)
    took = []
    for _ in range(repeats + 2):
        started = clock()
        trainer.update(*next(supply))
        trainer.means()
        took.append(clock() - started)
    started = clock()
    batches.order(1)
    order = clock() - started
    seconds = statistics.median(took[2:])
    return {
        "images/s": round(batch / seconds),
        "ms a step": round(1e3 * seconds, 2),
        "epoch's order, ms": round(1e3 * order, 1),
        "evaluation, ms an image": None,
        "MB": _added(compute, before),
    }


def _evaluated(compute: Compute, repeats: int, clock: Callable[[], float], k: int) -> dict[str, Any]:
    before = _start(compute)
    model = _model(28).to(compute.device).eval()
    batches = Batches(_images(EVALUATED, 28), batch_size=EVALUATED, device=compute.device)
    took = []
    for _ in range(max(2, repeats // 4) + 1):
        started = clock()
        importance_weighted(model, batches, k, 0, ROWS)
        took.append(clock() - started)
    milliseconds = 1e3 * statistics.median(took[1:]) / EVALUATED
    none = {"images/s": None, "ms a step": None, "epoch's order, ms": None}
    return none | {"evaluation, ms an image": round(milliseconds, 3), "MB": _added(compute, before)}


def _model(size: int, **settings: Any) -> VAE:
    spec = DataSpec(shape=(1, size, size), support="binary")
    return create_model("vae", data=spec, **settings)


def _images(n: int, size: int) -> Images:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2, (n, 1, size, size), dtype=torch.uint8, generator=generator)
    return Images(bits.mul_(255))


def _start(compute: Compute) -> int:
    gc.collect()
    reset_peak(compute.device)
    return peak_memory(compute.device)


def _added(compute: Compute, before: int) -> int:
    return round((peak_memory(compute.device) - before) / 2**20)


def plot(table: list[dict[str, Any]], path: Path) -> None:
    """One panel for what grows: cost against it, both logarithmic, beside a line that is proportional."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(row["grows"] for row in table))
    pyplot.rcParams["svg.hashsalt"] = "scaling"  # the same table is the same file
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(3 * len(kinds), 2.8), layout="constrained")
    for kind, panel in zip(kinds, panels, strict=True):
        mine = [row for row in table if row["grows"] == kind]
        column = "evaluation, ms an image" if kind == "k" else "ms a step"
        x, y = [row["value"] for row in mine], [row[column] for row in mine]
        panel.loglog(x, y, marker="o", color="black")
        slope = 2 if kind == "resolution" else 1
        reference = [y[0] * (value / x[0]) ** slope for value in x]
        panel.loglog(x, reference, linestyle=":", color="grey", label="pixels" if slope == 2 else "proportional")
        panel.set(xlabel=kind, ylabel=column, ylim=(0.5 * min(y), 4 * max(y)))
        panel.set_xticks(x, labels=[f"{value:,}".replace(",", " ") for value in x])
        panel.set_xticks([], minor=True)
        panel.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    clock = {"wall": time.perf_counter, "processor": time.process_time}[given.clock]
    table = list(rows(choose(given.device), given.repeats, clock))
    if given.plot:
        plot(table, given.plot)
    if given.json:
        print(json.dumps(table, indent=2))
        return
    shown = [["" if value is None else value for value in row.values()] for row in table]
    print(terminal.table(shown, list(table[0]), width=140))


if __name__ == "__main__":
    main()
