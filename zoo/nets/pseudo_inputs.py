"""Learned images whose codes stand for those of the data: of a VampPrior, and of a learned metric."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def free_inputs(count: int, shape: tuple[int, ...]) -> nn.Parameter:
    """``count`` images (count, C, H, W) as the official code of VampPrior begins them, N(0.05, 0.01^2)."""
    return nn.Parameter(0.05 + 0.01 * torch.randn(count, *shape))


def images_of(free: Tensor, confined: bool) -> Tensor:
    """The images of free numbers (K, C, H, W); where data lies in [0, 1] they are ``confined``, by a hardtanh."""
    return F.hardtanh(free, 0.0, 1.0) if confined else free


@torch.no_grad()
def start_at(free: Tensor, x: Tensor, confined: bool, spread: float = 0.02) -> None:
    """Set free numbers (K, C, H, W) to random rows of x (N, C, H, W), repeated if N < K, plus a little noise.

    Those that are confined are moved into [0.01, 0.99]: on the bounds the hardtanh passes no gradient, and most pixels
    of binary or dark images would never move again.
    """
    k = len(free)
    rows = torch.randperm(len(x)) if len(x) >= k else torch.randint(len(x), (k,))
    images = x[rows[:k].to(x.device)].to(free)
    moved = images + spread * torch.randn_like(images)
    free.copy_(moved.clamp(0.01, 0.99) if confined else moved)
