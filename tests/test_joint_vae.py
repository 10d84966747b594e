"""JointVAE against the sum over its classes of integrals over z, and its loss against the paper's by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import latents
from benchmarks.metrics.codes import Codes
from benchmarks.metrics.disentanglement import score_codes
from benchmarks.pictures import to_bytes
from tests.evidence import is_the_mean_weight
from zoo import create_model, noise
from zoo.data.images import DataSpec
from zoo.distributions.categorical import one_hot
from zoo.errors import UsageError
from zoo.models.joint_vae import JointVAE

SPEC = DataSpec((1, 4, 4), "binary")
VARIABLES, CLASSES = 2, 3
CHOICES = list(itertools.product(range(CLASSES), repeat=VARIABLES))


def make(**settings: object) -> JointVAE:
    """A small model in float64 whose posterior depends on the image and is far from its prior."""
    small = {"encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}, "latent": 1}
    torch.manual_seed(0)
    model = create_model("joint_vae", data=SPEC, **(small | {"variables": VARIABLES, "classes": CLASSES} | settings))
    with torch.no_grad():
        model.head.weight.mul_(3.0)
        model.choices.weight.mul_(4.0)
        model.decoder.output.weight.mul_(3.0)
    return model.double().eval()


def bits(n: int = 5) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1)).round().double()


def one_hot_codes() -> Tensor:
    """(K^N, N, K): every combination of classes."""
    return F.one_hot(torch.tensor(CHOICES), CLASSES).double()


@pytest.mark.parametrize("prior", ["standard", "mixture"])
@torch.no_grad()
def test_bound_and_evidence_are_sums_over_classes_of_integrals_over_z(prior: str) -> None:
    model, x = make(prior={"name": prior, "components": 3}), bits()
    z = torch.linspace(-12, 12, 6001, dtype=torch.float64).unsqueeze(1)
    width = (z[1] - z[0]).log()
    q, log_q_c = model.both(x)
    of_z = torch.stack([model.infer(row.unsqueeze(0)).log_prob(z) for row in x])
    elbo, evidence = torch.zeros(len(x)).double(), []
    for c in one_hot_codes():
        params = model.decode(z, c.expand(len(z), -1, -1))
        likelihood = torch.stack([model.log_likelihood(params, row.expand(len(z), -1, -1, -1)) for row in x])
        joint = likelihood + model.prior.log_prob(z) - VARIABLES * math.log(CLASSES)
        of_c = (log_q_c * c).sum((1, 2))
        posterior = of_z + of_c.unsqueeze(1)
        elbo += ((posterior + width).exp() * (joint - posterior)).sum(1)
        evidence.append(torch.logsumexp(joint + width, 1))
    evidence = torch.stack(evidence).logsumexp(0)
    torch.testing.assert_close((of_z + width).exp().sum(1), torch.ones(len(x)).double())
    torch.manual_seed(2)
    drawn = torch.stack([model.terms(x).elbo for _ in range(4000)])
    weights = model.log_weights(x, k=20_000)
    for found in (drawn, weights):
        assert ((found.mean(0) - elbo).abs() < 4.5 * found.std(0) / math.sqrt(len(found))).all()
    is_the_mean_weight(evidence, weights)
    torch.testing.assert_close(weights.logsumexp(0) - math.log(len(weights)), evidence, rtol=0, atol=0.05)
    assert (elbo < evidence).all() and (evidence - elbo).max() > 0.05


@torch.no_grad()
def test_the_two_rates_have_their_closed_forms() -> None:
    model, x = make(latent=4), bits()
    features = model.encoder(x)
    mean, log_variance = model.head(features).chunk(2, 1)
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    of_z = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1)
    choices = torch.distributions.Categorical(logits=model.choices(features).view(-1, VARIABLES, CLASSES))
    of_c = VARIABLES * math.log(CLASSES) - choices.entropy().sum(1)
    rate = model.terms(x).rate
    torch.testing.assert_close(rate, torch.stack([of_z, of_c], 1))
    assert (rate[:, 1] > 0.05).any() and (rate[:, 1] < VARIABLES * math.log(CLASSES)).all()


@pytest.mark.parametrize(("discrete_capacity", "most"), [(0.7, 0.7), (50.0, VARIABLES * math.log(CLASSES))])
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_the_loss_is_the_paper_s_by_hand(discrete_capacity: float, most: float, progress: float) -> None:
    settings = {"relaxation": 0.4, "gamma": 7.0, "capacity": 2.0, "discrete_capacity": discrete_capacity}
    model, x = make(latent=3, **settings).train(), bits()
    u, eps = torch.rand(5, VARIABLES, CLASSES).double(), torch.randn(5, 3).double()
    with noise.given([u, eps]):
        found = model.losses(x, None, progress)["vae"]
    hidden = model.encoder(x)
    mean, log_variance = model.head(hidden)[:, :3], model.head(hidden)[:, 3:]
    alpha = torch.softmax(model.choices(hidden).view(5, VARIABLES, CLASSES), -1)
    z = mean + log_variance.exp().sqrt() * eps
    c = (alpha / -u.log()) ** (1 / 0.4)  # exp of (log alpha - log(-log u)) / tau
    c = c / c.sum(-1, keepdim=True)
    logits = model.decoder(torch.cat([z, c.flatten(1)], 1))
    distortion = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / 5
    of_z = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
    of_c = (alpha * (alpha * CLASSES).log()).sum((1, 2)).mean()
    expected = distortion + 7.0 * (of_z - 2.0 * progress).abs() + 7.0 * (of_c - most * progress).abs()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


@torch.no_grad()
def test_in_evaluation_a_choice_is_discrete_and_in_training_it_is_relaxed() -> None:
    model, x = make(), bits(50)
    c = model.terms(x).aux["c"]
    assert c.shape == (50, VARIABLES, CLASSES) and torch.equal(c, one_hot(c))
    c = model.train().terms(x).aux["c"]
    torch.testing.assert_close(c.sum(-1), torch.ones(50, VARIABLES).double())
    assert ((c > 0) & (c < 1)).all()
    torch.manual_seed(3)
    rows = model.log_weights(x, k=2)
    torch.manual_seed(3)
    assert torch.equal(model.eval().log_weights(x, k=2), rows)


@torch.no_grad()
def test_the_code_is_means_and_probabilities_and_the_picture_that_of_the_likeliest_classes() -> None:
    model, x = make(latent=2), bits()
    q, log_q = model.both(x)
    z, p = model.represent(x).split([2, VARIABLES * CLASSES], 1)
    assert torch.equal(z, q.mean) and torch.equal(p, log_q.exp().flatten(1))
    best = F.one_hot(log_q.argmax(-1), CLASSES).double()
    assert torch.equal(model.reconstruct(x), torch.sigmoid(model.decoder(torch.cat([q.mean, best.flatten(1)], 1))))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@torch.no_grad()
def test_samples_are_of_every_choice_equally_often_at_any_temperature(temperature: float) -> None:
    model, n = make(), 9000
    codes = one_hot_codes()
    seen = []
    decode = model.decode
    model.decode = lambda z, c: seen.append((z, c)) or decode(z, c)
    model.sample(n, temperature=temperature)
    ((z, c),) = seen
    assert z.std() == pytest.approx(temperature, abs=0.05)
    counts = torch.cdist(c.flatten(1), codes.flatten(1).to(c.dtype)).argmin(1).bincount(minlength=len(codes))
    expected = n / len(codes)
    assert ((counts - expected).square() / expected).sum() < 26.1  # 8 degrees of freedom, one in a thousand
    assert model.centres == len(codes)


@torch.no_grad()
def test_a_walk_is_along_the_vector_at_the_classes_of_its_image() -> None:
    model, x = make(latent=3), bits(6)
    images, dims, _ = latents.traverse(model, x, None, image=4, dims=3, steps=5)
    code = model.represent(x)[4]
    for row, d in zip(images.unflatten(0, (3, 5)), dims, strict=True):
        codes = code.repeat(5, 1)
        codes[:, d] = torch.linspace(-3, 3, 5).double()
        assert torch.equal(row, to_bytes(model.rebuild(codes)))


@torch.no_grad()
def test_one_class_for_all_images_costs_the_whole_capacity_and_tells_nothing() -> None:
    """A rate is what an image costs, no information: with the first class for everything both capacities are kept."""
    model, x = make(capacity=0.0, discrete_capacity=50.0), bits()
    for layer in (model.head, model.choices):
        layer.weight.zero_()
        layer.bias.zero_()
    model.choices.bias.view(VARIABLES, CLASSES)[:, 0] = 60.0
    terms = model.terms(x)
    rate = terms.rate.mean(0)
    assert rate[0] == 0 and rate[1].item() == pytest.approx(VARIABLES * math.log(CLASSES))
    assert model.excess(terms).item() == pytest.approx(0, abs=1e-9)
    assert len(model.represent(x).unique(dim=0)) == 1


def test_a_factor_that_a_choice_tells_has_no_gap_and_is_told_all_the_same() -> None:
    """Each class is a dimension of the code, and no dimension tells the factor better than the next."""
    factors = np.random.default_rng(0).integers(0, (3, 4), (3000, 2))
    ideal = np.concatenate([factors[:, 1:], np.eye(3)[factors[:, 0]]], 1)
    codes = Codes(ideal[:2000], factors[:2000], ideal[2000:], factors[2000:])
    scores = score_codes(codes, ["mig", "dci@hist-gbt"])
    assert scores["mig"] == pytest.approx(1 / 2, abs=0.02)  # the gap of the other factor is 1
    assert scores["informativeness_test@hist-gbt"] == 1
    assert scores["disentanglement@hist-gbt"] > 0.99 and scores["completeness@hist-gbt"] < 0.8


@pytest.mark.parametrize("settings", [{"classes": 1}, {"variables": 0}, {"relaxation": 0.0}, {"capacity": -1.0}])
def test_what_is_no_choice_or_no_capacity_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        create_model("joint_vae", data=SPEC, **settings)
