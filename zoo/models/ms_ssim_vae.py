"""MS-SSIM VAE: reconstructions are asked for the structure of the image at several scales instead of its pixels.

Paper: Snell et al., Learning to Generate Images with Perceptual Similarity Metrics, ICIP 2017,
https://arxiv.org/abs/1511.06409. The similarity is that of Wang, Simoncelli and Bovik, Multi-Scale Structural
Similarity for Image Quality Assessment, Asilomar 2003.
Official code: none was published with the paper.
Where we differ: what is compared is the mean of p(x | z). An image has as many of the five scales as leave room for the
window of 11 pixels, with their weights over the sum of these; one that is smaller than the window has a smaller window.
At the coarsest scale images are mirrored at their border, so that each pixel counts, as in torchmetrics.

The ELBO is that of the pixels, which are not what is trained (`zoo.models.likeness`): structure asks for contrast and
not for probabilities, unless ``pixel`` is above 0.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.models.base import Settings
from zoo.models.likeness import LikenessSettings, LikenessVAE
from zoo.nets import require
from zoo.precision import full_precision

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first: Wang et al. 2003
WINDOW, SIGMA = 11, 1.5  # pixels
C1, C2 = 0.01**2, 0.03**2  # of images in [0, 1]
FLOOR = 1e-3  # structures that oppose each other have a number below 0, which has no power


class MSSSIMSettings(LikenessSettings):
    weight: float = Field(300.0, ge=0, description="weight of 1 - MS-SSIM in training, in nats")


class MSSSIMVAE(LikenessVAE):
    """A vanilla VAE whose training has the similarity in place of the likelihood."""

    Settings: ClassVar[type[Settings]] = MSSSIMSettings

    def __init__(self, spec: DataSpec, settings: MSSSIMSettings) -> None:
        super().__init__(spec, settings)
        require(
            spec.support != "real" or self.likelihood.bounded,
            "MS-SSIM is of pixels in [0, 1], and real data may lie anywhere; with likelihood.name=continuous_bernoulli "
            "none lies outside.",
        )
        self.similarity = MultiScaleSimilarity(*spec.shape[1:])

    def unlike(self, x: Tensor, shown: Tensor) -> Tensor:
        return 1.0 - self.similarity(x, shown)


class MultiScaleSimilarity(nn.Module):
    """MS-SSIM of images (B, C, height, width) in [0, 1]: each channel in windows of its own, the mean over all."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        sizes = [(height, width)]
        while len(sizes) < len(WEIGHTS) and min(sizes[-1]) // 2 >= WINDOW:
            sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
        weights = WEIGHTS[: len(sizes)]
        self.powers = [weight / sum(weights) for weight in weights]
        window = min(WINDOW, (min(height, width) - 1) | 1)
        for scale, (rows, columns) in enumerate(sizes):
            inside = scale < len(sizes) - 1
            self.register_buffer(f"rows{scale}", window_means(rows, window, inside), persistent=False)
            self.register_buffer(f"columns{scale}", window_means(columns, window, inside), persistent=False)

    @full_precision
    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """(B,): 1 where the images are the same, else less and above 0; symmetric, of each image by itself."""
        similarity = x.new_ones(len(x))
        for scale, power in enumerate(self.powers):
            if scale:
                x, other = F.avg_pool2d(x, 2), F.avg_pool2d(other, 2)
            maps = torch.stack([x, other, x.square() + other.square(), x * other])
            # Products with small matrices, which have the border in them: the gradient of padding by reflection is not
            # the same each time on a GPU.
            maps = (maps @ getattr(self, f"columns{scale}").T).transpose(-1, -2) @ getattr(self, f"rows{scale}").T
            mean, other_mean, squares, product = maps.unbind()
            means, square_means = mean * other_mean, mean.square() + other_mean.square()
            alike = (2.0 * (product - means) + C2) / (squares - square_means + C2)
            if scale == len(self.powers) - 1:
                alike = alike * (2.0 * means + C1) / (square_means + C1)
            alike = alike.flatten(1).mean(1)
            # What is at the floor has the gradient that is there: it could never leave it without one.
            similarity = similarity * (alike + (alike.clamp_min(FLOOR) - alike).detach()) ** power
        return similarity


def window_means(side: int, window: int, inside: bool) -> Tensor:
    """(P, side): the rows take the Gaussian means of windows along a side of an image, of those that lie inside or of
    one about each pixel, where the image is mirrored at its first and last pixel."""
    half = window // 2
    offsets = torch.arange(window) - half
    taps = torch.exp(-0.5 * (offsets.double() / SIGMA).square())
    centres = torch.arange(half, side - half) if inside else torch.arange(side)
    places = side - 1 - (side - 1 - (centres.unsqueeze(1) + offsets).abs()).abs()
    means = ((taps / taps.sum()).unsqueeze(1) * (places.unsqueeze(2) == torch.arange(side))).sum(1)
    return means.float()
