"""Walks through the latents of a trained model: along one dimension, or from one image to another, as pictures."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.pictures import CHANNELS, to_bytes
from zoo.data.batches import Batches
from zoo.distributions.categorical import one_hot
from zoo.distributions.gaussians import DiagonalGaussian, standard_normal
from zoo.errors import UsageError
from zoo.models.base import VAE, condition_vector
from zoo.models.categorical_vae import CategoricalVAE
from zoo.models.gamma_vae import GammaVAE
from zoo.models.hierarchy import Hierarchy, Layer, centre
from zoo.models.hvae import HVAE
from zoo.models.joint_vae import JointVAE
from zoo.models.m2 import M2
from zoo.models.quantised import QuantisedVAE
from zoo.models.rae import RAE
from zoo.models.svae import SphericalVAE, on_sphere
from zoo.models.vae import VanillaVAE
from zoo.priors import Prior

Way = Literal["linear", "spherical"]
REACH = 3.0  # standard deviations to either side
LOOKED_AT, GLANCED_AT = 256, 64  # images that a dimension's rate is measured on; by an evaluation, which has more to do
ROWS, COLUMNS = 8, 8


class Latents:
    """The codes of a model as vectors, and the pictures of such vectors. This one is for a single layer of latents."""

    def __init__(self, model: VAE) -> None:
        self.model = model

    def codes(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(B, D), the centres of the posterior."""
        return self.model.represent(x, y)

    def walked(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(B, D'), the part of the codes that a walk may go along: all of it."""
        return self.codes(x, y)

    def held(self, code: Tensor, size: int) -> Tensor:
        """The part of one code (D,) that a walk along one of its first ``size`` dimensions goes on with."""
        return code[:size]

    def images(self, codes: Tensor, y: Tensor | None) -> Tensor:
        """(B, C, H, W) in [0, 1], the means of p(x | code)."""
        return self.model.likelihood.mean(self.model.decode(codes, y))

    def rates(self, x: Tensor, y: Tensor | None) -> Tensor | None:
        """(D,) nats: the mean KL of each dimension a walk may go along; None where the KL is not one of dimensions."""
        divergence = self.model.infer(x, y).kl(self.model.prior)
        return None if divergence is None else divergence.mean(0)

    def moments(self, x: Tensor, y: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation (size,) that a walk is measured in: the prior's if it is one Gaussian, else those of the
        images' codes."""
        moments = self.model.prior.moments()
        if moments is None:
            return self.spread(x, y)
        return moments[0].expand(size), (0.5 * moments[1]).exp().expand(size)

    def spread(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and deviation (D,) of the images' codes."""
        codes = self.codes(x, y)
        return codes.mean(0), codes.std(0)


class LayersOfLatents(Latents):
    """A hierarchy: codes are the means of all layers, the top first. A code of the top layer alone is a code too: the
    layers below are then at the centre of their prior, which follows the ones above."""

    model: Hierarchy

    def images(self, codes: Tensor, y: Tensor | None) -> Tensor:
        rest = codes

        def pick(prior: DiagonalGaussian | Prior, _: DiagonalGaussian | None) -> tuple[Tensor, None]:
            nonlocal rest
            size = prior.latent if isinstance(prior, Prior) else prior.mean.shape[1]
            z, rest = (rest[:, :size], rest[:, size:]) if rest.shape[1] >= size else (prior.mean, rest)
            return z, None

        return self.model.likelihood.mean(self.model.descend(pick, len(codes))[1])

    def top(self, x: Tensor) -> Layer:
        return self.model.descend(centre, len(x), self.model.ascend(x))[0][0]

    def walked(self, x: Tensor, y: Tensor | None) -> Tensor:
        return self.top(x).z

    def rates(self, x: Tensor, y: Tensor | None) -> Tensor | None:
        """(D,) nats of the top layer's dimensions."""
        top = self.top(x)
        divergence = top.posterior.kl(top.prior)
        return None if divergence is None else divergence.mean(0)

    def moments(self, x: Tensor, y: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        top = self.top(x)
        moments = top.prior.moments()
        if moments is None:
            return top.z.mean(0), top.z.std(0)
        # Of a layer that nothing is above the prior is the same in every row.
        mean, log_variance = (value.expand(len(x), size)[0] for value in moments)
        return mean, (0.5 * log_variance).exp()


class LowestLayer(Latents):
    """A Markov chain of layers, of which the picture sees the lowest alone."""

    model: HVAE

    def codes(self, x: Tensor, y: Tensor | None) -> Tensor:
        return self.model.climb(x, centre=True)[0][0]

    def images(self, codes: Tensor, y: Tensor | None) -> Tensor:
        return self.model.likelihood.mean(self.model.decode(codes))

    def rates(self, x: Tensor, y: Tensor | None) -> Tensor:
        draws, posteriors, _ = self.model.climb(x, centre=True)
        q, p = posteriors[0], self.model.prior_of(0, draws)
        return q.kl(p).mean(0)

    def moments(self, x: Tensor, y: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        return self.spread(x, y)


class LatentsAndClass(Latents):
    """M2: a class, the model's own guess or the one asked for, and a vector beside it; walks are along the vector."""

    model: M2

    def posterior(self, x: Tensor, y: Tensor | None) -> DiagonalGaussian:
        one_hot = classes_of(self.model, x, y)
        return self.model.infer(x, one_hot.unsqueeze(1))

    def codes(self, x: Tensor, y: Tensor | None) -> Tensor:
        return self.posterior(x, y).mean.squeeze(1)

    def images(self, codes: Tensor, y: Tensor | None) -> Tensor:
        return self.model.likelihood.mean(self.model.decode(codes, condition_vector(self.model.spec, y, codes)))

    def rates(self, x: Tensor, y: Tensor | None) -> Tensor:
        q = self.posterior(x, y)
        return q.kl(standard_normal(q.mean)).squeeze(1).mean(0)

    def moments(self, x: Tensor, y: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        return x.new_zeros(size), x.new_ones(size)


class Discrete(Latents):
    """Latents between which nothing lies: a walk is along what the encoder says, each step at the nearest of them."""

    def rates(self, x: Tensor, y: Tensor | None) -> Tensor:
        raise UsageError(
            "its latents are discrete, and have no scale to go along. `zoo interpolate` goes from one image to another."
        )


class GridsOfCodes(Discrete):
    """Codebooks: vectors as the encoder gives them, each step quantised."""

    model: QuantisedVAE

    def codes(self, x: Tensor, y: Tensor | None) -> Tensor:
        return torch.cat([z.flatten(1) for z, _ in self.model.quantise(x)], 1)

    def images(self, codes: Tensor, y: Tensor | None) -> Tensor:
        shapes = [(quantiser.size, *prior.grid) for quantiser, prior in zip(self.model.quantisers, self.model.priors)]
        parts = codes.split([math.prod(shape) for shape in shapes], 1)
        grids = [part.view(len(codes), *shape) for part, shape in zip(parts, shapes)]
        vectors = [quantiser(grid).vectors for quantiser, grid in zip(self.model.quantisers, grids)]
        return self.model.likelihood.mean(self.model.decode(*vectors))


class Classes(Discrete):
    """Variables of a few classes each: their probabilities, each step at the most probable ones."""

    model: CategoricalVAE

    def images(self, codes: Tensor, y: Tensor | None) -> Tensor:
        z = one_hot(codes.view(len(codes), *self.model.size))
        return self.model.likelihood.mean(self.model.decode(z))


class LatentsAndChoices(Latents):
    """JointVAE: a vector and the probabilities of classes beside it, of which the picture is that of the likeliest. A
    walk is along the vector, at the classes of its image."""

    model: JointVAE

    def walked(self, x: Tensor, y: Tensor | None) -> Tensor:
        return self.model.infer(x, y).centre

    def held(self, code: Tensor, size: int) -> Tensor:
        return code

    def images(self, codes: Tensor, y: Tensor | None) -> Tensor:
        return self.model.rebuild(codes)


class Points(Latents):
    """Codes whose dimensions have no rate of their own, as without a posterior: they are measured by how they lie."""

    model: RAE | SphericalVAE

    def rates(self, x: Tensor, y: Tensor | None) -> None:
        return None

    def moments(self, x: Tensor, y: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        return self.spread(x, y)


class OnSphere(Points):
    """Directions: a walk leaves the sphere, and what is seen of each step is its direction."""

    model: SphericalVAE

    def images(self, codes: Tensor, y: Tensor | None) -> Tensor:
        return self.model.likelihood.mean(self.model.decode(on_sphere(codes)))


class Positive(Latents):
    """Gamma variables, none of which is below zero: a walk is along their cube roots, which are nearly normal (Wilson
    and Hilferty 1931), and stops at zero."""

    model: GammaVAE

    def codes(self, x: Tensor, y: Tensor | None) -> Tensor:
        return self.model.represent(x, y).pow(1 / 3)

    def images(self, codes: Tensor, y: Tensor | None) -> Tensor:
        return super().images(codes.clamp_min(0).pow(3), y)

    def moments(self, x: Tensor, y: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        return self.model.prior.gamma.moments_of_cube_root()


def latents_of(model: VAE) -> Latents:
    """How to walk through the latents of a model.

    Raises:
        UsageError: its code alone is no picture.
    """
    if model.completes:
        raise UsageError(
            "this model completes images that it is shown a part of: its code alone is no picture. `zoo reconstruct` "
            "and `zoo sample` show what it does."
        )
    kinds = {
        JointVAE: LatentsAndChoices, GammaVAE: Positive, VanillaVAE: Latents, Hierarchy: LayersOfLatents,
        HVAE: LowestLayer, M2: LatentsAndClass, QuantisedVAE: GridsOfCodes, CategoricalVAE: Classes, RAE: Points,
        SphericalVAE: OnSphere,
    }  # fmt: skip
    for kind, latents in kinds.items():
        if isinstance(model, kind):
            return latents(model)
    raise UsageError(
        f"{type(model).__name__} is no kind of model that benchmarks/latents.py knows a way through: a subclass of "
        "VanillaVAE or Hierarchy is."
    )


@torch.no_grad()
def traverse(
    model: VAE, x: Tensor, y: Tensor | None, image: int = 0, dims: int = ROWS, steps: int = COLUMNS
) -> tuple[Tensor, list[int], list[float]]:
    """One image with one latent dimension at a time going from -3 to 3 deviations (of the prior where it is one
    Gaussian, else of the codes), the others held.

    Args:
        x, y: images (N, C, H, W) that the rates and codes are measured on, and their conditions.
        image: the one among them whose code is held.
        dims: how many dimensions, those of the largest rate first (of the largest variance, where the rate is not a
            sum over dimensions).
        steps: pictures of each.

    Returns:
        uint8 (dims * steps, C, H, W); the dimensions; their rates in nats (or variances).

    Raises:
        UsageError: the deviations are those of one code.
    """
    latents = latents_of(model)
    held = None if y is None else y[image : image + 1]
    rates, code = latents.rates(x, y), latents.codes(x[image : image + 1], held)[0]
    if rates is None:
        rates = latents.walked(x, y).var(0)
    order = rates.argsort(descending=True, stable=True)[:dims]
    mean, deviation = latents.moments(x, y, len(rates))
    if not deviation.isfinite().all():
        raise UsageError(f"a walk in deviations of the codes needs at least two images, and there is {len(x)}.")
    rows = latents.held(code, len(rates)).expand(len(order), steps, -1).clone()
    places = torch.linspace(-REACH, REACH, steps, dtype=code.dtype, device=code.device)
    for row, d in enumerate(order):
        rows[row, :, d] = mean[d] + places * deviation[d]
    if isinstance(model, M2):
        held = classes_of(model, x[image : image + 1], held)
    condition = None if held is None else held.expand(len(order) * steps, *held.shape[1:])
    drawn = to_bytes(latents.images(rows.flatten(0, 1), condition))
    return drawn, order.tolist(), rates[order].tolist()


@torch.no_grad()
def interpolate(
    model: VAE,
    a: Tensor,
    b: Tensor,
    ya: Tensor | None = None,
    yb: Tensor | None = None,
    steps: int = COLUMNS,
    way: Way = "linear",
) -> Tensor:
    """From images a to images b (N, C, H, W) in equal steps between their codes, the ends being reconstructions; a
    condition goes along in a straight line.

    Returns:
        uint8 (N * steps, C, H, W).

    Raises:
        UsageError: there is no pair.
    """
    latents = latents_of(model)
    if not len(a):
        raise UsageError("a way from one image to another needs two, and there are fewer.")
    if isinstance(model, M2):
        ya, yb = classes_of(model, a, ya), classes_of(model, b, yb)
    starts, ends = latents.codes(a, ya), latents.codes(b, yb)
    shares = torch.linspace(0, 1, steps, dtype=starts.dtype, device=starts.device)
    between = torch.stack([_between(starts, ends, share, way) for share in shares], 1)
    y = None
    if ya is not None and yb is not None:
        first, last = condition_vector(model.spec, ya, a), condition_vector(model.spec, yb, b)
        y = torch.stack([torch.lerp(first, last, share.to(first.dtype)) for share in shares], 1).flatten(0, 1)
    return to_bytes(latents.images(between.flatten(0, 1), y))


def _between(a: Tensor, b: Tensor, t: Tensor, way: Way) -> Tensor:
    return slerp(a, b, float(t)) if way == "spherical" else torch.lerp(a, b, t)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation of rows: [sin((1 - t) w) a + sin(t w) b] / sin w, w being the angle between a and b.

    It keeps the length of vectors of one length, as draws of a high-dimensional Gaussian nearly are, where the
    straight line cuts through the thinly populated middle. Shoemake 1985 for quaternions; White, Sampling Generative
    Networks, 2016, https://arxiv.org/abs/1609.04468 for latents. Vectors of one direction, or opposite ones, have no
    such arc: they are joined by the straight line.
    """
    cosine = F.cosine_similarity(a, b, dim=-1).clamp(-1, 1)
    angle = torch.acos(cosine.double()).to(a.dtype).unsqueeze(-1)
    sine = torch.sin(angle)
    arc = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / sine.clamp_min(1e-6)
    return torch.where(sine > 1e-3, arc, torch.lerp(a, b, t))


@torch.no_grad()
def pictures(model: VAE, batches: Batches) -> dict[str, Tensor]:
    """``traversals`` of the first image of a split along its eight most informative dimensions, and ``interpolations``
    of its first eight pairs, each uint8 (64, C, H, W) in rows of eight; what the model has no way for is left out, and
    all where no picture can show such images."""
    if model.spec.shape[0] not in CHANNELS:
        return {}
    _, x, y = next(iter(batches.sequential(GLANCED_AT)))
    y = y if model.conditional else None
    pairs = min(ROWS, len(x) // 2)
    first, last = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    ya, yb = (None, None) if y is None else (y[first], y[last])
    made = {}
    for name, draw in (
        ("traversals", lambda: traverse(model, x, y)[0]),
        ("interpolations", lambda: interpolate(model, x[first], x[last], ya, yb)),
    ):
        try:
            made[name] = draw()
        except UsageError:
            continue
    return {name: images for name, images in made.items() if len(images)}


def classes_of(model: M2, x: Tensor, y: Tensor | None) -> Tensor:
    """One-hot (B, K): the classes that are given, or the model's guesses."""
    if y is None:
        y = model.log_classes(x).argmax(1)
    return condition_vector(model.spec, y, x)


def frames(traversal: Tensor, dims: int) -> list[Tensor]:
    """The pictures of a traversal as an animation there and back: each uint8 (dims, C, H, W)."""
    steps = list(traversal.unflatten(0, (dims, -1)).unbind(1))
    return steps + steps[-2:0:-1]
