"""Replicas trained at once are the runs of their seeds alone, and a captured step is the step."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import ROOT
from tests.test_training import make_dropping
from zoo import create_model, runs
from zoo.config import RunConfig, resolve
from zoo.errors import UsageError
from zoo.models.vae import VanillaVAE
from zoo.registry import registry
from zoo.runs import load_run, together, train_run
from zoo.runs.folder import finished
from zoo.runs.together import gain, gain_beside, train_beside, train_together
from zoo.training.capture import WARM_UP, CannotCapture
from zoo.training.precision import Compute, choose
from zoo.training.replicas import Replicas, why_not
from zoo.training.trainer import Diverged, Result, Stopped, Trainer

SMALL = ["encoder.hidden=[16]", "decoder.hidden=[16]", "latent=4", "train.batch_size=128", "train.epochs=2"]
FULL = ["train.ema=0.9", "train.warmup=1", "train.clip=0.1", "train.schedule=cosine"]


def configs(variant: str, *more: str, seeds: int = 3) -> list[RunConfig]:
    return [resolve(variant, "synthetic", seed, settings=[*SMALL, *more]) for seed in range(seeds)]


def assert_same_run(folder: Path, config: RunConfig, alone: Path) -> None:
    """The run in ``folder`` is that of ``config`` trained alone, but for the rounding of batched products."""
    single, stacked = train_run(config, alone, choose("cpu")), train_run(config, folder, choose("cpu"))
    assert stacked.result.steps == single.result.steps
    assert stacked.result.best_epoch == single.result.best_epoch
    assert stacked.result.curves.keys() == single.result.curves.keys()
    for name, curve in single.result.curves.items():
        assert stacked.result.curves[name] == pytest.approx(curve, rel=2e-4, abs=1e-3), name
    for name, value in single.model.state_dict().items():
        # Adam makes a step of the learning rate of a gradient that is all rounding: few weights may do that.
        apart = (stacked.model.state_dict()[name].float() - value.float()).abs()
        assert apart.max() <= 2e-4 and apart.mean() <= 1e-6, (name, apart.max(), apart.mean())


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("vae", FULL),
        ("vae", ["likelihood.name=gaussian", "prior.name=diagonal"]),  # a parameter that is one number
        ("vae", ["likelihood.name=laplace"]),
        ("vae", ["train.cycles=2", "train.free_bits=0.3"]),
        ("vae", ["likelihood.name=continuous_bernoulli", "data.binarise=none"]),
        ("vae", ["likelihood.name=laplace", "data.dequantise=uniform"]),
        ("beta_vae", FULL),
        ("cvae", FULL),
        ("flow_vae", FULL),
        ("energy_vae", FULL),
        ("diffusion_vae", FULL),
        ("vamp_vae", [*FULL, "prior.components=20"]),
        ("categorical_vae", FULL),
        ("svae", FULL),
        ("poincare_vae", FULL),
        ("gamma_vae", FULL),
        ("hamiltonian_vae", FULL),
        ("riemannian_vae", [*FULL, "centroids=20"]),
    ],
)
def test_each_replica_is_the_run_of_its_seed_alone(tmp_path: Path, variant: str, options: list[str]) -> None:
    wanted = configs(variant, *options, seeds=2)
    folders = [tmp_path / f"s{config.seed}" for config in wanted]
    assert train_together(wanted, folders, choose("cpu")) == [True, True]
    for config, folder in zip(wanted, folders, strict=True):
        assert_same_run(folder, config, tmp_path / f"alone{config.seed}")
    a, b = (load_run(folder).state_dict() for folder in folders)
    assert not any(torch.equal(a[name], b[name]) for name in a if name.startswith("encoder"))


def test_a_sweep_of_beta_is_one_stack_and_its_record_says_so(tmp_path: Path) -> None:
    wanted = [resolve("beta_vae", "synthetic", settings=[*SMALL, f"beta={beta}"]) for beta in (1, 8)]
    folders = [tmp_path / f"b{index}" for index in range(2)]
    train_together(wanted, folders, choose("cpu"))
    for index, (config, folder) in enumerate(zip(wanted, folders, strict=True)):
        assert_same_run(folder, config, tmp_path / f"alone{index}")
    runs = [train_run(config, folder, choose("cpu")) for config, folder in zip(wanted, folders, strict=True)]
    assert [run.result.together for run in runs] == [2, 2]
    rates = [run.result.curves["train_rate"][-1] for run in runs]
    assert rates[0] > 1.5 * rates[1]


def test_a_stack_leaves_alone_what_another_harness_has_finished(tmp_path: Path) -> None:
    wanted, folders = configs("vae", seeds=3), [tmp_path / str(seed) for seed in range(3)]
    train_together(wanted[:2], folders[:2], choose("cpu"))
    before = [(folder / runs.MODEL).stat().st_mtime_ns for folder in folders[:2]]
    for _ in range(2):
        assert train_together(wanted, folders, choose("cpu")) == [True, True, True]
    assert [(folder / runs.MODEL).stat().st_mtime_ns for folder in folders[:2]] == before
    assert_same_run(folders[2], wanted[2], tmp_path / "alone")


def test_a_replica_that_is_lost_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = configs("vae", seeds=2)

    class Spoilt(Replicas):
        def fit(self, should_stop):
            self.leaves[0].data[1, 0, 0] = float("nan")
            return super().fit(should_stop)

    monkeypatch.setattr(together, "Replicas", Spoilt)
    folders = [tmp_path / "0", tmp_path / "1"]
    assert train_together(wanted, folders, choose("cpu")) == [True, False]
    assert [finished(folder) for folder in folders] == [True, False]
    assert_same_run(folders[0], wanted[0], tmp_path / "alone")


def test_a_replica_without_a_finite_validation_is_lost_as_it_is_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = configs("vae", "train.epochs=1", seeds=2)
    seen = []

    def validate(trainer: Trainer) -> tuple[float, float]:
        seen.append(trainer)
        return (float("nan") if len(seen) != 1 else -200.0,) * 2

    monkeypatch.setattr(Trainer, "validate", validate)
    assert train_together(wanted, [tmp_path / "0", tmp_path / "1"], choose("cpu")) == [True, False]
    with pytest.raises(Diverged, match="no validation that could be kept"):
        train_run(wanted[1], tmp_path / "1", choose("cpu"))


def test_a_replica_that_stops_early_is_the_run_that_stops_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = configs("vae", "train.patience=1", "train.epochs=4", seeds=2)
    curves, said = itertools.cycle([(-9.0, -8.0, -7.0, -6.0), (-8.0, -9.0)]), {}

    def validate(trainer: Trainer) -> tuple[float, float]:
        if trainer not in said:
            said[trainer] = iter(next(curves))
        return (next(said[trainer]),) * 2

    monkeypatch.setattr(Trainer, "validate", validate)
    folders = [tmp_path / "0", tmp_path / "1"]
    assert train_together(wanted, folders, choose("cpu")) == [True, True]
    for config, folder, stops in zip(wanted, folders, (False, True), strict=True):
        assert_same_run(folder, config, tmp_path / f"alone{config.seed}")
        assert train_run(config, folder, choose("cpu")).result.stopped_early is stops


def test_replicas_keep_their_best(tmp_path: Path) -> None:
    wanted = configs("vae", "train.learning_rate=0.05", "train.patience=1", "train.epochs=6", seeds=2)
    trainers, generators, _ = together._prepared(wanted, choose("cpu"))
    results = Replicas(trainers, generators).fit()
    for trainer, result in zip(trainers, results, strict=True):
        assert not isinstance(result, Diverged)
        curve = result.curves["validation_elbo"]
        assert result.best_epoch == 1 + curve.index(max(curve))
        assert trainer.validate()[0] == pytest.approx(max(curve), rel=1e-5)


def test_a_run_that_has_ended_is_there_whatever_comes_to_the_others(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(runs, "Trainer", OwnNoise)
    wanted = [*configs("vae", "train.epochs=1", seeds=1), *configs("vae", "train.epochs=4", seeds=1)]
    asked = iter([False] * 10 + [True] * 99)
    with pytest.raises(Stopped):
        train_beside(wanted, [tmp_path / "0", tmp_path / "1"], [choose("cpu")] * 2, lambda: next(asked))
    assert finished(tmp_path / "0") and not finished(tmp_path / "1")


@pytest.mark.parametrize(
    ("variant", "change", "reason"),
    [
        ("vae", "train.learning_rate=0.01", "more than the seed"),
        ("vae", "latent=5", "more than the seed"),
        ("vae_gan", "", "losses of its own"),
        ("vae", "train.optimizer=adamax", "only Adam"),
    ],
)
def test_what_cannot_be_stacked_is_refused_with_its_reason(tmp_path: Path, variant: str, change: str, reason: str):
    both = [change] if "optimizer" in change else []
    small = SMALL if variant == "vae" else []
    first = resolve(variant, "synthetic", 0, settings=[*small, *both])
    second = resolve(variant, "synthetic", 1, settings=[*small, *([change] if change else [])])
    with pytest.raises(UsageError, match=reason):
        train_together([first, second], [tmp_path / "0", tmp_path / "1"], choose("cpu"))
    assert not finished(tmp_path / "0")


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ("losses", "losses of its own"), ("parameter_groups", "losses of its own"),
        ("after_step", "state that no gradient moves"), ("recollect", "state that no gradient moves"),
    ],
)  # fmt: skip
def test_a_model_that_trains_in_its_own_way_is_not_stacked(own: str, reason: str) -> None:
    model = create_model("vae", data="synthetic", latent=2)
    kind = type("Own", (VanillaVAE,), {own: lambda self, *given: None})
    assert why_not([resolve("vae")] * 2, [model] * 2) is None
    assert reason in str(why_not([resolve("vae")] * 2, [kind(model.spec, model.settings)] * 2))


@pytest.mark.parametrize("change", ["train.micro_batch=16", "train.compile=true", "train.optimizer=adamax"])
def test_a_training_of_which_no_stack_is_made_is_refused(change: str) -> None:
    both = [resolve("vae", "synthetic", seed, settings=[change]) for seed in range(2)]
    found = why_not(both, [create_model("vae", data="synthetic", latent=2)] * 2)
    assert found == "only Adam on whole batches, not compiled, is stacked"


@pytest.mark.parametrize(
    ("divided", "scaled", "resident", "said"),
    [
        (True, False, True, "on whole batches"), (False, True, True, "in float32 or bf16"),
        (False, False, False, "pictures that fit onto the device"),
    ],
)  # fmt: skip
def test_trainers_of_which_no_stack_can_be_made_are_refused(
    divided: bool, scaled: bool, resident: bool, said: str
) -> None:
    part = SimpleNamespace
    trainer = part(stepper=part(divided=divided), compute=part(scaled=scaled), train=part(resident=resident))
    with pytest.raises(UsageError, match=said):
        Replicas([trainer], [])
    with pytest.raises(UsageError, match="no replicas to train"):
        Replicas([], [])


def test_a_stack_that_is_stopped_keeps_nothing_and_begins_again(tmp_path: Path) -> None:
    wanted, folders, asked = configs("vae", seeds=2), [tmp_path / "0", tmp_path / "1"], iter([False] * 3 + [True])
    with pytest.raises(Stopped, match="begin again"):
        train_together(wanted, folders, choose("cpu"), lambda: next(asked))
    assert not any(finished(folder) for folder in folders)
    assert train_together(wanted, folders, choose("cpu")) == [True, True]
    assert_same_run(folders[1], wanted[1], tmp_path / "alone")


def test_runs_with_dropout_are_not_stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dropping(monkeypatch)
    with pytest.raises(UsageError, match="cannot be trained as one stack: dropout"):
        train_together(configs("vae", seeds=2), [tmp_path / "0", tmp_path / "1"], choose("cpu"))
    assert not finished(tmp_path / "0")


def test_what_can_be_stacked_as_it_comes_is_what_the_page_says() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    (said,) = re.findall(r"\*As one stack\*: [^()]*\(([^()]*)\)", text)
    stacked = [name for name in registry().variants if why_not([resolve(name)] * 2, [create_model(name)] * 2) is None]
    assert {name.split()[0] for name in said.split(",")} == set(stacked)


def test_the_gain_is_measured_without_moving_anything(tmp_path: Path) -> None:
    wanted = configs("vae", seeds=2)
    assert gain(wanted, choose("cpu"), steps=3) > 0
    train_together(wanted, [tmp_path / "0", tmp_path / "1"], choose("cpu"))
    assert_same_run(tmp_path / "0", wanted[0], tmp_path / "alone")


def test_the_gain_is_that_over_as_many_runs_one_after_the_other_once_they_are_warm() -> None:
    now, warm, burst = [0.0], 2 * WARM_UP, 20 // together.BURSTS

    def walk(seconds: float, more: float = 0.0) -> Iterator[None]:
        for step in itertools.count():
            now[0] += seconds + more * ((step - warm) // burst) if step >= warm else 1000.0
            yield

    # The bursts of the run alone take ever longer: it is the third of five that counts.
    alone = SimpleNamespace(steps_of=lambda epoch: walk(2.0, 0.5), steps_per_epoch=100)
    gained = together._gain(4, Compute(torch.device("cpu")), lambda: now[0], alone, walk(5.0), steps=20)
    assert gained == pytest.approx(4 * 3.0 / 5.0)


@pytest.mark.parametrize("length", [1, 2, 2 * WARM_UP, 2 * WARM_UP + 2, 2 * WARM_UP + 4])
def test_the_gain_in_a_short_epoch_is_that_of_the_steps_it_has(length: int) -> None:
    now, taken = [0.0], []

    def walk(seconds: float) -> Iterator[None]:
        for _ in range(length):
            now[0] += seconds
            taken.append(seconds)
            yield

    alone = SimpleNamespace(steps_of=lambda epoch: walk(2.0), steps_per_epoch=length)
    gained = together._gain(4, Compute(torch.device("cpu")), lambda: now[0], alone, walk(5.0), steps=20)
    assert gained == pytest.approx(4 * 2.0 / 5.0) and taken.count(2.0) == taken.count(5.0) == length


class OwnNoise(Trainer):
    """A CPU's run with a random generator of its own, as every run on a GPU has."""

    def __init__(self, *given, **named) -> None:
        super().__init__(*given, **named)
        self.draw_from(torch.Generator().set_state(torch.get_rng_state()))


