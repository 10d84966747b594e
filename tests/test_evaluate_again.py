"""`zoo evaluate`: a finished run measured again gives its own numbers, or says of others what they are."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import evaluated, partial, per_example, record
from benchmarks.evaluated import Evaluated
from benchmarks.export import export
from benchmarks.metrics import likelihood
from benchmarks.running import single
from benchmarks.running.again import FOLDER, OTHER, Asked, evaluate_again
from tests.faults.children import fork, wait
from tests.faults.test_stops import needs_fork, signalled
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from tests.test_evaluation import other_data
from zoo import load_run
from zoo.config import resolve
from zoo.data.batches import Batches
from zoo.data.images import DataSpec, Images, ImageSet
from zoo.data.mnist import partly_labelled
from zoo.data.synthetic import load_synthetic
from zoo.errors import UsageError, ZooError
from zoo.models.vae import VanillaVAE
from zoo.registry import registry
from zoo.runs.images import _images, _loaded, load_images
from zoo.stopping import Stopped, stopping_when

SIZES = ["data.options.n_train=96", "data.options.n_validation=48", "data.options.n_test=40"]
CHEAP = ["train.epochs=1", "train.batch_size=32", "evaluate.nll_samples=3", "evaluate.nll_images=8"]


def trained(folder: Path, variant: str = "vae", data: str = "synthetic", *settings: str) -> record.Record:
    """A run in ``folder`` with its record, as `zoo train` leaves it."""
    sizes = [] if data.startswith("folder:") else SIZES
    given = [*CHEAP, *sizes, "evaluate.quality_samples=0", *settings]
    config = resolve(variant, data, settings=given)
    made = single.run(single.planned(config, tuple(given)), folder, "cpu", lambda planned: None)
    assert made.status == "done", made.reason
    return made


def again(folder: Path, split: str | None = None, data: str | None = None, *settings: str) -> Evaluated:
    return evaluate_again(Asked(folder, split, data, settings, command="zoo evaluate"), "cpu")[0]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    trained(folder)
    return folder


# ---- the run's own numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "data", "settings"),
    [
        ("vae", "synthetic", ["evaluate.quality_samples=40", "evaluate.latent=yes", "evaluate.ex_post=2"]),
        ("vae", "synthetic", ["evaluate.split=validation", "evaluate.seed=5", "train.ema=0.5"]),
        ("cvae", "synthetic", ["evaluate.quality_samples=40"]),
        ("quadrant_cvae", "synthetic", ["train.epochs=2", "train.warmup=1"]),
        ("vq_vae", "synthetic", ["data.binarise=threshold"]),
        ("ladder_vae", "synthetic", ["data.binarise=none"]),
        ("vae_gan", "synthetic", []),
        ("m2", "synthetic", []),
        ("rae", "synthetic", ["evaluate.nll_samples=0"]),
        ("two_stage_vae", "synthetic", []),
        ("energy_vae", "synthetic", []),
        ("flow_vae", "ppca", []),
        ("cvae", "mnist_strokes_like", []),
    ],
)
def test_asked_for_nothing_else_it_gives_the_numbers_of_the_run(
    variant: str, data: str, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if data == "mnist_strokes_like":  # a set that has factors, of a name that is not built in
        plugged(monkeypatch, data)
    made = trained(tmp_path / "run", variant, data, *settings)
    export(tmp_path / "run", tmp_path / "given")
    for folder in (tmp_path / "run", tmp_path / "given"):
        torch.manual_seed(7)  # what a process drew before is nothing to it
        found = again(folder)
        assert found.metrics == made.metrics and found.skipped == made.skipped
        assert (found.data, found.model, found.own) == (made.data, made.model, True)
        assert found.config == json.loads(json.dumps(made.config))
        (path,) = (folder / FOLDER).glob("*.json")
        record_like = found.as_record(variant)
        values = per_example.read(record_like, {record_like.cell: path}.__getitem__)
        assert values.keys() >= {"elbo"} & made.metrics.keys()


def plugged(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A data set of somebody's own, with classes and measured factors."""
    from zoo.registry import DatasetEntry

    entry = DatasetEntry(
        target="tests.test_evaluate_again:load_plugged", title="Somebody's", shape=(1, 28, 28), classes=10,
        binarise="dynamic", origin="somebody 1.0",
    )  # fmt: skip
    monkeypatch.setitem(registry().datasets, name, entry)
    _loaded.cache_clear()
    _images.cache_clear()


