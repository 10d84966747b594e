"""Recipes and what becomes of them: rules fixed before a run, and a page that is a function of records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import recipe, record
from benchmarks.recipe import Recipe, RecipeFile, Target, judge, judge_order, of_recipe, recipes
from benchmarks.report.reproduction import page
from tests.conftest import ROOT
from tests.test_cli import call
from zoo.config import LATER
from zoo.data.images import SPLITS
from zoo.errors import UsageError
from zoo.plain_yaml import read_yaml

RUNNABLE = {name: one for name, one in recipes().items() if not one.blocked}
TARGET = Target(
    metric="elbo", value=-100.0, source="somewhere", mark="R", band=(-101.0, -99.0), near=(-103.0, -97.0)
)


def toy(**more) -> Recipe:
    said = {
        "title": "A toy",
        "variant": "vae",
        "dataset": "synthetic",
        "protocol": "Made-up images.",
        "config": {
            "model": {"latent": 2, "encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}},
            "train": {"epochs": 1, "batch_size": 64},
            "evaluate": {"nll_samples": 4, "nll_images": 32, "quality_samples": 0},
        },
        "targets": [TARGET],
        "departures": ["the data is made up"],
    }
    return Recipe.model_validate(said | more)


def made(one: Recipe, seed: int = 0, value: float = -100.0, status: str = "done", name: str = "toy") -> record.Record:
    planned = recipe.plan(name, one, (seed,))[0]
    rest = {
        "data": {"name": "synthetic", "sha256": "0", "support": "binary", "n": dict.fromkeys(SPLITS, 1)},
        "model": {"parameters": 1, "class": "a:B"},
        "train": {"steps": 1, "epochs": 1},
        "metrics": {"elbo": {"value": value, "stderr": 0.5, "n": 10}},
        "seconds": {"total": 1800.0},
    }
    environment = {
        "git_commit": None, "git_dirty": None, "python": "3", "torch": "2", "device": "a CPU", "device_kind": "cpu",
        "precision": "float32",
    }  # fmt: skip
    return record.parse(
        {
            "schema": 1,
            "status": status,
            "reason": None if status == "done" else "it broke",
            "cell": planned.cell.model_dump(),
            "command": planned.command,
            "config": planned.config.model_dump(mode="json"),
            "when": "2026-01-01T00:00:00+00:00",
            "environment": environment,
        }
        | (rest if status == "done" else {})
    )


# ---- the rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (-100.0, "reproduced"),
        (-101.0, "reproduced"),
        (-101.01, "close"),
        (-97.0, "close"),
        (-96.9, "not"),  # too good is not reproduced either
        (-104.0, "not"),
    ],
)
def test_a_verdict_is_where_our_mean_lies(value: float, word: str) -> None:
    found = judge(toy(), TARGET, [made(toy(), value=value)])
    assert (found.word, found.difference) == (word, pytest.approx(value + 100.0))


def test_a_verdict_is_of_the_mean_over_all_seeds_of_the_recipe() -> None:
    one = toy(seeds=[0, 1, 2, 3])
    some = [made(one, 0, -98.0), made(one, 1, -101.0), made(one, 7, -500.0)]
    found = judge(one, TARGET, some)
    assert found.word == "not run" and found.ours.value == -99.5 and found.ours.seeds == 2
    assert found.why == "so far 2 of 4 seeds (seeds 2, 3 never run)"
    found = judge(one, TARGET, [*some, made(one, 2, status="diverged")])
    assert found.why == "so far 2 of 4 seeds (seed 2 diverged: it broke; seed 3 never run)"
    found = judge(one, TARGET, [*some, made(one, 2, -100.0), made(one, 3, -101.0)])
    assert (found.word, found.ours.value, found.why) == ("reproduced", -100.0, "")
    row = page({"toys": RecipeFile(schema=1, paper="Toys", recipes={"toy": one})}, some)
    assert "| not run: so far 2 of 4 seeds (seeds 2, 3 never run) |" in row and "0 reproduced" in row


def test_seeds_that_were_measured_differently_come_to_no_number() -> None:
    one = toy(seeds=[0, 1])
    first, second = made(one, 0), made(one, 1)
    metric = second.metrics["elbo"].model_copy(update={"n": 11})
    fewer = second.model_copy(update={"metrics": {"elbo": metric}})
    data = second.model_copy(update={"data": second.data.model_copy(update={"sha256": "1"})})
    asked = data.model_copy(update={"config": data.config | {"data": {"options": {"label_seed": 1}}}})
    for other, why in ((fewer, "its seeds differ in how elbo was measured"), (data, "its seeds differ in their data")):
        found = judge(one, TARGET, [first, other])
        assert (found.word, found.ours, found.why) == ("not run", None, why)
    assert judge(one, TARGET, [first, asked]).word == "reproduced", "seeds may ask for data of their own"
    # A record of before there was a setting of the data asked for its default.
    older = {name: value for name, value in data.config["data"].items() if name not in LATER["data"]}
    before = data.model_copy(update={"config": data.config | {"data": older}})
    assert judge(one, TARGET, [first, before]).why == "its seeds differ in their data"


def test_what_was_not_run_says_why() -> None:
    assert judge(toy(), TARGET, []).why == "no record yet"
    assert judge(toy(needs="a GPU"), TARGET, []).why == "a GPU"
    assert judge(toy(needs="a GPU"), TARGET, [made(toy(), status="failed")]).why == "seed 0 failed: it broke"
    blocked = judge(toy(blocked="needs a file"), TARGET, [])
    assert (blocked.word, blocked.why, blocked.ours) == ("not run", "needs a file", None)
    with pytest.raises(UsageError, match="cannot be run: needs a file"):
        recipe.plan("toy", toy(blocked="needs a file."))


def test_a_factor_scales_errors_too() -> None:
    target = TARGET.model_copy(update={"factor": -2.0, "value": 200.0, "band": (199.0, 201.0), "near": None})
    found = judge(toy(), target, [made(toy(), value=-100.4)])
    assert found.word == "reproduced" and found.ours.value == pytest.approx(200.8) and found.ours.stderr == 1.0


def test_a_record_of_another_configuration_is_not_the_recipe_s() -> None:
    old, new = toy(), toy(config={"train": {"epochs": 2}})
    records = [made(old), made(old, name="other")]
    assert of_recipe("toy", old, records) == records[:1]
    assert of_recipe("toy", new, records) == of_recipe("toy", toy(version="2"), records) == []


def pair(by: float = 0.0, **more) -> RecipeFile:
    better, worse = toy(), toy(targets=[TARGET.model_copy(update={"value": -99.0, "band": (-100.0, -98.0)})])
    orders = [{"smaller": "better", "larger": "worse", "by": by} | more]
    said = {"schema": 1, "paper": "Toys", "recipes": {"better": better, "worse": worse}, "orders": orders}
    return RecipeFile.model_validate(said)


@pytest.mark.parametrize(
    ("larger", "by", "word"),
    [(-97.0, 0.0, "holds"), (-97.0, 3.0, "holds"), (-97.0, 3.1, "does not hold"), (-100.0, 0.0, "does not hold")],
)
def test_an_order_holds_where_the_gap_is_large_enough(larger: float, by: float, word: str) -> None:
    files = pair(by)
    records = [made(toy(), value=-100.0, name="better"), made(toy(), value=larger, name="worse")]
    found = judge_order(files, files.orders[0], records)
    assert (found.word, found.published, found.ours) == (word, 1.0, larger + 100.0)
    assert judge_order(files, files.orders[0], records[:1]).word == "not run"
    text = page({"toys": files}, records)
    row = next(line for line in text.splitlines() if line.startswith("| `better` | `worse` |"))
    assert word in row
    assert f"Of 1 orders among them: {int(word == 'holds')} hold, {int(word != 'holds')} do not, 0 not run." in text


def test_an_order_names_two_targets_in_the_published_order() -> None:
    for more in ({"larger": "none"}, {"larger": "worse/nll"}, {"smaller": "worse", "larger": "better"}):
        with pytest.raises(ValueError, match="orders name one target each|is not smaller"):
            pair(**more)


def test_bands_that_make_no_sense_are_refused() -> None:
    for band, near in (((2.0, 1.0), None), ((1.0, 2.0), (1.5, 3.0))):
        with pytest.raises(ValueError, match="band"):
            Target(metric="elbo", value=1.5, source="x", mark="R", band=band, near=near)


# ---- the recipes that ship -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_recipe_resolves_and_states_its_protocol(name: str) -> None:
    from benchmarks.catalogue import listed
    from zoo.models import build, data_spec
    from zoo.registry import registry

    one = RUNNABLE[name]
    config = one.run_config(1)
    build(registry().variants[config.variant], data_spec(config.data.name, config.data.binarise), config.model)
    assert config.evaluate.split == "test", "published numbers are of test images"
    assert config.evaluate.nll_images is None or config.evaluate.nll_images >= 1000
    assert one.cost.cpu_seconds_per_epoch or one.cost.gpu_minutes
    for target in one.targets:
        assert listed(target.metric)
        stated = re.fullmatch(r"nll_iwae_(\d+)", target.metric)
        if stated:
            assert int(stated[1]) == config.evaluate.nll_samples, "k is stated, and it is the one that is measured"
            said = f"{one.protocol} {target.name}"
            assert f"{int(stated[1]):,} importance samples" in said or f"k = {stated[1]}" in said
    if config.data.binarise == "dynamic":
        assert "drawn once" in one.protocol, "fixed test bits are said to be"


def test_bands_hold_the_published_value() -> None:
    for name, one in recipes().items():
        for target in one.targets:
            assert target.band[0] <= target.value <= target.band[1], name


@pytest.mark.parametrize("name", RUNNABLE)
def test_what_a_recipe_trains_by_stands_in_the_recipe(name: str) -> None:
    # A registry's entry has training defaults of its own; none may slip into what a paper did.
    from zoo.config import TrainConfig

    one, usual = RUNNABLE[name], TrainConfig().model_dump()
    train = one.run_config(0).train.model_dump()
    slipped = {key for key, value in train.items() if value != usual[key]} - one.config["train"].keys()
    assert not slipped


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_decoder_is_said_to_begin_at_the_mean_image_exactly_where_it_does(name: str) -> None:
    import torch

    from zoo.models import build, data_spec
    from zoo.registry import registry

    one = RUNNABLE[name]
    config = one.run_config(0)
    spec = data_spec(config.data.name, config.data.binarise)
    model = build(registry().variants[config.variant], spec, config.model)
    x = (torch.rand(32, *spec.shape) < 0.3).float()
    model.initialise(x, torch.zeros(32, dtype=torch.long) if spec.classes else None)
    mean = x.mean(0).clamp(0.001, 0.999).logit().flatten()
    begins = any(p.numel() == mean.numel() and torch.allclose(p.flatten(), mean) for p in model.parameters())
    assert begins == any(re.search("begins at the mean( image| of)", said) for said in one.departures)


@pytest.mark.parametrize("name", recipe.files()["vampprior"].recipes)
def test_log_variances_are_said_to_be_clamped_wider_than_the_official_code_s_exactly_where_they_are(name: str) -> None:
    import torch

    from zoo.models import build, data_spec
    from zoo.registry import registry

    one = RUNNABLE[name]
    config = one.run_config(0)
    model = build(registry().variants[config.variant], data_spec("mnist", "dynamic"), config.model)
    infer = getattr(model, "infer_upper", None) or model.infer
    found = infer(10_000.0 * torch.ones(1, 1, 28, 28)).log_variance
    wider = bool(found.min() < -6.0 or found.max() > 2.0)
    assert wider == any("clamped to [-20, 20], theirs to [-6, 2]" in said for said in one.departures)


def test_seeded_settings_take_the_seed() -> None:
    one = RUNNABLE["m2_100_labels"]
    assert [one.run_config(seed).data.options["label_seed"] for seed in (0, 3)] == [0, 3]


def test_the_schedule_of_burda_is_written_out_right() -> None:
    train = RUNNABLE["iwae_1l_k5"].run_config(0).train
    assert [length for length, _ in train.stages] == [3**i for i in range(8)]
    assert [rate for _, rate in train.stages] == pytest.approx([1e-3 * 10 ** (-i / 7) for i in range(8)], rel=1e-5)
    assert train.epochs == 3280 and train.batch_size == 20 and train.epsilon == 1e-4 and train.keep == "last"


def test_a_misspelt_recipe_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'iwae_1l_k5'"):
        recipe.recipe_named("iwae-1l-k55")


def test_training_never_sees_the_test_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dataclasses import replace

    import torch

    from zoo import runs
    from zoo.data.synthetic import load_synthetic
    from zoo.training.precision import choose

    images = load_synthetic(256, 64, 64).prepare("dynamic")
    test = replace(images["test"], pixels=255 - images["test"].pixels)
    other = replace(images, splits=images.splits | {"test": test})
    weights = []
    for name, shown in (("one", images), ("other", other)):
        monkeypatch.setattr(runs, "load_images", lambda config, shown=shown: shown)
        config = toy(config={"train": {"epochs": 3, "batch_size": 64, "patience": 1}}).run_config(0)
        weights.append(runs.train_run(config, tmp_path / name, choose("cpu")).model.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


# ---- the page and the command ----------------------------------------------------------------------------------------


def test_the_page_says_everything_of_a_recipe() -> None:
    one = toy(seeds=[0, 1])
    files = {"toys": RecipeFile.model_validate({"schema": 1, "paper": "Toys", "recipes": {"toy": one}})}
    text = page(files, [made(one, 0, -100.0), made(one, 1, -101.0)])
    row = next(line for line in text.splitlines() if line.startswith("| `zoo reproduce toy`"))
    for part in ("A toy: elbo", "-100.0 (R)", "-100.50 ± 0.50", "2 seeds", "-0.5", "**reproduced**", "a CPU", "0.5"):
        assert part in row, part
    assert "Of 1 published numbers: 1 reproduced, 0 close, 0 not, 0 not run." in text
    assert "Departs from the paper: the data is made up." in text
    assert "not run: no record yet" in page(files, [])
    dirty = made(one, 1, -101.0)
    state = {"git_commit": "4067a85" + 33 * "0", "git_dirty": True}
    dirty = dirty.model_copy(update={"environment": dirty.environment.model_copy(update=state)})
    told = "- `toy`: seed 1 ran on code with changes after 4067a85 that are in no commit."
    assert told in page(files, [made(one, 0), dirty]).splitlines() and "no commit" not in text


def test_what_a_recipe_gave_with_other_settings_stays_on_the_page() -> None:
    before, now = toy(), toy(config=toy().config | {"train": {"epochs": 2, "batch_size": 64}})
    files = {"toys": RecipeFile.model_validate({"schema": 1, "paper": "Toys", "recipes": {"toy": now}})}
    records = [made(before, 0, -104.0), made(now, 0, -100.5)]
    text = page(files, records)
    assert "- `toy` before, with `train.epochs=1`: elbo -104.00 ± 0.50 (not)." in text
    assert "**reproduced**" in text and text.count("-104") == 1
    assert "before, with" not in page(files, records[1:])
    files = {"toys": RecipeFile.model_validate({"schema": 1, "paper": "Toys", "recipes": {"toy": toy(version="2")}})}
    assert "- `toy` before, with version 1 of the recipe: elbo -104.00 ± 0.50 (not)." in page(files, records[:1])


def test_a_miss_stays_on_the_page_whatever_seeds_the_recipe_has_now() -> None:
    def said(one: Recipe) -> str:
        files = {"toys": RecipeFile.model_validate({"schema": 1, "paper": "Toys", "recipes": {"toy": one}})}
        return page(files, [made(toy(), 0, -104.0)])

    told = "elbo -104.00 ± 0.50 (not)."
    assert f"- `toy` before, with seeds that are not the recipe's: {told}" in said(toy(seeds=[1, 2]))
    assert "not run: only of seeds that are not the recipe's (0)" in said(toy(seeds=[1, 2]))
    for seeds in ([1, 2], [0, 1, 2]):
        assert f"- `toy` before, with version 1 of the recipe: {told}" in said(toy(seeds=seeds, version="2"))


def test_the_committed_page_is_that_of_the_committed_records() -> None:
    board = ROOT / "leaderboard"
    records = record.read_all(board / "reproductions" / "records")
    assert (board / "REPRODUCTION.md").read_text() == page(recipe.files(), records)


def test_reproduce_trains_evaluates_judges_and_leaves_what_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    text = {"schema": 1, "paper": "Toys", "recipes": {"toy": toy().model_dump(mode="json", exclude_unset=True)}}
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "toys.yaml").write_text(json.dumps(text))
    assert read_yaml(folder / "toys.yaml", RecipeFile).recipes["toy"] == toy()
    monkeypatch.setattr(recipe, "FOLDER", folder)
    recipe.files.cache_clear()
    monkeypatch.chdir(tmp_path)

    def zoo(*words: str) -> tuple[int, str]:
        return call(monkeypatch, capsys, *words)[:2]

    try:
        assert zoo("reproduce", "toy", "--plan") == (0, "zoo reproduce toy --seed 0\n")
        code, out = zoo("reproduce", "toy", "--wandb", "disabled", "--json")
        (row,) = json.loads(out)
        assert row["published"] == -100.0 and row["verdict"] == "not"
        assert row["difference"] == pytest.approx(row["ours"] + 100.0)
        (path,) = (tmp_path / "leaderboard" / "reproductions" / "records" / "toy@1").glob("*.json")
        before = path.read_text()
        _, out = zoo("reproduce", "toy")
        assert path.read_text() == before and "not" in out and "REPRODUCTION.md" in out
        written = (tmp_path / "leaderboard" / "REPRODUCTION.md").read_text()
        assert written == page(recipe.files(), record.read_all(path.parent.parent))
        assert zoo("reproduce", "--json")[1] == zoo("reproduce", "toy", "--json")[1]
        # A verdict is of the recipe's own seeds, whichever were asked for.
        assert json.loads(zoo("reproduce", "toy", "--seed", "7", "--wandb", "disabled", "--json")[1]) == [row]
        assert zoo("reproduce", "nonsense")[0] == 2
        assert zoo("reproduce", "toy", "nonsense")[0] == 2
        assert zoo("reproduce", "toy", "toy", "--plan")[1] == "zoo reproduce toy --seed 0\n"
    finally:
        monkeypatch.undo()
        recipe.files.cache_clear()
