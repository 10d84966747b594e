"""What fails is recorded with its reason, tried again only where that can help, and takes nothing else along."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from benchmarks import matrix, record
from benchmarks.check.subject import subject
from benchmarks.commands import bench
from benchmarks.matrix import Places
from benchmarks.running import ahead, attempts, workers
from benchmarks.suite import suite_named, suites
from tests.in_pieces import in_pieces
from tests.test_cli import zoo  # noqa: F401 (a fixture)
from tests.test_training import run, same, weights
from zoo import list_models, noise, runs
from zoo.config import resolve
from zoo.models import create_model
from zoo.registry import VARIANT_GROUP, VariantEntry, registry
from zoo.training import stepper, tally, trainer
from zoo.training.optimise import Group, backward
from zoo.training.precision import choose
from zoo.training.trainer import Diverged

# ---- numbers that are not finite -------------------------------------------------------------------------------------


class Poison:
    """Makes the gradients of steps ``first`` to ``last`` (counted over all updates, undone ones too) infinite."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: int, last: int, above: float = 0.0) -> None:
        self.seen: list[tuple[int, float]] = []
        original = Group.step
        poison = self

        def step(group: Group, scale: float = 1.0) -> torch.Tensor:
            rate = group.optimizer.param_groups[0]["lr"]
            poison.seen.append((len(poison.seen), rate))
            if first <= poison.at() <= last and rate > above:
                group.parameters[0].grad.fill_(float("inf"))
            return original(group, scale)

        monkeypatch.setattr(Group, "step", step)
        monkeypatch.setattr(tally, "HOPELESS", 6)

    def at(self) -> int:
        return self.trainer.step

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = trainer.Trainer.__init__

        def init(made: trainer.Trainer, *args: object, **named: object) -> None:
            original(made, *args, **named)
            self.trainer = made

        monkeypatch.setattr(trainer.Trainer, "__init__", init)


# Eight steps an epoch. The gradients of steps 11 to 30 overflow unless the rate is below 1e-4.
RECIPE = ("train.epochs=5", "train.checkpoint_seconds=0", "train.ema=0.9", "train.learning_rate=1e-3")


def test_a_run_that_overflows_goes_back_to_its_last_good_epoch_with_a_lower_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = Poison(monkeypatch, 11, 30, above=1e-4)
    poison.watch(monkeypatch)
    result = run(tmp_path, *RECIPE).result
    assert result.retreats == 2 and result.steps == 40
    assert result.skipped_updates == 2 * 6, "each spell is counted, though its steps were undone"
    rates = [rate for _, rate in poison.seen]
    assert set(rates) == {1e-3, 2.5e-4, 6.25e-5} and rates[-1] == 6.25e-5
    assert [len([r for r in rates if r == rate]) for rate in (1e-3, 2.5e-4)] == [17, 9], "back to step 8 each time"
    assert result.curves["epoch"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("last", [30, 99], ids=["recovers", "diverges"])
def test_what_is_recorded_of_overflows_does_not_depend_on_when_checkpoints_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    poison = Poison(monkeypatch, 11, last, above=1e-4 if last == 30 else 0.0)
    poison.watch(monkeypatch)
    found = []
    for seconds in (0, 1000):
        try:
            result = run(tmp_path / str(seconds), *RECIPE, f"train.checkpoint_seconds={seconds}").result
            found.append((result.retreats, result.skipped_updates, result.curves))
        except Diverged as diverged:
            found.append(str(diverged))
    assert found[0] == found[1]


def test_a_run_that_is_stopped_all_the_time_goes_back_to_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = Poison(monkeypatch, 11, 30, above=1e-4)
    poison.watch(monkeypatch)
    run(tmp_path / "whole", *RECIPE)
    _, stops = in_pieces(lambda stop: run(tmp_path / "pieces", *RECIPE, should_stop=stop), every=6)
    assert stops >= 8
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "pieces"))


