"""The lines of the house: one way through it, nothing heavy at its door, and nothing of one machine in it."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = sorted([*(ROOT / "zoo").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_flow_is_one_way(path: Path) -> None:
    inside_zoo = path.is_relative_to(ROOT / "zoo")
    for module in imports(path):
        assert not (inside_zoo and module.split(".")[0] in ("benchmarks", "wandb", "leaderboard", "tests")), module
        assert module.split(".")[0] not in ("leaderboard", "tests", "cloudpickle", "dill", "joblib"), module
        # One pickle is ever read: MNIST's, after its hash was checked, by an unpickler that admits arrays only.
        assert module != "pickle" or path.name == "idx.py"
    if inside_zoo:
        assert "leaderboard/" not in path.read_text().replace("leaderboard/records", "")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout")
def test_no_module_is_ignored() -> None:
    names = [str(path.relative_to(ROOT)) for path in (*SOURCES, *(ROOT / "tests").rglob("*.py"))]
    done = subprocess.run(["git", "check-ignore", "--no-index", *names], cwd=ROOT, capture_output=True, text=True)
    assert not done.stdout


def test_the_top_level_is_what_it_says() -> None:
    literal = ("zoo", "benchmarks", "registry.yaml", "leaderboard", "tests", "pyproject.toml")
    for name in (*literal, "README.md", "Makefile"):
        assert (ROOT / name).exists(), name


def test_names_are_the_field_s() -> None:
    vague = {"utils", "helpers", "common", "manager", "misc"}
    assert not [path for path in SOURCES if path.stem in vague]


def test_what_makes_one_line_of_a_text_is_in_one_place() -> None:
    spelt = [path.name for path in SOURCES if re.search(r'" "\.join\(.*\.split\(\)\)', path.read_text())]
    assert spelt == ["errors.py"]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines()]


def test_nothing_committed_names_a_machine() -> None:
    marks = [mark for mark in (f"{ROOT}/", f"{Path.home()}/") if len(mark) > 4]
    for path in tracked():
        if path.suffix in (".png", ".npz", ".safetensors") or not path.is_file():
            continue
        text = path.read_text(errors="ignore")
        assert not [mark for mark in marks if mark in text], path
