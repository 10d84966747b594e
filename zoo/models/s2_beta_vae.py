"""S2-beta-VAE: a beta-VAE whose first dimensions are taught the factors of a few labelled images.

Paper: Locatello, Tschannen, Bauer, Rätsch, Schölkopf and Bachem, Disentangling Factors of Variation Using Few Labels,
ICLR 2020, https://arxiv.org/abs/1905.01258.
Official code: https://github.com/google-research/disentanglement_lib (read: the losses and how labels are drawn).
Where we differ: as `zoo.models.supervised` says. The weight of the supervised loss is `gamma` here. Their `supervised`,
whose encoder learns from labels alone, is the setting `labels_alone`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from zoo.data.images import DataSpec
from zoo.models.base import Settings, Terms
from zoo.models.beta_vae import BetaSettings, BetaVAE
from zoo.models.supervised import LabelledSettings, SupervisedVAE
from zoo.nets import require


class S2BetaSettings(LabelledSettings, BetaSettings):
    of_labels: ClassVar[tuple[str, ...]] = (*LabelledSettings.of_labels, "gamma")

    gamma: float = Field(100.0, ge=0, description="weight of the supervised loss")
    labels_alone: Literal[True] | None = Field(
        None, description="yes: labels alone move the encoder, and pixels the decoder; none: the bound moves both"
    )

    def idle(self, name: str | None = None) -> dict[str, str]:
        alone = {"beta": "with labels_alone the rate has no weight"} if self.labels_alone else {}
        return super().idle(name) | alone


class S2BetaVAE(SupervisedVAE, BetaVAE):
    """A beta-VAE with a supervised loss of a few labelled images, which ties dimension j of the code to factor j."""

    Settings: ClassVar[type[Settings]] = S2BetaSettings

    def __init__(self, spec: DataSpec, settings: S2BetaSettings) -> None:
        super().__init__(spec, settings)
        if settings.labels_alone:
            for name in ("labelled", "gamma"):
                told = getattr(settings, name) > 0
                require(told, f"labels_alone with {name}=0 leaves nothing that moves the encoder.")
            for part, usual in (("prior", "standard"), ("posterior", "diagonal")):
                name = getattr(settings, part).name
                require(name == usual, f"with labels_alone nothing moves {part}.name={name}: leave it at {usual}.")
            self.seeks_bound, self.charges_by = False, "with labels_alone not at all"

    @property
    def frees_bits(self) -> bool:
        return not self.settings.labels_alone

    @property
    def supervised_weight(self) -> float:
        return self.settings.gamma

    def rate_weight(self, progress: float | Tensor) -> float | Tensor:
        return 0.0 if self.settings.labels_alone else super().rate_weight(progress)

    def bound(self, q: Any, x: Tensor, y: Tensor | None = None) -> tuple[Terms, Tensor]:
        """As `VanillaVAE.bound`; with `labels_alone` no gradient of it reaches the encoder."""
        return super().bound(q.detach() if self.settings.labels_alone else q, x, y)
