"""The command: what it prints, what it refuses and with which exit code. Run in process where that is enough."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import click
import pytest
import torch
from threadpoolctl import threadpool_limits

from benchmarks import cli, per_example, record
from benchmarks.catalogue import listed
from benchmarks.running import amend, workers
from tests.conftest import ROOT
from tests.faults.children import fork, wait
from zoo.data.fetch import Asset
from zoo.errors import ZooError
from zoo.models.beta_vae import BetaVAE
from zoo.registry import VariantEntry, registry
from zoo.training.compiled import has_compiler

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `zoo WORDS`."""
    monkeypatch.setattr(sys, "argv", ["zoo", *words])
    try:
        cli.main()
        code = 0
    except SystemExit as stopped:
        code = stopped.code or 0
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path):
    """`zoo(*words) -> (code, out, err)` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: call(monkeypatch, capsys, *words)


@pytest.mark.parametrize("what", ["variants", "datasets", "suites", "metrics"])
def test_listings_are_tables_and_json_of_the_same(zoo, what: str) -> None:
    code, out, _ = zoo("list", what)
    assert code == 0
    _, as_json, _ = zoo("list", what, "--json")
    rows = json.loads(as_json)
    assert len(rows) >= 2
    assert all(row["name"] in out for row in rows)
    assert max(map(len, out.splitlines())) <= 80


def test_show_knows_every_name(zoo) -> None:
    for what in ("variants", "datasets", "suites", "metrics"):
        for row in json.loads(zoo("list", what, "--json")[1]):
            code, out, _ = zoo("show", row["name"], "--json")
            assert code == 0 and json.loads(out)["name"] == row["name"]
    assert zoo("show", "beta-vae")[1] == zoo("show", "beta_vae")[1]


def test_a_published_number_is_shown_without_what_nobody_knows_of_it(zoo) -> None:
    (without,), (given, *_) = (json.loads(zoo("show", name, "--json")[1])["published"] for name in ("vae", "svae"))
    assert given["stderr"] == 0.31 and "stderr" not in without and None not in without.values()
    assert "null" not in zoo("show", "vae")[1] and "changed: null" in zoo("show", "ada_vae")[1]
    for recorded, name in (
        ("nll_iwae_64", "nll_iwae_K"), ("nll_iwae_64_all", "nll_iwae_K_all"),
        ("auroc_fashion-mnist", "auroc_OUTLIERS"), ("auroc_nll_fashion_mnist", "auroc_nll_OUTLIERS"),
    ):  # fmt: skip
        assert json.loads(zoo("show", recorded, "--json")[1])["name"] == name


def test_show_says_what_a_variant_s_settings_do(zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(zoo("show", "beta_vae", "--json")[1])["what_settings_do"]
    field = BetaVAE.Settings.model_fields["beta"]
    assert told["beta"].startswith(field.description) and "default 4.0" in told["beta"]
    told = json.loads(zoo("show", "vq_vae", "--json")[1])["what_settings_do"]
    assert told["channels"].endswith("(default [16, 32])")
    assert told["quantiser"].startswith("has settings of its own, as --set quantiser.name=vq: name, codes, ")
    broken = VariantEntry(target="zoo.nowhere:Mine", title="Mine", origin="somebody's 1.0")
    found = registry().model_copy(update={"variants": {"mine": broken}})
    monkeypatch.setattr("zoo.registry.registry", lambda: found)
    code, out, _ = zoo("show", "mine", "--json")
    assert code == 0 and json.loads(out)["origin"] == "somebody's 1.0"
    assert "there is no module 'zoo.nowhere'" in json.loads(out)["what_settings_do"]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "mnist_strokes", "cifar10"])
def test_what_a_data_set_would_fetch_is_fetched_by_its_name(zoo, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked: list[str] = []

    def fetch(asset: str) -> None:
        asked.append(asset)
        raise ZooError("no network.")

    monkeypatch.setattr("zoo.data.fetch.fetch", fetch)
    with pytest.raises(ZooError, match="no network"):
        registry().datasets[name].load()()
    assert zoo("fetch", name)[0] == 1
    assert len(asked) == 2 and asked[0] == asked[1]


def test_of_data_that_nobody_fetches_it_is_said_where_they_come_from(zoo) -> None:
    code, out, _ = zoo("fetch", "celeba", "mnist-static", "folder", "synthetic")
    celeba, bits, folder, synthetic = out.splitlines()
    assert code == 0 and celeba.startswith("celeba: nothing to fetch. ") and "own copy ($VAE_ZOO_CELEBA)" in celeba
    assert bits.startswith("mnist_static: nothing to fetch. ") and "own copy ($VAE_ZOO_STATIC_MNIST)" in bits
    assert "--data folder:PATH" in folder and "nothing is downloaded" in synthetic


@pytest.mark.parametrize("size", ["2", "two"])
def test_a_suite_is_refused_under_torchrun(zoo, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    code, _, said = zoo("bench", "smoke")
    assert code == 2 and said.startswith("zoo: ") and "there is only `zoo train`" in said


@pytest.mark.parametrize(
    ("target", "settings", "said"),
    [
        ("zoo.models.vae:VanillaVAE", {"latnet": 8}, "no setting 'latnet'. Did you mean 'latent'? Known here: "),
        ("tests.planted:Untyped", {}, "the Settings of 'tests.planted:Untyped' name the type 'Nothing', and there is"),
    ],
)
def test_show_says_in_words_why_settings_are_none(
    zoo, monkeypatch: pytest.MonkeyPatch, target: str, settings: dict, said: str
) -> None:
    broken = VariantEntry(target=target, title="Mine", settings=settings)
    monkeypatch.setattr("zoo.registry.registry", lambda: registry().model_copy(update={"variants": {"mine": broken}}))
    code, out, _ = zoo("show", "mine", "--json")
    told = json.loads(out)["what_settings_do"]
    assert code == 0 and told.startswith(f"its class cannot be asked: {said}") and "pydantic" not in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "beta-vea"), "no variant 'beta-vea'. Did you mean 'beta_vae'? `zoo list` shows all."),
        (("train", "vae", "--data", "mnits"), "no dataset 'mnits'. Did you mean 'mnist'? `zoo list datasets`"),
        (("bench", "quik"), "no suite 'quik'. Did you mean 'quick'? `zoo list suites` shows all."),
        (("bench", "quick", "--variants", "vqvae"), "no variant 'vqvae'."),
        (("train", "vae", "--set", "train.epoch=1"), "no setting 'train.epoch'. Did you mean 'epochs'?"),
        (("train", "vae", "--set", "train.epochs=many"), "setting 'train.epochs': input should be a valid integer"),
        (("train", "vae", "--data", "synthetic", "--set", "beta=4"), "no setting 'beta'."),
        (("train", "vae", "--set", "train.epochs"), "a setting reads path=value"),
        (("train", "vae", "--seed", "-1"), "'--seed'"),
        (("train", "vae", "--seed", "1e3"), "'1e3' is not a valid whole number. `zoo train --help` shows how."),
        (("sample", "run", "--temperature", "warm"), "'warm' is not a valid number. `zoo sample --help` shows how."),
        (("train", "vae", "--plan"), "? `zoo train --help` shows how."),  # click asks whether another was meant
        (("bench", "smoke", "--seeds", "99999999999"), "99999999999 is not in the range 1<=x<=10000. `zoo bench"),
        (("choose", "smoke", "--seeds", "99999999999"), "99999999999 is not in the range 1<=x<=10000. `zoo choose"),
        (("train", "vae", "--device", "tpu"), "no device 'tpu'."),
        (("bench", "quick", "--seeds", "2", "--seed", "1"), "give --seeds N or --seed K, not both."),
        (("bench", "smoke", "--jobs", "0"), "--jobs is auto or a number from 1, not '0'."),
        (("bench", "smoke", "--address", "a:1"), "--address is of a Ray cluster: give --on ray with it."),
        (("bench", "smoke", "--gpus-per-cell", "1"), "--gpus-per-cell is of a Ray cluster: give --on ray with it."),
        (("list", "variant-s"), "no listing"),
        (("fetch", "imagenet"), "no asset 'imagenet'."),
        (("leaderboard",), "leaderboard/records holds no records. `zoo bench quick` makes some."),
        (("compare", "vae", "cvae", "--board", "x"), "x/records holds no records. `zoo bench quick` makes some."),
        (("spread", "quick", "--board", "x"), "x/records holds no records. `zoo bench quick` makes some."),
        (("frobnicate",), "frobnicate"),
        (("bench", "nothing.yaml"), "nothing.yaml: cannot be read"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(zoo, words: tuple[str, ...], said: str) -> None:
    code, out, err = zoo(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("zoo: ") and len(err.splitlines()) == 1
    assert err.endswith((".\n", "?\n")) and ".." not in err and "?." not in err


@pytest.mark.parametrize("command", sorted(cli.zoo.commands))
def test_an_option_that_is_hidden_is_suggested_to_nobody(zoo, command: str) -> None:
    options = [option for option in cli.zoo.commands[command].params if isinstance(option, click.Option)]
    for option in options:
        name = max(option.opts, key=len)
        code, out, err = zoo(command, f"{name}x")
        assert (code, out) == (2, "") and f"No such option '{name}x'." in err
        near = re.search(r"Did you mean (.*)\?", err)
        suggested = set(re.findall(r"--[a-z-]+", near[1])) if near else set()
        assert (name in suggested) != option.hidden
        assert not suggested & {hidden for other in options if other.hidden for hidden in other.opts}


def test_what_is_said_ends_as_a_sentence_does(zoo, tmp_path: Path) -> None:
    import numpy as np

    np.savez("a.npz", z_train=np.zeros((3, 2)), factors_train=np.zeros((2, 2)), z_test=[[0.0]], factors_test=[[0]])
    assert zoo("score", "a.npz") == (2, "", "zoo: z_train has 3 rows but factors_train has 2.\n")


def test_without_a_command_there_is_the_help_and_no_error(zoo) -> None:
    assert zoo() == zoo("--help")
    code, out, err = zoo()
    assert (code, err) == (0, "") and "zoo bench quick" in out and "Commands:" in out


def test_each_command_and_each_option_has_a_sentence_of_help(zoo) -> None:
    for name, command in cli.zoo.commands.items():
        assert re.match(r"[A-Z].*\.$", command.help.strip(), re.S), name
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                said = re.sub(r" ?\[default: [^\]]+\]$", "", option.help or "")
                assert re.match(r"\W*[a-zA-Z].*\.$", said, re.S), (name, option.opts, said)


def test_the_help_counts_the_variants_of_quick(zoo) -> None:
    from benchmarks.suite import suite_named

    assert len(suite_named("quick").variants) == 8 and suite_named("quick").datasets == ("mnist",)
    assert "zoo bench quick            eight variants on MNIST" in zoo("--help")[1]


def test_a_terminal_without_our_signs_is_shown_the_rest(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.cli", "list", "metrics"]

    def said(encoding: str) -> str:
        env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, encoding=encoding)
        assert done.returncode == 0, done.stderr
        return done.stdout

    full = said("utf-8")
    assert "…" in full and said("latin-1") == full.replace("…", "?")


@pytest.mark.parametrize("words", [("bench", "mnist", "--plan"), ("list", "metrics"), ("bench", "--help"), ("--help",)])
def test_a_reader_that_goes_away_ends_the_command_without_a_word(words: tuple[str, ...], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "benchmarks.cli", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_a_plan_is_commands_and_runs_nothing(zoo, tmp_path: Path) -> None:
    code, out, _ = zoo("bench", "smoke", "--plan", "--seeds", "2", "--variants", "vae,cvae")
    assert code == 0
    assert out.splitlines() == [
        f"zoo bench smoke --variants {variant} --datasets synthetic --seed {seed}"
        for seed in (0, 1)
        for variant in ("vae", "cvae")
    ]
    assert not list(tmp_path.iterdir())


def test_a_sweep_is_a_cell_a_value_and_a_row_that_says_so(zoo, tmp_path: Path) -> None:
    words = ("bench", "smoke", "--variants", "beta_vae", "--sweep", "beta=1,8")
    code, out, _ = zoo(*words, "--plan")
    assert (code, out.splitlines()) == (
        0, [f"zoo bench smoke --variants beta_vae --datasets synthetic --seed 0 --sweep beta={beta}" for beta in (1, 8)]
    )  # fmt: skip
    assert zoo(*words, "--wandb", "disabled", "--jobs", "1")[0] == 0
    made = [json.loads(path.read_text()) for path in (tmp_path / "leaderboard" / "records").rglob("*.json")]
    rates = {record["config"]["model"]["beta"]: record["metrics"]["rate"]["value"] for record in made}
    assert rates.keys() == {1, 8} and rates[8] < rates[1]
    board = (tmp_path / "leaderboard" / "README.md").read_text()
    assert "beta_vae (beta=1)" in board and "beta_vae (beta=8)" in board
    assert zoo(*words, "--plan", "--missing")[1] == ""


def test_a_suite_with_a_sweep_has_a_cell_a_value() -> None:
    from benchmarks.matrix import plan
    from benchmarks.suite import suite_named

    suite = suite_named("importance")
    assert [planned.config.model["k"] for planned in plan(suite)] == [1, 5, 50]
    assert [planned.config.model["k"] for planned in plan(suite, sweeps={None: ("k=7",)})] == [7]
    assert {planned.command.rsplit(" ", 1)[1] for planned in plan(suite)} == {"k=1", "k=5", "k=50"}


def test_a_bench_makes_records_and_a_board_and_does_nothing_twice(zoo, tmp_path: Path) -> None:
    words = ("bench", "smoke", "--variants", "vae,cvae", "--wandb", "disabled", "--jobs", "1")
    code, out, err = zoo(*words)
    assert code == 0, err
    assert "vae" in out and "cvae" in out
    records = sorted((tmp_path / "leaderboard" / "records").rglob("*.json"))
    assert len(records) == 2
    board = (tmp_path / "leaderboard" / "README.md").read_text()
    for path in records:
        made = json.loads(path.read_text())
        assert made["status"] == "done"
        assert made["metrics"]["elbo"]["value"] == pytest.approx(
            -made["metrics"]["rate"]["value"] - made["metrics"]["distortion"]["value"]
        )
        assert all(listed(name) for name in made["metrics"]), made["metrics"].keys()
        each = per_example.read(record.read(path), tmp_path / "leaderboard" / "records")
        assert set(each) == {"elbo", *(name for name in made["metrics"] if name.startswith("nll"))}
        assert set(made["figures"]) == {"samples", "reconstructions", "traversals", "interpolations", "pca"}
        for name, picture in made["figures"].items():
            assert (tmp_path / "leaderboard" / picture).stat().st_size > 100
            assert name != "samples" or picture in board
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in (".json", ".md")}
    assert zoo(*words)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert zoo("bench", "smoke", "--variants", "vae,cvae", "--plan", "--missing")[1] == ""
    assert zoo("leaderboard")[0] == 0
    assert (tmp_path / "leaderboard" / "README.md").read_text() == board


def test_a_dear_metric_is_added_to_a_finished_cell(zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.metrics import extractors

    class Crossed(extractors.Extractor):  # eight features in place of Inception's, and as slow to come by
        name, dimensions, calls = "inception", 8, 0

        def __init__(self, device) -> None:
            super().__init__(torch.nn.Identity(), {}, device)

        def features(self, images):
            type(self).calls += 1
            return torch.nn.functional.adaptive_avg_pool2d(images.float(), (2, 4)).flatten(1)

    monkeypatch.setitem(extractors.EXTRACTORS, "inception", Crossed)
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path / "cache"))
    code, _, err = zoo("measure", "smoke", "fid", "--variants", "vae")
    assert code == 2 and "not done yet" in err
    assert zoo("bench", "smoke", "--variants", "vae", "--wandb", "disabled", "--jobs", "1")[0] == 0
    (path,) = (tmp_path / "leaderboard" / "records").rglob("*.json")
    before = json.loads(path.read_text())
    assert "fid" in before["skipped"] and not Crossed.calls
    code, _, err = zoo("measure", "smoke", "fid", "--variants", "vae", "--runs", "elsewhere")
    assert code == 2 and "elsewhere" in err
    assert zoo("measure", "smoke", "fid", "--variants", "vae")[0] == 0
    after = json.loads(path.read_text())
    assert after["metrics"]["fid"]["value"] > 0 and "zoo measure smoke fid" in after["metrics"]["fid"]["note"]
    assert "fid" not in after["skipped"] and Crossed.calls
    added = after["metrics"].keys() - before["metrics"].keys()
    assert added == {"fid", "kid", "precision", "recall", "density", "coverage"}
    for made in (before, after):
        made["skipped"].pop("fid", None)
        made["metrics"] = {name: made["metrics"][name] for name in before["metrics"]}
    assert before == after
    calls, written = Crossed.calls, path.stat().st_mtime_ns
    assert zoo("measure", "smoke", "fid", "--variants", "vae")[0] == 0
    assert (calls, written) == (Crossed.calls, path.stat().st_mtime_ns)
    assert zoo("measure", "smoke", "fid_ex_post", "--variants", "vae")[0] == 0
    more = json.loads(path.read_text())
    assert more["metrics"].keys() == after["metrics"].keys() | {"fid", *added, "fid_ex_post", "fd_digits_ex_post"}
    assert "zoo measure smoke fid_ex_post" in more["metrics"]["fid_ex_post"]["note"]
    code, _, err = zoo("measure", "smoke", "fd_digits")
    assert code == 2 and "no metric to add 'fd_digits'" in err


def test_the_codes_of_a_finished_cell_are_measured_and_drawn(zoo, tmp_path: Path) -> None:
    assert zoo("bench", "smoke", "--variants", "vae", "--wandb", "disabled", "--jobs", "1")[0] == 0
    (path,) = (tmp_path / "leaderboard" / "records").rglob("*.json")
    made = json.loads(path.read_text())
    assert "linear_probe" in made["metrics"] and "tsne" in made["skipped"]
    bare = json.loads(path.read_text())  # as one of before there were probes and walks
    for name in ("linear_probe", "knn_accuracy", "total_correlation", "index_code_information"):
        bare["metrics"].pop(name)
    for name in ("pca", "traversals", "interpolations"):
        (tmp_path / "leaderboard" / bare["figures"].pop(name)).unlink()
    path.write_text(json.dumps(bare))
    kept = next((tmp_path / "runs").rglob("run.json")).parent / amend.PARTS / "gaps" / "values.safetensors"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert zoo("measure", "smoke", "latent", "--variants", "vae")[0] == 0
    assert kept.exists(), "what another metric that was stopped has is gone"
    after = json.loads(path.read_text())
    for name, metric in made["metrics"].items():
        assert after["metrics"][name]["value"] == metric["value"]
    assert after["figures"].keys() == made["figures"].keys() | {"tsne"} and "tsne" not in after["skipped"]
    assert all((tmp_path / "leaderboard" / picture).exists() for picture in after["figures"].values())
    written = path.stat().st_mtime_ns
    assert zoo("measure", "smoke", "latent", "--variants", "vae")[0] == 0
    assert path.stat().st_mtime_ns == written


def test_pictures_of_private_data_that_were_added_are_not_added_again(
    zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry().datasets["synthetic"].model_copy(update={"private": True})
    monkeypatch.setitem(registry().datasets, "synthetic", entry)
    assert zoo("bench", "smoke", "--variants", "vae", "--wandb", "disabled", "--jobs", "1")[0] == 0
    assert zoo("measure", "smoke", "latent", "--variants", "vae")[0] == 0
    (record,) = (tmp_path / "leaderboard" / "records").rglob("*.json")
    assert json.loads(record.read_text())["figures"] == {} and len(list(tmp_path.rglob("tsne.png"))) == 1
    monkeypatch.setattr(amend, "_measured", None)
    assert zoo("measure", "smoke", "latent", "--variants", "vae")[0] == 0


def test_the_cells_of_a_sweep_are_measured_by_the_same_sweep(zoo, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "schema: 1\nname: mine\nversion: '1'\ntitle: Mine\ndatasets: [synthetic]\nvariants: [vae]\n"
        "defaults:\n  train: {epochs: 0}\n  evaluate: {nll_samples: 0, quality_samples: 0, latent: 'no'}\n"
    )
    words = ("--sweep", "latent=2,3")
    assert zoo("bench", "mine.yaml", *words, "--wandb", "disabled", "--jobs", "1")[0] == 0
    code, _, err = zoo("measure", "mine.yaml", "latent", *words)
    assert code == 0, err
    made = [json.loads(path.read_text()) for path in (tmp_path / "leaderboard" / "records").rglob("*.json")]
    assert len(made) == 2 and all("tsne" in one["figures"] for one in made)


def test_a_failing_cell_is_recorded_and_takes_no_other_along(
    zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.models.beta_vae import BetaVAE

    def broken(self, progress):
        raise RuntimeError("a planted mistake")

    monkeypatch.setattr(BetaVAE, "rate_weight", broken)
    code, out, _ = zoo("bench", "smoke", "--variants", "beta_vae,vae", "--wandb", "disabled", "--jobs", "1")
    assert code == 1
    assert "a planted mistake" in out
    records = [json.loads(path.read_text()) for path in (tmp_path / "leaderboard" / "records").rglob("*.json")]
    assert sorted(made["status"] for made in records) == ["done", "failed"]
    assert "a planted mistake" in (tmp_path / "leaderboard" / "README.md").read_text()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    failed = next(made for made in records if made["status"] == "failed")
    assert any("planted" in line for line in failed["log_tail"])


def alone() -> None:
    """One thread in a child and its workers: the order of a sum over threads moves the last digits."""
    os.environ["OMP_NUM_THREADS"] = "1"
    threadpool_limits(1)


def measured(folder: Path) -> dict[str, object]:
    made = [json.loads(path.read_text()) for path in (folder / "leaderboard" / "records").rglob("*.json")]
    return {record["cell"]["variant"]: (record["status"], record["metrics"]) for record in made}


@pytest.mark.parametrize(
    ("jobs", "device", "cells", "found"),
    [("auto", "cpu", 9, 4), ("auto", "cpu", 3, 3), ("auto", "cuda:1", 9, 1), ("2", "cuda", 9, 2), ("8", "cpu", 3, 3)],
)
def test_there_is_a_worker_a_core_or_as_many_as_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, jobs: str, device: str, cells: int, found: int
) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 4)
    assert workers.how_many(jobs, device, cells) == found


@needs_fork
@pytest.mark.slow
def test_workers_share_a_suite_and_give_the_same_numbers(tmp_path: Path) -> None:
    words = ("bench", "smoke", "--wandb", "disabled", "--variants", "vae,cvae,vq_vae", "--jobs")
    for jobs in ("1", "2"):
        folder = tmp_path / jobs
        folder.mkdir()
        code = wait(fork(folder, *words, jobs, prepare=alone))
        said = (folder / "said").read_text()
        assert code == 0, said
        assert said.count("-synthetic-s0-") == 3
    assert measured(tmp_path / "1") == measured(tmp_path / "2")
    metrics = {variant: found for variant, (_, found) in measured(tmp_path / "1").items()}
    assert set(metrics) == {"vae", "cvae", "vq_vae"}
    assert 1 <= metrics["vq_vae"]["codebook_perplexity"]["value"] <= 4


@needs_fork
@pytest.mark.slow
def test_workers_stop_with_the_one_that_started_them_and_go_on(tmp_path: Path) -> None:
    suite = (ROOT / "benchmarks" / "suites" / "smoke.yaml").read_text().replace("epochs: 1", "epochs: 400")
    (tmp_path / "long.yaml").write_text(suite)
    words = ("bench", "long.yaml", "--wandb", "disabled", "--jobs", "2", "--variants", "vae,beta_vae")
    child = fork(tmp_path, *words)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("run.json"))) < 2:
        assert time.monotonic() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    deadline = time.monotonic() + 60
    code, said = wait(child), (tmp_path / "said").read_text()
    assert code == 130 and time.monotonic() < deadline, said
    assert said.count("goes on from here") == 1, "once, and not by every worker"
    assert f"`zoo {' '.join(words)}` goes on from here" in said
    assert len(list(tmp_path.rglob("step-*.safetensors"))) >= 2
    assert not list(tmp_path.rglob("leaderboard/records/*/*.json"))


def test_train_continues_nothing_when_it_is_done_and_refuses_another_run(zoo, tmp_path: Path) -> None:
    words = ["train", "vae", "--data", "synthetic", "--set", "train.epochs=1", "--set", "latent=3"]
    words += ["--set", "evaluate.quality_samples=0", "--wandb", "disabled", "--out", "x"]
    code, first, err = zoo(*words, "--json")
    assert code == 0, err
    made = json.loads(first)
    assert made["config"]["model"]["latent"] == 3 and made["train"]["epochs"] == 1
    assert (tmp_path / "x" / "samples.png").exists()
    stamp = (tmp_path / "x" / "record.json").stat().st_mtime_ns
    assert zoo(*words, "--json")[1] == first
    assert (tmp_path / "x" / "record.json").stat().st_mtime_ns == stamp
    code, _, err = zoo(*words, "--seed", "1")
    assert code == 2 and "holds another run" in err
    code, _, err = zoo(*words, "--set", "latnet=3")
    assert code == 2 and "no setting 'latnet'. Did you mean 'latent'?" in err, "another --out would not help"


def test_a_run_whose_weights_were_removed_is_trained_again(zoo, tmp_path: Path) -> None:
    words = ["train", "vae", "--data", "synthetic", "--set", "train.epochs=1", "--set", "evaluate.nll_samples=0"]
    words += ["--set", "evaluate.quality_samples=0", "--wandb", "disabled", "--out", "x", "--json"]
    first = json.loads(zoo(*words)[1])
    weights = tmp_path / "x" / "model.safetensors"
    weights.unlink()
    code, _, err = zoo("sample", "x")
    assert code == 1 and "the command that started it goes on" in err
    assert json.loads(zoo(*words)[1])["metrics"] == first["metrics"] and weights.exists()


def test_a_refused_training_leaves_nothing_and_the_corrected_one_runs(zoo, tmp_path: Path) -> None:
    words = ["train", "ladder_vae", "--data", "synthetic", "--set", "train.epochs=0", "--set", "evaluate.nll_samples=0"]
    words += ["--set", "evaluate.quality_samples=0", "--wandb", "disabled", "--out", "x"]
    code, _, err = zoo(*words, "--set", "train.micro_batch=16", "--set", "train.batch_size=64")
    assert code == 2 and "parts of one" in err and list(tmp_path.iterdir()) == []
    code, _, err = zoo(*words)
    assert code == 0, err


def test_doctor_looks_at_everything(zoo) -> None:
    found = json.loads(zoo("doctor", "--json")[1])
    assert set(found) == {"package", "device", "registry", "assets", "wandb"}
    assert found["package"]["torch"] and "mnist" in found["assets"]
    assert found["device"]["a run would use"].split(",")[0] in ("cpu", "cuda")
    if found["device"]["a run would use"].startswith("cpu"):
        assert found["device"]["C++ compiler"].startswith("yes" if has_compiler() else "no")


def test_the_doctor_looks_for_all_that_can_be_fetched(zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: (_ for _ in ()).throw(OSError))
    found = json.loads(zoo("doctor", "--json")[1])["assets"]
    assert found.pop("cache") == str(tmp_path)
    assert found.keys() == {"mnist", "fashion_mnist", "cifar10", "inception", "efficientnet_lite0"}
    assert all(said.startswith(f"`zoo fetch {name}` gets it: ") for name, said in found.items())
    lines = {line.split()[1]: line for line in zoo("doctor")[1].splitlines() if line.startswith("assets ")}
    assert all(f"`zoo fetch {name}` gets it" in lines[name] for name in found), "whatever is cut"


def test_weights_are_listed_once_for_whoever_fetches_or_looks_for_them(
    zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.metrics import weights

    assert all(name in cli.fetch.help for name in weights.WEIGHTS)
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "net.bin").write_bytes(b"1")
    sha256 = hashlib.sha256(b"1").hexdigest()
    monkeypatch.setitem(weights.WEIGHTS, "net", Asset("new", {"net.bin": f"sha256:{sha256}"}, ()))
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: (_ for _ in ()).throw(OSError))
    assert zoo("fetch", "NET")[:2] == (0, f"net: {tmp_path / 'new' / 'net.bin'}\n")
    assert json.loads(zoo("doctor", "--json")[1])["assets"]["net"] == "here, bytes verified"


def test_the_module_runs_as_a_command_and_pipes_cleanly() -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cli", "list"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "" and "\x1b" not in done.stdout


def test_the_library_runs_as_the_command_that_is_installed() -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for words in (["list", "datasets"], ["bench", "nothing"]):
        said = [
            subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, env=env, capture_output=True, text=True)
            for module in ("zoo", "benchmarks", "benchmarks.cli")
        ]
        (end,) = {(one.returncode, one.stdout, one.stderr) for one in said}
        assert end[0] == (2 if "nothing" in words else 0) and end[1 + (end[0] == 2)]


def test_the_library_says_where_no_command_is_installed() -> None:
    command = [sys.executable, "-S", "-m", "zoo", "list"]  # without the folder of what is installed
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "zoo: the command is not installed: `pip install -e .` in a checkout does so.\n"


STOP_AT_AN_IMPORT = """
import signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background may ignore it

