"""Labelled images: beside each training image another one that shows its factors, one of a few that do."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from zoo.data.images import Images
from zoo.errors import UsageError


class Labelled:
    """Which images show their factors, and one of them for each image as a function of two random numbers: each as
    often, whatever the image is. Of all other images no factor is kept here. Of images without factors the class is
    the one factor, and those whose class is hidden show none.

    Args:
        images: a training split.
        most: how many show their factors, each picture counted once; all of them, if there are fewer.
        seed: which ones; the first ones of the same order, however many they are.

    Raises:
        UsageError: the images have neither factors nor classes.
    """

    def __init__(self, images: Images, most: int, seed: int = 0) -> None:
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
        self.values = (values[self.index] / torch.tensor(sizes)).float()

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
        """As `Companions.told`: the number of each factor's value over how many values it has, from 0 to below 1."""
        place = self._place(numbers)
        return self.values.index_select(0, place.flatten()).unflatten(0, place.shape)

    def _place(self, numbers: Tensor) -> Tensor:
        return numbers[..., 0] % len(self.index)


def _different(pixels: Tensor, index: Tensor) -> Tensor:
    # The first place in ``index`` of each picture there.
    first: dict[bytes, int] = {}
    for place in index.tolist():
        first.setdefault(pixels[place].contiguous().numpy().tobytes(), place)
    return torch.tensor([*first.values()], dtype=torch.int64)
