"""`zoo new`: one file and one entry, ready to train, and nothing else touched."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import skeleton
from tests.conftest import ROOT
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from tests.test_wheel import command, python
from zoo.errors import UsageError
from zoo.plain_yaml import read_yaml
from zoo.registry import Registry, VariantEntry


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("zoo", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "registry.yaml", tmp_path)
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    kept = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder): path.read_bytes() for path in kept}


def test_a_new_variant_is_one_file_and_one_entry_and_trains(checkout: Path) -> None:
    before = files(checkout)
    done = python(checkout, command("new", "my-vae"), checkout)
    assert done.returncode == 0, done.stderr
    assert "zoo check my_vae" in done.stdout
    after = files(checkout)
    entry = Path("registry.yaml")
    assert set(after) - set(before) == {Path("zoo/models/my_vae.py")}
    assert [path for path in before if after[path] != before[path]] == [entry]
    # The text that was there is there still, in order: what was added is one piece of lines.
    old, new = before[entry].decode(), after[entry].decode()
    start = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    added = new[start : start + len(new) - len(old)]
    assert old[:start] + added + old[start:] == new
    assert "my_vae:" in added and "class: zoo.models.my_vae:MyVAE" in added
    assert list(read_yaml(checkout / entry, Registry).variants)[-1] == "my_vae"

    words = ["train", "my_vae", "--data", "synthetic", "--set", "train.epochs=1", "--set", "weight=2"]
    words += ["--set", "evaluate.quality_samples=0", "--set", "evaluate.nll_samples=0", "--set", "evaluate.latent=no"]
    words += ["--wandb", "disabled", "--json"]
    done = python(checkout, command(*words), checkout)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["model"] == {"latent": 32, "weight": 2}


def test_letters_that_stand_for_words_are_capitals() -> None:
    assert (skeleton.class_of("sparse_ae"), skeleton.title_of("sparse_ae")) == ("SparseAE", "Sparse AE")
    assert (skeleton.class_of("my_rae"), skeleton.title_of("aerial_vae")) == ("MyRAE", "Aerial VAE")


@pytest.mark.parametrize("like", ["vae", "flow_vae", "nvae_lite", "cvae", "vae_gan"])
def test_it_can_start_from_another_variant(like: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zoo" / "models").mkdir(parents=True)
    shutil.copy(ROOT / "registry.yaml", tmp_path)
    model, path = skeleton.add_variant(f"my_{like}", like, tmp_path / "registry.yaml")
    entry = read_yaml(path, Registry).variants[f"my_{like}"]
    parent = read_yaml(path, Registry).variants[like]
    assert entry.settings == parent.settings | {"weight": 1.0} and entry.train == parent.train
    monkeypatch.syspath_prepend(str(model.parent))
    loaded = VariantEntry(target=entry.target.removeprefix("zoo.models."), title="x").load()
    assert issubclass(loaded, parent.load())
    assert loaded.Settings.model_validate(entry.settings).weight == 1.0
    sys.modules.pop(model.stem)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My_VAE", "'My_VAE' is no name of a variant"),
        ("2vae", "is no name of a variant"),
        ("../vae", "is no name of a variant"),
        ("my vae", "is no name of a variant"),
        ("a" * 60, "is no name of a variant"),
        ("class", "'class' is a word of Python"),
        ("beta-vae", "there is a variant 'beta_vae' already (beta-VAE); choose another name."),
        ("hierarchy", "hierarchy.py is there already; choose another name."),
    ],
)
def test_a_bad_or_taken_name_is_one_sentence_and_writes_nothing(zoo, name: str, said: str) -> None:  # noqa: F811
    before = (ROOT / "registry.yaml").read_bytes(), sorted((ROOT / "zoo" / "models").iterdir())
    code, out, err = zoo("new", name)
    assert (code, out) == (2, "")
    assert said in err and len(err.splitlines()) == 1
    assert before == ((ROOT / "registry.yaml").read_bytes(), sorted((ROOT / "zoo" / "models").iterdir()))
    assert zoo("new", "my_vae", "--like", "vea")[0] == 2
    code, _, err = zoo("new", "my_vae", "--like", "rae")
    assert code == 2 and "'rae' has no rate" in err


def test_a_plugin_is_a_package_with_an_entry_point(zoo, tmp_path: Path) -> None:  # noqa: F811
    code, out, err = zoo("new", "my_vae", "--plugin", "mine")
    assert code == 0, err
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"my_vae.py", "pyproject.toml"}
    assert 'my_vae = "my_vae:MyVAE"' in (tmp_path / "mine" / "pyproject.toml").read_text()
    code, _, err = zoo("new", "my_vae", "--plugin", "mine")
    assert code == 2 and "is there already; choose another folder." in err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "my_vae.py").symlink_to(tmp_path / "nothing")  # a link to what is not there is there too
    code, _, err = zoo("new", "my_vae", "--plugin", "other")
    assert code == 2 and "my_vae.py is there already; choose another folder." in err
    assert not (tmp_path / "nothing").exists() and (tmp_path / "other" / "my_vae.py").is_symlink()


@pytest.mark.parametrize("folder", ["mine", "my own", "it's"])
def test_the_command_that_installs_a_plugin_has_its_folder_as_one_word(zoo, folder: str) -> None:  # noqa: F811
    _, out, _ = zoo("new", "my_vae", "--plugin", folder)
    line = next(line for line in out.splitlines() if line.startswith("pip "))
    assert shlex.split(line) == ["pip", "install", "--no-deps", "-e", folder]


def test_only_a_checkout_is_written_to_whatever_its_folder_is_called(tmp_path: Path) -> None:
    checkout, installed = tmp_path / "zoo", tmp_path / "site" / "zoo"
    (checkout / "zoo" / "models").mkdir(parents=True)
    (installed / "models").mkdir(parents=True)
    for folder in (checkout, installed):
        shutil.copy(ROOT / "registry.yaml", folder)
    assert [path.exists() for path in skeleton.add_variant("my_vae", path=checkout / "registry.yaml")] == [True, True]
    with pytest.raises(UsageError, match="not a checkout: `zoo new NAME --plugin FOLDER` writes a package"):
        skeleton.add_variant("my_vae", path=installed / "registry.yaml")
    assert not list((installed / "models").iterdir())


@pytest.mark.parametrize("ending", ["", "# a last remark\n", "\n\n"])
def test_an_entry_is_added_at_the_end_of_the_variants_whatever_follows(ending: str) -> None:
    text = "schema: 1\ndatasets: {}\n# all\nvariants:\n  a:  # first\n    class: m:A\n    title: A\n" + ending
    added = skeleton._appended(text, "  b:\n    class: m:B\n    title: B\n")
    skeleton._validate(text, added, "b", Path("registry.yaml"))
    assert added.replace("\n  b:\n    class: m:B\n    title: B\n", "") == text
