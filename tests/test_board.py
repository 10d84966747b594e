"""The leaderboard: what may share a column, what is bold, what stands in a gap, what foreign text may do."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.catalogue import GAPS
from benchmarks.record import Metric, Record, cell_key, parse
from benchmarks.report import notation, provenance, short, terminal
from benchmarks.report.against import against
from benchmarks.report.compare import _T90, _T95, Estimate, best, differ, estimate, ranks
from benchmarks.report.figures import grid
from benchmarks.report.markdown import board
from benchmarks.report.tables import recipe, tables
from zoo.config import LATER, NEUTRAL, RunConfig
from zoo.errors import UsageError
from zoo.registry import Paper, Published, VariantEntry

ROOT = Path(__file__).resolve().parent.parent
FD = {"identity": {"extractor": "digits", "sha256": "ab12", "split": "test"}}
HOSTILE = "a | b\n| <script>alert(1)</script> `*_[x](y)_*` @team #1 &amp; $x$ \\"


def metric(name: str, value: float, stderr: float | None = None, **changes: Any) -> dict[str, Any]:
    nats = name.startswith(("elbo", "nll", "rate", "distortion"))
    better = {"elbo": "higher", "mig": "higher", "rate": None, "active_units": None}.get(name, "lower")
    return {
        "value": value, "stderr": stderr, "n": 10_000, "unit": "nats" if nats else "", "better": better,
        "identity": {"split": "test"}, "note": None, **changes,
    }  # fmt: skip


def make(variant: str, seed: int = 0, *, numbers: Any = (), settings: Any = (), **changes: Any) -> Record:
    """A record with ``numbers`` (name -> value, (value, stderr) or (value, stderr, changes))."""
    config = {"variant": variant, "seed": seed, "train": {"learning_rate": 0.001}, **dict(settings)}
    measured = {}
    for name, given_ in dict(numbers).items():
        value, stderr, more = (*given_, None, {})[:3] if isinstance(given_, tuple) else (given_, None, {})
        measured[name] = metric(name, value, stderr, **(more or {}))
    content: dict[str, Any] = {
        "schema": 2,
        "status": "done",
        "cell": {
            "suite": "quick", "version": "1", "variant": variant, "dataset": "mnist", "seed": seed,
            "key": cell_key(config),
        },
        "command": f"zoo train {variant} --data mnist --seed {seed}",
        "config": config,
        "when": "2025-11-22T18:00:00+00:00",
        "data": {
            "name": "mnist", "sha256": "cd" * 32, "binarise": "dynamic", "test_bits_seed": 777,
            "support": "binary", "n": {"train": 50000, "validation": 10000, "test": 10000},
        },
        "model": {"parameters": 1_234_567, "class": "zoo.models:X", "conditional": False},
        "metrics": measured,
        "train": {
            "steps": 100, "epochs": 3, "images_per_second": 12345.6, "peak_memory_bytes": 123_000_000,
        },
        "seconds": {"total": 61.25},
        "environment": {
            "git_commit": "0123456789abcdef", "git_dirty": False, "python": "3.11.4", "torch": "2.9.0",
            "device": "A GPU", "device_kind": "cuda", "precision": "bf16", "numpy": "2.3",
        },
    }  # fmt: skip
    for path, value in changes.items():
        *sections, last = path.split("__")
        place = content
        for section in sections:
            place = place[section]
        place[last] = value
    return parse(copy.deepcopy(content))


def failed(variant: str, seed: int = 0, status: str = "failed", reason: str = "out of memory") -> Record:
    return make(variant, seed, status=status, reason=reason, model=None, train=None, data=None)


ENTRIES = {
    "vae": VariantEntry(
        target="a:B", title="VAE",
        paper=Paper(title="AEVB", authors="Kingma", year=2014, url="https://arxiv.org/abs/1312.6114"),
        published=(
            Published(dataset="mnist", metric="nll", value=84.45, source="a table", mark="2", note="longer"),
            Published(
                dataset="mnist", metric="elbo", value=-90.0, stderr=0.1, source="https://a.b/c", mark="R",
                same_recipe=True,
            ),
            Published(dataset="celeba", metric="fid", value=50.0, source="elsewhere", mark="R"),
        ),
    ),
}  # fmt: skip

ZOO = [
    make("vae", 0, numbers={"elbo": (-90.0, 0.2), "nll_iwae_5000": (86.0, 0.2), "fd_digits": (12.0, 0.1, FD)},
         figures={"samples": "assets/quick@1/vae-mnist-s0-x-samples.png"}),
    make("vae", 1,
         numbers={"elbo": (-90.2, 0.2), "nll_iwae_5000": (86.2, 0.2), "fd_digits": (12.4, 0.1, FD)}),
    make("beta_vae", 0, environment__git_dirty=True,
         numbers={"elbo": (-99.0, 0.2), "nll_iwae_64": (95.0, 0.2),
                  "fd_digits": (9.0, 0.1, {**FD, "n": 500})}),
    make("cvae", 0, numbers={"elbo": (-70.0, 0.2), "fd_digits": (2.0, 0.1, FD)},
         skipped={"nll_iwae_5000": "needs p(x)"}, model__conditional=True),
    failed("vq_vae", reason="CUDA out of memory"),
    make("iwae", 0, status="diverged", reason="the loss is not finite"),
]  # fmt: skip


def parsed(text: str, start: str = "variant") -> list[dict[str, str]]:
    """The tables of a Markdown text whose first head is ``start``, as one list of rows."""
    found, head = [], None
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if head is None:
            head = cells
            continue
        assert len(cells) == len(head), f"a broken row: {line}"
        if head[0] == start and not set("".join(cells)) <= set(":- "):
            found.append(dict(zip(head, cells, strict=True)))
    return found


def shown(records: list[Record], entries: Any = None) -> dict[str, dict[str, str]]:
    """variant -> its row of the (only) head table."""
    rows = [row for row in parsed(board(records, entries or {})) if "seeds" in row]
    return {re.sub(r"^\[(.*?)\].*", r"\1", row["variant"]).removesuffix(" †"): row for row in rows}


def cells(row: dict[str, str], start: str) -> list[str]:
    return [cell for head, cell in row.items() if head.startswith(start)]


# --- the page ---


def test_the_same_records_make_the_same_bytes_in_any_order() -> None:
    page = board(ZOO, ENTRIES)
    for seed in range(5):
        again = ZOO.copy()
        random.Random(seed).shuffle(again)
        assert board(again, ENTRIES) == page
    code = "from tests.test_board import *; sys.stdout.buffer.write(board(ZOO, ENTRIES).encode())"
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert run.stdout.decode() == page, run.stderr.decode()


def test_no_cell_is_blank() -> None:
    rows = parsed(board(ZOO, ENTRIES))
    assert len(rows) >= 5
    assert all(cell for row in rows for cell in row.values())


def test_every_variant_has_its_row_linked_to_its_paper() -> None:
    rows = shown(ZOO, ENTRIES)
    assert set(rows) == {"vae", "beta_vae", "cvae", "vq_vae", "iwae"}
    assert rows["vae"]["variant"] == "[vae](https://arxiv.org/abs/1312.6114)"
    assert rows["beta_vae"]["variant"] == "beta_vae"


def test_seeds_share_a_row_with_both_errors() -> None:
    row = shown(ZOO)["vae"]
    assert cells(row, "ELBO")[0].strip("*") == "-90.10 ± 0.20 [0.14, 2 seeds]"
    assert row["seeds"] == "0, 1"
    assert cells(shown(ZOO)["beta_vae"], "ELBO") == ["-99.00 ± 0.20"]


def test_k_stands_in_the_head_and_two_k_never_share_a_column() -> None:
    rows = shown(ZOO)
    heads = [head for head in rows["vae"] if head.startswith("NLL")]
    assert [head.split(")")[0] for head in heads] == ["NLL (k = 64", "NLL (k = 5000"]
    assert rows["vae"][heads[0]] == "not measured" and rows["beta_vae"][heads[1]] == "not measured"


def test_a_different_identity_is_a_different_column() -> None:
    rows = shown(ZOO)
    heads = [head for head in rows["vae"] if head.startswith("fd_digits")]
    assert len(heads) == 2 and "n=500" in heads[0] and "n=10000" in heads[1]
    assert rows["beta_vae"][heads[0]] == "9.00 ± 0.10"
    assert rows["beta_vae"][heads[1]].startswith("see column")
    page = board(ZOO, {})
    for head, n in zip(heads, (500, 10000), strict=True):
        (note,) = [line for line in page.splitlines() if line.startswith(head[-1] + " ")]
        assert f"n = {n}" in note and "extractor = digits" in note and "sha256 = ab12" in note


@pytest.mark.parametrize(
    "change", [{"identity": {"split": "validation"}}, {"n": 100}, {"unit": "bits/dim"}, {"identity": {}}]
)
def test_any_part_of_an_identity_separates(change: dict[str, Any]) -> None:
    pair = [make("a", numbers={"elbo": (-1.0, 0.1)}), make("b", numbers={"elbo": (-2.0, 0.1, change)})]
    assert all(len(cells(row, "ELBO")) == 2 for row in shown(pair).values())
    assert "**" not in board(pair, {}).split("## quick")[1], "nothing is ranked across identities"


def test_other_data_is_another_table() -> None:
    pair = [
        make("a", numbers={"elbo": -1.0}), make("b", numbers={"elbo": -2.0}, data__sha256="ef" * 32),
        make("c", numbers={"elbo": -3.0}, data__test_bits_seed=3), failed("d"),
    ]  # fmt: skip
    found = tables(pair)
    assert sorted(sorted(row.variant for row in table.rows) for table in found) in (
        [["a", "d"], ["b"], ["c"]], [["a"], ["b", "d"], ["c"]], [["a"], ["b"], ["c", "d"]],
    )  # fmt: skip
    assert len(re.findall(r"^### mnist \(set \d\)$", board(pair, {}), re.M)) == 3
    assert board(pair, {}).count(notation.SETS) == 3 and notation.SETS not in board(pair[:1], {})


@pytest.mark.parametrize("rule", ["dynamic", "none"])
def test_a_cell_that_failed_stands_with_older_records_that_asked_for_the_same_data(rule: str) -> None:
    # Those of before there was a setting of the data have not its default.
    pair = [
        make("a", settings={"data": {"binarise": "dynamic"}}),
        make("b", settings={"data": {"binarise": "none"}}, data__binarise="none", data__support="8-bit"),
    ]
    asked = {"data": {"binarise": rule} | LATER["data"]}
    lost = make("c", settings=asked, status="failed", reason="no", model=None, train=None, data=None)
    (found,) = [table for table in tables([*pair, lost]) if "c" in {row.variant for row in table.rows}]
    assert found.data.binarise == rule


def test_dequantised_plain_and_binarised_bytes_are_three_tables_and_cannot_be_compared() -> None:
    grey = {"data__binarise": "none", "data__test_bits_seed": None, "data__support": "8-bit"}
    noisy = {"data__binarise": "none", "data__support": "dequantised"}
    identity = {"identity": {"split": "test", "dequantised": "uniform"}}
    made = [
        make("a", numbers={"elbo": (-90.0, 0.1)}), make("b", numbers={"elbo": (-1500.0, 0.1)}, **grey),
        make("c", numbers={"elbo": (-1900.0, 0.1, identity)}, **noisy),
    ]  # fmt: skip
    found = {table.data.support: table for table in tables(made)}
    assert {name: [row.variant for row in table.rows] for name, table in found.items()} == {
        "binary": ["a"], "8-bit": ["b"], "dequantised": ["c"]
    }  # fmt: skip
    assert "dequantised (noise on test bytes of seed 777)" in provenance.data(found["dequantised"])
    assert "binary, dynamic binarisation (test bits of seed 777)" in provenance.data(found["binary"])
    for pair in ("ab", "ac", "bc"):
        with pytest.raises(UsageError, match="no number that both"):
            against(made, *pair)


def test_a_density_that_a_variant_s_codes_have_none_of_is_missing_for_that_reason_in_every_column() -> None:
    # As records have it that were asked for the digits' features alone.
    gpu, discrete = "no GPU; ask for it", "its codes are discrete"
    fid = {"fid": gpu, "fid_ex_post": gpu, "fd_efficientnet_lite0_ex_post": "needs colour images"}
    both = {"fd_digits_ex_post": (3.0, 0.1, FD), "fid_bf16_ex_post": (20.0, 0.1)}
    made = [
        make("a", numbers={"fd_digits": (5.0, 0.1, FD), **both}, skipped=fid),
        make("b", numbers={"fd_digits": (6.0, 0.1, FD)}, skipped=fid | {"fd_digits_ex_post": discrete}),
        make("c", numbers={"fd_digits": (7.0, 0.1, FD), "fd_digits_ex_post": (4.0, 0.1, FD)}, skipped=fid),
    ]
    (table,) = tables(made)
    gaps = {
        (row.variant, column.metric): cell.reason
        for row in table.rows for column, cell in row.cells.items() if hasattr(cell, "reason")
    }  # fmt: skip
    assert gaps[("b", "fd_digits_ex_post")] == gaps[("b", "fid_bf16_ex_post")] == discrete
    assert gaps[("c", "fid_bf16_ex_post")] == gpu


def test_so_is_a_flow_of_codes_and_what_keeps_the_mixture_away_is_another_matter() -> None:
    few, discrete = "too few codes for a flow", "its codes are discrete"
    flows = {"fd_digits_ex_post_flow": (3.0, 0.1, FD), "fid_bf16_ex_post_flow": (20.0, 0.1)}
    made = [
        make("a", numbers={"fd_digits": (5.0, 0.1, FD), **flows}),
        make("b", numbers={"fd_digits": (6.0, 0.1, FD)}, skipped={"fd_digits_ex_post_flow": few}),
        make("c", numbers={"fd_digits": (7.0, 0.1, FD)}, skipped={"fd_digits_ex_post": discrete}),
    ]
    (table,) = tables(made)
    gaps = {
        (row.variant, column.metric): cell.reason
        for row in table.rows for column, cell in row.cells.items() if hasattr(cell, "reason")
    }  # fmt: skip
    assert gaps[("b", "fd_digits_ex_post_flow")] == gaps[("b", "fid_bf16_ex_post_flow")] == few
    assert discrete not in (gaps[("c", "fd_digits_ex_post_flow")], gaps[("c", "fid_bf16_ex_post_flow")])


def test_speeds_of_two_machines_do_not_share_a_column() -> None:
    rows = shown([make("a"), make("b", environment__device="another GPU")])
    assert all(len(cells(row, "images/s")) == 2 for row in rows.values())
    assert len(cells(shown([make("a"), make("b")])["a"], "images/s")) == 1


def test_a_recipe_is_a_row_and_its_settings_are_named() -> None:
    pair = [make("a", 0), make("a", 1), make("a", 2, settings={"train": {"learning_rate": 0.5}})]
    rows = shown(pair)
    assert len(rows) == 2 and {row["seeds"] for row in rows.values()} == {"0, 1", "2"}
    # One setting stands in the name; of several there is the beginning of a key there, and a line below the table.
    assert "a (train.learning_rate=0.5)" in rows and "Digits after a name" not in board(pair, {})
    two = [*pair[:2], make("a", 2, settings={"train": {"learning_rate": 0.5, "epochs": 3}})]
    assert "train.learning_rate = 0.5" in board(two, {}) and "seed = " not in board(two, {})
    assert not any("=" in name for name in shown(two))


def test_a_recipe_that_leaves_a_setting_to_the_variant_is_told_from_those_that_give_it() -> None:
    def names(*models: dict) -> set[str]:
        settings = [RunConfig(variant="a", model=model).model_dump(mode="json") for model in models]
        return set(shown([make("a", settings=one, numbers={"elbo": -1.0}) for one in settings]))

    assert names({"latent": 8}, {"latent": 8, "k": 5}) == {"a (k not given)", "a (k=5)"}
    assert names({}, {"k": 5}) == {"a (k not given)", "a (k=5)"}
    assert names({}, {"prior": {"name": "vamp"}}) == {"a (prior.name not given)", "a (prior.name=vamp)"}
    assert names({"prior": {}}, {"prior": {"name": "vamp"}}) == {"a (prior.name not given)", "a (prior.name=vamp)"}
    assert names({"told": None, "k": 1}, {"told": "shared", "k": 1}) >= {"a (told=shared)"}


def test_what_decides_no_number_makes_no_recipe() -> None:
    full = RunConfig(variant="a").model_dump(mode="json")
    config = RunConfig(variant="a", seed=1, train={"checkpoint_seconds": 1.0}, evaluate={"rows": 7})
    assert recipe(make("a", settings=full)) == recipe(make("a", settings=config.model_dump(mode="json")))
    # Exactly what `identity` leaves out or does not tell apart is neutral, or is the default of a setting that came
    # after the first records.
    identity = json.loads(json.dumps(RunConfig(variant="a").identity()))
    left_out = {(part, name) for part in full if isinstance(full[part], dict) for name in full[part]
                if name not in identity[part]}  # fmt: skip
    compiled = RunConfig(variant="a", train={"compile": True})
    assert compiled.identity() == identity and recipe(make("a", settings=compiled.model_dump(mode="json"))) == recipe(
        make("a", settings=full)
    )
    left_out.add(("train", "compile"))
    neutral = {tuple(path.split(".")) for path in NEUTRAL}
    assert left_out == neutral | {(section, name) for section, later in LATER.items() for name in later}
    old = {part: {name: value for name, value in full[part].items() if name not in LATER.get(part, {})}
           if isinstance(full[part], dict) else full[part] for part in full}  # fmt: skip
    assert old != full and recipe(make("a", settings=old)) == recipe(make("a", settings=full))
    asked = RunConfig(variant="a", evaluate={"cas": 100})
    assert recipe(make("a", settings=asked.model_dump(mode="json"))) != recipe(make("a", settings=full))
    assert asked.identity()["evaluate"]["cas"] == 100


def test_a_sweep_is_told_by_its_setting_where_some_records_are_older_than_others() -> None:
    new = RunConfig(variant="a", model={"k": 5}).model_dump(mode="json")
    old = {part: {name: value for name, value in new[part].items() if name not in LATER.get(part, {})}
           if isinstance(new[part], dict) else new[part] for part in new} | {"model": {"k": 1}}  # fmt: skip
    assert old.keys() == new.keys() and old["evaluate"] != new["evaluate"]
    pair = [make("a", settings=one, numbers={"elbo": -1.0}) for one in (old, new)]
    assert set(shown(pair)) == {"a (k=1)", "a (k=5)"}
    # What an older record does not name had its default.
    asked = new | {"model": {"k": 1}, "evaluate": new["evaluate"] | {"cas": 100}}
    pair = [make("a", settings=one, numbers={"elbo": -1.0}) for one in (old, asked)]
    assert set(shown(pair)) == {"a (evaluate.cas=0)", "a (evaluate.cas=100)"}


def test_a_skipped_family_explains_each_of_its_columns() -> None:
    pair = [make("a", skipped={"nll": "no density"}), make("b", numbers={"nll_iwae_64": 1.0})]
    assert cells(shown(pair)["a"], "NLL") == ["skip: no density"]
    assert "measured for none" not in board(pair, {})


@pytest.mark.parametrize("key", ["0" * 12, "f" * 12])
def test_a_seed_that_was_run_again_counts_once(key: str) -> None:
    old = make("a", numbers={"elbo": (-5.0, 0.1)}, cell__key=key)
    new = make("a", numbers={"elbo": (-3.0, 0.1)}, when="2025-11-23T18:00:00+00:00")
    assert cells(shown([new, old])["a"], "ELBO") == ["-3.00 ± 0.10"]
    assert f"a-mnist-s0-{key} is left out" in board([new, old], {})


def test_suites_and_versions_never_mix() -> None:
    page = board([make("a"), make("b", cell__version="2"), make("c", cell__suite="mnist")], {})
    assert re.findall(r"^## (.*)$", page, re.M) == ["mnist@1", "quick@1", "quick@2"]
    assert [len(table.rows) for table in tables([make("a"), make("b", cell__version="2")])] == [1, 1]


def test_no_records_is_a_page_too() -> None:
    assert "no records yet" in board([], {})


# --- what is not there ---


def test_failed_diverged_and_skipped_say_why() -> None:
    rows = shown(ZOO)
    assert cells(rows["vq_vae"], "ELBO") == ["failed: CUDA out of memory"]
    assert cells(rows["vq_vae"], "NLL") == ["failed", "failed"]
    assert cells(rows["iwae"], "ELBO") == ["diverged: the loss is not finite"]
    assert cells(rows["cvae"], "NLL (k = 5000)") == ["skip: needs p(x)"]
    assert "- vq_vae, seed 0, failed: CUDA out of memory" in board(ZOO, {})


def test_numbers_of_a_run_that_did_not_finish_are_not_shown() -> None:
    record = make("a", numbers={"elbo": (-1.5, 0.1)}, status="diverged", reason="nan")
    assert cells(shown([record, make("b", numbers={"elbo": (-9.0, 0.1)})])["a"], "ELBO") == ["diverged: nan"]


def test_a_mean_over_survivors_says_so_and_is_never_bold() -> None:
    good = [make("a", seed, numbers={"elbo": (-1.0 - seed / 100, 0.01)}) for seed in (0, 1)]
    other = make("b", numbers={"elbo": (-50.0, 0.01)})
    assert cells(shown([*good, other])["a"], "ELBO")[0].startswith("**")
    rows = shown([*good, failed("a", 2), other])
    assert rows["a"]["seeds"] == "0, 1, 2 failed"
    (cell,) = cells(rows["a"], "ELBO")
    assert "2 of 3 seeds" in cell and "**" not in cell
    assert "**" not in cells(rows["b"], "ELBO")[0], "and what it beats does not win either"


def test_all_failed_is_a_table_of_reasons() -> None:
    rows = shown([failed("a"), failed("b", reason="no such file")])
    assert cells(rows["b"], "ELBO") == ["failed: no such file"]


def test_a_picture_that_only_some_runs_left_out_is_not_said_to_be_nobody_s() -> None:
    left_out = [make("a", seed, numbers={"elbo": -1.0}, skipped={"tsne": "takes a while"}) for seed in (0, 1)]
    assert "tsne was measured for none" in board(left_out, {})
    left_out[0] = left_out[0].model_copy(update={"figures": {"tsne": "assets/one.png"}, "skipped": {}})
    assert "measured for none" not in board(left_out, {})


def test_what_none_has_is_said_below_and_takes_no_column() -> None:
    page = board([make("a", numbers={"elbo": -1.0}, skipped={"mig": "needs factors"})], {})
    assert "mig was measured for none: skip: needs factors." in page
    assert not any("MIG" in row for row in parsed(page))


# --- ranking ---


def test_a_conditional_model_is_marked_and_not_ranked_in_nats() -> None:
    rows = shown(ZOO)
    assert cells(rows["cvae"], "ELBO") == ["-70.00 ± 0.20 †"]
    assert rows["cvae"]["variant"] == "cvae †"
    assert cells(rows["vae"], "ELBO")[0].startswith("**"), "the best of those that are ranked"
    assert "† conditional on class, attributes or pixels" in board(ZOO, {})
    assert cells(rows["cvae"], "fd_digits (n=10000)") == ["**2.00 ± 0.10**"], "a distance is ranked"


@pytest.mark.parametrize(
    "name", ["elbo", "nll_iwae_64", "bits_per_dim", "reconstruction_loss", "rate", "distortion", *GAPS]
)
def test_nothing_of_x_given_y_is_ranked_with_what_is_of_x(name: str) -> None:
    numbers = {name: (1.0, 0.1), "fd_digits": (1.0, 0.1, FD)}
    (table,) = tables([make("vae", numbers=numbers), make("cvae", numbers=numbers, model__conditional=True)])
    ranked = {column.metric: {row.label for row in table.ranked(column)} for column in table.columns}
    assert ranked[name] == {"vae"} and ranked["fd_digits"] == {"cvae", "vae"}


def test_what_a_lost_run_cost_is_in_no_mean() -> None:
    lost = make("vae", 1, status="failed", reason="no", seconds__total=1.0, train__images_per_second=1.0)
    row = shown([make("vae", 0), lost])["vae"]
    assert cells(row, "seconds") == ["61.2"] and cells(row, "images/s") == ["12,346"]
    assert cells(shown([lost])["vae"], "seconds") == ["1.00"]


def test_the_page_says_what_an_error_is_of_where_samples_are_judged() -> None:
    page = " ".join(board(ZOO, {}).split())
    assert "where samples are judged (fd, FID, KID, precision and the like), with other samples" in page
    assert "With one seed each, another seed may turn it round." in page
    assert "Samples are each seed's own: where they are judged, e is in s too" in page


def test_a_tie_has_nothing_bold() -> None:
    pair = [make("a", numbers={"elbo": (-90.0, 0.2)}), make("b", numbers={"elbo": (-90.5, 0.2)})]
    assert all("**" not in cells(row, "ELBO")[0] for row in shown(pair).values())
    pair[1] = make("b", numbers={"elbo": (-91.0, 0.2)})
    assert cells(shown(pair)["a"], "ELBO") == ["**-90.00 ± 0.20**"]
    assert cells(shown(pair)["b"], "ELBO") == ["-91.00 ± 0.20"]


def test_a_number_without_error_wins_nothing() -> None:
    rows = shown([make("a", numbers={"elbo": -1.0}), make("b", numbers={"elbo": -99.0})])
    assert all("**" not in cell for row in rows.values() for cell in row.values())


def test_rows_are_in_the_order_of_the_first_ranked_column() -> None:
    order = [
        make(name, numbers={"elbo": (value, 0.1)}) for name, value in (("a", -3.0), ("b", -1.0), ("c", -2.0))
    ]
    assert list(shown([*order, failed("d")])) == ["b", "c", "a", "d"]


def test_grey_pixels_under_a_bernoulli_are_not_nats() -> None:
    pair = [
        make("a", numbers={"reconstruction_loss": (100.0, 0.1, {"unit": "nats"})}),
        make("b", numbers={"elbo": -1.0}),
    ]
    head = next(head for head in shown(pair)["a"] if head.startswith("reconstruction loss"))
    assert "nats" not in head
    assert "no likelihood of the data" in board(pair, {})
    assert cells(shown(pair)["a"], "ELBO") == ["not measured"]


def test_losses_under_two_likelihoods_share_no_column() -> None:
    pair = [
        make(name, numbers={"reconstruction_loss": (value, 0.1, {"unit": "", "identity": {"likelihood": name}})})
        for name, value in (("bernoulli", 114.0), ("continuous_bernoulli", -3000.0))
    ]
    rows = shown(pair)
    heads = [[head for head in row if head.startswith("reconstruction loss")] for row in rows.values()]
    assert all(len(found) == 2 for found in heads)
    for name, value in (("bernoulli", "114"), ("continuous_bernoulli", "3,000")):
        (mine,) = [row for label, row in rows.items() if label == name]
        assert sorted(value in mine[head] for head in heads[0]) == [False, True]


def near(a: Estimate, b: Estimate) -> float:
    """The distance of two numbers in units of their combined test-set error."""
    return abs(a.value - b.value) / math.hypot(a.stderr or 0.0, b.stderr or 0.0)


errors = st.floats(1e-3, 10.0)


@given(st.floats(-1e3, 1e3), errors, st.floats(-1e3, 1e3), errors)
def test_one_seed_each_is_the_rule_of_two_standard_errors(a: float, sa: float, b: float, sb: float) -> None:
    one, two = Estimate(a, sa, 10_000), Estimate(b, sb, 10_000)
    if abs(near(one, two) - 2.0) > 1e-6:
        assert differ(one, two) == differ(two, one) == (near(one, two) > 2.0)


def test_few_seeds_need_a_larger_gap_by_students_t() -> None:
    # 2 + 2 seeds, equal spread s, no test-set error: v = s^2, 2 degrees of freedom, t = 4.303 (a t table)
    def pair(gap: float) -> bool:
        return differ(Estimate(0.0, None, 1, 2, 1.0), Estimate(gap, None, 1, 2, 1.0))

    assert not pair(4.2) and pair(4.4)
    # 5 + 5 seeds: v = 2 s^2 / 5, 8 degrees of freedom, t = 2.306
    edge = 2.306 * math.sqrt(2 / 5)
    assert not differ(Estimate(0.0, None, 1, 5, 1.0), Estimate(edge - 0.01, None, 1, 5, 1.0))
    assert differ(Estimate(0.0, None, 1, 5, 1.0), Estimate(edge + 0.01, None, 1, 5, 1.0))


def runs(*values: float, stderr: float = 0.1) -> Estimate:
    return estimate([Metric(value=value, stderr=stderr, n=100, better="higher") for value in values])


def test_one_lost_run_is_no_tie_with_everything() -> None:
    good, lost = runs(-93.3, -93.2, -93.2), runs(-157.0, -162.0, -222.0)
    assert differ(good, lost) and differ(lost, good)
    assert ranks({"good": good, "lost": lost, "near": runs(-93.1, -93.4, -93.3)}, "higher") == {
        "good": 1, "lost": 3, "near": 1,
    }  # fmt: skip
    # Wide spreads whose runs mix, too few runs, and runs that only the test images tell apart are ties as before.
    assert not differ(runs(0.0, 1.0, 9.0), runs(8.0, 20.0, 90.0))
    assert not differ(runs(0.0, 1.0), runs(8.0, 90.0))
    assert not differ(runs(0.0, 1.0, 9.0, stderr=1.0), runs(10.0, 30.0, 90.0, stderr=1.0))


def test_a_single_run_beside_several_is_of_their_spread() -> None:
    # 3 runs of spread 1 and one more: v = s^2 (1 + 1/3), 2 degrees of freedom, t = 4.303 (a t table)
    several, edge = Estimate(0.0, None, 1, 3, 1.0), 4.303 * math.sqrt(4 / 3)
    for gap in (edge - 0.01, edge + 0.01):
        one = Estimate(gap, 1e-6, 10_000)
        assert differ(one, several) == differ(several, one) == (gap > edge)
    # Runs of one kind are called different about once in twenty times, however many there are on either side.
    generator = np.random.default_rng(0)
    for many in (2, 3, 10):
        wrong = 0
        for alone, *rest in generator.normal(0.0, 1.0, (1000, many + 1)):
            wrong += differ(runs(alone, stderr=0.01), runs(*rest, stderr=0.01))
        assert 20 < wrong < 80


def test_runs_of_any_finite_size_are_compared() -> None:
    lost, usual = runs(1e300, -1.0, -2.0), runs(-1.0, -2.0, -3.0)
    assert lost.spread == pytest.approx(1e300 / math.sqrt(3)) and not differ(lost, usual)
    assert differ(runs(1e-300, 1.1e-300, stderr=0.0), runs(9e-300, 9.1e-300, stderr=0.0))


@given(st.floats(0.0, 1.0), st.integers(1, 15), st.integers(2, 15))
@example(0.9998, 7, 2)
def test_equal_numbers_tie_however_many_runs_came_to_them(value: float, many: int, others: int) -> None:
    one, two = (estimate([Metric(value=value, n=10_000)] * seeds) for seeds in (many, others))
    assert one.value == value and not differ(one, two)


def test_the_quantiles_are_those_of_student_s_t() -> None:
    stats = pytest.importorskip("scipy.stats")
    for table, level in ((_T95, 0.975), (_T90, 0.95)):
        assert list(table[:-1]) == pytest.approx(stats.t.ppf(level, range(1, len(table))), abs=5.01e-4)
        assert table[-1] == pytest.approx(stats.norm.ppf(level), abs=0.05)


def test_the_threshold_is_that_of_welch() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    checked = 0
    for _ in range(200):
        a, b = (generator.normal(m, s, n) for m, s, n in ((0.0, 1.0, 3), (3.0, 0.3, 6)))
        test = stats.ttest_ind(a, b, equal_var=False)
        metrics = [[Metric(value=value, n=1) for value in values] for values in (a, b)]
        # Without the runs, which have a rule of their own.
        one, two = (dataclasses.replace(estimate(values), runs=()) for values in metrics)
        # Degrees of freedom are rounded down to look t up, so agreement is exact away from the threshold.
        if not 0.03 < test.pvalue < 0.05:
            assert differ(one, two) == (test.pvalue < 0.05), test
            checked += 1
    assert checked > 100


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), errors), min_size=1, max_size=5))
def test_an_estimate_keeps_the_two_errors_apart(seeds: list[tuple[float, float]]) -> None:
    one = estimate([Metric(value=value, stderr=stderr, n=10) for value, stderr in seeds])
    values, stderrs = zip(*seeds, strict=True)
    assert one.value == pytest.approx(np.mean(values), abs=1e-9)
    assert one.stderr == pytest.approx(np.mean(stderrs))
    assert one.spread == (pytest.approx(np.std(values, ddof=1), abs=1e-6) if len(seeds) > 1 else None)


@pytest.mark.parametrize(("stderrs", "stderr"), [((0.0, 0.3), 0.15), ((None, 0.3), None), ((0.0, 0.0), 0.0)])
def test_an_error_of_nought_is_one_and_a_missing_one_leaves_none(
    stderrs: tuple[float | None, ...], stderr: float | None
) -> None:
    assert estimate([Metric(value=1.0, stderr=one, n=10) for one in stderrs]).stderr == stderr


@given(st.dictionaries(st.integers(0, 5), st.tuples(st.floats(-100, 100), errors), max_size=5))
def test_the_best_is_better_than_all_others_beyond_the_errors(
    numbers: dict[int, tuple[float, float]],
) -> None:
    estimates = {key: Estimate(value, stderr, 10_000) for key, (value, stderr) in numbers.items()}
    winner = best(estimates, "lower")
    beats = [
        key for key, one in estimates.items()
        if len(estimates) > 1
        and all(one.value < two.value and differ(one, two) for i, two in estimates.items() if i != key)
    ]  # fmt: skip
    assert beats == ([] if winner is None else [winner])
    flipped = {key: Estimate(-one.value, one.stderr, one.n) for key, one in estimates.items()}
    assert best(flipped, "higher") == winner
    assert best(estimates, None) is None


# --- numbers of others, provenance ---


def test_published_numbers_stand_beside_ours() -> None:
    rows = parsed(board(ZOO, ENTRIES))
    published = {row["metric"]: row for row in rows if "published" in row}
    assert set(published) == {"nll", "elbo"}, "a number for another data set is not shown"
    assert published["nll"]["ours"].startswith("NLL (k = 5000) ↓ (nats): 86.10 ± 0.20")
    assert published["nll"]["recipe"] == "**not the same recipe**: longer"
    assert published["nll"]["published"] == "84.45" and published["nll"]["source"] == "a table (2)"
    assert published["elbo"]["recipe"] == "same recipe" and published["elbo"]["published"] == "-90.00 ± 0.10"
    assert published["elbo"]["source"].startswith("[https://a.b/c](https://a.b/c)")


def test_entries_may_be_plain_mappings() -> None:
    assert board(ZOO, {name: entry.model_dump() for name, entry in ENTRIES.items()}) == board(ZOO, ENTRIES)


def test_pictures_of_codes_are_folded_away() -> None:
    place = "assets/quick@1/vae-mnist-s0-x-pca.png"
    page = board([make("vae", numbers={"elbo": -1.0}, figures={"pca": place}), make("b", numbers={"elbo": -2.0})], {})
    fold = page[page.index("principal components</summary>") :]
    assert f"![pca of vae, seed 0]({place})" in fold and "none of b." in fold[: fold.index("</details>")]
    assert "t-SNE" not in page


def test_samples_are_shown_by_relative_path() -> None:
    page = board(ZOO, ENTRIES)
    assert "![samples of vae, seed 0](assets/quick@1/vae-mnist-s0-x-samples.png)" in page
    assert "none of beta_vae, cvae, iwae, vq_vae" in page


def test_the_footer_says_what_made_the_numbers() -> None:
    page = board(ZOO, ENTRIES, command="zoo leaderboard --records here")
    for part in (
        "0123456789ab,", "0123456789ab (dirty)", "device A GPU", "precision bf16", "torch 2.9.0", "numpy 2.3",
        "6 records of 2025-11-22", "`zoo leaderboard --records here`", "sha256 cdcdcdcdcdcd",
        "`zoo train vae --data mnist --seed 1`", "test bits of seed 777",
    ):  # fmt: skip
        assert part in page, part


# --- foreign text ---


def test_foreign_text_breaks_neither_table_nor_page() -> None:
    records = [
        make("vae", numbers={"elbo": (-1.0, 0.1, {"note": HOSTILE, "identity": {HOSTILE: HOSTILE}})},
             environment__device=HOSTILE, command=HOSTILE, skipped={"mig": HOSTILE}),
        failed("b", reason=HOSTILE * 5),
        make("c", numbers={"elbo": -1.0}, skipped={"nll_iwae_5": HOSTILE}),
        make("d", numbers={"nll_iwae_5": 1.0}),
    ]  # fmt: skip
    entries = {
        "vae": {"title": HOSTILE, "paper": {"url": "https://a/b c|d)<e>\n"}, "published": [
            {"dataset": "mnist", "metric": "elbo", "value": 1.0, "source": HOSTILE, "mark": HOSTILE},
            {"dataset": "mnist", "metric": "elbo", "value": 2.0, "source": "https://a b|", "note": HOSTILE}]},
        "c": {"paper": {"url": "javascript:alert(1)"}},
    }  # fmt: skip
    page = board(records, entries, command=HOSTILE)
    rows = parsed(page)  # asserts that every row has as many cells as its head
    assert len([row for row in rows if "seeds" in row]) == 4
    without_code = re.sub(r"(`+).+?\1(?!`)", "", page)
    tags = set(re.findall(r"<[^>]*>", without_code))
    assert {tag for tag in tags if not tag.startswith("<!--")} <= {
        "<br>",
        "<details>",
        "</details>",
        "<summary>",
        "</summary>",
    }
    assert "javascript" not in page
    assert not re.search(r"(?<!\\)\[x\]", without_code), "no link out of foreign text"


@given(st.text())
def test_escaped_text_is_one_line_without_markup(text: str) -> None:
    line = notation.escape(text)
    assert line.isprintable() and "<" not in line and ">" not in line
    rest = re.sub(r"&(amp|lt|gt|#64);", "", line)
    assert "&" not in rest
    assert not re.search(r"(?<!\\)(\\\\)*[|`*\[\]~$#]", rest), "every special character has a backslash"


@given(st.text(st.sampled_from("`ab |\n"), min_size=1))
def test_a_code_span_ends_where_it_should(text: str) -> None:
    span = notation.code(text)
    fence = re.match(r"`+", span)
    assert fence and span.endswith(fence[0]) and "\n" not in span
    inside = span[len(fence[0]) : -len(fence[0])]
    assert fence[0] not in re.findall(r"`+", inside) and " ".join(inside.split()) == " ".join(text.split())


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (-90.2512, 0.2513, "-90.25 ± 0.25"), (1234.5, 12.3, "1,234 ± 12"), (12345.6, None, "12,346"),
        (0.001234, 0.000045, "0.001234 ± 0.000045"), (0.0, None, "0"), (-0.001, 1.0, "0.0 ± 1.0"),
        (5.0, 0.0, "5.000 ± 0"), (1e-9, None, "1.0e-09"), (3.0, 1e-9, "3.000 ± 1.0e-09"),
        (3.123456789, 2e-7, "3.123457 ± 2.0e-07"), (2e6, 2e-7, "2,000,000 ± 2.0e-07"),
        (1.23456, 0.0996, "1.23 ± 0.10"), (9.9996, None, "10.00"), (0.5, 9.96e-5, "0.50000 ± 0.00010"),
        (1e-7, 2e-8, "1.0e-07 ± 2.0e-08"), (9e15, None, "9,000,000,000,000,000"),
        (1.2345e17, None, "1.2e+17"), (-1.2346e17, 3e15, "-1.235e+17 ± 3,000,000,000,000,000"),
        (1.2345e17, 3e16, "1.23e+17 ± 3.0e+16"), (-90.25, 3e16, "-90 ± 3.0e+16"), (1e20, 2e-7, "1.0e+20 ± 2.0e-07"),
        (1e300, 1e300, "1.0e+300 ± 1.0e+300"),
    ],
)  # fmt: skip
def test_numbers_show_what_their_error_supports(value: float, stderr: float | None, text: str) -> None:
    assert notation.plus_minus(value, stderr) == text


@given(st.floats(-1e9, 1e9), st.floats(1e-5, 1e6))
def test_a_written_number_is_within_a_tenth_of_its_error(value: float, stderr: float) -> None:
    written, spread = (
        float(part.replace(",", "")) for part in notation.plus_minus(value, stderr).split(" ± ")
    )
    assert abs(written - value) <= max(0.06 * stderr, 0.5001)
    assert abs(spread - stderr) <= max(0.06 * stderr, 0.5001)


@given(st.floats(1e-2, 1e9), st.integers(2, 5))
def test_a_number_has_its_digits_after_rounding(value: float, digits: int) -> None:
    written = notation.number(value, digits)
    first = float(written.replace(",", ""))
    assert len(written.replace(",", "").replace(".", "").lstrip("0")) == max(digits, len(f"{first:.0f}"))
    assert abs(first - value) <= 0.5001 * value * 10.0 ** (1 - digits)


@given(st.floats(-1e3, 1e3), st.floats(1e-4, 9.4))
def test_an_error_has_two_digits(value: float, stderr: float) -> None:
    spread = notation.plus_minus(value, stderr).split(" ± ")[1]
    assert len(spread.replace(".", "").lstrip("0")) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(999, "999"), (999_499, "999 k"), (999_500, "1.00 M"), (9_996_000, "10.0 M"), (999_600_000, "1.00 G")],
)
def test_a_count_has_three_digits(value: int, text: str) -> None:
    assert notation.count(value) == text


# --- the terminal ---


def test_a_terminal_table_keeps_what_it_is_told_to() -> None:
    row = ["a long name of a metric", "-90.25", "3, 3", "a verdict of some length"]
    for width in (60, 44, 20):
        head, _, line = terminal.table([row], ["metric", "a variant", "seeds", "better"], width, " rkk").splitlines()
        assert line.split("  ", 1)[1].split() == ["-90.25", "3,", "3", *row[3].split()] and "better" in head
        assert len(line) <= max(width, 44)


@given(st.lists(st.lists(st.text(max_size=40), min_size=3, max_size=3), max_size=5), st.integers(24, 120))
def test_a_terminal_table_fits_and_every_row_is_there(rows: list[list[str]], width: int) -> None:
    text = terminal.table(rows, ["name", "a long second head", "x"], width=width)
    lines = text.split("\n")
    assert all(terminal.cell_width(line) <= width for line in lines)
    assert len(lines) == len(rows) + 2
    assert all(line == line.rstrip() and line.isprintable() for line in lines)


def test_text_gives_way_before_numbers() -> None:
    text = terminal.table([["a long name of a variant", "-90.25"]], ["name", "elbo"], 16, " r")
    assert text.splitlines()[-1] == "a long …  -90.25"


def test_the_board_at_the_end_of_a_run_says_what_happened() -> None:
    text = short.board(ZOO)
    assert "\x1b" not in text and all(len(line) <= 80 for line in text.splitlines())
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "-90.10±0.20" in lines["vae"] and "86.10±0.20" in lines["vae"] and "done" in lines["vae"]
    assert "failed" in lines["vq_vae"] and "diverged" in lines["iwae"]
    assert "quick@1" in text and "mnist" in text


def test_reports_need_no_torch() -> None:
    code = (
        "import sys, benchmarks.report.markdown, benchmarks.report.terminal, "
        "benchmarks.report.figures; print({'torch', 'numpy', 'wandb', 'PIL'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "set()", run.stderr


# --- figures ---


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_every_image_at_its_place(channels: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, channels, 5, 6), dtype=np.uint8)
    grid(images, tmp_path / "new" / "grid.png", columns=3)
    with Image.open(tmp_path / "new" / "grid.png") as file:
        assert file.mode == {1: "L", 3: "RGB"}[channels]
        page = np.asarray(file).reshape(*file.size[::-1], channels)
    for i, image in enumerate(images):
        row, column = divmod(i, 3)
        top, left = row * (5 + 2) + 2, column * (6 + 2) + 2
        assert (page[top : top + 5, left : left + 6] == image.transpose(1, 2, 0)).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]


def test_a_grid_takes_tensors_and_refuses_what_is_no_uint8(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    images = torch.randint(0, 256, (4, 1, 3, 3), dtype=torch.uint8)
    grid(images, tmp_path / "a.png", 2)
    grid(images.numpy(), tmp_path / "b.png", 2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    for wrong in (images.float(), images[0], images[:0], images.expand(4, 2, 3, 3)):
        with pytest.raises(ValueError, match="uint8"):
            grid(wrong, tmp_path / "c.png", 2)
    assert not (tmp_path / "c.png").exists()


def test_a_grid_of_digits_is_a_small_file(tmp_path: Path) -> None:
    # Blurred strokes on black, as a VAE draws digits: smooth grey, mostly background.
    y, x = np.mgrid[:28, :28]
    centres = np.random.default_rng(0).uniform(8, 20, (64, 3, 2))
    bumps = np.exp(-((y - centres[..., :1, None]) ** 2 + (x - centres[..., 1:, None]) ** 2) / 6).max(1)
    grid((bumps * 255).astype(np.uint8)[:, None], tmp_path / "digits.png", 8)
    assert (tmp_path / "digits.png").stat().st_size < 30_000


def test_a_run_that_failed_stands_with_those_that_asked_for_its_data() -> None:
    # Two contents of one data set, as a class that is held out gives them.
    ours, theirs = ({"data": {"name": "mnist", "options": {"exclude_class": digit}}} for digit in (3, 7))
    records = [
        make("vae", settings=ours, numbers={"elbo": -90.0}, data__sha256="cd" * 32),
        make("vae", settings=theirs, numbers={"elbo": -95.0}, data__sha256="ef" * 32),
    ]
    for variant, settings in (("cvae", ours), ("iwae", theirs)):
        lost = dict(status="failed", reason="it broke", model=None, train=None, data=None)
        records.append(make(variant, settings=settings, **lost))
    found = {table.data.sha256[:2]: {one.cell.variant for one in table.records} for table in tables(records)}
    assert found == {"cd": {"vae", "cvae"}, "ef": {"vae", "iwae"}}


def test_costs_of_runs_that_shared_their_device_or_were_captured_stand_apart() -> None:
    records = [
        make("vae", numbers={"elbo": -90.0}),
        make("cvae", numbers={"elbo": -91.0}, train__together=3),
        make("iwae", numbers={"elbo": -92.0}, train__captured=True),
    ]
    (table,) = tables(records)
    for name in ("images_per_second", "peak_memory", "seconds"):
        here = [dict(column.identity) for column in table.costs if column.metric == name]
        assert sorted((one.get("together", 1), one.get("captured", False)) for one in here) == [
            (1, False), (1, True), (3, False),
        ]  # fmt: skip
    assert [column.metric for column in table.costs].count("parameters") == 1


def test_a_cost_in_another_column_is_told_from_one_that_nobody_measured() -> None:
    records = [
        make("vae"), make("cvae"), make("iwae", train__captured=True), make("rae", train__images_per_second=None),
    ]  # fmt: skip
    lines = {line.split()[0]: line.split() for line in short.board(records).splitlines() if line}
    assert lines["iwae"][-3:] == ["other", "other", "done"]
    assert lines["rae"][-3:] == ["-", "61.2", "done"] and lines["vae"][-3:] == ["12,346", "61.2", "done"]


def test_the_suite_whose_runs_were_trained_longest_stands_first_however_many_it_has() -> None:
    wide = [make(name, cell__suite="wide", train__epochs=3) for name in ("a", "b", "c", "d")]
    long = [make("a", cell__suite="long", train__epochs=5), make("b", cell__suite="long", train__epochs=5)]
    assert [table.group for table in tables([*wide, *long])] == ["long@1", "wide@1"]
    assert [table.group for table in tables(wide + [make("a", cell__suite="alone", train__epochs=3)])][0] == "alone@1"
