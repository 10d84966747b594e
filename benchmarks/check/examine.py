"""All properties of the contract on one variant: what holds, what does not, and what to do about it."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.check import bound, gradients, repeatable, shapes
from benchmarks.check.subject import DIGITS, Subject
from benchmarks.check.verdict import NOT_FINITE, Inapplicable, Wrong
from zoo.errors import UsageError, ended, one_line
from zoo.training.trainer import Diverged

Property = Callable[[Subject], None]

#: in the order of a report: what others rest on comes first
PROPERTIES: dict[str, Property] = {
    test.__name__: test
    for test in (
        shapes.shapes,
        bound.sum_over_pixels,
        bound.per_image,
        bound.rate_not_negative,
        shapes.pictures_in_range,
        gradients.groups_share_out,
        gradients.losses_reach_their_groups,
        gradients.weights_weigh,
        gradients.half_precision,
        repeatable.evaluation_mode,
        repeatable.deterministic,
        repeatable.noise_of_the_image,
        shapes.condition,
        repeatable.batches,
        repeatable.loss_is_a_mean,
        repeatable.noise_of_each,
        repeatable.saved,
        bound.no_training_weight,
        bound.one_bound,
        bound.more_samples_tighten,
        bound.below_the_evidence,
        bound.reconstructs,
        bound.it_learns,
    )
}

#: those that ask the same question twice with the same noise
KEYED = ("condition", "batches", "loss_is_a_mean", "saved", "no_training_weight")


@dataclass(frozen=True)
class Finding:
    """How one property ended: ``what`` is a sentence when it is wrong, a reason when it does not apply."""

    property: str
    title: str
    status: Literal["holds", "wrong", "inapplicable"]
    what: str = ""
    mend: str = ""
    seconds: float = 0.0


def examine(subject: Subject, wanted: tuple[str, ...] = ()) -> Iterator[Finding]:
    """Test the properties one after the other (those ``wanted``, or all).

    A model that cannot be made, asked for its terms and trained for a few steps ends the examination with that
    finding: everything else would only say so again.
    """
    with torch.random.fork_rng(devices=[]):
        first = _finding(subject, "works", works)
        if first.status == "wrong":
            yield first
            return
        # What an answer is shaped like explains more than where training stumbles over it.
        shaped = _finding(subject, "shapes", shapes.shapes) if not wanted or "shapes" in wanted else None
        if shaped:
            yield shaped
        first = _finding(subject, "trains", trains)
        if first.status == "wrong":
            if not shaped or shaped.status == "holds":
                yield first
            return
        random = False
        for name in wanted or PROPERTIES:
            if name == "shapes":
                continue
            if random and name in KEYED:
                title = _title(PROPERTIES[name])
                yield Finding(name, title, "inapplicable", "it cannot be told while evaluation is random")
                continue
            found = _finding(subject, name, PROPERTIES[name])
            random = random or (found.status == "wrong" and name in ("evaluation_mode", "noise_of_the_image"))
            yield found


def works(subject: Subject) -> None:
    """It can be made and asked for its terms."""
    torch.manual_seed(0)
    subject.make(DIGITS).eval().terms(*subject.batch(4))


def trains(subject: Subject) -> None:
    """A few steps of training go through."""
    try:
        subject.known()
    except Exception as error:
        try:
            # What losses() returns explains more than where training stumbles over it.
            gradients.are_losses(subject.make(), *subject.shown(32))
        except Wrong:
            raise
        except Exception:
            pass
        raise error


def _finding(subject: Subject, name: str, test: Property) -> Finding:
    title = _title(test)
    started = time.monotonic()
    torch.manual_seed(0)
    try:
        test(subject)
        outcome: tuple[str, ...] = ("holds",)
    except Wrong as wrong:
        outcome = ("wrong", wrong.what, wrong.mend)
    except Inapplicable as reason:
        outcome = ("inapplicable", str(reason))
    except SystemExit as error:
        outcome = ("wrong", str(ended(error)).rstrip("."), "raise an exception instead: its message is what is said")
    except UsageError as error:
        outcome = ("wrong", str(error).rstrip("."), _mend(error))
    except Exception as error:
        outcome = ("wrong", f"it raises {said(error, subject)}", _mend(error))
    return Finding(name, title, *outcome, seconds=time.monotonic() - started)


def _title(test: Property) -> str:
    return (test.__doc__ or test.__name__).strip().splitlines()[0]


def said(error: Exception, subject: Subject) -> str:
    """An exception in one line: its type, its message, and the last line of the variant's own file that met it (or of
    whatever is not torch's)."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".py")]
    outside = [frame for frame in frames if not {"torch", "check"} & set(Path(frame.filename).parts)]
    met = [frame for frame in frames if frame.filename == _file(subject)] or outside
    where = f" ({Path(met[-1].filename).name}, line {met[-1].lineno})" if met else ""
    if isinstance(error, SyntaxError):  # which says where it is, and was met by whoever imports
        where = ""
    return f"{type(error).__name__}: {one_line(error)[:300].rstrip('.')}{where}"


def _file(subject: Subject) -> str | None:
    module = sys.modules.get(subject.entry.target.partition(":")[0])
    return getattr(module, "__file__", None)


def _mend(error: Exception) -> str:
    if isinstance(error, UsageError):
        return "change its registry entry, the defaults of its Settings, or the entry point of its package"
    if isinstance(error, Diverged):
        return NOT_FINITE
    if isinstance(error, NotImplementedError):
        return "implement all of terms, log_weights, represent, reconstruct and sample, or subclass a variant that does"
    return "the line named is where to look"
