"""The cells of a suite on a Ray cluster: each is a task, what it made comes back to the one who asked.

Nothing but the network is shared. A task works in a folder of its own on its node and returns its record as text and
the files beside it as bytes; the driver writes them, as it would have for a cell of its own. The cells of a node that
is lost are run on others, from their start. vae-zoo has to be installed on every node, in the driver's version.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import matrix, per_example, record
from benchmarks.matrix import Places, Planned
from benchmarks.record import Record
from benchmarks.report.wandb import choose_mode
from benchmarks.running import attempts
from zoo.errors import UsageError, ZooError, one_line
from zoo.files import atomic_write

RETRIES = 3
NODE = "node"


@dataclass(frozen=True)
class Cluster:
    """Where Ray is (``auto``: started on this machine or found by its own variables; else host:port) and what a cell
    is given there."""

    address: str = "auto"
    gpus_per_cell: float = 0.0
    cpus_per_cell: float = 1.0
    scratch: str | None = None


def run_all(
    cells: list[Planned],
    places: Places,
    cluster: Cluster,
    device: str = "auto",
    wandb_mode: str = "disabled",
    should_stop: Callable[[], bool] = lambda: False,
    tell: Callable[[Planned, Record | None], None] = lambda planned, made: None,
) -> list[Record]:
    """Every cell that is not done yet and that nobody else on this folder is running; the records as they came.

    Raises:
        UsageError: Ray is not installed, or cannot be reached; or W&B would keep its files on a node, which keeps none.
        Stopped: the user asked for it; tasks that run are given up.
    """
    from zoo.runs.folder import CELL_LOCK, Busy, locked
    from zoo.training.trainer import Stopped

    if choose_mode(wandb_mode) == "offline":
        raise UsageError("on Ray W&B cannot be offline: its files would go with a node's folder; try --wandb disabled.")
    ray = _connect(cluster.address)
    task = ray.remote(
        num_cpus=cluster.cpus_per_cell, num_gpus=cluster.gpus_per_cell, max_retries=RETRIES, max_calls=1
    )(_run_cell)
    with contextlib.ExitStack() as held:
        waiting = {}
        for planned in cells:
            if matrix.done(planned, places):
                continue
            try:
                # The driver holds the cell: whoever else works on this folder leaves it alone.
                held.enter_context(locked(places.run(planned.cell), CELL_LOCK))
            except Busy:
                continue
            if matrix.done(planned, places):
                continue
            reference = task.remote(_plain(planned), device, wandb_mode, cluster.scratch)
            waiting[reference] = planned
            tell(planned, None)
        made = []
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=0.5)
            if should_stop():
                for reference in waiting:
                    ray.cancel(reference, force=True)
                raise Stopped("stopped at the user's request.")
            for reference in ready:
                planned = waiting.pop(reference)
                made.append(_taken(ray, reference, planned, places))
                tell(planned, made[-1])
        return made


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError("--on ray needs Ray: `pip install ray`.") from None
    if not ray.is_initialized():
        try:
            ray.init(address=None if address == "local" else address, log_to_driver=False)
        except ConnectionError as error:
            said = one_line(error)[:150].rstrip(".")
            raise UsageError(f"no Ray cluster at '{address}' ({said}); `ray start --head` starts one.") from None
    return ray


def _plain(planned: Planned) -> str:
    return json.dumps(
        {
            "cell": planned.cell.model_dump(),
            "config": planned.config.model_dump(mode="json"),
            "command": planned.command,
        }
    )


def _run_cell(text: str, device: str, wandb_mode: str, scratch: str | None) -> tuple[str, dict[str, bytes]]:
    """On a node: the cell's record as text, and the files that go with it by their path below the board."""
    import ray

    from benchmarks.running.watch import watching
    from zoo.config import RunConfig
    from zoo.training.precision import choose

    content = json.loads(text)
    config = RunConfig.model_validate(content["config"])
    planned = Planned(record.Cell(**content["cell"]), config, content["command"])
    if scratch:
        Path(scratch).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="vae-zoo-", dir=scratch))
    try:
        (folder / NODE).write_text(ray.get_runtime_context().get_node_id())
        places = Places(folder / "board", folder / "runs")
        observe = watching(wandb_mode, places)
        with contextlib.suppress(matrix.DeviceLost):  # the process ends with the task, and its record is written
            matrix.run_cell(planned, places, choose(device, config.train.precision), observe)
        made = record.read(record.path_of(planned.cell, places.records))
        return record.dump(made), {path: (places.board / path).read_bytes() for path in _files(made, places)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(made: Record, places: Places) -> list[str]:
    kept = _per_example(made, places)
    return [*made.figures.values(), *([kept] if (places.board / kept).exists() else [])]


def _per_example(made: Record, places: Places) -> str:
    return str(per_example.path_of(made.cell, places.records).relative_to(places.board))


def _taken(ray: Any, reference: Any, planned: Planned, places: Places) -> Record:
    try:
        text, files = ray.get(reference)
        made = record.parse(json.loads(text), f"the record of {planned.cell.stem}")
        if made.cell != planned.cell or set(files) - {_per_example(made, places)} != set(made.figures.values()):
            raise ZooError(f"the node of {planned.cell.stem} sent something else.")
        for path, data in files.items():
            atomic_write(places.board / path, data)  # a record's own check: inside the board, whoever sent it
    except (ray.exceptions.RayError, ZooError) as error:
        failed = isinstance(error, ray.exceptions.RayTaskError | ZooError)  # which is not tried again
        why = "its task failed" if failed else f"its node or its process was lost {RETRIES + 1} times"
        # What was raised there, without Ray's account of where.
        said = attempts.publishable([one_line(getattr(error, "cause", None) or error)[:300]])[0]
        made = _lost(planned, f"{why}: {said}")
    record.write(made, places.records)
    return made


def _lost(planned: Planned, reason: str) -> Record:
    from zoo.training.precision import choose

    outcome = {"status": "failed", "reason": reason}
    return matrix.make_record(planned, choose("cpu"), outcome)
