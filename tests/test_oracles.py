"""A linear VAE on data of a linear model: everything it should reach is known in closed form (Tipping and Bishop 1999).

x = W z + mu + N(0, s2 I). With M = W^T W + s2 I the posterior is N(M^-1 W^T (x - mu), s2 M^-1), which a diagonal
Gaussian is when the columns of W are orthogonal, as at the maximum of the likelihood they can be (Lucas et al. 2019).
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.check.subject import subject
from benchmarks.metrics import likelihood
from benchmarks.metrics.likelihood import bound, codebooks, codes, importance_weighted, measured
from zoo import create_model, noise
from zoo.config import resolve
from zoo.data.batches import Batches
from zoo.data.images import Images
from zoo.data.synthetic import load_ppca, load_synthetic, ppca_log_prob, ppca_ml_optimum
from zoo.models.energy_vae import EnergyVAE
from zoo.models.quantised import Grid
from zoo.models.vae import VanillaVAE
from zoo.quantisers import Quantised
from zoo.runs import train_run
from zoo.training.precision import choose

LATENT = 3
EXAMPLES = 2048
NOISE = 1.0  # s2
LINEAR = ["encoder.hidden=[]", "decoder.hidden=[]", f"latent={LATENT}"]
RECIPE = [
    f"data.options.n_train={EXAMPLES}",
    f"data.options.s2={NOISE}",
    f"train.batch_size={EXAMPLES}",
    "train.epochs=1500",
    "train.validate_every=1500",
    "train.learning_rate=0.1",
    "train.schedule=cosine",
]


def data() -> Tensor:
    """(N, D) float64, the training split."""
    return load_ppca(n_train=EXAMPLES, s2=NOISE)["train"].pixels.flatten(1).double()


def train(variant: str, folder: Path, *settings: str) -> VanillaVAE:
    config = resolve(variant, "ppca", settings=[*LINEAR, *RECIPE, *settings])
    return train_run(config, folder, choose("cpu")).model.double()


def weight_and_mean(model: VanillaVAE) -> tuple[Tensor, Tensor]:
    """W (D, latent) and mu (D,) of the linear decoder, found by decoding the axes."""
    axes = torch.cat([torch.zeros(1, LATENT), torch.eye(LATENT)]).double()
    with torch.no_grad():
        decoded = model.decode(axes).flatten(1)
    return (decoded[1:] - decoded[0]).T, decoded[0]


@torch.no_grad()
def exact_bound(model: VanillaVAE, x: Tensor) -> Tensor:
    """(N,) nats: the ELBO of a linear decoder with its expectation over the posterior taken in closed form."""
    weight, mean = weight_and_mean(model)
    s2 = model.likelihood.sigma.double() ** 2
    q = model.infer(x)
    variance = q.log_variance.exp()
    spread = variance @ weight.square().sum(0)
    error = (x - mean - q.mean @ weight.T).square().sum(1)
    rate = 0.5 * (variance + q.mean.square() - 1 - q.log_variance).sum(1)
    return -0.5 * (x.shape[1] * torch.log(2 * math.pi * s2) + (error + spread) / s2) - rate


def solved(x: Tensor, shift: float = 0.0, widen: float = 0.0) -> VanillaVAE:
    """The maximum-likelihood model with the exact posterior, its means moved by ``shift``, its log-variances by
    ``widen``."""
    weight, mean, s2, _ = ppca_ml_optimum(x, LATENT)
    model = create_model("vae", data="ppca", latent=LATENT, encoder={"hidden": []}, decoder={"hidden": []}).double()
    precision = weight.T @ weight + s2 * torch.eye(LATENT, dtype=torch.float64)
    back = torch.linalg.solve(precision, weight.T)
    with torch.no_grad():
        model.decoder.output.weight.copy_(weight)
        model.decoder.output.bias.copy_(mean)
        model.likelihood.log_sigma.copy_(0.5 * s2.log())
        model.head.weight.copy_(torch.cat([back, torch.zeros_like(back)]))
        log_variance = (s2 / precision.diagonal()).log()
        model.head.bias.copy_(torch.cat([shift - back @ mean, widen + log_variance]))
    return model.requires_grad_(False)


def log_evidence(x: Tensor) -> Tensor:
    weight, mean, s2, _ = ppca_ml_optimum(x, LATENT)
    return ppca_log_prob(x, weight, mean, s2)


def batches(n: int) -> Batches:
    images = load_ppca(n_train=EXAMPLES, s2=NOISE)["train"].subset(n)
    return Batches(images, batch_size=n, drop_last=False)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> VanillaVAE:
    return train("vae", tmp_path_factory.mktemp("linear") / "run")


def test_the_trainer_takes_a_linear_vae_to_the_optimum_and_not_above(trained: VanillaVAE) -> None:
    x = data()
    _, _, s2, optimum = ppca_ml_optimum(x, LATENT)
    reached = exact_bound(trained, x).mean()
    assert optimum - 1e-2 <= reached <= optimum + 1e-5
    assert trained.likelihood.sigma.item() ** 2 == pytest.approx(s2.item(), rel=0.01)


def test_it_finds_the_principal_subspace(trained: VanillaVAE) -> None:
    weight, mean, _, _ = ppca_ml_optimum(data(), LATENT)
    found, found_mean = weight_and_mean(trained)
    cosines = torch.linalg.svdvals(torch.linalg.qr(weight).Q.T @ torch.linalg.qr(found).Q)
    assert cosines.min() > 0.9999
    assert torch.allclose(found_mean, mean, atol=0.05)
    # A diagonal posterior makes the columns the principal axes themselves, not a rotation of them.
    products = found.T @ found
    assert (products - products.diagonal().diag()).abs().max() < 0.05 * products.diagonal().max()


def test_what_is_measured_is_the_closed_form(trained: VanillaVAE) -> None:
    x = data()
    measured = bound(trained.float(), batches(EXAMPLES), seed=0)
    trained.double()
    mean, error = mean_and_error(measured.elbo - exact_bound(trained, x))
    assert abs(mean) <= 4 * error
    assert error < 0.05


@pytest.mark.parametrize("kept", [3, 2])
def test_beta_shrinks_the_eigenvalues_as_it_should(kept: int, tmp_path: Path) -> None:
    x = data()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    s2 = eigenvalues[LATENT:].mean()
    # Between the eigenvalues of a dimension that stays and of one that collapses: Lucas et al. 2019.
    beta = 4.0 if kept == 3 else ((eigenvalues[1] + eigenvalues[2]) / (2 * s2)).item()
    model = train("beta_vae", tmp_path / "run", f"beta={beta}", f"likelihood.sigma={s2.sqrt().item()}")
    weight, _ = weight_and_mean(model)
    found = torch.linalg.eigvalsh(weight.T @ weight).flip(0)
    expected = (eigenvalues[:LATENT] - beta * s2).clamp_min(0)
    assert (expected > 0).sum() == kept
    assert torch.allclose(found, expected, rtol=0.02, atol=0.02)


# ---- the exact posterior ---------------------------------------------------------------------------------------------


def test_with_the_exact_posterior_the_bound_is_the_evidence() -> None:
    x = data()
    model, evidence = solved(x), log_evidence(x)
    assert torch.allclose(exact_bound(model, x), evidence, atol=1e-9)
    images = x.view(-1, 1, 1, x.shape[1])
    one = model.terms(images)
    mean, error = mean_and_error(one.elbo - evidence)
    assert abs(mean) <= 4 * error
    # Every single log-weight is log p(x): an estimator without variance.
    assert torch.allclose(model.log_weights(images, k=5), evidence.expand(5, -1), atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 50])
def test_with_the_exact_posterior_every_k_gives_the_evidence(k: int) -> None:
    x = data()
    measured = importance_weighted(solved(x).float(), batches(256), k=k, seed=0, rows=4096)
    assert torch.allclose(measured, log_evidence(x)[:256], atol=1e-4)


# ---- a wrong posterior -----------------------------------------------------------------------------------------------


def wrong(x: Tensor) -> VanillaVAE:
    return solved(x, shift=0.25, widen=1.0)


def test_what_a_wrong_posterior_loses_is_its_divergence_from_the_right_one() -> None:
    x = data()
    right, model, evidence = solved(x), wrong(x), log_evidence(x)
    q, p = model.infer(x), right.infer(x)
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mean, (0.5 * q.log_variance).exp()),
        torch.distributions.Normal(p.mean, (0.5 * p.log_variance).exp()),
    ).sum(1)
    assert divergence.min() > 0.1
    assert torch.allclose(evidence - exact_bound(model, x), divergence, atol=1e-9)
    weights = model.log_weights(x.view(-1, 1, 1, x.shape[1]), k=64)
    mean, error = mean_and_error((evidence - weights.mean(0)) - divergence)
    assert abs(mean) <= 4 * error


def test_with_a_wrong_posterior_more_samples_come_closer_and_stay_below() -> None:
    x = data()
    model, n = wrong(x).float(), 512
    evidence = log_evidence(x)[:n]
    gaps = []
    for k in (1, 2, 5, 20, 100, 500):
        measured = importance_weighted(model, batches(n), k=k, seed=k, rows=1 << 14)
        gaps.append(mean_and_error(evidence - measured))
    for (wide, error1), (narrow, error2) in zip(gaps[:-1], gaps[1:], strict=True):
        assert narrow < wide
        assert wide - narrow > 2 * math.hypot(error1, error2) or wide < 0.05
    assert gaps[-1][0] > -4 * gaps[-1][1]
    assert gaps[-1][0] < 0.05 * gaps[0][0]


def test_the_gap_of_many_samples_is_the_variance_of_a_weight_over_twice_their_number() -> None:
    # -log(1 + e) = -e + e^2 / 2, where e, what a mean of k weights w / p(x) is off by, has the variance Var[w / p] / k.
    x, n = data(), 512
    right, model, evidence = solved(x), solved(x, shift=0.1, widen=0.2), log_evidence(x)[:n]
    q, p = model.infer(x[:1]), right.infer(x[:1])
    v, u = q.log_variance.exp(), p.log_variance.exp()
    # Var[w / p] is the chi-square divergence of the right posterior from the wrong one, here that of two Gaussians.
    each = v / (u * (2 * v - u)).sqrt() * ((q.mean - p.mean).square() / (2 * v - u)).exp()
    variance = each.prod().item() - 1
    assert 0.1 < variance < 1
    for k in (25, 100):
        with noise.keyed(0, torch.arange(n), range(k)):
            ratio = (model.log_weights(x[:n].view(n, 1, 1, -1), k=k) - evidence).exp()
        mean, error = mean_and_error(ratio.mean(0))
        assert abs(mean - 1) <= 4 * error
        tight = importance_weighted(model.float(), batches(n), k=k, seed=0, rows=4096)
        # e itself is taken out: of its samples the second order is left.
        gap, spread = mean_and_error(evidence - tight + ratio.mean(0) - 1)
        model.double()
        assert gap == pytest.approx(variance / (2 * k), abs=4 * spread + 0.1 * variance / (2 * k))
        assert spread < 0.1 * gap


def test_no_number_depends_on_the_batch() -> None:
    x = data()
    model = wrong(x).float()
    subset = batches(64)
    elbo = bound(model, subset, seed=3, batch_size=64).elbo
    tight = importance_weighted(model, subset, k=7, seed=3, rows=448)
    for size in (1, 7):
        assert torch.allclose(bound(model, subset, seed=3, batch_size=size).elbo, elbo, atol=1e-4)
    for rows in (1, 3, 7, 49):
        assert torch.allclose(importance_weighted(model, subset, k=7, seed=3, rows=rows), tight, atol=1e-4)
    assert not torch.allclose(bound(model, subset, seed=4, batch_size=64).elbo, elbo, atol=1e-4)


@pytest.mark.parametrize("name", ["joint_vae", "ladder_vae", "two_stage_vae"])
def test_the_rate_is_the_sum_of_those_of_all_parts_of_the_code(name: str) -> None:
    model, images = subject(name).known(), load_synthetic(64, 64, 8).prepare("threshold")["train"]
    found = bound(model, Batches(images, batch_size=64), seed=3)
    with torch.no_grad(), noise.keyed(3, torch.arange(64)):
        terms = model.terms((images.pixels > 127).float())
    parts = terms.rate.double().unbind(1)
    assert len(parts) > 1
    torch.testing.assert_close(found.rate, sum(parts))
    torch.testing.assert_close(found.elbo, -terms.distortion.double() - sum(parts))


def test_the_use_of_a_codebook_is_counted_over_the_whole_split() -> None:
    model, images = subject("vq_vae").known(), load_synthetic(64, 64, 8).prepare("threshold")["train"]
    # One image has code 1 once, and everything else is code 0.
    first = (images.pixels[:1] > 127).float()

    def quantise(x: Tensor) -> list[Grid]:
        codes = torch.stack([(x == first).flatten(1).all(1), x.new_zeros(len(x)).bool()], 1).long()
        return [Grid(x, Quantised(x, codes, x.new_zeros(len(x))))]

    model.quantise = quantise
    ((perplexity, use),) = codebooks(model, Batches(images, batch_size=64), batch_size=7)
    share = 1 / 128
    assert perplexity == pytest.approx(share**-share * (1 - share) ** -(1 - share), rel=1e-5)
    assert use == pytest.approx(2 / model.quantiser.codes)


@pytest.mark.parametrize("name", ["vae", "vq_vae", "m2", "energy_vae"])
def test_nothing_measured_of_a_split_depends_on_the_batch(name: str) -> None:
    # 64 is nine batches of seven and one image more.
    known, images = subject(name), load_synthetic(64, 64, 8).prepare("threshold")["train"]
    model = known.known()
    split = Batches(images, batch_size=64, condition="class" if known.conditional or model.supervised else "none")

    def found(size: int) -> dict[str, Tensor]:
        numbers = {"codes": codes(model, split, size)} | measured(model, split, 3, size)
        terms = bound(model, split, 3, size)
        numbers |= {"distortion": terms.distortion, "rate": terms.rate}
        return numbers | ({"codebook": torch.tensor(codebooks(model, split, size))[0]} if name == "vq_vae" else {})

    whole, parts = found(64), found(7)
    assert whole.keys() == parts.keys() and set(model.measures) <= whole.keys()
    for key, values in whole.items():
        # A number of the model itself is one.
        assert len(values) == (2 if key == "codebook" else 1 if key in EnergyVAE.measures else 64), key
        torch.testing.assert_close(parts[key], values, rtol=1e-4, atol=1e-3, msg=key)


def test_a_cpu_holds_no_more_rows_at_once_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    model, held = wrong(data()).float(), []
    dims = model.spec.dims
    inner = model.log_weights
    monkeypatch.setattr(model, "log_weights", lambda x, y, k: held.append(k * len(x)) or inner(x, y, k))
    monkeypatch.setattr(likelihood, "HELD", 20 * dims)
    for k, rows, most in ((7, 4096, 20), (7, 5, 5), (64, 4096, 20)):
        importance_weighted(model, batches(16), k=k, seed=0, rows=rows)
        assert most // 2 < max(held) <= most
        assert sum(held) == 16 * k
        held.clear()


def test_an_image_keeps_its_noise_in_any_company() -> None:
    x = data()[:8].float().view(8, 1, 1, -1)
    model = wrong(data()).float()
    ids = torch.tensor([5, 2, 7, 0, 3, 1, 6, 4])
    with noise.keyed(0, torch.arange(8)):
        straight = model.terms(x).elbo
    with noise.keyed(0, ids):
        shuffled = model.terms(x[ids]).elbo
    assert torch.allclose(shuffled, straight[ids], atol=1e-4)
    assert Images(x).sha256 != Images(x[ids]).sha256
