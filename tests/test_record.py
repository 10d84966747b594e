"""Records: what goes in comes out, nothing that is not finite goes in, and no file name leaves its folder."""

from __future__ import annotations

import copy
import json
import math
import os
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks import record as records
from benchmarks.catalogue import OF_VARIANTS
from benchmarks.record import Cell, Metric, Record, cell_key, check_measures, parse, read, read_all, write
from zoo.errors import UsageError, ZooError
from zoo.registry import registry

ROOT = Path(__file__).resolve().parent.parent
CONFIG = {"variant": "vae", "data": {"name": "mnist"}, "train": {"lr": 0.001, "epochs": 3}}


def plain(**changes: Any) -> dict[str, Any]:
    """The JSON of a complete record, written out by hand from the schema."""
    content = {
        "schema": 2,
        "status": "done",
        "reason": None,
        "log_tail": [],
        "cell": {
            "suite": "quick", "version": "1", "variant": "vae", "dataset": "mnist", "seed": 0,
            "key": "9f2c41d0ab12",
        },
        "command": "zoo train vae --data mnist --seed 0",
        "config": CONFIG,
        "when": "2025-11-22T18:00:00+00:00",
        "data": {
            "name": "mnist", "sha256": "ab" * 32, "binarise": "dynamic", "test_bits_seed": 7,
            "support": "binary", "n": {"train": 50000, "validation": 10000, "test": 10000},
        },
        "model": {"parameters": 1000, "class": "zoo.models.vae.GaussianVAE", "conditional": False},
        "metrics": {
            "elbo": {
                "value": -90.25, "stderr": 0.25, "n": 10000, "unit": "nats", "better": "higher",
                "identity": {"split": "test"}, "note": None,
            },
        },
        "skipped": {"mig": "needs factors"},
        "train": {
            "steps": 100, "epochs": 3, "best_epoch": 2, "skipped_updates": 0, "images_per_second": 1e4,
            "peak_memory_bytes": 10**8, "stopped_early": False, "retreats": 0, "together": 1,
            "captured": False,
        },
        "seconds": {"setup": 1.0, "train": 10.0, "evaluate": 2.0, "figures": 0.5, "total": 13.5},
        "curves": {"epoch": [1, 2, 3], "validation_elbo": [-120.0, -100.0, -91.0]},
        "environment": {
            "git_commit": "0" * 40, "git_dirty": False, "python": "3.11", "torch": "2.9", "device": "cpu",
            "device_kind": "cpu", "precision": "fp32", "threads": 1, "platform": "Linux", "numpy": "2.3",
        },
        "figures": {"samples": "assets/quick@1/vae-mnist-s0-9f2c41d0ab12-samples.png"},
    }  # fmt: skip
    content.update(changes)
    return copy.deepcopy(content)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = plain()
    path = write(parse(content), tmp_path)
    assert path == tmp_path / "quick@1" / "vae-mnist-s0-9f2c41d0ab12.json"
    assert json.loads(path.read_text()) == content
    assert read(path) == parse(content)
    assert path.read_text() == records.dump(read(path)), "writing what was read changes nothing"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no temporary file is left"


def test_a_record_is_frozen_and_strict() -> None:
    record = parse(plain())
    with pytest.raises(ValidationError):
        record.status = "failed"  # type: ignore[misc]
    with pytest.raises(ZooError, match="metricz"):
        parse(plain(metricz={}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "1.5", True, None])
def test_only_finite_numbers_are_measurements(value: Any) -> None:
    content = plain()
    content["metrics"]["elbo"]["value"] = value
    with pytest.raises(ZooError, match=r"metrics\.elbo\.value: .* is not (finite|a number)"):
        parse(content)
    with pytest.raises(ValidationError):
        Metric(value=value, n=1)


@pytest.mark.parametrize("value", [1e301, -1.7e308])
def test_a_number_that_no_board_could_add_up_is_none_either(value: float) -> None:
    content = plain()
    content["metrics"]["elbo"]["value"] = value
    with pytest.raises(ZooError, match=r"metrics\.elbo\.value: .* is beyond 1e\+300"):
        parse(content)
    content["metrics"]["elbo"]["value"] = math.copysign(1e300, value)
    content["curves"]["validation_elbo"] = [value, -100.0, -91.0]
    assert parse(content).curves["validation_elbo"] == [None, -100.0, -91.0]


