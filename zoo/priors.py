"""p(z): standard and learned Gaussians, mixtures, VampPrior, flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from zoo import noise
from zoo.posteriors import DiagonalGaussian, bound_log_variance, log_normal
from zoo.precision import full, full_precision

if TYPE_CHECKING:
    from zoo.data.images import DataSpec


class PriorSettings(BaseModel):
    """Which prior, and its own settings.

    Attributes:
        components: Gaussians of ``mixture``, pseudo-inputs of ``vamp``.
        flows: coupling steps of ``flow``.
        hidden: width of their networks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["standard", "diagonal", "mixture", "vamp", "flow"] = "standard"
    components: int = Field(default=500, ge=1)
    flows: int = Field(default=6, ge=1)
    hidden: int = Field(default=128, ge=1)


class Prior(nn.Module):
    """A density over z (..., D) in nats that can be sampled."""

    name: ClassVar[str]

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__()
        self.settings = settings
        self.latent = latent

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) (...) for z (..., D)."""
        raise NotImplementedError

    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """n draws (n, D). ``temperature`` scales the standard deviation (of each component), not the mean."""
        raise NotImplementedError

    def moments(self) -> tuple[Tensor, Tensor] | None:
        """Mean and log-variance, both (D,), if this is a diagonal Gaussian, else None."""
        return None


class DiagonalPrior(Prior):
    """A Gaussian with learned mean and variances, which begins as the standard normal."""

    name = "diagonal"

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__(settings, latent)
        self.mean = nn.Parameter(torch.zeros(latent))
        self.log_variance = nn.Parameter(torch.zeros(latent))

    def moments(self) -> tuple[Tensor, Tensor]:
        return full(self.mean), bound_log_variance(full(self.log_variance))

    def log_prob(self, z: Tensor) -> Tensor:
        return log_normal(z, *self.moments()).sum(-1)

    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        mean, log_variance = self.moments()
        return mean + temperature * torch.exp(0.5 * log_variance) * noise.normal(mean.expand(n, -1))


class StandardPrior(DiagonalPrior):
    """N(0, I)."""

    name = "standard"

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        Prior.__init__(self, settings, latent)
        self.register_buffer("mean", torch.zeros(latent), persistent=False)
        self.register_buffer("log_variance", torch.zeros(latent), persistent=False)


PRIORS: dict[str, type[Prior]] = {kind.name: kind for kind in (StandardPrior, DiagonalPrior)}


def make_prior(
    settings: PriorSettings,
    latent: int,
    encode: Callable[[Tensor], DiagonalGaussian] | None = None,
    spec: DataSpec | None = None,
) -> Prior:
    """The prior of those settings over ``latent`` dimensions.

    Args:
        encode: x (K, C, H, W) -> diagonal Gaussian posterior; ``vamp`` needs it. It does not become a submodule.
        spec: the data, whose shape ``vamp`` gives its pseudo-inputs.
    """
    return PRIORS[settings.name](settings, latent)
