"""A VAE under a diffusion prior: a chain of small denoising steps makes codes of noise.

Paper: Vahdat, Kreis and Kautz, Score-based Generative Modeling in Latent Space, NeurIPS 2021,
https://arxiv.org/abs/2106.05931 (LSGM).
Official code: https://github.com/NVlabs/LSGM (not read).
Where we differ: one file, because only the prior is exchanged (`zoo.priors.DiffusionPrior`), and the shared networks,
where the paper has those of NVAE. Time is discrete, as in Ho et al. (2020), so that the chain is a latent variable
model whose bound needs no solver; the paper's is continuous. All is trained on that bound by one optimiser, the prior
too, to which the paper gives other weights for better samples. What the network adds to a standard normal begins at
zero; the paper learns how much of each there is.
"""

from __future__ import annotations

from typing import ClassVar

from zoo.models.base import Settings
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.priors import PriorSettings


class DiffusionSettings(VanillaSettings):
    prior: PriorSettings = PriorSettings(name="diffusion", hidden=256)


class DiffusionVAE(VanillaVAE):
    """A vanilla VAE under a diffusion prior; ``prior.steps`` says of how many steps."""

    Settings: ClassVar[type[Settings]] = DiffusionSettings
