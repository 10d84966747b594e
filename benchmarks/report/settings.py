"""What can be set, as Markdown tables: read off the settings classes, so that a page cannot say something else."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from benchmarks.report.markdown import grid
from benchmarks.report.notation import spelled
from zoo.errors import one_line

HEAD = ["setting", "default", "type", "what it does"]
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_NAMES = {int: "whole number", float: "number", bool: "yes or no", str: "text", type(None): "none"}


def table(model: type[BaseModel], defaults: Mapping[str, Any] | None = None, links: Mapping[type, str] | None = None,
          prefix: str = "") -> str:  # fmt: skip
    """A row for every setting of ``model``.

    Args:
        defaults: what the registry sets over the class's own defaults, nested.
        links: settings classes that have a table elsewhere, with where: they get one row and are not opened.
        prefix: what stands before each name (``train.``).
    """

    rows = list(_rows(model, model.model_validate(dict(defaults or {})), links or {}, prefix))
    return grid(HEAD, rows, rest=":--")


def nested(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The settings of ``model`` that are classes of settings themselves, by name, at any depth."""
    for name, field in model.model_fields.items():
        if inner := settings_class(field.annotation):
            yield name, inner
            yield from nested(inner)


def settings_class(annotation: Any) -> type[BaseModel] | None:
    """The settings class that an annotation holds (also in ``X | None``), or None."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _rows(model: type[BaseModel], made: BaseModel, links: Mapping[type, str], prefix: str) -> Iterator[list[str]]:
    told = _attributes(model.__doc__ or "")
    for name, field in model.model_fields.items():
        value, inner = getattr(made, name), settings_class(field.annotation)
        says = _cell(field.description or told.get(name, ""))
        if inner is None:
            yield [f"`{prefix}{name}`", _value(value), _type(field.annotation, field), says]
        elif value is None and inner not in links:
            yield [f"`{prefix}{name}`", "none", "", says]
        elif inner in links:
            differs = _differences(value)
            says = f"{says}; {links[inner]}" if says else links[inner]
            yield [f"`{prefix}{name}.*`", differs or ("none" if value is None else ""), "", says]
        else:
            yield from _rows(inner, value, links, f"{prefix}{name}.")


def _differences(value: BaseModel | None) -> str:
    if value is None:
        return ""
    usual = type(value)()
    changed = {name: one for name in type(value).model_fields if (one := getattr(value, name)) != getattr(usual, name)}
    return ", ".join(f"`{name}={spelled(one)}`" for name, one in changed.items())


def _value(value: Any) -> str:
    return "none" if value is None else f"`{spelled(value)}`"


def _type(annotation: Any, field: FieldInfo | None = None) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0]) + _limits(getattr(inner[1], "metadata", inner[1:]))
    if origin is Literal:
        text = "one of " + ", ".join(f"`{one}`" for one in inner) if len(inner) > 1 else f"`{inner[0]}`"
    elif origin in (Union, types.UnionType):
        text = " or ".join(_type(one) for one in inner)
    elif origin is tuple and inner[-1:] == (Ellipsis,):
        text = f"list of: {_type(inner[0])}"
    elif origin is tuple:
        text = f"{len(inner)} of: {_type(inner[0])}"
    elif origin is dict:
        text = "mapping"
    else:
        text = _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return text + _limits(field.metadata if field else ())


def _limits(metadata: Any) -> str:
    said = [f"{sign} {getattr(one, name):g}" for one in metadata for name, sign in _SIGNS.items() if hasattr(one, name)]
    return "".join(f", {one}" for one in said)


def _cell(text: str) -> str:
    text = re.sub(r"``(.+?)``", r"`\1`", one_line(text))
    return text.replace("|", "\\|").replace("<", "&lt;")


def _attributes(doc: str) -> dict[str, str]:
    """The ``name: text`` entries of a docstring's section *Attributes*; a text may go on over indented lines."""
    section = re.search(r"Attributes:\n?(.*?)(?:\n\s*\n|\Z)", doc, re.S)
    found: dict[str, str] = {}
    name = None
    for line in (section[1] if section else "").splitlines():
        if match := re.match(r"\s*(\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif name:
            found[name] += " " + line.strip()
    return {name: text.strip().rstrip(".") for name, text in found.items()}
