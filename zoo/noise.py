"""The random numbers of a model: a generator in training, a function of the example in evaluation.

A reported number must not depend on how the examples were batched. Drawn from a running generator it does: the
second image of a batch of 64 gets other noise than the second batch of one. Inside `keyed` each number is a pure
function of (seed, example id, sample index, how many draws came before, position within the draw), so batches of 1, 7
and 64, any chunking of the samples, and any device give the same evaluation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo.context import holding

_MASK32 = 0xFFFFFFFF


@dataclass
class _Keys:
    rows: Tensor  # int64 (rows,), one 32-bit key per (sample, example)
    draws: int = 0


@dataclass(frozen=True)
class Draw:
    """One draw from the ordinary generator, to be made again."""

    fill: Callable[..., Tensor]
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def again(self, generators: Sequence[torch.Generator]) -> Tensor:
        """The numbers that this draw gives now from each of the generators, (R, ...)."""
        drawn = torch.empty(len(generators), *self.shape, dtype=self.dtype, device=self.device)
        for part, generator in zip(drawn, generators, strict=True):
            self.fill(part, generator=generator)
        return drawn


@dataclass
class Part:
    """Rows ``start`` to ``stop`` of a training batch of ``rows``, and what the parts before this one have drawn."""

    rows: int
    start: int
    stop: int
    tape: list[Tensor] = field(default_factory=list)
    draws: int = 0


_keys: ContextVar[_Keys | None] = ContextVar("zoo_noise_keys", default=None)
_part: ContextVar[Part | None] = ContextVar("zoo_noise_part", default=None)
_heard: ContextVar[list[Draw] | None] = ContextVar("zoo_noise_heard", default=None)
_given: ContextVar[Iterator[Tensor] | None] = ContextVar("zoo_noise_given", default=None)
_source: ContextVar[torch.Generator | None] = ContextVar("zoo_noise_source", default=None)


def seed_for(seed: int, purpose: str) -> int:
    """A seed of its own for each use of randomness, so that no two streams are the same."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:8], "big") >> 1


def normal(like: Tensor, shared: bool = False) -> Tensor:
    """Standard normal numbers with the shape, type and device of ``like``; half types give float32.

    Those that are ``shared`` belong to no example, and are the same for all parts of a batch; for training only.
    """
    keys = _keys.get()
    if keys is None:
        return _drawn(Tensor.normal_, like, shared)
    if shared:
        raise ValueError("inside `keyed` every number belongs to an example: numbers that are shared are for training")
    # erfinv maps the open interval (0, 1) onto the line; `_uniform` never reaches its ends.
    return (math.sqrt(2.0) * torch.erfinv(2.0 * _uniform(keys, like) - 1.0)).to(_real(like))


def uniform(like: Tensor) -> Tensor:
    """Uniform numbers in (0, 1) with the shape, type and device of ``like``, and 0 itself may come where they are not
    `keyed`; half types give float32."""
    keys = _keys.get()
    return _drawn(Tensor.uniform_, like) if keys is None else _uniform(keys, like).to(_real(like))


def index(like: Tensor, n: int) -> Tensor:
    """Integers from 0 to ``n`` - 1, each as likely, int64 with the shape and device of ``like``."""
    return (uniform(like) * n).long().clamp_max(n - 1)


def picked(rows: Tensor, count: int) -> Tensor:
    """(count, D): rows of a batch (N, D), drawn evenly with replacement; for training only. Inside `part_of` rows are
    drawn from the whole batch, and those that are not in this part are zeros: the sum over the parts is the draw.
    """
    part, n = _part.get(), len(rows)
    if part is None:
        return rows[torch.randint(n, (count,), device=rows.device, generator=_source.get())]
    each = n // (part.stop - part.start)
    if part.draws == len(part.tape):
        of_all = torch.randint(each * part.rows, (count,), device=rows.device, generator=_source.get())
        part.tape.append(of_all)
    place = part.tape[part.draws] - each * part.start
    part.draws += 1
    mine = ((place >= 0) & (place < n)).unsqueeze(1)
    return torch.where(mine, rows[place.clamp(0, n - 1)], 0.0)


def component(weights: Tensor, n: int) -> Tensor:
    """``n`` indices, int64 (n,), drawn with probabilities ``weights`` (K,), which add up to 1."""
    u, cumulative = uniform(weights.new_empty(n, 1)).squeeze(1), weights.cumsum(0)
    # The last sum may round to less than 1, and u may lie above it.
    return torch.searchsorted(cumulative, u.to(cumulative.dtype)).clamp_max(len(cumulative) - 1)


