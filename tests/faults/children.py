"""Commands in processes that can be killed at any instant: forked, so that a start costs nothing, and told from the
outside how far they may come."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

# So many faults are planted; ZOO_FAULTS=500 asks for more than continuous integration has time for.
FAULTS = int(os.environ.get("ZOO_FAULTS", 0))

SUITE = """\
schema: 1
name: faulty
version: "1"
title: small enough to be killed often
datasets: [synthetic]
variants: [vae, vq_vae]
seeds: [0, 1]
defaults:
  train: {epochs: 3, batch_size: 32, checkpoint_seconds: 0, ema: 0.9, warmup: 1}
  data: {options: {n_train: 128, n_validation: 32, n_test: 32}}
  evaluate: {nll_samples: 2, quality_samples: 0, factor_images: 0}
overrides:
  vae:
    model: {encoder: {hidden: [8]}, decoder: {hidden: [8]}, latent: 2}
  vq_vae:
    model: {channels: [4, 4], hidden: 4, latent: 2}
"""
CELLS = 4
BENCH = ("bench", "faulty.yaml", "--wandb", "disabled", "--device", "cpu", "--jobs", "1")


def fork(
    folder: Path, *words: str, prepare: Callable[[], None] = lambda: None, main: Callable[[], None] | None = None
) -> int:
    """Start `zoo WORDS`, or another command's ``main``, in ``folder`` in a child process; its pid. What it says is
    appended to ``folder/said``."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        # Nothing of the test runner's belongs to the child: not its handlers, not its output.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # die with the one that started it
        said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)
        os.chdir(folder)
        torch.set_num_threads(1)
        sys.argv = ["zoo", *words]
        prepare()
        from benchmarks import cli

        (main or cli.main)()
        code = 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(child: int) -> int:
    """Its exit code; minus the signal's number if it died of one."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def cpu_seconds(child: int) -> float:
    """The time that the child has computed: on a busy machine the clock says nothing of how far it has come."""
    return time.clock_gettime((~child << 3) | 2)


def kill_after(child: int, seconds: float, number: signal.Signals = signal.SIGKILL) -> int:
    """Send a signal once the child has computed for so long; its exit code, which tells if it was faster."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if cpu_seconds(child) >= seconds:
            os.kill(child, number)
            return wait(child)
        time.sleep(0.001)
