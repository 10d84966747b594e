"""A suite: a named, versioned matrix of variants, data sets and seeds. Its meaning never changes; its version rises."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from benchmarks.report.tables import flat
from zoo.config import RunConfig, resolve
from zoo.errors import UsageError, find, unknown
from zoo.plain_yaml import read_yaml
from zoo.registry import registry
from zoo.settings import Config

FOLDER = Path(__file__).resolve().parent / "suites"
# Texts ``path=value``, a cell each, by the variant that they are of; None is all others.
Sweeps = Mapping[str | None, tuple[str, ...]]


class Suite(Config):
    """What `zoo bench NAME` runs.

    ``defaults``, then the variant's own recipe in the registry, then ``overrides[variant]`` are laid over each other;
    all are nested mappings with the sections ``model``, ``train``, ``data`` and ``evaluate``. A recipe is how to train:
    ``defaults`` lie over the settings of the model that the registry has. `contested` says where this matters.
    """

    schema_: Literal[1] = Field(alias="schema")
    extends: str | None = Field(None, description="a suite that ships: what is not said here is as it is there")
    name: str = Field(pattern=r"^[a-z0-9_]+$")
    version: str = Field(pattern=r"^[0-9]+$")
    title: str
    summary: str = ""
    budget_seconds: float | None = Field(None, gt=0, description="what one cell may take on two idle CPU cores")
    datasets: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    defaults: dict[str, dict[str, Any]] = {}
    overrides: dict[str, dict[str, dict[str, Any]]] = {}
    sweep: dict[str, tuple[bool | int | float | str, ...]] = Field(
        {}, description="a setting and its values, a cell each, of all variants; or of one that it names, VARIANT:PATH"
    )

    _path: str = PrivateAttr("")

    @property
    def asked(self) -> str:
        """As it is asked for on the command line: its name, or its file where it has one of its own."""
        return self._path or self.name

    @property
    def group(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def sweeps(self) -> Sweeps:
        """The values of its sweeps, each as a text ``path=value``."""
        found = {}
        for key, values in self.sweep.items():
            variant, _, path = key.rpartition(":")
            found[variant or None] = tuple(f"{path}={json.dumps(value)}" for value in values)
        return found

    @property
    def size(self) -> int:
        """How many cells it has."""
        rows = sum(len(swept(variant, self.sweeps)) for variant in self.variants)
        return rows * len(self.datasets) * len(self.seeds)

    def config(self, variant: str, dataset: str, seed: int, settings: tuple[str, ...] = ()) -> RunConfig:
        """The configuration of one cell."""
        name, entry = registry().variant(variant)
        layers = [self.defaults, {"train": entry.train}, self.overrides.get(name, {})]
        return resolve(name, dataset, seed, layers, settings)

    def contested(self) -> dict[str, dict[str, str]]:
        """Of each variant the settings for which its entry in the registry and this suite have different values, with
        the one that holds, whose it is, and the others."""
        found = {}
        for variant in self.variants:
            name, entry = registry().variant(variant)
            own, over = dict(flat({"train": entry.train, "model": entry.settings})), self.overrides.get(name, {})
            usual, over = dict(flat(self.defaults)), dict(flat(over))
            told = {}
            for path, value in own.items():
                # The last one holds.
                first = [("its own", own), ("the suite's default", usual)]
                layers = [*(first[::-1] if path.startswith("train.") else first), ("the suite's override", over)]
                said = [(who, layer[path]) for who, layer in layers if path in layer]
                if any(another != value for _, another in said):
                    (who, holds), *others = reversed(said)
                    told[path] = f"{holds}, {who}; " + ", ".join(f"{who} is {one}" for who, one in others)
            if told:
                found[name] = told
        return found


def swept(variant: str, *sweeps: Sweeps) -> tuple[str | None, ...]:
    """The values of one variant in the first of ``sweeps`` that has some, its own before those of all; (None,) where
    none has: one cell, of which nothing is set."""
    name, _ = registry().variant(variant)
    found = (values for given in sweeps for whose in (name, None) if (values := given.get(whose)))
    return next(found, (None,))


def check_sweeps(sweeps: Sweeps, variants: Iterable[str]) -> None:
    """Raise `UsageError` where what ``--sweep`` gave has values of a variant that is not run, as ``variants`` are."""
    names = {registry().variant(one)[0] for one in variants}
    for name in sweeps:
        if name is not None and name not in names:
            raise UsageError(f"--sweep has values of {name}, which is not among the variants.")


@functools.cache
def suites() -> dict[str, Suite]:
    """The suites that ship with the harness, by name."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        suite = read_suite(path)
        if suite.name != path.stem:
            raise UsageError(f"{path}: the suite calls itself '{suite.name}', the file says '{path.stem}'.")
        for variant in suite.variants:
            registry().variant(variant)
        for dataset in suite.datasets:
            registry().dataset(dataset)
        found[suite.name] = suite
    return found


def read_suite(path: Path) -> Suite:
    """The suite in a file, with what it extends filled in; `UsageError` with file and line where it is wrong."""
    suite = read_yaml(path, Suite)
    if suite.extends:
        base = FOLDER / f"{suite.extends}.yaml"
        if not base.exists():
            raise unknown("suite", suite.extends, [known.stem for known in FOLDER.glob("*.yaml")], "zoo list suites")
        said = suite.model_dump(by_alias=True, exclude_unset=True)
        suite = Suite.model_validate(read_yaml(base, Suite).model_dump(by_alias=True) | said)
    if not suite.datasets or not suite.variants:
        raise UsageError(f"{path}: a suite names at least one data set and one variant.")
    overrides: dict[str, Any] = {}
    for written, layer in suite.overrides.items():
        name, _ = registry().variant(written)
        if name in overrides:
            raise UsageError(f"{path}: overrides has {name} more than once.")
        overrides[name] = layer
    sweep: dict[str, tuple[Any, ...]] = {}
    for written, values in suite.sweep.items():
        variant, colon, setting = written.rpartition(":")
        name = registry().variant(variant)[0] if colon else ""
        if any(key.rpartition(":")[0] == name for key in sweep):
            raise UsageError(f"{path}: sweep has two settings of {name or 'all variants'}, and a sweep is of one.")
        if name and name not in {registry().variant(one)[0] for one in suite.variants}:
            raise UsageError(f"{path}: sweep has values of {name}, which is none of its variants.")
        if not values or len(set(map(json.dumps, values))) < len(values):
            raise UsageError(f"{path}: sweep has {'a value twice' if values else 'no value'} for '{written}'.")
        sweep[f"{name}:{setting}" if name else setting] = values
    return suite.model_copy(update={"overrides": overrides, "sweep": sweep})


def suite_named(name: str) -> Suite:
    """The suite of that name, or one in a file if ``name`` is a path to YAML; `UsageError` otherwise."""
    if name.endswith((".yaml", ".yml")):
        suite = read_suite(Path(name))
        suite._path = name
        return suite
    return find("suite", name, suites(), "zoo list suites")[1]
