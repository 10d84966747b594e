"""CelebA: aligned faces with forty yes/no attributes, from the user's own copy, cropped and resized once.

Liu, Luo, Wang, Tang 2015. For non-commercial research; nothing here downloads or redistributes it. The reader
takes the official zip or an unpacked folder, any subset of the images, and needs neither the boxes nor the
landmarks.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from zoo.data.images import SPLITS, DataSpec, Images, ImageSet, pieces
from zoo.data.mapped import FILTERS, count, decode_all, listed, mapped_pixels
from zoo.errors import UsageError, ZooError
from zoo.files import expanded, fingerprint

ALIGNED = (178, 218)  # width, height of every official aligned image
CROPS = {  # top, bottom, left, right in pixels of the aligned image
    "center": (35, 183, 15, 163),
    "larsen": (40, 188, 15, 163),  # VAE-GAN (Larsen et al. 2016), and the "CelebA 64" of many papers since
}
ATTRIBUTES_FILE, PARTITION_FILE = "list_attr_celeba.txt", "list_eval_partition.txt"
ANNOTATION_MD5 = {
    ATTRIBUTES_FILE: "75e246fa4810816ffd6ee81facbd244c",
    PARTITION_FILE: "d32c9cbf5e040fd4025c592c306e6668",
}
LAYOUTS = ("", "celeba", "Anno", "Eval", "Img")  # a flat folder, torchvision's, and the official drive's


def load_celeba(
    root: str | Path | None = None,
    size: int = 64,
    crop: str = "center",
    resize: str = "bilinear",
    complete: bool = False,
) -> ImageSet:
    """CelebA at ``size`` pixels, official split restricted to the images that are there, attributes as
    factors.

    The first call decodes every JPEG into one uint8 memory map in the cache; later ones check its hash and
    map it.

    Args:
        root: folder with ``img_align_celeba.zip`` or ``img_align_celeba/`` and the two annotation files
            ``list_attr_celeba.txt`` and ``list_eval_partition.txt``; default ``$VAE_ZOO_CELEBA``.
        size: side of the square pictures.
        crop: ``"center"`` (148x148) or ``"larsen"`` (rows 40:188, columns 15:163).
        resize: ``"bilinear"``, ``"bicubic"``, ``"lanczos"`` or ``"box"``, all antialiased.
        complete: refuse a copy that lacks any of the 202,599 images.

    Raises:
        UsageError: no root, no images or annotations in it, or an unknown crop or filter.
        ZooError: images are missing or damaged (they are named), or annotations are not the official bytes.
            Nothing half-built is left behind.
    """
    if crop not in CROPS or resize not in FILTERS or size < 1:
        raise UsageError(f"CelebA has crops {', '.join(CROPS)} and resize filters {', '.join(FILTERS)}.")
    root = root or os.environ.get("VAE_ZOO_CELEBA")
    if not root:
        raise UsageError(
            "CelebA is read from your own copy: give its folder as option root or as VAE_ZOO_CELEBA."
        )
    folder = expanded(root)
    partition = read_partition(_annotation(folder, PARTITION_FILE))
    annotation = _annotation(folder, ATTRIBUTES_FILE)
    source = find_source(folder)
    _check_names(source, partition, complete)

    names = {split: sorted(n for n in source.names if partition[n] == k) for k, split in enumerate(SPLITS)}
    order = [name for split in SPLITS for name in names[split]]
    recipe = {
        "source": source.fingerprint,
        "names": fingerprint(order),
        "size": size,
        "crop": crop,
        "resize": resize,
    }
    pixels, digest = mapped_pixels(
        "celeba",
        recipe,
        (len(order), 3, size, size),
        lambda out: _decode_all(source, order, out, crop, resize),
        about={"pillow": PIL.__version__},
    )

    attribute_names, attributes = read_attributes(annotation, order)
    splits = {
        split: Images(
            pixels[piece],
            factors=attributes[piece].astype(np.int64),
            factor_names=attribute_names,
            factor_sizes=(2,) * len(attribute_names),
            factor_kind="attributes",
            attributes=attributes[piece],
            attribute_names=attribute_names,
        )
        for split, piece in pieces({split: len(names[split]) for split in SPLITS}).items()
    }
    content = {"pixels": digest, "names": names, "attributes": ANNOTATION_MD5[ATTRIBUTES_FILE]}
    return ImageSet(
        "celeba",
        splits,
        DataSpec((3, size, size), "8-bit", attributes=len(attribute_names)),
        known_sha256=fingerprint(content),
    )


def read_partition(path: Path) -> dict[str, int]:
    """Image name -> 0 (train), 1 (validation) or 2 (test), in the order of the file."""
    tokens = path.read_text(encoding="utf-8").split()
    return {name: int(part) for name, part in zip(tokens[::2], tokens[1::2], strict=True)}


def read_attributes(path: Path, wanted: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The attribute names, and uint8 (len(wanted), attributes) of 0 and 1 for the images ``wanted``."""
    with open(path, "rb") as file:
        file.readline()  # the number of images
        names = tuple(file.readline().decode().split())
        rows = dict(line.split(None, 1) for line in file)
    # Eight million numbers: -1 becomes "0", blanks go, and what is left is one character a number.
    flat = b"".join(rows[name.encode()] for name in wanted).replace(b"-1", b"0").translate(None, b" \r\n")
    return names, (np.frombuffer(flat, np.uint8) - ord("0")).reshape(len(wanted), len(names))


