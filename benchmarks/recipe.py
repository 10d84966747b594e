"""Recipes: a published number, how it was made, where we depart from that, and when ours counts as the same.

A recipe is one entry of a file in `benchmarks/recipes`. Its numbers are records like those of a suite; what they come
to (`judge`) is a pure function of them. No torch is imported here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from benchmarks import record
from benchmarks.matrix import Planned
from benchmarks.record import Record
from benchmarks.report.compare import Estimate, estimate
from zoo.config import RunConfig, decisive, resolve
from zoo.errors import UsageError, find, fold
from zoo.files import canonical_json
from zoo.plain_yaml import read_yaml
from zoo.registry import registry
from zoo.settings import Config

FOLDER = Path(__file__).resolve().parent / "recipes"
Word = Literal["reproduced", "close", "not", "not run"]
Band = tuple[float, float]


class Target(Config):
    """One published number and what ours has to be.

    Attributes:
        metric: as our records name it.
        factor: what our number is multiplied with before it is compared (100 for per cent).
        value, stderr: as published.
        source, mark: where it was read; R in the source itself, 2 at second hand, B quoted by memory of others.
        band: ours is reproduced from the first to the second of these; a number that is too good is outside too.
        near: ours is close between these.
    """

    metric: str
    name: str = ""
    factor: float = 1.0
    value: float
    stderr: float | None = None
    source: str
    mark: Literal["R", "2", "B"]
    band: Band
    near: Band | None = None

    @property
    def label(self) -> str:
        """What it is called among the targets of its recipe."""
        return self.name or self.metric

    @model_validator(mode="after")
    def _bands(self) -> Target:
        low, high = self.band
        if not low <= high:
            raise ValueError("band goes from the smaller number to the larger")
        if self.near and not (self.near[0] <= low and high <= self.near[1]):
            raise ValueError("near contains band")
        return self


class Cost(Config):
    """What a seed takes: CPU-seconds of an epoch measured on one core over a few steps; GPU minutes are guesses."""

    cpu_seconds_per_epoch: float | None = None
    cpu_evaluation_seconds: float | None = None
    gpu_minutes: float | None = None
    note: str = ""


class Recipe(Config):
    """One row of the table: a configuration, its targets, its departures from the paper and its cost.

    ``blocked`` says why it cannot be run at all, for recipes that are listed to be honest about them.
    """

    title: str
    version: str = Field("1", pattern=r"^[0-9]+$")
    variant: str
    dataset: str
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    config: dict[Literal["model", "train", "data", "evaluate"], dict[str, Any]] = {}
    seeded: tuple[str, ...] = Field((), description="paths of settings that take the seed: which labels are known")
    protocol: str = Field(description="how the number is measured: split, bits, samples, statistics, stopping")
    targets: tuple[Target, ...] = Field(min_length=1)
    departures: tuple[str, ...] = ()
    cost: Cost = Cost()
    needs: str | None = Field(None, description="what has to be there for it to run: files, a GPU")
    blocked: str | None = None

    def run_config(self, seed: int) -> RunConfig:
        """The configuration of one seed."""
        return resolve(self.variant, self.dataset, seed, [self.config], [f"{path}={seed}" for path in self.seeded])


class Order(Config):
    """Two numbers of a paper of which one is the smaller: a claim that holds or not whatever the level of both.

    Attributes:
        smaller, larger: RECIPE, or RECIPE/TARGET where a recipe has several targets.
        by: how far apart ours have to be at least.
    """

    smaller: str
    larger: str
    by: float = Field(0.0, ge=0.0)


class RecipeFile(Config):
    """One file: the recipes of a paper."""

    schema_: Literal[1] = Field(alias="schema")
    paper: str
    url: str = ""
    read: str = Field("", description="what was read of it, or of re-implementations")
    common: dict[str, Any] = Field({}, description="anchors for the recipes below; nothing reads it")
    recipes: dict[str, Recipe]
    orders: tuple[Order, ...] = ()

    def end(self, name: str) -> tuple[str, Recipe, Target]:
        """The recipe and the target that an end of an order names."""
        recipe, _, target = name.partition("/")
        found = self.recipes[recipe]
        (one,) = (one for one in found.targets if target in ("", one.label))
        return recipe, found, one

    @model_validator(mode="after")
    def _orders(self) -> RecipeFile:
        for order in self.orders:
            try:
                smaller, larger = (self.end(name)[2].value for name in (order.smaller, order.larger))
            except (KeyError, ValueError):
                raise ValueError(f"orders name one target each: {order.smaller}, {order.larger}") from None
            if not smaller < larger:
                raise ValueError(f"published, {order.smaller} is not smaller than {order.larger}")
        return self


@functools.cache
def files() -> dict[str, RecipeFile]:
    """The recipes that ship, by file; names of recipes are unique over all of them."""
    found: dict[str, RecipeFile] = {}
    taken: set[str] = set()
    for path in sorted(FOLDER.glob("*.yaml")):
        made = read_yaml(path, RecipeFile)
        for name, recipe in made.recipes.items():
            if fold(name) in taken:
                raise UsageError(f"{path}: there are two recipes '{name}'.")
            taken.add(fold(name))
            if not recipe.blocked:
                registry().variant(recipe.variant)
                registry().dataset(recipe.dataset)
        found[path.stem] = made
    return found


def recipes() -> dict[str, Recipe]:
    """Every recipe by name."""
    return {name: recipe for made in files().values() for name, recipe in made.recipes.items()}


def recipe_named(name: str) -> tuple[str, Recipe]:
    """The recipe of that name; `UsageError` with the nearest one otherwise."""
    return find("recipe", name, recipes(), "zoo reproduce")


def plan(name: str, recipe: Recipe, seeds: tuple[int, ...] = ()) -> list[Planned]:
    """A cell a seed.

    Raises:
        UsageError: the recipe is blocked; the message says by what.
    """
    if recipe.blocked:
        raise UsageError(f"'{name}' cannot be run: {recipe.blocked.rstrip('.')}.")
    planned = []
    for seed in dict.fromkeys(seeds or recipe.seeds):
        config = recipe.run_config(seed)
        cell = record.cell_of(config, name, recipe.version)
        planned.append(Planned(cell, config, f"zoo reproduce {name} --seed {seed}"))
    return planned


# ---- what records come to ------------------------------------------------------------------------------------------


class Judgement(Config):
    """What became of one target. ``ours`` is in the unit of the target; ``difference`` is ours minus published."""

    word: Word
    ours: Estimate | None = None
    difference: float | None = None
    why: str = ""


def judge(recipe: Recipe, target: Target, records: list[Record]) -> Judgement:
    """The verdict over the recipe's own seeds, and why there is none: until each of them has its number there is what
    they come to so far and what became of the others; seeds that were measured differently come to nothing.

    Reproduced: the mean over seeds lies in the target's band; close: in ``near``; not: anywhere else. Errors are shown
    beside it and do not widen a band: what a band forgives is written in the recipe before anything is run.
    """
    if recipe.blocked:
        return Judgement(word="not run", why=recipe.blocked)
    own = {made.cell.seed: made for made in records if made.cell.seed in recipe.seeds}
    done = [made for made in own.values() if made.status == "done" and target.metric in made.metrics]
    if not own:
        others = ", ".join(sorted({str(made.cell.seed) for made in records}))
        none = f"only of seeds that are not the recipe's ({others})" if others else "no record yet"
        return Judgement(word="not run", why=recipe.needs or none)
    if apart := _incomparable(target.metric, done):
        return Judgement(word="not run", why=f"its seeds differ in {apart}")
    losses = "; ".join(_losses(recipe, target.metric, own))
    if losses and len(recipe.seeds) > 1:
        losses = f"so far {len(done)} of {len(recipe.seeds)} seeds ({losses})"
    if not done:
        return Judgement(word="not run", why=losses)
    ours = scaled(estimate([made.metrics[target.metric] for made in done]), target.factor)
    difference = ours.value - target.value
    word: Word = "not"
    if losses:
        word = "not run"
    elif target.band[0] <= ours.value <= target.band[1]:
        word = "reproduced"
    elif target.near and target.near[0] <= ours.value <= target.near[1]:
        word = "close"
    return Judgement(word=word, ours=ours, difference=difference, why=losses)


def _losses(recipe: Recipe, metric: str, own: Mapping[int, Record]) -> list[str]:
    # What became of each seed that has no number.
    lost = []
    for seed in sorted(own):
        made = own[seed]
        if made.status != "done":
            lost.append(f"seed {seed} {made.status}: {(made.reason or '').rstrip('.')}")
        elif metric not in made.metrics:
            lost.append(f"seed {seed} without {metric}: {made.skipped.get(metric, 'not measured').rstrip('.')}")
    if never := [str(seed) for seed in sorted(set(recipe.seeds) - own.keys())]:
        lost.append(f"seed{'s' * (len(never) > 1)} {', '.join(never)} never run")
    return lost


def _incomparable(metric: str, done: list[Record]) -> str:
    # In what records may not differ that are to come to one number. Seeds may ask for data of their own (which labels
    # are known); the same request is to have given the same data.
    found = [made.metrics[metric] for made in done]
    if len({canonical_json([one.identity, one.n, one.unit]) for one in found}) > 1:
        return f"how {metric} was measured"
    contents: dict[str, set[str]] = {}
    for made in done:
        contents.setdefault(canonical_json(decisive(made.config)["data"]), set()).add(made.data.sha256)
    return "their data" if any(len(some) > 1 for some in contents.values()) else ""


class OrderJudgement(Config):
    """What became of an order. Gaps are the larger one minus the smaller one, ours None where either was not run."""

    word: Literal["holds", "does not hold", "not run"]
    published: float
    ours: float | None = None


def judge_order(made: RecipeFile, order: Order, records: list[Record]) -> OrderJudgement:
    """Whether our numbers, means over all seeds, stand in the published order, far enough apart."""
    ends = [made.end(name) for name in (order.smaller, order.larger)]
    published = ends[1][2].value - ends[0][2].value
    judged = [judge(recipe, target, of_recipe(name, recipe, records)) for name, recipe, target in ends]
    if any(one.word == "not run" for one in judged):
        return OrderJudgement(word="not run", published=published)
    gap = judged[1].ours.value - judged[0].ours.value
    holds = gap > 0 and gap >= order.by
    return OrderJudgement(word="holds" if holds else "does not hold", published=published, ours=gap)


def scaled(one: Estimate, factor: float) -> Estimate:
    """The estimate times a factor, its errors times the factor's size."""
    size = abs(factor)
    stderr = None if one.stderr is None else one.stderr * size
    spread = None if one.spread is None else one.spread * size
    return Estimate(one.value * factor, stderr, one.n, one.seeds, spread)


def of_recipe(name: str, recipe: Recipe, records: list[Record]) -> list[Record]:
    """Those records that are of the recipe as it is now: its name, version and configuration."""
    if recipe.blocked:
        return []
    found = []
    for made in records:
        if (made.cell.suite, made.cell.version) != (name, recipe.version):
            continue
        if made.cell.key == record.cell_key(recipe.run_config(made.cell.seed).identity()):
            found.append(made)
    return found