def load_plugged(n_train: int = 96, n_validation: int = 48, n_test: int = 40) -> ImageSet:
    made = load_synthetic(n_train, n_validation, n_test)
    return ImageSet("mnist_strokes_like", made.splits, made.spec, made.classes)


def test_what_was_asked_for_is_another_number_and_the_rest_is_the_same(mine: Path) -> None:
    own = record.read(mine / "record.json").metrics
    found = again(mine, None, None, "evaluate.nll_samples=9", "evaluate.nll_images=null").metrics
    assert found["nll_iwae_9"].n == 40 and found["nll_iwae_9"].identity["k"] == 9
    assert found["nll_iwae_9"].value < again(mine, None, None, "evaluate.nll_images=null").metrics["nll_iwae_3"].value
    same = own.keys() & found.keys()
    assert {"elbo", "rate", "distortion", "active_units"} <= same
    assert all(found[name] == own[name] for name in same)


# ---- another split -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "n"), [("train", 96), ("validation", 48), ("test", 40)])
def test_every_number_is_of_the_split_that_it_names(mine: Path, split: str, n: int) -> None:
    settings = ("evaluate.quality_samples=30", "evaluate.anomaly=ppca", "evaluate.cas=10")
    found = again(mine, split, None, *settings)
    images = load_images(resolve("vae", "synthetic", settings=SIZES))
    shown = images.with_training_bits()[split]
    bound = likelihood.bound(load_run(mine), Batches(shown, batch_size=16, drop_last=False), 0)
    assert found.metrics["elbo"].value == pytest.approx(bound.elbo.mean().item(), rel=1e-6)
    assert found.metrics["elbo"].n == found.images == n
    assert all(one.identity["split"] == split for one in found.metrics.values())
    assert found.bits_seed == {"test": 777, "validation": 778, "train": 779}[split]
    learnt = {"linear_probe", "knn_accuracy"}
    assert learnt.isdisjoint(found.metrics) == (split == "train")
    if split == "train":
        assert all("training split" in found.skipped[name] for name in learnt)
        assert found.skipped["auroc"] == "inliers are images that it was not trained on"


def test_factors_are_not_learnt_and_scored_on_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = {"shape": (1, 8, 8), "classes": 0, "binarise": "none", "support": "binary"}
    monkeypatch.setitem(registry().datasets, "factors", registry().datasets["synthetic"].model_copy(
        update={"target": "tests.test_evaluate_again:load_factors", **of}))  # fmt: skip
    small = ["encoder.hidden=[8]", "decoder.hidden=[8]", "latent=3", "evaluate.factor_images=40"]
    made = trained(tmp_path / "run", "vae", "factors", *small)
    assert "split" not in made.metrics["mig"].identity
    validation = again(tmp_path / "run", "validation")
    assert validation.metrics["mig"].identity == made.metrics["mig"].identity | {"split": "validation"}
    assert "training split" in again(tmp_path / "run", "train").skipped["disentanglement"]


def load_factors(n_train: int = 96, n_validation: int = 48, n_test: int = 40) -> ImageSet:
    rng = np.random.default_rng(0)
    splits = {}
    for name, n in (("train", n_train), ("validation", n_validation), ("test", n_test)):
        factors = rng.integers(0, 4, (n, 2))
        pixels = np.zeros((n, 1, 8, 8), np.uint8)
        for i, (row, column) in enumerate(factors):
            pixels[i, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 255
        splits[name] = Images(pixels, None, factors, ("row", "column"), (4, 4), "exact")
    return ImageSet("factors", splits, DataSpec((1, 8, 8), "binary"))


def test_training_bits_are_drawn_once_and_are_no_other_s() -> None:
    grey = load_synthetic(n_train=400, n_validation=400, n_test=400)
    same = grey["train"]
    images = ImageSet("same", {split: same for split in grey.splits}, grey.spec, grey.classes).prepare("dynamic", 5)
    drawn = images.with_training_bits()
    bits = {split: drawn[split].pixels for split in drawn.splits}
    assert drawn.sha256 == images.sha256 and [images.bits_seed(split) for split in images.splits] == [7, 6, 5]
    assert torch.equal(bits["train"], images.with_training_bits()["train"].pixels)
    assert all(torch.equal(bits[split], images[split].pixels) for split in ("validation", "test"))
    assert not torch.equal(bits["train"], bits["test"]) and not torch.equal(bits["train"], bits["validation"])
    assert set(bits["train"].unique().tolist()) == {0, 255}
    # As often 1 as the byte says: within five deviations, over all pixels.
    chance = same.pixels.double() / 255
    off = (bits["train"].double() / 255 - chance).sum() / (chance * (1 - chance)).sum().sqrt()
    assert abs(off) < 5
    # Of each image the same ones, however many follow.
    fewer = images.subset({"train": 30}).with_training_bits()
    assert torch.equal(fewer["train"].pixels, bits["train"][:30])
    plain = grey.prepare("threshold")
    assert plain.with_training_bits() is plain and plain.bits_seed("train") is None


def test_images_that_training_sees_again_with_their_class_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry().datasets, "partly", registry().datasets["synthetic"].model_copy(
        update={"target": "tests.test_evaluate_again:load_partly"}))  # fmt: skip
    trained(tmp_path / "run", "m2", "partly", "labelled=0.3")
    found = again(tmp_path / "run", "train", None, "evaluate.quality_samples=1000", "evaluate.nll_images=null")
    assert load_partly()["train"].pixels.shape[0] > 96
    assert found.images == 96
    assert {found.metrics[name].n for name in ("elbo", "nll_iwae_3", "active_units", "fd_digits")} == {96}


