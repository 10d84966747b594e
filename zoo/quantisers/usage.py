"""How evenly codes are used."""

from __future__ import annotations

import torch
from torch import Tensor


def code_counts(codes: Tensor, number: int) -> Tensor:
    """(number,) int64: how often each code occurs in int64 ``codes`` of any shape; counts of several batches add up."""
    flat = codes.reshape(-1)
    counts = torch.zeros(number, dtype=flat.dtype, device=flat.device)
    return counts.scatter_add_(0, flat, torch.ones_like(flat))


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of the codes, 0-dim float32 in [1, K]. It depends on how many codes were counted: few of them
    cannot have a large one."""
    # In float64: the exponential of what float32 makes of a sum over thousands of codes may be more than K.
    frequency = counts.double() / counts.sum()
    return torch.exp(torch.special.entr(frequency).sum()).float()


def code_use(counts: Tensor) -> Tensor:
    """The share of the K codes that occur at all, 0-dim in [0, 1]."""
    return (counts > 0).float().mean()
