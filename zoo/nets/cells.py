"""The residual cells of NVAE (Vahdat and Kautz 2020), and the penalty on their largest singular values.

A cell keeps, halves or doubles the resolution, and doubles or halves the channels with it. The branch is
scaled by 0.1 before it is added, as in the official code, so that a deep stack starts near its skip
connections.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Resolution = Literal["keep", "halve", "double"]
BRANCH_SCALE = 0.1
BATCH_NORM = dict(eps=1e-5, momentum=0.05)


def channels_after(channels: int, resolution: Resolution) -> int:
    """How many channels a cell gives that is given ``channels``."""
    return {"keep": channels, "halve": 2 * channels, "double": channels // 2}[resolution]


class SqueezeExcite(nn.Module):
    """Weighs each channel of (B, C, H, W) by a number in (0, 1) made from all means (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layers(x.mean((2, 3)))[:, :, None, None]


class Cell(nn.Module):
    """skip(x) + 0.1 squeeze_excite(branch(x)), for (B, C, H, W)."""

    def __init__(self, channels: int, resolution: Resolution, branch: nn.Module) -> None:
        super().__init__()
        after = channels_after(channels, resolution)
        self.skip = _skip(channels, after, resolution)
        self.branch = nn.Sequential(branch, SqueezeExcite(after))

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + BRANCH_SCALE * self.branch(x)


def inference_cell(channels: int, resolution: Resolution = "keep") -> Cell:
    """The cell of the encoder: twice batch norm, swish and a 3x3 convolution."""
    after = channels_after(channels, resolution)
    stride = 2 if resolution == "halve" else 1
    branch = nn.Sequential(
        nn.BatchNorm2d(channels, **BATCH_NORM),
        nn.SiLU(),
        # No bias in front of a batch norm, which would take it out again.
        nn.Conv2d(channels, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after, **BATCH_NORM),
        nn.SiLU(),
        nn.Conv2d(after, after, 3, padding=1),
    )
    return Cell(channels, resolution, branch)


def generative_cell(channels: int, resolution: Resolution = "keep", expansion: int = 6) -> Cell:
    """The cell of the decoder: 1x1, 5x5 depthwise on ``expansion`` times the channels, and 1x1 convolutions.

    Depthwise, so that a wide receptive field costs little; expanded, so that it is not too little. A cell
    that doubles the resolution expands what it gives, not what it is given as the official one does: half the
    cost.
    """
    after = channels_after(channels, resolution)
    wide = expansion * after
    layers: list[nn.Module] = [nn.UpsamplingNearest2d(scale_factor=2)] if resolution == "double" else []
    layers += [
        nn.BatchNorm2d(channels, **BATCH_NORM),
        nn.Conv2d(channels, wide, 1, bias=False),
        nn.BatchNorm2d(wide, **BATCH_NORM),
        nn.SiLU(),
        nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False),
        nn.BatchNorm2d(wide, **BATCH_NORM),
        nn.SiLU(),
        nn.Conv2d(wide, after, 1, bias=False),
        nn.BatchNorm2d(after, **BATCH_NORM),
    ]
    return Cell(channels, resolution, nn.Sequential(*layers))


def _skip(channels: int, after: int, resolution: Resolution) -> nn.Module:
    if resolution == "halve":
        return nn.Sequential(nn.SiLU(), nn.Conv2d(channels, after, 2, stride=2))
    if resolution == "double":
        return nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(channels, after, 1)
        )
    return nn.Identity()


class SpectralPenalty(nn.Module):
    """The largest singular value of every convolution and the largest |gamma| of every batch norm, summed.

    What NVAE adds to its loss: it bounds how fast the network can change, so that the KL of a deep hierarchy
    cannot run away. A convolution counts as the matrix (out, in * k * k) of its weight.

    The singular vectors are followed by one power iteration per call in training mode. They are buffers: a
    run that is resumed goes on with the same numbers. Matrices of one shape are handled together, and nothing
    waits for the device.

    Args:
        network: looked at, not owned: its parameters are not registered here.
    """

    FIRST_ITERATIONS = 10

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Plain containers, which nn.Module does not look into.
        self._shapes: dict[str, list[nn.Conv2d]] = {}
        self._norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                rows, columns = module.weight.flatten(1).shape
                self._shapes.setdefault(f"left_{rows}x{columns}", []).append(module)
        for name, members in self._shapes.items():
            start = torch.randn(len(members), members[0].out_channels)
            self.register_buffer(name, nn.functional.normalize(start, dim=1))
        with torch.no_grad():
            for _ in range(self.FIRST_ITERATIONS):
                self()

    def forward(self) -> Tensor:
        """The penalty, a scalar of at least float32."""
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            parts = [self._largest(name, members) for name, members in self._shapes.items()]
            parts += [norm.weight.abs().amax() for norm in self._norms]
            return torch.stack(parts).sum()

    def _largest(self, name: str, members: list[nn.Conv2d]) -> Tensor:
        matrices = torch.stack([member.weight.flatten(1) for member in members])
        left = getattr(self, name)
        with torch.no_grad():
            right = nn.functional.normalize(torch.einsum("nrc,nr->nc", matrices, left), dim=1)
            followed = nn.functional.normalize(torch.einsum("nrc,nc->nr", matrices, right), dim=1)
            if self.training:
                left.copy_(followed)
        # The vectors held fixed, the derivative of u W v is that of the singular value.
        return torch.einsum("nr,nrc,nc->n", followed, matrices, right).sum()
