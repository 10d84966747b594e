"""`zoo compress` and `zoo decompress`: images in a file as long as the bound of a model says, and out of it again."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import environment
from benchmarks.evaluation.coding import read, stored
from benchmarks.finished import Finished
from benchmarks.metrics import likelihood
from benchmarks.progress import progress
from zoo.coding import why_not
from zoo.coding.stream import Header, from_bytes, to_bytes
from zoo.errors import UsageError, ZooError
from zoo.files import atomic_path, atomic_write, sha256_file
from zoo.runs.folder import MODEL

SEED = 0  # of the posterior samples of the bound that is told beside


@dataclass(frozen=True)
class Stored:
    """``sizes`` are bytes, by what wrote them: this model (the ``file``), and what everybody has, of the same images.

    ``elbo`` is in nats an image, of the same images, at one posterior sample. ``net`` is what an image took, without
    what the stacks began with. Both are there in bits per dimension too, the first one as minus itself.
    """

    variant: str
    data: str
    split: str
    n: int
    dims: int
    elbo: float
    net: float
    sizes: dict[str, int]
    elbo_bits_per_dim: float
    net_bits_per_dim: float

    def bits_per_dim(self, size: int) -> float:
        """Of a size in bytes."""
        return 8.0 * size / (self.n * self.dims)


def store(run: Path, path: Path, split: str, n: int | None, lanes: int, device: str = "auto") -> Stored:
    """Write images of a split of the run's data into ``path``, and read them back before it is there.

    Args:
        n: only the first so many.
        lanes: as `zoo.coding.compress`.

    Raises:
        UsageError: there is something in ``path``; there is no finished run; or `why_not` says why.
        ZooError: what was read back is not what was stored.
    """
    _free(path)
    finished = Finished(run, device)
    model = finished.model.eval()
    if reason := why_not(model):
        variant = finished.described.config.variant
        raise UsageError(f"the images of this {variant} cannot be stored: {reason}.")
    batches = finished.first(n, split)
    message, images, back = stored(model, batches, batches.n, lanes)
    if not torch.equal(images, back):
        raise ZooError("the networks do not compute the same twice here: what was read back is not what was stored.")
    pixels, weights = images.numpy(), sha256_file(run / MODEL)
    header = Header(
        batches.n, model.spec.shape, model.spec.support, message.bucket_bits, len(message.heads), weights,
        _hash(pixels), torch.__version__, environment.cpu_name(), torch.get_num_threads(), finished.device.type,
    )  # fmt: skip
    content = to_bytes(message, header)
    raw = np.packbits(pixels).tobytes() if model.spec.support == "binary" else pixels.tobytes()
    sizes = {"file": len(content), "raw": len(raw), "gzip": len(gzip.compress(raw, 9)), "bz2": len(bz2.compress(raw))}
    config, dims, net = finished.described.config, model.spec.dims, float(message.taken.mean())
    elbo = likelihood.bound(model, batches, SEED).elbo.mean().item()
    found = Stored(
        config.variant, config.data.name, split, batches.n, dims, elbo, net,
        sizes | {"xz": len(lzma.compress(raw, preset=9))},
        *(model.likelihood.bits_per_dim(nats, dims) for nats in (-elbo, net)),
    )  # fmt: skip
    atomic_write(path, content)  # last: who was stopped before it gives the same command again
    return found


def restore(run: Path, path: Path, out: Path, device: str = "auto") -> int:
    """Write the images that `store` put in ``path`` into ``out``, an npz of ``images``: uint8 (N, C, H, W), 0 and 1 of
    binary data and bytes of 8-bit data; returns how many.

    Raises:
        UsageError: there is something in ``out``, ``path`` is no such file or was written by another model, or ``run``
            is no run.
        ZooError: the networks compute something else here than they did there.
    """
    _free(out)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    message, header = from_bytes(content, str(path))
    finished = Finished(run, device)
    if header.weights_sha256 != sha256_file(run / MODEL):
        raise UsageError(f"{path} was written with another model than the one in {run}.")
    with _threads(header.threads), progress(header.n, "reading", "image") as bar:
        pixels = read(finished.model.eval(), message, bar).numpy()
    if _hash(pixels) != header.pixels_sha256:
        here = f"torch {torch.__version__}, {environment.cpu_name()}, on {finished.device.type}"
        there = f"torch {header.torch}, {header.processor}, on {header.device}"
        raise ZooError(f"{path} cannot be read here ({here}), where the networks round otherwise than there ({there}).")
    with atomic_path(out) as part, open(part, "wb") as file:
        np.savez_compressed(file, images=pixels)
    return header.n


def _free(path: Path) -> None:
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already, and is not written over.")


def _hash(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    # Sums are divided among as many threads as when they were stored.
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)

