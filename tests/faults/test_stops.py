"""A stop asked for in the middle of an evaluation: soon obeyed, nothing half done is kept, and what was trained is."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import partial, recipe, record
from benchmarks.digits.train import train as train_classifier
from benchmarks.evaluate import evaluate
from benchmarks.interrupt import stop_if_asked
from benchmarks.metrics import extractors
from benchmarks.metrics.codes import Codes
from benchmarks.metrics.disentanglement import score_codes
from tests.faults.children import fork, wait
from zoo.config import resolve
from zoo.data import folder as images_of_a_folder
from zoo.models.vae import VanillaVAE
from zoo.runs import train_run
from zoo.stopping import Stopped, stopping_when
from zoo.training.precision import choose
from zoo.training.trainer import Trainer

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
MODEL = {"encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}, "latent": 2}
TRAIN = {"epochs": 1, "batch_size": 32}
DATA = {"options": {"n_train": 64, "n_validation": 32, "n_test": 32}}
# One decoder row at a time: 512 calls of `log_weights`.
EVALUATE = {"nll_samples": 64, "nll_images": 8, "rows": 1, "quality_samples": 0, "latent": "no"}
PARTS = {"model": MODEL, "train": TRAIN, "data": DATA, "evaluate": EVALUATE}
QUIET = ("--wandb", "disabled", "--device", "cpu")
SETTINGS = tuple(
    word
    for section, part in PARTS.items()
    for name, value in part.items()
    for word in ("--set", f"{section}.{name}={json.dumps(value)}")
)
COMMANDS = {
    "bench": ("bench", "toy.yaml", *QUIET, "--jobs", "1"),
    "train": ("train", "vae", "--data", "synthetic", *SETTINGS, "--out", "x", *QUIET),
    "reproduce": ("reproduce", "toy", *QUIET),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the suite and the recipe ``toy`` are known."""
    suite = {
        "schema": 1, "name": "toy", "version": "1", "title": "A toy", "datasets": ["synthetic"], "variants": ["vae"],
        "defaults": PARTS,
    }  # fmt: skip
    (tmp_path / "toy.yaml").write_text(json.dumps(suite))
    target = {
        "metric": "elbo", "value": -100.0, "source": "somewhere", "mark": "R", "band": [-101.0, -99.0],
        "near": [-103.0, -97.0],
    }  # fmt: skip
    toy = {
        "title": "A toy", "variant": "vae", "dataset": "synthetic", "protocol": "Made-up images.", "config": PARTS,
        "targets": [target], "departures": ["the data is made up"],
    }  # fmt: skip
    (tmp_path / "recipes").mkdir()
    text = {"schema": 1, "paper": "Toys", "recipes": {"toy": toy}}
    (tmp_path / "recipes" / "toys.yaml").write_text(json.dumps(text))
    monkeypatch.setattr(recipe, "FOLDER", tmp_path / "recipes")
    recipe.files.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    recipe.files.cache_clear()


def signalled(kind: type, name: str, calls: int, number: signal.Signals) -> Callable[[], None]:
    """For a child: a method notes each of its calls in the file ``calls``, and in one of them the signal arrives."""

    def prepare() -> None:
        original, count, child = getattr(kind, name), 0, os.getpid()

        def inner(self, *given):
            nonlocal count
            count += 1
            with open("calls", "a") as file:
                print(count, file=file)
            if count == calls:
                os.kill(child, number)
            return original(self, *given)

        setattr(kind, name, inner)

    return prepare


def stopped(folder: Path, words: tuple[str, ...], kind: type, name: str, calls: int, number: signal.Signals) -> None:
    """Stop a command in that call of a method, of hundreds, and look at how it ended: at the next place to stop."""
    code = wait(fork(folder, *words, prepare=signalled(kind, name, calls, number)))
    said = (folder / "said").read_text()
    assert code == 130, said
    assert (folder / "calls").read_text().split() == [str(n + 1) for n in range(calls)], "not one call more"
    assert "Traceback" not in said
    assert said.count("goes on from here") == 1, said
    assert said.rstrip().endswith(f"(the trained model is kept): `zoo {shlex.join(words)}` goes on from here."), said


def no_training() -> None:
    def update(self, *given):
        raise AssertionError("it trains anew")

    Trainer.update = update


