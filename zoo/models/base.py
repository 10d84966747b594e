"""The contract: what the trainer and the harness may ask of any variant.

All of it in nats, per example, float32 outside autocast, summed over pixels and latents; averaged over the batch only
in `VAE.losses`. A reported ELBO never carries a training weight: `VAE.terms` knows no beta.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from zoo.data.companions import Companions
from zoo.data.images import DataSpec, Images
from zoo.data.partners import Partners
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.errors import UsageError
from zoo.likelihoods.base import Likelihood
from zoo.settings import Frozen


class Settings(Frozen):
    """The settings of a variant: frozen, and a misspelt one is refused."""

    latent: int = Field(32, ge=1, description="number of latent dimensions")


class Progress(float):
    """How far training has come: the number itself is the warm-up's (0 at the first step, 1 once it is over), and
    ``fraction`` that of the whole training (None when nobody is training)."""

    fraction: float | None

    def __new__(cls, warmup: float, fraction: float | None = None) -> Progress:
        made = super().__new__(cls, warmup)
        made.fraction = fraction
        return made


def moving(warmup: Tensor, fraction: Tensor, stage: Hashable) -> Tensor:
    """The `Progress` of a captured step: a 0-dim tensor on the device, which each replay reads anew, with the
    `VAE.stage` that the step was captured in."""
    warmup.fraction, warmup.stage = fraction, stage
    return warmup


@dataclass
class Terms:
    """One posterior sample of the bound, per example.

    Attributes:
        distortion: (B,) nats, -log p(x | z); of a model that bounds nothing, its reconstruction loss in no unit.
        rate: (B, G) nats, KL(q(z_g | x) || p(z_g)) of each group of latents, analytic where it can be and one-sample
            otherwise. (B, 0) of a model that bounds nothing.
        aux: whatever else an objective or an observer wants; never part of the ELBO.
        divergence: (B, D) nats, the rate of each dimension where it is a sum of analytic ones; None elsewhere.
    """

    distortion: Tensor
    rate: Tensor
    aux: dict[str, Tensor] = field(default_factory=dict)
    divergence: Tensor | None = None

    @property
    def elbo(self) -> Tensor:
        """(B,) nats: the evidence lower bound, weights of training left out. Of a model that bounds nothing it is minus
        the distortion, and never reported under this name."""
        return -(self.distortion + self.rate.sum(1))


class Losses(dict[str, Tensor]):
    """One scalar per parameter group, with the `Terms` they were made from, for whoever watches."""

    def __init__(self, losses: dict[str, Tensor], terms: Terms) -> None:
        super().__init__(losses)
        self.terms = terms


class VAE(nn.Module):
    """A variant. Subclasses implement `terms`, `log_weights`, `represent`, `reconstruct` and `sample`.

    Attributes:
        conditional: it is given y, and its nats are of log p(x | y).
        supervised: its training is given the classes (-1 where nobody knows one), but its nats are of log p(x): what
            it reports never looks at y.
        paired: its training is given, as y, a partner of each image, (B, C, H, W), which shares some of its factors
            (`zoo.data.partners`); what it reports is of images alone.
        changed: of a variant that is paired, how many factors of a partner are drawn anew; None is 1 to all but one.
        factor_supervised: its training is given, as y, a labelled image beside each image, (B, C*H*W + F): its pixels
            and the values of its factors (`zoo.data.labelled`); what it reports is of images alone.
        completes: it is shown a part of x, and its nats are of the rest given that part.
        centres: how many different images there are to sample at temperature zero.
        one_gaussian: a vector z is its only latent variable, q(z | x) is one diagonal Gaussian (`diagonal_posterior`),
            and the density of z under its prior is known (`log_joint`). A subclass of such a variant that has
            `log_weights` of its own is taken for none, unless it says so.
        bounds: its terms make a lower bound on log p(x). Not so where there is no posterior: such a model has a
            distortion in no nats, no rate, and no log-weights, and nothing of it is reported as an ELBO or an NLL.
        seeks_bound: its training makes the bound better whatever the data; not so where the rate is held at a value or
            hardly weighs.
        seeks_likelihood: its training makes log p(x | z) larger; not so where another likeness stands in its place,
            whose best picture may be far too sure of some pixels.
        couples_examples: its objective compares the examples of a batch with each other, so that it is no mean over
            them.
        measures: what `measure` gives, by name: the unit and the better direction.
        train_size: how many examples there are to train on; the trainer says so before the first step.
        free_bits: what `charged` leaves free in training, nats; None is nothing. The trainer says so too.
        frees_bits: whether `losses` and `criterion` charge for the rate by `charged`, or by its parts.
        charges_by: where they do not, by what they charge, for the sentence that refuses free bits.
        warms_up: whether the warm-up moves what it trains on; not so where there is no weight that rises.
        decodings: how many times a training step decodes each example.
        code_variance: of the code's dimensions under the prior, one number or (D,): what active units are counted
            against; 1 where nothing is said of it.
        group_names: what the groups of the rate are called, in their order, where they have names. Without any they are
            numbered from 1, the first drawn first.
        group_sizes: how many dimensions of the code (`represent`) are of each of several groups, in the order of both;
            None where the code is not made of those of each.
        likelihood: what p(x | z) is, one of `zoo.likelihoods`, where a variant has one: it says of which data its nats
            are nats, and so whether they are reported as an ELBO, an NLL and bits. Without one it is taken at its word.

    Args:
        spec: shape and support of the data, and what a conditional model may be given.
        settings: an instance of the class's own ``Settings``.
    """

    Settings: ClassVar[type[Settings]] = Settings
    conditional: ClassVar[bool] = False
    supervised: ClassVar[bool] = False
    paired: ClassVar[bool] = False
    factor_supervised: ClassVar[bool] = False
    completes: ClassVar[bool] = False
    one_gaussian: bool = False
    bounds: ClassVar[bool] = True
    seeks_bound: ClassVar[bool] = True
    seeks_likelihood: ClassVar[bool] = True
    couples_examples: ClassVar[bool] = False
    measures: ClassVar[dict[str, tuple[str, str | None]]] = {}
    changed: int | None = None
    train_size: int | None = None
    free_bits: float | None = None
    centres: int = 1
    decodings: int = 1
    charges_by: str = ""
    code_variance: float | Tensor = 1.0
    group_names: tuple[str, ...] = ()
    group_sizes: tuple[int, ...] | None = None

    @property
    def frees_bits(self) -> bool:
        return type(self).losses is VAE.losses

    @property
    def warms_up(self) -> bool:
        return self.rate_weight(0.0) != self.rate_weight(1.0)

    @property
    def couples_losses(self) -> bool:
        """Whether an objective looks at the batch as a whole: that of the variant, or free bits."""
        return self.couples_examples or self.free_bits is not None

    @property
    def couples_batch(self) -> bool:
        """Whether a batch cannot be computed in parts, because an objective or a batch normalisation looks at it as a
        whole, or a network `drops`: each part would draw other numbers."""
        return self.couples_losses or self.drops or any(isinstance(part, _BatchNorm) for part in self.modules())

    @property
    def drops(self) -> bool:
        """Whether a network draws numbers that are not of `zoo.noise` but the device's own, as dropout does."""
        return any(_drops(part) for part in self.modules())

    @property
    def drawn(self) -> int:
        """How many samples of each example `losses` and `criterion` draw: one a decoding, unless a variant decodes on
        the way to a sample too."""
        return self.decodings

    def __init__(self, spec: DataSpec, settings: Any) -> None:
        super().__init__()
        self.spec = spec
        self.settings = settings

    @property
    def predicted(self) -> int:
        """How many numbers of x the bound is on: all of them, unless the model is shown a part."""
        return self.spec.dims

    # ---- what every variant answers -------------------------------------------------------------------------------

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        """The bound at one posterior sample. x (B, C, H, W) in [0, 1]; y (B,) classes or (B, A) attributes."""
        raise NotImplementedError

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        """(k, B) nats, log p(x, z) - log q(z | x) for k posterior samples: its mean is the ELBO, its log-mean-exp
        the k-sample bound of Burda et al. (2016). Raises UsageError where the model bounds nothing."""
        raise NotImplementedError

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D): the code that probes and disentanglement metrics look at; deterministic."""
        raise NotImplementedError

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, C, H, W) in [0, 1], or real as the data: the mean of p(x | z) at the representation; deterministic."""
        raise NotImplementedError

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """(n, C, H, W) in [0, 1], or real as the data: means of p(x | z) for z from the prior, its standard deviations
        times ``temperature``."""
        raise NotImplementedError

    def simulate(self, n: int, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draws of p(x), not means of p(x | z), and for each an exact draw of its posterior: x (n, C, H, W), and the
        noise (n, D) of which `log_weights` makes the latents that x was drawn with, in the order in which it draws.

        Raises:
            UsageError: the draws or the noise cannot be had.
        """
        raise UsageError("nobody knows which noise of its posterior makes a given latent.")

    # ---- what most variants leave as it is ------------------------------------------------------------------------

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """What training minimises: the batch mean of distortion + weight * rate as `charged`, in one parameter group.

        ``progress`` is how far the warm-up has come: 0 at the first step, 1 when it is over; the trainer gives a
        `Progress`. A subclass with several parameter groups returns a loss for each group that this step moves.
        """
        terms = self.terms(x, y)
        loss = (terms.distortion + self.rate_weight(progress) * self.charged(terms)).mean()
        return Losses({"vae": loss}, terms)

    def charged(self, terms: Terms) -> Tensor:
        """(B,) nats, whose mean is what training is charged for the rate: the sum of `charged_parts`."""
        return self.charged_parts(terms).sum(1)

    def charged_parts(self, terms: Terms) -> Tensor:
        """(B, P) nats: the rate of each group, or with free bits what has the mean over the batch, of each part, of the
        larger of ``free_bits`` and the mean of the part's rate (Kingma et al. 2016, https://arxiv.org/abs/1606.04934).
        The parts are dimensions where `Terms.divergence` has them, else groups."""
        if self.free_bits is None:
            return terms.rate
        parts = terms.rate if terms.divergence is None else terms.divergence
        return torch.where(parts.mean(0) > self.free_bits, parts, self.free_bits)

    def criterion(self, x: Tensor, y: Tensor | None, terms: Terms) -> Tensor:
        """(B,), the higher the better: what the weights to keep, and when to stop, are decided by on validation images.

        It is what training makes better once its warm-up is over, so that no other objective chooses among its epochs:
        the bound with the rate weighed as in training, unless a subclass trains something else. A penalty of the whole
        batch is on each of its examples; where `couples_examples`, the batch has the size of a training batch.

        Args:
            terms: what `terms` gave for x and y, of another draw than what is drawn here: `drawn` samples of each
                example.
        """
        return -(terms.distortion + self.rate_weight(1.0) * self.charged(terms))

    def diagonal_posterior(self, x: Tensor, y: Tensor | None = None) -> DiagonalGaussian | None:
        """q(z | x) where it is one diagonal Gaussian over the whole code, else None: what the aggregate posterior's
        density is summed from."""
        return None

    def log_joint(self, z: Tensor, x: Tensor, y: Tensor | None = None) -> Tensor:
        """log p(x, z) (B,) nats, log p(x, z | y) of a conditional model, for given z (B, D), which may ask for a
        gradient: of a model that is ``one_gaussian``."""
        raise NotImplementedError

    def categorical_posterior(self, x: Tensor, y: Tensor | None = None) -> Tensor | None:
        """log q(c_n = k | x), (B, N, K) nats, of N latent variables of K classes each; None where none is such: what
        the use of its choices is measured from."""
        return None

    def stage(self, progress: float | Tensor) -> Hashable:
        """Which of several losses training minimises at ``progress``, for a variant that trains one part after another
        and decides by it in `losses`. A stage with the name of a parameter group trains that group alone, unless
        `trained_in` says otherwise. A captured step is captured once in each stage, and hands it on."""
        return None

    def trained_in(self, stage: Hashable) -> Collection[str]:
        """The names of the parameter groups that `losses` has a loss for in a stage."""
        groups = self.parameter_groups().keys()
        return {stage} & groups or groups

    def stage_of(self, progress: float | Tensor) -> Hashable:
        """`stage`, or what a captured step says that it is."""
        return progress.stage if isinstance(progress, Tensor) and hasattr(progress, "stage") else self.stage(progress)

    def rate_weight(self, progress: float | Tensor) -> float | Tensor:
        """The weight of the rate in training. The warm-up alone, unless a variant has a beta."""
        return progress

    def companions(self, images: Images) -> Companions | None:
        """What each of these training images comes with, as y, in place of a condition; None for nothing.

        Raises:
            UsageError: the images have no such thing.
        """
        return Partners(images, self.changed) if self.paired else None

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Which parameters each loss may move; the trainer gives each group its own optimiser."""
        return {"vae": list(self.parameters())}

    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        """Called once before training with a large batch, for parts that start from data."""

    def measure(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """What only this variant can tell, under the names of ``measures``: of each example, (B,), or of itself, ()."""
        return {}

    def after_step(self) -> None:
        """Called after every update, for state that no gradient moves. Must not wait for the device."""

    def recollect(self, batches: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Called once after training with every training example, in batches of which the last may not be full, and
        the weights that will be evaluated, for statistics that belong to them, such as those of batch normalisation."""


def _drops(module: nn.Module) -> bool:
    # Dropout, and that of whole layers in the backbones of timm.
    share = module.p if isinstance(module, _DropoutNd) else getattr(module, "drop_prob", None)
    return bool(share)


def parameters_of(modules: Iterable[nn.Module | nn.Parameter]) -> list[nn.Parameter]:
    """The parameters of several modules as one list, each once."""
    found: dict[int, nn.Parameter] = {}
    for module in modules:
        members = [module] if isinstance(module, nn.Parameter) else module.parameters()
        found.update((id(parameter), parameter) for parameter in members)
    return list(found.values())


def set_apart(model: VAE, group: str, modules: Iterable[nn.Module]) -> dict[str, list[nn.Parameter]]:
    """Two parameter groups: ``group`` of those modules, and "vae" of all else."""
    apart = parameters_of(modules)
    taken = {id(parameter) for parameter in apart}
    return {"vae": [parameter for parameter in model.parameters() if id(parameter) not in taken], group: apart}


def require_draws(likelihood: Likelihood) -> None:
    """Raise `UsageError` where what is drawn does not follow the density that is measured."""
    if likelihood.clips:
        raise UsageError(f"draws of its {likelihood.name} are clipped to [0, 1], and its density is not.")


def repeat(value: Tensor | None, k: int) -> Tensor | None:
    """(B, ...) as (k * B, ...), the sample index slow; None stays None."""
    if value is None or k == 1:
        return value
    return value.unsqueeze(0).expand(k, *value.shape).reshape(k * len(value), *value.shape[1:])


def condition_vector(spec: DataSpec, y: Tensor | None, like: Tensor) -> Tensor:
    """What a conditional network is given: one-hot classes (B, K) or the attributes (B, A), in the type of ``like``.

    Raises:
        ValueError: the model is conditional and got no ``y``, or ``y`` has the wrong shape.
    """
    if y is None:
        raise ValueError("this model is conditional: it needs y (classes or attributes)")
    if y.dim() == 1 and spec.classes:
        # As `one_hot`, which waits for the device to look at y; a class that does not exist is refused here too.
        return torch.eye(spec.classes, dtype=like.dtype, device=y.device).index_select(0, y.long())
    if y.dim() == 2 and y.shape[1] == condition_size(spec):
        return y.to(like.dtype)
    shape = tuple(y.shape)
    raise ValueError(f"y of shape {shape} fits neither {spec.classes} classes nor {spec.attributes} attributes")


def condition_size(spec: DataSpec) -> int:
    """Width of `condition_vector`: the classes if there are any, else the attributes."""
    return spec.classes or spec.attributes
