"""Invertible maps with a log-determinant: planar, radial, Sylvester, Householder, IAF, neural spline, affine coupling.

The first six carry a posterior: they go from noise to z, which is the direction they are fast in, take the
encoder's features as ``context``, keep the order of the dimensions, and have no inverse here. `Coupling`
carries a prior and goes both ways. Call them inside `zoo.precision.full_precision`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zuko.flows import NSF

# How far from -1 the slope of a planar, radial or Sylvester step stays: at -1 the map is not invertible and the
# log-determinant is infinite, and float32 reaches -1 as soon as tanh or softplus saturates.
MARGIN = 1e-4
_SOFTPLUS_ONE = math.log(math.e - 1.0)  # softplus of this is 1


class Flow(nn.Module):
    """(z (N, D), context (N, context)) -> (z' (N, D), log|det dz'/dz| (N,)), in nats.

    Attributes:
        context: number of features a row is conditioned on.
    """

    context: int

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Planar(Flow):
    """z + u tanh(w.z + b), Rezende & Mohamed 2015; context is (u, w, b) of every step.

    u is corrected along w so that w.u > -1, as the paper's appendix does: u + (m(w.u) - w.u) w / |w|^2. Its
    m(a) = softplus(a) - 1 has m(0) = log 2 - 1, so that small parameters still contract z; ours is shifted
    to m(0) = 0 (the same family, but the identity at zero) and stops `MARGIN` short of -1.
    """

    def __init__(self, latent: int, flows: int) -> None:
        super().__init__()
        self.latent = latent
        self.flows = flows
        self.context = flows * (2 * latent + 1)

    @staticmethod
    def constrain(u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """The corrected u (N, D), and w.u of it (N, 1)."""
        inner = (w * u).sum(-1, keepdim=True)
        allowed = (1.0 - MARGIN) * (F.softplus(inner + _SOFTPLUS_ONE) - 1.0)
        return u + (allowed - inner) * w / w.square().sum(-1, keepdim=True).clamp_min(1e-12), allowed

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(len(z))
        for step in context.chunk(self.flows, dim=-1):
            u, w, b = step.split([self.latent, self.latent, 1], dim=-1)
            u, inner = self.constrain(u, w)
            h = torch.tanh((w * z).sum(-1, keepdim=True) + b)
            z = z + u * h
            log_det = log_det + torch.log1p((1.0 - h.square()) * inner).squeeze(-1)
        return z, log_det


class Radial(Flow):
    """z + beta (z - c) / (alpha + r), r = |z - c|, Rezende & Mohamed 2015; context is (c, alpha, beta) of every step.

    Density moves away from c, or towards it where beta is negative; beta > -alpha keeps the step invertible. alpha is a
    softplus, 1 at zero and never below `MARGIN`, and beta / alpha a softplus shifted as in `Planar`.
    """

    def __init__(self, latent: int, flows: int) -> None:
        super().__init__()
        self.latent = latent
        self.flows = flows
        self.context = flows * (latent + 2)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(len(z))
        for step in context.chunk(self.flows, dim=-1):
            c, a, b = step.split([self.latent, 1, 1], dim=-1)
            alpha = F.softplus(a + _SOFTPLUS_ONE).clamp_min(MARGIN)
            share = (1.0 - MARGIN) * (F.softplus(b + _SOFTPLUS_ONE) - 1.0)  # beta / alpha
            away = z - c
            near = alpha / (alpha + torch.linalg.vector_norm(away, dim=-1, keepdim=True))
            z = z + share * near * away
            # Across, the D - 1 slopes are 1 + beta / (alpha + r), and along z - c it is 1 + alpha beta / (alpha + r)^2.
            across, along = torch.log1p(share * near), torch.log1p(share * near.square())
            log_det = log_det + ((self.latent - 1) * across + along).squeeze(-1)
        return z, log_det


class Sylvester(Flow):
    """z + Q R1 tanh(R2 Q^T z + b), van den Berg et al. 2018; context is everything in every step.

    Q (D, M) has orthonormal columns, R1 and R2 are upper triangular with diagonals in (-1, 1) (through tanh).
    The paper orthogonalises Q by an iteration that may stop early; we take the first M columns of a product
    of M Householder reflections, which is orthonormal to rounding and reaches every Q up to signs of columns
    that R1 and R2 absorb. (The paper's own Householder variant fixes M = D.)
    """

    def __init__(self, latent: int, flows: int, vectors: int) -> None:
        super().__init__()
        self.latent = latent
        self.flows = flows
        self.vectors = vectors
        self.context = flows * (latent * vectors + vectors * vectors + 2 * vectors)

    def orthonormal(self, raw: Tensor) -> Tensor:
        """Q (N, D, M) with Q^T Q = I from free numbers (N, D * M)."""
        identity = torch.eye(self.latent, self.vectors, dtype=raw.dtype, device=raw.device)
        # The identity keeps the vectors away from 0, which has no direction.
        v = F.normalize(raw.unflatten(-1, (self.latent, self.vectors)) + identity, dim=-2)
        # (I - 2 v1 v1^T) ... (I - 2 vM vM^T) = I - V T V^T, where T^-1 is half the unit diagonal and the
        # strict upper triangle of V^T V: one triangular solve in place of M products.
        inverse = (v.mT @ v).triu(1) + 0.5 * torch.eye(self.vectors, dtype=raw.dtype, device=raw.device)
        return identity - v @ torch.linalg.solve_triangular(inverse, v[:, : self.vectors].mT, upper=True)

    def triangular(self, square: Tensor, diagonal: Tensor) -> tuple[Tensor, Tensor]:
        """R1 (N, M, M) from the upper triangle of ``square``, R2 from its lower one and ``diagonal``."""
        first = (1.0 - MARGIN) * torch.tanh(square.diagonal(dim1=-2, dim2=-1))
        second = (1.0 - MARGIN) * torch.tanh(diagonal)
        return square.triu(1) + torch.diag_embed(first), square.mT.triu(1) + torch.diag_embed(second)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        m = self.vectors
        log_det = z.new_zeros(len(z))
        for step in context.chunk(self.flows, dim=-1):
            raw, square, diagonal, b = step.split([self.latent * m, m * m, m, m], dim=-1)
            q = self.orthonormal(raw)
            r1, r2 = self.triangular(square.unflatten(-1, (m, m)), diagonal)
            h = torch.tanh(r2 @ (q.mT @ z.unsqueeze(-1)) + b.unsqueeze(-1))
            z = z + (q @ (r1 @ h)).squeeze(-1)
            slope = (1.0 - h.squeeze(-1).square()) * (r1 * r2).diagonal(dim1=-2, dim2=-1)
            log_det = log_det + torch.log1p(slope).sum(-1)
        return z, log_det


class Householder(Flow):
    """z - 2 v v.z / |v|^2, Tomczak & Welling 2016 (arXiv 1611.09630): z is reflected, volume kept; context is every v.

    An even number of steps rotates. A diagonal Gaussian becomes a correlated one: of any covariance from D - 1 steps
    on; fewer, T, leave D - T directions as they are.
    """

    def __init__(self, latent: int, flows: int) -> None:
        super().__init__()
        self.latent = latent
        self.flows = flows
        self.context = flows * latent

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        for step in context.chunk(self.flows, dim=-1):
            v = F.normalize(step, dim=-1)
            z = z - 2.0 * v * (v * z).sum(-1, keepdim=True)
        return z, z.new_zeros(len(z))


class MaskedLinear(nn.Linear):
    """A linear layer with some weights held at zero; ``mask`` (out, in) is true where they are free."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """(z (N, D), context (N, C)) -> two (N, D), column i a function of the context and z[:, :i] alone.

    Germain et al. 2015 with two hidden layers. Units of degree 0 see the context only, so that the first
    dimension is conditioned on x as well.
    """

    def __init__(self, latent: int, context: int, hidden: int) -> None:
        super().__init__()
        inputs = torch.arange(1, latent + 1)
        units = torch.arange(hidden) % latent
        self.condition = nn.Linear(context, hidden)
        self.first = MaskedLinear(units[:, None] >= inputs[None, :])
        self.second = MaskedLinear(units[:, None] >= units[None, :])
        self.shift = MaskedLinear(inputs[:, None] > units[None, :])
        self.gate = MaskedLinear(inputs[:, None] > units[None, :])

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        h = F.elu(self.first(z) + self.condition(context))
        h = F.elu(self.second(h))
        return self.shift(h), self.gate(h)


class IAF(Flow):
    """sigmoid(s) z + (1 - sigmoid(s)) m with (m, s) from a `MADE`, Kingma et al. 2016; any context.

    The order of the dimensions is reversed in every other step. As in the paper a step begins near the
    identity: s starts around 2, m around 0.
    """

    def __init__(self, latent: int, flows: int, context: int, hidden: int) -> None:
        super().__init__()
        self.context = context
        self.steps = nn.ModuleList(MADE(latent, context, hidden) for _ in range(flows))
        with torch.no_grad():
            for made in self.steps:
                for layer, start in ((made.shift, 0.0), (made.gate, 2.0)):
                    layer.weight.mul_(0.1)
                    layer.bias.fill_(start)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(len(z))
        for i, made in enumerate(self.steps):
            z = z.flip(-1) if i % 2 else z
            m, s = made(z, context)
            gate = torch.sigmoid(s)
            z = gate * z + (1.0 - gate) * m
            z = z.flip(-1) if i % 2 else z
            log_det = log_det + F.logsigmoid(s).sum(-1)
        return z, log_det


class Spline(Flow):
    """Autoregressive rational-quadratic splines, Durkan et al. 2019, in their parallel direction (zuko).

    The splines act on [-5, 5] and leave what is outside alone. They begin as the identity.
    """

    def __init__(self, latent: int, flows: int, context: int, hidden: int, bins: int) -> None:
        super().__init__()
        self.context = context
        widths = [hidden, hidden]
        self.steps = NSF(latent, context, bins=bins, transforms=flows, hidden_features=widths).transform
        for step in self.steps.transforms:
            nn.init.zeros_(step.hyper[-1].weight)
            nn.init.zeros_(step.hyper[-1].bias)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self.steps(context).call_and_ladj(z)


class Coupling(nn.Module):
    """Affine coupling (Real NVP, Dinh et al. 2017) of vectors: z (N, D) -> u (N, D), log|det du/dz| (N,).

    Columns 1, 3, ... condition columns 0, 2, ... and then the reverse. Log-scales of a step stay in (-2, 2); it begins
    as the identity.
    """

    def __init__(self, latent: int, flows: int, hidden: int) -> None:
        super().__init__()
        parity = torch.arange(latent) % 2
        moved = torch.stack([(parity == i % 2).float() for i in range(flows)])
        self.register_buffer("moved", moved, persistent=False)
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.Linear(latent, hidden),
                nn.SiLU(),
                nn.Linear(hidden, hidden),
                nn.SiLU(),
                nn.Linear(hidden, 2 * latent),
            )
            for _ in range(flows)
        )
        for step in self.steps:
            nn.init.zeros_(step[-1].weight)
            nn.init.zeros_(step[-1].bias)

    def _affine(self, i: int, z: Tensor) -> tuple[Tensor, Tensor]:
        moved = self.moved[i].to(z.dtype)
        shift, log_scale = self.steps[i](z * (1.0 - moved)).chunk(2, dim=-1)
        return moved * shift, moved * 2.0 * torch.tanh(0.5 * log_scale)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(len(z))
        for i in range(len(self.steps)):
            shift, log_scale = self._affine(i, z)
            z = (z + shift) * torch.exp(log_scale)
            log_det = log_det + log_scale.sum(-1)
        return z, log_det

    def inverse(self, u: Tensor) -> Tensor:
        """The z (N, D) that `forward` carries to u (N, D)."""
        for i in reversed(range(len(self.steps))):
            # What conditions a step is not moved by it, so the same network input is at hand on the way back.
            shift, log_scale = self._affine(i, u)
            u = u * torch.exp(-log_scale) - shift
        return u
