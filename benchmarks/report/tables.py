"""Records sorted into tables: which numbers share a column, which seeds a row, and what stands in a gap.

Nothing is rendered here. A table is one suite@version and one dataset with one content; a row is one variant
with one recipe (the configuration without its seed); a column is one metric with one identity.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.catalogue import ALL, COSTS, DENSITIES, EX_POST, begins_with, explains
from benchmarks.record import Cell, Data, Metric, Record, cell_key, in_order
from benchmarks.report.compare import Estimate, best, estimate, ranks
from benchmarks.report.notation import count, number, shorten, spelled, superscript
from zoo.config import LATER, decisive
from zoo.errors import unknown
from zoo.files import canonical_json

Identity = tuple[tuple[str, Any], ...]

TITLES = {
    "elbo": "ELBO", "bits_per_dim": "bits/dim", "reconstruction_loss": "reconstruction loss (no likelihood)",
    "active_units": "active units", "rate": "rate", "distortion": "distortion", "fid": "FID",
    "nll_ais": "NLL (AIS)", "fid_bf16": "FID in bfloat16", "kid": "KID",
    "psnr": "PSNR", "ssim": "SSIM", "mig": "MIG", "sap": "SAP", "parameters": "parameters",
    "images_per_second": "images/s", "peak_memory": "peak MB", "seconds": "seconds",
}  # fmt: skip
# The head table; what matches none of these goes to the second table.
_HEAD = (r"elbo", r"nll_iwae.*", r"bits_per_dim", r"reconstruction_loss", r"iwae_loss.*",
         rf"(fd|fid)(?!.*{EX_POST}).*", r"(fd|fid).*", r"active_units",
         r"mig|sap_.*|disentanglement.*|(beta|factor)_vae_score|modularity|irs")  # fmt: skip
# Nats of a model that is told y are of log p(x | y): another quantity than log p(x).
_OF_X_GIVEN_Y = re.compile(r"elbo|nll.*|bits_per_dim|reconstruction_loss|iwae_loss.*|distortion|rate|.*_gap")


@dataclass(frozen=True)
class Column:
    """One metric with one identity (its fields and n), sorted. ``number`` is its footnote in the table."""

    metric: str
    unit: str
    better: str | None
    identity: Identity
    number: int = 0
    distinction: str = ""

    def holds(self, name: str, metric: Metric) -> bool:
        """Whether a measurement belongs in this column."""
        return self.alike(_column(name, metric))

    def alike(self, other: Column) -> bool:
        """Whether both hold the same measurement, whatever their tables are."""
        return (other.metric, other.unit, other.better, other.identity) == (
            self.metric, self.unit, self.better, self.identity,
        )  # fmt: skip

    @property
    def title(self) -> str:
        """For a head: name, what sets it apart from a column of the same name, direction, unit."""
        return " ".join(part for part in (self.name, self.distinction, self.direction) if part)

    @property
    def name(self) -> str:
        """The metric as a reader knows it: ``NLL (k = 5000)`` for ``nll_iwae_5000``, of all images or of the first."""
        if bound := re.fullmatch(rf"nll_iwae_(\d+)({ALL})?", self.metric):
            return f"NLL (k = {bound[1]}{', all' if bound[2] else ''})"
        return TITLES.get(self.metric, self.metric)

    def cost(self, value: float) -> str:
        """A cost as it is written: three digits are enough."""
        return count(round(value)) if self.metric == "parameters" else number(value, 3)

    @property
    def direction(self) -> str:
        """Arrow and unit. What is no likelihood is never called nats."""
        arrow = {"higher": "↑", "lower": "↓", None: ""}[self.better]
        unit = "" if self.metric == "reconstruction_loss" or self.unit == self.name else self.unit
        return " ".join(part for part in (arrow, f"({unit})" if unit else "") if part)


@dataclass(frozen=True)
class Gap:
    """Why there is no number: ``kind`` is "skip", "failed", "diverged", "column" (elsewhere) or "absent"."""

    kind: str
    reason: str = ""

    def text(self, width: int = 60) -> str:
        """For a cell; never empty."""
        if self.kind == "absent":
            return "not measured"
        if self.kind == "column":
            return f"see {self.reason}"
        return f"{self.kind}: {shorten(self.reason, width)}" if self.reason else self.kind


@dataclass
class Row:
    """One variant with one recipe: a record a seed."""

    variant: str
    label: str
    records: list[Record]
    cells: dict[Column, Estimate | Gap] = field(default_factory=dict)

    @property
    def done(self) -> list[Record]:
        return [record for record in self.records if record.status == "done"]

    @property
    def conditional(self) -> bool:
        return any(record.model is not None and record.model.conditional for record in self.records)

    @property
    def seeds(self) -> str:
        """``0, 1, 2 failed``."""
        states = [f"{record.cell.seed} {record.status}".removesuffix(" done") for record in self.records]
        return ", ".join(states)

    def measured(self, column: Column) -> list[tuple[int, Metric]]:
        """(seed, measurement) of each seed whose number is in this row's cell."""
        # What a run cost is shown even if it failed, but is never averaged with runs that were finished.
        cost = column.metric in COSTS
        given = self.done or (self.records if cost else [])
        known = [(record.cell.seed, measurements(record) if cost else record.metrics) for record in given]
        found = [(seed, metrics.get(column.metric)) for seed, metrics in known]
        return [(seed, metric) for seed, metric in found if metric and column.holds(column.metric, metric)]

    def marked(self, column: Column) -> bool:
        """Whether this row's number in ``column`` is conditional on something, and takes no part in its ranking."""
        return self.conditional and bool(_OF_X_GIVEN_Y.fullmatch(column.metric))


