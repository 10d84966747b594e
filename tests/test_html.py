"""The page for a browser: what its payload says, what foreign text may do to it, and that it is the same each time."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.figures import grid
from benchmarks.report.html.axes import Axis, axis, steps, tick
from benchmarks.report.html.charts import Point, curves, scatter
from benchmarks.report.html.markup import Markup, escape, join, link, tag
from benchmarks.report.html.page import embedded, page
from benchmarks.report.html.payload import numbers, payload
from benchmarks.report.html.pictures import pictures
from benchmarks.report.markdown import LEGEND
from benchmarks.report.tables import tables
from tests.conftest import ROOT
from tests.test_board import ENTRIES, FD, ZOO, failed, make

HOSTILE = """</script></style><img src=x onerror="alert(1)"><svg/onload=alert(2)> ' " --> ${style} \u2028 `a` &lt;b"""
TERMS = {"rate": (20.0, 0.1), "distortion": (70.0, 0.1)}


class Elements(HTMLParser):
    """Every element with its attributes, the text outside of scripts and styles, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes), (name, attributes)
        self.found.append((name, dict(attributes)))
        if name not in ("meta", "link", "img", "input", "br"):
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, text: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += text

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == name]


def board(records: list[Any], entries: Any = None, folder: Any = "nowhere") -> dict[str, Any]:
    """The payload of the (only) table."""
    (table,) = payload(records, entries or {}, folder)["tables"]
    return table


def cell(table: dict[str, Any], label: str, title: str) -> dict[str, Any]:
    (place,) = [i for i, column in enumerate(table["columns"]) if column["title"] == title]
    (row,) = [row for row in table["rows"] if row["label"] == label]
    return row["cells"][place]


# --- the payload ---


def test_the_payload_is_plain_json_and_the_same_in_any_order() -> None:
    whole = payload(ZOO, ENTRIES, "nowhere")
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    assert payload(ZOO[::-1], ENTRIES, "nowhere") == whole
    assert payload([], {}, "nowhere")["tables"] == []


def test_a_cell_has_the_mean_its_errors_its_rank_and_its_best_seed() -> None:
    table = board(ZOO, ENTRIES)
    elbo = cell(table, "vae", "ELBO")
    assert elbo["text"] == "−90.10 ± 0.20" and elbo["mean"] == pytest.approx(-90.1)
    assert (elbo["spread"], elbo["n"], elbo["seeds"], elbo["of"]) == ("0.14", 10_000, 2, 2)
    assert (elbo["rank"], elbo["tied"], elbo["wins"], elbo["tier"]) == (1, False, True, 0)
    assert (elbo["best"], elbo["best_seed"], elbo["best_text"]) == (-90.0, 0, "−90.00 ± 0.20")
    assert cell(table, "vae", "NLL (k = 5000)")["best"] == 86.0, "the lower is better"
    assert [seed for seed, _, _ in elbo["by_seed"]] == [0, 1]
    assert "best" not in cell(table, "beta_vae", "ELBO"), "of one seed there is no best"


def test_the_page_ranks_what_the_statistics_rank() -> None:
    records = [make(name, numbers={"elbo": (value, 0.2)}) for name, value in (("a", -1.0), ("b", -1.1), ("c", -9.0))]
    table = board(records)
    assert [(cell(table, name, "ELBO")["rank"], cell(table, name, "ELBO")["tied"]) for name in "abc"] == [
        (1, True), (1, True), (3, False),
    ]  # fmt: skip
    marked = cell(board(ZOO), "cvae", "ELBO")
    assert (marked["rank"], marked["tier"]) == (None, 1)


def test_what_is_not_there_says_why() -> None:
    table = board(ZOO)
    assert cell(table, "vq_vae", "ELBO") == {"tier": 2, "gap": "failed", "text": "failed: CUDA out of memory"}
    assert cell(table, "iwae", "ELBO")["gap"] == "diverged"
    assert cell(table, "cvae", "NLL (k = 5000)")["text"] == "skip: needs p(x)"
    assert cell(table, "vae", "NLL (k = 64)")["gap"] == "absent"
    assert cell(table, "beta_vae", "fd_digits (n=10000)")["text"] == "see the other column"


def test_only_some_seeds_are_counted_as_such() -> None:
    table = board([*ZOO, failed("vae", 2)])
    elbo = cell(table, "vae", "ELBO")
    assert (elbo["seeds"], elbo["of"], elbo["rank"]) == (2, 3, None)
    text = Elements(page([*ZOO, failed("vae", 2)], {}, "nowhere")).text
    assert "2 of 3 seeds" in text and "2 ✕ failed" in text


def test_a_metric_of_tomorrow_is_a_column() -> None:
    new = {"unit": "dB", "better": "higher", "identity": {"probe": "x" * 30, "weights": "ab" * 32}}
    (column,) = [c for c in board([make("a", numbers={"vibes_3000": (1.5, 0.1, new)})])["columns"]
                 if c["metric"] == "vibes_3000"]  # fmt: skip
    assert (column["kind"], column["unit"], column["better"]) == ("further", "dB", "higher")
    assert ["weights", "ab" * 6] in column["identity"], "a hash is cut to 12 digits"


def test_published_numbers_have_their_difference() -> None:
    found = {one["metric"]: one for one in board(ZOO, ENTRIES)["published"]}
    assert found["nll"]["differences"] == ["+1.65"] and found["nll"]["value"] == "84.45"
    assert found["elbo"]["same_recipe"] and not found["nll"]["same_recipe"]
    assert "not the same recipe" in page(ZOO, ENTRIES, "nowhere")


def test_a_row_tells_its_paper_settings_commands_and_environment() -> None:
    (row,) = [row for row in board(ZOO, ENTRIES)["rows"] if row["label"] == "vae"]
    assert row["paper"]["url"] == "https://arxiv.org/abs/1312.6114" and row["title"] == "VAE"
    assert ["train.learning_rate", "0.001"] in row["settings"] and "seed" not in dict(row["settings"])
    assert [run["command"] for run in row["runs"]] == [f"zoo train vae --data mnist --seed {seed}" for seed in (0, 1)]
    assert row["runs"][0]["environment"]["device"] == "A GPU"
    text = Elements(page(ZOO, ENTRIES, "nowhere")).text
    for said in ("zoo train vae --data mnist --seed 1", "0123456789abcdef", "train.learning_rate", "AEVB", "bf16"):
        assert said in text, said


def test_suites_and_data_sets_are_called_by_their_titles() -> None:
    whole = payload(ZOO, {}, "nowhere", {"quick@1": {"title": "In ten minutes"}}, {"mnist": {"title": "MNIST"}})
    assert (whole["tables"][0]["title"], whole["tables"][0]["dataset_title"]) == ("In ten minutes", "MNIST")
    assert whole["datasets"] == [["mnist", "MNIST"]]
    assert board(ZOO)["title"] == "quick@1"


def test_the_ids_are_unique_and_every_inner_link_leads_somewhere() -> None:
    twins = [make("a.b"), make("a+b"), make("a", cell__suite="a"), make("a", cell__dataset="x", data__name="x")]
    for records in (ZOO, twins):
        found = Elements(page(records, ENTRIES, "nowhere"))
        ids = [attributes["id"] for _, attributes in found.found if "id" in attributes]
        assert len(ids) == len(set(ids))
        targets = {word for _, one in found.found for name in ("aria-labelledby", "aria-describedby", "data-tip")
                   for word in (one.get(name) or "").split()}  # fmt: skip
        links = {one["href"][1:] for one in found.all("a") if one["href"].startswith("#")}
        assert links | targets <= set(ids)


def test_what_the_script_sorts_by_is_what_is_shown() -> None:
    whole = payload(ZOO, {}, "nowhere")
    (table,) = numbers(whole).values()
    assert [column["better"] for column in table["columns"]][0] == "higher"
    for row in whole["tables"][0]["rows"]:
        for (tier, mean, best), shown in zip(table["rows"][row["id"]], row["cells"], strict=True):
            assert (tier, mean, best) == (shown["tier"], shown.get("mean"), shown.get("best"))


# --- the page ---


def test_the_same_records_make_the_same_page_which_needs_nothing_else() -> None:
    text = page(ZOO, ENTRIES, "nowhere")
    assert page(ZOO[::-1], ENTRIES, "nowhere") == text
    found = Elements(text)
    assert not [one for name in ("iframe", "object", "embed", "base") for one in found.all(name)]
    assert [one.get("src") for one in found.all("script")] == [None, None]
    assert all(one["href"].startswith("data:") for one in found.all("link"))
    assert all(one["src"].startswith("data:") for one in found.all("img"))
    assert "url(" not in text and "@import" not in text and "fetch(" not in text and "XMLHttp" not in text


def test_the_policy_allows_this_style_and_this_script_and_nothing_else() -> None:
    import hashlib

    text = page(ZOO, ENTRIES, "nowhere")
    (policy,) = [one["content"] for one in Elements(text).all("meta") if one.get("http-equiv")]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:" and "unsafe" not in policy
    for name, body in (("style", r"<style>(.*?)</style>"), ("script", r"<script>(.*?)</script>")):
        (inside,) = re.findall(body, text, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"


def test_without_its_script_the_page_is_a_table_with_details() -> None:
    found = Elements(page(ZOO, ENTRIES, "nowhere"))
    hidden = [attributes for _, attributes in found.found if "hidden" in attributes]
    assert all(name != "tr" and name != "table" for name, one in found.found if "hidden" in one) and hidden
    assert len([one for one in found.all("details") if one.get("class") == "variant"]) == 5
    assert "−90.10" in found.text and "✕ failed" in found.text and "CUDA out of memory" in found.text


def test_no_records_is_a_page_too() -> None:
    assert "no records yet" in Elements(page([], {}, "nowhere")).text


def test_the_page_says_which_suite_stands_first_as_the_board_does() -> None:
    (said,) = re.findall(r"The suite [^\n]* stands first[^\n]*", LEGEND)
    assert said in Elements(page(ZOO, ENTRIES, "nowhere")).text


# --- foreign text ---


def test_foreign_text_is_inert_wherever_it_stands() -> None:
    records = [
        make("vae", numbers={"elbo": (-1.0, 0.1, {"note": HOSTILE, "identity": {HOSTILE: HOSTILE}}), **TERMS},
             environment__device=HOSTILE, command=HOSTILE, skipped={"mig": HOSTILE}, when="2025-11-22T18:00:00+00:00",
             settings={"model": {HOSTILE: HOSTILE}}, model__class=HOSTILE, data__sha256=HOSTILE,
             figures={"samples": "assets/<img src=x onerror=alert(1)>.png"}),
        make("b", status="failed", reason=HOSTILE, log_tail=[HOSTILE], model=None, train=None),
        make("c", numbers={"elbo": (-2.0, 0.1), **TERMS}, skipped={"nll_iwae_5": HOSTILE}),
        make("d", numbers={"nll_iwae_5": 1.0}),
    ]  # fmt: skip
    entries = {
        "vae": {"title": HOSTILE, "summary": HOSTILE, "family": HOSTILE, "code": "javascript:alert(1)",
                "paper": {"title": HOSTILE, "authors": HOSTILE, "year": HOSTILE, "url": 'https://a/"onclick="b'},
                "published": [{"dataset": "mnist", "metric": "elbo", "value": 1.0, "source": HOSTILE, "note": HOSTILE},
                              {"dataset": "mnist", "metric": "elbo", "value": 1.0, "source": 'http://"><b>'}]},
        "c": {"paper": {"title": "x", "url": "javascript:alert(1)"}},
    }  # fmt: skip
    suites, datasets = {"quick@1": {"title": HOSTILE, "summary": HOSTILE}}, {"mnist": {"title": HOSTILE}}
    text = page(records, entries, "nowhere", suites, datasets, command=HOSTILE)
    found = Elements(text)
    tame = Elements(page(ZOO, ENTRIES, "nowhere"))
    assert {name for name, _ in found.found} <= {name for name, _ in tame.found} | {"pre", "nav"}
    for name, attributes in found.found:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], (name, attributes)
        assert not (attributes.get("href") or "").startswith("javascript:")
    assert len(found.all("script")) == 2 and len(found.all("style")) == 1 and not found.all("img")
    assert found.text.count("onerror") >= 10, "it is shown as the text it is"
    assert "${style}" in found.text, "no placeholder is filled twice"


leaves = st.text() | st.integers() | st.none()


@given(st.recursive(leaves, lambda inner: st.dictionaries(st.text(), inner), max_leaves=9))
def test_embedded_json_says_the_same_and_ends_no_script(value: Any) -> None:
    text = embedded(value)
    assert json.loads(text) == value
    assert not set("<>&") & set(text) and text.isascii()


@given(st.text())
def test_escaped_text_shows_as_itself(text: str) -> None:
    shown = tag("p", text, title=text)
    (found,) = Elements(shown).found
    plain = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    assert Elements(shown).text == plain and found == ("p", {"title": plain})


def test_markup_refuses_what_could_run() -> None:
    for name in ("onclick", "style"):
        with pytest.raises(ValueError, match="allows none"):
            tag("p", **{name: "x"})
    assert link("a", "javascript:x") == "a" and "noopener" in link("a", "https://b")
    assert escape(Markup("<b>")) == "<b>" and join("<", None, ["&", Markup("<i>")]) == "&lt;&amp;<i>"


# --- pictures ---


def drawn(folder: Path, names: list[str], size: int = 8) -> None:
    for i, name in enumerate(names):
        noise = np.random.default_rng(i).integers(0, 256, (4, 1, size, size), dtype=np.uint8)
        grid(noise, folder / name, 2)


def test_pictures_are_carried_first_seeds_first_while_there_is_room(tmp_path: Path) -> None:
    records = [make(name, seed, numbers={"elbo": -1.0}, figures={"samples": f"assets/{name}{seed}.png"})
               for name in "ab" for seed in range(3)]  # fmt: skip
    drawn(tmp_path, [record.figures["samples"] for record in records])
    found = tables(records)
    size = max(len(one.content or "") for one in pictures(found, tmp_path).values())

    def shown(budget: int) -> set[str]:
        return {Path(path).stem for path, one in pictures(found, tmp_path, budget).items() if one.content}

    assert shown(7 * size) == {"a0", "a1", "a2", "b0", "b1", "b2"}
    assert shown(5 * size) == {"a0", "a1", "b0", "b1"}, "a seed is there for all rows or for none"
    assert shown(size) == {"a0"} and shown(0) == set()


def test_every_row_shows_the_usual_pictures_before_one_shows_more(tmp_path: Path) -> None:
    kinds = ("interpolations", "pca", "samples")
    records = [make(name, figures={kind: f"assets/{name}-{kind}.png" for kind in kinds}) for name in "ab"]
    drawn(tmp_path, [path for record in records for path in record.figures.values()])
    found = tables(records)
    size = max(len(one.content or "") for one in pictures(found, tmp_path).values())
    shown = {Path(path).stem for path, one in pictures(found, tmp_path, 4 * size).items() if one.content}
    assert shown == {"a-samples", "b-samples", "a-pca", "b-pca"}


def test_a_picture_is_its_bytes_and_its_size(tmp_path: Path) -> None:
    drawn(tmp_path, ["assets/a.png"])
    (tmp_path / "assets" / "b.png").write_text("<svg onload=alert(1)>")
    records = [make("a", figures={"samples": "assets/a.png", "traversals": "assets/b.png", "new": "assets/none.png"})]
    found = pictures(tables(records), tmp_path)
    one = found["assets/a.png"]
    assert base64.b64decode(one.content.partition(",")[2]) == (tmp_path / "assets" / "a.png").read_bytes()
    assert (one.width, one.height) == (22, 22)
    assert found["assets/b.png"].content is None and "not a PNG" in found["assets/b.png"].why
    text = Elements(page(records, {}, tmp_path)).text
    assert "not in this folder" in text and "assets/none.png" in text


def test_large_pictures_are_made_smaller(tmp_path: Path) -> None:
    drawn(tmp_path, ["assets/a.png"], size=300)
    (one,) = pictures(tables([make("a", figures={"samples": "assets/a.png"})]), tmp_path).values()
    assert one.content.startswith("data:image/webp") and (one.width, one.height) == (606, 606)
    assert len(one.content) < (tmp_path / "assets" / "a.png").stat().st_size


def test_every_figure_of_a_record_is_shown_once_with_words_for_it(tmp_path: Path) -> None:
    names = ["samples", "reconstructions", "traversals", "t_sne"]
    drawn(tmp_path, [f"assets/{name}.png" for name in names])
    records = [make("a", numbers={"elbo": -1.0}, figures={name: f"assets/{name}.png" for name in names})]
    shown = Elements(page(records, {}, tmp_path)).all("img")
    assert sorted(one["alt"] for one in shown) == [
        "reconstructions of a, seed 0", "samples of a, seed 0", "t sne of a, seed 0", "traversals of a, seed 0",
    ]  # fmt: skip
    assert all(one["width"] == "22" for one in shown)


def test_it_is_the_same_where_texts_are_not_utf_8(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from benchmarks.report.html.page import page; "
    code += "sys.stdout.buffer.write(page([], {}, Path('.')).encode())"
    plain = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = [
        subprocess.check_output([sys.executable, "-c", code], env=plain | more, cwd=tmp_path)
        for more in ({"PYTHONUTF8": "1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    ]
    assert found[0] == found[1] and "−".encode() in found[0]


# --- charts ---


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low: float, width: float) -> None:
    found = steps(low, low + width)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-6 * width <= value <= low + width * (1 + 1e-6) for value in found)


@pytest.mark.parametrize("low", [9_990.0, 12_000.0, 64_310.0, 100_000.0, 999_990.0])
def test_ticks_of_a_few_nats_are_told_apart_however_large_they_are(low: float) -> None:
    said = [tick(value) for value in axis("ELBO", [low, low + 14.0]).ticks()]
    assert len(set(said)) == len(said)


def test_a_tick_is_as_short_as_its_axis_is_large() -> None:
    assert [tick(value) for value in (1.2e4, 1.5e14, -1e15, 1.2e17)] == ["12 k", "150000 G", "-1e+15", "1.2e+17"]


@given(st.floats(1e-6, 1e9), st.floats(1.0, 1e9))
def test_ticks_of_a_logarithmic_axis_have_room_for_their_labels(low: float, ratio: float) -> None:
    drawn = axis("images/s", [low, low * ratio], log=True)
    found = drawn.ticks()
    assert 3 <= len(found) <= 8 and found == sorted(found)
    places = [drawn.at(value) for value in found]
    assert -1e-9 <= places[0] and places[-1] <= 1 + 1e-9
    assert all(after - before >= 1 / 7 for before, after in itertools.pairwise(places))


def test_one_far_variant_does_not_squeeze_the_others() -> None:
    wide = axis("x", [1.0, 2.0, 3.0, 4.0, 500.0], cut="few")
    assert wide.high < 5 and axis("x", [1.0, 2.0, 500.0], cut="few").high > 500, "of three none is cut off"
    assert axis("x", [10.0, 1e6], log=True).log and not axis("x", [0.0, 1.0], log=True).log
    assert axis("x", [3.0, 3.0]).low < 3 < axis("x", [3.0, 3.0]).high


def test_contours_lie_where_rate_and_distortion_add_up() -> None:
    x, y = Axis("rate", 0.0, 40.0), Axis("distortion", 60.0, 120.0)
    chart = scatter("c", "t", "d", x, y, [Point("a", "r", 10.0, 90.0, "a")], "ELBO")
    dot = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', chart)
    lines = re.findall(r'd="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)" class="contour"', chart)
    assert dot and len(lines) >= 4
    px, py = float(dot[1]), float(dot[2])
    # The point's ELBO is -100, and a line of -100 goes through it.
    assert "−100" in chart

    def distance(line: tuple[str, ...]) -> float:
        x1, y1, x2, y2 = map(float, line)
        return abs((x2 - x1) * (y1 - py) - (x1 - px) * (y2 - y1)) / np.hypot(x2 - x1, y2 - y1)

    assert min(map(distance, lines)) < 0.2


def test_points_can_be_tabbed_to_and_read_out() -> None:
    records = [make(name, numbers={"elbo": (-90.0 - i, 0.1), "rate": 20.0 + i, "distortion": 70.0})
               for i, name in enumerate("abc")]  # fmt: skip
    found = Elements(page(records, {}, "nowhere"))
    points = [one for one in found.all("a") if one.get("class") == "point"]
    assert len(points) == 9 and all(one["tabindex"] == "0" for one in points)
    assert "a: rate 20, distortion 70" in {one["aria-label"] for one in points}
    assert all(one["aria-labelledby"] and one["role"] == "group" for one in found.all("svg"))
    assert "Rate and distortion" not in page(records[:1], {}, "nowhere").split("<h3")[1]


def test_a_validation_stands_at_its_epoch() -> None:
    lines = {"epoch": [1.0, 2.0, 3.0, 4.0, 5.0], "train_elbo": [-5.0, -4.0, -3.0, -2.0, -1.0],
             "validation_elbo": [-4.0, -2.0, -1.0]}  # fmt: skip
    run = make("a", curves=lines, settings={"train": {"validate_every": 2}})
    made = page([run], {}, "no folder")
    drawn = re.findall(r'<path d="M([^"]*)" class="line', made)
    trained, validated = (path.split("L") for path in drawn)
    assert validated == [trained[1], trained[3], trained[4]]


def test_curves_have_gaps_and_no_drawing_without_points() -> None:
    chart = curves("c", "ELBO", "nats", {"train": [([1, 2, 3, 4], [-5.0, None, -3.0, -2.0])]})
    assert chart is not None and re.search(r'd="M[\d. ]+M[\d. ]+L[\d. ]+"', chart), "the pen is lifted over the gap"
    assert curves("c", "ELBO", "nats", {"train": [([1], [-5.0])]}) is None
    assert curves("c", "ELBO", "nats", {"train": [([1, 2], [None, None])]}) is None
    lines = {"epoch": [1.0, 2.0], "train_elbo": [-5.0, -4.0], "train_rate": [1.0, 2.0], "gan": [1.0, 0.5]}
    run = make("a", curves=lines)
    assert page([run], {}, "nowhere").count('class="line l0"') == 3


def test_a_cost_of_nothing_has_no_place_on_a_logarithmic_scale() -> None:
    def speeds(*given: float) -> list[str]:
        numbers = {"elbo": (1.0, 0.1)}
        made = [make(f"v{i}", numbers=numbers, train__images_per_second=one) for i, one in enumerate(given)]
        drawn = re.search(r'<svg[^>]*><title[^>]*>ELBO against images/s.*?</svg>', page(made, {}, "nowhere"))
        return re.findall(r'data-row="[^"]*-(v\d)"', drawn[0]) if drawn else []

    assert sorted(speeds(10.0, 0.0, 1000.0)) == ["v0", "v2"]
    assert not speeds(0.0, 0.0, 0.0)


def test_the_whole_zoo_of_plots_takes_what_is_there() -> None:
    records = [make("a", numbers={"elbo": (1.0, 0.1, FD), **TERMS}, train__images_per_second=0.0),
               make("b", numbers={"elbo": (2.0, 0.0, FD), **TERMS}, model__parameters=0), failed("c")]  # fmt: skip
    drawn = re.findall(r' (?:d|x|y|cx|cy)="([^"]*)"', page(records, {}, "nowhere"))
    assert len(drawn) > 50 and not [one for one in drawn if not re.fullmatch(r"[MLVHZ\d. -]*", one)]
