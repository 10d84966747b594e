"""How a published number is measured: the k-sample bound at any scale, what the test split is for, whose statistics."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import record
from benchmarks.catalogue import ALL
from benchmarks.evaluate import Evaluation, _bounds
from benchmarks.metrics.likelihood import importance_weighted
from benchmarks.partial import Partial
from tests.conftest import ROOT
from zoo import create_model, runs
from zoo.config import EvaluateConfig, resolve
from zoo.data.batches import Batches
from zoo.data.images import DataSpec, Images
from zoo.data.synthetic import load_synthetic
from zoo.likelihoods import LIKELIHOODS
from zoo.models.iwae import k_sample_loss
from zoo.training.precision import choose

K = 10
EXTREMES = {
    "all large": (torch.full((K, 1), 1e4), 1e4),
    "all small": (torch.full((K, 1), -1e4), -1e4),
    "one large": (torch.tensor([[1e4]] + [[-1e4]] * (K - 1)), 1e4 - math.log(K)),
    "three large": (torch.tensor([[1e4]] * 3 + [[-1e4]] * (K - 3)), 1e4 + math.log(0.3)),
    "close and small": (torch.tensor([[-1e4 + i % 2] for i in range(K)]), -1e4 + math.log((1 + math.e) / 2)),
}


class Said(torch.nn.Module):
    """A model whose log-weights are said to it."""

    spec = DataSpec(shape=(1, 1, 1), support="binary")

    def __init__(self, log_weights: Tensor) -> None:
        super().__init__()
        self.rest = iter(log_weights)

    def log_weights(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        return torch.stack([next(self.rest) for _ in range(k)]).expand(k, len(x))


@pytest.mark.parametrize("rows", [K, 4, 1])
@pytest.mark.parametrize("name", EXTREMES)
def test_the_bound_that_is_reported_is_exact_for_weights_of_any_size(name: str, rows: int) -> None:
    log_weights, expected = EXTREMES[name]
    batches = Batches(Images(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)), batch_size=1)
    bound = importance_weighted(Said(log_weights.double()), batches, K, seed=0, rows=rows)
    assert bound.dtype == torch.float64 and bound.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", EXTREMES)
def test_the_bound_that_is_trained_on_and_its_gradient_are_finite_for_weights_of_any_size(name: str) -> None:
    log_weights, expected = EXTREMES[name]
    log_weights = log_weights.clone().requires_grad_()
    loss = k_sample_loss(log_weights)
    # Float32 numbers near 10,000 are 0.001 apart, and the gradient's weights are exponentials of such differences.
    assert loss.item() == pytest.approx(-expected, abs=1e-3)
    (gradient,) = torch.autograd.grad(loss, log_weights)
    assert torch.isfinite(gradient).all() and gradient.sum().item() == pytest.approx(-1, abs=1e-3)


LOGS, MEANS, EXPS = {"log", "log2", "log10"}, {"mean", "sum", "nanmean", "nansum", "average"}, {"exp", "exp2"}


def called(node: ast.AST, names: set[str]) -> ast.AST | None:
    """What a call of one of ``names`` is of: the first argument of a function, the tensor of a method."""
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name) and node.func.id in names:
        return node.args[0] if node.args else None
    if not isinstance(node.func, ast.Attribute) or node.func.attr.removesuffix("_") not in names:
        return None
    owner = node.func.value
    module = isinstance(owner, ast.Name) and owner.id in ("torch", "np", "math")
    return (node.args[0] if node.args else None) if module else owner


def within(node: ast.AST | None, names: set[str]) -> list[ast.AST]:
    """What each call of one of ``names`` inside of ``node`` is of."""
    return [] if node is None else [found for inner in ast.walk(node) if (found := called(inner, names)) is not None]


def logs_of_means_of_exponentials(source: str) -> list[int]:
    """The lines on which a logarithm is taken of what has a mean or sum of exponentials in it."""
    tree = ast.parse(source)
    calls = [(node.lineno, called(node, LOGS)) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [line for line, inner in calls if any(within(mean, EXPS) for mean in within(inner, MEANS))]


@pytest.mark.parametrize(
    "source",
    [
        "torch.log(log_w.exp().mean(0))",
        "torch.log(torch.exp(w).mean(0))",
        "torch.exp(w).mean(0).log()",
        "log_w.exp().mean(0).log()",
        "torch.log(torch.mean(torch.exp(w)))",
        "math.log(sum(math.exp(w) for w in weights) / k)",
        "np.log(np.exp(w - w.max()).sum() / k) + w.max()",
    ],
)
def test_a_logarithm_of_a_mean_of_exponentials_is_found_however_it_is_spelt(source: str) -> None:
    assert logs_of_means_of_exponentials(f"x = 1\ny = {source}") == [2]


@pytest.mark.parametrize(
    "source",
    [
        "torch.logsumexp(log_w, 0) - math.log(k)",
        "torch.log(w).mean().exp()",
        "torch.log(w.exp()).mean()",
        "variance.exp().sum(1)",
        "x.mean(0).clamp(0.001, 0.999).log()",
        "log.info(str(w.exp().mean()))",
        "torch.log(-torch.expm1(-2.0 * a)).sum()",
        "log_w.exp().mean(0)",
    ],
)
def test_what_is_no_logarithm_of_a_mean_of_exponentials_is_left_alone(source: str) -> None:
    assert logs_of_means_of_exponentials(source) == []


def test_no_mean_of_weights_is_taken_outside_of_their_logarithm() -> None:
    sources = [path for folder in ("zoo", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert sources
    found = {str(path.relative_to(ROOT)): logs_of_means_of_exponentials(path.read_text()) for path in sources}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("support", ["binary", "8-bit", "real"])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_only_what_is_a_likelihood_of_the_data_is_reported_in_nats(name: str, support: str) -> None:
    spec = DataSpec((1, 4, 4), support)
    sizes = {"latent": 2, "encoder": {"hidden": [4]}, "decoder": {"hidden": [4]}}
    model = create_model("vae", data=spec, likelihood={"name": name, "sigma": 0.3}, **sizes).eval()
    pixels = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8)
    pixels = {"binary": 255 * (pixels > 127).byte(), "8-bit": pixels, "real": pixels.float() / 255}[support]
    said = Evaluation()
    _bounds(said, model, Batches(Images(pixels), batch_size=6), EvaluateConfig(nll_samples=3), Partial())
    in_nats = {metric for metric, entry in said.metrics.items() if entry["unit"] in ("nats", "bits/dim")}
    if support in LIKELIHOODS[name].supports:  # which tests/test_likelihoods.py holds to sums and integrals
        assert in_nats >= {"elbo", "distortion", "rate", "nll_iwae_3"} and "reconstruction_loss" not in said.metrics
        return
    # The rate is a divergence of codes whatever the pixels are.
    assert in_nats == {"rate"} and said.metrics["reconstruction_loss"]["unit"] == ""
    assert set(said.metrics) == {"rate", "reconstruction_loss"}
    for metric in ("elbo", "distortion", "nll", "bits_per_dim"):
        assert said.skipped[metric] == f"a {name} is not a likelihood of {support} data"


@pytest.mark.parametrize("support", ["binary", "8-bit"])
def test_the_k_sample_bound_of_a_loss_is_asked_for_by_name_and_has_no_unit(support: str) -> None:
    sizes = {"latent": 2, "encoder": {"hidden": [4]}, "decoder": {"hidden": [4]}, "likelihood": {"name": "bernoulli"}}
    model = create_model("vae", data=DataSpec((1, 4, 4), support), **sizes).eval()
    with torch.no_grad():  # the posterior is the prior and the decoder does not look: every weight is the likelihood
        for layer in (model.head, model.decoder.output):
            layer.weight.zero_()
        model.head.bias.zero_()
    pixels = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8)
    pixels = 255 * (pixels > 127).byte() if support == "binary" else pixels
    said, silent = Evaluation(), Evaluation()
    for out, k in ((said, 5), (silent, 0)):
        asked = EvaluateConfig(nll_samples=3, loss_samples=k)
        _bounds(out, model, Batches(Images(pixels), batch_size=6), asked, Partial())
    assert silent.skipped.get("iwae_loss") == said.skipped.get("iwae_loss")
    if support == "binary":
        assert "in nats" in said.skipped["iwae_loss"]
        assert "nll_iwae_3" in said.metrics and "iwae_loss_5" not in said.metrics
        return
    x, p = pixels.double().flatten(1) / 255, torch.sigmoid(model.decoder.output.bias.double())
    expected = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1).mean().item()
    found = said.metrics["iwae_loss_5"]
    assert found["value"] == pytest.approx(expected, rel=1e-6) and found["unit"] == "" and found["n"] == 6
    assert found["identity"] | {"k": 5, "likelihood": "bernoulli"} == found["identity"]


def test_every_committed_bound_has_its_k_in_its_name_and_is_of_test_images_with_bits_of_a_stated_seed() -> None:
    board = ROOT / "leaderboard"
    records = [*record.read_all(board / "records"), *record.read_all(board / "reproductions" / "records")]
    seen = 0
    for one in records:
        for name, metric in one.metrics.items():
            if name == "elbo" or name.startswith("nll"):
                assert metric.identity["split"] == "test", one.cell.stem
            if name.startswith("nll"):
                seen += 1
                first, bounded = f"nll_iwae_{metric.identity['k']}", metric.identity["images"]
                if name == first + ALL:  # of all images, by those that `first` is of
                    assert metric.n == one.metrics["elbo"].n > bounded == one.metrics[first].n, one.cell.stem
                else:
                    assert name == first and metric.n == bounded, one.cell.stem
        if one.config["data"]["binarise"] == "dynamic":
            # The bits that the seed stands for are pinned in tests/test_data.py.
            assert one.config["data"]["test_bits_seed"] == 777, one.cell.stem
    assert seen


def test_batch_statistics_of_the_ladder_are_those_of_the_last_weights_over_the_training_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As Sonderby et al. collect them before every test; neither they nor the weights know of the test images."""
    images = load_synthetic(256, 64, 64).prepare("threshold")
    test = replace(images["test"], pixels=255 - images["test"].pixels)
    settings = ["latent=4", "hidden=[16, 8]", "depth=1", "train.epochs=2", "train.batch_size=64", "train.keep=last"]
    states = []
    for name, shown in (("one", images), ("other", replace(images, splits=images.splits | {"test": test}))):
        monkeypatch.setattr(runs, "load_images", lambda config, shown=shown: shown)
        config = resolve("ladder_vae", "synthetic", settings=settings)
        model = runs.train_run(config, tmp_path / name, choose("cpu")).model
        states.append(model.state_dict())
        # Equal batches without noise: the mean of their means is that of all images, through the weights as they are.
        linear, norm, _ = model.up[0]
        with torch.no_grad():
            expected = linear(shown["train"].pixels.flatten(1).float() / 255).mean(0)
        torch.testing.assert_close(norm.running_mean, expected, rtol=0, atol=1e-5)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
