"""What a bound loses by the encoder and by the posterior's family: against a linear model, whose posterior is known.

x = W z + mu + N(0, s2 I): the posterior has the precision P = W^T W / s2 + I. The diagonal Gaussian that is nearest to
it, in KL(q || p), has its mean and the variances 1 / P_dd.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import per_example, record
from benchmarks.catalogue import GAPS
from benchmarks.check.subject import subject
from benchmarks.evaluate import evaluate
from benchmarks.evaluation.foreseen import foreseen
from benchmarks.metrics import inference
from benchmarks.metrics.inference import Gaps, gaps
from benchmarks.partial import Partial
from benchmarks.running.amend import ADDABLE
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from tests.test_evaluation import run
from zoo import create_model, list_models, noise
from zoo.config import RunConfig, resolve
from zoo.data.batches import Batches
from zoo.data.images import DataSpec, Images
from zoo.data.synthetic import ppca_log_prob
from zoo.models.vae import VanillaVAE
from zoo.stopping import Stopped, stopping_when

SUITE = """
schema: 1
name: small
version: "1"
title: Small
summary: An untrained model.
datasets: [synthetic]
variants: [vae]
seeds: [0]
defaults:
  train: {epochs: 0}
  evaluate: {nll_samples: 2, nll_images: 4, quality_samples: 0, latent: "no"}
