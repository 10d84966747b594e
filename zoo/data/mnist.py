"""MNIST and Fashion-MNIST: 28x28 grey, 50,000 training / 10,000 validation / 10,000 test images.

The validation split is the last 10,000 of the official 60,000 training images.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from zoo.data.fetch import official
from zoo.data.idx import IDX_FILES, read_idx
from zoo.data.images import DataSpec, Images, ImageSet
from zoo.errors import UsageError

VALIDATION = 10_000
FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def load_mnist(
    root: str | Path | None = None,
    validation: int = VALIDATION,
    labelled: int | None = None,
    share: float = 0.1,
    label_seed: int = 0,
) -> ImageSet:
    """MNIST (LeCun, Cortes, Burges); fetched if need be, its files verified at every load.

    Args:
        root: a folder that holds ``MNIST/raw/*-ubyte`` (as torchvision lays it out) instead of the cache.
        validation: how many of the official training images, the last ones, are for validation.
        labelled, share, label_seed: only so many training images keep their label, see `partly_labelled`.

    Raises:
        ZooError: it cannot be fetched, or the files below ``root`` are not the official ones.
    """
    loaded = _load("mnist", "MNIST", tuple("0123456789"), root, validation)
    return loaded if labelled is None else partly_labelled(loaded, labelled, share, label_seed)


def load_fashion_mnist(root: str | Path | None = None) -> ImageSet:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), as `load_mnist`: ``FashionMNIST/raw`` below ``root``."""
    return _load("fashion_mnist", "FashionMNIST", FASHION, root)


def partly_labelled(images: ImageSet, labelled: int, share: float = 0.1, seed: int = 0) -> ImageSet:
    """The set with ``labelled`` training images, as many of each class, whose label is known; that of all others is -1.

    Every image is there once without its label. Those that are labelled come again with it, repeated until they are
    ``share`` of what an epoch visits: a batch then has some. Validation and test keep their labels.

    Raises:
        UsageError: it cannot be shared out evenly, or there are not so many.
    """
    train, classes = images["train"], images.spec.classes
    if labelled < 1 or labelled % classes or not 0 < share < 1:
        raise UsageError(f"labelled is a multiple of the {classes} classes, and share lies between 0 and 1.")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    each = [order[train.labels[order] == c][: labelled // classes] for c in range(classes)]
    if min(map(len, each)) < labelled // classes:
        raise UsageError(f"there are no {labelled // classes} training images of every class.")
    known = torch.cat(each)
    repeats = max(1, round(len(train) * share / (1 - share) / labelled))
    index = torch.cat([torch.arange(len(train)), known.repeat(repeats)])
    made = train.take(index)
    labels = torch.cat([torch.full((len(train),), -1), train.labels[known].repeat(repeats)])
    return replace(images, splits={**images.splits, "train": replace(made, labels=labels)}, known_sha256=None)


def _load(
    name: str, top: str, classes: tuple[str, ...], root: str | Path | None, validation: int = VALIDATION
) -> ImageSet:
    folder = official(name, root)
    images, labels, test_images, test_labels = (read_idx(folder / top / "raw" / file) for file in IDX_FILES)
    if not 0 < validation < len(images):
        raise UsageError(f"validation is a number of images below {len(images)}, not {validation}.")
    cut = len(images) - validation
    splits = {
        "train": _images(images[:cut], labels[:cut]),
        "validation": _images(images[cut:], labels[cut:]),
        "test": _images(test_images, test_labels),
    }
    return ImageSet(name, splits, DataSpec((1, 28, 28), "8-bit", classes=10), classes=classes)


def _images(pixels: np.ndarray, labels: np.ndarray) -> Images:
    return Images(pixels[:, None], torch.from_numpy(labels.astype(np.int64)))
