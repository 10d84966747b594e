"""The ELBO is a lower bound in nats: per image, summed over pixels, free of training's weights, below the evidence."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.check.subject import KNOWN_IMAGES, TINY, TINY_STEPS, Subject, elbos, fit, ids, mean_and_error, parts
from benchmarks.check.verdict import Inapplicable, hold
from zoo import noise
from zoo.data.images import DataSpec
from zoo.errors import one_line
from zoo.models.base import VAE
from zoo.models.quantised import QuantisedVAE

PER_PIXEL = math.log(2.0)
#: settings that weigh something in training where they are read there, beside those whose description says so
WEIGHTS = {"alpha", "beta", "capacity", "gamma", "lambda_", "pixel", "spectral", "weight"}
DRAWS, DRAWN_AT_ONCE = 8192, 1024
SLACK = 0.5  # nats
SEVERAL_STEPS, RATE = 60, 3e-3
ANOTHER_LIKENESS = "its training asks for another likeness than that of the likelihood, which may lose by it"


def sum_over_pixels(subject: Subject) -> None:
    """The distortion is a sum over pixels: before training about log 2 for each bit."""
    kind = getattr(subject.make(), "likelihood", None)
    if not subject.bounds or (kind is not None and not kind.is_nll_of("binary")):
        _grows_with_the_image(subject)
        return
    for width in (28, 56):
        model, found = _fresh(subject, width)
        expected = model.predicted * PER_PIXEL
        hold(
            0.5 * expected < found < 2 * expected,
            f"the distortion of a fresh model is {found:.4g} nats for 28x{width} bits, and a sum over pixels is about "
            f"{expected:.4g}",
            "sum over channels and pixels (.flatten(1).sum(1)); a mean there weighs the rate against one pixel",
        )


def _needs_a_bound(subject: Subject) -> None:
    if not subject.bounds:
        raise Inapplicable("it has no posterior, and says that it bounds nothing")


def _grows_with_the_image(subject: Subject) -> None:
    if getattr(getattr(subject.make(), "likelihood", None), "bounded", False):
        raise Inapplicable("its density of a pixel is about 1 before training, and the logarithm of any image about 0")
    # In which unit nobody knows, but twice the pixels lose twice as much.
    (_, once), (_, twice) = _fresh(subject, 28), _fresh(subject, 56)
    hold(
        1.5 < twice / once < 2.5,
        f"the distortion of a fresh model is {once:.4g} for 28x28 bits and {twice:.4g} for twice as many",
        "sum over channels and pixels (.flatten(1).sum(1)), and take no mean there",
    )


def _fresh(subject: Subject, width: int) -> tuple[VAE, float]:
    """A fresh model of 28 x ``width`` bits, and its mean distortion of 32 images."""
    torch.manual_seed(0)
    model = subject.make(DataSpec((1, 28, width), "binary", classes=10)).eval()
    x, y = subject.batch(32)
    return model, model.terms(x.repeat(1, 1, 1, width // 28), y).distortion.mean().item()


def per_image(subject: Subject) -> None:
    """Distortion and rate are each image's own, not an average over the batch."""
    model, (x, y) = subject.known(), subject.batch(16)
    terms = model.terms(x, y)
    for name, value in (("distortion", terms.distortion), ("rate", terms.rate.sum(1))):
        if value.dim() == 0 or (name == "rate" and value.abs().max() < 1e-3):
            continue  # `shapes` says so; or nothing is said through the latents yet
        hold(
            bool(value.std() > 1e-6 * value.abs().max()) or isinstance(model, QuantisedVAE),
            f"all 16 images have the same {name} of {value[0].item():.4g} nats: an average over the batch",
            "return each image's own, and leave the mean over the batch to losses()",
        )


