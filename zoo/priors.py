"""p(z): standard and learned Gaussians, mixtures, VampPrior, flow, energy, diffusion."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.context import holding
from zoo.distributions.diffusion import Chain
from zoo.distributions.gaussians import LOG_2PI, DiagonalGaussian, bound_log_variance, log_normal
from zoo.errors import UsageError
from zoo.flows import Coupling
from zoo.nets.mlp import dense
from zoo.precision import full, full_precision
from zoo.settings import Frozen, ReadBy

if TYPE_CHECKING:
    from zoo.data.images import DataSpec


_found: ContextVar[dict[Prior, tuple[Tensor, Tensor]] | None] = ContextVar("zoo_priors_found", default=None)


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """No weight changes inside the block, and nobody asks for a gradient: what a prior computes of its weights alone,
    such as the posteriors of pseudo-inputs, it computes once."""
    with holding(_found, {}):  # a new one each time, also where this decorates a function
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
        return DiagonalGaussian(*(part.expand(n, -1) for part in self.moments())).sample(temperature)


class StandardPrior(DiagonalPrior):
    """N(0, I)."""

    name = "standard"

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        Prior.__init__(self, settings, latent)
        self.register_buffer("mean", torch.zeros(latent), persistent=False)
        self.register_buffer("log_variance", torch.zeros(latent), persistent=False)


class _Mixture(Prior):
    """A weighted sum of diagonal Gaussians; which ones is left to `components`."""

    def components(self) -> tuple[DiagonalGaussian, Tensor]:
        """The Gaussians, their moments (K, D), and the log-weights (K,)."""
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """log sum_k w_k N(z; m_k, v_k)."""
        return self.density()(z)

    def density(self) -> Callable[[Tensor], Tensor]:
        found = _found.get()
        found = {} if found is None else found
        if self not in found:
            gaussians, log_weights = self.components()
            found[self] = _factors(gaussians.mean, gaussians.log_variance, log_weights)
        factors, constant = found[self]
        return lambda z: _log_mixture(z, factors, constant)

    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        gaussians, log_weights = self.components()
        k = noise.component(log_weights.exp(), n)
        return DiagonalGaussian(gaussians.mean[k], gaussians.log_variance[k]).sample(temperature)


# Log-densities (rows * components) held at once.
_HELD = 1 << 22


@full_precision
def _factors(mean: Tensor, log_variance: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    # The squares expanded, so that one matrix product does them. In float32 they would cancel where components are
    # narrow; in float64 a component of the smallest variance there is, exp(-20), keeps its density to 1e-5.
    precision = torch.exp(-log_variance.double())
    mean = mean.double()
    factors = torch.cat([-0.5 * precision, mean * precision], 1).T
    return factors, -0.5 * (mean.square() * precision + log_variance + LOG_2PI).sum(1) + log_weights


@full_precision
def _log_mixture(z: Tensor, factors: Tensor, constant: Tensor) -> Tensor:
    logs = []
    for piece in z.reshape(-1, z.shape[-1]).split(max(1, _HELD // len(constant))):
        rows = piece.double()
        terms = torch.addmm(constant, torch.cat([rows.square(), rows], 1), factors)
        logs.append(terms.to(z.dtype).logsumexp(-1))
    return torch.cat(logs).view(z.shape[:-1])


class MixturePrior(_Mixture):
    """Gaussians with learned weights, means and variances; the means begin as standard normal draws."""

    name = "mixture"

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__(settings, latent)
        self.logits = nn.Parameter(torch.zeros(settings.components))
        self.means = nn.Parameter(torch.randn(settings.components, latent))
        self.log_variances = nn.Parameter(torch.zeros(settings.components, latent))

    def components(self) -> tuple[DiagonalGaussian, Tensor]:
        return DiagonalGaussian(self.means, self.log_variances), F.log_softmax(full(self.logits), dim=0)


class VampPrior(_Mixture):
    """The average of q(z | u_k) over K learned pseudo-inputs u_k (Tomczak & Welling 2018, arXiv 1705.07120).

    Pseudo-inputs begin as the official code's, N(0.05, 0.01^2), and where the data lies in [0, 1] a hardtanh keeps them
    there (``confined``).

    ``encode`` is the model's own encoder, and the gradient of the prior reaches it. It is called, never
    owned: give a bound method (or the module), not a closure, so that a copied model's prior follows the
    copied encoder. It sees the pseudo-inputs as one batch; batch normalisation would mix their statistics
    with the data's.
    """

    name = "vamp"

    def __init__(
        self,
        settings: PriorSettings,
        latent: int,
        encode: Callable[[Tensor], DiagonalGaussian],
        shape: tuple[int, ...],
        confined: bool = True,
    ) -> None:
        super().__init__(settings, latent)
        self.confined = confined
        # A tuple hides a module from registration: its parameters belong to the model.
        self._encode = (encode,)
        self.free_inputs = nn.Parameter(0.05 + 0.01 * torch.randn(settings.components, *shape))

    def pseudo_inputs(self) -> Tensor:
        """The images (K, C, H, W) whose posteriors are the components."""
        return F.hardtanh(self.free_inputs, 0.0, 1.0) if self.confined else self.free_inputs

    @torch.no_grad()
    def initialise(self, x: Tensor, spread: float = 0.02) -> None:
        """Set the pseudo-inputs to random rows of x (N, C, H, W), repeated if N < K, plus a little noise.

        Those that are confined are moved into [0.01, 0.99]: on the bounds the hardtanh passes no gradient, and most
        pixels of binary or dark images would never move again.
        """
        k = len(self.free_inputs)
        rows = torch.randperm(len(x)) if len(x) >= k else torch.randint(len(x), (k,))
        images = x[rows[:k].to(x.device)].to(self.free_inputs)
        moved = images + spread * torch.randn_like(images)
        self.free_inputs.copy_(moved.clamp(0.01, 0.99) if self.confined else moved)

    def components(self) -> tuple[DiagonalGaussian, Tensor]:
        q = self._encode[0](self.pseudo_inputs())
        if not isinstance(q, DiagonalGaussian):
            raise UsageError("the vamp prior needs a diagonal posterior: a flow has no density at a given z.")
        k = len(self.free_inputs)
        return q, torch.full((k,), -math.log(k), dtype=q.mean.dtype, device=q.mean.device)


class FlowPrior(Prior):
    """Affine coupling steps between z and a standard normal; ``temperature`` scales the latter."""

    name = "flow"

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__(settings, latent)
        self.flow = Coupling(latent, settings.flows, settings.hidden)
        self.register_buffer("zero", torch.zeros(latent), persistent=False)

    @full_precision
    def log_prob(self, z: Tensor) -> Tensor:
        u, log_det = self.flow(z.reshape(-1, z.shape[-1]))
        return (log_normal(u, self.zero, self.zero).sum(-1) + log_det).view(z.shape[:-1])

    @full_precision
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        return self.flow.inverse(temperature * noise.normal(self.zero.expand(n, -1)))


# Draws that the normaliser of an energy is a mean over: in a training step; in evaluation, and of these at once.
SHARED, COUNTED, AT_ONCE = 1 << 10, 1 << 18, 1 << 14
# A share of accepted draws nearer to 1 is taken for this one: there nothing is left for the last draw.
MOST_ACCEPTED = 1 - 1e-6


class EnergyPrior(Prior):
    """A standard normal reshaped by a learned energy E(z) >= 0: draw z ~ N(0, I), accept it with probability
    exp(-E(z)), else draw anew, and accept the last of T ``tries`` in any case. The density of what comes out is

        p(z) = N(z; 0, I) ((1 - r) exp(-E(z)) / Z + r),   Z = E_{z ~ N(0, I)} exp(-E(z)),   r = (1 - Z)^(T - 1),

    and for a large T the energy-based N(z; 0, I) exp(-E(z)) / Z. Bauer and Mnih, Resampled Priors for Variational
    Autoencoders, AISTATS 2019, https://arxiv.org/abs/1810.11428, whose acceptance function is exp(-E).

    An energy with a lower bound has samples that are exact after at most T draws, where Langevin dynamics end somewhere
    near them, and a normaliser that is the mean of numbers in (0, 1), whose error is known. In training Z is the mean
    over `SHARED` draws that the examples of a batch share (the paper smooths it over steps too); in evaluation over
    `COUNTED` fixed ones.
    """

    name = "energy"
    estimated = True

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__(settings, latent)
        width = settings.hidden
        self.network = dense([latent, width, width], "tanh").append(nn.Linear(width, 1))
        self.register_buffer("zero", torch.zeros(latent), persistent=False)
        self._counted: tuple[list[Tensor], tuple[Tensor, Tensor]] | None = None

    @full_precision
    def energy(self, z: Tensor) -> Tensor:
        """E(z) (...) >= 0 in nats, for z (..., D)."""
        return F.softplus(-self.network(z).squeeze(-1))

    @full_precision
    def log_normaliser(self) -> Tensor:
        """log Z (), in nats. In evaluation its value is `counted`, and its gradient that of `SHARED` of the draws."""
        if self.training:
            draws = noise.normal(self.zero.expand(SHARED, -1), shared=True)  # PyTorch 2.6's compiler may break here
            return self._log_mean(draws)
        value = self.counted()[0]
        if not torch.is_grad_enabled():
            return value
        guess = self._log_mean(next(self._fixed(SHARED)))
        return value + guess - guess.detach()

    @torch.no_grad()
    @full_precision
    def counted(self) -> tuple[Tensor, Tensor]:
        """log Z and its standard error, () each in nats, from `COUNTED` draws that are always the same; counted anew
        where weights are others than the last time. On average it is too small by half the square of the error."""
        weights = list(self.network.parameters())
        if self._counted is None or not all(map(_same, self._counted[0], weights)):
            accepted = torch.cat([torch.exp(-self.energy(z)).double() for z in self._fixed(COUNTED)])
            mean = accepted.mean()
            error = accepted.std() / (mean * math.sqrt(COUNTED))
            found = mean.log().to(self.zero.dtype), error.to(self.zero.dtype)
            self._counted = [weight.clone() for weight in weights], found
        return self._counted[1]

    def _fixed(self, n: int) -> Iterator[Tensor]:
        # The same on every device.
        generator = torch.Generator().manual_seed(0)
        for start in range(0, n, AT_ONCE):
            yield torch.randn(min(AT_ONCE, n - start), self.latent, generator=generator).to(self.zero)

    def _log_mean(self, z: Tensor) -> Tensor:
        return torch.logsumexp(-self.energy(z), 0) - math.log(len(z))

    @full_precision
    def log_prob(self, z: Tensor) -> Tensor:
        log_z = self.log_normaliser()
        log_last = (self.settings.tries - 1) * torch.log1p(-log_z.exp().clamp_max(MOST_ACCEPTED))
        log_before = torch.log(-torch.expm1(log_last))
        ratio = torch.logaddexp(log_before - log_z - self.energy(z), log_last)
        return log_normal(z, self.zero, self.zero).sum(-1) + ratio

    @full_precision
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """As `Prior.sample`; the temperature scales every draw before it is accepted or not."""
        z, accepted = self.zero.expand(n, -1), self.zero.new_zeros(n, 1, dtype=torch.bool)
        for _ in range(self.settings.tries):
            drawn = temperature * noise.normal(z)
            z = torch.where(accepted, z, drawn)
            accepted = accepted | (noise.uniform(z[:, :1]).log() < -self.energy(drawn).unsqueeze(1))
        return z


def _same(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)


class DiffusionPrior(Prior):
    """What a learned chain makes of noise, a `Chain` of as many ``steps``, which begins as the standard normal. Vahdat,
    Kreis and Kautz, Score-based Generative Modeling in Latent Space, NeurIPS 2021, https://arxiv.org/abs/2106.05931.

    Nobody knows its density at a point. `log_prob` is the log-weight of one path of noise, another at each call: its
    exponential is p(z) in the mean, so that a bound made with it is a bound, of one sample or of k.
    """

    name = "diffusion"
    estimated = True

    def __init__(self, settings: PriorSettings, latent: int) -> None:
        super().__init__(settings, latent)
        self.chain = Chain(latent, settings.steps, settings.hidden)

    def log_prob(self, z: Tensor) -> Tensor:
        """As `Prior.log_prob`: an estimate, from ``steps`` calls of the network."""
        return self.chain.log_weight(z.reshape(-1, self.latent)).view(z.shape[:-1])

    def log_bound(self, z: Tensor) -> Tensor:
        """As `Prior.log_bound`: the mean of `log_prob`, estimated from a few random steps of the chain."""
        return self.chain.log_bound(z.reshape(-1, self.latent)).view(z.shape[:-1])

    def density(self) -> Callable[[Tensor], Tensor]:
        """Raises `UsageError`: there is no density to be had that is the same at each call."""
        raise UsageError("the diffusion prior has no density to follow: what it says of a code is an estimate.")

    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """As `Prior.sample`, without a gradient; the temperature scales the noise of every step."""
        return self.chain.sample(n, temperature)


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
