"""What a classifier learns from class-conditional samples: classification accuracy score, and data augmentation.

Source: Ravuri and Vinyals 2019, Classification Accuracy Score for Conditional Generative Models,
https://arxiv.org/abs/1905.10887. Where we differ: their classifier is a ResNet-50 of ImageNet, ours the small digit
classifier of `benchmarks.digits`, with its own recipe, trained for the same number of steps whatever it is given.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.evaluation.representation import LEARNT_FROM, labelled, some, to_learn_from
from benchmarks.metrics.features import entry, mean_and_error
from benchmarks.pictures import generate
from zoo.config import EvaluateConfig
from zoo.data.images import DataSpec, Images
from zoo.models.base import VAE
from zoo.runs import Run
from zoo.runs.images import load_grey

SHAPE = (1, 28, 28)
CLASSES = 10
STEPS = 300
FEW = 500  # labelled images that the samples are added to
METRICS = ("cas", "cas_real", "cas_few", "cas_augmented")


def classification(run: Run) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Metrics and skipped metrics of four classifiers, all tested on the same real images of the evaluated split:

    trained on ``evaluate.cas`` samples (``cas``), on as many real images (``cas_real``), on `FEW` real images
    (``cas_few``), and on those and the samples, half of each batch from either (``cas_augmented``).
    """
    config = run.config.evaluate
    if reason := lacking(config, run.model, run.images.spec):
        return {}, dict.fromkeys(METRICS, reason)
    # Samples are means of p(x | z), which are grey, so real images are those before binarisation.
    grey = load_grey(run.config)
    known, test = to_learn_from(grey["train"]), labelled(grey[config.split])
    present = known.labels.unique()
    labels = present[torch.arange(config.cas) % len(present)]
    samples = generate(run.model, config.cas, config.seed, run.compute.device, y=labels)
    real, few = some(known, config.cas, config.seed), some(known, FEW, config.seed + 1)
    # Half of what the augmented classifier sees is real, whichever there are fewer of.
    both = torch.arange(max(len(samples), len(few)))
    of_few, of_samples = both % len(few), both % len(samples)
    right = {
        "cas": learnt(samples, labels, test, config.seed),
        "cas_real": learnt(real.pixels, real.labels, test, config.seed),
        "cas_few": learnt(few.pixels, few.labels, test, config.seed),
        "cas_augmented": learnt(
            torch.cat([few.pixels[of_few], samples[of_samples]]),
            torch.cat([few.labels[of_few], labels[of_samples]]),
            test,
            config.seed,
        ),
    }
    size = {"samples": len(samples)}
    few_size = {"real_images": len(few)}
    sizes = {"cas": size, "cas_real": {"real_images": len(real)}, "cas_few": few_size, "cas_augmented": size | few_size}
    common = {"split": config.split, "classifier": "digits", **recipe(), "seed": config.seed}
    metrics = {}
    for name, correct in right.items():
        better = "higher" if name in ("cas", "cas_augmented") else None
        metrics[name] = entry(mean_and_error(correct), better, common | sizes[name])
    value, stderr, *_ = mean_and_error(right["cas_augmented"] - right["cas_few"])
    gain = f"{value:+.4f}" if stderr is None else f"{value:+.4f} ± {stderr:.4f}"
    metrics["cas_augmented"]["note"] = f"{gain} over the real images alone, image by image"
    return metrics, {}


def lacking(config: EvaluateConfig, model: VAE, spec: DataSpec) -> str | None:
    """Why no classifier learns from samples of a model; None where one can."""
    if not config.cas:
        return "evaluate.cas is 0"
    if config.split == "train":
        return LEARNT_FROM
    if not (model.conditional or model.supervised) or not spec.classes:
        return "needs a model that is told the class"
    if spec.support == "real":
        return "the classifier is for images of bytes, and the data is real"
    if spec.shape != SHAPE or spec.classes > CLASSES:
        return "the classifier is for 1x28x28 images of at most ten classes"
    return None


def recipe() -> dict[str, Any]:
    """How each of the classifiers is trained."""
    from benchmarks.digits.train import BATCH, LABEL_SMOOTHING, RATE, SHIFT, WEIGHT_DECAY

    return {
        "steps": STEPS, "batch": BATCH, "learning_rate": RATE, "weight_decay": WEIGHT_DECAY,
        "label_smoothing": LABEL_SMOOTHING, "shift": SHIFT,
    }  # fmt: skip


def learnt(pixels: Tensor, labels: Tensor, test: Images, seed: int, steps: int = STEPS) -> Tensor:
    """(M,) of 0. and 1.: which test images a classifier trained on uint8 ``pixels`` and ``labels`` (N,) gets right.

    The accuracy's standard error over test images holds the classifier fixed: neither another draw of samples nor
    another initialisation is in it. The global random state is left as it was.
    """
    from benchmarks.digits.train import train

    with torch.random.fork_rng(devices=[]):
        model = train(pixels, labels, seed, steps=steps)
    with torch.no_grad():
        guesses = torch.cat([model(part.float() / 255).argmax(1) for part in test.pixels.split(1000)])
    return (guesses == test.labels).double()
