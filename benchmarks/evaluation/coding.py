"""What storing an image takes: the bound as the length of a code that was read back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.interrupt import stoppable
from benchmarks.metrics.features import entry, mean_and_error
from benchmarks.progress import progress
from zoo.coding import Message, compress, decompress, why_not
from zoo.coding.bits_back import VALUES
from zoo.config import EvaluateConfig
from zoo.data.batches import Batches
from zoo.models.base import VAE
from zoo.runs import Run

NAME = "code_length"
LANES = {"binary": 64, "8-bit": 16}  # bytes have tables of 256 masses a pixel, which have to be held for each


def coded(run: Run, batches: Batches) -> tuple[dict[str, dict[str, Any]], dict[str, str], dict[str, Tensor]]:
    """Metric and skipped metric, and (n,) nats: what each of the first `evaluate.coded` images took.

    Every image is decoded from the bits again; where one does not come back as it was there is no number.
    """
    config, model = run.config.evaluate, run.model
    if reason := lacking(config, model):
        return {}, {NAME: reason}, {}
    n = min(config.coded, batches.n)
    message, pixels, back = stored(model, batches, n, LANES[model.spec.support])
    if not torch.equal(pixels, back):
        return {}, {NAME: "what was decoded is not what was stored: the networks do not compute the same twice"}, {}
    taken = torch.from_numpy(message.taken)
    more = f"{message.began / n:.2f} nats an image more with what {len(message.heads)} stacks begin with"
    identity = {"split": config.split, "images": n, "bucket_bits": message.bucket_bits}
    metric = entry(mean_and_error(taken)._replace(note=more), "lower", identity, "nats")
    return {NAME: metric}, {}, {NAME: taken}


def lacking(config: EvaluateConfig, model: VAE) -> str | None:
    """Why no image is stored with a model; None where some are."""
    return why_not(model) if config.coded else "evaluate.coded is 0"


def stored(model: VAE, batches: Batches, n: int, lanes: int) -> tuple[Message, Tensor, Tensor]:
    """The first n images, stored ``lanes`` at a time (or all at once); their values as `values` has them, and those
    that were read back, which are others where the networks do not compute the same twice."""
    given: list[Tensor] = []
    lanes = min(lanes, n)
    with progress(2 * n, "storing and reading", "image") as bar:

        def first() -> Iterator[Tensor]:
            for start, (_, x, _) in zip(range(0, n, lanes), batches.sequential(lanes), strict=False):
                x = x[: n - start]
                given.append(values(x, model))
                yield x

        message = compress(model, counted(first(), bar), lanes)
        return message, torch.cat(given), read(model, message, bar)


def read(model: VAE, message: Message, bar: Any) -> Tensor:
    """`values` (n, C, H, W) of the images of a message, in their order; ``bar`` counts them."""
    return torch.cat([values(x, model) for x in counted(decompress(model, message), bar)][::-1])


def values(x: Tensor, model: VAE) -> Tensor:
    """(B, C, H, W) as the model takes it, as uint8 on the CPU: 0 and 1 of binary data, bytes of 8-bit data."""
    return (x * (VALUES[model.spec.support] - 1)).round().to(torch.uint8).cpu()


def counted(batches: Iterator[Tensor], bar: Any) -> Iterator[Tensor]:
    """``batches`` of an evaluation, each a place to stop and counted by ``bar`` once it is done with."""
    for x in stoppable(batches):
        yield x
        bar.update(len(x))
