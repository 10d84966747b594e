"""A suite as cells: which there are, which are missing, and running one after the other until each has a record."""

from __future__ import annotations

import contextlib
import importlib
import json
import shlex
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks import environment, record
from benchmarks.record import KEPT, Cell, Record
from benchmarks.running import attempts
from benchmarks.suite import Suite, Sweeps, check_sweeps, suites, swept
from zoo.config import RunConfig
from zoo.errors import UsageError, ZooError, ended, one_line
from zoo.files import one_at_a_time, sweep, write_if_changed
from zoo.registry import registry

LOG_LINES = 20
RECORDS = "records"  # in the folder of a board
# What an evaluation imports where it needs it.
EVALUATION = (
    *("per_example", "partial", "evaluation.ex_post", "evaluation.quality", "report.figures", "digits.train"),
    *("metrics.aggregate", "metrics.clusters", "metrics.codes", "metrics.disentanglement"),
    *("metrics.extractors", "metrics.probes", "metrics.projections", "metrics.quality", "metrics.reconstruction"),
)


@dataclass(frozen=True)
class Planned:
    """One cell that a suite asks for."""

    cell: Cell
    config: RunConfig
    command: str


@dataclass(frozen=True)
class Places:
    """Where things go: ``board`` holds records/, assets/ and the generated board; ``runs`` the trained models."""

    board: Path
    runs: Path

    @property
    def records(self) -> Path:
        return self.board / RECORDS

    @property
    def page(self) -> Path:
        return self.board / "README.md"

    def run(self, cell: Cell) -> Path:
        return self.runs / cell.group / cell.stem


def plan(
    suite: Suite,
    variants: tuple[str, ...] = (),
    datasets: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (),
    sweeps: Sweeps = MappingProxyType({}),
) -> list[Planned]:
    """The cells of a suite, seeds outermost, so that a matrix that is cut short has every variant once.

    ``variants`` (any registered, not only the suite's), ``datasets``, ``seeds`` and ``sweeps`` replace the suite's own.

    Raises:
        UsageError: two of them are the same cell: they differ in nothing that decides a number; or ``sweeps`` has
            values of a variant that is not among those that are run.
    """
    planned: dict[Cell, Planned] = {}
    check_sweeps(sweeps, variants or suite.variants)
    for seed in dict.fromkeys(seeds or suite.seeds):
        for dataset in datasets or suite.datasets:
            for variant in variants or suite.variants:
                for setting in swept(variant, sweeps, suite.sweeps):
                    config = suite.config(variant, dataset, seed, (setting,) if setting else ())
                    words = ["zoo", "bench", suite.asked, "--variants", config.variant]
                    words += ["--datasets", config.data.asked.replace(",", "\\,"), "--seed", str(seed)]
                    words += ["--sweep", setting] if setting else []
                    cell = record.cell_of(config, suite.name, suite.version)
                    command = shlex.join(words)
                    if cell in planned:
                        before = planned[cell].command
                        raise UsageError(f"`{command}` is the same cell as `{before}`: ask for it once.")
                    planned[cell] = Planned(cell, config, command)
    return [*planned.values()]


def begin() -> None:
    """Note the commit and the files of the code and import what an evaluation needs, so that a training of hours is
    evaluated by the code that it was started with."""
    environment.at_start()
    environment.sources()
    for name in EVALUATION:
        importlib.import_module(f"benchmarks.{name}")


def recorded(planned: Planned, places: Places) -> Record | None:
    """The record of a cell, however it ended, or None. A file that is no JSON is none: the cell runs again.

    Raises:
        ZooError: it is of a newer version, or otherwise more than this one can tell: training would overwrite it.
        OSError: it cannot be read.
    """
    path = record.path_of(planned.cell, places.records)
    if not path.exists():
        return None
    try:
        return record.read(path)
    except ZooError:
        try:
            json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return None
        raise


def done(planned: Planned, places: Places) -> Record | None:
    """The record of a cell that is finished, or None: a failed one is tried again."""
    found = recorded(planned, places)
    return found if found and found.status == "done" else None