def the_record(folder: Path) -> dict:
    (path,) = [*folder.rglob("record.json"), *folder.glob("leaderboard/**/records/*/*.json")]
    made = record.read(path)
    assert made.status == "done", made.reason
    train = made.train.model_dump(exclude={"images_per_second", "peak_memory_bytes"})
    return {"metrics": made.metrics, "skipped": made.skipped, "curves": made.curves, "train": train}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What comes of the toy when nobody stops it: the same by every command."""
    place = tmp_path_factory.mktemp("undisturbed")
    assert wait(fork(place, *COMMANDS["train"])) == 0, (place / "said").read_text()
    return the_record(place)


@needs_fork
@pytest.mark.parametrize(
    ("command", "number"),
    [("bench", signal.SIGTERM), ("train", signal.SIGINT), ("reproduce", signal.SIGTERM)],
)
def test_a_stop_in_an_evaluation_is_obeyed_and_costs_the_evaluation_alone(
    folder: Path, undisturbed: dict, command: str, number: signal.Signals
) -> None:
    words = COMMANDS[command]
    stopped(folder, words, VanillaVAE, "log_weights", 5, number)
    assert not list(folder.rglob("record.json")) and not list(folder.glob("leaderboard/**/*.json"))
    assert len(list(folder.rglob("model.safetensors"))) == 1 and not list(folder.rglob("*.png"))
    again = wait(fork(folder, *words, prepare=no_training))
    assert again == 0, (folder / "said").read_text()
    found = the_record(folder)
    assert f"nll_iwae_{EVALUATE['nll_samples']}" in found["metrics"]
    assert found == undisturbed
    assert not list(folder.rglob("*.part"))


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_evaluation_goes_on_from_the_images_that_it_has(
    folder: Path, undisturbed: dict, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    samples, images, done = EVALUATE["nll_samples"], EVALUATE["nll_images"], 3
    if number == signal.SIGKILL:
        monkeypatch.setattr(partial, "EVERY", 0.0)
        wait(fork(folder, *COMMANDS["train"], prepare=signalled(VanillaVAE, "log_weights", done * samples + 1, number)))
    else:
        stopped(folder, COMMANDS["train"], VanillaVAE, "log_weights", done * samples + 1, number)
    (values,) = folder.rglob(partial.VALUES)
    (folder / "calls").unlink()
    rest = (images - done) * samples
    again = fork(folder, *COMMANDS["train"], prepare=signalled(VanillaVAE, "log_weights", rest + 1, signal.SIGKILL))
    assert wait(again) == 0, (folder / "said").read_text()
    assert len((folder / "calls").read_text().split()) == rest
    assert the_record(folder) == undisturbed
    assert not values.parent.exists()


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_images_are_read_is_obeyed_at_once_and_leaves_nothing_that_the_next_start_believes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    for k in range(1000):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / "images" / f"{k}.png")
    monkeypatch.setenv("VAE_ZOO_CACHE", str(folder / "cache"))
    decode, calls = images_of_a_folder.decode_image, itertools.count(1)

    def slow(*given: object) -> np.ndarray:
        with open("calls", "a") as file:
            print(given[0], file=file)
        if next(calls) == 100:
            os.kill(os.getpid(), number)
        time.sleep(0.002)
        return decode(*given)

    few = [word for word in SETTINGS if not word.startswith("data.") or "--" in word]
    settings = [word for text in few if text != "--set" for word in ("--set", text)]
    words = ("train", "vae", "--data", "folder:images", *settings, "--set", "data.options.size=8", *QUIET)
    prepare = functools.partial(setattr, images_of_a_folder, "decode_image", slow)
    code, said = wait(fork(folder, *words, prepare=prepare)), (folder / "said").read_text()
    assert code == 130 and "read anew" in said and "Traceback" not in said, said
    assert len((folder / "calls").read_text().split()) < 300, "what threads were at when it came, of a thousand"
    there = [path.name for path in (folder / "cache" / "folders").iterdir() if path.name != ".lock"]
    assert not there
    (folder / "calls").unlink()
    monkeypatch.setattr(os, "kill", lambda *_: None)
    assert wait(fork(folder, *words, prepare=prepare)) == 0, (folder / "said").read_text()
    assert len((folder / "calls").read_text().split()) == 1000


class OneByOne(extractors.Extractor):
    """Eight features in place of Inception's, an image at a time."""

    name, distance, suffix, dimensions, batch, slow = "inception", "fid", "", 8, 1, True

    def __init__(self, device: str | torch.device) -> None:
        super().__init__(torch.nn.Identity(), {}, device)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), (2, 4)).flatten(1)


