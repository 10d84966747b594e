"""`zoo evaluate`: a finished run measured again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.commands import options

if TYPE_CHECKING:
    from benchmarks.evaluated import Evaluated

SPLITS = ("test", "validation", "train")
ABOVE = ("split", "data", "data_sha256", "bits_seed", "n")  # parts of an identity that stand above the table, or in it
UNASKED = ("needs ", "evaluate.")  # how reasons begin that are no news: of the variant, the data, or what is off


@click.command()
@click.argument("run", type=options.Place())
@click.option("--split", type=click.Choice(SPLITS), help="Of the images. [default: the run's, which is test]")
@click.option("--data", help="Another data set of the same shape, or folder:PATH. [default: the run's]")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE",
              help="Such as evaluate.nll_samples=5000, evaluate.nll_images=null (all), evaluate.inception=bf16, "
              "evaluate.ex_post=10, evaluate.ex_post_flow=5, evaluate.ais=100 or evaluate.gaps=100; with --data also "
              "data.options.NAME.")  # fmt: skip
@click.option("--out", type=options.Json(), help="The file. [default: RUN/evaluations/SPLIT-DATA-KEY.json]")
@options.device
@options.as_json
def evaluate(
    run: Path, split: str | None, data: str | None, settings: tuple[str, ...], out: Path | None, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Measure a finished RUN (or an exported one) again without training it: on another split, on other images, with
    more samples, or with a metric that it was not asked for. With nothing else asked for the numbers are those of the
    run. They go into a file of their own; the record of the run and the board stay as they are."""
    from benchmarks import evaluated
    from benchmarks.interrupt import graceful
    from benchmarks.report.terminal import screen_width
    from benchmarks.running.again import Asked, evaluate_again

    words = ["zoo", "evaluate", str(run)]
    for option, value in (("--split", split), ("--data", data), *(("--set", text) for text in settings)):
        words += [option, value] if value else []
    asked = Asked(run, split, data, settings, out, shlex.join(words))
    with graceful() as should_stop:
        made, path = evaluate_again(asked, device, should_stop)
    if as_json:
        click.echo(evaluated.dump(made).rstrip())
        return
    for line in _told(made, screen_width()):
        click.echo(line)
    click.echo(f"\n{path}")


def _told(made: Evaluated, width: int) -> Iterator[str]:
    from benchmarks.report import notation
    from benchmarks.report.short import of_groups
    from benchmarks.report.tables import tables
    from benchmarks.report.terminal import table

    drawn = "noise on bytes" if made.data.support == "dequantised" else "bits"
    bits = "" if made.bits_seed is None else f", {drawn} drawn once from seed {made.bits_seed}"
    yield f"{made.run.variant}  seed {made.run.seed}  trained on {made.run.data}"
    other = "" if made.own else "other data: "
    yield f"{other}{made.split} split of {made.data.name}, {made.images:,} images{bits}"
    (shown,) = tables([made.as_record(made.run.variant)])
    (row,) = shown.rows
    rows = [
        (
            column.title + (notation.DAGGER if row.marked(column) else ""),
            notation.plus_minus(one.value, one.stderr), f"{one.n:,}", _measured_with(column.identity),
        )
        for column in [*shown.head, *shown.further] if (one := row.cells[column])
    ]  # fmt: skip
    yield table(rows, ("metric", "value", "n", "measured with"), width, right="krr")
    if made.rates:
        yield f"\n{of_groups(made.rates, width)}\n"
    if any(row.marked(column) for column in shown.head):
        yield notation.CONDITIONAL
    if any(column.metric == "reconstruction_loss" for column in shown.head):
        yield notation.NO_LIKELIHOOD
    for reason, names in groupby(sorted(made.skipped, key=made.skipped.__getitem__), made.skipped.__getitem__):
        if not reason.startswith(UNASKED):
            yield notation.shorten(f"{reason}: no {', '.join(names)}", width)


def _measured_with(identity: tuple[tuple[str, object], ...]) -> str:
    from benchmarks.report import notation

    return notation.short_hashes(", ".join(f"{name} {value}" for name, value in identity if name not in ABOVE))
