"""`zoo sample`, `reconstruct`, `traverse`, `interpolate`: pictures from a finished run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.commands import options
from zoo.errors import UsageError

run_argument = click.argument("run", type=options.Place())


def common(n: int, what: str, columns: int | None = 8) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that all four have."""
    shared = [
        click.option("--n", default=n, show_default=True, type=options.Whole(1, 10_000), help=f"How many {what}."),
        options.seed,
        click.option("--out", type=options.Picture(), help="The PNG. [default: RUN/pictures/COMMAND.png]"),
        click.option("--class", "class_", help="For a conditional model: a class, by number or by name."),
        click.option("--attribute", "attributes", multiple=True, metavar="NAME=0|1",
                     help="For a conditional model: an attribute; can be repeated."),  # fmt: skip
        options.device,
    ]
    if columns:
        number = options.Whole(1, 1000)
        shared.append(click.option("--columns", default=columns, show_default=True, type=number, help="In a row."))

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        return functools.reduce(lambda made, option: option(made), reversed(shared), function)

    return decorate


@click.command()
@run_argument
@common(64, "samples")
@click.option("--temperature", default=1.0, show_default=True, type=options.Finite(), help="Of the prior.")
@click.option("--ex-post", metavar="K|flow",
              help="Codes from K Gaussians, or a flow, fitted to those of training images, not the prior.")  # fmt: skip
def sample(
    run: Path, n: int, seed: int, out: Path | None, columns: int, temperature: float, ex_post: str | None,
    **wanted: Any,
) -> None:  # fmt: skip
    """Draw samples from a finished run. Sample i depends on the seed and i alone."""
    from benchmarks.finished import Finished
    from benchmarks.pictures import generate

    density = _density(ex_post)
    finished = Finished(run, wanted.pop("device"))
    y = finished.condition(n, seed, **_asked(wanted))
    model = finished.model
    if density is not None:
        from benchmarks.evaluation.ex_post import fitted, vectors

        vectors(model)  # before any data are loaded
        model = fitted(model, finished.train(), density)
    images = generate(model, n, seed, finished.device, y=y, temperature=temperature)
    _write(images, out or run / "pictures" / "samples.png", columns)


@click.command()
@run_argument
@common(32, "test images")
def reconstruct(run: Path, n: int, seed: int, out: Path | None, columns: int, **wanted: Any) -> None:
    """Draw test images, each with its reconstruction to the right of it. The seed chooses which."""
    import torch

    from benchmarks.finished import Finished
    from benchmarks.pictures import originals, to_bytes

    finished = Finished(run, wanted.pop("device"))
    x, y = finished.images(n, seed)
    y = finished.condition(len(x), seed, given=y, **_asked(wanted))
    with torch.no_grad():
        rebuilt = to_bytes(finished.model.reconstruct(x, y))
    pairs = torch.stack([originals(x, finished.described.spec.support), rebuilt], 1).flatten(0, 1)
    _write(pairs, out or run / "pictures" / "reconstructions.png", columns + columns % 2)


@click.command()
@run_argument
@common(8, "latent dimensions, those of the largest rate first", columns=11)
@click.option("--animate", default="gif", show_default=True, type=click.Choice(["gif", "apng", "none"]),
              help="The kind of animation that is written beside the PNG.")  # fmt: skip
def traverse(run: Path, n: int, seed: int, out: Path | None, columns: int, animate: str, **wanted: Any) -> None:
    """Draw one test image with one latent dimension at a time going from -3 to 3 deviations: a row each, and all
    together as an animation. The seed chooses the image."""
    from benchmarks.finished import Finished
    from benchmarks.latents import LOOKED_AT, frames, latents_of
    from benchmarks.latents import traverse as walk

    finished = Finished(run, wanted.pop("device"))
    latents_of(finished.model)
    x, y = finished.images(LOOKED_AT, seed)
    y = finished.condition(len(x), seed, given=y, **_asked(wanted))
    images, dims, rates = walk(finished.model, x, y, dims=n, steps=columns)
    path = out or run / "pictures" / "traversals.png"
    _write(images, path, columns)
    if animate != "none":
        from benchmarks.report.figures import animation

        moving = path.with_suffix(f".{animate}")
        click.echo(animation(frames(images, len(dims)), moving, min(len(dims), 4)))
    click.echo("rows: " + ", ".join(f"{d} ({rate:.2f})" for d, rate in zip(dims, rates, strict=True)), err=True)


@click.command()
@run_argument
@common(8, "pairs of test images", columns=8)
@click.option("--path", "way", default="linear", show_default=True, type=click.Choice(["linear", "spherical"]),
              help="The way from code to code: a straight line, or along a sphere.")  # fmt: skip
def interpolate(run: Path, n: int, seed: int, out: Path | None, columns: int, way: str, **wanted: Any) -> None:
    """Draw the way from one test image to another through the latents, a row for each pair. The seed chooses them."""
    from benchmarks.finished import Finished
    from benchmarks.latents import interpolate as walk
    from benchmarks.latents import latents_of

    finished = Finished(run, wanted.pop("device"))
    latents_of(finished.model)
    x, y = finished.images(2 * n, seed)
    y = finished.condition(len(x), seed, given=y, **_asked(wanted))
    pairs = len(x) // 2
    ya, yb = (None, None) if y is None else (y[:pairs], y[pairs : 2 * pairs])
    images = walk(finished.model, x[:pairs], x[pairs : 2 * pairs], ya, yb, steps=columns, way=way)
    _write(images, out or run / "pictures" / "interpolations.png", columns)


def _density(text: str | None) -> Any:
    """The settings of the density of codes that ``--ex-post`` names, or None; `UsageError` where it names none."""
    if text is None:
        return None
    from zoo.distributions.code_density import CodeDensitySettings
    from zoo.distributions.code_flow import CodeFlowSettings

    if text == "flow":
        return CodeFlowSettings()
    if text.isdecimal() and len(text) < 10 and int(text):
        return CodeDensitySettings(components=int(text))
    raise UsageError(f"--ex-post is a number of Gaussians from 1, or flow, not '{text}'.")


def _asked(wanted: dict[str, Any]) -> dict[str, Any]:
    return {"class_": wanted["class_"], "attributes": _pairs(wanted["attributes"])}


def _pairs(texts: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or value not in ("0", "1"):
            raise UsageError(f"an attribute reads NAME=0 or NAME=1, not '{text}'.")
        found[name] = int(value)
    return found


def _write(images: Any, path: Path, columns: int) -> None:
    from benchmarks.pictures import CHANNELS
    from benchmarks.report.figures import grid

    if images.shape[1] not in CHANNELS:
        raise UsageError(f"a picture shows images of 1 or 3 channels, and these have {images.shape[1]}.")
    click.echo(grid(images, path, columns))
