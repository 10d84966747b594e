"""The idx files of MNIST: reading, writing, and the pickle that one mirror carries instead."""

from __future__ import annotations

import gzip
import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.files import sha256_file

MNIST_PICKLE_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def read_idx(path: str | Path) -> np.ndarray:
    """The uint8 array of an idx file; ``ZooError`` if it is not one or has the wrong length."""
    content = Path(path).read_bytes()
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ZooError(f"{path} is not an idx file of bytes.")
    rank = content[3]
    head = 4 + 4 * rank
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, head, 4))
    if len(content) != head + math.prod(shape):
        raise ZooError(f"{path} is an idx file of the wrong length.")
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape)


def idx_bytes(array: np.ndarray) -> bytes:
    """A uint8 array as an idx file."""
    if array.dtype != np.uint8:
        raise TypeError(f"idx files here hold bytes, not {array.dtype}")
    shape = np.array(array.shape, dtype=">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + shape + np.ascontiguousarray(array).tobytes()


def mnist_from_pickle(unpacked: Path, folder: Path) -> None:
    """Write the four idx files of MNIST from the 50,000 / 10,000 / 10,000 pickle (float32 = byte / 256).

    A pickle can run code, so its hash is checked first and the unpickler admits nothing but numpy arrays.
    """
    path = unpacked / "mnist" / "data" / "mnist.pkl.gz"
    if sha256_file(path) != MNIST_PICKLE_SHA256:
        raise ZooError("its mnist.pkl.gz has the wrong SHA-256")
    with gzip.open(path) as file:
        train, validation, test = _ArraysOnly(io.BytesIO(file.read()), encoding="latin1").load()
    parts = {"train": (train, validation), "t10k": (test,)}
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, pairs in parts.items():
        images = np.rint(np.concatenate([pair[0] for pair in pairs]) * 256).astype(np.uint8)
        labels = np.concatenate([pair[1] for pair in pairs]).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images.reshape(-1, 28, 28)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if (module, name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        }:
            return np.ndarray((0,), np.uint8).__reduce__()[0]  # the function, wherever this numpy keeps it
        if (module, name) == ("_codecs", "encode"):
            import _codecs

            return _codecs.encode
        raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which is not an array")
