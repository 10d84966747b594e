"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

WANDB = click.Choice(["auto", "online", "offline", "disabled"])
as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
wandb = click.option("--wandb", "wandb_mode", type=WANDB, default="auto", show_default=True)
seed = click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
seeds = click.option("--seed", "chosen", multiple=True, type=click.IntRange(min=0), help="This seed; can be repeated.")
runs = click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)


def board(what: str = "Folder of records, pictures and the board.") -> Callable:
    """``--board``; ``what`` says what the command has there."""
    kind = click.Path(path_type=Path)
    return click.option("--board", type=kind, default=Path("leaderboard"), show_default=True, help=what)