@dataclass
class Table:
    """One suite@version on one dataset; ``part`` counts from 1 where the dataset had several contents."""

    group: str
    dataset: str
    rows: list[Row]
    head: list[Column]
    further: list[Column]
    costs: list[Column]
    footnotes: list[Identity]
    winners: dict[Column, Row]
    skipped: dict[str, list[str]]
    superseded: list[Record]
    data: Data | None
    part: int = 0

    @property
    def records(self) -> list[Record]:
        return in_order(record for row in self.rows for record in row.records)

    @property
    def done(self) -> list[Record]:
        return [record for record in self.records if record.status == "done"]

    @property
    def which(self) -> str:
        """`` (set 2)`` after the name of a dataset that had several contents, else nothing."""
        return f" (set {self.part})" if self.part else ""

    def same_images(self, other: Table) -> bool:
        """Whether both are of one dataset with one content."""
        ours, theirs = ([_content(record) for record in table.done[:1]] for table in (self, other))
        return self.dataset == other.dataset and ours == theirs != []

    @property
    def columns(self) -> list[Column]:
        return [*self.head, *self.further, *self.costs]

    def ranked(self, column: Column) -> list[Row]:
        """The rows whose numbers take part in the ranking of this column, with a rank or without."""
        return [self.rows[i] for i in _ranked(self.rows, column)[0]]

    def ranks(self, column: Column) -> list[int | None]:
        """The rank of each row (`compare.ranks`), None for a row that is not ranked in this column."""
        ranked, whole = _ranked(self.rows, column)
        found = ranks(ranked, column.better, whole)
        return [found.get(i) for i in range(len(self.rows))]


def recipe(record: Record) -> str:
    """12 hexadecimal digits of the configuration, less its seed and what decides no number.

    They are equal for the seeds of one thing.
    """
    return cell_key(decisive({name: value for name, value in record.config.items() if name != "seed"}))


def tables(records: Iterable[Record]) -> list[Table]:
    """All tables; the order of ``records`` does not matter.

    The suite@version whose cells were trained longest stands first (the median of the images that those that are done
    have seen), because it is the one to quote; within it tables are sorted by dataset. Ties go by name.
    """
    places: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for record in in_order(records):
        place = places.setdefault((record.cell.group, record.cell.dataset), {})
        place.setdefault(_content(record), []).append(record)
    built = []
    for (group, dataset), contents in places.items():
        # A cell that failed before it had its data stands with those that asked for the same, else with the first.
        lost = contents.pop("", [])
        asked: dict[str, str] = {}
        for name, some in contents.items():
            for record in some:
                asked.setdefault(_request(record), name)
        first = next(iter(contents), "")
        for record in lost:
            place = asked.get(_request(record), first)
            contents[place] = in_order([*contents.get(place, []), record])
        several = len(contents) > 1
        built += [_table(group, dataset, part, i * several) for i, part in enumerate(contents.values(), 1)]
    seen: dict[str, list[float]] = {}
    for table in built:
        seen.setdefault(table.group, []).extend(images_seen(record) for record in table.done)
    longest = {group: statistics.median(images) if images else 0.0 for group, images in seen.items()}
    return sorted(built, key=lambda table: -longest[table.group])


def of_suite(found: Iterable[Table], suite: str) -> list[Table]:
    """Those of one suite, by its name with its version or without; `UsageError` where there are none."""
    found = [*found]
    chosen = [table for table in found if suite in (table.group, table.group.partition("@")[0])]
    if not chosen:
        raise unknown("suite with records", suite, {table.group for table in found}, "zoo leaderboard")
    return chosen


def images_seen(record: Record) -> float:
    """How many images a run was trained on, each visit counted."""
    return record.train.epochs * record.data.n.train if record.train and record.data else 0.0