def test_a_run_that_cannot_be_helped_diverges_after_the_stated_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = Poison(monkeypatch, 11, 30)
    poison.watch(monkeypatch)
    with pytest.raises(Diverged, match=f"after going back {trainer.RETREATS} times to a lower learning rate"):
        run(tmp_path, *RECIPE)
    assert len({rate for _, rate in poison.seen}) == trainer.RETREATS + 1


def test_a_short_spell_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison = Poison(monkeypatch, 11, 15)
    poison.watch(monkeypatch)
    result = run(tmp_path, *RECIPE).result
    assert (result.retreats, result.skipped_updates) == (0, 5)


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", list_models())
def test_a_batch_in_parts_has_the_gradient_and_the_state_of_the_whole(variant: str) -> None:
    config = suite_named("smoke").config(variant, "synthetic", 0)
    model = create_model(variant, data="synthetic", **config.model)
    if model.couples_batch:
        pytest.skip("its objective looks at the batch as a whole, and it says so")
    x, y = subject(variant).shown(12)
    model.initialise(x, y)

    def trained(*bounds: int) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        one = copy.deepcopy(model)
        groups = {name: Group(name, members, config.train) for name, members in one.parameter_groups().items()}
        torch.manual_seed(1)
        tape: list[torch.Tensor] = []
        for low, high in zip(bounds, bounds[1:], strict=False):
            with noise.part_of(12, low, high, tape) if len(bounds) > 2 else contextlib.nullcontext():
                losses = one.losses(x[low:high], None if y is None else y[low:high], 1.0)
            backward(losses, groups, (high - low) / 12, add=low > 0)
        one.after_step()
        gradients = [p.grad for group in groups.values() for p in group.parameters if p.grad is not None]
        return gradients, list(one.buffers()), torch.get_rng_state()

    (whole, state, drawn), (parts, state_of_parts, drawn_in_parts) = trained(0, 12), trained(0, 5, 12)
    scale = max(gradient.abs().max().item() for gradient in whole)
    assert scale > 0 and len(whole) == len(parts)
    for a, b in zip(whole, parts, strict=True):
        assert (a - b).abs().max().item() < 2e-5 * scale
    # What no gradient moves, such as a codebook, and what the next step will draw.
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(state, state_of_parts, strict=True))
    assert torch.equal(drawn, drawn_in_parts)


def test_parts_are_the_ordinary_noise(tmp_path: Path) -> None:
    like = torch.empty(8, 3)
    torch.manual_seed(3)
    ordinary = [noise.normal(like), noise.uniform(like)]
    torch.manual_seed(3)
    tape: list[torch.Tensor] = []
    pieces = []
    for low, high in ((0, 3), (3, 8)):
        with noise.part_of(8, low, high, tape):
            pieces.append([noise.normal(like[low:high]), noise.uniform(like[low:high])])
    assert torch.equal(torch.cat([pieces[0][0], pieces[1][0]]), ordinary[0])
    assert torch.equal(torch.cat([pieces[0][1], pieces[1][1]]), ordinary[1])
    curves = run(tmp_path / "whole", "train.epochs=2").result.curves
    curves_of_parts = run(tmp_path / "parts", "train.epochs=2", "train.micro_batch=24").result.curves
    assert curves_of_parts.keys() == curves.keys()
    assert all(curves_of_parts[name] == pytest.approx(curve, rel=1e-4) for name, curve in curves.items())
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.allclose(whole[name], parts[name], atol=2e-4) for name in whole)


def small_suite(folder: Path) -> str:
    path = folder / "small.yaml"
    path.write_text(
        "schema: 1\nname: small\nversion: '1'\ntitle: small\ndatasets: [synthetic]\nvariants: [vae, beta_vae]\n"
        "defaults:\n  model: {encoder: {hidden: [8]}, decoder: {hidden: [8]}, latent: 2}\n"
        "  train: {epochs: 1, batch_size: 64}\n"
        "  data: {options: {n_train: 128, n_validation: 64, n_test: 64}}\n"
        "  evaluate: {nll_samples: 0, quality_samples: 0, factor_images: 0}\n"
    )
    return str(path)


