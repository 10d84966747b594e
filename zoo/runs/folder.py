"""The folder of a run: who holds it, what it says of the run, how the run computes.

    run.json            the configuration, the data it saw, the shape of the model
    checkpoints/        while training: the last two states
    model.safetensors   when done: the weights that were kept, with how training went in its header
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from zoo.config import RunConfig, TrainConfig
from zoo.data.images import DataSpec, ImageSet
from zoo.errors import UsageError
from zoo.files import atomic_write
from zoo.models.base import VAE
from zoo.settings import validate
from zoo.training.distributed import ALONE, World
from zoo.training.precision import Compute

log = logging.getLogger(__name__)
MODEL = "model.safetensors"
CELL_LOCK = ".cell-lock"
LOCKS = (".lock", CELL_LOCK)  # of who trains in a folder, and of who makes a record of what is there
EXPORTED = "config.json"  # the description in a folder that `zoo export` wrote
MAX_DESCRIPTION = 1 << 20
MAX_SIZE = 1 << 14
MAX_PIXELS = 1 << 24
MAX_KINDS = 1 << 17  # of classes or of attributes: a folder may have as many as images


def finished(folder: Path) -> bool:
    """Whether a run ended in ``folder``."""
    return (folder / MODEL).exists()


@contextlib.contextmanager
def locked(folder: Path, name: str = ".lock", mend: str = "") -> Iterator[None]:
    """Hold ``folder`` for this process; the system frees the lock of a process that died. A folder that was made for
    it goes again where what was to be done in it is refused (`UsageError`) and has left nothing there.

    ``name`` is the lock's file: who holds one of them does not hold another. ``mend`` is what helps where the folder
    cannot be written.

    Raises:
        UsageError: another process holds it, or it cannot be written.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / name, "w")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({error.strerror}){mend and f': {mend}'}.") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another process is at work in {folder}.") from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): nothing else may be at work in it.", folder, error.strerror)
        if not _is_at(handle, folder / name):  # it was taken away between the two calls, and may be another's again
            raise Busy(f"another process is at work in {folder}.")
        try:
            yield
        except UsageError:
            if made and all(path.name in LOCKS for path in folder.iterdir()):
                for lock in LOCKS:
                    (folder / lock).unlink(missing_ok=True)
                folder.rmdir()
            raise