def test_runs_beside_each_other_are_the_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "Trainer", OwnNoise)
    more = [resolve(variant, "synthetic", settings=["train.epochs=2"]) for variant in ("ladder_vae", "vq_vae")]
    vamp = configs("vae", "prior.name=vamp", "prior.components=5", seeds=1)
    wanted = [*configs("vae", *FULL, seeds=2), *more, *vamp, *configs("iwae", "train.patience=1", seeds=1)]
    folders = [tmp_path / str(number) for number in range(len(wanted))]
    assert train_beside(wanted, folders, [choose("cpu")] * len(wanted)) == [True] * len(wanted)
    for number, (config, folder) in enumerate(zip(wanted, folders, strict=True)):
        alone = train_run(config, tmp_path / f"alone{number}", choose("cpu"))
        beside = train_run(config, folder, choose("cpu"))
        assert beside.result.together == len(wanted) and alone.result.together == 1
        assert beside.result.curves == alone.result.curves
        for name, value in alone.model.state_dict().items():
            assert torch.equal(value, beside.model.state_dict()[name]), name


@pytest.mark.parametrize(("dropout", "said"), [(False, "on a CPU"), (True, "with dropout")])
def test_runs_that_would_draw_from_one_generator_do_not_train_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropout: bool, said: str
) -> None:
    if dropout:
        monkeypatch.setattr(runs, "Trainer", OwnNoise)
        make_dropping(monkeypatch)
    folders = [tmp_path / "0", tmp_path / "1"]
    with pytest.raises(UsageError, match=f"{said} draw from one random generator"):
        train_beside(configs("vae", seeds=2), folders, [choose("cpu")] * 2)
    assert list(tmp_path.iterdir()) == []


