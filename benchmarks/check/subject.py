"""A variant as it is examined: small models of it, fresh or after a few steps, and the pictures they are shown."""

from __future__ import annotations

import copy
import functools
import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from zoo.config import TrainConfig
from zoo.data.batches import Batches
from zoo.data.companions import joined
from zoo.data.images import DataSpec, Images
from zoo.data.synthetic import load_synthetic
from zoo.models import build, settings_of
from zoo.models.base import VAE
from zoo.registry import VariantEntry, registry
from zoo.settings import merge
from zoo.training.optimise import Group, backward
from zoo.training.precision import choose
from zoo.training.trainer import Trainer

DIGITS = DataSpec((1, 28, 28), "binary", classes=10)
COLOUR = DataSpec((3, 32, 32), "8-bit", classes=10)
TINY = DataSpec((1, 8, 8), "binary", classes=10)
# Sizes are cut to these wherever a variant has a setting of that name, at any depth: what is tested has no size.
LARGEST = {
    "latent": 6,
    "hidden": 32,
    "channels": 8,
    "components": 5,
    "flows": 2,
    "context": 4,
    "vectors": 3,
    "groups_per_scale": 2,
    "expansion": 2,
}
# What a setting is set to whose description says that it weighs something in training.
OTHER_WEIGHTS = (0.0, 10.0)
KNOWN_STEPS, KNOWN_IMAGES = 10, 64
TINY_STEPS, TINY_IMAGES = 50, 8
ROWS = 1024  # that a model is shown at once


class Subject:
    """One variant under examination.

    Args:
        name: what it is called.
        entry: its registry entry.
    """

    def __init__(self, name: str, entry: VariantEntry) -> None:
        self.name, self.entry = name, entry
        self._known: VAE | None = None

    @property
    def conditional(self) -> bool:
        return bool(self.entry.load().conditional)

    @property
    def bounds(self) -> bool:
        return bool(self.entry.load().bounds)

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """The entry's settings with sizes cut."""
        return merge(self.entry.settings, cut(settings_of(self.entry, self.entry.settings)))

    def make(self, spec: DataSpec = DIGITS, **settings: Any) -> VAE:
        """A small fresh model in training mode; its weights come from torch's generator as it is."""
        return build(self.entry, spec, merge(self.settings, settings))

    def known(self) -> VAE:
        """A small model of 28x28 bits after a few steps, in evaluation mode: nothing in it is at the value it was
        initialised to. Each call gives a copy; the global generator is left as it was."""
        if self._known is None:
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                torch.manual_seed(1)
                model = fit(self.make(), self.entry, KNOWN_IMAGES, KNOWN_STEPS)
            self._known = model.requires_grad_(False).eval()
        return copy.deepcopy(self._known)

    def trainable(self) -> VAE:
        """`known` in training mode."""
        return self.known().requires_grad_(True).train()

    def reweighed(self) -> Iterator[tuple[str, float, VAE]]:
        """For every setting that is a weight of training: its name, another value, and `known` built with that. A value
        that is refused or makes another architecture (a part that is not there at zero) is passed over."""
        known = self.known()
        for path, value in weights(known.settings):
            for other in OTHER_WEIGHTS:
                if other == value:
                    continue
                nested: Any = other
                for key in reversed(path):
                    nested = {key: nested}
                try:
                    with torch.random.fork_rng(devices=[]):
                        model = self.make(**nested)
                    model.load_state_dict(known.state_dict())
                except Exception:
                    continue
                model.train_size = known.train_size
                yield ".".join(path), other, model.requires_grad_(False).eval()

    def batch(self, n: int) -> tuple[Tensor, Tensor | None]:
        """x (n, 1, 28, 28) of bits and, for a conditional variant, the classes (n,)."""
        x, y = digits()
        return x[:n], y[:n] if self.conditional else None

    def shown(self, n: int) -> tuple[Tensor, Tensor | None]:
        """`batch` as training has it: with the classes for a variant that learns from them, too, and with other images
        for one that is trained on pairs or beside labelled images, whose one factor is the class."""
        x, y = digits()
        kind, others = self.entry.load(), slice(n, 2 * n)
        if kind.factor_supervised:
            return x[:n], joined(x[others], y[others, None] / DIGITS.classes)
        return x[:n], x[others] if kind.paired else y[:n] if kind.conditional or kind.supervised else None

    def tiny(self) -> tuple[Tensor, Tensor | None]:
        """x (8, 1, 8, 8) of bits and, for a conditional variant, the classes (8,)."""
        x, y = tiny()
        return x, y if self.conditional else None

    @functools.cached_property
    def elbo(self) -> tuple[float, float]:
        """Mean and error of the ELBO of 32 images under `known`, in nats, from 200 posterior samples."""
        model, (x, y) = self.known(), self.batch(32)
        return mean_and_error(elbos(model, x, y, 200))

    @functools.cached_property
    def memorised(self) -> tuple[VAE, float]:
        """A model trained on `tiny` pictures alone, in evaluation mode, and its mean ELBO in nats before that.

        No step after training is made: `recollect` may part what is reported from what is drawn.
        """
        x, y = self.tiny()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(2)
            model = self.make(TINY)
            # Four times over, so that batch normalisation has statistics.
            x, y = x.repeat(4, 1, 1, 1), None if y is None else y.repeat(4)
            model.initialise(x, y)
            with torch.no_grad():
                before = model.eval().terms(x, y).elbo.mean().item()
            config = TrainConfig(learning_rate=1e-2)
            groups = {key: Group(key, members, config) for key, members in model.parameter_groups().items()}
            model.train()
            for _ in range(TINY_STEPS):
                losses = model.losses(x, y, 1.0)
                backward(losses, groups)
                for key in losses:
                    groups[key].step()
                model.after_step()
        return model.requires_grad_(False).eval(), before


