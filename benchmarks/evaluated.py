"""What a finished run came to when it was evaluated again: a JSON file of its own kind, which no board reads.

A `Record` is of a run and of what it was measured on to begin with. Here the two may be apart (other images, another
split), so that this file says of each what it is, and a reader of records refuses it. Without torch, as records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, ValidationError, model_validator

from benchmarks.record import (
    MAX_BYTES,
    Cell,
    Count,
    Data,
    Environment,
    GroupRate,
    Metric,
    Model,
    Moment,
    Name,
    Part,
    Plain,
    Record,
    Train,
    check_numbers,
    content_of,
    first_of,
    plain,
    pretty,
)
from zoo.errors import ZooError
from zoo.files import atomic_write

KIND = "evaluation"


class Origin(Part):
    """The run: ``data_sha256`` is of what it was trained on, ``weights_sha256`` of its model's file."""

    variant: Name
    seed: Count
    data: Name
    data_sha256: str
    weights_sha256: str


class Evaluated(Part):
    """One evaluation; ``key`` is equal for equal ones of equal weights.

    ``config`` is the run's with `evaluate` as it was here. ``data`` is what was measured on: ``own`` says whether the
    run was trained on that set, ``options`` how it was read, ``images`` how many different ones ``split`` has,
    ``bits_seed`` of which number their bits, or the noise on their bytes, were drawn (None: none were).
    """

    kind: Literal["evaluation"] = KIND
    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    run: Origin
    model: Model
    split: Literal["train", "validation", "test"]
    images: Count
    bits_seed: Count | None = None
    own: StrictBool
    data: Data
    options: Plain = {}
    command: str
    config: Plain
    when: Moment
    metrics: dict[Name, Metric]
    skipped: dict[Name, str]
    rates: list[GroupRate] = []
    seconds: Annotated[float, Field(ge=0)]
    environment: Environment

    @model_validator(mode="after")
    def _consistent(self) -> Evaluated:
        check_numbers(self.metrics, self.skipped, self.rates)
        return self

    def as_record(self, label: str) -> Record:
        """What makes tables of records takes it for the only one of the variant ``label``, in a suite that is none."""
        cell = Cell(
            suite=f"{KIND}_{self.split}", version="1", variant=label, dataset=self.data.name, seed=self.run.seed,
            key=self.key,
        )  # fmt: skip
        return Record(
            status="done", cell=cell, command=self.command, config=self.config, when=self.when, data=self.data,
            model=self.model, metrics=self.metrics, skipped=self.skipped, rates=self.rates,
            train=Train(steps=0, epochs=0.0), environment=self.environment,
        )  # fmt: skip


def labels(a: Evaluated, b: Evaluated) -> tuple[str, str]:
    """What to call two evaluations: by their variants, else by what else sets their runs apart."""
    for kind in ("{0.run.variant}", "{0.run.variant}-s{0.run.seed}", "{0.run.variant}-{0.run.weights_sha256:.6}"):
        if (one := kind.format(a)) != (two := kind.format(b)):
            return one, two
    return "a", "b"


def parse(content: Any, name: str) -> Evaluated:
    """A checked evaluation out of plain JSON values; ZooError in one sentence that begins with ``name``."""
    if not isinstance(content, Mapping) or content.get("kind") != KIND:
        raise ZooError(f"{name} is not what `zoo evaluate` writes.")
    try:
        return Evaluated.model_validate(content)
    except ValidationError as error:
        raise ZooError(f"{name} is not an evaluation: {first_of(error)}.") from None


def read(path: Path) -> Evaluated:
    """The evaluation in a file of at most 5 MB; anything else is a ZooError that names the file."""
    return parse(content_of(path, KIND), str(path))


def dump(made: Evaluated) -> str:
    """Its JSON text. Raises ZooError where it is larger than what can be read."""
    text = pretty(plain(made)) + "\n"
    if len(text.encode()) > MAX_BYTES:
        raise ZooError(f"the evaluation would have {len(text)} bytes, and the limit is {MAX_BYTES}.")
    return text


def write(made: Evaluated, path: Path) -> None:
    """Write it to ``path``, whole or not at all, once it is seen that it can be read."""
    text = dump(made)
    parse(json.loads(text), str(path))
    atomic_write(path, text)
