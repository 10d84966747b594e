"""`zoo compress` and `zoo decompress`: images in a file as long as the bound of a model says, and out of it again."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import environment
from benchmarks.finished import Finished
from benchmarks.interrupt import stoppable
from benchmarks.metrics import likelihood
from benchmarks.progress import progress
from zoo.coding import compress, decompress, why_not
from zoo.coding.bits_back import VALUES
from zoo.coding.stream import Header, from_bytes, to_bytes
from zoo.errors import UsageError, ZooError
from zoo.files import atomic_path, atomic_write, sha256_file
from zoo.runs.folder import MODEL, describe_run

SEED = 0  # of the posterior samples of the bound that is told beside


@dataclass(frozen=True)
class Stored:
    """``sizes`` are bytes, by what wrote them: this model (the ``file``), and what everybody has, of the same images.

    ``elbo`` is in nats an image, of the same images, at one posterior sample. ``net`` is what an image took, without
    what the stacks began with.
    """

    variant: str
    data: str
    split: str
    n: int
    dims: int
    elbo: float
    net: float
    sizes: dict[str, int]

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
    lanes = min(lanes, batches.n)
    with progress(2 * batches.n, "storing and reading", "image") as bar:
        message = compress(model, _counted((x for _, x, _ in batches.sequential(lanes)), bar), lanes)
        pixels = np.concatenate([_bytes(x, model.spec.support) for _, x, _ in batches.sequential(lanes)])
        read = _counted(decompress(model, message), bar)
        back = np.concatenate([_bytes(x, model.spec.support) for x in read][::-1])
    if not np.array_equal(pixels, back):
        raise ZooError("the networks do not compute the same twice here: what was read back is not what was stored.")
    header = Header(
        batches.n, model.spec.shape, model.spec.support, message.bucket_bits, lanes, _weights(run), _hash(pixels),
        torch.__version__, environment.cpu_name(), torch.get_num_threads(), finished.device.type,
    )  # fmt: skip
    content = to_bytes(message, header)
    raw = np.packbits(pixels).tobytes() if model.spec.support == "binary" else pixels.tobytes()
    sizes = {"file": len(content), "raw": len(raw), "gzip": len(gzip.compress(raw, 9)), "bz2": len(bz2.compress(raw))}
    config = finished.described.config
    stored = Stored(
        config.variant, config.data.name, split, batches.n, model.spec.dims,
        likelihood.bound(model, batches, SEED).elbo.mean().item(), float(message.taken.mean()),
        sizes | {"xz": len(lzma.compress(raw, preset=9))},
    )  # fmt: skip
    atomic_write(path, content)  # last: who was stopped before it gives the same command again
    return stored


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
    describe_run(run)  # says that it is no run
    if header.weights_sha256 != _weights(run):
        raise UsageError(f"{path} was written with another model than the one in {run}.")
    finished = Finished(run, device)
    model = finished.model.eval()
    with _threads(header.threads), progress(header.n, "reading", "image") as bar:
        read = _counted(decompress(model, message), bar)
        pixels = np.concatenate([_bytes(x, header.support) for x in read][::-1])
    if _hash(pixels) != header.pixels_sha256:
        here = f"torch {torch.__version__}, {environment.cpu_name()}, on {finished.device.type}"
        there = f"torch {header.torch}, {header.processor}, on {header.device}"
        raise ZooError(f"{path} cannot be read here ({here}), where the networks round otherwise than there ({there}).")
    with atomic_path(out) as part, open(part, "wb") as file:
        np.savez_compressed(file, images=pixels)
    return header.n


def _free(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} is there already, and is not written over.")


def _weights(run: Path) -> str:
    return sha256_file(run / MODEL) if (run / MODEL).exists() else ""


def _hash(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def _bytes(x: Tensor, support: str) -> NDArray[np.uint8]:
    return (x * (VALUES[support] - 1)).round().to(torch.uint8).cpu().numpy()


def _counted(batches: Iterator[Tensor], bar: Any) -> Iterator[Tensor]:
    for x in stoppable(batches):
        yield x
        bar.update(len(x))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    # Sums are divided among as many threads as when they were stored.
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)

