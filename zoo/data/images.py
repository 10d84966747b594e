"""What a dataset is: uint8 pictures with labels, factors or attributes, in fixed splits with a hash."""

from __future__ import annotations

import hashlib
import itertools
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from zoo.errors import UsageError
from zoo.files import canonical_json, fingerprint

Support = Literal["binary", "8-bit", "dequantised", "real"]
Binarise = Literal["none", "threshold", "dynamic"]
Dequantise = Literal["none", "uniform"]
FactorKind = Literal["exact", "attributes", "measured"]
SPLITS = ("train", "validation", "test")
SUPPORTS = get_args(Support)
TEST_BITS_SEED = 777


@dataclass(frozen=True)
class DataSpec:
    """What a model must know of its data before any is loaded.

    Attributes:
        shape: (C, H, W).
        support: ``"binary"`` (x is 0 or 1), ``"8-bit"`` (x is byte/255), ``"dequantised"`` (x is (byte + u)/256 for u
            uniform in [0, 1)) or ``"real"`` (x is any float).
        classes: number of classes of the label, 0 without labels.
        attributes: number of named yes/no attributes.
    """

    shape: tuple[int, int, int]
    support: Support
    classes: int = 0
    attributes: int = 0

    def __post_init__(self) -> None:
        # What numpy counts is no number that JSON has.
        object.__setattr__(self, "shape", tuple(map(operator.index, self.shape)))
        for name in ("classes", "attributes"):
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape is (C, H, W), not {self.shape}")
        if self.support not in SUPPORTS:
            raise ValueError(f"support is {', '.join(map(repr, SUPPORTS))}, not {self.support!r}")

    @property
    def dims(self) -> int:
        """Numbers per example, C*H*W."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def prepared(self, binarise: Binarise, dequantise: Dequantise = "none") -> DataSpec:
        """The spec after `ImageSet.prepare`; ``UsageError`` where that makes no sense."""
        if binarise not in ("none", "threshold", "dynamic"):
            raise UsageError(f"binarise is 'none', 'threshold' or 'dynamic', not {binarise!r}.")
        if dequantise not in ("none", "uniform"):
            raise UsageError(f"dequantise is 'none' or 'uniform', not {dequantise!r}.")
        if dequantise == "uniform":
            if self.support != "8-bit" or binarise != "none":
                support = "binary" if self.support == "8-bit" else self.support
                raise UsageError(f"{support} data cannot be dequantised: dequantise 'uniform' needs 8-bit pixels.")
            return replace(self, support="dequantised")
        if binarise == "none":
            return self
        if self.support != "8-bit":
            raise UsageError(
                f"{self.support} data cannot be binarised: binarise '{binarise}' needs 8-bit pixels."
            )
        return replace(self, support="binary")


@dataclass(frozen=True, eq=False)
class Images:
    """One split: pictures and what is known about each.

    Attributes:
        pixels: uint8 (N, C, H, W), binary data as 0 and 255; float32 for real data. May be a memory map.
        labels: int64 (N,) class numbers, or None.
        factors: int64 (N, F), the index of each factor's value, or None.
        factor_names, factor_sizes: F names and numbers of values.
        factor_kind: ``"exact"`` (generated), ``"attributes"`` (annotated) or ``"measured"`` (from the
            pixels).
        attributes: uint8 (N, A) of 0 and 1, or None.
        attribute_names: A names.
        noise_seed: of dequantised bytes the seed of what `Batches` adds to them, else None.

    numpy arrays are accepted for any of them and become tensors over the same memory.
    """

    pixels: Tensor
    labels: Tensor | None = None
    factors: Tensor | None = None
    factor_names: tuple[str, ...] = ()
    factor_sizes: tuple[int, ...] = ()
    factor_kind: FactorKind | None = None
    attributes: Tensor | None = None
    attribute_names: tuple[str, ...] = ()
    noise_seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("pixels", "labels", "factors", "attributes"):
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, name, _as_tensor(value))
        object.__setattr__(self, "factor_names", tuple(self.factor_names))
        object.__setattr__(self, "factor_sizes", tuple(int(size) for size in self.factor_sizes))
        object.__setattr__(self, "attribute_names", tuple(self.attribute_names))
        if self.pixels.ndim != 4 or self.pixels.dtype not in (torch.uint8, torch.float32):
            raise ValueError(
                f"pixels are uint8 or float32 (N, C, H, W), not {self.pixels.dtype} {(*self.pixels.shape,)}"
            )
        if self.noise_seed is not None and self.pixels.dtype != torch.uint8:
            raise ValueError("only bytes are dequantised")
        self._check("labels", torch.int64, ())
        self._check("factors", torch.int64, (len(self.factor_names),))
        self._check("attributes", torch.uint8, (len(self.attribute_names),))
        if (self.factors is None) != (self.factor_kind is None):
            raise ValueError("factors and factor_kind come together")
        if self.factors is not None:
            if len(self.factor_sizes) != len(self.factor_names):
                raise ValueError("factor_sizes has one number for each of factor_names")
            sizes = torch.tensor(self.factor_sizes)
            if len(self.factors) and not bool(((self.factors >= 0) & (self.factors < sizes)).all()):
                raise ValueError(f"factors are indices below factor_sizes {self.factor_sizes}")

    def _check(self, name: str, dtype: torch.dtype, rest: tuple[int, ...]) -> None:
        value = getattr(self, name)
        if value is None:
            if rest not in ((), (0,)):
                raise ValueError(f"names are given for {name}, but no {name}")
            return
        expected = (len(self.pixels), *rest)
        if value.dtype != dtype or tuple(value.shape) != expected:
            raise ValueError(f"{name} are {dtype} {expected}, not {value.dtype} {tuple(value.shape)}")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return tuple(self.pixels.shape[1:])  # type: ignore[return-value]

    def subset(self, n: int) -> Images:
        """The first ``n`` pictures (all, if there are fewer), sharing memory with this split."""
        if n < 0:
            raise ValueError(f"cannot take {n} images")
        return self.take(slice(0, n))

    def take(self, index: slice | Tensor) -> Images:
        """The pictures at ``index``."""
        kept = {
            name: None if (value := getattr(self, name)) is None else value[index]
            for name in ("pixels", "labels", "factors", "attributes")
        }
        return replace(self, **kept)

    @cached_property
    def sha256(self) -> str:
        """Hash of shapes, types and bytes of pixels, labels, factors and attributes."""
        digest = hashlib.sha256()
        for name in ("pixels", "labels", "factors", "attributes"):
            value = getattr(self, name)
            if value is not None:
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                hash_into(digest, value)
        digest.update(canonical_json([self.factor_names, self.factor_sizes, self.attribute_names]).encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A dataset: its name, its three splits, and the spec of what `Batches` will yield from it.

    Attributes:
        name: as in the registry.
        splits: ``"train"``, ``"validation"``, ``"test"`` -> `Images` of one shape.
        spec: shape, support and number of classes and attributes.
        classes: names of the classes.
        binarise, dequantise: how it was prepared; with ``"dynamic"`` the training split holds grey bytes still, and
            with ``"uniform"`` all of them do.
        test_bits_seed: the seed of the validation and test bits, or of the noise on those bytes, when they were drawn.
        render: factor indices (N, F) -> uint8 pixels (N, C, H, W), for sets that are generated.
        known_sha256: the content hash, when whoever built the set knows it already.
    """

    name: str
    splits: Mapping[str, Images]
    spec: DataSpec
    classes: tuple[str, ...] = ()
    binarise: Binarise = "none"
    dequantise: Dequantise = "none"
    test_bits_seed: int | None = None
    render: Callable[[np.ndarray], np.ndarray] | None = None
    known_sha256: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if tuple(self.splits) != SPLITS:
            raise ValueError(f"splits are {SPLITS}, not {tuple(self.splits)}")
        if self.classes and len(self.classes) != self.spec.classes:
            raise ValueError(f"{len(self.classes)} names for {self.spec.classes} classes")
        pixel = torch.float32 if self.spec.support == "real" else torch.uint8
        for split, images in self.splits.items():
            if images.shape != tuple(self.spec.shape) or images.pixels.dtype != pixel:
                raise ValueError(
                    f"{split} is {images.pixels.dtype} {images.shape}; not {pixel} {self.spec.shape}"
                )
            if (images.labels is not None) != (self.spec.classes > 0):
                raise ValueError(f"{split}: labels and {self.spec.classes} classes do not agree")
            if images.labels is not None and len(images):
                low, high = (int(label) for label in images.labels.aminmax())
                if low < -1 or high >= self.spec.classes:
                    classes = f"from 0 to {self.spec.classes - 1}, or -1 where nobody knows"
                    raise ValueError(f"{split}: labels are classes {classes}; not from {low} to {high}")
            if len(images.attribute_names) != self.spec.attributes:
                raise ValueError(
                    f"{split}: {len(images.attribute_names)} attributes, not {self.spec.attributes}"
                )

    def __getitem__(self, split: str) -> Images:
        if split not in self.splits:
            raise UsageError(f"no split '{split}': the splits are {', '.join(SPLITS)}.")
        return self.splits[split]

    def __len__(self) -> int:
        return sum(len(images) for images in self.splits.values())

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images of each split."""
        return {split: len(images) for split, images in self.splits.items()}

    @cached_property
    def sha256(self) -> str:
        """Content hash of the splits as they were loaded; preparing keeps it, a smaller subset changes it."""
        if self.known_sha256 is not None:
            return self.known_sha256
        parts = {split: images.sha256 for split, images in self.splits.items()}
        return fingerprint(parts)

    def check_pixels(self) -> None:
        """Read every pixel of binary or real data once; bytes of 8-bit data are right whatever they are.

        Raises:
            UsageError: binary data holds a byte between 0 and 255 (unless it is still to be drawn, as the training
                split of ``"dynamic"`` is), or real data NaN or infinity.
        """
        if self.spec.support in ("8-bit", "dequantised"):
            return
        holds = "NaN or infinity" if self.spec.support == "real" else "bytes other than 0 and 255"
        for split, images in self.splits.items():
            if split == "train" and self.binarise == "dynamic":
                continue
            wrong = sum(int(_wrong(part).flatten(1).any(1).sum()) for part in images.pixels.split(8192))
            if wrong:
                raise UsageError(
                    f"'{self.name}' is {self.spec.support} data, and {wrong:,} of the {len(images):,} images of its "
                    f"{split} split hold {holds}."
                )

    def subset(self, n: int | Mapping[str, int]) -> ImageSet:
        """The first images of each split: ``n`` of each, or ``{"train": 1000}`` for those named.

        Its hash is a function of this set's hash and the sizes, so that nothing is read again.
        """
        wanted = dict.fromkeys(SPLITS, n) if isinstance(n, int) else dict(n)
        for split in wanted:
            self[split]
        splits = {s: images.subset(wanted[s]) if s in wanted else images for s, images in self.splits.items()}
        sizes = {split: len(images) for split, images in splits.items()}
        if sizes == self.sizes:
            return self
        mark = fingerprint({"of": self.sha256, "first": sizes})
        return replace(self, splits=splits, known_sha256=mark)

    def prepare(
        self, binarise: Binarise, test_bits_seed: int = TEST_BITS_SEED, dequantise: Dequantise = "none"
    ) -> ImageSet:
        """The set as a run uses it.

        ``"none"``: bytes as they are. ``"threshold"``: 255 where the byte is over 127, else 0. ``"dynamic"``:
        1 with probability byte/255; the training split keeps its bytes (`Batches` draws anew at each visit),
        validation and test are drawn once, here, on the CPU from ``test_bits_seed`` (the test split;
        validation takes the next number), the same on every device and for every subset.

        With ``dequantise="uniform"`` x is (byte + u) / 256 for u uniform in [0, 1). `Batches` draws u where the model
        lives: in training anew at each visit, in evaluation by the same seeds and the number of the image in its split.

        Raises:
            UsageError: the set is binary or real by nature, or was prepared already.
        """
        spec = self.spec.prepared(binarise, dequantise)
        if dequantise == "uniform":
            seeds = {split: _seed_of(split, test_bits_seed) for split in self.splits}
            noisy = {split: replace(images, noise_seed=seeds[split]) for split, images in self.splits.items()}
            changed = dict(splits=noisy, spec=spec, dequantise=dequantise, test_bits_seed=test_bits_seed)
            return replace(self, known_sha256=self.sha256, **changed)
        if binarise == "none":
            return self
        if binarise == "threshold":
            bits = {split: _bytes(images.pixels > 127) for split, images in self.splits.items()}
        else:
            drawn = ("validation", "test")
            bits = {split: _draw_bits(self[split].pixels, _seed_of(split, test_bits_seed)) for split in drawn}
        splits = {s: replace(i, pixels=bits[s]) if s in bits else i for s, i in self.splits.items()}
        return replace(
            self,
            splits=splits,
            spec=spec,
            binarise=binarise,
            test_bits_seed=test_bits_seed if binarise == "dynamic" else None,
            render=None,
            known_sha256=self.sha256,
        )

    def with_training_bits(self) -> ImageSet:
        """The set with the bits of its training split drawn once as well, as those of the others are, from the number
        after that of validation; the set itself where no bits are drawn anew."""
        if self.binarise != "dynamic":
            return self
        train = self["train"]
        bits = replace(train, pixels=_draw_bits(train.pixels, self.bits_seed("train")))
        return replace(self, splits={**self.splits, "train": bits}, known_sha256=self.sha256)

    def bits_seed(self, split: str) -> int | None:
        """The seed of the bits of a split, of training in `with_training_bits`; None where no bits are drawn."""
        return None if self.test_bits_seed is None else _seed_of(split, self.test_bits_seed)

    def observe(self, factors: np.ndarray | Tensor) -> Tensor:
        """Pictures of chosen factor values: indices (N, F) -> uint8 (N, C, H, W).

        Raises:
            UsageError: the pictures of this set are not generated from factors.
        """
        if self.render is None:
            raise UsageError(f"{self.name} has no renderer: its pictures cannot be made from chosen factors.")
        index = np.asarray(factors, dtype=np.int64)
        sizes = np.asarray(self["train"].factor_sizes)
        if index.ndim != 2 or index.shape[1] != len(sizes) or (index < 0).any() or (index >= sizes).any():
            raise ValueError(f"factors are indices (N, {len(sizes)}) below {tuple(sizes)}")
        return torch.from_numpy(self.render(index))


def pieces(sizes: Mapping[str, int]) -> dict[str, slice]:
    """Where each split lies, of so many images each, that lie one split after the other."""
    ends = itertools.accumulate(sizes.values())
    return {split: slice(end - size, end) for (split, size), end in zip(sizes.items(), ends, strict=True)}


def hash_into(digest: Any, values: Tensor) -> None:
    """Add the bytes of a tensor to a ``digest`` of hashlib, a piece at a time: they may be a memory map's."""
    for part in values.split(8192):
        digest.update(part.cpu().contiguous().numpy().data)


def _seed_of(split: str, test_bits_seed: int) -> int:
    return test_bits_seed + ("test", "validation", "train").index(split)


def _draw_bits(pixels: Tensor, seed: int) -> Tensor:
    # byte > r with r uniform on 0..254 is true with probability byte/255 exactly; drawn in order, so that the
    # bits of the first n images do not depend on how many follow.
    generator = torch.Generator().manual_seed(seed)
    parts = [
        _bytes(part > torch.randint(0, 255, part.shape, generator=generator, dtype=torch.uint8))
        for part in pixels.split(4096)
    ]
    return torch.cat(parts) if parts else pixels.clone()


def _wrong(pixels: Tensor) -> Tensor:
    # Of binary or real data.
    return (pixels != 0) & (pixels != 255) if pixels.dtype == torch.uint8 else ~pixels.isfinite()


def _bytes(bits: Tensor) -> Tensor:
    return bits.to(torch.uint8) * 255


def _as_tensor(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # A read-only array is fine: nothing here writes into pixels.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
