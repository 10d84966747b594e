"""A folder of images: any sizes, fixed splits, what is known of them, and what is said of damaged ones."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import record
from benchmarks.fid import load_images
from tests.conftest import ROOT
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from zoo import create_model
from zoo.config import resolve
from zoo.data import folder as reader
from zoo.data.folder import _numbered, load_folder, split_of
from zoo.data.images import DataSpec
from zoo.errors import UsageError, ZooError
from zoo.registry import DatasetEntry, registry
from zoo.runs import images as loaded

COLOURS = {"red": (250, 10, 10), "blue": (10, 10, 250)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Sixty images of odd sizes, half red and half blue, in the middle of a white frame."""
    made = tmp_path / "pictures"
    random = np.random.default_rng(0)
    for i in range(60):
        colour = ("red", "blue")[i % 2]
        height, width = random.integers(9, 40, 2)
        page = np.full((height, width, 3), 255, np.uint8)
        page[height // 4 : -(height // 4), width // 4 : -(width // 4)] = COLOURS[colour]
        (made / colour).mkdir(parents=True, exist_ok=True)
        Image.fromarray(page).save(made / colour / f"{i:03d}.png")
    return made


def everything(images) -> dict[str, dict[str, torch.Tensor]]:
    return {split: images[split].pixels for split in ("train", "validation", "test")}


def test_the_first_images_of_a_split_are_of_every_class(pictures: Path) -> None:
    # Their names are sorted by class, and what is measured is often measured on the first n.
    labels = load_folder(pictures, size=8)["train"].labels
    assert 5 < int(labels[:20].sum()) < 15


@pytest.mark.parametrize("name", ["deep.png", "deep.pgm", "deep.tif"])
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path, name: str) -> None:
    ramp = np.arange(0, 1 << 16, 1 << 12, dtype=np.uint16).reshape(4, 4)
    if name.endswith("pgm"):
        (tmp_path / name).write_bytes(b"P5 4 4 65535\n" + ramp.astype(">u2").tobytes())
    else:
        Image.fromarray(ramp).save(tmp_path / name)
    assert (reader.decode_image(tmp_path / name, 4, 1)[0] == ramp >> 8).all()
    assert (load_images(tmp_path)[0, 0].numpy() == ramp >> 8).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_which_nobody_knows_what_is_white_are_refused(tmp_path: Path, kind: type) -> None:
    Image.fromarray(np.ones((4, 4), kind)).save(tmp_path / "strange.tif")
    with pytest.raises(ValueError, match="32 bits"):
        reader.decode_image(tmp_path / "strange.tif", 4, 1)
    with pytest.raises(UsageError, match="strange.tif is not a readable image: its pixels have 32 bits"):
        load_images(tmp_path)


def test_images_of_any_size_become_squares_and_folders_classes(pictures: Path) -> None:
    images = load_folder(pictures, size=16)
    assert images.spec.shape == (3, 16, 16) and images.spec.support == "8-bit"
    assert len(images) == 60 and min(images.sizes.values()) > 0
    assert images.classes == ("blue", "red") and images.spec.classes == 2
    for split in images.sizes:
        middle = images[split].pixels[:, :, 6:10, 6:10].float().mean((2, 3))
        assert torch.equal((middle[:, 0] > middle[:, 2]).long(), images[split].labels)
    grey = load_folder(pictures, size=8, channels=1)
    assert grey.spec.shape == (1, 8, 8) and grey.sha256 != images.sha256


def test_the_largest_square_in_the_middle_is_resized_with_antialiasing(tmp_path: Path) -> None:
    page = np.zeros((8, 24, 3), np.uint8)
    page[:, 8:16] = np.indices((8, 8)).sum(0)[:, :, None] % 2 * 255
    page[:, :8] = 77
    Image.fromarray(page).save(tmp_path / "wide.png")
    found = reader.decode_image(tmp_path / "wide.png", 4, 3)
    # A chequerboard at half its size is its mean, not one of its fields, and the sides are cut off.
    assert found.shape == (3, 4, 4) and np.abs(found[:, 1:3, 1:3].astype(int) - 127).max() < 25
    deep = np.full((8, 8), 40_000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.abs(reader.decode_image(tmp_path / "deep.png", 4, 1).astype(int) - 40_000 // 256).max() <= 1
    turned = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16)
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "turned.png", exif=exif)
    assert reader.decode_image(tmp_path / "turned.png", 4, 1)[0, 0, 0] == 240


