"""Bits back: the latent variables are popped from what is stored already, and given back when they are decoded.

To store x: pop z with the masses of q(z | x), push x with those of p(x | z), push z with those of p(z). That takes
log q(z | x) - log p(x | z) - log p(z), which is -ELBO on average over z. Several layers of latents go the same way,
each given those above it, as in Bit-Swap and HiLLoC (Kingma, Abbeel and Ho 2019; Townsend et al. 2020); a grid of codes
that the image determines has nothing to pop.

Decoding runs the networks again and has to find the same numbers to the last bit. So images are taken in the same
batches both ways, one from each lane; another processor, number of threads or version of torch may round otherwise, and
then nothing can be decoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.coding.masses import TABLE_BITS, Buckets, masks, pop_symbol, pop_symbols, push_symbols, tables
from zoo.coding.stack import Stack
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.errors import UsageError
from zoo.likelihoods import Likelihood
from zoo.models.base import VAE
from zoo.models.hierarchy import Hierarchy, Layer, Pick
from zoo.models.quantised import QuantisedVAE
from zoo.models.vae import VanillaVAE
from zoo.nets.aside import aside

VALUES = {"binary": 2, "8-bit": 256}
#: numbers of a table of pixels that are computed at once
HELD = 1 << 22
BUCKET_BITS = 12
MOST_CODES = 1 << (TABLE_BITS - 6)  # each has a mass of its own, and together these must be few


@dataclass
class Message:
    """What is stored of n images.

    Attributes:
        heads, words: of each lane, as `zoo.coding.stack.Stack` has them.
        taken: (n,) nats that each image added; on average minus the ELBO, or less where that has pixels or latents that
            a mass of `zoo.coding.masses` makes cheaper.
        began: nats that the lanes held before the first image, which count as stored.
    """

    n: int
    heads: NDArray[np.uint64]
    words: list[NDArray[np.uint32]]
    bucket_bits: int
    taken: NDArray[np.float64]
    began: float


def why_not(model: VAE) -> str | None:
    """Why the images of a model cannot be stored, or None where they can."""
    found = _coder_or_reason(model)
    return found if isinstance(found, str) else None


def _coder_or_reason(model: VAE) -> _Coder | str:
    likelihood = getattr(model, "likelihood", None)
    if not model.bounds:
        return "it bounds nothing, so there are no probabilities to code with"
    if model.conditional or model.completes:
        return "who decodes would have to be told the condition"
    if not isinstance(likelihood, Likelihood) or model.spec.support not in VALUES:
        return f"its likelihood is one of {model.spec.support} data, which has no probabilities of values"
    if model.spec.support not in likelihood.supports:
        return f"a {likelihood.name} gives no probabilities of {model.spec.support} pixels"
    if model.spec.support == "8-bit" and model.spec.shape[0] > 1:
        return f"its pixels have {model.spec.shape[0]} channels of bytes, of which no more than one is coded"
    most = max((each.codes for each in model.quantisers), default=0) if isinstance(model, QuantisedVAE) else 0
    if most > MOST_CODES:
        return f"its quantiser has {most:,} codes, and {MOST_CODES:,} can be told apart"
    return _coder(model) or "its posterior or its prior is not one of Gaussians, layer by layer, or of codes"


@torch.no_grad()
def compress(
    model: VAE, images: Iterable[Tensor], lanes: int, bucket_bits: int = BUCKET_BITS, seed: int = 0
) -> Message:
    """Store images, given in batches (B, C, H, W) of ``lanes`` of which the last may be smaller.

    Args:
        lanes: stacks side by side. Each begins with random bits for the latents of its first image, so that many are
            faster and few are shorter.
        bucket_bits: how finely a latent variable is stored.
        seed: of those random bits.

    Raises:
        UsageError: `why_not` says why.
    """
    coder = _coder_of(model)
    stack, buckets, taken = Stack(lanes, seed), Buckets(bucket_bits), []
    for batch, x in enumerate(images):
        before = stack.bits()
        coder.push(stack, buckets, x, batch)
        taken.append((stack.bits() - before)[: len(x)])
    words = [stack.words[lane, : stack.used[lane]].copy() for lane in range(lanes)]
    nats = np.concatenate(taken) * math.log(2.0)
    return Message(len(nats), stack.heads, words, bucket_bits, nats, float(stack.begun.sum()) * math.log(2.0))


@torch.no_grad()
def decompress(model: VAE, message: Message) -> Iterator[Tensor]:
    """The batches (B, C, H, W) that were stored, the last one first.

    Raises:
        UsageError: as `compress`.
    """
    coder = _coder_of(model)
    stack, buckets = Stack.of(message.heads, message.words), Buckets(message.bucket_bits)
    lanes = stack.lanes
    for start in reversed(range(0, message.n, lanes)):
        yield coder.pop(stack, buckets, min(lanes, message.n - start), start // lanes)


def _coder_of(model: VAE) -> _Coder:
    found = _coder_or_reason(model)
    if isinstance(found, str):
        raise UsageError(f"this model's images cannot be stored: {found}.")
    return found


class _Coder(Protocol):
    def push(self, stack: Stack, buckets: Buckets, x: Tensor, batch: int) -> None: ...

    def pop(self, stack: Stack, buckets: Buckets, rows: int, batch: int) -> Tensor: ...


def _coder(model: VAE) -> _Coder | None:
    if isinstance(model, QuantisedVAE):
        return _Grids(model)
    if isinstance(model, Hierarchy) and type(model).log_weights is Hierarchy.log_weights:
        layers: _Layers = _Stacked(model)
    elif isinstance(model, VanillaVAE) and type(model).log_weights is VanillaVAE.log_weights:
        layers = _Single(model)
    else:
        return None
    return layers if layers.gaussian() else None


class _Layers:
    # Gaussian latents, drawn from the top down.
    def __init__(self, model: VAE) -> None:
        self.model = model

    def descend(self, pick: Pick, rows: int, x: Tensor | None = None) -> tuple[list[Layer], Tensor]:
        raise NotImplementedError

    def gaussian(self) -> bool:
        """Whether each layer is a diagonal Gaussian given those above it, in the posterior and in the prior."""
        found = []

        def look(prior, posterior):
            found.append(prior.moments() is not None and isinstance(posterior, DiagonalGaussian))
            return posterior.centre, None

        with torch.no_grad(), aside(self.model):
            self.descend(look, 1, next(self.model.parameters()).new_zeros(1, *self.model.spec.shape))
        return all(found)

    def push(self, stack: Stack, buckets: Buckets, x: Tensor, batch: int) -> None:
        chosen = []

        def take(prior, posterior):
            mean, deviation = _beside(posterior, prior)
            chosen.append(buckets.pop(stack, mean, deviation, masks(batch, len(chosen), *mean.shape[::-1])))
            return _values(chosen[-1], buckets, prior, posterior.mean), None

        _, params = self.descend(take, len(x), x)
        _push_pixels(stack, self.model, params, x)
        for buckets_of_layer in reversed(chosen):
            buckets.push_prior(stack, buckets_of_layer)

    def pop(self, stack: Stack, buckets: Buckets, rows: int, batch: int) -> Tensor:
        chosen = []

        def draw(prior, posterior):
            mean, _ = prior.moments()
            chosen.append(buckets.pop_prior(stack, rows, mean.shape[-1]))
            return _values(chosen[-1], buckets, prior, mean), None

        _, params = self.descend(draw, rows)
        x = _pop_pixels(stack, self.model, params)
        drawn = iter(chosen)

        def again(prior, posterior):
            return _values(next(drawn), buckets, prior, posterior.mean), None

        layers, _ = self.descend(again, rows, x)
        for level, (layer, drawn_there) in reversed(list(enumerate(zip(layers, chosen, strict=True)))):
            flips = masks(batch, level, *drawn_there.shape[::-1])
            buckets.push(stack, drawn_there, *_beside(layer.posterior, layer.prior), flips)
        return x


class _Stacked(_Layers):
    def descend(self, pick: Pick, rows: int, x: Tensor | None = None) -> tuple[list[Layer], Tensor]:
        return self.model.descend(pick, rows, None if x is None else self.model.ascend(x))


class _Single(_Layers):
    def descend(self, pick: Pick, rows: int, x: Tensor | None = None) -> tuple[list[Layer], Tensor]:
        prior = self.model.prior
        posterior = None if x is None else self.model.infer(x)
        z, log_q = pick(prior, posterior)
        return [Layer(prior, posterior, z, log_q)], self.model.decode(z)


class _Grids:
    # Codes that the image determines, grid after grid under autoregressive priors; one or several codes a place.
    def __init__(self, model: QuantisedVAE) -> None:
        self.model = model

    def push(self, stack: Stack, buckets: Buckets, x: Tensor, batch: int) -> None:
        codes = [q.codes for _, q in self.model.quantise(x)]
        _push_pixels(stack, self.model, self.model.decode(*self.model.embedded(codes)), x)
        # The first position of the first grid has to come out first.
        for grid in reversed(range(len(codes))):
            starts = self._starts(grid, codes)[:, ::-1]
            push_symbols(stack, codes[grid].flatten(1).cpu().numpy()[:, ::-1], starts)

    def pop(self, stack: Stack, buckets: Buckets, rows: int, batch: int) -> Tensor:
        device = next(self.model.parameters()).device
        codes = [torch.zeros(rows, *prior.shape, dtype=torch.int64, device=device) for prior in self.model.priors]
        for grid, some in enumerate(codes):
            flat = some.view(rows, -1)
            for place in range(flat.shape[1]):
                # All positions at once, each time: the same sums in the same order as when they were pushed.
                flat[:, place] = torch.from_numpy(pop_symbol(stack, self._starts(grid, codes)[:, place])).to(device)
        return _pop_pixels(stack, self.model, self.model.decode(*self.model.embedded(codes)))

    def _starts(self, grid: int, codes: Sequence[Tensor]) -> NDArray[np.uint64]:
        logits = self.model.priors[grid].logits(codes[grid], self.model.told(grid, codes))
        return tables(torch.softmax(logits.double(), 2).cpu().numpy())


def _beside(posterior: DiagonalGaussian, prior) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # Mean and deviation of the posterior where the prior is N(0, 1), float64 (B, D).
    mean, log_variance = (part.double() for part in prior.moments())
    shift = (posterior.mean.double() - mean) * torch.exp(-0.5 * log_variance)
    return shift.cpu().numpy(), torch.exp(0.5 * (posterior.log_variance.double() - log_variance)).cpu().numpy()


def _values(chosen: NDArray[np.int64], buckets: Buckets, prior, like: Tensor) -> Tensor:
    # What the middle of a bucket stands for under the prior, in the type that the networks compute in.
    mean, log_variance = (part.double() for part in prior.moments())
    standard = torch.from_numpy(buckets.centres[chosen]).to(mean.device)
    return (mean + torch.exp(0.5 * log_variance) * standard).to(like.dtype)


def _push_pixels(stack: Stack, model: VAE, params: Tensor, x: Tensor) -> None:
    values = VALUES[model.spec.support] - 1
    symbols = (x.flatten(1).double() * values).round().long().cpu().numpy()
    push_symbols(stack, symbols, _pixels(model, params))


def _pop_pixels(stack: Stack, model: VAE, params: Tensor) -> Tensor:
    values = VALUES[model.spec.support] - 1
    symbols = torch.from_numpy(pop_symbols(stack, _pixels(model, params))).to(params.device)
    return (symbols.float() / values).view(len(params), *model.spec.shape)


def _pixels(model: VAE, params: Tensor) -> NDArray[np.uint64]:
    # Each pixel is taken for an image of its own, so that the likelihood gives the probability of its value; of binary
    # images with several channels each of these is a pixel.
    number, channels = VALUES[model.spec.support], model.spec.shape[0]
    each = params.shape[1] // channels
    maps = params.unflatten(1, (channels, each)).movedim(2, -1).reshape(-1, each, 1, 1)
    values = torch.arange(number, device=params.device, dtype=torch.float32) / (number - 1)
    log_likelihood = getattr(model, "log_likelihood", model.likelihood.log_prob)
    rows = max(1, HELD // (number * each))
    parts = []
    for some in maps.split(rows):
        known = some.repeat_interleave(number, 0)
        pixels = values.repeat(len(some)).view(-1, 1, 1, 1)
        parts.append(log_likelihood(known, pixels).double().view(-1, number))
    probabilities = torch.softmax(torch.cat(parts), 1)
    return tables(probabilities.cpu().numpy()).reshape(len(params), -1, number + 1)
