"""VQ-VAE-2: two grids of codes, the upper one of half the resolution, and a prior of the lower that is told the upper.

Paper: Razavi, van den Oord and Vinyals, Generating Diverse High-Fidelity Images with VQ-VAE-2, NeurIPS 2019,
https://arxiv.org/abs/1906.00446.
Official code: https://github.com/google-deepmind/sonnet, its quantiser alone.
Where we differ: as `zoo.models.vq_vae`, and the priors are small (`zoo.nets.code_prior`), the paper's are PixelCNNs, of
which that of the upper grid has self-attention; both grids have quantisers of the same settings; one halving lies
between them, whatever the size of the image; nothing is rejected by a classifier.

The lower grid is encoded from the image and from the upper codes, so that it may hold what these leave over; the
decoder sees both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.models.base import set_apart
from zoo.models.quantised import Grid, QuantisedSettings, QuantisedVAE
from zoo.nets.code_prior import CodePrior
from zoo.nets.halvings import doublings, halvings
from zoo.quantisers import Quantiser, make_quantiser

# Of each channel of a grid when training begins: at one, the commitment outweighs the picture for long. Levels have no
# commitment and lie between -1 and 1, of which a tenth would see the middle ones alone.
DEVIATION, OF_LEVELS = 0.1, 1.0


class VQVAE2(QuantisedVAE):
    """A convolutional autoencoder with two quantised grids, ``top`` and ``bottom``."""

    grids: ClassVar[tuple[str, ...]] = ("top", "bottom")
    group_names = grids

    def __init__(self, spec: DataSpec, settings: QuantisedSettings) -> None:
        super().__init__(spec, settings)
        channels, last, depth = spec.shape[0], settings.channels[-1], (settings.residual, settings.hidden)
        self.upper = (-(-self.grid[0] // 2), -(-self.grid[1] // 2))
        self.top, self.bottom = (make_quantiser(settings.quantiser, settings.latent) for _ in self.grids)
        size, output = self.top.size, self.likelihood.channels(channels)
        self.group_sizes = tuple(size * height * width for height, width in (self.upper, self.grid))
        self.encoder = nn.Sequential(*halvings(channels, settings.channels, *depth))
        self.upward = nn.Sequential(*halvings(last, [last], *depth), nn.Conv2d(last, size, 1))
        self.downward = nn.Sequential(*doublings(size, [last, last], *depth), nn.ReLU())
        self.merge = nn.Conv2d(2 * last, size, 1)
        self.enlarge = nn.ConvTranspose2d(size, size, 4, stride=2, padding=1)
        self.decoder = nn.Sequential(*doublings(2 * size, [*reversed(settings.channels), output], *depth))
        self.top_prior = CodePrior(settings.prior, self.upper, self.top.codes, self.top.depth)
        self.bottom_prior = CodePrior(settings.prior, self.grid, self.bottom.codes, self.bottom.depth)
        self.tell = nn.Sequential(*doublings(size, [last, settings.prior.hidden], *depth))
        # As `VQVAE`.
        self.to(memory_format=torch.channels_last)

    @property
    def quantisers(self) -> list[Quantiser]:
        return [self.top, self.bottom]

    @property
    def priors(self) -> list[CodePrior]:
        return [self.top_prior, self.bottom_prior]

    def quantise(self, x: Tensor) -> list[Grid]:
        """The grids (B, D, h', w') and (B, D, h, w), h' and w' being half of h and w, rounded up."""
        features = self.encoder(self.halved.padded(x))
        (height, width), (h, w) = self.upper, self.grid
        above = self.upward(F.pad(features, (0, 2 * width - w, 0, 2 * height - h)))
        top = self.top(above)
        below = self.merge(torch.cat([features, self._fitted(self.downward(top.vectors))], 1))
        return [Grid(above, top), Grid(below, self.bottom(below))]

    def decode(self, top: Tensor, bottom: Tensor) -> Tensor:
        """(B, D, h', w') and (B, D, h, w) to the likelihood's parameters (B, C', H, W)."""
        return self.halved.cropped(self.decoder(torch.cat([self._fitted(self.enlarge(top)), bottom], 1)))

    def told(self, grid: int, codes: Sequence[Tensor]) -> Tensor | None:
        if grid == 0:
            return None
        return self._fitted(self.tell(self.top.embed(codes[0]))).flatten(2).mT

    @torch.no_grad()
    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        """Each grid begins at a mean of 0 and the same deviation in each channel, the lower one as it is beside an
        upper one that has begun, and its quantiser begins there: what a fresh network makes of images hardly differs.
        """
        begun = OF_LEVELS if self.settings.quantiser.name == "fsq" else DEVIATION
        for grid, (head, quantiser) in enumerate(zip((self.upward[-1], self.merge), self.quantisers)):
            z = self.quantise(x)[grid].z
            mean = z.mean((0, 2, 3))
            deviation = z.std((0, 2, 3), correction=min(1, z[:, 0].numel() - 1))
            # Of one vector, or of the same ones, there is none to bring anywhere.
            scale = begun / torch.where(deviation > 1e-6, deviation, begun)
            head.weight.mul_(scale.view(-1, 1, 1, 1))
            head.bias.sub_(mean).mul_(scale)
            quantiser.initialise((z - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return set_apart(self, "prior", [*self.priors, self.tell])

    def _fitted(self, maps: Tensor) -> Tensor:
        # What the halving of the lower grid was padded by.
        return maps[:, :, : self.grid[0], : self.grid[1]]
