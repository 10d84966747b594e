"""The `zoo` command. What is heavy is imported where it is needed: help and listings answer at once."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.commands import options
from benchmarks.commands.check import check
from benchmarks.commands.compare import compare
from benchmarks.commands.draw import interpolate, reconstruct, sample, traverse
from benchmarks.commands.export import export
from benchmarks.commands.listing import list_, show
from benchmarks.commands.new import new
from benchmarks.commands.options import LONGEST
from benchmarks.commands.reproduce import reproduce
from benchmarks.commands.scoring import fid, score
from benchmarks.report.terminal import screen_width, table
from zoo import __version__
from zoo.errors import UsageError, ZooError, ended, fold, unknown

DONE, FAILED, WRONG_USE, INTERRUPTED, CLOSED = 0, 1, 2, 130, 141


class Group(click.Group):
    """The commands. Each ends by a `click.exceptions.Exit`: a SystemExit is of somebody's module."""

    def make_context(self, *given: Any, **named: Any) -> click.Context:
        with _reader_may_leave():
            return super().make_context(*given, **named)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _reader_may_leave():
                return super().invoke(ctx)
        except SystemExit as error:
            raise ended(error) from None


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    # Where the reader of our output went away (`zoo list | head`) nobody is left to tell, and the code is that of a
    # process that the closed pipe ends.
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(CLOSED) from None


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, prog_name="vae-zoo")
@click.pass_context
def zoo(context: click.Context) -> None:
    """Train, evaluate and compare VAE variants.

    \b
    zoo bench quick            every variant on MNIST, then the board
    zoo train vae --out DIR    one run
    zoo compare A B            which of two is better, and by how much
    zoo list                   what there is
    zoo new, zoo check         a variant of your own
    zoo score, zoo fid         metrics for models that were trained elsewhere
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@zoo.command()
@click.argument("variant")
@click.option("--data", default="mnist", show_default=True, help="Name of a data set, or folder:PATH.")
@options.seed
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Such as train.epochs=5 or beta=2.")
@click.option("--out", type=options.Folder(), help="Folder of the run. [default: runs/VARIANT-DATA-sSEED]")
@options.device
@options.wandb
@options.as_json
def train(
    variant: str, data: str, seed: int, settings: tuple[str, ...], out: Path | None, device: str, wandb_mode: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Train and evaluate one run. The same command continues an unfinished run and leaves a finished one alone."""
    from benchmarks import record
    from benchmarks.report.short import board
    from benchmarks.running import single
    from benchmarks.running.watch import Watchers
    from zoo.config import resolve

    config = resolve(variant, data, seed, settings=settings)
    folder = out or Path("runs") / f"{config.variant}-{config.data.stem}-s{seed}"
    made = single.finished(folder, config)
    if made is None:

        def observe(planned: Any) -> Any:
            return Watchers(wandb_mode, planned.config, folder, planned.cell.stem, "run")

        made = single.run(single.planned(config, settings), folder, device, observe)
    if made is None or not single.talks():
        return
    if as_json:
        click.echo(record.dump(made).rstrip())
    elif made.status == "done":
        click.echo(board([made], screen_width()))
        click.echo(f"\n{folder}")
    if made.status != "done":
        raise ZooError(f"{made.status}: {made.reason.rstrip('.')}. {folder / single.RECORD} has the last lines.")


