"""A trained model in, its metrics out: each with value, standard error, n and identity, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.catalogue import ALL, METRICS, explains
from benchmarks.evaluation.annealing import annealing
from benchmarks.evaluation.anomaly import anomaly
from benchmarks.evaluation.classification import classification
from benchmarks.evaluation.clustering import clustered
from benchmarks.evaluation.coding import coded
from benchmarks.evaluation.factors import disentanglement
from benchmarks.evaluation.foreseen import BYTES, of_several_grids, unbounded, without_bounds
from benchmarks.evaluation.groups import group_rates, with_active
from benchmarks.evaluation.inference import inference_gaps
from benchmarks.evaluation.representation import batches_of, represented
from benchmarks.latents import pictures as walks
from benchmarks.metrics import likelihood
from benchmarks.metrics.choices import choices
from benchmarks.metrics.features import Estimate, entry, mean_and_error
from benchmarks.partial import Partial
from benchmarks.per_example import of_all
from benchmarks.pictures import CHANNELS, generate, originals, to_bytes
from zoo.config import EvaluateConfig
from zoo.data.batches import Batches
from zoo.models.base import VAE
from zoo.models.quantised import QuantisedVAE, named
from zoo.runs import Run
from zoo.stopping import stopping_when

GRID = 64
#: every picture that an evaluation may draw; beside a file of `zoo evaluate` each is looked for before it is written
PICTURES = ("reconstructions", "samples", "traversals", "interpolations", "pca", "tsne")
FAST = "@hist-gbt"


@dataclass
class Evaluation:
    """Metrics and skipped ones in the record's format, pictures as uint8 (N, C, H, W), (n,) values of the metrics that
    are a mean over examples and are compared in nats, bits or as a loss, and the rate of each of several groups of
    latents, in the record's format too."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    per_example: dict[str, Tensor] = field(default_factory=dict)
    rates: list[dict[str, Any]] = field(default_factory=list)

    def add(self, metrics: dict[str, dict[str, Any]], skipped: dict[str, str]) -> None:
        """What a part of the evaluation measured, and what it left out and why."""
        self.metrics |= metrics
        self.skipped |= skipped

    def add_with_values(
        self, metrics: dict[str, dict[str, Any]], skipped: dict[str, str], per_example: dict[str, Tensor]
    ) -> None:
        """The same, with the values of examples."""
        self.add(metrics, skipped)
        self.per_example |= per_example

    def show(self, pictures: dict[str, Tensor]) -> None:
        """Pictures that a part of the evaluation drew. Raises `ValueError` where one is not of `PICTURES`."""
        if unknown := pictures.keys() - set(PICTURES):
            raise ValueError(f"benchmarks.evaluate.PICTURES has no {', '.join(sorted(unknown))}")
        self.pictures |= pictures


def evaluate(
    run: Run, should_stop: Callable[[], bool] = lambda: False, partial: Partial | None = None
) -> Evaluation:
    """Measure everything that the run's configuration asks for, on the split that it names.

    Args:
        partial: what was measured before, and where to keep what takes long.

    Raises:
        Stopped: ``should_stop`` said so; it is asked at every batch and between metrics.
    """
    with stopping_when(should_stop):
        return _evaluated(run, partial or Partial())


def _evaluated(run: Run, partial: Partial) -> Evaluation:
    config, model = run.config.evaluate, run.model.eval()
    out = Evaluation()
    batches = batches_of(run, run.images[config.split])
    elbo, tight = _bounds(out, model, batches, config, partial)
    out.add_with_values(*annealing(run, batches, unbounded(model), partial))
    for name, values in likelihood.measured(model, batches, config.seed).items():
        if len(values):
            out.metrics[name] = _metric(values, *model.measures[name], {"split": config.split})
        else:
            out.skipped[name] = f"the {config.split} split has no image that it could be measured on"
    _codes(out, run, batches)
    _quality(out, run, batches, partial)
    out.add(*anomaly(run, elbo, tight, partial))
    out.add(*classification(run))
    out.add_with_values(*coded(run, batches))
    out.add_with_values(*inference_gaps(run, batches, unbounded(model), partial))
    _say_what_is_missing(out)
    return out


