"""A diffusion over codes: noise is added to a code step by step, and a network learns to take it away again.

The discrete chain of Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, NeurIPS 2020,
https://arxiv.org/abs/2006.11239, as the prior of a latent space, Vahdat, Kreis and Kautz, Score-based Generative
Modeling in Latent Space, NeurIPS 2021, https://arxiv.org/abs/2106.05931 (LSGM).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import noise
from zoo.distributions.gaussians import LOG_2PI
from zoo.precision import full_precision

# log(signal / noise), of variances, after the first step and after the last; even steps between them. The first step's
# noise has a deviation of 0.011, which is how fine the density can be; after the last a code's square counts 0.0025.
FIRST, LAST = 9.0, -6.0
# Waves, of each a sine and a cosine, that tell the network where on the chain it is.
WAVES = 8
# Random steps of the chain that a code is shown in training and in evaluation.
SHOWN, COUNTED = 4, 16


class Chain(nn.Module):
    """A latent variable model p(z_T) prod_t p(z_{t-1} | z_t) of codes (N, D), with T more layers of D numbers.

    Noise is added by q(z_t | z_{t-1}) = N(a_t z_{t-1}, b_t I), a_t^2 + b_t = 1, which leaves N(0, I) as it is. Run
    backwards from N(0, I) it would be r(z_{t-1} | z_t) = N(a_t z_t, b_t I), so that for any path

        N(z_0) prod_t q(z_t | z_{t-1}) = N(z_T) prod_t r(z_{t-1} | z_t).

    The model begins at p(z_T) = N(0, I) too, and each of its steps, the last one to z_0 as well, is r with another
    mean and the same variance: p(z_{t-1} | z_t) = N(a_t z_t + (b_t w_t)^(1/2) f_t(z_t), b_t I). These are normalised
    Gaussians, and so is p(z_0), the integral over z_1 to z_T, normalised. The network f_t begins at zero, where p(z_0)
    is the standard normal; this is the mixed parameterisation of LSGM, a network beside what a normal would need.

    With g_t the signal that is left, the product of a_s^2 up to t, and s_t = (1 - g_t)^(1/2) the noise, w_t = b_t
    g_{t-1} / s_t^2. In that unit the best f_t(z_t) is the mean given z_t of s_t z_0 - g_t^(1/2) e, where z_t =
    g_t^(1/2) z_0 + s_t e. It is s_t g_t^(-1/2) (z_t + the score of z_t), so f_t is s_t times a network. Of standard
    normal codes it is zero. Codes are not standardised: those of another scale the network has to follow.

    Args:
        latent: D.
        steps: T.
        width: of the two hidden layers of f.
    """

    def __init__(self, latent: int, steps: int, width: int) -> None:
        super().__init__()
        # Numbers, wherever the networks are made: that may be the device of tensors without any.
        log_snr = torch.linspace(FIRST, LAST, steps, dtype=torch.float64, device="cpu")
        kept, added = torch.sigmoid(log_snr), torch.sigmoid(-log_snr)
        before = torch.cat([torch.ones(1, dtype=torch.float64, device="cpu"), kept[:-1]])
        variance = (before - kept) / before
        weight = (before - kept) / added
        #: (a_t, b_t^(1/2), w_t^(1/2)) of each step
        self.steps = list(zip(*(part.sqrt().tolist() for part in (1.0 - variance, variance, weight)), strict=True))
        self.total = weight.sum().item()
        waves = torch.outer(log_snr / (FIRST - LAST), math.pi * torch.arange(1, WAVES + 1, device="cpu"))
        for name, values in (
            ("signal", kept.sqrt()),
            ("deviation", added.sqrt()),
            ("up_to", weight.cumsum(0)[:-1]),
            ("time", torch.cat([waves.sin(), waves.cos()], 1)),
        ):
            placed = values.to(torch.get_default_device(), torch.get_default_dtype())
            self.register_buffer(name, placed, persistent=False)
        self.of_code, self.of_time = nn.Linear(latent, width), nn.Linear(2 * WAVES, width, bias=False)
        self.hidden, self.output = nn.Linear(width, width), nn.Linear(width, latent)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def correction(self, z: Tensor, t: int | Tensor) -> Tensor:
        """f_t(z) (N, D) for z (N, D); ``t`` is one of 0 to T - 1 or int64 (N,), the step that z has come from."""
        hidden = F.silu(self.of_code(z) + self.of_time(self.time[t]))
        return self.deviation[t].unsqueeze(-1) * self.output(F.silu(self.hidden(hidden)))

    @full_precision
    def log_weight(self, z: Tensor) -> Tensor:
        """(N,) nats: log p(z_0, ..., z_T) - log q(z_1, ..., z_T | z_0) of one path of noise from codes z (N, D).

        Its exponential is an unbiased estimate of p(z), its mean a lower bound on log p(z). It takes T calls of the
        network, of which nothing is kept where no gradient is asked for.
        """
        log_ratio = -0.5 * (LOG_2PI + z.square()).sum(1)
        for t, (kept, deviation, weight) in enumerate(self.steps):
            eps = noise.normal(z)
            before, z = z, kept * z + deviation * eps
            # log p(z_{t-1} | z_t) - log r(z_{t-1} | z_t), of which r has the deviation and p another mean.
            shift = weight * self.correction(z, t)
            log_ratio = log_ratio + ((deviation * before - kept * eps) * shift - 0.5 * shift.square()).sum(1)
        return log_ratio

    @full_precision
    def log_bound(self, z: Tensor) -> Tensor:
        """(N,) nats: an unbiased estimate of the mean of `log_weight` of codes z (N, D), from `SHOWN` random steps each
        in training and `COUNTED` in evaluation.

        Given z_0 and z_t the mean of the ratio of step t is w_t (u f_t - f_t^2 / 2), where u is what f_t guesses. Steps
        are drawn as often as w_t says (LSGM draws them by importance too), one from each of as many equal parts. Its
        exponential is no estimate of p(z): what goes into a bound of k samples is `log_weight`.
        """
        shown = SHOWN if self.training else COUNTED
        log_density = -0.5 * (LOG_2PI + z.square()).sum(1)
        place = torch.arange(shown, device=z.device) + noise.uniform(z.new_empty(len(z), shown))
        place = place * (self.total / shown)
        t = (place.unsqueeze(2) > self.up_to).sum(2)
        signal, deviation = self.signal[t].unsqueeze(2), self.deviation[t].unsqueeze(2)
        code = z.unsqueeze(1)
        eps = noise.normal(code.expand(-1, shown, -1))
        noisy = signal * code + deviation * eps
        found = self.correction(noisy.flatten(0, 1), t.flatten()).view_as(noisy)
        gained = ((deviation * code - signal * eps) * found - 0.5 * found.square()).sum(2)
        return log_density + self.total * gained.mean(1)

    @torch.no_grad()
    @full_precision
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """n draws of p(z_0), (n, D), without a gradient; the temperature scales the noise of z_T and of each step."""
        z = temperature * noise.normal(self.output.bias.expand(n, -1))
        for t, (kept, deviation, weight) in reversed(list(enumerate(self.steps))):
            eps = temperature * noise.normal(z)
            z = kept * z + deviation * (weight * self.correction(z, t) + eps)
        return z
