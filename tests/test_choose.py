"""`zoo choose`: validation images choose among the values of a setting, and test images choose nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import matrix
from benchmarks.choosing import candidates, choice, written
from benchmarks.choosing.candidates import Sweep
from benchmarks.choosing.choice import LOST, MISSING, NO_ERROR, SAME, TIE, WORSE, Choice
from benchmarks.commands import choose as command
from benchmarks.commands import options
from benchmarks.evaluated import Evaluated, Origin
from benchmarks.matrix import Planned
from benchmarks.record import Record
from benchmarks.running import again
from benchmarks.suite import suite_named
from tests.faults.children import fork, wait
from tests.faults.test_stops import needs_fork, signalled
from tests.test_board import failed, make
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from zoo.config import RunConfig
from zoo.data.synthetic import load_synthetic
from zoo.errors import UsageError, ZooError
from zoo.models.vae import VanillaVAE
from zoo.training.trainer import Trainer

SUITE = """\
schema: 1
name: tiny
version: "1"
title: small enough to choose in
datasets: [synthetic]
variants: [vae]
defaults:
  train: {epochs: 1, batch_size: 32}
  data: {options: {n_train: 64, n_validation: 24, n_test: 16}}
  evaluate: {nll_samples: 2, nll_images: 8, quality_samples: 0, latent: "no"}
  model: {encoder: {hidden: [8]}, decoder: {hidden: [8]}, latent: 2}