def test_a_split_is_the_name_s_and_never_moves(pictures: Path) -> None:
    before = load_folder(pictures, size=8)
    names = [path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")]
    kept = {name: split_of(name) for name in names}
    assert before.sizes == {split: list(kept.values()).count(split) for split in before.sizes}
    train = before["train"].pixels.clone()
    for path in list(pictures.rglob("*.png")):
        if kept[path.relative_to(pictures).as_posix()] == "test":
            path.rename(path.with_name("x" + path.name))
            break
    for name in ("extra", "extra2", "extra3"):
        Image.new("RGB", (9, 9)).save(pictures / "red" / f"{name}.png")
    after = load_folder(pictures, size=8)
    assert {row.numpy().tobytes() for row in train} <= {row.numpy().tobytes() for row in after["train"].pixels}
    assert after.sha256 != before.sha256
    shares = [split_of(str(i)) for i in range(20_000)]
    assert shares.count("test") == pytest.approx(2000, abs=150)
    assert shares.count("validation") == pytest.approx(2000, abs=150)


def test_it_is_decoded_once(pictures: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_folder(pictures, size=8)
    assert len(list(cache.rglob("*.u8"))) == 1
    monkeypatch.setattr(reader, "decode_image", None)
    again = load_folder(pictures, size=8)
    assert again.sha256 == first.sha256
    assert all(torch.equal(a, b) for a, b in zip(everything(first).values(), everything(again).values(), strict=True))


def test_other_pictures_of_the_same_names_sizes_and_times_are_other_pictures(tmp_path: Path) -> None:
    found = []
    for shade, name in enumerate(("raw", "aligned")):
        (tmp_path / name).mkdir()
        for i in range(60):
            path = tmp_path / name / f"{i}.bmp"
            Image.new("RGB", (8, 8), (shade * 200, i, 0)).save(path)
            os.utime(path, (0, 0))
        found.append(load_folder(tmp_path / name, size=8))
    assert found[0].sha256 != found[1].sha256
    assert (found[1]["test"].pixels[:, 0] == 200).all()


def table(pictures: Path, head: str, row) -> None:
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    lines = [head, *(row(name) for name in names), "not_there.png" + ",0" * head.count(",")]
    (pictures / "factors.csv").write_text("\n".join(lines) + "\n")


def test_yes_and_no_are_attributes_and_anything_else_is_factors(pictures: Path) -> None:
    table(pictures, "image,Red,Even", lambda name: f"{name},{int('red' in name)},{1 - int(name[-5]) % 2}")
    images = load_folder(pictures, size=8)
    assert images.spec.attributes == 2 and images.spec.classes == 0
    test = images["test"]
    assert test.attribute_names == test.factor_names == ("Red", "Even") and test.factor_kind == "attributes"
    red = test.pixels.float()[:, 0, 3:5, 3:5].mean((1, 2)) > 128
    assert torch.equal(test.attributes[:, 0].bool(), red)

    table(pictures, "image,class,size,hue", lambda name: f"{name},{name.split('/')[0]},{int(name[-5]) % 3 * 10},a")
    images = load_folder(pictures, size=8)
    train = images["train"]
    assert images.classes == ("blue", "red") and train.factor_names == ("size", "hue")
    assert train.factor_sizes == (3, 1) and images.spec.attributes == 0
    assert set(train.factors[:, 0].tolist()) == {0, 1, 2}


def test_an_empty_class_is_one_that_nobody_knows(pictures: Path) -> None:
    table(pictures, "image,class", lambda name: f"{name},{name.split('/')[0] if int(name[-5]) % 3 else ' '}")
    images = load_folder(pictures, size=8)
    assert images.classes == ("blue", "red")
    assert sum(int((split.labels == -1).sum()) for split in images.splits.values()) == 24  # 0, 3, 6, 9 of each ten
    train = images["train"]
    red = train.pixels.float()[:, 0, 3:5, 3:5].mean((1, 2)) > 128
    assert torch.equal(train.labels.bool()[train.labels >= 0], red[train.labels >= 0])


def test_an_empty_factor_or_attribute_is_named(pictures: Path) -> None:
    table(pictures, "image,Red", lambda name: f"{name},{'' if name == 'red/002.png' else int('red' in name)}")
    with pytest.raises(UsageError, match=r"factors\.csv has no value of 'Red' for 1 image: red/002\.png\."):
        load_folder(pictures, size=8)


def test_damaged_images_and_tables_are_named(pictures: Path, cache: Path) -> None:
    (pictures / "red" / "bad.png").write_bytes(b"no image")
    cut = pictures / "blue" / "001.png"
    cut.write_bytes(cut.read_bytes()[:60])
    with pytest.raises(ZooError, match=r"2 images of .*pictures cannot be read: .*(001|bad)\.png \(.*\), .*\.png \("):
        load_folder(pictures, size=8)
    assert not list(cache.rglob("*.u8")) and not list(cache.rglob("*.part"))
    (pictures / "red" / "bad.png").unlink()
    (pictures / "factors.csv").write_text("image,a\nred/000.png,1\n")
    with pytest.raises(UsageError, match=r"factors\.csv has no line for 59 images: .* and 54 more\."):
        load_folder(pictures, size=8)
    (pictures / "factors.csv").write_text("image,a,b\nred/000.png,1\n")
    with pytest.raises(UsageError, match=r"line 2: 2 cells, and the head line has 3"):
        load_folder(pictures, size=8)


def test_a_table_with_two_lines_for_an_image_is_refused(pictures: Path) -> None:
    names = [path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")]
    (pictures / "factors.csv").write_text("image,class\n" + "".join(f"{name},a\n" for name in [*names, names[3]]))
    with pytest.raises(UsageError, match=rf"more than one line for 1 image: {names[3]}\."):
        load_folder(pictures, size=8)


def test_what_is_no_number_has_its_place_among_the_texts() -> None:
    values = ["nan", "0.5", "text", "-1", "inf", "NaN", "1.5"]
    for order in itertools.permutations(values, 7):
        assert _numbered(list(order))[1] == ("-1", "0.5", "1.5", "inf", "NaN", "nan", "text")


def test_linked_folders_are_folders_and_a_circle_of_them_ends(pictures: Path, tmp_path: Path) -> None:
    plain = load_folder(pictures, size=8)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "red").symlink_to(pictures / "red")
    (linked / "blue").symlink_to(pictures / "blue")
    (linked / "blue" / "around").symlink_to(linked)
    found = load_folder(linked, size=8)
    assert found.classes == plain.classes == ("blue", "red")
    assert [len(split) for split in found.splits.values()] == [len(split) for split in plain.splits.values()]


def test_a_link_to_nothing_and_a_name_that_is_no_text_are_named(pictures: Path) -> None:
    (pictures / "red" / "gone.png").symlink_to(pictures / "nowhere.png")
    with pytest.raises(ZooError, match=r"1 image cannot be found, or has no name in UTF-8: .*gone\.png\."):
        load_folder(pictures, size=8)
    (pictures / "red" / "gone.png").unlink()
    source = os.fsencode(pictures / "red" / "000.png")
    try:
        os.link(source, os.fsencode(pictures / "red") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    with pytest.raises(ZooError, match="1 image cannot be found, or has no name in UTF-8"):
        load_folder(pictures, size=8)


def test_a_folder_below_that_cannot_be_read_is_no_empty_one(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.scandir

    def scandir(path):
        if Path(path).name == "red":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ZooError, match=r"pictures/red cannot be read \(Permission denied\)"):
        load_folder(pictures, size=8)


def test_a_folder_that_no_record_could_name_is_refused_before_anything_is_trained(pictures: Path) -> None:
    named = os.fsdecode(os.fsencode(pictures) + b"\xff")
    with pytest.raises(UsageError, match="a record is UTF-8, and a text in the options has none"):
        resolve("vae", f"folder:{named}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"root": None}, "Give it as --data folder:PATH"),
        ({"root": "nowhere"}, "nowhere is not a folder of images"),
        ({"channels": 4}, "channels 1 or 3"),
        ({"size": 0}, "size from 1"),
        ({"test": 0.6, "validation": 0.6}, "shares of validation and test"),
    ],
)
def test_what_makes_no_sense_is_refused(pictures: Path, options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_folder(**{"root": pictures} | options)


def test_a_wrong_table_beside_the_pictures_is_refused_and_leaves_no_run(zoo, pictures: Path) -> None:  # noqa: F811
    (pictures / "factors.csv").write_text("image,a\nred/000.png,1\n")
    code, _, err = zoo("train", "vae", "--data", f"folder:{pictures}", "--wandb", "disabled", "--out", "mine")
    assert code == 2 and "factors.csv has no line for 59 images" in err and not Path("mine").exists()


@pytest.mark.parametrize("words", [("0", "1"), ("-1", "1"), ("no", "yes")])
def test_columns_of_0_and_1_alone_are_attributes_as_the_page_says(pictures: Path, words: tuple[str, str]) -> None:
    page = " ".join((ROOT / "docs" / "howto" / "own-images.md").read_text().split())
    assert "if all others are 0 and 1, or -1 and 1, they are attributes" in page
    table(pictures, "image,Red", lambda name: f"{name},{words['red' in name]}")
    assert load_folder(pictures, size=8).spec.attributes == (0 if "yes" in words else 1)


def test_a_table_of_another_name_is_said_not_to_be_read(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    def said() -> list[str]:
        caplog.clear()
        load_folder(pictures, size=8)
        return caplog.messages

    assert said() == []
    table = "image,class\n" + "".join(f"{path.relative_to(pictures)},a\n" for path in pictures.rglob("*.png"))
    (pictures / "labels.csv").write_text(table)
    assert said() == [], "folders are the classes here, and a table beside them is nobody's"
    path = next(pictures.rglob("*.png"))
    path.rename(pictures / path.name)  # no longer is every image one folder down
    labels = f"{pictures / 'labels.csv'} is not read: a table of what is known of images is called factors.csv."
    assert said() == [labels]
    (pictures / "factors.csv").write_text("image,class\n" + "".join(
        f"{path.relative_to(pictures)},a\n" for path in pictures.rglob("*.png")))  # fmt: skip
    assert said() == []


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no images"):
        load_folder(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    with pytest.raises(UsageError, match="has 1 image, too few: their names put none into"):
        load_folder(tmp_path)


def test_a_model_is_trained_on_a_folder_and_drawn_from(zoo, pictures: Path) -> None:  # noqa: F811
    words = ["train", "cvae", "--data", f"folder:{pictures}", "--set", "data.options.size=16", "--set", "latent=3"]
    words += ["--set", "train.epochs=1", "--set", "train.batch_size=16", "--set", "evaluate.quality_samples=0"]
    code, out, err = zoo(*words, "--wandb", "disabled", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["config"]["data"]["options"] == {"root": str(pictures), "size": 16}
    assert f"--data folder:{pictures}" in made["command"]
    run = Path("runs") / "cvae-folder_pictures-s0"
    assert zoo("sample", str(run), "--n", "2", "--class", "red")[0] == 0
    code, _, err = zoo("train", "vae", "--data", "synthetic:/nowhere", "--set", "train.epochs=1")
    assert code == 2 and "data set 'synthetic' has no option 'root'. Known here: n_train, " in err


@pytest.mark.parametrize("data", ["folder", "folder:pictures"])
def test_a_model_for_a_folder_is_made_of_what_its_images_are_like(data: str) -> None:
    with pytest.raises(UsageError) as refused:
        create_model("vae", data=data)
    (shown,) = re.findall(r"such as zoo\.data\.images\.(DataSpec\(.*\))\.$", str(refused.value))
    spec = eval(shown, {"DataSpec": DataSpec})
    assert create_model("vae", data=spec).spec == spec == DataSpec((3, 64, 64), "8-bit")


def test_a_plugin_s_data_set_has_a_name_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    import zoo.registry as names
    from zoo.models import data_spec

    named = {"blobs": "zoo.data.synthetic:load_synthetic", "mnist": "a:b", "odd": "nonsense"}
    points = [EntryPoint(name, target, "zoo.datasets") for name, target in named.items()]
    monkeypatch.setattr(names, "entry_points", lambda group: points if group == "zoo.datasets" else [])
    registry.cache_clear()
    try:
        with pytest.warns(UserWarning) as said:
            entry = registry().dataset("blobs")[1]
        assert isinstance(entry, DatasetEntry) and entry.shape is None and entry.origin == "plugin"
        assert data_spec("blobs").shape == (1, 28, 28) and data_spec("blobs").classes == 10
        assert registry().datasets["mnist"].origin == "built-in" and "odd" not in registry().datasets
        assert sorted(str(one.message).split(" is ignored: ")[1] for one in said) == [
            "'nonsense' is not module:name.",
            "the name is taken.",
        ]
    finally:
        registry.cache_clear()


def test_an_exported_model_is_measured_though_it_does_not_say_where_its_images_lie(
    zoo, pictures: Path, tmp_path: Path  # noqa: F811
) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        f"schema: 1\nname: mine\nversion: '1'\ntitle: mine\nvariants: [vae]\ndatasets: ['folder:{pictures}']\n"
        "seeds: [0]\ndefaults:\n  data: {options: {size: 28, channels: 1, test: 0.3}}\n"
        "  train: {epochs: 1, batch_size: 16}\n  evaluate: {nll_samples: 2, quality_samples: 32, latent: 'no'}\n"
    )
    board = tmp_path / "board"
    places = ("--board", str(board), "--runs", str(tmp_path / "runs"))
    assert zoo("bench", str(suite), "--wandb", "disabled", "--jobs", "1", *places)[0] == 0
    (run,) = (tmp_path / "runs").glob("*/vae-*")
    assert zoo("export", str(run), str(tmp_path / "weights" / "vae"))[0] == 0
    elsewhere = ("--board", str(board), "--runs", str(tmp_path / "none"), "--weights", str(tmp_path / "weights"))
    code, _, said = zoo("measure", str(suite), "ex_post", *elsewhere)
    assert code == 0, said
    (path,) = board.glob("records/*/*.json")
    assert "added by" in record.read(path).metrics["fd_digits_ex_post"].note
    next(pictures.rglob("*.png")).unlink()
    loaded._loaded.cache_clear()
    loaded._images.cache_clear()
    code, _, said = zoo("measure", str(suite), "fid_ex_post", *elsewhere)
    assert code == 2 and "was trained on other data than 'folder' is now" in said
