"""One class of a data set apart from the others, for a model that must not have seen it.

Every data set with classes has the option ``exclude_class=N`` (`zoo.runs` applies it): class N is then in none of
its splits, and the numbers of the other classes stay what they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zoo.data.images import Images, ImageSet
from zoo.errors import UsageError
from zoo.files import fingerprint


def without_class(images: ImageSet, number: Any) -> ImageSet:
    """The set less one class. It has a hash of its own, and no renderer, which could draw what was left out.

    Raises:
        UsageError: the set has no class of that number, or nothing else, or images whose class is hidden.
    """
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < images.spec.classes:
        known = f"classes 0 to {images.spec.classes - 1}" if images.spec.classes else "no classes"
        raise UsageError(f"'{images.name}' has {known}, and exclude_class is {number!r}.")
    if any((split.labels < 0).any() for split in images.splits.values()):
        raise UsageError(
            f"'{images.name}' hides the class of some images, which may be of class {number}: exclude_class cannot "
            "leave them out."
        )
    splits = {}
    for name, split in images.splits.items():
        splits[name] = split.take((split.labels != number).nonzero().squeeze(1))
        if not len(splits[name]):
            raise UsageError(f"the {name} split of '{images.name}' has no class but {number}.")
    mark = fingerprint({"of": images.sha256, "without class": number})
    return replace(images, splits=splits, render=None, known_sha256=mark)


def only_class(images: Images, number: int) -> Images:
    """The pictures of one class, in their order."""
    return images.take((images.labels == number).nonzero().squeeze(1))
