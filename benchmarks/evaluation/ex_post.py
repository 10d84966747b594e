"""How good samples are whose codes come from a density that is fitted once the model is trained.

Source: Ghosh et al. 2020, From Variational to Deterministic Autoencoders, https://arxiv.org/abs/1903.12436, section 4.
Beside the distance of samples from the prior it says what the prior's mismatch costs: a decoder that is good at the
codes of images is seldom asked for those alone. Where we differ: every variant with a code of one vector is given a
mixture of the same kind, and it is fitted to the centres of the posterior of one drawing of bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.catalogue import EX_POST
from benchmarks.evaluation.quality import Maker, maker, reference, wanted
from benchmarks.evaluation.representation import batches_of, once
from benchmarks.interrupt import stop_if_asked, stoppable
from benchmarks.latents import Discrete, Latents, LatentsAndClass, latents_of
from benchmarks.metrics.codes import Undefined
from benchmarks.pictures import generate
from zoo.data.batches import Batches
from zoo.distributions.code_density import CodeDensity, CodeDensitySettings
from zoo.errors import UsageError
from zoo.models.base import VAE
from zoo.runs import Run

WIDEST = 512  # of which covariances are fitted
Metrics = dict[str, dict[str, Any]]


def ex_post(run: Run, parts: Path | None = None, made: Maker | None = None) -> tuple[Metrics, dict[str, str]]:
    """Metrics and skipped metrics: the Frechet distances of `benchmarks.evaluation.quality.sample_quality`, each by its
    name with `EX_POST`, of as many samples; nothing where ``evaluate.ex_post`` is 0. ``parts`` and ``made`` are as
    there."""
    config = run.config.evaluate
    if not config.ex_post:
        return {}, {}
    left, others = wanted(config, run.images.spec, run.compute.device)
    skipped = {name + EX_POST: reason for name, reason in others.items()}
    try:
        vectors(run.model)  # what it says goes before what else is missing
        if not left:
            return {}, skipped
        try:
            real = reference(run)
        except Undefined as reason:
            return {}, skipped | {name + EX_POST: str(reason) for name in left.values()}
        batches = batches_of(run, once(run.images["train"]), run.images.binarise == "dynamic")
        samples = fitted(run.model, batches, config.ex_post)
    except UsageError as error:  # of no extractor: nothing else is missing
        return {}, {name + EX_POST: str(error).rstrip(".") for name in (*left.values(), *others)}
    from benchmarks.metrics.quality import frechet_distance

    made = made or maker(run.compute.device)
    fake = generate(samples, min(config.quality_samples, len(real)), config.seed, run.compute.device)
    metrics = {}
    for extractor, name in left.items():
        found = frechet_distance(fake, real, made(extractor), f"{run.images.name}-{config.split}", config.split, parts)
        found["identity"] |= {"components": config.ex_post, "codes": batches.n, "code": "posterior centre"}
        metrics[name + EX_POST] = found
    return metrics, skipped


@dataclass(frozen=True)
class FromDensity:
    """Means of p(x | z) at draws of a density of codes, for `benchmarks.pictures.generate`."""

    latents: Latents
    density: CodeDensity

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """(n, C, H, W); ``temperature`` scales the deviations of the density's components, and ``y`` is None."""
        return self.latents.images(self.density.sample(n, temperature), y)


@torch.no_grad()
def fitted(model: VAE, batches: Batches, components: int) -> FromDensity:
    """The codes of the model as vectors, and a density of those of all images of ``batches``.

    Raises:
        UsageError: the codes are no such vectors, too few, too wide, or not finite.
    """
    latents = vectors(model)
    codes = torch.cat([latents.codes(x, None).float().cpu() for _, x, _ in stoppable(batches.sequential())])
    n, dimensions = codes.shape
    if n < 2:
        raise UsageError(f"needs at least 2 training images, and there are {n}.")
    if dimensions > WIDEST:
        raise UsageError(f"its codes have {dimensions} dimensions; {WIDEST} is the most.")
    if not codes.isfinite().all():
        raise UsageError("codes of training images are not finite.")
    density = CodeDensity(CodeDensitySettings(components=components), dimensions)
    stop_if_asked()
    density.fit(codes)
    return FromDensity(latents, density.to(batches.device))


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