@zoo.command()
@click.argument("suite")
@click.option("--variants", multiple=True, help="Only these; comma-separated or repeated. Any registered variant.")
@click.option("--datasets", multiple=True, help="Only these data sets; a comma of a folder's is \\,.")
@click.option("--seeds", type=click.IntRange(min=1), help="Seeds 0 to N-1 instead of the suite's.")
@options.seeds
@options.sweep
@click.option("--plan", is_flag=True, help="Print each cell as one shell command and run nothing.")
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
    sweep: str | None, plan: bool, missing: bool, jobs: str, on: str, address: str, gpus_per_cell: float,
    worker: int | None, runs: Path, board: Path, device: str, wandb_mode: str, as_json: bool,
) -> None:  # fmt: skip
    """Run every cell of a suite that is not done yet, then write the board."""
    from benchmarks import matrix
    from benchmarks.suite import suite_named

    if (os.environ.get("WORLD_SIZE") or "1") != "1":
        raise UsageError("a suite runs one cell a process: under torchrun there is only `zoo train`.")
    if seeds is not None and chosen:
        raise UsageError("give --seeds N or --seed K, not both.")
    wanted = suite_named(suite)
    places = matrix.Places(board, runs)
    every = tuple(range(seeds)) if seeds else chosen
    names = (options.names(variants, "--variants"), options.names(datasets, "--datasets"))
    cells = matrix.plan(wanted, *names, every, options.swept(sweep))
    if sweep or plan:
        _check_settings(cells)
    if plan:
        cells = [planned for planned in cells if not (missing and matrix.done(planned, places))]
        more = options.given(click.get_current_context())
        if as_json:
            click.echo(json.dumps([_planned(planned, places, more) for planned in cells], indent=2))
        else:
            for planned in cells:
                click.echo(planned.command + more)
        return
    if jobs != "auto" and not (jobs.isdecimal() and len(jobs) < 10 and int(jobs)):
        raise UsageError(f"--jobs is auto or a number from 1, not '{jobs}'.")
    if worker is not None:
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
        return
    with matrix.then(lambda: matrix.write_board(places), places):
        todo = [planned for planned in cells if not matrix.done(planned, places)]
        _check_settings(todo)
        if todo and on == "ray":
            _run_on_ray(cells, places, device, wandb_mode, address, gpus_per_cell)
        elif todo:
            _run_all(todo, cells, places, device, wandb_mode, jobs)
    records = [found for planned in cells if (found := matrix.recorded(planned, places))]
    _echo_records(records, places.page, as_json)
    if any(made.status != "done" for made in records):
        raise click.exceptions.Exit(FAILED)


