"""The harness around the cells of a suite: what it plans, holds, says and leaves behind."""

from __future__ import annotations

import errno
import importlib
import json
import re
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from benchmarks import cli, environment, matrix, record
from benchmarks.commands import bench, exit_codes
from benchmarks.finished import Finished
from benchmarks.matrix import Places
from benchmarks.report.tables import flat
from benchmarks.suite import suite_named, suites
from tests.conftest import ROOT
from tests.faults.test_failing_cells import small_suite
from tests.test_cli import zoo  # noqa: F401 (a fixture)
from tests.test_record import plain
from zoo.errors import UsageError, ZooError
from zoo.registry import registry
from zoo.training.precision import Compute, choose
from zoo.training.trainer import Stopped

EVALUATORS = {
    *(f"benchmarks.{name}" for name in ("evaluate", "latents", "pictures")),
    *(f"benchmarks.evaluation.{path.stem}" for path in (ROOT / "benchmarks" / "evaluation").glob("[!_]*.py")),
}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "board", tmp_path / "runs")


def smoke(*sweep: str, seeds: tuple[int, ...] = (0,)) -> list[matrix.Planned]:
    return matrix.plan(suite_named("smoke"), ("vae",), ("synthetic",), seeds, {None: sweep})


def test_each_cell_is_trained_in_its_own_number_format(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.running.ahead import train_ahead

    formats = []
    monkeypatch.setattr(matrix, "run_cell", lambda planned, places, compute, *_: formats.append(compute.name))
    cells = smoke("train.precision=float32", "train.precision=bf16", seeds=(0, 1))
    bench._run(cells, places, "cpu", "disabled")
    assert formats == ["float32", "bf16"] * 2
    measured = []
    gain = lambda configs, compute: measured.append((compute.name, len(configs))) or 1.0  # noqa: E731
    train_ahead(cells, places, matrix.compute_of("cpu", cells), lambda: False, lambda said: None, gain, gain)
    assert measured == [("float32", 2)] * 2 + [("bf16", 2)] * 2


def test_a_worker_that_failed_fails_the_command_and_names_what_was_asked(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.running import workers

    cells = smoke(seeds=(0, 1))
    monkeypatch.setattr(workers, "run", lambda *_: [exit_codes.DONE, exit_codes.FAILED])
    with pytest.raises(ZooError, match="a worker process ended early"):
        bench.run_all(cells, cells, places, "cpu", "disabled", "2")
    words = ["bench", "my suite.yaml", "--jobs", "2"]
    monkeypatch.setattr(sys, "argv", ["zoo", *words, "--jobs", "1", "--worker", "0"])
    assert cli._again() == "zoo bench 'my suite.yaml' --jobs 2"


def test_a_record_names_the_code_that_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([("a" * 40, False), ("a" * 40, False), ("b" * 40, False), (None, None)])
    monkeypatch.setattr(environment, "git_state", lambda: next(states))
    monkeypatch.delenv(environment.TOLD, raising=False)
    environment.at_start.cache_clear()
    try:
        made = [environment.describe(choose("cpu")) for _ in range(3)]
        monkeypatch.setenv(environment.TOLD, environment.told()[environment.TOLD])
        environment.at_start.cache_clear()
        assert environment.at_start() == ("a" * 40, False)  # a worker's is that of whoever started it
    finally:
        environment.at_start.cache_clear()
    assert all((one["git_commit"], one["git_dirty"]) == ("a" * 40, False) for one in made)
    # A checkout that went on to another commit meanwhile is told apart from one with changes.
    assert [one.get("git_moved", False) for one in made] == [False, True, False]


def test_the_code_is_read_before_a_training_and_with_it_what_evaluates(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo import runs

    asked: set[str] = set()
    importing = importlib.import_module

    def seen(name: str):
        asked.add(name)
        return importing(name)

    def train_run(*_):
        assert environment.at_start.cache_info().currsize == 1
        # Every module that one of those that evaluate imports in a function is in the list.
        for name in EVALUATORS:
            text = (ROOT / name.replace(".", "/")).with_suffix(".py").read_text()
            found = re.findall(r"^    +from (benchmarks\.[\w.]+) import", text, re.M)
            packages = {name.rpartition(".")[0] for name in asked}
            assert set(found) <= asked | packages, name
        raise ValueError("seen")

    environment.at_start.cache_clear()
    monkeypatch.setattr(importlib, "import_module", seen)
    monkeypatch.setattr(runs, "train_run", train_run)
    assert matrix.run_cell(smoke()[0], places, choose("cpu")).reason == "seen"
    assert asked >= {f"benchmarks.{name}" for name in matrix.EVALUATION}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("shapes do not fit"), "they failed: shapes do not fit"),
        (torch.OutOfMemoryError("CUDA out of memory"), "they do not fit into memory"),
        (OSError(errno.ENOSPC, "No space left on device"), None),
        (Stopped("stopped"), None),
    ],
)
def test_what_fails_ahead_of_the_cells_is_left_to_them(
    places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, error: Exception, said: str | None
) -> None:
    from benchmarks.commands import reproduce
    from benchmarks.running.ahead import train_ahead
    from zoo.runs import together
    from zoo.training import precision

    def fails(*_):
        raise error

    cells, lines, ran = smoke(seeds=(0, 1)), [], []
    monkeypatch.setattr(together, "train_beside", fails)
    monkeypatch.setattr(precision, "choose", lambda *_: Compute(torch.device("cuda")))
    monkeypatch.setattr(matrix, "run_all", lambda cells, *_: ran.extend(cells))
    calls = (
        lambda: train_ahead(cells, places, matrix.compute_of("cpu", cells), lambda: False, lines.append, fails, fails),
        lambda: reproduce._run(cells, places, "cuda", "disabled"),
    )
    for call in calls:
        if said is None:
            with pytest.raises(type(error)):
                call()
        else:
            call()
    if said:
        assert lines[-1].endswith(f"one by one; together {said}") and ran == cells
        assert f"now one by one; beside each other {said}" in capsys.readouterr().err


