"""`zoo reproduce`: train a published recipe, evaluate it as published, and say whether the number came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.commands import options
from benchmarks.commands.exit_codes import FAILED
from zoo.errors import UsageError


@click.command()
@click.argument("names", nargs=-1)
@options.seeds
@click.option("--plan", is_flag=True, help="Print each seed as one shell command and run nothing.")
@options.runs
@options.board("Folder of REPRODUCTION.md and of its records.")
@options.device
@options.wandb
@options.as_json
def reproduce(
    names: tuple[str, ...], chosen: tuple[int, ...], plan: bool, runs: Path, board: Path, device: str, wandb_mode: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Run published recipes exactly as they are written down, and say what became of their numbers.

    Without NAMES: list the recipes with their verdicts, and write REPRODUCTION.md again. What is done is left alone,
    and what was interrupted goes on. On a GPU several recipes, and several seeds, train beside each other.
    """
    from benchmarks import matrix, record
    from benchmarks.recipe import plan as plan_recipe
    from benchmarks.recipe import recipe_named

    places = matrix.Places(board / "reproductions", runs)
    if not names:
        if chosen or plan:
            raise UsageError("--seed and --plan need the name of a recipe; `zoo reproduce` lists them.")
        if board.exists():
            write_page(board, places)
        _show(record.read_all(places.records), (), as_json)
        return
    wanted = dict(recipe_named(name) for name in names)
    cells = [planned for name, recipe in wanted.items() for planned in plan_recipe(name, recipe, chosen)]
    if plan:
        for planned in cells:
            click.echo(planned.command + options.given(click.get_current_context()))
        return
    with matrix.then(lambda: write_page(board, places), places):
        if todo := [planned for planned in cells if not matrix.over(planned, places)]:
            _run(todo, places, device, wandb_mode)
    records = [found for planned in cells if (found := matrix.recorded(planned, places))]
    # A verdict is of all seeds of a recipe, whichever were asked for.
    _show(record.read_all(places.records), tuple(wanted), as_json)
    if not as_json:
        click.echo(f"\n{board / 'REPRODUCTION.md'}")
    if any(made.status != "done" for made in records):
        raise click.exceptions.Exit(FAILED)


def write_page(board: Path, places: Any) -> Path:
    """REPRODUCTION.md from every record of a recipe that there is."""
    from benchmarks import record
    from benchmarks.recipe import files
    from benchmarks.report.reproduction import page
    from zoo.files import one_at_a_time, write_if_changed

    path = board / "REPRODUCTION.md"
    with one_at_a_time(board):
        write_if_changed(path, page(files(), record.read_all(places.records)))
    return path


def _run(todo: list[Any], places: Any, device: str, wandb_mode: str) -> None:
    from benchmarks import matrix
    from benchmarks.interrupt import graceful
    from benchmarks.running import attempts
    from benchmarks.running.ahead import left_to_cells
    from benchmarks.running.watch import watching
    from zoo.files import check_writable
    from zoo.runs.together import train_beside

    def tell(planned: Any, made: Any) -> None:
        if made is None:
            click.echo(f"{planned.command}", err=True)
        elif made.status != "done":
            click.echo(f"    {made.status}: {made.reason}", err=True)

    check_writable(places.records)
    matrix.begin()
    # Papers of dense networks computed in float32: what `auto` would take for speed on a GPU is no part of a recipe.
    compute = matrix.compute_of(device, todo, auto="float32")
    with graceful() as should_stop:
        if len(todo) > 1 and compute(todo[0]).device.type == "cuda":
            click.echo(f"{len(todo)} runs train beside each other; then each is evaluated", err=True)
            lost = "the GPU is of no use to this process; the same command goes on."
            with left_to_cells(lambda why: click.echo(f"now one by one; beside each other {why}", err=True), lost):
                train_beside(
                    [planned.config for planned in todo],
                    [places.run(planned.cell) for planned in todo],
                    [compute(planned) for planned in todo],
                    should_stop,
                )
            attempts.free_memory()
        matrix.run_all(todo, places, compute, watching(wandb_mode, places), should_stop, tell)


def _show(records: list[Any], names: tuple[str, ...], as_json: bool) -> None:
    from benchmarks.recipe import files
    from benchmarks.report import reproduction
    from benchmarks.report.terminal import table

    found = [one for one in reproduction.verdicts(files(), records) if not names or one[0] in names]
    if as_json:
        rows = [
            {
                "recipe": recipe_name,
                "metric": target.metric,
                "published": target.value,
                "ours": None if made.ours is None else made.ours.value,
                "difference": made.difference,
                "verdict": made.word,
                "why": made.why,
            }
            for recipe_name, _, target, made in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    rows = [
        [recipe_name, target.label, reproduction.published(target), reproduction.ours(made),
         reproduction.difference(made), made.word]
        for recipe_name, _, target, made in found
    ]  # fmt: skip
    click.echo(table(rows, ["recipe", "metric", "published", "ours", "difference", "verdict"], width=140))
    for recipe_name, _, _, made in found:
        if names and made.why:
            click.echo(f"{recipe_name}: {made.why}")
    for order, made in reproduction.order_verdicts(files(), records):
        if made.ours is not None:
            said = f"{order.smaller} below {order.larger} by {made.ours:.3g}, published {made.published:.3g}"
            click.echo(f"{said}: {made.word}")
