"""VAE with a flow posterior: the diagonal Gaussian is carried through invertible steps, so that q(z | x) can bend.

Papers: Rezende and Mohamed, Variational Inference with Normalizing Flows, ICML 2015,
https://arxiv.org/abs/1505.05770 (planar, radial); Kingma et al., Improving Variational Inference with Inverse
Autoregressive Flow, NeurIPS 2016, https://arxiv.org/abs/1606.04934 (iaf); van den Berg et al., Sylvester Normalizing
Flows for Variational Inference, UAI 2018, https://arxiv.org/abs/1803.05649 (sylvester); Tomczak and Welling, Improving
Variational Auto-Encoders using Householder Flow, 2016, https://arxiv.org/abs/1611.09630 (householder); Durkan et al.,
Neural Spline Flows, NeurIPS 2019, https://arxiv.org/abs/1906.04032 (spline).
Official code: https://github.com/openai/iaf, https://github.com/riannevdberg/sylvester-flows,
https://github.com/bayesiains/nsf.
Where we differ: one file, because only the posterior is exchanged; the gated convolutions that the Sylvester paper
compares on are `encoder.name=gated`. Planar, radial, Sylvester and Householder steps are amortised whole, as in Rezende
and Mohamed and in van den Berg et al.; the networks of IAF and splines are shared and see a context of x. The rate has
no closed form and is one-sample, log q(z | x) - log p(z), in training and in evaluation.
"""

from __future__ import annotations

from typing import ClassVar

from zoo.models.base import Settings
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.posteriors import PosteriorSettings


class FlowSettings(VanillaSettings):
    posterior: PosteriorSettings = PosteriorSettings(name="sylvester")


class FlowVAE(VanillaVAE):
    """A vanilla VAE whose posterior is a flow; ``posterior.name`` says which."""

    Settings: ClassVar[type[Settings]] = FlowSettings
