"""The example of a plugin, built and installed beside the environment: its variant and its data set are there."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.test_cli import zoo  # noqa: F401 (a fixture)
from zoo import noise
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models.base import VAE
from zoo.registry import registry


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin installed, by pip, from a copy of its source; nothing is downloaded."""
    source, site = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "examples" / "plugin", source)
    words = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    words.append(str(source))
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    return site


def command(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(site), str(ROOT)])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m", "benchmarks.cli", *words]
    return subprocess.run(run, cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture
def plugged(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """As `command`, in this process: its entry points are found where it is installed."""
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(site))
        registry.cache_clear()
        yield patch
    registry.cache_clear()


def test_the_plugin_is_listed_with_where_it_comes_from(site: Path, tmp_path: Path) -> None:
    rows = json.loads(command(site, tmp_path, "list", "--json").stdout)
    (found,) = [row for row in rows if row["name"] == "free_bits_vae"]
    assert found["origin"] == "vae-zoo-example 0.1.0"
    assert "checkers" in command(site, tmp_path, "list", "datasets").stdout
    shown = command(site, tmp_path, "show", "free_bits_vae").stdout
    assert "Kingma et al." in shown and "https://arxiv.org/abs/1606.04934" in shown


def test_its_variant_keeps_the_contract(zoo, plugged: pytest.MonkeyPatch) -> None:  # noqa: F811
    code, out, err = zoo("check", "free_bits_vae", "--json")
    assert code == 0, out + err
    found = json.loads(out)
    unusual = {each["property"] for each in found["properties"] if each["status"] != "holds"}
    assert found["passed"] and unusual == {"loss_is_a_mean"}


@pytest.fixture
def free_bits(site: Path, monkeypatch: pytest.MonkeyPatch) -> type[VAE]:
    monkeypatch.syspath_prepend(str(site))
    return importlib.import_module("small_vae.free_bits").FreeBitsVAE


def test_the_weights_that_its_variant_keeps_are_chosen_by_what_it_trains(free_bits: type[VAE]) -> None:
    model = free_bits(DataSpec((1, 16, 16), "binary"), free_bits.Settings(free=0.5))
    x = torch.rand(8, 1, 16, 16).round()
    with torch.no_grad(), noise.keyed(0, torch.arange(8)):
        loss = model.losses(x)["vae"]
    with torch.no_grad(), noise.keyed(0, torch.arange(8)):
        kept = model.criterion(x, None, model.terms(x))
    assert kept.shape == (8,) and -kept.mean().item() == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("settings", [{"prior": {"name": "vamp"}}, {"posterior": {"name": "planar"}}])
def test_its_variant_refuses_what_has_no_rate_of_each_dimension(free_bits: type[VAE], settings: dict) -> None:
    with pytest.raises(UsageError, match="needs a rate of each dimension"):
        free_bits(DataSpec((1, 16, 16), "binary"), free_bits.Settings(**settings))


def test_its_variant_is_trained_on_its_data_set(zoo, plugged: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    words = ("train", "free_bits_vae", "--data", "checkers", "--set", "train.epochs=1", "--set", "free=0.5")
    words += ("--set", "evaluate.quality_samples=0", "--set", "evaluate.nll_samples=0", "--wandb", "disabled")
    code, out, err = zoo(*words, "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["data"]["name"] == "checkers" and made["config"]["model"] == {"free": 0.5}
    assert made["model"]["class"] == "small_vae.free_bits:FreeBitsVAE"
    assert made["environment"]["plugin"] == "vae-zoo-example 0.1.0"
    folder = next(path.parent for path in tmp_path.rglob("run.json"))
    plugged.undo()
    registry.cache_clear()
    code, _, err = zoo("sample", str(folder))
    assert code == 2 and "'free_bits_vae': install the package that has it" in err