@dataclass(frozen=True)
class Source:
    """Where the JPEGs are: their names, a fingerprint of the whole, and how to open a reader of them."""

    place: Path
    names: tuple[str, ...]
    fingerprint: str
    reader: Callable[[], contextlib.AbstractContextManager[Callable[[str], bytes]]]


def find_source(folder: Path) -> Source:
    """The unpacked folder if there is one, else the zip; ``UsageError`` if neither holds an image."""
    places = [folder / layout for layout in LAYOUTS]
    for source in (find(place) for find in (_unpacked, _zipped) for place in places):
        if source is not None and source.names:
            return source
    raise UsageError(f"{folder} holds neither img_align_celeba/ nor img_align_celeba.zip with images in it.")


def _unpacked(place: Path) -> Source | None:
    images = place / "img_align_celeba"
    if not images.is_dir():
        return None
    files = sorted((entry for entry in os.scandir(images) if _is_picture(entry.name)), key=lambda e: e.name)
    stats = [(entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in files]
    return Source(
        images, tuple(entry.name for entry in files), fingerprint(stats), lambda: _folder_reader(images)
    )


def _is_picture(name: str) -> bool:
    # Some systems lay a hidden ._000001.jpg beside each file, also in the zips that they make.
    return name.endswith(".jpg") and not name.startswith(".")


def _zipped(place: Path) -> Source | None:
    path = place / "img_align_celeba.zip"
    if not path.is_file():
        return None
    with _open_zip(path) as archive:
        members = {name: i for i in archive.infolist() if _is_picture(name := Path(i.filename).name)}
    stats = [(name, info.file_size, info.CRC) for name, info in sorted(members.items())]
    inside = {name: info.filename for name, info in members.items()}
    return Source(path, tuple(sorted(members)), fingerprint(stats), lambda: _zip_reader(path, inside))


def _decode_all(source: Source, names: list[str], out: np.ndarray, crop: str, resize: str) -> None:
    with source.reader() as read:
        decode_all(
            names,
            lambda name: decode_image(read(name), out.shape[-1], crop, resize),
            out,
            str(source.place),
            "CelebA",
        )


def decode_image(content: bytes, size: int, crop: str = "center", resize: str = "bilinear") -> np.ndarray:
    """One aligned JPEG as uint8 (3, size, size)."""
    with Image.open(io.BytesIO(content)) as image:
        if image.size != ALIGNED:
            raise ValueError(f"it is {image.size[0]}x{image.size[1]}, not the aligned 178x218")
        top, bottom, left, right = CROPS[crop]
        small = image.convert("RGB").crop((left, top, right, bottom)).resize((size, size), FILTERS[resize])
    return np.asarray(small).transpose(2, 0, 1)


def _annotation(folder: Path, name: str) -> Path:
    for layout in LAYOUTS:
        path = folder / layout / name
        if path.is_file():
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "md5").hexdigest()
            if digest != ANNOTATION_MD5[name]:
                # Attributes of the wrong file would be wrong in silence, so this is no warning.
                raise ZooError(
                    f"{path} is not the official file: its MD5 is {digest}, not {ANNOTATION_MD5[name]}."
                )
            return path
    raise UsageError(f"{folder} has no {name}, which is needed beside the images.")


def _check_names(source: Source, partition: Mapping[str, int], complete: bool) -> None:
    strangers = [name for name in source.names if name not in partition]
    if strangers:
        raise ZooError(
            f"{count(strangers, 'image')} of {source.place} not in {PARTITION_FILE}: {listed(strangers)}."
        )
    missing = sorted(set(partition) - set(source.names)) if complete else []
    if missing:
        raise ZooError(f"{count(missing, 'image')} missing from {source.place}: {listed(missing)}.")


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise ZooError(f"{path} is not a whole zip file: fetch or copy it again.") from None


@contextlib.contextmanager
def _folder_reader(folder: Path) -> Iterator[Callable[[str], bytes]]:
    yield lambda name: (folder / name).read_bytes()


@contextlib.contextmanager
def _zip_reader(path: Path, inside: Mapping[str, str]) -> Iterator[Callable[[str], bytes]]:
    with _open_zip(path) as archive:
        yield lambda name: archive.read(inside[name])
