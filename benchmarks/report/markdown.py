"""leaderboard/README.md, a pure function of the records: the same records always give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks.record import Record
from benchmarks.report import notation, provenance
from benchmarks.report.compare import Estimate
from benchmarks.report.notation import CONDITIONAL, DAGGER, NO_LIKELIHOOD, SETS, code, escape, link, superscript
from benchmarks.report.notes import notes, recipes, taught
from benchmarks.report.published import MARK_LEGEND, comparisons, part
from benchmarks.report.summary import summary
from benchmarks.report.tables import COSTS, Column, Gap, Identity, Row, Table, tables

#: Pictures that are folded away, with what stands on the fold.
FOLDED = {"pca": "Codes in the plane: principal components", "tsne": "Codes in the plane: t-SNE"}
ACROSS = 4  # pictures side by side

LEGEND = """\
<details><summary>How to read it</summary>

`mean ± e`: e is the *test-set standard error*, how far the number would move with other test images; where samples
are judged (fd, FID, KID, precision and the like), with other samples or with others of both; of a total
correlation, with other draws.
`mean ± e [s, n seeds]`: s is the standard deviation of the *spread over n training seeds*; the images are the
same for every seed, so e is the mean of the seeds' standard errors and does not shrink with n. Samples are each
seed's own: where they are judged, e is in s too, and counting both errs towards a tie. A number without ± has no
standard error. One seed says nothing about another seed.

Bold is a number that beats every other one of its column beyond the errors: |a − b| > 2·√(e²ₐ + e²ᵦ); with two
seeds or more, e² gains s²/n and the 2 becomes Student's t (two-sided 95 %) at Welch's degrees of freedom; a single
run beside several is taken to be of their spread. With one seed each, another seed may turn it round. Or, with three
seeds or more of each: every run of one beats every run of the other by 2·√(e²ₐ + e²ᵦ), and |a − b| is beyond Student's
t at 90 %, which for two equally good variants comes about by chance at most once in ten times, however unequal their
spreads, but lets fewer lost runs make a tie with everything.
Errors that two models share, as they share the test images, are not taken out, so the test errs towards a
tie. Nothing is bold in a column whose best is a tie by this test, has no error, or is a mean over only those
seeds that did not fail. Rows are in the order of the first ranked column, tied or not. `zoo compare A B` gives
the difference of two rows with its interval.

A raised digit names the footnote that says what exactly was measured (extractor, weights, number of images,
split, k); numbers that differ in it never share a column. Hashes are cut to 12 digits; the records have them
whole. † marks a model that is given something, a class, attributes or some of the pixels: its nats are of log p(x | y),
not of log p(x), and take no part in the ranking. ↑ more is better, ↓ less is better. `skip`: it cannot be
measured for this model, and why.

The suite whose runs were trained longest (the median of the images they saw) stands first: it is the one to quote.

