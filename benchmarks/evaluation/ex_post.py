"""How good samples are whose codes come from a density that is fitted once the model is trained.

Source: Ghosh et al. 2020, From Variational to Deterministic Autoencoders, https://arxiv.org/abs/1903.12436, section 4.
Beside the distance of samples from the prior it says what the prior's mismatch costs: a decoder that is good at the
codes of images is seldom asked for those alone. Where we differ: every variant with a code of one vector is given a
mixture of the same kind, or a flow, and it is fitted to the centres of the posterior of one drawing of bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.catalogue import EX_POST, EX_POST_FLOW
from benchmarks.evaluation.quality import Maker, maker, reference, wanted
from benchmarks.evaluation.representation import batches_of, once
from benchmarks.interrupt import stop_if_asked, stoppable
from benchmarks.latents import Discrete, Latents, LatentsAndClass, latents_of
from benchmarks.metrics.codes import Undefined
from benchmarks.pictures import generate
from zoo.config import EvaluateConfig
from zoo.data.batches import Batches
from zoo.distributions.code_density import CodeDensity, CodeDensitySettings
from zoo.distributions.code_flow import CodeFlow, CodeFlowSettings
from zoo.distributions.gaussians import log_normal
from zoo.errors import UsageError
from zoo.models.base import VAE
from zoo.runs import Run

WIDEST = 512  # of which covariances are fitted
Metrics = dict[str, dict[str, Any]]
Density = CodeDensity | CodeFlow
Settings = CodeDensitySettings | CodeFlowSettings


def ex_post(run: Run, parts: Path | None = None, made: Maker | None = None) -> tuple[Metrics, dict[str, str]]:
    """Metrics and skipped metrics: the Frechet distances of `benchmarks.evaluation.quality.sample_quality`, each by its
    name with the ending of a density that is asked for (`asked`), of as many samples. ``parts`` and ``made`` are as
    there."""
    config = run.config.evaluate
    densities = asked(config)
    if not densities:
        return {}, {}
    left, others = wanted(config, run.images.spec, run.compute.device)
    skipped = {name + ending: reason for ending in densities for name, reason in others.items()}
    try:
        vectors(run.model)  # what it says goes before what else is missing
        if not left:
            return {}, skipped
        try:
            real = reference(run)
        except Undefined as reason:
            return {}, skipped | {name + ending: str(reason) for ending in densities for name in left.values()}
        batches = batches_of(run, once(run.images["train"]), run.images.binarise == "dynamic")
        latents, codes = training_codes(run.model, batches)
        seen = _codes(latents, batches_of(run, run.images[config.split]))
    except UsageError as error:  # of no extractor: nothing else is missing
        return {}, _none(str(error), densities, (*left.values(), *others))
    from benchmarks.metrics.quality import frechet_distance

    made = made or maker(run.compute.device)
    metrics = {}
    for ending, settings in densities.items():
        try:
            density = fitted_to(codes, settings).to(run.compute.device)
        except UsageError as error:
            skipped |= _none(str(error), [ending], (*left.values(), *others))
            continue
        samples = FromDensity(latents, density)
        fake = generate(samples, min(config.quality_samples, len(real)), config.seed, run.compute.device)
        what = _stated(settings) | {"codes": len(codes), "code": "posterior centre"}
        key = f"{run.images.name}-{config.split}"
        said = _how_good(density, seen, config.split)
        for extractor, name in left.items():
            found = frechet_distance(fake, real, made(extractor), key, config.split, parts)
            found["identity"] |= what
            found["note"] = "; ".join(filter(None, (found["note"], said)))
            metrics[name + ending] = found
    return metrics, skipped


def asked(config: EvaluateConfig) -> dict[str, Settings]:
    """The densities that an evaluation asks for, each by the ending of its metrics."""
    found: dict[str, Settings] = {}
    if config.ex_post:
        found[EX_POST] = CodeDensitySettings(components=config.ex_post)
    if config.ex_post_flow:
        found[EX_POST_FLOW] = CodeFlowSettings(flows=config.ex_post_flow)
    return found


def _stated(settings: Settings) -> dict[str, Any]:
    # In the identity of a metric. Mixtures were the only densities once, and say no more than they did then.
    if isinstance(settings, CodeFlowSettings):
        return {"density": "masked autoregressive flow", "flows": settings.flows}
    return {"components": settings.components}


@torch.no_grad()
def _how_good(density: Density, codes: Tensor, split: str) -> str:
    # In the units of this model's codes: no metric of its own, for no two models could share its column.
    codes = codes.to(next(density.buffers()).device)
    normal = log_normal(codes, torch.zeros_like(codes), torch.zeros_like(codes)).sum(1)
    found, plain = (values.double().mean().item() for values in (density.log_prob(codes), normal))
    return f"mean log-density of {split} codes {found:.2f} nats, under the standard normal {plain:.2f}"


def _none(reason: str, densities: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    return {name + ending: reason.rstrip(".") for ending in densities for name in names}


@dataclass(frozen=True)
class FromDensity:
    """Means of p(x | z) at draws of a density of codes, for `benchmarks.pictures.generate`."""

    latents: Latents
    density: Density

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """(n, C, H, W); ``temperature`` is as the density has it, and ``y`` is None."""
        return self.latents.images(self.density.sample(n, temperature), y)


def fitted(model: VAE, batches: Batches, settings: Settings) -> FromDensity:
    """The codes of the model as vectors, and a density of those of all images of ``batches``.

    Raises:
        UsageError: as `training_codes` and `fitted_to`.
    """
    latents, codes = training_codes(model, batches)
    return FromDensity(latents, fitted_to(codes, settings).to(batches.device))


@torch.no_grad()
def training_codes(model: VAE, batches: Batches) -> tuple[Latents, Tensor]:
    """The codes of the model as vectors, and float32 (N, D) on the CPU: those of all images of ``batches``.

    Raises:
        UsageError: the codes are no such vectors, too few, too wide, or not finite.
    """
    latents = vectors(model)
    codes = _codes(latents, batches)
    n, dimensions = codes.shape
    if n < 2:
        raise UsageError(f"needs at least 2 training images, and there are {n}.")
    if dimensions > WIDEST:
        raise UsageError(f"its codes have {dimensions} dimensions; {WIDEST} is the most.")
    if not codes.isfinite().all():
        raise UsageError("codes of training images are not finite.")
    return latents, codes


@torch.no_grad()
def _codes(latents: Latents, batches: Batches) -> Tensor:
    return torch.cat([latents.codes(x, None).float().cpu() for _, x, _ in stoppable(batches.sequential())])


def fitted_to(codes: Tensor, settings: Settings) -> Density:
    """A density of codes (N, D), on the CPU. Raises `UsageError` where they are too few or too wide for this one."""
    kind = CodeFlow if isinstance(settings, CodeFlowSettings) else CodeDensity
    density = kind(settings, codes.shape[1])
    stop_if_asked()
    density.fit(codes)
    return density


def vectors(model: VAE) -> Latents:
    """The codes of a model as vectors that are pictures. Raises `UsageError` where they are not."""
    if model.conditional:
        raise UsageError("a code of this model says nothing without its condition.")
    try:
        latents = latents_of(model)
    except UsageError:
        raise UsageError("a code of this model alone is no picture.") from None
    if isinstance(latents, Discrete):
        raise UsageError("its codes are discrete.")
    if isinstance(latents, LatentsAndClass):
        raise UsageError("a code of this model says nothing without its class.")
    return latents
