"""One run on several processes: each computes its share of every batch, and all make the same update.

The processes are those of `torchrun`. Gradients are averaged by hand and not by torch's wrapper module, because a
variant with several parameter groups takes the gradient of each loss for its own group only, which the wrapper's hooks
never see. Whoever is alone pays nothing: without `torchrun` there is a world of one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zoo import processes
from zoo.errors import UsageError, one_line


@dataclass(frozen=True)
class World:
    """How many processes train this run and which of them this is. Rank 0 writes files and talks."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """Examples of a batch on each process."""
        if batch_size % self.size:
            raise UsageError(f"a batch of {batch_size} cannot be divided evenly among {self.size} processes.")
        return batch_size // self.size

    def add(self, tensor: Tensor) -> Tensor:
        """Sum over the processes, in place; the same bits on each."""
        return processes.add(tensor) if self.size > 1 else tensor

    def average(self, gradients: Iterable[Tensor]) -> None:
        """Replace gradients by their mean over the processes. One that is not finite anywhere is so everywhere."""
        tensors = list(gradients)
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        processes.add(flat)
        flat /= self.size
        for tensor, piece in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(piece.view_as(tensor))

    def any(self, *flags: bool, device: torch.device) -> tuple[bool, ...]:
        """Each flag as true as it is on any process."""
        if self.size == 1:
            return flags
        return tuple(value > 0 for value in self.add(torch.tensor([float(flag) for flag in flags], device=device)))

    def agree(self, model: nn.Module) -> None:
        """Start every process from the weights of the first."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)


ALONE = World()


def asked_for() -> World:
    """What the environment says that `torchrun` sets; nothing is started. `UsageError` where it says no numbers."""
    try:
        rank, size = (int(os.environ.get(name) or usual) for name, usual in (("RANK", 0), ("WORLD_SIZE", 1)))
    except ValueError:
        raise UsageError("$RANK and $WORLD_SIZE are numbers, which `torchrun` sets.") from None
    if size > 1 and not 0 <= rank < size:
        raise UsageError(f"$RANK is {rank}, and of $WORLD_SIZE={size} processes the last is {size - 1}.")
    return World(rank, size) if size > 1 else ALONE


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that `torchrun` made, connected inside the block: NCCL between GPUs, gloo between CPUs.

    Raises:
        UsageError: the environment names several processes, and does not say where they meet.
    """
    world = asked_for()
    if world.size == 1:
        yield ALONE
        return
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=world.rank, world_size=world.size)
    except ValueError as error:
        said = one_line(error).rpartition(": ")[2].rstrip(".")
        raise UsageError(f"$WORLD_SIZE says {world.size} processes, which `torchrun` starts: {said}.") from None
    try:
        yield world
    finally:
        dist.destroy_process_group()
        processes.parted()