def over(planned: Planned, places: Places) -> bool:
    """Whether a cell is `done`. What it kept of its evaluation goes then, if whoever wrote the record was killed before
    that."""
    if done(planned, places) is None:
        return False
    clear(places.run(planned.cell))
    return True


def clear(folder: Path) -> None:
    """Remove what is kept of the evaluation of a run that has its record, unless another process is at work there."""
    if not (folder / KEPT).exists():
        return
    from benchmarks.partial import forget
    from zoo.runs.folder import CELL_LOCK, locked

    with contextlib.suppress(UsageError), locked(folder, CELL_LOCK):
        forget(folder)


def compute_of(device: str, cells: Iterable[Planned], auto: str = "auto") -> Callable[[Planned], Any]:
    """What gives each of ``cells`` its device and number format; `UsageError` at once where one cannot have its own.
    ``auto`` is the format of those that ask for ``auto``."""
    from zoo.training.precision import choose

    asked = {planned.config.train.precision for planned in cells}
    chosen = {precision: choose(device, auto if precision == "auto" else precision) for precision in asked}
    return lambda planned: chosen[planned.config.train.precision]


def run_cell(
    planned: Planned,
    places: Places,
    compute: Any,
    observe: Callable[[Planned], Any] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    tell: Callable[[Planned, Record | None], None] = lambda planned, made: None,
    harness: str | None = None,
) -> Record:
    """Train, evaluate and record one cell. A cell that fails is recorded as failed or diverged; nothing is raised
    but `zoo.training.trainer.Stopped`, `zoo.runs.folder.Busy`, `DeviceLost` once the record is written, and what the
    system says of a disk that cannot be written.

    ``harness`` names the call of the command that this belongs to, whichever process it is: a cell that failed in it
    is not tried by it again."""
    from benchmarks.partial import forget
    from zoo.runs.folder import CELL_LOCK, locked

    folder = places.run(planned.cell)
    with locked(folder, CELL_LOCK):
        if finished := done(planned, places):
            forget(folder)
            return finished
        for place in (folder, places.records / planned.cell.group, places.board / "assets" / planned.cell.group):
            sweep(place)
        tried = recorded(planned, places)
        attempt = attempts.begin(folder, harness or uuid.uuid4().hex, tried.when if tried else "")
        if attempt is None:
            return tried
        tell(planned, None)
        if attempt.number > attempts.DEATHS:
            reason = f"the process that ran it died {attempts.DEATHS} times."
            outcome = {"status": "failed", "reason": reason, "log_tail": _last_seen(folder)}
            lost = False
        else:

            def finish(content: dict[str, Any], found: Any) -> None:
                from benchmarks import per_example

                started = time.monotonic()
                content["figures"] = draw(planned, found.pictures, places)
                per_example.write(found.per_example, planned.cell, places.records)
                content["seconds"]["figures"] = time.monotonic() - started

            config = attempts.smaller(planned.config) if attempt.short_of_memory else planned.config
            try:
                outcome, lost = outcome_of(planned, config, folder, compute, observe, should_stop, finish)
            except Exception:
                attempts.take_back(folder, attempt)
                raise
        made = make_record(planned, compute, outcome)
        attempts.end(folder, attempt, made.when)
        record.write(made, places.records)  # whoever is killed before it comes back and sweeps
        forget(folder)
    if lost:
        raise DeviceLost(f"the GPU is of no use to this process after {planned.cell.stem} failed.")
    return made


class DeviceLost(ZooError):
    """A cell failed, is recorded as failed, and left a GPU that only another process can use."""


