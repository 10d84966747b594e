"""What is committed under leaderboard/: the board is what the records say, and so is what the README shows of it."""

from __future__ import annotations

import json
import math
import re
import statistics

import pytest

from benchmarks import per_example, record
from benchmarks.matrix import Places, plan, write_board
from benchmarks.report import short
from benchmarks.report.compare import differ, estimate
from benchmarks.report.spread import percent, rank_correlation, spreads
from benchmarks.report.tables import tables
from benchmarks.suite import suite_named
from tests.conftest import ROOT
from zoo.registry import registry

BOARD = ROOT / "leaderboard"
IN_THE_README = ("mnist", "disentanglement")
EIGHT = {"vae", "beta_vae", "cvae", "vq_vae", "ladder_vae", "nvae_lite", "vae_gan", "flow_vae"}


@pytest.fixture(scope="module")
def records() -> list[record.Record]:
    """Those that are committed: a checkout may hold others of its own, such as those of `make bench`."""
    made = [one for one in record.read_all(BOARD / "records") if one.cell.group not in ("quick@1", "smoke@1")]
    assert made
    return made


def test_every_record_is_of_a_registered_variant_and_made_by_committed_code(records: list[record.Record]) -> None:
    others = [one for place in ("reproductions", "study") for one in record.read_all(BOARD / place / "records")]
    assert others
    for one in [*records, *others]:
        assert one.cell.variant in registry().variants
        assert one.cell.dataset in registry().datasets
        assert one.environment.git_commit and one.environment.git_dirty is False, one.cell.stem
        assert one.cell.key == record.cell_key(_identity(one.config))


def test_the_study_has_each_of_its_cells() -> None:
    made = {one.cell: one.status for one in record.read_all(BOARD / "study" / "records")}
    assert made == {planned.cell: "done" for planned in plan(suite_named("study_mini"))}


def test_the_samples_in_the_readme_are_those_of_the_first_seed_of_each_variant_of_its_first_table(
    records: list[record.Record],
) -> None:
    text = (ROOT / "README.md").read_text()
    shown = dict(re.findall(r"!\[samples of (\w+)\]\(leaderboard/([^)]+)\)", text))
    suite = IN_THE_README[0]
    first = [one for one in records if (one.cell.suite, one.cell.seed) == (suite, 0)]
    made = {one.cell.variant: one.figures["samples"] for one in first}
    assert shown == made and list(shown) == re.findall(r"^(\w+)†? +-[0-9.]+±", text, re.M)[: len(made)]


def test_the_readme_says_of_the_study_what_its_records_say() -> None:
    (table,) = tables(record.read_all(BOARD / "study" / "records"))
    found = {one.column.metric: one for one in spreads(table)}
    text = " ".join((ROOT / "README.md").read_text().split())
    elbo, mig = (percent(found[name].seed, found[name].errors[2]) for name in ("elbo", "mig"))
    assert f"finds {elbo} of the ELBO's variance to be the seed's and {mig} of MIG's" in text
    assert f"Of {len(table.done)} short runs" in text
    # And what its page says in words.
    assert found["mig"].seed > 0.5 and found["mig"].setting < found["mig"].by_chance[1]
    assert found["linear_probe"].agreement > 0.5
    scores = ("mig", "sap", "disentanglement", "completeness", "irs", "modularity", "beta_vae_", "factor_vae_")
    ranks = [one.agreement for name, one in found.items() if name.startswith(scores)]
    assert len(ranks) == 9 and max(map(abs, ranks)) < 0.4
    of: dict[str, list[float]] = {}
    for one in table.done:
        of.setdefault(one.cell.variant, []).append(one.metrics["mig"].value)
    means = {name: statistics.fmean(values) for name, values in of.items()}
    errors = {name: statistics.stdev(values) / len(values) ** 0.5 for name, values in of.items()}
    best = max(means, key=means.get)
    assert best == "factor_vae"
    assert all(means[best] - means[name] > 3 * math.hypot(errors[best], errors[name]) for name in means if name != best)


def test_the_page_says_how_far_udr_ranks_the_runs_of_the_study_as_mig_does() -> None:
    runs = json.loads((BOARD / "study" / "udr.json").read_text())
    assert {one["run"].rpartition("/")[2] for one in runs} == {
        one.cell.stem for one in record.read_all(BOARD / "study" / "records")
    }
    migs = [one["mig"]["value"] for one in runs]
    lasso, ranks = (rank_correlation([one[name] for one in runs], migs) for name in ("udr_lasso", "udr_spearman"))
    text = " ".join((ROOT / "docs" / "howto" / "spread.md").read_text().split())
    assert f"ranks the {len(runs)} runs as MIG does by {lasso:.2f} (Lasso) and {ranks:.2f} (Spearman)" in text


