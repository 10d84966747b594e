"""`zoo export`: a finished run to give away."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.commands import options


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", type=options.Folder())
def export(run: Path, folder: Path) -> None:
    """Write a finished RUN into FOLDER: weights (safetensors), config.json, a model card. zoo.load_run loads it."""
    from benchmarks.export import export as write

    for path in write(run, folder):
        click.echo(path)
