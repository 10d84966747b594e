"""The page in a browser: it sorts, filters and opens a variant, asks nobody for anything, and everybody can use it.

It takes Debian's Chromium, Chrome, or the browser of Playwright; where there is none, all of this is skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.report.figures import grid
from benchmarks.report.html.page import page as write_page
from tests.conftest import ROOT
from tests.test_board import ENTRIES, FD, ZOO, failed, make

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOSTILE = "</script><img src=x onerror=\"alert('out')\"><svg onload=alert(1)>"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = next((path for name in NAMES if (path := shutil.which(name))), None)
        if found is None and not Path(started.chromium.executable_path).exists():
            pytest.skip("no Chromium here: `apt-get install chromium` or `playwright install chromium`")
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A board of two data sets with a failed and a diverged row, pictures, curves and foreign text everywhere."""
    folder = tmp_path_factory.mktemp("board")
    terms = {"rate": (20.0, 0.1), "distortion": (70.0, 0.1)}
    lines = {"epoch": [1.0, 2.0, 3.0], "train_elbo": [-200.0, None, -90.0], "train_rate": [1.0, 2.0, 3.0]}
    records = list(ZOO)
    for i, (name, value) in enumerate((("flow_vae", -80.0), ("ladder_vae", -85.0), ("nvae_lite", -95.0))):
        for seed in (0, 1):
            figures = {kind: f"assets/{name}{seed}-{kind}.png" for kind in ("samples", "traversals")}
            for path in figures.values():
                grid(np.full((8, 1, 8, 8), 40 * i, dtype=np.uint8), folder / path, 4)
            numbers = {"elbo": (value - seed, 0.1), "fd_digits": (9.0 + 0.6 * i, 0.1, FD), **terms}
            records.append(make(name, seed, numbers=numbers, figures=figures, curves=lines, train__epochs=50))
    records += [make("vae", cell__dataset="shapes", data__name="shapes", numbers={"elbo": (-1.0, 0.1), **terms}),
                make("b", cell__dataset="shapes", data__name="shapes", numbers={"elbo": (-2.0, 0.1), **terms}),
                failed("beta_vae", 7, reason=HOSTILE)]  # fmt: skip
    hostile = ENTRIES["vae"].model_copy(update={"title": HOSTILE, "summary": HOSTILE})
    entries = {"vae": hostile, "flow_vae": {"family": "flows", "title": "Flow VAE"}}
    (folder / "index.html").write_text(write_page(records, entries, folder))
    return (folder / "index.html").as_uri()


