"""What the variants share whose first dimensions are taught the factors of a few labelled images: which images, and a
supervised loss beside that of a variant which learns from images alone. Labels are right, unless settings make them
imprecise.

Paper: Locatello, Tschannen, Bauer, Rätsch, Schölkopf and Bachem, Disentangling Factors of Variation Using Few Labels,
ICLR 2020, https://arxiv.org/abs/1905.01258.
Official code: https://github.com/google-research/disentanglement_lib (read: the losses and how labels are drawn).
Where we differ: the supervised loss is a mean over labelled images, theirs the sum over a batch of them, so that a
weight of theirs is one of ours over the batch size. A labelled image is drawn for each image of a batch, and theirs
come in turns. All of the labels are trained on, and the weights that are kept are those whose criterion, that of the
variant without labels, is the best on validation images without any; they hold some labels back. Their loss of
covariances, that of learned embeddings, the squared distance with a learned scale in place of the sigmoid, and weights
that change in training are not here. Of data without factors the class is the one factor. Their imprecise labels are in
five bins, or a tenth of them is drawn anew, or their values are permuted, or they are of two factors, in the order in
which these are drawn; ours may be all of it at once, with any numbers, and have the factors in their own order.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zoo.data.companions import Companions, parted
from zoo.data.images import DataSpec, Images
from zoo.data.labelled import Labelled
from zoo.models.base import VAE, Losses
from zoo.models.vae import VanillaSettings
from zoo.nets import require
from zoo.precision import full

Supervised = Literal["bce", "l2"]


class LabelledSettings(VanillaSettings):
    """``of_labels`` are those that do nothing where no image is labelled."""

    of_labels: ClassVar[tuple[str, ...]] = ("label_seed", "supervised")

    labelled: int = Field(1000, ge=0, description="training images that show their factors; all, if there are fewer")
    label_seed: int = Field(0, ge=0, lt=2**63, description="which images show their factors")
    supervised: Supervised = Field(
        "bce", description="a dimension's loss: bce, cross-entropy of its sigmoid; l2, squared distance of that"
    )
    label_bins: int | None = Field(
        None, ge=2, description="labels are rounded to so many bins of each factor; none: every value is told"
    )
    label_noise: float | None = Field(
        None, gt=0, le=1, description="chance of each label to be any value of its factor, drawn anew; none: 0"
    )
    label_permuted: Literal[True] | None = Field(
        None, description="yes: `label_seed` permutes the values of each factor, or its bins; none: they are in order"
    )
    label_factors: int | None = Field(
        None, ge=1, description="labels are of so many factors, which `label_seed` draws; none: of all"
    )

    def idle(self, name: str | None = None) -> dict[str, str]:
        """Settings that do nothing beside the others, each with why."""
        return {} if self.labelled else dict.fromkeys(self.of_labels, "with labelled=0 no label is told")


class SupervisedSettings(LabelledSettings):
    of_labels: ClassVar[tuple[str, ...]] = (*LabelledSettings.of_labels, "supervised_weight")

    supervised_weight: float = Field(100.0, ge=0, description="weight of the supervised loss")


class SupervisedVAE(VAE):
    """Stands before another variant among the bases of a class: that variant with a supervised loss of a few labelled
    images, which ties dimension j of the code to factor j."""

    factor_supervised: ClassVar[bool] = True

    def __init__(self, spec: DataSpec, settings: LabelledSettings) -> None:
        super().__init__(spec, settings)
        for name in ("label_bins", "label_noise", "label_permuted", "label_factors"):
            told = settings.labelled or getattr(settings, name) is None
            require(bool(told), f"{name} does nothing with labelled=0, of which no label is told.")

    @property
    def supervised_weight(self) -> float:
        """Of the supervised loss beside the other one."""
        return self.settings.supervised_weight

    def companions(self, images: Images) -> Companions | None:
        """As `VAE.companions`: labelled images; None where no image is to show its factors.

        Raises:
            UsageError: as `Labelled`; or there are more factors than dimensions.
        """
        if not self.settings.labelled:
            return None
        given = self.settings
        labelled = Labelled(
            images,
            given.labelled,
            given.label_seed,
            bins=given.label_bins,
            noise=given.label_noise,
            permuted=bool(given.label_permuted),
            kept=given.label_factors,
        )
        require(
            labelled.factors <= given.latent,
            f"labelled images tie a dimension to each factor: latent={given.latent} is fewer than the "
            f"{labelled.factors} factors of this data.",
        )
        return labelled

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """As `VAE.losses`, with as many labelled images: y (B, C*H*W + F), their pixels and their F factors in [0, 1].
        Without y no image shows any. The supervised loss is in that of the group "vae" alone."""
        found = super().losses(x, None, progress)
        if y is None:
            return found
        labelled, factors = parted(y, x.shape[1:])
        taught = supervised_loss(self.represent(labelled), factors, self.settings.supervised).mean()
        return Losses({**found, "vae": found["vae"] + self.supervised_weight * taught}, found.terms)


def supervised_loss(codes: Tensor, factors: Tensor, kind: Supervised) -> Tensor:
    """(B,): how far the sigmoids of the first F dimensions of the codes (B, D) are from the factors (B, F) in [0, 1],
    summed over factors: `bce`, the cross-entropy in nats; `l2`, the squared distance."""
    logits = full(codes)[:, : factors.shape[1]]
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(logits, full(factors), reduction="none").sum(1)
    return (logits.sigmoid() - full(factors)).square().sum(1)
