"""What is kept of an evaluation is taken up where it is of the same run, the same settings and the same code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import environment, matrix, partial
from benchmarks.evaluate import evaluate
from benchmarks.evaluation.representation import batches_of
from benchmarks.metrics import likelihood
from benchmarks.partial import Partial, keeping
from zoo.config import resolve
from zoo.registry import VariantEntry, registry
from zoo.runs import Run, train_run
from zoo.runs.folder import MODEL
from zoo.training import checkpoint
from zoo.training.precision import choose

SETTINGS = ["train.epochs=0", "evaluate.nll_samples=4", "evaluate.nll_images=12", "evaluate.quality_samples=0"]
NLL = "nll_iwae_4"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def run_in(folder: Path) -> Run:
    return train_run(resolve("vae", "synthetic", settings=SETTINGS), folder, choose("cpu"))


def stopped(run: Run, folder: Path, done: int) -> torch.Tensor:
    """An evaluation that ended with so many images; the bounds that it kept."""
    with pytest.raises(KeyboardInterrupt), keeping(run, folder) as kept:
        whole = evaluate(run).per_example[NLL]
        kept.add("nll", -whole[:done])
        raise KeyboardInterrupt
    return whole


@pytest.mark.parametrize("done", [0, 1, 7, 12])
@pytest.mark.parametrize("rows", [4, 20, 4096])
def test_the_images_that_are_kept_are_not_computed_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, done: int, rows: int
) -> None:
    run = run_in(folder)
    run.config = run.config.model_copy(update={"evaluate": run.config.evaluate.model_copy(update={"rows": rows})})
    whole, seen = stopped(run, folder, done), []
    original = type(run.model).log_weights

    def log_weights(self, x, y, k):
        seen.append(len(x) * k)
        return original(self, x, y, k)

    monkeypatch.setattr(type(run.model), "log_weights", log_weights)
    with keeping(run, folder) as kept:
        found = evaluate(run, partial=kept)
    assert torch.allclose(found.per_example[NLL], whole, rtol=1e-6)
    assert torch.equal(found.per_example[NLL][:done], whole[:done])
    assert sum(seen) == 4 * (12 - done)


def test_what_is_kept_is_of_these_weights_these_settings_and_this_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_in(folder)

    def kept() -> int:
        with keeping(run, folder) as found:
            return len(found.values("nll"))

    def again() -> None:
        stopped(run, folder, 5)
        assert kept() == 5

    again()
    other = run.config.evaluate.model_copy(update={"seed": 1})
    before, run.config = run.config, run.config.model_copy(update={"evaluate": other})
    assert kept() == 0
    run.config = before
    assert kept() == 0, "it was removed"
    again()
    tensors, state = checkpoint.read(folder / MODEL)
    checkpoint.write(folder / MODEL, {name: value + 1 for name, value in tensors.items()}, state)
    assert kept() == 0
    again()
    monkeypatch.setattr(environment, "at_start", lambda: ("f" * 40, False))
    assert kept() == 0
    again()
    path = folder / partial.KEPT / partial.VALUES
    path.write_bytes(path.read_bytes()[:-3])
    assert kept() == 0 and not path.exists()


def test_nothing_is_taken_up_that_changed_code_kept_where_no_commit_tells_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "at_start", lambda: ("f" * 40, True))
    package = tmp_path / "package_of_an_author"
    (package / "parts").mkdir(parents=True)
    for name in ("__init__.py", "parts/__init__.py", "parts/net.py"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    known = registry()
    entry = known.variants["vae"].model_copy(update={"origin": "an author", "target": f"{package.name}.parts.net:VAE"})
    run = run_in(folder)

    class Known:
        def variant(self, name: str) -> tuple[str, VariantEntry]:
            return name, entry

        dataset = staticmethod(known.dataset)

    monkeypatch.setattr(environment, "registry", Known)

    def kept() -> int:
        environment._source.cache_clear()  # as in another process
        with keeping(run, folder) as found:
            return len(found.values("nll"))

    stopped(run, folder, 5)
    assert kept() == 5
    (package / "parts" / "net.py").write_text("slope = 2\n")
    with keeping(run, folder) as found:
        assert len(found.values("nll")) == 5, "this process runs what it began with"
    assert kept() == 0


def test_the_files_are_those_of_before_any_training() -> None:
    environment._source.cache_clear()
    matrix.begin()
    assert environment._source.cache_info().currsize == 2


def test_seconds_are_those_of_all_sessions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(partial.time, "monotonic", lambda: now)
    first = Partial(folder, "this")
    now = 130.0
    first.write()
    now = 500.0
    second = Partial(folder, "this")
    now = 512.0
    assert second.seconds == 42.0
    assert Partial(None).seconds == 0.0


def test_what_takes_long_is_written_now_and_then(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = 0.0, []
    monkeypatch.setattr(partial.time, "monotonic", lambda: now)
    monkeypatch.setattr(partial.checkpoint, "write", lambda path, values, state: written.append(len(values["nll"])))
    kept = Partial(folder, "this")
    for _ in range(60):
        now += 1.0
        kept.add("nll", torch.zeros(2))
    assert written == [20, 40, 60, 80, 100, 120]


def test_bounds_of_no_run_are_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "EVERY", 0.0)
    monkeypatch.chdir(tmp_path)
    run = run_in(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    batches = batches_of(run, run.images["test"])
    assert len(likelihood.importance_weighted(run.model, batches, 2, 0, 64, 5)) == 5
    assert sorted(tmp_path.rglob("*")) == before