def test_runs_beside_each_other_go_on_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "Trainer", OwnNoise)
    wanted, asked = configs("vae", "train.epochs=4", seeds=2), 0

    def after_a_while() -> bool:
        nonlocal asked
        asked += 1
        return asked > 20

    folders = [tmp_path / "0", tmp_path / "1"]
    with pytest.raises(Stopped):
        train_beside(wanted, folders, [choose("cpu")] * 2, after_a_while)
    assert all(any((folder / "checkpoints").glob("step-*")) and not finished(folder) for folder in folders)
    assert train_beside(wanted, folders, [choose("cpu")] * 2) == [True, True]
    for number, (config, folder) in enumerate(zip(wanted, folders, strict=True)):
        alone = train_run(config, tmp_path / f"alone{number}", choose("cpu"))
        assert alone.result.curves == train_run(config, folder, choose("cpu")).result.curves
    assert train_beside(wanted, folders, [choose("cpu")] * 2) == [True, True]  # nothing is left to do
    assert gain_beside(wanted, choose("cpu"), steps=5) > 0


def test_runs_are_measured_beside_as_many_as_are_trained_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made, original = [], runs.make_trainer
    monkeypatch.setattr(together, "AT_ONCE", 2)
    monkeypatch.setattr(runs, "make_trainer", lambda *given: made.append(original(*given)) or made[-1])
    assert gain_beside(configs("vae", seeds=4), choose("cpu"), steps=5) > 0
    assert len(made) == 1 + 2


