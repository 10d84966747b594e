"""A folder of images of one's own, of any sizes, cropped to squares and resized once.

    folder/*.png                 and in folders below it, at any depth
    folder/factors.csv           optional: what is known of each image, its name in the first column
    folder/CLASS/*.png           without it, where every image lies one folder down, that folder is its class

A file's split is a function of its name alone, so that it never moves when others come or go. So is its place in the
split, which has nothing to do with the order of names: the first n images are any n, and not those of the first class.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageOps

from zoo.data.images import SPLITS, DataSpec, Images, ImageSet, pieces
from zoo.data.mapped import FILTERS, count, decode_all, listed, mapped_pixels
from zoo.errors import UsageError, ZooError
from zoo.files import expanded, fingerprint, sha256_file

log = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FACTORS_FILE = "factors.csv"
CLASS_COLUMNS = ("class", "label")
GLIMPSED = 16


def load_folder(
    root: str | Path | None = None,
    size: int = 64,
    channels: int = 3,
    resize: str = "bilinear",
    validation: float = 0.1,
    test: float = 0.1,
) -> ImageSet:
    """The images below a folder as bytes of one size; decoded once into a memory map in the cache.

    Args:
        root: the folder; on the command line ``--data folder:PATH``.
        size: side of the pictures: the largest square in the middle, resized with antialiasing.
        channels: 3 for colour, 1 for grey.
        resize: ``"bilinear"``, ``"bicubic"``, ``"lanczos"`` or ``"box"``.
        validation, test: shares of the images in those splits.

    ``factors.csv`` has a head line. A column ``class`` (or ``label``) gives the classes, empty where nobody knows one;
    if every other column is of 0 and 1, or of -1 and 1, they are attributes, else factors, whose values are numbered in
    order. Rows of images that are not there are passed over. Where nothing is known of the images, a table of another
    name beside them is warned of.

    Raises:
        UsageError: no such folder, no images in it, an option that makes no sense, or a factors.csv that cannot be
            read, leaves images out or has no value for some; they are named.
        ZooError: images or folders that cannot be read; they are named.
    """
    if not root:
        raise UsageError("which folder? Give it as --data folder:PATH.")
    folder = expanded(root)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of images.")
    if not 1 <= size <= 4096 or channels not in (1, 3) or resize not in FILTERS:
        raise UsageError(f"a folder is read with size from 1, channels 1 or 3, and resize {', '.join(FILTERS)}.")
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise UsageError("the shares of validation and test images lie between 0 and 1, and so does their sum.")
    stats = sorted(_files(folder))
    if not stats:
        raise UsageError(f"{folder} holds no images ({', '.join(suffix[1:] for suffix in SUFFIXES)}).")
    names = [name for name, _, _ in stats]
    splits = {split: [] for split in SPLITS}
    for name in sorted(names, key=_place):
        splits[split_of(name, validation, test)].append(name)
    empty = [split for split in SPLITS if not splits[split]]
    if empty:
        few = f"{folder} has {count(names, 'image')}"
        raise UsageError(f"{few}, too few: their names put none into {' and '.join(empty)}.")
    order = [name for split in SPLITS for name in splits[split]]
    known = _known(folder, order)
    recipe = {
        "source": fingerprint([stats, _glimpse(folder, names)]),
        "order": fingerprint(order),
        "size": size,
        "channels": channels,
        "resize": resize,
    }
    pixels, digest = mapped_pixels(
        "folders",
        recipe,
        (len(order), channels, size, size),
        lambda out: decode_all(
            order, lambda name: decode_image(folder / name, size, channels, resize), out, str(folder), folder.name
        ),
        about={"pillow": PIL.__version__},
    )
    made = {}
    classes: tuple[str, ...] = known.pop("classes", ())
    for split, piece in pieces({split: len(splits[split]) for split in SPLITS}).items():
        parts = {key: value[piece] if isinstance(value, np.ndarray) else value for key, value in known.items()}
        made[split] = Images(pixels[piece], **parts)
    spec = DataSpec(
        (channels, size, size), "8-bit", classes=len(classes), attributes=len(known.get("attribute_names", ()))
    )
    tables = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in known.items()}
    content = {"pixels": digest, "names": splits, "known": tables, "classes": classes}
    return ImageSet("folder", made, spec, classes=classes, known_sha256=fingerprint(content))


def split_of(name: str, validation: float = 0.1, test: float = 0.1) -> str:
    """The split of a file: its name's hash as a number in [0, 1), the test images first."""
    place = _place(name)
    return "test" if place < test else "validation" if place < test + validation else "train"