def test_every_evaluation_has_the_key_by_which_it_is_not_measured_again() -> None:
    from benchmarks.evaluated import read
    from benchmarks.running.again import key_of
    from zoo.config import RunConfig, measured_otherwise

    found = {path: json.loads(path.read_text()) for path in (BOARD / "evaluations").rglob("*.json")}
    made = [read(path) for path, content in found.items() if content.get("kind") == "evaluation"]
    assert any(one.config["evaluate"]["nll_images"] and not one.config["evaluate"]["nll_samples"] for one in made)
    for one in made:
        config = RunConfig.model_validate(one.config | {"evaluate": one.config["evaluate"] | {"split": "test"}})
        told = {name: getattr(one, name) for name in ("split", "own", "bits_seed", "options")}
        told |= {"run": one.run.model_dump()}
        assert one.key == key_of(told, measured_otherwise(config, one.split, None), one.data.sha256)


def test_what_is_neither_training_nor_evaluation_is_less_than_a_tenth(records: list[record.Record]) -> None:
    for group in {one.cell.group for one in records}:
        took = [one.seconds for one in records if one.cell.group == group and one.status == "done"]
        rest = sum(seconds.total - seconds.train - seconds.evaluate for seconds in took)
        assert took and 0 <= rest < 0.1 * sum(seconds.total for seconds in took), group


def test_every_picture_is_there(records: list[record.Record]) -> None:
    for one in records:
        for picture in one.figures.values():
            assert (BOARD / picture).stat().st_size > 100


def test_the_readme_shows_what_the_records_say(records: list[record.Record]) -> None:
    for suite in IN_THE_README:
        shown = short.board(one for one in records if one.cell.suite == suite)
        assert shown and shown in (ROOT / "README.md").read_text()


def test_the_board_is_a_function_of_the_records(records: list[record.Record], tmp_path) -> None:
    for one in records:
        record.write(one, tmp_path / "records")
    (tmp_path / "assets").symlink_to(BOARD / "assets")
    made = write_board(Places(tmp_path, tmp_path / "runs")).read_text()
    page = (tmp_path / "index.html").read_text()
    if len(record.read_all(BOARD / "records")) == len(records):
        assert (BOARD / "README.md").read_text() == made
        assert (BOARD / "index.html").read_text() == page
    assert all(one.cell.stem in made and one.cell.stem in page for one in records)
    assert len(page.encode()) < 5_000_000


def test_no_variant_is_worse_than_independent_pixels(records: list[record.Record]) -> None:
    """Each pixel a Bernoulli of its mean over the training images: what can be had without looking at the image. The
    mean over seeds has to beat it, and each seed where nothing is adversarial: one VAE-GAN of three (seed 2) got lost.
    One that is charged a millionth of its rate cannot, and has to beat it with what its codes leave of an image.
    """
    from benchmarks.metrics import weights
    from zoo.config import RunConfig
    from zoo.data.fetch import ASSETS
    from zoo.runs.images import load_images

    if not weights.is_cached(ASSETS["mnist"]):
        pytest.skip("MNIST is not in the cache")
    ours = [one for one in records if one.cell.dataset == "mnist" and "elbo" in one.metrics]
    assert {one.cell.variant for one in ours} >= EIGHT
    images = load_images(RunConfig.model_validate(ours[0].config))
    mean = images["train"].pixels.double().mean(0).div(255).clamp(1e-3, 1 - 1e-3)
    bits = images["test"].pixels.double() / 255
    baseline = (
        bits.flatten(1) @ mean.log().flatten() + (1 - bits.flatten(1)) @ (1 - mean).log().flatten()
    ).mean()
    assert -207 < baseline < -204
    costly = [one.metrics for one in ours if one.cell.variant == "autoencoder_kl"]
    for metrics in costly:
        assert -metrics["distortion"].value > baseline / 4 > metrics["elbo"].value
    assert len(costly) == 3
    for name in {one.cell.variant for one in ours} - {"autoencoder_kl"}:
        bounds = [one.metrics["elbo"] for one in ours if one.cell.variant == name]
        groups = [bounds] if registry().variant(name)[1].family == "adversarial" else [[bound] for bound in bounds]
        for group in groups:
            bound = estimate(group)
            assert bound.value - 3 * bound.stderr > baseline, name


