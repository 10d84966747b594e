"""What is shipped: a wheel that holds the registry, the suites and the weights, and works away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PLUGIN = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "somebodys-vae"
version = "1.2"
[project.entry-points."zoo.variants"]
their_vae = "somebodys_vae:TheirVAE"
vae = "somebodys_vae:TheirVAE"
[tool.hatch.build.targets.wheel]
packages = ["somebodys_vae.py"]
""",
    "somebodys_vae.py": """\
from zoo.models.vae import VanillaVAE


class TheirVAE(VanillaVAE):
    def rate_weight(self, progress):
        return 0.5 * progress
""",
}


def build(source: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def install(wheel: Path, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own; with `-P` and this folder first, the checkout is not importable."""
    target = tmp_path_factory.mktemp("site")
    install(wheel, target)
    return target


def command(*words: str) -> str:
    return f"import sys, benchmarks.cli; sys.argv = {['zoo', *words]}; benchmarks.cli.main()"


def python(installed: Path, code: str, folder: Path) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, env=env, capture_output=True, text=True)


def test_the_wheel_holds_what_the_code_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"zoo/registry.yaml", "benchmarks/suites/quick.yaml"} <= names
    assert {f"benchmarks/report/html/page.{kind}" for kind in ("html", "css", "js")} <= names
    assert any(name.startswith("benchmarks/digits/") and name.endswith(".safetensors") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "leaderboard/"))]


def test_the_wheel_lists_and_trains_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import zoo; print(zoo.__file__); " + command("list", "--json")
    done = python(installed, code, tmp_path)
    assert done.returncode == 0, done.stderr
    where, _, listed = done.stdout.partition("\n")
    assert where.startswith(str(installed))
    assert "beta_vae" in [row["name"] for row in json.loads(listed)]
    bench = command("bench", "smoke", "--variants", "vae", "--wandb", "disabled")
    done = python(installed, bench, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "leaderboard" / "README.md").exists()
    assert "</html>" in (tmp_path / "leaderboard" / "index.html").read_text()


def test_somebody_else_s_package_adds_a_variant(installed: Path, tmp_path: Path) -> None:
    source = tmp_path / "plugin"
    source.mkdir()
    for name, text in PLUGIN.items():
        (source / name).write_text(text)
    plugin = build(source, tmp_path / "dist")
    target = tmp_path / "site"
    install(plugin, target)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import warnings; warnings.simplefilter('always')\n"
        "from zoo import create_model, list_models\n"
        "print(list_models().count('vae'), 'their_vae' in list_models())\n"
        "print(type(create_model('their-vae')).__name__, type(create_model('vae')).__name__)\n"
    )
    done = python(installed, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 True", "TheirVAE VanillaVAE"]
    assert done.stderr.count("the name is taken") == 1


def test_a_variant_is_one_file_and_one_entry(tmp_path: Path) -> None:
    """In a copy of the two packages: a file, an entry, and it is listed, made and trained."""
    import shutil

    for name in ("zoo", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    entry = "  half_vae:\n    class: zoo.models.half_vae:HalfVAE\n    title: Half\n    settings: {latent: 5}\n\n"
    registry = (ROOT / "registry.yaml").read_text()
    assert registry.count("\ndatasets:") == 1
    (tmp_path / "registry.yaml").write_text(registry.replace("datasets:", entry + "datasets:", 1))
    (tmp_path / "zoo" / "models" / "half_vae.py").write_text(PLUGIN["somebodys_vae.py"].replace("TheirVAE", "HalfVAE"))
    words = ["train", "half-vae", "--data", "synthetic", "--set", "train.epochs=1", "--wandb", "disabled"]
    words += ["--set", "evaluate.quality_samples=0", "--set", "evaluate.nll_samples=0", "--set", "evaluate.latent=no"]
    done = python(tmp_path, command(*words, "--json"), tmp_path)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["cell"]["variant"] == "half_vae" and made["config"]["model"] == {"latent": 5}
