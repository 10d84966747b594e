"""IWAE: training on the k-sample bound, log of the mean of k importance weights, which k tightens.

Paper: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016, https://arxiv.org/abs/1509.00519.
The gradient ``doubly``: Tucker, Lawson, Gu and Maddison, Doubly Reparameterized Gradient Estimators for Monte Carlo
Objectives, ICLR 2019, https://arxiv.org/abs/1810.04152. The bounds ``miwae``, ``piwae`` and ``ciwae``: Rainforth et
al., Tighter Variational Bounds are Not Necessarily Better, ICML 2018, https://arxiv.org/abs/1802.04537.
Official code: https://github.com/yburda/iwae.
Where we differ: the posterior's head gives log-variances, theirs log-deviations. With ``bound: vae`` the k samples are
averaged outside of the logarithm, the paper's VAE with k samples. A warm-up, which the paper has not, weighs
log p(z) - log q(z | x) in every weight. What `terms` reports is the ELBO whatever k is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models.base import Losses, Settings, Terms, repeat, set_apart
from zoo.models.vae import VanillaSettings, VanillaVAE
from zoo.nets import require
from zoo.precision import full_precision

OF_WEIGHTS = "by the log-weights of k samples, which have no KL divergence of their own"


class IWAESettings(VanillaSettings):
    k: int = Field(5, ge=1, description="posterior samples a training example")
    bound: Literal["iwae", "vae", "miwae", "piwae", "ciwae"] = Field(
        "iwae", description="where the k samples are averaged: of weights, of logs, or some of both"
    )
    groups: int | None = Field(
        None, ge=1, description="of `miwae`, `piwae`: weights are averaged inside of so many groups, logs over them"
    )
    share: float | None = Field(None, ge=0, le=1, description="of `ciwae`: that of `vae`, beside that of `iwae`")
    gradient: Literal["reparameterised", "doubly"] = Field("reparameterised", description="doubly: DReG")
    initial: Literal["default", "glorot"] = Field("default", description="glorot: uniform, as the official code's")


class IWAE(VanillaVAE):
    """A vanilla VAE trained on k samples."""

    Settings: ClassVar[type[Settings]] = IWAESettings
    charges_by = OF_WEIGHTS

    def __init__(self, spec: DataSpec, settings: IWAESettings) -> None:
        super().__init__(spec, settings)
        if settings.gradient == "doubly" and (settings.posterior.name != "diagonal" or settings.bound != "iwae"):
            raise UsageError("gradient=doubly is for bound=iwae and a diagonal posterior.")
        grouped, mixed = settings.bound in ("miwae", "piwae"), settings.bound == "ciwae"
        require(grouped == (settings.groups is not None), "groups is for bound=miwae and bound=piwae, which need it.")
        require(mixed == (settings.share is not None), "share is for bound=ciwae, which needs it.")
        groups = settings.groups or 1
        require(settings.k % groups == 0, f"k ({settings.k}) samples are not {groups} groups of one size.")
        self.decodings = settings.k

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """One, but with ``bound: piwae`` the encoder has a loss of its own."""
        if self.settings.bound != "piwae":
            return super().parameter_groups()
        return set_apart(self, "encoder", [self.encoder, self.head, self.posterior])

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        k = self.settings.k
        q = self.infer(x, y)
        # The k samples of the batch in one draw, the sample index slow.
        rows, log_q = q.repeat(k).rsample()
        z, log_q, scale = rows.view(k, len(x), -1), log_q.view(k, len(x)), None
        if self.settings.gradient == "doubly":
            # In expectation the score of q is a gradient through z too. With it the weight w of a sample becomes
            # (1 - b) w + b w^2, where b is what log q is weighed by.
            log_q = q.detach().log_prob(z)
            z, scale = scaled_gradient(z)
            rows = z.flatten(0, 1)
        log_likelihood = self.log_likelihood(self.decode(rows, repeat(y, k)), repeat(x, k)).view(k, len(x))
        log_ratio = self.prior.log_prob(z) - log_q
        weight = self.rate_weight(progress)
        log_w = log_likelihood + weight * log_ratio
        if scale is not None:
            scale((1.0 - weight + weight * torch.softmax(log_w.detach(), 0)).unsqueeze(-1))
        terms = Terms(-log_likelihood.mean(0).detach(), -log_ratio.mean(0, keepdim=True).T.detach())
        return Losses(self._losses(log_w), terms)

    def criterion(self, x: Tensor, y: Tensor | None, terms: Terms) -> Tensor:
        """As `VAE.criterion`: the bound that the decoder is trained on."""
        if self.settings.bound == "vae" or self.settings.k == 1:
            return super().criterion(x, y, terms)
        log_w = self.log_weights(x, y, self.settings.k)
        tight = k_sample_bound(log_w)
        if self.settings.bound == "miwae":
            return k_sample_bound(log_w, self.settings.groups)
        return torch.lerp(tight, log_w.mean(0), self.settings.share) if self.settings.bound == "ciwae" else tight

    def _losses(self, log_w: Tensor) -> dict[str, Tensor]:
        bound, groups, share = self.settings.bound, self.settings.groups, self.settings.share
        tight = k_sample_loss(log_w)
        if bound == "iwae":
            return {"vae": tight}
        loose = k_sample_loss(log_w, groups or len(log_w))
        if bound == "piwae":
            return {"vae": tight, "encoder": loose}
        return {"vae": torch.lerp(tight, loose, share) if bound == "ciwae" else loose}

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        if self.settings.initial == "glorot":
            # Not the networks of a flow, which begin as the identity.
            for part in (self.encoder, self.head, self.decoder):
                glorot(part)
        super().initialise(x, y)


def k_sample_loss(log_w: Tensor, groups: int = 1) -> Tensor:
    """Minus the batch mean of `k_sample_bound`."""
    return -log_w.mean() if groups == len(log_w) else -k_sample_bound(log_w, groups).mean()


@full_precision
def k_sample_bound(log_w: Tensor, groups: int = 1) -> Tensor:
    """(B,) nats from log-weights (k, B): log-mean-exp inside of each group of samples, and the mean over groups. One
    group is the bound of k samples, k groups are the ELBO."""
    k = len(log_w)
    logs = torch.logsumexp(log_w.view(groups, k // groups, -1), 1) - math.log(k // groups)
    return logs.mean(0)


def scaled_gradient(z: Tensor) -> tuple[Tensor, Callable[[Tensor], None]]:
    """z, and a function that says by what its gradient is to be multiplied: something z itself will decide."""
    factor: list[Tensor] = []
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * factor[0])
    return z, factor.append


@torch.no_grad()
def glorot(model: nn.Module) -> None:
    """Every linear layer uniform in +- sqrt(6 / (in + out)) with a bias of zero (Glorot and Bengio 2010)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