WORDS = ("--wandb", "disabled", "--device", "cpu")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("overrides:\n  beta_vae: {model: {latnet: 8}}\n", "beta_vae: no setting 'latnet'. Did you mean 'latent'?"),
        ("overrides:\n  beta_vae: {model: {latent: -8}}\n", "beta_vae: setting 'latent': input should be greater"),
        ("", "vae: no setting 'encoder.hiden'. Did you mean 'hidden'?"),
    ],
)
def test_a_setting_that_a_variant_lacks_is_said_before_anything_is_trained(
    zoo, tmp_path: Path, wrong: str, said: str  # noqa: F811
) -> None:
    path = Path(small_suite(tmp_path))
    text = path.read_text()
    path.write_text(text + wrong if wrong else text.replace("encoder: {hidden", "encoder: {hiden"))
    for plan in ((), ("--plan",), ("--plan", "--json")):
        code, out, err = zoo("bench", "small.yaml", *plan, "--jobs", "1", *WORDS)
        assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize(
    ("variant", "sweep", "said"),
    [
        ("iwae", "train.free_bits=0.1,0.2", "iwae charges for its rate in a way of its own"),
        ("hvae", "train.free_bits=0.1", None),
        ("quadrant_cvae", "train.warmup=0.5,1", "no step of this training would move 'vae' of quadrant_cvae"),
        ("quadrant_cvae", "train.warmup=0,0.5", "no step of this training would move 'guess' of quadrant_cvae"),
        ("quadrant_cvae", "train.warmup=0.5,0.999", None),
        ("quadrant_cvae", "train.cycles=1,2", "train.cycles=2 would go back to the first one"),
        ("vq_vae", "prior_from=0.5,0.999", None),
        ("vq_vae", "train.epochs=0", None),
    ],
)
def test_a_recipe_that_no_training_could_have_is_said_before_the_data_are_loaded(
    zoo, tmp_path: Path, variant: str, sweep: str, said: str | None  # noqa: F811
) -> None:
    names, data = ("--variants", variant), ("--datasets", "mnist_static")  # of which there is no copy
    text = Path(small_suite(tmp_path)).read_text()
    text = re.sub(r"  (model|data): .*\n", "", text) + "overrides: {quadrant_cvae: {train: {warmup: 0.1}}}\n"
    (tmp_path / "small.yaml").write_text(text)
    for command in (("bench", "--plan"), ("bench",), ("choose",)) if said else (("bench", "--plan"),):
        more = WORDS if command[-1] != "--plan" else ()
        code, out, err = zoo(command[0], "small.yaml", *command[1:], *names, *data, "--sweep", sweep, *more)
        assert code == (2 if said else 0), err
        assert (out == "" and said in err and len(err.splitlines()) == 1) if said else sweep.partition("=")[0] in out
    assert [entry.name for entry in tmp_path.iterdir()] == ["small.yaml"]


def test_every_variant_of_a_suite_that_ships_has_the_settings_it_is_given() -> None:
    for suite in suites().values():
        bench.check_settings(matrix.plan(suite))


