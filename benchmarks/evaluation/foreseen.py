"""What of a run will not be measured, as far as its model tells before it is trained."""

from __future__ import annotations

from benchmarks.catalogue import ANNEALED, CODEBOOK, DISTANCES, EX_POST, EX_POST_FLOW, GAPS, METRICS, OF_VARIANTS
from benchmarks.evaluation import (
    annealing,
    anomaly,
    classification,
    clustering,
    coding,
    factors,
    inference,
    quality,
    representation,
)
from zoo.config import EvaluateConfig
from zoo.data.images import ImageSet
from zoo.models.base import VAE
from zoo.models.quantised import QuantisedVAE, named

BYTES = ("8-bit", "dequantised")


def foreseen(config: EvaluateConfig, model: VAE, images: ImageSet) -> dict[str, str]:
    """Metrics that `benchmarks.evaluate` will skip, each with why, as a record has them: what the model before its
    training, the images and ``config`` can tell. What goes by the device, by the codes or by the form of the posterior
    is not among them, such as Frechet distances and the total correlation."""
    bounded, shown = unbounded(model) is None, images[config.split]
    found = without_bounds(config, model) | of_several_grids(model)
    for names, reason in (
        (ANNEALED, annealing.lacking(config, model, unbounded(model))),
        (("auroc",), anomaly.lacking(config, model, bounded)),
        (classification.METRICS, classification.lacking(config, model, images.spec)),
        ((*clustering.CLUSTERS, *clustering.CHOICES), clustering.lacking(config, model, images)),
        ((coding.NAME,), coding.lacking(config, model)),
        (GAPS, inference.lacking(config, model, unbounded(model))),
        (("disentanglement",), factors.lacking(config, model, shown)),
        (representation.PROBES, representation.unprobed(config, model, images)),
        (representation.METRICS, representation.lacking(config, shown)),
        (quality.RECONSTRUCTION, quality.lacking(config, images.spec)),
    ):
        found |= dict.fromkeys(names, reason) if reason else {}
    absent = {name for name in OF_VARIANTS if name not in model.measures}
    grids = model.grids if isinstance(model, QuantisedVAE) else ()
    absent |= set() if grids else set(CODEBOOK)
    absent |= set() if len(grids) > 1 else {f"{name}_GRID" for name in CODEBOOK}
    absent |= set() if config.loss_samples or bounded else {"iwae_loss_K"}
    absent |= set() if config.ex_post else {name + EX_POST for name in DISTANCES}
    absent |= set() if config.ex_post_flow else {name + EX_POST_FLOW for name in DISTANCES}
    return found | {metric.name: f"needs {metric.needs}" for metric in METRICS if metric.name in absent}


def unbounded(model: VAE) -> str | None:
    """Why a model's terms are no bound on log p(x); None where they are one."""
    kind, support = getattr(model, "likelihood", None), model.spec.support
    if not model.bounds:
        return "it has no posterior, so it bounds nothing"
    if kind is not None and not kind.is_nll_of(support):
        return f"a {kind.name} is not a likelihood of {support} data"
    return None


def of_several_grids(model: VAE) -> dict[str, str]:
    """Which numbers of a codebook are not measured of a model that has one a grid, each with those in its place."""
    grids = model.grids if isinstance(model, QuantisedVAE) else ()
    if len(grids) < 2:
        return {}
    return {name: f"each grid has its own: {', '.join(named(name, grid) for grid in grids)}" for name in CODEBOOK}


def without_bounds(config: EvaluateConfig, model: VAE) -> dict[str, str]:
    """Which of the bound, its parts and the losses in its place are not measured, each with why."""
    if reason := unbounded(model):
        more = () if model.bounds else ("rate", "iwae_loss")
        return dict.fromkeys(("elbo", "distortion", "nll", "bits_per_dim", *more), reason)
    found = {
        "reconstruction_loss": "its likelihood is one of the data: distortion is in nats",
        "iwae_loss": "its likelihood is one of the data: the bound of K samples is in nats",
    }
    if not config.nll_samples:
        found |= dict.fromkeys(("nll", "bits_per_dim"), "evaluate.nll_samples is 0")
    elif model.spec.support not in BYTES:
        found["bits_per_dim"] = f"the data is {model.spec.support}, not 8-bit"
    elif getattr(model, "likelihood", None) is None:
        found["bits_per_dim"] = "the model has no `likelihood` that says whether its nats are of bytes"
    return found
