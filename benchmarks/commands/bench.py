"""`zoo bench`, `measure`, `leaderboard`: the cells of a suite run, measured again afterwards, and as a board."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.commands import options
from benchmarks.commands.exit_codes import DONE, FAILED, INTERRUPTED
from benchmarks.report.terminal import screen_width
from zoo.errors import UsageError, ZooError, unknown


@click.command()
@click.argument("suite")
@click.option("--variants", multiple=True, help="Only these; comma-separated or repeated. Any registered variant.")
@click.option("--datasets", multiple=True, help="Only these data sets; a comma of a folder's is \\,.")
@options.so_many_seeds
@options.seeds
@options.sweep
@click.option("--plan", is_flag=True, help="Print each cell as a command, and run none; --json: with its settings.")
@click.option("--missing", is_flag=True, help="With --plan: only cells without a finished record.")
@click.option("--jobs", default="auto", show_default=True, help="Processes; auto: one on a GPU, a core each else.")
@click.option("--on", type=click.Choice(["here", "ray"]), default="here", show_default=True, help="Where cells run.")
@click.option("--address", default="auto", show_default=True, help="Of the Ray cluster: auto, local or HOST:PORT.")
@click.option("--gpus-per-cell", type=options.Finite(), default=0.0, help="On Ray, such as 0.25; 0: a core.")
@click.option("--worker", type=int, hidden=True)
@options.runs
@options.board()
@options.device
@options.wandb
@options.as_json
def bench(
    suite: str, variants: tuple[str, ...], datasets: tuple[str, ...], seeds: int | None, chosen: tuple[int, ...],
    sweeps: tuple[str, ...], plan: bool, missing: bool, jobs: str, on: str, address: str, gpus_per_cell: float,
    worker: int | None, runs: Path, board: Path, device: str, wandb_mode: str, as_json: bool,
) -> None:  # fmt: skip
    """Run every cell of a suite that is not done yet, then write the board."""
    from benchmarks import matrix
    from benchmarks.suite import suite_named

    every = seeds_of(seeds, chosen)
    asked = click.get_current_context().get_parameter_source
    for name in ("address", "gpus_per_cell") if on == "here" else ():
        if asked(name) is click.core.ParameterSource.COMMANDLINE:  # or the suite would run here, and not on the cluster
            raise UsageError(f"--{name.replace('_', '-')} is of a Ray cluster: give --on ray with it.")
    wanted = suite_named(suite)
    places = matrix.Places(board, runs)
    names = (options.names(variants, "--variants"), options.names(datasets, "--datasets"))
    cells = matrix.plan(wanted, *names, every, options.swept(sweeps))
    if sweeps or plan:
        check_settings(cells)
    if plan:
        cells = [planned for planned in cells if not (missing and matrix.done(planned, places))]
        more = options.given(click.get_current_context())
        if as_json:
            click.echo(json.dumps([_planned(planned, places, more) for planned in cells], indent=2))
        else:
            for planned in cells:
                click.echo(planned.command + more)
        return
    check_jobs(jobs)
    if worker is not None:
        work(cells, places, device, wandb_mode, worker)
        return
    with matrix.then(lambda: matrix.write_board(places), places):
        todo = [planned for planned in cells if not matrix.over(planned, places)]
        if not sweeps:  # all of them were, above
            check_settings(todo)
        if todo and on == "ray":
            _run_on_ray(cells, places, device, wandb_mode, address, gpus_per_cell)
        elif todo:
            run_all(todo, cells, places, device, wandb_mode, jobs)
    records = [found for planned in cells if (found := matrix.recorded(planned, places))]
    _echo_records(records, places.page, as_json)
    if any(made.status != "done" for made in records):
        raise click.exceptions.Exit(FAILED)


@click.command()
@click.argument("suite")
@click.argument("metric")
@click.option("--variants", multiple=True, help="Only these; comma-separated or repeated.")
@click.option("--datasets", multiple=True, help="Only these data sets; a comma of a folder's is \\,.")
@click.option("--seed", "chosen", multiple=True, type=options.Whole(min=0), help="Only this seed; can be repeated.")
@options.sweep
@options.runs
@click.option("--weights", type=options.Place(), help="Where `zoo export` left models, for runs that are not there.")
@options.board()
@options.device
@options.as_json
def measure(
    suite: str, metric: str, variants: tuple[str, ...], datasets: tuple[str, ...], chosen: tuple[int, ...],
    sweeps: tuple[str, ...], runs: Path, weights: Path | None, board: Path, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Add a dear METRIC to the finished cells of a suite, from the models that they kept, and write the board: fid;
    fid_bf16, in half the time; latent, which is probes and pictures of the codes;
    clusters, how far clusters of the codes are the classes; ex_post, the distances of samples
    whose codes come from a density fitted to those of training images; fid_ex_post and fid_bf16_ex_post, those of
    Inception's features; ex_post_flow, fid_ex_post_flow and fid_bf16_ex_post_flow, the same of another density, a flow;
    nll_all, the bound of all images where it was measured on the first ones; ais, how loose that bound is, by annealed
    importance sampling; gaps, what of the bound of 100 images the encoder loses and what the family of its posterior;
    rates, the rate of each of several groups of latents, of records of before there were any. A cell that is not done
    or whose model is not there is left out, and the exit code is 2."""
    from benchmarks import matrix
    from benchmarks.interrupt import graceful
    from benchmarks.running.amend import ADDABLE, amend
    from benchmarks.suite import suite_named
    from zoo.runs.folder import Busy

    if metric not in ADDABLE:
        raise unknown("metric to add", metric, ADDABLE, "zoo measure --help")
    places = matrix.Places(board, runs)
    names = (options.names(variants, "--variants"), options.names(datasets, "--datasets"))
    cells = matrix.plan(suite_named(suite), *names, chosen, options.swept(sweeps))
    compute_of = matrix.compute_of(device, cells)
    command = shlex.join(["zoo", "measure", suite, metric])
    records, unfit = [], []
    with matrix.then(lambda: matrix.write_board(places), places), graceful() as should_stop:
        for number, planned in enumerate(cells, 1):
            click.echo(f"[{number}/{len(cells)}] {planned.cell.stem}", err=True)
            try:
                records.append(amend(planned, places, compute_of(planned), metric, command, should_stop, weights))
            except Busy as error:
                click.echo(f"    left out: {error}", err=True)
            except UsageError as error:
                if len(cells) == 1:
                    raise
                unfit.append(str(error))
                click.echo(f"    left out: {error}", err=True)
    if records or not unfit:
        _echo_records(records, places.page, as_json)
    if unfit:
        raise UsageError(f"{len(unfit)} of {len(cells)} cells were left out; the first: {unfit[0]}")


