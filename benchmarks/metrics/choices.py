"""How a model uses its categorical variables: how its images spread over the classes, and what a choice says of them.

Of q(c_n | x) over the images of a split: the entropy H of the aggregate choice q(c_n) = E_x q(c_n | x), and the mutual
information I(x; c_n) = E_x KL(q(c_n | x) || q(c_n)), both at most log K nats. A rate does not tell them: that of c_n
under evenly likely classes is I + log K - H, so that one class for all images has the rate of K that are told apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.interrupt import stoppable
from zoo.data.batches import Batches
from zoo.models.base import VAE


class Choices(NamedTuple):
    """float64 (B, N) nats each, on the CPU, of B images and N variables: the means over images are H and I."""

    entropy: Tensor
    information: Tensor


@torch.no_grad()
def choices(model: VAE, batches: Batches, batch_size: int = 512) -> tuple[Choices, int] | None:
    """What each image adds to H and I, and the number of classes K; None where no variable is categorical.

    Of image i these are the cross-entropy of q(c_n | x_i) to the aggregate and its divergence from it. H and I change
    by as much, in first order, when an image counts more: their deviation gives the standard errors. As plug-in
    estimates over B images I is too large, and H too small, by about (K - 1) / 2B at most.
    """
    total, count = torch.zeros(()), 0
    for _, x, y in stoppable(batches.sequential(batch_size)):
        log_q = model.categorical_posterior(x, y)
        if log_q is None:
            return None
        total, count = total + log_q.double().exp().sum(0).cpu(), count + len(x)
    log_aggregate = (total / count).log()
    entropy, information = [], []
    for _, x, y in stoppable(batches.sequential(batch_size)):
        q = model.categorical_posterior(x, y).double().exp().cpu()
        # No image has a class that the aggregate has not.
        cross = -torch.where(q > 0, q * log_aggregate, 0.0).sum(-1)
        entropy.append(cross)
        information.append(cross - torch.special.entr(q).sum(-1))
    return Choices(torch.cat(entropy), torch.cat(information)), log_aggregate.shape[-1]
