"""M2: a semi-supervised VAE, whose class is a latent variable that some training examples show.

Paper: Kingma, Rezende, Mohamed and Welling, Semi-supervised Learning with Deep Generative Models, NeurIPS 2014,
https://arxiv.org/abs/1406.5298.
Official code: https://github.com/dpkingma/nips14-ssl.
Where we differ: every class is enumerated, with one draw of z each, as the paper says. Its sum over all labelled and
unlabelled examples is written with means: (1 - r) mean U + r mean L + alpha mean of -log q(y | x), r being the share
of labelled examples among all; a batch may then hold more of them than the data has. Labelled examples are enumerated
as well, and L is the part of their own class, at its draw of z: the host need not know which examples they are. What is
reported is the bound on log p(x) of an image whose class nobody tells.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zoo import noise
from zoo.data.images import DataSpec
from zoo.distributions.gaussians import DiagonalGaussian, gaussian, standard_normal
from zoo.likelihoods import LikelihoodSettings, make_likelihood
from zoo.models.base import VAE, Losses, Settings, Terms, repeat
from zoo.nets import ACTIVATIONS, Activation, Width, require
from zoo.nets.mlp import chain, dense
from zoo.precision import full


class M2Settings(Settings):
    latent: int = Field(50, ge=1, description="dimensions of z, beside the class")
    hidden: tuple[Width, ...] = Field((500,), min_length=1, description="widths of each of the three networks")
    activation: Activation = "softplus"
    initial: float | None = Field(
        None, gt=0, description="deviation of the hidden layers' initial weights (Pyro: 0.001); none: PyTorch's"
    )
    likelihood: LikelihoodSettings = LikelihoodSettings()
    labelled: float = Field(0.002, ge=0, le=1, description="r: share of labelled examples in the data")
    alpha: float = Field(0.1, ge=0, description="weight of the classifier's own loss on labelled examples")


class M2(VAE):
    """p(y) p(z) p(x | y, z), inferred by q(y | x) q(z | x, y).

    Raises:
        UsageError: the data has no classes.
    """

    Settings: ClassVar[type[Settings]] = M2Settings
    supervised: ClassVar[bool] = True
    measures: ClassVar[dict[str, tuple[str, str | None]]] = {"classification_error": ("", "lower")}
    group_names = ("y", "z")
    charges_by = "by two bounds, one of images that show their class, so that a group has two means"

    def __init__(self, spec: DataSpec, settings: M2Settings) -> None:
        super().__init__(spec, settings)
        require(spec.classes > 1, "'m2' needs data with classes. `zoo list datasets` shows which have them.")
        self.centres = self.decodings = spec.classes
        self.group_sizes = (spec.classes, settings.latent)
        self.likelihood = make_likelihood(settings.likelihood, spec)
        self.output = self.likelihood.output_shape(spec.shape)
        first, *rest = settings.hidden
        self.classifier = chain(spec.dims, settings.hidden, spec.classes, settings.activation)
        # The first layer of q(z | x, y) in two parts: that of the image is the same for every class.
        self.image, self.label = nn.Linear(spec.dims, first), nn.Linear(spec.classes, first, bias=False)
        self.encoder = nn.Sequential(ACTIVATIONS[settings.activation](), dense([first, *rest], settings.activation))
        self.head = nn.Linear(settings.hidden[-1], 2 * settings.latent)
        width = settings.latent + spec.classes
        self.decoder = chain(width, settings.hidden[::-1], math.prod(self.output), settings.activation)
        if settings.initial is not None:
            for hidden in (self.classifier[0], self.image, self.label, self.encoder, self.decoder[0]):
                for parameter in hidden.parameters():
                    nn.init.normal_(parameter, std=settings.initial)

    @property
    def code_variance(self) -> Tensor:
        p = torch.full((self.spec.classes,), 1 / self.spec.classes)
        return torch.cat([p * (1 - p), torch.ones(self.settings.latent)])

    # ---- the three networks ----------------------------------------------------------------------------------------

    def log_classes(self, x: Tensor) -> Tensor:
        """log q(y | x), (B, K) nats."""
        return F.log_softmax(full(self.classifier(x.flatten(1))), 1)

    def infer(self, x: Tensor, y: Tensor) -> DiagonalGaussian:
        """q(z | x, y) for x (B, C, H, W) and one-hot y (B, ..., K): moments (B, ..., D)."""
        hidden, of_label = self.image(x.flatten(1)), self.label(y)
        return gaussian(self.head(self.encoder(hidden.unsqueeze(1) + of_label)))

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """z (N, D) and one-hot y (N, K) to the likelihood's parameters (N, C', H, W)."""
        return self.decoder(torch.cat([z, y.to(z.dtype)], 1)).view(len(z), *self.output)

    def bound(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(x | y, z) and KL(q(z | x, y) || p(z)) for one-hot y (B, K', K), at one draw of z for each: (B, K')."""
        q = self.infer(x, y)
        z, _ = q.rsample()
        params = self.decode(z.flatten(0, 1), y.flatten(0, 1))
        distortion = -self.likelihood.log_prob(params, x.repeat_interleave(y.shape[1], 0)).view(y.shape[:2])
        return distortion, q.kl(standard_normal(q.mean)).sum(-1)

    # ---- the contract ----------------------------------------------------------------------------------------------

    @property
    def couples_batch(self) -> bool:
        # Its means are over the labelled and over the unlabelled examples, of which each part has other shares.
        return True

    def terms(self, x: Tensor, y: Tensor | None = None) -> Terms:
        """The bound -U(x), the class summed out; groups of the rate are y and z. ``y`` is not looked at."""
        return self._summed(*self._enumerated(x))

    def losses(self, x: Tensor, y: Tensor | None = None, progress: float | Tensor = 1.0) -> Losses:
        """As `VAE.losses`, of (B,) classes ``y`` that are -1 where nobody knows one."""
        weight = self.rate_weight(progress)
        log_q, distortion, rate = self._enumerated(x)
        terms = self._summed(log_q, distortion, rate)
        unlabelled = terms.distortion + weight * terms.rate.sum(1)
        if y is None:
            return Losses({"vae": unlabelled.mean()}, terms)
        known = y >= 0
        own = y.clamp_min(0).long().unsqueeze(1)
        # log p(y) is a constant that no gradient sees, and L has it.
        labelled = (distortion + weight * (rate + math.log(self.spec.classes))).gather(1, own).squeeze(1)
        recognised = -log_q.gather(1, own).squeeze(1)
        # Of a batch without a label there is U alone; of one that is all labels, the U of all of it.
        r = self.settings.labelled * known.any()
        loss = (1 - r) * _mean_of(unlabelled, ~known | known.all()) + r * _mean_of(labelled, known)
        return Losses({"vae": loss + self.settings.alpha * _mean_of(recognised, known)}, terms)

    def _enumerated(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # (B, K) each: log q(y | x), and `bound` of every class.
        log_q = self.log_classes(x)
        every = torch.eye(self.spec.classes, dtype=log_q.dtype, device=x.device).expand(len(x), -1, -1)
        return log_q, *self.bound(x, every)

    def _summed(self, log_q: Tensor, distortion: Tensor, rate: Tensor) -> Terms:
        q = log_q.exp()
        of_class = (q * (log_q + math.log(self.spec.classes))).sum(1)
        return Terms((q * distortion).sum(1), torch.stack([of_class, (q * rate).sum(1)], 1))

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        """As `VAE.log_weights`, with (y, z) drawn from q together."""
        rows, log_q = repeat(x, k), repeat(self.log_classes(x), k)
        # The first class whose cumulative probability is over a uniform number.
        u = noise.uniform(log_q[:, :1])
        drawn = (log_q.exp().cumsum(1) < u).sum(1).clamp_max(self.spec.classes - 1)
        one_hot = F.one_hot(drawn, self.spec.classes).to(x.dtype)
        q = self.infer(rows, one_hot.unsqueeze(1))
        z, log_q_z = (part.squeeze(1) for part in q.rsample())
        log_q_y = log_q.gather(1, drawn.unsqueeze(1)).squeeze(1) + math.log(self.spec.classes)
        log_likelihood = self.likelihood.log_prob(self.decode(z, one_hot), rows)
        return (log_likelihood + standard_normal(z).log_prob(z) - log_q_z - log_q_y).view(k, len(x))

    def categorical_posterior(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """As `VAE.categorical_posterior`, of the class: (B, 1, K), whatever ``y`` is."""
        return self.log_classes(x).unsqueeze(1)

    def represent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, K + D): q(y | x), and the mean of z at its most likely class."""
        log_q = self.log_classes(x)
        return torch.cat([log_q.exp(), self._centre(x, log_q)[0]], 1)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.decode(*self._centre(x, self.log_classes(x))))

    def _centre(self, x: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        one_hot = F.one_hot(log_q.argmax(1), self.spec.classes).to(x.dtype)
        return self.infer(x, one_hot.unsqueeze(1)).mean.squeeze(1), one_hot

    def sample(self, n: int, y: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """As `VAE.sample`, of classes ``y`` (n,), or of classes drawn evenly."""
        like = self.head.weight
        if y is None:
            y = noise.index(like.new_empty(n), self.spec.classes)
        z = temperature * noise.normal(like.new_zeros(n, self.settings.latent))
        return self.likelihood.mean(self.decode(z, F.one_hot(y.long(), self.spec.classes)))

    def measure(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Whether the most likely class is another than ``y``, of the examples whose class is known."""
        if y is None:
            return {}
        known = y >= 0
        wrong = self.log_classes(x).argmax(1) != y
        return {"classification_error": wrong[known].double()}


def _mean_of(values: Tensor, rows: Tensor) -> Tensor:
    # The mean of those rows, 0 where there is none; without asking the device how many there are.
    return torch.where(rows, values, 0.0).sum() / rows.sum().clamp_min(1)