def test_a_gpu_that_is_lost_ahead_is_left_to_another_process(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.commands import reproduce
    from benchmarks.running import ahead, workers
    from zoo.runs import together
    from zoo.training import precision

    def fails(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    started = []
    train = ahead.train_ahead
    monkeypatch.setattr(ahead, "train_ahead", lambda *given: train(*given, fails, fails))
    monkeypatch.setattr(precision, "choose", lambda *_: Compute(torch.device("cuda")))
    monkeypatch.setattr(workers, "run", lambda arguments, count, *_: started.append(count) or [0] * count)
    cells, ran = smoke(seeds=(0, 1)), []
    bench.run_all(cells, cells, places, "cuda", "disabled", "1")
    assert started == [1]
    # A command without workers ends, and blames no cell.
    monkeypatch.setattr(together, "train_beside", fails)
    monkeypatch.setattr(matrix, "run_all", lambda cells, *_: ran.extend(cells))
    with pytest.raises(matrix.DeviceLost, match="the same command goes on"):
        reproduce._run(cells, places, "cuda", "disabled")
    assert not ran


def test_a_seed_that_is_given_twice_is_one_cell(zoo) -> None:  # noqa: F811
    plan = ("bench", "smoke", "--variants", "vae", "--datasets", "synthetic", "--seed", "0", "--plan")
    assert zoo(*plan, "--seed", "0")[1] == zoo(*plan)[1]
    plan = ("reproduce", "m2_100_labels", "--seed", "3", "--plan")
    assert zoo(*plan, "--seed", "3")[1] == zoo(*plan)[1] == "zoo reproduce m2_100_labels --seed 3\n"


def test_a_planned_command_of_a_suite_in_a_file_goes_where_the_plan_would(zoo, tmp_path: Path) -> None:  # noqa: F811
    path = small_suite(tmp_path)
    rest = ["--board", "a board", "--runs", "elsewhere", "--device", "cpu", "--wandb", "disabled"]
    code, out, _ = zoo("bench", path, "--plan", *rest)
    first, second = (shlex.split(line) for line in out.splitlines())
    assert (code, first[:3]) == (0, ["zoo", "bench", path]) and sorted(rest) == sorted(first[-8:])
    assert zoo(*first[1:], "--plan")[1].splitlines() == [out.splitlines()[0]]
    assert json.loads(zoo("bench", path, "--plan", "--json", *rest)[1])[1]["command"] == shlex.join(second)
    assert zoo("reproduce", "m2_100_labels", "--seed", "3", "--plan", "--runs", "r")[1].endswith("--seed 3 --runs r\n")
    (cell, _) = matrix.plan(suite_named(path))
    assert cell.command.startswith(shlex.join(["zoo", "bench", path]) + " --variants")


def test_a_planned_command_finds_a_folder_that_has_a_comma_in_its_name(zoo, tmp_path: Path) -> None:  # noqa: F811
    folders = tmp_path / "cats, old", tmp_path / "cats"
    path = tmp_path / "mine.yaml"
    path.write_text(
        "schema: 1\nname: mine\nversion: '1'\ntitle: mine\nvariants: [vae]\n"
        f"datasets: {json.dumps([f'folder:{folder}' for folder in folders])}\n"
    )
    cells = matrix.plan(suite_named(str(path)))
    assert [cell.config.data.options["root"] for cell in cells] == [str(folder) for folder in folders]
    for cell in cells:
        assert zoo(*shlex.split(cell.command)[1:], "--plan")[1] == f"{cell.command}\n"


def test_an_override_is_of_a_variant_however_its_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    head = "schema: 1\nname: mine\nversion: '1'\ntitle: mine\ndatasets: [synthetic]\nvariants: [beta_vae]\n"
    head += "seeds: [0]\noverrides:\n"
    for written in ("beta_vae", "beta-vae", "Beta_VAE"):
        path.write_text(f"{head}  {written}: {{model: {{beta: 1.5}}}}\n")
        (cell,) = matrix.plan(suite_named(str(path)))
        assert cell.config.model["beta"] == 1.5
    path.write_text(f"{head}  beta_vea: {{model: {{beta: 1.5}}}}\n")
    with pytest.raises(UsageError, match="no variant 'beta_vea'. Did you mean 'beta_vae'"):
        suite_named(str(path))
    path.write_text(f"{head}  beta_vae: {{}}\n  beta-vae: {{}}\n")
    with pytest.raises(UsageError, match="overrides has beta_vae more than once"):
        suite_named(str(path))


@pytest.mark.parametrize("name", suites())
def test_what_a_suite_says_of_contested_settings_is_what_its_cells_have(name: str) -> None:
    suite, told = suites()[name], suites()[name].contested()
    for variant in suite.variants:
        entry = registry().variants[variant]
        config = suite.config(variant, suite.datasets[0], 0).model_dump(mode="json")
        has = {f"{part}.{key}": value for part in ("train", "model") for key, value in flat(config[part])}
        own = dict(flat({"train": entry.train, "model": entry.settings}))
        for path, text in told.get(variant, {}).items():
            holds = re.match(r"(.+?), (its own|the suite's)", text)
            assert has[path] == yaml.safe_load(holds[1]), (path, text)
            own.pop(path)
        assert all(has[path] == value for path, value in own.items() if value != {}), "what nobody contests is its own"


def test_five_times_the_passes_are_all_that_sets_two_suites_apart() -> None:
    short, long = ([dict(flat(one.config.model_dump())) for one in matrix.plan(suite_named(name))]
                   for name in ("mnist", "mnist_5x"))  # fmt: skip
    assert len(short) == 24
    for ours, theirs in zip(short, long, strict=True):
        assert theirs == ours | {"train.epochs": 5 * ours["train.epochs"]}


def test_a_variant_s_own_training_lies_over_a_suite_s_defaults_and_its_model_below(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "schema: 1\nname: mine\nversion: '1'\ntitle: mine\ndatasets: [synthetic]\n"
        "variants: [joint_vae, ladder_vae, vae]\noverrides: {ladder_vae: {train: {warmup: 4}}}\n"
        "defaults: {train: {warmup: 1, batch_size: 8}, model: {latent: 3}}\n"
    )
    suite = suite_named(str(path))
    joint, ladder, vae = (suite.config(variant, "synthetic", 0) for variant in suite.variants)
    assert (joint.train.warmup, joint.train.batch_size, joint.model["latent"]) == (10, 8, 3)
    assert (ladder.train.warmup, ladder.train.batch_size, vae.train.warmup) == (4, 256, 1)
    assert suite.contested() == {
        "joint_vae": {
            "train.warmup": "10, its own; the suite's default is 1",
            "model.latent": "3, the suite's default; its own is 10",
        },
        "ladder_vae": {
            "train.batch_size": "256, its own; the suite's default is 8",
            "train.warmup": "4, the suite's override; its own is 2, the suite's default is 1",
            "model.latent": "3, the suite's default; its own is 64",
        },
        "vae": {"model.latent": "3, the suite's default; its own is 32"},
    }


def test_a_suite_and_its_plan_say_which_value_holds(zoo) -> None:  # noqa: F811
    told = json.loads(zoo("show", "family", "--json")[1])["which_value_holds"]
    assert told["joint_vae"] == {"train.warmup": "10, its own; the suite's default is 2"}
    for name, suite in suites().items():
        shown = json.loads(zoo("show", name, "--json")[1])
        (found,) = (one for one in (shown, *shown.get("also", ())) if one["kind"] == "suite")
        assert found.get("which_value_holds", {}) == suite.contested(), name
    assert "which_value_holds" in zoo("show", "quick")[1]
    (cell,) = json.loads(zoo("bench", "family", "--variants", "joint_vae", "--seed", "1", "--plan", "--json")[1])
    assert cell["config"] == suites()["family"].config("joint_vae", "mnist", 1).model_dump(mode="json")
    assert cell["config"]["train"]["warmup"] == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sweep", "train.compile=true,false"), "is the same cell as"),
        (("--variants", "vae", "--sweep", "latent=4,4.0"), "is the same cell as"),
        (("--variants", "vae,VAE"), "is the same cell as"),
        (("--sweep", "data.name=mnist,synthetic"), "'data.name' is not a setting"),
        (("--variants", ""), "--variants names nothing"),
        (("--variants", "vae", "--datasets", ","), "--datasets names nothing"),
    ],
)
def test_a_plan_that_is_no_matrix_is_refused(zoo, words: tuple[str, ...], said: str) -> None:  # noqa: F811
    code, out, err = zoo("bench", "smoke", "--plan", *words)
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1


