"""Killed at any instant, called again, and in the end everything is as if nobody had: weights, numbers, files."""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import matrix, record
from benchmarks.suite import suite_named
from tests.faults.children import BENCH, CELLS, FAULTS, SUITE, cpu_seconds, fork, kill_after, wait
from zoo.training import checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
POINTS = ("before fsync", "after fsync", "before rename", "after rename", "half a file", "half a checkpoint")


def prepared(folder: Path) -> Path:
    folder.mkdir()
    (folder / "faulty.yaml").write_text(SUITE)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, float]:
    """What the matrix comes to when nobody disturbs it, and the seconds that it computes."""
    folder = prepared(tmp_path_factory.mktemp("kills") / "here")
    # Once in this process, so that every child finds data and modules loaded.
    cells = matrix.plan(suite_named(str(folder / "faulty.yaml")))
    places = matrix.Places(folder / "leaderboard", folder / "runs")
    matrix.run_all(cells, places, matrix.compute_of("cpu", cells))
    matrix.write_board(places)
    here = outcome(folder)
    folder = prepared(folder.parent / "whole")
    child = fork(folder, *BENCH)
    spent = 0.0
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        spent = cpu_seconds(child)
        os.sched_yield()
    assert os.waitstatus_to_exitcode(ended[1]) == 0, (folder / "said").read_text()
    assert_same(outcome(folder), here)
    return here, spent


def outcome(folder: Path) -> dict:
    """Everything of a finished matrix that must not depend on how it came about."""
    found = {}
    for made in record.read_all(folder / "leaderboard" / "records"):
        assert made.status == "done", made.reason
        weights, _ = checkpoint.read(folder / "runs" / made.cell.group / made.cell.stem / "model.safetensors")
        pictures = {name: (folder / "leaderboard" / path).read_bytes() for name, path in made.figures.items()}
        train = made.train.model_dump(exclude={"images_per_second", "peak_memory_bytes"})
        found[made.cell.stem] = weights, made.metrics, made.skipped, made.curves, train, pictures
    assert len(found) == CELLS
    return found


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one:
        (weights, *found), (others, *expected) = one[name], other[name]
        assert found == expected, name
        assert weights.keys() == others.keys()
        assert all(torch.equal(value, others[key]) for key, value in weights.items()), name


def assert_no_half_file(folder: Path) -> None:
    # What is there under its own name is whole at every moment; what was being written has a name that says so.
    record.read_all(folder / "leaderboard" / "records")
    for path in folder.rglob("*.safetensors"):
        if not path.name.startswith("."):
            checkpoint.read(path)
    for path in folder.rglob("*.png"):
        assert path.name.startswith(".") or path.read_bytes().endswith(b"IEND\xaeB`\x82"), path
    board = folder / "leaderboard" / "README.md"
    assert not board.exists() or board.read_text().endswith("\n")


def assert_clean(folder: Path) -> None:
    assert not list(folder.rglob("*.part")), "what killed writers left behind is swept up"
    assert not list(folder.rglob("step-*")) and not list(folder.rglob("good-*"))


