"""Before the cells of a suite run one by one: those that differ in nothing but the seed are trained at once.

A stacked training (`zoo.together`) leaves finished runs in the cells' folders, and each cell then evaluates and
records its own. Only where that is faster, from a few steps of both ways at the start, and only on a GPU: on a CPU the
seeds are processes, a core each (`benchmarks.workers`), which stacking does not beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.matrix import Places, Planned, done
from zoo.errors import UsageError
from zoo.files import canonical_json

WORTH = 1.1


def groups(cells: Sequence[Planned], places: Places) -> list[list[Planned]]:
    """The cells that nobody has begun, in lots of two or more that differ in the seed alone."""
    from zoo.runs import finished

    lots: dict[str, list[Planned]] = {}
    for planned in cells:
        folder = places.run(planned.cell)
        begun = finished(folder) or any((folder / "checkpoints").glob("*"))
        if not begun and not done(planned, places):
            key = planned.config.model_copy(update={"seed": 0}).identity()
            lots.setdefault(canonical_json(key), []).append(planned)
    return [lot for lot in lots.values() if len(lot) > 1]


def train_ahead(
    cells: Sequence[Planned],
    places: Places,
    compute: Any,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
    gain: Callable[..., float] | None = None,
) -> None:
    """Train each of `groups` as one stack where that wins, and say of each how it is trained.

    ``gain`` stands for `zoo.together.gain` in tests. Whatever fails here is left to the cells, which run alone.
    """
    import torch

    from zoo import together
    from zoo.runs import Busy

    for lot in groups(cells, places):
        name = f"{lot[0].config.variant} on {lot[0].config.data.name}"
        configs = [planned.config for planned in lot]
        try:
            times = (gain or together.gain)(configs, compute)
            if times < WORTH:
                say(f"{name}: {len(lot)} seeds one by one; at once they would train {times:.2f} times as fast")
                continue
            say(f"{name}: {len(lot)} seeds at once, {times:.1f} times as fast as one by one")
            together.train_together(configs, [places.run(planned.cell) for planned in lot], compute, should_stop)
        except Busy:
            continue
        except UsageError as error:
            say(f"{name}: {len(lot)} seeds one by one. {error}")
        except torch.OutOfMemoryError:
            say(f"{name}: {len(lot)} seeds one by one; together they do not fit into memory")
            torch.cuda.empty_cache()
