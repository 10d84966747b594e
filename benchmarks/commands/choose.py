"""`zoo choose`: the value of a setting that is best on validation images, and its number on those of the test."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.commands import bench, options
from benchmarks.commands.exit_codes import FAILED
from zoo.errors import fold

if TYPE_CHECKING:
    from benchmarks.choosing.choice import Choice, Value

USUAL = "as the suite has it"
CHOSE = "Validation images chose the value, and the weights before: theirs is flattered."
UNTOUCHED = "Test images chose nothing: quote theirs, and how many values were tried (of)."
ONE_SEED = "One seed each: the error is over images alone, another may choose otherwise."
UNEQUAL = "Not all had as many values: with more of them there is more to gain."


@click.command()
@click.argument("suite")
@options.sweep
@click.option("--by", default="elbo", show_default=True, help="The metric, as in `zoo list metrics`; or nll.")
@click.option("--variants", multiple=True, help="Only these; comma-separated or repeated. Any registered variant.")
@click.option("--datasets", multiple=True, help="Only these data sets; a comma of a folder's is \\,.")
@options.so_many_seeds
@options.seeds
@click.option("--jobs", default="auto", show_default=True, help="Processes; auto: one on a GPU, a core each else.")
@click.option("--worker", type=int, hidden=True)
@click.option("--out", type=options.Json(), help="A file of what was chosen, which `zoo compare --chosen` reads.")
@options.runs
@options.board()
@options.device
@options.wandb
@options.as_json
def choose(
    suite: str, sweeps: tuple[str, ...], by: str, variants: tuple[str, ...], datasets: tuple[str, ...],
    seeds: int | None, chosen: tuple[int, ...], jobs: str, worker: int | None, out: Path | None, runs: Path,
    board: Path, device: str, wandb_mode: str, as_json: bool,
) -> None:  # fmt: skip
    """Choose the value of a setting on validation images, for each variant of a SUITE, and say what it comes to on test
    images. The cells are those of `zoo bench`, and the missing ones are run; each run is then measured on its
    validation images, as by `zoo evaluate RUN --split validation`. The same command goes on where it was stopped."""
    from benchmarks import matrix
    from benchmarks.choosing import candidates, choice, written
    from benchmarks.interrupt import graceful
    from benchmarks.suite import suite_named

    every = bench.seeds_of(seeds, chosen)
    bench.check_jobs(jobs)
    places = matrix.Places(board, runs)
    names = (options.names(variants, "--variants"), options.names(datasets, "--datasets"))
    planned = candidates.plan(suite_named(suite), *names, every, options.swept(sweeps))
    cells = candidates.in_turn(planned)
    if worker is not None:
        bench.work(cells, places, device, wandb_mode, worker)
        return
    bench.check_settings(cells)
    by = fold(by)
    if out is not None:
        written.check_free(out, written.among(by, planned))
    candidates.check_models(cells, places)
    candidates.check_metric(by, planned)
    if todo := [one for one in cells if not matrix.over(one, places)]:
        with matrix.then(lambda: matrix.write_board(places), places):
            bench.run_all(todo, cells, places, device, wandb_mode, jobs)

    def tell(one: matrix.Planned) -> None:
        click.echo(f"[{cells.index(one) + 1}/{len(cells)}] {one.cell.stem} on validation images", err=True)

    with graceful() as should_stop:
        found = choice.measure(cells, places, device, should_stop, tell)
    choices = []
    for sweep in planned:
        records = [made for one in sweep.cells if (made := matrix.recorded(one, places)) is not None]
        choices.append(choice.choose(sweep, records, found, by))
    made = written.content(choices, by, shlex.join(["zoo", *sys.argv[1:]]))
    if out is not None:
        written.write(made, out)
    if as_json:
        click.echo(json.dumps(made, indent=2))
    else:
        _tell(choices, out)
    if any(value.lost for one in choices for value in one.values):
        raise click.exceptions.Exit(FAILED)


def _tell(choices: list[Choice], out: Path | None) -> None:
    from benchmarks.choosing.choice import ranks
    from benchmarks.report import notation, terminal

    width, ranked = terminal.screen_width(), ranks(choices)

    def place(one: Choice) -> tuple[str, ...]:
        return one.group, one.dataset, one.column.title

    for (group, dataset, title), some in groupby(sorted(choices, key=place), place):
        here = list(some)
        rows = [
            (one.variant, value.setting or USUAL, _number(value, one), value.verdict)
            for one in here
            for value in one.values
        ]
        click.echo(f"{group}  {dataset}")
        head = f"{title}, validation"
        click.echo(terminal.table(rows, ("variant", "value", head, "verdict"), width, right="  rk"))
        click.echo()
        rows = [_row(one, ranked.get((one.variant, one.dataset))) for one in here]
        heads = ["variant", "chosen", "of", f"{title}, test", "rank"][: 5 if len(here) > 1 else 4]
        click.echo(terminal.table([row[: len(heads)] for row in rows], heads, width, right="  rrr"))
        click.echo()
        for one in here:
            for said in _said(one, width):
                click.echo(said)
    click.echo(f"{CHOSE}\n{UNTOUCHED}")
    if any(one.marked for one in choices):
        click.echo(notation.CONDITIONAL)
    if any(value.asked == 1 for one in choices for value in one.values):
        click.echo(ONE_SEED)
    if len({len(one.values) for one in choices}) > 1:
        click.echo(UNEQUAL)
    if out is not None:
        click.echo(f"\n{out}")


def _number(value: Value, one: Choice) -> str:
    from benchmarks.report import notation

    return "-" if value.validation is None else notation.estimate(value.validation, value.asked)


def _row(one: Choice, rank: int | None) -> list[str]:
    from benchmarks.report import notation

    name = one.variant + (notation.DAGGER if one.marked else "")
    if one.chosen is None:
        return [name, "none", str(len(one.values)), "-", "-"]
    test = one.chosen.test
    shown = "not measured" if test is None else notation.estimate(test, one.chosen.asked)
    return [name, one.chosen.setting or USUAL, str(len(one.values)), shown, "-" if rank is None else str(rank)]


def _said(one: Choice, width: int) -> Iterator[str]:
    from benchmarks.choosing import choice
    from benchmarks.report import notation, terminal

    for value in one.values:
        for made in value.lost:
            which = f"{one.variant} {value.setting}".strip()
            said = f"{which} seed {made.cell.seed} {made.status}: {terminal.plain(made.reason or '')}"
            yield notation.shorten(said, width)
    chosen = one.chosen
    if chosen is None:
        yield f"{one.variant}: no value has a number of each of its seeds, and none is chosen."
        return
    for verdict, why in (
        (choice.TIE, "the errors do not tell it from {}: it has the better mean."),
        (choice.SAME, "{} came to the same numbers: it stands first."),
        (choice.NO_ERROR, "no error is known by which to tell it from {}: it has the better mean."),
    ):
        if others := one.judged(verdict):
            yield f"{one.variant}, {chosen.setting}: " + why.format(notation.listed([each.setting for each in others]))
    if len(one.values) > 1 and one.on_test is not None and chosen.test is not None:
        yield f"{one.variant}: picked on the test images it would have been {_picked(one)}."


def _picked(one: Choice) -> str:
    from benchmarks.report import notation

    best, chosen = one.on_test.test, one.chosen.test
    if one.on_test is one.chosen:
        return f"{one.chosen.setting} too"
    more = notation.number(abs(best.value - chosen.value), 3)
    return f"{one.on_test.setting} at {notation.plus_minus(best.value, best.stderr)}, which reads {more} better"
