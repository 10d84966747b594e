"""A VAE under an energy-based prior: a standard normal that a learned acceptance function reshapes.

Paper: Bauer and Mnih, Resampled Priors for Variational Autoencoders, AISTATS 2019, https://arxiv.org/abs/1810.11428.
Official code: none was published.
Where we differ: one file, because only the prior is exchanged (`zoo.priors.EnergyPrior`), and the shared networks. The
normaliser of a training step is the mean over its own draws, the paper's is smoothed over steps too; that of an
evaluation has a standard error, which is reported. Energies without a lower bound (Pang et al., Learning Latent Space
Energy-Based Prior Model, NeurIPS 2020, https://arxiv.org/abs/2006.08205) are not here: their samples come from Langevin
dynamics that are not run to the end, and their normaliser, without which there is no bound to report, is not known.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from zoo.models.base import Settings
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.priors import EnergyPrior, PriorSettings


class EnergySettings(VanillaSettings):
    prior: PriorSettings = PriorSettings(name="energy")


class EnergyVAE(VanillaVAE):
    """A vanilla VAE under an energy-based prior; ``prior.tries`` says how many draws a sample takes at most."""

    Settings: ClassVar[type[Settings]] = EnergySettings
    measures: ClassVar[dict[str, tuple[str, str | None]]] = {
        "acceptance": ("", None),
        "log_normaliser_error": ("nats", "lower"),
    }

    def measure(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """The share Z of draws that the prior accepts, and the standard error of log Z in nats."""
        if not isinstance(self.prior, EnergyPrior):
            return {}
        log_z, error = self.prior.counted()
        return {"acceptance": log_z.exp(), "log_normaliser_error": error}
