"""Static MNIST from the user's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.data import static_mnist
from zoo.data.static_mnist import load_static_mnist, read_bits
from zoo.errors import UsageError, ZooError


def write(path: Path, bits: np.ndarray) -> None:
    path.write_text("\n".join(" ".join(map(str, row)) for row in bits) + "\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(static_mnist, "SIZES", {"train": 5, "validation": 3, "test": 2})
    for seed, (split, name) in enumerate(static_mnist.FILES.items()):
        bits = np.random.default_rng(seed).integers(0, 2, (static_mnist.SIZES[split], 784))
        write(tmp_path / name, bits)
    return tmp_path


def test_bits_are_as_in_the_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAE_ZOO_STATIC_MNIST", str(folder))
    images = load_static_mnist()
    assert images.sizes == {"train": 5, "validation": 3, "test": 2} and images.spec.support == "binary"
    expected = np.random.default_rng(1).integers(0, 2, (3, 784))
    assert torch.equal(images["validation"].pixels.flatten(1), torch.from_numpy(expected * 255).to(torch.uint8))


def test_what_is_missing_or_wrong_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAE_ZOO_STATIC_MNIST", raising=False)
    with pytest.raises(UsageError, match=r"VAE_ZOO_STATIC_MNIST, which is not set; its files: https\S+\.$"):
        load_static_mnist()
    with pytest.raises(ZooError, match="does not hold 6 images of 784 bits"):
        read_bits(folder / static_mnist.FILES["train"], 6)
    write(folder / static_mnist.FILES["test"], np.full((2, 784), 7))
    with pytest.raises(ZooError, match="does not hold 2 images"):
        load_static_mnist(folder)
    (folder / static_mnist.FILES["train"]).unlink()
    with pytest.raises(UsageError, match=r"cannot be read .* it is at https\S+\.$"):
        load_static_mnist(folder)