"""
WORDS = ("choose", "tiny.yaml", "--sweep", "latent=1,2", "--wandb", "disabled", "--device", "cpu", "--jobs", "1")
N = 40


# ---- chosen from records --------------------------------------------------------------------------------------------


def evaluation(made: Record, name: str, value: float, stderr: float | None, n: int = N) -> Evaluated:
    """What the run of a record came to on validation images."""
    metric = made.metrics[name].model_copy(
        update={"value": value, "stderr": stderr, "n": n, "identity": {"split": "validation"}}
    )
    origin = Origin(
        variant=made.cell.variant, seed=made.cell.seed, data="mnist", data_sha256="cd", weights_sha256="ab"
    )
    return Evaluated(
        key=made.cell.key, run=origin, model=made.model, split="validation", images=n, own=True, data=made.data,
        command="zoo evaluate", config=made.config, when=made.when, metrics={name: metric}, skipped={}, seconds=1.0,
        environment=made.environment,
    )  # fmt: skip


def runs_of(
    folder: Path, values: dict[str, list[tuple[float, float]]], name: str = "elbo", stderr: float | None = 0.1,
    lost: Any = (), variant: str = "beta_vae", apart: dict[str, np.ndarray] | None = None, **changes: Any,
) -> tuple[Sweep, list[Record], choice.Evaluations]:  # fmt: skip
    """The runs of values that came to (validation, test) a seed. ``lost`` has (value, seed) of runs that failed,
    ``apart`` what the images of a value come to beside their mean."""
    records, found, cells = [], {}, {}
    for beta, numbers in values.items():
        for seed, (validation, test) in enumerate(numbers):
            settings = {"model": {"beta": beta}}
            made = make(variant, seed, numbers={name: (test, stderr)}, settings=settings, **changes)
            if (beta, seed) in lost:
                broken = failed(variant, seed)
                made = broken.model_copy(update={"cell": made.cell, "config": made.config})
            else:
                path = folder / f"{made.cell.stem}.json"
                found[made.cell] = evaluation(made, name, validation, stderr), path
                if apart:
                    np.savez(path.with_suffix(".npz"), **{name: np.float32(validation + apart[beta])})
            records.append(made)
            cells.setdefault(f"beta={beta}", []).append(Planned(made.cell, RunConfig(variant=variant), ""))
    return Sweep(variant, "mnist", cells), records, found


def chosen(folder: Path, values: Any, name: str = "elbo", *rest: Any, **more: Any) -> Choice:
    """What is chosen of `runs_of` the same."""
    return choice.choose(*runs_of(folder, values, name, *rest, **more), name)


def verdicts(one: Choice) -> list[str]:
    return [value.verdict for value in one.values]


def test_the_best_of_validation_is_chosen_though_another_is_the_best_of_test(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one = chosen(tmp_path, {"1": [(-92.0, -91.0)] * 2, "2": [(-90.0, -95.0)] * 2, "4": [(-91.0, -93.0)] * 2})
    assert one.chosen.setting == "beta=2" and one.on_test.setting == "beta=1"
    assert (one.chosen.validation.value, one.chosen.test.value) == (-90.0, -95.0)
    command._tell([one], None)
    out = capsys.readouterr().out
    said = "beta_vae: picked on the test images it would have been beta=1 at -91.00 ± 0.10, which reads 4.00 better"
    assert said in out
    (row,) = (line for line in out.splitlines() if line.split()[1:3] == ["beta=2", "3"])
    assert "-95.00 ± 0.10" in row
    told = written.content([one], "elbo", "zoo choose")["choices"][0]
    assert (told["chosen"], told["tried"], told["test"]["value"]) == ("beta=2", 3, -95.0)
    assert told["chosen_on_test"]["setting"] == "beta=1" and told["chosen_on_test"]["test"]["value"] == -91.0
    assert told["records"] == [f"quick@1/{made.cell.stem}.json" for made in one.chosen.records]


def test_of_what_is_better_lower_the_lowest_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = chosen(tmp_path, {"1": [(92.0, 91.0)], "2": [(90.0, 89.0)], "4": [(95.0, 95.0)]}, "nll_iwae_64")
    assert one.chosen is one.on_test is one.values[1] and verdicts(one) == [WORSE, "chosen", WORSE]
    command._tell([one], None)
    out = capsys.readouterr().out
    assert "picked on the test images it would have been beta=2 too" in out and command.ONE_SEED in out


def test_a_tie_is_said_and_so_are_equal_numbers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    values = {"1": [(-91.0, -91.0)], "2": [(-90.0, -91.0)], "4": [(-90.1, -91.0)], "8": [(-90.0, -91.0)]}
    one = chosen(tmp_path, values)
    assert one.chosen.setting == "beta=2" and verdicts(one) == [WORSE, "chosen", TIE, SAME]
    command._tell([one], None)
    out = capsys.readouterr().out
    assert "beta_vae, beta=2: the errors do not tell it from beta=4: it has the better mean." in out
    assert "beta_vae, beta=2: beta=8 came to the same numbers: it stands first." in out


def test_where_values_are_known_image_by_image_a_tie_is_decided_by_their_differences(tmp_path: Path) -> None:
    spread = np.linspace(-9.0, 9.0, N)
    spread -= spread.mean()
    error = float(spread.std(ddof=1)) / N**0.5
    values = {"1": [(-91.0, -91.0)], "2": [(-90.0, -90.0)]}
    assert verdicts(chosen(tmp_path, values, stderr=error)) == [TIE, "chosen"]
    alike = {"1": spread, "2": spread}
    assert verdicts(chosen(tmp_path, values, stderr=error, apart=alike)) == [WORSE, "chosen"]
    unlike = {"1": spread, "2": -spread}
    assert verdicts(chosen(tmp_path, values, stderr=error, apart=unlike)) == [TIE, "chosen"]


def test_a_number_of_one_run_without_an_error_is_said_to_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one = chosen(tmp_path, {"1": [(-91.0, -91.0)], "2": [(-90.0, -91.0)]}, stderr=None)
    assert verdicts(one) == [NO_ERROR, "chosen"]
    command._tell([one], None)
    assert "no error is known by which to tell it from beta=1" in capsys.readouterr().out


def test_a_value_that_lost_a_run_is_not_chosen_on_either_images(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    values = {"1": [(-91.0, -91.0)] * 2, "2": [(-80.0, -80.0)] * 2, "4": [(-92.0, -90.0)] * 2}
    one = chosen(tmp_path, values, lost=[("2", 1)])
    assert one.chosen.setting == "beta=1" and one.on_test.setting == "beta=4"
    assert verdicts(one) == ["chosen", LOST, WORSE] and one.values[1].validation.seeds == 1
    command._tell([one], None)
    out = capsys.readouterr().out
    assert "beta_vae beta=2 seed 1 failed: out of memory" in out and "1 of 2 seeds" in out
    none = chosen(tmp_path, values, lost=[(beta, 0) for beta in values])
    assert none.chosen is None and none.on_test is None and verdicts(none) == [LOST] * 3
    command._tell([none], None)
    assert "no value has a number of each of its seeds, and none is chosen" in capsys.readouterr().out
    assert written.content([none], "elbo", "")["choices"][0]["records"] == []
    with pytest.raises(ZooError, match="no run of beta_vae on 'mnist' is done, and seed 0: out of memory"):
        chosen(tmp_path, values, lost=[(beta, seed) for beta in values for seed in (0, 1)])


def test_variants_at_their_best_are_ranked_and_one_that_is_told_the_class_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one = chosen(tmp_path, {"1": [(-91.0, -95.0)], "2": [(-90.0, -94.0)]})
    two = chosen(tmp_path, {"3": [(-80.0, -84.0)]}, variant="vae")
    told = chosen(tmp_path, {"5": [(-70.0, -74.0)], "6": [(-70.5, -73.0)]}, variant="cvae", model__conditional=True)
    assert told.chosen.setting == "beta=5" and verdicts(told) == ["chosen", WORSE] and told.marked
    assert choice.ranks([one, two, told]) == {("beta_vae", "mnist"): 2, ("vae", "mnist"): 1}
    command._tell([one, two, told], None)
    out = capsys.readouterr().out
    assert "cvae†" in out and "not ranked with log p(x)" in out and command.UNEQUAL in out
    command._tell([one], None)
    assert command.UNEQUAL not in capsys.readouterr().out


def test_the_name_of_a_metric_may_be_how_one_begins_and_not_how_two_do(tmp_path: Path) -> None:
    values = {"1": [(92.0, 91.0)], "2": [(90.0, 89.0)]}
    records, found, sweep = [], {}, {}
    for beta, ((validation, test),) in values.items():
        numbers = {"nll_iwae_64": (test, 0.1), "nll_iwae_64_all": (test, 0.1), "nll_ais": (test, 0.1),
                   "fd_digits": 3.0, "fd_two": 3.0}  # fmt: skip
        made = make("vae", numbers=numbers, settings={"model": {"beta": beta}})
        one = evaluation(made, "nll_iwae_64", validation, 0.1)
        more = {name: made.metrics[name].model_copy(update={"identity": {"split": "validation"}}) for name in numbers}
        again_ = one.model_copy(update={"metrics": more | {"nll_iwae_64": one.metrics["nll_iwae_64"]}})
        records.append(made)
        found[made.cell] = again_, tmp_path / f"{beta}.json"
        sweep[f"beta={beta}"] = [Planned(made.cell, RunConfig(variant="vae"), "")]
    asked = Sweep("vae", "mnist", sweep)
    assert choice.choose(asked, records, found, "nll").column.metric == "nll_iwae_64_all"
    assert choice.choose(asked, records, found, "nll_iwae_64").column.metric == "nll_iwae_64"
    with pytest.raises(UsageError, match="one of several numbers of vae: give fd_digits or fd_two."):
        choice.choose(asked, records, found, "fd")
    with pytest.raises(UsageError, match="vae has no 'mig' of validation images of 'mnist': measured are .*fd_digits"):
        choice.choose(asked, records, found, "mig")
    # A number that is the same for each split chooses on what is reported.
    bare = {cell: (one.model_copy(update={"metrics": {"mig": made.metrics["fd_two"].model_copy(
        update={"identity": {}, "better": "higher"})}}), path)
        for made, (cell, (one, path)) in zip(records, found.items(), strict=True)}  # fmt: skip
    with pytest.raises(UsageError, match="the same for every split"):
        choice.choose(asked, records, bare, "mig")
    # Nor are two numbers compared that were measured otherwise.
    (cell, (one, path)), *_ = found.items()
    other = one.metrics["nll_iwae_64"].model_copy(update={"identity": {"split": "validation", "k": 3}})
    apart = found | {cell: (one.model_copy(update={"metrics": one.metrics | {"nll_iwae_64": other}}), path)}
    with pytest.raises(UsageError, match="measured otherwise"):
        choice.choose(asked, records, apart, "nll_iwae_64")
    lacks = found | {cell: (one.model_copy(update={"metrics": {"fd_two": one.metrics["fd_two"]}}), path)}
    assert verdicts(choice.choose(asked, records, lacks, "nll_iwae_64")) == [MISSING, "chosen"]


def test_values_of_two_sets_of_one_name_are_not_compared(tmp_path: Path) -> None:
    values = {"1": [(-91.0, -91.0)], "2": [(-90.0, -90.0)]}
    sweep, records, found = runs_of(tmp_path, values)
    (cell, (one, path)), *_ = found.items()
    other = one.data.model_copy(update={"sha256": "ef" * 32})
    with pytest.raises(UsageError, match="not measured on the same validation images: 'mnist' was another set"):
        choice.choose(sweep, records, found | {cell: (one.model_copy(update={"data": other}), path)}, "elbo")
    with pytest.raises(UsageError, match="not measured on the same test images"):
        choice.choose(sweep, [records[0].model_copy(update={"data": other}), records[1]], found, "elbo")
    assert choice.choose(sweep, records, found, "elbo").chosen.setting == "beta=2"


def test_a_choice_of_which_runs_were_lost_is_written_anew_once_they_are_there(tmp_path: Path) -> None:
    values, path = {"1": [(-91.0, -91.0)] * 2, "2": [(-90.0, -90.0)] * 2}, tmp_path / "mine.json"
    lacking, whole = (
        written.content([chosen(tmp_path, values, lost=lost)], "elbo", "") for lost in ([("2", 1)], [])
    )
    written.write(lacking, path)
    written.write(lacking | {"command": "zoo choose"}, path)
    assert written.read(path)["command"] == "", "a file that holds the same was written again"
    more = chosen(tmp_path, values | {"4": [(-92.0, -92.0)] * 2})
    for other in (whole | {"by": "nll"}, written.content([more], "elbo", ""), whole | {"choices": []}):
        with pytest.raises(UsageError, match="holds another choice"):
            written.write(other, path)
        assert written.read(path)["choices"][0]["chosen"] == "beta=1"
    written.write(whole, path)
    assert written.read(path)["choices"][0]["chosen"] == "beta=2"
    with pytest.raises(UsageError, match="holds another choice"):
        written.write(lacking, path)


def test_the_numbers_of_test_images_are_those_of_the_identity_that_most_values_have(tmp_path: Path) -> None:
    sweep, records, found = runs_of(tmp_path, {"1": [(-91.0, -90.0)], "2": [(-90.0, -91.0)], "4": [(-92.0, -92.0)]})
    elbo = records[0].metrics["elbo"]
    other = elbo.model_copy(update={"identity": elbo.identity | {"more": 1}})
    records[0] = records[0].model_copy(update={"metrics": {"elbo": other}})
    one = choice.choose(sweep, records, found, "elbo")
    assert "more" not in dict(one.test_column.identity)
    assert [value.test and value.test.value for value in one.values] == [None, -91.0, -92.0]
    assert one.chosen.setting == one.on_test.setting == "beta=2"


def test_values_that_lost_runs_are_tried_ones_and_a_variant_without_a_choice_has_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    values = {"1": [(-91.0, -91.0)] * 2, "2": [(-90.0, -90.0)] * 2}
    none = chosen(tmp_path, values, lost=[("1", 0), ("2", 1)])
    single = chosen(tmp_path, {"3": [(-80.0, -84.0)]}, variant="vae")
    told = written.content([none, single], "elbo", "")["choices"]
    assert [(one["tried"], one["chosen"]) for one in told] == [(2, None), (1, "beta=3")]
    assert [[lost["seed"] for lost in value["lost"]] for value in told[0]["values"]] == [[0], [1]]
    command._tell([none, single], None)
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["beta_vae", "none", "2", "-", "-"] in rows and any(row[:3] == ["vae", "beta=3", "1"] for row in rows)
    assert "vae: picked on" not in out, "there is nothing to pick among one value"
    command._tell([single], None)
    assert "rank" not in capsys.readouterr().out


@pytest.mark.parametrize("choices", [5, None, [5], [{}], [{"records": 5}], [{"records": ["a"], "values": 5}]], ids=str)
def test_a_file_that_somebody_changed_is_no_choice_and_is_not_written_over(tmp_path: Path, choices: Any) -> None:
    path = tmp_path / "mine.json"
    made = written.content([chosen(tmp_path, {"1": [(-91.0, -91.0)], "2": [(-90.0, -90.0)]})], "elbo", "")
    path.write_text(json.dumps(made | {"choices": choices}))
    with pytest.raises(UsageError, match="holds another choice"):
        written.write(made, path)
    if choices != [{"records": ["a"], "values": 5}]:
        with pytest.raises(UsageError, match="is not what `zoo choose --out` writes"):
            written.chosen_in(path)
    path.write_text(json.dumps(made | {"schema": 2}))
    with pytest.raises(UsageError, match="is not what `zoo choose --out` writes"):
        written.read(path)


def test_a_cell_at_which_another_process_is_ends_the_measuring_before_it_begins(tmp_path: Path) -> None:
    cells = matrix.plan(suite_named("smoke"), ("vae",), ("synthetic",), (0,), {None: ("latent=2", "latent=3")})
    with pytest.raises(ZooError, match="has no record yet, as where another process is at it"):
        choice.measure(cells, matrix.Places(tmp_path / "board", tmp_path / "runs"), "cpu")


def test_the_seeds_that_are_asked_for_are_planned(zoo, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def planned(suite, variants, datasets, seeds, sweeps):
        raise UsageError(f"seeds {list(seeds)}.")

    monkeypatch.setattr(candidates, "plan", planned)
    for words, seeds in ((["--seeds", "2"], [0, 1]), (["--seed", "3", "--seed", "5"], [3, 5]), ([], [])):
        assert f"seeds {seeds}" in zoo("choose", "smoke", *words)[2]


# ---- what is planned, and what is refused ---------------------------------------------------------------------------


def test_each_variant_has_its_own_sweep_or_the_one_of_all() -> None:
    smoke = suite_named("smoke")

    def of(*sweeps: str, variants: tuple[str, ...] = ()) -> dict[str, list[str]]:
        found = candidates.plan(smoke, variants, (), (0, 1), options.swept(sweeps))
        for sweep in found:
            for setting, cells in sweep.values.items():
                value = setting.partition("=")[2]
                assert [one.config.seed for one in cells] == [0, 1]
                assert not value or all(str(one.config.model["latent"]) == value for one in cells)
        turns = [one.config.seed for one in candidates.in_turn(found)]
        assert turns == sorted(turns) and len(turns) == 2 * sum(len(sweep.values) for sweep in found)
        return {sweep.variant: list(sweep.values) for sweep in found}

    two, three = ["latent=2", "latent=3"], ["latent=4"]
    assert of("beta-vae:latent=2,3") == {"beta_vae": two}
    assert of("beta_vae:latent=2,3", "vae:latent=4") == {"beta_vae": two, "vae": three}
    assert of("vae:latent=4", "latent=2,3", variants=("vae", "cvae")) == {"vae": three, "cvae": two}
    assert of("vae:latent=2,3", variants=("vae", "cvae")) == {"vae": two, "cvae": [""]}
    twice = candidates.plan(smoke, ("vae",), ("synthetic", "synthetic"), (), {None: ("latent=2", "latent=3")})
    assert [one.dataset for one in twice] == ["synthetic"]
    assert list(candidates.plan(suite_named("importance"), (), (), (), {})[0].values) == ["k=1", "k=5", "k=50"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("smoke", "nothing to choose: give --sweep"),
        ("smoke --sweep latent=3", "nothing to choose"),
        ("smoke --sweep latent", "a sweep reads path=value,value"),
        ("smoke --sweep latent=2,2", "has one twice"),
        ("smoke --variants vae --sweep beta=2,3", "no setting 'beta'"),
        ("smoke --sweep veo:latent=2,3", "no variant 'veo'. Did you mean 'vae'?"),
        ("smoke --sweep vae:latent=2,3 --sweep vae:beta=2,3", "vae has two sweeps"),
        ("smoke --sweep latent=2,3 --sweep beta=2,3", "all variants have two sweeps"),
        ("smoke --variants vae --sweep beta_vae:beta=2,3", "values of beta_vae, which is not among the variants."),
        ("smoke --variants vae --sweep evaluate.nll_samples=2,3", "is how a model is measured"),
        ("smoke --variants vae --sweep data.binarise=none,dynamic", "makes other images"),
        ("smoke --variants vae --sweep train.checkpoint_seconds=1,2", "is the same cell as"),
        ("smoke --variants vae --sweep latent=2,3 --by elbow", "no metric 'elbow'. Did you mean 'elbo'?"),
        ("smoke --variants vae --sweep latent=2,3 --by seconds", "'seconds' is what a run cost"),
        ("smoke --variants vae --sweep latent=2,3 --by Peak-Memory", "'peak_memory' is what a run cost"),
        ("smoke --variants vae --sweep latent=2,3 --by rate", "no value of 'rate' is better"),
        ("smoke --variants vae --sweep latent=2,3 --by nll_iwae_64", "evaluate.nll_samples is 8"),
        ("smoke --variants vae --sweep latent=2,3 --seeds 2 --seed 1", "give --seeds N or --seed K"),
        ("smoke --variants vae --sweep latent=2,3 --jobs none", "--jobs is auto or a number"),
        ("smoke --variants vae --sweep latent=2,3 --out x.txt", "ends in .json"),
        ("smoke --variants vae --sweep latent=2,3 --out mine.json", "mine.json is not what `zoo choose --out` writes"),
        ("held.yaml --sweep latent=2,3", "measures on validation images itself"),
        ("bare.yaml --sweep latent=2,3", "'synthetic' has no validation images to choose on"),
    ],
)
def test_bad_input_is_one_sentence_and_trains_nothing(
    zoo, tmp_path: Path, words: str, said: str  # noqa: F811
) -> None:
    (tmp_path / "mine.json").write_text('{"kind": "mine"}')
    (tmp_path / "held.yaml").write_text(SUITE.replace("{nll_samples", "{split: validation, nll_samples"))
    (tmp_path / "bare.yaml").write_text(SUITE.replace("n_validation: 24", "n_validation: 0"))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, out, err = zoo("choose", *words.split())
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1, err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("variant", "values", "by", "said"),
    [
        ("vae", "latent=2,3", "codebook_use", "needs a codebook"),
        ("vq_vae", "quantiser.codes=3,4", "codebook_use", None),
        ("vq_vae_2", "quantiser.codes=3,4", "codebook_use", "each grid has its own: codebook_use_top, "),
        ("vq_vae_2", "quantiser.codes=3,4", "codebook_use_top", None),
        ("vq_vae", "quantiser.codes=3,4", "codebook_use_top", "needs grids of codes"),
        ("cvae", "latent=2,3", "linear_probe", "needs a code of the image alone, and this model is told the condition"),
        ("vae", "latent=2,3", "linear_probe", None),
        ("rae", "latent=2,3", "elbo", "it has no posterior, so it bounds nothing"),
        ("rae", "latent=2,3", "reconstruction_loss", None),
        ("vae", "likelihood.name=gaussian,laplace", "nll", "a gaussian is not a likelihood of binary data"),
        ("vae", "likelihood.name=gaussian,bernoulli", "nll", None),  # one of the values has it
        ("vae", "latent=2,3", "auroc_fashion_mnist", "evaluate.anomaly names no outliers"),
        ("vae", "latent=2,3", "mig", "needs factors"),
        ("vae", "latent=2,3", "iwae_loss", "its likelihood is one of the data"),
        ("vae", "latent=2,3", "classification_error", "needs a model with q(y | x)"),
        ("m2", "latent=2,3", "classification_error", None),
        ("vae", "latent=2,3", "fd_digits_ex_post", "needs --set evaluate.ex_post=K"),
        ("vae", "latent=2,3", "fd_digits_ex_post_flow", "needs --set evaluate.ex_post_flow=T"),
        ("vae", "latent=2,3", "amortisation_gap", "evaluate.gaps is 0"),
        ("vae", "latent=2,3", "cluster_ari", "evaluate.clustering is no"),
        ("vae", "latent=2,3", "fid", None),  # what only an evaluation tells
    ],
)
def test_a_metric_that_no_value_will_have_is_refused_before_training(
    variant: str, values: str, by: str, said: str | None
) -> None:
    sweeps = candidates.plan(suite_named("smoke"), (variant,), (), (), options.swept((values,)))
    if said is None:
        candidates.check_metric(by, sweeps)
        return
    with pytest.raises(UsageError) as caught:
        candidates.check_metric(by, sweeps)
    assert str(caught.value).startswith(f"{variant} has no '{by}' of validation images of 'synthetic': {said}")


def test_a_distance_by_one_density_of_codes_is_none_by_another(tmp_path: Path) -> None:
    smoke, swept = suite_named("smoke"), options.swept(("latent=2,3",))
    asked = smoke.defaults["evaluate"] | {"ex_post_flow": 2}
    flows = smoke.model_copy(update={"defaults": smoke.defaults | {"evaluate": asked}})
    sweeps = candidates.plan(flows, ("vae",), (), (), swept)
    candidates.check_metric("fd_digits_ex_post_flow", sweeps)
    with pytest.raises(UsageError, match="needs --set evaluate.ex_post=K"):
        candidates.check_metric("fd_digits_ex_post", sweeps)
    values = {"1": [(92.0, 91.0)], "2": [(90.0, 89.0)]}
    made = runs_of(tmp_path, values, "fd_digits_ex_post_flow")
    assert choice.choose(*made, "fd_digits_ex_post_flow").chosen.setting == "beta=2"
    with pytest.raises(UsageError, match="beta_vae has no 'fd_digits_ex_post' of validation images"):
        choice.choose(*made, "fd_digits_ex_post")


def test_a_link_to_nothing_is_not_written_over(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to("gone.json")
    for write in (written.check_free, lambda path: written.write({"kind": written.KIND, "schema": 1}, path)):
        with pytest.raises(UsageError, match="link.json is not a choice: it is a link to what is not there"):
            write(link)
    assert link.is_symlink() and [*tmp_path.iterdir()] == [link]


def test_scores_of_pictures_drawn_from_factors_choose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = candidates.plan(suite_named("smoke"), ("vae",), (), (), {None: ("latent=2", "latent=3")})
    plain = load_synthetic(8, 8, 8)
    of = {"factor_names": ("even",), "factor_sizes": (2,), "factor_kind": "measured"}
    splits = {name: replace(one, factors=one.labels[:, None] % 2, **of) for name, one in plain.splits.items()}
    plain = replace(plain, splits=splits)
    monkeypatch.setattr("zoo.runs.images.load_images", lambda config: plain)
    candidates.check_metric("mig", sweeps)
    monkeypatch.setattr("zoo.runs.images.load_images", lambda config: replace(plain, render=lambda factors: factors))
    candidates.check_metric("elbo", sweeps)
    with pytest.raises(UsageError, match="'mig' of 'synthetic' is of pictures that are drawn from its factors"):
        candidates.check_metric("mig", sweeps)


# ---- the whole way --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the cells of `WORDS` are done and nothing was measured on validation images."""
    folder = tmp_path_factory.mktemp("choose")
    (folder / "tiny.yaml").write_text(SUITE)
    places = matrix.Places(folder / "leaderboard", folder / "runs")
    cells = matrix.plan(suite_named(str(folder / "tiny.yaml")), sweeps={None: ("latent=1", "latent=2")})
    made = matrix.run_all(cells, places, matrix.compute_of("cpu", cells))
    assert [one.status for one in made] == ["done", "done"], made
    return folder