@needs_fork
def test_a_stop_among_features_keeps_those_that_are_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extractors.EXTRACTORS, "inception", OneByOne)
    monkeypatch.setattr(extractors, "PART", 4)
    monkeypatch.setenv("VAE_ZOO_CACHE", str(folder / "cache"))
    suite = json.loads((folder / "toy.yaml").read_text())
    suite["defaults"]["evaluate"] = {"nll_samples": 0, "quality_samples": 32, "latent": "no"}
    suite["defaults"]["data"] = DATA | {"binarise": "none"}
    (folder / "toy.yaml").write_text(json.dumps(suite))
    assert wait(fork(folder, *COMMANDS["bench"])) == 0, (folder / "said").read_text()
    (path,) = folder.glob("leaderboard/records/*/*.json")
    before = path.read_bytes()
    words = ("measure", "toy.yaml", "fid", "--device", "cpu")
    stopped(folder, words, OneByOne, "features", 6, signal.SIGTERM)
    assert path.read_bytes() == before
    kept = {part: part.stat().st_mtime_ns for part in folder.rglob("*.parts/*.safetensors")}
    assert len(kept) == 1, "four of the six images"
    monkeypatch.setattr(extractors.shutil, "rmtree", lambda *given, **named: None)  # to see what was gone on from
    assert wait(fork(folder, *words)) == 0, (folder / "said").read_text()
    assert json.loads(path.read_bytes())["metrics"]["fid"]["n"] == 32
    assert {part: part.stat().st_mtime_ns for part in kept} == kept


def asked_by() -> str:
    """The function that holds the place to stop, seen from the one that is asked."""
    frame = sys._getframe(2)
    while frame.f_code.co_name in ("stop_if_asked", "stoppable", "<listcomp>"):
        frame = frame.f_back
    return frame.f_code.co_name


def test_every_long_part_asks_and_none_swallows_the_answer(tmp_path: Path) -> None:
    settings = ["train.epochs=0", "evaluate.nll_samples=2", "evaluate.nll_images=8", "evaluate.quality_samples=32"]
    settings += ["evaluate.latent=yes", "data.options.n_train=128", "data.options.n_test=32"]
    run = train_run(resolve("vae", "synthetic", settings=settings), tmp_path / "run", choose("cpu"))
    places: list[str] = []

    def never() -> bool:
        places.append(asked_by())
        return False

    undisturbed = evaluate(run)  # before anything is counted: it leaves the features of the reference in the cache
    found = evaluate(run, never)
    assert set(places) >= {
        "bound", "importance_weighted", "measured", "codes", "_probes", "_aggregate", "total_correlation", "_pictures",
        "generate", "reconstruction", "reconstruction_quality", "__call__", "kernel_distance", "_squared_distances",
    }  # fmt: skip
    assert undisturbed.metrics == found.metrics
    whole = len(places)
    for last in (1, places.index("_pictures") + 1, whole):
        places.clear()
        with pytest.raises(Stopped, match="trained model is kept"):
            evaluate(run, lambda last=last: never() or len(places) == last)
        assert len(places) == last
    places.clear()
    stop_if_asked()  # nobody is asked any more
    assert not places


def test_the_places_to_stop_that_only_some_data_has() -> None:
    random = np.random.RandomState(0)
    factors = random.randint(0, 3, (60, 2))
    z = np.concatenate([factors, factors], 1) + 0.1 * random.standard_normal((60, 4))
    codes = Codes(z[:40], factors[:40], z[40:], factors[40:])
    pixels, labels = torch.zeros(8, 1, 28, 28, dtype=torch.uint8), torch.arange(8)
    for work, wanted in (
        (lambda: score_codes(codes, ["mig", "explicitness", "dci@hist-gbt"]), {"_score", "explicitness", "fitted"}),
        (lambda: train_classifier(pixels, labels, epochs=2), {"train"}),
    ):
        places: list[str] = []

        def never(places: list[str] = places) -> bool:
            places.append(asked_by())
            return False

        with stopping_when(never):
            work()
        assert set(places) == wanted and len(places) >= 2
        with pytest.raises(Stopped), stopping_when(lambda: True):
            work()

