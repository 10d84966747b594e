"""Several layers of Gaussian latents, drawn from the top down; what the hierarchical variants share.

The posterior runs through the same downward path as the prior: q(z | x) = prod_l q(z_l | x, z_above), where
an upward pass over the image, made once, gives each layer its evidence. Layers are numbered from the top, 0,
downwards, and so are the columns of the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.errors import UsageError
from zoo.likelihoods import make_likelihood
from zoo.models.base import VAE, Terms, repeat, require_draws
from zoo.nets import batch_norm
from zoo.priors import Prior


@dataclass
class Layer:
    """One layer given a draw of those above: z (B, D) and log q (B,); no posterior and no q when sampling. The top
    layer, which nothing is above, may have any prior."""

    prior: DiagonalGaussian | Prior
    posterior: DiagonalGaussian | None
    z: Tensor
    log_q: Tensor | None

    def rate(self) -> Tensor:
        """(B,) nats: KL(q(z | x, above) || p(z | above)), analytic; one-sample where the prior is no Gaussian."""
        divergence = self.posterior.kl(self.prior)
        return self.log_q - self.prior.log_bound(self.z) if divergence is None else divergence.sum(1)

    def log_ratio(self) -> Tensor:
        """(B,) nats: log p(z | above) - log q(z | x, above)."""
        return self.prior.log_prob(self.z) - self.log_q


Pick = Callable[[DiagonalGaussian | Prior, DiagonalGaussian | None], tuple[Tensor, Tensor | None]]


class Hierarchy(VAE):
    """A stack of ``levels`` groups. Subclasses implement the five steps of the two passes."""

    levels: int

    def __init__(self, spec: DataSpec, settings: Any) -> None:
        super().__init__(spec, settings)
        self.likelihood = make_likelihood(settings.likelihood, spec)

    # ---- the steps -----------------------------------------------------------------------------------------

    def ascend(self, x: Tensor) -> list[Tensor]:
        """The deterministic upward pass: what the image says to each layer, the top first, each (B, ...)."""
        raise NotImplementedError

    def start(self, rows: int) -> Tensor:
        """What the downward path carries before the top layer, (rows, ...)."""
        raise NotImplementedError

    def generate(self, level: int, state: Tensor) -> tuple[Tensor, DiagonalGaussian | Prior]:
        """Bring the state down to a layer and give that layer's prior."""
        raise NotImplementedError

    def infer(
        self, level: int, state: Tensor, prior: DiagonalGaussian | Prior, evidence: Tensor
    ) -> DiagonalGaussian:
        """The layer's posterior."""
        raise NotImplementedError

    def absorb(self, level: int, state: Tensor, z: Tensor) -> Tensor:
        """The state after the layer's z (B, D) is known."""
        raise NotImplementedError

    def decode(self, state: Tensor) -> Tensor:
        """The state below the last layer to the likelihood's parameters (B, C', H, W)."""
        raise NotImplementedError

    # ---- the downward path ---------------------------------------------------------------------------------

    def descend(
        self, pick: Pick, rows: int, evidence: list[Tensor] | None = None
    ) -> tuple[list[Layer], Tensor]:
        """All layers, the top first, and the likelihood's parameters; ``pick`` chooses each z."""
        state = self.start(rows)
        layers = []
        for level in range(self.levels):
            state, prior = self.generate(level, state)
            posterior = None if evidence is None else self.infer(level, state, prior, evidence[level])
            z, log_q = pick(prior, posterior)
            layers.append(Layer(prior, posterior, z, log_q))
            state = self.absorb(level, state, z)
        return layers, self.decode(state)

    # ---- the contract --------------------------------------------------------------------------------------

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        layers, params = self.descend(draw, len(x), self.ascend(x))
        rate = torch.stack([layer.rate() for layer in layers], 1)
        z = torch.cat([layer.z for layer in layers], 1)
        return Terms(-self.likelihood.log_prob(params, x), rate, {"z": z})

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        evidence = [repeat(part, k) for part in self.ascend(x)]
        layers, params = self.descend(draw, k * len(x), evidence)
        log_ratio = torch.stack([layer.log_ratio() for layer in layers]).sum(0)
        return (self.likelihood.log_prob(params, repeat(x, k)) + log_ratio).view(k, len(x))

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D): the posterior means of all layers, the top first, each given the means above it."""
        layers, _ = self.descend(centre, len(x), self.ascend(x))
        return torch.cat([layer.z for layer in layers], 1)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.descend(centre, len(x), self.ascend(x))[1])

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """As `VAE.sample`; the temperature scales every layer's standard deviations."""
        return self.likelihood.mean(self.descend(of_prior(n, temperature), n)[1])

    def simulate(self, n: int, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if type(self).log_weights is not Hierarchy.log_weights:  # of other latents, maybe
            return super().simulate(n, y)
        require_draws(self.likelihood)
        layers, params = self.descend(of_prior(n), n)
        if any(isinstance(layer.prior, Prior) and layer.prior.estimated for layer in layers):
            raise UsageError("the density of its prior is estimated.")
        x, known, found = self.likelihood.sample(params), iter(layers), []

        def given(_: DiagonalGaussian | Prior, posterior: DiagonalGaussian) -> tuple[Tensor, None]:
            z = next(known).z
            found.append(posterior.noise_of(z))
            return z, None

        self.descend(given, n, self.ascend(x))
        return x, torch.cat(found, 1)

    def recollect(self, batches: Iterable[tuple[Tensor, Any]]) -> None:
        """Collect the batch-norm statistics that evaluation uses from shuffled training batches (x, y), each
        of the training batch size. To be called with the weights that will be evaluated, before they are."""
        batch_norm.recollect(self, batches, self.terms)


def of_prior(rows: int, temperature: float = 1.0) -> Pick:
    """Draws from the prior, its standard deviations times ``temperature``, for `Hierarchy.descend`."""

    def pick(prior: DiagonalGaussian | Prior, _: DiagonalGaussian | None) -> tuple[Tensor, None]:
        if isinstance(prior, Prior):
            return prior.sample(rows, temperature), None
        return prior.sample(temperature), None

    return pick


def draw(prior: DiagonalGaussian | Prior, posterior: DiagonalGaussian) -> tuple[Tensor, Tensor]:
    """A draw from the posterior, for `Hierarchy.descend`."""
    return posterior.rsample()


def centre(prior: DiagonalGaussian | Prior, posterior: DiagonalGaussian) -> tuple[Tensor, None]:
    """The posterior mean, for `Hierarchy.descend`."""
    return posterior.mean, None
