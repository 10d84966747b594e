"""`zoo check`: whether a variant keeps the contract."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict

import click

from benchmarks.commands import options
from benchmarks.commands.exit_codes import FAILED


@click.command()
@click.argument("variant")
@options.as_json
def check(variant: str, as_json: bool) -> None:
    """Test whether a variant keeps the contract, and say what is wrong with it and how to mend it.

    Exit code 0: every property holds; 1: something is wrong; 2: there is no such variant.
    """
    from zoo.registry import registry

    name, entry = registry().variant(variant)
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


def _sentence(text: str) -> str:
    first = text.split()[0]
    text = text if text.endswith(".") else f"{text}."
    # A name of code keeps its small letter.
    return text[0].upper() + text[1:] if first.isalpha() else text
