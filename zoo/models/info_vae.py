"""InfoVAE: a part of the rate gives way to a distance between the codes of all images and the prior.

Paper: Zhao, Song and Ermon, InfoVAE: Balancing Learning and Inference in Variational Autoencoders, AAAI 2019,
https://arxiv.org/abs/1706.02262. With alpha = 1 and the inverse multiquadric kernel it is the WAE-MMD of Tolstikhin,
Bousquet, Gelly and Schoelkopf, Wasserstein Auto-Encoders, ICLR 2018, https://arxiv.org/abs/1711.01558.
Official code: https://github.com/ShengjiaZhao/InfoVAE, and of WAE https://github.com/tolstikhin/wae (neither read).
Where we differ: the encoder of WAE is a Gaussian here, and the kernels have the width of the prior. The loss is
distortion + (1 - alpha) rate + (alpha + lambda - 1) MMD^2, the maximum mean discrepancy of a batch of codes and as
many draws of the prior, without its diagonal terms.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from zoo.data.images import DataSpec
from zoo.models.base import Losses, Settings, Terms
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.nets import require
from zoo.precision import full_precision

Kernel = Literal["rbf", "imq"]


class InfoSettings(VanillaSettings):
    alpha: float = Field(0.5, le=1, description="how much of the rate is given up in training: 1 - alpha weighs it")
    scale: float = Field(100.0, ge=0, description="lambda; the distance weighs alpha + lambda - 1 in training")
    kernel: Kernel = "rbf"


class InfoVAE(VanillaVAE):
    """A vanilla VAE with a maximum mean discrepancy beside its rate."""

    Settings: ClassVar[type[Settings]] = InfoSettings
    couples_examples: ClassVar[bool] = True

    def __init__(self, spec: DataSpec, settings: InfoSettings) -> None:
        super().__init__(spec, settings)
        # Whether a draw is accepted has no gradient, so the distance from draws has none either.
        learns = settings.prior.name != "energy" or settings.alpha < 1
        require(learns, "prior.name=energy learns from the rate alone: it needs alpha below 1.")

    def rate_weight(self, progress: float | Tensor) -> float | Tensor:
        return (1 - self.settings.alpha) * progress

    def distance(self, z: Tensor) -> Tensor:
        """What codes z (B, D) add to the loss: the weighed MMD^2 from as many draws of the prior, a scalar."""
        weight = self.settings.alpha + self.settings.scale - 1
        return weight * discrepancy(z, self.prior.sample(len(z)), self.settings.kernel)

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


def _kernel(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    # (A, B); differences, not the expanded square, which cancels.
    distance = (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(2)
    # Two draws of the prior are sqrt(2 D) apart.
    width = 2.0 * a.shape[1]
    return torch.exp(-distance / width) if kernel == "rbf" else width / (width + distance)
