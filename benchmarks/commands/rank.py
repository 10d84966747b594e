"""`zoo rank`: finished runs by how well their codes agree with those of other seeds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands import options

if TYPE_CHECKING:
    from benchmarks.rank import Ranked

UDR = "UDR: median over the other seeds of the same settings; high where they agree, as disentangled codes do."
MOST = "Of codes that agree one with one it is 1 by Spearman and 0.9 by the Lasso."
LEAST = 3  # runs of which ranks are compared
NO_RECORD, ELSEWISE = "no record", "other"
OTHER = "other: measured on other samples or codes than most here; --json has the numbers."


@click.command()
@click.argument("runs", nargs=-1, required=True, type=options.Place())
@click.option("--n", default=10_000, show_default=True, type=options.Whole(min=2), help="Test images, at most.")
@options.board("Where the record of a suite's run is looked for.")
@options.device
@options.as_json
def rank(runs: tuple[Path, ...], n: int, board: Path, device: str, as_json: bool) -> None:
    """Rank finished RUNs without labels: by UDR, how nearly the codes of each are those of other seeds of its settings.
    Two seeds at least of each settings, all on the same data; the codes are those of the same test images."""
    from benchmarks.rank import rank as ranked
    from benchmarks.report import notation, terminal

    found = ranked(runs, n, device, board)
    if as_json:
        click.echo(json.dumps([_plain(one) for one in found], indent=2))
        return
    with_mig, usual = any(one.mig for one in found), _usual(found)
    heads = ["run", "UDR (Lasso)", "UDR (Spearman)", "informative", "others"] + ["MIG"] * with_mig
    rows = [
        [
            one.folder, *map(notation.number, one.scores.values()), f"{one.informative} of {one.latents}", one.others,
            *[_mig(one, usual)] * with_mig,
        ]
        for one in found
    ]  # fmt: skip
    click.echo(f"{found[0].config.data.name}  {found[0].images:,} test images")
    click.echo(terminal.table(rows, heads, terminal.screen_width(), right="krrrrr"))
    click.echo(f"\n{UDR}\n{MOST}")
    if said := _agreement(found, usual):
        click.echo(said)
    if any(ELSEWISE in row for row in rows):
        click.echo(OTHER)


def _usual(found: Sequence[Ranked]) -> Any:
    """The identity that most MIGs have."""
    identities = Counter(_measured(one) for one in found if one.mig)
    return identities.most_common(1)[0][0] if identities else None


def _measured(one: Ranked) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(one.mig.identity.items()))


def _mig(one: Ranked, usual: Any) -> str:
    from benchmarks.report import notation

    if one.mig is None:
        return NO_RECORD
    return notation.number(one.mig.value) if _measured(one) == usual else ELSEWISE


def _agreement(found: Sequence[Ranked], usual: Any) -> str | None:
    """How far the ranks by UDR are those by MIG, over the runs that have one measured alike; None for fewer than 3."""
    from benchmarks.report.spread import rank_correlation

    known = [one for one in found if one.mig and _measured(one) == usual]
    if len(known) < LEAST:
        return None
    migs = [one.mig.value for one in known]
    pairs = [(name, rank_correlation([one.scores[name] for one in known], migs)) for name in known[0].scores]
    each = ", ".join(f"{value:.2f} ({name.capitalize()})" for name, value in pairs if value is not None)
    return each and f"Spearman's correlation of UDR with MIG over {len(known)} runs: {each}."


def _plain(one: Ranked) -> dict[str, Any]:
    return {
        "run": str(one.folder), "variant": one.config.variant, "seed": one.config.seed, "dataset": one.config.data.name,
        **{f"udr_{name}": value for name, value in one.scores.items()}, "pairs": one.pairs,
        "informative": one.informative, "identity": one.identity(),
        "mig": one.mig and {"value": one.mig.value, "identity": one.mig.identity},
    }  # fmt: skip
