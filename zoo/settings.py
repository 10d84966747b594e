"""How settings are given, put together and refused: those of a run and those of a variant alike. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from zoo.errors import UsageError, one_line
from zoo.plain_yaml import NOT_YAML, fields_at, misspelt_first, parse_yaml, plain

MOST = 2**53  # of a whole number that a float tells from the next one
LARGEST = 10**9  # of a size and of a count: no layer is so wide, and nothing here is done so often
#: Of a part of a model that has a `name`: which names read a setting that not all of them read.
ReadBy = Mapping[str, tuple[str, ...]]


class Frozen(BaseModel):
    """Fields that cannot be set later, of which a misspelt one is refused, and a number that is not finite: in a file
    of JSON it would be none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Config(Frozen):
    """Settings of a run, which are not those of its variant."""


def validate(model: type[Config], tree: Mapping[str, Any], where: str = "") -> Any:
    """``tree`` as a ``model``; a `UsageError` names the key, what is wrong and the nearest key."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise setting_error(error, model, where) from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the leaves of ``over`` put in, however deep; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse_setting(text: str) -> dict[str, Any]:
    """``"train.epochs=5"`` as ``{"train": {"epochs": 5}}``; a path outside the sections belongs to the model.

    Raises:
        UsageError: no ``=``, an empty path, or a value that is not a YAML scalar or list.
    """
    path, equals, raw = text.partition("=")
    keys = path.strip().replace("-", "_").split(".")
    if not equals or not all(keys):
        raise UsageError(f"a setting reads path=value, such as train.epochs=5, not '{text}'.")
    try:
        _, value = parse_yaml(raw)
    except NOT_YAML:
        raise UsageError(f"the value of '{path}' is not readable: '{raw}'.") from None
    if isinstance(value, str):
        # YAML 1.1 takes 1e-3 for a text; everybody else takes it for a number.
        try:
            value = float(value)
        except ValueError:
            pass
    if keys[0] in ("variant", "seed") or keys == ["data", "name"]:
        raise UsageError(f"'{'.'.join(keys)}' is not a setting: give it by its own argument.")
    if keys[0] not in ("train", "data", "evaluate", "model"):
        keys = ["model", *keys]
    for key in reversed(keys):
        value = {key: value}
    return value


def check_whole(settings: Any, path: str = "") -> None:
    """Raise `UsageError` where a whole number among ``settings`` is beyond `LARGEST`, or a seed beyond `MOST`: a float
    would have lost its last digits, as a reader of a record may. ``path`` is where they are."""
    if isinstance(settings, Mapping):
        parts = [(str(key), part) for key, part in settings.items()]
    else:
        parts = [(str(i), part) for i, part in enumerate(settings)] if isinstance(settings, list | tuple) else []
    for name, part in parts:
        check_whole(part, f"{path}.{name}" if path else name)
    most, said = (MOST, "2^53") if path.endswith("seed") else (LARGEST, "10^9")
    if isinstance(settings, int) and abs(settings) > most:
        raise UsageError(f"setting '{path}': a whole number is at most {said} in size (got {settings}).")


def does_nothing(path: str, why: str) -> UsageError:
    """Of a setting that somebody gave by hand and nothing reads: it would only give the same run another identity."""
    return UsageError(f"{path} would do nothing: {why}.")


def setting_error(
    error: ValidationError,
    model: type[BaseModel],
    where: str = "",
    elsewhere: Callable[[str], str | None] | None = None,
) -> UsageError:
    """A pydantic error over ``model`` as one sentence that names the key and the nearest right one. ``elsewhere`` says
    of a name that is unknown here what it is called in full where it is known, or None."""
    first, *others = misspelt_first(error)
    place = _place(first["loc"], model)
    path = ".".join(part for part in (where, *map(str, place)) if part)
    if first["type"] == "extra_forbidden":
        known = list(fields_at(model, first["loc"][:-1]))
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        if elsewhere and len(first["loc"]) == 1 and (full := elsewhere(str(first["loc"][0]))):
            near = [full]
        hint = f" Did you mean '{near[0]}'?" if near else ""
        return UsageError(f"no setting '{path}'.{hint} Known here: {', '.join(known)}.")
    if first["type"] == "model_type" and path:
        such = next(iter(fields_at(model, place)), "NAME")
        return UsageError(f"'{path}' has settings of its own: give one of them, such as {path}.{such}=VALUE "
                          f"(got {first['input']!r}).")  # fmt: skip
    if first["type"] == "missing" and place and isinstance(place[-1], int):
        return UsageError(f"setting '{path.rpartition('.')[0]}': the list is too short (got {first['input']!r}).")
    if first["type"] == "missing":
        return UsageError(f"setting '{path}' has no default and was given no value.")
    subject = f"setting '{path}'" if path else "the settings"
    # Of a setting that takes one thing or another each says why it is not the one.
    same = [one for one in others if place != first["loc"] and _place(one["loc"], model) == place]
    said = one_line(plain(first).removeprefix("value error, ")).rstrip(".")
    said += "".join(f", or {one_line(plain(one)).removeprefix('input should be ').rstrip('.')}" for one in same)
    if first["type"] == "literal_error" and _may_be_none(place, model):
        said += ", or null for none"
    # What is wrong with several settings together says which they are.
    got = "" if first["type"] == "value_error" and isinstance(first["input"], Mapping) else f" (got {first['input']!r})"
    return UsageError(f"{subject}: {said}{got}.")


def _may_be_none(place: tuple[int | str, ...], model: type[BaseModel]) -> bool:
    # Of a setting of one word, such as `yes`: nobody sees in that word how it is left away.
    field = fields_at(model, place[:-1]).get(str(place[-1])) if place else None
    return field is not None and type(None) in get_args(field.annotation)


def _place(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[int | str, ...]:
    """Where an error is, without the names that pydantic has for what a setting of several types could have been."""
    found, owner = [], model
    for part in location:
        fields = getattr(owner, "model_fields", {})
        if fields or isinstance(part, int):
            found.append(part)
        kind = fields[part].annotation if part in fields else None
        owner = next((one for one in (kind, *get_args(kind)) if hasattr(one, "model_fields")), None)
    return tuple(found)
