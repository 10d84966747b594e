"""`zoo sample`, `reconstruct`, `traverse`, `interpolate` on run folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.evaluate import evaluate
from benchmarks.finished import Finished, _index
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from zoo.config import resolve
from zoo.data.images import DataSpec
from zoo.runs import build_model, train_run
from zoo.runs.images import _images, _loaded
from zoo.training import checkpoint
from zoo.training.precision import choose
from zoo.training.trainer import Result

SMALL = ["train.epochs=1", "encoder.hidden=[16]", "decoder.hidden=[16]", "latent=3"]
ATTRIBUTES = ("Eyeglasses", "Male", "Smiling")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("vae", "cvae"):
        train_run(resolve(name, "synthetic", settings=SMALL), folder / name, choose("cpu"))
    # A run on faces, without any: what a folder says of itself is enough to draw samples from it.
    faces = folder / "faces"
    config = resolve("cvae", "celeba", settings=[*SMALL, "data.options.size=8"])
    spec = DataSpec((3, 8, 8), "8-bit", attributes=3)
    model = build_model(config, spec)
    seen = torch.zeros(1024, 3)
    seen[::2, 0] = 1
    model.initialise(torch.rand(4, 3, 8, 8), seen)
    faces.mkdir()
    described = {"config": config.model_dump(mode="json"), "spec": dataclasses.asdict(spec), "data_sha256": "0"}
    described |= {"schema": 1, "names": {"classes": [], "attributes": ATTRIBUTES}}
    (faces / "run.json").write_text(json.dumps(described))
    result = Result(1, 1, 1, 0, 1.0, 1.0, 0, False)
    checkpoint.write(faces / "model.safetensors", model.state_dict(), {"result": dataclasses.asdict(result)})
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (("sample", "vae", "--n", "6", "--columns", "3"), (2, 3)),
        (("sample", "cvae", "--n", "4", "--class", "stroke 7"), (1, 4)),
        (("reconstruct", "vae", "--n", "4", "--columns", "4"), (2, 4)),
        (("reconstruct", "cvae", "--n", "2", "--class", "3"), (1, 4)),
        (("traverse", "cvae", "--n", "2", "--columns", "5"), (2, 5)),
        (("interpolate", "vae", "--n", "2", "--columns", "6", "--path", "spherical"), (2, 6)),
        (("interpolate", "cvae", "--n", "3", "--class", "3"), (3, 8)),
    ],
)
def test_each_writes_a_grid(zoo, runs: Path, tmp_path: Path, words: tuple[str, ...], size: tuple[int, int]) -> None:  # noqa: F811
    command, run, *rest = words
    code, out, err = zoo(command, str(runs / run), *rest, "--out", "x/y.png")
    assert code == 0, err
    assert "x/y.png" in out
    rows, columns = size
    found = pixels(tmp_path / "x" / "y.png")
    assert found.shape == (rows * 30 + 2, columns * 30 + 2)
    assert found[2:-2, 2:-2].std() > 1


@pytest.mark.parametrize("prepared", ["dequantise=uniform", "binarise=none", "binarise=dynamic"])
def test_an_original_is_the_bytes_that_it_is_of(zoo, tmp_path: Path, prepared: str) -> None:  # noqa: F811
    few = ["data.options.n_train=32", "train.batch_size=32", "data.options.n_test=6", "evaluate.quality_samples=0"]
    less = ["evaluate.nll_samples=0", "evaluate.latent=no"]
    settings = [*SMALL, *few, *less, f"data.{prepared}", "likelihood.name=gaussian"]
    run = train_run(resolve("vae", "synthetic", settings=settings), tmp_path / "run", choose("cpu"))
    test = run.images["test"].pixels
    assert torch.equal(evaluate(run).pictures["reconstructions"][::2], test)
    assert zoo("reconstruct", "run", "--n", "6", "--columns", "2", "--out", "x.png")[0] == 0
    drawn = pixels(tmp_path / "x.png")
    rows = {drawn[2 + 30 * row : 30 + 30 * row, 2:30].tobytes() for row in range(6)}
    assert rows == {picture.numpy().tobytes() for picture in test}


def test_the_pictures_go_beside_the_run_and_a_traversal_moves(zoo, runs: Path) -> None:  # noqa: F811
    for kind in ("gif", "apng"):
        code, out, err = zoo("traverse", str(runs / "vae"), "--animate", kind)
        assert code == 0, err
        still, moving = out.split()
        assert Path(still) == runs / "vae" / "pictures" / "traversals.png"
        with Image.open(moving) as image:
            assert (image.format, image.n_frames, image.info["loop"]) == ({"gif": "GIF", "apng": "PNG"}[kind], 20, 0)
    assert "rows: " in err


def test_a_seed_and_a_temperature_decide(zoo, runs: Path, tmp_path: Path) -> None:  # noqa: F811
    def draw(name: str, *words: str) -> np.ndarray:
        assert zoo("sample", str(runs / "vae"), "--n", "9", "--out", f"{name}.png", *words)[0] == 0
        return pixels(tmp_path / f"{name}.png")

    first = draw("a")
    assert np.array_equal(first, draw("b")) and not np.array_equal(first, draw("c", "--seed", "1"))
    cold = draw("d", "--temperature", "0")
    assert np.array_equal(cold[2:30, 2:30], cold[2:30, 32:60])


def test_attributes_are_asked_for_by_name_and_the_others_are_those_of_real_faces(zoo, runs: Path) -> None:  # noqa: F811
    finished = Finished(runs / "faces", "cpu")
    y = finished.condition(400, 0, attributes={"smiling": 1, "Male": 0})
    assert (y[:, 2] == 1).all() and (y[:, 1] == 0).all()
    assert 0.3 < y[:, 0].mean() < 0.7
    words = ("--attribute", "Smiling=1", "--attribute", "Male=0", "--n", "2", "--out", "faces.png")
    assert zoo("sample", str(runs / "faces"), *words)[0] == 0
    assert pixels(Path("faces.png")).shape == (12, 22, 3)


def test_a_class_is_the_one_of_just_that_name_where_two_differ_in_case() -> None:
    assert [_index("class", asked, ("A", "B", "a", "x-1", "x_1")) for asked in ("a", "A", "b", "x_1")] == [2, 0, 1, 4]


def test_conditions_of_data_that_has_other_classes_now_are_refused(
    zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path / "cache"))
    for i in range(60):
        path = tmp_path / "pictures" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 4 * i).save(path)
    settings = [*SMALL, "train.batch_size=16", "data.options.size=8"]
    for name in ("cvae", "vae"):
        train_run(resolve(name, f"folder:{tmp_path / 'pictures'}", settings=settings), tmp_path / name, choose("cpu"))
    (tmp_path / "pictures" / "cat").rename(tmp_path / "pictures" / "eel")  # the dogs, 1 so far, are 0 now
    _loaded.cache_clear()
    _images.cache_clear()
    code, out, err = zoo("reconstruct", "cvae", "--n", "2")
    assert (code, out) == (2, "") and "cvae was trained on other data than 'folder' is now" in err
    assert zoo("sample", "cvae", "--n", "2", "--class", "cat")[0] == 0
    assert not caplog.records
    assert zoo("reconstruct", "vae", "--n", "2")[0] == 0
    assert "the test images are those of now" in caplog.text


@pytest.mark.parametrize("command", ["sample", "reconstruct", "traverse", "interpolate"])
def test_four_channels_are_no_picture(zoo, tmp_path: Path, command: str) -> None:  # noqa: F811
    settings = [*SMALL, "train.epochs=0", "data.options.shape=[4,8,8]", "data.binarise=none"]
    train_run(resolve("vae", "synthetic", settings=settings), tmp_path / "bands", choose("cpu"))
    code, out, err = zoo(command, str(tmp_path / "bands"), "--n", "2")
    assert (code, out) == (2, "") and "a picture shows images of 1 or 3 channels, and these have 4." in err


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        ("faces", ("--attribute", "Smilling=1"), "no attribute 'Smilling'. Did you mean 'Smiling'? There are: Eyegl"),
        ("faces", ("--attribute", "Smiling=yes"), "an attribute reads NAME=0 or NAME=1, not 'Smiling=yes'."),
        ("faces", ("--class", "3"), "this cvae was not trained on classes, so it cannot be asked for one."),
        ("cvae", ("--class", "11"), "no class 11: the 10 classes are 0 to 9."),
        ("cvae", ("--class", "strok 7"), "no class 'strok 7'. Did you mean 'stroke 7'"),
        ("cvae", ("--attribute", "Male=1"), "this cvae was not trained on attributes of synthetic"),
        ("vae", ("--class", "7"), "this vae was not trained on classes, so it cannot be asked for one."),
        ("vae", ("--out", "x.jpg"), "x.jpg is no PNG"),
        ("nothing", (), "is not a run: it has no readable run.json."),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(  # noqa: F811
    zoo,  # noqa: F811
    runs: Path,
    run: str,
    words: tuple[str, ...],
    said: str,
) -> None:
    code, out, err = zoo("sample", str(runs / run), *words)
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1
