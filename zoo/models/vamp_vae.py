"""VampPrior VAE: the prior is the mean of the posteriors of learned pseudo-inputs.

Paper: Tomczak and Welling, VAE with a VampPrior, AISTATS 2018, https://arxiv.org/abs/1705.07120.
Official code: https://github.com/jmtomczak/vae_vampprior.
Where we differ: one file, because only the prior is exchanged (`zoo.priors.VampPrior`), and the shared networks; gated
dense layers, as the paper's, are ``activation: gated``. Pseudo-inputs begin at training images, the paper's at noise.
Samples draw a component at random, where the official code takes the first. Log-variances are clamped to [-20, 20],
theirs to [-6, 2].
"""

from __future__ import annotations

from typing import ClassVar

from zoo.models.base import Settings
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.priors import PriorSettings


class VampSettings(VanillaSettings):
    prior: PriorSettings = PriorSettings(name="vamp")


class VampVAE(VanillaVAE):
    """A vanilla VAE under a VampPrior; ``prior.components`` says of how many pseudo-inputs."""

    Settings: ClassVar[type[Settings]] = VampSettings