def measurements(record: Record) -> dict[str, Metric]:
    """The metrics of a record and what it cost, as metrics: the machine and its use are the identity of a speed."""
    found = dict(record.metrics)
    here: dict[str, Any] = {"device": record.environment.device, "precision": record.environment.precision}
    if record.environment.device_kind == "cpu":
        here["threads"] = record.environment.threads
    # Of a run that shared its device with others no cost is that of one alone.
    if record.train is not None and record.train.together > 1:
        here["together"] = record.train.together
    if record.train is not None and record.train.captured:
        here["captured"] = True
    if record.model is not None:
        found["parameters"] = Metric(value=record.model.parameters, n=1)
    if record.train is not None and record.train.images_per_second is not None:
        found["images_per_second"] = Metric(value=record.train.images_per_second, n=1, identity=here)
    if record.train is not None and record.train.peak_memory_bytes is not None:
        found["peak_memory"] = Metric(value=record.train.peak_memory_bytes / 1e6, n=1, identity=here)
    if record.seconds.total is not None:
        found["seconds"] = Metric(value=record.seconds.total, n=1, identity=here)
    return found


def _content(record: Record) -> str:
    if record.data is None:
        return ""
    return record.data.model_dump_json(exclude={"name": True, "n": {"train": True, "validation": True}})


def _request(record: Record) -> str:
    # Records of before a setting of the data came asked for its default.
    return canonical_json(decisive(record.config).get("data"))


def _table(group: str, dataset: str, records: list[Record], part: int) -> Table:
    rows, superseded = _rows(records)
    known = {record.cell: measurements(record) for row in rows for record in row.records}
    columns = _columns(known.values())
    footnotes = list(dict.fromkeys(column.identity for column in columns if column.identity))
    columns = [_numbered(column, columns, footnotes) for column in columns]
    for row in rows:
        for column in columns:
            row.cells[column] = _cell(row, column, columns, known)
    # A bound of the first images is no headline beside that of all.
    whole = {column.metric.removesuffix(ALL) for column in columns if column.metric.endswith(ALL)}
    head = [column for column in columns if _place(column.metric) < len(_HEAD) and column.metric not in whole]
    order = [column for column in head if column.better] or head
    rows.sort(key=lambda row: _standing(row, order))
    costs = [column for column in columns if column.metric in COSTS]
    return Table(
        group, dataset, rows, head, [c for c in columns if c not in head + costs], costs, footnotes,
        {column: row for column in columns if (row := _winner(rows, column)) is not None},
        _skipped(rows, {column.metric for column in columns}), superseded,
        next((record.data for record in records if record.data is not None), None), part,
    )  # fmt: skip


def _rows(records: list[Record]) -> tuple[list[Row], list[Record]]:
    by_recipe: dict[tuple[str, str], dict[int, Record]] = {}
    superseded = []
    for record in sorted(records, key=lambda record: (record.when, record.cell.key)):
        seeds = by_recipe.setdefault((record.cell.variant, recipe(record)), {})
        if record.cell.seed in seeds:
            # The same seed of the same recipe is the same experiment done again, not a second sample.
            superseded.append(seeds[record.cell.seed])
        seeds[record.cell.seed] = record
    rows = []
    for (variant, key), seeds in sorted(by_recipe.items()):
        others = {other: next(iter(found.values())) for (name, other), found in by_recipe.items() if name == variant}
        label = variant if len(others) == 1 else f"{variant} ({_what_differs(key, others)})"
        rows.append(Row(variant, label, [seeds[seed] for seed in sorted(seeds)]))
    return rows, in_order(superseded)


def _what_differs(key: str, recipes: dict[str, Record]) -> str:
    # ``k=5`` where the recipes differ in that alone, as those of a sweep do, ``k not given`` of the one that leaves it
    # to the variant; else the beginning of the key.
    names, settings = apart([record.config for record in recipes.values()])
    if len(names) != 1:
        return key[:6]
    (name,), ours = names, settings[[*recipes].index(key)]
    said = f"={spelled(ours[name])}" if name in ours else " not given"
    return f"{name.removeprefix('model.')}{said}"


