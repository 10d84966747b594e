"""`zoo compress`, `zoo decompress`: the images of a run in as many bits as its bound says."""

from __future__ import annotations

import json
from pathlib import Path

import click

from benchmarks.commands import options

LANES = 16  # more are faster, and each begins with some hundred bits


@click.command()
@click.argument("run", type=options.Place())
@click.argument("file", type=options.Written())
@click.option("--split", default="test", show_default=True, type=click.Choice(["test", "validation"]),
              help="Of the images.")  # fmt: skip
@click.option("--images", type=options.Whole(min=1), help="Only the first so many. [default: all]")
@click.option("--lanes", default=LANES, show_default=True, type=options.Whole(1, 4096),
              help="Images at once: more are faster, fewer make the file shorter.")  # fmt: skip
@options.device
@options.as_json
def compress(
    run: Path, file: Path, split: str, images: int | None, lanes: int, device: str, as_json: bool
) -> None:
    """Store images of the data of a finished RUN in FILE without loss, in minus its ELBO on average, and read them back
    before it is written. `zoo decompress` gets them out."""
    from benchmarks.interrupt import graceful
    from benchmarks.report.terminal import screen_width, table
    from benchmarks.storing import store

    with graceful():
        found = store(run, file, split, images, lanes, device)
    if as_json:
        click.echo(json.dumps(vars(found), indent=2))
        return
    click.echo(f"{found.variant}  {found.split} split of {found.data}, {found.n:,} images, read back the same")
    rows = [
        ("minus the ELBO", "", f"{found.elbo_bits_per_dim:.4f}"),
        ("what an image took", "", f"{found.net_bits_per_dim:.4f}"),
    ]
    rows += [
        (str(file) if name == "file" else name, f"{size:,}", f"{found.bits_per_dim(size):.4f}")
        for name, size in found.sizes.items()
    ]
    click.echo(table(rows, ("", "bytes", "bits/dim"), screen_width(), right="krr"))


@click.command()
@click.argument("run", type=options.Place())
@click.argument("file", type=options.Place())
@click.argument("out", type=options.Npz())
@options.device
def decompress(run: Path, file: Path, out: Path, device: str) -> None:
    """Get the images out of FILE, which `zoo compress` wrote with the same RUN, into OUT, an npz of uint8 `images`."""
    from benchmarks.interrupt import graceful
    from benchmarks.storing import restore

    with graceful():
        n = restore(run, file, out, device)
    click.echo(f"{out}  {n:,} images")