def test_a_variant_that_cannot_be_loaded_fails_its_own_cells_alone(
    zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    load = VariantEntry.load

    def broken(entry: VariantEntry) -> type:
        if entry.target.endswith("BetaVAE"):
            raise ModuleNotFoundError("No module named 'nowhere'")
        return load(entry)

    monkeypatch.setattr(VariantEntry, "load", broken)
    code, _, err = zoo("bench", small_suite(tmp_path), "--jobs", "1", *WORDS)
    assert code == 1 and "No module named 'nowhere'" in err
    made = {one.cell.variant: one.status for one in record.read_all(tmp_path / "leaderboard" / "records")}
    assert made == {"vae": "done", "beta_vae": "failed"}


def test_a_cell_that_is_short_of_memory_is_tried_once_in_smaller_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = matrix.plan(suite_named(small_suite(tmp_path)))
    places = Places(tmp_path / "board", tmp_path / "runs")
    sizes = []
    original = stepper.Stepper._in_parts

    def short(self, *given):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    def in_parts(self, x, y, progress, scale):
        sizes.append(self.micro_batch)
        return original(self, x, y, progress, scale)

    init = stepper.Stepper.__init__

    def made(self, *args, **named):
        init(self, *args, **named)
        if not self.divided:
            self.forward = lambda *given: short(self, *given)

    monkeypatch.setattr(stepper.Stepper, "__init__", made)
    monkeypatch.setattr(stepper.Stepper, "_in_parts", in_parts)
    ended = matrix.run_cell(cells[0], places, choose("cpu"))
    assert ended.status == "done", ended
    assert set(sizes) == {16}, "a quarter of 64"
    assert ended.config["train"]["micro_batch"] == 16 and ended.cell == cells[0].cell, "still the same cell"
    monkeypatch.setattr(stepper.Stepper, "_in_parts", short)
    ended = matrix.run_cell(cells[1], places, choose("cpu"))
    assert ended.status == "failed" and "in parts of 16" in ended.reason and "out of memory" in ended.reason


@pytest.mark.parametrize(("rows", "fewer"), [(8192, 2048), (128, 64), (64, 64), (16, 16)])
def test_a_second_try_never_evaluates_more_rows_than_the_first(rows: int, fewer: int) -> None:
    config = resolve("vae", "synthetic", settings=[f"evaluate.rows={rows}"])
    assert attempts.smaller(config).evaluate.rows == fewer


def test_a_killed_process_is_told_from_one_that_memory_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = 3
    monkeypatch.setattr(attempts, "oom_kills", lambda: kills)
    assert not attempts.begin(tmp_path, "a").short_of_memory
    again = attempts.begin(tmp_path, "a")
    assert (again.number, again.short_of_memory) == (2, False), "killed by somebody: the same run goes on"
    kills = 4
    assert attempts.begin(tmp_path, "a").short_of_memory
    assert attempts.begin(tmp_path, "b").number == 1, "another call of the command begins anew"
    attempts.end(tmp_path, attempts.begin(tmp_path, "b"))
    assert attempts.begin(tmp_path, "b") is None
    (tmp_path / attempts.FILE).write_bytes(b'{"harness": 3')
    assert attempts.begin(tmp_path, "b").number == 1


def test_a_cell_that_memory_killed_goes_on_whole_where_its_batch_cannot_be_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = suite_named(small_suite(tmp_path))
    (planned,) = matrix.plan(suite, variants=("beta_tcvae",))
    places = Places(tmp_path / "board", tmp_path / "runs")
    kills = 0
    monkeypatch.setattr(attempts, "oom_kills", lambda: kills)
    attempts.begin(places.run(planned.cell), "call")
    kills = 1
    ended = matrix.run_cell(planned, places, choose("cpu"), harness="call")
    assert ended.status == "done", ended.reason
    assert ended.config["train"]["micro_batch"] is None
    assert ended.config["evaluate"]["rows"] == attempts.smaller(planned.config).evaluate.rows


# ---- workers ---------------------------------------------------------------------------------------------------------


def test_what_one_worker_saw_fail_the_next_leaves_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = matrix.plan(suite_named(small_suite(tmp_path)))
    places = Places(tmp_path / "board", tmp_path / "runs")
    tried = []

    def broken(config, *rest):
        tried.append(config.variant)
        raise ValueError(f"a planted mistake with key {os.environ['WANDB_API_KEY']}")

    monkeypatch.setenv("WANDB_API_KEY", "k" * 36)
    monkeypatch.setattr(matrix, "measure", broken)
    for _ in range(3):
        made = matrix.run_all(cells, places, matrix.compute_of("cpu", cells), harness="one call")
        assert [one.status for one in made] == ["failed", "failed"]
    assert tried == ["vae", "beta_vae"]
    matrix.run_all(cells, places, matrix.compute_of("cpu", cells), harness="the next call")
    assert tried == ["vae", "beta_vae"] * 2
    for text in (path.read_text() for path in tmp_path.rglob("*.json")):
        assert "k" * 36 not in text
    assert all("key ***" in one.reason for one in record.read_all(places.records))


def test_no_record_says_where_this_machine_keeps_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "disk of faces"
    monkeypatch.setenv("VAE_ZOO_CELEBA", str(data))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))

    def broken(*given):
        raise ValueError(f"{data}/img_align_celeba.zip cannot be read by {tmp_path}/environment/lib/reader.py")

    monkeypatch.setattr(matrix, "measure", broken)
    cells = matrix.plan(suite_named(small_suite(tmp_path)))[:1]
    (made,) = matrix.run_all(cells, Places(tmp_path / "board", tmp_path / "runs"), matrix.compute_of("cpu", cells))
    assert made.reason == "$VAE_ZOO_CELEBA/img_align_celeba.zip cannot be read by $VIRTUAL_ENV/lib/reader.py"
    assert str(tmp_path) not in "".join(made.log_tail)


