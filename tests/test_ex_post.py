"""Samples whose codes come from a density that is fitted after training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import record
from benchmarks.catalogue import EX_POST, EX_POST_FLOW, explains
from benchmarks.evaluate import evaluate
from benchmarks.evaluation.ex_post import WIDEST, FromDensity, ex_post, fitted
from benchmarks.evaluation.representation import batches_of
from benchmarks.latents import Latents
from benchmarks.metrics import extractors
from benchmarks.metrics.extractors import make_extractor
from benchmarks.metrics.frechet import frechet_estimate
from benchmarks.pictures import generate
from benchmarks.running.amend import ADDABLE
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from zoo import list_models, noise
from zoo.config import resolve
from zoo.data.mnist import partly_labelled
from zoo.distributions import code_flow
from zoo.distributions.code_density import CodeDensity, CodeDensitySettings
from zoo.distributions.code_flow import CodeFlow, CodeFlowSettings
from zoo.runs import Run, train_run
from zoo.runs.images import load_grey
from zoo.training.precision import choose

CHEAP = ["train.epochs=0", "evaluate.quality_samples=32", "evaluate.ex_post=2", "evaluate.nll_samples=0",
         "train.batch_size=32", "evaluate.latent=no", "data.options.n_train=64", "data.options.n_test=32"]  # fmt: skip
NAME, CPU = "fd_digits" + EX_POST, torch.device("cpu")
FLOW = "fd_digits" + EX_POST_FLOW
WITHOUT = {
    "cvae": "without its condition", "quadrant_cvae": "alone is no picture", "m2": "without its class",
    "vq_vae": "discrete", "vq_vae_2": "discrete", "categorical_vae": "discrete",
    "nvae_lite": f"{WIDEST} is the most",
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_fits_of_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_flow, "PASSES", 3)


def run(folder: Path, variant: str = "vae", *settings: str) -> Run:
    return train_run(resolve(variant, "synthetic", settings=[*CHEAP, *settings]), folder / "run", choose("cpu"))


@pytest.mark.parametrize("variant", list_models())
def test_every_variant_has_a_distance_or_a_reason(variant: str, tmp_path: Path) -> None:
    metrics, skipped = ex_post(run(tmp_path, variant))
    assert metrics.keys() == (set() if variant in WITHOUT else {NAME})
    assert skipped.keys() | metrics.keys() == {NAME, "fid_ex_post", "fd_efficientnet_lite0_ex_post"}
    # What keeps a density from its codes is no matter of a network that there is none of here.
    assert variant not in WITHOUT or all(WITHOUT[variant] in reason for reason in skipped.values())
    assert variant in WITHOUT or "GPU" in skipped["fid_ex_post"]
    for metric in metrics.values():
        assert metric["value"] > 0 and metric["identity"]["components"] == 2 and metric["identity"]["codes"] == 64


def test_it_is_of_as_many_samples_as_there_are_images_from_a_mixture_of_the_codes_of_bits(tmp_path: Path) -> None:
    sizes = ["data.options.n_train=200", "data.options.n_test=40", "evaluate.quality_samples=50"]
    made = run(tmp_path, "vae", "evaluate.ex_post=3", "evaluate.seed=5", *sizes)
    with torch.no_grad():  # so that codes and pictures differ, as those of a trained model do
        for layer in (made.model.head.weight, *(one for one in made.model.decoder.parameters() if one.dim() == 2)):
            layer.mul_(3)
    metric = ex_post(made)[0][NAME]
    ((_, bits, _),) = batches_of(made, made.images["train"], grey=True).sequential()
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    density = CodeDensity(CodeDensitySettings(components=3), made.model.settings.latent)
    density.fit(made.model.represent(bits).detach())
    with torch.no_grad(), noise.keyed(5, torch.arange(40)):
        means = made.model.likelihood.mean(made.model.decode(density.sample(40)))
    features = make_extractor("digits", CPU)
    real = features(load_grey(made.config)["test"].pixels)
    expected = frechet_estimate(features((255 * means).round().to(torch.uint8)), real)
    assert (metric["value"], metric["stderr"]) == pytest.approx((expected.value, expected.stderr), rel=1e-3)
    assert metric["identity"]["n"] == metric["identity"]["reference_n"] == 40


def test_a_flow_has_metrics_of_its_own_beside_those_of_the_mixture(tmp_path: Path) -> None:
    made = run(tmp_path, "vae", "evaluate.ex_post_flow=2", "evaluate.seed=5", "latent=4")
    both, skipped = ex_post(made)
    assert both.keys() == {NAME, FLOW}
    assert skipped.keys() == {
        name + density for name in ("fid", "fd_efficientnet_lite0") for density in (EX_POST, EX_POST_FLOW)
    }
    stated = both[FLOW]["identity"]
    assert (stated["density"], stated["flows"], stated["codes"]) == ("masked autoregressive flow", 2, 64)
    assert "components" not in stated and not {"density", "flows"} & both[NAME]["identity"].keys()
    assert both[FLOW]["value"] != both[NAME]["value"]
    alone = made.config.evaluate.model_copy(update={"ex_post": 0})
    found, _ = ex_post(replace(made, config=made.config.model_copy(update={"evaluate": alone})))
    assert found == {FLOW: both[FLOW]}
    ((_, bits, _),) = batches_of(made, made.images["train"], grey=True).sequential()
    density = CodeFlow(CodeFlowSettings(flows=2), 4)
    with torch.no_grad():
        density.fit(made.model.represent(bits))
        with noise.keyed(5, torch.arange(32)):
            means = made.model.likelihood.mean(made.model.decode(density.sample(32)))
        ((_, unseen, _),) = batches_of(made, made.images["test"]).sequential()
        codes = made.model.represent(unseen)
        plain = torch.distributions.Normal(0.0, 1.0).log_prob(codes).sum(1).mean()
        good = density.log_prob(codes).mean()
    features = make_extractor("digits", CPU)
    real = features(load_grey(made.config)["test"].pixels)
    expected = frechet_estimate(features((255 * means).round().to(torch.uint8)), real)
    assert both[FLOW]["value"] == pytest.approx(expected.value, rel=1e-3)
    said = f"; mean log-density of test codes {good:.2f} nats, under the standard normal {plain:.2f}"
    assert both[FLOW]["note"].endswith(said) and not both[NAME]["note"].endswith(said)
    assert both[NAME]["note"].endswith(f" nats, under the standard normal {plain:.2f}")


@pytest.mark.parametrize(
    ("latent", "images", "said"),
    [
        (4, 12, "a flow needs at least 20 training images, and there are 12"),
        (200, 64, "its codes have 200 dimensions; 128 is the most for a flow"),
    ],
)
def test_what_keeps_a_flow_away_keeps_no_mixture_away(latent: int, images: int, said: str, tmp_path: Path) -> None:
    made = run(tmp_path, "vae", "evaluate.ex_post_flow=2", f"latent={latent}")
    made.images = made.images.subset({"train": images})
    metrics, skipped = ex_post(made)
    assert metrics.keys() == {NAME}
    assert {skipped[name + EX_POST_FLOW] for name in ("fd_digits", "fid", "fd_efficientnet_lite0")} == {said}


def test_a_reason_of_the_mixture_is_none_of_the_flow() -> None:
    assert not explains(NAME, FLOW) and explains("fd_digits", FLOW) and explains("fid", "fid_ex_post_flow")


def test_a_labelled_image_that_training_sees_again_and_again_is_one_code(tmp_path: Path) -> None:
    made = run(tmp_path, "vae", "data.options.n_train=256")
    whole = ex_post(made)[0][NAME]
    made.images = partly_labelled(made.images, labelled=10, share=0.5)
    assert len(made.images["train"]) > 500
    found = ex_post(made)[0][NAME]
    assert (found["value"], found["identity"]) == (whole["value"], whole["identity"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["evaluate.quality_samples=0"], "quality_samples is 0"),
        (["data.options.n_test=5"], "needs at least 6 images"),
        (["latent=600"], "codes have 600 dimensions"),
    ],
)
def test_why_there_is_none(settings: list[str], said: str, tmp_path: Path) -> None:
    metrics, skipped = ex_post(run(tmp_path, "vae", *settings))
    assert not metrics and said in skipped[NAME]


def test_codes_that_are_not_finite_have_no_density(tmp_path: Path) -> None:
    made = run(tmp_path)
    with torch.no_grad():
        made.model.head.bias.fill_(float("nan"))
    metrics, skipped = ex_post(made)
    assert not metrics and set(skipped.values()) == {"codes of training images are not finite"}
    assert skipped.keys() == {NAME, "fid_ex_post", "fd_efficientnet_lite0_ex_post"}


def test_one_code_has_no_density_whatever_else_is_missing(tmp_path: Path) -> None:
    made = run(tmp_path)
    made.images = made.images.subset({"train": 1})
    metrics, skipped = ex_post(made)
    assert not metrics and set(skipped.values()) == {"needs at least 2 training images, and there are 1"}
    assert skipped.keys() == {NAME, "fid_ex_post", "fd_efficientnet_lite0_ex_post"}


def test_nobody_is_asked_for_it_unless_somebody_asks(tmp_path: Path) -> None:
    made = run(tmp_path)
    evaluation = made.config.evaluate.model_copy(update={"ex_post": 0})
    made = replace(made, config=made.config.model_copy(update={"evaluate": evaluation}))
    assert ex_post(made) == ({}, {})
    found = evaluate(made)
    assert "evaluate.ex_post" in found.skipped[NAME] and "fd_digits" in found.metrics
    assert found.skipped[FLOW] == "needs --set evaluate.ex_post_flow=T, a code"


def test_an_extractor_is_made_once_for_samples_of_the_prior_and_of_the_density(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, digits = [], extractors.EXTRACTORS["digits"]
    monkeypatch.setitem(extractors.EXTRACTORS, "digits", lambda device: made.append(digits(device)) or made[-1])
    found = evaluate(run(tmp_path))
    assert {"fd_digits", NAME} <= found.metrics.keys() and len(made) == 1


def test_of_an_autoencoder_that_has_such_a_density_it_is_the_distance_of_its_samples(tmp_path: Path) -> None:
    settings = ["train.epochs=3", "data.options.n_train=256", "data.options.n_test=64", "data.binarise=none",
                "density.components=1", "evaluate.ex_post=1", "evaluate.quality_samples=64"]  # fmt: skip
    made = run(tmp_path, "rae", *settings)
    found = evaluate(made).metrics
    assert found[NAME]["value"] == pytest.approx(found["fd_digits"]["value"], rel=1e-3)
    assert found["fd_digits"]["value"] > 1


class Identity(Latents):
    """Codes that are four pixels."""

    def __init__(self) -> None:
        pass

    def images(self, codes: Tensor, y: Tensor | None) -> Tensor:
        return codes.view(-1, 1, 2, 2)


def test_samples_have_the_distribution_of_the_codes_and_sample_i_is_of_the_seed_and_i() -> None:
    random = np.random.RandomState(0)
    means = np.array([[0.2, 0.3, 0.4, 0.5], [0.7, 0.6, 0.7, 0.4]])
    codes = means[random.randint(0, 2, 4000)] + 0.03 * random.standard_normal((4000, 4))
    density = CodeDensity(CodeDensitySettings(components=2), 4)
    density.fit(torch.from_numpy(codes).float())
    images = generate(FromDensity(Identity(), density), 2500, 3, CPU)
    pixels = images.double().flatten(1) / 255
    assert torch.allclose(pixels.mean(0), torch.from_numpy(codes.mean(0)), atol=0.02)
    assert np.allclose(np.cov(pixels.T.numpy()), np.cov(codes.T), atol=0.006)
    assert torch.equal(generate(FromDensity(Identity(), density), 1100, 3, CPU), images[:1100])
    assert not torch.equal(generate(FromDensity(Identity(), density), 1100, 4, CPU), images[:1100])


def test_a_temperature_scales_the_deviations_of_the_density_that_samples_are_drawn_from() -> None:
    density = CodeDensity(CodeDensitySettings(components=1), 4)
    density.means.fill_(0.5)
    drawn = [FromDensity(Identity(), density).sample(4000, temperature=t).flatten(1) for t in (0.0, 0.1)]
    assert (drawn[0] == 0.5).all()
    assert torch.allclose(drawn[1].std(0), torch.full((4,), 0.1), rtol=0.1)


def test_a_finished_cell_is_given_it_from_its_run_or_from_its_exported_model(zoo, tmp_path: Path) -> None:  # noqa: F811
    words = ("measure", "smoke", "ex_post", "--variants", "vae")
    assert zoo("bench", "smoke", "--variants", "vae,beta_vae", "--wandb", "disabled", "--jobs", "1")[0] == 0
    other, path = sorted(tmp_path.glob("leaderboard/records/*/*.json"))
    (run_folder,) = tmp_path.glob("runs/*/vae-*")
    for name in ("weights/vae", "wrong/vae"):
        of = run_folder if name.startswith("weights") else next(tmp_path.glob("runs/*/beta_vae-*"))
        assert zoo("export", str(of), name)[0] == 0
    before = path.read_bytes()
    assert zoo(*words)[0] == 0
    first = record.read(path).metrics[NAME]
    assert "added by `zoo measure smoke ex_post`" in first.note and "exported" not in first.note
    path.write_bytes(before)
    code, _, said = zoo(*words, "--runs", "elsewhere")
    assert code == 2 and "--runs says where it is" in said
    code, _, said = zoo(*words, "--runs", "elsewhere", "--weights", "wrong")
    assert code == 2 and "holds another model (beta_vae, seed 0) than that of vae, seed 0: " in said
    assert said.rstrip().endswith(": model.beta, variant differ.")
    assert path.read_bytes() == before
    # One cell that has no model here takes no other along.
    there = ("--runs", "elsewhere", "--weights", "weights")
    code, shown, said = zoo("measure", "smoke", "ex_post", "--variants", "beta_vae,vae", *there)
    assert code == 2 and "1 of 2 cells were left out; the first: weights/beta_vae" in said and "vae" in shown
    assert NAME in record.read(path).metrics and NAME not in record.read(other).metrics
    path.write_bytes(before)
    assert zoo(*words, *there)[0] == 0
    second = record.read(path).metrics[NAME]
    assert second.note.endswith("to the exported model")
    assert second.model_copy(update={"note": first.note}) == first
    rest = json.loads(path.read_text())
    assert NAME not in json.loads(other.read_text())["metrics"]
    assert rest["skipped"].keys() & {NAME} == set()


def test_a_flow_is_added_to_a_cell_that_has_the_mixture(zoo, tmp_path: Path) -> None:  # noqa: F811
    assert zoo("bench", "smoke", "--variants", "vae", "--wandb", "disabled", "--jobs", "1")[0] == 0
    (path,) = tmp_path.glob("leaderboard/records/*/*.json")
    key = record.read(path).cell.key
    assert zoo("measure", "smoke", "ex_post", "--variants", "vae")[0] == 0
    before = record.read(path).metrics
    assert FLOW not in before
    assert zoo("measure", "smoke", "ex_post_flow", "--variants", "vae")[0] == 0
    after = record.read(path)
    assert after.metrics.keys() == before.keys() | {FLOW} and after.metrics[NAME] == before[NAME]
    assert "added by `zoo measure smoke ex_post_flow`" in after.metrics[FLOW].note
    flows = ADDABLE["ex_post_flow"].asked["ex_post_flow"]
    assert after.metrics[FLOW].identity["flows"] == CodeFlowSettings().flows == flows
    assert after.cell.key == key and FLOW not in after.skipped
    page = (tmp_path / "leaderboard" / "README.md").read_text()
    assert NAME in page and FLOW in page and "masked autoregressive flow" in page


def test_nothing_is_added_to_a_record_of_a_model_that_was_trained_another_time(zoo, tmp_path: Path) -> None:  # noqa: F811
    bench = ("bench", "smoke", "--variants", "vae", "--wandb", "disabled", "--jobs", "1")
    words = ("measure", "smoke", "ex_post", "--variants", "vae")
    assert zoo(*bench)[0] == 0
    assert zoo(*bench, "--runs", "again", "--board", "other")[0] == 0
    assert zoo("export", str(next(tmp_path.glob("again/*/vae-*"))), "weights/vae")[0] == 0
    (path,) = tmp_path.glob("leaderboard/records/*/*.json")
    before = path.read_bytes()
    for place in (("--runs", "again"), ("--runs", "elsewhere", "--weights", "weights")):
        code, _, said = zoo(*words, *place)
        assert code == 2 and "holds the model of another training than that of the record of vae-" in said
        assert path.read_bytes() == before
    assert zoo(*words, "--runs", "again", "--board", "other")[0] == 0


def test_samples_of_a_finished_run_are_drawn_from_it(
    zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    shown: dict[str, Tensor] = {}
    keep = lambda images, path, columns: shown.update({path.name: images})  # noqa: E731
    monkeypatch.setattr("benchmarks.report.figures.grid", keep)
    made = run(tmp_path, "vae", "train.epochs=1")
    folder = str(tmp_path / "run")
    assert zoo("sample", folder, "--n", "8", "--ex-post", "2", "--out", "a.png")[0] == 0
    assert zoo("sample", folder, "--n", "8", "--out", "b.png")[0] == 0
    batches = batches_of(made, made.images["train"], made.images.binarise == "dynamic")
    two, flow = CodeDensitySettings(components=2), CodeFlowSettings()
    assert torch.equal(shown["a.png"], generate(fitted(made.model, batches, two), 8, 0, CPU))
    assert not torch.equal(shown["a.png"], shown["b.png"])
    assert zoo("sample", folder, "--n", "8", "--ex-post", "flow", "--out", "c.png")[0] == 0
    assert torch.equal(shown["c.png"], generate(fitted(made.model, batches, flow), 8, 0, CPU))
    assert not torch.equal(shown["c.png"], shown["a.png"]) and not torch.equal(shown["c.png"], shown["b.png"])
    for wrong in ("0", "-1", "maf", "2.5"):
        code, _, said = zoo("sample", folder, "--ex-post", wrong)
        assert (code, said) == (2, f"zoo: --ex-post is a number of Gaussians from 1, or flow, not '{wrong}'.\n")
    run(tmp_path / "other", "vq_vae")
    code, _, said = zoo("sample", str(tmp_path / "other" / "run"), "--ex-post", "2")
    assert (code, said) == (2, "zoo: its codes are discrete.\n")
