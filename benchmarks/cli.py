"""The `zoo` command. What is heavy is imported where it is needed: help and listings answer at once."""

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
from benchmarks.commands.check import check
from benchmarks.commands.compare import compare
from benchmarks.commands.draw import interpolate, reconstruct, sample, traverse
from benchmarks.commands.export import export
from benchmarks.commands.new import new
from benchmarks.commands.reproduce import reproduce
from zoo import __version__
from zoo.errors import UsageError, ZooError, fold, unknown

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
LONGEST = 2000


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vae-zoo")
def zoo() -> None:
    """Train, evaluate and compare VAE variants.

    \b
    zoo bench quick            every variant on MNIST, then the board
    zoo train vae --out DIR    one run
    zoo compare A B            which of two is better, and by how much
    zoo list                   what there is
    zoo new, zoo check         a variant of your own
    zoo score, zoo fid         metrics for models that were trained elsewhere
    """


@zoo.command("list")
@click.argument("what", default="variants")
@options.as_json
def list_(what: str, as_json: bool) -> None:
    """List variants, datasets, suites or metrics."""
    kinds = {"variants": _variants, "datasets": _datasets, "suites": _suites, "metrics": _metrics}
    kind = next((kind for kind in kinds if fold(kind) in (fold(what), fold(what) + "s")), None)
    if kind is None:
        raise unknown("listing", what, kinds, "zoo list --help")
    headers, rows = kinds[kind]()
    if as_json:
        click.echo(json.dumps([dict(zip(headers, row, strict=True)) for row in rows], indent=2))
    else:
        # What a line of 80 columns has no room for is in --json and in `zoo show`.
        kept = [i for i, header in enumerate(headers) if header not in ("unit", "needs", "shape", "support")]
        _echo_table([[row[i] for i in kept] for row in rows], [headers[i] for i in kept])


@zoo.command()
@click.argument("name")
@options.as_json
def show(name: str, as_json: bool) -> None:
    """Show everything known of a variant, data set, suite or metric."""
    import yaml

    described = _described(name)
    if described["kind"] == "variant":
        described["what_settings_do"] = _what_settings_do(described["name"])
    if as_json:
        click.echo(json.dumps(described, indent=2))
    else:
        click.echo(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=_width()).rstrip())


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
    from benchmarks import record, single
    from benchmarks.watch import Watchers
    from zoo.config import resolve

    config = resolve(variant, data, seed, settings=settings)
    folder = out or Path("runs") / f"{config.variant}-{config.data.stem}-s{seed}"
    made = single.finished(folder, config)
    if made is None:

        def observe(planned: Any) -> Any:
            return Watchers(wandb_mode, planned.config, folder, planned.cell.stem, "run")

        made = single.run(single.planned(config, settings), folder, device, observe)
    if made is None:
        return  # one of several processes, and not the one that talks
    if as_json:
        click.echo(record.dump(made).rstrip())
    elif made.status == "done":
        _echo_board([made])
        click.echo(f"\n{folder}")
    if made.status != "done":
        raise ZooError(f"{made.status}: {made.reason.rstrip('.')}. {folder / single.RECORD} has the last lines.")


@zoo.command()
@click.argument("suite")
@click.option("--variants", multiple=True, help="Only these; comma-separated or repeated. Any registered variant.")
@click.option("--datasets", multiple=True, help="Only these data sets.")
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

    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UsageError("a suite runs one cell a process: under torchrun there is only `zoo train`.")
    if seeds is not None and chosen:
        raise UsageError("give --seeds N or --seed K, not both.")
    wanted = suite_named(suite)
    places = matrix.Places(board, runs)
    every = tuple(range(seeds)) if seeds else chosen
    names = (_split(variants, "--variants"), _split(datasets, "--datasets"))
    cells = matrix.plan(wanted, *names, every, options.swept(sweep))
    if sweep:
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
        from benchmarks import workers
        from zoo.training.trainer import Stopped

        os.environ["ZOO_BAR"] = str(worker)
        parent = os.getppid()
        try:
            _run(cells, places, device, wandb_mode, orphaned=lambda: os.getppid() != parent)
        except matrix.DeviceLost:
            sys.exit(workers.RESTART)
        except Stopped:
            sys.exit(INTERRUPTED)  # how to go on is said once, by the one that started the workers
        return
    with matrix.then(lambda: matrix.write_board(places), places):
        todo = [planned for planned in cells if not matrix.done(planned, places)]
        if todo and on == "ray":
            _run_on_ray(cells, places, device, wandb_mode, address, gpus_per_cell)
        elif todo:
            _run_all(todo, cells, places, device, wandb_mode, jobs)
    records = [found for planned in cells if (found := matrix.recorded(planned, places))]
    _echo_records(records, places.page, as_json)
    if any(made.status != "done" for made in records):
        sys.exit(FAILED)