def test_a_record_that_is_not_understood_is_not_overwritten(places: Places) -> None:
    (planned,) = smoke()
    path = record.path_of(planned.cell, places.records)
    path.parent.mkdir(parents=True)
    for text in ('{"schema": 99}', "[]"):
        path.write_text(text)
        with pytest.raises(ZooError, match="update it|is not a record"):
            matrix.run_all([planned], places, matrix.compute_of("cpu", [planned]))
        assert path.read_text() == text
    for text in ("", '{"schema": 2', "\x00"):
        path.write_text(text)
        assert matrix.recorded(planned, places) is None
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        matrix.recorded(planned, places)


def test_one_page_is_written_after_the_other(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.commands.reproduce import write_page
    from benchmarks.report import markdown
    from benchmarks.report.html import page

    reading, most = [], []

    def read_all(folder, read=record.read_all):
        reading.append(folder)
        most.append(len(reading))
        time.sleep(0.05)
        reading.pop()
        return read(folder)

    monkeypatch.setattr(record, "read_all", read_all)
    monkeypatch.setattr(markdown, "board", lambda *_: "")
    monkeypatch.setattr(page, "page", lambda *_: "")
    for write in (lambda: matrix.write_board(places), lambda: write_page(places.board, places)):
        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1] * 8
    assert (places.board / "README.md").exists() and (places.board / "REPRODUCTION.md").exists()