@pytest.mark.parametrize("value", [math.nan, -0.5, "0.1"])
def test_a_standard_error_is_finite_and_not_negative(value: Any) -> None:
    content = plain()
    content["metrics"]["elbo"]["stderr"] = value
    with pytest.raises(ZooError, match=r"metrics\.elbo\.stderr"):
        parse(content)


def test_nan_hidden_in_the_configuration_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="config"):
        parse(plain(config={"lr": math.nan}))
    record = parse(plain())
    record.config["lr"] = math.nan
    with pytest.raises(ZooError):
        write(record, tmp_path)
    assert not list(tmp_path.rglob("*.json"))


TAKEN = ("elbo", "ELBO", "nll_iwae_8", "nll", "seconds")


def test_the_variants_measure_what_the_catalogue_says_that_they_do() -> None:
    found: dict[str, Any] = {}
    for entry in registry().variants.values():
        check_measures(entry.load().measures)
        found |= entry.load().measures
    assert set(found) == set(OF_VARIANTS)
    check_measures({"code_norm": ("nats", None), "classification_error": ("", "lower")})


@pytest.mark.parametrize(
    ("measures", "said"),
    [
        *(({name: ("", None)}, "what the harness measures") for name in TAKEN),
        ({"classification_error": ("", "higher")}, r"is \('', 'lower'\) in other variants"),
        ({"a b": ("", None)}, "'a b' is not a plain name"),
        ({"code_norm": ("km", None)}, "code_norm.0: Input should be 'nats'"),
        ({"code_norm": ("", "up")}, "code_norm.1: Input should be 'lower' or 'higher'"),
        ({"code_norm": "nats"}, "no dict of names to"),
        (["code_norm"], "no dict of names to"),
    ],
)
def test_a_measure_that_no_record_can_hold_beside_the_others_is_refused(measures: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_measures(measures)


def test_the_curve_of_a_diverged_run_has_gaps(tmp_path: Path) -> None:
    content = plain(status="diverged", reason="the loss is not finite", metrics={})
    content["curves"] = {"epoch": [1, 2], "train_elbo": [-100.0, math.nan]}
    assert read(write(parse(content), tmp_path)).curves["train_elbo"] == [-100.0, None]


def test_a_failed_cell_may_lack_what_it_never_reached_but_not_its_reason() -> None:
    absent = {"model": None, "train": None, "data": None, "metrics": {}, "skipped": {}}
    content = plain(status="failed", reason="out of memory", **absent)
    assert parse(content).reason == "out of memory"
    with pytest.raises(ZooError, match="why"):
        parse({**content, "reason": None})
    with pytest.raises(ZooError, match="must have data, model, train"):
        parse({**content, "status": "done"})


def test_a_metric_is_measured_or_skipped() -> None:
    with pytest.raises(ZooError, match="elbo is both measured and skipped"):
        parse(plain(skipped={"elbo": "no reason"}))


@pytest.mark.parametrize("when", ["2025-11-22T18:00:00", "2025-11-22T18:00:00+02:00", "yesterday"])
def test_the_time_says_that_it_is_utc(when: str) -> None:
    with pytest.raises(ZooError, match="when"):
        parse(plain(when=when))


# --- keys ---

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
configs = st.dictionaries(st.text(), values)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(list(value))}
    return [shuffled(part) for part in value] if isinstance(value, list) else value


@given(configs)
def test_a_key_depends_on_content_and_not_on_order(config: dict[str, Any]) -> None:
    key = cell_key(config)
    assert len(key) == 12 and set(key) <= set("0123456789abcdef")
    assert cell_key(shuffled(config)) == key
    assert cell_key(json.loads(json.dumps(config))) == key, "a key survives the file"
    assert cell_key({**config, "one more field": 1}) != key


