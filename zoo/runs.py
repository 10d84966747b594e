"""A run on disk: a folder that a configuration was trained into, and how to get a model back from one.

    run.json            the configuration, the data it saw, the shape of the model
    checkpoints/        while training: the last two states
    model.safetensors   when done: the weights that were kept, with how training went in its header
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import inspect
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import torch

from zoo.config import EXCLUDE, HELD_OUT, DataConfig, RunConfig, TrainConfig
from zoo.data.batches import Batches
from zoo.data.classes import only_class, without_class
from zoo.data.images import DataSpec, Images, ImageSet
from zoo.errors import UsageError, ZooError
from zoo.files import atomic_write, canonical_json, sweep
from zoo.models import build
from zoo.models.base import VAE
from zoo.registry import registry
from zoo.settings import validate
from zoo.training import checkpoint
from zoo.training.distributed import ALONE, World
from zoo.training.precision import Compute
from zoo.training.stages import check_stages
from zoo.training.trainer import Result, Trainer, Watcher

log = logging.getLogger(__name__)
MODEL = "model.safetensors"
CELL_LOCK = ".cell-lock"
LOCKS = (".lock", CELL_LOCK)  # of who trains in a folder, and of who makes a record of what is there
EXPORTED = "config.json"  # the description in a folder that `zoo export` wrote
MAX_DESCRIPTION = 1 << 20
MAX_SIZE = 1 << 14
MAX_PIXELS = 1 << 24


@dataclass
class Run:
    """A trained model with what it was trained on."""

    config: RunConfig
    model: VAE
    images: ImageSet
    compute: Compute
    result: Result


def train_run(
    config: RunConfig,
    folder: Path,
    compute: Compute,
    watchers: tuple[Watcher, ...] = (),
    should_stop: Callable[[], bool] = lambda: False,
    world: World = ALONE,
) -> Run:
    """Train ``config`` into ``folder``, or go on from what is there, or only load what is finished there.

    In a ``world`` of several processes each calls this with the same folder; the first one holds it for all.

    Raises:
        UsageError: the folder holds another run, or another process is training in it; or as `check_stages`.
        Stopped, Diverged: as `Trainer.fit`.
        ZooError: what is there is damaged.
    """
    with contextlib.ExitStack() as held:
        if world.first:
            held.enter_context(locked(folder))
        images = load_images(config)
        spec = images.spec
        model = fresh_model(config, spec)
        if not finished(folder):
            check_stages(config, model, len(images["train"]))
            if world.first:
                compare_labels(config, model, images)
        if world.first:
            sweep(folder)
            sweep(folder / "checkpoints")
            held.enter_context(claimed(folder, config, spec, images))
        compute = decided(folder, compute, model, config.train, len(images["train"]), world)
        model = compute.place(model)
        if finished(folder):
            kept = _kept(model, folder / MODEL)
            checkpoint.clear(folder / "checkpoints")  # by whoever was killed before it came to that
            return Run(config, model.eval(), images, compute, kept)
        rest = (folder / "checkpoints", watchers, should_stop, world)
        trainer = make_trainer(config, model, images, compute, *rest)
        result = trainer.fit()
        if world.first:
            if trainer.compute != compute:  # it could not be compiled
                remember(folder, trainer.compute)
            write_finished(folder, model, result)
        return Run(config, model, images, trainer.compute, result)


def compare_labels(config: RunConfig, model: VAE, images: ImageSet) -> None:
    """Warn where a supervised model is told another share of labelled examples than it will be shown."""
    told, labels = getattr(model.settings, "labelled", None), images["train"].labels
    if not model.supervised or told is None or labels is None:
        return
    # Where so many are shown their label they come again with it: what has none is every image once.
    again = config.data.options.get("labelled") is not None
    once = int((labels < 0).sum()) if again else len(labels)
    shown = (config.data.options["labelled"] if again else int((labels >= 0).sum())) / max(once, 1)
    if not math.isclose(told, shown, rel_tol=0.1):
        said = "labelled=%g is the share of training images that show their label, and in this data that share is %.2g"
        log.warning(said, told, shown)


def fresh_model(config: RunConfig, spec: DataSpec) -> VAE:
    """The model that a run of this configuration and seed starts from."""
    torch.manual_seed(seed_for(config.seed, "initialisation"))
    return build_model(config, spec)


def make_trainer(
    config: RunConfig,
    model: VAE,
    images: ImageSet,
    compute: Compute,
    folder: Path | None = None,
    watchers: tuple[Watcher, ...] = (),
    should_stop: Callable[[], bool] = lambda: False,
    world: World = ALONE,
) -> Trainer:
    """The trainer of a run, and the random generator where its training starts.

    Raises:
        UsageError: a model that is told the classes would be shown images whose class is hidden.
    """
    shown = {split: images[split].labels for split in ("train", "validation", config.evaluate.split)}
    hiding = [split for split, labels in shown.items() if labels is not None and (labels < 0).any()]
    if model.conditional and hiding:
        where = f"and this data hides that of some in its {hiding[0]} split"
        raise UsageError(f"{config.variant} is told the class of each image, {where}.")
    torch.manual_seed(seed_for(config.seed, "noise"))
    common = dict(
        device=compute.device, condition=condition_of(model, images.spec), rank=world.rank, world=world.size
    )
    train = Batches(
        images["train"],
        batch_size=world.share(config.train.batch_size),
        binarise_on_the_fly=images.binarise == "dynamic",
        shuffle_seed=seed_for(config.seed, "order"),
        **common,
    )
    validation = Batches(images["validation"], batch_size=config.train.batch_size, drop_last=False, **common)
    return Trainer(model, train, validation, config.train, compute, folder, watchers, should_stop, world)


def write_finished(folder: Path, model: VAE, result: Result) -> None:
    """Leave in ``folder`` what a finished run leaves: the weights that were kept, and no checkpoints."""
    checkpoint.write(folder / MODEL, model.state_dict(), {"result": dataclasses.asdict(result)})
    checkpoint.clear(folder / "checkpoints")


def finished(folder: Path) -> bool:
    """Whether a run ended in ``folder``."""
    return (folder / MODEL).exists()


def load_run(folder: str | Path, device: str = "cpu") -> VAE:
    """The trained model of a run folder, in evaluation mode. Nothing is unpickled and no data is loaded.

    Raises:
        UsageError: the folder is not a run, or one of a variant that is not registered here.
        ZooError: the run is not finished, or its files are damaged.
    """
    folder = Path(folder)
    described = _describe(folder)
    config = _config(folder, described)
    if config.variant not in registry().variants:
        raise UsageError(f"{folder} is of the variant '{config.variant}': install the package that has it.")
    spec = _spec(folder, described)
    if not finished(folder):
        raise ZooError(f"{folder} is not finished: the command that started it goes on from where it stopped.")
    config = config.model_copy(update={"model": _without_downloads(config.model)})
    _check_fit(config, spec, folder / MODEL)
    try:
        model = build_model(config, spec)
    except ZooError:
        raise
    except Exception as error:  # whatever a network says of sizes that nobody has
        said = type(error).__name__
        raise ZooError(f"{folder / 'run.json'} asks for a model that cannot be built ({said}).") from None
    _kept(model, folder / MODEL)
    # As it was trained and evaluated, to the bit.
    channels_last = bool(_computes(described).get("channels_last"))
    model = Compute(torch.device("cpu"), channels_last=channels_last).place(model)
    return model.to(device).eval()


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


def build_model(config: RunConfig, spec: DataSpec) -> VAE:
    """A fresh model of the configuration for data like ``spec``."""
    _, entry = registry().variant(config.variant)
    return build(entry, spec, config.model)


def load_images(config: RunConfig) -> ImageSet:
    """The configuration's data set, binarised as it says; kept in memory for the next run of this process, which does
    not look again at files of one's own: what a run trains on and what it is measured on are the same."""
    return _images(
        config.data.name, config.data.binarise, config.data.test_bits_seed, canonical_json(config.data.options)
    )


