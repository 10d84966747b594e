"""What variants have in common whose code is one or several grids of codes: an autoencoder that is trained first, and
then a prior over its grids, on codes that no longer move.

The encoder is deterministic: q is a point, its entropy zero, and log p(x) >= log p(x | codes) + log p(codes) with
both terms exact. Every posterior sample is the same one, so the k-sample bound is the ELBO for each k.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from zoo.data.images import DataSpec
from zoo.likelihoods import LikelihoodSettings, make_likelihood
from zoo.models.base import VAE, Losses, Settings, Terms
from zoo.nets.code_prior import CodePrior, CodePriorSettings
from zoo.nets.halvings import Halved, HalvingSettings
from zoo.quantisers import Quantised, Quantiser, QuantiserSettings, code_counts, perplexity


class QuantisedSettings(HalvingSettings, Settings):
    latent: int = Field(16, ge=1, description="numbers in a code's vector (fsq has one a level, lfq one a bit)")
    quantiser: QuantiserSettings = QuantiserSettings()
    prior: CodePriorSettings = CodePriorSettings()
    prior_from: float = Field(0.6, gt=0, lt=1, description="share of training after which only the prior is trained")
    likelihood: LikelihoodSettings = LikelihoodSettings()


class Grid(NamedTuple):
    """A grid as the encoder gives it, ``z`` (B, D, h, w), and what its quantiser made of it."""

    z: Tensor
    q: Quantised


class QuantisedVAE(VAE):
    """An autoencoder with quantised grids in its middle, in two parameter groups: ``vae``, ``prior``. Subclasses
    implement `quantise` and `decode`, and have `quantisers` and `priors`, one of each a grid.

    Attributes:
        grids: what each grid is called, in the order in which they are sampled; the name of an only one is empty.
        grid: (h, w) after the halvings of ``channels``.
    """

    Settings: ClassVar[type[Settings]] = QuantisedSettings
    warms_up: ClassVar[bool] = False
    charges_by = "in the training of its prior alone, which moves no code"
    grids: ClassVar[tuple[str, ...]] = ("",)

    def __init__(self, spec: DataSpec, settings: QuantisedSettings) -> None:
        super().__init__(spec, settings)
        self.halved = Halved(spec.shape[1:], len(settings.channels))
        self.grid = self.halved.grid
        self.likelihood = make_likelihood(settings.likelihood, spec)

    @property
    def quantisers(self) -> Sequence[Quantiser]:
        raise NotImplementedError

    @property
    def priors(self) -> Sequence[CodePrior]:
        raise NotImplementedError

    def quantise(self, x: Tensor) -> list[Grid]:
        """The grids of images (B, C, H, W)."""
        raise NotImplementedError

    def decode(self, *vectors: Tensor) -> Tensor:
        """The vectors of each grid, (B, D, h, w), to the likelihood's parameters (B, C', H, W)."""
        raise NotImplementedError

    def told(self, grid: int, codes: Sequence[Tensor]) -> Tensor | None:
        """What the prior of a grid is told by the ``codes`` of those before it: (B, h * w, hidden), or None."""
        return None

    @property
    def couples_examples(self) -> bool:
        return any(quantiser.couples_examples for quantiser in self.quantisers)

    def embedded(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """The vectors of the codes of each grid."""
        return [quantiser.embed(some) for quantiser, some in zip(self.quantisers, codes, strict=True)]

    # ---- the contract ----------------------------------------------------------------------------------------------

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        """As `VAE.terms`, the rate in a group for each grid; aux has ``commitment`` (B,), and with the name of its grid
        behind an underscore ``codes`` (B, h, w) and the batch's ``perplexity`` ()."""
        grids = self.quantise(x)
        return self._terms(x, grids, self._rate(grids))

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """Distortion, commitment and what else the quantisers ask for of the autoencoder, then the rate of the prior;
        both where nobody says how far the training is."""
        stage = self.stage_of(progress)
        fits_codes, fits_prior = stage != "prior", stage != "vae"
        with contextlib.nullcontext() if fits_codes else torch.no_grad():
            grids = self.quantise(x)
            if fits_codes and self.training:
                for quantiser, (z, q) in zip(self.quantisers, grids, strict=True):
                    quantiser.observe(z.detach(), q.codes)
            # A prior that no step has moved is uniform, so its rate needs no network.
            uniform = [prior.uniform_rate(q.codes) for prior, (_, q) in zip(self.priors, grids, strict=True)]
            terms = self._terms(x, grids, torch.stack(uniform, 1))
        losses = {}
        if fits_codes:
            losses["vae"] = (terms.distortion + terms.aux["commitment"]).mean()
            for quantiser, (z, _) in zip(self.quantisers, grids, strict=True):
                if (penalty := quantiser.penalty(z)) is not None:
                    losses["vae"] = losses["vae"] + penalty
        if fits_prior:
            terms.rate = self._rate(grids)
            losses["prior"] = terms.rate.sum(1).mean()
        return Losses(losses, terms)

    def stage(self, progress: float | Tensor) -> str:
        fraction = getattr(progress, "fraction", None)
        if fraction is None:
            return "both"
        return "vae" if fraction < self.settings.prior_from else "prior"

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        return self.terms(x, y).elbo.expand(k, len(x))

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D): the vectors of the codes, what the decoder sees, one grid after the other."""
        return torch.cat([q.vectors.flatten(1) for _, q in self.quantise(x)], 1)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.decode(*(q.vectors for _, q in self.quantise(x))))

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """(n, C, H, W) in [0, 1]: means of p(x | codes) for codes from the priors, whose logits are divided by
        ``temperature``."""
        codes: list[Tensor] = []
        for grid, prior in enumerate(self.priors):
            codes.append(prior.sample(n, temperature, self.told(grid, codes)))
        return self.likelihood.mean(self.decode(*self.embedded(codes)))

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        # What a grid is made of may depend on how the one before it was quantised.
        for grid, quantiser in enumerate(self.quantisers):
            quantiser.initialise(self.quantise(x)[grid].z)

    def after_step(self) -> None:
        for quantiser in self.quantisers:
            quantiser.after_step()

    def _rate(self, grids: Sequence[Grid]) -> Tensor:
        codes = [q.codes for _, q in grids]
        rates = [-prior.log_prob(codes[i], self.told(i, codes)) for i, prior in enumerate(self.priors)]
        return torch.stack(rates, 1)

    def _terms(self, x: Tensor, grids: Sequence[Grid], rate: Tensor) -> Terms:
        distortion = -self.likelihood.log_prob(self.decode(*(q.vectors for _, q in grids)), x)
        aux = {"commitment": torch.stack([q.commitment for _, q in grids]).sum(0)}
        for name, quantiser, (_, q) in zip(self.grids, self.quantisers, grids, strict=True):
            aux[named("codes", name)] = q.codes
            aux[named("perplexity", name)] = perplexity(code_counts(q.codes, quantiser.codes))
        return Terms(distortion, rate, aux)


def named(what: str, grid: str) -> str:
    """The name of something of a grid: ``codes`` of an only one, ``codes_top`` of one that is called so."""
    return f"{what}_{grid}" if grid else what
