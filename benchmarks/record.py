"""What one cell of a benchmark came to: one JSON file, whole or absent, and every number in it finite and below 1e300.

A *cell* is suite@version x variant x dataset x seed under one resolved configuration; its ``key`` is a hash
of that configuration, so an interrupted matrix knows what it already has. The records are the truth: the
leaderboard is a pure function of them. This module imports no torch, so that reports answer at once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from benchmarks.catalogue import listed, taken
from zoo.config import RunConfig
from zoo.errors import UsageError, ZooError, one_line
from zoo.files import atomic_write, canonical_json, fingerprint

SCHEMA = 2
MAX_BYTES = 5_000_000


def _sizes_of_scores(content: dict[str, Any]) -> dict[str, Any]:
    # Schema 1 gave every score of codes the size of the test sample that was asked for, and to those on the training
    # sample a better direction. What each is over stands in its identity.
    metrics = {}
    for name, metric in content.get("metrics", {}).items():
        known = listed(name)
        n = metric.get("identity", {}).get(known.over) if known else None
        metrics[name] = metric if n is None else metric | {"n": n, "better": known.better}
    return content | {"metrics": metrics}


#: schema n -> a function that turns the JSON of schema n into that of schema n + 1.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _sizes_of_scores}

KEPT = "evaluation"  # in the folder of a run: what an evaluation keeps until there is a record
LARGEST = 1e300  # what a board adds up and draws stays finite
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,99}")


def _finite(value: Any) -> float:
    if isinstance(value, str | bool) or not hasattr(value, "__float__"):
        raise ValueError(f"{value!r} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite, and a record holds finite numbers only")
    if abs(number) > LARGEST:
        raise ValueError(f"{number} is beyond {LARGEST:g}, which is the most that a record holds")
    return number


def _finite_or_gap(value: Any) -> float | None:
    # The curve of a run that diverged ends in NaN: that point is a gap, and the record still gets written.
    if isinstance(value, float) and not abs(value) <= LARGEST:
        return None
    return None if value is None else _finite(value)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    canonical_json(value)
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value) or ".." in value:
        raise ValueError(f"{value!r} is not a plain name (letters, digits, _ . + @ -)")
    return value


def _relative(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or ":" in value or not value.isprintable():
        raise ValueError(f"{value!r} is not a path inside the leaderboard folder")
    return value


def _moment(value: str) -> str:
    moment = datetime.fromisoformat(value)
    if moment.utcoffset() != timedelta(0):
        raise ValueError(f"{value!r} does not say that it is UTC")
    return value


Finite = Annotated[float, BeforeValidator(_finite)]
NonNegative = Annotated[float, BeforeValidator(_finite), Field(ge=0)]
Count = Annotated[StrictInt, Field(ge=0)]
Name = Annotated[str, AfterValidator(_name)]
RelativePath = Annotated[str, AfterValidator(_relative)]
Unit = Literal["nats", "bits/dim", "dB", ""]
Better = Literal["lower", "higher"] | None
Plain = Annotated[dict[str, Any], AfterValidator(_plain)]
Moment = Annotated[str, AfterValidator(_moment)]
MEASURES = TypeAdapter(dict[Name, tuple[Unit, Better]])
Scalar = str | StrictBool | StrictInt | Annotated[float, Field(allow_inf_nan=False)] | None


class Part(BaseModel):
    """Fields that are checked and stay as they are."""

    # protected_namespaces: `model` is a word of this schema, not of pydantic.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Cell(Part):
    """``suite@version`` x ``variant`` x ``dataset`` x ``seed``; ``key`` is `cell_key` of the config."""

    suite: Name
    version: Name
    variant: Name
    dataset: Name
    seed: Count
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]

    @property
    def group(self) -> str:
        """``suite@version``: no table mixes two of them."""
        return f"{self.suite}@{self.version}"

    @property
    def stem(self) -> str:
        """``<variant>-<dataset>-s<seed>-<key>``: how files of this cell begin."""
        return f"{self.variant}-{self.dataset}-s{self.seed}-{self.key}"


class Metric(Part):
    """One number with all that is needed to compare it.

    ``value`` is a mean over ``n`` items and ``stderr`` its standard error over them (None: it has none, or it
    is not known). ``identity`` holds whatever makes two numbers incomparable when it differs: extractor and
    weight hash, number of samples, split, k. ``unit`` is "nats", "bits/dim", "dB" or "".
    """

    value: Finite
    stderr: NonNegative | None = None
    n: Count
    unit: Unit = ""
    better: Better = None
    identity: dict[str, Scalar] = {}
    note: str | None = None


class GroupRate(Part):
    """What one of several groups of latents carries (the ``name`` that its variant gives it, or its number, from 1, the
    first drawn first): the mean of its rate in nats per image over the images of the metric ``rate``, with its standard
    error over them. Of its ``dimensions`` in the code as many are ``active`` as `active_units` counts (None: the code
    is not made of those of each group)."""

    name: Name
    value: Finite
    stderr: NonNegative | None = None
    dimensions: Count | None = None
    active: Count | None = None
    note: str | None = None

    @model_validator(mode="after")
    def _of_dimensions(self) -> GroupRate:
        if self.active is not None and self.active > (self.dimensions or 0):
            raise ValueError(f"of {self.dimensions or 'no'} dimensions {self.active} are active")
        return self


class Sizes(Part):
    """Examples in each split."""

    train: Count
    validation: Count
    test: Count


class Data(Part):
    """What was learnt from, and what it was measured on: ``sha256`` is the hash of the dataset's content."""

    name: Name
    sha256: str
    binarise: str | StrictBool | None = None
    test_bits_seed: StrictInt | None = None
    support: Literal["binary", "8-bit", "dequantised", "real"]
    n: Sizes


