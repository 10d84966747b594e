"""Whether the bound of a run knows what it was not trained on: AUROC between its test images and outliers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmarks.metrics import likelihood
from benchmarks.metrics.auroc import auroc
from benchmarks.metrics.codes import Undefined
from benchmarks.metrics.features import entry
from benchmarks.partial import Partial
from zoo import noise
from zoo.config import EvaluateConfig
from zoo.data.batches import Batches
from zoo.errors import UsageError
from zoo.models.base import VAE
from zoo.runs import Run
from zoo.runs.images import load_outliers

#: part of the identity: the noise is not that of the inliers, as it was once, when the error was another one
NOISE = {"outlier_noise": "own"}


def anomaly(
    run: Run, elbo: Tensor | None, tight: Tensor | None, partial: Partial | None = None
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Metrics and skipped metrics: ``auroc_<outliers>`` by the ELBO, ``auroc_nll_<outliers>`` by the k-sample bound.

    Args:
        elbo, tight: nats of the evaluated split's images as `benchmarks.evaluate` measured them, None where it did not.
            There are as many outliers as images, or all there are, under noise of their own: with that of the inliers
            the scores of inlier i and of outlier i would be dependent, and DeLong's error is of two independent sets.
        partial: bounds of outliers that there are already.
    """
    config, model = run.config.evaluate, run.model
    reason = lacking(config, model, elbo is not None)
    if reason or elbo is None:
        return {}, {"auroc": str(reason)}
    metrics: dict[str, dict[str, Any]] = {}
    skipped, seed = {}, noise.seed_for(config.seed, "outliers")
    for given in config.anomaly:
        try:
            name, outliers = load_outliers(run.config, given)
        except UsageError as error:
            skipped[f"auroc_{given}"] = str(error)
            continue
        batches = Batches(outliers.subset(len(elbo)), batch_size=512, drop_last=False, device=run.compute.device)
        scores = {f"auroc_{name}": (elbo, likelihood.bound(model, batches, seed).elbo, {"score": "elbo"})}
        if tight is None:
            skipped[f"auroc_nll_{name}"] = "evaluate.nll_samples is 0"
        else:
            k = config.nll_samples
            rest = (seed, config.rows, len(tight), f"nll_{name}_{outliers.sha256[:12]}", partial)
            theirs = likelihood.importance_weighted(model, batches, k, *rest)
            scores[f"auroc_nll_{name}"] = (tight, theirs, {"score": "nll", "k": k})
        for metric, (inside, outside, identity) in scores.items():
            try:
                found = auroc(inside, outside)
            except Undefined as error:
                skipped[metric] = str(error)
                continue
            identity |= {"split": config.split, "images": len(inside), "outliers": len(outside)} | NOISE
            metrics[metric] = entry(found, "higher", identity | {"outliers_sha256": outliers.sha256[:12]})
    return metrics, skipped


def lacking(config: EvaluateConfig, model: VAE, bounded: bool) -> str | None:
    """Why there is no AUROC of a model, which has a bound on log p(x) or not; None where there can be one."""
    if not config.anomaly:
        return "evaluate.anomaly names no outliers"
    if config.split == "train":
        return "inliers are images that it was not trained on"
    if model.conditional:
        return "an outlier has no class to tell the model"
    return None if bounded else "needs a bound on log p(x)"