@zoo.command()
@click.argument("suite")
@click.argument("metric")
@click.option("--variants", multiple=True, help="Only these; comma-separated or repeated.")
@click.option("--datasets", multiple=True, help="Only these data sets; a comma of a folder's is \\,.")
@click.option("--seed", "chosen", multiple=True, type=click.IntRange(min=0), help="Only this seed; can be repeated.")
@options.sweep
@options.runs
@click.option("--weights", type=options.Place(), help="Where `zoo export` left models, for runs that are not there.")
@options.board()
@options.device
@options.as_json
def measure(
    suite: str, metric: str, variants: tuple[str, ...], datasets: tuple[str, ...], chosen: tuple[int, ...],
    sweep: str | None, runs: Path, weights: Path | None, board: Path, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Add a dear METRIC to the finished cells of a suite, from the models that they kept, and write the board: fid;
    fid_bf16, in half the time; latent, which is probes and pictures of the codes; ex_post, the distances of samples
    whose codes come from a density fitted to those of training images; fid_ex_post and fid_bf16_ex_post, those of
    Inception's features; nll_all, the bound of all images where it was measured on the first ones. A cell that is not
    done or whose model is not there is left out, and the exit code is 2."""
    from benchmarks import matrix
    from benchmarks.interrupt import graceful
    from benchmarks.running.amend import ADDABLE, amend
    from benchmarks.suite import suite_named
    from zoo.runs.folder import Busy

    if metric not in ADDABLE:
        raise unknown("metric to add", metric, ADDABLE, "zoo measure --help")
    places = matrix.Places(board, runs)
    names = (options.names(variants, "--variants"), options.names(datasets, "--datasets"))
    cells = matrix.plan(suite_named(suite), *names, chosen, options.swept(sweep))
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


@zoo.command()
@options.board()
@options.as_json
def leaderboard(board: Path, as_json: bool) -> None:
    """Write the board from the records there are, and print it."""
    from benchmarks import matrix, record

    places = matrix.Places(board, Path("runs"))
    records = record.read_all(places.records)
    if not records:
        raise UsageError(f"{places.records} holds no records. `zoo bench quick` makes some.")
    path = matrix.write_board(places)
    _echo_records(records, path, as_json)


@zoo.command()
@click.argument("names", nargs=-1, required=True)
def fetch(names: tuple[str, ...]) -> None:
    """Fetch data sets or weights (inception, efficientnet_lite0) ahead of time, so that a run can be offline."""
    from zoo.data import fetch as assets
    from zoo.registry import registry

    weights = ("inception", "efficientnet_lite0")
    known = {fold(key): key for key in (*assets.ASSETS, *weights, *registry().datasets)}
    for name in names:
        if fold(name) not in known:
            raise unknown("asset", name, known.values(), "zoo list datasets")
    for name in (known[fold(name)] for name in names):
        entry = registry().datasets.get(name)
        asset = entry.asset if entry and entry.asset else name
        if asset in assets.ASSETS:
            click.echo(f"{name}: {assets.fetch(asset)}")
        elif name in weights:
            from benchmarks.metrics.weights import efficientnet_weights, inception_weights

            click.echo(f"{name}: {(inception_weights if name == 'inception' else efficientnet_weights)()}")
        else:
            click.echo(f"{name}: nothing to fetch")


@zoo.command()
@options.as_json
def doctor(as_json: bool) -> None:
    """Say what is installed, which device a run would use, which assets are here, and whether W&B can be reached."""
    from benchmarks.doctor import examine

    found = examine()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [(f"{part} {name}", value) for part, lines in found.items() for name, value in lines.items()]
    click.echo(table(rows, ("what", "found"), screen_width()))


for command in (
    *(list_, show, check, compare, new, sample, reconstruct, traverse, interpolate, export, reproduce, score, fid),
):
    zoo.add_command(command)


def main() -> None:
    """The entry point: a wrong request is one sentence and exit code 2, a failure one sentence and 1."""
    # Threads that spin while they wait lose whole cores to each other on a shared machine. Read by libgomp when torch
    # is first imported, which nothing has done yet.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    if getattr(sys.stdout, "errors", None) == "strict":
        sys.stdout.reconfigure(errors="replace")  # a terminal that has not all of our signs is shown a ? for those
    try:
        code = zoo.main(standalone_mode=False)
    except click.ClickException as error:
        message = " ".join(error.format_message().split())
        context = getattr(error, "ctx", None)
        hint = f" `{context.command_path} --help` shows how." if context else ""
        _fail(message.rstrip(".") + "." + hint, WRONG_USE)
    except UsageError as error:
        _fail(str(error), WRONG_USE)
    except ZooError as error:
        if type(error).__name__ != "Stopped":
            _fail(str(error), FAILED)
        _fail(f"{str(error).rstrip('.')}: `{_again()}` goes on from here.", INTERRUPTED)
    except (click.Abort, KeyboardInterrupt):
        _fail("stopped.", INTERRUPTED)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}; `{_again()}` goes on from here.", FAILED)
    except MemoryError:
        _fail("out of memory.", FAILED)
    except RecursionError:
        _fail("something is nested too deeply to be read.", WRONG_USE)
    else:
        if code:
            sys.exit(code)


def _again() -> str:
    words = sys.argv[1:]
    if "--worker" in words:  # ours, after the `--jobs 1` of `workers.run`: one goes on with what was asked
        words = words[: max(0, words.index("--worker") - 2)]
    return shlex.join(["zoo", *words])


def _fail(sentence: str, code: int) -> None:
    # What was wrong is quoted: it may be as long as a command line can be, and hold what moves a terminal's cursor.
    sentence = "".join(letter if letter.isprintable() else " " for letter in sentence)
    short = sentence if len(sentence) <= LONGEST else f"{sentence[: LONGEST // 2]} ... {sentence[-LONGEST // 2 :]}"
    click.echo(f"zoo: {short}", err=True)
    sys.exit(code)


def _run_all(todo: list[Any], cells: list[Any], places: Any, device: str, wandb_mode: str, jobs: str) -> None:
    from benchmarks import matrix
    from benchmarks.interrupt import graceful
    from benchmarks.running import ahead, attempts, workers
    from zoo.training.trainer import Stopped

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
    }


def _check_settings(cells: list[Any]) -> None:
    # What a suite or a sweep asks for is said to be wrong before anything is trained.
    from zoo.models import check_settings

    for planned in cells:
        try:
            check_settings(planned.config.variant, planned.config.model)
        except UsageError as error:
            raise UsageError(f"{planned.config.variant}: {error}") from None


if __name__ == "__main__":
    main()
