"""A density of the codes of training images, fitted once a model is trained: a masked autoregressive flow.

Source: Papamakarios et al. 2017, Masked Autoregressive Flow for Density Estimation, https://arxiv.org/abs/1705.07057,
as zuko has it. It is asked as the mixture of `zoo.distributions.code_density` is, and can follow codes that lie on
curves, for which a mixture takes many Gaussians. Where we differ from the paper: codes are standardised and there is no
batch normalisation between the steps; the rate falls along a cosine.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn
from zuko.flows import MAF

from zoo import noise
from zoo.distributions.gaussians import log_normal
from zoo.errors import UsageError
from zoo.precision import full_precision
from zoo.settings import Frozen
from zoo.stopping import stoppable

SEED = 0
#: codes in a step of Adam, at most; its rate at first; the longest fit in steps and in passes over the codes
BATCH, RATE, STEPS, PASSES = 250, 8e-3, 2700, 100
#: passes without a better mean over the codes that are held out, after which a fit ends
PATIENCE = 10
#: variance of the noise that is added to codes while a flow is fitted, so that codes which do not vary, or several that
#: are the same, have no infinite density
FLOOR = 1e-6
#: codes and dimensions that a flow can be fitted to
FEWEST, WIDEST = 20, 128
WHERE = "while a flow was fitted to codes (the trained model is kept)"


class CodeFlowSettings(Frozen):
    """Attributes:
    flows: autoregressive steps, each in the reverse order of the one before.
    hidden: width of the two hidden layers of a step; twice the dimensions of a code at least.
    """

    flows: int = Field(5, ge=1)
    hidden: int = Field(128, ge=1)


class CodeFlow(nn.Module):
    """N(f((z - m) / s); 0, I) |det df| / prod s over codes z of D numbers, f autoregressive. The standard normal until
    fitted. Of one dimension it is a Gaussian.

    Args:
        settings: see `CodeFlowSettings`.
        latent: D.

    Raises:
        UsageError: D is more than `WIDEST`.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: CodeFlowSettings, latent: int) -> None:
        super().__init__()
        if latent > WIDEST:
            raise UsageError(f"its codes have {latent} dimensions; {WIDEST} is the most for a flow.")
        self.settings, self.latent = settings, latent
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("deviation", torch.ones(latent))
        self.steps = self._begun()

    def _begun(self) -> nn.Module:
        # The same each time, and the identity.
        flows = self.settings.flows if self.latent > 1 else 0  # an affine step of one number is what standardising does
        widths = [max(self.settings.hidden, 2 * self.latent)] * 2
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(SEED)
            steps = MAF(self.latent, transforms=flows, hidden_features=widths, activation=nn.SiLU).transform
        for step in steps.transforms:
            nn.init.zeros_(step.hyper[-1].weight)
            nn.init.zeros_(step.hyper[-1].bias)
        return steps.requires_grad_(False)

    @full_precision
    def fit(self, codes: Tensor) -> None:
        """Take the place of codes (N, D), on the CPU, by Adam on all but a tenth of them, and keep the weights under
        which that tenth has the highest mean log-density. The same codes give the same density; no generator of torch
        is asked.

        Raises:
            UsageError: codes are fewer than `FEWEST`.
            Stopped: somebody asked for it; it is asked at each step.
        """
        n, codes = len(codes), codes.detach().to("cpu", self.mean.dtype)
        if n < FEWEST:
            raise UsageError(f"a flow needs at least {FEWEST} training images, and there are {n}.")
        generator = torch.Generator().manual_seed(SEED)
        self.mean.copy_(codes.mean(0))
        self.deviation.copy_((codes.var(0) + FLOOR).sqrt())
        codes = codes + FLOOR**0.5 * torch.randn(codes.shape, dtype=codes.dtype, generator=generator)
        order = torch.randperm(n, generator=generator)
        held_out, rest = codes[order[: n // 10]], codes[order[n // 10 :]]
        self.steps = self._begun().to(self.mean)
        if self.latent > 1:
            with _one_thread():
                self._fit(rest, held_out, generator)

    def _fit(self, codes: Tensor, held_out: Tensor, generator: torch.Generator) -> None:
        size = min(BATCH, -(-len(codes) // 10))
        each = len(codes) // size
        passes = min(PASSES, -(-STEPS // each))
        optimiser = torch.optim.Adam(self.steps.requires_grad_(True).parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, passes * each)
        best, kept, since = self._mean(held_out), copy.deepcopy(self.steps.state_dict()), 0
        for _ in range(passes):
            for index in stoppable(_batches(len(codes), size, generator), WHERE):
                with torch.enable_grad():
                    loss = -self.log_prob(codes[index]).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
            found, since = self._mean(held_out), since + 1
            if found > best:
                best, kept, since = found, copy.deepcopy(self.steps.state_dict()), 0
            if since == PATIENCE:
                break
        self.steps.load_state_dict(kept)
        self.steps.requires_grad_(False)

    @torch.no_grad()
    def _mean(self, codes: Tensor) -> float:
        return self.log_prob(codes).double().mean().item()

    @full_precision
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) (N,) in nats of codes (N, D)."""
        u, log_det = (z - self.mean) / self.deviation, z.new_zeros(len(z))
        for step in self.steps.transforms:
            u, more = step(None).call_and_ladj(u)
            log_det = log_det + more
        return log_normal(u, torch.zeros_like(u), torch.zeros_like(u)).sum(1) + log_det - self.deviation.log().sum()

    @full_precision
    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """n codes (n, D), one dimension after the other; ``temperature`` scales the normal draws that they come of."""
        u = temperature * noise.normal(self.mean.expand(n, -1))
        for step in reversed(self.steps.transforms):
            transform, z = step(None), torch.zeros_like(u)
            # A dimension is filled in once those before it are known. What a network says of wrong ones is not looked
            # at, for it may overflow.
            for d in step.order.argsort():
                z[:, d] = transform.meta(z).inv(u)[:, d]
            u = z
        return self.mean + self.deviation * u


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The indices of one pass, in batches of ``size``; what is left over waits for another pass."""
    yield from torch.randperm(n, generator=generator)[: n // size * size].view(-1, size)


@contextmanager
def _one_thread() -> Iterator[None]:
    # Sums that several threads share end in other bits each time.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
