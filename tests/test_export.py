"""Runs to give away, and torch.hub: what is written, what loads again, what is said when there is nothing."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks import matrix
from benchmarks.export import card
from benchmarks.record import dump
from benchmarks.running import single
from benchmarks.suite import suite_named
from tests.conftest import ROOT
from tests.faults.test_failing_cells import small_suite
from tests.test_board import make
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from zoo import list_models, load_run, noise
from zoo.config import resolve
from zoo.errors import UsageError, ZooError
from zoo.registry import registry
from zoo.runs import train_run
from zoo.training.precision import choose

WORDS = ["--data", "synthetic", "--set", "train.epochs=1", "--set", "latent=3", "--set", "evaluate.quality_samples=0"]


def answers(model) -> list[torch.Tensor]:
    x = torch.rand(4, 1, 28, 28).round()
    with noise.keyed(0, torch.arange(4)), torch.no_grad():
        return [model.terms(x).elbo, model.represent(x), model.sample(4)]


def test_a_run_is_exported_with_its_card_and_loads_to_the_same_bits(zoo, tmp_path: Path) -> None:  # noqa: F811
    assert zoo("train", "beta_vae", *WORDS, "--set", "beta=2", "--out", "run", "--wandb", "disabled")[0] == 0
    code, out, err = zoo("export", "run", "given/away")
    assert code == 0, err
    folder = tmp_path / "given" / "away"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    torch.manual_seed(0)
    first = answers(load_run("run"))
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(first, answers(load_run(folder)), strict=True))
    # A card that states what the record states, under a head that is YAML.
    text = (folder / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    for name, metric in record["metrics"].items():
        row = re.search(rf"^\| {name} \| (\S+)", body, re.M)
        assert float(row[1]) == pytest.approx(metric["value"], rel=1e-4)
    assert '"beta": 2' in body and record["data"]["sha256"] in body and "Apache-2.0" in body
    assert str(tmp_path) not in text + (folder / "config.json").read_text()
    # It is a run like any other for whoever draws from it, and can be given on.
    assert zoo("sample", "given/away", "--n", "2", "--out", "a.png")[0] == 0
    assert zoo("export", "given/away", "further")[0] == 0
    assert zoo("export", "run", "given/away")[0] == 0
    (folder / "mine.txt").write_text("")
    code, _, err = zoo("export", "run", "given/away")
    assert code == 2 and "holds other things (mine.txt)" in err
    assert zoo("export", "run", "run")[0] == 2 and zoo("export", "nothing", "x")[0] == 2
    assert not (tmp_path / "x").exists()


def test_the_run_of_a_suite_has_the_numbers_of_its_record_on_the_board(zoo, tmp_path: Path) -> None:  # noqa: F811
    suite = small_suite(tmp_path)
    assert zoo("bench", suite, "--variants", "vae", "--seeds", "1", "--jobs", "1", "--board", "mine")[0] == 0
    (run,) = (path.parent for path in tmp_path.glob("runs/*/*/run.json"))
    (record,) = (tmp_path / "mine" / "records").glob("*/*.json")
    assert zoo("export", str(run.relative_to(tmp_path)), "one", "--board", "mine")[0] == 0
    text, made = (tmp_path / "one" / "README.md").read_text(), json.loads(record.read_text())
    row = re.search(r"^\| elbo \| (\S+)", text, re.M)
    assert float(row[1]) == pytest.approx(made["metrics"]["elbo"]["value"], rel=1e-4)
    assert made["command"] in text and f"(record {run.parent.name}/{run.name})" in text
    assert zoo("export", str(run), "two")[0] == 0
    assert "no record of the run was found" in (tmp_path / "two" / "README.md").read_text()
    # The record of another configuration under that name says nothing of this run.
    record.write_text(record.read_text().replace(made["cell"]["key"], "0" * 12))
    assert zoo("export", str(run), "three", "--board", "mine")[0] == 0
    assert "no record of the run was found" in (tmp_path / "three" / "README.md").read_text()


def test_what_was_learnt_from_data_that_is_not_free_says_so() -> None:
    config = resolve("vae", "celeba").model_dump(mode="json")
    spec = {"shape": [3, 64, 64], "support": "8-bit"}
    text = card({"config": config, "spec": spec, "library": "vae-zoo", "data_sha256": "0"}, None, 7)
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "other"
    assert "no record of the run was found" in text and text.count("non-commercial") == 2


def test_the_card_of_a_conditional_model_says_so_in_a_table_that_is_whole() -> None:
    config = resolve("cvae").model_dump(mode="json")
    content = {"config": config, "spec": {"shape": [1, 28, 28], "support": "binary"}, "library": "", "data_sha256": "0"}
    numbers = {"elbo": (-90.0, 0.1), "total_correlation": (9.0, 0.1, {"identity": {"posterior": "q(z | x, y)"}})}
    for conditional in (True, False):
        text = card(content, make("cvae", numbers=numbers, model__conditional=conditional), 7)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [6] * 4
        assert "q(z \\| x, y)" in text and "\\\\" not in text
        assert ("its nats are of log p(x | y), not of log p(x)" in text) == conditional


@pytest.mark.parametrize(("size", "title"), [(64, "CelebA 64x64"), (32, "celeba")])
def test_a_card_names_no_size_that_its_images_do_not_have(size: int, title: str) -> None:
    config = resolve("vae", "celeba", settings=[f"data.options.size={size}"]).model_dump(mode="json")
    spec = {"shape": [3, size, size], "support": "8-bit"}
    text = card({"config": config, "spec": spec, "library": "vae-zoo", "data_sha256": "0"}, None, 7)
    assert f"\n# VAE on {title}\n" in text


def test_the_card_of_a_variant_of_another_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"shape": [1, 28, 28], "support": "binary"}
    config = resolve("vae", "synthetic").model_dump(mode="json")
    content = {"config": config, "spec": spec, "library": "vae-zoo", "data_sha256": "0"}
    said = "- the variant is no part of vae-zoo: to be loaded, it needs the package small-vae 1.2"
    assert "no part of vae-zoo" not in card(content, None, 7)
    entry = registry().variants["vae"].model_copy(update={"origin": "small-vae 1.2"})
    monkeypatch.setitem(registry().variants, "vae", entry)
    assert card(content, None, 7).splitlines().count(said) == 1


def test_where_this_machine_keeps_its_data_is_left_out(zoo, tmp_path: Path) -> None:  # noqa: F811
    assert zoo("train", "vae", *WORDS, "--out", "run", "--wandb", "disabled")[0] == 0
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    described["config"]["data"]["options"] |= {"npz": "/home/somebody/dsprites.npz", "root": "here", "n": 3}
    described["config"]["data"]["options"] |= {"parts": ["/home/somebody/a"], "of": {"a": "/home/somebody/a"}, "s": [8]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    code, _, err = zoo("export", "run", "given")
    assert code == 0, err
    exported = json.loads((tmp_path / "given" / "config.json").read_text())
    assert exported["config"]["data"]["options"].keys() & {"npz", "root", "n", "s"} == {"n", "s"}
    for file in ("README.md", "config.json"):
        assert "somebody" not in (tmp_path / "given" / file).read_text()


def test_the_command_of_a_suite_does_not_say_where_a_folder_lies(tmp_path: Path) -> None:
    suite = suite_named(small_suite(tmp_path))
    (planned,) = matrix.plan(suite, ("vae",), (f"folder:{tmp_path / 'my pictures, new'}",))
    assert str(tmp_path) in planned.command
    made = matrix.make_record(planned, choose("cpu"), {"status": "failed", "reason": "none"})
    content = {"config": planned.config.model_dump(mode="json"), "spec": {"shape": [3, 8, 8], "support": "8-bit"}}
    (by,) = re.findall("^By .*", card(content | {"library": "vae-zoo", "data_sha256": "0"}, made, 7), re.M)
    assert "--datasets folder:PATH --seed 0`" in by and "my pictures" not in by


def test_a_run_whose_record_says_that_it_failed_is_not_given_away(zoo, tmp_path: Path) -> None:  # noqa: F811
    settings = ["train.epochs=1", "latent=3"]
    planned = single.planned(resolve("vae", "synthetic", settings=settings), tuple(settings))
    train_run(planned.config, tmp_path / "run", choose("cpu"))
    made = matrix.make_record(planned, choose("cpu"), {"status": "failed", "reason": "none"})
    (tmp_path / "run" / "record.json").write_text(dump(made))
    code, out, err = zoo("export", "run", "given")
    assert (code, out) == (1, "") and "the record of run says that it failed: there is nothing to give away." in err
    assert not (tmp_path / "given").exists()


def test_every_row_of_a_card_has_its_five_cells(zoo, tmp_path: Path) -> None:  # noqa: F811
    few = ["--set", "data.options.n_train=128", "--set", "evaluate.nll_samples=0", "--wandb", "disabled"]
    assert zoo("train", "cvae", *WORDS, *few, "--out", "run")[0] == 0
    assert zoo("export", "run", "given")[0] == 0
    rows = [line for line in (tmp_path / "given" / "README.md").read_text().splitlines() if line.startswith("| ")]
    assert any("q(z" in row for row in rows)
    assert all(len(re.split(r"(?<!\\)\|", row)) == 7 for row in rows)


def test_an_export_that_has_no_images_says_so(zoo, tmp_path: Path) -> None:  # noqa: F811
    assert zoo("train", "vae", *WORDS, "--out", "run", "--wandb", "disabled")[0] == 0
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    described["config"]["data"] |= {"name": "folder", "binarise": "dynamic", "options": {"root": "/home/somebody"}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    (tmp_path / "run" / "record.json").unlink()
    assert zoo("export", "run", "given")[0] == 0
    assert zoo("sample", "given", "--n", "2")[0] == 0
    for command in ("reconstruct", "traverse", "interpolate"):
        code, out, err = zoo(command, "given")
        assert (code, out) == (2, "") and "`zoo export` leaves that out" in err and "--data" not in err


def test_an_unfinished_run_is_not_given_away(zoo, tmp_path: Path) -> None:  # noqa: F811
    assert zoo("train", "vae", *WORDS, "--out", "run", "--wandb", "disabled")[0] == 0
    (tmp_path / "run" / "model.safetensors").unlink()
    code, _, err = zoo("export", "run", "out")
    assert code == 1 and "is not finished" in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["beta_vae", "vq_vae"])
def test_torch_hub_makes_every_variant_by_name(name: str) -> None:
    spec = importlib.util.spec_from_file_location("hubconf_of_this_test", ROOT / "hubconf.py")
    hub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hub)
    named = {key for key, value in vars(hub).items() if callable(value) and not key.startswith("_")}
    assert named == set(list_models())
    model = torch.hub.load(str(ROOT), name, source="local", latent=5)
    assert model.settings.latent == 5 and model.sample(2).shape == (2, 1, 28, 28)
    assert model.training and "pretrained:" in getattr(hub, name).__doc__


def test_torch_hub_loads_released_weights_or_says_that_there_are_none(zoo, tmp_path: Path) -> None:  # noqa: F811
    released = tmp_path / "repo"
    released.mkdir()
    shutil.copy(ROOT / "hubconf.py", released)
    with pytest.raises(UsageError, match="no weights of 'vae' are released: leave out pretrained=True, or train"):
        torch.hub.load(str(released), "vae", source="local", pretrained=True)
    assert zoo("train", "vae", *WORDS, "--out", "run", "--wandb", "disabled")[0] == 0
    assert zoo("export", "run", str(released / "leaderboard" / "weights" / "vae"))[0] == 0
    model = torch.hub.load(str(released), "vae", source="local", pretrained=True)
    assert not model.training and model.settings.latent == 3
    with pytest.raises(ZooError, match="leave out latent"):
        torch.hub.load(str(released), "vae", source="local", pretrained=True, latent=4)