@click.command()
@options.board()
@options.as_json
def leaderboard(board: Path, as_json: bool) -> None:
    """Write the board from the records there are, and print it."""
    from benchmarks import matrix, record

    places = matrix.Places(board, Path("runs"))
    records = record.read_some(places.records)
    path = matrix.write_board(places)
    _echo_records(records, path, as_json)


def seeds_of(seeds: int | None, chosen: tuple[int, ...]) -> tuple[int, ...]:
    """What ``--seeds N`` or ``--seed K`` asks for, nothing for those of the suite; `UsageError` for both, and where a
    process is one of several, of which a suite has none."""
    if (os.environ.get("WORLD_SIZE") or "1") != "1":
        raise UsageError("a suite runs one cell a process: under torchrun there is only `zoo train`.")
    if seeds is not None and chosen:
        raise UsageError("give --seeds N or --seed K, not both.")
    return tuple(range(seeds)) if seeds else chosen


def check_jobs(jobs: str) -> None:
    """Raise `UsageError` where ``--jobs`` is neither auto nor a number of processes."""
    if jobs != "auto" and not (jobs.isdecimal() and len(jobs) < 10 and int(jobs)):
        raise UsageError(f"--jobs is auto or a number from 1, not '{jobs}'.")


def work(cells: list[Any], places: Any, device: str, wandb_mode: str, worker: int) -> None:
    """Run, as the worker of that number, the cells that no other one takes; how it ended is its exit code."""
    from benchmarks import matrix
    from benchmarks.running import workers
    from zoo.training.trainer import Stopped

    os.environ["ZOO_BAR"] = str(worker)
    parent = os.getppid()
    try:
        _run(cells, places, device, wandb_mode, orphaned=lambda: os.getppid() != parent)
    except matrix.DeviceLost:
        raise click.exceptions.Exit(workers.RESTART) from None
    except Stopped:  # how to go on is said once, by the one that started the workers
        raise click.exceptions.Exit(INTERRUPTED) from None


