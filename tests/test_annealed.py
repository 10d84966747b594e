"""Annealed importance sampling and its bidirectional check, against linear models whose log p(x) is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.catalogue import ANNEALED
from benchmarks.check.subject import subject
from benchmarks.evaluate import evaluate
from benchmarks.evaluation.annealing import annealing, lacking
from benchmarks.evaluation.foreseen import foreseen, unbounded
from benchmarks.evaluation.representation import batches_of
from benchmarks.metrics import annealed as module
from benchmarks.metrics.annealed import anneal, annealed, bidirectional, moved, step_sizes, temperatures
from benchmarks.metrics.likelihood import importance_weighted
from benchmarks.partial import Partial
from benchmarks.report.short import board
from benchmarks.report.tables import tables
from benchmarks.running import amend
from tests.test_board import make
from tests.test_oracles import batches, data, log_evidence, mean_and_error, solved, weight_and_mean, wrong
from zoo import noise
from zoo.config import EvaluateConfig, resolve
from zoo.data.batches import Batches
from zoo.data.synthetic import load_synthetic, ppca_log_prob
from zoo.errors import UsageError
from zoo.models.base import VAE
from zoo.models.vae import VanillaVAE
from zoo.runs import Run, train_run
from zoo.stopping import Stopped, stopping_when
from zoo.training.precision import choose

# w(e) = CONSTANT - 1/2 sum of PULL (e - PLACE)^2, with which f_t is a Gaussian for every t.
PULL, PLACE, CONSTANT = torch.tensor([3.0, 0.5, 1.0]).double(), torch.tensor([1.0, -1.5, 0.3]).double(), -7.0
TRUTH = CONSTANT - 0.5 * ((1 + PULL).log() + PULL * PLACE.square() / (1 + PULL)).sum().item()


def log_weight(e: Tensor) -> Tensor:
    return CONSTANT - 0.5 * (PULL * (e - PLACE).square()).sum(1)


def gaussian(t: float) -> tuple[Tensor, Tensor]:
    """Mean and deviation of f_t."""
    return t * PULL * PLACE / (1 + t * PULL), (1 + t * PULL).rsqrt()


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def momenta(seed: int) -> module.Momenta:
    generator = torch.Generator().manual_seed(seed)
    return lambda move, e: (
        torch.randn(e.shape, generator=generator, dtype=e.dtype),
        torch.rand(len(e), generator=generator, dtype=e.dtype),
    )


def never(move: int, e: Tensor) -> tuple[Tensor, Tensor]:
    return torch.randn_like(e), e.new_full((len(e),), math.inf)


def simulated(model: VanillaVAE, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The images that the model is asked for, as they are asked for."""
    seen, simulate = [], model.simulate

    def watched(n: int, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, e = simulate(n, y)
        seen.append(x)
        return x, e

    monkeypatch.setattr(model, "simulate", watched)
    return seen


def exact(x: Tensor) -> Tensor:
    """log p(x) of the linear models, whose posteriors differ and whose decoders do not."""
    model = solved(data())
    weight, mean = weight_and_mean(model)
    return ppca_log_prob(x.flatten(1), weight, mean, model.likelihood.sigma.double() ** 2)


# ---- the chains ------------------------------------------------------------------------------------------------------


def test_temperatures_rise_from_0_to_1_along_a_sigmoid() -> None:
    path = temperatures(10)
    assert path[0] == 0 and path[-1] == 1 and (path.diff() > 0).all()
    assert torch.allclose(path + path.flip(0), torch.ones(11).double())
    low, next_, high = (1 / (1 + math.exp(-x)) for x in (-4, -3.2, 4))
    assert path[1].item() == pytest.approx((next_ - low) / (high - low), rel=1e-9)
    assert temperatures(1).tolist() == [0, 1]


@pytest.mark.parametrize("size", [0.2, 0.8])
def test_a_weight_is_the_evidence_in_the_mean_whatever_the_moves_are(size: int) -> None:
    path, n = temperatures(8), 4000
    found = anneal(log_weight, normals(1, n, 3), path, torch.full((7, n), size).double(), momenta(1))
    mean, error = mean_and_error((found.log_weights[0] - TRUTH).exp())
    assert abs(mean - 1) < 4 * error and error < 0.03
    assert 0.5 < found.accepted.mean() < (0.999 if size < 0.5 else 0.95)


@pytest.mark.parametrize("size", [0.2, 0.8])
def test_backwards_from_an_exact_draw_it_is_one_over_the_evidence_in_the_mean(size: int) -> None:
    path, n = temperatures(8), 4000
    mean, deviation = gaussian(1.0)
    start = mean + deviation * normals(1, n, 3)
    found = anneal(log_weight, start, path, torch.full((7, n), size).double(), momenta(1), backwards=True)
    mean, error = mean_and_error((TRUTH - found.log_weights[0]).exp())
    assert abs(mean - 1) < 4 * error and error < 0.06


def test_more_temperatures_tighten_both_bounds() -> None:
    n, below, above = 500, [], []
    mean, deviation = gaussian(1.0)
    for steps in (1, 4, 30):
        sizes = torch.full((steps - 1, n), 0.4).double()
        up = anneal(log_weight, normals(1, n, 3), temperatures(steps), sizes, momenta(1))
        start = mean + deviation * normals(1, n, 3, seed=2)
        down = anneal(log_weight, start, temperatures(steps), sizes, momenta(3), backwards=True)
        below.append((TRUTH - up.log_weights).mean().item())
        above.append((down.log_weights - TRUTH).mean().item())
    for gaps in (below, above):
        assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
        assert gaps[2] < 0.15


def test_without_moves_a_chain_is_a_draw_of_importance_sampling() -> None:
    start = normals(4, 7, 3)
    sizes = torch.full((11, 7), 0.1).double()
    found = anneal(log_weight, start, temperatures(12), sizes, never)
    assert torch.allclose(found.log_weights.flatten(), log_weight(start.flatten(0, 1)), atol=1e-12)


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_moves_leave_their_temperature_as_it_is(t: float) -> None:
    n = 4000
    mean, deviation = gaussian(t)
    here, draw = module._at(log_weight, mean + deviation * normals(n, 3)), momenta(4)
    shares = []
    for move in range(15):
        here, chance = moved(log_weight, here, t, torch.full((n, 1), 0.85).double(), *draw(move, here.noise))
        shares.append(chance.mean().item())
    standard = (here.noise - mean) / deviation
    assert standard.mean(0).abs().max() < 4 / math.sqrt(n)
    assert (standard.square().mean(0) - 1).abs().max() < 4 * math.sqrt(2 / n)
    assert 0.3 < sum(shares) / len(shares) < 0.97
    # They have gone somewhere else.
    assert torch.allclose(here.log_weight, log_weight(here.noise))
    assert torch.allclose(here.gradient, PULL * (PLACE - here.noise))
    start = mean + deviation * normals(n, 3)
    assert torch.corrcoef(torch.stack([standard[:, 0], (start[:, 0] - mean[0]) / deviation[0]]))[0, 1].abs() < 0.8


def test_moves_leave_a_target_that_is_no_gaussian_as_it_is() -> None:
    # Of exp(-e^2 / 2 - t e^4) the moments are sums over a grid, and exact draws its quantiles.
    t, n = 0.7, 4000
    axis = torch.linspace(-5, 5, 20001).double()
    mass = torch.softmax(-0.5 * axis.square() - t * axis.pow(4), 0)
    start = axis[torch.searchsorted(mass.cumsum(0), (torch.arange(n).double() + 0.5) / n)].unsqueeze(1)
    quartic: Callable[[Tensor], Tensor] = lambda e: -e.pow(4).sum(1)  # noqa: E731
    here, draw = module._at(quartic, start), momenta(5)
    for move in range(15):
        here, chance = moved(quartic, here, t, torch.full((n, 1), 0.7).double(), *draw(move, here.noise))
    assert 0.3 < chance.mean() < 0.9
    for power in (2, 4):
        expected = (mass * axis.pow(power)).sum().item()
        spread = (mass * (axis.pow(power) - expected).square()).sum().sqrt().item()
        assert here.noise.pow(power).mean().item() == pytest.approx(expected, abs=4 * spread / math.sqrt(n))


def test_a_move_to_where_there_is_no_number_is_not_taken() -> None:
    broken: Callable[[Tensor], Tensor] = lambda e: torch.where(e > 0, math.nan, -e).sum(1)  # noqa: E731
    here = module._at(broken, torch.full((5, 1), -0.5).double())
    there, chance = moved(broken, here, 1.0, torch.ones(5, 1).double(), 9 * torch.ones(5, 1).double(), torch.ones(5))
    assert torch.equal(there.noise, here.noise) and torch.equal(there.log_weight, here.log_weight)
    assert (chance == 0).all()


def test_step_sizes_follow_the_target() -> None:
    # The deviation of f_t falls from 1 to 1/30.
    narrow: Callable[[Tensor], Tensor] = lambda e: -450 * e.square().sum(1)  # noqa: E731
    path, n = temperatures(200), 20
    sizes = step_sizes(narrow, normals(4, n, 5), path, momenta(1))
    assert sizes.shape == (199, n)
    assert sizes[-20:].mean() < 0.1 * sizes[:5].mean()
    found = anneal(narrow, normals(4, n, 5, seed=1), path, sizes, momenta(2))
    assert 0.6 < found.accepted.mean() < 0.95
    assert step_sizes(narrow, normals(4, n, 5), temperatures(1), momenta(1)).shape == (0, n)


# ---- a linear model --------------------------------------------------------------------------------------------------


def test_with_the_exact_posterior_every_image_has_its_evidence() -> None:
    x, n = data(), 8
    found = annealed(solved(x).float(), batches(n), 3, 0, 4096, n)
    assert torch.allclose(found[:, 0], log_evidence(x)[:n], atol=1e-4)


def test_without_moves_the_bound_is_the_importance_weighted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, n = wrong(data()).float(), 8
    monkeypatch.setattr(module, "moved", lambda log_weight, here, *_: (here, torch.zeros(len(here.noise))))
    found = annealed(model, batches(n), 5, 3, 4096, n)
    assert torch.allclose(found[:, 0], importance_weighted(model, batches(n), module.CHAINS, 3, 4096, n), atol=1e-6)


def test_the_annealed_bound_is_below_the_evidence_and_near_it() -> None:
    x, n = data(), 96
    model = solved(x, shift=0.4, widen=1.0).float()
    evidence, gaps = log_evidence(x)[:n], []
    loose = (evidence - importance_weighted(model, batches(n), module.CHAINS, 0, 4096, n)).mean()
    for steps in (2, 25):
        mean, error = mean_and_error(evidence - annealed(model, batches(n), steps, 0, 4096, n)[:, 0])
        gaps.append(mean)
        assert mean > -3 * error
    assert loose > gaps[0] > gaps[1]
    assert gaps[1] < 0.1 * loose and abs(gaps[1]) < 3 * error + 0.02


def test_the_two_bounds_of_images_that_the_model_drew_have_the_evidence_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, n, gaps = solved(data(), shift=0.4, widen=1.0).float(), 96, []
    for steps in (1, 25):
        with pytest.MonkeyPatch.context() as patch:
            seen = simulated(model, patch)
            found = bidirectional(model, batches(n), steps, 0, 4096, n)
        evidence = exact(torch.cat(seen))
        for apart in (evidence - found[:, 0], found[:, 1] - evidence):
            mean, error = mean_and_error(apart)
            assert mean > -3 * error
            assert mean < 0.2 if steps > 1 else mean > 0.5
        gaps.append((found[:, 1] - found[:, 0]).mean().item())
    assert gaps[1] < 0.2 * gaps[0]


def test_of_images_that_a_model_with_the_exact_posterior_drew_both_bounds_are_the_evidence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, n = solved(data()).float(), 8
    seen = simulated(model, monkeypatch)
    found = bidirectional(model, batches(n), 3, 0, 4096, n)
    assert torch.allclose(found[:, :2], exact(torch.cat(seen)).unsqueeze(1).expand(-1, 2), atol=1e-4)


@pytest.mark.parametrize("measure", [annealed, bidirectional])
def test_no_number_depends_on_how_many_images_are_held(measure, monkeypatch: pytest.MonkeyPatch) -> None:
    model, n, sizes = wrong(data()).float(), 6, []
    inner = model.log_weights
    monkeypatch.setattr(model, "log_weights", lambda x, y, k: sizes.append(len(x)) or inner(x, y, k))
    whole = measure(model, batches(n), 4, 3, 4096, n)
    assert max(sizes) == n
    for rows, held in ((4096, 3 * module.CHAINS * model.spec.dims), (1, module.HELD)):
        sizes.clear()
        monkeypatch.setattr(module, "HELD", held)
        assert torch.allclose(measure(model, batches(n), 4, 3, rows, n), whole, atol=1e-3)
        assert max(sizes) == (3 if rows == 4096 else 1)
    assert not torch.allclose(measure(model, batches(n), 4, 4, 4096, n), whole, atol=1e-3)
    assert torch.allclose(measure(model, batches(n), 4, 3, 4096, 4), whole[:4], atol=1e-3)


@pytest.mark.parametrize("measure", [annealed, bidirectional])
def test_what_was_stopped_goes_on_to_the_same_number_to_the_last_bit(
    measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, n, name = wrong(data()).float(), 10, {annealed: "ais", bidirectional: "bdmc"}[measure]
    monkeypatch.setattr(module, "HELD", 4 * module.CHAINS * model.spec.dims)
    whole, asked = measure(model, batches(n), 6, 3, 4096, n), []

    def stop() -> bool:
        asked.append(name)
        return len(asked) == 15

    kept = Partial(tmp_path / "kept", "this")
    with stopping_when(stop), pytest.raises(Stopped, match="evaluation"):
        measure(model, batches(n), 6, 3, 4096, n, kept)
    kept.write()
    again = Partial(tmp_path / "kept", "this")
    done = len(again.values(name)) // whole.shape[1]
    assert done in (4, 8)
    seen, inner = [], module._tuned
    monkeypatch.setattr(module, "_tuned", lambda *given: seen.append(given[-1].tolist()) or inner(*given))
    assert torch.equal(measure(model, batches(n), 6, 3, 4096, n, again), whole)
    assert sum(seen, []) == list(range(done, n))


def test_no_noise_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seeds, keyed = wrong(data()).float(), [], noise.keyed
    monkeypatch.setattr(module.noise, "keyed", lambda seed, *rest: seeds.append(seed) or keyed(seed, *rest))
    annealed(model, batches(4), 20, 3, 4096, 4)
    bidirectional(model, batches(4), 20, 3, 4096, 4)
    assert len(seeds) > 2 * 20 and len(set(seeds)) == len(seeds)


def test_the_generator_and_the_model_are_left_as_they_were() -> None:
    model = wrong(data()).float().train()
    torch.manual_seed(0)
    annealed(model, batches(4), 3, 3, 4096, 4)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0))) and model.training