def load_grey(config: RunConfig) -> ImageSet:
    """The configuration's data set before binarisation: what samples, which are means, are compared with."""
    return _loaded(config.data.name, canonical_json(config.data.options))


def load_outliers(config: RunConfig, name: str) -> tuple[str, Images]:
    """The outliers ``name`` of `EvaluateConfig.anomaly`, and what to call them: the evaluated split of another set, or
    of the class that ``data.options.exclude_class`` holds out, binarised as the run's own.

    Raises:
        UsageError: they are not of the kind that the model knows (another shape or support).
    """
    options = dict(config.data.options)
    if name == HELD_OUT:
        number = options.pop(EXCLUDE)
        data = config.data.model_copy(update={"options": options})
    else:
        data = DataConfig(name=name, binarise=config.data.binarise, test_bits_seed=config.data.test_bits_seed)
    images = load_images(config.model_copy(update={"data": data}))
    ours = load_images(config).spec
    for what, here, there in (("shape", ours.shape, images.spec.shape), ("support", ours.support, images.spec.support)):
        if here != there:
            raise UsageError(f"images of '{name}' have the {what} {there}, and those of the run {here}.")
    shown = images[config.evaluate.split]
    return (f"class_{number}", only_class(shown, number)) if name == HELD_OUT else (name, shown)


