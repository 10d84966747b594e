"""The errors a user meets: one sentence, what is wrong, the nearest right name, the command that lists the rest."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class ZooError(Exception):
    """Something could not be done; the message is one sentence for a person (exit code 1)."""


class UsageError(ZooError):
    """The request itself was wrong: a bad name, setting or file (exit code 2)."""


def ended(error: SystemExit) -> UsageError:
    """The error for a `sys.exit` in somebody's module, which would end the harness too: with the last line outside of
    the standard library, as it may be `argparse` that exits."""
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in sys.stdlib_module_names
    ]
    file, line = frames[-1]
    return UsageError(f"{file}, line {line}: a module may not end the program, as sys.exit({error.code!r}) does.")


def one_line(error: object) -> str:
    """What an error, or anything else, says, in one line."""
    return " ".join(str(error).split())


def fold(name: str) -> str:
    """A name as it is compared: dashes are underscores, case does not matter."""
    return name.replace("-", "_").lower()


def find(kind: str, name: str, entries: Mapping[str, T], listing: str) -> tuple[str, T]:
    """The name as it is written in ``entries`` and what it stands for; raises `unknown` if it is not there."""
    for known, entry in entries.items():
        if fold(known) == fold(name):
            return known, entry
    raise unknown(kind, name, entries, listing)


def unknown(kind: str, name: str, names: Iterable[str], listing: str) -> UsageError:
    """The error for a name that is not in ``names``, with the nearest one if there is any.

    Example: ``no variant 'beta-vea'. Did you mean 'beta_vae'? `zoo list` shows all.``
    """
    by_fold = {fold(known): known for known in names}
    near = difflib.get_close_matches(fold(name), by_fold, n=1, cutoff=0.5)
    hint = f" Did you mean '{by_fold[near[0]]}'?" if near else ""
    return UsageError(f"no {kind} '{name}'.{hint} `{listing}` shows all.")