def test_a_key_does_not_change_between_versions() -> None:
    # sha256 of {"data":{"name":"mnist"},"train":{"epochs":3,"lr":0.001},"variant":"vae"}, by sha256sum
    assert cell_key(CONFIG) == "24c56466409d"


@pytest.mark.parametrize("config", [{"lr": math.nan}, {"path": Path("x")}, {"names": {1, 2}}])
def test_no_key_without_plain_json(config: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="plain JSON"):
        cell_key(config)


# --- names ---

BAD_NAMES = ["..", "../x", "a/b", "a\\b", "", ".hidden", "a b", "a\nb", "a\x00b", "-rf", "a..b", "ä", "C:x"]


@pytest.mark.parametrize("field", ["suite", "version", "variant", "dataset"])
@pytest.mark.parametrize("name", [*BAD_NAMES, "x" * 200])
def test_a_name_cannot_climb_out_of_the_folder(field: str, name: str) -> None:
    content = plain()
    content["cell"][field] = name
    with pytest.raises(ZooError, match=rf"cell\.{field}"):
        parse(content)


@given(st.text(st.sampled_from(string.ascii_letters + string.digits + "_.+-/\\\n\x00~ :"), max_size=8))
def test_every_accepted_name_is_one_plain_path_component(name: str) -> None:
    fields = plain()["cell"]
    try:
        cell = Cell(**{**fields, "suite": name, "version": name, "variant": name, "dataset": name})
    except ValidationError:
        return
    path = records.path_of(cell, "/records")
    assert path.parent.parent == Path("/records") and os.path.normpath(path) == str(path)


def test_writing_checks_a_record_that_was_never_checked(tmp_path: Path) -> None:
    record = parse(plain())
    forged = record.model_copy(update={"cell": record.cell.model_copy(update={"variant": "../../outside"})})
    with pytest.raises(ZooError, match=r"cell\.variant"):
        write(forged, tmp_path / "records")
    assert not list(tmp_path.rglob("*.json"))


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "records" / "quick@1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ZooError, match="outside"):
        write(parse(plain()), tmp_path / "records")
    assert not list((tmp_path / "elsewhere").iterdir())


BAD_PATHS = ["/etc/passwd", "../x.png", "a/../../x.png", "https://host/x.png", "a\\b.png", "a\nb.png"]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_figure_lies_inside_the_leaderboard(path: str) -> None:
    with pytest.raises(ZooError, match=r"figures\.samples"):
        parse(plain(figures={"samples": path}))


# --- files that are not records ---

BROKEN = {
    "empty": b"",
    "cut": records.dump(Record.model_validate(plain())).encode()[:400],
    "list": b"[1, 2]",
    "number": b"3",
    "nan": json.dumps(plain(config={"lr": math.nan})).encode(),
    "bytes": b"\xff\xfe\x00",
    "deep": b"[" * 200_000,
    "long number": b'{"schema": ' + b"1" * 10_000 + b"}",
    "no schema": b"{}",
    "schema as text": b'{"schema": "1"}',
    "newer": json.dumps(plain(schema=records.SCHEMA + 1)).encode(),
    "older": json.dumps(plain(schema=0)).encode(),
    "true": json.dumps(plain(schema=True)).encode(),
    "huge": json.dumps(plain()).encode() + b" " * records.MAX_BYTES,
    "nan in a curve": json.dumps(plain(curves={"epoch": [1], "rate": [math.nan]})).encode(),
    "missing field": json.dumps({key: value for key, value in plain().items() if key != "cell"}).encode(),
    "wrong type": json.dumps(plain(metrics=[1])).encode(),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_record_is_one_sentence_that_names_the_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "quick@1" / "broken.json"
    path.parent.mkdir()
    path.write_bytes(BROKEN[kind])
    with pytest.raises(ZooError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message and message.endswith(".") and "\n" not in message and len(message) < 400


def test_a_record_too_large_to_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="the limit is"):
        write(parse(plain(log_tail=["x" * records.MAX_BYTES])), tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_a_record_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="there is no record"):
        read(tmp_path / "absent.json")
    with pytest.raises(ZooError, match="is not a record: it is a folder"):
        read(tmp_path)
    (tmp_path / "link.json").symlink_to("absent.json")
    with pytest.raises(ZooError, match="link.json is not a record: it is a link to what is not there"):
        read(tmp_path / "link.json")


def test_a_newer_schema_asks_for_an_update(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="has schema 3, and this vae-zoo reads up to 2: update it"):
        parse(plain(schema=3, field_of_the_future=1))


def test_an_older_schema_goes_through_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(content: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in content.items() if k != "benchmark"}, "cell": content["benchmark"]}

    monkeypatch.setitem(records.MIGRATIONS, 0, rename)
    old = plain(schema=0)
    old["benchmark"] = old.pop("cell")
    assert parse(old) == parse(plain())
    with pytest.raises(ZooError, match="cannot be brought from schema 0 to 2"):
        parse(plain(schema=0))


