"""YAML of plain types, such as a registry, a suite or a recipe: an error in it names the file, the line and the key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from zoo.errors import UsageError, one_line

SIZE_LIMIT = 1 << 20
NODE_LIMIT = 100_000
# What a safe loader raises on texts that are none: a date that is no date is a ValueError, and so on.
NOT_YAML = (yaml.YAMLError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)
T = TypeVar("T", bound=BaseModel)
#: What pydantic has other words for, by its type of the error.
PLAIN = {
    "extra_forbidden": "unknown key",
    **dict.fromkeys(("model_type", "dict_type"), "input should be a mapping of keys to values"),
    **dict.fromkeys(("tuple_type", "list_type"), "input should be a list"),
    "path_type": "input should be a path",
    "too_short": "input should be a list of at least {min_length}",
    "too_long": "input should be a list of at most {max_length}",
}


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key that is there twice: YAML forbids it, and PyYAML takes the last."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is there twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


def read_yaml(path: Path, model: type[T]) -> T:
    """A YAML file as a validated object.

    Raises:
        UsageError: unreadable, over 1 MiB, not YAML, or not what ``model`` wants; with file, line and key.
    """
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise UsageError(f"{path} is larger than {SIZE_LIMIT >> 20} MiB; that is not a configuration.")
        text = path.read_text(encoding="utf-8")
        tree, value = parse_yaml(text)
    except NOT_YAML as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f"{path}:{line + 1}" if line is not None else str(path)
        said = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{where}: not valid YAML ({one_line(said)[:120]}).") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = misspelt_first(error)[0]
        *place, last = first["loc"] or ("the file",)
        key = ".".join(map(str, (*place, last)))
        near = first["type"] == "extra_forbidden" and get_close_matches(str(last), fields_at(model, place), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise UsageError(f"{path}:{_line(tree, first['loc'])}: {key}: {plain(first)}{hint}") from None


def parse_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """The tree of a YAML text and its value, of plain types only; raises one of `NOT_YAML`, also of a key that is there
    twice."""
    tree = yaml.compose(text, Loader=_Loader)
    if _nodes(tree, {}) > NODE_LIMIT:
        raise ValueError("its aliases unfold to more than a configuration holds")
    return tree, yaml.SafeLoader("").construct_document(tree) if tree else None


def plain(error: Any) -> str:
    """A pydantic error as a few words, without those of a programmer."""
    if error["type"] in PLAIN:
        return PLAIN[error["type"]].format(**error.get("ctx", {}))
    return error["msg"][0].lower() + error["msg"][1:]


def misspelt_first(error: ValidationError) -> list[Any]:
    """What is wrong, keys that are unknown before all else: a key that is missing may be one of them misspelt."""
    return sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")


def fields_at(model: type[BaseModel], place: Iterable[int | str]) -> dict[str, FieldInfo]:
    """The fields of what lies at ``place`` in a ``model``, by the names that they are given by; none where that is no
    model. Keys of a mapping and places in a list lead to what all of its values are."""
    owner: Any = model
    for part in place:
        field = owner.model_fields.get(part) if owner else None
        if field:
            owner = next((one for one in _types(field.annotation) if hasattr(one, "model_fields")), None)
    return {field.alias or name: field for name, field in owner.model_fields.items()} if owner else {}


def _types(kind: Any) -> Iterator[Any]:
    yield kind
    for part in get_args(kind):
        yield from _types(part)


def _nodes(node: yaml.Node | None, known: dict[int, int]) -> int:
    # What the tree would be without aliases: a few lines of them can stand for more than any memory holds.
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = NODE_LIMIT  # an alias to itself never ends
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_nodes(part, known) for part in parts)
    return known[id(node)]


def _line(tree: yaml.Node | None, location: tuple[Any, ...]) -> int:
    node, line = tree, 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
