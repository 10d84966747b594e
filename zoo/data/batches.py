"""Batches made where the model lives: uint8 pictures moved once, a batch is an index and a conversion there.

No worker processes and no waiting for the device: a permutation is drawn on the CPU, moved, and everything
after it is queued on the device.
"""

from __future__ import annotations

import copy
import functools
import itertools
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import torch
from torch import Tensor

from zoo import noise
from zoo.data.companions import NUMBERS, Companions, joined
from zoo.data.images import Images
from zoo.errors import UsageError

Condition = Literal["none", "class", "attributes"]
RESIDENT_BYTES = 8 * 2**30
# Batches that are collected ahead of the one in use, where pictures stay in host memory.
AHEAD = 2
SEQUENTIAL_SEED = 0
LARGEST_NOISE = 1 - 2.0**-16  # what float32 has of a byte of 128 or more, and a part of one
# What lies on a device already, by the pictures it is a copy of.
_copies: weakref.WeakValueDictionary[tuple[int, torch.device], Tensor] = weakref.WeakValueDictionary()


class Batches:
    """An endless supply of epochs over one split.

    Args:
        images: the split.
        batch_size: examples a batch (on this process).
        device: where ``x`` and ``y`` are wanted.
        binarise_on_the_fly: a pixel is 1 with probability byte/255, drawn anew at each visit from the
            ``generator`` attribute; for the training split of a set prepared with ``"dynamic"``. The noise of
            dequantised bytes (`Images.noise_seed`) is drawn from it likewise.
        condition: what ``y`` is: None, int64 (B,) classes, or float32 (B, A) attributes.
        shuffle_seed: the order of epoch i is a function of (seed, i) alone; None keeps the order of the
            split.
        drop_last: leave out the last batch if it is not full.
        rank, world: this process takes every ``world``-th batch-sized piece of the common order, the
            ``rank``-th.
        resident_bytes: pictures up to this size are moved to the device whole; larger ones (or larger than
            half of a GPU's free memory) stay in host memory, and a thread collects each batch in pinned memory
            ahead of its use.
        partners: of the split; ``y`` is then, where batches are for training, a partner of each example as ``x`` shows
            it, float32 (B, C, H, W), drawn at each visit from the ``generator`` attribute, and `joined` with what is
            told of it. Those of pictures that stay in host memory are collected when they are drawn, and the device
            waits for them.

    Raises:
        UsageError: not one whole batch can be made, or the split does not have what ``condition`` asks for.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        binarise_on_the_fly: bool = False,
        condition: Condition = "none",
        shuffle_seed: int | None = None,
        drop_last: bool = True,
        rank: int = 0,
        world: int = 1,
        resident_bytes: int = RESIDENT_BYTES,
        partners: Companions | None = None,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"the batch size is at least 1, not {batch_size}.")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not below world {world}")
        if binarise_on_the_fly and images.pixels.dtype != torch.uint8:
            raise UsageError("real data cannot be binarised.")
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.binarise_on_the_fly = binarise_on_the_fly
        self.noise_seed = None if images.noise_seed is None else noise.seed_for(images.noise_seed, "dequantisation")
        self.shuffle_seed = shuffle_seed
        self.drop_last = drop_last
        self.generator: torch.Generator | None = None  # what is drawn from; None is the device's own
        self.rank, self.world = rank, world
        self.n = len(images)
        if self.n == 0 or (drop_last and self.n < batch_size * world):
            mend = ": train.batch_size has to be smaller" if self.n >= world else ""
            raise UsageError(f"{self.n} images do not fill one batch of {batch_size * world}{mend}.")
        there = _copy(images.pixels, self.device)
        self.resident = there is not None or images.pixels.nbytes <= _room(self.device, resident_bytes)
        if there is None:
            there = _moved(images.pixels, self.device) if self.resident else images.pixels
        self._pixels = there
        self._y = _conditions(images, condition, self.device)
        self._partners = partners.to(self.device) if partners else None

    def __len__(self) -> int:
        """Batches an epoch, on each process."""
        step = self.batch_size * self.world
        return self.n // step if self.drop_last else -(-self.n // step)

    def epoch(self, i: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor | None]]:
        """(x, y) of epoch ``i`` from batch ``start`` on: x float32 (B, C, H, W), y as ``condition`` says."""
        order = self.order(i)
        placed = order.to(self.device, non_blocking=True)
        step = self.batch_size * self.world
        lows = [min(batch * step + self.rank * self.batch_size, self.n) for batch in range(start, len(self))]
        pieces = [slice(low, min(low + self.batch_size, self.n)) for low in lows]
        supply = self._supply([(order if not self.resident else placed)[piece] for piece in pieces])
        for batch, piece, x in zip(range(start, len(self)), pieces, supply, strict=True):
            rows = min(step, self.n - batch * step)
            yield self._shown(x, rows), self._told(placed[piece], rows)

    def take(self, index: Tensor, generators: Sequence[torch.Generator] = ()) -> tuple[Tensor, Tensor | None]:
        """(x, y) of the examples ``index`` (B,), as `epoch` gives them where the pictures lie on the device.

        With ``generators`` there is a batch for each, ``index`` (R, B) and x (R, B, C, H, W), and each draws its own.
        """
        rows = index.shape[-1]
        return self._shown(self._at(index), rows, generators), self._told(index, rows, generators)

    def _at(self, index: Tensor) -> Tensor:
        # The pictures at ``index`` (..., B), (..., B, C, H, W); of one axis where they stay in host memory.
        if self.resident:
            return self._floats(_selected(self._pixels, index))
        return self._floats(self._placed(self._collected(index.cpu())))

    def _floats(self, pixels: Tensor) -> Tensor:
        # As `floats`; bytes that are yet to be dequantised from 0 to 255.
        return floats(pixels) if self.noise_seed is None else pixels.to(torch.float32)

    def _shown(self, x: Tensor, rows: int, generators: Sequence[torch.Generator] = ()) -> Tensor:
        # rows: of the whole batch, of which x may be the part of this process.
        if self.noise_seed is None and not self.binarise_on_the_fly:
            return x
        chances = self._drawn(Tensor.uniform_, x, rows, x.shape[-3:], generators)
        return (chances < x).to(x.dtype) if self.noise_seed is None else dequantised(x, chances)

    def _told(self, index: Tensor, rows: int, generators: Sequence[torch.Generator] = ()) -> Tensor | None:
        # What goes with the pictures at ``index``.
        if self._partners:
            numbers = self._drawn(_whole_numbers, index, rows, (2,), generators)
            shown = self._shown(self._at(self._partners.of(index, numbers)), rows, generators)
            return joined(shown, self._partners.told(numbers))
        return None if self._y is None else _selected(self._y, index)

    def whole(self, drop_last: bool | None = None) -> Batches:
        """The batches of all processes together, on each of them: over the same pictures, in the same order.

        With ``drop_last`` false the last batch is there even if it is not full; None leaves that as it was.
        """
        joined = copy.copy(self)
        joined.drop_last = self.drop_last if drop_last is None else drop_last
        joined.batch_size, joined.rank, joined.world = self.batch_size * self.world, 0, 1
        return joined

    def sequential(self, batch_size: int | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Every example once, in order, for evaluation: (ids int64 (B,), x, y). Each process gets its share of them.

        Bits drawn on the fly, and the noise of dequantised bytes, are a function of the example's id here, so that they
        depend on no batch size.
        """
        size = batch_size or self.batch_size
        ids = torch.arange(self.n)
        placed = ids.to(self.device)
        lows = range(self.rank * size, self.n, self.world * size)
        supply = self._supply([(ids if not self.resident else placed)[low : low + size] for low in lows])
        for low, x in zip(lows, supply, strict=True):
            index = placed[low : low + size]
            if self.noise_seed is not None:
                with noise.keyed(self.noise_seed, index):
                    x = dequantised(x, noise.uniform(x))
            elif self.binarise_on_the_fly:
                with noise.keyed(SEQUENTIAL_SEED, index):
                    x = (noise.uniform(x) < x).to(x.dtype)
            yield index, x, None if self._y is None else self._y.index_select(0, index)

    def _drawn(
        self,
        fill: Callable[..., Tensor],
        like: Tensor,
        rows: int,
        shape: Sequence[int],
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        # Numbers of the type of ``like``, (B, *shape) or (R, B, *shape). Every process draws for the whole batch and
        # takes its rows: all stay in the same random state, and a batch is the same however many share it.
        made = functools.partial(torch.empty, dtype=like.dtype, device=self.device)
        if generators:
            drawn = made(len(generators), rows, *shape)
            for part, generator in zip(drawn, generators, strict=True):
                fill(part, generator=generator)
            return drawn
        low = self.rank * self.batch_size
        return fill(made(rows, *shape), generator=self.generator)[low : low + len(like)]

    def order(self, i: int) -> Tensor:
        """int64 (n,) on the CPU: the examples in the order of epoch ``i``."""
        if self.shuffle_seed is None:
            return torch.arange(self.n)
        generator = torch.Generator().manual_seed(noise.seed_for(i, f"order {self.shuffle_seed}"))
        return torch.randperm(self.n, generator=generator)

    def _supply(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        """The pictures at each of ``indices`` as float32, on the device."""
        if self.resident:
            yield from (self._floats(self._pixels.index_select(0, index)) for index in indices)
            return
        # A thread collects the next batches in pinned memory, and reads them from disk where they are mapped from
        # there, while the device works on this one.
        with ThreadPoolExecutor(1, "batches") as pool:
            ahead: deque[Future[Tensor]] = deque()
            waiting = iter(indices)
            try:
                ahead.extend(pool.submit(self._collected, index) for index in itertools.islice(waiting, AHEAD))
                while ahead:
                    collected = ahead.popleft().result()
                    ahead.extend(pool.submit(self._collected, index) for index in itertools.islice(waiting, 1))
                    yield self._floats(self._placed(collected))
            finally:  # whoever stops in the middle of an epoch does not wait for the rest
                for future in ahead:
                    future.cancel()

    def _collected(self, index: Tensor) -> Tensor:
        return self._pixels.index_select(0, index).pin_memory()

    def _placed(self, collected: Tensor) -> Tensor:
        return collected.to(self.device, non_blocking=True)


def floats(pixels: Tensor) -> Tensor:
    """Pixels of `Images` as a model takes them, float32: bytes over 255, real data as it is."""
    return pixels.to(torch.float32).div_(255) if pixels.dtype == torch.uint8 else pixels


def dequantised(values: Tensor, u: Tensor | float) -> Tensor:
    """(byte + u) / 256 in [0, 1) for bytes as floats, 0 to 255, and u in [0, 1): 256 times it, rounded down, is the
    byte again, as u ends before the sum would round up to the next one."""
    u = u.clamp_max(LARGEST_NOISE) if isinstance(u, Tensor) else u
    return (values + u) / 256


def _selected(values: Tensor, index: Tensor) -> Tensor:
    found = values.index_select(0, index.flatten())
    return found.view(*index.shape, *found.shape[1:])


def _whole_numbers(empty: Tensor, generator: torch.Generator | None) -> Tensor:
    return empty.random_(0, NUMBERS, generator=generator)


def _conditions(images: Images, condition: Condition, device: torch.device) -> Tensor | None:
    if condition == "none":
        return None
    if condition == "class" and images.labels is not None:
        return images.labels.to(device)
    if condition == "attributes" and images.attributes is not None:
        return images.attributes.to(device=device, dtype=torch.float32)
    if condition in ("class", "attributes"):
        raise UsageError(
            f"this data has no {'labels' if condition == 'class' else 'attributes'} to condition on."
        )
    raise UsageError(f"condition is 'none', 'class' or 'attributes', not {condition!r}.")


def _moved(pixels: Tensor, device: torch.device) -> Tensor:
    moved = pixels.to(device)
    if moved is not pixels:
        moved.source = weakref.ref(pixels)
        _copies[id(pixels), device] = moved
    return moved


def _copy(pixels: Tensor, device: torch.device) -> Tensor | None:
    # One for all who train on the same pictures at once.
    moved = _copies.get((id(pixels), device))
    return moved if moved is not None and moved.source() is pixels else None


def _room(device: torch.device, resident_bytes: int) -> int:
    if device.type == "cpu":
        return sys.maxsize  # they are there already, or mapped from a file
    if device.type == "cuda":
        return min(resident_bytes, torch.cuda.mem_get_info(device)[0] // 2)
    return resident_bytes
