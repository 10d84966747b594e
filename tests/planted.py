"""Variants with one mistake each, for `zoo check` to find."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from zoo import noise
from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.models.base import Losses, Terms, repeat
from zoo.models.beta_vae import BetaVAE
from zoo.models.cvae import ConditionalVAE
from zoo.models.rae import RAE
from zoo.models.vae import VanillaVAE


class MeanOverPixels(VanillaVAE):
    def terms(self, x, y=None):
        terms = super().terms(x, y)
        return Terms(terms.distortion / x[0].numel(), terms.rate)


class ScalarTerms(VanillaVAE):
    def terms(self, x, y=None):
        terms = super().terms(x, y)
        return Terms(terms.distortion.mean(), terms.rate.mean())


class MeanOverBatch(VanillaVAE):
    def terms(self, x, y=None):
        terms = super().terms(x, y)
        return Terms(terms.distortion.mean().expand(len(x)), terms.rate)


class NegativeRate(VanillaVAE):
    def terms(self, x, y=None):
        terms = super().terms(x, y)
        return Terms(terms.distortion, -terms.rate)


class RawSamples(VanillaVAE):
    def sample(self, n, y=None, temperature=1.0):
        return 2 * super().sample(n, y, temperature) - 1


class UnusedLayer(VanillaVAE):
    def __init__(self, spec: DataSpec, settings) -> None:
        super().__init__(spec, settings)
        self.forgotten = nn.Linear(3, 3)


class TwoOwners(VanillaVAE):
    def parameter_groups(self):
        return {"encoder": [*self.encoder.parameters(), *self.head.parameters()], "decoder": list(self.parameters())}

    def losses(self, x, y=None, progress=1.0):
        losses = super().losses(x, y, progress)
        return Losses({"encoder": losses["vae"], "decoder": losses["vae"]}, losses.terms)


class BackwardInside(VanillaVAE):
    def losses(self, x, y=None, progress=1.0):
        super().losses(x, y, progress)["vae"].backward()
        return super().losses(x, y, progress)


class HalfTheRate(VanillaVAE):
    """Wrong in both places alike, so that only log p(x) can tell."""

    def terms(self, x, y=None):
        terms = super().terms(x, y)
        return Terms(terms.distortion, 0.2 * terms.rate)

    def log_weights(self, x, y=None, k=1):
        z, log_q = self.infer(x, y).repeat(k).rsample()
        log_likelihood = self.likelihood.log_prob(self.decode(z, y), repeat(x, k))
        return (log_likelihood + 0.2 * (self.prior.log_prob(z) - log_q)).view(k, len(x))


class BetaInTheBound(BetaVAE):
    def terms(self, x, y=None):
        terms = super().terms(x, y)
        return Terms(terms.distortion, self.settings.beta * terms.rate)


class SumsInHalfPrecision(VanillaVAE):
    def terms(self, x, y=None):
        if self.spec.support != "binary":
            return super().terms(x, y)
        q = self.infer(x, y)
        z, _ = q.rsample()
        logits = self.decode(z, y)
        costs = F.softplus(logits) - x.to(logits.dtype) * logits
        return Terms(costs.flatten(1).cumsum(1)[:, -1], q.kl(self.prior).sum(1, keepdim=True))


class Unsaved(VanillaVAE):
    """Its logits are shifted by a number that lives in a plain attribute."""

    shift = 0.0

    def after_step(self):
        self.shift += 0.01

    def decode(self, z, y=None):
        return super().decode(z, y) + self.shift


class OwnNoise(VanillaVAE):
    def terms(self, x, y=None):
        q = self.infer(x, y)
        z = q.mean + torch.exp(0.5 * q.log_variance) * torch.randn(q.mean.shape)
        distortion = -self.likelihood.log_prob(self.decode(z, y), x)
        return Terms(distortion, q.kl(self.prior).sum(1, keepdim=True))


class CentredOnTheBatch(VanillaVAE):
    """Its encoder subtracts the mean image of whatever batch it is in."""

    def infer(self, x, y=None):
        return super().infer(x - x.mean(0), y)


class AlwaysDropping(VanillaVAE):
    def decode(self, z, y=None):
        return super().decode(F.dropout(z, 0.3), y)


class AlwaysTraining(VanillaVAE):
    def train(self, mode: bool = True):
        return super().train(True)


class RandomCode(VanillaVAE):
    def represent(self, x, y=None):
        return self.infer(x, y).rsample()[0]


class OtherWeights(VanillaVAE):
    """Its log-weights forget the prior's normaliser."""

    def log_weights(self, x, y=None, k=1):
        z, log_q = self.infer(x, y).repeat(k).rsample()
        log_prior = -0.5 * z.square().sum(1)
        log_likelihood = self.likelihood.log_prob(self.decode(z, y), repeat(x, k))
        return (log_likelihood + log_prior - log_q).view(k, len(x))


class DetachedCode(VanillaVAE):
    """Its encoder learns from the rate alone, and so from nothing that is in the image."""

    def decode(self, z, y=None):
        return super().decode(z.detach(), y)


