"""Several cells at once on one machine: worker processes that share a suite through the locks of its cells.

On a CPU two cells with one thread each beat one cell with two threads: the networks are small, and threads that wait
for each other at every layer are lost to whatever else the machine does. A worker is the same command again; each
takes the cells that nobody has taken, and stops by itself when the one that started it is gone. One that is killed
gets a successor, which goes on with its cell (`benchmarks.running.attempts` counts).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable

from benchmarks import environment
from zoo.processor import cores

# How a worker says that it wants to be replaced: its GPU is of no use to it any more.
RESTART = 75
HARNESS = "ZOO_HARNESS"


def how_many(jobs: str, device: str, cells: int) -> int:
    """The number of workers for ``--jobs``: ``auto`` is one on a GPU and one a core on a CPU, never more than cells."""
    if jobs != "auto":
        return max(1, min(int(jobs), cells))
    import torch

    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return 1
    return max(1, min(cores(), cells))


def run(
    arguments: list[str],
    workers: int,
    should_stop: Callable[[], bool],
    spare: int = 0,
    report: Callable[[str], None] = lambda sentence: None,
) -> list[int]:
    """Run ``zoo ARGUMENTS --jobs 1`` in ``workers`` processes that divide the cores; the exit codes of those that were
    not replaced. A ``--jobs`` among the arguments does not matter: of an option that is given twice the last one
    counts.

    A worker that dies of a signal is replaced, ``spare`` times in all; ``report`` is told. A stop that is asked of
    this process is passed on once, and the workers end at their next step.
    """
    threads = str(max(1, cores() // workers))
    env = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads), HARNESS: uuid.uuid4().hex}
    env |= environment.told()
    command = [sys.executable, "-m", "benchmarks.cli", *arguments, "--jobs", "1"]

    def start(number: int) -> subprocess.Popen:
        # In a session of its own: a Ctrl-C reaches this process alone, and it does not take our word for the second.
        return subprocess.Popen([*command, "--worker", str(number)], env=env, start_new_session=True)

    processes = {number: start(number) for number in range(workers)}
    codes = []
    told = False
    try:
        while processes:
            if should_stop() and not told:
                told = True
                _signal(processes.values(), signal.SIGTERM)
            for number, process in list(processes.items()):
                try:
                    code = process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
                del processes[number]
                if (code < 0 or code == RESTART) and spare and not told:
                    spare -= 1
                    if code < 0:
                        name = signal.Signals(-code).name
                        report(f"a worker was killed ({name}); another one goes on with its cell.")
                    processes[number] = start(number)
                else:
                    codes.append(code)
    finally:
        _signal(processes.values(), signal.SIGTERM)
        codes += [process.wait() for process in processes.values()]
    return codes


def _signal(processes: Iterable[subprocess.Popen], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