# ---- which models ----------------------------------------------------------------------------------------------------


def fresh(name: str) -> VAE:
    """A small model whose weights are random, for bits."""
    return subject(name).make().eval()


def split(model: VAE) -> Batches:
    images = load_synthetic(64, 64, 8).prepare("threshold")["train"]
    return Batches(images, batch_size=64, condition="class" if model.conditional else "none")


@pytest.mark.parametrize("name", ["vae", "cvae", "vae_gan", "vamp_vae", "two_stage_vae", "ladder_vae", "hvamp_vae"])
def test_the_noise_of_an_image_that_was_drawn_makes_the_latents_that_it_was_drawn_with(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh(name)
    y = torch.arange(5) if model.conditional else None
    decoded, decode = [], model.decode
    monkeypatch.setattr(model, "decode", lambda z, *y: decoded.append(z) or decode(z, *y))
    if name == "two_stage_vae":
        second = model.second.decode
        monkeypatch.setattr(model.second, "decode", lambda u: decoded.append(u) or second(u))
    with torch.no_grad():
        x, e = model.simulate(5, y)
        drawn = [*decoded][: 2 if name == "two_stage_vae" else 1]
        decoded.clear()
        module.Noise(model, x, y).log_weight(x, y, 1)(e)
    again = [*decoded][-len(drawn) :]
    for one in drawn:
        assert any(one.shape == other.shape and torch.allclose(one, other, atol=1e-3) for other in again)
    assert x.unique().tolist() == [0, 1] and x.shape == (5, 1, 28, 28)


def test_images_that_are_drawn_are_of_the_calibrated_likelihood() -> None:
    model = fresh("vae_gan")
    for offset in (-100.0, 100.0):
        model.calibration.copy_(torch.tensor([0.0, offset]))
        x, _ = model.simulate(3)
        assert (x == float(offset > 0)).all()


@pytest.mark.parametrize("name", ["flow_vae", "hamiltonian_vae", "hvae", "energy_vae", "poincare_vae"])
def test_what_cannot_be_simulated_is_annealed_all_the_same(name: str) -> None:
    model = fresh(name)
    found = annealed(model, split(model), 4, 0, 4096, 3)
    assert found.isfinite().all() and (found[:, 1] > 0.3).all()
    with pytest.raises(UsageError, match="not one diagonal Gaussian|nobody knows which noise|prior is estimated"):
        model.simulate(2)


def test_a_variant_with_log_weights_of_its_own_is_not_simulated_from_those_of_another() -> None:
    class Own(VanillaVAE):
        def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
            return super().log_weights(x, y, k) + noise.normal(x.new_empty(k * len(x), 1)).view(k, len(x))

    ladder = type(fresh("ladder_vae"))

    class OwnLadder(ladder):
        log_weights = Own.log_weights

    vae = fresh("vae")
    own = Own(vae.spec, vae.settings).eval()
    layered = OwnLadder(vae.spec, fresh("ladder_vae").settings).eval()
    for model in (own, layered, fresh("joint_vae")):
        with pytest.raises(UsageError, match="nobody knows which noise"):
            model.simulate(2)
    assert vae.one_gaussian and not own.one_gaussian


def test_clipped_draws_are_no_draws_of_the_density() -> None:
    from zoo import create_model

    model = create_model("vae", data="mnist", likelihood={"name": "gaussian"})
    with pytest.raises(UsageError, match="draws of its gaussian are clipped"):
        model.simulate(2)
    solved(data()).simulate(2)  # real data lie anywhere


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vq_vae", "no function of normal noise: they draw none"),
        *((name, "no function of normal noise alone: they draw uniform noise")
          for name in ("m2", "joint_vae", "svae", "gamma_vae", "categorical_vae")),
        ("rae", "has no posterior"), ("vae", None),
    ],
)  # fmt: skip
def test_who_has_no_annealed_bound_says_why(name: str, reason: str | None) -> None:
    model, config = fresh(name), EvaluateConfig(ais=5)
    found = lacking(config, model, unbounded(model))
    images = load_synthetic(64, 64, 8).prepare("threshold")
    told = foreseen(config, model, images)
    assert found is None if reason is None else reason in found
    assert all(told.get(metric) == found for metric in ANNEALED)
    assert lacking(EvaluateConfig(), model, None) == "evaluate.ais is 0"


