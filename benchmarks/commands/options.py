"""Options that several commands have."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import click

from zoo.errors import UsageError

WANDB = click.Choice(["auto", "online", "offline", "disabled"])
as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
wandb = click.option("--wandb", "wandb_mode", type=WANDB, default="auto", show_default=True)
seed = click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
seeds = click.option("--seed", "chosen", multiple=True, type=click.IntRange(min=0), help="This seed; can be repeated.")
sweep = click.option(
    "--sweep", metavar="PATH=A,B,C", help="One setting with several values, a cell each, such as beta=1,2,4,8."
)
runs = click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)


def board(what: str = "Folder of records, pictures and the board.") -> Callable:
    """``--board``; ``what`` says what the command has there."""
    kind = click.Path(path_type=Path)
    return click.option("--board", type=kind, default=Path("leaderboard"), show_default=True, help=what)


def given(context: click.Context) -> str:
    """What a command that is printed needs besides to go where this one would: `runs`, `board`, `device` and `wandb`
    where they are not the usual ones, with a space in front."""
    words = []
    for option in context.command.params:
        value = context.params[option.name]
        if option.name in ("runs", "board", "device", "wandb_mode") and value != option.default:
            words += [option.opts[0], str(value)]
    return f" {shlex.join(words)}" if words else ""


def swept(text: str | None) -> tuple[str, ...]:
    """``k=1,5`` as ``k=1`` and ``k=5``; nothing for nothing.

    Raises:
        UsageError: it reads otherwise, or a value is given twice.
    """
    if text is None:
        return ()
    path, equals, values = text.partition("=")
    parts = [part.strip() for part in values.split(",")]
    if not equals or not path.strip() or not all(parts) or any(mark in values for mark in "[]{}"):
        raise UsageError(f"a sweep reads path=value,value, such as beta=1,2,4,8, not '{text}'.")
    if len(set(parts)) < len(parts):
        raise UsageError(f"a sweep has each value once, and '{text}' has one twice.")
    return tuple(f"{path.strip()}={part}" for part in parts)
