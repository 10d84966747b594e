"""What docs/ says is so: commands and snippets run, links and named tests exist, generated parts are up to date.

Whether a command is run follows from what it needs. One whose data are made up here (``synthetic``, a folder of the
page's own pictures), or that needs none, is run, in one temporary folder a page and in the order of the page. One that
would need a download or long training is resolved instead: parsed, its configuration made, its model built.
"""

from __future__ import annotations

import contextlib
import json
import math
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np
import pytest
import torch
import yaml
from pydantic import BaseModel

from benchmarks import catalogue, cli, evaluated, matrix, skeleton
from benchmarks.check.examine import PROPERTIES, examine
from benchmarks.check.subject import DIGITS, Subject
from benchmarks.commands.compress import LANES
from benchmarks.recipe import recipe_named
from benchmarks.record import Record
from benchmarks.report import pages, plane, settings
from benchmarks.report.against import against
from benchmarks.report.notation import plus_minus
from benchmarks.report.tables import tables
from benchmarks.running import workers
from benchmarks.suite import suite_named
from tests.conftest import ROOT
from tests.test_board import failed, make
from zoo import registry as registry_module
from zoo.config import DataConfig, EvaluateConfig, RunConfig, TrainConfig, resolve
from zoo.errors import UsageError
from zoo.files import sha256_file
from zoo.models import build, check_settings, create_model
from zoo.plain_yaml import fields_at
from zoo.priors import PriorSettings
from zoo.registry import VariantEntry, registry

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "site" not in path.relative_to(DOCS).parts)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
MADE_HERE = ("synthetic", "folder:")


def named(path: Path) -> str:
    return str(path.relative_to(DOCS))


def in_a_line(path: Path) -> str:
    """The page whatever its lines are broken by."""
    return " ".join(path.read_text().split())


def of_variant(name: str) -> str:
    """The page of a variant in a line."""
    return in_a_line(DOCS / "variants" / f"{name}.md")


def prose(path: Path) -> str:
    """The page without its code."""
    return re.sub(r"`[^`\n]+`", "", FENCE.sub("", path.read_text()))


