"""Training the cells of a suite that differ only in the seed, or in the weight of the rate, at once, before the suite
runs cell by cell.

They are trained as one stack, or on a stream each where they cannot be stacked or that is slower (`zoo.runs.together`).
Either leaves finished runs in the cells' folders, and each cell then evaluates and records its own. A few steps of each
way are timed first, and cells are left to run one by one where that is faster. On a GPU only: on a CPU the seeds are
processes, a core each (`benchmarks.running.workers`), which stacking does not beat.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.matrix import DeviceLost, Places, Planned, begin, done
from benchmarks.running import attempts
from zoo.errors import UsageError, one_line
from zoo.files import canonical_json

WORTH = 1.1
STACK, STREAMS = "as one stack", "on a stream each"


def groups(cells: Sequence[Planned], places: Places) -> list[list[Planned]]:
    """The cells that nobody has begun, in lots of two or more that differ in the seed and what may be swept alone."""
    from zoo.runs.folder import finished
    from zoo.training.replicas import common

    lots: dict[str, list[Planned]] = {}
    for planned in cells:
        folder = places.run(planned.cell)
        begun = finished(folder) or any((folder / "checkpoints").glob("*"))
        if not begun and not done(planned, places):
            lots.setdefault(canonical_json(common(planned.config)), []).append(planned)
    return [lot for lot in lots.values() if len(lot) > 1]


def train_ahead(
    cells: Sequence[Planned],
    places: Places,
    compute: Callable[[Planned], Any],
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
    stacked: Callable[..., float] | None = None,
    beside: Callable[..., float] | None = None,
) -> None:
    """Train each of `groups` in the way that wins, and say of each which that is.

    ``compute`` is as for `benchmarks.matrix.run_all`; the cells of a lot have the same number format.
    ``stacked`` and ``beside`` stand for `zoo.runs.together.gain` and `gain_beside` in tests. Whatever fails here is
    said and left to the cells, which run alone.

    Raises:
        Stopped: ``should_stop`` said so.
        DeviceLost: what failed left a GPU that only another process can use.
        OSError: the disk is full or cannot be written.
    """
    from zoo.runs import together
    from zoo.runs.folder import Busy

    begin()
    measures = {STACK: stacked or together.gain, STREAMS: beside or together.gain_beside}
    for lot in groups(cells, places):
        own = compute(lot[0])
        name = f"{lot[0].config.variant} on {lot[0].config.data.name}: {len(lot)} runs"
        lost = f"the GPU is of no use to this process after {name} failed."
        with left_to_cells(lambda why, name=name: say(f"{name} one by one; together {why}"), lost):
            with contextlib.suppress(Busy):
                _train(lot, places, own, should_stop, lambda said, name=name: say(f"{name} {said}"), measures)
        # Outside of the block: the error itself holds on to everything that was in memory.
        attempts.free_memory()


def _train(
    lot: Sequence[Planned],
    places: Places,
    compute: Any,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
    measures: Mapping[str, Callable[..., float]],
) -> None:
    from zoo.runs import together
    from zoo.training.capture import CannotCapture

    configs, folders = [planned.config for planned in lot], [places.run(planned.cell) for planned in lot]
    gains: dict[str, float] = {}
    reasons = []
    for way, measure in measures.items():
        try:
            gains[way] = measure(configs, compute)
        except UsageError as error:
            reasons.append(str(error))
        except Exception as error:
            another_may = gains or way != STREAMS
            if not another_may or not (isinstance(error, CannotCapture) or attempts.is_about_memory(error)):
                raise
            reasons.append(f"{way} {why_not(error)}")
        attempts.free_memory()  # or what was measured lies beside what is trained, until garbage is collected
    reason = "".join(f" ({text.rstrip('.')})" for text in reasons)
    if not gains:
        say(f"one by one{reason}")
        return
    way, times = max(gains.items(), key=lambda found: found[1])
    if times < WORTH:
        say(f"one by one; {way} they would train {times:.2f} times as fast{reason}")
        return
    say(f"at once, {way} {times:.1f} times as fast as one by one{reason}")
    if way == STACK:
        together.train_together(configs, folders, compute, should_stop)
    else:
        together.train_beside(configs, folders, [compute] * len(lot), should_stop)


@contextlib.contextmanager
def left_to_cells(say: Callable[[str], None], lost: str) -> Iterator[None]:
    """Say what fails inside the block, as the end of a sentence, and go on: the cells run one by one.

    Raises:
        Stopped, OSError: as the block, where the disk is full or cannot be written.
        DeviceLost: what failed left a GPU that only another process can use; ``lost`` says so.
    """
    from zoo.training.trainer import Stopped

    try:
        yield
    except Stopped:
        raise
    except (Exception, SystemExit) as error:  # of somebody's module, which is said of its cell
        if attempts.is_about_disk(error):
            raise
        say(why_not(error))
        if attempts.breaks_device(error):
            raise DeviceLost(lost) from None


def why_not(error: BaseException) -> str:
    """What became of runs that were trained together, as the end of a sentence."""
    from zoo.training.capture import CannotCapture

    if attempts.is_about_memory(error):
        return "they do not fit into memory"
    said = one_line(str(error) or type(error).__name__)[:200]
    return f"their steps cannot be captured: {said}" if isinstance(error, CannotCapture) else f"they failed: {said}"
