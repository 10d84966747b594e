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
    reason = why_not(model) if config.coded else "evaluate.coded is 0"
    if reason:
        return {}, {NAME: reason}, {}
    n = min(config.coded, batches.n)
    message = stored(model, batches, n)
    if message is None:
        return {}, {NAME: "what was decoded is not what was stored: the networks do not compute the same twice"}, {}
    taken = torch.from_numpy(message.taken)
    more = f"{message.began / n:.2f} nats an image more with what {len(message.heads)} stacks begin with"
    identity = {"split": config.split, "images": n, "bucket_bits": message.bucket_bits}
    metric = entry(mean_and_error(taken)._replace(note=more), "lower", identity, "nats")
    return {NAME: metric}, {}, {NAME: taken}


def stored(model: VAE, batches: Batches, n: int) -> Message | None:
    """The first n images, stored; None where those that are read back are others."""
    images: list[Tensor] = []
    lanes = min(LANES[model.spec.support], n)
    with progress(2 * n, "storing and reading", "image") as bar:

        def given() -> Iterator[Tensor]:
            left = n
            for _, x, _ in stoppable(batches.sequential(lanes)):
                images.append(x[:left])
                left -= len(images[-1])
                yield images[-1]
                bar.update(len(images[-1]))
                if not left:
                    return

        message = compress(model, given(), lanes)
        same = True
        for x, back in zip(reversed(images), decompress(model, message), strict=True):
            same &= torch.equal(x, back)
            bar.update(len(x))
    return message if same else None
