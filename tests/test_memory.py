"""What a training on a CPU does with freed memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from zoo.training import memory

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")
# The activations of a step, 32 tensors of 4 MiB, made and freed: 32,768 pages of 4 KiB.
STEPS = """
import resource, torch
from zoo.training.memory import keep_freed, reset_peak, resident_memory
from zoo.training.precision import choose
torch.set_num_threads(1)
{first}
def step():
    held = [torch.ones(1 << 20) for _ in range(32)]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
before = faults()
for _ in range(10):
    step()
made, held = (faults() - before) // 10, resident_memory()
reset_peak(torch.device("cpu"))
print(made, held - resident_memory(), keep_freed())
"""


def run(first: str, **asked: str) -> tuple[int, int, bool]:
    """Pages made a step, bytes that `reset_peak` gave back, and what `keep_freed` says."""
    env = {name: value for name, value in os.environ.items() if name not in memory.ASKED} | asked
    env["PYTHONPATH"] = str(ROOT)
    program = STEPS.format(first=first)
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    made, returned, kept = done.stdout.split()
    return int(made), int(returned), kept == "True"


@needs_glibc
def test_a_step_uses_the_pages_of_the_one_before_and_none_counts_for_the_next_peak() -> None:
    made, returned, kept = run('choose("cpu")')
    assert kept
    assert made < 1000
    assert returned > 96 << 20


@needs_glibc
def test_who_says_how_malloc_is_to_behave_is_not_overruled() -> None:
    made, _, kept = run('choose("cpu")', MALLOC_TRIM_THRESHOLD_="1000000")
    assert not kept
    assert made > 20_000  # so that the test above shows something


def test_a_system_without_these_options_trains_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in memory.ASKED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed.__wrapped__()
    memory.give_back()
