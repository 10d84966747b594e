"""`zoo export`: a finished run to give away."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.commands import options


@click.command()
@click.argument("run", type=options.Place())
@click.argument("folder", type=options.Made())
@options.board("Where the record of a suite's run is looked for.")
def export(run: Path, folder: Path, board: Path) -> None:
    """Write a finished RUN into FOLDER: weights (safetensors), config.json, and a model card with what its record says.
    zoo.load_run loads it."""
    from benchmarks.export import export as write

    for path in write(run, folder, board):
        click.echo(path)
