"""The variants, one flat file each; `base.py` is the contract."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from zoo.errors import UsageError
from zoo.registry import VariantEntry, registry
from zoo.settings import check_whole, does_nothing, merge, setting_error

if TYPE_CHECKING:
    from zoo.data.images import DataSpec
    from zoo.models.base import VAE, Settings


def create_model(name: str, *, data: str | DataSpec = "mnist", **settings: Any) -> VAE:
    """A freshly initialised variant.

    Args:
        name: as in `list_models()`; a dash works for an underscore.
        data: what the images are like: the name of a registered data set (which is not loaded), or a `DataSpec`,
            as for a folder of images.
        settings: settings of the variant over its defaults in the registry; nested ones as dictionaries, for
            example ``encoder={"timm": "resnet18"}``.

    Raises:
        UsageError: an unknown name or setting, or a value of the wrong kind.
    """
    _, entry = registry().variant(name)
    if isinstance(data, str) and data.partition(":")[0] == "folder":
        raise UsageError(
            "the images of a folder are of the size that they are read in: in place of its name give what they are "
            "like, such as zoo.data.images.DataSpec((3, 64, 64), '8-bit')."
        )
    spec = data_spec(data) if isinstance(data, str) else data
    return build(entry, spec, merge(entry.settings, settings))


def build(entry: VariantEntry, spec: DataSpec, settings: Mapping[str, Any]) -> VAE:
    """The variant of ``entry`` for data like ``spec``; ``settings`` are complete but for the class's own defaults."""
    return entry.load()(spec, settings_of(entry, settings))


def check_settings(
    name: str, settings: Mapping[str, Any], elsewhere: Callable[[str], str | None] | None = None
) -> None:
    """Raise `UsageError` where the registered variant has no such settings; nothing is built. A class that is itself at
    fault, such as one that cannot be loaded, is left to whoever builds it. ``elsewhere`` is that of `setting_error`."""
    entry = registry().variant(name)[1]
    try:
        entry.load()
    except (Exception, SystemExit):
        return
    settings_of(entry, settings, elsewhere)


def canonical(name: str, settings: Mapping[str, Any], entry: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``settings`` of the registered variant, each as its class reads it: 4.0 of an integer is 4, and 4 of a float 4.0,
    so that what makes the same model has the same identity. One that equals that of ``entry`` is written as there. None
    where the variant's entry says nothing and the default is None is left out. What is wrong with them is left to
    `check_settings`."""
    kind = registry().variant(name)[1]
    try:
        made = settings_of(kind, settings)
    except (Exception, SystemExit):
        return dict(settings)
    for path in _nones(settings, kind.settings):
        fewer = _without(settings, path)
        with contextlib.suppress(UsageError):  # it has no default
            settings = fewer if settings_of(kind, fewer) == made else settings
    return _as_read(settings, made.model_dump(mode="json"), entry or {})


def _nones(given: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The paths of what is None in ``given`` and is not in ``entry``."""
    for key, value in given.items():
        if isinstance(value, Mapping):
            usual = entry.get(key)
            yield from ((key, *path) for path in _nones(value, usual if isinstance(usual, Mapping) else {}))
        elif value is None and key not in entry:
            yield (key,)


def _without(settings: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    # What holds nothing else goes too.
    key, *rest = path
    part = _without(settings[key], tuple(rest)) if rest else {}
    return {name: value for name, value in settings.items() if name != key} | ({key: part} if part else {})


def _as_read(given: Mapping[str, Any], made: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in given.items():
        read, usual = made.get(key, value), entry.get(key)
        if isinstance(value, Mapping) and isinstance(read, Mapping):
            found[key] = _as_read(value, read, usual if isinstance(usual, Mapping) else {})
        elif key in entry and usual == read:
            found[key] = usual
        else:
            found[key] = read + 0.0 if isinstance(read, float) else read  # -0.0 is 0.0
    return found


def check_used(name: str, settings: Mapping[str, Any], asked: Mapping[str, Any], support: str | None) -> None:
    """Raise `UsageError` where ``asked``, that part of ``settings`` which somebody gave by hand, has a setting that the
    chosen prior, posterior, network, ... does not read, or that does nothing beside its others: it would only give the
    same run another identity. ``support`` is that of the data; None is not known before they are loaded, and neither is
    a likelihood that goes by it. What else is wrong with the settings is left to `check_settings`."""
    try:
        made = settings_of(registry().variant(name)[1], settings)
    except (Exception, SystemExit):
        return
    _check_used(made, asked, support, "")


def _check_used(part: BaseModel, asked: Mapping[str, Any], support: str | None, where: str) -> None:
    from zoo.likelihoods import AUTO

    chosen = "timm" if getattr(part, "timm", None) else getattr(part, "name", None)
    chosen = AUTO.get(support) if chosen == "auto" else chosen
    # The variant itself has no name among its settings.
    told = chosen or "name" not in type(part).model_fields
    idle = part.idle(chosen) if told and hasattr(part, "idle") else {}
    for key, given in asked.items():
        value, field = getattr(part, key), type(part).model_fields[key]
        if isinstance(value, BaseModel) and isinstance(given, Mapping):
            _check_used(value, given, support, f"{where}{key}.")
            continue
        if not told or value == field.get_default():
            continue
        names = getattr(part, "read_by", {}).get(key)
        if names and chosen not in names:
            raise does_nothing(f"{where}{key}", f"it is of {', '.join(names)}, and not of {chosen}")
        if why := idle.get(key):
            raise does_nothing(f"{where}{key}", why)


def settings_of(
    entry: VariantEntry, settings: Mapping[str, Any], elsewhere: Callable[[str], str | None] | None = None
) -> Settings:
    """``settings`` as an instance of the class's own ``Settings``; raises `UsageError` where it refuses them."""
    kind = entry.load().Settings
    try:
        made = kind.model_validate(settings)
    except ValidationError as error:
        raise setting_error(error, kind, elsewhere=elsewhere) from None
    check_whole(made.model_dump())
    return made


def data_spec(name: str, binarise: str = "auto", dequantise: str = "none") -> DataSpec:
    """What a model must know of a registered data set: shape, support as it is prepared, classes, attributes.

    Raises:
        UsageError: there is no such data set, or it cannot be prepared so.
    """
    from zoo.data.images import DataSpec

    _, entry = registry().dataset(name)
    rule = binarise
    if binarise == "auto":
        rule = entry.binarise if dequantise == "none" else "none"
    if entry.shape is None:
        # A folder or a plugin's: only its images tell.
        return entry.load()(**entry.options).spec.prepared(rule, dequantise)
    spec = DataSpec(shape=entry.shape, support=entry.support, classes=entry.classes, attributes=entry.attributes)
    return spec.prepared(rule, dequantise)
