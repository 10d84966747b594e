"""Probabilities of the 256 bytes of a pixel."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.likelihoods.base import Likelihood, open_uniform
from zoo.precision import full_precision


class DiscretisedLogistic(Likelihood):
    """A mixture of logistics integrated over each of the 256 bytes; of 8-bit data, x = byte / 255.

    Every pixel has K mixture weights shared by its channels; given the component the channels are
    independent. That is PixelCNN++ (Salimans et al. 2017) without its linear regression of green on red and
    of blue on both: one likelihood for any number of channels, and `sample` needs no order. The first and
    last byte take the tails, so the 256 probabilities sum to one.

    ``params``: K logits, then K * C means, then K * C log-scales, the last two on the pixel range [-1, 1];
    log-scales are clamped to [-7, 7].
    """

    name = "logistic"
    supports = frozenset({"8-bit"})
    half_bin: ClassVar[float] = 1.0 / 255.0  # of the range [-1, 1]

    def channels(self, image_channels: int) -> int:
        return self.settings.components * (1 + 2 * image_channels)

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # logits (B, K, H, W), means and log-scales (B, K, C, H, W)
        k = self.settings.components
        each = (params.shape[1] - k) // 2
        logits, means, log_scales = params.split([k, each, each], dim=1)
        return logits, means.unflatten(1, (k, -1)), log_scales.unflatten(1, (k, -1)).clamp(-7.0, 7.0)

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability of the bytes, (B,), at most 0."""
        logits, means, log_scales = self._split(params)
        x = (2.0 * x - 1.0).unsqueeze(1)
        precision = torch.exp(-log_scales)
        below = F.logsigmoid((x - means + self.half_bin) * precision)
        above = F.logsigmoid((means - x + self.half_bin) * precision)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a)): exact at any scale, where the
        # difference of two sigmoids near 1 is 0 in float32 and needs a fallback density.
        width = torch.log(-torch.expm1(-2.0 * self.half_bin * precision))
        log_prob = torch.where(x > 1.0 - self.half_bin, above, below + above + width)
        log_prob = torch.where(x < self.half_bin - 1.0, below, log_prob).sum(2)
        return torch.logsumexp(F.log_softmax(logits, dim=1) + log_prob, dim=1).flatten(1).sum(1)

    @full_precision
    def mean(self, params: Tensor) -> Tensor:
        """E[clip(X, 0, 1)] before rounding: that of the bytes but for the midpoint rule over 255 steps."""
        logits, means, log_scales = self._split(params)
        middle, scale = 0.5 * (means + 1.0), 0.5 * torch.exp(log_scales)
        # The integral over t in [0, 1] of P(X > t).
        mean = scale * (F.softplus(middle / scale) - F.softplus((middle - 1.0) / scale))
        return (torch.softmax(logits, dim=1).unsqueeze(2) * mean).sum(1).clamp(0.0, 1.0)

    @full_precision
    def sample(self, params: Tensor) -> Tensor:
        """A draw of the bytes, divided by 255."""
        logits, means, log_scales = self._split(params)
        gumbel = -torch.log(-torch.log(open_uniform(logits)))
        component = (logits + gumbel).argmax(1, keepdim=True).unsqueeze(2).expand_as(means[:, :1])
        mean, log_scale = means.gather(1, component).squeeze(1), log_scales.gather(1, component).squeeze(1)
        u = open_uniform(mean)
        x = mean + torch.exp(log_scale) * (torch.log(u) - torch.log1p(-u))
        return (127.5 * (x + 1.0)).round().clamp(0.0, 255.0) / 255.0
