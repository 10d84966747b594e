"""The pictures of the records as data addresses, as many as one page can carry."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record import Record
from benchmarks.report.tables import Table

BUDGET = 2_200_000  # characters of data addresses on one page
USUAL = ("samples", "reconstructions", "pca", "traversals")  # come first, and every row has them before any has more
LARGE = 200_000  # bytes; grids of digits have 20,000, grids of faces would have 600,000


@dataclass(frozen=True)
class Picture:
    """A picture of a record: its path in the leaderboard folder, and, where the page carries it, its content."""

    path: str
    content: str | None = None
    width: int = 0
    height: int = 0
    why: str = ""


def usual_first(kind: str) -> int:
    """Where a kind of picture stands among the others; those that are not `USUAL` are all last."""
    return USUAL.index(kind) if kind in USUAL else len(USUAL)


def pictures(tables: Sequence[Table], folder: Path, budget: int = BUDGET) -> dict[str, Picture]:
    """Path -> picture, for every figure of every record.

    The first seed of each row comes first, in all tables, one kind of picture after the other; then the second seeds, a
    table at a time and whole or not at all, and so on while ``budget`` lasts. What has no place is named, not shown.
    """
    found: dict[str, Picture] = {}
    turns = list(_in_turn(tables))
    firsts = [record for seed, records in turns if not seed for record in records]
    for seed, records in ((0, firsts), *(turn for turn in turns if turn[0])):
        kinds = [(kind, path) for record in records for kind, path in record.figures.items() if path not in found]
        if not seed:
            kinds.sort(key=lambda one: usual_first(one[0]))
        paths = [path for _, path in kinds]
        loaded = [_load(path, folder) for path in paths]
        size = sum(len(one.content or "") for one in loaded)
        for one in loaded:
            fits = (size if seed else len(one.content or "")) <= budget
            found[one.path] = one if fits else Picture(one.path, why="left out to keep this page small")
            if fits and not seed:
                budget -= len(one.content or "")
        if seed and size <= budget:
            budget -= size
    return found


def _in_turn(tables: Sequence[Table]) -> Iterator[tuple[int, list[Record]]]:
    most = max((len(row.records) for table in tables for row in table.rows), default=0)
    for seed in range(most):
        for table in tables:
            # A run that was lost may have figures too; those of the runs that are done come first.
            ordered = [sorted(row.records, key=lambda record: record.status != "done") for row in table.rows]
            yield seed, [records[seed] for records in ordered if seed < len(records)]


def _load(path: str, folder: Path) -> Picture:
    # A record's path is checked to lie inside the folder when it is read (`benchmarks.record`).
    place = folder / path
    if not place.is_file():
        return Picture(path, why="not in this folder")
    data = place.read_bytes()
    kind, width, height = _kind(data)
    if not kind:
        return Picture(path, why="not a PNG, JPEG, GIF or WebP file")
    if len(data) > LARGE:
        kind, data = _smaller(kind, data)
    return Picture(path, f"data:image/{kind};base64,{base64.b64encode(data).decode()}", width, height)


def _kind(data: bytes) -> tuple[str, int, int]:
    """The format by the first bytes (a name proves nothing), and the size where it stands at a fixed place."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return "png", width, height
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg", 0, 0
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif", 0, 0
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp", 0, 0
    return "", 0, 0


def _smaller(kind: str, data: bytes) -> tuple[str, bytes]:
    # Small pictures stay byte for byte what they are, so that no page changes with the version of an encoder.
    from PIL import Image

    try:
        out = io.BytesIO()
        with Image.open(io.BytesIO(data)) as image:
            image.convert("RGB").save(out, format="WEBP", quality=80, method=6)
    except (OSError, ValueError, Image.DecompressionBombError):
        return kind, data
    return ("webp", out.getvalue()) if out.tell() < len(data) else (kind, data)
