"""The same suite again and again in one process: memory stays where the first time brought it."""

from __future__ import annotations

import ctypes
import gc
import re
import shutil
from pathlib import Path

import pytest

from benchmarks import matrix
from benchmarks.suite import suite_named
from tests.faults.children import CELLS, SUITE
from zoo.training.precision import choose

ROUNDS = 5


def resident() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free but kept by the allocator is not a leak
    return int(re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_five_suites_in_one_process_take_the_memory_of_one(tmp_path: Path) -> None:
    (tmp_path / "faulty.yaml").write_text(SUITE)
    cells = matrix.plan(suite_named(str(tmp_path / "faulty.yaml")))
    sizes = []
    for _ in range(ROUNDS):
        places = matrix.Places(tmp_path / "board", tmp_path / "runs")
        made = matrix.run_all(cells, places, choose("cpu"))
        assert [one.status for one in made] == ["done"] * CELLS
        matrix.write_board(places)
        shutil.rmtree(tmp_path / "board")
        shutil.rmtree(tmp_path / "runs")
        sizes.append(resident())
    print(f"resident kB after each round: {sizes}")
    assert max(sizes[1:]) < 1.05 * sizes[0], sizes