def _place(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def decode_image(path: Path, size: int, channels: int, resize: str = "bilinear") -> np.ndarray:
    """One image as uint8 (channels, size, size): upright, the middle square, antialiased."""
    with Image.open(path) as image:
        upright = eight_bits(ImageOps.exif_transpose(image), image.format)
        square = ImageOps.fit(upright.convert("L" if channels == 1 else "RGB"), (size, size), FILTERS[resize])
    pixels = np.asarray(square)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def eight_bits(image: Image.Image, form: str | None) -> Image.Image:
    """The picture, of the file format ``form``, with 8 bits a channel: what Pillow would cut off at 255 is scaled.

    Raises:
        ValueError: its pixels have 32 bits, of which nobody knows what is white.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and form == "PPM"):  # which has 16 bits at most
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits; save it with 8 or 16")
    return image


def _files(folder: Path) -> list[tuple[str, int, int]]:
    def closed(error: OSError) -> None:
        raise ZooError(f"{error.filename} cannot be read ({error.strerror}).")

    found, wrong = [], []
    for place, folders, files in os.walk(folder, onerror=closed, followlinks=True):
        if os.path.realpath(place) in map(os.path.realpath, Path(place).parents):  # a link to a folder above it
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                path = Path(place) / name
                try:
                    name.encode()
                    stat = path.stat()
                except (OSError, UnicodeEncodeError):
                    wrong.append(os.fsencode(path).decode(errors="replace"))
                    continue
                found.append((path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns))
    if wrong:
        raise ZooError(f"{count(wrong, 'image')} cannot be found, or has no name in UTF-8: {listed(sorted(wrong))}.")
    return found


def _glimpse(folder: Path, names: list[str]) -> list[str]:
    """The SHA-256 of a few files: other pictures may have the names, sizes and times of those that were decoded before,
    as uncompressed ones out of an archive that gives all one time."""
    found = []
    for name in names[:: -(-len(names) // GLIMPSED)]:
        try:
            found.append(sha256_file(folder / name))
        except OSError:
            found.append("")  # whoever decodes it says what is wrong
    return found


def _known(folder: Path, order: list[str]) -> dict[str, Any]:
    """What `Images` is told beside the pixels, for images in that order, and the names of the ``classes``."""
    path = folder / FACTORS_FILE
    if path.is_file():
        return _table(path, order)
    tops = [name.split("/") for name in order]
    if all(len(parts) == 2 for parts in tops):
        names = sorted({parts[0] for parts in tops})
        if len(names) > 1:
            return _labelled([parts[0] for parts in tops])
    for table in sorted(path.name for path in folder.glob("*.csv")):
        log.warning("%s is not read: a table of what is known of images is called %s.", folder / table, FACTORS_FILE)
    return {}


def _labelled(values: list[str]) -> dict[str, Any]:
    known = np.array([bool(value) for value in values])
    numbers, names = _numbered([value for value in values if value])
    labels = np.full(len(values), -1, np.int64)  # where nobody knows
    labels[known] = numbers
    return {"labels": labels, "classes": names} if names else {}


def _numbered(values: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    def place(value: str) -> tuple[int, float, str]:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        return (1, 0.0, value) if math.isnan(number) else (0, number, value)

    names = sorted(set(values), key=place)
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[value] for value in values], np.int64), tuple(names)


def _table(path: Path, order: list[str]) -> dict[str, Any]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read ({error}).") from None
    if len(rows) < 2 or len(rows[0]) < 2:
        raise UsageError(f"{path} needs a head line, the image's name in the first column, and one more column.")
    head = rows[0][1:]
    if len(set(head)) < len(head) or not all(head):
        raise UsageError(f"{path} has a head line with a name that is empty or there twice.")
    ragged = next((i for i, row in enumerate(rows, 1) if len(row) != len(rows[0])), None)
    if ragged is not None:
        raise UsageError(f"{path}, line {ragged}: {len(rows[ragged - 1])} cells, and the head line has {len(rows[0])}.")
    table = {row[0]: row[1:] for row in rows[1:]}
    if len(table) < len(rows) - 1:
        twice = sorted(name for name, times in Counter(row[0] for row in rows[1:]).items() if times > 1)
        raise UsageError(f"{path} has more than one line for {count(twice, 'image')}: {listed(twice)}.")
    missing = [name for name in order if name not in table]
    if missing:
        raise UsageError(f"{path} has no line for {count(missing, 'image')}: {listed(missing)}.")
    columns = {name: [table[image][i] for image in order] for i, name in enumerate(head)}
    label = next((name for name in head if name.lower() in CLASS_COLUMNS), None)
    known = _labelled(columns.pop(label)) if label else {}
    for name, values in columns.items():
        if empty := [image for image, value in zip(order, values, strict=True) if not value]:
            raise UsageError(f"{path} has no value of '{name}' for {count(empty, 'image')}: {listed(empty)}.")
    if not columns:
        return known
    names = tuple(columns)
    if all(set(values) <= {"0", "1"} or set(values) <= {"-1", "1"} for values in columns.values()):
        flags = np.array([[value == "1" for value in values] for values in columns.values()], np.uint8).T.copy()
        sizes, factors = (2,) * len(names), flags.astype(np.int64)
        known |= {"attributes": flags, "attribute_names": names}
    else:
        numbered = [_numbered(values) for values in columns.values()]
        factors, sizes = np.stack([numbers for numbers, _ in numbered], 1), tuple(len(kinds) for _, kinds in numbered)
    kind = "attributes" if "attributes" in known else "exact"
    return known | {"factors": factors, "factor_names": names, "factor_sizes": sizes, "factor_kind": kind}