def test_a_bench_that_is_stopped_leaves_the_board_of_what_is_done(
    zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    run_cell = matrix.run_cell

    def stops(planned, *rest):
        if planned.config.seed == 1:
            raise Stopped("stopped at the user's request")
        return run_cell(planned, *rest)

    monkeypatch.setattr(matrix, "run_cell", stops)
    words = ("bench", small_suite(tmp_path), "--variants", "vae", "--seeds", "2", "--jobs", "1", "--device", "cpu")
    code, _, err = zoo(*words, "--wandb", "disabled")
    assert code == exit_codes.INTERRUPTED and "goes on from here" in err
    assert "[vae]" in (tmp_path / "leaderboard" / "README.md").read_text()
    assert (tmp_path / "leaderboard" / "index.html").exists()


@pytest.mark.parametrize("command", ["bench", "train"])
def test_what_whoever_wrote_a_record_left_of_the_evaluation_goes_when_the_finished_run_is_met(
    zoo, tmp_path: Path, command: str  # noqa: F811
) -> None:
    from zoo.runs.folder import CELL_LOCK, MODEL, locked

    few = ("train.epochs=0", "evaluate.nll_samples=0", "evaluate.quality_samples=0")
    words = {
        "bench": ["bench", small_suite(tmp_path), "--variants", "vae", "--seeds", "1", "--jobs", "1"],
        "train": ["train", "vae", "--data", "synthetic", *(word for text in few for word in ("--set", text))],
    }[command] + ["--device", "cpu", "--wandb", "disabled"]
    assert zoo(*words)[0] == exit_codes.DONE
    (model,) = (tmp_path / "runs").rglob(MODEL)
    kept = model.parent / record.KEPT
    assert not kept.exists()
    kept.mkdir()  # as it is between the record and its removal, where a process may be killed
    (kept / "values.safetensors").write_bytes(b"of a bound")
    with locked(kept.parent, CELL_LOCK):  # as somebody holds it who evaluates there for another board
        assert zoo(*words)[0] == exit_codes.DONE and kept.exists()
    assert zoo(*words)[0] == exit_codes.DONE and not kept.exists()


def test_measure_leaves_a_cell_to_whoever_holds_it(zoo, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from benchmarks.running import amend
    from zoo.runs.folder import Busy

    seen = []

    def measured(planned, *_):
        seen.append(planned.config.seed)
        if planned.config.seed == 0:
            raise Busy("another process is at work in runs.")
        return record.parse(plain())

    monkeypatch.setattr(amend, "amend", measured)
    code, out, err = zoo("measure", "smoke", "fid", "--variants", "vae", "--seed", "0", "--seed", "1", "--json")
    assert (code, seen, len(json.loads(out))) == (0, [0, 1], 1) and "left out: another process" in err


@pytest.mark.parametrize(
    "words",
    [
        ("leaderboard", "--board", "FILE"),
        ("reproduce", "--board", "FILE/below"),
        ("bench", "smoke", "--plan", "--runs", "FILE"),
        ("bench", "smoke", "--plan", "--gpus-per-cell", "nan"),
        ("bench", "smoke", "--jobs", "9" * 5000),
        ("train", "vae", "--out", "FILE/run"),
        ("export", "run", "FILE"),
        ("sample", "run", "--out", "FILE/a.png"),
        ("evaluate", "run", "--out", "FILE/a.json"),
        ("evaluate", "run", "--out", "a.png"),
        ("sample", "run", "--temperature", "nan"),
        ("traverse", "run", "--out", "a.png"),
        ("interpolate", "run", "--out", "a.jpg"),
    ],
)
def test_where_things_cannot_go_is_said_first(zoo, tmp_path: Path, words: tuple[str, ...]) -> None:  # noqa: F811
    (tmp_path / "FILE").write_text("mine")
    (tmp_path / "a.png").mkdir()
    code, _, err = zoo(*words)
    assert code == 2 and len(err.splitlines()) == 1
    known = ("FILE is no folder", "is no finite number", "is no PNG", "is no JSON", "--jobs is auto")
    assert any(said in err for said in known)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FILE", "a.png"]


@pytest.mark.parametrize(
    "words",
    [
        ("train", "vae", "--data", "synthetic", "--out", ""),
        ("train", "vae", "--data", "folder:"),
        ("bench", "smoke", "--datasets", "folder:", "--plan"),
        ("bench", "smoke", "--plan", "--runs", ""),
        ("leaderboard", "--board", ""),
        ("new", "half_vae", "--plugin", ""),
        ("sample", ""),
        ("sample", "run", "--out", ""),
        ("evaluate", ""),
        ("evaluate", "run", "--out", ""),
        ("export", "", "given"),
        ("export", "run", ""),
        ("score", ""),
        ("fid", "", "b"),
        ("fid", "a", ""),
    ],
)
def test_an_empty_path_is_not_the_current_folder(zoo, tmp_path: Path, words: tuple[str, ...]) -> None:  # noqa: F811
    code, out, err = zoo(*words)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert "an empty text is no path" in err or "'folder:' names no folder" in err
    assert not list(tmp_path.iterdir())


def test_show_shows_everything_of_that_name(zoo) -> None:  # noqa: F811
    found = json.loads(zoo("show", "mnist", "--json")[1])
    assert (found["kind"], [one["kind"] for one in found["also"]]) == ("dataset", ["suite"])
    assert found["also"][0]["variants"] and "also" not in json.loads(zoo("show", "vae", "--json")[1])


@pytest.mark.parametrize("asked", ["²", "9" * 5000, "10"])
def test_a_class_that_there_is_not_is_refused(asked: str) -> None:
    finished = object.__new__(Finished)
    finished.described = SimpleNamespace(spec=SimpleNamespace(classes=10), classes=tuple("abcdefghij"))
    with pytest.raises(UsageError, match="no class"):
        finished._class(asked)
    assert (finished._class("9"), finished._class("b")) == (9, 1)


def test_an_export_that_was_killed_is_given_again(zoo, tmp_path: Path) -> None:  # noqa: F811
    words = ("--data", "synthetic", "--set", "train.epochs=0", "--set", "evaluate.quality_samples=0")
    assert zoo("train", "vae", *words, "--out", "run", "--wandb", "disabled", "--device", "cpu")[0] == 0
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / ".model.safetensors.abc.part").write_bytes(b"half")
    assert zoo("export", "run", "given")[0] == 0
    assert {path.name for path in (tmp_path / "given").iterdir()} == {"model.safetensors", "config.json", "README.md"}


def test_wandb_is_told_what_the_record_says_at_its_steps(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.report import wandb
    from benchmarks.running.watch import watching

    rows, pictures, summaries = {}, {}, []
    monkeypatch.setattr(wandb.Observer, "start", lambda *_, **__: None)
    monkeypatch.setattr(wandb.Observer, "log", lambda self, step, values: rows.update({step: values}))
    monkeypatch.setattr(wandb.Observer, "images", lambda self, step, name, _: pictures.update({name: step}))
    monkeypatch.setattr(wandb.Observer, "finish", lambda self, metrics, failed=False: summaries.append(metrics))
    (planned,) = smoke("train.epochs=3")
    made = matrix.run_cell(planned, places, choose("cpu"), watching("offline", places))
    each = made.train.steps // 3
    assert list(rows) == [each, 2 * each, 3 * each]
    assert [*rows.values()] == [dict(zip(made.curves, point)) for point in zip(*made.curves.values())]
    assert pictures == dict.fromkeys(made.figures, 3 * each)
    assert summaries == [{name: metric.value for name, metric in made.metrics.items()}]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_wandb_is_told_the_same_of_a_run_that_was_trained_before(
    places: Places, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    from benchmarks.report import wandb
    from benchmarks.running.watch import watching

    told: list[dict[int, dict[str, float]]] = []
    monkeypatch.setattr(wandb.Observer, "start", lambda *_, **__: told.append({}))
    monkeypatch.setattr(wandb.Observer, "log", lambda self, step, values: told[-1].update({step: values}))
    monkeypatch.setattr(wandb.Observer, "images", lambda *_: None)
    monkeypatch.setattr(wandb.Observer, "finish", lambda *_, **__: None)
    (planned,) = smoke("train.epochs=4")
    train = planned.config.train.model_copy(update={"validate_every": every})
    planned = replace(planned, config=planned.config.model_copy(update={"train": train}))
    for _ in range(2):
        matrix.run_cell(planned, places, choose("cpu"), watching("offline", places))
        record.path_of(planned.cell, places.records).unlink()
    assert len(told[0]) == 4 and told[0] == told[1]


def test_one_configuration_in_two_suites_is_two_runs_of_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.report import wandb
    from benchmarks.running.watch import Watchers

    started = []
    monkeypatch.setattr(wandb.Observer, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(wandb.Observer, "start", lambda self, config, **said: started.append(said))
    cell = smoke()[0]
    for group in ("smoke@1", "smoke@1", "mine@1"):
        Watchers("offline", cell.config, tmp_path, cell.cell.stem, group)
    ids = [said["run_id"] for said in started]
    assert ids[0] == ids[1] != ids[2] and {said["name"] for said in started} == {cell.cell.stem}


def test_an_outcome_that_was_not_written_is_not_that_of_an_older_record(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    (planned,) = smoke()
    outcome = {"status": "failed", "reason": "it broke", "log_tail": []}
    tried = []
    monkeypatch.setattr(matrix, "outcome_of", lambda *_: tried.append(1) or (outcome, False))
    old = matrix.run_cell(planned, places, choose("cpu"), harness="before")
    path = record.path_of(planned.cell, places.records)
    path.write_text(record.dump(old.model_copy(update={"when": "2026-01-01T00:00:00+00:00"})))
    with monkeypatch.context() as killed:
        killed.setattr(record, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            matrix.run_cell(planned, places, choose("cpu"), harness="call")
    again = matrix.run_cell(planned, places, choose("cpu"), harness="call")
    assert again.when > "2026-01-02" and len(tried) == 3
    matrix.run_cell(planned, places, choose("cpu"), harness="call")
    assert len(tried) == 3, "and then its record is there"


def test_on_gpu_writes_where_it_was_called(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "on_gpu.sh"
    done = subprocess.run(["bash", script, "out", "0"], cwd=tmp_path, capture_output=True, text=True)
    assert "no time was left" in done.stdout and (tmp_path / "out").is_dir() and not (ROOT / "out").exists()