def outcome_of(
    planned: Planned,
    config: RunConfig,
    folder: Path,
    compute: Any,
    observe: Callable[[Planned], Any] | None,
    should_stop: Callable[[], bool],
    finish: Callable[[dict[str, Any], Any], None],
    world: Any = None,
    raising: tuple[type[Exception], ...] = (),
) -> tuple[dict[str, Any], bool]:
    """How a cell ended, as the parts of a record, and whether its device is lost. Where memory was short it is tried
    once more in smaller parts. Where ``config`` has those parts for the sake of memory, and the variant's batch cannot
    be divided, it is tried whole. A training of several processes is not tried again, what comes after it is.

    Raises `Stopped`, `zoo.runs.folder.Busy`, whatever ``raising`` names, and OSError where the disk is full or cannot
    be written: that is no failure of the cell, and every other cell would meet it too."""
    from zoo import runs
    from zoo.runs.folder import Busy
    from zoo.training.stepper import Indivisible
    from zoo.training.trainer import Diverged, Stopped

    begin()
    short = ""
    tries = [config, attempts.smaller(config)]
    while tries:
        chosen = tries.pop(0)
        observer = observe(planned) if observe else None
        try:
            content, found = measure(chosen, folder, compute, observer, should_stop, world)
            finish(content, found)
            content["seconds"]["total"] = sum(value for value in content["seconds"].values() if value)
            # A number that a record refuses (NaN) is a failure of the cell too, so the record is made in here.
            make_record(planned, compute, {"status": "done"} | content)
            return {"status": "done", "config": chosen.model_dump(mode="json")} | content, False
        except (Stopped, Busy):
            raise
        except Diverged as error:
            return {"status": "diverged", "reason": str(error)}, False
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit):
                error = ended(error)
            if attempts.is_about_disk(error):
                raise
            if isinstance(error, raising) and not short:
                raise error
            asked = planned.config.train.micro_batch
            if isinstance(error, Indivisible) and chosen.train.micro_batch != asked and not short:
                whole = attempts.with_parts(chosen, asked)
                tries = [whole, attempts.smaller(whole)]
                continue
            said = one_line(str(error) or type(error).__name__)[:500]
            # The other processes are in the middle of a step, and would take a new beginning's numbers for gradients.
            again = world is None or world.size == 1 or runs.finished(folder)
            if attempts.is_about_memory(error) and not short and again:
                # Only what it says: the error itself holds on to everything that was in memory.
                short = f"out of memory ({said[:200]})"
                continue
            if short:
                said = f"{short}, and in parts of {chosen.train.micro_batch}: {said}"
            tail = attempts.publishable(traceback.format_exc().splitlines()[-LOG_LINES:])
            outcome = {"status": "failed", "reason": attempts.publishable([said])[0], "log_tail": tail}
            return outcome, attempts.breaks_device(error)
        finally:
            if observer:
                observer.close()
            if short:
                attempts.free_memory()
    raise AssertionError("the second try returns")


def measure(
    config: RunConfig,
    folder: Path,
    compute: Any,
    observer: Any = None,
    should_stop: Callable[[], bool] = lambda: False,
    world: Any = None,
) -> tuple[dict[str, Any], Any]:
    """Train (or take up, or load) the run in ``folder`` and evaluate it: the parts of a record that come of it, and
    the `benchmarks.evaluate.Evaluation`. In a ``world`` of several processes all train and the first one evaluates;
    the others get nothing and None."""
    from benchmarks.evaluate import evaluate
    from benchmarks.partial import keeping
    from zoo.runs import train_run
    from zoo.runs.images import load_images
    from zoo.training.distributed import ALONE

    started = time.monotonic()
    record.check_measures(registry().variant(config.variant)[1].load().measures)
    environment.sources(config)  # as they are now, before a training of hours
    images = load_images(config)
    if not len(images[config.evaluate.split]):
        raise UsageError(f"the {config.evaluate.split} split of '{config.data.name}' has no image to evaluate on.")
    set_up = time.monotonic()
    watchers = (observer,) if observer else ()
    run = train_run(config, folder, compute, watchers, should_stop, world or ALONE)
    if world is not None and not world.first:
        return {}, None
    with keeping(run, folder) as partial:
        found = evaluate(run, should_stop, partial)
        seconds = partial.seconds
    result = asdict(run.result)
    curves, training = result.pop("curves"), result.pop("seconds")
    content = described(run) | {
        "metrics": found.metrics,
        "skipped": found.skipped,
        "rates": found.rates,
        "train": result,
        # Of all sessions, so that a resumed run is not a faster one.
        "seconds": {"setup": set_up - started, "train": training, "evaluate": seconds},
        "curves": curves,
    }
    if run.compute != compute:  # what `fast` came to for this model
        content["environment"] = environment.describe(run.compute, config)
    if observer:
        observer.finish(found, content)
    return content, found


