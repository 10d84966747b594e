"""Networks that turn images into feature vectors, each with the identity that a metric's name carries.

Images go in as bytes, because that is what they are saved as: floats in [0, 1] are rounded to the nearest
byte first, so that a float and a uint8 copy of the same images have the same score. Weights are read once and
checked by hash.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from benchmarks.digits import model as digits
from benchmarks.interrupt import stoppable
from benchmarks.metrics import weights
from benchmarks.metrics.features import in_range
from benchmarks.metrics.inception import fold, inception_network
from benchmarks.progress import progress
from zoo.data.images import hash_into
from zoo.errors import UsageError, unknown
from zoo.files import atomic_write, cache_dir

log = logging.getLogger(__name__)
PART = 1000


def as_bytes(images: Any, name: str = "images") -> Tensor:
    """(N, C, H, W) uint8 from uint8, or from floats in [0, 1]; C is 1 or 3.

    Raises UsageError, in a sentence, for any other shape or type, and for floats that are NaN or out of
    range.
    """
    images = images.detach() if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UsageError(
            f"{name} must be (N, C, H, W) with 1 or 3 channels, but the shape is {tuple(images.shape)}."
        )
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise UsageError(
            f"{name} must be uint8, or floats in [0, 1], not {str(images.dtype).removeprefix('torch.')}."
        )
    if not in_range(images):
        low, high = (float(bound) for bound in images.aminmax())
        reach = f"they reach from {low:g} to {high:g}; bytes go in as uint8"
        raise UsageError(f"{name} must be floats in [0, 1], but {reach}.")
    return (images.float() * 255).round().clamp(0, 255).to(torch.uint8)


class Extractor:
    """Images to features. Subclasses set the attributes and give `features`.

    Attributes:
        name: as metrics are called after it (``fd_<name>``).
        dimensions: D.
        identity: plain scalars that make two scores comparable when all are equal: extractor, the SHA-256
            of its weights, input size, how images of another size are resized, how they are scaled.
        batch: images at a time.
        slow: it takes a CPU minutes, so that features are worth keeping on the way.
    """

    name: str
    dimensions: int
    batch: int = 64
    slow: bool = False

    def __init__(
        self, network: nn.Module, identity: dict[str, Any], device: str | torch.device = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.identity = {"extractor": self.name, "dimensions": self.dimensions, **identity}

    def features(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) on the device -> (B, D)."""
        raise NotImplementedError

    def __call__(self, images: Any) -> Tensor:
        """uint8 (or float in [0, 1]) (N, C, H, W) -> float32 (N, D) on the CPU; UsageError as `as_bytes`."""
        images = as_bytes(images)
        self.check(images)
        if not len(images):
            raise UsageError("there are no images to extract features from.")
        parts = []
        with (
            torch.no_grad(),
            exact_float32(),
            progress(len(images), f"{self.name} features", "image") as bar,
        ):
            for part in stoppable(images.split(self.batch)):
                parts.append(self.features(part.to(self.device)).float().cpu())
                bar.update(len(part))
        return torch.cat(parts)

    def check(self, images: Tensor) -> None:
        """Raise UsageError for uint8 (N, C, H, W) that this network has no use for."""

    def cached(self, images: Any, key: str | None) -> Tensor:
        """`__call__`, remembered below ``cache_dir()/features`` when there is a ``key``.

        The key becomes part of the file's name for people to read. What is remembered is found by a hash of the
        images' bytes and of the identity: a wrong key makes a badly named file, never a wrong number. A file that
        cannot be read is made again, and one that was interrupted goes on. Where nothing can be written nothing is
        remembered, with one warning.
        """
        if key is None:
            return self(images)
        images = as_bytes(images)
        path = cache_dir() / "features" / f"{self.name}-{_plain(key)}-{self._digest(images)[:20]}.safetensors"
        kept = self._kept(path, len(images))
        if kept is None:
            parts = path.with_suffix(".parts")
            kept = self.in_parts(images, parts, _remember)
            _remember(path, save({"features": kept.contiguous()}))
            shutil.rmtree(parts, ignore_errors=True)
        return kept

    def in_parts(
        self, images: Any, folder: Path, write: Callable[[Path, bytes], None] = atomic_write
    ) -> Tensor:
        """`__call__`, a thousand images at a time, each part kept in ``folder``: what was killed goes on from there.
        Removing the folder is left to the caller. A part is found by a hash of its images, as in `cached`."""
        images = as_bytes(images)
        found = []
        for part in images.split(PART):
            path = folder / f"{self._digest(part)[:20]}.safetensors"
            features = self._kept(path, len(part))
            if features is None:
                features = self(part)
                write(path, save({"features": features.contiguous()}))
            found.append(features)
        return torch.cat(found) if found else self(images)

    def _kept(self, path: Path, n: int) -> Tensor | None:
        with contextlib.suppress(Exception):
            kept = load_file(path)["features"]
            if kept.shape == (n, self.dimensions):
                return kept
        return None

    def _digest(self, images: Tensor) -> str:
        digest = hashlib.sha256(f"{sorted(self.identity.items())} {tuple(images.shape)}\n".encode())
        hash_into(digest, images)
        return digest.hexdigest()