def test_a_cell_whose_process_dies_again_and_again_is_failed_and_the_others_run(tmp_path: Path) -> None:
    cells = matrix.plan(suite_named(small_suite(tmp_path)))
    places = Places(tmp_path / "board", tmp_path / "runs")
    for death in range(attempts.DEATHS):
        if (child := os.fork()) == 0:
            matrix.measure = lambda *given: os._exit(9)
            matrix.run_cell(cells[0], places, choose("cpu"), harness="call")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert matrix.recorded(cells[0], places) is None, death
    made = matrix.run_all(cells, places, matrix.compute_of("cpu", cells), harness="call")
    assert [one.status for one in made] == ["failed", "done"]
    assert "died 2 times" in made[0].reason and made[0].log_tail


def test_a_cell_whose_run_is_held_by_another_is_not_one_whose_process_died(tmp_path: Path) -> None:
    cells = matrix.plan(suite_named(small_suite(tmp_path)))[:1]
    places = Places(tmp_path / "board", tmp_path / "runs")
    with runs.locked(places.run(cells[0].cell)):  # as where it is trained ahead
        for _ in range(attempts.DEATHS + 1):
            assert matrix.run_all(cells, places, matrix.compute_of("cpu", cells), harness="call") == []
    (made,) = matrix.run_all(cells, places, matrix.compute_of("cpu", cells), harness="call")
    assert made.status == "done", made.reason


def test_zoo_train_records_a_failure_and_says_one_sentence(zoo, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    words = ("train", "vae", "--data", "synthetic", "--set", "train.epochs=1", "--out", "x", *WORDS)
    words += ("--set", "evaluate.nll_samples=0", "--set", "evaluate.quality_samples=0")
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "update", lambda *given: 1 / 0)
        code, out, err = zoo(*words)
    assert code == 1 and out == ""
    assert err.strip().splitlines()[-1] == "zoo: failed: division by zero. x/record.json has the last lines."
    kept = json.loads((tmp_path / "x" / "record.json").read_text())
    assert kept["status"] == "failed" and any("ZeroDivisionError" in line for line in kept["log_tail"])
    code, _, err = zoo(*words)
    assert code == 0, err
    assert json.loads((tmp_path / "x" / "record.json").read_text())["status"] == "done"


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """`plugged(name, target)`: a variant of a package, as its entry point names it."""

    def plug(name: str, target: str) -> None:
        points = [EntryPoint(name, target, VARIANT_GROUP)]
        monkeypatch.setattr("zoo.registry.entry_points", lambda group: points if group == VARIANT_GROUP else [])
        registry.cache_clear()

    yield plug
    registry.cache_clear()


def test_a_measure_by_the_name_of_a_metric_is_refused_before_anything_is_trained(zoo, plugged, tmp_path: Path) -> None:  # noqa: F811
    plugged("posing", "tests.planted:Posing")
    said = "'elbo' of `measures` is what the harness measures itself: give it another name."
    code, out, err = zoo("train", "posing", "--data", "synthetic", "--out", "x", *WORDS)
    assert (code, out, err) == (2, "", f"zoo: {said}\n") and not list((tmp_path / "x").rglob("*.safetensors"))
    code, _, err = zoo("bench", "smoke", "--variants", "posing,vae", "--jobs", "1", *WORDS)
    made = {one.cell.variant: one for one in record.read_all(tmp_path / "leaderboard" / "records")}
    assert code == 1 and (made["posing"].status, made["posing"].reason) == ("failed", said)
    assert made["vae"].status == "done" and not list((tmp_path / "runs").rglob("posing*/*.safetensors"))