def latent_space(run: Run) -> Evaluation:
    """What `evaluate.latent` asks for, and walks through the latent space, alone."""
    run.model.eval()
    batches = batches_of(run, run.images[run.config.evaluate.split])
    metrics, skipped, pictures = represented(run, batches, likelihood.codes(run.model, batches))
    out = Evaluation(metrics, skipped)
    out.show(pictures | walks(run.model, batches))
    return out


def clusters(run: Run) -> Evaluation:
    """What `evaluate.clustering` asks for, alone."""
    run.model.eval()
    batches = batches_of(run, run.images[run.config.evaluate.split])
    return Evaluation(*clustered(run, batches, likelihood.codes(run.model, batches)))


def rates(run: Run) -> Evaluation:
    """The rate of each of several groups of latents, alone."""
    model, config = run.model.eval(), run.config.evaluate
    batches = batches_of(run, run.images[config.split])
    found = group_rates(model, likelihood.bound(model, batches, config.seed).groups)
    return Evaluation(rates=with_active(found, model, likelihood.codes(model, batches)) if found else [])


def _say_what_is_missing(out: Evaluation) -> None:
    # What only some variants and data sets have, and these have not.
    for metric in METRICS:
        # The fast DCI stands for the slow one, whose name is that of the whole family.
        measured = f"{metric.name}{FAST}" in out.metrics or any(metric.matches(name) for name in out.metrics)
        if metric.needs and not measured and not any(explains(name, metric.name) for name in out.skipped):
            out.skipped[metric.name] = f"needs {metric.needs}"


def _bounds(
    out: Evaluation, model: VAE, batches: Batches, config: EvaluateConfig, partial: Partial
) -> tuple[Tensor | None, Tensor | None]:
    """(N,) ELBOs and (n,) k-sample bounds, each None where it is skipped."""
    support = model.spec.support
    split = {"split": config.split} | likelihood.of_noise(support)
    terms = likelihood.bound(model, batches, config.seed)
    kind = getattr(model, "likelihood", None)
    unit = "nats"
    out.skipped |= without_bounds(config, model)
    if model.bounds:
        out.metrics["rate"] = _metric(terms.rate, unit, None, split)
        out.rates = group_rates(model, terms.groups)
    if unbounded(model):
        identity = split | {"likelihood": getattr(kind, "name", None)}
        _ranked(out, "reconstruction_loss", terms.distortion, "", "lower", identity)
        if config.loss_samples and model.bounds:
            k = config.loss_samples
            rest = (config.seed, config.rows, config.nll_images, "loss", partial)
            loss = -likelihood.importance_weighted(model, batches, k, *rest)
            _ranked(out, f"iwae_loss_{k}", loss, "", "lower", identity | {"k": k, "images": len(loss)})
        return None, None
    _ranked(out, "elbo", terms.elbo, unit, "higher", split)
    out.metrics["distortion"] = _metric(terms.distortion, unit, None, split)
    if not config.nll_samples:
        return terms.elbo, None
    k = config.nll_samples
    rest = (config.seed, config.rows, config.nll_images, "nll", partial)
    bound = likelihood.importance_weighted(model, batches, k, *rest)
    _ranked(out, f"nll_iwae_{k}", -bound, unit, "lower", split | {"k": k, "images": len(bound)})
    if 1 < len(bound) < len(terms.elbo):
        values = torch.from_numpy(-of_all(terms.elbo.numpy(), bound.numpy()))
        _ranked(out, f"nll_iwae_{k}{ALL}", values, unit, "lower", split | {"k": k, "images": len(bound)})
    else:
        few = "needs the bound of at least 2 images"
        out.skipped[f"nll_iwae_{k}{ALL}"] = "the bound is one of all images" if len(bound) == batches.n else few
    if support in BYTES and kind is not None:
        bits = kind.bits_per_dim(-bound, model.predicted)
        _ranked(out, "bits_per_dim", bits, "bits/dim", "lower", split | {"k": k, "images": len(bound)})
    return terms.elbo, bound


