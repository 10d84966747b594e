"""The rate of each group of latents: that the groups add up, that each has its own numbers, and where it is shown."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import evaluated, record
from benchmarks.check.shapes import _groups_of
from benchmarks.check.verdict import Wrong
from benchmarks.evaluate import Evaluation
from benchmarks.evaluation.groups import group_rates, with_active
from benchmarks.export import _measured
from benchmarks.metrics.likelihood import active_units, bound, codes
from benchmarks.record import GroupRate, parse
from benchmarks.report.html.page import page
from benchmarks.running.watch import Watchers
from tests.conftest import ROOT
from tests.test_board import make
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from tests.test_html import Elements
from zoo import create_model, list_models, noise
from zoo.config import resolve
from zoo.data.batches import Batches
from zoo.data.images import DataSpec, Images
from zoo.distributions.gaussians import gaussian
from zoo.errors import ZooError
from zoo.models.base import VAE, Settings, Terms

SPEC = DataSpec((1, 16, 16), "binary", classes=10)
#: Variants whose latents are several groups, with what these are called and how many dimensions of the code each has.
SEVERAL = {
    "hvae": {"1": 50, "2": 100}, "hvamp_vae": {"1": 40, "2": 30}, "joint_vae": {"z": 10, "c": 5},
    "ladder_vae": {"1": 4, "2": 8, "3": 16, "4": 32, "5": 64}, "m2": {"y": 10, "z": 50},
    "nvae_lite": {"1": 8, "2": 8, "3": 32, "4": 32}, "two_stage_vae": {"u": None, "z": None},
    "vq_vae_2": {"top": 64, "bottom": 256},
}  # fmt: skip
SMALL = {
    "hamiltonian_vae": {"steps": 1}, "hvamp_vae": {"lower": 30}, "joint_vae": {"classes": 5},
    "nvae_lite": {"latent": 2, "channels": 4, "groups_per_scale": 2},
}  # fmt: skip
SUITE = """
schema: 1
name: small
version: "1"
title: Small
summary: Untrained models.
datasets: [synthetic]
variants: [hvae, vae]
seeds: [0]
defaults:
  train: {epochs: 0}
  evaluate: {nll_samples: 2, nll_images: 4, quality_samples: 0, latent: "no"}
