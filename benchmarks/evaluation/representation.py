"""What a run's codes hold: probes of the class, the aggregate posterior, and the codes in the plane."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from benchmarks.interrupt import stop_if_asked, stoppable
from benchmarks.metrics import likelihood
from benchmarks.metrics.codes import Undefined
from benchmarks.metrics.features import entry, mean_and_error
from zoo.config import EvaluateConfig
from zoo.data.batches import Batches
from zoo.data.images import Images, ImageSet
from zoo.models.base import VAE
from zoo.runs import Run
from zoo.runs.images import condition_of

TRAIN_CODES, TEST_CODES = 10_000, 10_000
COMPONENTS, DRAWS = 10_000, 1_000
PLOTTED = 2_000  # codes in a picture
LEARNT_FROM = "it is learnt from the training split"
CONDITIONED = "needs a code of the image alone, and this model is told the condition"
PROBES = ("linear_probe", "knn_accuracy")
METRICS = (*PROBES, "total_correlation", "index_code_information", "pca", "tsne")

Found = tuple[dict[str, dict[str, Any]], dict[str, str], dict[str, Tensor]]


def represented(run: Run, batches: Batches, representation: Tensor) -> Found:
    """Metrics, skipped metrics and pictures, for a run with the codes (N, D) of the split that is evaluated."""
    config, images = run.config.evaluate, run.images
    shown = images[config.split]
    if reason := lacking(config, shown):
        return {}, dict.fromkeys(METRICS, reason), {}
    metrics, skipped = _probes(run, shown, representation)
    measured, without = _aggregate(run, batches)
    pictures, undrawn = _pictures(run, shown, representation)
    return metrics | measured, skipped | without | undrawn, pictures


def lacking(config: EvaluateConfig, shown: Images) -> str | None:
    """Why codes of images that are ``shown`` are not looked at; None where they are."""
    if config.latent == "no":
        return "evaluate.latent is no"
    if config.latent == "auto" and shown.labels is None and shown.factors is None:
        return "no classes and no factors; --set evaluate.latent=yes asks for it"
    return None


def unprobed(config: EvaluateConfig, model: VAE, images: ImageSet) -> str | None:
    """Why no class is read off the codes of a model; None where it can be tried."""
    if images[config.split].labels is None:
        return "needs classes"
    if config.split == "train":
        return LEARNT_FROM
    if model.conditional:
        return CONDITIONED
    unknown = [split for split in ("train", config.split) if not (images[split].labels >= 0).any()]
    return f"no image of the {unknown[0]} split shows its class" if unknown else None


def _probes(run: Run, shown: Images, representation: Tensor) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    names = PROBES
    if reason := unprobed(run.config.evaluate, run.model, run.images):
        return {}, dict.fromkeys(names, reason)
    from benchmarks.metrics import probes

    config = run.config.evaluate
    known = some(to_learn_from(run.images["train"]), TRAIN_CODES, config.seed)
    z_train = likelihood.codes(run.model, batches_of(run, known, run.images.binarise == "dynamic")).numpy()
    kept = scored(shown, config.seed)
    data = (z_train, known.labels.numpy(), representation[kept].numpy(), shown.labels[kept].numpy())
    common = {"split": config.split, "training_codes": len(z_train), "seed": config.seed}
    metrics, skipped = {}, {}
    for name, probe, identity in stoppable(
        (
            (names[0], probes.linear_probe, probes.linear_identity()),
            (names[1], probes.knn, probes.NEAREST),
        )
    ):
        try:
            right = torch.from_numpy(probe(*data))
        except Undefined as error:
            skipped[name] = str(error)
            continue
        metrics[name] = entry(mean_and_error(right), "higher", common | identity)
    return metrics, skipped


@torch.no_grad()
def _aggregate(run: Run, batches: Batches) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    from benchmarks.metrics.aggregate import total_correlation

    names, config = ("total_correlation", "index_code_information"), run.config.evaluate
    moments: list[tuple[Tensor, Tensor]] = []
    for _, x, y in stoppable(batches.sequential()):
        q = run.model.diagonal_posterior(x, y)
        if q is None:
            return {}, dict.fromkeys(names, "the posterior is not one diagonal Gaussian")
        moments.append((q.mean.cpu(), q.log_variance.cpu()))
        if sum(len(mean) for mean, _ in moments) >= COMPONENTS:
            break
    mean, log_variance = (torch.cat(part)[:COMPONENTS] for part in zip(*moments, strict=True))
    try:
        found = total_correlation(mean, log_variance, DRAWS, config.seed)
    except Undefined as error:
        return {}, dict.fromkeys(names, str(error))
    identity = {"split": config.split, "components": len(mean), "seed": config.seed}
    if run.model.conditional:
        identity["posterior"] = "q(z | x, y)"
    return {
        name: entry(estimate, better, identity, "nats")
        for name, estimate, better in zip(names, found, ("lower", None), strict=True)
    }, {}


def _pictures(run: Run, shown: Images, representation: Tensor) -> tuple[dict[str, Tensor], dict[str, str]]:
    from benchmarks.metrics.projections import pca, tsne
    from benchmarks.report.figures import scatter

    config = run.config.evaluate
    colours, title, names = _colours(run, shown)
    kept = chosen(len(shown), PLOTTED, config.seed)
    z, shown_colours = representation[kept].numpy(), None if colours is None else colours[kept]
    pictures: dict[str, Tensor] = {}
    try:
        points, shares = pca(z)
        axes = [f"component {i}, {100 * share:.0f} % of the variance" for i, share in enumerate(shares, 1)]
        pictures["pca"] = torch.from_numpy(scatter(points, shown_colours, names, title, (axes[0], axes[1])))
        if config.latent == "yes":
            stop_if_asked()
            pictures["tsne"] = torch.from_numpy(scatter(tsne(z, config.seed), shown_colours, names, title))
    except Undefined as error:
        return {}, dict.fromkeys(("pca", "tsne"), str(error))
    skipped = {} if "tsne" in pictures else {"tsne": "takes a while; --set evaluate.latent=yes asks for it"}
    return pictures, skipped


def _colours(run: Run, shown: Images) -> tuple[Tensor | None, str, tuple[str, ...]]:
    """What a point's colour says: its class, else the factor whose values are spread most evenly."""
    if shown.labels is not None:
        names = run.images.classes or tuple(str(number) for number in range(run.images.spec.classes))
        return shown.labels, "class", names
    if shown.factors is None:
        return None, "", ()

    def evenness(factor: int) -> float:
        counts = torch.bincount(shown.factors[:, factor], minlength=2).double()
        return float(torch.special.entr(counts / counts.sum()).sum() / torch.tensor(len(counts)).log())

    best = max(range(len(shown.factor_names)), key=evenness)
    names = tuple(str(value) for value in range(shown.factor_sizes[best]))
    return shown.factors[:, best], shown.factor_names[best], names