@pytest.mark.parametrize(
    ("stack", "streams", "wins"), [(3.0, 2.0, "as one stack"), (1.5, 2.0, "on a stream each"), (0.5, 0.9, None)]
)
def test_a_suite_trains_its_seeds_in_the_way_that_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: float, streams: float, wins: str | None
) -> None:
    from benchmarks.matrix import Places, compute_of, plan
    from benchmarks.running.ahead import train_ahead
    from benchmarks.suite import suite_named

    monkeypatch.setattr(runs, "Trainer", OwnNoise)
    places = Places(tmp_path / "board", tmp_path / "runs")
    cells = plan(suite_named("smoke"), ("vae", "vq_vae"), ("synthetic",), (0, 1))
    said: list[str] = []

    def stacked(configs, compute):
        if configs[0].variant == "vq_vae":
            raise UsageError("these runs cannot be trained as one stack: VQVAE has losses of its own.")
        return stack

    ways = dict(stacked=stacked, beside=lambda configs, compute: streams)
    train_ahead(cells, places, compute_of("cpu", cells), lambda: False, said.append, **ways)
    assert [finished(places.run(planned.cell)) for planned in cells] == [bool(wins)] * 4
    ours, others = (next(line for line in said if line.startswith(f"{name} on")) for name in ("vae", "vq_vae"))
    assert "losses of its own" in others and ("on a stream each" in others)
    assert (wins or "one by one") in ours and len(said) == 2
    if wins:
        train_ahead(cells, places, compute_of("cpu", cells), lambda: False, said.append, **ways)
        assert len(said) == 2  # nothing is left to train


