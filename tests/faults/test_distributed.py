"""One run on two processes, connected by gloo as `torchrun` connects them: the numbers of one process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from benchmarks import record
from tests.faults.children import fork, wait
from tests.test_training import same, weights
from zoo.errors import UsageError
from zoo.quantisers import QuantiserSettings, VectorQuantiser
from zoo.training import checkpoint, trainer
from zoo.training.distributed import ALONE, asked_for, joined

SETTINGS = (
    "encoder.hidden=[16]", "decoder.hidden=[16]", "latent=4", "train.batch_size=64", "train.epochs=3", "train.ema=0.9",
    "train.clip=5", "train.warmup=1", "data.options.n_train=480", "evaluate.nll_samples=0",
    "evaluate.quality_samples=0",
)  # fmt: skip
CONV = (
    "channels=[4,4]", "hidden=4", "latent=2", "quantiser.restart_below=0", "train.batch_size=64", "train.epochs=3",
    "evaluate.nll_samples=0", "evaluate.quality_samples=0",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Once in this process, so that every child finds data and modules loaded."""
    from benchmarks.running.single import planned, run
    from zoo.config import resolve

    config = resolve("vae", "synthetic", settings=SETTINGS)
    run(planned(config, SETTINGS), tmp_path_factory.mktemp("loaded"), "cpu", None)


def words(variant: str, out: str, settings: tuple[str, ...]) -> list[str]:
    pairs = [text for one in settings for text in ("--set", one)]
    return ["train", variant, "--data", "synthetic", "--wandb", "disabled", "--device", "cpu", "--out", out, *pairs]


