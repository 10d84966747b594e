"""A choice as a file: what `zoo choose --out` writes, and `zoo compare` reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.choosing.candidates import Sweep
from benchmarks.choosing.choice import Choice
from benchmarks.record import Record, content_of, path_of, pretty
from benchmarks.report.compare import Estimate
from zoo.errors import UsageError, ZooError
from zoo.files import atomic_write

KIND = "choice"


def content(choices: Sequence[Choice], by: str, command: str) -> dict[str, Any]:
    """What was chosen as plain values: the file that ``--out`` writes."""
    return {"kind": KIND, "schema": 1, "by": by, "command": command, "choices": [_plain(one) for one in choices]}


def _plain(one: Choice) -> dict[str, Any]:
    chosen = one.chosen
    return {
        "suite": one.group, "dataset": one.dataset, "variant": one.variant, "metric": one.column.metric,
        "unit": one.column.unit, "better": one.column.better, "identity": dict(one.column.identity),
        "images": one.images, "tried": len(one.values),
        "values": [
            {
                "setting": value.setting, "verdict": value.verdict, "seeds": value.asked,
                "validation": _estimate(value.validation), "lost": [_lost(made) for made in value.lost],
                "evaluations": [str(path) for path in value.files],
            }
            for value in one.values
        ],
        "chosen": None if chosen is None else chosen.setting,
        "test": None if chosen is None else _estimate(chosen.test),
        "records": [] if chosen is None else [record_name(made) for made in chosen.records],
        "chosen_on_test": one.on_test and {"setting": one.on_test.setting, "test": _estimate(one.on_test.test)},
    }  # fmt: skip


def _estimate(one: Estimate | None) -> dict[str, Any] | None:
    return one and {
        "value": one.value, "stderr": one.stderr, "n": one.n, "seeds": one.seeds, "spread": one.spread,
        "runs": list(one.runs),
    }  # fmt: skip


def _lost(made: Record) -> dict[str, Any]:
    return {"seed": made.cell.seed, "status": made.status, "reason": made.reason}


def check_free(path: Path, asked: Any = None) -> None:
    """Raise `UsageError` where ``path`` holds anything but a choice, or a choice among others than are ``asked`` for
    (`among`), which `write` would refuse."""
    if os.path.lexists(path) and _asked(read(path)) != asked and asked is not None:
        raise _other(path)


def among(by: str, sweeps: Sequence[Sweep]) -> Any:
    """What a choice by a metric is among, before it is made; as `_asked` of its file."""
    return by, [
        (
            one.cells[0].cell.group, one.dataset, one.variant,
            [(setting, len(planned)) for setting, planned in one.values.items()],
        )
        for one in sweeps
    ]  # fmt: skip


def _other(path: Path) -> UsageError:
    return UsageError(f"{path} holds another choice, and is not written over: give another --out.")


def write(found: Mapping[str, Any], path: Path) -> None:
    """Write what was chosen, whole or not at all. A file that holds the same stays, whatever the command was; one of
    the same choice that lacked runs which were lost is written anew; `UsageError` where it holds another choice, which
    is not written over."""
    text = pretty(found) + "\n"
    now, before = json.loads(text), read(path) if os.path.lexists(path) else None
    if before is not None and before | {"command": ""} == now | {"command": ""}:
        return
    if before is not None and not (_lacks_runs(before) and _asked(before) == _asked(now)):
        raise _other(path)
    atomic_write(path, text)


def _asked(found: Mapping[str, Any]) -> Any:
    # What a choice is among, whatever came of it; None of a file that somebody changed.
    try:
        return found["by"], [
            (one["suite"], one["dataset"], one["variant"], [(each["setting"], each["seeds"]) for each in one["values"]])
            for one in found["choices"]
        ]
    except (KeyError, TypeError):
        return None


def _lacks_runs(found: Mapping[str, Any]) -> bool:
    return _asked(found) is not None and any(value.get("lost") for one in found["choices"] for value in one["values"])


def read(path: Path) -> dict[str, Any]:
    """The choice in a file of at most 5 MB; `UsageError` where it holds anything else."""
    try:
        found = content_of(path, KIND)
    except ZooError as error:
        raise UsageError(f"{str(error).rstrip('.')}.") from None
    if not isinstance(found, dict) or (found.get("kind"), found.get("schema")) != (KIND, 1):
        raise UsageError(f"{path} is not what `zoo choose --out` writes.")
    return found


def record_name(made: Record) -> str:
    """Where a record lies below the folder of records, as the file of a choice names it."""
    return path_of(made.cell, "").as_posix()


def chosen_in(path: Path) -> set[str]:
    """The records of the cells that were chosen, as they lie below the folder of records."""
    choices = read(path).get("choices")
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise UsageError(f"{path} is not what `zoo choose --out` writes.")
    names = [one.get("records") for one in choices]
    if not all(isinstance(some, list) for some in names):
        raise UsageError(f"{path} is not what `zoo choose --out` writes.")
    return {str(name) for some in names for name in some}