def test_cells_whose_steps_cannot_be_captured_at_once_are_left_to_themselves(tmp_path: Path) -> None:
    from benchmarks.matrix import Places, compute_of, plan
    from benchmarks.running.ahead import train_ahead
    from benchmarks.suite import suite_named

    def refuses(configs, compute):
        raise CannotCapture("an operation waits for the device")

    said: list[str] = []
    cells = plan(suite_named("smoke"), ("vae",), ("synthetic",), (0, 1))
    places = Places(tmp_path / "board", tmp_path / "runs")
    train_ahead(cells, places, compute_of("cpu", cells), lambda: False, said.append, refuses, refuses)
    (line,) = said
    assert line.endswith("one by one; together their steps cannot be captured: an operation waits for the device")


@pytest.mark.parametrize("error", [CannotCapture("it waits"), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_way_that_cannot_be_taken_leaves_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from benchmarks.matrix import Places, compute_of, plan
    from benchmarks.running.ahead import train_ahead
    from benchmarks.suite import suite_named

    def fails(configs, compute):
        raise error

    monkeypatch.setattr(runs, "Trainer", OwnNoise)
    places, said = Places(tmp_path / "board", tmp_path / "runs"), []
    cells = plan(suite_named("smoke"), ("vae",), ("synthetic",), (0, 1))
    for ways, wins in (((fails, lambda *_: 1.0), "one by one"), ((fails, lambda *_: 2.0), "on a stream each")):
        train_ahead(cells, places, compute_of("cpu", cells), lambda: False, said.append, *ways)
        assert wins in said[-1] and "as one stack the" in said[-1]
    assert all(finished(places.run(planned.cell)) for planned in cells)


def test_many_runs_are_trained_beside_each_other_in_lots() -> None:
    from zoo.training import beside

    now: set[int] = set()
    most: list[int] = []

    class Walk:
        compute = Compute(torch.device("cpu"))

        def __init__(self, number: int) -> None:
            self.number = number

        def run(self):
            now.add(self.number)
            for _ in range(3):
                most.append(len(now))
                yield
            now.discard(self.number)

        def result(self):
            return Result(self.number, 0, 0, 0, 0.0, 0.0, 0, False)

    found = beside.fit_beside([Walk(number) for number in range(2 * beside.AT_ONCE + 3)])
    assert [one.steps for one in found] == list(range(2 * beside.AT_ONCE + 3))
    assert max(most) == beside.AT_ONCE
    assert [one.together for one in found[-4:]] == [beside.AT_ONCE, 3, 3, 3]


def test_a_sweep_and_its_seeds_are_one_lot(tmp_path: Path) -> None:
    from benchmarks.matrix import Places, plan
    from benchmarks.running.ahead import groups
    from benchmarks.suite import suite_named

    cells = plan(suite_named("smoke"), ("beta_vae",), ("synthetic",), (0, 1), {None: ("beta=1", "beta=4")})
    (lot,) = groups(cells, Places(tmp_path / "board", tmp_path / "runs"))
    assert [(planned.config.seed, planned.config.model["beta"]) for planned in lot] == [(0, 1), (0, 4), (1, 1), (1, 4)]


@pytest.mark.parametrize("jobs", [1, 3])
def test_on_a_gpu_cells_are_trained_ahead_once_whoever_evaluates_them(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import matrix
    from benchmarks.commands import bench
    from benchmarks.running import ahead, workers
    from benchmarks.suite import suite_named
    from zoo.training import precision

    happened = []
    monkeypatch.setattr(precision, "choose", lambda *_: Compute(torch.device("cuda")))
    monkeypatch.setattr(ahead, "train_ahead", lambda *_: happened.append("ahead"))
    monkeypatch.setattr(matrix, "run_all", lambda *_: happened.append("cells"))
    monkeypatch.setattr(workers, "run", lambda arguments, count, *_: happened.append(f"{count} workers") or [0] * count)
    cells = matrix.plan(suite_named("quick"))
    places = matrix.Places(tmp_path / "board", tmp_path / "runs")
    bench.run_all(cells, cells, places, "cuda", "disabled", str(jobs))
    assert happened == ["ahead", "cells" if jobs == 1 else "3 workers"]
    bench._run(cells, places, "cuda", "disabled", orphaned=lambda: False)  # what each of the workers does
    assert happened[2:] == ["cells"]
