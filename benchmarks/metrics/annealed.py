"""How far the importance-weighted bound is from log p(x): annealed importance sampling, and how far that is off itself.

Annealed importance sampling: Neal, Statistics and Computing 2001, https://arxiv.org/abs/physics/9803008; of decoders by
Hamiltonian Monte Carlo: Wu, Burda, Salakhutdinov and Grosse, On the Quantitative Analysis of Decoder-Based Generative
Models, ICLR 2017, https://arxiv.org/abs/1611.04273. Bidirectional Monte Carlo: Grosse, Ghahramani and Adams,
Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo, 2015, https://arxiv.org/abs/1511.02543; Grosse,
Ancha and Roy, Measuring the Reliability of MCMC Inference with Bidirectional Monte Carlo, NeurIPS 2016,
https://arxiv.org/abs/1606.02275.

A log-weight log p(x, z) - log q(z | x) is a function w(e) of the standard normal noise e that z is made of, and
E exp w(e) = p(x) over e ~ N(0, I). So the path runs from N(e; 0, I) at t = 0 to N(e; 0, I) exp w(e) at t = 1,

    f_t(e) = N(e; 0, I) exp(t w(e)),

which in z is q(z | x)^(1-t) p(x, z)^t. With 0 = t_0 < ... < t_T = 1, e_0 ~ N(0, I), and e_i made of e_{i-1} by a move
that leaves f_(t_i) as it is, the logarithm of a chain's weight is the sum over i of (t_i - t_{i-1}) w(e_{i-1}). The
weight is p(x) in the mean whatever T and the moves are. Without moves it is the weight of e_0: importance sampling.

Where we differ from Wu et al.: their path begins at the prior, this one at the posterior; the step sizes are found in a
run of their own and then held, theirs go on changing, with which a weight need not have its mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.interrupt import stoppable
from benchmarks.metrics.likelihood import first_images
from benchmarks.partial import Partial
from benchmarks.progress import progress
from zoo import noise
from zoo.data.batches import Batches
from zoo.errors import UsageError
from zoo.models.base import VAE, repeat
from zoo.nets.aside import aside
from zoo.priors import unchanged

CHAINS = 4  # an image
LEAPFROG = 3  # steps of a move
STEEPNESS = 4.0  # of the sigmoid that temperatures follow
#: of the run that finds step sizes: its share of the temperatures, the first size, how fast the logarithm of a size
#: follows the acceptance, and what acceptance it is to have
SHARE, FIRST, RATE, TARGET = 0.25, 0.5, 0.2, 0.8
# Numbers of a picture-sized tensor that are held at once: few, for what is stopped goes on from whole images.
HELD = 1 << 16

LogWeight = Callable[[Tensor], Tensor]
Momenta = Callable[[int, Tensor], tuple[Tensor, Tensor]]


class Annealed(NamedTuple):
    """(C, B) float64 nats, what each chain adds up, and (B,) which share of its moves was accepted."""

    log_weights: Tensor
    accepted: Tensor


class _Place(NamedTuple):
    """Noise (N, D), its log-weight (N,) and the gradient of that (N, D)."""

    noise: Tensor
    log_weight: Tensor
    gradient: Tensor


class Noise:
    """The standard normal noise that `VAE.log_weights` of a model is a function of.

    Raises:
        UsageError: it is a function of other draws too, or of none.
    """

    def __init__(self, model: VAE, x: Tensor, y: Tensor | None = None) -> None:
        self.model = model
        with torch.no_grad(), aside(model), noise.listen() as heard:
            model.log_weights(x[:1], None if y is None else y[:1], 1)
        if not heard:
            raise UsageError("its log-weights are no function of normal noise: they draw none.")
        if others := {draw.fill.__name__.strip("_") for draw in heard if draw.fill is not Tensor.normal_}:
            drawn = " and ".join(sorted(others))
            raise UsageError(f"its log-weights are no function of normal noise alone: they draw {drawn} noise.")
        if any(draw.shape[:1] != (1,) for draw in heard):
            raise UsageError("its log-weights are no function of normal noise that each image has of its own.")
        self.parts, self.dtype = [draw.shape[1:] for draw in heard], heard[0].dtype

    def draw(self, seed: int, ids: Tensor, chains: int) -> Tensor:
        """(C, B, D): what ``log_weights`` of ``chains`` samples would draw under this seed."""
        rows = chains * len(ids)
        with noise.keyed(seed, ids, range(chains)):
            shapes = (torch.empty(rows, *part, dtype=self.dtype, device=ids.device) for part in self.parts)
            return torch.cat([noise.normal(like).flatten(1) for like in shapes], 1).view(chains, len(ids), -1)

    def log_weight(self, x: Tensor, y: Tensor | None, chains: int) -> LogWeight:
        """w of noise (C * B, D), as `anneal` takes it."""
        sizes = [part.numel() for part in self.parts]

        def log_weight(e: Tensor) -> Tensor:
            parts = (part.view(len(e), *shape) for part, shape in zip(e.split(sizes, 1), self.parts, strict=True))
            with noise.given(parts):
                return self.model.log_weights(x, y, chains).flatten()

        return log_weight


@torch.no_grad()
@unchanged()
def annealed(
    model: VAE, batches: Batches, steps: int, seed: int, rows: int, images: int, partial: Partial | None = None
) -> Tensor:
    """(n, 2) of the first ``images`` images: a lower bound on log p(x) in nats, from `CHAINS` chains of ``steps``
    temperatures, and which share of their moves was accepted.

    All chains of some images are held at once, as many as `HELD` and ``rows`` decoder inputs allow. What ``partial``
    has is not computed again.

    Raises:
        UsageError: as `Noise`.
    """
    path, partial = temperatures(steps), partial or Partial()

    def measured(ids: Tensor, x: Tensor, y: Tensor | None) -> list[Tensor]:
        found = Noise(model, x, y)
        log_weight = found.log_weight(x, y, CHAINS)
        sizes = _tuned(found, log_weight, path, seed, ids)
        chains = anneal(log_weight, found.draw(seed, ids, CHAINS), path, sizes, _momenta(seed, "annealing", ids))
        return [_log_mean(chains.log_weights), chains.accepted]

    return _of_images(measured, model, batches, images, rows, "ais", partial)


@torch.no_grad()
@unchanged()
def bidirectional(
    model: VAE, batches: Batches, steps: int, seed: int, rows: int, images: int, partial: Partial | None = None
) -> Tensor:
    """(n, 3) of ``images`` images that are drawn from the model: a lower bound on log p(x) as `annealed` has it, an
    upper bound from as many chains that begin at an exact draw of the posterior and run backwards, both in nats, and
    which share of all moves was accepted. Each bounds in the mean. A model that is told the condition is told those
    of ``batches``.

    Raises:
        UsageError: as `Noise`; or the model cannot be simulated (`VAE.simulate`).
    """
    path, partial, seed = temperatures(steps), partial or Partial(), noise.seed_for(seed, "bidirectional")

    def measured(ids: Tensor, _: Tensor, y: Tensor | None) -> list[Tensor]:
        with noise.keyed(noise.seed_for(seed, "simulated"), ids):
            x, exact = model.simulate(len(ids), y)
        found = Noise(model, x, y)
        log_weight = found.log_weight(x, y, CHAINS)
        sizes = _tuned(found, log_weight, path, seed, ids)
        start = repeat(exact.to(found.dtype), CHAINS).view(CHAINS, *exact.shape)
        up = anneal(log_weight, found.draw(seed, ids, CHAINS), path, sizes, _momenta(seed, "annealing", ids))
        down = anneal(log_weight, start, path, sizes, _momenta(seed, "backwards", ids), backwards=True)
        return [_log_mean(up.log_weights), -_log_mean(-down.log_weights), 0.5 * (up.accepted + down.accepted)]

    return _of_images(measured, model, batches, images, rows, "bdmc", partial)


def _of_images(
    measured: Callable[[Tensor, Tensor, Tensor | None], list[Tensor]],
    model: VAE, batches: Batches, images: int, rows: int, name: str, partial: Partial,
) -> Tensor:  # fmt: skip
    # (n, columns), some images after the others; one list of numbers is kept, so that a kill leaves whole rows.
    wanted, columns = min(images, batches.n), {"ais": 2, "bdmc": 3}[name]
    most = max(1, min(rows, HELD // model.spec.dims) // CHAINS)
    done = len(partial.values(name)) // columns
    with progress(wanted, f"annealing ({name})", "image", initial=done) as bar:
        for ids, x, y in first_images(batches, wanted, most, done):
            partial.add(name, torch.stack(measured(ids, x, y), 1).double().flatten())
            bar.update(len(ids))
    return partial.values(name).view(-1, columns)[:wanted]


def _tuned(found: Noise, log_weight: LogWeight, path: Tensor, seed: int, ids: Tensor) -> Tensor:
    seed = noise.seed_for(seed, "step sizes")
    return step_sizes(log_weight, found.draw(seed, ids, CHAINS), path, _momenta(seed, "moves", ids))


def _momenta(seed: int, purpose: str, ids: Tensor) -> Momenta:
    def momenta(move: int, like: Tensor) -> tuple[Tensor, Tensor]:
        with noise.keyed(noise.seed_for(seed, f"{purpose} {move}"), ids, range(len(like) // len(ids))):
            return noise.normal(like), noise.uniform(like[:, 0].unsqueeze(1)).squeeze(1)

    return momenta


def _log_mean(log_weights: Tensor) -> Tensor:
    # (C, B) to (B,).
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


def temperatures(steps: int) -> Tensor:
    """(T + 1,) float64 from 0 to 1, close to each other at both ends: those of a sigmoid, as Wu et al. have them."""
    t = torch.sigmoid(STEEPNESS * torch.linspace(-1, 1, steps + 1, dtype=torch.float64))
    return (t - t[0]) / (t[-1] - t[0])


def anneal(
    log_weight: LogWeight, start: Tensor, path: Tensor, sizes: Tensor, momenta: Momenta, backwards: bool = False
) -> Annealed:
    """Chains along ``path``, and the sum of (t_i - t_{i-1}) w(e_{i-1}) that each has.

    Args:
        log_weight: noise (C * B, D), the chain slow, to w (C * B,) nats.
        start: (C, B, D), draws of N(0, I); ``backwards`` of f_1.
        path: (T + 1,) temperatures from 0 to 1.
        sizes: (T - 1, B) sizes of a leapfrog step, of the move at each temperature between; that of an image.
        momenta: the number of a move and (C * B, D) to as many standard normal numbers and (C * B,) uniform ones.
        backwards: from t = 1 to t = 0. The same moves, which are reversible, in the other order: with an exact draw of
            f_1 the exponential of minus the sum is 1 / p(x) in the mean.
    """
    chains, images, _ = start.shape
    here = _at(log_weight, start.flatten(0, 1))
    steps = path.diff().tolist()
    total = torch.zeros(chains * images, dtype=torch.float64, device=start.device)
    accepted = torch.zeros_like(total)
    order = range(len(steps))
    for count, i in enumerate(stoppable(reversed(order) if backwards else order)):
        # Increment i is at f_(t_i), move m is at t_m: between increments m - 1 and m.
        total = total + steps[i] * here.log_weight.double()
        move = i if backwards else i + 1
        if count < len(steps) - 1:
            size = sizes[move - 1].repeat(chains).unsqueeze(1)
            here, chance = moved(log_weight, here, path[move].item(), size, *momenta(move, here.noise))
            accepted = accepted + chance
    share = (accepted / max(1, len(steps) - 1)).view(chains, images).mean(0)
    return Annealed(total.view(chains, images), share)


def step_sizes(log_weight: LogWeight, start: Tensor, path: Tensor, momenta: Momenta) -> Tensor:
    """(T - 1, B): sizes of a leapfrog step under which a move is accepted with a chance of about `TARGET`, found in a
    run of `SHARE` as many moves. What depends on them has to have other noise than this.

    Args:
        log_weight, start, path, momenta: as `anneal`.
    """
    chains, images, _ = start.shape
    moves = len(path) - 2
    if moves < 1:
        return start.new_empty(0, images)
    few = max(1, round(SHARE * moves))
    here, sizes = _at(log_weight, start.flatten(0, 1)), [start.new_full((images,), FIRST)]
    which = [min(moves - 1, int((j + 0.5) * moves / few)) for j in range(few)]
    for j in stoppable(range(few)):
        size = sizes[-1].repeat(chains).unsqueeze(1)
        here, chance = moved(log_weight, here, path[which[j] + 1].item(), size, *momenta(j, here.noise))
        mean = chance.view(chains, images).mean(0).to(size.dtype)
        sizes.append(sizes[-1] * torch.exp(RATE * (mean - TARGET)))
    return torch.stack(sizes[1:])[[min(few - 1, m * few // moves) for m in range(moves)]]


def moved(
    log_weight: LogWeight, here: _Place, t: float, size: Tensor, momentum: Tensor, uniform: Tensor
) -> tuple[_Place, Tensor]:
    """A move of Hamiltonian Monte Carlo that leaves f_t as it is (Duane et al. 1987): `LEAPFROG` steps, then accepted
    or not; and the chance (N,) that it had to be accepted.

    Args:
        size: (N, 1) of a leapfrog step.
        momentum, uniform: (N, D) standard normal and (N,) uniform numbers.
    """
    there, p = here, momentum
    for _ in range(LEAPFROG):
        p = p + 0.5 * size * (t * there.gradient - there.noise)
        there = _at(log_weight, there.noise + size * p)
        p = p + 0.5 * size * (t * there.gradient - there.noise)
    log_ratio = _log_density(there, t, p) - _log_density(here, t, momentum)
    # What is not a number is not accepted.
    yes = uniform.double().log() < log_ratio
    kept = (torch.where(yes.view(-1, *[1] * (new.dim() - 1)), new, old) for new, old in zip(there, here, strict=True))
    return _Place(*kept), log_ratio.nan_to_num(-math.inf).clamp_max(0.0).exp()


def _log_density(place: _Place, t: float, momentum: Tensor) -> Tensor:
    # (N,) of noise and momentum, up to a constant.
    return t * place.log_weight.double() - 0.5 * (place.noise.double().square() + momentum.double().square()).sum(1)


def _at(log_weight: LogWeight, e: Tensor) -> _Place:
    with torch.enable_grad():
        e = e.detach().requires_grad_()
        w = log_weight(e)
        (gradient,) = torch.autograd.grad(w.sum(), e)
    return _Place(e.detach(), w.detach(), gradient)
