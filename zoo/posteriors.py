"""q(z | x): the diagonal Gaussian, and the flows of `zoo.flows` on top of it.

The module that `make_posterior` gives says how many features it wants from the encoder (``size``) and turns them into
a ``q``, an object that can be sampled together with its log-density. All of it is in nats and in float32 (float64 for
float64 features).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from zoo.distributions.gaussians import DiagonalGaussian, gaussian
from zoo.errors import UsageError
from zoo.flows import IAF, Flow, Householder, Planar, Radial, Spline, Sylvester
from zoo.precision import full, full_precision
from zoo.settings import Frozen, ReadBy


class PosteriorSettings(Frozen):
    """Which posterior, and its own settings.

    Attributes:
        flows: number of flow steps after the diagonal Gaussian (all but ``diagonal``).
        hidden: width of the autoregressive networks (``iaf``, ``spline``), at least the latent dimension.
        context: number of encoder features that condition them (``iaf``, ``spline``).
        vectors: columns of Q in a Sylvester step; at most the latent dimension is used.
        bins: pieces of a spline.
    """

    read_by: ClassVar[ReadBy] = {
        "flows": ("planar", "radial", "sylvester", "householder", "iaf", "spline"),
        "hidden": ("iaf", "spline"),
        "context": ("iaf", "spline"),
        "vectors": ("sylvester",),
        "bins": ("spline",),
    }

    name: Literal["diagonal", "planar", "radial", "sylvester", "householder", "iaf", "spline"] = "diagonal"
    flows: int = Field(default=4, ge=1)
    hidden: int = Field(default=320, ge=1)
    context: int = Field(default=64, ge=1)
    vectors: int = Field(default=8, ge=1)
    bins: int = Field(default=8, ge=2)


class DiagonalPosterior(nn.Module):
    """Encoder features (B, size), the mean and the log-variance, as q(z | x) (Kingma & Welling 2014)."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.size = 2 * latent

    def forward(self, features: Tensor) -> DiagonalGaussian:
        return gaussian(features)


class FlowSample:
    """The density of flow(z0), z0 from a diagonal Gaussian, given what conditions the flow (B, context)."""

    def __init__(self, base: DiagonalGaussian, flow: Flow, context: Tensor) -> None:
        self.base = base
        self.flow = flow
        self.context = full(context)

    @property
    def mean(self) -> Tensor:
        """The mean of the *base* Gaussian (B, D), not of the density: that has no closed form.

        What stands for x is `centre`.
        """
        return self.base.mean

    @property
    @full_precision
    def centre(self) -> Tensor:
        """Where the flow takes the mean of the base (B, D): the code of x, and what is decoded to rebuild it."""
        return self.flow(self.base.mean, self.context)[0]

    @full_precision
    def rsample(self) -> tuple[Tensor, Tensor]:
        """A reparameterised draw z (B, D) and log q(z) = log N(z0) - log|det dz/dz0| (B,)."""
        z, log_q = self.base.rsample()
        z, log_det = self.flow(z, self.context)
        return z, log_q - log_det

    def kl(self, prior: object) -> None:
        """No analytic KL: the rate is the one-sample log q(z) - log p(z)."""
        return None

    def repeat(self, k: int) -> FlowSample:
        """The same q for k * B rows, sample-major: row s * B + b belongs to example b."""
        return FlowSample(self.base.repeat(k), self.flow, self.context.repeat(k, 1))


class FlowPosterior(nn.Module):
    """Encoder features (B, size), mean, log-variance and context of the flow, as a diagonal Gaussian that the flow
    transforms."""

    def __init__(self, latent: int, flow: Flow) -> None:
        super().__init__()
        self.flow = flow
        self.parts = [latent, latent, flow.context]
        self.size = sum(self.parts)

    def forward(self, features: Tensor) -> FlowSample:
        mean, log_variance, context = features.split(self.parts, dim=-1)
        return FlowSample(DiagonalGaussian(mean, log_variance), self.flow, context)


FLOWS: dict[str, Callable[[PosteriorSettings, int], Flow]] = {
    # Rezende & Mohamed 2015; u, w and b of every step come from the encoder.
    "planar": lambda settings, latent: Planar(latent, settings.flows),
    # The same paper; centre, width and strength of every step come from the encoder.
    "radial": lambda settings, latent: Radial(latent, settings.flows),
    # van den Berg et al. 2018, orthogonal; everything in a step comes from the encoder.
    "sylvester": lambda settings, latent: Sylvester(latent, settings.flows, min(settings.vectors, latent)),
    # Tomczak & Welling 2016; every reflection's vector comes from the encoder.
    "householder": lambda settings, latent: Householder(latent, settings.flows),
    # Kingma et al. 2016; the encoder gives a context to autoregressive networks shared by all x.
    "iaf": lambda settings, latent: IAF(latent, settings.flows, settings.context, settings.hidden),
    # Neural spline flow, Durkan et al. 2019, conditioned as IAF is.
    "spline": lambda settings, latent: Spline(
        latent, settings.flows, settings.context, settings.hidden, settings.bins
    ),
}
POSTERIORS = ("diagonal", *FLOWS)


def make_posterior(settings: PosteriorSettings, latent: int) -> DiagonalPosterior | FlowPosterior:
    """The posterior of those settings over ``latent`` dimensions.

    Raises:
        UsageError: an autoregressive one with fewer hidden units than dimensions: some dimension would be left out.
    """
    if settings.name == "diagonal":
        return DiagonalPosterior(latent)
    if settings.name in ("iaf", "spline") and settings.hidden < latent:
        few = f"posterior.hidden is {settings.hidden}, fewer than the {latent} latent dimensions"
        raise UsageError(f"{few}: the autoregressive networks of '{settings.name}' need a unit for each.")
    return FlowPosterior(latent, FLOWS[settings.name](settings, latent))
