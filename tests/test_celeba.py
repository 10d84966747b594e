"""CelebA from a user's copy: right pixels, right attributes, and a clear word about a damaged copy."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data import celeba
from zoo.data.celeba import decode_image, load_celeba
from zoo.errors import UsageError, ZooError

NAMES = [f"{k:06d}.jpg" for k in range(1, 13)]
PARTS = [0] * 6 + [1] * 3 + [2] * 3
MARKS = np.random.default_rng(0).integers(0, 2, (12, 4))


def jpeg(k: int, size: tuple[int, int] = (178, 218)) -> bytes:
    """A smooth picture that is a different one for each k."""
    y, x = np.mgrid[: size[1], : size[0]]
    picture = np.stack([(x + 17 * k) % 256, y % 256, (x + y + 5 * k) // 2 % 256], -1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up copy of twelve pictures that are no faces, as an unpacked folder with annotation files."""
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VAE_ZOO_CELEBA", raising=False)
    folder = tmp_path / "copy"
    (folder / "img_align_celeba").mkdir(parents=True)
    for k, name in enumerate(NAMES):
        (folder / "img_align_celeba" / name).write_bytes(jpeg(k))
    lines = [
        f"{name} " + " ".join(f"{2 * mark - 1:2d}" for mark in marks)
        for name, marks in zip(NAMES, MARKS, strict=True)
    ]
    (folder / celeba.ATTRIBUTES_FILE).write_text("12\nBald Bangs Male Young \n" + "\n".join(lines) + "\n")
    (folder / celeba.PARTITION_FILE).write_text(
        "".join(f"{n} {p}\n" for n, p in zip(NAMES, PARTS, strict=True))
    )
    digests = {
        name: hashlib.md5((folder / name).read_bytes()).hexdigest()
        for name in (celeba.ATTRIBUTES_FILE, celeba.PARTITION_FILE)
    }
    monkeypatch.setattr(celeba, "ANNOTATION_MD5", digests)
    return folder


def zipped(folder: Path) -> Path:
    path = folder / "img_align_celeba.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for image in sorted((folder / "img_align_celeba").iterdir()):
            archive.write(image, f"img_align_celeba/{image.name}")
            image.unlink()
    (folder / "img_align_celeba").rmdir()
    return path


def built(folder: Path) -> list[str]:
    cache = folder.parent / "cache" / "celeba"
    return sorted(p.name for p in cache.iterdir() if p.name != ".lock") if cache.is_dir() else []


def test_splits_pixels_and_attributes_belong_together(copy: Path) -> None:
    data = load_celeba(copy)
    assert data.sizes == {"train": 6, "validation": 3, "test": 3}
    assert data.spec.shape == (3, 64, 64) and data.spec.attributes == 4 and data.spec.classes == 0
    start = 0
    for split in data.splits.values():
        for row, image in enumerate(split.pixels):
            assert np.array_equal(image.numpy(), decode_image(jpeg(start + row), 64))
        assert split.attributes.tolist() == MARKS[start : start + len(split)].tolist()
        assert split.factors.tolist() == split.attributes.tolist()
        start += len(split)
    assert data["test"].factor_names == ("Bald", "Bangs", "Male", "Young")
    assert data["test"].factor_kind == "attributes" and data["test"].factor_sizes == (2, 2, 2, 2)


def test_a_zip_gives_what_the_folder_gives(copy: Path) -> None:
    unpacked = load_celeba(copy)
    zipped(copy)
    packed = load_celeba(copy)
    assert packed.sha256 == unpacked.sha256
    assert torch.equal(packed["validation"].pixels, unpacked["validation"].pixels)


@pytest.mark.parametrize("crop, top", [("center", 35), ("larsen", 40)])
def test_the_crop_is_where_it_says(crop: str, top: int) -> None:
    picture = np.zeros((218, 178, 3), np.uint8)
    picture[top : top + 148, 15:163] = 255
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    assert decode_image(buffer.getvalue(), 64, crop).min() == 255
    picture[top, :] = 0  # the first row belongs to the crop
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    assert decode_image(buffer.getvalue(), 148, crop)[:, 0].max() == 0


def test_resizing_is_antialiased() -> None:
    picture = np.zeros((218, 178, 3), np.uint8)
    picture[::2] = 255  # one-pixel stripes: without antialiasing they alias into black and white bands
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    for resize in celeba.FILTERS:
        small = decode_image(buffer.getvalue(), 64, resize=resize).astype(int)
        assert np.abs(small - 127.5).max() < 60, resize


