"""JointVAE: a code of continuous dimensions and of choices, the rate of each part held at a capacity that grows.

Paper: Dupont, Learning Disentangled Joint Continuous and Discrete Representations, NeurIPS 2018,
https://arxiv.org/abs/1804.00104.
Official code: https://github.com/Schlumberger/joint-vae (read: the model, the loss, the settings of its trainings).
Where we differ: what is reported is the bound of discrete choices, and theirs are relaxed wherever a loss is computed;
in training ours are too, so that no bound is minimised. The capacity of the choices is never above the largest rate
that they can have, N log K nats, as in the official code, which cuts it where it has grown to that, ours where it will
have grown to; both capacities grow over the warm-up. Gamma is 1.5 for short trainings, 30 or 150 there. All categorical
variables have as many classes, theirs may differ. The prior, the posterior and the likelihood of the continuous part
are settings.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo.data.images import DataSpec
from zoo.distributions.categorical import draw, kl_categorical, one_hot, relaxed
from zoo.models.annealed_vae import AnnealedSettings, AnnealedVAE, distance
from zoo.models.base import Settings, Terms, repeat
from zoo.precision import full


class JointSettings(AnnealedSettings):
    latent: int = Field(10, ge=1, description="dimensions of the continuous part")
    variables: int = Field(1, ge=1, description="categorical variables beside it")
    classes: int = Field(10, ge=2, description="classes of each categorical variable")
    relaxation: float = Field(
        0.67, gt=0, description="temperature of a choice in training: near 0 it is nearly discrete, its gradient noisy"
    )
    capacity: float = Field(
        20.0, ge=0, description="nats that the continuous part's rate is held at when the warm-up is over"
    )
    discrete_capacity: float = Field(
        5.0, ge=0, description="nats that the choices' rate is held at then; at most variables times log classes"
    )
    gamma: float = Field(1.5, ge=0, description="weight of how far each of the two rates is from it, in training")


class JointVAE(AnnealedVAE):
    """p(z) p(c) p(x | z, c), inferred by q(z | x) q(c | x): c (B, N, K) is N choices among K classes, evenly likely."""

    Settings: ClassVar[type[Settings]] = JointSettings
    one_gaussian = False
    group_names = ("z", "c")

    def __init__(self, spec: DataSpec, settings: JointSettings) -> None:
        super().__init__(spec, settings)
        self.size = (settings.variables, settings.classes)
        self.group_sizes = (settings.latent, self.beside)
        self.centres = settings.classes**settings.variables
        self.log_prior = -math.log(settings.classes)  # of each class, nats
        self.discrete_capacity = min(settings.discrete_capacity, -settings.variables * self.log_prior)
        self.choices = nn.Linear(self.encoder.features, self.beside)

    @property
    def beside(self) -> int:
        """As `VanillaVAE.beside`: the choices, one-hot."""
        return self.settings.variables * self.settings.classes

    @property
    def code_variance(self) -> Tensor:
        continuous, p = torch.as_tensor(super().code_variance), 1 / self.settings.classes
        return torch.cat([continuous.expand(self.settings.latent), continuous.new_full((self.beside,), p * (1 - p))])

    def both(self, x: Tensor) -> tuple[object, Tensor]:
        """q(z | x), the posterior's object, and log q(c_n = k | x), (B, N, K) nats."""
        features = self.encoder(x)
        return self.posterior(self.head(features)), F.log_softmax(full(self.choices(features)).view(-1, *self.size), -1)

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        """(B, D) and (B, N, K) to the likelihood's parameters (B, C', H, W)."""
        return self.decoder(torch.cat([z, c.flatten(1)], 1))

    # ---- the objective ---------------------------------------------------------------------------------------------

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        """As `VAE.terms`, the groups of the rate being z and c. In training mode c is relaxed, so that the distortion
        is no -log p(x | z, c)."""
        q, log_q = self.both(x)
        c = relaxed(log_q, self.settings.relaxation) if self.training else draw(log_q)
        of_z, _ = self.bound(q, x, c)
        rate = torch.cat([of_z.rate, kl_categorical(log_q, self.log_prior).unsqueeze(1)], 1)
        return Terms(of_z.distortion, rate, of_z.aux | {"c": c})

    def excess(self, terms: Terms, progress: float | Tensor = 1.0) -> Tensor:
        """What the mean rates of a batch add to the loss, a scalar."""
        of_z, of_c = terms.rate.unbind(1)
        apart = distance(of_z, self.settings.capacity * progress) + distance(of_c, self.discrete_capacity * progress)
        return self.settings.gamma * apart

    # ---- the rest of the contract ----------------------------------------------------------------------------------

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        """As `VAE.log_weights`, of discrete choices in either mode."""
        q, log_q = self.both(x)
        log_q = repeat(log_q, k)
        c = draw(log_q)
        z, log_q_z = q.repeat(k).rsample()
        of_z = self.prior.log_prob(z) - log_q_z
        of_c = (c * (self.log_prior - log_q)).sum((1, 2))
        return (self.log_likelihood(self.decode(z, c), repeat(x, k)) + of_z + of_c).view(k, len(x))

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D + N K): the centre of q(z | x), and beside it the probabilities of the classes."""
        q, log_q = self.both(x)
        return torch.cat([q.centre, log_q.exp().flatten(1)], 1)

    def rebuild(self, code: Tensor) -> Tensor:
        """The mean of p(x | z, c), (B, C, H, W), of codes as `represent` gives, at their most probable classes."""
        z, p = code.tensor_split([self.settings.latent], 1)
        return self.likelihood.mean(self.decode(z, one_hot(p.view(-1, *self.size))))

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.rebuild(self.represent(x))

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """As `VAE.sample`, of classes drawn evenly at any ``temperature``."""
        c = draw(self.choices.weight.new_zeros(n, *self.size))
        return self.likelihood.mean(self.decode(self.prior.sample(n, temperature), c))

    def diagonal_posterior(self, x: Tensor, y: Tensor | None = None) -> None:
        """None: the code has choices beside the Gaussian."""
        return None

    def categorical_posterior(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.both(x)[1]
