"""S-VAE: codes lie on the unit sphere, uniform under the prior, von Mises-Fisher under the posterior.

Paper: Davidson, Falorsi, De Cao, Kipf and Tomczak, Hyperspherical Variational Auto-Encoders, UAI 2018,
https://arxiv.org/abs/1804.00891.
Official code: https://github.com/nicola-decao/s-vae-pytorch (read: `examples/mnist.py`).
Where we differ: ``latent`` counts the dimensions of the space that the sphere lies in, the paper's d those of the
sphere, one less. A draw's derivative with respect to the concentration is the exact one, of its distribution function
(Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, NeurIPS 2018, https://arxiv.org/abs/1805.08498);
the paper differentiates the proposal that was accepted. As in the official code the concentration is one more than a
softplus, so that the posterior never becomes the prior.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.data.images import DataSpec
from zoo.distributions.von_mises_fisher import VonMisesFisher, log_area
from zoo.likelihoods import LikelihoodSettings, make_likelihood
from zoo.models.base import VAE, Settings, Terms, repeat
from zoo.nets import DecoderSettings, EncoderSettings, make_decoder, make_encoder
from zoo.nets.mlp import start_at_mean_image
from zoo.precision import full


class SphericalSettings(Settings):
    latent: int = Field(16, ge=2, description="dimensions of the space that the sphere lies in, one more than its own")
    encoder: EncoderSettings = EncoderSettings()
    decoder: DecoderSettings = DecoderSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()


class SphericalVAE(VAE):
    """z (B, D) of length 1."""

    Settings: ClassVar[type[Settings]] = SphericalSettings
    # The uniform density has no centre, and no deviation that a temperature could scale.
    centres = 1 << 31

    def __init__(self, spec: DataSpec, settings: SphericalSettings) -> None:
        super().__init__(spec, settings)
        self.code_variance = 1 / settings.latent  # of a coordinate of a uniform direction
        self.encoder = make_encoder(settings.encoder, spec)
        self.head = nn.Linear(self.encoder.features, settings.latent + 1)
        self.likelihood = make_likelihood(settings.likelihood, spec)
        self.decoder = make_decoder(settings.decoder, settings.latent, self.likelihood.output_shape(spec.shape))

    def infer(self, x: Tensor) -> VonMisesFisher:
        """q(z | x)."""
        features = full(self.head(self.encoder(x)))
        return VonMisesFisher(on_sphere(features[:, :-1]), 1 + F.softplus(features[:, -1]))

    def decode(self, z: Tensor) -> Tensor:
        """(B, D) to the likelihood's parameters (B, C', H, W)."""
        return self.decoder(z)

    # ---- the contract ----------------------------------------------------------------------------------------------

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        q = self.infer(x)
        z, _ = q.rsample()
        return Terms(-self.likelihood.log_prob(self.decode(z), x), q.kl_uniform().unsqueeze(1), {"z": z})

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        z, log_q = self.infer(x).repeat(k).rsample()
        log_likelihood = self.likelihood.log_prob(self.decode(z), repeat(x, k))
        return (log_likelihood - log_area(self.settings.latent) - log_q).view(k, len(x))

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D), of length 1: the mean direction."""
        return self.infer(x).mean

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.decode(self.represent(x)))

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """As `VAE.sample`; the temperature changes nothing."""
        like = next(self.parameters())
        return self.likelihood.mean(self.decode(on_sphere(noise.normal(like.new_empty(n, self.settings.latent)))))

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        """Start a dense Bernoulli decoder at the mean image."""
        start_at_mean_image(self.decoder, x, self.likelihood)


def on_sphere(z: Tensor) -> Tensor:
    """z (..., D) of any length, as a direction of length 1."""
    return z / torch.linalg.vector_norm(z, dim=-1, keepdim=True).clamp_min(1e-12)
