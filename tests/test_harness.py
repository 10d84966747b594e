"""The harness around the cells of a suite: what it plans, holds, says and leaves behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks import cli, environment, matrix
from benchmarks.matrix import Places
from benchmarks.suite import suite_named
from tests.conftest import ROOT
from tests.test_cli import zoo  # noqa: F401 (a fixture)
from zoo.errors import ZooError
from zoo.training.precision import choose

EVALUATORS = {
    f"benchmarks.{name}"
    for name in ("evaluate", "anomaly", "classification", "factors", "latents", "pictures", "quality", "representation")
}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "board", tmp_path / "runs")


def smoke(*sweep: str, seeds: tuple[int, ...] = (0,)) -> list[matrix.Planned]:
    return matrix.plan(suite_named("smoke"), ("vae",), ("synthetic",), seeds, sweep)


def test_each_cell_is_trained_in_its_own_number_format(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.ahead import train_ahead

    formats = []
    monkeypatch.setattr(matrix, "run_cell", lambda planned, places, compute, *_: formats.append(compute.name))
    cells = smoke("train.precision=float32", "train.precision=bf16", seeds=(0, 1))
    cli._run(cells, places, "cpu", "disabled")
    assert formats == ["float32", "bf16"] * 2
    measured = []
    gain = lambda configs, compute: measured.append((compute.name, len(configs))) or 1.0  # noqa: E731
    train_ahead(cells, places, matrix.compute_of("cpu", cells), lambda: False, lambda said: None, gain, gain)
    assert measured == [("float32", 2)] * 2 + [("bf16", 2)] * 2


def test_a_worker_that_failed_fails_the_command_and_names_what_was_asked(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import workers

    cells = smoke(seeds=(0, 1))
    monkeypatch.setattr(workers, "run", lambda *_: [cli.DONE, cli.FAILED])
    with pytest.raises(ZooError, match="a worker process ended early"):
        cli._run_all(cells, cells, places, "cpu", "disabled", "2")
    words = ["bench", "my suite.yaml", "--jobs", "2"]
    monkeypatch.setattr(sys, "argv", ["zoo", *words, "--jobs", "1", "--worker", "0"])
    assert cli._again() == "zoo bench 'my suite.yaml' --jobs 2"


def test_a_record_names_the_code_that_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([("a" * 40, False), ("a" * 40, False), ("b" * 40, False), ("a" * 40, True)])
    monkeypatch.setattr(environment, "git_state", lambda: next(states))
    environment.at_start.cache_clear()
    try:
        assert [environment.code() for _ in range(3)] == [("a" * 40, False), ("a" * 40, True), ("a" * 40, True)]
    finally:
        environment.at_start.cache_clear()


def test_the_code_is_read_before_a_training_and_with_it_what_evaluates(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo import runs

    def train_run(*_):
        assert environment.at_start.cache_info().currsize == 1
        late = {f"benchmarks.{name}" for name in matrix.EVALUATION}
        assert late <= sys.modules.keys()
        # Every module that one of those that evaluate imports in a function is in the list.
        for path in (ROOT / "benchmarks").glob("*.py"):
            if f"benchmarks.{path.stem}" in EVALUATORS:
                found = re.findall(r"^    +from (benchmarks\.[\w.]+) import", path.read_text(), re.M)
                assert set(found) <= sys.modules.keys(), path
        raise ValueError("seen")

    environment.at_start.cache_clear()
    monkeypatch.setattr(runs, "train_run", train_run)
    assert matrix.run_cell(smoke()[0], places, choose("cpu")).reason == "seen"