def together(
    folder: Path, arguments: list[str], size: int = 2, prepare: Callable[[], None] = lambda: None
) -> list[int]:
    """Start the command ``size`` times with what `torchrun` sets; the pids."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def environment(rank: int) -> None:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
        prepare()

    return [fork(folder, *arguments, prepare=lambda rank=rank: environment(rank)) for rank in range(size)]


def alone(folder: Path, arguments: list[str]) -> None:
    assert wait(fork(folder, *arguments)) == 0, (folder / "said").read_text()[-2000:]


@pytest.mark.parametrize(
    ("variant", "settings"), [("vae", SETTINGS), ("vq_vae", CONV), ("vq_vae", (*CONV, "quantiser.name=residual"))]
)
def test_two_processes_give_what_one_gives(tmp_path: Path, variant: str, settings: tuple[str, ...]) -> None:
    alone(tmp_path, words(variant, "one", settings))
    codes = [wait(child) for child in together(tmp_path, words(variant, "two", settings))]
    said = (tmp_path / "said").read_text()
    assert codes == [0, 0], said[-2000:]
    one, two = (record.read(tmp_path / name / "record.json") for name in ("one", "two"))
    assert one.curves.keys() == two.curves.keys()
    for name, values in one.curves.items():
        assert two.curves[name] == pytest.approx(values, rel=1e-4), name
    assert one.metrics["elbo"].value == pytest.approx(two.metrics["elbo"].value, rel=1e-4)
    assert one.train.steps == two.train.steps and one.cell == two.cell
    a, b = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=1e-3, atol=1e-3), name


def test_of_a_finished_run_the_first_process_alone_tells(tmp_path: Path) -> None:
    arguments = words("vae", "run", SETTINGS)
    alone(tmp_path, arguments)
    once = (tmp_path / "said").read_text()
    assert [wait(child) for child in together(tmp_path, arguments)] == [0, 0]
    assert (tmp_path / "said").read_text() == 2 * once


def test_what_was_added_up_last_is_let_go_of_after_the_processes_have_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Under PyTorch 2.6 pairs of processes whose tensors were gone hung there in 8 of 28 tries, and in none of 146 else.
    kept: list[weakref.ref[torch.Tensor]] = []
    there: list[bool] = []
    quantiser = VectorQuantiser(QuantiserSettings(), size=2)
    quantiser.observe(torch.randn(4, 2, 1, 1), torch.zeros(4, 1, 1, dtype=torch.int64))
    monkeypatch.setattr(dist, "init_process_group", lambda *given, **named: None)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: kept.append(weakref.ref(tensor)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: there.extend(one() is not None for one in kept))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with joined(torch.device("cpu")) as world:
        world.average([torch.ones(3)])
        world.any(True, device=torch.device("cpu"))
        assert [one() is not None for one in kept] == [True, True]
        quantiser.after_step()
    # The last two are kept, which gloo's two threads may hold.
    assert there == [False, False, False, True, True] and all(one() is None for one in kept)


def test_a_run_of_two_goes_on_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (*SETTINGS, "train.checkpoint_seconds=0")
    assert [wait(child) for child in together(tmp_path, words("vae", "whole", settings))] == [0, 0]

    def die_at_third_checkpoint() -> None:
        original, written = checkpoint.write_step, []
        monkeypatch.setattr(trainer, "AGREE_STEPS", 2)

        def write_step(*given: Any) -> Path:
            written.append(original(*given))
            if len(written) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return written[-1]

        monkeypatch.setattr(checkpoint, "write_step", write_step)

    stops = 0
    while not (tmp_path / "pieces" / "model.safetensors").exists():
        first, second = together(tmp_path, words("vae", "pieces", settings), prepare=die_at_third_checkpoint)
        if wait(first) == -signal.SIGKILL:
            os.kill(second, signal.SIGKILL)  # as torchrun does when one of its processes is gone
            stops += 1
        wait(second)
        assert stops < 12
    assert stops >= 2
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "pieces"))
    curves = [record.read(tmp_path / name / "record.json").curves for name in ("whole", "pieces")]
    assert curves[0]["validation_elbo"] == curves[1]["validation_elbo"]
    assert curves[0]["train_loss"] == pytest.approx(curves[1]["train_loss"], rel=1e-9), "sums add up in another order"


def test_a_run_of_two_goes_on_alone_in_the_numbers_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (*SETTINGS, "train.checkpoint_seconds=0")
    alone(tmp_path, words("vae", "one", settings))

    def die_in_the_first_epoch() -> None:
        original = checkpoint.write_step
        monkeypatch.setattr(trainer, "AGREE_STEPS", 2)

        def write_step(*given: Any) -> Path:
            original(*given)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(checkpoint, "write_step", write_step)

    first, second = together(tmp_path, words("vae", "pieces", settings), prepare=die_in_the_first_epoch)
    assert wait(first) == -signal.SIGKILL
    os.kill(second, signal.SIGKILL)
    wait(second)
    alone(tmp_path, words("vae", "pieces", settings))
    one, pieces = (record.read(tmp_path / name / "record.json").curves for name in ("one", "pieces"))
    for name, values in one.items():
        assert pieces[name] == pytest.approx(values, rel=1e-4), name


@pytest.mark.parametrize(
    ("variant", "setting", "said"),
    [
        ("ladder_vae", "train.batch_size=64", "needs each batch as a whole"),
        ("vae", "train.batch_size=63", "a batch of 63 cannot be divided evenly among 2 processes"),
    ],
)
def test_what_cannot_be_divided_is_refused(tmp_path: Path, variant: str, setting: str, said: str) -> None:
    codes = [wait(child) for child in together(tmp_path, words(variant, "two", (setting,)))]
    assert codes == [2, 2]
    lines = (tmp_path / "said").read_text().strip().splitlines()
    assert sum(said in line for line in lines) == 2 and not (tmp_path / "two" / "record.json").exists()


@pytest.mark.parametrize("rank", ["2", "-1"])
def test_a_process_beyond_the_last_does_not_wait_for_the_others(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="the last is 1"):
        asked_for()


@pytest.mark.parametrize(
    ("size", "said"),
    [("2", "$WORLD_SIZE says 2 processes, which `torchrun` starts"), ("two", "are numbers, which")],
)
def test_processes_that_nobody_started_are_one_sentence(tmp_path: Path, size: str, said: str) -> None:
    assert wait(fork(tmp_path, *words("vae", "one", SETTINGS), prepare=lambda: os.environ.update(WORLD_SIZE=size))) == 2
    (line,) = (tmp_path / "said").read_text().splitlines()
    assert line.startswith("zoo: ") and said in line


def test_a_process_that_waits_for_the_others_can_be_told_to_stop(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    child = fork(tmp_path, *words("vae", "two", SETTINGS), prepare=lambda: os.environ.update(names))
    try:
        assert soon(lambda: reachable(port)), (tmp_path / "said").read_text()[-2000:]
        os.kill(child, signal.SIGTERM)
        assert soon(lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def soon(happened: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not (found := happened()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def reachable(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.mark.parametrize("names", [{"WORLD_SIZE": ""}, {"RANK": "1"}, {"RANK": "1", "WORLD_SIZE": "1"}])
def test_a_process_that_is_alone_is_the_first(names: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert asked_for() == ALONE and asked_for().first


def test_memory_that_is_short_on_the_first_of_two_ends_the_run_with_that_reason(tmp_path: Path) -> None:
    def short() -> None:
        update, met = trainer.Trainer.update, []

        def updated(self: trainer.Trainer, *given: Any) -> None:
            if self.world.first and self.step == 5 and not met:
                met.append(self.step)
                raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
            update(self, *given)

        trainer.Trainer.update = updated

    first, second = together(tmp_path, words("vae", "two", SETTINGS), prepare=short)
    assert wait(first) == 1, (tmp_path / "said").read_text()[-2000:]
    assert wait(second) != 0
    made = record.read(tmp_path / "two" / "record.json")
    assert made.status == "failed" and "out of memory" in made.reason