def load_partly(n_train: int = 96, n_validation: int = 48, n_test: int = 40) -> ImageSet:
    return partly_labelled(load_synthetic(n_train, n_validation, n_test), 20, 0.4)


def test_a_model_that_has_its_images_by_heart_is_told_by_its_bound(tmp_path: Path) -> None:
    few = ["data.options.n_train=32", "data.options.n_test=200", "data.options.shape=[1,12,12]", "train.batch_size=4"]
    long = ["train.epochs=60", "train.keep=last", "train.validate_every=60", "train.learning_rate=0.003", "latent=8"]
    small = ["encoder.hidden=[64]", "decoder.hidden=[64]", "evaluate.nll_samples=0", "evaluate.latent=no"]
    trained(tmp_path / "run", "vae", "synthetic", *few, *long, *small)
    seen, unseen = (again(tmp_path / "run", split).metrics["elbo"] for split in ("train", "test"))
    assert seen.value - unseen.value > 4 * (seen.stderr**2 + unseen.stderr**2) ** 0.5


def test_no_run_is_measured_on_what_it_learns_from_while_it_is_trained(zoo) -> None:  # noqa: F811
    code, _, err = zoo("train", "vae", "--data", "synthetic", "--set", "evaluate.split=train", "--out", "run")
    assert code == 2 and "zoo evaluate" in err and not Path("run").exists()


# ---- other data --------------------------------------------------------------------------------------------------


def test_numbers_of_other_data_say_so_and_are_of_it(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_data(monkeypatch, n_test=24, seed=9)
    own, found = again(mine), again(mine, None, "other", "evaluate.quality_samples=24")
    images = load_synthetic(n_test=24, seed=9).prepare("dynamic")
    bound = likelihood.bound(load_run(mine), Batches(images["test"], batch_size=7, drop_last=False), 0)
    assert found.metrics["elbo"].value == pytest.approx(bound.elbo.mean().item(), rel=1e-6)
    assert (found.own, found.data.name, found.data.sha256) == (False, "other", images.sha256)
    for name, one in found.metrics.items():
        own_words = {"data": "other", "data_sha256": images.sha256[:12], "bits_seed": 777}
        assert one.identity.items() >= own_words.items(), name
        assert name not in own.metrics or own.metrics[name].identity != one.identity
    assert found.run == own.run and found.config["data"] == own.config["data"]
    assert found.skipped["auroc"] == found.skipped["fd_digits_ex_post"] == OTHER
    assert found.skipped["fd_digits_ex_post_flow"] == OTHER


def test_its_own_data_by_its_name_is_its_own_data(mine: Path) -> None:
    assert again(mine, None, "synthetic") == again(mine)
    smaller = again(mine, None, "synthetic", "data.options.n_test=20")
    assert not smaller.own and smaller.metrics["elbo"].n == 20
    other = again(mine, None, "synthetic", "data.test_bits_seed=3")
    assert not other.own and other.metrics["elbo"].identity["bits_seed"] == 3


@pytest.mark.parametrize(
    ("support", "own", "name", "expected"),
    [
        ("binary", "dynamic", "fashion_mnist", "dynamic"),
        ("binary", "threshold", "fashion_mnist", "threshold"),
        ("binary", "dynamic", "mnist_static", "none"),
        ("8-bit", "none", "fashion_mnist", "none"),
        ("binary", "none", "fashion_mnist", "dynamic"),
    ],
)
def test_other_pixels_become_bits_where_the_model_knows_bits_alone(
    support: str, own: str, name: str, expected: str
) -> None:
    from benchmarks.running.again import _data
    from zoo.runs.folder import Described

    given = "mnist_static" if (support, own) == ("binary", "none") else "mnist"
    config = resolve("vae", given, settings=[] if given != "mnist" else [f"data.binarise={own}"])
    described = Described(config, DataSpec((1, 28, 28), support), "0")
    assert _data(Asked(Path("run"), data=name), described).binarise == expected


def test_a_run_on_dequantised_bytes_is_measured_on_such_bytes(tmp_path: Path) -> None:
    made = trained(tmp_path / "run", "vae", "synthetic", "data.dequantise=uniform", "likelihood.name=gaussian")
    assert again(tmp_path / "run").metrics == made.metrics
    seen = again(tmp_path / "run", "train")
    assert (seen.images, seen.bits_seed, seen.data.support) == (96, 779, "dequantised")
    others = again(tmp_path / "run", None, f"folder:{pictures(tmp_path / 'pictures')}", "data.options.test=0.5")
    assert (others.data.support, others.own) == ("dequantised", False)
    for name in ("elbo", "bits_per_dim"):
        identity = others.metrics[name].identity
        assert (identity["dequantised"], identity["bits_seed"]) == ("uniform", 777)


def pictures(folder: Path, n: int = 60, size: int = 20, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (size, size), np.uint8)).save(folder / f"{i}.png")
    return folder