def keyed(seed: int, ids: Tensor, samples: Sequence[int] = (0,)) -> AbstractContextManager[_Keys]:
    """Make `normal` and `uniform` a function of the example inside the block.

    Args:
        seed: states the whole set of numbers; the record carries it.
        ids: int64 (B,), the number of each example in its split.
        samples: the indices of the posterior samples that the block draws. Tensors asked for inside have leading
            dimension B, or ``len(samples) * B`` with the sample index slow (sample-major).
    """
    device = ids.device
    index = torch.as_tensor(list(samples), dtype=torch.int64, device=device)
    rows = _mix(_mix(ids + _mix_int(seed)).unsqueeze(0) ^ _mix(index + 0x632BE5).unsqueeze(1)).flatten()
    return holding(_keys, _Keys(rows))


def source(generator: torch.Generator | None) -> AbstractContextManager[torch.Generator | None]:
    """Make `normal` and `uniform` draw from ``generator`` inside the block; None is the device's own."""
    return holding(_source, generator)


def part_of(rows: int, start: int, stop: int, tape: list[Tensor]) -> AbstractContextManager[Part]:
    """Make `normal` and `uniform` give rows ``start`` to ``stop`` of what a batch of ``rows`` would be given.

    A batch that is divided, over processes or one part after another, then trains on the noise of the whole one.
    ``tape`` is one list for all parts that a process computes of the same batch: the first part draws for all.
    """
    return holding(_part, Part(rows, start, stop, tape))


def listen() -> AbstractContextManager[list[Draw]]:
    """Write down what is drawn inside the block, in order."""
    return holding(_heard, [])


def given(draws: Iterable[Tensor]) -> AbstractContextManager[Iterator[Tensor]]:
    """Make `normal` and `uniform` return ``draws`` one after the other inside the block, and draw nothing: for a step
    that is transformed or captured, where a generator cannot be asked."""
    return holding(_given, iter(draws))


def _drawn(fill: Callable[..., Tensor], like: Tensor, shared: bool = False) -> Tensor:
    if (draws := _given.get()) is not None:
        return next(draws)
    part, kind, generator = _part.get(), _real(like), _source.get()
    if (heard := _heard.get()) is not None:
        heard.append(Draw(fill, like.shape, kind, like.device))
    if part is None:
        return fill(torch.empty_like(like, dtype=kind), generator=generator)
    mine = part.stop - part.start
    # Some draws have several samples an example, the sample index slow; some have nothing to do with the examples.
    samples, rest = divmod(len(like), mine) if like.dim() and not shared else (0, 1)
    if part.draws == len(part.tape):
        shape = like.shape if rest else (samples, part.rows, *like.shape[1:])
        # Numbers are filled in in the order of memory, so the whole batch must lie in memory as its part does.
        last = not rest and samples == 1 and like.dim() == 4 and not like.is_contiguous()
        if last and like.is_contiguous(memory_format=torch.channels_last):
            made = torch.empty(shape[1:], dtype=kind, device=like.device, memory_format=torch.channels_last)
            part.tape.append(fill(made, generator=generator).unsqueeze(0))
        else:
            part.tape.append(fill(torch.empty(shape, dtype=kind, device=like.device), generator=generator))
    whole = part.tape[part.draws]
    part.draws += 1
    return whole if rest else whole[:, part.start : part.stop].reshape(like.shape)


def _uniform(keys: _Keys, like: Tensor) -> Tensor:
    if len(like) != len(keys.rows):
        raise ValueError(f"keyed noise is for {len(keys.rows)} rows (samples x examples), not for {len(like)}")
    rows = keys.rows
    width = like[0].numel() if len(like) else 0
    salt = _mix_int(0x9E3779B9 * (keys.draws + 1))
    keys.draws += 1
    column = _mix(torch.arange(width, device=like.device, dtype=torch.int64) + salt)
    bits = _mix(rows.to(like.device).unsqueeze(1) ^ column.unsqueeze(0))
    # 23 bits and a half fit float32's 24: each number is the centre of its cell, so 0 and 1 are never reached.
    return (((bits >> 9).to(torch.float32) + 0.5) * 2.0**-23).view(like.shape)


def _mix(value: Tensor) -> Tensor:
    # A 32-bit finaliser (multiply, xor-shift) on int64 storage; products stay below 2**63 by splitting the factor.
    value = value & _MASK32
    value = value ^ (value >> 16)
    value = _multiply(value, 0x21F0AAAD)
    value = value ^ (value >> 15)
    value = _multiply(value, 0xD35A2D97)
    return value ^ (value >> 15)


def _multiply(value: Tensor, factor: int) -> Tensor:
    low, high = factor & 0xFFFF, factor >> 16
    return (value * low + (((value * high) & 0xFFFF) << 16)) & _MASK32


def _mix_int(value: int) -> int:
    return int(_mix(torch.tensor(value & _MASK32)))


def _real(like: Tensor) -> torch.dtype:
    return like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
