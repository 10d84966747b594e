"""The variational autoencoder: a diagonal Gaussian posterior, a standard normal prior, one sample of the bound.

Paper: Kingma and Welling, Auto-Encoding Variational Bayes, ICLR 2014, https://arxiv.org/abs/1312.6114.
Official code: none was published with the paper.
Where we differ: ReLU layers and Adam instead of tanh and Adagrad; the rate is analytic, as in the paper's appendix B.
The posterior, the prior, the likelihood and both networks are settings, so most of the family is this file with one
part exchanged.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.errors import UsageError
from zoo.likelihoods import LikelihoodSettings, make_likelihood
from zoo.models.base import VAE, Settings, Terms, condition_size, condition_vector, repeat, require_draws
from zoo.nets import DecoderSettings, EncoderSettings, make_decoder, make_encoder, require
from zoo.nets.mlp import start_at_mean_image
from zoo.posteriors import DiagonalPosterior, PosteriorSettings, make_posterior
from zoo.priors import PriorSettings, make_prior


class VanillaSettings(Settings):
    encoder: EncoderSettings = EncoderSettings()
    decoder: DecoderSettings = DecoderSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()
    prior: PriorSettings = PriorSettings()
    posterior: PosteriorSettings = PosteriorSettings()


class VanillaVAE(VAE):
    """One layer of continuous latents between an encoder and a decoder."""

    Settings: ClassVar[type[Settings]] = VanillaSettings

    def __init__(self, spec: DataSpec, settings: VanillaSettings) -> None:
        super().__init__(spec, settings)
        self.build(spec, settings)

    def build(self, spec: DataSpec, settings: VanillaSettings) -> None:
        """Make the networks, the posterior, the likelihood and the prior: for a subclass that has others."""
        if settings.prior.name == "vamp":
            require(not self.conditional, "prior.name=vamp needs a model without a condition: pseudo-inputs have none.")
            require(
                settings.posterior.name == "diagonal",
                "prior.name=vamp needs posterior.name=diagonal: a flow has no density at a given z.",
            )
        self.encoder = make_encoder(settings.encoder, spec, condition_size(spec) if self.conditional else 0)
        self.posterior = make_posterior(settings.posterior, settings.latent)
        self.head = nn.Linear(self.encoder.features, self.posterior.size)
        self.likelihood = make_likelihood(settings.likelihood, spec)
        output = self.likelihood.output_shape(spec.shape)
        self.decoder = make_decoder(settings.decoder, settings.latent + self.beside, output)
        self.prior = make_prior(settings.prior, settings.latent, encode=self.infer, spec=spec)

    @property
    def beside(self) -> int:
        """How many numbers the decoder is given beside z: those of the condition."""
        return condition_size(self.spec) if self.conditional else 0

    @property
    def code_variance(self) -> float | Tensor:
        moments = self.prior.moments()
        return 1.0 if moments is None else moments[1].exp()

    def infer(self, x: Tensor, y: Tensor | None = None):
        """q(z | x), or q(z | x, y) for a conditional model, as the posterior's object."""
        condition = condition_vector(self.spec, y, x) if self.conditional else None
        return self.posterior(self.head(self.encoder(x, condition)))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D) to the likelihood's parameters (B, C', H, W)."""
        if self.conditional:
            z = torch.cat([z, condition_vector(self.spec, y, z)], 1)
        return self.decoder(z)

    def log_likelihood(self, params: Tensor, x: Tensor) -> Tensor:
        """(B,) nats, log p(x | z) from the decoder's output."""
        return self.likelihood.log_prob(params, x)

    def bound(self, q: Any, x: Tensor, y: Tensor | None = None) -> tuple[Terms, Tensor]:
        """The bound at one draw of q, what `infer` gave, and the decoder's output (B, C', H, W) there."""
        z, log_q = q.rsample()
        params = self.decode(z, y)
        divergence = q.kl(self.prior)
        rate = log_q - self.prior.log_bound(z) if divergence is None else divergence.sum(1)
        return Terms(-self.log_likelihood(params, x), rate.unsqueeze(1), {"z": z}, divergence), params

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        return self.bound(self.infer(x, y), x, y)[0]

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        z, log_q = self.infer(x, y).repeat(k).rsample()
        log_likelihood = self.log_likelihood(self.decode(z, repeat(y, k)), repeat(x, k))
        return (log_likelihood + self.prior.log_prob(z) - log_q).view(k, len(x))

    def draw(self, params: Tensor) -> Tensor:
        """(B, C, H, W), a draw of p(x | z) from the decoder's output."""
        return self.likelihood.sample(params)

    def simulate(self, n: int, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if type(self).log_weights is not VanillaVAE.log_weights:  # of other latents, maybe
            return super().simulate(n, y)
        require_draws(self.likelihood)
        if self.prior.estimated:
            raise UsageError(f"the density of its {self.prior.name} prior is estimated.")
        z = self.prior.sample(n)
        x = self.draw(self.decode(z, y))
        q = self.diagonal_posterior(x, y)
        if q is None:
            raise UsageError("its posterior is not one diagonal Gaussian.")
        return x, q.noise_of(z)

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.infer(x, y).centre

    def diagonal_posterior(self, x: Tensor, y: Tensor | None = None) -> DiagonalGaussian | None:
        q = self.infer(x, y)
        return q if isinstance(q, DiagonalGaussian) else None

    @property
    def one_gaussian(self) -> bool:
        own = type(self).log_weights is not VanillaVAE.log_weights  # of other latents, maybe
        return isinstance(self.posterior, DiagonalPosterior) and not self.prior.estimated and not own

    def log_joint(self, z: Tensor, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.log_likelihood(self.decode(z, y), x) + self.prior.log_prob(z)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.decode(self.represent(x, y), y))

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return self.likelihood.mean(self.decode(self.prior.sample(n, temperature), y))

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        """Start a dense Bernoulli decoder at the mean image (as Burda et al. do), and the prior from the data."""
        start_at_mean_image(self.decoder, x, self.likelihood)
        self.prior.initialise(x)
