"""`zoo new`: a variant to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from benchmarks.commands import options


@click.command()
@click.argument("name")
@click.option("--like", default="vae", show_default=True, help="The variant whose class it starts from.")
@click.option(
    "--plugin", type=options.Made(), metavar="FOLDER",
    help="Write a package of its own there and leave this checkout as it is.",
)  # fmt: skip
def new(name: str, like: str, plugin: Path | None) -> None:
    """Write a new variant, ready to train: zoo/models/NAME.py and its entry in registry.yaml, and nothing else."""
    from benchmarks.skeleton import add_plugin, add_variant

    written = add_plugin(name, plugin, like) if plugin else add_variant(name, like)
    name = next(path.stem for path in written if path.suffix == ".py")
    for path in written:
        click.echo(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    after = f"pip install --no-deps -e {shlex.quote(str(plugin))}\n" if plugin else ""
    click.echo(f"\n{after}zoo check {name}\nzoo train {name} --data synthetic")
    if not plugin:
        click.echo(
            "\nTo share it: its paper in the file and in registry.yaml, its row in the README's table, its place in a\n"
            "suite of benchmarks/suites, its page (python -m benchmarks.report.pages), and tests of what is its own."
        )
