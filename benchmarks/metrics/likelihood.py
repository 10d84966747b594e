"""The bound and what goes with it, on one split, with weights in evaluation mode and every training weight off.

All per example, in nats, with posterior noise that is a function of (seed, image, sample): no number here depends
on how the images were batched or the samples chunked. Sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.interrupt import stoppable
from benchmarks.partial import Partial
from benchmarks.progress import progress
from zoo import noise
from zoo.config import ROWS
from zoo.data.batches import Batches
from zoo.errors import ZooError
from zoo.models.base import VAE
from zoo.models.quantised import QuantisedVAE
from zoo.priors import unchanged
from zoo.quantisers import code_counts, code_use, perplexity

ACTIVE_VARIANCE = 0.01
MOST_ROWS = 1 << 16
# Numbers of a picture-sized tensor that a CPU holds at once: 16 MB.
HELD = 1 << 22


def of_noise(support: str) -> dict[str, str]:
    """What the identity of nats says beside: those of dequantised bytes are a bound in the mean over the noise, which
    was drawn once."""
    return {"dequantised": "uniform"} if support == "dequantised" else {}


@dataclass
class Bound:
    """The terms of one posterior sample for every image of a split: the distortion (N,), and the rate (N, G) of each
    group of latents, in float64 on the CPU."""

    distortion: Tensor
    groups: Tensor

    @property
    def rate(self) -> Tensor:
        return self.groups.sum(1)

    @property
    def elbo(self) -> Tensor:
        return -(self.distortion + self.rate)


@torch.no_grad()
@unchanged()
def bound(model: VAE, batches: Batches, seed: int, batch_size: int = 512) -> Bound:
    """Distortion and rate of each image at one posterior sample (Kingma and Welling 2014)."""
    distortion, groups = [], []
    for ids, x, y in stoppable(batches.sequential(batch_size)):
        with noise.keyed(seed, ids):
            terms = model.terms(x, y)
        distortion.append(terms.distortion.double().cpu())
        groups.append(terms.rate.double().cpu())
    return Bound(torch.cat(distortion), torch.cat(groups))


@torch.no_grad()
@unchanged()
def importance_weighted(
    model: VAE,
    batches: Batches,
    k: int,
    seed: int,
    rows: int,
    images: int | None = None,
    name: str = "nll",
    partial: Partial | None = None,
) -> Tensor:
    """(n,) nats: the k-sample bound on log p(x) of the first ``images`` images (Burda et al. 2016).

    log-mean-exp of k log-weights, taken with the maximum out. At most ``rows`` decoder inputs are held at once: on a
    CPU no more than `HELD` says, on a GPU as many as fit well unless fewer than `ROWS` are asked for. Images are
    taken few at a time before their k samples are split, so that each is encoded once where k fits. What
    ``partial`` has by this ``name`` is not computed again.
    """
    wanted = min(images or batches.n, batches.n)
    if batches.device.type == "cpu":
        rows = max(1, min(rows, HELD // model.spec.dims))
    elif rows >= ROWS:
        rows = max(rows, _roomy(batches.device, model.spec.dims))
    partial = partial or Partial()
    done = len(partial.values(name))
    with progress(wanted, f"bound of {k} samples", "image", initial=min(done, wanted)) as bar:
        for ids, x, y in first_images(batches, wanted, max(1, rows // k), done):
            parts = []
            for start in stoppable(range(0, k, rows)):
                samples = range(start, min(start + rows, k))
                with noise.keyed(seed, ids, samples):
                    parts.append(model.log_weights(x, y, len(samples)).double())
            weights = torch.cat(parts)
            partial.add(name, torch.logsumexp(weights, 0) - math.log(k))
            bar.update(len(ids))
    return partial.values(name)[:wanted]


@torch.no_grad()
def codes(model: VAE, batches: Batches, batch_size: int = 512) -> Tensor:
    """float32 (N, D) on the CPU: the representation of every image."""
    parts = [model.represent(x, y).float().flatten(1).cpu() for _, x, y in stoppable(batches.sequential(batch_size))]
    return torch.cat(parts)


@torch.no_grad()
def codebooks(model: QuantisedVAE, batches: Batches, batch_size: int = 512) -> list[tuple[float, float]]:
    """Of each grid of codes the perplexity (1 to K) and the share of its K codes that are used, over the split."""
    counts: list[Tensor | int] = [0] * len(model.grids)
    for _, x, _ in stoppable(batches.sequential(batch_size)):
        for i, (quantiser, (_, q)) in enumerate(zip(model.quantisers, model.quantise(x))):
            counts[i] = counts[i] + code_counts(q.codes, quantiser.codes)
    return [(perplexity(some).item(), code_use(some).item()) for some in counts]


@torch.no_grad()
def measured(model: VAE, batches: Batches, seed: int, batch_size: int = 512) -> dict[str, Tensor]:
    """What only this variant can tell (`VAE.measure`), by name: float64 on the CPU, (N,) of each example, (1,) of the
    model itself.

    Raises:
        ZooError: it measures something that its ``measures`` do not name.
    """
    found: dict[str, list[Tensor]] = {}
    for ids, x, y in stoppable(batches.sequential(batch_size)):
        with noise.keyed(seed, ids):
            for name, values in model.measure(x, y).items():
                if name not in model.measures:
                    raise ZooError(f"its measure() gives '{name}', which its `measures` does not name.")
                found.setdefault(name, []).append(values.double().cpu())
    return {name: torch.cat(values) if values[-1].dim() else values[-1].view(1) for name, values in found.items()}


def active_units(representation: Tensor, code_variance: float | Tensor = 1.0) -> int:
    """How many code dimensions vary over the data: Var of the posterior mean over 0.01 (Burda et al. 2016), the prior
    having a variance of 1; over 0.01 ``code_variance``, a number or (D,), where it has that one."""
    return int(active(representation, code_variance).sum())


def active(representation: Tensor, code_variance: float | Tensor = 1.0) -> Tensor:
    """bool (D,): which dimensions of a code (N, D) `active_units` counts."""
    scale = torch.as_tensor(code_variance, dtype=torch.float64, device=representation.device)
    return representation.double().var(0) > ACTIVE_VARIANCE * scale


def _roomy(device: torch.device, dims: int) -> int:
    """Decoder rows that a third of a GPU's free memory holds, at 64 numbers a pixel."""
    return min(MOST_ROWS, torch.cuda.mem_get_info(device)[0] // (3 * 64 * 4 * dims))


def first_images(batches: Batches, n: int, size: int, done: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """The first ``n`` images in batches of ``size``, without the ``done`` ones that come before the others."""
    seen = 0
    for ids, x, y in batches.sequential(size):
        rows = slice(max(done - seen, 0), n - seen)
        seen += len(ids)
        if seen > done:
            yield ids[rows], x[rows], None if y is None else y[rows]
        if seen >= n:
            return
