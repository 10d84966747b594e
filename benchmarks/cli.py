"""The `zoo` command. What is heavy is imported where it is needed: help and listings answer at once."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.commands import options
from benchmarks.commands.bench import bench, leaderboard, measure
from benchmarks.commands.check import check
from benchmarks.commands.choose import choose
from benchmarks.commands.compare import compare
from benchmarks.commands.compress import compress, decompress
from benchmarks.commands.draw import interpolate, reconstruct, sample, traverse
from benchmarks.commands.evaluate import evaluate
from benchmarks.commands.exit_codes import CLOSED, FAILED, INTERRUPTED, WRONG_USE
from benchmarks.commands.export import export
from benchmarks.commands.listing import list_, show
from benchmarks.commands.new import new
from benchmarks.commands.options import LONGEST
from benchmarks.commands.rank import rank
from benchmarks.commands.reproduce import reproduce
from benchmarks.commands.scoring import fid, score
from benchmarks.commands.spread import spread
from benchmarks.report.terminal import screen_width, table
from zoo import __version__
from zoo.errors import UsageError, ZooError, ended, fold, one_line, unknown


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
    zoo bench quick            eight variants on MNIST, then the board
    zoo train vae --out DIR    one run
    zoo evaluate DIR           a finished run again, on other images or with more samples
    zoo choose SUITE           the best value of a setting, by validation images
    zoo compare A B            which of two is better, and by how much
    zoo spread SUITE           what is of the variant, of its setting and of the seed
    zoo compress RUN FILE      images in as many bits as the bound says
    zoo rank RUN RUN ...       how far seeds agree on their codes: disentanglement without labels
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
    from benchmarks.report.short import board, of_groups
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
        if made.rates:
            click.echo(f"\n{of_groups(made.rates, screen_width())}")
        click.echo(f"\n{folder}")
    if made.status != "done":
        raise ZooError(f"{made.status}: {made.reason.rstrip('.')}. {folder / single.RECORD} has the last lines.")


@zoo.command()
@click.argument("names", nargs=-1, required=True)
def fetch(names: tuple[str, ...]) -> None:
    """Fetch data sets or weights (inception, efficientnet_lite0) ahead of time, so that a run can be offline."""
    from benchmarks.metrics import weights
    from zoo.data import fetch as assets
    from zoo.registry import registry

    known = {fold(key): key for key in (*assets.ASSETS, *weights.WEIGHTS, *registry().datasets)}
    for name in names:
        if fold(name) not in known:
            raise unknown("asset", name, known.values(), "zoo list datasets")
    for name in (known[fold(name)] for name in names):
        entry = registry().datasets.get(name)
        asset = entry.asset if entry and entry.asset else name
        if asset in assets.ASSETS:
            click.echo(f"{name}: {assets.fetch(asset)}")
        elif name in weights.WEIGHTS:
            click.echo(f"{name}: {weights.fetched(name)}")
        else:
            click.echo(f"{name}: nothing to fetch. {entry.summary}")


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
    *(bench, evaluate, measure, leaderboard, reproduce, choose, compare, spread, rank, list_, show, new, check),
    *(sample, reconstruct, traverse, interpolate, export, score, fid, compress, decompress),
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
        code = zoo.main(prog_name="zoo", standalone_mode=False)  # whatever it was started by
    except click.ClickException as error:
        _suggest_nothing_hidden(error)
        message = one_line(error.format_message()).rstrip(".")
        context = getattr(error, "ctx", None)
        hint = f" `{context.command_path} --help` shows how." if context else ""
        _fail(message + ("" if message.endswith("?") else ".") + hint, WRONG_USE)
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


def _suggest_nothing_hidden(error: click.ClickException) -> None:
    # Click takes every option of the command for one that may have been meant, and some are for our own processes.
    if isinstance(error, click.NoSuchOption) and error.possibilities and error.ctx:
        hidden = {
            name for option in error.ctx.command.params if getattr(option, "hidden", False) for name in option.opts
        }
        error.possibilities = [name for name in error.possibilities if name not in hidden]


def _again() -> str:
    words = sys.argv[1:]
    if "--worker" in words:  # ours, after the `--jobs 1` of `workers.run`: one goes on with what was asked
        words = words[: max(0, words.index("--worker") - 2)]
    return shlex.join(["zoo", *words])


def _fail(sentence: str, code: int) -> None:
    # What was wrong is quoted: it may be as long as a command line can be, and hold what moves a terminal's cursor.
    sentence = "".join(letter if letter.isprintable() else " " for letter in sentence)
    sentence += "" if sentence.endswith((".", "?", "!")) else "."
    short = sentence if len(sentence) <= LONGEST else f"{sentence[: LONGEST // 2]} ... {sentence[-LONGEST // 2 :]}"
    click.echo(f"zoo: {short}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
