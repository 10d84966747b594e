"""`zoo score`, `zoo fid`: metrics of codes and pictures that were made elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import click

from benchmarks.catalogue import METRICS
from benchmarks.commands import options
from benchmarks.report.terminal import screen_width, table

# The scores of codes, and the metrics that give several of them: what `benchmarks.score` knows, but without torch.
SCORES = tuple(metric.name for metric in METRICS if metric.needs == "factors")
SCORES += ("dci@hist-gbt", "dci@sklearn-gbt", "explicitness")


@click.command()
@click.argument("file", type=options.Place())
@click.option(
    "--metrics", multiple=True,
    help=f"Only these; comma-separated or repeated. Default: all but the slow. They are {', '.join(SCORES)}.",
)  # fmt: skip
@options.as_json
def score(file: Path, metrics: tuple[str, ...], as_json: bool) -> None:
    """Disentanglement scores of codes that were computed elsewhere: an npz of z_train, factors_train, z_test,
    factors_test."""
    from benchmarks.score import score_file

    scores = score_file(file, options.names(metrics, "--metrics") or None)
    if as_json:
        click.echo(json.dumps(scores, indent=2))
    else:
        rows = [(name, f"{value:.4f}") for name, value in scores.items()]
        rows += [(name, f"skip: {reason}") for name, reason in scores.skipped.items()]
        click.echo(table(rows, ("metric", "value"), screen_width()))


@click.command()
@click.argument("a", type=options.Place())
@click.argument("b", type=options.Place())
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
        rows = [(name, f"{value:.6g}") for name, value in scores.items()]
        click.echo(table(rows, ("metric", "value"), screen_width()))
