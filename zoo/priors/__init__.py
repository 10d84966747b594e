"""p(z): standard and learned Gaussians, mixtures, VampPrior, flow, energy, diffusion."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.distributions.gaussians import DiagonalGaussian
from zoo.errors import UsageError
from zoo.priors.base import Prior, PriorSettings, unchanged
from zoo.priors.diffusion import DiffusionPrior
from zoo.priors.energy import EnergyPrior
from zoo.priors.flow import FlowPrior
from zoo.priors.gaussians import DiagonalPrior, StandardPrior
from zoo.priors.mixtures import MixturePrior, VampPrior

if TYPE_CHECKING:
    from zoo.data.images import DataSpec

__all__ = [
    "PRIORS", "DiagonalPrior", "DiffusionPrior", "EnergyPrior", "FlowPrior", "MixturePrior", "Prior", "PriorSettings",
    "StandardPrior", "VampPrior", "make_prior", "unchanged",
]  # fmt: skip

PRIORS: dict[str, type[Prior]] = {
    kind.name: kind
    for kind in (StandardPrior, DiagonalPrior, MixturePrior, VampPrior, FlowPrior, EnergyPrior, DiffusionPrior)
}


def make_prior(
    settings: PriorSettings,
    latent: int,
    encode: Callable[[Tensor], DiagonalGaussian] | None = None,
    spec: DataSpec | None = None,
) -> Prior:
    """The prior of those settings over ``latent`` dimensions.

    Args:
        encode: x (K, C, H, W) -> diagonal Gaussian; ``vamp`` needs it. It does not become a submodule.
        spec: the data, whose shape and range ``vamp`` gives its pseudo-inputs.
    """
    if settings.name != "vamp":
        return PRIORS[settings.name](settings, latent)
    if encode is None or spec is None:
        raise UsageError(
            "the vamp prior needs the model's encoder and the data's shape; this model gives it neither."
        )
    return VampPrior(settings, latent, encode, tuple(spec.shape), confined=spec.support != "real")
