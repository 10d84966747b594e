"""A finished run, ready to be asked for pictures: its model, the images it was tested on, the conditions it knows."""

from __future__ import annotations

import difflib
import logging
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.evaluation.representation import once
from zoo.data.batches import Batches
from zoo.data.images import ImageSet
from zoo.errors import UsageError, fold
from zoo.noise import seed_for
from zoo.runs import load_run
from zoo.runs.folder import Described, describe_run
from zoo.runs.images import condition_of, load_images
from zoo.training.precision import choose

log = logging.getLogger(__name__)


class Finished:
    """A run folder (or one that `zoo export` wrote).

    Raises:
        UsageError: the folder is not a run, or there is no such device.
        ZooError: the run is not finished, or its files are damaged.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.folder = folder
        self.described = describe_run(folder)
        self.device = choose(device).device
        self.model = load_run(folder, str(self.device))

    @cached_property
    def _data(self):
        data = self.described.config.data
        if data.name == "folder" and not data.options.get("root"):
            raise UsageError(
                f"{self.folder} does not say in which folder its images lie: `zoo export` leaves that out. Give the "
                "run that it was made of, or draw samples, which need none."
            )
        images = load_images(self.described.config)
        if images.sha256 != self.described.data_sha256:
            self._compare(images)
        return images

    def _compare(self, images: ImageSet) -> None:
        """Warn that the data changed after training; `UsageError` where the model cannot take them, or a condition
        would mean something else to it."""
        other = self.described.spec.shape != images.spec.shape
        other |= self.model.conditional and conditions_differ(self.described, images)
        said = f"{self.folder} was trained on other data than '{self.described.config.data.name}' is now"
        if other:
            raise UsageError(f"{said}, of another shape or with other classes or attributes.")
        log.warning("%s: the test images are those of now.", said)

    def images(self, n: int, seed: int) -> tuple[Tensor, Tensor | None]:
        """x (n, C, H, W) and their conditions: all of `test` at once."""
        _, x, y = next(iter(self.test(n, seed).sequential(n)))
        return x, y

    def test(self, n: int, seed: int) -> Batches:
        """n images of the test split, chosen by the seed (fewer if there are fewer), with their conditions."""
        condition = condition_of(self.model, self.described.spec) if self.model.conditional else "none"
        split = self._data["test"]
        generator = torch.Generator().manual_seed(seed_for(seed, "images"))
        split = split.take(torch.randperm(len(split), generator=generator)[:n])
        return Batches(split, batch_size=512, drop_last=False, device=self.device, condition=condition)

    def first(self, n: int | None, split: str) -> Batches:
        """The first n images of a split (None: all), in its order and without conditions."""
        images = self._data[split]
        images = images if n is None else images.subset(n)
        return Batches(images, batch_size=512, drop_last=False, device=self.device)

    def train(self) -> Batches:
        """All training images in order, as `once` has them, with one drawing of the bits of those that are binarised
        anew at each visit."""
        split, dynamic = once(self._data["train"]), self._data.binarise == "dynamic"
        return Batches(split, batch_size=512, drop_last=False, device=self.device, binarise_on_the_fly=dynamic)

    def condition(
        self,
        n: int,
        seed: int,
        class_: str | None = None,
        attributes: dict[str, int] | None = None,
        given: Tensor | None = None,
    ) -> Tensor | None:
        """What the model is told for n pictures: classes (n,) or attributes (n, A).

        Args:
            class_: by number or name, for all of them.
            attributes: the values of some by name. The others are those ``given``, or of examples seen in training.
            given: the conditions of images; returned as they are where nothing is asked for.

        Raises:
            UsageError: the model cannot be asked for that, or there is no such class or attribute.
        """
        spec = self.described.spec
        takes_classes = spec.classes > 0 and (self.model.conditional or self.model.supervised)
        takes_attributes = self.model.conditional and spec.attributes > 0 and not takes_classes
        variant, data = self.described.config.variant, self.described.config.data.name
        if class_ is not None:
            if not takes_classes:
                raise UsageError(f"this {variant} was not trained on classes, so it cannot be asked for one.")
            return torch.full((n,), self._class(class_), device=self.device)
        if not attributes:
            return given
        if not takes_attributes:
            raise UsageError(f"this {variant} was not trained on attributes of {data}, so it cannot be asked for any.")
        y = given.clone() if given is not None else self._seen(n, seed)
        for name, value in attributes.items():
            y[:, self._attribute(name)] = value
        return y

    def _seen(self, n: int, seed: int) -> Tensor:
        seen = getattr(self.model, "seen", None)
        if seen is None or seen.shape[1:] != (self.described.spec.attributes,):
            return torch.zeros(n, self.described.spec.attributes, device=self.device)
        generator = torch.Generator().manual_seed(seed_for(seed, "conditions"))
        return seen[torch.randint(len(seen), (n,), generator=generator).to(seen.device)].float().clone()

    def _class(self, asked: str) -> int:
        count = self.described.spec.classes
        names = self.described.classes or self._data.classes
        if asked.isascii() and asked.isdigit() and asked not in names:
            if len(asked) < 10 and int(asked) < count:
                return int(asked)
            raise UsageError(f"no class {asked}: the {count} classes are 0 to {count - 1}.")
        return _index("class", asked, names or tuple(map(str, range(count))))

    def _attribute(self, asked: str) -> int:
        return _index("attribute", asked, self.described.attributes or self._data["train"].attribute_names)


def conditions_differ(described: Described, images: ImageSet) -> bool:
    """Whether a class or an attribute of ``images`` is not the one of that number in the data that a run knows."""
    ours, theirs = described.spec, images.spec
    names = (tuple(map(str, images.classes)), images["train"].attribute_names)
    # An older version wrote no names.
    renamed = any(a and a != b for a, b in zip((described.classes, described.attributes), names))
    return renamed or (ours.classes, ours.attributes) != (theirs.classes, theirs.attributes)


def _index(kind: str, asked: str, names: tuple[str, ...]) -> int:
    if asked in names:  # letters may be classes, the small ones beside the capitals
        return names.index(asked)
    folded = [fold(name) for name in names]
    if fold(asked) in folded:
        return folded.index(fold(asked))
    near = [names[folded.index(name)] for name in difflib.get_close_matches(fold(asked), folded, n=3, cutoff=0.4)]
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    raise UsageError(f"no {kind} '{asked}'.{hint} There are: {', '.join(names)}.")