def _is_at(handle: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except OSError:
        return False


class Busy(UsageError):
    """Another process holds the folder."""


@dataclass(frozen=True)
class Described:
    """What a run folder says of itself: ``classes`` and ``attributes`` are the names of the data's, empty where it has
    none or an older version wrote the folder; ``compute`` is `Compute.decision`, empty where nothing was decided."""

    config: RunConfig
    spec: DataSpec
    data_sha256: str
    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    compute: dict[str, Any] = field(default_factory=dict)


def describe_run(folder: str | Path) -> Described:
    """What is known of a run without its weights or its data.

    Raises:
        UsageError: the folder is not a run.
    """
    folder = Path(folder)
    described = _describe(folder)
    names = described.get("names", {})
    return Described(
        _config(folder, described),
        _spec(folder, described),
        str(described["data_sha256"]),
        tuple(map(str, names.get("classes", ()))),
        tuple(map(str, names.get("attributes", ()))),
        _computes(described),
    )


@contextlib.contextmanager
def claimed(folder: Path, config: RunConfig, spec: DataSpec, images: ImageSet) -> Iterator[None]:
    """Describe the run in its folder, or see that it is this one that is described there; `UsageError` else. A run that
    is refused inside the block before it has a checkpoint is described there no more."""
    described = {
        "schema": 1,
        "config": config.model_dump(mode="json"),
        "spec": dataclasses.asdict(spec),
        "data_sha256": images.sha256,
        "names": {"classes": images.classes, "attributes": images["train"].attribute_names},
    }
    path = folder / "run.json"
    if path.exists():
        there = _describe(folder)
        old = _config(folder, there)
        if old.identity() != config.identity():
            raise UsageError(f"{folder} holds another run ({old.variant}); give another --out or remove it.")
        if there["data_sha256"] != images.sha256:
            raise UsageError(f"{folder} was trained on other data than '{config.data.name}' is now.")
        yield
        return
    if len(json.dumps(described, indent=2)) > MAX_DESCRIPTION // 2:  # names that are too many are asked of the data
        described["names"] = {"classes": (), "attributes": ()}
    atomic_write(path, json.dumps(described, indent=2) + "\n")
    try:
        yield
    except UsageError:
        if not any((folder / "checkpoints").glob("*")):
            path.unlink(missing_ok=True)
        raise


def decided(
    folder: Path, compute: Compute, model: VAE, train: TrainConfig, images: int, world: World = ALONE
) -> Compute:
    """How the run in ``folder`` computes: as it began, also on a machine that would decide otherwise.

    Raises:
        UsageError: it does not say how it began.
    """
    found = compute.for_run(model, train, images)
    any_precision, any_compile = train.precision in ("auto", "fast"), train.compile == "auto"
    if not any_precision and not any_compile:
        return found
    described = _describe(folder) if (folder / "run.json").exists() else {}
    ended = finished(folder)
    if "compute" not in described:
        if world.first and not ended:
            remember(folder, found)
            if compute.fast or found.compiled:
                log.info("this run computes in %s on this machine", found.name)
        return found
    try:
        begun = compute.decided(described["compute"], goes_on=not ended)
    except (KeyError, TypeError):
        raise UsageError(f"{folder / 'run.json'} does not say how the run computes.") from None
    if any_precision:
        found = replace(found, half=begun.half, channels_last=begun.channels_last)
    if any_compile and compute.device.type == "cpu":
        found = replace(found, compiled=begun.compiled)
    return found


def remember(folder: Path, compute: Compute) -> None:
    """Write into the description of the run in ``folder`` how it computes, for `decided`."""
    described = _describe(folder) | {"compute": compute.decision()}
    atomic_write(folder / "run.json", json.dumps(described, indent=2) + "\n")


def _describe(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.exists() and (folder / EXPORTED).exists():
        path = folder / EXPORTED
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_DESCRIPTION + 1)
        if len(text) > MAX_DESCRIPTION:
            raise ValueError
        described = json.loads(text)
        if not {"config", "spec", "data_sha256"} <= described.keys():
            raise ValueError
    except OSError:
        raise UsageError(f"{folder} is not a run: it has no readable run.json.") from None
    except (ValueError, AttributeError, RecursionError):
        raise UsageError(f"{path} is not the description of a run.") from None
    return described


def _config(folder: Path, described: dict[str, Any]) -> RunConfig:
    return validate(RunConfig, described["config"], str(folder / "run.json"))


def _computes(described: dict[str, Any]) -> dict[str, Any]:
    found = described.get("compute")
    return found if isinstance(found, dict) else {}


def _spec(folder: Path, described: dict[str, Any]) -> DataSpec:
    try:
        spec = DataSpec(**described["spec"] | {"shape": tuple(described["spec"]["shape"])})
        sizes, kinds = spec.shape, (spec.classes, spec.attributes)
        # A description comes from anybody: what it asks for is what a network is then built for.
        if len(sizes) != 3 or not all(type(size) is int and 0 <= size <= MAX_SIZE for size in sizes):
            raise ValueError
        if not all(type(number) is int and 0 <= number <= MAX_KINDS for number in kinds):
            raise ValueError
        if math.prod(spec.shape) < 1 or math.prod(spec.shape) > MAX_PIXELS:
            raise ValueError
    except (TypeError, ValueError, KeyError, AttributeError):
        raise UsageError(f"{folder / 'run.json'} does not say what its images are like.") from None
    return spec