# ---- what the pages show runs -----------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for one page: with a registry of its own to add to, and without a way to fetch anything."""
    from benchmarks.metrics import weights
    from zoo.data import fetch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path / "cache"))
    shutil.copy(ROOT / "registry.yaml", tmp_path)
    (tmp_path / "zoo" / "models").mkdir(parents=True)
    for module in (registry_module, skeleton):
        monkeypatch.setattr(module, "registry_path", lambda: tmp_path / "registry.yaml")
    import zoo.models

    monkeypatch.setattr(zoo.models, "__path__", [*zoo.models.__path__, str(tmp_path / "zoo" / "models")])
    for module, name in ((fetch, "fetch"), (weights, "fetched")):
        monkeypatch.setattr(module, name, lambda *_: Path("fetched"))
    # Worker processes would not see this registry.
    monkeypatch.setattr(workers, "how_many", lambda *_: 1)
    before, path = set(sys.modules), list(sys.path)
    registry.cache_clear()
    yield tmp_path
    registry.cache_clear()
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("path", [path for path in PAGES if FENCE.search(path.read_text())], ids=named)
def test_what_a_page_shows_runs(
    path: Path, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for language, block in FENCE.findall(path.read_text()):
        if language == "python":
            exec(compile(block, path.name, "exec"), names)
        elif language == "yaml":
            assert yaml.safe_load(block)
            if title := re.match(r"# (\w+\.yaml)$", block, re.M):
                (desk / title[1]).write_text(block)
        elif language == "console":
            for line in filter(None, map(str.strip, block.splitlines())):
                perform(line, desk, monkeypatch, capsys)
        else:
            assert language in ("", "bash", "text"), f"a block of '{language}' that nothing checks"


def test_the_variant_with_a_prior_of_its_own_keeps_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = (block for _, block in FENCE.findall((DOCS / "theory" / "priors.md").read_text()) if "(Prior)" in block)
    (tmp_path / "of_the_page.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "of_the_page", raising=False)
    entry = VariantEntry(target="of_the_page:LaplaceVAE", title="Laplace VAE", settings={"latent": 4, "b": 0.3})
    found = list(examine(Subject("laplace_vae", entry)))
    assert len(found) == len(PROPERTIES) and not [one for one in found if one.status == "wrong"], found
    prior = build(entry, DIGITS, entry.settings).prior
    z = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    alone = type(prior)(1, 0.3).double()
    assert torch.trapezoid(alone.log_prob(z[:, None]).exp(), z).item() == pytest.approx(1.0, abs=1e-6)
    torch.manual_seed(0)
    assert prior.sample(20_000).abs().mean().item() == pytest.approx(0.3, rel=0.01)
    with pytest.raises(UsageError, match="prior.name would do nothing"):
        build(entry, DIGITS, {"prior": {"name": "mixture"}})


def test_a_command_in_the_prose_of_a_page_is_one_that_can_be_given() -> None:
    found = 0
    for path in PAGES:
        for command in re.findall(r"`zoo ([^`]+)`", FENCE.sub("", path.read_text())):
            name, *words = shlex.split(command)
            assert name in cli.zoo.commands, f"zoo {name} of {named(path)}"
            with contextlib.suppress(click.MissingParameter):  # the command alone, as a name
                cli.zoo.commands[name].make_context(name, words)
            found += 1
    assert found > 100


def test_what_a_shell_takes_for_a_pattern_is_quoted() -> None:
    # zsh runs no command with a pattern that no file fits.
    shown = 0
    for path in [*PAGES, ROOT / "README.md", ROOT / "examples" / "plugin" / "README.md"]:
        for language, block in FENCE.findall(path.read_text()):
            for line in block.splitlines() if language == "console" else ():
                bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", line.partition("#")[0])
                assert not set("[]{}*?") & set(bare), f"{named(path) if path in PAGES else path}: {line}"
                shown += 1
    assert shown > 100


def test_nobody_is_told_to_install_from_an_index_what_is_in_no_index() -> None:
    told = 0
    sources = [path for folder in ("zoo", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    for path in [*PAGES, *sources, ROOT / "README.md", ROOT / "examples" / "plugin" / "README.md"]:
        for words in re.findall(r"pip install ([^`#\n]+)", path.read_text()):
            assert "vae-zoo" not in words, f"pip install {words} of {path}"
            told += 1
    assert told > 5


def perform(line: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Run one line of a console, or as much of it as needs nothing from outside."""
    words = shlex.split(line, comments=True)
    words, target = (words[: words.index(">")], words[words.index(">") + 1]) if ">" in words else (words, None)
    capsys.readouterr()
    if words[0] == "zoo":
        parsed = cli.zoo.commands[words[1]].make_context(words[1], list(words[2:]))
        made_here = all(name.startswith(MADE_HERE) for name in data_of(parsed))
        paths = paths_of(parsed)
        if made_here and (not paths or any(path.exists() for path in paths)):
            run(words, monkeypatch)
            # What the command wrote may be a variant.
            registry.cache_clear()
        else:
            resolve_all(parsed)
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), line
    elif words[:2] == ["python", "-m"]:
        assert find_spec(words[2]), line
    elif words[:2] == ["pip", "install"]:
        install(words[-1], desk)
    else:
        raise AssertionError(f"nobody knows how to run: {line}")
    if target:
        (desk / target).write_text(capsys.readouterr().out)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", words)
    try:
        cli.main()
    except SystemExit as stopped:
        assert not stopped.code, shlex.join(words)


def data_of(parsed: click.Context) -> list[str]:
    """The data sets that a command would load."""
    given = parsed.params
    if given.get("plan"):
        return []
    if "data" in given and given["data"]:
        return [given["data"]]
    if parsed.command.name == "reproduce" and given["names"]:
        return [recipe_named(name)[1].dataset for name in given["names"]]
    if "suite" in given:
        return [*(given.get("datasets") or suite_named(given["suite"]).datasets)]
    return []


def paths_of(parsed: click.Context) -> list[Path]:
    """The files and folders that a command is about. Where none is there, the page did not make what it would read."""
    arguments = [one for one in parsed.command.params if isinstance(one, click.Argument)]
    return [value for one in arguments if isinstance(value := parsed.params[one.name], Path)]


def resolve_all(parsed: click.Context) -> None:
    """The configuration of every run that a command asks for, with its model built on paper."""
    import torch

    from zoo.models import data_spec
    from zoo.nets.backbone import unfetched
    from zoo.runs import build_model

    configs: list[RunConfig] = []
    given = parsed.params
    if "suite" in given:
        chosen = tuple(name for text in given.get("variants") or () for name in text.split(","))
        cells = matrix.plan(suite_named(given["suite"]), chosen, tuple(given.get("datasets") or ()), (0,))
        configs = [planned.config for planned in cells]
    elif parsed.command.name == "reproduce":
        configs = [recipe_named(name)[1].run_config(0) for name in given["names"]]
    elif "variant" in given:
        configs = [resolve(given["variant"], given["data"], given["seed"], settings=given["settings"])]
    for config in configs:
        with torch.device("meta"), unfetched():
            build_model(config, data_spec(config.data.name, config.data.binarise))


def install(what: str, desk: Path) -> None:
    """As far as `pip install -e FOLDER` makes entry points known; of this checkout it is installed already."""
    folder, _, extra = what.partition("[")
    if folder == ".":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert not extra or extra.rstrip("]") in project["optional-dependencies"], what
        return
    project = tomllib.loads((desk / folder / "pyproject.toml").read_text())["project"]
    known = desk / "installed" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    known.mkdir(parents=True)
    known.joinpath("METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    points = [f"[{group}]\n" + "\n".join(f"{name} = {to}" for name, to in points.items()) for group, points in groups]
    known.joinpath("entry_points.txt").write_text("\n".join(points))
    sys.path[:0] = [str(desk / "installed"), str(desk / folder)]
    registry.cache_clear()


# ---- what the pages point at is there ---------------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor of a heading, on GitHub."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", FENCE.sub("", path.read_text())):
        there = (path.parent / target).resolve() if target else path
        assert there.is_file(), f"{target} of {named(path)}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", FENCE.sub("", there.read_text()), re.M)
            found = [*map(slug, headings)].count(anchor)
            assert found == 1, f"#{anchor} of {target or named(path)} is there {found} times"


#: `tests/x.py::test_name`, `test_x.py::test_name`, `test_x.py`, `test_name`; dots stand for the rest of a name.
REFERENCE = re.compile(r"`(?:((?:[\w/]+/)?\w+\.py)(?:::([\w.]+))?|(test_\w+(?:\.\.\.)?|\.\.\.\w+(?:\.\.\.)?))`")
DEFINED = {
    path: re.findall(r"^def (\w+)\(", path.read_text(), re.M)
    for folder in ("tests", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def named_tests(text: str) -> list[tuple[str, str]]:
    """(file, name) of each test that a page names; either may be empty, and the name may be cut."""
    found = [(file, name or alone) for file, name, alone in REFERENCE.findall(text)]
    return [(file, name) for file, name in found if name or Path(file).name.startswith("test_")]


def matches(file: str, name: str) -> list[str]:
    """What of the tests (and of the contract) is meant."""
    files = [path for path in DEFINED if not file or path.as_posix().endswith(f"/{file}")]
    if not name:
        return [str(path) for path in files]
    meant = re.compile(r"\w+".join(map(re.escape, name.split("..."))))
    return [f"{path}::{one}" for path in files for one in DEFINED[path] if meant.fullmatch(one)]


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_the_tests_that_a_page_names_exist(path: Path) -> None:
    for file, name in named_tests(path.read_text()):
        assert len(matches(file, name)) == 1, f"{file}::{name} is {matches(file, name)}"


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_the_parts_of_the_code_that_a_page_names_exist(path: Path) -> None:
    named = set(re.findall(r"`((?:zoo|benchmarks)(?:\.\w+)+)`", path.read_text()))
    for name in named - {registry_module.VARIANT_GROUP, registry_module.DATASET_GROUP}:
        pkgutil.resolve_name(name)


def called_here(page: Path) -> list[list[str]]:
    """What stands in the last column of each table of a page whose head is `here`: a list of code a row."""
    rows, inside = [], False
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        inside = bool(cells) and (inside or cells[-1] == "here")
        if inside and cells[-1] != "here" and not set(cells[-1]) <= set(":-"):
            rows.append(re.findall(r"`([^`]+)`", cells[-1]))
    return rows


def test_what_another_library_calls_a_model_can_be_made_here() -> None:
    named_metrics = {metric.name for metric in catalogue.METRICS}
    models, metrics = [], []
    for row in called_here(DOCS / "howto" / "other-libraries.md"):
        assert row
        if row[0].split()[0] in registry().variants:
            models.append(shlex.split(row[0]))
        else:
            metrics += row
    assert len(models) > 20 and set(metrics) <= named_metrics
    for words in models:
        data = [] if "--data" in words else ["--data", "synthetic"]
        resolve_all(cli.zoo.commands["train"].make_context("train", [*words, *data]))


def test_what_another_library_has_and_we_do_not_is_in_no_row_of_its_own() -> None:
    text = (DOCS / "howto" / "other-libraries.md").read_text()
    models, _, lacking = text.partition("## What they have and we do not")
    lacking = {name for line in lacking.splitlines() for name in re.findall(r"`(\w+)`", line)}
    rows = [re.findall(r"`(\w+)`", row.rpartition("|")[0].rpartition("|")[0]) for row in models.splitlines()]
    has = {name for row in rows if row for name in row}
    assert lacking and len(has) > 40
    assert lacking & has == set()


def test_the_promises_of_reliability_are_named_with_their_tests() -> None:
    found = named_tests((DOCS / "reliability.md").read_text())
    assert sum(bool(name) for _, name in found) >= 20
    elsewhere = [place for file, name in found if "/" not in file for place in matches(file, name)
                 if "/tests/faults/" not in place]  # fmt: skip
    assert elsewhere == [], "the page says that tests without a folder are in tests/faults"


def test_a_reference_may_be_cut_where_one_test_alone_is_meant() -> None:
    text = "`tests/test_docs.py::test_links_lead_somewhere` `test_docs.py::test_links...` `..._page_can_be_re...` `x`"
    names = ["test_links_lead_somewhere", "test_links...", "..._page_can_be_re..."]
    assert [name for _, name in named_tests(text)] == names
    here = f"{ROOT / 'tests' / 'test_docs.py'}::"
    meant = ["test_links_lead_somewhere", "test_links_lead_somewhere", "test_every_page_can_be_reached"]
    assert [matches(file, name) for file, name in named_tests(text)] == [[here + one] for one in meant]
    assert matches("test_docs.py", "test_links_lead") == matches("other.py", "test_links...") == []
    assert len(matches("test_docs.py", "test_...")) > 1


def test_every_page_can_be_reached() -> None:
    linked = {DOCS / "index.md"}
    for path in PAGES:
        targets = re.findall(r"\]\((?!\w+:)([^)#\s]+\.md)", path.read_text())
        linked |= {(path.parent / target).resolve() for target in targets} - {path}
    # Those at the top are seen where they lie.
    assert sorted(named(path) for path in set(PAGES) - linked if path.parent != DOCS) == []


def test_every_exchangeable_part_is_explained() -> None:
    from zoo.likelihoods import LIKELIHOODS
    from zoo.posteriors import POSTERIORS
    from zoo.priors import PRIORS

    for names, page in ((LIKELIHOODS, "elbo"), (PRIORS, "priors"), (POSTERIORS, "flows")):
        text = (DOCS / "theory" / f"{page}.md").read_text().lower().replace("inverse autoregressive", "iaf")
        assert [name for name in names if name not in text] == [], page


def test_constants_that_a_page_names_are_those_of_the_code() -> None:
    from zoo.distributions import diffusion, von_mises_fisher
    from zoo.models import geco_vae, ms_ssim_vae, nvae_lite, two_stage_vae
    from zoo.priors import energy

    ssim, some, more = ms_ssim_vae, *({4: "four", 16: "sixteen"}[one] for one in (diffusion.SHOWN, diffusion.COUNTED))
    first_noise = 1 / math.sqrt(1 + math.exp(diffusion.FIRST))
    alphas = ", ".join(f"{one:.4f}".removeprefix("0") for one in ssim.WEIGHTS)
    for name, *told in (
        ("energy_vae", f"A training step takes {energy.SHARED:,} draws of its own", f"an evaluation {energy.COUNTED:,}",
         f"a small network on {energy.SHARED:,} codes"),
        ("diffusion_vae", f"{some} of each code in training and {more} in the ELBO",
         f", from {diffusion.FIRST:.0f} down to {diffusion.LAST:.0f}.", f"a deviation of {first_noise:.3f}"),
        ("two_stage_vae", f"with $a^2 = {two_stage_vae.FROM_U}$"),
        ("svae", f"at $v + {von_mises_fisher.RAISED}$"),
        ("geco_vae", "between 1/{0:,.0f} and {0:,.0f}".format(math.exp(geco_vae.LARGEST))),
        ("nvae_lite", f"rise from $10^{{{math.log10(nvae_lite.SMALLEST_WARMUP):.0f}}}$"),
        ("ms_ssim_vae", f"of {ssim.WINDOW} x {ssim.WINDOW} pixels, weighed by a Gaussian of {ssim.SIGMA}",
         f"C_1 = {ssim.C1 ** 0.5:.2f}^2 , \\quad C_2 = {ssim.C2 ** 0.5:.2f}^2", f"$\\alpha = {alphas}$",
         f"need {ssim.WINDOW * 2 ** (len(ssim.WEIGHTS) - 1)} pixels", f"A mean below {ssim.FLOOR} counts as that"),
    ):  # fmt: skip
        text = of_variant(name)
        assert [one for one in told if one not in text] == [], name


def has(model: type[BaseModel], path: str) -> bool:
    """Whether a setting of that path is there; one that ends in a star stands for all of a part."""
    *place, last = path.removesuffix(".*").split(".")
    return last in fields_at(model, place)


def test_settings_that_the_page_of_a_variant_names_are_its_own() -> None:
    shared = {"data": DataConfig, "train": TrainConfig, "evaluate": EvaluateConfig}
    heads, given = 0, 0
    for name, entry in registry().variants.items():
        text, kind = (DOCS / "variants" / f"{name}.md").read_text().split(pages.BEGIN)[0], entry.load().Settings
        section = text.partition("## What the settings do")[2].partition("\n## ")[0]
        told = re.findall(r"`([\w.]+)`", " ".join(re.findall(r"^- ((?:`[^`]+`(?:, )?)+):", section, re.M)))
        parts = {*shared, *kind.model_fields}
        told += [one for one in re.findall(r"`(\w+\.[\w.*]+)`", text) if one.partition(".")[0] in parts]
        for one in told:
            part, _, rest = one.partition(".")
            assert has(shared[part], rest) if part in shared else has(kind, one), f"{one} on the page of {name}"
        for line in text.splitlines():
            settings: dict[str, str] = {}
            for one in re.findall(r"`(?:--set )?([a-z_.]+=[^`\s]+)`", line):
                settings[one.partition("=")[0]] = one
                check_settings(name, resolve(name, settings=[*settings.values()]).model)
                given += 1
        heads += len(told)
    assert heads > 100 and given > 20


@pytest.mark.parametrize("prior", ["vamp", "energy", "diffusion"])
def test_the_page_of_a_prior_names_every_variant_that_refuses_it(prior: str) -> None:
    import torch

    entries = registry().variants
    kinds = {name: entry.load().Settings.model_fields.get("prior") for name, entry in entries.items()}
    having = [name for name, field in kinds.items() if field is not None and field.annotation is PriorSettings]
    assert len(having) > 20
    refused = set()
    for name in having:
        try:
            with torch.device("meta"):
                create_model(name, prior={"name": prior})
        except UsageError:
            refused.add(name)
    section = (DOCS / "variants" / f"{prior}_vae.md").read_text().split("## What the settings do")[1].split("\n## ")[0]
    assert refused and {name for name in having if f"]({name}.md)" in section} - {"vae", "iwae"} == refused


# ---- formulae ---------------------------------------------------------------------------------------------------


def formulae(path: Path) -> list[str]:
    text = prose(path)
    display = re.findall(r"^\$\$\n(.*?)\n\$\$$", text, re.M | re.S)
    rest = re.sub(r"^\$\$\n.*?\n\$\$$", "", text, flags=re.M | re.S)
    assert "$$" not in rest, "a display formula stands on lines of its own"
    assert rest.count("$") % 2 == 0, "an odd number of dollar signs"
    return display + re.findall(r"\$([^$]+)\$", rest)


@pytest.mark.parametrize("path", [path for path in PAGES if "$" in prose(path)], ids=named)
def test_formulae_survive_markdown_and_can_be_drawn(path: Path) -> None:
    """GitHub reads Markdown first: there a backslash before punctuation is lost, and a star may begin an emphasis."""
    for formula in formulae(path):
        assert not re.search(r"\\[^\w\s]|\*", formula), formula
        assert formula.count("{") == formula.count("}"), formula
        assert formula.count(r"\left") - formula.count(r"\leftarrow") == formula.count(r"\right"), formula
    converter = pytest.importorskip("latex2mathml.converter", reason="latex2mathml comes with the extra `docs`")
    for formula in formulae(path):
        drawn = converter.convert(formula)
        assert drawn.startswith("<math") and not re.search(r"<m[io]>\\[a-z]", drawn), formula


# ---- generated parts --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records() -> list:
    return pages.committed(ROOT / pages.RECORDS)


def test_generated_parts_are_what_the_registry_and_the_records_say(records: list) -> None:
    old = [
        named(path)
        for path, text in pages.pages(registry(), records, DOCS, pages.committed(ROOT / pages.STUDY)).items()
        if not path.exists() or path.read_text() != text
    ]
    assert not old, f"{', '.join(old)}: run `python -m benchmarks.report.pages`"


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--nonsense"], 2)])
def test_pages_that_nobody_asked_for_are_not_written(
    monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
) -> None:
    monkeypatch.setattr("sys.argv", ["pages", *words])
    monkeypatch.setattr(pages, "pages", lambda *_: pytest.fail("it began to write"))
    with pytest.raises(SystemExit) as left:
        pages.main()
    assert left.value.code == code


def test_the_rate_of_info_vae_is_that_of_its_records(records: list) -> None:
    text = (DOCS / "variants" / "info_vae.md").read_text()
    (said,) = re.findall(r"have a rate of ([\d.]+) nats in the mean", text)
    of = [one for one in records if (one.cell.group, one.cell.variant) == ("family@1", "info_vae")]
    rates = [one.metrics["rate"].value for one in of]
    assert len(rates) == 3 and said == f"{sum(rates) / 3:.1f}"


def test_what_another_likeness_gains_and_loses_is_what_the_records_say(records: list) -> None:
    def mean(variant: str, metric: str) -> float:
        values = [one.metrics[metric].value for one in records
                  if (one.cell.group, one.cell.variant) == ("family@1", variant)]  # fmt: skip
        assert len(values) == 3
        return sum(values) / 3

    ratios = {name: [mean(name, metric) / mean("vae", metric) for metric in ("fd_digits", "elbo")]
              for name in ("dfc_vae", "ms_ssim_vae")}  # fmt: skip
    for name, said in (
        ("dfc_vae", "three quarters of the [VAE](vae.md)'s `fd_digits`, and its bound is a tenth more nats"),
        ("ms_ssim_vae", "less than half of the [VAE](vae.md)'s `fd_digits`, and its bound is more than a third more"),
    ):
        assert said in of_variant(name)
    assert ratios["dfc_vae"] == [pytest.approx(0.75, abs=0.025), pytest.approx(1.1, abs=0.025)]
    assert ratios["ms_ssim_vae"][0] < 1 / 2 and ratios["ms_ssim_vae"][1] > 4 / 3


def test_what_layers_carry_is_what_the_records_say(records: list) -> None:
    text = in_a_line(DOCS / "metrics.md")
    of = {one.cell.variant: one.rates for one in records if one.cell.group == "mnist@1" and one.cell.seed == 0}
    second = of["nvae_lite"][1]
    said = f"carries {second.value:.2f} nats with {second.active} of its {second.dimensions} dimensions active"
    assert len(of["nvae_lite"]) == 4 and f"the second of nvae_lite's four groups {said}" in text
    *others, last = [f"{one.value:.1f}" for one in of["ladder_vae"]]
    assert f"ladder_vae's layers carry {', '.join(others)} and {last} nats from the top." in text


def test_what_a_page_says_of_its_variant_beside_the_vae_is_what_the_records_say(records: list) -> None:
    beside = {
        name: {one.column.metric: one for one in against(records, name, "vae", "family", ROOT / pages.RECORDS)}
        for name in ("energy_vae", "poincare_vae", "categorical_vae", "gamma_vae")
    }
    for name, said, better in (
        ("energy_vae", "ahead of the VAE by {} nats of NLL", "energy_vae"),
        ("poincare_vae", "no better and no worse than the VAE, {} nats of NLL apart", "tie"),
        ("categorical_vae", "For likelihood a [VAE](vae.md) is ahead", "vae"),
        ("gamma_vae", "a [VAE](vae.md) of as many dimensions is ahead by {} nats of NLL", "vae"),
    ):
        nll = beside[name]["nll_iwae_64_all"]
        assert said.format(plus_minus(abs(nll.value), nll.error)) in of_variant(name) and nll.better == better, name
        assert (nll.a.seeds, nll.b.seeds, nll.table.group) == (3, 3, "family@1")
    energy, poincare = beside["energy_vae"]["fd_digits"], beside["poincare_vae"]
    assert "with about half of its `fd_digits`" in of_variant("energy_vae")
    assert energy.a.value / energy.b.value == pytest.approx(0.5, abs=0.05)
    probe = poincare["linear_probe"]
    said = f"the linear probe ({probe.a.value:.3f} beside {probe.b.value:.3f}), PSNR and SSIM"
    assert said in of_variant("poincare_vae")
    assert {poincare[metric].better for metric in ("linear_probe", "psnr", "ssim")} == {"vae"}
    family = [one for one in records if one.cell.group == "family@1" and "elbo" in one.metrics]
    lowest = [variant for _, variant in sorted((one.metrics["elbo"].value, one.cell.variant) for one in family)]
    assert lowest[:6] == ["autoencoder_kl"] * 3 + ["adversarial_ae"] * 3
    assert "far below the others' but [AutoencoderKL](autoencoder_kl.md)'s" in of_variant("adversarial_ae")


def test_what_a_page_says_of_the_cost_of_its_variant_is_so(records: list) -> None:
    cost = {name: create_model(name).decodings for name in ("hamiltonian_vae", "vae")}
    assert cost == {"hamiltonian_vae": 6, "vae": 1}
    assert "is six passes through the decoder where the [VAE](vae.md)'s is one" in of_variant("hamiltonian_vae")
    passes = {one.cell.variant: one.train.epochs for one in records if one.cell.group == "mnist@1"}
    assert passes["vae"] == 3 * passes["nvae_lite"]
    assert "in the suite `mnist` it sees a third of the images that the VAE sees" in of_variant("nvae_lite")
    table = (DOCS / "performance.md").read_text().split("## Compiled losses")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|", table, re.M))
    took = r"with the defaults took ([\d.]+) ms .+ other networks, took ([\d.]+)"
    (steps,) = re.findall(took, of_variant("hvamp_vae"))
    assert steps == (rows["hvamp_vae"], rows["vamp_vae"])


def test_what_labels_do_for_mig_is_what_the_records_say(records: list) -> None:
    text = in_a_line(DOCS / "howto" / "few-labels.md")
    found: dict[str, list[float]] = {}
    for one in records:
        if one.cell.group == "disentanglement@2" and "mig" in one.metrics:
            found.setdefault(one.cell.variant, []).append(one.metrics["mig"].value)
    means = {name: sum(values) / len(values) for name, values in found.items()}
    taught = [name for name in means if name.startswith("s2_")]
    assert len(taught) == 4
    for names, said in (
        (taught, r"the four have a MIG of ([\d.]+) to ([\d.]+) with 1,000 labels"),
        (("beta_vae", "beta_tcvae", "factor_vae"), r"factor_vae without any have ([\d.]+) to ([\d.]+)\."),
    ):
        (ends,) = re.findall(said, text)
        values = [means[name] for name in names]
        assert ends == (f"{min(values):.2f}", f"{max(values):.2f}")


def test_where_the_time_of_a_suite_goes_is_what_its_records_say(records: list) -> None:
    text = (DOCS / "performance.md").read_text().split("## Where the time of a suite goes")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+@\d+)` \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert {group for group, *_ in rows} == {one.cell.group for one in records}
    for group, cells, *shares in rows:
        took = [one.seconds for one in records if one.cell.group == group and one.status == "done"]
        total, train, measured = (sum(getattr(one, part) for one in took) for part in ("total", "train", "evaluate"))
        found = (train, measured, total - train - measured)
        assert (len(took), *shares) == (int(cells), *(f"{100 * part / total:.1f}" for part in found)), group


def test_what_a_page_says_of_training_images_is_what_the_evaluations_say() -> None:
    text = in_a_line(DOCS / "howto" / "evaluate.md")
    splits, folder = ("train", "validation", "test"), ROOT / "leaderboard" / "evaluations"
    rows = re.findall(r"\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", text)
    found = {path.stem: evaluated.read(path) for path in folder.glob("*.json")}
    assert found.keys() == {f"{name}-{split}" for name, *_ in rows for split in splits}
    for name, *shown, gap in rows:
        runs = [found[f"{name}-{split}"] for split in splits]
        weights = sha256_file(ROOT / "leaderboard" / "weights" / name / "model.safetensors")
        assert {(one.run.weights_sha256, one.own) for one in runs} == {(weights, True)}, name
        command = f"zoo evaluate leaderboard/weights/{name} --split train"
        assert runs[0].command.startswith(command) and runs[0].command.replace(name, "vae") in text
        elbos = [one.metrics["elbo"] for one in runs]
        assert shown == [plus_minus(one.value, one.stderr) for one in elbos]
        assert gap == f"{elbos[0].value - elbos[2].value:+.2f}"
    epochs = {name: {found[f"{name}-{split}"].config["train"]["epochs"] for split in splits} for name, *_ in rows}
    assert epochs == dict.fromkeys(epochs, {15}) | {"vq_vae": {9}} and "15 epochs, `vq_vae` 9)" in text
    gaps = [float(gap) for *_, gap in rows]
    assert (sum(gap < 0 for gap in gaps), len(gaps)) == (4, 5) and "Four of the five have a lower bound on" in text
    lowest = {min(splits, key=lambda split: found[f"{name}-{split}"].metrics["elbo"].value) for name in epochs}
    assert lowest == {"validation"} and "all have their lowest on validation images" in text
    leads = []
    for split in ("train", "test"):
        places = [folder / f"{name}-{split}.json" for name in ("ladder_vae", "vae")]
        a, b = (one.as_record(name) for one, name in zip(map(evaluated.read, places), ("ladder_vae", "vae")))
        beside = dict(zip((a.cell, b.cell), places)).__getitem__
        (one,) = (one for one in against([a, b], "ladder_vae", "vae", folder=beside) if one.column.metric == "elbo")
        assert one.paired and f"{one.value:.2f} ± {one.error:.2f} nats better on {split}" in text
        leads.append(one)
    lost, error = leads[0].value - leads[1].value, math.hypot(*(one.error for one in leads))
    assert f"{lost:.2f} ± {error:.2f} nats do not carry over" in text


def test_what_a_page_says_of_stored_images_is_what_the_evaluations_say() -> None:
    text, folder = (DOCS / "howto" / "compress.md").read_text(), ROOT / "leaderboard" / "evaluations" / "coded"
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.M)
    assert {name for name, *_ in rows} == {path.stem for path in folder.glob("*.json")} - {"file"}
    beside, begun = {}, {}
    for name, *shown in rows:
        found = evaluated.read(folder / f"{name}.json")
        weights = sha256_file(ROOT / "leaderboard" / "weights" / name / "model.safetensors")
        assert (found.run.weights_sha256, found.own, found.split) == (weights, True, "test")
        assert found.command.replace(name, "vae") in text
        elbo, length = (found.metrics[metric] for metric in ("elbo", "code_length"))
        assert length.n == elbo.n == found.images
        begun[name] = length.note
        with np.load(folder / f"{name}.npz") as each:
            apart = each["code_length"].astype(float) + each["elbo"]
        beside[name] = apart.mean(), apart.std(ddof=1) / len(apart) ** 0.5
        difference = plus_minus(*beside[name])
        bits = f"{length.value / 784 / math.log(2):.4f}"
        assert shown == [plus_minus(one.value, one.stderr) for one in (elbo, length)] + [bits, difference], name
    stored = json.loads((folder / "file.json").read_text())
    sizes, said = stored["sizes"], " ".join(text.split())
    assert f"`{stored['variant']}`" in said and f"{stored['n']:,}" in said
    for name in ("file", "gzip", "bz2", "xz", "raw"):
        assert f"{sizes[name]:,} bytes" in said, name
    bits = {}
    for name, note in begun.items():
        ((nats, stacks),) = re.findall(r"^([\d.]+) nats an image more with what (\d+) stacks begin with", note)
        bits[name] = float(nats) * stored["n"] / int(stacks) / math.log(2)
    assert f"some {round(bits['vae'], -1):.0f} bits each with the `vae` of the table below" in said
    took = (stored["net"] * stored["n"] / math.log(2) + LANES * bits[stored["variant"]]) / 8
    assert f"the default is {LANES}." in said and "by a head of a few hundred bytes" in said
    assert 200 < sizes["file"] - took < 500
    readme = in_a_line(ROOT / "README.md")
    assert f"{sizes['file']:,} bytes (bz2: {sizes['bz2']:,})" in readme
    less, _ = beside.pop("vae_gan")
    assert all(abs(value) < min(0.1, 2 * error) for value, error in beside.values())
    assert len(beside) == 5 and "the bound to within 0.1 nats for five of the [six models that were asked]" in readme
    assert f"takes {-less:.1f} nats less" in readme and "to within twice the error of their difference" in said
    for name in ("nvae_lite", "vq_vae"):
        begins = begun[name].split()[0]
        assert re.search(rf"{re.escape(begins)}( nats an image)? to `{name}`", said), name


def test_what_a_page_says_of_densities_of_codes_is_what_the_evaluations_say() -> None:
    text, folder = (DOCS / "metrics.md").read_text(), ROOT / "leaderboard" / "evaluations" / "densities"
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+ ± [^|]+; .+) \|$", text, re.M))
    assert sorted(rows) == sorted(path.stem for path in folder.glob("*.json") if not path.stem.endswith("-one"))
    gains = []
    for name, shown in rows.items():
        of_both, of_one = (evaluated.read(folder / f"{name}{which}.json") for which in ("", "-one"))
        weights = sha256_file(ROOT / "leaderboard" / "weights" / name / "model.safetensors")
        for found in (of_both, of_one):
            assert (found.run.weights_sha256, found.own, found.split) == (weights, True, "test")
            assert found.command.replace(name, "vae") in text
        both, one = of_both.metrics, of_one.metrics
        assert one["fd_digits_ex_post"].identity["components"] == 1
        assert both["fd_digits_ex_post"].identity["components"] == 10
        measured = [one["fd_digits_ex_post"], both["fd_digits_ex_post"], both["fd_digits_ex_post_flow"]]
        nats = [re.findall(r"-?\d+\.\d\d", found.note) for found in measured]
        assert len({under_normal for _, under_normal in nats}) == 1
        cells = zip([both["fd_digits"], *measured], [nats[0][1], *(own for own, _ in nats)], strict=True)
        assert shown.split(" | ") == [f"{plus_minus(each.value, each.stderr)}; {log}" for each, log in cells], name
        assert measured[1].value < measured[2].value
        gains.append(float(nats[2][0]) - float(nats[1][0]))
    said = f"models' codes by {min(gains):.1f} to {max(gains):.1f} nats, and the mixture has the better samples"
    assert said in " ".join(text.split())


BOUNDS = ("nll_iwae_512", "nll_ais", "ais_gain", "ais_gap", "amortisation_gap", "approximation_gap")


def test_what_a_page_says_of_how_loose_bounds_are_is_what_the_evaluations_say() -> None:
    text, folder = (DOCS / "metrics.md").read_text(), ROOT / "leaderboard" / "evaluations" / "bounds"
    assert f"| model | {' | '.join(f'`{name}`' for name in BOUNDS)} |" in text
    said = text.split("**On models of the board**")[1].split("Records:")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", said, re.M))
    found = {path.stem: evaluated.read(path) for path in folder.glob("*.json")}
    assert sorted(rows) == sorted(found)
    for name, made in found.items():
        weights = sha256_file(ROOT / "leaderboard" / "weights" / name / "model.safetensors")
        assert (made.run.weights_sha256, made.own, made.split) == (weights, True, "test")
        assert made.command.replace(name, "vae") in text
        cells = [made.metrics.get(one) for one in BOUNDS]
        assert {cell.n for cell in cells if cell} == {100}
        shown = ["–" if cell is None else plus_minus(cell.value, cell.stderr) for cell in cells]
        assert rows[name].split(" | ") == shown, name
        groups = " | ".join(f"{made.metrics[f'cluster_{end}'].value:.3f}" for end in ("accuracy", "nmi", "ari"))
        assert f"\n| `{name}` | {groups} |\n" in text, name
    orders = [sorted((made.metrics[one].value, name) for name, made in found.items()) for one in BOUNDS[:2]]
    assert len({tuple(name for _, name in order) for order in orders}) == 1 and "no two models change places" in said
    gains = {name: made.metrics["ais_gain"].value for name, made in found.items()}
    readme = in_a_line(ROOT / "README.md")
    (vae, gan) = re.findall(r"is ([\d.]+) nats too large for vae and ([\d.]+) for vae_gan", readme)[0]
    assert (vae, gan) == (f"{gains['vae']:.1f}", f"{gains['vae_gan']:.1f}")
    others = [gain for name, gain in gains.items() if name != "vae_gan"]
    assert f"is {min(others):.1f} to {max(others):.1f} nats too large" in said
    assert f"it is {gains['vae_gan']:.0f} nats too large for `vae_gan`" in said
    given = found["beta_vae"].metrics["amortisation_gap"].value
    assert f"gives away {given:.1f} nats of the bound" in " ".join(said.split())


def test_a_rank_is_out_of_all_that_it_counts() -> None:
    values = {"flow_vae": -1.0, "vae": -2.0, "beta_vae": -3.0}
    runs = [make(name, numbers={"elbo": (value, 0.1)}) for name, value in values.items()]
    found = tables([*runs, failed("flow_vae", 1)])
    for name, rank in (("vae", "2 of 3"), ("beta_vae", "3 of 3"), ("flow_vae", "")):
        page = pages.variant(name, registry().variants[name], found, {})
        (line,) = (line for line in page.splitlines() if line.startswith("| ELBO "))
        assert line.split(" | ")[-1].removesuffix(" |").strip("| ") == rank, name


def test_tables_of_other_content_are_told_apart_on_a_page_as_on_the_board() -> None:
    numbers = {"elbo": (-100.0, 0.5), "rate": (20.0, 0.1), "distortion": (80.0, 0.4)}
    found = tables([make("vae", numbers=numbers), make("m2", numbers=numbers, data__sha256="ef" * 32)])
    assert len(found) == 2
    heads = re.findall("^### .*", pages.rates(found), re.M)
    assert sorted(heads) == ["### quick@1, mnist (set 1)", "### quick@1, mnist (set 2)"]
    (table,) = [one for one in found if one.rows[0].variant == "m2"]
    page = pages.variant("m2", registry().variants["m2"], found, {})
    assert f"### quick@1, mnist (set {table.part})" in page


def test_every_variant_has_a_page_that_the_common_page_links_to() -> None:
    index = (DOCS / "variants" / "index.md").read_text()
    for name, entry in registry().variants.items():
        if entry.origin == "built-in":
            assert f"[{name}]({name}.md)" in index
            assert (DOCS / "variants" / f"{name}.md").read_text().startswith(f"# {entry.title}\n")


def test_what_is_written_by_hand_is_kept_and_without_records_pages_say_so(tmp_path: Path) -> None:
    (tmp_path / "variants").mkdir()
    page = tmp_path / "variants" / "vae.md"
    page.write_text(f"# VAE\n\nBefore.\n\n{pages.BEGIN}\nold\n{pages.END}\n\nAfter.\n")
    made = pages.pages(registry(), [], tmp_path)
    assert made[page].startswith("# VAE\n\nBefore.\n") and made[page].endswith("\nAfter.\n") and "old" not in made[page]
    assert "No record of this variant" in made[page]
    for name, suite in (("iwae", "family"), ("ada_vae", "disentanglement")):
        assert f"`zoo bench {suite} --variants {name}` makes one" in made[tmp_path / "variants" / f"{name}.md"]
    assert "There are no records with a rate yet" in made[tmp_path / "theory" / "rate-distortion.md"]
    assert "There are no records of it yet" in made[tmp_path / "howto" / "spread.md"]
    page.write_text(made[page])
    assert pages.pages(registry(), [], tmp_path)[page] == made[page]


def test_a_default_on_a_page_can_be_typed_as_it_stands() -> None:
    for name, entry in registry().variants.items():
        kind = entry.load()
        usual = kind.Settings.model_validate(entry.settings)
        rows = re.findall(r"^\| `([\w.]+)` \| `([^`]+)`", settings.table(kind.Settings, entry.settings), re.M)
        assert rows
        typed = resolve(name, settings=[f"{key}={value}" for key, value in rows])
        assert kind.Settings.model_validate(typed.model) == usual, name


def test_settings_are_told_with_their_limits_and_their_sentence() -> None:
    from zoo.models.beta_vae import BetaSettings

    table = settings.table(BetaSettings, {"beta": 4.0, "posterior": {"name": "iaf"}})
    assert "| `beta` | `4` | number, ≥ 0 | weight of the rate in training |" in table
    assert "| `posterior.name` | `iaf` | one of `diagonal`, `planar`, " in table
    # A docstring's `Attributes` stand in for descriptions.
    assert "| `posterior.bins` | `8` | whole number, ≥ 2 | pieces of a spline |" in table


def test_the_plane_is_rate_and_distortion_of_the_table(records: list) -> None:
    table = tables(records)[0]
    points = plane.points(table)
    assert [one.rate + one.distortion for one in points] == sorted(one.rate + one.distortion for one in points)
    assert not {one.label for one in points} & {row.label for row in table.rows if row.conditional}
    elbo = next(column for column in table.head if column.metric == "elbo")
    elbos = {row.label: row.cells[elbo].value for row in table.rows}
    for one in points:
        assert one.rate + one.distortion == pytest.approx(-elbos[one.label], abs=1e-6)
    assert {one.beta for one in points if one.label == "vae"} == {1.0}
    drawn = plane.svg(points)
    assert drawn == plane.svg(list(points)) and drawn.count("<title>") == len(points)


def test_rows_of_either_number_of_images_are_in_the_plane() -> None:
    def alike(n: int) -> dict[str, tuple]:
        return {"rate": (20.0, 0.1, {"n": n}), "distortion": (float(n), 0.1, {"n": n})}

    mixed = {"rate": (20.0, 0.1, {"n": 500}), "distortion": (70.0, 0.1, {"n": 10_000})}
    (table,) = tables(
        [make("a", numbers=alike(500)), make("b", numbers=alike(10_000)), make("c", numbers=mixed), make("d")]
    )
    assert {one.label: one.distortion for one in plane.points(table)} == {"a": 500.0, "b": 10_000.0}


def test_a_curve_of_the_plane_joins_what_differs_in_beta_alone() -> None:
    def run(variant: str, rate: float, **model: float) -> Record:
        return make(variant, numbers={"rate": (rate, 0.1), "distortion": (80.0, 0.4)}, settings={"model": model})

    sweep = [run("vae", 20.0 + latent, latent=latent) for latent in (2, 5, 10)]
    assert "<polyline" not in plane.svg(plane.points(tables(sweep)[0]))
    betas = [
        run("beta_vae", 20.0 - beta + latent, beta=beta, latent=latent) for latent in (2, 5) for beta in (2.0, 4.0)
    ]
    drawn = plane.svg(plane.points(tables([*sweep, *betas])[0]))
    curves = [points.split() for points in re.findall(r'<polyline points="([^"]*)"', drawn)]
    assert [len(points) for points in curves] == [3, 3]
    for points in curves:  # from the VAE to the highest beta, the rate falls
        assert [float(point.partition(",")[0]) for point in points] == sorted(
            (float(point.partition(",")[0]) for point in points), reverse=True
        )


def test_one_point_has_a_plane_too() -> None:
    alone = plane.Point("vae", 20.0, 80.0, "20", "80", 1.0)
    assert "nan" not in plane.svg([alone]) and "20.0" not in plane.svg([alone]).split("rate + distortion")[0][-20:]


@pytest.mark.parametrize("size", [0.0, 0.01, 1.0, 9.99997, 27.32211, 84.0116, 64_310.12])
def test_the_ticks_of_a_narrow_plane_are_told_apart(size: float) -> None:
    for width in (0.0, 1e-7, 1e-4):
        drawn = plane.svg(
            [plane.Point("m2", size + extra, size + extra, "", "", None) for extra in (0.0, width * size)]
        )
        for place in ('y="406" text-anchor="middle"', 'text-anchor="end"'):
            ticks = re.findall(rf"<text [^>]*{place}>([^<]*)", drawn)
            assert len(ticks) == len(set(ticks)) >= 2, ticks


def test_the_names_of_many_points_are_inside_the_drawing() -> None:
    drawn = plane.svg([plane.Point(f"v{i}", 20.0 + i, 80.0, "", "", None) for i in range(40)])
    height = int(re.search(r'viewBox="0 0 \d+ (\d+)"', drawn)[1])
    assert max(float(y) for y in re.findall(r'<text x="\d+" y="([\d.]+)"', drawn)) < height


# ---- the site ---------------------------------------------------------------------------------------------------


def test_the_site_is_built_without_a_warning_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs comes with the extra `docs`")
    pytest.importorskip("material", reason="mkdocs-material comes with the extra `docs`")
    pytest.importorskip("latex2mathml", reason="latex2mathml comes with the extra `docs`")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    words += ["--config-file", str(DOCS / "site" / "mkdocs.yml"), "--site-dir", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    built = sorted(tmp_path.rglob("*.html"))
    assert len(built) > len(PAGES)
    for path in built:
        html = path.read_text()
        assert not re.search(r"<(?:script|img|iframe)[^>]* src=\"?(?:https?:)?//", html), path
        assert not re.search(r"<link[^>]*rel=\"?(?:stylesheet|preconnect)[^>]*href=\"?(?:https?:)?//", html), path
        assert "arithmatex" not in html, path
    assert "<math" in (tmp_path / "theory" / "elbo.html").read_text()