class Stop:
    def find_spec(name, path=None, target=None):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Stop)
"""


@pytest.mark.parametrize(
    ("start", "module"),
    [
        *(("script", module) for module in ("benchmarks.cli", "click", "benchmarks.commands.bench", "zoo.errors")),
        ("zoo", "importlib.metadata"),
        ("zoo", "benchmarks.commands.bench"),
        ("benchmarks", "click"),
    ],
)
def test_a_stop_while_the_command_is_imported_is_one_as_any_other(start: str, module: str) -> None:
    where, name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["zoo"].split(":")
    begin = f"from {where} import {name}; {name}()"
    if start != "script":
        begin = f"import runpy; runpy.run_module({start!r}, run_name='__main__')"
    command = [sys.executable, "-c", STOP_AT_AN_IMPORT + begin, module]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "zoo: stopped.\n")


def test_the_help_of_score_names_every_metric_that_a_file_can_have() -> None:
    from benchmarks.commands.scoring import SCORES, score
    from benchmarks.metrics import disentanglement
    from benchmarks.score import METRICS

    of_several = {name for name, metric in disentanglement.METRICS.items() if not metric.intervenes}
    assert len(SCORES) == len(set(SCORES)) and set(SCORES) == set(METRICS) | of_several
    (option,) = [option for option in score.params if option.name == "metrics"]
    assert all(name in option.help for name in SCORES)


def test_score_and_fid_work_on_files_of_other_people(zoo, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import numpy as np

    random = np.random.RandomState(0)
    factors = random.randint(0, 4, (600, 2))
    codes = np.concatenate([factors + 0.01 * random.randn(600, 2), random.randn(600, 1)], 1)
    train = {"z_train": codes[:400], "factors_train": factors[:400]}
    np.savez("codes.npz", **train, z_test=codes[400:], factors_test=factors[400:])
    code, out, err = zoo("score", "codes.npz", "--metrics", "mig,sap_continuous", "--json")
    assert code == 0, err
    scores = json.loads(out)
    assert set(scores) == {"mig", "sap_continuous"} and min(scores.values()) > 0.9
    code, _, err = zoo("score", "codes.npz", "--metrics", "migg")
    assert code == 2 and "no metric 'migg'. Did you mean 'mig'? `zoo score --help` shows all." in err
    assert zoo("score", "nothing.npz")[0] == 2

    images = random.randint(0, 256, (40, 28, 28), dtype=np.uint8)
    np.savez("a.npz", images=images[:20])
    np.savez("b.npz", images=images[20:])
    code, out, err = zoo("fid", "a.npz", "b.npz", "--extractor", "digits", "--json")
    assert code == 0, err
    assert json.loads(out)["fd_digits"] > 0 and json.loads(out)["n"] == 20
    assert "fd_digits: biased upwards: 20 samples for 64 feature dimensions" in caplog.messages
    assert zoo("fid", "a.npz", "missing")[0] == 2


def test_the_catalogue_lists_every_disentanglement_score_and_how_many_it_is_over() -> None:
    from benchmarks.metrics import disentanglement

    for metric in disentanglement.METRICS.values():
        for score in metric.scores:
            known, sizes = listed(score), metric.identity() if metric.intervenes else ("n_train", "n_test")
            assert known is not None and known.over in sizes
            # What a classifier reached on what it was fitted on ranks nothing.
            assert known.better is None or not score.removesuffix("@hist-gbt").endswith("_train")
    assert listed("nll_iwae_64") and not listed("nll_iwae") and not listed("elbow")
