"""Options that several commands have."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from zoo.errors import UsageError
from zoo.files import check_writable

# Characters of what somebody's code raised that a terminal is shown.
LONGEST = 2000
SEEDS = 10_000  # that one command may ask for
WANDB = click.Choice(["auto", "online", "offline", "disabled"])


class Whole(click.IntRange):
    """A whole number in a range."""

    name = "whole number"


as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
wandb = click.option(
    "--wandb", "wandb_mode", type=WANDB, default="auto", show_default=True,
    help="Whether Weights & Biases watches; auto: as $WANDB_MODE says, else online where a key is configured.",
)  # fmt: skip
seed = click.option(
    "--seed", default=0, show_default=True, type=Whole(0), help="Of all random numbers: the same seed, the same result."
)
seeds = click.option("--seed", "chosen", multiple=True, type=Whole(0), help="This seed; can be repeated.")
so_many_seeds = click.option("--seeds", type=Whole(1, SEEDS), help="Seeds 0 to N-1 instead of the suite's.")
sweep = click.option(
    "--sweep", "sweeps", multiple=True, metavar="[VARIANT:]PATH=A,B",
    help="One setting with several values, a cell each, such as beta=1,2,4,8; repeated: one a VARIANT.",
)  # fmt: skip


class Place(click.Path):
    """A path, with the ``checks`` of `click.Path`; an empty text is none, though pathlib takes it for this folder."""

    def __init__(self, **checks: Any) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Path:
        if value == "":
            self.fail("an empty text is no path.", param, context)
        return super().convert(value, param, context)


class Folder(Place):
    """A path that is a folder, or can be made one."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Path:
        path = super().convert(value, param, context)
        for part in (path, *path.parents):
            if os.path.lexists(part) and not os.path.isdir(part):
                self.fail(f"{path} cannot be written: {part} is no folder.", param, context)
        return path

    def check_writable(
        self, path: Path, folder: Path, param: click.Parameter | None, context: click.Context | None
    ) -> None:
        """Refuse ``path`` where nothing can be written in ``folder`` (`zoo.files.check_writable`)."""
        try:
            check_writable(path, folder)
        except UsageError as error:
            self.fail(str(error), param, context)


class Made(Folder):
    """A folder that is written into, there or not."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Path:
        path = super().convert(value, param, context)
        self.check_writable(path, path, param, context)
        return path


class Written(Folder):
    """The path of a file that can be written, of the kind that its ``ending`` says; of any without one."""

    ending = ""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Path:
        path = Place.convert(self, value, param, context)
        if self.ending and (path.suffix.lower() != self.ending or os.path.isdir(path)):
            kind = self.ending[1:].upper()
            self.fail(f"{path} is no {kind}: give a name that ends in {self.ending}.", param, context)
        super().convert(path.parent, param, context)
        self.check_writable(path, path.parent, param, context)
        return path


class Picture(Written):
    """The path of a PNG that can be written."""

    ending = ".png"


class Json(Written):
    """The path of a JSON file that can be written."""

    ending = ".json"


class Npz(Written):
    """The path of an npz that can be written."""

    ending = ".npz"


class Finite(click.FloatRange):
    """A number from 0 that is finite."""

    name = "number"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        number = super().convert(value, param, context)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, context)
        return number


runs = click.option(
    "--runs", type=Folder(), default=Path("runs"), show_default=True, help="Folder of the trained models."
)


def board(what: str = "Folder of records, pictures and the board.") -> Callable:
    """``--board``; ``what`` says what the command has there."""
    return click.option("--board", type=Folder(), default=Path("leaderboard"), show_default=True, help=what)


def given(context: click.Context) -> str:
    """What a command that is printed needs besides to go where this one would: `runs`, `board`, `device` and `wandb`
    where they are not the usual ones, with a space in front."""
    words = []
    for option in context.command.params:
        value = context.params[option.name]
        if option.name in ("runs", "board", "device", "wandb_mode") and value != option.default:
            words += [option.opts[0], str(value)]
    return f" {shlex.join(words)}" if words else ""


def names(given: tuple[str, ...], option: str) -> tuple[str, ...]:
    """The names of an option that is comma-separated or repeated; `UsageError` where it is given and names nothing. A
    comma with a backslash before it is one of a folder's name."""
    parts = (part for text in given for part in re.split(r"(?<!\\),", text))
    found = tuple(name.replace("\\,", ",") for name in parts if name)
    if given and not found:
        raise UsageError(f"{option} names nothing.")
    return found


def swept(given: tuple[str, ...]) -> dict[str | None, tuple[str, ...]]:
    """The values of each ``--sweep`` by the variant that it names, None for one that names none: ``k=1,5`` is ``k=1``
    and ``k=5``.

    Raises:
        UsageError: one reads otherwise, a value is given twice, or a variant has two sweeps.
    """
    from zoo.registry import registry

    found: dict[str | None, tuple[str, ...]] = {}
    for text in given:
        named, colon, _ = text.partition("=")[0].rpartition(":")
        variant = registry().variant(named.strip())[0] if colon else None
        if variant in found:
            whose = f"{variant} has" if variant else "all variants have"
            raise UsageError(f"{whose} two sweeps, and one is of one setting: give one --sweep of each.")
        found[variant] = _values(text[len(named) + len(colon) :])
    return found


def _values(text: str) -> tuple[str, ...]:
    path, equals, values = text.partition("=")
    parts = [part.strip() for part in values.split(",")]
    if not equals or not path.strip() or not all(parts) or any(mark in values for mark in "[]{}"):
        raise UsageError(f"a sweep reads path=value,value, such as beta=1,2,4,8, not '{text}'.")
    if len(set(parts)) < len(parts):
        raise UsageError(f"a sweep has each value once, and '{text}' has one twice.")
    return tuple(f"{path.strip()}={part}" for part in parts)
