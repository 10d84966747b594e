"""Where a bound is lost: by the encoder, or by the family of its posterior.

Source: Cremer, Li and Duvenaud 2018, Inference Suboptimality in Variational Autoencoders,
https://arxiv.org/abs/1801.03558. With q* the best diagonal Gaussian for the very image, found by gradient ascent of its
ELBO with the decoder held,

    log p(x) - ELBO[q] = (log p(x) - ELBO[q*]) + (ELBO[q*] - ELBO[q]),

the approximation gap KL(q* || p(z | x)) and the amortisation gap. Where we differ: log p(x) is the bound of importance
sampling from q* alone, where the paper has annealed importance sampling too; q* begins as the encoder's q and ends
after a fixed number of steps, at the best of a few places on the way.

Draws are functions of (seed, image, sample): those that q* is found with, those that its place is chosen on and those
that it is measured on are three sets. Measured on one of the others the amortisation gap would be too large, by what
q* knows of that noise.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.interrupt import stoppable
from benchmarks.metrics.likelihood import HELD, first_images
from benchmarks.partial import Partial
from benchmarks.progress import progress
from zoo import noise
from zoo.data.batches import Batches
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.models.base import VAE, repeat
from zoo.noise import seed_for
from zoo.priors import unchanged

# Steps of Adam, the draws of a step, and the rate of the first; later ones fall to 0 as a cosine.
STEPS, DRAWS, RATE = 500, 10, 0.03
# Places on the way of which the best is q*, the encoder's being one more, and the draws they are compared on.
PLACES, COMPARED = 10, 100
SAMPLES = 1000  # that the gaps are measured with: K of the bound on log p(x)
AT_ONCE = 50  # images; what a stop loses


class Gaps(NamedTuple):
    """(n,) float64 nats of each image, on the CPU. ``late`` is what the amortisation gap grew by in the last fifth of
    the steps, on the draws that the places are compared on."""

    amortisation: Tensor
    approximation: Tensor
    late: Tensor


def stated() -> dict[str, Any]:
    """What the gaps depend on beside the images, for the identity of the metrics."""
    return {"steps": STEPS, "draws": DRAWS, "learning_rate": RATE, "k": SAMPLES}


def gaps(
    model: VAE, batches: Batches, images: int, seed: int, rows: int, partial: Partial | None = None
) -> Gaps:
    """Both gaps of the first ``images`` images, of a model that `VAE.one_gaussian` is true of.

    No weight and no gradient of one is changed. The approximation gap is a lower bound as log p(x) is, and is never
    below 0; the amortisation gap is a difference on the same draws, and may be by their noise. At most ``rows`` decoder
    inputs are held at once, fewer where a CPU holds no more. What ``partial`` has is not computed again.
    """
    wanted = min(images, batches.n)
    if batches.device.type == "cpu":
        rows = max(1, min(rows, HELD // model.spec.dims))
    partial = partial or Partial()
    done = len(partial.values("gaps")) // len(Gaps._fields)
    size = max(1, min(AT_ONCE, rows // DRAWS))
    title, initial = "best posteriors", min(done, wanted) * STEPS
    with frozen(model), unchanged(), progress(wanted * STEPS, title, "step", initial=initial) as bar:
        for ids, x, y in first_images(batches, wanted, size, done):
            joint = _Joint(model, ids, x, y, rows)
            with torch.no_grad():
                q = model.diagonal_posterior(x, y)
            best, late = _best(joint, q, seed, bar)
            own, found = (joint.log_weights(one, seed, SAMPLES) for one in (q, best))
            tight = torch.logsumexp(found, 0) - math.log(SAMPLES)
            of_each = Gaps(found.mean(0) - own.mean(0), tight - found.mean(0), late)
            partial.add("gaps", torch.stack(of_each, 1).flatten())  # at once, so that a stop finds all three or none
    return Gaps(*partial.values("gaps").view(-1, len(Gaps._fields))[:wanted].T)


@contextlib.contextmanager
def frozen(model: VAE) -> Iterator[None]:
    """No weight asks for a gradient inside the block; those that did before do so after it."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


class _Joint:
    """log p(x, z) of a few images, and what becomes of it under a q, at most ``rows`` rows at once."""

    def __init__(self, model: VAE, ids: Tensor, x: Tensor, y: Tensor | None, rows: int) -> None:
        self.model, self.ids, self.x, self.y = model, ids, x, y
        self.samples = max(1, rows // len(ids))

    def parts(self, moments: Iterable[Tensor], seed: int, draws: range) -> Iterator[Tensor]:
        """(k, B) nats: log p(x, z) - log q(z) of draws of q, a few at a time, each with a graph of its own."""
        for start in range(draws.start, draws.stop, self.samples):
            samples = range(start, min(start + self.samples, draws.stop))
            k = len(samples)
            with noise.keyed(seed, self.ids, samples):
                z, log_q = DiagonalGaussian(*moments).repeat(k).rsample()
            log_p = self.model.log_joint(z, repeat(self.x, k), repeat(self.y, k))
            yield (log_p - log_q).view(k, -1)

    @torch.no_grad()
    def log_weights(self, q: DiagonalGaussian, seed: int, k: int) -> Tensor:
        """(k, B) float64."""
        return torch.cat([part.double() for part in stoppable(self.parts(q.moments(), seed, range(k)))])


def _best(joint: _Joint, q: DiagonalGaussian, seed: int, bar: Any) -> tuple[DiagonalGaussian, Tensor]:
    """q*, and `Gaps.late`."""
    moving = [value.clone().requires_grad_() for value in q.moments()]
    adam = torch.optim.Adam(moving, lr=RATE)
    at, compared = seed_for(seed, "draws of gaps"), seed_for(seed, "places of gaps")
    best, height = q, joint.log_weights(q, compared, COMPARED).mean(0)
    before = height
    for step in stoppable(range(STEPS)):
        adam.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        adam.zero_grad()
        draws = range(step * DRAWS, (step + 1) * DRAWS)
        with torch.enable_grad():
            for part in joint.parts(moving, at, draws):
                (-part.sum() / DRAWS).backward()
        adam.step()
        if (step + 1) % max(1, STEPS // PLACES) == 0:
            here = DiagonalGaussian(*(value.detach().clone() for value in moving))
            reached = joint.log_weights(here, compared, COMPARED).mean(0)
            better = reached > height  # not so where it is no number
            height = torch.where(better, reached, height)
            before = height if step + 1 <= 0.8 * STEPS else before
            pairs = zip(here.moments(), best.moments(), strict=True)
            best = DiagonalGaussian(*(torch.where(better.unsqueeze(1), new, old) for new, old in pairs))
        bar.update(len(joint.x))
    return best, height - before