def chosen(n: int, most: int, seed: int) -> Tensor:
    """At most ``most`` of ``n`` indices, in order: drawn at random, since a split may be sorted by class."""
    if n <= most:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def scored(shown: Images, seed: int) -> Tensor:
    """The indices of the pictures whose codes are set beside their class: those of a known one, as `chosen`."""
    known = (shown.labels >= 0).nonzero().squeeze(1)
    return known[chosen(len(known), TEST_CODES, seed)]


def labelled(images: Images) -> Images:
    """The pictures whose class is known: that of others is -1."""
    return images if bool((images.labels >= 0).all()) else images.take((images.labels >= 0).nonzero().squeeze(1))


def to_learn_from(train: Images) -> Images:
    """The `labelled` pictures of a training split, as `once` has them."""
    known = labelled(train)
    return train if known is train else _different(known)


def once(train: Images) -> Images:
    """The pictures of a training split; where the class of some is hidden each once, for training sees those that show
    theirs several times (`zoo.data.mnist.partly_labelled`)."""
    hidden = train.labels is not None and bool((train.labels < 0).any())
    return _different(train) if hidden else train


def _different(images: Images) -> Images:
    first: dict[bytes, int] = {}
    for number, picture in enumerate(images.pixels):
        first.setdefault(hashlib.sha256(picture.contiguous().numpy().data).digest(), number)
    return images.take(torch.tensor(list(first.values()), dtype=torch.int64))


def some(images: Images, most: int, seed: int) -> Images:
    """The pictures at the `chosen` indices."""
    return images if len(images) <= most else images.take(chosen(len(images), most, seed))


def batches_of(run: Run, images: Images, grey: bool = False) -> Batches:
    """The images as the run's model takes them. ``grey``: they are bytes of which bits have to be drawn, as those of
    the training split of a set that is binarised anew at each visit; a code is that of one drawing."""
    return Batches(
        images,
        batch_size=512,
        drop_last=False,
        device=run.compute.device,
        binarise_on_the_fly=grey,
        condition=condition_of(run.model, run.images.spec),
    )