@pytest.mark.parametrize("where", ["import", "terms", "argparse"])
def test_a_module_that_exits_ends_its_own_cell_alone(zoo, plugged, tmp_path: Path, monkeypatch, where: str) -> None:  # noqa: F811
    variant = "from zoo.models.vae import VanillaVAE\n\n\nclass Leaving(VanillaVAE):\n"
    text = {
        "import": "import sys\n\nsys.exit()\n",
        "terms": "import sys\n" + variant + "    def terms(self, x, y=None):\n        sys.exit('no licence')\n",
        "argparse": "import argparse\n\nargparse.ArgumentParser().parse_args(['--no-such'])\n",
    }[where]
    name = f"leaving_by_{where}"
    (tmp_path / f"{name}.py").write_text(text)
    line = next(i for i, said in enumerate(text.splitlines(), 1) if "sys.exit(" in said or "parse_args" in said)
    monkeypatch.syspath_prepend(tmp_path)
    plugged("leaving", f"{name}:Leaving")
    said = f"{tmp_path / name}.py, line {line}: a module may not end the program, as sys.exit("
    code, _, err = zoo("train", "leaving", "--data", "synthetic", "--out", "x", *WORDS)
    assert code == 2 and err.splitlines()[-1].startswith(f"zoo: {said}")
    words = ("bench", "smoke", "--variants", "leaving,vae", "--jobs", "1", *WORDS)
    code, _, err = zoo(*words)
    assert code == 1 and said in err
    made = {one.cell.variant: one.status for one in record.read_all(tmp_path / "leaderboard" / "records")}
    assert made == {"leaving": "failed", "vae": "done"}
    code, out, _ = zoo("check", "leaving", "--json")
    assert code == 1 and said in json.loads(out)["properties"][-1]["what"]
    # The settings of a sweep are checked before anything is trained, but those of a broken class by its own cells.
    code, _, err = zoo(*words, "--sweep", "latent=2,3")
    assert code == 1 and said in err
    assert zoo("show", "leaving")[0] == 0


def test_a_module_that_exits_while_runs_are_trained_together_leaves_them_to_their_cells() -> None:
    said: list[str] = []
    with ahead.left_to_cells(said.append, "the GPU is lost"):
        raise SystemExit("no licence")
    assert said == ["they failed: no licence"]


def test_a_stop_names_the_command_that_goes_on(zoo, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    import signal

    original = trainer.Trainer.update

    def update(self, *given):
        original(self, *given)
        if self.step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(trainer.Trainer, "update", update)
    code, _, err = zoo("train", "vae", "--data", "synthetic", "--set", "train.epochs=2", "--out", "an x", *WORDS)
    assert code == 130
    said = err.strip().splitlines()[-1]
    again = re.search(r"`(zoo train vae .*--out 'an x'.*)` goes on from here", said)
    assert again, said
    assert list((tmp_path / "an x" / "checkpoints").glob("step-000000003.*"))


@pytest.mark.parametrize(("deaths", "spare", "codes"), [(1, 4, [0, 0]), (3, 4, [0, 0]), (9, 2, [-9, -9])])
def test_a_worker_that_is_killed_gets_a_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int, spare: int, codes: list[int]
) -> None:
    names = []

    def start(command: list[str], env: dict[str, str], start_new_session: bool) -> subprocess.Popen:
        names.append(env[workers.HARNESS])
        ending = "kill -KILL $$" if len(names) <= deaths else "exit 0"
        return popen(["sh", "-c", ending], start_new_session=True)

    popen = subprocess.Popen
    monkeypatch.setattr(workers.subprocess, "Popen", start)
    said: list[str] = []
    assert workers.run(["bench", "x"], 2, lambda: False, spare, said.append) == codes
    assert len(names) == 2 + len(said) == 2 + min(deaths, spare)
    assert len(set(names)) == 1, "all belong to one call of the command"
    assert all("SIGKILL" in sentence for sentence in said)
