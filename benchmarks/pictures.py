"""Pictures out of a model, as bytes."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from benchmarks.interrupt import stoppable
from zoo import noise
from zoo.data.images import Support

ROWS = 1000  # samples drawn at once
CHANNELS = (1, 3)  # of images that a picture can show


class Samples(Protocol):
    """Whoever draws pictures, as `VAE.sample` does."""

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor: ...


@torch.no_grad()
def generate(
    model: Samples,
    n: int,
    seed: int,
    device: torch.device,
    y: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """uint8 (n, C, H, W) on the CPU: means of p(x | z) at draws from the prior, or whatever ``model`` draws. Sample i
    depends on (seed, i) and, where conditions (n, ...) are given, on y[i]."""
    parts = []
    for start in stoppable(range(0, n, ROWS)):
        ids = torch.arange(start, min(start + ROWS, n), device=device)
        with noise.keyed(seed, ids):
            given = None if y is None else y[start : start + len(ids)].to(device)
            parts.append(to_bytes(model.sample(len(ids), given, temperature)))
    return torch.cat(parts)


def to_bytes(x: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] as uint8 on the CPU, rounded to the nearest byte."""
    return (x.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def originals(x: Tensor, support: Support) -> Tensor:
    """(B, C, H, W) as `Batches` gives it, as uint8 on the CPU: the bytes that it was made of; real data as `to_bytes`
    has it."""
    return (256 * x).floor().to(torch.uint8).cpu() if support == "dequantised" else to_bytes(x)
