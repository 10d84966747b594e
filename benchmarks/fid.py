"""`zoo fid A B`: compare two sets of images on disk, each a folder of pictures or an npz of bytes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.metrics.extractors import make_extractor
from benchmarks.metrics.quality import image_quality
from zoo.data.folder import SUFFIXES, eight_bits
from zoo.errors import UsageError
from zoo.files import BROKEN_NPZ, expanded, npz_error


def score_folders(
    a: str | Path, b: str | Path, extractor: str = "inception", device: str = "cpu"
) -> dict[str, float]:
    """The scores of images ``a`` (generated) against ``b`` (real): metric -> value, with ``<metric>_stderr``
    beside it.

    Metrics are those of `image_quality` for that extractor, plus ``n`` and ``reference_n``; what it remarks about one,
    as a bias, is logged. Raises UsageError for a path that holds no images, for images of different sizes, and for an
    unknown extractor.
    """
    scores: dict[str, float] = {}
    quality = quality_of_folders(a, b, extractor, device)
    for name, metric in quality.items():
        scores[name] = metric["value"]
        if metric["stderr"] is not None:
            scores[f"{name}_stderr"] = metric["stderr"]
        if metric["note"]:
            logging.getLogger(__name__).warning("%s: %s", name, metric["note"])
    identity = next(iter(quality.values()))["identity"]
    return scores | {"n": identity["n"], "reference_n": identity["reference_n"]}


def quality_of_folders(
    a: str | Path, b: str | Path, extractor: str = "inception", device: str = "cpu"
) -> dict[str, dict[str, Any]]:
    """`score_folders` in full, as `image_quality` returns it. Remembers the features of ``b``."""
    fake, real = load_images(a), load_images(b)
    # A folder of grey pictures against one of colour ones is two ways of saving, not two kinds of images.
    if fake.shape[1] != real.shape[1]:
        fake, real = fake.expand(-1, 3, -1, -1), real.expand(-1, 3, -1, -1)
    return image_quality(fake, real, make_extractor(extractor, device), cache_key=Path(b).stem)


def load_images(path: str | Path) -> Tensor:
    """uint8 (N, C, H, W) of a folder of pictures (sorted by name, not recursive, without hidden files)
    or of an npz of uint8 images.

    Pictures are grey only if all are; others become RGB, and what is transparent has the colour that lies beneath. The
    npz holds one array, or one named ``images`` or ``arr_0``, (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3.
    Raises UsageError for anything else.
    """
    path = expanded(path)
    if path.is_dir():
        return _load_folder(path)
    if path.suffix == ".npz" and path.is_file():
        return _load_npz(path)
    reason = "is neither a folder nor an .npz file" if path.exists() else "does not exist"
    raise UsageError(f"{path} {reason}; `zoo fid` compares folders of images or npz files of uint8 images.")


def _load_folder(folder: Path) -> Tensor:
    from PIL import Image

    there = (file for file in folder.iterdir() if not file.name.startswith("."))
    files = sorted(file for file in there if file.suffix.lower() in SUFFIXES)
    if not files:
        raise UsageError(f"{folder} holds no images ({', '.join(suffix[1:] for suffix in SUFFIXES)}).")
    pictures: list[np.ndarray] = []
    for file in files:
        try:
            with Image.open(file) as opened:
                image = eight_bits(opened, opened.format)
                grey = image.mode in ("1", "L")
                pixels = np.asarray(image.convert("L" if grey else "RGB"))
        except Exception as error:
            raise UsageError(f"{file} is not a readable image: {error}.") from error
        if pictures and pixels.shape[:2] != pictures[0].shape[:2]:
            first, this = (f"{p.shape[1]}x{p.shape[0]}" for p in (pictures[0], pixels))
            raise UsageError(
                f"{folder} has images of different sizes: {files[0].name} {first}, {file.name} {this}."
            )
        pictures.append(pixels)
    if any(p.ndim == 3 for p in pictures):
        pictures = [p if p.ndim == 3 else np.repeat(p[..., None], 3, axis=2) for p in pictures]
    return _channels_first(np.stack(pictures), folder)


def _load_npz(path: Path) -> Tensor:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            name = next(
                (name for name in ("images", "arr_0") if name in names), names[0] if len(names) == 1 else None
            )
            if name is None:
                raise UsageError(
                    f"{path} holds {len(names)} arrays, none of them called 'images' or 'arr_0'."
                )
            array = file[name]
    except BROKEN_NPZ as error:
        raise npz_error(path, error) from error
    if array.dtype != np.uint8:
        raise UsageError(f"{path} holds {array.dtype} numbers; images must be uint8.")
    return _channels_first(array, path)


def _channels_first(array: np.ndarray, path: Path) -> Tensor:
    images = torch.from_numpy(array)
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    shape = tuple(array.shape)
    raise UsageError(f"{path} holds shape {shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W).")