def test_noise_that_the_images_of_a_batch_share_is_none_of_an_image_s_own() -> None:
    model = fresh("vae")
    plain = model.log_weights
    model.log_weights = lambda x, y=None, k=1: plain(x, y, k) + noise.normal(x.new_empty(7)).sum()
    assert lacking(EvaluateConfig(ais=5), model, None).endswith("of normal noise that each image has of its own")


# ---- in an evaluation ------------------------------------------------------------------------------------------------

CHEAP = ["train.epochs=0", "evaluate.nll_samples=8", "evaluate.nll_images=6", "evaluate.quality_samples=0",
         "evaluate.latent=no", "evaluate.ais_images=5"]  # fmt: skip


def run(folder: Path, *settings: str, variant: str = "vae") -> Run:
    return train_run(resolve(variant, "synthetic", settings=[*CHEAP, *settings]), folder / "run", choose("cpu"))


def test_an_evaluation_that_is_asked_has_all_three(tmp_path: Path) -> None:
    made = run(tmp_path, "evaluate.ais=4")
    found = evaluate(made)
    nll, gain, gap = (found.metrics[name] for name in ANNEALED)
    assert [one["n"] for one in (nll, gain, gap)] == [5, 5, 5] and nll["identity"]["steps"] == 4
    assert {one["unit"] for one in (nll, gain, gap)} == {"nats"} and nll["better"] == "lower"
    iwae = found.per_example["nll_iwae_8"][:5]
    assert nll["value"] == pytest.approx(found.per_example["nll_ais"].mean().item())
    assert nll["value"] + gain["value"] == pytest.approx(iwae.mean().item(), abs=1e-4)
    each = iwae - found.per_example["nll_ais"]
    assert gain["stderr"] == pytest.approx(each.std().item() / math.sqrt(5), rel=1e-3) and gain["identity"]["k"] == 8
    direct = bidirectional(made.model, batches_of(made, made.images["test"]), 4, 0, 4096, 5)
    assert gap["value"] == pytest.approx((direct[:, 1] - direct[:, 0]).mean().item(), abs=1e-6)
    assert gap["identity"]["data"] == "simulated" and "of the moves accepted" in gap["note"]


