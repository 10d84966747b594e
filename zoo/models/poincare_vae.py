"""Poincaré VAE: codes lie in hyperbolic space, whose volume grows as a tree does, exponentially with the distance.

Paper: Mathieu, Le Lan, Maddison, Tomioka and Teh, Continuous Hierarchical Representations with Poincaré Variational
Auto-Encoders, NeurIPS 2019, https://arxiv.org/abs/1901.06033.
Official code: https://github.com/emilemathieu/pvae (read: the wrapped normal, the networks and the model of MNIST).
Where we differ: prior and posterior are wrapped normals, the paper has Riemannian normals beside them. A code is
written in the coordinates of the exponential map at the origin, the paper's in those of the Poincaré ball, so that
the prior is N(0, I) and the wrapped posterior a density over R^D (`zoo.distributions.hyperbolic`): the same bound.
The encoder gives the log-variance, theirs the deviation through a softplus. A gyroplane's distance from the origin is
a parameter of its own, theirs a multiple of its weight's norm, which is our gain and no part of theirs otherwise. The
default of the curvature is as strong in 16 dimensions as the 0.7 of their example is in two: c times d is 1.6 here
and 1.4 there.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.distributions.hyperbolic import Gyroplanes, WrappedNormal
from zoo.likelihoods import LikelihoodSettings, make_likelihood
from zoo.models.base import Settings
from zoo.models.vae import VanillaVAE
from zoo.nets import ACTIVATIONS, DecoderSettings, EncoderSettings, make_decoder, make_encoder, require
from zoo.priors import PriorSettings, StandardPrior


class PoincareSettings(Settings):
    curvature: float = Field(0.1, gt=0, le=10, description="c: minus the curvature of the space")
    isotropic: Literal[True] | None = Field(
        None, description="yes: one variance for all dimensions of a posterior; none: one each"
    )
    encoder: EncoderSettings = EncoderSettings()
    decoder: DecoderSettings = DecoderSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()


class PoincareVAE(VanillaVAE):
    """A vanilla VAE whose posterior is wrapped onto hyperbolic space, and whose decoder begins with gyroplanes."""

    Settings: ClassVar[type[Settings]] = PoincareSettings
    one_gaussian = False

    def build(self, spec: DataSpec, settings: PoincareSettings) -> None:
        self.encoder = make_encoder(settings.encoder, spec)
        self.head = nn.Linear(self.encoder.features, settings.latent + (1 if settings.isotropic else settings.latent))
        self.likelihood = make_likelihood(settings.likelihood, spec)
        require(
            bool(settings.decoder.hidden) and "gated" not in (settings.decoder.name, settings.decoder.activation),
            "a decoder from hyperbolic space begins with dense units, not gated ones: decoder.hidden says how many.",
        )
        width, *hidden = settings.decoder.hidden
        self.planes = Gyroplanes(settings.latent, width, settings.curvature)
        self.activation = ACTIVATIONS[settings.decoder.activation]()
        rest = settings.decoder.model_copy(update={"hidden": tuple(hidden)})
        self.decoder = make_decoder(rest, width, self.likelihood.output_shape(spec.shape))
        self.prior = StandardPrior(PriorSettings(), settings.latent)

    def infer(self, x: Tensor, y: Tensor | None = None) -> WrappedNormal:
        """q(z | x)."""
        mean, log_variance = self.head(self.encoder(x)).tensor_split([self.settings.latent], -1)
        return WrappedNormal(mean, log_variance.expand_as(mean), self.settings.curvature)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D) to the likelihood's parameters (B, C', H, W)."""
        return self.decoder(self.activation(self.planes(z)))
