"""How good generated images are: Frechet distance, KID, precision ... in the metrics format of a record."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.catalogue import distance_of
from benchmarks.metrics.extractors import Extractor, as_bytes
from benchmarks.metrics.features import entry
from benchmarks.metrics.frechet import frechet_estimate
from benchmarks.metrics.manifold import kernel_distance, manifold_quality
from zoo.data.images import hash_into
from zoo.errors import UsageError

SUBSETS, PRECISION_K, COVERAGE_K = 100, 3, 5
FEWEST = COVERAGE_K + 1  # images on each side: each needs so many neighbours


def image_quality(
    fake: Any,
    real: Any,
    extractor: Extractor,
    cache_key: str | None = None,
    split: str | None = None,
    parts: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Compare generated images with real ones: metric name -> value, stderr, n, unit, better, identity, note.

    With Inception's features the names are ``fid``, ``kid``, ``precision``, ``recall``, ``density`` and
    ``coverage``; with another extractor ``fd_digits``, ``kid_digits``, ``precision_digits`` and so on (``fid_bf16``
    with Inception in bfloat16), for these are other quantities. The identity holds the extractor, its weights'
    hash, input size and resize filter, the number of images on both sides, a hash of the reference images and
    each metric's own settings.

    Args:
        fake, real: uint8 (N, C, H, W), or floats in [0, 1], with the same C, H, W.
        cache_key: a readable name of the reference ("mnist-test"): its features are then remembered by content.
        split: the split that ``real`` is, for the identity.
        parts: a folder for the features of ``fake`` made so far, where the extractor is slow; whoever is killed goes
            on from it.

    Raises:
        UsageError: images of different shapes, fewer than six of either, or what `as_bytes` and `as_features` refuse.
    """
    fake_features, real_features, identity = _features(fake, real, extractor, cache_key, split, parts)
    kid, deviation = kernel_distance(fake_features, real_features, SUBSETS)
    manifold = manifold_quality(fake_features, real_features, PRECISION_K, COVERAGE_K)
    size = min(1000, min(len(fake), len(real)) // 2)
    kid_note = f"standard deviation over {SUBSETS} subsets of {size}: {deviation:.3g}"
    name = distance_of(extractor.name)
    suffix = name.removeprefix("fid").removeprefix("fd")
    result = {
        name: entry(frechet_estimate(fake_features, real_features), "lower", identity),
        f"kid{suffix}": entry(
            kid._replace(note=kid_note), "lower", {**identity, "subsets": SUBSETS, "subset_size": size}
        ),
    }
    for name, estimate in manifold.items():
        k = PRECISION_K if name in ("precision", "recall") else COVERAGE_K
        # Density is not better when it is higher: past the reference's own it means samples huddled at the modes.
        better = None if name == "density" else "higher"
        result[name + suffix] = entry(estimate, better, {**identity, "k": k})
    return result


def frechet_distance(
    fake: Any, real: Any, extractor: Extractor, cache_key: str | None, split: str | None, parts: Path | None
) -> dict[str, Any]:
    """The first entry of `image_quality` alone: the Frechet distance, of the same arguments."""
    fake_features, real_features, identity = _features(fake, real, extractor, cache_key, split, parts)
    return entry(frechet_estimate(fake_features, real_features), "lower", identity)


def _features(
    fake: Any, real: Any, extractor: Extractor, cache_key: str | None, split: str | None, parts: Path | None
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    # Of both, and what makes numbers that come of them comparable.
    fake, real = as_bytes(fake, "the generated images"), as_bytes(real, "the real images")
    if fake.shape[1:] != real.shape[1:]:
        shapes = f"{_shape(fake)} and the real ones {_shape(real)}"
        raise UsageError(f"the generated images are {shapes}; they must have one shape.")
    if min(len(fake), len(real)) < FEWEST:
        counts = f"{len(fake)} and {len(real)}"
        raise UsageError(f"sample quality needs at least {FEWEST} images on each side, not {counts}.")
    identity = {**extractor.identity, "n": len(fake), "reference_n": len(real), "reference": _hash(real)}
    if split is not None:
        identity["split"] = split
    real_features = extractor.cached(real, cache_key)
    fake_features = extractor.in_parts(fake, parts) if parts and extractor.slow else extractor(fake)
    return fake_features, real_features, identity


def _hash(images: Tensor) -> str:
    digest = hashlib.sha256(f"{tuple(images.shape)}\n".encode())
    hash_into(digest, images)
    return digest.hexdigest()[:12]


def _shape(images: Tensor) -> str:
    return "x".join(str(size) for size in images.shape[1:])
