"""Partners: to each training image another one that shares some of its factors, drawn where the images lie.

The law, of images with F named factors. First it is drawn which factors are drawn anew: how many is given, or each of 1
to F - 1 as often, and which ones, each choice as often. The partner is then any training image with the same values of
all the other factors, each as often. The image itself is among those: a factor that is drawn anew may come to the value
that it had, and where a split leaves nothing else of a cell the image is its own partner. An image of another split is
nobody's partner. Of images without factors the class is what is shared, and all else is drawn anew.
"""

from __future__ import annotations

import copy
import itertools
import math

import torch
from torch import Tensor

from zoo.data.images import Images
from zoo.errors import UsageError

MOST_WAYS = 256  # each takes eight bytes an image
KEYS = 2**62


class Partners:
    """Who is whose partner, as a function of two random numbers.

    Args:
        images: a training split.
        changed: how many factors are drawn anew; None is 1 to all but one, each number as often.
        tell: which factors are shared is told with each partner.

    Raises:
        UsageError: the images have neither two factors nor classes, or hide the class of some; or so many factors
            cannot be drawn anew, or in too many ways; or there is to be told what there is not.
    """

    def __init__(self, images: Images, changed: int | None = None, tell: bool = False) -> None:
        if tell and len(images.factor_names) < 2:
            raise UsageError("which factors a pair shares can be told of data with two named factors or more.")
        values, sizes, shared, often = _known(images, changed)
        self.n = len(images)
        # A way is a choice of what is shared. `ways` has each as often as it is drawn.
        self.ways = torch.arange(len(shared)).repeat_interleave(torch.tensor(often))
        self.kept: Tensor | None = None  # (W, F), 1 for what a way shares
        if tell:
            self.kept = torch.zeros(len(shared), len(sizes))
            for way, columns in enumerate(shared):
                self.kept[way, columns] = 1.0
        # For each way all images, those of a cell, which agree in what is shared, behind each other; for each way and
        # image its cell; and where the cells begin, in the same numbering for all ways.
        orders, cells, starts = [], [], []
        for way, columns in enumerate(shared):
            order, cell, start = _cells(values, sizes, columns)
            cells.append((cell + sum(map(len, starts))).int())
            orders.append(order.int())
            starts.append(start + way * self.n)
        self.order, self.cell = torch.cat(orders), torch.cat(cells)
        self.starts = torch.cat([*starts, torch.tensor([len(self.order)])])

    def to(self, device: torch.device) -> Partners:
        """The same on a device."""
        moved = copy.copy(self)
        for name in ("ways", "order", "cell", "starts", "kept"):
            value = getattr(self, name)
            setattr(moved, name, None if value is None else value.to(device))
        return moved

    def of(self, index: Tensor, numbers: Tensor) -> Tensor:
        """int64, the partners of the images ``index``, of the same shape; ``numbers`` (..., 2) are drawn evenly from 0
        to `zoo.data.companions.NUMBERS`. Waits for nothing."""
        way = self._way(numbers)
        cell = self.cell.take(way * self.n + index).long()
        start = self.starts.take(cell)
        place = numbers[..., 1] % (self.starts.take(cell + 1) - start)
        return self.order.take(start + place).long()

    def told(self, numbers: Tensor) -> Tensor | None:
        """float32 (..., F), 1 for each factor that is shared with the partners that ``numbers`` give and 0 for each
        that is drawn anew, to whatever value; None where it is not to be told."""
        if self.kept is None:
            return None
        way = self._way(numbers)
        return self.kept.index_select(0, way.flatten()).unflatten(0, way.shape)

    def _way(self, numbers: Tensor) -> Tensor:
        return self.ways.take(numbers[..., 0] % len(self.ways))


def _known(images: Images, changed: int | None) -> tuple[Tensor, list[int], list[list[int]], list[int]]:
    # int64 (N, F) values, how many each factor has, and the ways: the columns that are shared, and how often.
    count = len(images.factor_names)
    if count < 2 and images.labels is not None:
        if changed is not None:
            raise UsageError(f"changed={changed} is of data with factors: pairs of this data share their class.")
        if (images.labels < 0).any():
            raise UsageError("pairs need the class of each training image, and this data hides that of some.")
        return images.labels.unsqueeze(1), [int(images.labels.max()) + 1], [[0]], [1]
    if images.factors is None or count < 2:
        raise UsageError(
            "pairs of images that share factors need data with two named factors or more, or with classes. "
            "`zoo list datasets` shows which have factors."
        )
    if changed is not None and not 1 <= changed < count:
        raise UsageError(f"changed={changed}: of the {count} factors of this data 1 to {count - 1} can be drawn anew.")
    numbers = range(1, count) if changed is None else (changed,)
    if sum(math.comb(count, k) for k in numbers) > MOST_WAYS:
        some = f"1 to {count - 1}" if changed is None else changed
        raise UsageError(
            f"{some} of {count} factors can be chosen in more than {MOST_WAYS} ways, which is too many for pairs: "
            "set `changed` to a number that leaves fewer."
        )
    common = math.lcm(*(math.comb(count, k) for k in numbers))
    shared, often = [], []
    for k in numbers:
        for kept in itertools.combinations(range(count), count - k):
            shared.append([*kept])
            often.append(common // math.comb(count, k))
    return images.factors, [*images.factor_sizes], shared, often


def _cells(values: Tensor, sizes: list[int], columns: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    # The images (N,) in the order of their cells, the cell of each image (N,), and where each cell begins.
    key, keys = torch.zeros(len(values), dtype=torch.int64), 1
    for column in columns:
        if keys * sizes[column] > KEYS:
            key, keys = key.unique(return_inverse=True)[1], len(values)
        key = key * sizes[column] + values[:, column]
        keys *= sizes[column]
    key, order = key.sort(stable=True)
    first = torch.cat([torch.ones(1, dtype=torch.bool), key[1:] != key[:-1]])
    cell = torch.empty_like(order)
    cell[order] = first.cumsum(0) - 1
    return order, cell, first.nonzero().squeeze(1)