class DecoderApart(VanillaVAE):
    """The decoder is a parameter group of its own."""

    def parameter_groups(self):
        decoder = {id(parameter) for parameter in self.decoder.parameters()}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in decoder]
        return {"vae": rest, "decoder": list(self.decoder.parameters())}


class NeverInTraining(DecoderApart):
    """The decoder has a loss only where nobody says how far training is, which is nowhere in a training."""

    def losses(self, x, y=None, progress=1.0):
        losses = super().losses(x, y, progress)
        decoder = {} if getattr(progress, "fraction", None) is not None else {"decoder": losses["vae"]}
        return Losses({"vae": losses["vae"], **decoder}, losses.terms)


class DecoderAscending(DecoderApart):
    def losses(self, x, y=None, progress=1.0):
        losses = super().losses(x, y, progress)
        return Losses({"vae": losses["vae"], "decoder": -losses["vae"]}, losses.terms)


class SilentStage(DecoderApart):
    """Right, but the trainer is told of a stage that has no loss of the decoder."""

    def losses(self, x, y=None, progress=1.0):
        losses = super().losses(x, y, progress)
        return Losses({"vae": losses["vae"], "decoder": losses["vae"]}, losses.terms)

    def trained_in(self, stage):
        return ["vae"]


class DeviationNotHalved(VanillaVAE):
    """Draws with exp(log-variance) for a deviation, which next to the prior is the same."""

    def bound(self, q, x, y=None):
        z = q.mean + q.log_variance.exp() * noise.normal(q.mean)
        params = self.decode(z, y)
        return Terms(-self.log_likelihood(params, x), q.kl(self.prior).sum(1, keepdim=True), {"z": z}), params


class FixedBeta(BetaVAE):
    """The weight in both bounds alike, and read once, when the model is made."""

    def __init__(self, spec: DataSpec, settings) -> None:
        super().__init__(spec, settings)
        self.beta = settings.beta

    def terms(self, x, y=None):
        terms = super().terms(x, y)
        return Terms(terms.distortion, self.beta * terms.rate)

    def log_weights(self, x, y=None, k=1):
        z, log_q = self.infer(x, y).repeat(k).rsample()
        log_likelihood = self.likelihood.log_prob(self.decode(z, y), repeat(x, k))
        return (log_likelihood + self.beta * (self.prior.log_prob(z) - log_q)).view(k, len(x))


class DetachedPenalty(BetaVAE):
    def losses(self, x, y=None, progress=1.0):
        terms = self.terms(x, y)
        loss = terms.distortion + terms.rate.sum(1) + self.settings.beta * terms.rate.detach().square().sum(1)
        return Losses({"vae": loss.mean()}, terms)


class IdleGroup(DecoderApart):
    pass


class CodeOfTheBatch(VanillaVAE):
    def represent(self, x, y=None):
        code = super().represent(x, y)
        return code - code.mean(0) if len(x) > 1 else code


class Geco(VanillaVAE):
    """No mistake: a multiplier that each loss moves in place."""

    def __init__(self, spec: DataSpec, settings) -> None:
        super().__init__(spec, settings)
        self.register_buffer("multiplier", torch.ones(()))

    def losses(self, x, y=None, progress=1.0):
        terms = self.terms(x, y)
        with torch.no_grad():
            self.multiplier.mul_(torch.exp(0.01 * (terms.distortion.mean() - 100).clamp(-1, 1)))
        return Losses({"vae": (self.multiplier * terms.distortion + terms.rate.sum(1)).mean()}, terms)


class OptionalPart(BetaVAE):
    """No mistake: a part that is not there where its weight is zero."""

    def __init__(self, spec: DataSpec, settings) -> None:
        super().__init__(spec, settings)
        self.part = nn.Linear(settings.latent, 1) if settings.beta else None

    def losses(self, x, y=None, progress=1.0):
        terms = self.terms(x, y)
        penalty = self.part(self.represent(x, y)).square().sum(1) if self.part else 0.0
        return Losses({"vae": (terms.distortion + terms.rate.sum(1) + self.settings.beta * penalty).mean()}, terms)


class MiddleStage(DecoderApart):
    """No mistake: the decoder has a loss in the middle of the training alone."""

    def losses(self, x, y=None, progress=1.0):
        losses = super().losses(x, y, progress)
        middle = 0.3 < (getattr(progress, "fraction", None) or 0.0) < 0.6
        return Losses({"decoder" if middle else "vae": losses["vae"]}, losses.terms)


class NoLikelihood(VanillaVAE):
    """No mistake: what it knows of p(x | z) has another name."""

    def __init__(self, spec: DataSpec, settings) -> None:
        super().__init__(spec, settings)
        self.of_pixels = self.likelihood
        del self.likelihood

    def log_likelihood(self, params, x):
        return self.of_pixels.log_prob(params, x)

    def reconstruct(self, x, y=None):
        return self.of_pixels.mean(self.decode(self.represent(x, y), y))

    def sample(self, n, y=None, temperature=1.0):
        return self.of_pixels.mean(self.decode(self.prior.sample(n, temperature), y))

    def initialise(self, x, y=None):
        self.prior.initialise(x)