def killer(point: str, count: int) -> Callable[[], None]:
    """For a child: die at the ``count``-th passing of ``point``."""

    def prepare() -> None:
        passed = itertools.count(1)

        def die_if_due() -> None:
            if next(passed) == count:
                os.kill(os.getpid(), signal.SIGKILL)

        def around(original: Callable, before: bool) -> Callable:
            def inner(*given, **named):
                if before:
                    die_if_due()
                done = original(*given, **named)
                if not before:
                    die_if_due()
                return done

            return inner

        def halves(original: Callable) -> Callable:
            def inner(path, data, *rest):
                original(path, data[: len(data) // 2])
                die_if_due()
                return original(path, data, *rest)

            return inner

        def half_checkpoint(original: Callable) -> Callable:
            def inner(tensors, path, *rest, **named):
                original(tensors, path, *rest, **named)
                whole = Path(path).read_bytes()
                os.truncate(path, len(whole) // 2)
                die_if_due()
                Path(path).write_bytes(whole)

            return inner

        if point in ("before fsync", "after fsync"):
            os.fsync = around(os.fsync, point == "before fsync")
        elif point in ("before rename", "after rename"):
            os.replace = around(os.replace, point == "before rename")
        elif point == "half a file":
            Path.write_bytes = halves(Path.write_bytes)
        else:
            checkpoint.save_file = half_checkpoint(checkpoint.save_file)

    return prepare


def test_fifty_kills_at_random_moments_change_nothing(tmp_path: Path, undisturbed: tuple[dict, float]) -> None:
    expected, seconds = undisturbed
    chance = random.Random(0)
    kills = finished = 0
    wanted = FAULTS or 52
    while kills < wanted:
        folder = prepared(tmp_path / f"round{finished}")
        while True:
            if kills % 2:
                # Anywhere, between two instructions of anybody's code.
                code = kill_after(fork(folder, *BENCH), chance.uniform(0.0, 0.35 * seconds))
            else:
                # In the middle of what must not be done by halves.
                point, count = chance.choice(POINTS), chance.randint(1, 25)
                code = wait(fork(folder, *BENCH, prepare=killer(point, count)))
            assert_no_half_file(folder)
            if code == -signal.SIGKILL:
                kills += 1
            else:
                assert code == 0, (folder / "said").read_text()[-2000:]
                break
        finished += 1
        assert_same(outcome(folder), expected)
        assert_clean(folder)
        assert "Traceback" not in (folder / "said").read_text()
    print(f"{kills} kills in {finished} matrices")
    assert finished >= 3


def test_a_stop_asked_for_at_random_moments_changes_nothing(tmp_path: Path, undisturbed: tuple[dict, float]) -> None:
    expected, seconds = undisturbed
    chance = random.Random(1)
    folder = prepared(tmp_path / "stopped")
    codes = set()
    for turn in itertools.count():
        number = signal.SIGINT if turn % 2 else signal.SIGTERM
        code = kill_after(fork(folder, *BENCH), chance.uniform(0.1, 0.6) * seconds, number)
        codes.add(code)
        if code == 0:
            break
        # 130 after a stop at a step; the signal itself where there is nothing to save yet, or no more.
        assert code in (130, -signal.SIGTERM, -signal.SIGINT), (folder / "said").read_text()[-2000:]
        assert turn < 60
    assert 130 in codes
    assert "`zoo bench faulty.yaml --wandb disabled --device cpu --jobs 1` goes on from here" in (
        folder / "said"
    ).read_text()
    assert_same(outcome(folder), expected)
    assert_clean(folder)


@pytest.mark.parametrize("harnesses", [2, 4])
def test_harnesses_share_a_folder_and_every_cell_runs_once(
    tmp_path: Path, undisturbed: tuple[dict, float], harnesses: int
) -> None:
    folder = prepared(tmp_path / "shared")
    children = [fork(folder, *BENCH) for _ in range(harnesses)]
    codes = [wait(child) for child in children]
    said = (folder / "said").read_text()
    assert codes == [0] * harnesses, said
    started = [line for line in said.splitlines() if line.startswith("[")]
    assert len(started) == CELLS == len(set(started)), said
    assert_same(outcome(folder), undisturbed[0])
    assert_clean(folder)


def test_the_cell_of_a_harness_that_was_killed_is_taken_over(
    tmp_path: Path, undisturbed: tuple[dict, float]
) -> None:
    expected, seconds = undisturbed
    folder = prepared(tmp_path / "taken")
    children = [fork(folder, *BENCH) for _ in range(3)]
    assert kill_after(children[0], 0.12 * seconds) in (-signal.SIGKILL, 0)
    assert [wait(child) for child in children[1:]] == [0, 0]
    assert wait(fork(folder, *BENCH)) == 0, (folder / "said").read_text()
    assert_same(outcome(folder), expected)
    assert_clean(folder)
