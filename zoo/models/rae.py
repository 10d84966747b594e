"""RAE: a deterministic autoencoder whose codes are kept small and whose decoder is kept smooth; sampled ex post.

Paper: Ghosh, Sajjadi, Vergari, Black and Schoelkopf, From Variational to Deterministic Autoencoders, ICLR 2020,
https://arxiv.org/abs/1903.12436.
Official code: https://github.com/ParthaEth/Regularized_autoencoders-RAE- (read: `models/rae/loss_functions.py`,
`models/rae/rae_mnist.py`, `configurations/config.py`, `my_utility/estimate_density_and_sample.py`).

The loss of an image x with code z = E(x) and reconstruction D(z), averaged over the batch, is

    |x - D(z)|^2  +  beta / 2 |z|^2  +  weight * R

    l2:   R = the sum of squares of the decoder's weights (matrices and kernels; no biases)
    gp:   R = |dD / dz|^2, the sum of squares of the decoder's Jacobian at z
    none: R = 0; with beta = 0 too it is a plain autoencoder

Every norm is a sum: over pixels and channels, over latents, over weights. The official code has means where we have
sums: over pixels in the error and over latents in |z|^2. Its weights become ours when multiplied with the number of
pixels P, and that of the embedding with 2 / D for D latents: for its MNIST, padded to P = 1,024, with D = 16, an
embedding weight of 1e-4 is beta = 0.0128, and an L2 weight of 1e-7 is weight = 1.024e-4.

Where we differ: the official L2 leaves the decoder's first layer out, ours has all of it. The official gradient penalty
is the squared gradient of one number, the sum of all squared pixels; ours is the Jacobian's norm that the paper writes,
estimated without bias by one random projection an image (Hutchinson 1989): |v' dD/dz|^2 for a vector v of random signs.
Its weight is therefore not theirs. Spectral normalisation, the paper's third regulariser, is not there. The networks
have no batch normalisation.

There is no posterior, so there is no ELBO: an encoder that gives a point has a rate of infinity against any density of
codes. `terms` has the squared error as its distortion and no rate at all, `log_weights` refuses, an evaluation reports
a ``reconstruction_loss``, and says of every bound why it is absent. The weights that are kept are those of the smallest
squared error of validation images (the official code keeps those of the smallest loss, the penalties included).

Codes are drawn from a mixture of Gaussians (`zoo.distributions.code_density`), which is fitted to the codes of all
training images when training is over and is part of the model from then on; until then it is the standard normal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.data.images import DataSpec
from zoo.distributions.code_density import CodeDensity, CodeDensitySettings
from zoo.errors import UsageError
from zoo.likelihoods import Likelihood
from zoo.models.base import VAE, Losses, Settings, Terms
from zoo.nets import DecoderSettings, EncoderSettings, make_decoder, make_encoder
from zoo.nets.aside import aside
from zoo.precision import full, full_precision


class RAESettings(Settings):
    encoder: EncoderSettings = EncoderSettings()
    decoder: DecoderSettings = DecoderSettings()
    beta: float = Field(0.0128, ge=0, description="weight of half the squared norm of the code, in training")
    regulariser: Literal["l2", "gp", "none"] = Field("l2", description="what keeps the decoder smooth")
    weight: float = Field(1e-4, ge=0, description="weight of the regulariser, in training")
    density: CodeDensitySettings = CodeDensitySettings()


class SquaredError(Likelihood):
    """The squared error as what stands where others have a likelihood. It is one of no data: nothing in it is in nats.
    The decoder's output is confined to [0, 1] where the data is."""

    name = "squared_error"
    supports = frozenset()

    @full_precision
    def output(self, params: Tensor) -> Tensor:
        """What is compared with the image: a sigmoid of the decoder's numbers, or those of real data themselves."""
        return torch.sigmoid(params) if self.confined else params

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """(B,): minus the squared error, summed over pixels and channels; the logarithm of no probability."""
        return -(self.output(params) - x).square().flatten(1).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        return self.within(self.output(params))

    def sample(self, params: Tensor) -> Tensor:
        """The mean: there is no distribution about it."""
        return self.mean(params)


class RAE(VAE):
    """An encoder to a point, a decoder, and a density of the points for sampling."""

    Settings: ClassVar[type[Settings]] = RAESettings
    bounds: ClassVar[bool] = False
    warms_up: ClassVar[bool] = False

    def __init__(self, spec: DataSpec, settings: RAESettings) -> None:
        super().__init__(spec, settings)
        self.encoder = make_encoder(settings.encoder, spec)
        self.head = nn.Linear(self.encoder.features, settings.latent)
        self.likelihood = SquaredError(confined=spec.support != "real")
        self.decoder = make_decoder(settings.decoder, settings.latent, spec.shape)
        self.density = CodeDensity(settings.density, settings.latent)
        self.centres = settings.density.components

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to codes (B, D), in full precision."""
        return full(self.head(self.encoder(x)))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (B, D) to the numbers (B, C, H, W) that `SquaredError` makes pixels of."""
        return self.decoder(z)

    # ---- the contract ----------------------------------------------------------------------------------------------

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        """Distortion (B,): the squared error. Rate (B, 0): there is none. Aux: ``z`` (B, D)."""
        z = self.encode(x)
        return self._terms(self.decode(z), x, z)

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        z, penalty = self.encode(x), torch.zeros((), device=x.device)
        if self.settings.regulariser == "gp":
            params, penalty = self.stretch(z)
        else:
            params = self.decode(z)
        if self.settings.regulariser == "l2":
            penalty = self.squared_weights()
        terms = self._terms(params, x, z)
        loss = (terms.distortion + 0.5 * self.settings.beta * z.square().sum(1)).mean()
        return Losses({"vae": loss + self.settings.weight * penalty.mean()}, terms)

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        """Raises UsageError: log-weights are those of samples of a posterior."""
        raise UsageError("rae has no posterior, so it has no log-weights and no bound on log p(x).")

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.encode(x)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.decode(self.encode(x)))

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """(n, C, H, W) in [0, 1]: decoded draws of the density, its deviations times ``temperature``."""
        return self.likelihood.mean(self.decode(self.density.sample(n, temperature)))

    @torch.no_grad()
    def recollect(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Fit the density to the codes of an epoch of training images. The global random state is the same afterwards,
        and what was drawn before it does not matter."""
        # Bits of grey pixels are drawn while the batches are read.
        with aside(self):
            self.density.fit(torch.cat([self.encode(x) for x, _ in batches]))

    # ---- the regularisers ------------------------------------------------------------------------------------------

    @full_precision
    def squared_weights(self) -> Tensor:
        """A scalar: the sum of squares of the decoder's matrices and kernels."""
        return torch.stack([each.square().sum() for each in self.decoder.parameters() if each.dim() > 1]).sum()

    def stretch(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's numbers (B, C, H, W) at codes (B, D), and an estimate (B,) of the sum of squares of the
        Jacobian of the pixels there: its mean over draws is that sum."""

        def pixels(z: Tensor) -> tuple[Tensor, Tensor]:
            params = self.decode(z)
            return self.likelihood.output(params), params

        out, pull, params = torch.func.vjp(pixels, z, has_aux=True)
        signs = torch.where(noise.uniform(out) < 0.5, -1.0, 1.0).to(out.dtype)
        (pulled,) = pull(signs)
        return params, pulled.square().sum(1)

    def _terms(self, params: Tensor, x: Tensor, z: Tensor) -> Terms:
        distortion = -self.likelihood.log_prob(params, x)
        return Terms(distortion, distortion.new_zeros(len(x), 0), {"z": z})
