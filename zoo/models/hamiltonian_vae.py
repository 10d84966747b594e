"""Hamiltonian VAE: leapfrog steps carry a draw of the Gaussian posterior on to where p(z | x) is large.

Paper: Caterini, Doucet and Sejdinovic, Hamiltonian Variational Auto-Encoder, NeurIPS 2018,
https://arxiv.org/abs/1805.11328.
Official code: https://github.com/anthonycaterini/hvae-nips (read: the model of MNIST).
Where we differ: log q(z_0 | x) and the first momenta's density are those of the draw, theirs replaced by their
expectations: what z_K and the last momenta vary by cancels against them. Networks, prior and the posterior of z_0 are
settings; the paper has its own convolutions, N(0, I) and a diagonal Gaussian. The schedule is quadratic in the
temperature, as in the official code; what the paper calls fixed is ours with ``tempering: quadratic``, and ``fixed``
holds beta_0 too. In half precision the decoder multiplies as everywhere, inside of the leapfrog too; positions,
momenta and their densities stay in full precision. The bound is one for any function in place of the gradient.
The code of x is z_K, here and in every metric: what the bound is of, and where the steps carry the centre of
q(z_0 | x) from rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo import noise
from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.models.base import Settings, repeat
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.nets import require
from zoo.posteriors import FlowSample
from zoo.precision import full, full_precision
from zoo.priors import Prior, make_prior


class HamiltonianSettings(VanillaSettings):
    steps: int = Field(4, ge=1, description="K: leapfrog steps")
    step_size: float = Field(0.2, gt=0, description="epsilon of every dimension before training, which learns it")
    largest_step: float = Field(0.5, gt=0, description="what every step size stays below")
    tempering: Literal["none", "fixed", "quadratic", "free"] = Field(
        "quadratic",
        description="how the momenta cool: from `beta_0` (fixed), from a learned one, or by a learned factor each step",
    )
    beta_0: float = Field(0.67, gt=0, lt=1, description="inverse temperature of the first momenta; the last have 1")


class HamiltonianVAE(VanillaVAE):
    """A vanilla VAE whose posterior is `Carried` by leapfrog steps on -log p(x, z)."""

    Settings: ClassVar[type[Settings]] = HamiltonianSettings
    one_gaussian = False
    drawn = 1

    def __init__(self, spec: DataSpec, settings: HamiltonianSettings) -> None:
        super().__init__(spec, settings)
        estimate = f"prior.name={settings.prior.name} is estimated from draws of its own"
        require(not self.prior.estimated, f"{estimate}, and has no gradient for leapfrog steps to follow.")
        require(settings.step_size < settings.largest_step, "step_size must begin below largest_step.")
        # A VampPrior is made of what draws begin as.
        self.prior = make_prior(settings.prior, settings.latent, encode=self.start, spec=spec)
        self.decodings = settings.steps + 2  # a gradient between the steps and at both ends, and the draw
        share = settings.step_size / settings.largest_step
        self.free_step = nn.Parameter(torch.full((settings.latent,), logit(share)))
        if settings.tempering == "quadratic":
            self.free_beta = nn.Parameter(torch.tensor(logit(settings.beta_0)))
        if settings.tempering == "free":
            each = settings.beta_0 ** (0.5 / settings.steps)
            self.free_cooling = nn.Parameter(torch.full((settings.steps,), logit(each)))

    def start(self, x: Tensor, y: Tensor | None = None) -> DiagonalGaussian | FlowSample:
        """q(z_0 | x)."""
        return super().infer(x, y)

    def infer(self, x: Tensor, y: Tensor | None = None) -> Carried:
        """q(z_K, rho_K | x)."""
        return Carried(self.start(x), self.leapfrog, x)

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        """As the vanilla VAE. `UsageError` where a decoder that was exchanged normalises batches: the gradient of an
        image would be of the others too, in evaluation as well where no statistics are kept; where they are, none could
        be taken inside of a step."""
        mixes = any(isinstance(part, _BatchNorm) for part in self.decoder.modules())
        instead = "normalise each image by itself (nn.GroupNorm, nn.LayerNorm)"
        require(not mixes, f"leapfrog steps follow no decoder with batch normalisation: {instead}.")
        super().initialise(x, y)

    # ---- the dynamics ----------------------------------------------------------------------------------------------

    def step_size(self) -> Tensor:
        """epsilon (D,)."""
        return self.settings.largest_step * torch.sigmoid(full(self.free_step))

    def cooling(self) -> Tensor:
        """alpha (K,), what the momenta are multiplied by after each step: the square root of beta_{k-1} / beta_k."""
        steps, how = self.settings.steps, self.settings.tempering
        if how == "none":
            return torch.ones_like(full(self.free_step[:1])).expand(steps)
        if how == "free":
            return torch.sigmoid(full(self.free_cooling))
        beta = torch.sigmoid(full(self.free_beta)) if how == "quadratic" else self.settings.beta_0
        done = torch.arange(steps + 1, device=self.free_step.device, dtype=self.free_step.dtype) / steps
        temperature = (1 - done.square()) / beta + done.square()
        return (temperature[1:] / temperature[:-1]).sqrt()

    def force(self, z: Tensor, x: Tensor, log_prior: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The gradient of log p(x, z) with respect to z, (B, D); ``log_prior`` is the prior's `density`."""
        log_prior = log_prior or self.prior.density()

        def log_joint(z: Tensor) -> Tensor:
            return (self.log_likelihood(self.decode(z), x) + log_prior(z)).sum()

        # Unlike autograd's own it is there where nobody asks for gradients, and where models are stacked.
        return full(torch.func.grad(log_joint)(z))

    def leapfrog(self, z: Tensor, momentum: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """z_K and rho_K, (B, D) each, from z_0 and gamma_0: momenta that are to be N(0, I) at inverse temperature 1.

        Every part of a step moves z by a function of the momenta or the momenta by one of z, which leaves volume as it
        is. Cooling divides volume by what heating multiplied it by.
        """
        step, cooling, log_prior = self.step_size(), self.cooling(), self.prior.density()
        momentum = momentum / cooling.prod()
        force = self.force(z, x, log_prior)
        for alpha in cooling.unbind():
            momentum = momentum + 0.5 * step * force
            z = z + step * momentum
            force = self.force(z, x, log_prior)
            momentum = alpha * (momentum + 0.5 * step * force)
        return z, momentum


class Carried:
    """The density of z_K and rho_K, z_0 from ``start``, gamma_0 from N(0, I), and both carried by ``leapfrog``."""

    def __init__(
        self,
        start: DiagonalGaussian | FlowSample,
        leapfrog: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
        x: Tensor,
    ) -> None:
        self.start, self.leapfrog, self.x = start, leapfrog, x

    @property
    def centre(self) -> Tensor:
        """Where the centre of z_0 is carried from rest (B, D)."""
        return self.leapfrog(self.start.centre, torch.zeros_like(self.start.centre), self.x)[0]

    def rsample(self) -> tuple[Tensor, Tensor]:
        """A reparameterised draw z_K (B, D) and what stands for its log-density (B,), log q(z_K, rho_K | x) -
        log N(rho_K; 0, I): in the mean no less than the log-density of z_K alone."""
        z, log_q = self.start.rsample()
        gamma = noise.normal(z)
        z, rho = self.leapfrog(z, gamma, self.x)
        return z, log_q + excess(rho, gamma)

    def kl(self, prior: Prior | DiagonalGaussian) -> None:
        """No analytic KL."""
        return None

    def repeat(self, k: int) -> Carried:
        """The same for k * B rows, sample-major: row s * B + b belongs to example b."""
        return type(self)(self.start.repeat(k), self.leapfrog, repeat(self.x, k))


@full_precision
def excess(rho: Tensor, gamma: Tensor) -> Tensor:
    """(...) nats: log N(gamma; 0, I) - log N(rho; 0, I) of rho and gamma (..., D)."""
    return 0.5 * (rho.square() - gamma.square()).sum(-1)


def logit(share: float) -> float:
    """The number whose sigmoid is ``share``."""
    return math.log(share / (1 - share))