def test_flow_and_ladder_are_not_worse_than_plain_after_equal_training(records: list[record.Record]) -> None:
    runs: dict[str, list[record.Record]] = {}
    for one in records:
        if one.cell.suite == "mnist":
            runs.setdefault(one.cell.variant, []).append(one)
    bounds = {name: estimate([one.metrics["elbo"] for one in made]) for name, made in runs.items()}
    for name in ("flow_vae", "ladder_vae"):
        seen = {one.config["train"]["epochs"] for one in (*runs[name], *runs["vae"])}
        assert len(seen) == 1
        assert bounds[name].value > bounds["vae"].value or not differ(bounds[name], bounds["vae"])


def test_every_variant_has_weights_to_try_of_a_few_megabytes() -> None:
    built_in = {name for name, entry in registry().variants.items() if entry.origin == "built-in"}
    for name in built_in:
        assert (BOARD / "weights" / name / "model.safetensors").stat().st_size < 10_000_000, name


@pytest.mark.parametrize("variant", sorted(path.name for path in (BOARD / "weights").iterdir()))
def test_released_weights_are_those_of_a_committed_record(records: list[record.Record], variant: str) -> None:
    from benchmarks.metrics import likelihood, weights
    from zoo import load_run
    from zoo.config import RunConfig
    from zoo.data.batches import Batches
    from zoo.data.fetch import ASSETS
    from zoo.runs.images import condition_of, load_images

    folder = BOARD / "weights" / variant
    config = RunConfig.model_validate(json.loads((folder / "config.json").read_text())["config"])
    (made,) = (one for one in records if one.cell.key == record.cell_key(config.identity()))
    assert made.cell.stem in (folder / "README.md").read_text()
    model = load_run(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) == made.model.parameters
    if not weights.is_cached(ASSETS["mnist"]):
        pytest.skip("MNIST is not in the cache")
    images = load_images(config)
    shown = images["test"].subset(1000)
    batches = Batches(shown, batch_size=500, drop_last=False, condition=condition_of(model, images.spec))
    terms = likelihood.bound(model, batches, config.evaluate.seed)
    # Where there is no bound it is the loss that has to be the same: of each image, as its noise is, but for rounding.
    found = terms.elbo if model.bounds else terms.distortion
    said = per_example.read(made, BOARD / "records")["elbo" if model.bounds else "reconstruction_loss"]
    assert len(said) == made.metrics["elbo" if model.bounds else "reconstruction_loss"].n
    assert float(found.mean()) == pytest.approx(said[:1000].mean(), abs=0.01)


def _identity(config: dict) -> dict:
    from zoo.config import RunConfig

    return RunConfig.model_validate(config).identity()


def test_the_orders_of_the_papers_hold_in_what_is_committed(records: list[record.Record]) -> None:
    # Burda et al. (2016): more importance samples in training are better; k = 1 is the VAE.
    swept = [one for one in records if one.cell.suite == "importance"]
    nll = {one.config["model"]["k"]: one.metrics["nll_iwae_1000"].value for one in swept}
    assert nll.keys() == {1, 5, 50} and nll[50] < nll[5] < nll[1]
    made = {one.cell.suite: one for one in record.read_all(BOARD / "reproductions" / "records")}
    for names in (("vae_1l_k1", "iwae_1l_k5", "iwae_1l_k50"), ("vae_2l_k1", "iwae_2l_k5", "iwae_2l_k50")):
        k1, k5, k50 = (made[f"{name}_short"].metrics["nll_iwae_5000"] for name in names)
        assert k1.value - k5.value > 2 * math.hypot(k1.stderr, k5.stderr) and k5.value - k50.value > k50.stderr
    # Tomczak and Welling (2018): the VampPrior is better than the standard normal, by 2.0 nats as published.
    standard, vamp = (made[f"{name}_2x300_short"].metrics["nll_iwae_5000"].value for name in ("standard", "vamp"))
    assert standard - vamp >= 1.5
    # A flow's posterior is nearer than a Gaussian's: the bound of the same decoder is better.
    mnist = [one for one in records if one.cell.suite == "mnist" and one.status == "done"]
    elbos = {name: estimate([one.metrics["elbo"] for one in mnist if one.cell.variant == name]).value for name in EIGHT}
    assert elbos["flow_vae"] > elbos["vae"]
