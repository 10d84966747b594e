"""VQ-VAE: the code of an image is a grid of entries of a codebook, and an autoregressive prior over such grids.

Paper: van den Oord, Vinyals and Kavukcuoglu, Neural Discrete Representation Learning, NeurIPS 2017,
https://arxiv.org/abs/1711.00937; quantiser ``fsq``: Mentzer et al., Finite Scalar Quantization, ICLR 2024,
https://arxiv.org/abs/2309.15505; ``residual``: Lee et al., Autoregressive Image Generation using Residual Quantization,
CVPR 2022, https://arxiv.org/abs/2203.01941; ``lfq``: Yu et al., Language Model Beats Diffusion - Tokenizer is Key to
Visual Generation, ICLR 2024, https://arxiv.org/abs/2310.05737.
Official code: https://github.com/google-deepmind/sonnet, examples/vqvae_example.ipynb.
Where we differ: the codebook's moving averages count in shares of the batch, and codes that nobody uses are restarted
(`zoo.quantisers`); distortion is minus the log-likelihood in nats and commitment a sum over the grid, not two means;
the networks and the prior are smaller. Prior and autoencoder are one run: the first ``prior_from`` of it trains the
autoencoder, the rest the prior alone on codes that no longer move (so early stopping must not come
before that).

The encoder is deterministic: q is a point, its entropy zero, and log p(x) >= log p(x | codes) + log p(codes) with
both terms exact. Every posterior sample is the same one, so the k-sample bound is the ELBO for each k.
"""

from __future__ import annotations

import contextlib
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.likelihoods import LikelihoodSettings, make_likelihood
from zoo.models.base import VAE, Losses, Settings, Terms, parameters_of
from zoo.nets import Width
from zoo.nets.code_prior import CodePrior, CodePriorSettings
from zoo.quantisers import Quantised, QuantiserSettings, code_counts, make_quantiser, perplexity


class VQSettings(Settings):
    latent: int = Field(16, ge=1, description="numbers in a code's vector (fsq has one a level, lfq one a bit)")
    channels: tuple[Width, ...] = Field(
        (16, 32), min_length=1, description="channels of each halving of the resolution"
    )
    residual: int = Field(1, ge=0, description="residual blocks at the lowest resolution, in each network")
    hidden: int = Field(32, ge=1, description="channels inside a residual block")
    quantiser: QuantiserSettings = QuantiserSettings()
    prior: CodePriorSettings = CodePriorSettings()
    prior_from: float = Field(0.6, gt=0, lt=1, description="share of training after which only the prior is trained")
    likelihood: LikelihoodSettings = LikelihoodSettings()


