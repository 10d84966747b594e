"""A run on disk: a folder that a configuration was trained into, and how to get a model back from one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo.config import RunConfig, check_model
from zoo.data.batches import Batches
from zoo.data.images import DataSpec, ImageSet
from zoo.errors import UsageError, ZooError
from zoo.files import sweep
from zoo.models import build
from zoo.models.base import VAE
from zoo.nets.backbone import unfetched
from zoo.noise import seed_for
from zoo.registry import registry
from zoo.runs.folder import MODEL, claimed, decided, describe_run, finished, locked, remember
from zoo.runs.images import check_range, compare_labels, condition_of, load_images
from zoo.training import checkpoint
from zoo.training.distributed import ALONE, World
from zoo.training.precision import Compute
from zoo.training.stages import check_recipe
from zoo.training.trainer import Result, Trainer, Watcher


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
    folder: str | Path,
    compute: Compute,
    watchers: tuple[Watcher, ...] = (),
    should_stop: Callable[[], bool] = lambda: False,
    world: World = ALONE,
) -> Run:
    """Train ``config`` into ``folder``, or go on from what is there, or only load what is finished there.

    In a ``world`` of several processes each calls this with the same folder; the first one holds it for all.

    Raises:
        UsageError: the folder holds another run, or another process is training in it; or as `check_recipe`.
        Stopped, Diverged: as `Trainer.fit`.
        ZooError: what is there is damaged.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as held:
        if world.first:
            held.enter_context(locked(folder))
        images = load_images(config)
        spec = images.spec
        model = fresh_model(config, spec)
        if not finished(folder):
            check_recipe(config, model, len(images["train"]))
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
        UsageError: there are no images to train on or to validate with, or a model that is told the classes would be
            shown some whose class is hidden; or as `check_range` or `VAE.companions`.
    """
    for split in ("train", "validation"):
        if not len(images[split]):
            raise UsageError(f"the {split} split of '{config.data.name}' has no image, and training needs some.")
    shown = {split: images[split].labels for split in ("train", "validation", config.evaluate.split)}
    hiding = [split for split, labels in shown.items() if labels is not None and (labels < 0).any()]
    if model.conditional and hiding:
        where = f"and this data hides that of some in its {hiding[0]} split"
        raise UsageError(f"{config.variant} is told the class of each image, {where}.")
    check_range(model, images)
    torch.manual_seed(seed_for(config.seed, "noise"))
    common = dict(
        device=compute.device, condition=condition_of(model, images.spec), rank=world.rank, world=world.size
    )
    train = Batches(
        images["train"],
        batch_size=world.share(config.train.batch_size),
        binarise_on_the_fly=images.binarise == "dynamic",
        shuffle_seed=seed_for(config.seed, "order"),
        partners=model.companions(images["train"]),
        **common,
    )
    validation = Batches(images["validation"], batch_size=config.train.batch_size, drop_last=False, **common)
    return Trainer(model, train, validation, config.train, compute, folder, watchers, should_stop, world)


def write_finished(folder: Path, model: VAE, result: Result) -> None:
    """Leave in ``folder`` what a finished run leaves: the weights that were kept, and no checkpoints."""
    checkpoint.write(folder / MODEL, model.state_dict(), {"result": dataclasses.asdict(result)})
    checkpoint.clear(folder / "checkpoints")


def load_run(folder: str | Path, device: str = "cpu") -> VAE:
    """The trained model of a run folder, in evaluation mode. Nothing is unpickled and no data is loaded.

    Raises:
        UsageError: the folder is not a run, or one of a variant that is not registered here.
        ZooError: the run is not finished, or its files are damaged.
    """
    return _loaded(Path(folder), device)[0]


def exported_run(folder: Path, config: RunConfig, compute: Compute) -> Run:
    """The run of ``config`` with the model that `zoo export` left in ``folder``.

    Raises:
        UsageError: there is the model of another run, or of one on other data.
        ZooError: as `load_run`.
    """
    described = describe_run(folder)
    asked, there = config.identity(), described.config.identity()
    options = asked["data"]["options"]
    # An export does not say where images lie; that they are the same is asked below.
    asked["data"]["options"] = {name: value for name, value in options.items() if name in there["data"]["options"]}
    if asked != there:
        theirs = f"{described.config.variant}, seed {described.config.seed}"
        named = f"{folder} holds another model ({theirs}) than that of {config.variant}, seed {config.seed}"
        raise UsageError(f"{named}: {', '.join(_apart(asked, there))} differ.")
    images = load_images(config)
    if described.data_sha256 != images.sha256:
        raise UsageError(f"{folder} was trained on other data than '{config.data.name}' is now.")
    return finished_run(folder, config, images, compute)


def finished_run(folder: Path, config: RunConfig, images: ImageSet, compute: Compute) -> Run:
    """The trained model of a run folder with images that are to be measured, and a configuration that says how.

    Raises:
        UsageError, ZooError: as `load_run`.
    """
    model, result = _loaded(folder, str(compute.device))
    return Run(config, model, images, compute, result)


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    # The settings in which two identities differ, sorted.
    names: set[str] = set()
    for section, ours in a.items():
        theirs = b[section]
        if isinstance(ours, Mapping):
            names |= {f"{section}.{key}" for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
        elif ours != theirs:
            names.add(section)
    return sorted(names)


def _loaded(folder: Path, device: str) -> tuple[VAE, Result]:
    described = describe_run(folder)
    config, spec = described.config, described.spec
    if config.variant not in registry().variants:
        raise UsageError(f"{folder} is of the variant '{config.variant}': install the package that has it.")
    if not finished(folder):
        raise ZooError(f"{folder} is not finished: the command that started it goes on from where it stopped.")
    with unfetched():
        _check_fit(config, spec, folder / MODEL)
        try:
            model = build_model(config, spec)
        except ZooError:
            raise
        except Exception as error:  # whatever a network says of sizes that nobody has
            said = type(error).__name__
            raise ZooError(f"{folder / 'run.json'} asks for a model that cannot be built ({said}).") from None
    result = _kept(model, folder / MODEL)
    # As it was trained and evaluated, to the bit.
    channels_last = bool(described.compute.get("channels_last"))
    model = Compute(torch.device("cpu"), channels_last=channels_last).place(model)
    return model.to(device).eval(), result


def build_model(config: RunConfig, spec: DataSpec) -> VAE:
    """A fresh model of the configuration for data like ``spec``.

    Raises:
        UsageError: the variant has no such settings.
    """
    check_model(config)
    _, entry = registry().variant(config.variant)
    return build(entry, spec, config.model)


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