def test_it_is_built_once_and_again_when_damaged(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    real = celeba.decode_image
    monkeypatch.setattr(celeba, "decode_image", lambda *args: decoded.append(1) or real(*args))
    digest = load_celeba(copy).sha256
    load_celeba(copy)
    assert len(decoded) == 12 and len(built(copy)) == 2
    (path,) = (copy.parent / "cache" / "celeba").glob("*.u8")
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    assert load_celeba(copy).sha256 == digest and len(decoded) == 24
    path.write_bytes(content[:-1])
    load_celeba(copy)
    path.with_suffix(".json").write_text("{")
    load_celeba(copy)
    assert len(decoded) == 48
    assert load_celeba(copy, crop="larsen").sha256 != digest and len(built(copy)) == 4


def test_a_build_that_was_killed_is_redone_and_cleared_away(copy: Path) -> None:
    digest = load_celeba(copy).sha256
    (path,) = (copy.parent / "cache" / "celeba").glob("*.u8")
    path.rename(path.parent / f".{path.name}.abc.part")  # killed before the rename
    assert load_celeba(copy).sha256 == digest
    assert sorted(built(copy)) == sorted([path.name, path.with_suffix(".json").name])


def test_a_build_of_another_size_that_was_killed_is_cleared_away(copy: Path) -> None:
    load_celeba(copy)
    (path,) = (copy.parent / "cache" / "celeba").glob("*.u8")
    path.rename(path.parent / f".{path.name}.abc.part")
    load_celeba(copy, size=32)
    assert not [name for name in built(copy) if name.endswith(".part")]


def test_a_changed_picture_is_another_source(copy: Path) -> None:
    first = load_celeba(copy)
    path = copy / "img_align_celeba" / NAMES[0]
    path.write_bytes(jpeg(99))
    os.utime(path, (1, 1))
    second = load_celeba(copy)
    assert second.sha256 != first.sha256
    assert np.array_equal(second["train"].pixels[0].numpy(), decode_image(jpeg(99), 64))


def test_any_subset_is_read(copy: Path) -> None:
    for name in (NAMES[0], NAMES[7], NAMES[8]):
        (copy / "img_align_celeba" / name).unlink()
    data = load_celeba(copy)
    assert data.sizes == {"train": 5, "validation": 1, "test": 3}
    assert data["train"].attributes.tolist() == MARKS[1:6].tolist()
    with pytest.raises(ZooError, match=r"3 images missing from .*: 000001.jpg, 000008.jpg, 000009.jpg\."):
        load_celeba(copy, complete=True)


@pytest.mark.parametrize("as_zip", [False, True])
def test_damaged_images_are_named_and_nothing_is_left(copy: Path, as_zip: bool) -> None:
    images = copy / "img_align_celeba"
    (images / NAMES[2]).write_bytes(jpeg(2)[:2000])
    (images / NAMES[4]).write_bytes(b"no picture")
    (images / NAMES[5]).write_bytes(jpeg(5, size=(64, 64)))
    if as_zip:
        zipped(copy)
    with pytest.raises(ZooError) as failure:
        load_celeba(copy)
    message = str(failure.value)
    assert "3 images" in message and "64x64" in message
    assert all(NAMES[k] in message for k in (2, 4, 5)) and NAMES[3] not in message
    assert built(copy) == []


def test_bytes_damaged_inside_the_zip_are_noticed(copy: Path) -> None:
    path = zipped(copy)
    content = bytearray(path.read_bytes())
    content[2000] ^= 255
    path.write_bytes(content)
    with pytest.raises(ZooError, match=r"1 image of .*zip cannot be read: 000001.jpg \(Bad CRC"):
        load_celeba(copy)
    path.write_bytes(content[:-30])
    with pytest.raises(ZooError, match="not a whole zip file"):
        load_celeba(copy)
    assert built(copy) == []


def test_wrong_annotations_are_refused(copy: Path) -> None:
    path = copy / celeba.ATTRIBUTES_FILE
    path.write_text(path.read_text().replace("-1", " 1", 1))
    with pytest.raises(ZooError, match="list_attr_celeba.txt is not the official file"):
        load_celeba(copy)
    path.unlink()
    with pytest.raises(UsageError, match="has no list_attr_celeba.txt"):
        load_celeba(copy)


def test_hidden_files_are_no_pictures(copy: Path) -> None:
    (copy / "img_align_celeba" / f"._{NAMES[0]}").write_bytes(b"not one")
    digest = load_celeba(copy).sha256
    with zipfile.ZipFile(zipped(copy), "a") as archive:
        archive.writestr(f"__MACOSX/img_align_celeba/._{NAMES[1]}", b"not one")
    assert load_celeba(copy).sha256 == digest


def test_strangers_among_the_images_are_named(copy: Path) -> None:
    (copy / "img_align_celeba" / "holiday.jpg").write_bytes(jpeg(1))
    with pytest.raises(ZooError, match=r"1 image of .* not in list_eval_partition.txt: holiday.jpg\."):
        load_celeba(copy)


def test_wrong_use_is_told(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="VAE_ZOO_CELEBA"):
        load_celeba()
    with pytest.raises(UsageError, match="larsen"):
        load_celeba(copy, crop="larson")
    with pytest.raises(UsageError, match="holds neither"):
        empty = copy.parent / "empty"
        (empty / "img_align_celeba").mkdir(parents=True)
        for name in (celeba.ATTRIBUTES_FILE, celeba.PARTITION_FILE):
            (empty / name).write_bytes((copy / name).read_bytes())
        load_celeba(empty)
    monkeypatch.setenv("VAE_ZOO_CELEBA", str(copy))
    assert len(load_celeba()) == 12


def test_real_images_and_annotations(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shared / "data" / "celeba"
    if not (real / "img_align_celeba.zip").is_file():
        pytest.skip("no CelebA images beside this checkout")
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "few"
    folder.mkdir()
    for name in (celeba.ATTRIBUTES_FILE, celeba.PARTITION_FILE):
        (folder / name).symlink_to(real / name)
    with zipfile.ZipFile(real / "img_align_celeba.zip") as archive:
        members = sorted(archive.namelist())[::60]
        for member in members:
            archive.extract(member, folder)
    data = load_celeba(folder)
    assert len(data) == len(members) == 100 and data.spec.attributes == 40
    # 000002.jpg, as the official file has it.
    first = dict(zip(data["train"].attribute_names, data["train"].attributes[0].tolist(), strict=True))
    assert first["Bags_Under_Eyes"] == first["Big_Nose"] == first["High_Cheekbones"] == 1
    assert first["Male"] == first["Eyeglasses"] == first["5_o_Clock_Shadow"] == 0
    # The official eye positions are (69, 111) and (108, 111): darker than the nose between, on average.
    grey = data["train"].pixels.float().mean((0, 1))
    eyes = (grey[32:35, 22:25].mean() + grey[32:35, 39:42].mean()) / 2
    assert grey[32:35, 31:34].mean() - eyes > 20
    # Attributes lie beside the right pictures: blond hair is brighter than black.
    crown = data["train"].pixels[:, :, 2:10, 20:44].float().mean((1, 2, 3))
    blond, black = (
        data["train"].attributes[:, data["train"].attribute_names.index(f"{name}_Hair")].bool()
        for name in ("Blond", "Black")
    )
    assert crown[blond].mean() - crown[black].mean() > 30


# --- a licence that forbids copies


def test_pictures_of_private_data_stay_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from benchmarks import matrix
    from benchmarks.running.watch import Watchers
    from benchmarks.suite import suite_named
    from zoo.registry import registry
    from zoo.training.precision import choose

    assert registry().private("celeba") and not registry().private("synthetic")
    entry = registry().datasets["synthetic"].model_copy(update={"private": True})
    monkeypatch.setitem(registry().datasets, "synthetic", entry)
    places = matrix.Places(tmp_path / "board", tmp_path / "runs")
    (planned,) = matrix.plan(suite_named("smoke"), ("vae",))
    sent = []
    quiet = SimpleNamespace(log=lambda *_: None, images=lambda *_: sent.append("picture"), finish=sent.append)

    def observe(planned: matrix.Planned) -> Watchers:
        watchers = Watchers("disabled", planned.config, tmp_path, "vae", "smoke@1")
        watchers.observer = quiet
        return watchers

    made = matrix.run_cell(planned, places, choose("cpu"), observe)
    assert made.status == "done" and made.figures == {}
    assert not list((tmp_path / "board").rglob("*.png"))
    assert (places.run(planned.cell) / "reconstructions.png").exists()
    assert "picture" not in sent and sent  # the numbers are sent all the same
