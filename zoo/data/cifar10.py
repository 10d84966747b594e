"""CIFAR-10: 32x32 RGB in ten classes, 45,000 training / 5,000 validation / 10,000 test images.

After Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, from its authors' binary version, whose
records are a byte for the class and 3 x 1,024 for red, green and blue. The validation split is the last 5,000 of the
official 50,000 training images, or as many as ``validation`` says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.data.fetch import CIFAR10_FOLDER, CIFAR10_TEST, CIFAR10_TRAIN, official
from zoo.data.images import DataSpec, Images, ImageSet, pieces
from zoo.errors import UsageError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
RECORD = np.dtype([("label", np.uint8), ("pixels", np.uint8, SHAPE)])
VALIDATION = 5_000


def load_cifar10(root: str | Path | None = None, validation: int = VALIDATION) -> ImageSet:
    """CIFAR-10; fetched if need be, its files verified at every load.

    Args:
        root: a folder that holds ``cifar-10-batches-bin`` instead of the cache.
        validation: how many of the official training images, the last ones, are for validation.

    Raises:
        UsageError: ``validation`` leaves no images.
        ZooError: it cannot be fetched, or the files below ``root`` are not the official ones.
    """
    folder = official("cifar10", root) / CIFAR10_FOLDER
    train = np.concatenate([np.fromfile(folder / name, RECORD) for name in CIFAR10_TRAIN])
    if not 0 < validation < len(train):
        raise UsageError(f"validation is a number of images below {len(train)}, not {validation}.")
    parts = pieces({"train": len(train) - validation, "validation": validation})
    splits = {split: _images(train[part]) for split, part in parts.items()}
    splits["test"] = _images(np.fromfile(folder / CIFAR10_TEST, RECORD))
    return ImageSet("cifar10", splits, DataSpec(SHAPE, "8-bit", classes=len(CLASSES)), classes=CLASSES)


def _images(records: np.ndarray) -> Images:
    return Images(np.ascontiguousarray(records["pixels"]), records["label"].astype(np.int64))
