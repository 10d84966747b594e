"""A finished run evaluated again, without training: in another way, on another split, or on other images.

With the settings of the run it gives the numbers of the run, bit for bit on the same machine: posterior noise is a
function of (seed, image), and samples are of the same seed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import environment, evaluated, matrix, per_example, record
from benchmarks.catalogue import DENSITIES, DISTANCES
from benchmarks.evaluate import PICTURES, evaluate
from benchmarks.evaluated import Evaluated
from benchmarks.evaluation.representation import once
from benchmarks.finished import conditions_differ
from benchmarks.record import KEPT
from benchmarks.running import attempts
from zoo.config import DataConfig, RunConfig, measured_otherwise, named_data
from zoo.data.images import DataSpec, ImageSet
from zoo.errors import UsageError, ZooError
from zoo.files import fingerprint, sha256_file, sweep
from zoo.registry import registry
from zoo.runs import Run, finished_run
from zoo.runs.folder import MODEL, Described, describe_run, finished, locked
from zoo.runs.images import check_kind, check_range, condition_of, load_images

FOLDER = "evaluations"
OTHER = "it is of the data that the run was trained on"


@dataclass(frozen=True)
class Asked:
    """``split`` None is the run's own, as is ``data`` None; ``settings`` are texts as `measured_otherwise` has them."""

    folder: Path
    split: str | None = None
    data: str | None = None
    settings: tuple[str, ...] = ()
    out: Path | None = None
    command: str = ""


@dataclass(frozen=True)
class _Subject:
    """What is measured: ``images`` as they are loaded, of which ``run`` has those that can be measured; ``own`` says
    whether it was trained on that set, and ``told`` is what an evaluation says of all that."""

    described: Described
    run: Run
    images: ImageSet
    own: bool
    told: dict[str, Any]

    @property
    def split(self) -> str:
        return self.run.config.evaluate.split


def evaluate_again(
    asked: Asked, device: str = "auto", should_stop: Callable[[], bool] = lambda: False
) -> tuple[Evaluated, Path]:
    """Measure the run and write what came of it, unless that is there; returns it and its file.

    Raises:
        UsageError: there is no finished run in the folder, or it cannot be measured so; or as `locked`.
        Stopped: somebody asked for it; the bounds there are by then are kept for the next call.
        ZooError: a file is damaged, or memory is short.
    """
    matrix.begin()
    subject = _subject(asked, device)
    key = subject.told["key"]
    path = asked.out or asked.folder / FOLDER / f"{subject.split}-{subject.run.config.data.stem}-{key}.json"
    if path.resolve().parent.parent.name == matrix.RECORDS:
        raise UsageError(f"{path.parent} is where a board has its records: give another --out.")
    kept = path.with_name(f".{path.stem}.kept")
    begun = kept.exists()
    mend = "give another --out" if asked.out else "once it is moved away the same command measures again"
    if (made := _there(path, key, mend)) is not None and not begun:
        return made, path
    if asked.out and not begun:
        _check_free(path)
    with locked(kept, mend="give another --out"):
        sweep(path.parent)
        if (made := _there(path, key, mend)) is None:
            found, seconds = _measured(subject.run, asked.folder, kept / KEPT, should_stop)
            made = _evaluated(subject, found, {"command": asked.command, "seconds": seconds})
            per_example.keep(found.per_example, path.with_suffix(".npz"))
            _draw(found.pictures, path)
            evaluated.write(made, path)
        shutil.rmtree(kept, ignore_errors=True)
    return made, path


