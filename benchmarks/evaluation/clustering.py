"""Whether a run's images fall into their classes without having been told them: k-means over codes, and what a model
chooses itself where its code has one categorical variable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.evaluation.representation import CONDITIONED, scored
from benchmarks.interrupt import stop_if_asked, stoppable
from benchmarks.metrics.codes import Undefined
from benchmarks.metrics.features import Estimate, entry, mean_and_error
from zoo.config import EvaluateConfig
from zoo.data.batches import Batches
from zoo.data.images import ImageSet
from zoo.models.base import VAE
from zoo.runs import Run

WIDEST = 512  # dimensions of a code
CLUSTERS = ("cluster_accuracy", "cluster_nmi", "cluster_ari")
CHOICES = ("choice_accuracy", "choice_nmi", "choice_ari")


def clustered(run: Run, batches: Batches, representation: Tensor) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Metrics and skipped metrics, for a run with the codes (N, D) of the split that is evaluated; of the images whose
    class is known, which is not told to whatever makes the groups."""
    from benchmarks.metrics import clusters

    config, shown = run.config.evaluate, run.images[run.config.evaluate.split]
    if reason := lacking(config, run.model, run.images):
        return {}, dict.fromkeys((*CLUSTERS, *CHOICES), reason)
    kept = scored(shown, config.seed)
    classes = shown.labels[kept].numpy()
    metrics: dict[str, dict[str, Any]] = {}
    skipped = {}
    try:
        if (dimensions := representation.shape[1]) > WIDEST:
            raise Undefined(f"its codes have {dimensions} dimensions; {WIDEST} is the most")
        stop_if_asked()
        k = len(shown.labels[kept].unique())
        found = clusters.agreement(clusters.k_means(representation[kept].numpy(), k, config.seed), classes)
        # Other images give other clusters, by more than an error says that holds them fixed.
        right = Estimate(float(found.right.mean()), None, len(kept))
        identity = {"split": config.split, "clusters": k, "seed": config.seed} | clusters.k_means_identity()
        metrics |= _entries(CLUSTERS, right, found, identity)
    except Undefined as error:
        skipped |= dict.fromkeys(CLUSTERS, str(error))
    try:
        choice, k = _choices(run.model, batches)
        found = clusters.agreement(choice[kept].numpy(), classes)
        metrics |= _entries(
            CHOICES, mean_and_error(torch.from_numpy(found.right)), found, {"split": config.split, "clusters": k}
        )
    except Undefined as error:
        skipped |= dict.fromkeys(CHOICES, str(error))
    return metrics, skipped


def lacking(config: EvaluateConfig, model: VAE, images: ImageSet) -> str | None:
    """Why images are not put into groups; None where it can be tried."""
    if not config.clustering:
        return "evaluate.clustering is no"
    labels = images[config.split].labels
    if labels is None:
        return "needs classes"
    if model.conditional:
        return CONDITIONED
    return None if (labels >= 0).any() else f"no image of the {config.split} split shows its class"


@torch.no_grad()
def _choices(model: VAE, batches: Batches) -> tuple[Tensor, int]:
    """(N,) the most probable class of each image's categorical variable, and how many it has."""
    if model.supervised:
        raise Undefined("its training is told classes, so that what it chooses is no clustering")
    found = []
    for _, x, y in stoppable(batches.sequential()):
        log_q = model.categorical_posterior(x, y)
        if log_q is None:
            raise Undefined("needs a categorical variable")
        if log_q.shape[1] > 1:
            raise Undefined(f"its code has {log_q.shape[1]} categorical variables, and no one of them is the group")
        found.append(log_q[:, 0].argmax(1).cpu())
    return torch.cat(found), log_q.shape[-1]


def _entries(names: tuple[str, ...], right: Estimate, found: Any, identity: dict[str, Any]) -> dict[str, Any]:
    accuracy, nmi, ari = names
    return {
        accuracy: entry(right, "higher", identity),
        nmi: entry(Estimate(found.nmi, None, right.n), "higher", identity | {"over": "arithmetic mean of entropies"}),
        ari: entry(Estimate(found.ari, None, right.n), "higher", identity),
    }
