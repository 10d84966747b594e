"""How well a score tells two groups apart: the area under the ROC curve, with its standard error."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks.metrics.codes import Undefined
from benchmarks.metrics.features import Estimate


def auroc(inliers: Any, outliers: Any) -> Estimate:
    """The chance that an inlier scores higher than an outlier, ties counted half; .5 is no better than a coin.

    The error is that of DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44, 837-845): the variance of each
    inlier's share of outliers below it over the number of inliers, plus the like of the outliers. It covers the draw
    of both groups of images, the scores held fixed. The shares are differences of mid-ranks.

    Args:
        inliers, outliers: (M,) and (N,) scores, such as ELBOs in nats; higher is more like the training data.
            Infinite scores are ranked like others.

    Raises:
        Undefined: fewer than two scores of either group, or a NaN.
    """
    inliers, outliers = (np.asarray(scores, dtype=np.float64).ravel() for scores in (inliers, outliers))
    m, n = len(inliers), len(outliers)
    if min(m, n) < 2:
        raise Undefined(f"an AUROC needs at least two inliers and two outliers, not {m} and {n}")
    if np.isnan(inliers).any() or np.isnan(outliers).any():
        raise Undefined("a score is NaN")
    ranks = rankdata(np.concatenate([inliers, outliers]))
    below = (ranks[:m] - rankdata(inliers)) / n
    above = 1 - (ranks[m:] - rankdata(outliers)) / m
    variance = below.var(ddof=1) / m + above.var(ddof=1) / n
    return Estimate(float(below.mean()), float(np.sqrt(variance)), m + n)
