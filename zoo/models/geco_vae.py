"""GECO: the smallest rate of which the distortion is no larger than was asked for.

Paper: Rezende and Viola, Taming VAEs, 2018, https://arxiv.org/abs/1810.00597 (algorithm 1).
Official code: none was published.
Where we differ: the constraint is on the distortion of the likelihood, in nats an image, where the paper's main one is
on the squared error; with a fixed Gaussian scale the two are the same but for a constant and a factor. The multiplier
waits until the warm-up is over, moves by no more than `largest_step` and is kept between two bounds: what the first
steps leave of the distortion is hundreds of nats, and a multiplier that grew by all of them is long in coming back. The
value of the loss has the constraint of the batch, the paper's has its moving average; the gradient is the same.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from zoo import processes
from zoo.data.images import DataSpec
from zoo.models.base import Losses, Settings, Terms
from zoo.models.vae import VanillaSettings, VanillaVAE

LARGEST = math.log(1e4)  # of the multiplier's logarithm, on either side of nothing


class GECOSettings(VanillaSettings):
    target: float = Field(75.0, description="nats of distortion an image that may be left")
    step: float = Field(
        3e-4, gt=0, description="by what a step moves the multiplier's logarithm for each nat beyond the target"
    )
    largest_step: float = Field(1e-3, gt=0, description="by what a step moves that logarithm at most")
    decay: float = Field(0.99, ge=0, lt=1, description="of the moving average of the constraint that it is moved by")


class GECOVAE(VanillaVAE):
    """rate + multiplier (distortion - target), the multiplier rising while the distortion is above its target.

    Buffers, all (): ``log_multiplier``; ``excess``, the moving average of distortion - target in nats; ``updates``, how
    many steps it is of. None has a gradient.
    """

    Settings: ClassVar[type[Settings]] = GECOSettings
    seeks_bound: ClassVar[bool] = False
    frees_bits: ClassVar[bool] = True
    measures: ClassVar[dict[str, tuple[str, str | None]]] = {"lagrange_multiplier": ("", None)}

    log_multiplier: Tensor
    excess: Tensor
    updates: Tensor

    def __init__(self, spec: DataSpec, settings: GECOSettings) -> None:
        super().__init__(spec, settings)
        for name in ("log_multiplier", "excess", "updates"):
            self.register_buffer(name, torch.zeros(()))
        self._observed: Tensor | None = None  # (3,): sum of the excess, examples, and examples after the warm-up

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        terms = self.terms(x, y)
        if self.training:
            self.observe(terms, progress)
        return Losses({"vae": self.lagrangian(terms, progress).mean()}, terms)

    def lagrangian(self, terms: Terms, progress: float | Tensor = 1.0) -> Tensor:
        """(B,) nats: what training minimises at the multiplier as it is."""
        constraint = terms.distortion - self.settings.target
        return self.rate_weight(progress) * self.charged(terms) + self.log_multiplier.exp() * constraint

    def criterion(self, x: Tensor, y: Tensor | None, terms: Terms) -> Tensor:
        """As `VAE.criterion`: the Lagrangian, the rate where the target is met. Its multiplier is of that moment."""
        return -self.lagrangian(terms)

    @torch.no_grad()
    def observe(self, terms: Terms, progress: float | Tensor) -> None:
        """Count the excess of a batch, or of a part of one, towards the step that `after_step` ends."""
        excess = terms.distortion - self.settings.target
        rows = torch.ones_like(excess)
        found = torch.stack([excess.sum(), rows.sum(), (rows * (progress >= 1.0)).sum()])
        self._observed = found if self._observed is None else self._observed + found

    @torch.no_grad()
    def after_step(self) -> None:
        if self._observed is None:
            return
        found, self._observed = self._observed, None
        if processes.several():
            processes.add(found)
        total, rows, over = found
        batch = total / rows
        average = torch.where(self.updates > 0, torch.lerp(batch, self.excess, self.settings.decay), batch)
        step = (self.settings.step * average).clamp(-self.settings.largest_step, self.settings.largest_step)
        moved = self.log_multiplier + (over / rows) * step
        # The trainer leaves out an update that is not finite; so does the multiplier.
        finite = torch.isfinite(batch)
        self.excess.copy_(torch.where(finite, average, self.excess))
        self.log_multiplier.copy_(torch.where(finite, moved.clamp(-LARGEST, LARGEST), self.log_multiplier))
        self.updates += finite

    def measure(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """The multiplier of the weights that were kept: one over the beta of a beta-VAE with the same gradient."""
        return {"lagrange_multiplier": self.log_multiplier.exp()}

    def _load_from_state_dict(self, *given: Any) -> None:
        # What a step counted that never came to its end is not of the step that comes after other weights.
        self._observed = None
        super()._load_from_state_dict(*given)