@pytest.fixture
def desk(benched: Path, tmp_path: Path) -> Path:
    shutil.copytree(benched, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(benched: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What is chosen where nobody ends it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(benched, folder, dirs_exist_ok=True)
    assert wait(fork(folder, *WORDS, "--out", "mine.json")) == 0, (folder / "said").read_text()
    return (folder / "mine.json").read_bytes()


def files(folder: Path) -> dict[Path, int]:
    there = [path for path in folder.rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in there if "/." not in str(path.relative_to(folder.parent))}


def test_a_choice_is_made_of_evaluations_that_are_there_and_nothing_is_done_twice(
    zoo, desk: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    runs = sorted((desk / "runs" / "tiny@1").iterdir())
    code, _, err = zoo("evaluate", str(runs[0].relative_to(desk)), "--split", "validation", "--device", "cpu")
    assert code == 0, err
    before = files(desk)
    code, out, err = zoo(*WORDS, "--out", "mine.json")
    assert code == 0, err
    now = files(desk)
    assert {path: now[path] for path in before} == before, "a file that was there was written again"
    told = json.loads((desk / "mine.json").read_text())
    (one,) = told["choices"]
    (ours,) = (path for path in before if path.parent.name == again.FOLDER and path.suffix == ".json")
    assert str(ours.relative_to(desk)) in [name for value in one["values"] for name in value["evaluations"]]
    elbos = {}
    for value in one["values"]:
        (path,) = value["evaluations"]
        made = json.loads((desk / path).read_text())
        assert made["split"] == "validation" and made["images"] == one["images"] == 24
        elbos[f"latent={made['config']['model']['latent']}"] = made["metrics"]["elbo"]["value"]
        assert value["validation"]["value"] == made["metrics"]["elbo"]["value"]
    assert one["chosen"] == max(elbos, key=elbos.get) and one["tried"] == 2
    (name,) = one["records"]
    record = json.loads((desk / "leaderboard" / "records" / name).read_text())
    assert f"latent={record['config']['model']['latent']}" == one["chosen"]
    assert one["test"]["value"] == record["metrics"]["elbo"]["value"] and one["test"]["n"] == 16
    assert one["chosen"] in out and out.rstrip().endswith("mine.json")
    # Again: it measures nothing, writes nothing and says the same.
    monkeypatch.setattr(again, "_measured", None)
    assert zoo(*WORDS, "--out", "mine.json")[:2] == (0, out) and files(desk) == now
    code, as_json, _ = zoo(*WORDS, "--json", "--out", "mine.json")
    assert code == 0 and json.loads(as_json)["choices"] == told["choices"] and files(desk) == now
    monkeypatch.setattr(choice, "measure", None)  # another choice is refused before anything is measured
    code, _, err = zoo(*WORDS, "--by", "nll", "--out", "mine.json")
    assert code == 2 and "mine.json holds another choice, and is not written over" in err and files(desk) == now


def test_what_is_missing_is_run_and_two_chosen_rows_are_compared(zoo, desk: Path) -> None:  # noqa: F811
    words = [*WORDS[:2], "--sweep", "vae:latent=1,2", "--sweep", "beta_vae:beta=1,9", *WORDS[4:]]
    code, out, err = zoo(*words, "--out", "both.json")
    assert code == 0, err
    assert err.count("beta_vae-synthetic") == 4 and err.count("vae-synthetic") - 4 == 2, "the other two were there"
    assert "rank" in out and "beta_vae (beta=9)" in (desk / "leaderboard" / "README.md").read_text()
    told = {one["variant"]: one for one in json.loads((desk / "both.json").read_text())["choices"]}
    code, _, err = zoo("compare", "vae", "beta_vae")
    assert code == 2 and "several rows of vae" in err
    code, as_json, err = zoo("compare", "vae", "beta_vae", "--chosen", "both.json", "--json")
    assert code == 0, err
    (elbo,) = (one for one in json.loads(as_json) if one["metric"] == "elbo")
    assert (elbo["a"], elbo["b"]) == tuple(told[name]["test"]["value"] for name in ("vae", "beta_vae"))
    assert elbo["paired"]
    (desk / "odd.json").write_text('{"kind": "choice", "schema": 1, "choices": [{"records": 5}]}')
    for bad, said in (
        ("tiny.yaml", "is not a choice"), ("none.json", "there is no choice none.json"),
        ("odd.json", "odd.json is not what `zoo choose --out` writes"),
    ):  # fmt: skip
        code, _, err = zoo("compare", "vae", "beta_vae", "--chosen", bad)
        assert code == 2 and said in err and err.count("\n") == 1
    assert zoo("bench", *words[1:2], "--variants", "iwae", "--jobs", "1")[0] == 0
    code, _, err = zoo("compare", "vae", "iwae", "--chosen", "both.json")
    assert code == 2
    assert err == "zoo: iwae is not chosen in both.json: without --chosen any two rows of the board are compared.\n"
    (gone,) = told["vae"]["records"]
    (desk / "leaderboard" / "records" / gone).unlink()
    code, _, err = zoo("compare", "vae", "beta_vae", "--chosen", "both.json")
    assert code == 2 and "was chosen, and is not in leaderboard/records" in err


def test_a_record_whose_model_is_gone_is_said_before_anything_is_run(zoo, desk: Path) -> None:  # noqa: F811
    shutil.rmtree(desk / "runs")
    before = files(desk)
    code, out, err = zoo(*WORDS, "--seeds", "2")
    assert (code, out) == (2, "") and "does not hold its model: --runs says where it is" in err
    assert files(desk) == before


def test_a_failed_cell_leaves_the_choice_to_the_others_and_ends_in_1(
    zoo, desk: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    def broken(self, *given):
        raise RuntimeError("a planted mistake")

    monkeypatch.setattr(Trainer, "update", broken)
    words = [*WORDS[:3], "latent=1,2,3", *WORDS[4:]]
    code, out, _ = zoo(*words)
    assert code == 1 and "vae latent=3 seed 0 failed: a planted mistake" in out and LOST in out
    assert "picked on the test images" in out


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_choice_that_is_ended_goes_on_and_comes_to_the_same(
    desk: Path, undisturbed: bytes, number: signal.Signals
) -> None:
    words = (*WORDS, "--out", "mine.json")
    # Each of the two evaluations has one call of it: in the second one.
    code = wait(fork(desk, *words, prepare=signalled(VanillaVAE, "log_weights", 2, number)))
    said = (desk / "said").read_text()
    assert code == (130 if number == signal.SIGTERM else -number), said
    if number == signal.SIGTERM:
        assert "goes on from here" in said and "Traceback" not in said, said
    evaluations = [path for path in files(desk / "runs") if path.parent.name == again.FOLDER]
    assert len([path for path in evaluations if path.suffix == ".json"]) == 1 and not (desk / "mine.json").exists()
    before = files(desk / "runs") | files(desk / "leaderboard")
    os.unlink(desk / "calls")
    assert wait(fork(desk, *words, prepare=signalled(VanillaVAE, "log_weights", 99, number))) == 0
    assert (desk / "calls").read_text().split() == ["1"], "the one that was there was measured again"
    now = files(desk)
    assert {path: now[path] for path in before} == before
    assert (desk / "mine.json").read_bytes() == undisturbed
