"""Whole-number masses, which a stack takes, for the probabilities that a model gives: of the values of a pixel, the
codes of a grid, and the buckets of a Gaussian latent variable.

What has to be stored has a mass, however small: a pixel that a model thinks impossible is dear, but costs no more than
`TABLE_BITS`, and a latent variable far from its prior no more there than one bit less than `GAUSSIAN_BITS`. Rounding
costs bits as well; the sizes here keep that to about a thousandth of what an image takes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from zoo.coding.stack import Stack, Words

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

TABLE_BITS = 20
GAUSSIAN_BITS = 26
WIDTH = 3.0


def masks(batch: int, level: int, places: int, rows: int) -> Words:
    """Random numbers (places, rows) of `GAUSSIAN_BITS` for `Stack.flip`, of a layer of latents of a batch of images."""
    raw = np.random.Philox(key=[batch, level]).random_raw(places * rows)
    return (raw >> np.uint64(64 - GAUSSIAN_BITS)).reshape(places, rows)


def tables(probabilities: Floats) -> Words:
    """Where the mass of each of V symbols starts out of 2^`TABLE_BITS`, uint64 (..., V + 1), for probabilities
    (..., V), which add up to one but for rounding."""
    symbols = probabilities.shape[-1]
    below = probabilities.cumsum(-1)
    below /= below[..., -1:]
    starts = np.zeros((*below.shape[:-1], symbols + 1), dtype=np.uint64)
    # One for each symbol, and the rest as the model says.
    spread = np.floor(below * ((1 << TABLE_BITS) - symbols))
    starts[..., 1:] = (spread + np.arange(1, symbols + 1)).astype(np.uint64)
    return starts


def push_symbols(stack: Stack, symbols: Whole, starts: Words) -> None:
    """Push (m, P) symbols, whose masses start as `tables` (m, P, V + 1) says, the first of each row first."""
    at = symbols[..., None].astype(np.int64)
    first = np.take_along_axis(starts, at, -1)[..., 0]
    mass = np.take_along_axis(starts, at + 1, -1)[..., 0] - first
    for place in range(symbols.shape[1]):
        stack.push(first[:, place], mass[:, place], TABLE_BITS)


def pop_symbols(stack: Stack, starts: Words) -> Whole:
    """The (m, P) symbols that `push_symbols` pushed."""
    rows, places, _ = starts.shape
    symbols = np.zeros((rows, places), dtype=np.int64)
    for place in reversed(range(places)):
        symbols[:, place] = pop_symbol(stack, starts[:, place])
    return symbols


def pop_symbol(stack: Stack, starts: Words) -> Whole:
    """(m,) symbols of `tables` (m, V + 1)."""
    rows = np.arange(len(starts))
    shown = stack.peek(len(starts), TABLE_BITS)
    symbol = (starts[:, 1:-1] <= shown[:, None]).sum(1)
    first = starts[rows, symbol]
    stack.pop(first, starts[rows, symbol + 1] - first, TABLE_BITS)
    return symbol


class Buckets:
    """The line in 2^bits buckets of equal mass under N(0, 3^2), in which a latent variable is stored when its prior is
    N(0, 1): ``centres`` are their medians.

    z is told apart no finer than that: with 16 bits one unit has 8,700 of them about 0, and the outermost begin at
    12.5, for posteriors lie where N(0, 1) hardly ever does.
    """

    def __init__(self, bits: int) -> None:
        self.bits, self.number = bits, 1 << bits
        self.edges = WIDTH * ndtri(np.arange(self.number + 1) / self.number)
        self.centres = WIDTH * ndtri((np.arange(self.number) + 0.5) / self.number)

    def push(self, stack: Stack, buckets: Whole, mean: Floats, deviation: Floats, masks: Words) -> None:
        """Undo `pop`: push the (m, D) buckets that it drew, the last of each row first."""
        for place in reversed(range(buckets.shape[1])):
            self._push(stack, buckets[:, place], self._masses(mean[:, place], deviation[:, place]))
            stack.flip(masks[place])

    def pop(self, stack: Stack, mean: Floats, deviation: Floats, masks: Words) -> Whole:
        """(m, D) buckets drawn from N(mean, deviation^2), both (m, D), by the bits on the stack and `masks` (D, m). A
        bucket whose mass rounds to nothing is not drawn: together they would be drawn too often to be so far away."""
        rows, places = mean.shape
        found = np.zeros((rows, places), dtype=np.int64)
        for place in range(places):
            stack.flip(masks[place])
            found[:, place] = self._pop(stack, rows, self._masses(mean[:, place], deviation[:, place]))
        return found

    def push_prior(self, stack: Stack, buckets: Whole) -> None:
        """Push any (m, D) buckets under N(0, 1), the last of each row first."""
        for place in reversed(range(buckets.shape[1])):
            self._push(stack, buckets[:, place], self._prior)

    def pop_prior(self, stack: Stack, rows: int, places: int) -> Whole:
        """The (rows, places) buckets that `push_prior` pushed."""
        found = np.zeros((rows, places), dtype=np.int64)
        for place in range(places):
            found[:, place] = self._pop(stack, rows, self._prior)
        return found

    def _push(self, stack: Stack, buckets: Whole, starts: Callable[[Whole], Words]) -> None:
        start = starts(buckets)
        # A mass is 0 only where networks round otherwise than when it was drawn: what comes out then is checked.
        stack.push(start, np.maximum(starts(buckets + 1) - start, 1), GAUSSIAN_BITS)

    def _pop(self, stack: Stack, rows: int, starts: Callable[[Whole], Words]) -> Whole:
        shown = stack.peek(rows, GAUSSIAN_BITS)
        bucket = np.zeros(rows, dtype=np.int64)
        for step in reversed(range(self.bits)):
            middle = bucket + (1 << step)
            bucket = np.where(starts(middle) <= shown, middle, bucket)
        start = starts(bucket)
        stack.pop(start, starts(bucket + 1) - start, GAUSSIAN_BITS)
        return bucket

    def _masses(self, mean: Floats, deviation: Floats) -> Callable[[Whole], Words]:
        def starts(buckets: Whole) -> Words:
            below = ndtr((self.edges[buckets] - mean) / deviation)
            return (below * (1 << GAUSSIAN_BITS)).astype(np.uint64)

        return starts

    def _prior(self, buckets: Whole) -> Words:
        # Two for each bucket, for whichever the posterior took has to be stored: one is its own, the other may be lost
        # where the last bit of ndtr goes down.
        below = ndtr(self.edges[buckets]) * ((1 << GAUSSIAN_BITS) - 2 * self.number)
        return (np.floor(below) + 2 * buckets).astype(np.uint64)
