"""What every prior over codes has in common, and its settings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from zoo.context import holding
from zoo.settings import Frozen, ReadBy

#: by each prior, what it computed of its weights inside of `unchanged`; None outside
computed: ContextVar[dict[Prior, tuple[Tensor, Tensor]] | None] = ContextVar("zoo_priors_computed", default=None)


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """No weight changes inside the block, and nobody asks for a gradient of one: what a prior computes of its weights
    alone, such as the posteriors of pseudo-inputs, it computes once."""
    with holding(computed, {}):  # a new one each time, also where this decorates a function
        yield


class PriorSettings(Frozen):
    """Which prior, and its own settings.

    Attributes:
        components: Gaussians of ``mixture``, pseudo-inputs of ``vamp``.
        flows: coupling steps of ``flow``.
        hidden: width of their networks, and of those of ``energy`` and ``diffusion``.
        tries: draws that a sample of ``energy`` takes at most.
        steps: of noise in the chain of ``diffusion``; a sample calls its network so many times.
    """

    read_by: ClassVar[ReadBy] = {
        "components": ("mixture", "vamp"),
        "flows": ("flow",),
        "hidden": ("flow", "energy", "diffusion"),
        "tries": ("energy",),
        "steps": ("diffusion",),
    }

    name: Literal["standard", "diagonal", "mixture", "vamp", "flow", "energy", "diffusion"] = "standard"
    components: int = Field(default=500, ge=1)
    flows: int = Field(default=6, ge=1)
    hidden: int = Field(default=128, ge=1)
    tries: int = Field(default=100, ge=2)
    steps: int = Field(default=100, ge=1)


class Prior(nn.Module):
    """A density over z (..., D) in nats that can be sampled.

    Attributes:
        estimated: what it says of a code is an estimate from draws of its own, and no gradient passes through its
            samples: what follows either is refused.
    """

    name: ClassVar[str]
    estimated: ClassVar[bool] = False

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__()
        self.settings = settings
        self.latent = latent

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) (...) for z (..., D), or the logarithm of an unbiased estimate of p(z): what a log-weight takes."""
        raise NotImplementedError

    def log_bound(self, z: Tensor) -> Tensor:
        """(...) nats: log p(z), or an estimate of a lower bound on it that costs less than `log_prob`. For the mean of
        logarithms alone, such as a rate: its exponential is no estimate of p(z)."""
        return self.log_prob(z)

    def density(self) -> Callable[[Tensor], Tensor]:
        """`log_prob` as it is now: what it computes of the weights alone is computed here, once for all that ask."""
        return self.log_prob

    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """n draws (n, D). ``temperature`` scales the standard deviation (of each component), not the mean."""
        raise NotImplementedError

    def moments(self) -> tuple[Tensor, Tensor] | None:
        """Mean and log-variance, both (D,), if this is a diagonal Gaussian, else None."""
        return None

    def initialise(self, x: Tensor) -> None:
        """Start from data, x (N, C, H, W); only the vamp prior has something to start from it."""
