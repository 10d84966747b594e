"""Conditional VAE: encoder and decoder are told the class, or the attributes, of the image.

Paper: Sohn, Lee and Yan, Learning Structured Output Representation using Deep Conditional Generative Models,
NeurIPS 2015, https://papers.nips.cc/paper/5775.
Official code: https://github.com/kihyuks/cvae (not read).
Where we differ: the condition is a label instead of a part of the image, and the prior is p(z) = N(0, I) instead of a
network of the condition, as in the M2 model of Kingma et al. (2014) with every label observed. The bound is on
log p(x | y), which is another quantity than log p(x): the board marks it and ranks it apart.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from zoo import noise
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models.base import condition_size
from zoo.models.vae import VanillaSettings, VanillaVAE

REMEMBERED = 1024


class ConditionalVAE(VanillaVAE):
    """A vanilla VAE of images given their class (one-hot) or their attributes (0/1).

    Raises:
        UsageError: the data has neither classes nor attributes.
    """

    conditional: ClassVar[bool] = True

    def __init__(self, spec: DataSpec, settings: VanillaSettings) -> None:
        if not condition_size(spec):
            raise UsageError("'cvae' needs data with classes or attributes. `zoo list datasets` shows which have them.")
        super().__init__(spec, settings)
        # Conditions to draw from when `sample` is given none: the classes evenly, until training shows real ones.
        known = torch.arange(REMEMBERED) % spec.classes if spec.classes else torch.zeros(REMEMBERED, spec.attributes)
        self.register_buffer("seen", known)

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        super().initialise(x, y)
        if y is not None and len(y):
            times = -(-REMEMBERED // len(y))
            self.seen = torch.cat([y] * times)[:REMEMBERED].to(self.seen.dtype)

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """As `VAE.sample`; without ``y`` each sample gets a condition drawn from those seen in training."""
        if y is None:
            y = self.seen[noise.index(torch.empty(n, device=self.seen.device), REMEMBERED)]
        return super().sample(n, y, temperature)
