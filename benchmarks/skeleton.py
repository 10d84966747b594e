"""What `zoo new` writes: the file of a variant and its entry, in this checkout or in a package of its own. No torch."""

from __future__ import annotations

import keyword
import os
import re
from pathlib import Path

import yaml

from zoo.errors import UsageError, fold
from zoo.files import atomic_write
from zoo.plain_yaml import parse_yaml
from zoo.registry import Registry, VariantEntry, registry, registry_path

SPELT = {"ae": "AE", "vae": "VAE", "gan": "GAN", "vq": "VQ", "iwae": "IWAE", "nvae": "NVAE", "rae": "RAE"}

VARIANT = '''\
"""{title}: what it changes, in one sentence.

Paper: authors, title, venue and year, address.
Official code: address, or that none was published.
Where we differ: what a reader of the paper would not expect.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from {module} import {parent}


class {name}Settings({parent}.Settings):
    weight: float = Field(1.0, ge=0, description="weight of the rate in training")


class {name}({parent}):
    """{article} {parent_title} whose training weighs the rate.

    What a variant may answer otherwise is in zoo/models/base.py: terms, losses, log_weights, represent, reconstruct,
    sample. What it is made of is in zoo/models/vae.py: encoder, posterior, prior, decoder, likelihood.
    """

    Settings: ClassVar[type[{parent}.Settings]] = {name}Settings

    def rate_weight(self, progress: float | Tensor) -> float | Tensor:
        # `progress` is the warm-up: 0 at the first step, 1 when it is over. The reported ELBO never sees this weight.
        return self.settings.weight * progress
'''

PYPROJECT = '''\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{dist}"
version = "0.1.0"
description = "{title}, a variant for vae-zoo."
requires-python = ">=3.11"
dependencies = ["vae-zoo"]

[project.entry-points."zoo.variants"]
{variant} = "{variant}:{name}"

[tool.hatch.build.targets.wheel]
packages = ["{variant}.py"]
'''


def add_variant(name: str, like: str = "vae", path: Path | None = None) -> list[Path]:
    """Write ``zoo/models/NAME.py`` and append the entry under ``variants:`` of the registry; nothing else changes.

    Args:
        name: lower case, digits and underscores; a dash works for an underscore.
        like: the variant whose class it starts from.
        path: the registry; default this checkout's, and models/ lies in the package beside it.

    Returns:
        The two files.

    Raises:
        UsageError: a bad or taken name, an unknown ``like`` or one that has no rate to weigh, or an installed package
            instead of a checkout.
    """
    name = checked(name)
    path = path or registry_path()
    if (path.parent / "models").is_dir():  # the registry lies in the package, as a wheel has it
        raise UsageError(
            "this vae-zoo is installed, not a checkout: `zoo new NAME --plugin FOLDER` writes a package of your own."
        )
    model = path.parent / "zoo" / "models" / f"{name}.py"
    if os.path.lexists(model):
        raise UsageError(f"{model} is there already; choose another name.")
    text = path.read_text(encoding="utf-8")
    source, parent = _source(name, like)
    added = _appended(text, _entry(name, like, parent))
    _validate(text, added, name, path)
    atomic_write(model, source)
    try:
        atomic_write(path, added)
    except BaseException:
        model.unlink(missing_ok=True)
        raise
    return [model, path]


def add_plugin(name: str, folder: Path, like: str = "vae") -> list[Path]:
    """Write a package into ``folder``: ``pyproject.toml`` with an entry point and ``NAME.py``. Errors as
    `add_variant`, and for a folder that holds a package already."""
    name = checked(name)
    source, _ = _source(name, like)
    wanted = {
        folder / f"{name}.py": source,
        folder / "pyproject.toml": PYPROJECT.format(
            dist=name.replace("_", "-"), title=title_of(name), variant=name, name=class_of(name)
        ),
    }
    there = [path for path in wanted if os.path.lexists(path)]
    if there:
        raise UsageError(f"{there[0]} is there already; choose another folder.")
    for path, content in wanted.items():
        atomic_write(path, content)
    return list(wanted)


def checked(name: str) -> str:
    """The name of a new variant, or a `UsageError` that says what is wrong with it."""
    plain = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", plain) or plain.endswith("_"):
        rule = "lower-case letters, digits and underscores, such as my_vae"
        raise UsageError(f"'{name}' is no name of a variant: {rule}.")
    if keyword.iskeyword(plain) or keyword.issoftkeyword(plain):
        raise UsageError(f"'{name}' is a word of Python; choose another name.")
    for known, entry in registry().variants.items():
        if fold(known) == fold(plain):
            raise UsageError(f"there is a variant '{known}' already ({entry.title}); choose another name.")
    return plain


def class_of(name: str) -> str:
    """``my_vae`` as ``MyVAE``."""
    return "".join(SPELT.get(part, part.capitalize()) for part in name.split("_"))


def title_of(name: str) -> str:
    """``my_vae`` as ``My VAE``."""
    return " ".join(SPELT.get(part, part.capitalize()) for part in name.split("_"))


def _source(name: str, like: str) -> tuple[str, VariantEntry]:
    known, parent = registry().variant(like)
    if parent.provides and "elbo" not in parent.provides:
        raise UsageError(f"'{known}' has no rate, and what is written here weighs one: start from another variant.")
    module, _, kind = parent.target.partition(":")
    names = {"title": title_of(name), "name": class_of(name), "module": module, "parent": kind}
    article = "An" if parent.title[0] in "AEIOaeio" else "A"
    return VARIANT.format(**names, article=article, parent_title=parent.title), parent


def _entry(name: str, like: str, parent: VariantEntry) -> str:
    fields = {
        "class": f"zoo.models.{name}:{class_of(name)}",
        "title": title_of(name),
        "family": parent.family,
        "summary": f"A {parent.title} whose training weighs the rate.",
    }
    lists = {"settings": parent.settings | {"weight": 1.0}, "train": parent.train, "provides": list(parent.provides)}
    for key, value in lists.items():
        if value:
            fields[key] = value
    lines = [f"  {name}:"]
    for key, value in fields.items():
        if isinstance(value, str):
            flat = yaml.safe_dump(value, width=1000, allow_unicode=True).removesuffix("...\n").strip()
        else:
            flat = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=110, allow_unicode=True)
            flat = flat.strip().replace("\n", "\n    ")
        lines.append(f"    {key}: {flat}")
    return "\n".join(lines) + "\n"


def _appended(text: str, entry: str) -> str:
    """The registry's text with an entry after the last of ``variants:``; every other byte is as it was."""
    lines = text.splitlines(keepends=True)
    tops = [i for i, line in enumerate(lines) if re.match(r"[A-Za-z_]\w*:", line)]
    start = next((i for i in tops if re.fullmatch(r"variants:\s*(#.*)?", lines[i].strip())), None)
    if start is None:
        raise UsageError("the registry has no line `variants:` to add an entry under.")
    end = next((i for i in tops if i > start), len(lines))
    # Blank lines and comments at the margin belong to what comes after.
    while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    before, after = "".join(lines[:end]), "".join(lines[end:])
    return before + ("" if before.endswith("\n") else "\n") + "\n" + entry + after


def _validate(old: str, new: str, name: str, path: Path) -> None:
    before, after = (Registry.model_validate(parse_yaml(text)[1]) for text in (old, new))
    others = {key: entry for key, entry in after.variants.items() if key != name}
    if name not in after.variants or others != before.variants or after.datasets != before.datasets:
        raise UsageError(f"{path} is laid out so that an entry cannot be added to it; add it by hand.")