def condition_of(model: VAE, spec: DataSpec) -> str:
    """What `Batches` should give as y."""
    if not model.conditional and not (model.supervised and spec.classes):
        return "none"
    return "class" if spec.classes else "attributes"


def seed_for(seed: int, purpose: str) -> int:
    """A seed of its own for each use of randomness, so that no two streams are the same."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:8], "big") >> 1


@contextlib.contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold ``folder`` for this process; the system frees the lock of a process that died. A folder that was made for
    it goes again where what was to be done in it is refused (`UsageError`) and has left nothing there.

    ``name`` is the lock's file: who holds one of them does not hold another.

    Raises:
        UsageError: another process holds it, or it cannot be written.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / name, "w")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({error.strerror}).") from None
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


@functools.lru_cache(maxsize=2)
def _images(name: str, binarise: Any, test_bits_seed: int, options: str) -> ImageSet:
    return _loaded(name, options).prepare(binarise, test_bits_seed)


@functools.lru_cache(maxsize=2)
def _loaded(name: str, options: str) -> ImageSet:
    _, entry = registry().dataset(name)
    given = json.loads(options)
    loader = entry.load()
    known = set(inspect.signature(loader).parameters)
    excluded = None if EXCLUDE in known else given.pop(EXCLUDE, None)
    if unknown := given.keys() - known:
        raise UsageError(f"data set '{name}' has no option {', '.join(sorted(unknown))}.")
    try:
        images = loader(**entry.options | given)
    except (TypeError, ValueError) as error:
        if not given:
            raise
        said = f"{canonical_json(given)}: {' '.join(str(error).split()).rstrip('.')}"
        raise UsageError(f"data set '{name}' cannot be made with the options {said}.") from None
    if not isinstance(images, ImageSet):
        kind = type(images).__name__
        raise UsageError(f"'{entry.target}' returns a {kind}, and a data set is a zoo.data.images.ImageSet.")
    images.check_pixels()
    return images if excluded is None else without_class(images, excluded)


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
        sizes = (*spec.shape, spec.classes, spec.attributes)
        # A description comes from anybody: what it asks for is what a network is then built for.
        if len(spec.shape) != 3 or not all(type(size) is int and 0 <= size <= MAX_SIZE for size in sizes):
            raise ValueError
        if math.prod(spec.shape) < 1 or math.prod(spec.shape) > MAX_PIXELS:
            raise ValueError
        if spec.support not in ("binary", "8-bit", "real"):
            raise ValueError
    except (TypeError, ValueError, KeyError, AttributeError):
        raise UsageError(f"{folder / 'run.json'} does not say what its images are like.") from None
    return spec


def _without_downloads(settings: Any) -> Any:
    # The weights come from the run: nothing that it names is fetched.
    if not isinstance(settings, dict):
        return settings
    return {name: False if name == "pretrained" else _without_downloads(value) for name, value in settings.items()}


def _check_fit(config: RunConfig, spec: DataSpec, path: Path) -> None:
    """Refuse a description that asks for other weights than the file holds, before memory is taken for them."""
    shapes = checkpoint.shapes(path)
    try:
        with torch.device("meta"):
            asked = {name: tuple(value.shape) for name, value in build_model(config, spec).state_dict().items()}
    except ZooError:
        raise
    except MemoryError:
        asked = {}
    except Exception:
        # Not everything can be built without memory; what is too large for its own cannot be stored either.
        return
    if asked != shapes:
        raise ZooError(f"{path} does not hold the weights of its configuration.")


def _kept(model: VAE, path: Path) -> Result:
    """Load the weights that a finished run kept; returns what it says of its training."""
    tensors, state = checkpoint.read(path)
    try:
        model.load_state_dict(tensors)
        return Result(**state["result"])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError):
        raise ZooError(f"{path} does not hold the weights of its configuration.") from None