class VQVAE(VAE):
    """A convolutional autoencoder with a quantised grid in its middle, in two parameter groups: ``vae``, ``prior``."""

    Settings: ClassVar[type[Settings]] = VQSettings

    def __init__(self, spec: DataSpec, settings: VQSettings) -> None:
        super().__init__(spec, settings)
        channels, height, width = spec.shape
        factor = 2 ** len(settings.channels)
        self.grid = (-(-height // factor), -(-width // factor))
        # Sizes that the halvings do not divide are padded below and to the right, and cropped there again.
        self.padding = (0, self.grid[1] * factor - width, 0, self.grid[0] * factor - height)
        self.quantiser = make_quantiser(settings.quantiser, settings.latent)
        self.encoder = _encoder(settings, channels, self.quantiser.size)
        self.likelihood = make_likelihood(settings.likelihood, spec)
        self.decoder = _decoder(settings, self.quantiser.size, self.likelihood.channels(channels))
        self.prior = CodePrior(settings.prior, self.grid, self.quantiser.codes, self.quantiser.depth)
        # A third faster on a CPU, and what tensor cores want.
        self.to(memory_format=torch.channels_last)

    # ---- the two halves --------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the grid before quantisation, (B, D, h, w)."""
        padded = F.pad(x, self.padding) if any(self.padding) else x
        return self.encoder(padded.contiguous(memory_format=torch.channels_last))

    def decode(self, vectors: Tensor) -> Tensor:
        """(B, D, h, w) to the likelihood's parameters (B, C', H, W)."""
        return self.decoder(vectors)[:, :, : self.spec.shape[1], : self.spec.shape[2]]

    def codes(self, x: Tensor) -> Tensor:
        """(B, h, w) int64: the codes of images; (B, h, w, depth) of a residual quantiser."""
        return self.quantiser(self.encode(x)).codes

    @property
    def couples_examples(self) -> bool:
        return self.quantiser.couples_examples

    # ---- the contract ----------------------------------------------------------------------------------------------

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        """As `VAE.terms`, with aux ``codes`` as of `codes`, ``commitment`` (B,) and the batch's ``perplexity`` ()."""
        q = self.quantiser(self.encode(x))
        return self._terms(x, q, -self.prior.log_prob(q.codes).unsqueeze(1))

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """Distortion, commitment and what else the quantiser asks for of the autoencoder, then the rate of the prior;
        both where nobody says how far the training is."""
        stage = self.stage_of(progress)
        fits_codes, fits_prior = stage != "prior", stage != "vae"
        with contextlib.nullcontext() if fits_codes else torch.no_grad():
            z = self.encode(x)
            q = self.quantiser(z)
            if fits_codes and self.training:
                self.quantiser.observe(z.detach(), q.codes)
            # A prior that no step has moved is uniform, so its rate needs no network.
            terms = self._terms(x, q, self.prior.uniform_rate(q.codes).unsqueeze(1))
        losses = {}
        if fits_codes:
            losses["vae"] = (terms.distortion + q.commitment).mean()
            if (penalty := self.quantiser.penalty(z)) is not None:
                losses["vae"] = losses["vae"] + penalty
        if fits_prior:
            terms.rate = -self.prior.log_prob(q.codes).unsqueeze(1)
            losses["prior"] = terms.rate.mean()
        return Losses(losses, terms)

    def stage(self, progress: float | Tensor) -> str:
        fraction = getattr(progress, "fraction", None)
        if fraction is None:
            return "both"
        return "vae" if fraction < self.settings.prior_from else "prior"

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {
            "vae": parameters_of([self.encoder, self.decoder, self.likelihood]),
            "prior": parameters_of([self.prior]),
        }

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        return self.terms(x, y).elbo.expand(k, len(x))

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D h w): the vectors of the codes, what the decoder sees."""
        return self.quantiser(self.encode(x)).vectors.flatten(1)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.decode(self.quantiser(self.encode(x)).vectors))

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """(n, C, H, W) in [0, 1]: means of p(x | codes) for codes from the prior, whose logits are divided by
        ``temperature``."""
        return self.likelihood.mean(self.decode(self.quantiser.embed(self.prior.sample(n, temperature))))

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        self.quantiser.initialise(self.encode(x))

    def after_step(self) -> None:
        self.quantiser.after_step()

    def _terms(self, x: Tensor, q: Quantised, rate: Tensor) -> Terms:
        distortion = -self.likelihood.log_prob(self.decode(q.vectors), x)
        used = perplexity(code_counts(q.codes, self.quantiser.codes))
        return Terms(distortion, rate, {"codes": q.codes, "commitment": q.commitment, "perplexity": used})


class _Residual(nn.Module):
    # x + W1 relu(W3 relu(x)), the block of the paper.
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _encoder(settings: VQSettings, channels: int, size: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in zip([channels, *settings.channels], settings.channels, strict=False):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
    last = settings.channels[-1]
    blocks = [_Residual(last, settings.hidden) for _ in range(settings.residual)]
    return nn.Sequential(*layers[:-1], *blocks, nn.ReLU(), nn.Conv2d(last, size, 1))


def _decoder(settings: VQSettings, size: int, channels: int) -> nn.Module:
    first = settings.channels[-1]
    blocks = [_Residual(first, settings.hidden) for _ in range(settings.residual)]
    layers: list[nn.Module] = [nn.Conv2d(size, first, 3, padding=1), *blocks]
    widths = [*reversed(settings.channels), channels]
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.ReLU(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
    return nn.Sequential(*layers)
