"""Labelled images: beside each training image another one that shows its factors, one of a few that do. Labels may be
imprecise, as those of Locatello et al. (2020, https://arxiv.org/abs/1905.01258) are: a part of them wrong, rounded to a
few values, in an order that means nothing, or of some factors alone.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from zoo.data.companions import NUMBERS
from zoo.data.images import Images
from zoo.errors import UsageError
from zoo.noise import seed_for


class Labelled:
    """Which images show their factors, and one of them for each image as a function of two random numbers: each as
    often, whatever the image is. Of all other images no factor is kept here. Of images without factors the class is
    the one factor, and those whose class is hidden show none. What is told of an image is the same each time.

    Args:
        images: a training split.
        most: how many show their factors, each picture counted once; all of them, if there are fewer.
        seed: which ones, the first ones of the same order, however many they are; and what is drawn of their labels.
        bins: labels are rounded, each factor to so many bins of like size; those of a factor with no more values stay.
        noise: the chance of each label, whatever the others are, to be drawn anew, each value of its factor as often;
            before it is rounded.
        permuted: the values of each factor, or its bins, have each other's numbers, by one permutation that the seed
            draws.
        kept: the labels are of so many factors, drawn by the seed, in the order that they have among all.

    Raises:
        UsageError: the images have neither factors nor classes; or no factor has more values than ``bins``, or there
            are no more factors than ``kept``.
    """

    def __init__(
        self,
        images: Images,
        most: int,
        seed: int = 0,
        *,
        bins: int | None = None,
        noise: float | None = None,
        permuted: bool = False,
        kept: int | None = None,
    ) -> None:
        if images.factors is not None and images.factor_names:
            values, sizes = images.factors, images.factor_sizes
        elif images.labels is not None and bool((images.labels >= 0).any()):
            values, sizes = images.labels.unsqueeze(1), (int(images.labels.max()) + 1,)
        else:
            raise UsageError(
                "images that show their factors need data with factors, or with classes. "
                "`zoo list datasets` shows which have them."
            )
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        known = order[(values[order] >= 0).all(1)]
        if len(known) < len(images):  # those that show it may be there several times (`zoo.data.mnist.partly_labelled`)
            known = _different(images.pixels, known)
        self.index = known[:most]
        values, sizes = values[self.index], torch.tensor(sizes)
        if noise is not None:
            values = _erring(values, sizes, noise, seed)
        if bins is not None:
            if bins >= sizes.max():
                raise UsageError(f"label_bins={bins}: no factor of this data has more than {int(sizes.max())} values.")
            values, sizes = values * sizes.clamp(max=bins) // sizes, sizes.clamp(max=bins)
        if permuted:
            values = _renumbered(values, sizes, seed)
        if kept is not None:
            if kept >= len(sizes):
                raise UsageError(f"label_factors={kept} leaves out none of this data's factors: it has {len(sizes)}.")
            columns = torch.randperm(len(sizes), generator=_drawing(seed, "factors that are told"))[:kept].sort().values
            values, sizes = values[:, columns], sizes[columns]
        self.values = (values / sizes).float()

    @property
    def factors(self) -> int:
        """F, how many numbers are told of each."""
        return self.values.shape[1]

    def to(self, device: torch.device) -> Labelled:
        """The same on a device."""
        moved = copy.copy(self)
        moved.index, moved.values = self.index.to(device), self.values.to(device)
        return moved

    def of(self, index: Tensor, numbers: Tensor) -> Tensor:
        """As `Companions.of`: labelled images."""
        return self.index.take(self._place(numbers))

    def told(self, numbers: Tensor) -> Tensor:
        """As `Companions.told`: the number of each factor's value over how many values it has, or of its bin over how
        many bins, from 0 to below 1."""
        place = self._place(numbers)
        return self.values.index_select(0, place.flatten()).unflatten(0, place.shape)

    def _place(self, numbers: Tensor) -> Tensor:
        return numbers[..., 0] % len(self.index)


def _erring(values: Tensor, sizes: Tensor, noise: float, seed: int) -> Tensor:
    # Rows are drawn one after the other, so that what is told of the first ones does not depend on how many they are.
    drawn = torch.randint(NUMBERS, (*values.shape, 2), generator=_drawing(seed, "labels that are drawn anew"))
    return torch.where(drawn[..., 0] < int(noise * NUMBERS), drawn[..., 1] % sizes, values)


def _renumbered(values: Tensor, sizes: Tensor, seed: int) -> Tensor:
    # Of each factor all values are permuted, those that no labelled image has too.
    drawing = _drawing(seed, "numbers of values")
    numbers = [torch.randperm(size, generator=drawing) for size in sizes.tolist()]
    return torch.stack([numbers[j][values[:, j]] for j in range(len(numbers))], 1)


def _drawing(seed: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(seed, purpose))


def _different(pixels: Tensor, index: Tensor) -> Tensor:
    # The first place in ``index`` of each picture there.
    first: dict[bytes, int] = {}
    for place in index.tolist():
        first.setdefault(pixels[place].contiguous().numpy().tobytes(), place)
    return torch.tensor([*first.values()], dtype=torch.int64)