def _codes(out: Evaluation, run: Run, batches: Batches) -> None:
    config = run.config.evaluate
    representation = likelihood.codes(run.model, batches)
    n, dimensions = representation.shape
    if n > 1:
        found = likelihood.active_units(representation, run.model.code_variance)
        active = Estimate(float(found), None, n, f"of {dimensions} dimensions")
        identity = {"split": config.split, "threshold": likelihood.ACTIVE_VARIANCE}
        out.metrics["active_units"] = entry(active, None, identity)
        out.rates = with_active(out.rates, run.model, representation)
    else:
        out.skipped["active_units"] = f"needs at least 2 images, and the {config.split} split has {n}"
    if isinstance(run.model, QuantisedVAE):
        found = likelihood.codebooks(run.model, batches)
        for name, quantiser, (used, share) in zip(run.model.grids, run.model.quantisers, found):
            identity = {"split": config.split, "codes": quantiser.codes}
            if quantiser.depth:
                identity["depth"] = quantiser.depth
            out.metrics[named("codebook_perplexity", name)] = entry(Estimate(used, None, n), None, identity)
            out.metrics[named("codebook_use", name)] = entry(Estimate(share, None, n), "higher", identity)
    out.skipped |= of_several_grids(run.model)
    if found := choices(run.model, batches):
        used, classes = found
        identity = {"split": config.split, "variables": used.entropy.shape[1], "classes": classes}
        for name, values in used._asdict().items():
            out.metrics[f"choice_{name}"] = entry(_of_variables(values), None, identity, "nats")
    metrics, skipped, pictures = represented(run, batches, representation)
    out.add(metrics, skipped)
    out.show(pictures)
    out.add(*clustered(run, batches, representation))
    out.add(*disentanglement(run))


def _quality(out: Evaluation, run: Run, batches: Batches, partial: Partial) -> None:
    from benchmarks.evaluation.ex_post import ex_post
    from benchmarks.evaluation.quality import maker, reconstruction, sample_quality

    config = run.config.evaluate
    if run.model.spec.shape[0] in CHANNELS:
        with torch.no_grad():
            _, x, y = next(iter(batches.sequential(GRID // 2)))
            pairs = torch.stack([originals(x, run.images.spec.support), to_bytes(run.model.reconstruct(x, y))], 1)
        samples = generate(run.model, GRID, config.seed, run.compute.device)
        out.show({"reconstructions": pairs.flatten(0, 1), "samples": samples})
    out.show(walks(run.model, batches))
    parts, made = partial.features(), maker(run.compute.device)
    out.add(*reconstruction(run, batches))
    out.add(*sample_quality(run, parts=parts, made=made))
    out.add(*ex_post(run, parts, made))


def _of_variables(values: Tensor) -> Estimate:
    # (B, N): the mean over N variables, with its error over B images.
    found, each = mean_and_error(values.mean(1)), values.mean(0)
    apart = f"mean over the variables, of {each.min():.3f} to {each.max():.3f}" if len(each) > 1 else None
    return found._replace(note=apart)


def _ranked(out: Evaluation, name: str, values: Tensor, unit: str, better: str, identity: dict[str, Any]) -> None:
    out.metrics[name] = _metric(values, unit, better, identity)
    out.per_example[name] = values


def _metric(values: Tensor, unit: str, better: str | None, identity: dict[str, Any]) -> dict[str, Any]:
    return entry(mean_and_error(values), better, identity, unit)
