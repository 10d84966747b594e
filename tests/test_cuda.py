"""What only a GPU can show. Skipped without one; `benchmarks/on_gpu.sh` runs these and the rest in one call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.in_pieces import in_pieces
from tests.test_training import make_dropping
from zoo import create_model, list_models, noise
from zoo.config import resolve
from zoo.data.batches import Batches
from zoo.data.images import Images
from zoo.data.partners import Partners
from zoo.runs import load_run, train_run
from zoo.runs.together import train_beside, train_together
from zoo.training.capture import WARM_UP, CannotCapture, Captured
from zoo.training.precision import choose

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("variant", list_models())
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_every_variant_trains_with_amp(tmp_path: Path, variant: str, precision: str) -> None:
    # Statistics of batch normalisation move by a twentieth a step: nvae_lite's need some steps until they are any.
    length = ["train.epochs=4", "train.batch_size=32"] if variant == "nvae_lite" else ["train.epochs=2"]
    if variant == "quadrant_cvae":
        length.append("train.warmup=1")
    config = resolve(variant, "synthetic", settings=[*length, f"train.precision={precision}"])
    run = train_run(config, tmp_path, choose("cuda", precision))
    assert all(torch.isfinite(value).all() for value in run.model.state_dict().values())
    assert run.result.skipped_updates <= 2
    lost = run.result.curves.get("validation_reconstruction_loss")
    elbo = run.result.curves["validation_elbo"] if lost is None else [-value for value in lost]
    assert elbo[-1] > -800, elbo


def test_a_stopped_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    config = resolve("vae", "synthetic", settings=["train.epochs=3", "train.checkpoint_seconds=0", "train.ema=0.9"])
    train_run(config, tmp_path / "whole", choose("cuda"))
    in_pieces(lambda stop: train_run(config, tmp_path / "pieces", choose("cuda"), should_stop=stop))
    whole, pieces = (load_run(tmp_path / name).state_dict() for name in ("whole", "pieces"))
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)


@pytest.mark.parametrize("capture", ["false", "true"])
def test_a_run_with_dropout_that_is_stopped_ends_in_the_same_weights(tmp_path: Path, monkeypatch, capture: str) -> None:
    make_dropping(monkeypatch)
    settings = ["train.epochs=3", "train.batch_size=64", "train.checkpoint_seconds=0", f"train.capture={capture}"]
    config = resolve("vae", "synthetic", settings=settings)
    whole = train_run(config, tmp_path / "whole", choose("cuda"))
    pieces, stops = in_pieces(
        lambda stop: train_run(config, tmp_path / "pieces", choose("cuda"), should_stop=stop), every=7
    )
    assert stops >= 2 and whole.result.captured == (capture == "true")
    assert whole.result.curves == pieces.result.curves
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, pieces.model.state_dict()[name]), name


def test_evaluation_noise_is_the_cpu_s() -> None:
    drawn = []
    for device in ("cpu", "cuda"):
        with noise.keyed(5, torch.arange(100, device=device), range(3)):
            drawn.append(noise.normal(torch.empty(300, 7, device=device)).cpu())
    assert torch.allclose(*drawn, atol=2e-6)


@pytest.mark.parametrize("variant", list_models())
def test_terms_are_those_of_the_cpu(variant: str) -> None:
    choose("cuda", "float32")  # no TF32
    model = create_model(variant).eval()
    x = (torch.rand(8, 1, 28, 28) < 0.3).float()
    y = torch.arange(8) if model.conditional else None
    results = []
    for device in ("cpu", "cuda"):
        model.to(device)
        with torch.no_grad(), noise.keyed(0, torch.arange(8, device=device)):
            terms = model.terms(x.to(device), None if y is None else y.to(device))
        results.append(terms.elbo.cpu())
    assert torch.allclose(*results, rtol=2e-3)


@pytest.mark.parametrize("variant", list_models())
def test_a_captured_training_is_the_training(tmp_path: Path, variant: str) -> None:
    settings = ["train.warmup=2", "train.schedule=cosine", "train.ema=0.9", "train.clip=50", "train.precision=float32"]
    if variant == "ladder_vae":
        # Biases before a batch normalisation have a gradient that is rounding alone, of which Adam makes whole steps:
        # the two are apart by more than the tolerance when weights are by 1e-7, unless the steps are small.
        settings.append("train.learning_rate=1e-4")
    results = []
    if variant == "ada_vae":  # of which each batch draws partners as well: noise on bytes beside them
        settings += ["data.dequantise=uniform", "likelihood.name=gaussian"]
    for capture in ("false", "true"):
        more = [*settings, "train.epochs=3", "train.batch_size=64", f"train.capture={capture}"]
        config = resolve(variant, "synthetic", settings=more)
        results.append(train_run(config, tmp_path / capture, choose("cuda", "float32")).result)
    assert not results[0].captured
    assert results[1].captured
    assert results[0].skipped_updates == results[1].skipped_updates
    for name, curve in results[0].curves.items():
        assert results[1].curves[name] == pytest.approx(curve, rel=5e-3, abs=5e-2), name


def test_a_captured_run_that_is_stopped_ends_in_the_same_weights(tmp_path: Path) -> None:
    settings = ["train.epochs=4", "train.batch_size=32", "train.checkpoint_seconds=0", "train.ema=0.9"]
    config = resolve("vae", "synthetic", settings=settings)
    whole = train_run(config, tmp_path / "whole", choose("cuda"))
    pieces, stops = in_pieces(
        lambda stop: train_run(config, tmp_path / "pieces", choose("cuda"), should_stop=stop), every=7
    )
    assert whole.result.captured and pieces.result.captured and stops >= 2
    assert whole.result.curves == pieces.result.curves
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, pieces.model.state_dict()[name]), name


def test_a_capture_that_fails_leaves_generators_and_graphs_as_they_were() -> None:
    device = torch.device("cuda")
    own, others = (torch.Generator(device).manual_seed(seed) for seed in (1, 2))
    drawn = torch.zeros(4, device=device)
    beside = Captured(lambda: drawn.uniform_(generator=others), device, [others])
    for _ in range(WARM_UP + 2):
        beside()

    def waits() -> None:
        torch.rand(8, device=device)
        torch.rand(8, device=device, generator=own).sum().item()

    failing = Captured(waits, device, [own])
    for _ in range(WARM_UP):
        failing()
    before = [own.get_state(), torch.cuda.get_rng_state()]
    with pytest.raises(CannotCapture):
        failing()
    assert all(map(torch.equal, before, [own.get_state(), torch.cuda.get_rng_state()]))
    torch.rand(8, device=device)
    torch.rand(8, device=device, generator=own)
    beside()
    again = torch.Generator(device).manual_seed(2)
    for _ in range(WARM_UP + 3):
        wanted = torch.zeros(4, device=device).uniform_(generator=again)
    assert torch.equal(drawn, wanted)


@pytest.mark.parametrize(
    ("optimizer", "decay"), [("adam", 0.01), ("adamax", 0.0), ("rmsprop", 0.0), ("adamnormgrad", 0.0)]
)
def test_every_optimiser_is_captured(tmp_path: Path, optimizer: str, decay: float) -> None:
    more = [f"train.optimizer={optimizer}", f"train.weight_decay={decay}", "train.epochs=2", "train.batch_size=64"]
    results = []
    for capture in ("false", "true"):
        config = resolve("vae", "synthetic", settings=[*more, "train.precision=float32", f"train.capture={capture}"])
        results.append(train_run(config, tmp_path / capture, choose("cuda", "float32")).result)
    assert not results[0].captured and results[1].captured
    for name, curve in results[0].curves.items():
        assert results[1].curves[name] == pytest.approx(curve, rel=5e-3, abs=5e-2), name


@pytest.mark.parametrize("variant", ["vae", "beta_vae", "cvae", "flow_vae"])
def test_seeds_trained_at_once_are_the_runs_of_each_alone(tmp_path: Path, variant: str) -> None:
    # More steps than are run before the step is captured: most are replays. Small ones: at the usual rate weights that
    # are apart by 1e-7 end as far from each other as is allowed here.
    settings = ["train.epochs=4", "train.batch_size=64", "train.precision=float32", "train.warmup=2", "train.clip=5"]
    settings.append("train.learning_rate=1e-4")
    configs = [resolve(variant, "synthetic", seed, settings=settings) for seed in range(3)]
    folders = [tmp_path / f"s{config.seed}" for config in configs]
    assert train_together(configs, folders, choose("cuda", "float32")) == [True] * 3
    for config, folder in zip(configs, folders, strict=True):
        alone = train_run(config, tmp_path / f"alone{config.seed}", choose("cuda", "float32"))
        stacked = train_run(config, folder, choose("cuda", "float32"))
        assert stacked.result.together == 3
        for name, curve in alone.result.curves.items():
            assert stacked.result.curves[name] == pytest.approx(curve, rel=1e-3, abs=1e-2), name


def test_runs_beside_each_other_are_the_runs_alone(tmp_path: Path) -> None:
    settings = ["train.epochs=6", "train.batch_size=32", "train.precision=float32", "train.warmup=2"]
    kinds = ("vae", "iwae", "ladder_vae", "vae", "flow_vae", "cvae")
    configs = [resolve(variant, "synthetic", seed, settings=settings) for seed, variant in enumerate(kinds)]
    folders = [tmp_path / str(number) for number in range(len(configs))]
    compute = choose("cuda", "float32")
    assert train_beside(configs, folders, [compute] * len(configs)) == [True] * len(configs)
    for number, (config, folder) in enumerate(zip(configs, folders, strict=True)):
        alone, beside = train_run(config, tmp_path / f"alone{number}", compute), train_run(config, folder, compute)
        assert beside.result.together == len(configs) and beside.result.captured and alone.result.captured
        assert beside.result.curves == alone.result.curves, config.variant
        for name, value in alone.model.state_dict().items():
            assert torch.equal(value, beside.model.state_dict()[name]), (config.variant, name)


def test_pictures_that_do_not_fit_are_streamed() -> None:
    pixels = torch.randint(0, 256, (1000, 1, 8, 8), dtype=torch.uint8)
    # Pictures of its own for each: what lies on the device already is not streamed.
    kept, streamed = (
        Batches(Images(pixels.clone()), batch_size=32, device="cuda", shuffle_seed=0, resident_bytes=limit)
        for limit in (1 << 30, 1)
    )
    assert kept.resident and not streamed.resident
    for (x, _), (other, _) in zip(kept.epoch(0), streamed.epoch(0), strict=True):
        assert torch.equal(x, other)
    partners = Partners(Images(pixels, labels=torch.arange(1000) % 7))
    found = []
    for limit in (1 << 30, 1):
        batches = Batches(Images(pixels.clone()), batch_size=32, device="cuda", resident_bytes=limit, partners=partners)
        batches.generator = torch.Generator("cuda").manual_seed(0)
        found.append(torch.cat([y for _, y in batches.epoch(0)]))
    assert torch.equal(*found)