def apart(configs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of the settings that are not the same in all of ``configs``, sorted, less the seed and what decides no
    number; and each of the configurations as a flat dictionary, with the defaults of what came after it was written. A
    section that gives nothing is none."""
    settings = [
        {name: value for name, value in (*flat(LATER), *flat(decisive(config))) if value != {}} for config in configs
    ]
    names = {name for one in settings for name in one} - {"seed"}
    return [name for name in sorted(names) if len({repr(one.get(name)) for one in settings}) > 1], settings


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """A nested configuration as (``a.b.c``, leaf) pairs, in its order."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from flat(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _column(name: str, metric: Metric) -> Column:
    identity = dict(metric.identity)
    if name not in COSTS:
        identity.setdefault("n", metric.n)
    return Column(name, metric.unit, metric.better, tuple(sorted(identity.items())))


def _columns(known: Iterable[Mapping[str, Metric]]) -> list[Column]:
    found = {_column(name, metric) for metrics in known for name, metric in metrics.items()}
    if not any(_place(column.metric) < len(_HEAD) for column in found):
        found.add(Column("elbo", "nats", "higher", ()))

    def place(column: Column) -> tuple[Any, ...]:
        digits = [int(part) for part in re.findall(r"\d+", column.metric)]
        cost = COSTS.index(column.metric) if column.metric in COSTS else -1
        name = (cost, _place(column.metric), re.sub(r"\d+", "", column.metric), digits)
        identity = [(key, *_sortable(value)) for key, value in column.identity]
        return *name, column.unit, str(column.better), identity

    return sorted(found, key=place)


def _sortable(value: Any) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else 0.0, str(value)


def _place(metric: str) -> int:
    if metric in COSTS:
        return len(_HEAD) + 1
    return next((i for i, pattern in enumerate(_HEAD) if re.fullmatch(pattern, metric)), len(_HEAD))


def _numbered(column: Column, columns: list[Column], footnotes: list[Identity]) -> Column:
    twins = [dict(twin.identity) for twin in columns if twin.metric == column.metric and twin != column]
    own = dict(column.identity)
    apart = [f"{key}={own[key]}" for key in own if any(twin.get(key) != own[key] for twin in twins)]
    distinction = f"({', '.join(apart)})" if apart and len(", ".join(apart)) <= 24 else ""
    number = footnotes.index(column.identity) + 1 if column.identity else 0
    return Column(column.metric, column.unit, column.better, column.identity, number, distinction)


def _cell(
    row: Row, column: Column, columns: list[Column], known: Mapping[Cell, Mapping[str, Metric]]
) -> Estimate | Gap:
    if given := row.measured(column):
        return estimate([metric for _, metric in given])
    for record in row.done or (row.records if column.metric in COSTS else []):
        if (metric := known[record.cell].get(column.metric)) is not None:
            own = next(twin for twin in columns if twin.holds(column.metric, metric))
            return Gap("column", f"column {superscript(own.number)}" if own.number else "the other column")
    for record in row.done:
        if reason := _reason(record, column.metric):
            return Gap("skip", reason)
    if not row.done:
        return Gap(row.records[0].status, row.records[0].reason or "")
    if column.metric == "peak_memory" and row.done[0].environment.device_kind == "cpu":
        return Gap("skip", "not known on a CPU")
    return Gap("absent")


def _reason(record: Record, metric: str) -> str | None:
    """Why a record says that it lacks a metric: its own reason before that of its family."""
    if metric in record.skipped:
        return record.skipped[metric]
    for density in DENSITIES:
        if not metric.endswith(density):
            continue
        # What has the distance in some features and no density for it has none for others either.
        for name, reason in record.skipped.items():
            if name.endswith(density) and name.removesuffix(density) in record.metrics:
                return reason
    for name in sorted(record.skipped, key=lambda name: not begins_with(metric, name)):
        if explains(name, metric):
            return record.skipped[name]
    return None


def _standing(row: Row, order: list[Column]) -> tuple[Any, ...]:
    for place, column in enumerate(order):
        if isinstance(cell := row.cells[column], Estimate):
            sign = -1.0 if column.better == "higher" else 1.0
            return row.marked(column), place, sign * cell.value, row.variant, row.label
    return True, len(order) + (not row.done), 0.0, row.variant, row.label


def _ranked(rows: list[Row], column: Column) -> tuple[dict[int, Estimate], list[int]]:
    """The numbers that take part in a ranking, by the place of their row, and the places of rows without a loss."""
    ranked = {
        i: cell
        for i, row in enumerate(rows)
        if isinstance(cell := row.cells[column], Estimate) and row.done and not row.marked(column)
    }
    return ranked, [i for i, row in enumerate(rows) if len(row.done) == len(row.records)]


def _winner(rows: list[Row], column: Column) -> Row | None:
    ranked, whole = _ranked(rows, column)
    winner = best(ranked, column.better, whole)
    return None if winner is None else rows[winner]


def _skipped(rows: list[Row], measured: set[str]) -> dict[str, list[str]]:
    reasons: dict[str, set[str]] = {}
    # A picture that was left out of some runs only is there in others.
    drawn = {name for row in rows for record in row.records for name in record.figures}
    for row in rows:
        for record in row.records:
            for metric, reason in record.skipped.items():
                if metric not in drawn and not any(explains(metric, one) for one in measured):
                    reasons.setdefault(metric, set()).add(reason)
    return {metric: sorted(reasons[metric]) for metric in sorted(reasons)}
