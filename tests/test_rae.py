"""RAE against what its loss is known to be, and the density of its codes against an independent computation."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from benchmarks.evaluate import evaluate
from tests.in_pieces import in_pieces
from zoo import create_model, load_run, noise
from zoo.config import resolve
from zoo.data.batches import Batches
from zoo.data.images import DataSpec
from zoo.distributions.code_density import CodeDensity, CodeDensitySettings
from zoo.errors import UsageError
from zoo.models.rae import RAE
from zoo.runs import Run, train_run
from zoo.training.precision import choose

SPEC = DataSpec((1, 4, 4), "binary")
REAL = DataSpec((1, 4, 4), "real")
SMALL = {"latent": 3, "encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}}


def make(spec: DataSpec = SPEC, **settings) -> RAE:
    torch.manual_seed(0)
    return create_model("rae", data=spec, **SMALL | settings).double()


def bits(n: int = 8) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1)).round().double()


def squared_error(model: RAE, x: Tensor) -> Tensor:
    z = model.head(model.encoder(x))
    return (model.decoder(z).sigmoid() - x).square().sum((1, 2, 3))


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_without_beta_and_regulariser_the_loss_is_the_squared_error() -> None:
    model, x = make(beta=0.0, regulariser="none", weight=7.0), bits()
    found = model.losses(x)
    assert found["vae"].item() == pytest.approx(squared_error(model, x).mean().item(), rel=1e-12)
    assert torch.allclose(found.terms.distortion, squared_error(model, x), rtol=1e-12)
    assert found.terms.rate.shape == (8, 0)


def test_beta_weighs_half_the_squared_norm_of_the_code() -> None:
    x = bits()
    plain, pulled = (make(beta=beta, regulariser="none").losses(x)["vae"] for beta in (0.0, 3.0))
    z = make().represent(x)
    assert (pulled - plain).item() == pytest.approx(1.5 * z.square().sum(1).mean().item(), rel=1e-12)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_l2_is_the_sum_of_squares_of_exactly_the_decoder_s_weights(network: str) -> None:
    model = make(decoder={"name": network, "hidden": [8], "channels": [4]}, weight=0.7)
    weights = [m.weight for m in model.decoder.modules() if isinstance(m, nn.Linear | nn.ConvTranspose2d)]
    expected = sum(float(weight.detach().square().sum()) for weight in weights)
    assert len(weights) >= 2 and model.squared_weights().item() == pytest.approx(expected, rel=1e-12)
    without = copy.deepcopy(model)
    without.settings = model.settings.model_copy(update={"regulariser": "none"})
    x = bits()
    assert (model.losses(x)["vae"] - without.losses(x)["vae"]).item() == pytest.approx(0.7 * expected, rel=1e-9)
    # Its gradient is that of weight decay, and nothing outside the decoder gets any.
    gradients = torch.autograd.grad(model.squared_weights(), list(model.parameters()), allow_unused=True)
    given = {id(p): g for p, g in zip(model.parameters(), gradients, strict=True) if g is not None}
    assert set(given) == {id(weight) for weight in weights}
    assert all(torch.equal(given[id(weight)], 2 * weight) for weight in weights)


def test_the_penalty_of_a_linear_decoder_is_the_norm_of_its_matrix() -> None:
    model = make(REAL, decoder={"hidden": []}, regulariser="gp", weight=0.3, beta=0.0)
    matrix, z = model.decoder.output.weight, torch.randn(40_000, 3).double()
    exact = matrix.square().sum()
    params, draws = model.stretch(z)
    assert torch.allclose(params, model.decode(z))
    error = draws.std().item() / 200
    assert draws.mean().item() == pytest.approx(exact.item(), abs=4 * error) and error < 0.01 * exact
    # Signs have less variance than any other draws: 2 (|A|^2 - sum of A_ii^2) with A = J J'.
    gram = matrix @ matrix.T
    assert draws.var().item() == pytest.approx(
        2 * (gram.square().sum() - gram.diagonal().square().sum()).item(), rel=0.05
    )
    x = torch.randn(8, 1, 4, 4).double()
    with noise.keyed(0, torch.arange(8)):
        losses = model.losses(x)
    with noise.keyed(0, torch.arange(8)):
        penalty = model.stretch(model.represent(x))[1].mean()
    assert (losses["vae"] - losses.terms.distortion.mean()).item() == pytest.approx(0.3 * penalty.item(), rel=1e-9)


def test_the_penalty_is_the_jacobian_of_the_pixels_and_its_gradient_that_of_autograd() -> None:
    model = make(regulariser="gp")
    z = torch.randn(3, 3).double().requires_grad_()
    decoder = list(model.decoder.parameters())

    def pixels(code: Tensor) -> Tensor:
        return model.decoder(code[None]).sigmoid().flatten()

    exact = torch.stack(
        [torch.autograd.functional.jacobian(pixels, code, create_graph=True).square().sum() for code in z]
    )
    # |1'J|^2 - |(1 - 2 e_i)'J|^2 = 4 (e_i'J)(1'J)' - 4 |e_i'J|^2, and summed over all pixels i 4 |1'J|^2 - 4 |J|^2.
    ones = torch.full((16,), 0.9).double()
    drawn = []
    for uniform in (ones, *(ones - 0.8 * pixel for pixel in torch.eye(16).double())):
        with noise.given([uniform.expand(3, 16).view(3, 1, 4, 4)]):
            drawn.append(model.stretch(z)[1])
    found = drawn[0] - 0.25 * (drawn[0] - torch.stack(drawn[1:])).sum(0)
    assert torch.allclose(found, exact, rtol=1e-10)
    wanted = torch.autograd.grad(exact.sum(), [z, *decoder], allow_unused=True)
    got = torch.autograd.grad(found.sum(), [z, *decoder], allow_unused=True)
    for one, other in zip(wanted, got, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-8, atol=1e-12)


def test_the_penalty_reaches_the_encoder_too_and_survives_half_precision() -> None:
    model, x = make(regulariser="gp", weight=1.0).float(), bits().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.losses(x)
    losses["vae"].backward()
    assert losses["vae"].dtype == torch.float32
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in model.parameters())


# ---- what it does not claim ------------------------------------------------------------------------------------------


def test_nothing_of_it_is_called_a_bound(tmp_path: Path) -> None:
    settings = ["train.epochs=2", "evaluate.quality_samples=0", "evaluate.factor_images=0"]
    run = train_run(resolve("rae", "synthetic", settings=settings), tmp_path / "run", choose("cpu"))
    curves = run.result.curves
    assert set(curves) == {"epoch", "train_loss", "train_reconstruction_loss", "validation_reconstruction_loss"}
    assert curves["validation_reconstruction_loss"][-1] < curves["validation_reconstruction_loss"][0]
    with pytest.raises(UsageError, match="no posterior"):
        run.model.log_weights(torch.zeros(1, 1, 28, 28))
    found = evaluate(run)
    reason = "it has no posterior, so it bounds nothing"
    for name in ("elbo", "nll", "bits_per_dim", "rate", "distortion"):
        assert found.skipped[name] == reason and not any(made.startswith(name) for made in found.metrics)
    loss = found.metrics["reconstruction_loss"]
    assert loss["unit"] == "" and loss["identity"]["likelihood"] == "squared_error"
    x = shown(run, "test")
    with torch.no_grad():
        error = (run.model.reconstruct(x) - x).square().sum((1, 2, 3)).mean().item()
    assert loss["value"] == pytest.approx(error, rel=1e-5)


def shown(run: Run, split: str) -> Tensor:
    return torch.cat([x for _, x, _ in Batches(run.images[split], batch_size=256, drop_last=False).sequential()])


def test_the_weights_that_are_kept_are_those_of_the_smallest_validation_error(tmp_path: Path) -> None:
    # A rate that grows spoils what the first epochs learnt.
    settings = ["train.epochs=4", "train.schedule=stages", "train.stages=[[2,0.001],[2,1.0]]"]
    run = train_run(resolve("rae", "synthetic", settings=settings), tmp_path / "run", choose("cpu"))
    losses = run.result.curves["validation_reconstruction_loss"]
    assert run.result.best_epoch == 1 + int(np.argmin(losses)) == 2
    x = shown(run, "validation")
    with torch.no_grad():
        assert run.model.terms(x).distortion.mean().item() == pytest.approx(min(losses), rel=1e-5)


# ---- the density -----------------------------------------------------------------------------------------------------


WEIGHTS = torch.tensor([0.2, 0.5, 0.3]).double()
MEANS = torch.tensor([[4.0, 0.0], [-4.0, 1.0], [0.0, -5.0]]).double()
SCALES = torch.tensor([[[1.0, 0.0], [0.7, 0.5]], [[0.6, 0.0], [-0.4, 0.8]], [[0.3, 0.0], [0.0, 1.2]]]).double()


def known_codes(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    k = torch.multinomial(WEIGHTS, n, replacement=True, generator=generator)
    drawn = torch.randn(n, 2, 1, generator=generator, dtype=torch.float64)
    return MEANS[k] + (SCALES[k] @ drawn).squeeze(2)


def density(components: int = 3, latent: int = 2) -> CodeDensity:
    return CodeDensity(CodeDensitySettings(components=components), latent).double()


def log_mixture(z: Tensor, weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """By scipy, component by component."""
    parts = zip(weights, means, covariances, strict=True)
    return torch.from_numpy(
        np.log(sum(float(w) * multivariate_normal(m.numpy(), c.numpy()).pdf(z.numpy()) for w, m, c in parts))
    )


def covariance(weights: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    """Of a mixture: the mean of the covariances and the covariance of the means."""
    apart = means - weights @ means
    return torch.einsum("k,kij->ij", weights, scales @ scales.mT) + torch.einsum("k,ki,kj->ij", weights, apart, apart)


def test_a_fit_recovers_the_mixture_that_the_codes_are_of() -> None:
    codes = known_codes(20_000)
    made = density()
    made.fit(codes)
    order = torch.cdist(MEANS, made.means).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    assert torch.allclose(made.weights[order], WEIGHTS, atol=0.02)
    assert torch.allclose(made.means[order], MEANS, atol=0.05)
    covariances = made.scales @ made.scales.mT
    assert torch.allclose(covariances[order], SCALES @ SCALES.mT, atol=0.06)
    held_out = known_codes(25_000)[20_000:]
    assert torch.allclose(made.log_prob(held_out), log_mixture(held_out, made.weights, made.means, covariances))
    truth = log_mixture(held_out, WEIGHTS, MEANS, SCALES @ SCALES.mT)
    assert made.log_prob(held_out).mean().item() == pytest.approx(truth.mean().item(), abs=0.01)


def test_a_fit_is_where_another_round_of_expectation_and_maximisation_gains_nothing() -> None:
    torch.manual_seed(0)
    far = (torch.rand(4000) < 0.2).double().unsqueeze(1)
    codes = torch.randn(4000, 2).double() * (1 + 2 * far) + torch.tensor([1.0, 0.0]).double() * far
    made = density(2)
    made.fit(codes)
    covariances = made.scales @ made.scales.mT
    parts = [
        torch.from_numpy(multivariate_normal(m.numpy(), c.numpy()).logpdf(codes.numpy()))
        for m, c in zip(made.means, covariances, strict=True)
    ]
    shares = torch.softmax(torch.stack(parts, 1) + made.weights.log(), 1)
    weights, means = shares.mean(0), (shares.T @ codes) / shares.sum(0).unsqueeze(1)
    apart = codes.unsqueeze(1) - means
    again = torch.einsum("nk,nki,nkj->kij", shares, apart, apart) / shares.sum(0).view(-1, 1, 1)
    gain = log_mixture(codes, weights, means, again).mean() - made.log_prob(codes).mean()
    assert -1e-4 < gain.item() < 1e-3


def test_one_component_is_the_gaussian_of_the_codes() -> None:
    codes = known_codes(500)
    made = density(1)
    made.fit(codes)
    assert torch.allclose(made.means[0], codes.mean(0))
    assert torch.allclose(made.scales[0] @ made.scales[0].T, torch.cov(codes.T, correction=0), atol=2e-6)


def test_draws_are_of_the_density_and_the_temperature_scales_each_component() -> None:
    made = density()
    made.weights.copy_(WEIGHTS), made.means.copy_(MEANS), made.scales.copy_(SCALES)
    torch.manual_seed(4)
    drawn = made.sample(40_000)
    nearest = torch.cdist(drawn, MEANS).argmin(1)
    assert torch.allclose(torch.bincount(nearest).double() / 40_000, WEIGHTS, atol=0.02)
    mean = WEIGHTS @ MEANS
    total = covariance(WEIGHTS, MEANS, SCALES)
    assert torch.allclose(drawn.mean(0), mean, atol=0.06) and torch.allclose(torch.cov(drawn.T), total, rtol=0.04)
    cold, hot = made.sample(1000, 0.0), made.sample(40_000, 0.1)
    assert torch.cdist(cold, MEANS).amin(1).max() < 1e-6 and len(cold.round(decimals=6).unique(dim=0)) == 3
    first = hot[torch.cdist(hot, MEANS).argmin(1) == 1] - MEANS[1]
    assert torch.allclose(torch.cov(first.T), 0.01 * SCALES[1] @ SCALES[1].T, atol=4e-4)


def test_before_it_is_fitted_it_is_the_standard_normal() -> None:
    z = torch.randn(50, 2).double()
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    assert torch.allclose(density(7).log_prob(z), expected)


def test_codes_that_are_fewer_than_components_or_all_the_same_can_be_fitted() -> None:
    made = density(5)
    made.fit(torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 2.0]]).double())
    assert made.weights.sum() == pytest.approx(1) and (made.weights[2:] == 0).all()
    z = made.sample(300)
    assert torch.isfinite(z).all() and torch.isfinite(made.log_prob(z)).all()
    assert torch.cdist(z, torch.tensor([[1.0, 2.0], [3.0, 2.0]]).double()).amin(1).max() < 0.02
    made.fit(torch.ones(4, 2).double())
    assert torch.allclose(made.sample(8), torch.ones(8, 2).double(), atol=0.01)


def test_a_fit_is_the_same_each_time_and_asks_no_generator() -> None:
    codes = known_codes(2000)
    fitted = []
    for seed in (0, 1):
        torch.manual_seed(seed), np.random.seed(seed)
        made = density(6)
        made.fit(codes)
        fitted.append(made.state_dict())
        before = torch.Generator().manual_seed(seed)
        assert torch.equal(torch.rand(3), torch.rand(3, generator=before))
    assert all(torch.equal(fitted[0][name], fitted[1][name]) for name in fitted[0])


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_samples_come_from_the_density_of_the_training_images(tmp_path: Path) -> None:
    settings = ["train.epochs=2", "density.components=2", "latent=4", "data.binarise=threshold"]
    run = train_run(resolve("rae", "synthetic", settings=settings), tmp_path / "run", choose("cpu"))
    model = run.model
    codes = model.represent(run.images["train"].pixels.float() / 255)
    kept = (len(codes) // 128) * 128
    assert kept == len(codes), "an epoch has every image"
    mixture = model.density
    mean = mixture.weights @ mixture.means
    # A mixture that expectation-maximisation has fitted has the mean and the covariance of what it was fitted to.
    assert torch.allclose(mean, codes.mean(0), atol=1e-4)
    total = covariance(mixture.weights, mixture.means, mixture.scales)
    assert torch.allclose(total, torch.cov(codes.detach().T, correction=0), rtol=1e-3, atol=1e-4)
    torch.manual_seed(5)
    images = model.sample(6)
    torch.manual_seed(5)
    assert torch.equal(images, model.likelihood.mean(model.decode(mixture.sample(6))))


def test_the_density_is_fitted_to_the_images_of_a_batch_that_is_not_full_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[Tensor] = []
    fit = CodeDensity.fit
    monkeypatch.setattr(CodeDensity, "fit", lambda self, codes: (fitted.append(codes), fit(self, codes))[1])
    settings = ["train.epochs=1", "train.batch_size=300", "latent=4", "data.binarise=threshold"]
    run = train_run(resolve("rae", "synthetic", settings=settings), tmp_path / "run", choose("cpu"))
    codes = run.model.represent(run.images["train"].pixels.float() / 255)
    assert len(codes) % 300, "the last batch of an epoch is not full"
    assert len(fitted[0]) == len(codes) and torch.allclose(fitted[0].mean(0), codes.mean(0), atol=1e-5)


def test_a_run_that_was_stopped_and_one_that_is_loaded_give_the_same_samples(tmp_path: Path) -> None:
    config = resolve("rae", "synthetic", settings=["train.epochs=2", "train.checkpoint_seconds=0", "latent=4"])
    whole = train_run(config, tmp_path / "whole", choose("cpu")).model
    _, stops = in_pieces(lambda stop: train_run(config, tmp_path / "pieces", choose("cpu"), should_stop=stop))
    assert stops >= 4
    for folder in ("whole", "pieces"):
        model = load_run(tmp_path / folder)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in whole.state_dict().items())
        with noise.keyed(0, torch.arange(5)):
            found = model.sample(5)
        with noise.keyed(0, torch.arange(5)):
            assert torch.equal(found, whole.sample(5))