"""


class Told(VAE):
    """A variant whose rates (N, G) and code (N, D) are given; the images only say how many."""

    def __init__(self, rates: list[list[float]], code: list[list[float]]) -> None:
        super().__init__(SPEC, Settings())
        self.rates, self.code = torch.tensor(rates), torch.tensor(code)

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        return Terms(torch.zeros(len(x)), self.rates[: len(x)])


def images(n: int = 5) -> Batches:
    pixels = 255 * torch.randint(0, 2, (n, *SPEC.shape), dtype=torch.uint8)
    made = Images(pixels, labels=torch.arange(n) % SPEC.classes)
    return Batches(made, batch_size=n, drop_last=False, condition="class")


@pytest.mark.parametrize("name", list_models())
def test_the_groups_add_up_to_the_rate_and_their_dimensions_to_the_code(name: str) -> None:
    model, batches = create_model(name, data=SPEC, **SMALL.get(name, {})).eval(), images()
    found = bound(model, batches, 0, batch_size=2)
    made = group_rates(model, found.groups)
    assert [(one["name"], one["dimensions"]) for one in made] == [*SEVERAL.get(name, {}).items()]
    if not made:
        assert found.groups.shape[1] == int(model.bounds)
        return
    assert math.fsum(one["value"] for one in made) == pytest.approx(found.rate.mean().item(), rel=1e-9)
    ids, x, y = next(iter(batches.sequential(5)))
    with torch.no_grad(), noise.keyed(0, ids):
        assert torch.allclose(model.terms(x, y).rate.double().sum(1), found.rate, rtol=1e-5, atol=1e-6)
    assert torch.allclose(found.groups.sum(1), found.rate, rtol=1e-12)
    code = codes(model, batches)
    made = [GroupRate(**one) for one in with_active(made, model, code)]
    if name == "two_stage_vae":  # its code is z alone
        assert {one.active for one in made} == {None}
        return
    assert sum(one.dimensions for one in made) == code.shape[1]
    assert sum(one.active for one in made) == active_units(code, model.code_variance)


@torch.no_grad()
def test_the_part_of_the_code_that_a_group_has_is_of_its_own_latents() -> None:
    """Of the two whose code no other test takes apart by layers."""
    x = torch.randint(0, 2, (4, *SPEC.shape)).float()
    m2, hvae = (create_model(name, data=SPEC).eval() for name in ("m2", "hvae"))
    classes, _ = m2.represent(x).split(m2.group_sizes, 1)
    assert torch.equal(classes, m2.log_classes(x).exp())
    upper, lower = hvae.represent(x).split(hvae.group_sizes, 1)
    assert torch.equal(lower, gaussian(hvae.up[0](x.flatten(1))).mean)
    assert torch.equal(upper, gaussian(hvae.up[1](lower)).mean)


def test_each_group_has_its_own_mean_error_and_active_dimensions() -> None:
    # Three images; the dimensions of the code have the variances 1, 0, 0.25 and 0.0025.
    code = [[-1.0, 5.0, 0.0, 0.05], [0.0, 5.0, 0.5, 0.0], [1.0, 5.0, 1.0, 0.1]]
    model = Told([[1.0, 6.0], [2.0, 6.0], [3.0, 0.0]], code)
    model.group_sizes = (1, 3)
    found = bound(model, images(3), 0)
    made = with_active(group_rates(model, found.groups), model, model.code)
    assert [(one["name"], one["value"], one["dimensions"], one["active"]) for one in made] == [
        ("1", 2.0, 1, 1), ("2", 4.0, 3, 1),
    ]  # fmt: skip
    assert [one["stderr"] for one in made] == pytest.approx([1 / math.sqrt(3), 2.0])
    model.code_variance = torch.tensor([1000.0, 1.0, 1.0, 0.1])
    assert [one["active"] for one in with_active(made, model, model.code)] == [0, 2]
    # Of one image nobody knows what varies, and a mean of it has no error.
    alone = with_active(group_rates(model, found.groups[:1]), model, model.code[:1])
    assert [(one["value"], one["stderr"], one["active"]) for one in alone] == [(1.0, None, None), (6.0, None, None)]
    model.group_names, model.group_sizes = ("above", "below"), None
    assert [(one["name"], one["dimensions"]) for one in group_rates(model, found.groups)] == [
        ("above", None), ("below", None),
    ]  # fmt: skip


def test_a_layer_that_says_nothing_may_have_active_dimensions() -> None:
    model = create_model("nvae_lite", data=SPEC, latent=2, channels=4, scales=1, groups_per_scale=2).eval()
    with torch.no_grad():
        for parameter in model.posterior[1].parameters():
            parameter.zero_()  # posterior and prior are one
        model.prior[0][1].weight.mul_(100.0)  # and the prior follows what is above
    batches = images(16)
    above, below = with_active(group_rates(model, bound(model, batches, 0).groups), model, codes(model, batches))
    assert below["value"] == 0.0 < above["value"] and below["active"] > 0


@pytest.mark.parametrize(
    ("names", "sizes", "said"),
    [
        (("a",), None, "its rate has 2 groups, and its `group_names` 1"),
        ((), (1, 1, 1), "its rate has 2 groups, and its `group_sizes` 3"),
        ((), (1, 2), "its code has 2 dimensions, and its `group_sizes` add up to 3"),
    ],
)
def test_groups_that_are_others_than_those_of_the_rate_are_refused(names, sizes, said: str) -> None:
    model = Told([[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [1.0, 3.0]])
    model.group_names, model.group_sizes = names, sizes
    with pytest.raises(ZooError, match=said):
        with_active(group_rates(model, model.rates), model, model.code)
    with pytest.raises(Wrong, match="group_"):
        _groups_of(model, 2, 2)
    model.group_sizes = (1, 1)
    for names, wrong in ((("z 1", "z 2"), "'z 1' .* not a plain name"), (("a", "a"), "a name twice: a, a")):
        model.group_names = names
        with pytest.raises(Wrong, match=wrong):
            _groups_of(model, 2, 2)
    model.group_names = ("a", "b")
    _groups_of(model, 2, 2)
    assert len(with_active(group_rates(model, model.rates), model, model.code)) == 2


def test_a_record_keeps_them_and_one_of_before_is_written_as_it_was() -> None:
    before = make("hvae", numbers={"rate": 3.0})
    assert '"rates"' not in record.dump(before)
    rates = [GroupRate(name="1", value=1.0, stderr=0.5, dimensions=2, active=1), GroupRate(name="2", value=2.0)]
    after = before.model_copy(update={"rates": rates})
    text = record.dump(after)
    assert parse(json.loads(text)) == after and record.dump(parse(json.loads(text))) == text
    with pytest.raises(ZooError, match="two groups of `rates` have one name"):
        parse(json.loads(text) | {"rates": [{"name": "1", "value": 1.0}, {"name": "1", "value": 2.0}]})
    with pytest.raises(ZooError, match="rates.0.value: .*not finite"):
        parse(json.loads(text) | {"rates": [{"name": "1", "value": math.nan}]})
    for more, wrong in (({"dimensions": 2, "active": 3}, "of 2 dimensions 3"), ({"active": 1}, "of no dimensions 1")):
        with pytest.raises(ZooError, match=f"rates.0: .*{wrong} are active"):
            parse(json.loads(text) | {"rates": [{"name": "1", "value": 1.0} | more]})


def test_the_page_shows_those_of_a_row_by_seed_and_nothing_where_there_are_none(tmp_path: Path) -> None:
    rows = [make("hvae", seed, numbers={"rate": 3.0}) for seed in (0, 1)]
    bare = page(rows, {}, tmp_path)
    assert "each group of latents" not in bare
    values = {0: (1.25, 40), 1: (1.75, 41)}
    rows = [
        one.model_copy(
            update={"rates": [GroupRate(name="upper", value=value, stderr=0.5, dimensions=50, active=active)]}
        )
        for one, (value, active) in zip(rows, values.values(), strict=True)
    ]
    text = page(rows, {}, tmp_path)
    (shown,) = [part for part in text.split("<h4>") if part.startswith("Rate of each group of latents")]
    for said in ("upper", "1.50 ± 0.50", "0.35", "50", "40, 41", "1.25 ± 0.50", "1.75 ± 0.50"):
        assert f">{said}<" in shown or f"</span>{said}<" in shown, said
    alone = page([rows[0], rows[1].model_copy(update={"rates": []})], {}, tmp_path)
    assert '<span class="muted">0: </span>1.25 ± 0.50<' in alone, "of which of two runs it is"
    assert {"region"} == {one["role"] for one in Elements(text).all("div") if "each group" in one.get("aria-label", "")}


def test_the_card_of_an_export_has_them() -> None:
    made = make("hvae", numbers={"rate": 3.0})
    assert "group of latents" not in "\n".join(_measured(made))
    first, second = GroupRate(name="z_1", value=1.5, stderr=0.25, dimensions=1000), GroupRate(name="z_2", value=2.0)
    shown = _measured(made.model_copy(update={"rates": [first, second]}))
    assert {"| z_1 | 1.5 | 0.25 |  | 1,000 |", "| z_2 | 2 |  |  |  |"} <= set(shown)


def test_weights_and_biases_has_a_flat_name_for_each(tmp_path: Path) -> None:
    class Seen:
        def log(self, *given: object) -> None:
            pass

        def finish(self, summary: dict[str, object]) -> None:
            self.summary = summary

    watchers, seen = Watchers("disabled", resolve("hvae", "synthetic"), tmp_path, "hvae", "run"), Seen()
    watchers.observer = seen
    rates = [{"name": name, "value": value, "active": active} for name, value, active in (("1", 2.0, 3), ("2", 4.0, 0))]
    found = Evaluation({"rate": {"value": 6.0}}, rates=rates)
    watchers.finish(found, {"train": {"steps": 0, "epochs": 0}, "curves": {}, "data": {"name": "synthetic"}})
    assert seen.summary == {
        "rate": 6.0, "rate/1": 2.0, "active_units/1": 3, "rate/2": 4.0, "active_units/2": 0,
    }  # fmt: skip


def test_a_cell_has_them_they_are_added_to_one_of_before_and_an_evaluation_has_them_too(zoo, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "small.yaml").write_text(SUITE)
    assert zoo("bench", "small.yaml", "--jobs", "1", "--wandb", "disabled")[0] == 0
    paths = {path.name.partition("-")[0]: path for path in (tmp_path / "leaderboard" / "records").rglob("*.json")}
    whole, single = (record.read(paths[name]) for name in ("hvae", "vae"))
    assert not single.rates and [one.name for one in whole.rates] == ["1", "2"]
    assert [one.dimensions for one in whole.rates] == [50, 100]
    assert math.fsum(one.value for one in whole.rates) == pytest.approx(whole.metrics["rate"].value)
    assert sum(one.active for one in whole.rates) == whole.metrics["active_units"].value
    before = whole.model_copy(update={"rates": []})
    paths["hvae"].write_text(record.dump(before))
    kept = paths["vae"].read_bytes()
    assert zoo("measure", "small.yaml", "rates")[0] == 0
    after = record.read(paths["hvae"])
    note = after.rates[0].note
    assert note.startswith("added by `zoo measure small.yaml rates`") and paths["vae"].read_bytes() == kept
    assert after == whole.model_copy(update={"rates": [one.model_copy(update={"note": note}) for one in whole.rates]})
    # They stay where something else is added.
    assert zoo("measure", "small.yaml", "clusters", "--variants", "hvae")[0] == 0
    more = record.read(paths["hvae"])
    assert more.rates == after.rates and more.metrics.keys() > after.metrics.keys()
    (folder,) = (tmp_path / "runs").rglob("hvae-*")
    code, out, _ = zoo("evaluate", str(folder), "--out", "again.json")
    again = evaluated.read(tmp_path / "again.json")
    assert code == 0 and again.rates == whole.rates == again.as_record("hvae").rates
    (line,) = [line for line in out.splitlines() if line.startswith("2 ")]
    assert line.split()[-2:] == [str(whole.rates[1].active), "100"]
    # A record that has them is left alone: its model need not be there.
    shutil.rmtree(folder)
    assert zoo("measure", "small.yaml", "rates", "--variants", "hvae")[0] == 0


def test_a_run_of_its_own_shows_them_and_one_group_has_no_table(zoo) -> None:  # noqa: F811
    cheap = ("train.epochs=0", "evaluate.nll_samples=0", "evaluate.quality_samples=0", "evaluate.latent=no")
    words = ["--data", "synthetic", "--wandb", "disabled", *(word for one in cheap for word in ("--set", one))]
    code, out, _ = zoo("train", "hvae", *words)
    shown = [line.split() for line in out.splitlines()]
    assert code == 0 and ["1", "50"] in [[line[0], line[-1]] for line in shown if line]
    code, out, _ = zoo("train", "vae", *words)
    assert code == 0 and "ELBO" in out and "group" not in out


def test_the_groups_of_the_committed_records_add_up_as_those_that_are_measured_do() -> None:
    found = [one for one in record.read_all(ROOT / "leaderboard" / "records") if one.rates]
    assert {one.cell.variant for one in found} == SEVERAL.keys()
    for one in found:
        assert math.fsum(group.value for group in one.rates) == pytest.approx(one.metrics["rate"].value, rel=1e-6)
        assert [group.name for group in one.rates] == [*SEVERAL[one.cell.variant]]
        if one.cell.variant != "two_stage_vae":
            assert sum(group.active for group in one.rates) == one.metrics["active_units"].value


def test_what_is_committed_is_written_as_it_was() -> None:
    paths = sorted((ROOT / "leaderboard" / "records").glob("mnist@1/*.json"))
    assert len(paths) > 8
    for path in paths[::8]:
        assert record.dump(record.read(path)) == path.read_text()
    paths = sorted((ROOT / "leaderboard" / "evaluations").glob("densities/*.json"))
    assert len(paths) > 3
    for path in paths:
        assert evaluated.dump(evaluated.read(path)) == path.read_text()