def rate_not_negative(subject: Subject) -> None:
    """The rate is a KL divergence: never negative on average."""
    _needs_a_bound(subject)
    model, (x, y) = subject.known(), subject.batch(32)
    drawn = [model.terms(x, y).rate for _ in range(64)]
    hold(
        all(bool(torch.isfinite(rate).all()) for rate in drawn),
        "the rate is not finite after a few steps of training",
        "bound the log-variance, as zoo.distributions.gaussians.DiagonalGaussian does",
    )
    rates = torch.stack([rate.sum(1) for rate in drawn])
    mean, error = mean_and_error(rates)
    error = 0.0 if rates.std(0).max() < 1e-5 else error
    hold(
        mean >= -4 * error - 1e-5,
        f"the rate is {mean:.4g} nats on average, and a KL divergence is not negative",
        "turn its sign, or look for a density or a determinant that is left out: the rate is E[log q(z | x) - "
        "log p(z)], and the ELBO is -(distortion + rate)",
    )


def one_bound(subject: Subject) -> None:
    """The mean of log_weights is the ELBO that terms gives."""
    _needs_a_bound(subject)
    model, (x, y) = subject.known(), subject.batch(32)
    mean, error = mean_and_error(model.log_weights(x, y, 200))
    _one(subject.elbo, (mean, error))
    both = math.hypot(subject.elbo[1], error)
    hold(
        both < 0.01 * abs(subject.elbo[0]),
        f"200 samples give the ELBO {subject.elbo[0]:.4g} with an error of {both:.4g} nats, more than one in a hundred",
        "look for noise that is added to distortion, rate or log-weights",
    )
    # A few steps leave the posterior next to the prior, where most mistakes in a rate cost nothing.
    try:
        model, _ = _memorised(subject)
    except Inapplicable:
        return
    x, y = subject.tiny()
    with torch.no_grad():
        _one(
            mean_and_error(elbos(model, x, y, 200)),
            mean_and_error(model.log_weights(x, y, 200)),
        )


def _one(of_terms: tuple[float, float], of_weights: tuple[float, float]) -> None:
    (mean1, error1), (mean2, error2) = of_terms, of_weights
    error = math.hypot(error1, error2)
    hold(
        abs(mean1 - mean2) <= 4 * error + 1e-5 * abs(mean1),
        f"the mean of log_weights is {mean2:.2f} nats and the ELBO of terms {mean1:.2f} (error {error:.2f})",
        "make both of the same log p(x | z), log p(z) and log q(z | x), with no training weight in either",
    )