def described(run: Any) -> dict[str, Any]:
    """The parts of a record that say what was learnt from, and what learnt."""
    images, kind = run.images, type(run.model)
    return {
        "data": {
            "name": run.config.data.name,
            "sha256": images.sha256,
            "binarise": images.binarise,
            "test_bits_seed": images.test_bits_seed,
            "support": images.spec.support,
            "n": images.sizes,
        },
        "model": {
            "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "conditional": run.model.conditional or run.model.completes,
        },
    }


def make_record(planned: Planned, compute: Any, outcome: dict[str, Any]) -> Record:
    """The record of an outcome (the parts of the schema that `measure` gives, or a status with its reason)."""
    return record.parse(
        {
            "schema": record.SCHEMA,
            "cell": planned.cell.model_dump(),
            "command": planned.command,
            "config": planned.config.model_dump(mode="json"),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment.describe(compute, planned.config),
        }
        | outcome,
        f"the record of {planned.cell.stem}",
    )


def run_all(
    cells: list[Planned],
    places: Places,
    compute: Callable[[Planned], Any],
    observe: Callable[[Planned], Any] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    tell: Callable[[Planned, Record | None], None] = lambda planned, made: None,
    harness: str | None = None,
) -> list[Record]:
    """Every cell that is not done yet, one after the other, on the device that ``compute`` gives it (`compute_of`); a
    cell that another process runs is left to it."""
    from zoo.runs.folder import Busy
    from zoo.training.trainer import Stopped

    harness = harness or uuid.uuid4().hex
    made = []
    for planned in cells:
        if over(planned, places):
            continue
        if should_stop():
            raise Stopped("stopped at the user's request, between two cells.")
        try:
            made.append(run_cell(planned, places, compute(planned), observe, should_stop, tell, harness))
        except Busy:
            continue
        tell(planned, made[-1])
    return made


def write_board(places: Places) -> Path:
    """leaderboard/README.md and index.html from every record there is; returns the path of the first."""
    from benchmarks.report.html.page import page
    from benchmarks.report.markdown import board

    entries = {name: entry.model_dump() for name, entry in registry().variants.items()}
    known = {suite.group: suite for suite in suites().values()}
    with one_at_a_time(places.board):  # or the page of fewer records is written over that of all
        for place in (places.board, *(path for path in places.records.glob("*") if path.is_dir())):
            sweep(place)
        records = record.read_all(places.records)
        texts = {
            "README.md": board(records, entries),
            "index.html": page(records, entries, places.board, known, registry().datasets),
        }
        for name, text in texts.items():
            write_if_changed(places.board / name, text)
    return places.page


@contextlib.contextmanager
def then(write: Callable[[], Any], places: Places) -> Iterator[None]:
    """Run the block, then ``write`` the page; also where the block fails or is stopped, as it may have made records."""
    try:
        yield
    except BaseException:
        if places.records.exists():
            with contextlib.suppress(Exception):  # what ended the block is what is said
                write()
        raise
    write()


def draw(planned: Planned, pictures: dict[str, Any], places: Places) -> dict[str, str]:
    """Write the pictures of a cell, uint8 (N, C, H, W) each by name: where they are below ``places.board``, or nothing
    where they are of private data and lie in the run's folder."""
    from benchmarks.report.figures import grid

    cell, named = planned.cell, {}
    private = registry().private(planned.config.data.name)
    for name, images in pictures.items():
        if private:
            grid(images, places.run(cell) / f"{name}.png", columns=8)
            continue
        relative = f"assets/{cell.group}/{cell.stem}-{name}.png"
        grid(images, places.board / relative, columns=8)
        named[name] = relative
    return named


def _last_seen(folder: Path) -> list[str]:
    there = sorted(path.stem for path in (folder / "checkpoints").glob("step-*.safetensors"))
    return [f"its last checkpoint: {there[-1]}" if there else "it had no checkpoint yet"]