class Seen:
    """A page with all that went wrong on it."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESK} | options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)  # a machine may be busy
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def rows(self) -> list[str]:
        """The variants of the first table, as they stand."""
        return self.page.locator("table.main >> nth=0").locator("tbody tr:visible th a").all_inner_texts()

    def violations(self, inside: str | None = None, rule: str | None = None) -> list[str]:
        options = {"runOnly": [rule]} if rule else None
        found = axe.Axe().run(self.page, context=inside, options=options).response["violations"]
        return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


@pytest.fixture
def seen(browser: Any, address: str) -> Iterator[Seen]:
    """The page on a desk; a test that leaves an error on the console fails, whatever else it found."""
    one = Seen(browser, address)
    yield one
    one.context.close()
    assert one.wrong == []
    assert [url for url in one.requests if not url.startswith("data:")] == [address]


def header(seen: Seen, name: str) -> Any:
    return seen.page.locator("table.main >> nth=0").locator("thead th", has_text=name).first


def test_it_sorts_by_any_column_and_says_so(seen: Seen) -> None:
    before = seen.rows()
    head = header(seen, "fd_digits (n=10000)")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending", "the best first, and less is better"
    ordered = ["cvae", "flow_vae", "ladder_vae", "nvae_lite", "vae"]
    assert seen.rows()[:5] == ordered, "2.0, 9.0, 9.6, 10.2 and 12.2: a distance is ranked, conditional or not"
    assert "Sorted by fd_digits" in seen.page.locator("#said").inner_text()
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert seen.rows()[:5] == ordered[::-1], "what has no number stays last"
    header(seen, "ELBO").locator("button").click()
    assert seen.page.locator("[aria-sort]").count() == 1
    ordered = ["flow_vae", "ladder_vae", "vae", "nvae_lite"]
    assert [name for name in seen.rows() if name in ordered] == ordered
    assert seen.rows()[-2:] != before[:2] and seen.rows().index("cvae") == 5, "the conditional one after the ranked"
    header(seen, "variant").locator("button").click()
    assert seen.rows() == sorted(before)


def test_it_filters_by_data_set_and_family(seen: Seen) -> None:
    sections = seen.page.locator("section.board:visible")
    assert sections.count() == 2
    seen.page.select_option("select[name=dataset]", "shapes")
    assert sections.count() == 1 and "shapes" in sections.inner_text()
    seen.page.select_option("select[name=dataset]", "")
    seen.page.select_option("select[name=family]", "flows")
    assert seen.rows() == ["flow_vae"]
    assert seen.page.locator(".gallery .picture:visible").count() == 1
    assert "No variant of this family" in sections.nth(1).inner_text()
    seen.page.select_option("select[name=family]", "")
    assert len(seen.rows()) == 8


def test_best_of_the_seeds_is_shown_and_not_ranked(seen: Seen) -> None:
    cell = seen.page.locator("table.main >> nth=0").locator("tbody tr >> nth=0").locator("td >> nth=0")
    assert "−80.50" in cell.inner_text() and "rank 1" in " ".join(cell.inner_text().split())
    seen.page.check("input[value=best]", force=True)
    assert "−80.00" in cell.inner_text() and "seed 0" in cell.inner_text() and "rank" not in cell.inner_text()
    assert not header(seen, "rate").is_visible()
    seen.page.check("input[value=all]", force=True)
    assert header(seen, "rate").is_visible()


def test_a_variant_opens_and_gives_the_focus_back(seen: Seen) -> None:
    link = seen.page.locator("table.main a.open", has_text="flow_vae")
    link.press("Enter")
    dialog = seen.page.locator("dialog[open]")
    text = dialog.inner_text()
    for said in ("Flow VAE", "zoo train flow_vae --data mnist --seed 1", "train.learning_rate", "A GPU", "traversals"):
        assert said in text, said
    assert dialog.locator("img").count() == 4 and dialog.locator("svg").count() == 2
    assert seen.page.evaluate("document.querySelector('dialog').contains(document.activeElement)")
    assert seen.page.url.endswith("#quick-1-mnist-flow_vae")
    dialog.locator("#next").click()
    assert "ladder_vae" in dialog.inner_text() and "zoo train flow_vae" not in dialog.inner_text()
    seen.page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert seen.page.evaluate("document.activeElement.textContent") == "flow_vae"
    # The browser tells of a closed dialog a little after it is closed.
    bodies = seen.page.locator("details.variant > .body")
    playwright.expect(bodies).to_have_count(seen.page.locator("details.variant").count())


def test_a_point_of_a_plot_opens_its_variant_by_key(seen: Seen) -> None:
    point = seen.page.locator("svg a.point[aria-label^='nvae_lite']").first
    point.focus()
    seen.page.keyboard.press("Enter")
    assert "nvae_lite" in seen.page.locator("dialog[open]").inner_text()


def test_a_head_tells_what_it_measures_on_hover_and_focus(seen: Seen) -> None:
    tip = seen.page.locator("#tip")
    header(seen, "fd_digits (n=10000)").hover()
    assert "extractor digits" in tip.inner_text()
    header(seen, "ELBO").locator("button").focus()
    assert "more is better" in tip.inner_text() and "split test" in tip.inner_text()
    seen.page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_pictures_change_and_none_is_missing(seen: Seen) -> None:
    def loaded() -> list[bool]:
        return seen.page.eval_on_selector_all(
            "img", "images => Promise.all(images.map(i => i.decode().then(() => i.naturalWidth > 0, () => false)))"
        )

    assert len(loaded()) >= 12 and all(loaded())
    seen.page.select_option("select[data-gallery]", "traversals")
    shown = seen.page.locator(".gallery img")
    assert shown.first.get_attribute("alt") == "traversals of flow_vae, seed 0" and all(loaded())
    seen.page.select_option("select[data-gallery]", "samples")
    assert shown.first.get_attribute("alt") == "samples of flow_vae, seed 0"
    plots = seen.page.locator("section >> nth=0").locator("[data-plot]:visible")
    first = plots.inner_text()
    seen.page.locator("select[data-plots] >> nth=0").select_option(index=1)
    assert plots.count() == 1 and plots.inner_text() != first


def test_the_theme_is_chosen_and_kept(seen: Seen) -> None:
    def paper() -> str:
        return seen.page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = paper()
    for name in ("light", "dark"):
        seen.page.click("#theme")
        assert seen.page.inner_text("#theme") == f"Theme: {name}" and (paper() != light) == (name == "dark")
    seen.page.reload()
    assert paper() != light
    seen.requests.pop()


@pytest.mark.parametrize(("scheme", "rule"), [("light", None), ("dark", "color-contrast")])
def test_axe_finds_nothing(browser: Any, address: str, scheme: str, rule: str | None) -> None:
    one = Seen(browser, address, color_scheme=scheme)
    assert one.violations(rule=rule) == []
    one.page.click("table.main a.open >> nth=0")
    assert one.violations("dialog", rule) == []
    one.context.close()
    assert one.wrong == []


def test_axe_finds_what_is_planted(browser: Any, address: str) -> None:
    one = Seen(browser, address)
    one.page.evaluate("document.querySelector('h1').style.color = '#eee'")
    assert [found[:14] for found in one.violations(".top", "color-contrast")] == ["color-contrast"]
    one.context.close()


def test_a_phone_scrolls_the_table_and_not_the_page(browser: Any, address: str) -> None:
    one = Seen(browser, address, viewport=PHONE)
    assert one.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    one.page.evaluate("document.querySelector('.scroll').scrollLeft = 300")
    name = one.page.locator("table.main tbody th >> nth=0").bounding_box()
    assert name["x"] < 30, "the variant's name stays"
    one.page.click("table.main a.open >> nth=0")
    assert one.page.evaluate("document.querySelector('dialog').scrollWidth") <= PHONE["width"]
    one.context.close()


def test_without_its_script_it_is_a_readable_table(browser: Any, address: str) -> None:
    one = Seen(browser, address, java_script_enabled=False)
    text = one.page.inner_text("main")
    for said in ("−80.50", "✕ failed", "∿ diverged", "CUDA out of memory", "Every variant"):
        assert said in text, said
    assert not one.page.is_visible("#controls") and not one.page.is_visible("#theme")
    one.page.click("details.variant >> nth=0")
    assert one.page.is_visible("text=zoo train flow_vae --data mnist --seed 0")
    one.context.close()
    assert one.wrong == []


def test_the_board_that_is_committed_is_whole(browser: Any) -> None:
    address = (ROOT / "leaderboard" / "index.html").as_uri()
    one = Seen(browser, address)
    count = "images => Promise.all(images.map(i => i.decode().then(() => i.naturalWidth > 0, () => false)))"
    loaded = one.page.eval_on_selector_all("img", count)
    assert len(loaded) >= 8 and all(loaded)
    one.context.close()
    assert one.wrong == [] and [url for url in one.requests if not url.startswith("data:")] == [address]