</details>"""
BROWSER = "[index.html](index.html) is the same board for a browser: sortable, with curves, plots and pictures."


def board(
    records: Iterable[Record], registry_entries: Mapping[str, Any], command: str = "zoo leaderboard"
) -> str:
    """The whole leaderboard as Markdown, with image paths relative to the folder ``leaderboard``.

    Args:
        records: in any order.
        registry_entries: name -> something with ``title``, ``paper`` (title, authors, year, url) and ``published``
            (dataset, metric, value, stderr, source, mark, same_recipe, note), as attributes or keys. A variant without
            an entry is shown by its name alone.
        command: what made this page; it is printed under every table.
    """
    lines = ["<!-- Made from the records. Do not edit: run the command under a table. -->", "# Leaderboard"]
    found = tables(records)
    if not found:
        return "\n\n".join([*lines, "There are no records yet. `make bench` makes the first."]) + "\n"
    lines.append(" ".join([*_summary(found[0]), BROWSER]))
    lines.append(LEGEND)
    group = None
    for table in found:
        if table.group != group:
            group = table.group
            lines.append(f"## {escape(group)}")
        lines += _section(table, registry_entries, command, first=table is found[0])
    return "\n\n".join(lines) + "\n"


def _summary(table: Table) -> Iterator[str]:
    for sentence in summary(table):
        yield "".join(f"**{escape(text)}**" if stress else _spaced(text) for text, stress in sentence)


def _spaced(text: str) -> str:
    # `escape` takes the spaces at the ends, which join this piece of a sentence to the next.
    return " " * text.startswith(" ") + escape(text) + " " * text.endswith(" ")


def _section(table: Table, entries: Mapping[str, Any], command: str, first: bool) -> Iterator[str]:
    yield f"### {escape(table.dataset)}{table.which}"
    if not first:
        yield " ".join(_summary(table))
    yield _measured(table, [*table.head, *table.costs], entries, seeds=True)
    yield from _remarks(table, entries)
    yield from _footnotes(table)
    yield from _unfinished(table)
    yield from _published(table, entries)
    yield from _pictures(table, "samples", "Samples (not chosen):")
    for name, title in FOLDED.items():
        if any(name in record.figures for record in table.done):
            yield f"<details><summary>{title}</summary>"
            yield from _pictures(table, name, "Of the first seed of each:")
            yield "</details>"
    if table.further:
        yield "<details><summary>Further measurements</summary>"
        yield _measured(table, table.further, entries)
        yield "</details>"
    yield from _provenance(table, command)


def _measured(table: Table, columns: list[Column], entries: Mapping[str, Any], seeds: bool = False) -> str:
    titles = [escape(c.title) + (f" {superscript(c.number)}" if c.number else "") for c in columns]
    rows = []
    for row in table.rows:
        cells, told = [_name(row, entries)], False
        for column in columns:
            cell = row.cells[column]
            cells.append(_cell(table, row, column, cell, told))
            told = told or (isinstance(cell, Gap) and cell.kind in ("failed", "diverged"))
        rows.append(cells + ([row.seeds] if seeds else []))
    return grid(["variant", *titles, *(["seeds"] if seeds else [])], rows)


def grid(head: list[str], rows: Iterable[list[str]], rest: str = "--:") -> str:
    """A Markdown table of cells that are Markdown already; the first column flush left, the ``rest`` right."""
    rule = [":--"] + [rest] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


def _name(row: Row, entries: Mapping[str, Any]) -> str:
    paper = part(entries.get(row.variant), "paper")
    return link(row.label, part(paper, "url")) + (f" {DAGGER}" if row.conditional else "")


def _cell(table: Table, row: Row, column: Column, cell: Estimate | Gap, told: bool) -> str:
    if isinstance(cell, Gap):
        # The reason of a failure is told once a row; it is in full below the table.
        return escape(cell.kind if told and cell.kind in ("failed", "diverged") else cell.text())
    if column.metric in COSTS:
        return column.cost(cell.value)
    text = notation.estimate(cell, len(row.records))
    text = f"**{text}**" if table.winners.get(column) is row else text
    return f"{text} {DAGGER}" if row.marked(column) else text


def _remarks(table: Table, entries: Mapping[str, Any]) -> Iterator[str]:
    said = []
    if any(row.conditional for row in table.rows):
        said.append(CONDITIONAL)
    said += map(escape, taught(table.rows, entries))
    if any(column.metric == "reconstruction_loss" for column in table.head):
        said.append(NO_LIKELIHOOD)
    if told := recipes(table):
        said.append(f"Digits after a name tell recipes of one variant apart: {escape(told)}")
    if table.part:
        said.append(SETS)
    for metric, reasons in table.skipped.items():
        said.append(f"{escape(metric)} was measured for none: skip: {escape('; '.join(reasons))}.")
    if said:
        yield "<br>\n".join(said)


def _footnotes(table: Table) -> Iterator[str]:
    said = [f"{superscript(i)} {_identity(one)}" for i, one in enumerate(table.footnotes, 1)]
    said += [f"{escape(metric)}: {escape(note)}" for metric, note in notes(table)]
    if said:
        yield "<details><summary>What exactly was measured</summary>"
        yield "<br>\n".join(said)
        yield "</details>"


def _identity(identity: Identity) -> str:
    return escape(notation.short_hashes(", ".join(f"{key} = {value}" for key, value in identity)))


def _unfinished(table: Table) -> Iterator[str]:
    lines = [
        f"- {escape(row.label)}, seed {record.cell.seed}, {record.status}: {escape(record.reason or '')}"
        for row in table.rows
        for record in row.records
        if record.status != "done"
    ]
    if lines:
        yield "Not done:"
        yield "\n".join(lines)


def _published(table: Table, entries: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for one in comparisons(table, entries):
        ours = [
            f"{escape(column.title)}: {notation.estimate(cell, len(one.row.records))}" for column, cell in one.ours
        ]
        theirs = notation.plus_minus(one.value, one.stderr)
        apart = "; ".join(notation.difference(value) for value in one.differences)
        same = "same recipe" if one.same_recipe else "**not the same recipe**"
        source = _source(one.source) + (f" ({escape(one.mark)})" if one.mark else "")
        rows.append([
            _name(one.row, entries), escape(one.metric), "; ".join(ours) or "not measured", escape(theirs),
            apart or "none", same + (f": {escape(one.note)}" if one.note else ""), source,
        ])  # fmt: skip
    if rows:
        yield f"Published numbers beside ours (source marks: {MARK_LEGEND}):"
        yield grid(["variant", "metric", "ours", "published", "difference", "recipe", "source"], rows)


def _source(source: str) -> str:
    return link(source, source) if source.startswith(("http://", "https://")) else escape(source)


def _pictures(table: Table, name: str, title: str) -> Iterator[str]:
    shown = [(row, record) for row in table.rows for record in row.done[:1] if name in record.figures]
    if not shown:
        return
    without = [row.label for row in table.rows if row not in [row for row, _ in shown]]
    yield title + (f" none of {escape(', '.join(sorted(without)))}." if without else "")
    blocks = []
    for start in range(0, len(shown), ACROSS):
        some = shown[start : start + ACROSS]
        names = [f"{escape(row.label)}, seed {record.cell.seed}" for row, record in some]
        images = [f"![{name} of {whose}]({notation.address(record.figures[name])})"
                  for whose, (_, record) in zip(names, some, strict=True)]  # fmt: skip
        rule = [":-:"] * len(some)
        blocks.append("\n".join("| " + " | ".join(cells) + " |" for cells in (names, rule, images)))
    yield "\n\n".join(blocks)


def _provenance(table: Table, command: str) -> Iterator[str]:
    said = "; ".join(f"{escape(name)} {escape(values)}" for name, values in provenance.facts(table).items())
    data = f"Data: {escape(told)}. " if (told := provenance.data(table)) else ""
    yield f"{data}{provenance.span(table)} under `records/{table.group}`. {said}. Made by {code(command)}."
    lines = [f"- {escape(record.cell.stem)}: {code(record.command)}" for record in table.records]
    for old in table.superseded:
        lines.append(f"- {escape(old.cell.stem)} is left out: that seed was run again.")
    yield "<details><summary>Records and the commands that made them</summary>"
    yield "\n".join(lines)
    yield "</details>"
