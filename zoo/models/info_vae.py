"""InfoVAE: a part of the rate gives way to a distance between the codes of all images and the prior.

Paper: Zhao, Song and Ermon, InfoVAE: Balancing Learning and Inference in Variational Autoencoders, AAAI 2019,
https://arxiv.org/abs/1706.02262. With alpha = 1 and the inverse multiquadric kernel it is the WAE-MMD of Tolstikhin,
Bousquet, Gelly and Schoelkopf, Wasserstein Auto-Encoders, ICLR 2018, https://arxiv.org/abs/1711.01558.
With the sliced Wasserstein distance it is the SWAE of Kolouri, Pope, Martin and Rohde, Sliced Wasserstein
Auto-Encoders, ICLR 2019, https://arxiv.org/abs/1804.01947.
Official code: https://github.com/ShengjiaZhao/InfoVAE, of WAE https://github.com/tolstikhin/wae, of SWAE
https://github.com/skolouri/swae (none read).
Where we differ: the encoders of WAE and SWAE are Gaussian here, and the kernels have the width of the prior. The loss
is distortion + (1 - alpha) rate + (alpha + lambda - 1) d, with d the squared maximum mean discrepancy, without its
diagonal terms, of a batch of codes and as many draws of the prior, or their squared sliced distance.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zoo import noise
from zoo.data.images import DataSpec
from zoo.models.base import Losses, Settings, Terms
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.nets import require
from zoo.precision import full_precision

Kernel = Literal["rbf", "imq"]
Distance = Literal[Kernel, "sliced"]


class InfoSettings(VanillaSettings):
    alpha: float = Field(0.5, le=1, description="how much of the rate is given up in training: 1 - alpha weighs it")
    scale: float = Field(100.0, ge=0, description="lambda; the distance weighs alpha + lambda - 1 in training")
    kernel: Distance = Field("rbf", description="of the discrepancy; sliced: a Wasserstein distance in its place")


class InfoVAE(VanillaVAE):
    """A vanilla VAE with a distance of codes from the prior beside its rate."""

    Settings: ClassVar[type[Settings]] = InfoSettings
    couples_examples: ClassVar[bool] = True
    frees_bits: ClassVar[bool] = True

    def __init__(self, spec: DataSpec, settings: InfoSettings) -> None:
        super().__init__(spec, settings)
        # Its draws have no gradient, so the distance from draws has none either.
        learns = not self.prior.estimated or settings.alpha < 1
        require(learns, f"prior.name={self.prior.name} learns from the rate alone: it needs alpha below 1.")

    def rate_weight(self, progress: float | Tensor) -> float | Tensor:
        return (1 - self.settings.alpha) * progress

    def distance(self, z: Tensor) -> Tensor:
        """What codes z (B, D) add to the loss: their weighed distance from as many draws of the prior, a scalar."""
        kernel, draws = self.settings.kernel, self.prior.sample(len(z))
        weight = self.settings.alpha + self.settings.scale - 1
        if kernel == "sliced":
            return weight * sliced_distance(z, draws, noise.normal(z))
        return weight * discrepancy(z, draws, kernel)

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        losses = super().losses(x, y, progress)
        return Losses({"vae": losses["vae"] + self.distance(losses.terms.aux["z"])}, losses.terms)

    def criterion(self, x: Tensor, y: Tensor | None, terms: Terms) -> Tensor:
        """As `VAE.criterion`: the loss with its distance."""
        return super().criterion(x, y, terms) - self.distance(terms.aux["z"])


@full_precision
def discrepancy(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    """The unbiased squared maximum mean discrepancy of (A, D) and (B, D), a scalar; it may be below zero."""
    within = [_kernel(part, part, kernel) for part in (a, b)]
    same = [(k.sum() - k.diagonal().sum()) / max(1, len(k) * (len(k) - 1)) for k in within]
    return same[0] + same[1] - 2.0 * _kernel(a, b, kernel).mean()


@full_precision
def sliced_distance(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    """The squared Wasserstein distance of (N, D) and (N, D) on a line, the mean over lines along (P, D), a scalar."""
    lines = F.normalize(directions, dim=1).t()
    return ((a @ lines).sort(0).values - (b @ lines).sort(0).values).square().mean()


def _kernel(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    # (A, B); differences, not the expanded square, which cancels.
    distance = (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(2)
    # Two draws of the prior are sqrt(2 D) apart.
    width = 2.0 * a.shape[1]
    return torch.exp(-distance / width) if kernel == "rbf" else width / (width + distance)
