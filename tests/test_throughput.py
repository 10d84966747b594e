"""What is compared with pythae is the same thing: networks, loss, pictures; and every round is answered."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.performance.peers import networks
from benchmarks.performance.peers.contest import ratio
from benchmarks.throughput import bare_epochs, trainer_epochs
from tests.faults.children import fork, wait
from zoo import noise
from zoo.config import resolve
from zoo.data.companions import parted
from zoo.runs import build_model
from zoo.runs.images import load_images
from zoo.training.precision import choose

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def pictures(n: int) -> torch.Tensor:
    """uint8 (n, 1, 28, 28), smooth."""
    coarse = torch.rand(n, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=28, mode="bilinear").mul(255).to(torch.uint8)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_the_networks_are_pythae_s(network: str) -> None:
    model = networks.build(network)
    assert sum(parameter.numel() for parameter in model.parameters()) == networks.PARAMETERS[network]
    with torch.no_grad():
        rebuilt = model.reconstruct(pictures(2) / 255)
    assert rebuilt.shape == (2, 1, 28, 28)
    assert 0 < rebuilt.min() and rebuilt.max() < 1  # a sigmoid is at the end


def test_the_loss_is_pythae_s_but_for_a_constant() -> None:
    # pythae: half the summed squared error, plus the KL to the standard normal.
    model = networks.build("mlp")
    x = pictures(5) / 255
    with torch.no_grad(), noise.keyed(0, torch.arange(5)):
        terms = model.terms(x)
    q = model.infer(x)
    mean, log_variance = q.mean, q.log_variance
    kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
    error = 0.5 * (model.decode(terms.aux["z"]) - x).square().flatten(1).sum(1)
    constant = 0.5 * networks.SPEC.dims * torch.log(torch.tensor(2 * torch.pi))
    assert torch.allclose(-terms.elbo - constant, error + kl, rtol=1e-4)


def two_rounds(folder: Path, contestant: str, *words: str) -> list[dict]:
    """What a contestant, a process of its own as in a contest, answers to two lines."""
    (folder / "asked").write_text("go\ngo\n")

    def connect() -> None:
        for number, name, how in ((0, "asked", os.O_RDONLY), (1, "answers", os.O_WRONLY | os.O_CREAT)):
            os.dup2(os.open(name, how), number)
        sys.stdin = open(0, closefd=False)

    module = f"benchmarks.performance.peers.{contestant}"
    child = fork(folder, *words, prepare=connect, main=lambda: runpy.run_module(module, run_name="__main__"))
    assert wait(child) == 0, (folder / "said").read_text()
    return [json.loads(line) for line in (folder / "answers").read_text().splitlines()]


@needs_fork
def test_a_variant_trains_in_rounds_too(tmp_path: Path) -> None:
    first, second = two_rounds(tmp_path, "variant_loop", "--variant", "vae", "--images", "256")
    assert first.keys() == second.keys()
    assert 100 < second["loss"] < first["loss"] < 600


@needs_fork
@pytest.mark.parametrize("contestant", ["zoo_loop", "bare_loop"])
def test_a_contestant_answers_each_round_with_one_line(contestant: str, tmp_path: Path) -> None:
    np.save(tmp_path / "pictures.npy", pictures(256).numpy())
    first, second = two_rounds(tmp_path, contestant, "--network", "mlp", "--pictures", "pictures.npy")
    assert first.keys() == second.keys() == {"wall", "processor", "pages", "loss", "peak"}
    assert 15 < second["loss"] < first["loss"] < 20  # it trains, and everybody's loss is the same one
    assert second["peak"] >= first["peak"] > 0


def test_the_ratio_is_that_of_the_pairs() -> None:
    # A machine that halves its speed in the last repeat halves both.
    given = ratio("a / b", [3.0, 3.3, 1.5], [2.0, 2.2, 1.0])
    assert given == {"a / b": 1.5, "a to b, range": "1.50 to 1.50"}


@pytest.mark.parametrize("variant", ["vae", "cvae", "m2", "ada_vae", "s2_beta_vae", "s2_factor_vae"])
def test_the_bare_loop_tells_a_model_what_the_trainer_does(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["data.options.n_train=96", "data.options.n_validation=16", "train.batch_size=32", "data.binarise=none"]
    config, compute = resolve(variant, "synthetic", settings=sizes), choose("cpu")
    images = load_images(config)
    seen: list[tuple[torch.Tensor, torch.Tensor | None]] = []
    model = type(build_model(config, images.spec))
    losses = model.losses

    def watched(self, x, y=None, progress=1.0):
        seen.append((x, y))
        return losses(self, x, y, progress)

    monkeypatch.setattr(model, "losses", watched)
    train = images["train"]
    label_of = {picture.numpy().tobytes(): label for picture, label in zip(train.pixels, train.labels, strict=True)}
    for epoch in (bare_epochs(config, images, compute), trainer_epochs(config, images, compute)):
        seen.clear()
        epoch()
        assert len(seen) == 3
        for x, y in seen:
            labels = _labels(x, label_of)
            if variant == "vae":
                assert y is None
            elif variant == "ada_vae":
                assert not torch.equal(x, y) and torch.equal(_labels(y, label_of), labels)
            elif variant.startswith("s2_"):
                others, told = parted(y, x.shape[1:])
                assert not torch.equal(x, others)
                torch.testing.assert_close(told[:, 0], _labels(others, label_of) / 10)
            else:
                assert torch.equal(y, labels)


def _labels(x: torch.Tensor, label_of: dict[bytes, torch.Tensor]) -> torch.Tensor:
    return torch.stack([label_of[picture.numpy().tobytes()] for picture in x.mul(255).round().to(torch.uint8)])