class Model(Part):
    """``conditional``: its nats are of log p(x | y), and are not ranked with those of log p(x)."""

    parameters: Count
    class_: Annotated[str, Field(alias="class")]
    conditional: StrictBool = False

    model_config = ConfigDict(populate_by_name=True)


class Train(Part):
    """How training went. ``peak_memory_bytes`` is None where the device cannot tell."""

    steps: Count
    epochs: NonNegative
    best_epoch: Count | None = None
    skipped_updates: Count = 0
    images_per_second: NonNegative | None = None
    peak_memory_bytes: Count | None = None
    stopped_early: StrictBool = False
    retreats: Count = 0
    together: Count = 1
    captured: bool = False


class Seconds(Part):
    """Wall time of each stage, in seconds; None for a stage that was not reached."""

    setup: NonNegative | None = None
    train: NonNegative | None = None
    evaluate: NonNegative | None = None
    figures: NonNegative | None = None
    total: NonNegative | None = None


class Environment(Part):
    """Code, machine and versions. Further plain fields, such as another package's version, are welcome."""

    git_commit: str | None
    git_dirty: StrictBool | None
    python: str
    torch: str | None
    device: str
    device_kind: Literal["cpu", "cuda", "mps"]
    precision: str
    threads: Count | None = None
    platform: str | None = None

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Scalar]


class Record(Part):
    """One cell. If it is not ``done`` it says why in ``reason``, and may lack any part it never reached. ``rates`` are
    those of several groups of latents, in their order, which add up to the metric ``rate``; of one group it has none.
    """

    schema_: Annotated[Literal[2], Field(alias="schema")] = SCHEMA
    status: Literal["done", "failed", "diverged"]
    reason: str | None = None
    log_tail: list[str] = []
    cell: Cell
    command: str
    config: Plain
    when: Moment
    data: Data | None = None
    model: Model | None = None
    metrics: dict[Name, Metric] = {}
    skipped: dict[Name, str] = {}
    rates: list[GroupRate] = []
    train: Train | None = None
    seconds: Seconds = Seconds()
    curves: dict[Name, list[Annotated[float | None, BeforeValidator(_finite_or_gap)]]] = {}
    environment: Environment
    figures: dict[Name, RelativePath] = {}

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _complete(self) -> Record:
        if self.status != "done" and not self.reason:
            raise ValueError(f"a cell that {self.status} must say why in `reason`")
        missing = [part for part in ("data", "model", "train") if getattr(self, part) is None]
        if self.status == "done" and missing:
            raise ValueError(f"a cell that is done must have {', '.join(missing)}")
        check_numbers(self.metrics, self.skipped, self.rates)
        return self

    def moments(self, name: str) -> list[float | None]:
        """The epoch of each point of a curve."""
        return moments(self.curves, name, (self.config.get("train") or {}).get("validate_every", 1))


