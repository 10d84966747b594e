"""`zoo check`: whether a variant keeps the contract."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from benchmarks.commands import options
from benchmarks.commands.exit_codes import FAILED

if TYPE_CHECKING:
    from zoo.registry import VariantEntry


@click.command()
@click.argument("variant")
@click.option(
    "--set", "settings", multiple=True, metavar="PATH=VALUE", help="Of the model, such as beta=2; sizes are cut down."
)
@options.as_json
def check(variant: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Test whether a variant keeps the contract, and say what is wrong with it and how to mend it.

    Exit code 0: every property holds; 1: something is wrong; 2: there is no such variant or setting.
    """
    from zoo.registry import registry

    name, entry = registry().variant(variant)
    if settings:
        entry = _with(name, entry, settings)
    from benchmarks.check.examine import PROPERTIES, examine
    from benchmarks.check.subject import Subject

    findings = []
    for finding in examine(Subject(name, entry)):
        findings.append(finding)
        if not as_json:
            mark = {"holds": "holds", "wrong": "WRONG", "inapplicable": "  -  "}[finding.status]
            click.echo(f"{mark}  {finding.title}")
            for text in filter(None, (finding.what, finding.mend and f"To mend it: {finding.mend}")):
                click.echo(textwrap.fill(_sentence(text), 100, initial_indent=" " * 7, subsequent_indent=" " * 7))
    wrong = [finding for finding in findings if finding.status == "wrong"]
    if as_json:
        content = {"variant": name, "passed": not wrong, "properties": [asdict(finding) for finding in findings]}
        click.echo(json.dumps(content, indent=2))
    else:
        seconds = sum(finding.seconds for finding in findings)
        held = f"{len(findings)} properties, all well"
        count = f"{len(wrong)} of {len(findings)} properties wrong" if wrong else held
        click.echo(f"\n{name}: {count} ({seconds:.0f} s).")
        if len(findings) < len(PROPERTIES):
            click.echo("The other properties wait until that is mended.")
        elif len(wrong) > 1:
            click.echo("Mend the first one first: the others may follow from it.")
    if wrong:
        raise click.exceptions.Exit(FAILED)


def _with(name: str, entry: VariantEntry, settings: tuple[str, ...]) -> VariantEntry:
    from benchmarks.check.subject import Subject
    from zoo.config import resolve
    from zoo.errors import UsageError
    from zoo.settings import parse_setting

    for text in settings:
        if other := parse_setting(text).keys() - {"model"}:
            raise UsageError(f"'{text}' is of {min(other)}: only a model's own settings are checked.")
    entry = entry.model_copy(update={"settings": resolve(name, "synthetic", settings=settings).model})
    # What the class does not have, or does not take together, is refused; what else goes wrong is for the examination.
    try:
        Subject(name, entry).make()
    except UsageError:
        raise
    except Exception:
        pass
    return entry


def _sentence(text: str) -> str:
    first = text.split()[0]
    text = text if text.endswith(".") else f"{text}."
    # A name of code keeps its small letter.
    return text[0].upper() + text[1:] if first.isalpha() else text
