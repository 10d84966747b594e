"""All properties of the contract on one variant: what holds, what does not, and what to do about it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.check import bound, gradients, repeatable, shapes
from benchmarks.check.subject import DIGITS, Subject
from benchmarks.check.verdict import Inapplicable, Wrong
from zoo.errors import UsageError

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
        gradients.half_precision,
        repeatable.evaluation_mode,
        repeatable.deterministic,
        repeatable.noise_of_the_image,
        shapes.condition,
        repeatable.batches,
        repeatable.loss_is_a_mean,
        repeatable.saved,
        bound.no_training_weight,
        bound.one_bound,
        bound.more_samples_tighten,
        bound.below_the_evidence,
        bound.it_learns,
    )
}


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

    A model that cannot even be made and asked for its terms ends the examination with that finding.
    """
    started = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(0)
            x, y = subject.batch(4)
            subject.make(DIGITS).eval().terms(x, y)
        except Exception as error:
            what = f"it cannot be made and asked for terms(x): {said(error)}"
            seconds = time.monotonic() - started
            yield Finding("works", "It can be made and asked for terms.", "wrong", what, _mend(error), seconds)
            return
        for name in wanted or PROPERTIES:
            yield _finding(subject, name, PROPERTIES[name])


def _finding(subject: Subject, name: str, test: Property) -> Finding:
    title = (test.__doc__ or name).strip().splitlines()[0]
    started = time.monotonic()
    torch.manual_seed(0)
    try:
        test(subject)
        outcome: tuple[str, ...] = ("holds",)
    except Wrong as wrong:
        outcome = ("wrong", wrong.what, wrong.mend)
    except Inapplicable as reason:
        outcome = ("inapplicable", str(reason))
    except Exception as error:
        outcome = ("wrong", f"it raises {said(error)}", _mend(error))
    return Finding(name, title, *outcome, seconds=time.monotonic() - started)


def said(error: Exception) -> str:
    """An exception in one line: its type, its message, and the last line of the variant's own side that met it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "torch" not in Path(frame.filename).parts and "check" not in frame.filename]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300].rstrip('.')}{where}"


def _mend(error: Exception) -> str:
    if isinstance(error, UsageError):
        return "change the settings in its registry entry"
    if isinstance(error, NotImplementedError):
        return "implement all of terms, log_weights, represent, reconstruct and sample, or subclass a variant that does"
    return "the line named is where to look"
