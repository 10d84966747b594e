"""Static MNIST: the bits that Larochelle drew once, on which many published numbers were made.

Larochelle and Murray, The Neural Autoregressive Distribution Estimator, AISTATS 2011. The three files lie at
https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/ as text, an image a line; put them into the folder
that $VAE_ZOO_STATIC_MNIST names. They hold no labels.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from zoo.data.images import SPLITS, DataSpec, Images, ImageSet
from zoo.errors import UsageError, ZooError
from zoo.files import expanded

ADDRESS = "https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
FILES = {"train": "binarized_mnist_train.amat", "validation": "binarized_mnist_valid.amat",
         "test": "binarized_mnist_test.amat"}  # fmt: skip
SIZES = {"train": 50_000, "validation": 10_000, "test": 10_000}
PIXELS = 784


def load_static_mnist(root: str | Path | None = None) -> ImageSet:
    """50,000 / 10,000 / 10,000 images of 28x28 bits.

    Args:
        root: the folder of the three files, instead of $VAE_ZOO_STATIC_MNIST.

    Raises:
        UsageError: there is no such folder or file.
        ZooError: a file is not what it should be.
    """
    given = root or os.environ.get("VAE_ZOO_STATIC_MNIST")
    if not given:
        raise UsageError(f"static MNIST is read from $VAE_ZOO_STATIC_MNIST, which is not set; its files: {ADDRESS}.")
    folder = expanded(given)
    splits = {split: Images(read_bits(folder / FILES[split], SIZES[split])) for split in SPLITS}
    return ImageSet("mnist_static", splits, DataSpec((1, 28, 28), "binary"))


def read_bits(path: Path, lines: int) -> np.ndarray:
    """uint8 (lines, 1, 28, 28) of 0 and 255, from a text of 0 and 1 with a space between them and an image a line."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); it is at {ADDRESS}{path.name}.") from None
    bits = np.frombuffer(text.translate(None, b" \r\n\t"), dtype=np.uint8) - ord("0")
    if bits.size != lines * PIXELS or bits.max(initial=0) > 1:
        raise ZooError(f"{path} does not hold {lines:,} images of {PIXELS} bits.")
    return (bits * 255).reshape(lines, 1, 28, 28)
