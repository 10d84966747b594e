"""What the decoder's output says about the image: Bernoulli, continuous Bernoulli, Gaussian, Laplace, log-cosh,
Student-t, discretised logistic mixture, beta-binomial.

A likelihood names the data it is a likelihood *of* (`supports`). Others may be trained with it - grey pixels
under a Bernoulli is a tradition - but the number is then a reconstruction loss, not nats of the data, and the
harness says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.likelihoods.base import LOG_256, Likelihood, LikelihoodSettings, stacked
from zoo.likelihoods.bernoulli import Bernoulli, ContinuousBernoulli, start_at_mean
from zoo.likelihoods.discrete import BetaBinomial, DiscretisedLogistic
from zoo.likelihoods.location_scale import Gaussian, Laplace, LocationScale, LogCosh, StudentT

if TYPE_CHECKING:
    from zoo.data.images import DataSpec

__all__ = [
    "AUTO",
    "LIKELIHOODS",
    "LOG_256",
    "Bernoulli",
    "BetaBinomial",
    "ContinuousBernoulli",
    "DiscretisedLogistic",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LikelihoodSettings",
    "LocationScale",
    "LogCosh",
    "StudentT",
    "make_likelihood",
    "stacked",
    "start_at_mean",
]

LIKELIHOODS: dict[str, type[Likelihood]] = {
    kind.name: kind
    for kind in (
        *(Bernoulli, ContinuousBernoulli, Gaussian, Laplace, LogCosh, StudentT),
        *(DiscretisedLogistic, BetaBinomial),
    )
}
AUTO = {"binary": "bernoulli", "8-bit": "logistic", "dequantised": "gaussian", "real": "gaussian"}


def make_likelihood(settings: LikelihoodSettings, spec: DataSpec) -> Likelihood:
    """The likelihood of those settings; ``auto`` takes the one that is a likelihood of ``spec.support``."""
    name = AUTO[spec.support] if settings.name == "auto" else settings.name
    made = LIKELIHOODS[name](settings, confined=spec.support != "real")
    if made.is_density and spec.support == "dequantised":
        made.log_unit = LOG_256
    return made