def moments(curves: Mapping[str, list[float | None]], name: str, every: int) -> list[float | None]:
    """The epoch of each point of the curve ``name``: one with fewer points than epochs is of validation, which was
    after ``every`` epochs and at the end."""
    epochs, points = curves.get("epoch", []), len(curves[name])
    if points < len(epochs):
        last = len(epochs) - 1
        validated = [one for i, one in enumerate(epochs) if (i + 1) % every == 0 or i == last]
        if len(validated) == points:
            return validated
    return epochs[:points]


def check_numbers(metrics: Mapping[str, Any], skipped: Mapping[str, str], rates: Iterable[GroupRate]) -> None:
    """Raise `ValueError` where a record, or an evaluation, says two things of one metric or of one group."""
    if both := sorted(metrics.keys() & skipped.keys()):
        raise ValueError(f"{both[0]} is both measured and skipped")
    names = [one.name for one in rates]
    if len(set(names)) < len(names):
        raise ValueError("two groups of `rates` have one name")


def check_measures(measures: Any) -> None:
    """Raise `UsageError` where a record cannot hold what a variant measures itself (`VAE.measures`), or has another
    number in its place: one of the harness, or one of other variants in another unit or with another direction."""
    try:
        declared = MEASURES.validate_python(measures)
    except ValidationError as error:
        raise UsageError(f"`measures` is no dict of names to (unit, better): {first_of(error)}.") from None
    for name, (unit, better) in declared.items():
        known = listed(name)
        if taken(name):
            raise UsageError(f"'{name}' of `measures` is what the harness measures itself: give it another name.")
        if known and (known.unit, known.better) != (unit, better):
            asked = f"({known.unit!r}, {known.better!r})"
            raise UsageError(f"'{name}' of `measures` is {asked} in other variants: give it that or another name.")


def cell_of(config: RunConfig, suite: str, version: str) -> Cell:
    """The cell of a suite (or of what stands for one) that has this configuration."""
    return Cell(
        suite=suite, version=version, variant=config.variant, dataset=config.data.name, seed=config.seed,
        key=cell_key(config.identity()),
    )  # fmt: skip


def cell_key(config: Mapping[str, Any]) -> str:
    """12 hexadecimal digits, equal for equal resolved configurations whatever the order of their fields.

    Raises ZooError if the configuration is not plain JSON (or holds NaN).
    """
    try:
        return fingerprint(dict(config))[:12]
    except (TypeError, ValueError) as error:
        raise ZooError(f"the configuration has no key, because it is not plain JSON: {error}.") from None


def parse(content: Mapping[str, Any], name: str = "the record") -> Record:
    """A checked Record out of plain JSON values, brought up to today's schema.

    Raises ZooError, in one sentence that begins with ``name``.
    """
    if not isinstance(content, Mapping):
        raise ZooError(f"{name} is not a record: it holds no JSON object.")
    content = dict(content)
    schema = content.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool):
        raise ZooError(f"{name} is not a record: it has no `schema` number.")
    if schema > SCHEMA:
        raise ZooError(f"{name} has schema {schema}, and this vae-zoo reads up to {SCHEMA}: update it.")
    try:
        while schema < SCHEMA:
            if schema not in MIGRATIONS:
                raise ZooError(f"{name} has schema {schema}, which vae-zoo cannot read.")
            content = MIGRATIONS[schema](content)
            schema += 1
            content["schema"] = schema
        return Record.model_validate(content)
    except ValidationError as error:
        raise ZooError(f"{name} is not a record: {first_of(error)}.") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ZooError(f"{name} cannot be brought from schema {schema} to {SCHEMA}: {error!r}.") from None


def path_of(cell: Cell, folder: str | Path) -> Path:
    """``<folder>/<suite>@<version>/<variant>-<dataset>-s<seed>-<key>.json``.

    Raises ZooError if that is not inside ``folder``.
    """
    path = Path(folder) / cell.group / f"{cell.stem}.json"
    if not path.resolve().is_relative_to(Path(folder).resolve()):
        raise ZooError(f"the record of {cell.stem} would lie outside of {folder}.")
    return path


