"""Every command and snippet of the README runs, the long ones on a tiny suite."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.running import workers
from benchmarks.suite import suite_named
from tests.conftest import ROOT
from tests.test_cli import call

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[str]:
    lines = "\n".join(blocks("console")).splitlines()
    return [command for line in lines if (command := line.partition("#")[0].strip())]


SHORT = {
    "bench quick": "bench smoke",
    "choose quick": "choose smoke",
    "--data mnist": "--data synthetic",
    "train.epochs=5": "train.epochs=1 --set evaluate.quality_samples=0",
}


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("zoo ")])
def test_each_zoo_command_runs(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    # Workers load torch anew: those of `zoo bench` have tests of their own, and those of `zoo choose` are seen here.
    monkeypatch.setattr(workers, "how_many", lambda *_: 2 if command.startswith("zoo choose ") else 1)
    if command == "zoo leaderboard":
        call(monkeypatch, capsys, "bench", "smoke", "--variants", "vae")
    if command == "zoo compare flow_vae vae":
        call(monkeypatch, capsys, "bench", "smoke", "--variants", "flow_vae,vae")
    if command.startswith("zoo spread "):
        Path("leaderboard").symlink_to(ROOT / "leaderboard")
    if command.startswith(("zoo rank ", "zoo evaluate ", "zoo compress ")):
        for seed, folder in enumerate(word for word in command.split()[2:] if word.startswith("runs/")):
            words = f"train vae --data synthetic --seed {seed} --out {folder} --set train.epochs=1"
            call(monkeypatch, capsys, *words.split(), "--set", "evaluate.quality_samples=0")
    for long, short in SHORT.items():
        command = command.replace(long, short)
    if command == "zoo bench smoke":
        command += " --variants vae,cvae"
    if command == "zoo fetch mnist":
        command = "zoo fetch synthetic"
    code, out, _ = call(monkeypatch, capsys, *shlex.split(command)[1:])
    assert (code, bool(out)) == (0, True), command


def test_the_variants_of_the_family_are_as_many_as_is_said() -> None:
    suite = suite_named("family")
    more = "twenty-" + "one two three four five six seven eight nine".split()[len(suite.variants) - 1 - 21]
    assert suite.variants[0] == "vae" and suite.summary.endswith(f"the vanilla VAE beside {more} more variants.")
    assert f"the {more} other variants on MNIST (`zoo bench family`)" in " ".join(README.split())


def test_the_other_commands_are_the_makefile_s_and_pip_s() -> None:
    others = [command for command in commands() if not command.startswith("zoo ")]
    assert others == ["make bench", "make test", "pip install -e ."]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^bench: .*\n\t.*zoo bench quick$", makefile, re.M)
    assert re.search(r"^test: .*\n(\t.*\n)*\t.*pytest", makefile, re.M)
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_python_snippets_run() -> None:
    snippets = blocks("python")
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})


def test_relative_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_what_it_says_of_published_numbers_is_on_the_page_of_reproductions() -> None:
    page = (ROOT / "leaderboard" / "REPRODUCTION.md").read_text()
    numbers = re.search(r"published numbers: (\d+) reproduced, (\d+) close, (\d+) not, \d+ not run", page)
    reproduced, close, missed = map(int, numbers.groups())
    text = " ".join(README.split())
    assert f"of {reproduced + close + missed} published numbers {reproduced} are reproduced" in text
    assert f"{close} close and {missed} not" in text
    for published, ours in re.findall(r"(\d+\.\d+) (?:nats came )?to (\d+\.\d+ ± \d+\.\d+)", text):
        assert re.search(rf"\| {published} \(\w\) \| {ours} \|.*\*\*reproduced", page), published


def test_the_distances_it_names_with_a_density_fitted_afterwards_are_of_the_records() -> None:
    text = " ".join(README.split())
    folder = ROOT / "leaderboard" / "records" / "mnist@1"

    def found(variant: str, distance: str, seed: object = "*") -> list[tuple[float, float]]:
        runs = [record.read(path).metrics for path in sorted(folder.glob(f"{variant}-mnist-s{seed}-*.json"))]
        return [(run[distance].value, run[distance + "_ex_post"].value) for run in runs]

    named = re.findall(r"from ([\d.]+) to ([\d.]+) for (\w+)", text)
    assert len(named) == 3
    for prior, afterwards, variant in named:
        runs = found(variant, "fd_digits")
        assert len(runs) == 3 and [f"{sum(each) / 3:.1f}" for each in zip(*runs)] == [prior, afterwards], variant
    one = "from ([\\d.]+) to ([\\d.]+)"
    numbers = re.search(rf"in vae_gan's runs {one}, {one} and {one}\.", text).groups()
    assert [f"{value:.1f}" for run in found("vae_gan", "fd_digits") for value in run] == list(numbers)
    named = re.findall(r"([\d.]+) and then ([\d.]+) for (\w+)", text)
    assert len(named) == 4
    for prior, afterwards, variant in named:
        ((before, after),) = found(variant, "fid_bf16", 0)
        assert (f"{before:.1f}", f"{after:.1f}") == (prior, afterwards), variant


def test_the_board_has_the_distances_in_bfloat16_that_it_names() -> None:
    having: dict[str, set[tuple[str, int]]] = {}
    for suite in ("mnist", "family"):
        made = [record.read(path) for path in (ROOT / "leaderboard" / "records" / f"{suite}@1").glob("*.json")]
        having[suite] = {
            (one.cell.variant, one.cell.seed) for one in made
            if "fid_bf16" in one.metrics and one.metrics["fid_bf16"].identity["n"] == 10_000
        }  # fmt: skip
        assert {one.cell.variant for one in made} == set(suite_named(suite).variants)
    assert having["mnist"] == {(name, seed) for name in suite_named("mnist").variants for seed in (0, 1, 2)}
    assert having["family"] == {(name, 0) for name in suite_named("family").variants}
    said = f"of seed 0 of `family`'s {len(suite_named('family').variants)} variants"
    assert f"10,000 samples of each of the three seeds of the suite `mnist` and {said}" in " ".join(README.split())


def test_the_table_lists_every_variant() -> None:
    from zoo import list_models

    named = re.findall(r"^\| `(\w+)` \|", README, re.M)
    assert sorted(named) == sorted(list_models())
