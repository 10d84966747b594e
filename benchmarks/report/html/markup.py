"""Text as HTML: everything is escaped, except what was made here."""

from __future__ import annotations

import html
from typing import Any

VOID = {"br", "img", "input", "meta", "link"}


class Markup(str):
    """Text that is HTML already."""


def escape(value: object) -> Markup:
    """Any text so that it shows as itself between tags and in a quoted attribute; what is no character, as a space."""
    if isinstance(value, Markup):
        return value
    text = str(value)
    if not text.isprintable():  # letter by letter is slow for a picture
        text = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return Markup(html.escape(text, quote=True))


def join(*parts: object) -> Markup:
    """The parts one after the other; None is nothing, a list is its parts."""
    there = (part for part in parts if part is not None)
    return Markup("".join(join(*part) if isinstance(part, list | tuple) else escape(part) for part in there))


def tag(name: str, /, *children: object, **attributes: Any) -> Markup:
    """One element. ``class_`` is class, ``data_x`` is data-x; None and False leave an attribute out.

    Raises ValueError for an attribute that could run a script.
    """
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if key.startswith("on") or key == "style":
            raise ValueError(f"no attribute {key}: the page allows none")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{escape(value)}"')
    opened = f"<{' '.join(words)}>"
    return Markup(opened if name in VOID else f"{opened}{join(*children)}</{name}>")


def link(text: object, url: str | None, /, **attributes: Any) -> Markup:
    """A link to a web address; the text alone where it is anything else."""
    if not url or not url.startswith(("http://", "https://")):
        return escape(text)
    return tag("a", text, href=url, rel="noopener noreferrer", **attributes)