def _subject(asked: Asked, device: str) -> _Subject:
    from zoo.training.precision import choose

    described = describe_run(asked.folder)
    if not finished(asked.folder):
        said = "the command that started it goes on from where it stopped."
        raise UsageError(f"{asked.folder} is not finished, so that there is no model to evaluate: {said}")
    config = measured_otherwise(described.config, asked.split, _data(asked, described), asked.settings)
    images, own = _images(asked, described, config)
    if not own:
        evaluate = config.evaluate.model_copy(update={"anomaly": (), "ex_post": 0, "ex_post_flow": 0})
        config = config.model_copy(update={"evaluate": evaluate})
    split = config.evaluate.split
    run = finished_run(asked.folder, config, _measurable(images, split), choose(device, "float32"))
    run.compute = replace(run.compute, channels_last=bool(described.compute.get("channels_last")))
    record.check_measures(run.model.measures)
    _check(run, described)
    origin = {
        "variant": config.variant, "seed": config.seed, "data": described.config.data.name,
        "data_sha256": described.data_sha256, "weights_sha256": sha256_file(asked.folder / MODEL),
    }  # fmt: skip
    told = {
        "run": origin, "split": split, "own": own, "bits_seed": images.bits_seed(split),
        "options": config.data.options,
    }  # fmt: skip
    told["key"] = key_of(told, config, images.sha256)
    return _Subject(described, run, images, own, told)


def key_of(told: dict[str, Any], config: RunConfig, sha256: str) -> str:
    """12 hexadecimal digits: what an evaluation by ``config`` is of, the hash of its images, and how it is measured."""
    identity = config.identity()
    identity["evaluate"]["nll_images"] = config.evaluate.nll_images  # as the keys of the first files have it
    return fingerprint([told, identity, sha256])[:12]


def _data(asked: Asked, described: Described) -> DataConfig | None:
    """What is measured on, as a run would have it that was trained like this one; None where nothing is asked for.

    Of another set the options are its own, and its pixels are made bits where the model knows bits alone: as the run's
    were, else as the set is used to. A folder is read in the size that the model knows."""
    own, spec = described.config.data, described.spec
    if asked.data is None:
        if own.name not in registry().datasets:
            there = f"{asked.folder} was trained on '{own.name}', and no data set that is installed has that name"
            raise UsageError(f"{there}: install the package that has it, or give another one by --data.")
        if own.name == "folder" and not own.options.get("root"):
            said = f"{asked.folder} does not say in which folder its images lie"
            raise UsageError(f"{said}: give it as --data folder:PATH.")
        return None
    name, root = named_data(asked.data)
    entry = registry().datasets[name]
    if name == own.name:
        return own.model_copy(update={"options": own.options | root})
    size = {"size": spec.shape[1], "channels": spec.shape[0]} if name == "folder" else {}
    rules = ("none",) if spec.support != "binary" or entry.support == "binary" else (own.binarise, entry.binarise)
    binarise = next((rule for rule in rules if rule != "none"), "none" if len(rules) == 1 else "dynamic")
    found = own.model_copy(update={"name": name, "binarise": binarise, "options": size | root})
    if entry.shape and not any(text.startswith("data.") for text in asked.settings):  # before it is fetched
        check_kind(name, spec, DataSpec(entry.shape, found.support_of(entry.support)))
    return found


def _images(asked: Asked, described: Described, config: RunConfig) -> tuple[ImageSet, bool]:
    """The images that are asked for, and whether they are those of the run, split by split and bit by bit."""
    images, was = load_images(config), described.config.data
    bits = (images.binarise, config.data.test_bits_seed) == (was.binarise, was.test_bits_seed)
    own = bits and images.sha256 == described.data_sha256
    if asked.data is None and not own:
        now = f"{asked.folder} was trained on other data than '{was.name}' is now"
        raise UsageError(f"{now}: --data {was.asked} evaluates it on what is there.")
    if not own and _split_otherwise(was, config.data):
        said = "images that it learnt from would be among those of another split"
        raise UsageError(f"{asked.folder} was trained on this folder with other shares of its images: {said}.")
    return images, own


def _split_otherwise(was: DataConfig, now: DataConfig) -> bool:
    # Of an exported model nobody knows where the folder was.
    roots = [one.options.get("root") for one in (was, now)]
    shares = [[one.options.get(split) for split in ("validation", "test")] for one in (was, now)]
    return all(roots) and len({Path(str(root)).resolve() for root in roots}) == 1 and shares[0] != shares[1]