@zoo.command()
@click.argument("suite")
@click.argument("metric")
@click.option("--variants", multiple=True, help="Only these; comma-separated or repeated.")
@click.option("--datasets", multiple=True, help="Only these data sets.")
@click.option("--seed", "chosen", multiple=True, type=click.IntRange(min=0), help="Only this seed; can be repeated.")
@options.runs
@options.board()
@options.device
@options.as_json
def measure(
    suite: str, metric: str, variants: tuple[str, ...], datasets: tuple[str, ...], chosen: tuple[int, ...],
    runs: Path, board: Path, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Add a dear METRIC to the finished cells of a suite, from the models that they kept, and write the board: fid;
    fid_bf16, in half the time; latent, which is probes and pictures of the codes."""
    from benchmarks import matrix
    from benchmarks.amend import ADDABLE, amend
    from benchmarks.interrupt import graceful
    from benchmarks.suite import suite_named
    from zoo.runs import Busy

    if metric not in ADDABLE:
        raise unknown("metric to add", metric, ADDABLE, "zoo measure --help")
    places = matrix.Places(board, runs)
    cells = matrix.plan(suite_named(suite), _split(variants, "--variants"), _split(datasets, "--datasets"), chosen)
    compute_of = matrix.compute_of(device, cells)
    command = shlex.join(["zoo", "measure", suite, metric])
    records = []
    with matrix.then(lambda: matrix.write_board(places), places), graceful() as should_stop:
        for number, planned in enumerate(cells, 1):
            click.echo(f"[{number}/{len(cells)}] {planned.cell.stem}", err=True)
            try:
                records.append(amend(planned, places, compute_of(planned), metric, command, should_stop))
            except Busy as error:
                click.echo(f"    left out: {error}", err=True)
    _echo_records(records, places.page, as_json)


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
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--metrics", multiple=True, help="Only these; comma-separated or repeated. Default: all but the slow.")
@options.as_json
def score(file: Path, metrics: tuple[str, ...], as_json: bool) -> None:
    """Disentanglement scores of codes that were computed elsewhere: an npz of z_train, factors_train, z_test,
    factors_test."""
    from benchmarks.score import score_file

    scores = score_file(file, _split(metrics, "--metrics") or None)
    if as_json:
        click.echo(json.dumps(scores, indent=2))
    else:
        rows = [(name, f"{value:.4f}") for name, value in scores.items()]
        rows += [(name, f"skip: {reason}") for name, reason in scores.skipped.items()]
        _echo_table(rows, ("metric", "value"))


@zoo.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--extractor", default="inception", show_default=True,
    help="inception, inception_bf16, efficientnet_lite0 or digits.",
)
@options.device
@options.as_json
def fid(a: Path, b: Path, extractor: str, device: str, as_json: bool) -> None:
    """Sample quality of images A against images B: folders of pictures, or npz files of uint8 images."""
    from benchmarks.fid import score_folders
    from zoo.training.precision import choose

    scores = score_folders(a, b, extractor, choose(device).device)
    if as_json:
        click.echo(json.dumps(scores, indent=2))
    else:
        _echo_table([(name, f"{value:.6g}") for name, value in scores.items()], ("metric", "value"))


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
        if name in assets.ASSETS:
            click.echo(f"{name}: {assets.fetch(name)}")
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
    _echo_table(rows, ("what", "found"))


for command in (check, compare, new, sample, reconstruct, traverse, interpolate, export, reproduce):
    zoo.add_command(command)


def main() -> None:
    """The entry point: a wrong request is one sentence and exit code 2, a failure one sentence and 1."""
    # Threads that spin while they wait lose whole cores to each other on a shared machine. Read by libgomp when torch
    # is first imported, which nothing has done yet.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        zoo.main(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
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
    except BrokenPipeError:
        # The reader of our output went away (`zoo list | head`): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}; `{_again()}` goes on from here.", FAILED)
    except MemoryError:
        _fail("out of memory.", FAILED)
    except RecursionError:
        _fail("something is nested too deeply to be read.", WRONG_USE)


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
    from benchmarks import ahead, attempts, matrix, workers
    from benchmarks.interrupt import graceful
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
    from benchmarks.watch import watching
    from benchmarks.workers import HARNESS

    compute = matrix.compute_of(device, cells)
    with graceful() as should_stop:
        # A worker has the name of the call that it belongs to; whoever is asked directly gets one of its own.
        harness = os.environ.get(HARNESS) if orphaned else None
        stop = (lambda: should_stop() or orphaned()) if orphaned else should_stop
        matrix.run_all(cells, places, compute, watching(wandb_mode, places), stop, _teller(cells), harness)


def _run_on_ray(
    cells: list[Any], places: Any, device: str, wandb_mode: str, address: str, gpus_per_cell: float
) -> None:
    from benchmarks.cluster import Cluster, run_all
    from benchmarks.interrupt import graceful

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

    if as_json:
        click.echo(json.dumps([json.loads(record.dump(made)) for made in records], indent=2))
    else:
        _echo_board(records)
        click.echo(f"\n{path}")


def _planned(planned: Any, places: Any, more: str) -> dict[str, Any]:
    from benchmarks import matrix

    return planned.cell.model_dump() | {
        "command": planned.command + more,
        "done": matrix.done(planned, places) is not None,
    }


def _split(names: tuple[str, ...], option: str) -> tuple[str, ...]:
    found = tuple(name for text in names for name in text.split(",") if name)
    if names and not found:
        raise UsageError(f"{option} names nothing.")
    return found


def _variants() -> tuple[list[str], list[list[Any]]]:
    from zoo.registry import registry

    rows = [
        [name, entry.title, entry.family, entry.paper.year if entry.paper else None, entry.summary, entry.origin]
        for name, entry in registry().variants.items()
    ]
    return _without_constant(["name", "title", "family", "year", "summary", "origin"], rows)


def _datasets() -> tuple[list[str], list[list[Any]]]:
    from zoo.registry import registry

    rows = [
        [name, "x".join(map(str, entry.shape or ())), entry.support, entry.factors or "", entry.summary]
        for name, entry in registry().datasets.items()
    ]
    return ["name", "shape", "support", "factors", "summary"], rows


def _suites() -> tuple[list[str], list[list[Any]]]:
    from benchmarks.suite import suites

    rows = [
        [suite.name, suite.version, len(suite.variants) * len(suite.datasets) * len(suite.seeds), suite.title]
        for suite in suites().values()
    ]
    return ["name", "version", "cells", "title"], rows


def _metrics() -> tuple[list[str], list[list[Any]]]:
    from benchmarks.catalogue import METRICS

    rows = [[metric.name, metric.unit, metric.better or "", metric.needs, metric.summary] for metric in METRICS]
    return ["name", "unit", "better", "needs", "summary"], rows


def _without_constant(headers: list[str], rows: list[list[Any]]) -> tuple[list[str], list[list[Any]]]:
    # "built-in" in every row tells nobody anything.
    if all(row[-1] == "built-in" for row in rows):
        return headers[:-1], [row[:-1] for row in rows]
    return headers, rows


def _described(name: str) -> dict[str, Any]:
    from benchmarks.catalogue import METRICS
    from benchmarks.suite import suites
    from zoo.registry import registry

    named: dict[str, list[dict[str, Any]]] = {}
    for kind, entries in (("variant", registry().variants), ("dataset", registry().datasets), ("suite", suites())):
        for key, entry in entries.items():
            described = {"kind": kind, "name": key} | entry.model_dump(mode="json", by_alias=True)
            named.setdefault(fold(key), []).append(described)
    for metric in METRICS:
        named.setdefault(fold(metric.name), []).append({"kind": "metric"} | metric.__dict__)
    if fold(name) not in named:
        raise unknown("variant, data set, suite or metric", name, [key for key in named], "zoo list")
    found = [
        {key: value for key, value in described.items() if value not in (None, [], {}, "")}
        for described in named[fold(name)]
    ]
    return found[0] | ({"also": found[1:]} if found[1:] else {})


def _what_settings_do(variant: str) -> dict[str, str] | str:
    """What each of a variant's settings does, where its class says so, and what it is unless told (those that variants
    have in common are on a page of their own); or why the class cannot be asked."""
    from zoo.registry import registry

    _, entry = registry().variant(variant)
    try:
        made = entry.load().Settings.model_validate(entry.settings)
    except Exception as error:  # whatever somebody's module raises: what else is known of it is shown all the same
        return f"its class cannot be asked ({type(error).__name__}, {' '.join(str(error).split())[:LONGEST]})"
    told = {name: field.description for name, field in type(made).model_fields.items() if field.description}
    return {name: f"{says} (default {getattr(made, name)})" for name, says in told.items()}


def _check_settings(cells: list[Any]) -> None:
    # What was asked for on the command line is said to be wrong before anything is trained.
    from zoo.models import check_settings

    for planned in cells:
        check_settings(planned.config.variant, planned.config.model)


def _echo_table(rows: Any, headers: Any) -> None:
    from benchmarks.report.terminal import table

    click.echo(table(rows, headers, width=_width()))


def _echo_board(records: list[Any]) -> None:
    from benchmarks.report.terminal import print_board

    print_board(records, width=_width())


def _width() -> int:
    import shutil

    return max(80, min(shutil.get_terminal_size((80, 24)).columns, 140))


if __name__ == "__main__":
    main()
