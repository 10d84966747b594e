"""VQ-VAE: the code of an image is a grid of entries of a codebook, and an autoregressive prior over such grids.

Paper: van den Oord, Vinyals and Kavukcuoglu, Neural Discrete Representation Learning, NeurIPS 2017,
https://arxiv.org/abs/1711.00937; quantiser ``fsq``: Mentzer et al., Finite Scalar Quantization, ICLR 2024,
https://arxiv.org/abs/2309.15505; ``residual``: Lee et al., Autoregressive Image Generation using Residual Quantization,
CVPR 2022, https://arxiv.org/abs/2203.01941; ``lfq``: Yu et al., Language Model Beats Diffusion - Tokenizer is Key to
Visual Generation, ICLR 2024, https://arxiv.org/abs/2310.05737.
Official code: https://github.com/google-deepmind/sonnet, examples/vqvae_example.ipynb.
Where we differ: the codebook's moving averages count in shares of the batch, and codes that nobody uses are restarted
(`zoo.quantisers`); distortion is minus the log-likelihood in nats and commitment a sum over the grid, not two means;
the networks and the prior are smaller. Prior and autoencoder are one run: the first ``prior_from`` of it trains the
autoencoder, the rest the prior alone on codes that no longer move (so early stopping must not come
before that).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.models.base import parameters_of
from zoo.models.quantised import Grid, QuantisedSettings, QuantisedVAE
from zoo.nets.code_prior import CodePrior
from zoo.nets.halvings import doublings, halvings
from zoo.quantisers import Quantiser, make_quantiser


class VQVAE(QuantisedVAE):
    """A convolutional autoencoder with one quantised grid in its middle."""

    def __init__(self, spec: DataSpec, settings: QuantisedSettings) -> None:
        super().__init__(spec, settings)
        channels, last, depth = spec.shape[0], settings.channels[-1], (settings.residual, settings.hidden)
        self.quantiser = make_quantiser(settings.quantiser, settings.latent)
        size, output = self.quantiser.size, self.likelihood.channels(channels)
        self.encoder = nn.Sequential(*halvings(channels, settings.channels, *depth), nn.Conv2d(last, size, 1))
        self.decoder = nn.Sequential(*doublings(size, [*reversed(settings.channels), output], *depth))
        self.prior = CodePrior(settings.prior, self.grid, self.quantiser.codes, self.quantiser.depth)
        # A third faster on a CPU, and what tensor cores want.
        self.to(memory_format=torch.channels_last)

    @property
    def quantisers(self) -> list[Quantiser]:
        return [self.quantiser]

    @property
    def priors(self) -> list[CodePrior]:
        return [self.prior]

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the grid before quantisation, (B, D, h, w)."""
        return self.encoder(self.halved.padded(x))

    def quantise(self, x: Tensor) -> list[Grid]:
        z = self.encode(x)
        return [Grid(z, self.quantiser(z))]

    def decode(self, vectors: Tensor) -> Tensor:
        """(B, D, h, w) to the likelihood's parameters (B, C', H, W)."""
        return self.halved.cropped(self.decoder(vectors))

    def codes(self, x: Tensor) -> Tensor:
        """(B, h, w) int64: the codes of images; (B, h, w, depth) of a residual quantiser."""
        return self.quantiser(self.encode(x)).codes

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {
            "vae": parameters_of([self.encoder, self.decoder, self.likelihood]),
            "prior": parameters_of([self.prior]),
        }
