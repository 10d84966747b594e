"""Whether memory grows: `python -m benchmarks.performance.soak SUITE --rounds 5` runs every cell of a suite again and
again in one process, and fails unless it then holds about as much as after the first time.

A line of JSON a round: ``resident_mb`` is what the process holds after the round, once garbage is collected and the
allocator has given back what is free; ``peak_mb`` the most that it held during the round.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import matrix
from benchmarks.commands import options
from benchmarks.commands.exit_codes import FAILED, INTERRUPTED, WRONG_USE
from benchmarks.interrupt import graceful
from benchmarks.suite import Suite, suite_named
from zoo.errors import UsageError, ZooError
from zoo.training.memory import give_back, peak_memory, reset_peak, resident_memory
from zoo.training.trainer import Stopped

#: What later rounds may hold, at most, of what the first one left.
GROWTH = 1.05


@dataclass(frozen=True)
class Round:
    """What one time through the suite left in memory (MB, of 2^20 bytes), and what it took."""

    round: int
    resident_mb: float
    peak_mb: float
    seconds: float


def rounds(
    suite: Suite, count: int, folder: Path, compute: Any, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[Round]:
    """Every cell of ``suite``, ``count`` times, each time in a new place below ``folder`` that is then removed.

    Raises:
        ZooError: a cell failed: there is no telling what a whole round would have held.
    """
    for number in range(1, count + 1):
        started = time.monotonic()
        place = folder / f"round-{number}"
        peak = _run(matrix.plan(suite), matrix.Places(place / "board", place / "runs"), compute, should_stop)
        shutil.rmtree(place)
        seconds = time.monotonic() - started
        yield Round(number, round(held() / 2**20, 1), round(peak / 2**20, 1), round(seconds, 1))


def _run(cells: list[matrix.Planned], places: matrix.Places, compute: Any, should_stop: Callable[[], bool]) -> int:
    """The peak, in bytes: every training begins to count anew (`reset_peak`), so that it is read after each cell."""
    here = torch.device("cpu")
    reset_peak(here)
    peaks = []
    made = matrix.run_all(
        cells, places, compute, None, should_stop, lambda planned, record: peaks.append(peak_memory(here))
    )
    for one in made:
        if one.status != "done":
            raise ZooError(f"{one.cell.stem} {one.status}: {one.reason}")
    matrix.write_board(places)
    return max(*peaks, peak_memory(here))


def held() -> int:
    """Bytes that the process holds of what it cannot give back; UsageError where the system has no /proc."""
    gc.collect()
    give_back()  # what is free but kept by the allocator is not a leak
    found = resident_memory()
    if found is None:
        raise UsageError("the memory of the process is read from /proc, which this system does not have.")
    return found


def growth(found: Sequence[Round]) -> float:
    """The largest of the later rounds over the first."""
    return max(one.resident_mb for one in found[1:]) / found[0].resident_mb


@click.command()
@click.argument("suite")
@click.option("--rounds", "count", default=5, show_default=True, type=click.IntRange(min=2))
@click.option(
    "--out", type=options.Place(file_okay=False),
    help="Models and records are kept in a folder of their own in here while a round lasts. [default: temporary]",
)  # fmt: skip
@options.device
def main(suite: str, count: int, out: Path | None, device: str) -> None:
    """Run every cell of SUITE again and again in one process; exit code 1 if its memory grows by over 5 %."""
    try:
        wanted = suite_named(suite)
        compute = matrix.compute_of(device, matrix.plan(wanted))
        held()  # a system that cannot tell is better known now than after a round
        if out:
            out.mkdir(parents=True, exist_ok=True)
        found = []
        with graceful() as should_stop, tempfile.TemporaryDirectory(prefix="soak-", dir=out) as folder:
            for one in rounds(wanted, count, Path(folder), compute, should_stop):
                found.append(one)
                print(json.dumps(asdict(one)), flush=True)
    except (ZooError, OSError) as error:
        print(f"soak: {error}", file=sys.stderr)
        stopped = INTERRUPTED if isinstance(error, Stopped) else FAILED
        sys.exit(WRONG_USE if isinstance(error, UsageError) else stopped)
    ratio = growth(found)
    verdict = "stays within" if ratio <= GROWTH else "grows by more than"
    print(f"memory {verdict} {GROWTH - 1:.0%}: {ratio - 1:+.1%} after the first of {count} rounds.", flush=True)
    sys.exit(ratio > GROWTH)


if __name__ == "__main__":
    main()
