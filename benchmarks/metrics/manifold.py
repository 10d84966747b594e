"""Sample quality without a Gaussian fit: the kernel distance (KID), precision and recall, density and
coverage.

All take features (n, D) of generated images first and (m, D) of real ones second.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.interrupt import stoppable
from benchmarks.metrics.features import Estimate, Features, as_pair, mean_and_error
from zoo.errors import UsageError

ROWS = 1024  # rows of a distance matrix held at a time: 1024 x 50,000 float64 are 400 MB
SLACK = 1e-13  # of a squared distance, in squares of the longest vector: hundreds of roundings
HALVES = 20  # whose deviation is recall's error, known to a sixth then


def kernel_distance(
    fake: Any, real: Any, subsets: int = 100, size: int | None = None, seed: int = 0
) -> tuple[Estimate, float]:
    """Kernel inception distance: unbiased squared MMD with the kernel (x.y/D + 1)^3 (Binkowski et al. 2018,
    arXiv:1801.01401), averaged over random subsets of ``size`` images a side.

    Returns the estimate and the standard deviation over subsets (the number usually printed beside a KID).
    The standard error is the delete-d jackknife's, std * sqrt(size / (n - size)), with the mean of 1 / (n -
    size) over the two sets, plus that of averaging a finite number of subsets; it covers the draw of both
    sets, and is too wide where the two distributions agree (what it adds up vanishes there) or one set is many times
    the other. ``size`` defaults to 1000, or half of the smaller set where that is less. The value has no bias, so
    it is below zero now and then when the distributions agree. Raises UsageError for features that `as_pair`
    refuses, and for a size that is not in 2 .. n - 1.
    """
    fake, real = as_pair(fake, real)
    n = min(len(fake), len(real))
    size = min(1000, n // 2) if size is None else size
    if not 2 <= size < n:
        raise UsageError(f"a KID subset of {size} images needs at least 2, and fewer than the {n} there are.")
    if subsets < 2:
        raise UsageError(f"KID needs at least 2 subsets for a standard deviation, not {subsets}.")
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in stoppable(range(subsets)):
        x = fake[torch.randperm(len(fake), generator=generator)[:size]]
        y = real[torch.randperm(len(real), generator=generator)[:size]]
        values.append(squared_mmd(x, y))
    spread = torch.tensor(values, dtype=torch.float64)
    std = float(spread.std())
    deleted = (1 / (len(fake) - size) + 1 / (len(real) - size)) / 2
    stderr = std * (size * deleted + 1 / subsets) ** 0.5
    return Estimate(float(spread.mean()), stderr, len(fake)), std


def squared_mmd(x: Features, y: Features) -> float:
    """Unbiased squared maximum mean discrepancy of (n, D) and (m, D) under the kernel (x.y/D + 1)^3."""
    n, m = len(x), len(y)
    within_x = (_cubic(x, x).sum() - _cubic_diagonal(x).sum()) / (n * (n - 1))
    within_y = (_cubic(y, y).sum() - _cubic_diagonal(y).sum()) / (m * (m - 1))
    return float(within_x + within_y - 2 * _cubic(x, y).mean())


def manifold_quality(fake: Any, real: Any, k: int = 3, coverage_k: int = 5) -> dict[str, Estimate]:
    """Precision and recall with ``k`` neighbours, density and coverage with ``coverage_k``, from one set of
    distances.

    ``precision``: the fraction of fake images inside the union of balls around real ones, each reaching to
    its k-th real neighbour; ``recall``: the same with the parts exchanged (Kynkaanniemi et al. 2019,
    arXiv:1904.06991, which uses 3). ``density``: how many real balls a fake image lies in, over k; about 1
    when the distributions agree, and not bounded by it; ``coverage``: the fraction of real images whose ball
    holds a fake one, 1 - 2^-k in expectation when the distributions agree and both have as many samples
    (Naeem et al. 2020, arXiv:2002.09797, which uses 5). The standard errors are those of a mean over images
    with the balls held fixed, but that of recall, whose balls are the fake images' own: it is the delete-half
    jackknife's, the deviation over `HALVES` random halves of the fake images. Raises UsageError for features that
    `as_pair` refuses, and unless both k are at least 1 and smaller than both sets.
    """
    fake, real = as_pair(fake, real)
    real_radii, real_coverage_radii = _radii(real, k, coverage_k)
    fake_radii = _radii_in_halves(fake, k)
    # Of the same two rows a product of two matrices gives another last digit than that of two others. An image as far
    # as a ball reaches, such as one that the others in it are copies of, is inside.
    slack = SLACK * max(float((part - real.mean(0)).square().sum(1).max()) for part in (fake, real))
    real_radii, real_coverage_radii = real_radii + slack, real_coverage_radii + slack
    fake_radii = torch.where(fake_radii >= 0, fake_radii + slack, fake_radii)
    inside, counts = [], []
    reached = torch.zeros(len(fake_radii), len(real), dtype=torch.bool)
    nearest = torch.full((len(real),), torch.inf, dtype=real.dtype)
    for distances, radii in zip(_squared_distances(fake, real), fake_radii.split(ROWS, dim=1), strict=True):
        inside.append((distances <= real_radii).any(1))
        counts.append((distances <= real_coverage_radii).sum(1))
        for one, found in zip(radii, reached, strict=True):
            found |= (distances <= one[:, None]).any(0)
        nearest = torch.minimum(nearest, distances.amin(0))
    return {
        "precision": mean_and_error(torch.cat(inside)),
        "recall": _recall(reached[0], reached[1:], len(fake)),
        "density": mean_and_error(torch.cat(counts).double() / coverage_k),
        "coverage": mean_and_error(nearest <= real_coverage_radii),
    }


def _recall(reached: Tensor, halves: Tensor, n: int) -> Estimate:
    """From which of m real images the n fake ones reach, (m,), and which those of each half, (h, m)."""
    found = mean_and_error(reached)
    if not len(halves):  # too few images to be halved
        return found
    share = (n // 2) / (n - n // 2)
    return found._replace(stderr=float(halves.double().mean(1).std()) * share**0.5)


def _radii_in_halves(features: Features, k: int) -> Tensor:
    """(1 + HALVES, n) the squared distances of the rows to their k-th neighbour, themselves not counted: in the whole
    set, then in random halves of it, with -1 for a row that is not in the half. Of too few rows the first alone."""
    _check_k(features, k)
    n = len(features)
    generator = torch.Generator().manual_seed(0)
    number = HALVES if n // 2 > k else 0
    members = [(torch.randperm(n, generator=generator) < n // 2).to(features.device) for _ in range(number)]
    blocks, start = [], 0
    for distances in _squared_distances(features, features):
        # Of so many neighbours enough are in every half, or nearly always.
        near, index = distances.topk(min(n, 16 * (k + 1)), dim=1, largest=False)
        rows = slice(start, start := start + len(distances))
        radii = [_kth(near, index, distances, member, k).masked_fill(~member[rows], -1.0) for member in members]
        blocks.append(torch.stack([near[:, k], *radii]))
    return torch.cat(blocks, 1)


def _kth(near: Tensor, index: Tensor, distances: Tensor, member: Tensor, k: int) -> Tensor:
    """(b,) the distances to the k-th neighbour among the members, themselves not counted: in the ``near`` ones (b, c),
    or else in all (b, n)."""
    rank = member[index].cumsum(1)
    found = near.gather(1, (rank <= k).sum(1, keepdim=True).clamp_max(near.shape[1] - 1)).squeeze(1)
    few = rank[:, -1] <= k
    if few.any():
        others = distances[few].masked_fill(~member, torch.inf)
        found[few] = others.topk(k + 1, dim=1, largest=False).values[:, k]
    return found


def _radii(features: Features, *ks: int) -> list[Tensor]:
    """For each k, the (n,) squared distances of the rows to their k-th neighbour, themselves not counted."""
    for k in ks:
        _check_k(features, k)
    # Itself is the nearest at distance zero, hence k + 1.
    blocks = [
        d.topk(max(ks) + 1, dim=1, largest=False).values for d in _squared_distances(features, features)
    ]
    nearest = torch.cat(blocks)
    return [nearest[:, k].contiguous() for k in ks]


def _check_k(features: Features, k: int) -> None:
    if not 1 <= k < len(features):
        raise UsageError(f"k = {k} neighbours need k of at least 1 and more than k samples; there are {len(features)}.")


def _squared_distances(rows: Features, columns: Features) -> Iterator[Tensor]:
    """Blocks of at most ROWS rows of the (n, m) matrix of squared Euclidean distances."""
    # Moved to the middle first: |x|^2 - 2xy + |y|^2 loses what the common offset has in digits.
    centre = columns.mean(0)
    columns = columns - centre
    norms = columns.square().sum(1)
    for block in stoppable((rows - centre).split(ROWS)):
        distances = torch.addmm(norms, block, columns.T, alpha=-2)
        yield distances.add_(block.square().sum(1, keepdim=True)).clamp_min_(0)


def _cubic(x: Features, y: Features) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _cubic_diagonal(x: Features) -> Tensor:
    return (x.square().sum(1) / x.shape[1] + 1) ** 3