def test_scores_of_schema_1_are_told_how_many_they_are_over() -> None:
    identity = {"n_train": 40, "n_test": 20, "latents": 4}
    points = {"points_train": 10_000, "points_evaluation": 5_000}
    metrics = {
        "mig": {"value": 0.1, "n": 5000, "better": "higher", "identity": identity},
        "informativeness_test@hist-gbt": {"value": 0.2, "n": 5000, "better": "higher", "identity": identity},
        "explicitness_train": {"value": 0.3, "n": 5000, "better": "higher", "identity": identity},
        "beta_vae_score": {"value": 0.4, "n": 5000, "better": "higher", "identity": points},
        "elbo": {"value": -90.0, "n": 10_000, "better": "higher", "identity": {"split": "test"}},
    }
    found = parse(plain(schema=1, metrics=metrics, skipped={})).metrics
    assert {name: (metric.n, metric.better) for name, metric in found.items()} == {
        "mig": (40, "higher"),
        "informativeness_test@hist-gbt": (20, "higher"),
        "explicitness_train": (40, None),
        "beta_vae_score": (5000, "higher"),
        "elbo": (10_000, "higher"),
    }


# --- many ---


def cell(**changes: Any) -> Record:
    content = plain()
    content["cell"].update(changes)
    return parse(content)


def test_all_records_come_sorted_whatever_the_order_of_writing(tmp_path: Path) -> None:
    cells = [
        cell(version="2"), cell(version="10"), cell(variant="beta_vae", seed=10),
        cell(variant="beta_vae", seed=9), cell(dataset="celeba", variant="z"), cell(),
    ]  # fmt: skip
    for one in cells:
        write(one, tmp_path)
    names = [f"{r.cell.group}/{r.cell.stem.rsplit('-', 1)[0]}" for r in read_all(tmp_path)]
    assert names == [
        "quick@1/z-celeba-s0", "quick@1/beta_vae-mnist-s9", "quick@1/beta_vae-mnist-s10",
        "quick@1/vae-mnist-s0", "quick@2/vae-mnist-s0", "quick@10/vae-mnist-s0",
    ]  # fmt: skip
    assert records.in_order(reversed(cells)) == read_all(tmp_path)


def test_reading_all_names_the_broken_one_or_hands_it_over(tmp_path: Path) -> None:
    write(cell(), tmp_path)
    broken = tmp_path / "quick@1" / "broken.json"
    broken.write_text("{")
    with pytest.raises(ZooError, match=r"broken\.json"):
        read_all(tmp_path)
    errors: list[ZooError] = []
    assert len(read_all(tmp_path, errors.append)) == 1 and len(errors) == 1


def test_a_copy_does_not_count_as_another_seed(tmp_path: Path) -> None:
    path = write(cell(), tmp_path)
    (path.parent / "vae-mnist-s1-9f2c41d0ab12.json").write_bytes(path.read_bytes())
    with pytest.raises(ZooError, match="is a copy"):
        read_all(tmp_path)


def test_no_folder_no_records(tmp_path: Path) -> None:
    assert read_all(tmp_path / "absent") == []


def test_records_need_no_torch() -> None:
    code = "import sys, benchmarks.record; print({'torch', 'numpy', 'wandb', 'PIL'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "set()", run.stderr
