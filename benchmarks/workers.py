"""Several cells at once on one machine: worker processes that share a suite through the locks of its cells.

On a CPU two cells with one thread each beat one cell with two threads: the networks are small, and threads that wait
for each other at every layer are lost to whatever else the machine does. A worker is the same command again; each
takes the cells that nobody has taken, and stops by itself when the one that started it is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable


def how_many(jobs: str, device: str, cells: int) -> int:
    """The number of workers for ``--jobs``: ``auto`` is one on a GPU and one a core on a CPU, never more than cells."""
    if jobs != "auto":
        return max(1, min(int(jobs), cells))
    import torch

    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return 1
    return max(1, min(cores(), cells))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(arguments: list[str], workers: int, should_stop: Callable[[], bool]) -> list[int]:
    """Run ``zoo ARGUMENTS --jobs 1`` in ``workers`` processes that divide the cores; their exit codes. A ``--jobs``
    among the arguments does not matter: of an option that is given twice the last one counts.

    A stop that is asked of this process is passed on once, and the workers end at their next step.
    """
    threads = str(max(1, cores() // workers))
    env = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    command = [sys.executable, "-m", "benchmarks.cli", *arguments, "--jobs", "1"]
    # In sessions of their own: a Ctrl-C reaches this process alone, and they do not take our word for the second one.
    processes = [
        subprocess.Popen([*command, "--worker", str(i)], env=env, start_new_session=True) for i in range(workers)
    ]
    told = False
    try:
        while any(process.poll() is None for process in processes):
            if should_stop() and not told:
                told = True
                _signal(processes, signal.SIGTERM)
            for process in processes:
                try:
                    process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
    finally:
        _signal(processes, signal.SIGTERM)
    return [process.wait() for process in processes]


def _signal(processes: list[subprocess.Popen], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
