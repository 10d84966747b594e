"""Pictures beside the numbers: grids of images, and of points. Drawing libraries load on use."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.files import atomic_write

MARGIN = 2
UNKNOWN = (0.75, 0.75, 0.75, 1.0)  # the colour of a point whose class nobody knows


def png(images: Any, columns: int = 8) -> bytes:
    """The bytes of a PNG with images side by side, row by row, and no text.

    A page of few colours has a palette.

    Args:
        images: uint8 (N, C, H, W), C of 1 (an 8-bit grey file) or 3 (RGB), an array or a tensor on any device.
        columns: images in a row.

    Raises:
        ValueError: not uint8, not four axes, no images, or another C.
    """
    out = io.BytesIO()
    _with_palette(_page(images, columns)).save(out, format="PNG", optimize=True)
    return out.getvalue()


def _with_palette(page: Any) -> Any:
    # The same pixels, in a file of less than half the size.
    import numpy as np
    from PIL import Image

    if page.mode != "RGB" or page.getcolors(min(256, page.width * page.height // 16)) is None:
        return page
    # A colour as one number: rows of three are far slower to sort.
    numbers = np.asarray(page).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    colours, places = np.unique(numbers, return_inverse=True)
    made = Image.fromarray(places.reshape(numbers.shape).astype(np.uint8), "P")
    made.putpalette(b"".join(int(colour).to_bytes(3, "big") for colour in colours))
    return made


def animation(frames: list[Any], path: str | Path, columns: int) -> Path:
    """Write frames, images as `png` takes them and each shown for a tenth of a second, as a picture that repeats:
    an APNG where the file ends in .apng or .png, else a GIF; atomic. Returns the path."""
    pages = [_page(images, columns) for images in frames]
    out = io.BytesIO()
    moving = {"save_all": True, "append_images": pages[1:], "duration": 100, "loop": 0}
    kind = "PNG" if Path(path).suffix.lower() in (".apng", ".png") else "GIF"
    pages[0].save(out, format=kind, **moving)
    atomic_write(path, out.getvalue())
    return Path(path)


def _page(images: Any, columns: int) -> Any:
    import numpy as np
    from PIL import Image

    pixels = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or not pixels.size:
        raise ValueError(f"images must be uint8 (N, 1 or 3, H, W), and are {pixels.dtype} {pixels.shape}")
    n, channels, height, width = pixels.shape
    columns = max(1, min(columns, n))
    rows = -(-n // columns)
    size = (rows * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN, channels)
    page = np.full(size, 255, dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = MARGIN + i // columns * (height + MARGIN), MARGIN + i % columns * (width + MARGIN)
        page[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return Image.fromarray(page[:, :, 0] if channels == 1 else page)


def grid(images: Any, path: str | Path, columns: int = 8) -> Path:
    """Write `png` of the images to a file, atomically; its folder is made. Raises as `png` does."""
    atomic_write(path, png(images, columns))
    return Path(path)


def scatter(
    points: Any, values: Any = None, names: Sequence[str] = (), title: str = "", axes: tuple[str, str] = ("", "")
) -> Any:
    """Points in the plane as a picture: uint8 (1, 3, 420, 480), which `png` makes some ten thousand bytes of.

    Args:
        points: (N, 2). values: (N,) indices into ``names`` that colour them, grey where it is below 0 as nobody knows
            it, or None. title: what the colour says.
        axes: names of the two axes; empty for axes without a meaning, which then have no numbers either.

    Up to twenty names are spelt out; more are a scale from the first to the last.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(4.8, 4.2), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    plane = figure.subplots()
    points = np.asarray(points, dtype=np.float64)
    colours = np.tile([[0.2, 0.4, 0.7, 1.0]], (len(points), 1))
    if values is not None:
        values = np.asarray(values).astype(int)
        spelt = len(names) <= 20
        palette = colormaps["tab10" if len(names) <= 10 else "tab20"] if spelt else colormaps["viridis"]
        of_name = palette(np.arange(len(names)) if spelt else np.linspace(0, 1, len(names)))
        colours = np.where(values[:, None] < 0, [UNKNOWN], of_name[values])
        listed = range(len(names)) if spelt else (0, len(names) - 1)
        dot = {"linestyle": "", "marker": "o", "markeredgewidth": 0, "antialiased": False}
        handles = [Line2D([], [], color=of_name[i], **dot) for i in listed]
        labels = [str(names[i]) for i in listed]
        legend = figure.legend(handles, labels, title=title, loc="outside right upper", frameon=False, fontsize=8)
        for text in (legend.get_title(), *legend.get_texts()):
            text.set_parse_math(False)  # a class may be called $5
    # Without soft edges there are few colours.
    plane.scatter(*points.T, s=5, c=colours, linewidths=0, antialiased=False)
    plane.set_xlabel(axes[0], fontsize=8)
    plane.set_ylabel(axes[1], fontsize=8)
    plane.tick_params(labelsize=7)
    if not any(axes):
        plane.set_xticks([])
        plane.set_yticks([])
    canvas.draw()
    return in_few_greys(np.asarray(canvas.buffer_rgba())[:, :, :3]).transpose(2, 0, 1)[None].copy()


def in_few_greys(pixels: Any) -> Any:
    """uint8 (H, W, 3) with its greys, which the edges of letters have, in 52 levels: a palette then holds a plot."""
    import numpy as np

    grey = (pixels == pixels[..., :1]).all(-1, keepdims=True)
    return np.where(grey, 5 * np.rint(pixels / 5), pixels).astype(np.uint8)
