"""What storing an image takes: the bound as the length of a code that was read back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.interrupt import stoppable
from benchmarks.metrics.features import entry, mean_and_error
from benchmarks.progress import progress
from zoo.coding import compress, decompress, why_not
from zoo.data.batches import Batches
from zoo.models.base import VAE
from zoo.runs import Run

NAME = "code_length"
LANES = 64


def coded(run: Run, batches: Batches) -> tuple[dict[str, dict[str, Any]], dict[str, str], dict[str, Tensor]]:
    """Metric and skipped metric, and (n,) nats: what each of the first `evaluate.coded` images took.

    Every image is decoded from the bits again; where one does not come back as it was there is no number.
    """
    config, model = run.config.evaluate, run.model
    reason = why_not(model) if config.coded else "evaluate.coded is 0"
    if reason:
        return {}, {NAME: reason}, {}
    n = min(config.coded, batches.n)
    found = stored(model, batches, n)
    if found is None:
        return {}, {NAME: "what was decoded is not what was stored: the networks do not compute the same twice"}, {}
    taken, began, bucket_bits = found
    more = f"{began / n:.2f} nats an image more with what {LANES} stacks begin with"
    identity = {"split": config.split, "images": n, "bucket_bits": bucket_bits}
    metric = entry(mean_and_error(taken)._replace(note=more), "lower", identity, "nats")
    return {NAME: metric}, {}, {NAME: taken}


def stored(model: VAE, batches: Batches, n: int) -> tuple[Tensor, float, int] | None:
    """(n,) nats that each of the first n images took, the nats that the stacks began with, and how finely latents
    were stored; None where the images that are read back are others."""
    images = []
    with progress(2 * n, "storing and reading", "image") as bar:

        def given():
            for _, x, _ in stoppable(batches.sequential(LANES)):
                images.append(x[: n - LANES * len(images)])
                yield images[-1]
                bar.update(len(images[-1]))
                if LANES * len(images) >= n:
                    return

        message = compress(model, given(), min(LANES, n))
        same = True
        for x, back in zip(reversed(images), decompress(model, message), strict=True):
            same &= torch.equal(x, back)
            bar.update(len(x))
    return (torch.from_numpy(message.taken), message.began, message.bucket_bits) if same else None
