"""The small digit classifier whose 64 features ``fd_digits`` compares, and its shipped weights."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.files import sha256_file

FEATURES = 64
SHA256 = "da8ba6ed9cd7dab293afae40a4b3948f6d72166e9433da2288582fa2c1ac2018"
"""Of the shipped weights, as `python -m benchmarks.digits.train` printed it: test accuracy 99.07 %."""


class DigitClassifier(nn.Module):
    """Two convolutions and two linear maps, 115,000 parameters, 28x28 grey digits.

    `features` are the 64 numbers before the last non-linearity: there no unit is dead and a Gaussian fits
    them better than the rectified ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 5, stride=2, padding=2)
        self.hidden = nn.Linear(32 * 7 * 7, FEATURES)
        self.classes = nn.Linear(FEATURES, 10)

    def features(self, x: Tensor) -> Tensor:
        """x (B, 1, 28, 28) float in [0, 1] -> (B, 64)."""
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return self.hidden(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 1, 28, 28) float in [0, 1] -> logits (B, 10)."""
        return self.classes(F.relu(self.features(x)))


def weights_path(sha256: str = SHA256) -> Path:
    """Where weights of that hash lie: beside this file, named by its first eight digits."""
    return Path(__file__).parent / f"digits-{sha256[:8]}.safetensors"


def load_digit_classifier() -> DigitClassifier:
    """The classifier with the shipped weights, in evaluation mode; ZooError if they are not those."""
    path = weights_path()
    if not path.is_file() or sha256_file(path) != SHA256:
        raise ZooError(
            f"the digit classifier's weights {path.name} are missing or changed; reinstall the package."
        )
    model = DigitClassifier()
    model.load_state_dict(load_file(path))
    return model.eval().requires_grad_(False)
