"""CVAE that completes images: it is shown some quadrants and bounds the likelihood of the others given those.

Paper: Sohn, Lee and Yan, Learning Structured Output Representation using Deep Conditional Generative Models,
NeurIPS 2015, https://papers.nips.cc/paper/5775; with the networks of Pyro's tutorial on it,
https://pyro.ai/examples/cvae.html, whose numbers are public.
Official code: https://github.com/kihyuks/cvae (not read).
Where we differ: the deterministic guess that the prior network starts from is trained in the same run: alone while
the warm-up lasts, and then held fixed; the weight of the rate is 1 throughout. The bound is on log p(hidden part |
shown part): the board marks it and ranks it apart.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian, gaussian
from zoo.likelihoods import LikelihoodSettings, make_likelihood
from zoo.models.base import VAE, Losses, Settings, Terms, parameters_of, repeat
from zoo.nets import Width
from zoo.nets.mlp import chain

REMEMBERED = 64
HIDDEN = -1.0  # what the networks see where they are shown nothing


class QuadrantSettings(Settings):
    latent: int = Field(200, ge=1, description="number of latent dimensions")
    observed: int = Field(1, ge=1, le=3, description="quadrants shown: bottom left, then top left, then top right")
    hidden: tuple[Width, ...] = Field((500, 500), description="widths of each of the four networks")
    rate: Literal["sampled"] | None = Field(
        None, description="`sampled`: the KL at the draw of z, as Pyro has it: more noise; none: in closed form"
    )
    likelihood: LikelihoodSettings = LikelihoodSettings()


class QuadrantCVAE(VAE):
    """q(z | x) against a prior p(z | shown part), which a first guess at the hidden part informs."""

    Settings: ClassVar[type[Settings]] = QuadrantSettings
    completes: ClassVar[bool] = True
    measures: ClassVar[dict[str, tuple[str, str | None]]] = {
        "completion_loss": ("", "lower"),
        "guess_loss": ("", "lower"),
    }

    def __init__(self, spec: DataSpec, settings: QuadrantSettings) -> None:
        super().__init__(spec, settings)
        self.centres = REMEMBERED
        self.likelihood = make_likelihood(settings.likelihood, spec)
        self.output = self.likelihood.output_shape(spec.shape)
        _, height, width = spec.shape
        top, bottom = slice(0, height // 2), slice(height // 2, height)
        left, right = slice(0, width // 2), slice(width // 2, width)
        order = [(bottom, left), (top, left), (top, right), (bottom, right)]
        self.asked = order[settings.observed :]
        shown = torch.zeros(1, height, width, dtype=torch.bool)
        for rows, columns in order[: settings.observed]:
            shown[:, rows, columns] = True
        self.register_buffer("shown", shown, persistent=False)
        dims, size = spec.dims, 2 * settings.latent
        self.guess = chain(dims, settings.hidden, math.prod(self.output), "relu")
        self.prior_net = chain(dims, settings.hidden, size, "relu")
        self.encoder = chain(dims, settings.hidden, size, "relu")
        self.decoder = chain(settings.latent, settings.hidden, math.prod(self.output), "relu")
        # Images to complete when `sample` is asked for some.
        self.register_buffer("seen", torch.zeros(REMEMBERED, *spec.shape))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        rest = [self.prior_net, self.encoder, self.decoder, self.likelihood]
        return {"guess": parameters_of([self.guess]), "vae": parameters_of(rest)}

    @property
    def predicted(self) -> int:
        return int((~self.shown).sum()) * self.spec.shape[0]

    # ---- the four networks -----------------------------------------------------------------------------------------

    def guessed(self, x: Tensor) -> Tensor:
        """The likelihood's parameters (B, C', H, W) from the shown part alone."""
        return self.guess(torch.where(self.shown, x, HIDDEN).flatten(1)).view(len(x), *self.output)

    def prior(self, x: Tensor) -> DiagonalGaussian:
        """p(z | shown part of x); no gradient reaches the guess."""
        with torch.no_grad():
            guess = self.likelihood.mean(self.guessed(x)).to(x.dtype)
        return gaussian(self.prior_net(torch.where(self.shown, x, guess).flatten(1)))

    def infer(self, x: Tensor) -> DiagonalGaussian:
        """q(z | x), of the whole image."""
        return gaussian(self.encoder(x.flatten(1)))

    def decode(self, z: Tensor) -> Tensor:
        """(B, D) to the likelihood's parameters (B, C', H, W), of which only the hidden part counts."""
        return self.decoder(z).view(len(z), *self.output)

    def log_likelihood(self, params: Tensor, x: Tensor) -> Tensor:
        """(B,) nats: log p(hidden part of x)."""
        parts = [self.likelihood.log_prob(params[:, :, r, c], x[:, :, r, c]) for r, c in self.asked]
        return torch.stack(parts).sum(0)

    # ---- the contract ----------------------------------------------------------------------------------------------

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        q, p = self.infer(x), self.prior(x)
        z, log_q = q.rsample()
        rate = log_q - p.log_prob(z) if self.settings.rate == "sampled" else q.kl(p).sum(1)
        return Terms(-self.log_likelihood(self.decode(z), x), rate.unsqueeze(1), {"z": z})

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """The guess's loss while the warm-up lasts, minus the bound afterwards."""
        if self.stage_of(progress) == "guess":
            # Before what needs no gradient: up to PyTorch 2.9 autocast keeps the weights that it cast without one.
            guess = -self.log_likelihood(self.guessed(x), x).mean()
            with torch.no_grad():
                terms = self.terms(x)
            return Losses({"guess": guess}, terms)
        terms = self.terms(x)
        return Losses({"vae": -terms.elbo.mean()}, terms)

    def stage(self, progress: float | Tensor) -> str:
        return "guess" if progress < 1 else "vae"

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        p = self.prior(x).repeat(k)
        z, log_q = self.infer(x).repeat(k).rsample()
        log_likelihood = self.log_likelihood(self.decode(z), repeat(x, k))
        return (log_likelihood + p.log_prob(z) - log_q).view(k, len(x))

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.infer(x).mean

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(hidden part | z) at the representation, beside the shown part."""
        return self._completed(x, self.represent(x))

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Completions of images that were seen first in training, drawn at random."""
        x = self.seen[noise.index(self.seen.new_empty(n), REMEMBERED)]
        return self._completed(x, self.prior(x).sample(temperature))

    def _completed(self, x: Tensor, z: Tensor) -> Tensor:
        mean = self.likelihood.mean(self.decode(z))
        return torch.where(self.shown, x.to(mean.dtype), mean)

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        index = torch.arange(REMEMBERED, device=x.device) % len(x)
        self.seen.copy_(x[index])

    def measure(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Loss of the hidden part, nats for data that the likelihood is of: minus the bound, and the guess's."""
        return {
            "completion_loss": -self.terms(x).elbo,
            "guess_loss": -self.log_likelihood(self.guessed(x), x),
        }
