"""Probabilities of the 256 bytes of a pixel."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo import noise
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


class BetaBinomial(Likelihood):
    """The byte of each pixel as the successes of 255 trials, whose probability is a draw of Beta(alpha, beta); of
    8-bit data, x = byte / 255.

    With k successes log p is log binom(255, k) + log B(k + alpha, 255 - k + beta) - log B(alpha, beta). Townsend, Bird
    & Barber (2019, https://arxiv.org/abs/1901.04866) code grey MNIST by it. At alpha = beta = 1, where outputs of 0
    are, every byte is as likely; a large sum of both is a binomial, and two small numbers the ends alone.

    ``params``: C log-alphas, then C log-betas, clamped to [-15, 15]. Log-gammas are up to 1e8 there, which float32
    rounds to 8 nats and float64 to 1e-8: their differences are taken in float64, whatever ``params`` are. What is no
    byte counts as the nearest one.
    """

    name = "beta_binomial"
    supports = frozenset({"8-bit"})
    trials: ClassVar[int] = 255
    limit: ClassVar[float] = 15.0

    def channels(self, image_channels: int) -> int:
        return 2 * image_channels

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        # log alpha and log beta, (B, C, H, W) each
        log_alpha, log_beta = params.clamp(-self.limit, self.limit).chunk(2, dim=1)
        return log_alpha, log_beta

    @full_precision
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability of the bytes, (B,), at most 0."""
        alpha, beta = (part.double().exp() for part in self._split(params))
        both, n = alpha + beta, self.trials
        k = (n * x.double()).round().clamp(0.0, n)
        # Of the 256 bytes and not of each pixel, for they have no gradient.
        every = torch.arange(n + 1, dtype=torch.float64, device=x.device)
        ways = torch.lgamma(every[-1] + 1.0) - torch.lgamma(every + 1.0) - torch.lgamma(every[-1] - every + 1.0)
        log_prob = (
            ways[k.long()]
            + (torch.lgamma(k + alpha) - torch.lgamma(alpha))
            + (torch.lgamma(n - k + beta) - torch.lgamma(beta))
            - (torch.lgamma(n + both) - torch.lgamma(both))
        )
        return log_prob.flatten(1).sum(1).to(params.dtype)

    @full_precision
    def mean(self, params: Tensor) -> Tensor:
        """alpha / (alpha + beta)."""
        log_alpha, log_beta = self._split(params)
        return torch.sigmoid(log_alpha - log_beta)

    @torch.no_grad()
    @full_precision
    def sample(self, params: Tensor) -> Tensor:
        """A draw of the bytes, divided by 255: as many as the distribution function leaves below a uniform number."""
        alpha, beta = (part.double().exp() for part in self._split(params))
        mean, both, n = self.mean(params), alpha + beta, self.trials
        u = noise.uniform(mean).double()
        log_p = torch.lgamma(n + beta) - torch.lgamma(beta) + torch.lgamma(both) - torch.lgamma(n + both)
        below, drawn = log_p.exp(), torch.zeros_like(u)
        for k in range(n):
            drawn = drawn + (u > below)
            log_p = log_p + torch.log((n - k) * (k + alpha) / ((k + 1) * (n - k - 1 + beta)))
            below = below + log_p.exp()
        return (drawn / n).to(mean.dtype)
