"""The k-sample bound of all images where K samples were drawn for the first ones only."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import per_example, record
from benchmarks.evaluate import evaluate
from benchmarks.per_example import of_all
from benchmarks.report.published import comparisons
from benchmarks.report.short import board
from benchmarks.report.tables import tables
from tests.conftest import ROOT
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from zoo.config import resolve
from zoo.runs import train_run
from zoo.training.precision import choose

K = 4
ALL, FIRST = f"nll_iwae_{K}_all", f"nll_iwae_{K}"


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.8])
def test_the_estimate_has_no_bias_and_the_error_that_it_says(correlation: float) -> None:
    random, n, m = np.random.RandomState(0), 800, 80
    estimates, errors = [], []
    for _ in range(1500):
        elbo = -100 + 20 * random.standard_normal(n)
        noise = np.sqrt(1 - correlation**2) * random.standard_normal(n)
        gap = 8 + 3 * (correlation * (elbo + 100) / 20 + noise)
        values = of_all(elbo, (elbo + gap)[:m])
        estimates.append(values.mean())
        errors.append(values.std(ddof=1) / np.sqrt(n))
    assert np.mean(estimates) == pytest.approx(-92, abs=4 * np.std(estimates) / np.sqrt(1500))
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.07)


def test_first_images_that_are_easier_do_not_move_it() -> None:
    random = np.random.RandomState(1)
    elbo = np.concatenate([-80 + random.standard_normal(100), -120 + random.standard_normal(900)])
    gap = 8 + random.standard_normal(1000)
    bound = elbo + gap
    assert abs(bound[:100].mean() - bound.mean()) > 30
    assert of_all(elbo, bound[:100]).mean() == pytest.approx(bound.mean(), abs=0.4)
    assert of_all(elbo, bound).mean() == pytest.approx(bound.mean(), abs=1e-9)


@pytest.mark.parametrize("images", [2, 9, 32, "null"])
def test_it_is_measured_where_not_all_images_have_their_own(images: int | str, tmp_path: Path) -> None:
    settings = ["train.epochs=0", f"evaluate.nll_samples={K}", f"evaluate.nll_images={images}",
                "evaluate.quality_samples=0", "evaluate.latent=no", "data.options.n_test=32"]  # fmt: skip
    found = evaluate(train_run(resolve("vae", "synthetic", settings=settings), tmp_path / "run", choose("cpu")))
    if images in (32, "null"):
        assert ALL not in found.metrics and found.skipped[ALL] == "the bound is one of all images"
        return
    elbo, nll = (found.per_example[name].numpy() for name in ("elbo", FIRST))
    metric = found.metrics[ALL]
    assert metric["value"] == pytest.approx(-elbo.mean() + (nll + elbo[:images]).mean())
    assert metric["n"] == 32 and metric["identity"] == {"split": "test", "k": K, "images": images}
    assert (metric["unit"], metric["better"]) == ("nats", "lower")


def test_one_image_with_a_bound_has_no_gap_that_could_be_added(zoo, tmp_path: Path) -> None:  # noqa: F811
    suite = tmp_path / "one.yaml"
    suite.write_text(
        "schema: 1\nname: one\nversion: '1'\ntitle: one\nvariants: [vae]\ndatasets: [synthetic]\nseeds: [0]\n"
        f"defaults: {{train: {{epochs: 0}}, evaluate: {{nll_samples: {K}, nll_images: 1, quality_samples: 0}}}}\n"
    )
    assert zoo("bench", str(suite), "--wandb", "disabled", "--jobs", "1")[0] == 0
    (path,) = tmp_path.glob("leaderboard/records/*/*.json")
    before = path.read_bytes()
    code, _, said = zoo("measure", str(suite), "nll_all")
    assert (code, path.read_bytes()) == (0, before), said


def test_it_is_added_to_records_from_what_lies_beside_them(zoo, tmp_path: Path) -> None:  # noqa: F811
    assert zoo("bench", "smoke", "--variants", "vae,beta_vae", "--wandb", "disabled", "--jobs", "1")[0] == 0
    records = tmp_path / "leaderboard" / "records"
    whole = {path: path.read_text() for path in records.rglob("*.json")}
    (name,) = (name for name in json.loads(next(iter(whole.values())))["metrics"] if name.endswith("_all"))
    assert name == "nll_iwae_8_all"
    for path, text in whole.items():
        bare = json.loads(text)
        del bare["metrics"][name]
        path.write_text(json.dumps(bare))
    assert zoo("measure", "smoke", "nll_all", "--variants", "vae,beta_vae", "--runs", "elsewhere")[0] == 0
    for path, text in whole.items():
        before, after = json.loads(text)["metrics"], record.read(path).metrics
        assert after.keys() == before.keys()
        assert after[name].value == pytest.approx(before[name]["value"], rel=1e-6)
        assert after[name].stderr == pytest.approx(before[name]["stderr"], rel=1e-4)
        assert after[name].identity == before[name]["identity"]
        assert "added by `zoo measure smoke nll_all`" in after[name].note
    written = {path: path.stat().st_mtime_ns for path in whole}
    assert zoo("measure", "smoke", "nll_all", "--variants", "vae,beta_vae", "--runs", "elsewhere")[0] == 0
    assert written == {path: path.stat().st_mtime_ns for path in whole}
    # Two models are compared image by image in it too.
    rows = [[made] for made in record.read_all(records)]
    errors = per_example.paired_errors(*rows, records)
    assert {name, "elbo", "nll_iwae_8"} <= errors.keys()
    assert 0 < errors[name] < np.hypot(*(row[0].metrics[name].stderr for row in rows))
    next(records.rglob("*vae-*.npz")).unlink()
    for path, text in whole.items():
        bare = json.loads(text)
        del bare["metrics"][name]
        path.write_text(json.dumps(bare))
    code, _, said = zoo("measure", "smoke", "nll_all", "--variants", "vae,beta_vae", "--runs", "elsewhere")
    assert code == 2 and "has no values of its images beside its record" in said


def test_the_board_has_it_in_place_of_the_bound_of_the_first_images(zoo, tmp_path: Path) -> None:  # noqa: F811
    assert zoo("bench", "smoke", "--variants", "vae", "--wandb", "disabled", "--jobs", "1")[0] == 0
    made = record.read_all(tmp_path / "leaderboard" / "records")
    (table,) = tables(made)
    assert [column.name for column in table.head if column.metric.startswith("nll")] == ["NLL (k = 8, all)"]
    assert [column.name for column in table.further if column.metric.startswith("nll")] == ["NLL (k = 8)"]
    assert "NLL k=8 ↓" in board(made)
    entry = {"metric": "nll", "dataset": made[0].data.name, "value": 1.0, "source": "somewhere"}
    (one,) = comparisons(table, {"vae": {"published": [entry]}})
    assert [column.metric for column, _ in one.ours] == ["nll_iwae_8_all"] and "first" not in one.note


def test_what_the_page_of_bounds_says_of_runs_whose_images_all_have_their_own() -> None:
    text = " ".join((ROOT / "docs" / "theory" / "bounds.md").read_text().split())
    pattern = (
        r"Of the (\w+) runs whose 10,000 images all have .* the first 500 are ([\d.]+) to ([\d.]+) nats better than "
        r"all, and the estimate that they give is at most ([\d.]+) off, with standard errors of ([\d.]+) to ([\d.]+)\."
    )
    said = re.search(pattern, text)
    better, off, errors = [], [], []
    for path in sorted((ROOT / "leaderboard").rglob("*.npz")):
        with np.load(path) as file:
            bounds = [name for name in file.files if name.startswith("nll_iwae_")]
            if not bounds or "elbo" not in file.files or len(file[bounds[0]]) != len(file["elbo"]):
                continue
            elbo, nll = (file[name].astype(np.float64) for name in ("elbo", bounds[0]))
        if len(elbo) != 10_000 or np.array_equal(elbo, -nll):
            continue
        better.append(nll.mean() - nll[:500].mean())
        off.append(abs(-of_all(elbo, -nll[:500]).mean() - nll.mean()))
        errors.append((-elbo - nll)[:500].std(ddof=1) / np.sqrt(500))
    assert said[1] == {8: "eight", 9: "nine", 10: "ten", 11: "eleven"}[len(better)]
    found = [f"{min(better):.1f}", f"{max(better):.1f}", f"{max(off):.2f}", f"{min(errors):.2f}", f"{max(errors):.2f}"]
    assert found == list(said.groups()[1:])