def more_samples_tighten(subject: Subject) -> None:
    """More samples tighten the bound: 1, then 5, then 50."""
    _needs_a_bound(subject)
    model, (x, y) = subject.known(), subject.batch(32)

    def bound(k: int, draws: int, at_once: int = 1) -> tuple[float, float]:
        many = x.repeat(at_once, 1, 1, 1), None if y is None else y.repeat(at_once)
        weights = torch.stack([model.log_weights(*many, k) for _ in range(draws // at_once)])  # (_, k, at_once * 32)
        bounds = torch.logsumexp(weights, 1) - math.log(k)
        return mean_and_error(bounds.view(draws, len(x)))

    bounds = {1: subject.elbo, 5: bound(5, 40, at_once=5), 50: bound(50, 8)}
    for few, many in ((1, 5), (5, 50)):
        (less, error1), (more, error2) = bounds[few], bounds[many]
        hold(
            less <= more + 4 * math.hypot(error1, error2) + 1e-5 * abs(more),
            f"the bound of {many} samples is {more:.2f} nats and that of {few} is {less:.2f}, which is tighter",
            "let log_weights draw k samples of its own for every image, and weigh each once",
        )


def no_training_weight(subject: Subject) -> None:
    """No weight of training is in what terms and log_weights report."""
    model, (x, y) = subject.known(), subject.batch(16)

    def reported(model: VAE) -> dict[str, Tensor]:
        with noise.keyed(0, ids(16)), torch.no_grad():
            found = {"the ELBO of terms": model.terms(x, y).elbo}
        if subject.bounds:
            with noise.keyed(0, ids(16), range(2)), torch.no_grad():
                found["the mean of log_weights"] = model.log_weights(x, y, 2)
        return found

    expected, settings = reported(model), model.settings
    for key in sorted(WEIGHTS & type(settings).model_fields.keys()):
        model.settings = settings.model_copy(update={key: 10.0})
        _same(reported(model), expected, f"setting `{key}` is 10")
    model.settings = settings
    for key, value, weighed in subject.reweighed():  # what was read when the model was made
        _same(reported(weighed), expected, f"setting `{key}` is {value:g}")
    model.rate_weight = lambda progress: 10.0
    _same(reported(model), expected, "rate_weight() is 10")


def _same(found: dict[str, Tensor], expected: dict[str, Tensor], when: str) -> None:
    for what, value in found.items():
        hold(
            torch.equal(value, expected[what]),
            f"{what} goes from {expected[what].mean():.2f} to {value.mean():.2f} nats when {when}",
            "weigh in losses() (rate_weight() is made for it): the reported ELBO has every weight at 1",
        )


@torch.no_grad()
def below_the_evidence(subject: Subject) -> None:
    """Neither the ELBO nor the 64-sample bound is above log p(x) as the model's own samples give it.

    On 8x8 bits p(x) is the mean over draws from the prior of the Bernoulli probability of x, which `sample` gives
    the means of: an estimate that knows nothing of the posterior, and no lower bound can be above. So many draws are
    enough where the posterior is no further from the prior than log(draws) nats (Chatterjee and Diaconis 2018);
    a model that claims a rate below that is held to it.
    """
    _needs_a_bound(subject)
    model, _ = _memorised(subject)
    if not hasattr(model, "likelihood"):
        raise Inapplicable("it has no `likelihood` (of zoo.likelihoods) that says whether samples give p(x) of bits")
    if model.likelihood.name != "bernoulli":
        raise Inapplicable("its likelihood of bits is not a Bernoulli, so that samples do not give p(x)")
    if model.completes:
        raise Inapplicable("its nats are of a part of the image given the rest, which samples alone do not tell")
    x, y = subject.tiny()
    torch.manual_seed(3)
    distortions, rates = parts(model, x, y, 64)
    rate = rates.mean().item()
    if rate > math.log(DRAWS):
        raise Inapplicable(f"its rate of {rate:.1f} nats is too large to be found by draws from the prior")
    elbo, error = mean_and_error(-(distortions + rates))
    weights = torch.stack([model.log_weights(x, y, 64) for _ in range(8)])
    tight, error64 = mean_and_error(torch.logsumexp(weights, 1) - math.log(64))
    evidence = _evidence(model, x, y)
    for name, found, spread in (("ELBO", elbo, error), ("64-sample bound of log_weights", tight, error64)):
        hold(
            found <= evidence + SLACK + 4 * spread,
            f"the {name} of eight 8x8 images is {found:.2f} nats, above their log p(x) of {evidence:.2f} as draws from "
            "the prior give it, so it is no lower bound",
            "look for a part of the rate or of log q(z | x) that is missing or weighted, or a likelihood whose "
            "probabilities do not sum to one",
        )


def _evidence(model: VAE, x: Tensor, y: Tensor | None) -> float:
    def decoded(y: Tensor | None) -> Tensor:
        parts = [model.sample(DRAWN_AT_ONCE, y) for _ in range(DRAWS // DRAWN_AT_ONCE)]
        return torch.cat(parts).double().flatten(1).clamp(1e-9, 1 - 1e-9)

    logs, bits = [], x.double().flatten(1)
    shared = decoded(None) if y is None else None
    for i, image in enumerate(bits):
        means = decoded(y[i].expand(DRAWN_AT_ONCE)) if shared is None else shared
        log_p = means.log() @ image + (1 - means).log() @ (1 - image)
        logs.append(torch.logsumexp(log_p, 0) - math.log(len(log_p)))
    return torch.stack(logs).mean().item()


def it_learns(subject: Subject) -> None:
    """Training makes the ELBO of its pictures better (by several losses: moves every group, and ruins nothing)."""
    if len(subject.known().parameter_groups()) > 1:
        several_learn(subject)
        return
    model, before = _memorised(subject)
    if not model.seeks_bound:
        raise Inapplicable("its rate is held at a value or hardly weighs, and may be more than eight pictures need")
    if not model.seeks_likelihood:
        raise Inapplicable(ANOTHER_LIKENESS)
    with torch.no_grad():
        after = model.terms(*subject.tiny()).elbo.mean().item()
    hold(
        after > before,
        f"the {'ELBO' if subject.bounds else 'negative distortion'} of eight 8x8 images is {before:.2f}"
        f"{' nats' if subject.bounds else ''} before and {after:.2f} after {TINY_STEPS} steps on them",
        "look at the sign of each part of losses()",
    )


def several_learn(subject: Subject, seed: int = 4) -> None:
    """A training by the trainer moves each group, and the bound, or the distortion where no bound is sought, is not far
    worse after it.

    What several losses minimise may not be the bound, and an adversary may cost some of it: a tenth at most in so few
    steps of the registry's own, where a main loss of the wrong sign costs many times the whole. Whether an adversary's
    is right is not seen.
    """

    bound = subject.bounds and subject.known().seeks_bound

    def trained(steps: int) -> tuple[dict[str, list[Tensor]], float]:
        torch.manual_seed(seed)
        warmup = SEVERAL_STEPS // 4 if steps else 0
        model = fit(subject.make(), subject.entry, KNOWN_IMAGES, steps, warmup, learning_rate=RATE).eval()
        with torch.no_grad():
            terms = [model.terms(*subject.batch(KNOWN_IMAGES)) for _ in range(8)]
        found = [each.elbo if bound else -each.distortion for each in terms]
        return model.parameter_groups(), torch.stack(found).mean().item()

    (start, before), (end, after) = trained(0), trained(SEVERAL_STEPS)  # the first with what starts from data
    still = [group for group, members in end.items() if all(map(torch.equal, members, start[group]))]
    hold(
        not still,
        f"a training of {SEVERAL_STEPS} steps leaves the group '{min(still, default='')}' as it was",
        "let losses() have its loss at a Progress of a training, whose fraction is not None, in some stage",
    )
    hold(
        after >= before - 0.5 * abs(before) - SLACK,
        f"the {'ELBO' if bound else 'negative distortion'} of {KNOWN_IMAGES} images is {before:.2f} before "
        f"and {after:.2f} after {SEVERAL_STEPS} steps on them",
        "look at the sign of each part of each loss, and at which group it is of",
    )


@torch.no_grad()
def reconstructs(subject: Subject) -> None:
    """A reconstruction is p(x | z) of a code of the image: it costs no more nats than samples of the posterior do."""
    model, (x, y) = subject.known(), subject.batch(16)
    hold(
        not torch.equal(model.reconstruct(x, y), x),
        "reconstruct(x) returns x itself",
        "return likelihood.mean of what the decoder makes of the image's code",
    )
    model, _ = _memorised(subject)
    if not model.seeks_likelihood:
        raise Inapplicable(ANOTHER_LIKENESS)
    if getattr(getattr(model, "likelihood", None), "name", None) != "bernoulli" or model.completes:
        raise Inapplicable("its distortion of bits is not a Bernoulli's of the whole image")
    x, y = subject.tiny()
    sampled = parts(model, x, y, 64)[0].mean().item()
    # Where a probability is 0 or 1 PyTorch counts 100 nats for a wrong bit.
    found = F.binary_cross_entropy(model.reconstruct(x, y), x, reduction="sum").item() / len(x)
    hold(
        found <= 1.05 * sampled + SLACK,
        f"the reconstructions of eight 8x8 images give them {found:.1f} nats, and samples of their posterior the "
        f"{sampled:.1f} nats of terms(x).distortion",
        "let reconstruct() decode the posterior's centre of the same image as terms() decodes a sample of it",
    )


def _memorised(subject: Subject) -> tuple[VAE, float]:
    try:
        subject.make(TINY).eval().terms(*subject.tiny())
    except Exception as error:
        said = one_line(error)[:120]
        raise Inapplicable(f"it has no model of 8x8 images ({type(error).__name__}: {said})") from error
    return subject.memorised