class NeedsNoClass(ConditionalVAE):
    def infer(self, x, y=None):
        return super().infer(x, torch.zeros(len(x), dtype=torch.int64) if y is None else y)

    def decode(self, z, y=None):
        return super().decode(z, torch.zeros(len(z), dtype=torch.int64) if y is None else y)


class Only28(VanillaVAE):
    def infer(self, x, y=None):
        return super().infer(x.view(-1, 1, 28, 28), y)


class Ascending(VanillaVAE):
    def losses(self, x, y=None, progress=1.0):
        losses = super().losses(x, y, progress)
        return Losses({"vae": losses.terms.rate.mean() - losses.terms.distortion.mean()}, losses.terms)


class SummedLoss(VanillaVAE):
    def losses(self, x, y=None, progress=1.0):
        losses = super().losses(x, y, progress)
        return Losses({"vae": losses["vae"] * len(x)}, losses.terms)


class SharedNoise(VanillaVAE):
    """In training alone, so that no number of evaluation knows."""

    def terms(self, x, y=None):
        if not self.training:
            return super().terms(x, y)
        q = self.infer(x, y)
        z = q.mean + torch.exp(0.5 * q.log_variance) * noise.normal(q.mean[:1])
        return Terms(-self.log_likelihood(self.decode(z, y), x), q.kl(self.prior).sum(1, keepdim=True))


class Mirrored(VanillaVAE):
    def reconstruct(self, x, y=None):
        return self.likelihood.mean(self.decode(-self.infer(x, y).mean, y))


class Echo(VanillaVAE):
    def reconstruct(self, x, y=None):
        return x


class PlainLosses(VanillaVAE):
    def losses(self, x, y=None, progress=1.0):
        return dict(super().losses(x, y, progress))


class BareLoss(VanillaVAE):
    def losses(self, x, y=None, progress=1.0):
        return super().losses(x, y, progress)["vae"]


class ConstantLoss(VanillaVAE):
    def losses(self, x, y=None, progress=1.0):
        losses = super().losses(x, y, progress)
        return Losses({"vae": losses["vae"].detach()}, losses.terms)


class PairOfTerms(VanillaVAE):
    def terms(self, x, y=None):
        terms = super().terms(x, y)
        return terms.distortion, terms.rate


class NoVAE(nn.Module):
    pass


class PointWithWeights(RAE):
    def log_weights(self, x, y=None, k=1):
        return self.terms(x).elbo.expand(k, -1)


class PointWithRate(RAE):
    def terms(self, x, y=None):
        terms = super().terms(x, y)
        return Terms(terms.distortion, terms.aux["z"].square().sum(1, keepdim=True))


class Misspelt(VanillaVAE):
    def infer(self, x, y=None) -> DiagonalGaussian:
        return self.posterior(self.haed(self.encoder(x)))


class Measured(VanillaVAE):
    measures = {"code_norm": ("nats", "lower")}

    def measure(self, x, y=None):
        return {name: self.represent(x, y).square().sum(1) for name in self.measures}


class Posing(Measured):
    measures = {"elbo": ("nats", "higher")}


class Undeclared(Measured):
    measures = {}

    def measure(self, x, y=None):
        return {"code_norm": self.represent(x, y).square().sum(1)}


class MeasureOfCodes(Measured):
    def measure(self, x, y=None):
        return {"code_norm": self.represent(x, y).square()}


class EndlessMeasure(Measured):
    def measure(self, x, y=None):
        return {"code_norm": 1 / torch.zeros(len(x))}


class NamesOfMoreGroups(VanillaVAE):
    group_names = ("above", "below")


class SizesOfAnotherCode(VanillaVAE):
    group_sizes = (5,)


class NaNs(VanillaVAE):
    def terms(self, x, y=None):
        terms = super().terms(x, y)
        return Terms(terms.distortion * float("nan"), terms.rate)


class LaterNaNs(VanillaVAE):
    scale = 1.0

    def after_step(self):
        self.scale = float("nan")

    def terms(self, x, y=None):
        terms = super().terms(x, y)
        return Terms(terms.distortion * self.scale, terms.rate)


class NoDefault(VanillaVAE):
    class Settings(VanillaVAE.Settings):
        weight: float


class Untyped(VanillaVAE):
    class Settings(VanillaVAE.Settings):
        weight: Nothing = 1.0  # noqa: F821


class Quarrelsome(VanillaVAE):
    class Settings(VanillaVAE.Settings):
        low: float = 1.0
        high: float = 0.0

        @model_validator(mode="after")
        def _in_order(self):
            if self.high < self.low:
                raise ValueError("high is below low,\nof which it is the other end.")
            return self


class Exiting(VanillaVAE):
    def represent(self, x, y=None):
        sys.exit("no licence")


class Unfinished(VanillaVAE):
    def log_weights(self, x: Tensor, y=None, k=1) -> Tensor:
        raise NotImplementedError
