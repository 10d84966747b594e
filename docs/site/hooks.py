"""What mkdocs is told beyond its configuration.

The pages are written to be read where they lie, so they link to files outside docs/ (sources, tests, the board and its
pictures). Those come along under ``repository/``, and the links follow. Formulae become MathML, which browsers draw by
themselves.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent.parent
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(?=[)#])")
DOCS = "docs"
BROUGHT = "repository"


def on_config(config):
    """Every variant gets its place in the navigation after their common page, and any other page that the configuration
    does not name a place at the end."""
    pages = sorted(path.relative_to(ROOT / DOCS).as_posix() for path in (ROOT / DOCS).rglob("*.md"))
    for entry in config.nav:
        if isinstance(entry, dict) and "Variants" in entry:
            of_variants = [page for page in pages if page.startswith("variants/") and page != "variants/index.md"]
            entry["Variants"] = ["variants/index.md", *of_variants]
    named = set(_named(config.nav))
    config.nav += [page for page in pages if page not in named]
    return config


def _named(nav):
    for entry in nav:
        if isinstance(entry, dict):
            for inside in entry.values():
                yield from _named(inside if isinstance(inside, list) else [inside])
        else:
            yield entry


def on_files(files, config):
    """Bring along what the pages link to outside docs/, and what that links to if it is a page itself."""
    todo = [f"{DOCS}/{file.src_uri}" for file in files.documentation_pages()]
    seen = set()
    while todo:
        page = todo.pop()
        for target in LINK.findall((ROOT / page).read_text()):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
            inside = path.startswith(f"{DOCS}/") or path.startswith("..")
            if inside or path in seen or not (ROOT / path).is_file():
                continue
            seen.add(path)
            files.append(File.generated(config, f"{BROUGHT}/{path}", abs_src_path=str(ROOT / path)))
            if path.endswith(".md"):
                todo.append(path)
    return files


def on_page_markdown(markdown, page, config, files):
    """Point links out of docs/ at what was brought along, and links back in at the pages."""
    own = page.file.src_uri
    lies = own.removeprefix(f"{BROUGHT}/") if own.startswith(f"{BROUGHT}/") else f"{DOCS}/{own}"

    def moved(match: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(lies), match[1]))
        to = path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") else f"{BROUGHT}/{path}"
        return posixpath.relpath(to, posixpath.dirname(own)) if files.get_file_from_path(to) else match[1]

    return LINK.sub(moved, markdown)


def on_page_content(html, page, config, files):
    """TeX to MathML."""
    html = re.sub(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', _display, html, flags=re.S)
    return re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', _inline, html, flags=re.S)


def _display(match: re.Match) -> str:
    return convert(_text(match[1]), display="block")


def _inline(match: re.Match) -> str:
    return convert(_text(match[1]))


def _text(html: str) -> str:
    return html.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()
