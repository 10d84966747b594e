"""The harness around the cells of a suite: what it plans, holds, says and leaves behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import cli, matrix
from benchmarks.matrix import Places
from benchmarks.suite import suite_named
from tests.test_cli import zoo  # noqa: F401 (a fixture)
from zoo.errors import ZooError


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