def run_all(todo: list[Any], cells: list[Any], places: Any, device: str, wandb_mode: str, jobs: str) -> None:
    """Run ``todo``, the ones of ``cells`` that are not done, here or in workers, each of which is this same command.

    Raises:
        UsageError: nothing can be recorded in ``places``, or there is no such device.
        ZooError: a worker ended early.
        Stopped: the user asked for it.
    """
    from benchmarks import matrix
    from benchmarks.interrupt import graceful
    from benchmarks.running import ahead, attempts, workers
    from zoo.files import check_writable
    from zoo.training.trainer import Stopped

    check_writable(places.records)
    compute = matrix.compute_of(device, cells)
    count = workers.how_many(jobs, device, len(todo))
    try:
        if compute(cells[0]).device.type == "cuda":  # here: each worker would measure what pays while others disturb
            with graceful() as should_stop:
                ahead.train_ahead(cells, places, compute, should_stop, lambda said: click.echo(said, err=True))
        if count == 1:
            _run(cells, places, device, wandb_mode)
            return
    except matrix.DeviceLost as error:
        click.echo(f"    {error} Another process takes the rest.", err=True)
    with graceful() as should_stop:
        spare = len(todo) * attempts.DEATHS
        codes = workers.run(sys.argv[1:], count, should_stop, spare, lambda said: click.echo(said, err=True))
        if should_stop():
            raise Stopped("stopped at the user's request.")
    # A cell that failed has a record and is no failure of its worker.
    if any(code != DONE for code in codes):
        raise ZooError("a worker process ended early; the same command goes on from what is done.")


def _run(
    cells: list[Any], places: Any, device: str, wandb_mode: str, orphaned: Callable[[], bool] | None = None
) -> None:
    from benchmarks import matrix
    from benchmarks.interrupt import graceful
    from benchmarks.running.watch import watching
    from benchmarks.running.workers import HARNESS

    compute = matrix.compute_of(device, cells)
    with graceful() as should_stop:
        # A worker has the name of the call that it belongs to; whoever is asked directly gets one of its own.
        harness = os.environ.get(HARNESS) if orphaned else None
        stop = (lambda: should_stop() or orphaned()) if orphaned else should_stop
        matrix.run_all(cells, places, compute, watching(wandb_mode, places), stop, _teller(cells), harness)


def _run_on_ray(
    cells: list[Any], places: Any, device: str, wandb_mode: str, address: str, gpus_per_cell: float
) -> None:
    from benchmarks.interrupt import graceful
    from benchmarks.running.cluster import Cluster, run_all
    from zoo.files import check_writable

    check_writable(places.records)
    with graceful() as should_stop:
        cluster = Cluster(address, gpus_per_cell)
        run_all(cells, places, cluster, device, wandb_mode, should_stop, _teller(cells))


def _teller(cells: list[Any]) -> Callable[[Any, Any], None]:
    def tell(planned: Any, made: Any) -> None:
        if made is None:
            click.echo(f"[{cells.index(planned) + 1}/{len(cells)}] {planned.cell.stem}", err=True)
        elif made.status != "done":
            click.echo(f"    {made.status}: {made.reason}", err=True)

    return tell


def _echo_records(records: list[Any], path: Path, as_json: bool) -> None:
    from benchmarks import record
    from benchmarks.report.short import board

    if as_json:
        click.echo(json.dumps([json.loads(record.dump(made)) for made in records], indent=2))
    else:
        click.echo(board(records, screen_width()))
        click.echo(f"\n{path}")


def _planned(planned: Any, places: Any, more: str) -> dict[str, Any]:
    from benchmarks import matrix

    return planned.cell.model_dump() | {
        "command": planned.command + more,
        "done": matrix.done(planned, places) is not None,
        "config": planned.config.model_dump(mode="json"),
    }


def check_settings(cells: list[Any]) -> None:
    """Raise `UsageError` for what a suite or a sweep asks for and is wrong, before anything is trained."""
    from zoo.config import check_model
    from zoo.training.stages import check_ahead

    seedless = {one.config.model_copy(update={"seed": 0}).model_dump_json(): one.config for one in cells}
    for config in seedless.values():
        try:
            check_model(config)
        except UsageError as error:
            raise UsageError(f"{config.variant}: {error}") from None
        check_ahead(config)
