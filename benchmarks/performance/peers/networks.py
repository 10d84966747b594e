"""The two VAEs that pythae's documentation trains on MNIST, built as variants of this zoo.

Both have a latent of 16, a Gaussian likelihood with sigma 1 (pythae calls it MSE) and a sigmoid at the end: an MLP
784-512-16-512-784 (829,232 parameters) and the convolutional nets of its benchmark (17,232,033).
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.models.vae import VanillaSettings, VanillaVAE

SPEC = DataSpec(shape=(1, 28, 28), support="real")
LATENT = 16
PARAMETERS = {"mlp": 829_232, "conv": 17_232_033}


class ConvEncoder(nn.Module):
    """Four 4x4 convolutions of stride 2 with batch normalisation: (B, 1, 28, 28) to (B, 1024)."""

    features = 1024

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 128), (128, 256), (256, 512), (512, 1024)):
            layers += [nn.Conv2d(before, after, 4, 2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.layers(x).flatten(1)


class ConvDecoder(nn.Module):
    """A dense layer and three transposed 3x3 convolutions of stride 2: (B, D) to (B, 1, 28, 28) in [0, 1]."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.dense = nn.Linear(latent, 1024 * 4 * 4)
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(1024, 512, 3, 2, padding=1),
            nn.BatchNorm2d(512),
            nn.ReLU(),
            nn.ConvTranspose2d(512, 256, 3, 2, padding=1, output_padding=1),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.ConvTranspose2d(256, 1, 3, 2, padding=1, output_padding=1),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(self.dense(z).view(len(z), 1024, 4, 4))


def build(network: str) -> VanillaVAE:
    """The VAE of that network, ``mlp`` or ``conv``."""
    dense = {"hidden": (512,)}
    gaussian = {"name": "gaussian", "sigma": 1.0}
    settings = {"latent": LATENT, "encoder": dense, "decoder": dense, "likelihood": gaussian}
    model = VanillaVAE(SPEC, VanillaSettings.model_validate(settings))
    if network == "mlp":
        model.decoder = nn.Sequential(model.decoder, nn.Sigmoid())
    else:
        model.encoder, model.decoder = ConvEncoder(), ConvDecoder(LATENT)
        model.head = nn.Linear(ConvEncoder.features, model.posterior.size)
    return model