def test_a_folder_is_read_in_the_size_that_the_model_knows(mine: Path, tmp_path: Path) -> None:
    found = again(mine, None, f"folder:{pictures(tmp_path / 'pictures')}")
    assert (found.data.binarise, found.data.support, found.own) == ("dynamic", "binary", False)
    assert found.options["size"] == 28 and found.options["channels"] == 1
    most = again(mine, None, f"folder:{tmp_path / 'pictures'}", "data.options.test=0.8")
    assert most.metrics["elbo"].n > found.metrics["elbo"].n


def test_a_run_on_a_folder_is_measured_where_its_images_lie_now(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures")
    size = ["data.options.size=12", "data.options.channels=1", "encoder.hidden=[8]", "decoder.hidden=[8]"]
    made = trained(tmp_path / "run", "vae", f"folder:{folder}", *size)
    export(tmp_path / "run", tmp_path / "given")
    # Of other shares the test images would be some that it learnt from.
    for share in ("test=0.8", "validation=0.5"):
        with pytest.raises(UsageError, match="was trained on this folder with other shares"):
            again(tmp_path / "run", None, f"folder:{folder}", f"data.options.{share}")
    assert again(tmp_path / "run", None, f"folder:{folder}", "data.options.test=0.1").own
    folder.rename(tmp_path / "moved")
    for place in ("run", "given"):
        found = again(tmp_path / place, None, f"folder:{tmp_path / 'moved'}")
        assert found.own and found.metrics == made.metrics
    # Others in it are other data, and are asked for by name.
    _loaded.cache_clear()
    _images.cache_clear()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "moved" / "another.png")
    (tmp_path / "moved").rename(folder)
    with pytest.raises(ZooError, match="--data folder:.*/pictures evaluates it on what is there"):
        again(tmp_path / "run")
    found = again(tmp_path / "run", None, f"folder:{folder}")
    assert not found.own and "data_sha256" in found.metrics["elbo"].identity


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, mine: Path) -> Path:
    folder = tmp_path_factory.mktemp("several")
    for name in ("mine", "unfinished", "plugin"):
        shutil.copytree(mine, folder / name, ignore=shutil.ignore_patterns(FOLDER))
    (folder / "unfinished" / "model.safetensors").unlink()
    trained(folder / "cvae", "cvae")
    trained(folder / "m2", "m2")
    told = json.loads((folder / "plugin" / "run.json").read_text())
    told["config"]["data"]["name"] = "somebodys"
    (folder / "plugin" / "run.json").write_text(json.dumps(told))
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("empty", "is not a run"),
        ("unfinished", "is not finished"),
        ("plugin", "install the package that has it"),
        ("mine --split training", "'training' is not one of 'test', 'validation', 'train'"),
        ("mine --data cifar10", "have the shape (3, 32, 32), and those of the run (1, 28, 28)"),
        ("mine --data ppca", "have the shape (1, 1, 10)"),
        ("mine --data synthetic --set data.binarise=none", "have the support 8-bit, and those of the run binary"),
        ("mine --data fashion_mnits", "Did you mean 'fashion_mnist'?"),
        ("mine --data folder:", "names no folder"),
        ("mine --data folder:nowhere", "is not a folder of images"),
        ("mine --set train.epochs=3", "a training that is over"),
        ("mine --set beta=3", "a training that is over"),
        ("mine --set evaluate.nll_sample=3", "Did you mean 'nll_samples'?"),
        ("mine --set evaluate.split=train", "--split"),
        ("mine --set data.binarise=none", "--data NAME"),
        ("mine --set nll_samples=3", "those of `evaluate`. Did you mean 'evaluate.nll_samples' by 'nll_samples'?"),
        ("mine --set ex-post=3", "those of `evaluate`. Did you mean 'evaluate.ex_post' by 'ex-post'?"),
        ("mine --set epochs=3", "'epochs' is of a training that is over: settings here are those of `evaluate`"),
        ("mine --set evaluate=3", "'evaluate' has settings of its own"),
        ("mine --set evaluate.anomaly=synthetic", "what the model learns"),
        ("mine --out mine/record.json", "is not written over"),
        ("mine --out x.txt", "ends in .json"),
        ("mine --out leaderboard/records/quick@1/x.json", "where a board has its records"),
        ("mine --device tpu", "no device 'tpu'"),
        ("cvae --data fashion_mnist_like", "is told the class"),
        ("m2 --data fashion_mnist_like", "is told the class"),
        ("cvae --data hidden", "hides that of some in its train split"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence_and_leaves_nothing(
    zoo, runs: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str  # noqa: F811
) -> None:
    synthetic = registry().datasets["synthetic"]
    for name in ("fashion_mnist_like", "hidden"):
        entry = synthetic.model_copy(update={"target": f"tests.test_evaluate_again:load_{name}"})
        monkeypatch.setitem(registry().datasets, name, entry)
    before = sorted(runs.rglob("*"))
    record_of_it = (runs / "mine" / "record.json").read_bytes()
    folder, *rest = words.split()
    rest = [str(runs / word) if word.startswith(("mine/", "leaderboard/")) else word for word in rest]
    more = ["--split", "train"] if "hidden" in words else []
    code, out, err = zoo("evaluate", str(runs / folder), *rest, *more)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1 and "Traceback" not in err, err
    assert sorted(runs.rglob("*")) == before
    assert (runs / "mine" / "record.json").read_bytes() == record_of_it


def load_fashion_mnist_like(n_train: int = 96, n_validation: int = 48, n_test: int = 40) -> ImageSet:
    made = load_synthetic(n_train, n_validation, n_test)
    return ImageSet("fashion_mnist_like", made.splits, made.spec, tuple(f"dress {i}" for i in range(10)))


def load_hidden(n_train: int = 96, n_validation: int = 48, n_test: int = 40) -> ImageSet:
    return partly_labelled(load_synthetic(n_train, n_validation, n_test), 10, 0.3)


def test_pixels_that_its_likelihood_is_no_density_of_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppca = registry().datasets["ppca"]
    for name in ("inside", "ppca"):
        entry = ppca if name == "ppca" else ppca.model_copy(update={"target": "tests.test_evaluate_again:load_inside"})
        monkeypatch.setitem(registry().datasets, name, entry)
    trained(tmp_path / "run", "vae", "inside", "likelihood.name=continuous_bernoulli")
    with pytest.raises(UsageError, match="a density on \\[0, 1\\] alone"):
        again(tmp_path / "run", None, "ppca")


def load_inside(n_train: int = 96, n_validation: int = 48, n_test: int = 40) -> ImageSet:
    rng = np.random.default_rng(0)
    sizes = {"train": n_train, "validation": n_validation, "test": n_test}
    splits = {split: Images(rng.random((n, 1, 1, 10), np.float32)) for split, n in sizes.items()}
    return ImageSet("inside", splits, DataSpec((1, 1, 10), "real"))


def test_another_evaluation_is_not_written_over(mine: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    made, _ = evaluate_again(Asked(mine, out=path), "cpu")
    assert evaluate_again(Asked(mine, out=path), "cpu")[0] == made == evaluated.read(path)
    text = path.read_bytes()
    with pytest.raises(ZooError, match="holds another evaluation"):
        evaluate_again(Asked(mine, split="train", out=path), "cpu")
    # Nor those of weights that are gone.
    shutil.copytree(mine, tmp_path / "run")
    trained(tmp_path / "run2", "vae", "synthetic", "train.epochs=2")
    shutil.copy(tmp_path / "run2" / "model.safetensors", tmp_path / "run")
    with pytest.raises(ZooError, match="holds another evaluation"):
        evaluate_again(Asked(tmp_path / "run", out=path), "cpu")
    assert path.read_bytes() == text


def test_what_lies_beside_it_is_not_written_over(mine: Path, tmp_path: Path) -> None:
    asked = Asked(mine, settings=("evaluate.latent=yes",), out=tmp_path / "made" / "codes.json")
    _, path = evaluate_again(asked, "cpu")
    beside = sorted(set(path.parent.iterdir()) - {path})
    endings = {each.name.removeprefix("codes") for each in beside}
    assert endings >= {".npz", "-reconstructions.png", "-samples.png", "-traversals.png", "-pca.png", "-tsne.png"}
    for one in beside:
        folder = tmp_path / one.name
        folder.mkdir()
        (folder / one.name).write_text("mine")
        with pytest.raises(UsageError, match=f"{one.name} is there, .* give another --out"):
            evaluate_again(replace(asked, out=folder / "codes.json"), "cpu")
        assert [each.read_text() for each in folder.iterdir()] == ["mine"]
    # Its own are: who was killed between them and the file goes on.
    path.unlink()
    (path.parent / ".codes.kept").mkdir()
    assert evaluate_again(asked, "cpu")[1] == path and not (path.parent / ".codes.kept").exists()


def test_a_link_to_nothing_is_not_written_over(mine: Path, tmp_path: Path) -> None:
    for name in ("codes.json", "codes.npz", "codes-samples.png"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).symlink_to("gone")
        with pytest.raises(UsageError, match=f"{name} is .*is not written over: give another --out"):
            evaluate_again(Asked(mine, out=folder / "codes.json"), "cpu")
        assert [(each.name, each.readlink()) for each in folder.iterdir()] == [(name, Path("gone"))]


def test_a_damaged_file_is_named_and_once_it_is_gone_the_same_command_measures_again(
    zoo, mine: Path, tmp_path: Path  # noqa: F811
) -> None:
    shutil.copytree(mine, tmp_path / "run", ignore=shutil.ignore_patterns(FOLDER))
    made, path = evaluate_again(Asked(tmp_path / "run"), "cpu")
    whole = path.read_text()
    path.write_text(whole[:100])
    there = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    code, out, err = zoo("evaluate", str(tmp_path / "run"))
    assert (code, out, err.count("\n")) == (2, "", 1) and f"{path.name} is not an evaluation: " in err
    assert err.endswith(", and is not written over: once it is moved away the same command measures again.\n"), err
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == there
    path.rename(tmp_path / "damaged.json")
    assert zoo("evaluate", str(tmp_path / "run"))[0] == 0 and evaluated.read(path).metrics == made.metrics
    assert (tmp_path / "damaged.json").read_text() == whole[:100]


def test_a_stop_that_somebody_further_up_is_asked_of_is_heard(mine: Path, tmp_path: Path) -> None:
    asked = Asked(mine, "validation", out=tmp_path / "a.json")
    with stopping_when(lambda: True), pytest.raises(Stopped, match="trained model is kept"):
        evaluate_again(asked, "cpu")
    assert not asked.out.exists()
    with stopping_when(lambda: False):
        assert evaluate_again(asked, "cpu")[1].exists()


def test_a_picture_that_is_not_looked_for_is_not_written(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import evaluate as module

    monkeypatch.setattr(module, "walks", lambda model, batches: {"spheres": torch.zeros(1, 1, 9, 9, dtype=torch.uint8)})
    (tmp_path / "codes-spheres.png").write_text("mine")
    with pytest.raises(ValueError, match="PICTURES has no spheres"):
        evaluate_again(Asked(mine, out=tmp_path / "codes.json"), "cpu")
    assert (tmp_path / "codes-spheres.png").read_text() == "mine" and not (tmp_path / "codes.json").exists()


def test_where_the_run_s_folder_cannot_be_written_another_place_is_named(zoo, mine: Path, tmp_path: Path) -> None:  # noqa: F811
    shutil.copytree(mine, tmp_path / "run", ignore=shutil.ignore_patterns(FOLDER))
    (tmp_path / "run" / FOLDER).write_text("no folder: root writes into one that is closed")
    code, out, err = zoo("evaluate", str(tmp_path / "run"))
    assert (code, out, err.count("\n")) == (2, "", 1) and f"{FOLDER}/.test-synthetic-" in err
    assert err.endswith("cannot be written (Not a directory): give another --out.\n"), err
    assert zoo("evaluate", str(tmp_path / "run"), "--out", str(tmp_path / "made.json"))[0] == 0


def test_no_board_and_no_reader_of_records_takes_it_for_a_record(zoo, mine: Path, tmp_path: Path) -> None:  # noqa: F811
    _, path = evaluate_again(Asked(mine, split="train"), "cpu")
    with pytest.raises(ZooError, match="not a record"):
        record.read(path)
    stolen = tmp_path / "leaderboard" / "records" / "quick@1" / path.name
    stolen.parent.mkdir(parents=True)
    shutil.copy(path, stolen)
    code, _, err = zoo("leaderboard")
    assert code == 1 and "is not a record" in err


# ---- the command -------------------------------------------------------------------------------------------------


def test_the_table_has_every_number_and_says_what_of(zoo, mine: Path) -> None:  # noqa: F811
    shutil.rmtree(mine / FOLDER, ignore_errors=True)
    code, out, err = zoo("evaluate", str(mine), "--split", "train", "--device", "cpu")
    assert code == 0, err
    assert "trained on synthetic\ntrain split of synthetic, 96 images, bits drawn once from seed 779\n" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    made = json.loads(zoo("evaluate", str(mine), "--split", "train", "--device", "cpu", "--json")[1])
    assert made["command"] == f"zoo evaluate {mine} --split train"
    rows = out.split("---\n")[-1].splitlines()
    for title in ("ELBO ↑ (nats)", "NLL (k = 3) ↓ (nats)", "NLL (k = 3, all) ↓ (nats)", "rate (nats)"):
        assert sum(row.startswith(title) for row in rows) == 1, title
    assert len([row for row in rows if "  " in row]) == len(made["metrics"])
    assert out.splitlines()[-1].endswith(".json") and Path(out.splitlines()[-1]).exists()
    (line,) = (line for line in out.splitlines() if line.startswith("it is learnt from the training split"))
    assert line.endswith(": no linear_probe, knn_accuracy")


def test_two_evaluations_are_compared_image_by_image(zoo, mine: Path, tmp_path: Path) -> None:  # noqa: F811
    trained(tmp_path / "other", "vae", "synthetic", "train.epochs=2")
    (a, one), (b, two) = (evaluate_again(Asked(run, split="train"), "cpu") for run in (mine, tmp_path / "other"))
    code, out, err = zoo("compare", str(one), str(two), "--json")
    assert code == 0, err
    (row,) = (row for row in json.loads(out) if row["metric"] == "elbo")
    values = [np.load(path.with_suffix(".npz"))["elbo"].astype(np.float64) for path in (one, two)]
    assert row["difference"] == pytest.approx(a.metrics["elbo"].value - b.metrics["elbo"].value)
    error = (values[0] - values[1]).std(ddof=1) / 96**0.5
    assert row["paired"] and row["half_width_95"] == pytest.approx(2 * error, rel=1e-3)
    assert row["identity"]["split"] == "train"
    code, out, _ = zoo("compare", str(one), str(two))
    assert code == 0 and "paired: ELBO" in out
    _, test = evaluate_again(Asked(mine), "cpu")
    (tmp_path / "broken.json").write_text("[")
    for words, said in (
        ([str(one), str(test)], "no two of their numbers are of the same images"),
        ([str(one), "vae"], "there is no evaluation vae"),
        ([str(one), str(mine / "record.json")], "is not what `zoo evaluate` writes"),
        ([str(one), str(two), "--suite", "quick"], "of no suite"),
        ([str(one), str(tmp_path / "broken.json")], "broken.json is not an evaluation: "),
    ):
        code, _, err = zoo("compare", *words)
        assert code == 2 and said in err, err


def test_a_file_that_says_two_things_of_one_number_is_no_evaluation(zoo, mine: Path, tmp_path: Path) -> None:  # noqa: F811
    made, path = evaluate_again(Asked(mine), "cpu")
    content = json.loads(path.read_text())
    twice = [{"name": "z", "value": 1.0}, {"name": "z", "value": 2.0}]
    for more, said in (
        ({"rates": twice}, "two groups of `rates` have one name"),
        ({"skipped": made.skipped | {"elbo": "no reason"}}, "elbo is both measured and skipped"),
    ):
        (tmp_path / "wrong.json").write_text(json.dumps(content | more))
        code, out, err = zoo("compare", str(tmp_path / "wrong.json"), str(path))
        assert (code, out, err.count("\n")) == (2, "", 1) and f"wrong.json is not an evaluation: {said}" in err


# ---- killed ------------------------------------------------------------------------------------------------------


BITS = {"support": "binary", "binarise": "dynamic", "test_bits_seed": 777}
BYTES = {"support": "8-bit", "binarise": "none", "test_bits_seed": None}
NOISY = {"support": "dequantised", "binarise": "none", "test_bits_seed": 777}


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (BITS, BITS | {"sha256": "0" * 64}, "another set of that name"),
        (BITS, BITS | {"n": record.Sizes(train=96, validation=48, test=39)}, "another set of that name"),
        (BITS, BYTES, "the same as 8-bit data, not binary"),
        (NOISY, BYTES, "the same as 8-bit data, not dequantised"),
        (
            BITS, BITS | {"binarise": "threshold", "test_bits_seed": None},
            "the same made bits in another way (data.binarise=threshold, not dynamic)",
        ),
        (BITS, BITS | {"test_bits_seed": 3}, "the same with other bits (data.test_bits_seed=3, not 777)"),
        (
            NOISY, NOISY | {"test_bits_seed": 3},
            "the same with other noise on its bytes (data.test_bits_seed=3, not 777)",
        ),
    ],
)  # fmt: skip
def test_what_sets_the_images_of_two_evaluations_apart_is_said(
    zoo, mine: Path, tmp_path: Path, ours: dict, theirs: dict, said: str  # noqa: F811
) -> None:
    made, _ = evaluate_again(Asked(mine), "cpu")
    for name, changed in (("a", ours), ("b", theirs)):
        one = made.model_copy(update={"data": made.data.model_copy(update=changed)})
        evaluated.write(one, tmp_path / f"{name}.json")
    code, out, err = zoo("compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"a.json is of the test split of 'synthetic', {tmp_path}/b.json of {said}: no two of their numbers" in err


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_evaluation_that_ends_early_goes_on_and_comes_to_the_same(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    shutil.copytree(mine, tmp_path / "run", ignore=shutil.ignore_patterns(FOLDER))
    own = (tmp_path / "run" / "record.json").read_bytes()
    settings = ("evaluate.nll_samples=4", "evaluate.nll_images=6", "evaluate.rows=1")
    words = ["evaluate", "run", "--split", "train", "--device", "cpu", "--out", "x.json"]
    words += [word for text in settings for word in ("--set", text)]
    monkeypatch.setattr(partial, "EVERY", 0.0)
    code = wait(fork(tmp_path, *words, prepare=signalled(VanillaVAE, "log_weights", 4 * 3 + 1, number)))
    said = (tmp_path / "said").read_text()
    if number == signal.SIGTERM:
        assert code == 130 and "goes on from here" in said and "Traceback" not in said, said
    assert not (tmp_path / "x.json").exists() and not list(tmp_path.glob("*.png"))
    (tmp_path / "calls").unlink()
    code = wait(fork(tmp_path, *words, prepare=signalled(VanillaVAE, "log_weights", 10_000, signal.SIGKILL)))
    assert code == 0, (tmp_path / "said").read_text()
    assert len((tmp_path / "calls").read_text().split()) == 3 * 4
    expected = again(mine, "train", None, *settings)
    found = evaluated.read(tmp_path / "x.json")
    assert (found.metrics, found.skipped, found.key) == (expected.metrics, expected.skipped, expected.key)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert (tmp_path / "run" / "record.json").read_bytes() == own and not os.path.exists(tmp_path / "run" / FOLDER)


@pytest.mark.parametrize("failures", [1, 2])
def test_where_memory_is_short_it_is_measured_in_smaller_parts_once(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    from benchmarks.running import again as module

    real, rows = module.evaluate, []

    def short(run, *rest):
        rows.append(run.config.evaluate.rows)
        if len(rows) <= failures:
            raise MemoryError
        return real(run, *rest)

    monkeypatch.setattr(module, "evaluate", short)
    asked = Asked(mine, "validation", out=tmp_path / "a.json", command="zoo evaluate")
    if failures == 2:
        with pytest.raises(ZooError, match="out of memory, in parts too"):
            evaluate_again(asked, "cpu")
    else:
        evaluate_again(asked, "cpu")
        assert (tmp_path / "a.json").exists()
    assert len(rows) == 2 and rows[1] < rows[0]