def dump(record: Record) -> str:
    """The JSON text of a record: a field a line, a list of numbers a line. Raises ZooError on NaN."""
    content = plain(record)
    try:
        return pretty(content) + "\n"
    except (TypeError, ValueError) as error:
        raise ZooError(f"the record of {record.cell.stem} cannot be written: {error}.") from None


def plain(made: Any) -> dict[str, Any]:
    """A record, or an evaluation, as plain JSON values; ``rates`` is left out where it has none, as of one group and
    before there were any."""
    content = made.model_dump(by_alias=True)  # mode="json" would turn NaN into null
    return content if made.rates else {name: part for name, part in content.items() if name != "rates"}


def write(record: Record, folder: str | Path) -> Path:
    """Write the record atomically to its place (`path_of`), and return that.

    It is checked once more first: ZooError if it is not a record, is too large, or would lie elsewhere.
    """
    text = dump(record)
    path = path_of(parse(json.loads(text), f"the record of {record.cell.stem}").cell, folder)
    if len(text.encode()) > MAX_BYTES:
        raise ZooError(f"the record {path.name} would have {len(text)} bytes, and the limit is {MAX_BYTES}.")
    atomic_write(path, text)
    return path


def read(path: str | Path) -> Record:
    """The record in a file of at most 5 MB. Anything else is a ZooError that names the file."""
    return parse(content_of(path, "record"), str(path))


def content_of(path: str | Path, kind: str) -> Any:
    """The JSON in a file of at most 5 MB that is to hold a ``kind``; a ZooError names the file if it has none."""
    path, one = Path(path), f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    try:
        if path.is_symlink() and not path.exists():
            raise ZooError(f"{path} is not {one}: it is a link to what is not there.")
        if path.is_dir():
            raise ZooError(f"{path} is not {one}: it is a folder.")
        if not path.is_file():
            raise ZooError(f"there is no {kind} {path}.")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ZooError(f"{path} is not {one}: it has more than {MAX_BYTES} bytes.")
        return json.loads(data.decode(), parse_constant=_refuse_constant)
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {error.strerror or error}.") from None
    except RecursionError:
        raise ZooError(f"{path} is not {one}: it is nested too deeply.") from None
    except ValueError as error:
        raise ZooError(f"{path} is not {one}: {one_line(error).rstrip('.')}.") from None


def read_all(folder: str | Path, on_error: Callable[[ZooError], None] | None = None) -> list[Record]:
    """Every record under ``folder`` (none if it does not exist), as sorted by `in_order`.

    A broken record, or one whose file is not where its cell belongs (a copy would count as another seed),
    raises ZooError; with ``on_error`` it is left out and the error handed over instead.
    """
    records = []
    for path in sorted(Path(folder).glob("*/*.json")):
        if path.name.startswith("."):
            continue
        try:
            record = read(path)
            if (path.parent.name, path.stem) != (record.cell.group, record.cell.stem):
                belongs = f"{record.cell.group}/{record.cell.stem}.json"
                raise ZooError(f"{path} is a copy: its record belongs in {belongs}.")
            records.append(record)
        except ZooError as error:
            if on_error is None:
                raise
            on_error(error)
    return in_order(records)


def read_some(folder: str | Path) -> list[Record]:
    """`read_all`, and `UsageError` where there are none."""
    if not (found := read_all(folder)):
        raise UsageError(f"{folder} holds no records. `zoo bench quick` makes some.")
    return found


def in_order(records: Iterable[Record]) -> list[Record]:
    """Sorted by suite, version (as numbers where they are numbers), dataset, variant, seed and key."""

    def place(record: Record) -> tuple[Any, ...]:
        cell = record.cell
        version = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in cell.version.split(".")]
        return cell.suite, version, cell.dataset, cell.variant, cell.seed, cell.key

    return sorted(records, key=place)


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"it holds {constant}, and a record holds finite numbers only")


def first_of(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"])
    what = one_line(first["msg"].removeprefix("Value error, ")).rstrip(".")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {what}{more}" if where else f"{what}{more}"


def pretty(value: Any, indent: str = "") -> str:
    """Plain values as JSON, a field a line, and so is a list of numbers, such as a curve: json.dumps(indent=...) gives
    each number its own."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key)}: {pretty(part, inner)}" for key, part in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        return "[\n" + ",\n".join(inner + pretty(part, inner) for part in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