def test_what_is_of_dequantised_bytes_says_so_and_what_has_no_moves_too(tmp_path: Path) -> None:
    made = run(tmp_path, "evaluate.ais=1", "data.dequantise=uniform", "likelihood.name=continuous_bernoulli")
    metrics, _, _ = annealing(made, batches_of(made, made.images["test"]), None)
    assert [metrics[name]["identity"].get("dequantised") for name in ANNEALED] == ["uniform", "uniform", None]
    assert metrics["nll_ais"]["note"] == metrics["ais_gap"]["note"] == "no moves: one temperature"


def test_an_evaluation_that_is_not_asked_has_none_and_what_is_missing_has_a_reason(tmp_path: Path) -> None:
    plain = evaluate(run(tmp_path))
    assert all(plain.skipped[name] == "evaluate.ais is 0" for name in ANNEALED)
    made = run(tmp_path / "flow", "evaluate.ais=2", "evaluate.nll_samples=0", variant="flow_vae")
    metrics, skipped, _ = annealing(made, batches_of(made, made.images["test"]), None)
    assert metrics.keys() == {"nll_ais"}
    assert skipped == {"ais_gain": "evaluate.nll_samples is 0",
                       "ais_gap": "its posterior is not one diagonal Gaussian"}  # fmt: skip


def test_a_board_has_them_under_further_measurements_and_the_bound_of_all_keeps_its_place() -> None:
    numbers = {"elbo": (-90.0, 0.1), "nll_iwae_512": (88.0, 0.2), "nll_ais": (87.0, 0.5), "ais_gain": (0.9, 0.1)}
    (table,) = tables([make("vae", numbers=numbers)])
    assert [column.metric for column in table.head] == ["elbo", "nll_iwae_512"]
    assert {"NLL (AIS)", "ais_gain"} <= {column.name for column in table.further}
    assert "NLL k=512" in (printed := board(table.rows[0].records)) and "87" not in printed


def test_what_a_finished_cell_is_measured_by_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, kept = run(tmp_path, "evaluate.ais=3"), []
    monkeypatch.setattr(Partial, "add", lambda self, name, values, add=Partial.add: kept.append(self) or add(
        self, name, values))  # fmt: skip
    found = amend._measured(made, "ais", tmp_path / "parts", tmp_path / "run")
    assert found.metrics.keys() == {*ANNEALED} == {*amend.ADDABLE["ais"].signs}
    assert amend.ADDABLE["ais"].asked["ais"] >= 50
    assert {one.folder for one in kept} == {tmp_path / "parts"}
