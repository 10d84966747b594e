"""The images of a run: loaded once, prepared as its configuration says, with what its model is told of them."""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from zoo.config import EXCLUDE, HELD_OUT, DataConfig, RunConfig
from zoo.data.classes import only_class, without_class
from zoo.data.images import SPLITS, DataSpec, Images, ImageSet
from zoo.errors import UsageError, one_line
from zoo.files import canonical_json
from zoo.models.base import VAE
from zoo.registry import registry
from zoo.settings import Config, setting_error

log = logging.getLogger(__name__)


def load_images(config: RunConfig) -> ImageSet:
    """The configuration's data set, prepared as it says; kept in memory for the next run of this process, which does
    not look again at files of one's own: what a run trains on and what it is measured on are the same."""
    data = config.data
    return _images(data.name, data.binarise, data.test_bits_seed, data.dequantise, canonical_json(data.options))


def load_grey(config: RunConfig) -> ImageSet:
    """The configuration's data set as it was loaded: what samples, which are means, are compared with."""
    return _loaded(config.data.name, canonical_json(config.data.options))


def load_outliers(config: RunConfig, name: str) -> tuple[str, Images]:
    """The outliers ``name`` of `EvaluateConfig.anomaly`, and what to call them: the evaluated split of another set, or
    of the class that ``data.options.exclude_class`` holds out, prepared as the run's own but with other bits, or other
    noise on bytes: the numbers after those of the run's splits are the seeds.

    Raises:
        UsageError: they are not of the kind that the model knows (another shape or support).
    """
    options, other = dict(config.data.options), {"test_bits_seed": config.data.test_bits_seed + len(SPLITS)}
    if name == HELD_OUT:
        number = options.pop(EXCLUDE)
        data = config.data.model_copy(update={"options": options} | other)
    else:
        data = DataConfig(name=name, **config.data.preparation).model_copy(update=other)
    images = load_images(config.model_copy(update={"data": data}))
    check_kind(name, load_images(config).spec, images.spec)
    shown = images[config.evaluate.split]
    return (f"class_{number}", only_class(shown, number)) if name == HELD_OUT else (name, shown)


def check_kind(name: str, ours: DataSpec, theirs: DataSpec) -> None:
    """Raise `UsageError` where images of the set ``name`` are of another kind than those that a run knows."""
    for what, here, there in (("shape", ours.shape, theirs.shape), ("support", ours.support, theirs.support)):
        if here != there:
            raise UsageError(f"images of '{name}' have the {what} {there}, and those of the run {here}.")


def condition_of(model: VAE, spec: DataSpec) -> str:
    """What `Batches` should give as y."""
    if not model.conditional and not (model.supervised and spec.classes):
        return "none"
    return "class" if spec.classes else "attributes"


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


def check_range(model: VAE, images: ImageSet) -> None:
    """Raise `UsageError` where real data leaves [0, 1] and the likelihood is a density there alone."""
    kind = getattr(model, "likelihood", None)
    if images.spec.support != "real" or not getattr(kind, "bounded", False):
        return
    for split, part in images.splits.items():
        pixels = part.pixels.split(8192)
        outside = sum(int(((some < 0) | (some > 1)).flatten(1).any(1).sum()) for some in pixels)
        if outside:
            raise UsageError(
                f"{kind.name} is a density on [0, 1] alone, and {outside:,} of the {len(part):,} images of the {split} "
                f"split of '{images.name}' have pixels outside: likelihood.name=gaussian, laplace, log_cosh or "
                "student_t takes any."
            )


@functools.lru_cache(maxsize=2)
def _images(name: str, binarise: Any, test_bits_seed: int, dequantise: Any, options: str) -> ImageSet:
    return _loaded(name, options).prepare(binarise, test_bits_seed, dequantise)


@functools.lru_cache(maxsize=2)
def _loaded(name: str, options: str) -> ImageSet:
    _, entry = registry().dataset(name)
    given = json.loads(options)
    loader = entry.load()
    known = list(inspect.signature(loader).parameters)
    excluded = None if EXCLUDE in known else given.pop(EXCLUDE, None)
    if unknown := sorted(given.keys() - {*known}):
        known += [EXCLUDE] if entry.classes and EXCLUDE not in known else []
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        listed = f"Known here: {', '.join(known)}." if known else "It has none."
        raise UsageError(f"data set '{name}' has no option '{unknown[0]}'.{hint} {listed}")
    _check_types(loader, given)
    try:
        images = loader(**entry.options | given)
    except (TypeError, ValueError) as error:
        if not given:
            raise
        said = f"{canonical_json(given)}: {one_line(error).rstrip('.')}"
        raise UsageError(f"data set '{name}' cannot be made with the options {said}.") from None
    if not isinstance(images, ImageSet):
        kind = type(images).__name__
        raise UsageError(f"'{entry.target}' returns a {kind}, and a data set is a zoo.data.images.ImageSet.")
    images.check_pixels()
    return images if excluded is None else without_class(images, excluded)


def _check_types(loader: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise `UsageError` where an option is of another type than its loading function names."""
    try:
        hints = get_type_hints(loader)
    except (NameError, TypeError, AttributeError):  # of somebody's function: it may name what it does not import
        return
    for option in [name for name in given if name in hints]:
        try:
            TypeAdapter(hints[option]).validate_python(given[option])
        except ValidationError as error:
            raise setting_error(error, Config, f"data.options.{option}") from None
        except PydanticUserError:  # a type that says nothing of what may be given
            continue