"""
SPEC = DataSpec((1, 1, 6), "real")
S2 = 0.5
#: Variants with one vector under a diagonal Gaussian posterior; each other one is skipped.
MEASURED = {
    "ada_vae", "adversarial_ae", "annealed_vae", "autoencoder_kl", "beta_tcvae", "beta_vae", "cvae", "dfc_vae",
    "dip_vae", "factor_vae", "geco_vae", "info_vae", "iwae", "ms_ssim_vae", "s2_beta_tcvae", "s2_beta_vae",
    "s2_dip_vae", "s2_factor_vae", "vae", "vae_gan", "vamp_vae",
}  # fmt: skip


@dataclass
class Linear:
    """A linear VAE, its images (N, 6), and what its posterior is."""

    model: VanillaVAE
    x: Tensor
    weight: Tensor
    mean: Tensor

    @property
    def batches(self) -> Batches:
        return Batches(Images(self.x.view(-1, *SPEC.shape)), batch_size=len(self.x), drop_last=False)

    @property
    def precision(self) -> Tensor:
        return self.weight.T @ self.weight / S2 + torch.eye(2, dtype=torch.float64)

    def log_evidence(self) -> Tensor:
        return ppca_log_prob(self.x.double(), self.weight, self.mean, torch.tensor(S2).double())

    def divergence(self, mean: Tensor, variance: Tensor) -> Tensor:
        """(N,) nats: KL(N(mean, diag(variance)) || p(z | x))."""
        away = mean - self.centre()
        apart = ((away @ self.precision) * away).sum(1) + variance @ self.precision.diagonal() - 2
        return 0.5 * (apart - torch.logdet(self.precision) - variance.log().sum(1))

    def centre(self) -> Tensor:
        return torch.linalg.solve(self.precision, self.weight.T @ (self.x.double() - self.mean).T / S2).T


def linear(turn: float, shift: float = 0.0, widen: float = 0.0, n: int = 16) -> Linear:
    """An encoder that is off by ``shift`` in the mean and ``widen`` in the log-variance from the best diagonal
    Gaussian. Without a ``turn`` of the codes the posterior is one."""
    generator = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(6, 2, generator=generator).double()).Q * torch.tensor([1.5, 0.8])
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]).double()
    weight, mean = axes @ rotation, torch.linspace(-1, 1, 6).double()
    z, e = (torch.randn(n, size, generator=generator).double() for size in (2, 6))
    model = create_model("vae", data=SPEC, latent=2, encoder={"hidden": []}, decoder={"hidden": []},
                         likelihood={"name": "gaussian", "sigma": S2**0.5}).eval()  # fmt: skip
    found = Linear(model, (z @ weight.T + mean + S2**0.5 * e).float(), weight, mean)
    back = torch.linalg.solve(found.precision, weight.T) / S2
    variance = -found.precision.diagonal().log()
    with torch.no_grad():
        model.decoder.output.weight.copy_(weight)
        model.decoder.output.bias.copy_(mean)
        model.head.weight.copy_(torch.cat([back, torch.zeros_like(back)]))
        model.head.bias.copy_(torch.cat([shift - back @ mean, widen + variance]))
    return found


def measured(one: Linear, n: int = 16, seed: int = 0, rows: int = 4096, partial: Partial | None = None) -> Gaps:
    return gaps(one.model, one.batches, n, seed, rows, partial)


def within(found: Tensor, expected: Tensor, slack: float) -> bool:
    """Whether the mean of (n,) differences is nought but for four standard errors, and ``slack`` for the optimiser."""
    apart = found - expected
    return abs(apart.mean()) <= 4 * apart.std() / math.sqrt(len(apart)) + slack


# ---- what they come to -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def off() -> tuple[Linear, Gaps]:
    one = linear(0.6, 0.5, 0.7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "STEPS", 150)
        return one, measured(one)


def test_the_gaps_of_a_linear_model_are_the_divergences_that_they_stand_for(off: tuple[Linear, Gaps]) -> None:
    one, found = off
    with torch.no_grad():
        mean, log_variance = (value.double() for value in one.model.diagonal_posterior(one.x).moments())
    own = one.divergence(mean, log_variance.exp())
    best = one.divergence(one.centre(), (1 / one.precision.diagonal()).expand(16, 2))
    assert found.amortisation.dtype == torch.float64 and len(found.amortisation) == 16
    assert 0.05 < best.mean() < 0.5 < own.mean() - best.mean(), "both are there to be seen"
    assert within(found.amortisation, own - best, 0.01) and (found.amortisation - own + best).abs().max() < 0.3
    assert within(found.approximation, best, 0.01) and (found.approximation > 0).all()
    assert found.late.abs().max() < 0.02


def test_their_sum_is_what_the_bound_is_below_the_evidence(off: tuple[Linear, Gaps]) -> None:
    one, found = off
    with torch.no_grad(), noise.keyed(0, torch.arange(16), range(1000)):
        elbo = one.model.log_weights(one.x.view(-1, *SPEC.shape), k=1000).double().mean(0)
    # The very draws of the encoder's Gaussian, so that nothing is left but what K samples are below log p(x).
    assert (one.log_evidence() - elbo - found.amortisation - found.approximation).abs().max() < 0.05


def test_an_encoder_that_is_exact_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "STEPS", 30)
    one = linear(0.0)
    found = measured(one)
    assert found.amortisation.abs().max() < 0.05 and found.amortisation.mean() < 1e-3
    assert found.approximation.abs().max() < 0.05
    monkeypatch.setattr(inference, "RATE", 50.0)
    found = measured(one)
    assert (found.amortisation == 0).all(), "where every step is for the worse q* is the encoder's"
    assert found.approximation.abs().max() < 1e-4 and (found.late == 0).all()


def test_they_are_measured_on_draws_that_q_was_neither_fitted_to_nor_chosen_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STEPS": 6, "PLACES": 3, "COMPARED": 5, "SAMPLES": 40}.items():
        monkeypatch.setattr(inference, name, value)
    fitted, others, keyed = set(), [], noise.keyed

    def seen(seed: int, ids: Tensor, samples: range) -> contextlib.AbstractContextManager:
        for one in samples:
            (fitted.add if torch.is_grad_enabled() else others.append)((seed, one))
        return keyed(seed, ids, samples)

    monkeypatch.setattr(noise, "keyed", seen)
    measured(linear(0.6, 0.5), 3, seed=4)
    own, best, chosen = others[-80:-40], others[-40:], set(others[:-80])
    assert own == best == [(4, one) for one in range(40)], "the same draws for both"
    assert len(fitted) == 60 and len(chosen) == 5 and len(others) == 4 * 5 + 80
    assert not fitted & set(best) and not chosen & set(best) and not fitted & chosen


def test_the_best_of_many_places_on_one_draw_is_not_measured_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STEPS": 20, "PLACES": 20, "COMPARED": 1, "DRAWS": 1, "SAMPLES": 1}.items():
        monkeypatch.setattr(inference, name, value)
    found = measured(linear(0.0, n=128), n=128).amortisation  # the encoder is exact: nothing is better
    assert found.mean() < 3 * found.std() / math.sqrt(128) and (found < 0).sum() > 32


# ---- what they do not depend on --------------------------------------------------------------------------------------


def test_they_do_not_depend_on_what_is_computed_at_once(
    off: tuple[Linear, Gaps], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"STEPS": 30, "SAMPLES": 60, "COMPARED": 20}.items():
        monkeypatch.setattr(inference, name, value)
    one, _ = off
    whole = measured(one, 5)
    monkeypatch.setattr(inference, "AT_ONCE", 3)
    for found in (measured(one, 5), measured(one, 2, rows=7)):
        for a, b in zip(found, whole, strict=True):
            assert torch.allclose(a, b[: len(a)], atol=1e-3)
    assert not torch.allclose(measured(one, 5, seed=1).amortisation, whole.amortisation, atol=1e-3)


def test_one_that_is_stopped_goes_on_bit_for_bit(off: tuple[Linear, Gaps], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STEPS": 10, "SAMPLES": 60, "AT_ONCE": 3}.items():
        monkeypatch.setattr(inference, name, value)
    one, _ = off
    whole, partial, taken = measured(one, 8), Partial(), []
    of = VanillaVAE.diagonal_posterior
    monkeypatch.setattr(VanillaVAE, "diagonal_posterior", lambda self, x, y: taken.append(len(x)) or of(self, x, y))
    with pytest.raises(Stopped), stopping_when(lambda: len(taken) == 2):
        measured(one, 8, partial=partial)
    assert taken == [3, 3] and len(partial.values("gaps")) == 9
    assert one.model.head.weight.requires_grad
    found = measured(one, 8, partial=partial)
    assert taken == [3, 3, 3, 2]
    assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))


def test_the_model_and_the_generator_are_as_before(off: tuple[Linear, Gaps], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "STEPS", 3)
    one = linear(0.6, 0.5)
    model, state = one.model, torch.get_rng_state()
    model.head.bias.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    asking = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():  # whoever asks from inside of it gets the same
        found = measured(one, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert [parameter.requires_grad for parameter in model.parameters()] == asking and not all(asking)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert [parameter.grad is not None for parameter in model.parameters()].count(True) == 1
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert torch.equal(measured(one, 3).amortisation, found.amortisation) and len(measured(one, 99).late) == 16


# ---- whose they are --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_models())
def test_the_joint_density_and_the_gaussian_are_those_of_the_bound(name: str) -> None:
    model = subject(name).make().eval()
    assert model.one_gaussian == (name in MEASURED)
    if not model.one_gaussian:
        return
    x, y = subject(name).batch(3)
    ids = torch.arange(3)
    with torch.no_grad():
        with noise.keyed(0, ids):
            z, log_q = model.diagonal_posterior(x, y).rsample()
        with noise.keyed(0, ids):
            weights = model.log_weights(x, y)[0]
        assert torch.allclose(model.log_joint(z, x, y) - log_q, weights, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "whether"),
    [
        ({"prior": {"name": "mixture", "components": 3}}, True), ({"prior": {"name": "flow"}}, True),
        ({"prior": {"name": "energy"}}, False), ({"prior": {"name": "diffusion"}}, False),
        ({"posterior": {"name": "householder"}}, False),
    ],
)  # fmt: skip
def test_the_prior_has_to_have_a_density_and_the_posterior_none_but_a_gaussian_s(settings: dict, whether: bool) -> None:
    assert create_model("vae", data=SPEC, latent=2, likelihood={"name": "gaussian"}, **settings).one_gaussian == whether


@pytest.mark.parametrize("variant", ["vae", "cvae"])
def test_an_evaluation_has_them_where_they_are_asked_for(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "STEPS", 5)
    monkeypatch.setattr(inference, "SAMPLES", 20)
    made = run(tmp_path, variant, "synthetic", "evaluate.gaps=6", "evaluate.seed=3", "evaluate.latent=no")
    found = evaluate(made)
    assert not set(GAPS) & (found.skipped.keys() | foreseen(made.config.evaluate, made.model, made.images).keys())
    stated = {"split": "test", "images": 6, "steps": 5, "draws": 10, "learning_rate": 0.03, "k": 20}
    for name in GAPS:
        metric = found.metrics[name]
        assert (metric["identity"], metric["n"], metric["unit"], metric["better"]) == (stated, 6, "nats", "lower")
        assert found.per_example[name].mean() == pytest.approx(metric["value"]) and metric["stderr"] > 0
    assert "nats came in the last fifth of the steps" in found.metrics[GAPS[0]]["note"]


@pytest.mark.parametrize(
    ("variant", "settings", "said"),
    [
        ("vae", ["evaluate.gaps=0"], "evaluate.gaps is 0"),
        ("rae", [], "it has no posterior, so it bounds nothing"),
        ("vae", ["likelihood.name=gaussian"], "a gaussian is not a likelihood of binary data"),
        ("flow_vae", [], "its latents are not one vector under a diagonal Gaussian posterior and a prior"),
    ],
)
def test_what_has_none_says_why_before_and_after(
    variant: str, settings: list[str], said: str, tmp_path: Path
) -> None:
    made = run(tmp_path, variant, "synthetic", "evaluate.gaps=4", "evaluate.latent=no", *settings)
    found = evaluate(made)
    for skipped in (found.skipped, foreseen(made.config.evaluate, made.model, made.images)):
        assert all(skipped[name].startswith(said) for name in GAPS)
    assert not set(GAPS) & found.metrics.keys()


def test_who_does_not_ask_for_them_has_the_key_of_before() -> None:
    assert "gaps" not in json.dumps(resolve("vae", "synthetic").identity())
    assert RunConfig(variant="vae", evaluate={"gaps": 5}).identity()["evaluate"]["gaps"] == 5


def test_they_are_added_to_a_cell_and_a_stop_of_that_loses_little(
    zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    for name, value in {"STEPS": 5, "SAMPLES": 20, "AT_ONCE": 50}.items():
        monkeypatch.setattr(inference, name, value)
    suite = tmp_path / "small.yaml"
    suite.write_text(SUITE)
    assert zoo("bench", str(suite), "--wandb", "disabled", "--jobs", "1")[0] == 0
    (path,) = tmp_path.glob("leaderboard/records/*/*.json")
    before, (folder,) = record.read(path), tmp_path.glob("runs/*/vae-*")
    assert before.skipped[GAPS[0]] == before.skipped[GAPS[1]] == "evaluate.gaps is 0"
    assert zoo("export", str(folder), "weights/vae")[0] == 0

    taken = []
    of = VanillaVAE.diagonal_posterior

    @contextlib.contextmanager
    def counting(stop: int) -> Iterator[None]:
        def posterior(self, x, y=None):
            taken.append(len(x))
            if len(taken) == stop:
                raise KeyboardInterrupt
            return of(self, x, y)

        with monkeypatch.context() as patch:
            patch.setattr(VanillaVAE, "diagonal_posterior", posterior)
            yield

    with counting(2):
        assert zoo("measure", str(suite), "gaps")[0] != 0
    places = path.parents[1]
    kept = per_example.read(before, places)

    def killed(*given):
        raise KeyboardInterrupt

    with counting(0), monkeypatch.context() as patch:
        patch.setattr(record, "write", killed)  # between the values and the record
        assert zoo("measure", str(suite), "gaps")[0] != 0
    assert taken == [50, 50, 50], "the first fifty were kept"
    assert record.read(path) == before and per_example.read(before, places).keys() == kept.keys()
    with np.load(path.with_suffix(".npz")) as file:
        assert {*file.files} == {*kept, *GAPS} - {"nll_iwae_2_all"}
    assert zoo("measure", str(suite), "gaps")[0] == 0
    after = record.read(path)
    values = per_example.read(after, places)
    assert values.keys() == kept.keys() | set(GAPS) and "elbo" in kept
    assert all(np.array_equal(values[name], each) for name, each in kept.items())
    assert per_example.paired_errors([after], [after], places).keys() >= set(GAPS)
    assert after.metrics.keys() == before.metrics.keys() | set(GAPS) and not set(GAPS) & after.skipped.keys()
    assert after.metrics[GAPS[1]].identity["images"] == ADDABLE["gaps"].asked["gaps"] == 100
    assert f"added by `zoo measure {suite} gaps`" in after.metrics[GAPS[0]].note and after.cell == before.cell
    assert GAPS[0] in (tmp_path / "leaderboard" / "README.md").read_text()
    path.write_bytes(record.dump(before).encode())
    words = ("--runs", "elsewhere", "--weights", "weights")
    assert zoo("measure", str(suite), "gaps", *words)[0] == 0
    assert record.read(path).metrics[GAPS[1]].value == after.metrics[GAPS[1]].value
