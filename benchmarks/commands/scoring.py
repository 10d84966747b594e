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
SCORES += ("dci@hist-gbt", "dci@sklearn-gbt", "explicitness", "unfairness@sklearn-gbt")


@click.command()
@click.argument("files", nargs=-1, required=True, type=options.Place())
@click.option(
    "--metrics", multiple=True,
    help="Only these; comma-separated or repeated. Default: all but the slow, and none of several files. "
    f"They are {', '.join(SCORES)}.",
)  # fmt: skip
@options.as_json
def score(files: tuple[Path, ...], metrics: tuple[str, ...], as_json: bool) -> None:
    """Disentanglement scores of codes that were computed elsewhere: an npz of z_train, factors_train, z_test,
    factors_test. Of several, each of a model with another seed, UDR, which needs no factors: z_test of the same images
    in the same order, and kl, the mean KL of each code to its prior in nats."""
    from benchmarks.score import score_file

    if len(files) > 1:
        _compare(files, options.names(metrics, "--metrics"), as_json)
        return
    (file,) = files
    scores = score_file(file, options.names(metrics, "--metrics") or None)
    if as_json:
        click.echo(json.dumps(scores, indent=2))
    else:
        rows = [(name, f"{value:.4f}") for name, value in scores.items()]
        rows += [(name, f"skip: {reason}") for name, reason in scores.skipped.items()]
        click.echo(table(rows, ("metric", "value"), screen_width()))


def _compare(files: tuple[Path, ...], metrics: tuple[str, ...], as_json: bool) -> None:
    from benchmarks.commands.rank import MOST, UDR
    from benchmarks.report import notation
    from benchmarks.score import compare_files, score_file

    found = compare_files(files)
    scores = [dict(score_file(file, metrics)) if metrics else {} for file in files]
    both = sorted(zip(files, found, scores, strict=True), key=lambda one: -one[1].scores["lasso"])
    if as_json:
        rows = [
            {
                "file": str(file), **{f"udr_{name}": value for name, value in one.scores.items()}, "pairs": one.pairs,
                "informative": one.informative, "identity": one.identity(), "scores": more,
            }
            for file, one, more in both
        ]  # fmt: skip
        click.echo(json.dumps(rows, indent=2))
        return
    heads = ["file", "UDR (Lasso)", "UDR (Spearman)", "informative", "others", *scores[0]]
    rows = [
        [
            file, *map(notation.number, one.scores.values()), f"{one.informative} of {one.latents}", one.others,
            *map(notation.number, more.values()),
        ]
        for file, one, more in both
    ]  # fmt: skip
    click.echo(f"{found[0].images:,} images")
    click.echo(table(rows, heads, screen_width(), right="krrrr" + "r" * len(scores[0])))
    click.echo(f"\n{UDR}\n{MOST}")


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