class Inception(Extractor):
    """The Inception of FID: 2048 pooled features, with the input treated as pytorch-fid treats it.

    Bytes / 255, bilinear to 299 x 299 without antialiasing, scaled to [-1, 1]; grey is repeated to three
    channels.
    """

    name = "inception"
    dimensions = 2048
    batch = 50
    slow = True
    arithmetic = torch.float32

    def __init__(self, device: str | torch.device = "cpu") -> None:
        network = self.prepared(inception_network(weights.inception_weights()))
        identity = {
            "weights": "inception-2015-12-05",
            "sha256": weights.INCEPTION_SHA256,
            "input": 299,
            "resize": "bilinear, no antialias",
            "scale": "2x/255 - 1",
        }
        if self.arithmetic != torch.float32:
            identity["arithmetic"] = str(self.arithmetic).removeprefix("torch.")
        super().__init__(network, identity, device)

    def prepared(self, network: nn.Module) -> nn.Module:
        return network

    def features(self, images: Tensor) -> Tensor:
        x = F.interpolate(
            _colour(images).float() / 255, size=(299, 299), mode="bilinear", align_corners=False
        )
        x = (2 * x - 1).to(self.arithmetic, memory_format=torch.channels_last)
        return self.network(x).flatten(1)


class InceptionBFloat16(Inception):
    """The same network computed in bfloat16, for processors that have it: half the time.

    Its features are 2 % off and its distances under 1 % (docs/metrics.md), so they have a name of their own.
    """

    name = "inception_bf16"
    arithmetic = torch.bfloat16

    def prepared(self, network: nn.Module) -> nn.Module:
        fold(network)
        return network.to(self.arithmetic)


class EfficientNetLite0(Extractor):
    """EfficientNet-Lite0 at 64 x 64, 1280 pooled features: light, for colour images on a CPU.

    It was trained at 224 x 224. At 64 an image costs an eighteenth, the last maps are 2 x 2 instead of 7 x 7, and the
    features have nineteen times the variance: its distances are as much larger (two halves of 2 000 faces: 286
    against 12.2), and a number of one size says nothing beside one of the other.
    """

    name = "efficientnet_lite0"
    dimensions = 1280
    size = 64

    def __init__(self, device: str | torch.device = "cpu") -> None:
        import timm  # takes seconds

        path = weights.efficientnet_weights()
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        network.load_state_dict(load_file(path))
        network.reset_classifier(0)
        identity = {
            "sha256": weights.EFFICIENTNET_SHA256,
            "input": self.size,
            "resize": "bilinear, antialias",
            "scale": "(x - 127) / 128",
        }
        super().__init__(network, identity, device)

    def features(self, images: Tensor) -> Tensor:
        return self.network((_resize(_colour(images).float(), self.size) - 127) / 128)


class Digits(Extractor):
    """The project's own digit classifier, 64 features: for grey digits, and quick on a CPU."""

    name = "digits"
    dimensions = digits.FEATURES
    size = 28
    batch = 500

    def __init__(self, device: str | torch.device = "cpu") -> None:
        identity = {
            "sha256": digits.SHA256,
            "input": self.size,
            "resize": "bilinear, antialias",
            "scale": "x/255",
        }
        super().__init__(digits.load_digit_classifier(), identity, device)

    def check(self, images: Tensor) -> None:
        if images.shape[1] != 1:
            raise UsageError(
                "the digit classifier looks at grey images; use efficientnet_lite0 or inception for colour."
            )

    def features(self, images: Tensor) -> Tensor:
        return self.network.features(_resize(images.float(), self.size) / 255)


EXTRACTORS: dict[str, type[Extractor]] = {
    kind.name: kind for kind in (Inception, InceptionBFloat16, EfficientNetLite0, Digits)
}


def make_extractor(name: str, device: str | torch.device = "cpu") -> Extractor:
    """The extractor of that name. UsageError for another name, ZooError when its weights are unreachable."""
    if name not in EXTRACTORS:
        raise unknown("extractor", name, EXTRACTORS, "zoo fid --help")
    return EXTRACTORS[name](device)


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Full float32 inside: no autocast, no TF32, whatever the training around it has chosen."""
    matmul = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    cudnn = torch.backends.cudnn
    try:
        with (
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)


def _remember(path: Path, content: bytes) -> None:
    try:
        atomic_write(path, content)
    except OSError as error:  # a cache that others fetched into, or a full disk: no number needs it
        _forgotten(cache_dir(), error.strerror)


@functools.cache
def _forgotten(cache: Path, reason: str) -> None:
    log.warning("%s cannot be written (%s): features of reference images are not remembered.", cache, reason)


def _colour(images: Tensor) -> Tensor:
    return images if images.shape[1] == 3 else images.expand(-1, 3, -1, -1)


def _resize(x: Tensor, size: int) -> Tensor:
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def _plain(key: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in key)[:60]
