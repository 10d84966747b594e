"""The same suite again and again in one process: memory stays where the first time brought it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import matrix
from benchmarks.performance import soak
from tests.faults.children import CELLS, SUITE
from zoo.training.memory import resident_memory

ROUNDS = 5
needs_proc = pytest.mark.skipif(resident_memory() is None, reason="needs /proc")


@needs_proc
def test_five_suites_in_one_process_take_the_memory_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty.yaml").write_text(SUITE)
    ran = []
    original = matrix.measure

    def measure(config, folder, *given):
        ran.append(folder)
        return original(config, folder, *given)

    monkeypatch.setattr(matrix, "measure", measure)
    words = [str(tmp_path / "faulty.yaml"), "--rounds", str(ROUNDS), "--out", str(tmp_path / "out"), "--device", "cpu"]
    result = CliRunner().invoke(soak.main, words)
    assert result.exit_code == 0, result.output
    *lines, verdict = result.stdout.splitlines()
    found = [json.loads(line) for line in lines]
    print(result.stdout)
    assert [one["round"] for one in found] == list(range(1, ROUNDS + 1))
    sizes = [one["resident_mb"] for one in found]
    assert max(sizes[1:]) < 1.05 * sizes[0], sizes
    assert all(one["peak_mb"] >= one["resident_mb"] - 1 > 50 for one in found), found
    assert "stays within 5%" in verdict
    assert len(ran) == len(set(ran)) == CELLS * ROUNDS, "a round that finds the last one's results runs nothing"
    assert not list((tmp_path / "out").iterdir())


@needs_proc
def test_memory_that_grows_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty.yaml").write_text(SUITE)
    kept = []

    def leak(cells, places, *given) -> int:
        places.runs.mkdir(parents=True)
        kept.append(b"x" * 2**28)
        return 0

    monkeypatch.setattr(soak, "_run", leak)
    result = CliRunner().invoke(soak.main, [str(tmp_path / "faulty.yaml"), "--rounds", "2", "--device", "cpu"])
    assert result.exit_code == 1 and "grows by more than 5%" in result.stdout, result.output


@needs_proc
def test_a_cell_that_fails_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty.yaml").write_text(SUITE)
    monkeypatch.setattr(matrix, "measure", lambda *given: 1 / 0)
    result = CliRunner().invoke(soak.main, [str(tmp_path / "faulty.yaml"), "--device", "cpu"])
    assert result.exit_code == 1 and "division by zero" in result.stderr, result.output
    assert "Traceback" not in result.stderr and result.stdout == ""


@pytest.mark.parametrize("words", ["nothing_of_that_name", "smoke --rounds 1", "smoke --device abacus"])
def test_bad_input_is_one_sentence(words: str) -> None:
    result = CliRunner().invoke(soak.main, words.split())
    assert result.exit_code == 2 and "Traceback" not in result.output and result.stdout == ""
