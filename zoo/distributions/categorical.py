"""Variables of a few classes each, by their log-probabilities in nats: draws of them, discrete or relaxed."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo import noise

NEAR_ONE = 1 - 2.0**-24


def kl_categorical(log_q: Tensor, log_p: Tensor | float) -> Tensor:
    """KL(q || p) of N independent variables of K classes, (B, N, K) to (B,), in nats; log_p broadcasts."""
    return (log_q.exp() * (log_q - log_p)).sum((-2, -1))


def gumbel(like: Tensor) -> Tensor:
    """Standard Gumbel noise, -log(-log u), with the shape, type and device of ``like``."""
    # A generator may give the end 0, and rounding the end 1.
    return -torch.log(-torch.log(noise.uniform(like).clamp(1 - NEAR_ONE, NEAR_ONE)))


def relaxed(log_probabilities: Tensor, temperature: float) -> Tensor:
    """Draws (..., K) on the simplex that a gradient passes, nearer to one-hot the smaller ``temperature``."""
    return torch.softmax((log_probabilities + gumbel(log_probabilities)) / temperature, -1)


def draw(log_probabilities: Tensor, temperature: float = 1.0) -> Tensor:
    """One-hot draws (..., K) of classes with such log-probabilities, divided by ``temperature``: Gumbel and maximum."""
    return one_hot(log_probabilities + temperature * gumbel(log_probabilities))


def one_hot(scores: Tensor) -> Tensor:
    """One where a row's score is largest, (..., K), in the type of ``scores``."""
    # Unlike torch's own it does not wait for the device to look at the classes.
    return torch.zeros_like(scores).scatter(-1, scores.argmax(-1, keepdim=True), 1.0)
