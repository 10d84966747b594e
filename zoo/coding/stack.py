"""A stack of bits that takes and gives symbols of any probability: range asymmetric numeral systems (Duda 2009,
https://arxiv.org/abs/0902.0271), several stacks side by side.

A symbol of mass f out of 2^b costs b - log2(f) bits when it is pushed, and what is popped with the same masses is what
was pushed last. A pop of a stack that random bits fill is a draw from those masses. What a model pushed is random bits
only where the data are as the model thinks, which they are not: the last latent variable of one image would decide
on the first of the next. So bits that something is drawn by are `flip`ped at random first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

LOWEST = 31  # a head is at least 2^31 and less than 2^63
WORD = np.uint64(32)
MASK = np.uint64(0xFFFFFFFF)
ROOM = 1024


class Stack:
    """``lanes`` stacks; an operation on m values is of the first m of them.

    A pop that finds its stack empty takes random words of the seed, as many as it takes: `begun` counts what was there
    before the first push, which is part of what is stored.

    Attributes:
        heads: uint64 (lanes,), in [2^31, 2^63).
        words: uint32 (lanes, room), of which the first ``used`` of each lane are on the stack, the last one on top.
    """

    def __init__(self, lanes: int, seed: int = 0) -> None:
        self._random = [np.random.default_rng([seed, lane]) for lane in range(lanes)]
        self.heads: Words = np.array([each.integers(1 << LOWEST, 1 << 32) for each in self._random], dtype=np.uint64)
        self.words = np.zeros((lanes, ROOM), dtype=np.uint32)
        self.used = np.zeros(lanes, dtype=np.int64)
        self.begun = np.log2(self.heads.astype(np.float64))

    @classmethod
    def of(cls, heads: Words, words: list[NDArray[np.uint32]]) -> Stack:
        """The stacks that hold what others held: heads (lanes,) and the words of each, the last one on top."""
        made = cls(len(heads))
        made.used = np.array([len(each) for each in words], dtype=np.int64)
        made.words = np.zeros((len(heads), max(ROOM, *made.used)), dtype=np.uint32)
        for lane, each in enumerate(words):
            made.words[lane, : len(each)] = each
        made.heads = heads.astype(np.uint64)
        return made

    @property
    def lanes(self) -> int:
        return len(self.heads)

    def bits(self) -> NDArray[np.float64]:
        """(lanes,) how many bits each stack holds beyond those that it began with."""
        return 32.0 * self.used + np.log2(self.heads.astype(np.float64)) - self.begun

    def push(self, start: Words, mass: Words, bits: int) -> None:
        """Push a symbol onto each of the first m stacks: that of [start, start + mass) out of 2^bits, uint64 (m,)."""
        m = len(start)
        heads = self.heads[:m]
        full = np.flatnonzero(heads >= mass << np.uint64(63 - bits))
        if len(full):
            self._make_room(full)
            self.words[full, self.used[full]] = (heads[full] & MASK).astype(np.uint32)
            self.used[full] += 1
            heads[full] >>= WORD
        quotient = heads // mass
        heads[:] = (quotient << np.uint64(bits)) + (heads - quotient * mass) + start

    def peek(self, m: int, bits: int) -> Words:
        """(m,) in [0, 2^bits): whose symbol has it in [start, start + mass) is on top."""
        return self.heads[:m] & np.uint64((1 << bits) - 1)

    def pop(self, start: Words, mass: Words, bits: int) -> None:
        """Take off the symbol that `peek` showed, as `push` has it."""
        m = len(start)
        heads = self.heads[:m]
        heads[:] = mass * (heads >> np.uint64(bits)) + (heads & np.uint64((1 << bits) - 1)) - start
        low = np.flatnonzero(heads < np.uint64(1 << LOWEST))
        if len(low):
            for lane in low[self.used[low] == 0]:
                self._begin(lane)
            self.used[low] -= 1
            heads[low] = (heads[low] << WORD) | self.words[low, self.used[low]].astype(np.uint64)

    def flip(self, mask: Words) -> None:
        """Flip bits of the first m heads, those of a mask (m,), which is less than 2^31; flipped again they are as they
        were. It costs bits where the mask goes far up: heads are as often in [2^31, 2^32) as in [2^62, 2^63)."""
        self.heads[: len(mask)] ^= mask

    def _begin(self, lane: int) -> None:
        # Below everything that is on the stack, which is nothing but its head.
        self.words[lane, 0] = self._random[lane].integers(1 << 32, dtype=np.uint64)
        self.used[lane] = 1
        self.begun[lane] += 32.0

    def _make_room(self, lanes: NDArray[np.int64]) -> None:
        if self.used[lanes].max() == self.words.shape[1]:
            self.words = np.concatenate([self.words, np.zeros_like(self.words)], 1)