def elbos(model: VAE, x: Tensor, y: Tensor | None, draws: int) -> Tensor:
    """(draws, B): the ELBO of each image in nats, from so many posterior samples of one each. No gradient."""
    distortion, rate = parts(model, x, y, draws)
    return -(distortion + rate)


@torch.no_grad()
def parts(model: VAE, x: Tensor, y: Tensor | None, draws: int) -> tuple[Tensor, Tensor]:
    """Distortion and rate, (draws, B) each: those of each image in nats, from so many posterior samples of one each. No
    gradient."""
    at_once = max(1, ROWS // len(x))
    distortions, rates = [], []
    for first in range(0, draws, at_once):
        many = min(at_once, draws - first)
        terms = model.terms(x.repeat(many, 1, 1, 1), None if y is None else y.repeat(many))
        distortions.append(terms.distortion.view(many, -1))
        rates.append(terms.rate.sum(1).view(many, -1))
    return torch.cat(distortions), torch.cat(rates)


@functools.cache
def subject(name: str) -> Subject:
    """The registered variant, one object a process, so that its models are trained once.

    Raises:
        UsageError: there is no such variant; the message has the nearest name.
    """
    return Subject(*registry().variant(name))


def cut(settings: BaseModel) -> dict[str, Any]:
    """The settings whose size is over `LARGEST`, with that size instead."""
    small: dict[str, Any] = {}
    for key, value in settings:
        most = LARGEST.get(key, math.inf)
        if isinstance(value, BaseModel):
            small[key] = cut(value)
        elif isinstance(value, int) and value > most:
            small[key] = most
        elif isinstance(value, tuple) and any(isinstance(item, int) and item > most for item in value):
            small[key] = [min(item, most) for item in value]
    return small


def weights(settings: BaseModel, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Where the weights of training are among the settings, at any depth, and what they are."""
    for key, field in type(settings).model_fields.items():
        value = getattr(settings, key)
        if isinstance(value, BaseModel):
            yield from weights(value, (*above, key))
        elif isinstance(value, float) and re.search("weight of|weighs", field.description or ""):
            yield (*above, key), value


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """256 black-and-white images and their classes."""
    images = load_synthetic().prepare("threshold")["train"].subset(256)
    return images.pixels.float() / 255, images.labels


@functools.cache
def tiny() -> tuple[Tensor, Tensor]:
    """Eight 8x8 images of random 2x2 blocks, each a class of its own."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(TINY_IMAGES, 1, 4, 4, generator=generator).round()
    return blocks.repeat_interleave(2, 2).repeat_interleave(2, 3), torch.arange(TINY_IMAGES)


def fit(model: VAE, entry: VariantEntry, n: int, steps: int, warmup: int = 0, **recipe: Any) -> VAE:
    """Train for so many steps, those of the ``warmup`` among them, on the same n digits, by the trainer and the
    variant's own recipe."""
    pixels, labels = digits()
    images = Images((pixels[:n] * 255).to(torch.uint8), labels[:n])
    condition = "class" if model.conditional else "none"
    batches = Batches(images, batch_size=n, condition=condition, partners=model.companions(images))
    fixed = {"epochs": steps, "batch_size": n, "warmup": warmup, "ema": 0, "keep": "last"}
    fixed["validate_every"] = max(steps, 1)
    config = TrainConfig.model_validate(entry.train | recipe | fixed)
    Trainer(model, batches, batches, config, choose("cpu")).fit()
    return model


def ids(n: int) -> Tensor:
    """Numbers of n examples, as `zoo.noise.keyed` wants them."""
    return torch.arange(n)


def mean_and_error(draws: Tensor) -> tuple[float, float]:
    """Mean and standard error of independent draws along the first dimension, each averaged over the rest."""
    each = draws.double().flatten(1).mean(1)
    return each.mean().item(), each.std().item() / math.sqrt(len(each))
