"""MNIST and Fashion-MNIST: 28x28 grey, 50,000 training / 10,000 validation / 10,000 test images.

The validation split is the last 10,000 of the official 60,000 training images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from zoo.data.fetch import ASSETS, fetch, problem
from zoo.data.idx import IDX_FILES, read_idx
from zoo.data.images import DataSpec, Images, ImageSet
from zoo.errors import ZooError

VALIDATION = 10_000
FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def load_mnist(root: str | Path | None = None) -> ImageSet:
    """MNIST (LeCun, Cortes, Burges); fetched if need be, its files verified at every load.

    Args:
        root: a folder that holds ``MNIST/raw/*-ubyte`` (as torchvision lays it out) instead of the cache.

    Raises:
        ZooError: it cannot be fetched, or the files below ``root`` are not the official ones.
    """
    return _load("mnist", "MNIST", tuple("0123456789"), root)


def load_fashion_mnist(root: str | Path | None = None) -> ImageSet:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), as `load_mnist`: ``FashionMNIST/raw`` below ``root``."""
    return _load("fashion_mnist", "FashionMNIST", FASHION, root)


def _load(name: str, top: str, classes: tuple[str, ...], root: str | Path | None) -> ImageSet:
    if root is None:
        folder = fetch(name)
    else:
        folder = Path(root).expanduser()
        wrong = problem(ASSETS[name], folder)
        if wrong is not None:
            raise ZooError(f"{folder} does not hold {name}: {wrong}.")
    images, labels, test_images, test_labels = (read_idx(folder / top / "raw" / file) for file in IDX_FILES)
    cut = len(images) - VALIDATION
    splits = {
        "train": _images(images[:cut], labels[:cut]),
        "validation": _images(images[cut:], labels[cut:]),
        "test": _images(test_images, test_labels),
    }
    return ImageSet(name, splits, DataSpec((1, 28, 28), "8-bit", classes=10), classes=classes)


def _images(pixels: np.ndarray, labels: np.ndarray) -> Images:
    return Images(pixels[:, None], torch.from_numpy(labels.astype(np.int64)))