def _measurable(images: ImageSet, split: str) -> ImageSet:
    # Training sees some images several times where the class of others is hidden, and bits that are new each time.
    if split != "train":
        return images
    splits = {**images.splits, "train": once(images["train"])}
    return replace(images, splits=splits, known_sha256=images.sha256).with_training_bits()


def _check(run: Run, described: Described) -> None:
    """Raise `UsageError` where the model cannot take the images, or a condition would mean something else to it."""
    model, images, split = run.model, run.images, run.config.evaluate.split
    name = run.config.data.name
    check_kind(name, described.spec, images.spec)
    if not len(images[split]):
        raise UsageError(f"the {split} split of '{name}' has no image to evaluate on.")
    check_range(model, images)
    if condition_of(model, described.spec) == "none":
        return
    if conditions_differ(described, images):
        ours = described.config.data.name
        said = f"{run.config.variant} is told the class or the attributes that images of '{ours}' have"
        raise UsageError(f"{said}, and those of '{name}' have others.")
    labels = images[split].labels
    if model.conditional and labels is not None and (labels < 0).any():
        said = f"{run.config.variant} is told the class of each image"
        raise UsageError(f"{said}, and '{name}' hides that of some in its {split} split.")


def _there(path: Path, key: str, mend: str) -> Evaluated | None:
    """The evaluation in ``path`` if it is this one; `UsageError` where the file is anything else, with what helps."""
    if not os.path.lexists(path):
        return None
    try:
        made = evaluated.read(path)
    except ZooError as error:
        raise UsageError(f"{str(error).rstrip('.')}, and is not written over: {mend}.") from None
    if made.key != key:
        raise UsageError(f"{path} holds another evaluation (`{made.command}`): {mend}.")
    return made


def _check_free(path: Path) -> None:
    """Raise `UsageError` where what is written beside ``path`` would take the place of a file."""
    for beside in (path.with_suffix(".npz"), *(_picture(path, name) for name in PICTURES)):
        if os.path.lexists(beside):
            raise UsageError(f"{beside} is there, is not of {path.name}, and is not written over: give another --out.")


def _measured(run: Run, folder: Path, kept: Path, should_stop: Callable[[], bool]) -> tuple[Any, float]:
    """The `benchmarks.evaluate.Evaluation`, and what it took; with fewer rows at once where memory is short."""
    from benchmarks.partial import keeping

    for config in (run.config, attempts.smaller(run.config)):
        run.config = config
        try:
            with keeping(run, folder, kept) as partial:
                return evaluate(run, should_stop, partial), partial.seconds
        except Exception as error:
            if not attempts.is_about_memory(error):
                raise
        attempts.free_memory()
    raise ZooError("out of memory, in parts too: evaluate.rows or evaluate.quality_samples has to be smaller.")


def _evaluated(subject: _Subject, found: Any, how: dict[str, Any]) -> Evaluated:
    run, own, config = subject.run, subject.own, subject.run.config
    of: dict[str, Any] = {}
    if not own:
        of, bits = {"data": config.data.name, "data_sha256": subject.images.sha256[:12]}, subject.told["bits_seed"]
        of |= {} if bits is None else {"bits_seed": bits}
    densities = [name + density for name in DISTANCES for density in DENSITIES]
    left_out = {} if own else dict.fromkeys(("auroc", *densities), OTHER)
    as_trained = subject.described.config.model_dump(mode="json")
    content = subject.told | matrix.described(replace(run, images=subject.images)) | how
    content |= {
        "kind": evaluated.KIND,
        "config": as_trained | {"evaluate": config.evaluate.model_dump(mode="json")},
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "images": len(run.images[subject.split]),
        "metrics": {name: one | {"identity": one["identity"] | of} for name, one in found.metrics.items()},
        "skipped": found.skipped | left_out,
        "rates": found.rates,
        "environment": environment.describe(run.compute, config),
    }
    return evaluated.parse(content, f"what is measured of {config.variant}")


def _draw(pictures: dict[str, Any], path: Path) -> None:
    from benchmarks.report.figures import grid

    for name, images in pictures.items():
        grid(images, _picture(path, name), columns=8)


def _picture(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}-{name}.png")
