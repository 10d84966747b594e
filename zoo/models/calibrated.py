"""What models share whose training asks their decoder for no probabilities: a Bernoulli that is calibrated afterwards.

It is given one scale and one offset for all logits, fitted to training images once the training is over (Platt 1999)
and part of log p(x | z) from then on. Codes, reconstructions and samples stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.images import DataSpec
from zoo.models.base import parameters_of
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.nets.aside import aside
from zoo.precision import full_precision

CALIBRATION_IMAGES = 4096


class CalibratedVAE(VanillaVAE):
    """A vanilla VAE whose log p(x | z) has a scale and an offset for a Bernoulli's logits, 1 and 0 until training ends;
    of other likelihoods it is left alone."""

    def __init__(self, spec: DataSpec, settings: VanillaSettings) -> None:
        super().__init__(spec, settings)
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    @full_precision
    def log_likelihood(self, params: Tensor, x: Tensor) -> Tensor:
        """(B,) nats, log p(x | z) with a Bernoulli's logits calibrated."""
        return super().log_likelihood(self.calibrated(params), x)

    @full_precision
    def draw(self, params: Tensor) -> Tensor:
        """As `VanillaVAE.draw`, with a Bernoulli's logits calibrated."""
        return super().draw(self.calibrated(params))

    def misfit(self, params: Tensor, x: Tensor) -> Tensor | float:
        """What fits a learned scale to the errors of what was decoded: a scalar in nats, 0 where there is none. The
        scale is in no mean; the decoder is not touched."""
        if not parameters_of([self.likelihood]):
            return 0.0
        return -self.likelihood.log_prob(params.detach(), x).mean()

    def seen(self, params: Tensor) -> Tensor:
        """What a discriminator sees of p(x | z), (B, C, H, W), differentiable: its mean, of a Bernoulli a draw with the
        gradient of the mean passed straight through (Bengio et al. 2013), as grey is told from black and white at a
        glance."""
        mean = self.likelihood.mean(params)
        if self.likelihood.name != "bernoulli":
            return mean
        return mean + (self.likelihood.sample(params) - mean).detach()

    def calibrated(self, params: Tensor) -> Tensor:
        """The decoder's output with a Bernoulli's logits calibrated."""
        if self.likelihood.name != "bernoulli":
            return params
        scale, offset = self.calibration.to(params.dtype)
        return params * scale + offset

    @torch.no_grad()
    def recollect(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Fit the calibration to the logits at one posterior sample of `CALIBRATION_IMAGES` training images. The
        global random state is the same afterwards."""
        if self.likelihood.name != "bernoulli":
            return
        logits, images = [], []
        with aside(self):
            for x, y in batches:
                logits.append(self.decode(self.infer(x, y).rsample()[0], y).flatten().double())
                images.append(x.flatten().double())
                if sum(part.numel() for part in images) >= CALIBRATION_IMAGES * self.spec.dims:
                    break
        self.calibration.copy_(calibrate(torch.cat(logits), torch.cat(images)))


def calibrate(logits: Tensor, x: Tensor) -> Tensor:
    """(2,) the scale and the offset under which Bernoulli logits (N,) make x (N,) in [0, 1] likeliest: logistic
    regression by Newton's method, never worse than the (1, 0) that it starts from."""
    best = now = torch.tensor([1.0, 0.0], dtype=logits.dtype, device=logits.device)
    design = torch.stack([logits, torch.ones_like(logits)])
    least = F.binary_cross_entropy_with_logits(logits, x)
    for _ in range(25):
        probability = (now @ design).sigmoid()
        gradient = design @ (probability - x) / len(x)
        curvature = (design * (probability * (1 - probability))) @ design.T / len(x)
        step = torch.linalg.solve(curvature + 1e-9 * torch.eye(2, dtype=x.dtype, device=x.device), gradient)
        # Far from the optimum a whole Newton step can overshoot.
        now = now - step * (1.0 / max(1.0, float(step.abs().max())))
        loss = F.binary_cross_entropy_with_logits(now @ design, x)
        if loss < least:
            best, least = now, loss
        elif float(step.abs().max()) < 1e-6:
            break
    return best
