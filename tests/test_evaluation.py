"""What an evaluation measures, what it leaves out and why, and what it must never change: the key of a record."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import matrix
from benchmarks.catalogue import CODEBOOK, METRICS, explains, family, listed
from benchmarks.evaluate import Evaluation, _bounds, _say_what_is_missing, evaluate
from benchmarks.evaluation import classification, representation
from benchmarks.evaluation.anomaly import anomaly
from benchmarks.evaluation.factors import _codes, disentanglement
from benchmarks.evaluation.foreseen import foreseen
from benchmarks.evaluation.quality import sample_quality, wanted
from benchmarks.evaluation.representation import _probes, batches_of
from benchmarks.metrics.aggregate import total_correlation
from benchmarks.metrics.codes import Codes, FactorSpace
from benchmarks.metrics.disentanglement import score_codes, score_space
from benchmarks.metrics.extractors import make_extractor
from benchmarks.metrics.likelihood import active_units, bound, importance_weighted, measured
from benchmarks.metrics.quality import image_quality
from benchmarks.partial import Partial
from benchmarks.pictures import generate
from benchmarks.record import Metric, cell_key
from benchmarks.report.figures import png
from zoo import create_model, noise
from zoo.config import BESIDE, RunConfig, decisive, resolve
from zoo.data.batches import Batches
from zoo.data.classes import only_class, without_class
from zoo.data.images import DataSpec, Images, ImageSet
from zoo.data.mnist import partly_labelled
from zoo.data.shapes import load_shapes
from zoo.data.synthetic import load_ppca, load_synthetic
from zoo.errors import UsageError, ZooError
from zoo.models.base import VAE
from zoo.models.categorical_vae import CategoricalVAE
from zoo.models.joint_vae import JointVAE
from zoo.models.m2 import M2
from zoo.models.svae import SphericalVAE, on_sphere
from zoo.noise import seed_for
from zoo.registry import registry
from zoo.runs import Run, train_run
from zoo.runs.images import _images, _loaded, load_grey, load_images, load_outliers
from zoo.training.precision import choose

CHEAP = ["train.epochs=0", "evaluate.nll_samples=2", "evaluate.nll_images=8", "evaluate.quality_samples=0"]
FRECHET = ("fd_digits", "fd_efficientnet_lite0", "fid")


def run(folder: Path, variant: str = "vae", data: str = "synthetic", *settings: str) -> Run:
    """An untrained run."""
    return train_run(resolve(variant, data, settings=[*CHEAP, *settings]), folder / "run", choose("cpu"))


def other_data(monkeypatch: pytest.MonkeyPatch, **options) -> None:
    entry = registry().datasets["synthetic"]
    monkeypatch.setitem(registry().datasets, "other", entry.model_copy(update={"options": options}))
    _loaded.cache_clear()  # the name was another set's in the test before
    _images.cache_clear()


# ---- nothing is left blank -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "data", "settings"),
    [
        ("vae", "synthetic", ["evaluate.latent=yes", "evaluate.quality_samples=32"]),
        ("cvae", "synthetic", []),
        ("joint_vae", "synthetic", ["variables=2"]),
        ("vq_vae", "synthetic", ["evaluate.latent=no"]),
        ("rae", "synthetic", ["evaluate.anomaly=fashion_mnist"]),
        ("flow_vae", "ppca", ["data.options.n_train=256"]),
        ("ladder_vae", "synthetic", ["data.binarise=none", "evaluate.nll_samples=0"]),
        ("vae", "synthetic", ["data.options.shape=[3,16,16]", "data.binarise=none", "likelihood.name=bernoulli"]),
        ("vae", "synthetic", ["data.binarise=none", "likelihood.name=continuous_bernoulli"]),
        ("vae", "synthetic", ["data.dequantise=uniform", "evaluate.quality_samples=32"]),
        ("vae", "synthetic", ["data.dequantise=uniform", "likelihood.name=logistic"]),
        ("vae", "ppca", ["data.options.n_train=256", "likelihood.name=laplace"]),
        ("vae", "synthetic", ["data.options.shape=[4,16,16]", "data.binarise=none", "evaluate.quality_samples=32"]),
        ("vae", "synthetic", ["data.options.n_test=1", "evaluate.quality_samples=32"]),
    ],
)
@pytest.mark.filterwarnings("error:var")
def test_every_metric_is_measured_or_has_a_reason(variant: str, data: str, settings: list[str], tmp_path) -> None:
    made = run(tmp_path, variant, data, *settings)
    found, known = evaluate(made), foreseen(made.config.evaluate, made.model, made.images)
    # What is foreseen is so, in the words of the evaluation, unless it says less of more.
    assert not [name for name in found.metrics for skipped in known if explains(skipped, name)]
    assert {name: found.skipped.get(name, why) for name, why in known.items()} == known
    for metric in METRICS:
        measured = any(metric.matches(name) for name in found.metrics)
        reasons = [reason for skipped, reason in found.skipped.items() if explains(skipped, metric.name)]
        assert measured != bool(reasons), (metric.name, reasons)
        assert all(reason and "\n" not in reason for reason in reasons)
    for name, made in found.metrics.items():
        known = listed(name)
        assert (made["unit"], made["better"]) == (known.unit, known.better), name
        Metric.model_validate(made)
    assert all(png(images) for images in found.pictures.values())


def test_what_has_a_codebook_a_grid_says_under_which_names_they_are_measured(tmp_path: Path) -> None:
    found = evaluate(run(tmp_path, "vq_vae_2", "synthetic", "data.options.n_test=16", "evaluate.latent=no"))
    for name in CODEBOOK:
        said, names = found.skipped[name].split(": ")
        assert said == "each grid has its own" and names == f"{name}_top, {name}_bottom"
        assert found.metrics.keys() >= {*names.split(", ")}
        assert not [skipped for skipped in found.skipped if explains(skipped, f"{name}_GRID")]


def test_one_image_is_too_few_to_say_which_of_its_code_s_numbers_vary(tmp_path: Path) -> None:
    found = evaluate(run(tmp_path, "vae", "synthetic", "data.options.n_test=1"))
    assert "active_units" not in found.metrics
    assert found.skipped["active_units"] == "needs at least 2 images, and the test split has 1"


def test_a_dimension_is_active_above_a_variance_of_a_hundredth() -> None:
    unit = torch.tensor([[-1.0], [1.0]]).repeat(500, 1)
    codes = unit / unit.std() * torch.tensor([0.0099, 0.0101]).sqrt()
    assert active_units(codes) == 1


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("vae", {}),
        ("vae", {"prior": {"name": "diagonal"}}),
        ("svae", {}),
        ("poincare_vae", {}),
        ("gamma_vae", {}),
        ("gamma_vae", {"prior_shape": 0.5, "prior_rate": 3.0}),
        ("categorical_vae", {"latent": 3, "classes": 4}),
        ("categorical_vae", {"latent": 3, "classes": 4, "prior": "learned"}),
        ("joint_vae", {"latent": 3, "variables": 2, "classes": 4}),
        ("m2", {}),
    ],
)
def test_activity_is_counted_against_the_prior_s_variance(variant: str, settings: dict) -> None:
    """Of codes drawn from the prior every dimension is active, of those a twentieth as far from their mean none."""
    model = create_model(variant, **settings)
    with torch.no_grad():
        for parameter in getattr(model, "prior", model).parameters() if variant == "vae" else ():
            parameter.uniform_(-8, -7)
        if settings.get("prior") == "learned":
            model.prior_logits.uniform_(-2, 2)
        codes = drawn_codes(model, 50_000)
        scale = torch.as_tensor(model.code_variance)
    torch.testing.assert_close(codes.var(0), scale.expand(codes.shape[1]).to(codes.dtype), rtol=0.1, atol=0)
    assert active_units(codes, scale) == codes.shape[1]
    assert active_units(codes.mean(0) + (codes - codes.mean(0)) / 20, scale) == 0


def drawn_codes(model: VAE, n: int) -> torch.Tensor:
    """What `represent` would give if a code of the prior were known: classes as one-hot."""
    one_hot = torch.nn.functional.one_hot
    if isinstance(model, SphericalVAE):
        return on_sphere(torch.randn(n, model.settings.latent))
    if isinstance(model, CategoricalVAE):
        each = [torch.multinomial(p.exp(), n, replacement=True) for p in model.log_prior()]
        return torch.cat([one_hot(classes, model.settings.classes).float() for classes in each], 1)
    if isinstance(model, JointVAE):
        classes = one_hot(torch.randint(model.settings.classes, (n, model.settings.variables)), model.settings.classes)
        return torch.cat([model.prior.sample(n), classes.flatten(1).float()], 1)
    if isinstance(model, M2):
        classes = one_hot(torch.randint(model.spec.classes, (n,)), model.spec.classes)
        return torch.cat([classes.float(), torch.randn(n, model.settings.latent)], 1)
    return model.prior.sample(n)


@pytest.mark.parametrize(("split", "n"), [("validation", 40), ("test", 60)])
def test_every_number_is_of_the_images_of_the_split_that_it_names(split: str, n: int, tmp_path: Path) -> None:
    sizes = [f"data.options.n_{name}={size}" for name, size in (("train", 150), ("validation", 40), ("test", 60))]
    asked = [f"evaluate.split={split}", "evaluate.quality_samples=100", "evaluate.seed=3"]
    made = run(tmp_path, "vae", "synthetic", *asked, *sizes)
    found, config = evaluate(made), made.config.evaluate
    batches = batches_of(made, made.images[split])
    assert torch.equal(found.per_example["elbo"], bound(made.model, batches, config.seed).elbo)
    tight = importance_weighted(made.model, batches, 2, config.seed, config.rows, 8)
    assert torch.equal(found.per_example["nll_iwae_2"], -tight)
    moments = made.model.diagonal_posterior(next(iter(batches.sequential(n)))[1]).moments()
    shared = [estimate.value for estimate in total_correlation(*moments, n, config.seed)]
    names = ("total_correlation", "index_code_information")
    assert [found.metrics[name]["value"] for name in names] == pytest.approx(shared)
    (_, x, y), grey = next(iter(batches.sequential(n))), load_grey(made.config)[split].pixels
    error = (made.model.reconstruct(x, y) - x).square().flatten(1).mean(1)
    assert found.metrics["psnr"]["value"] == pytest.approx((-10 * error.log10()).mean().item(), rel=1e-5)
    active = (made.model.represent(x).var(0) > 0.01).sum().item()
    assert found.metrics["active_units"]["value"] == active
    # Samples are means, which are grey: so is what they are compared with.
    samples = generate(made.model, n, config.seed, made.compute.device)
    expected = image_quality(samples, grey, make_extractor("digits", made.compute.device))
    for name in ("fd_digits", "kid_digits", "precision_digits", "coverage_digits"):
        assert found.metrics[name]["value"] == pytest.approx(expected[name]["value"], rel=1e-6)
        assert found.metrics[name]["identity"]["reference"] == expected[name]["identity"]["reference"]
    for name in ("elbo", "rate", "distortion", "psnr", "ssim", "linear_probe", "knn_accuracy", "active_units"):
        assert (found.metrics[name]["n"], found.metrics[name]["identity"]["split"]) == (n, split), name


def test_samples_are_means_at_draws_of_the_prior_and_each_is_of_its_own_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, device = run(tmp_path).model, torch.device("cpu")
    with torch.no_grad(), noise.keyed(3, torch.arange(7)):
        means = model.likelihood.mean(model.decode(model.prior.sample(7)))
    whole = generate(model, 7, 3, device)
    assert whole.dtype == torch.uint8 and (whole.float() / 255 - means).abs().max() <= 0.5 / 255 + 1e-6
    monkeypatch.setattr("benchmarks.pictures.ROWS", 3)
    assert torch.equal(generate(model, 7, 3, device), whole) and torch.equal(generate(model, 4, 3, device), whole[:4])
    assert not torch.equal(generate(model, 7, 4, device), whole)


def test_what_a_code_holds_is_measured_with_its_error(tmp_path: Path) -> None:
    found = evaluate(run(tmp_path, "vae", "synthetic", "evaluate.latent=yes"))
    for name in ("linear_probe", "knn_accuracy"):
        made = found.metrics[name]
        # Even the code of a network that nobody trained keeps the strokes apart.
        assert 0.5 < made["value"] <= 1 and made["n"] == 256 and made["identity"]["training_codes"] == 512
        assert made["stderr"] == pytest.approx((made["value"] * (1 - made["value"]) / 255) ** 0.5, rel=1e-6)
    assert found.metrics["total_correlation"]["identity"] == {"split": "test", "components": 256, "seed": 0}
    assert found.metrics["total_correlation"]["unit"] == "nats"
    for name in ("pca", "tsne"):
        assert found.pictures[name].dtype == torch.uint8 and found.pictures[name].shape == (1, 3, 420, 480)


@pytest.mark.parametrize("most", [10_000, 40])
def test_probes_learn_from_training_codes_and_are_scored_on_those_of_the_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(representation, "TRAIN_CODES", 2 * most)
    monkeypatch.setattr(representation, "TEST_CODES", most)
    sizes = ["data.options.n_train=200", "data.options.n_test=100"]
    made = run(tmp_path, "vae", "synthetic", "data.binarise=none", "evaluate.seed=3", *sizes)
    # A tenth of the classes are wrong, so that no probe is right of all.
    splits = {
        name: replace(images, labels=torch.where(torch.arange(len(images)) % 10 == 0, 9 - images.labels, images.labels))
        for name, images in made.images.splits.items()
    }
    made.images = replace(made.images, splits=splits, known_sha256=None)
    found = evaluate(made).metrics
    (train, y_train), (test, y_test) = (
        (made.model.represent(part.pixels[kept] / 255).detach(), part.labels[kept])
        for part, size in ((splits["train"], 2 * most), (splits["test"], most))
        for kept in [representation.chosen(len(part), size, 3)]
    )
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(train.double(), y_train)
    near = KNeighborsClassifier(10).fit(train, y_train)
    assert found["linear_probe"]["value"] == pytest.approx(linear.score(test.double(), y_test), abs=1 / len(test))
    assert found["knn_accuracy"]["value"] == pytest.approx(near.score(test, y_test), abs=1 / len(test))
    assert found["linear_probe"]["n"] == found["knn_accuracy"]["n"] == len(test) == min(most, 100)
    assert found["knn_accuracy"]["value"] < 1


def test_codes_that_are_all_the_same_are_left_out_in_a_sentence(tmp_path: Path) -> None:
    made = run(tmp_path)
    torch.nn.init.zeros_(made.model.head.weight)
    skipped = evaluate(made).skipped
    for name in ("linear_probe", "knn_accuracy", "pca", "tsne"):
        assert skipped[name] == "every dimension of the code is constant"


def test_a_picture_that_training_sees_again_with_its_class_is_one_training_code(tmp_path: Path) -> None:
    made = run(tmp_path, "m2")
    made.images = partly_labelled(made.images, labelled=20, share=0.5)
    assert (made.images["train"].labels >= 0).sum() == 520
    found = evaluate(made).metrics
    for name in ("linear_probe", "knn_accuracy"):
        assert found[name]["identity"]["training_codes"] == 20


@pytest.mark.parametrize(("variant", "split"), [("vae", "train"), ("m2", "test")])
def test_classes_that_nobody_knows_are_left_out_in_a_sentence(tmp_path: Path, variant: str, split: str) -> None:
    made = run(tmp_path, variant)
    hidden = replace(made.images[split], labels=torch.full_like(made.images[split].labels, -1))
    made.images = replace(made.images, splits=made.images.splits | {split: hidden}, known_sha256=None)
    found = evaluate(made)
    assert found.skipped["linear_probe"] == found.skipped["knn_accuracy"]
    assert found.skipped["linear_probe"] == f"no image of the {split} split shows its class"
    assert ("no image" in found.skipped["classification_error"]) == (variant == "m2")
    assert all(math.isfinite(made["value"]) for made in found.metrics.values())


def test_the_fast_dci_stands_for_the_slow_one() -> None:
    found = Evaluation({"disentanglement@hist-gbt": {}, "mig": {}}, {})
    _say_what_is_missing(found)
    assert "disentanglement" not in found.skipped and "mig" not in found.skipped
    assert found.skipped["completeness"] == found.skipped["modularity"] == "needs factors"
    nothing = Evaluation({}, {})
    _say_what_is_missing(nothing)
    assert nothing.skipped["disentanglement@hist-gbt"] == nothing.skipped["disentanglement"] == "needs factors"


def test_a_map_of_codes_is_not_scored_number_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(tmp_path)
    test = made.images["test"]
    factors = torch.arange(len(test)).remainder(2).unsqueeze(1)
    known = replace(test, factors=factors, factor_names=("even",), factor_sizes=(2,), factor_kind="measured")
    made.images = replace(made.images, splits=made.images.splits | {"test": known}, known_sha256=None)
    monkeypatch.setattr("benchmarks.evaluation.factors.LARGEST", 31)
    assert disentanglement(made) == (
        {}, {"disentanglement": "needs a code of at most 31 numbers, and this one has 32"},
    )  # fmt: skip


SIZES = (3, 4, 2)


def planted(folder: Path, n_train: int, n_test: int, intervenes: bool, *settings: str) -> Run:
    """A run whose pictures hold the values of their factors, and whose code reads them off."""

    def render(factors: np.ndarray) -> np.ndarray:
        pictures = np.zeros((len(factors), 1, 28, 28), np.uint8)
        pictures[:, 0, 0, : len(SIZES)] = 51 * factors
        return pictures

    def split(n: int, seed: int) -> Images:
        factors = np.random.default_rng(seed).integers(0, SIZES, (n, len(SIZES)))
        return Images(render(factors), None, factors, ("a", "b", "c"), SIZES, "exact")

    made = run(folder, "vae", "synthetic", *settings)
    splits = {"train": split(n_train, 0), "validation": split(8, 1), "test": split(n_test, 2)}
    spec = DataSpec((1, 28, 28), "8-bit")
    made.images = ImageSet("planted", splits, spec, render=render if intervenes else None)
    made.model.represent = lambda x, y=None: (5 * x).round().flatten(1)[:, : len(SIZES)]
    return made


@pytest.mark.parametrize("intervenes", [True, False])
def test_a_code_that_is_the_factors_gets_the_scores_of_one(tmp_path: Path, intervenes: bool) -> None:
    made = planted(tmp_path, 300, 90, intervenes, "evaluate.factor_images=200", "evaluate.seed=3")
    metrics, skipped = disentanglement(made)
    if intervenes:
        expected = score_space(FactorSpace(SIZES, ("a", "b", "c"), np.asarray), seed=3, n_train=200, n_test=100)
        assert metrics["factor_vae_score"]["value"] == metrics["beta_vae_score"]["value"] == 1
        assert metrics["factor_vae_score"]["n"] == 5000 and metrics["factor_vae_active"]["value"] == len(SIZES)
    else:
        parts = (made.images["train"].factors[:200], made.images["test"].factors)
        train, test = (part.numpy() for part in parts)
        expected = score_codes(Codes(train.astype(np.float32), train, test.astype(np.float32), test))
        assert "factor_vae_score" not in metrics
    assert {name: metric["value"] for name, metric in metrics.items()} == pytest.approx(dict(expected))
    assert set(skipped) == set(expected.skipped) and metrics["mig"]["value"] > 0.9
    sizes = (metrics["mig"]["n"], metrics["informativeness_test@hist-gbt"]["n"], metrics["explicitness_train"]["n"])
    assert sizes == (200, 100 if intervenes else 90, 200)


def test_the_use_of_choices_is_of_each_variable_and_says_of_how_many(tmp_path: Path) -> None:
    made = run(tmp_path, "joint_vae", "synthetic", "variables=3", "classes=4")
    with torch.no_grad():
        made.model.choices.weight.mul_(30.0)
        made.model.choices.weight[:4] = 0.0
        made.model.choices.bias[:4] = torch.tensor([200.0, 0.0, 0.0, 0.0])  # of the first variable one class for all
    found = evaluate(made)
    entropy, information = (found.metrics[f"choice_{name}"] for name in ("entropy", "information"))
    assert information["identity"] == {"split": "test", "variables": 3, "classes": 4} and information["n"] == 256
    assert 0 < information["value"] < entropy["value"] < math.log(4) and 0 < information["stderr"] < 0.05
    assert entropy["note"].startswith("mean over the variables, of 0.000 to ") and entropy["unit"] == "nats"
    other = evaluate(run(tmp_path / "other"))
    assert other.skipped["choice_information"] == "needs categorical variables"


def test_scores_of_codes_say_of_which_split_they_are_where_that_is_not_the_test_split(tmp_path: Path) -> None:
    of = {}
    for split in ("test", "validation"):
        made = planted(tmp_path / split, 300, 8, False, f"evaluate.split={split}")
        of[split] = {name: one["identity"] for name, one in disentanglement(made)[0].items()}
    assert of["test"] and all("split" not in identity for identity in of["test"].values())
    both = of["test"].keys() & of["validation"].keys()  # few codes may lack a value that a score needs
    assert "mig" in both
    assert all(of["validation"][name] == of["test"][name] | {"split": "validation"} for name in both)
    drawn = disentanglement(planted(tmp_path / "drawn", 300, 8, True, "evaluate.split=validation"))[0]
    assert drawn and all("split" not in one["identity"] for one in drawn.values()), "they are of codes of neither"


def test_what_a_model_measures_without_having_named_it_is_refused_by_its_name(tmp_path: Path) -> None:
    made = run(tmp_path)
    made.model.measure = lambda x, y=None: {"code_norm": x.flatten(1).norm(dim=1)}
    with pytest.raises(ZooError, match=r"measure\(\) gives 'code_norm', which its `measures` does not name"):
        measured(made.model, batches_of(made, made.images["test"]), 0)


def test_codes_of_real_data_are_of_the_data_as_it_is(tmp_path: Path) -> None:
    made = planted(tmp_path, 300, 90, False)
    of_bytes, _ = disentanglement(made)
    splits = {
        name: replace(images, pixels=images.pixels.float() / 255) for name, images in made.images.splits.items()
    }
    made.images = ImageSet("planted", splits, DataSpec((1, 28, 28), "real"))
    metrics, skipped = disentanglement(made)
    assert metrics == of_bytes and metrics["mig"]["value"] > 0.9, skipped


def test_codes_of_training_images_are_of_bits_where_those_are_drawn_anew(tmp_path: Path) -> None:
    made, seen = run(tmp_path), []
    made.model.represent = lambda x, y=None: seen.append(x) or x.flatten(1)
    grey = made.images["train"].pixels
    codes = _codes(made, made.images["train"])
    known, shown = made.images["train"], made.images["test"]
    _probes(made, shown, torch.randn(len(shown), grey[0].numel()))
    for pixels in (torch.from_numpy(codes), *seen):
        assert set(pixels.unique().tolist()) == {0.0, 1.0}
    assert codes.mean() == pytest.approx(grey.float().mean().item() / 255, abs=0.005) and len(codes) == len(known)


@pytest.mark.parametrize(
    ("n_train", "n_test", "asked", "said"),
    [(300, 1, 200, "z_test has 1 sample"), (300, 90, 1, "none does in 1 training images")],
)
def test_too_few_codes_are_left_out_in_a_sentence(tmp_path, n_train: int, n_test: int, asked: int, said: str) -> None:
    metrics, skipped = disentanglement(planted(tmp_path, n_train, n_test, False, f"evaluate.factor_images={asked}"))
    assert not metrics and said in skipped["disentanglement"]


def test_a_split_without_images_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_data(monkeypatch, n_test=0)
    with pytest.raises(UsageError, match="the test split of 'other' has no image to evaluate on"):
        matrix.measure(resolve("vae", "other", settings=CHEAP), tmp_path / "run", choose("cpu"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_that_training_needs_is_named_where_it_is_empty(tmp_path: Path, split: str) -> None:
    config = resolve("vae", "synthetic", settings=[*CHEAP, "data.binarise=none", f"data.options.n_{split}=0"])
    with pytest.raises(UsageError, match=f"the {split} split of 'synthetic' has no image, and training needs some"):
        matrix.measure(config, tmp_path / "run", choose("cpu"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("shape", "settings", "device", "measured", "reasons"),
    [
        ((1, 28, 28), {}, "cpu", {"fd_digits"}, {"fid": "no GPU", "fd_efficientnet_lite0": "needs colour"}),
        ((1, 28, 28), {}, "cuda", {"fd_digits", "fid"}, {"fd_efficientnet_lite0": "needs colour"}),
        ((1, 28, 28), {"inception": "yes"}, "cpu", {"fd_digits", "fid"}, {"fd_efficientnet_lite0": "needs colour"}),
        ((3, 28, 28), {"inception": "no"}, "cuda", {"fd_efficientnet_lite0"}, {"fid": "off", "fd_digits": "1x28x28"}),
        ((3, 64, 64), {"inception": "bf16"}, "cuda", {"fd_efficientnet_lite0", "fid_bf16"},
         {"fid": "measured in bfloat16", "fd_digits": "1x28x28"}),
        ((4, 28, 28), {"inception": "bf16"}, "cpu", set(), dict.fromkeys(FRECHET, "1 or 3 channels")),
        ((1, 28, 28), {"quality_samples": 0}, "cuda", set(), dict.fromkeys(FRECHET, "quality_samples is 0")),
    ],
)  # fmt: skip
def test_the_features_that_apply_are_those_of_the_images_and_the_device(
    shape: tuple[int, int, int], settings: dict, device: str, measured: set[str], reasons: dict[str, str]
) -> None:
    config = resolve("vae", "mnist").evaluate.model_copy(update=settings)
    left, skipped = wanted(config, DataSpec(shape, "8-bit"), torch.device(device))
    assert set(left.values()) == measured and skipped.keys() == reasons.keys()
    assert all(reasons[name] in reason for name, reason in skipped.items())


def test_too_few_pictures_are_left_out_in_a_sentence(tmp_path: Path) -> None:
    metrics, skipped = sample_quality(run(tmp_path, "vae", "synthetic", "evaluate.quality_samples=5"))
    assert not metrics and skipped["fd_digits"] == "needs at least 6 images, and there are 5"


@pytest.mark.parametrize("beyond", [False, True])
def test_samples_are_compared_with_real_data_only_in_the_range_of_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beyond: bool
) -> None:
    splits = {
        name: replace(images, pixels=images.pixels.float() / 255 + 0.5 * beyond)
        for name, images in load_synthetic().splits.items()
    }
    real = ImageSet("real", splits, DataSpec((1, 28, 28), "real", classes=10))
    monkeypatch.setattr("benchmarks.evaluation.quality.load_grey", lambda config: real)
    metrics, skipped = sample_quality(run(tmp_path, "vae", "synthetic", "evaluate.quality_samples=32"))
    assert ("fd_digits" in metrics) != beyond
    assert ("leaves [0, 1]" in skipped.get("fd_digits", "")) == beyond


@pytest.mark.parametrize(("variant", "settings"), [("vae", []), ("quadrant_cvae", ["observed=1"])])
def test_bits_are_of_the_numbers_that_are_predicted(tmp_path: Path, variant: str, settings: list[str]) -> None:
    found = evaluate(run(tmp_path, variant, "synthetic", "data.binarise=none", "evaluate.factor_images=0", *settings))
    numbers = 28 * 28 * (3 if settings else 4) // 4
    bits, nll = found.metrics["bits_per_dim"], found.metrics["nll_iwae_2"]
    assert bits["value"] == pytest.approx(nll["value"] / (numbers * math.log(2))) and bits["unit"] == "bits/dim"
    assert bits["stderr"] == pytest.approx(nll["stderr"] / (numbers * math.log(2)))


@pytest.mark.parametrize("name", ["auto", "laplace", "continuous_bernoulli"])
def test_of_dequantised_bytes_a_density_is_reported_in_nats_and_bits_of_the_bytes(tmp_path: Path, name: str) -> None:
    noisy = ["data.dequantise=uniform", f"likelihood.name={name}", "evaluate.factor_images=0"]
    made = run(tmp_path, "vae", "synthetic", *noisy)
    found = evaluate(made).metrics
    assert found["bits_per_dim"]["value"] == pytest.approx(found["nll_iwae_2"]["value"] / (784 * math.log(2)))
    for metric in ("elbo", "distortion", "rate", "nll_iwae_2", "bits_per_dim"):
        assert found[metric]["identity"]["dequantised"] == "uniform" and found[metric]["identity"]["split"] == "test"
    assert "reconstruction_loss" not in found
    # The same weights on the same noise, as numbers in [0, 1] that nobody says were bytes.
    x, (first, *_) = made.model.likelihood, batches_of(made, made.images["test"]).sequential(8)
    with torch.no_grad(), noise.keyed(0, first[0]):
        terms = made.model.terms(first[1])
    x.log_unit = 0.0
    with torch.no_grad(), noise.keyed(0, first[0]):
        torch.testing.assert_close(terms.elbo, made.model.terms(first[1]).elbo - 784 * math.log(256))


def test_a_decoder_that_knows_nothing_needs_eight_bits_for_a_dequantised_byte(tmp_path: Path) -> None:
    made = run(tmp_path, "vae", "synthetic", "data.dequantise=uniform", "likelihood.name=continuous_bernoulli")
    for part in (made.model.decoder, made.model.head):
        for parameter in part.parameters():
            parameter.data.zero_()
    found = evaluate(made).metrics
    assert found["bits_per_dim"]["value"] == pytest.approx(8.0, rel=1e-6)
    assert found["elbo"]["value"] == pytest.approx(-784 * math.log(256), rel=1e-6)
    assert found["rate"]["value"] == 0.0 and found["elbo"]["stderr"] < 1e-3


def test_dequantised_bytes_under_what_is_no_density_have_a_loss_of_their_own(tmp_path: Path) -> None:
    found = evaluate(run(tmp_path, "vae", "synthetic", "data.dequantise=uniform", "likelihood.name=bernoulli"))
    assert found.metrics["reconstruction_loss"]["identity"] == {
        "split": "test", "dequantised": "uniform", "likelihood": "bernoulli"
    }  # fmt: skip
    assert found.skipped["elbo"] == "a bernoulli is not a likelihood of dequantised data"


def test_codes_that_are_scored_are_of_the_middle_of_a_dequantised_byte(tmp_path: Path) -> None:
    made = planted(tmp_path, 300, 90, False)
    of_bytes, _ = disentanglement(made)
    seen, represent = [], made.model.represent
    made.model.represent = lambda x, y=None: seen.append(x) or represent(x, y)
    made.images = made.images.prepare("none", dequantise="uniform")
    metrics, _ = disentanglement(made)
    assert all(torch.equal((256 * x - 0.5).round(), 256 * x - 0.5) for x in seen)
    assert metrics["mig"]["value"] == pytest.approx(of_bytes["mig"]["value"], abs=0.02)


def test_bytes_without_a_likelihood_have_no_bits(tmp_path: Path) -> None:
    made = run(tmp_path, "vae", "synthetic", "data.binarise=none")
    made.model.log_likelihood = made.model.likelihood.log_prob
    del made.model.likelihood
    found = Evaluation()
    _bounds(found, made.model.eval(), batches_of(made, made.images["test"]), made.config.evaluate, Partial())
    assert "nll_iwae_2" in found.metrics
    assert found.skipped["bits_per_dim"] == "the model has no `likelihood` that says whether its nats are of bytes"


def test_factors_colour_a_picture_where_there_are_no_classes(tmp_path: Path) -> None:
    from benchmarks.evaluation.representation import _colours

    factors = torch.tensor([[0, 0], [0, 1], [0, 2], [1, 0], [0, 1], [0, 2]])
    images = Images(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), None, factors, ("rare", "even"), (2, 3), "exact")
    colours, title, names = _colours(run(tmp_path), images)
    assert title == "even" and names == ("0", "1", "2") and torch.equal(colours, factors[:, 1])


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_settings_that_came_later_leave_the_keys_of_old_records_alone() -> None:
    plain = RunConfig(variant="vae")
    old = {name: value for name, value in plain.model_dump(mode="json")["evaluate"].items()
           if name not in ("rows", "latent", "anomaly", "cas", "ex_post", "ex_post_flow", "loss_samples",
                           "coded", "gaps", "clustering", "ais", "ais_images")}  # fmt: skip
    assert plain.identity()["evaluate"] == old
    later = ({"latent": "no"}, {"anomaly": ["fashion_mnist"]}, {"cas": 10}, {"ex_post": 5}, {"loss_samples": 5})
    for asked in (*later, {"coded": 5}, {"ex_post_flow": 5}, {"gaps": 5}, {"clustering": True}, {"ais": 5}):
        config = RunConfig(variant="vae", evaluate=asked)
        assert config.identity()["evaluate"] == old | asked
        assert cell_key(config.identity()) != cell_key(plain.identity())


IDLE = {"nll_images": 3, "ais_images": 5, "inception": "no", "ex_post": 2, "ex_post_flow": 2}


@pytest.mark.parametrize("name", IDLE)
def test_what_decides_a_number_only_beside_another_setting_is_no_part_of_a_key_without_it(name: str) -> None:
    others = BESIDE[name]
    without = RunConfig(variant="vae", evaluate=dict.fromkeys(others, 0))
    beside = [RunConfig(variant="vae", evaluate=dict.fromkeys(others, 0) | {one: 5}) for one in others]
    for config, same in ((without, True), *((one, False) for one in beside)):
        evaluate = config.evaluate.model_copy(update={name: IDLE[name]})
        asked = config.model_copy(update={"evaluate": evaluate})
        assert (asked.identity() == config.identity()) == same
        assert asked.evaluate != config.evaluate, "what is measured afterwards goes by it"
    dumped = {"evaluate": {name: IDLE[name]}}  # where there is no other setting that has its default
    assert (decisive(dumped) == dumped) == (name != "ais_images")
    assert BESIDE.keys() == IDLE.keys()


def test_what_is_no_part_of_a_key_decides_no_number(tmp_path: Path) -> None:
    found = []
    for asked in ({}, IDLE):
        none = ("evaluate.latent=no", "evaluate.nll_samples=0", "evaluate.nll_images=null")
        one = run(tmp_path, "vae", "synthetic", "data.options.n_test=16", *none)
        one.config = one.config.model_copy(update={"evaluate": one.config.evaluate.model_copy(update=asked)})
        found.append(evaluate(one))
    assert found[0].metrics == found[1].metrics and "elbo" in found[0].metrics


def test_yes_and_no_are_words() -> None:
    config = resolve("vae", settings=["evaluate.latent=yes", "evaluate.inception=no"])
    assert (config.evaluate.latent, config.evaluate.inception) == ("yes", "no")
    with pytest.raises(UsageError, match="evaluate.latent"):
        resolve("vae", settings=["evaluate.latent=perhaps"])


def test_a_skipped_family_is_found_by_its_members() -> None:
    assert family("kid_digits") == "fd_digits" and family("coverage") == "fid" and family("irs") == "disentanglement"
    assert explains("auroc", "auroc_nll_fashion_mnist") and explains("nll", "nll_iwae_64")
    for name in CODEBOOK:
        assert explains(f"{name}_GRID", f"{name}_top") and explains(f"{name}_GRID", f"{name}_GRID")
        assert not explains(name, f"{name}_GRID") and explains(name, name) and not explains(f"{name}_GRID", name)
    assert not explains("fid", "fd_digits") and not explains("mig", "irs") and family("unheard_of") == "unheard_of"
    assert family("nll_iwae_64") == "nll" and family("auroc_fashion_mnist") == "auroc" and family("elbo") == "elbo"


# ---- outliers --------------------------------------------------------------------------------------------------------


def scores(found: Evaluation) -> dict[str, float]:
    return {name: made["value"] for name, made in found.metrics.items() if name.startswith("auroc")}


def test_images_of_another_set_are_outliers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_data(monkeypatch, seed=5, n_test=100)
    made = run(tmp_path, "vae", "synthetic", "evaluate.anomaly=other", "train.epochs=4", "train.learning_rate=0.003")
    found = evaluate(made)
    assert set(scores(found)) == {"auroc_other", "auroc_nll_other"} and "auroc" not in found.skipped
    assert scores(found)["auroc_other"] > 0.6 and scores(found)["auroc_nll_other"] > 0.6
    metric = found.metrics["auroc_other"]
    assert (metric["n"], metric["identity"]["images"], metric["identity"]["outliers"]) == (356, 256, 100)
    assert 0 < metric["stderr"] < 0.05 and found.metrics["auroc_nll_other"]["identity"]["k"] == 2
    assert found.metrics["auroc_nll_other"]["n"] == 16


def test_an_auroc_is_of_the_bounds_of_the_images_and_of_as_many_outliers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_data(monkeypatch, seed=5, n_test=100)
    settings = ["evaluate.anomaly=other", "evaluate.seed=3", "data.options.n_test=60", "data.binarise=none"]
    made = run(tmp_path, "vae", "synthetic", "likelihood.name=logistic", *settings)
    found, (_, outliers) = evaluate(made), load_outliers(made.config, "other")
    batches, seed = batches_of(made, outliers), seed_for(3, "outliers")
    ours, theirs = found.per_example["elbo"], bound(made.model, batches, seed).elbo[:60]
    tight = importance_weighted(made.model, batches, 2, seed, 1000, 8)
    inside = torch.arange(60 + 60) < 60
    expected = {
        "auroc_other": roc_auc_score(inside, torch.cat([ours, theirs])),
        "auroc_nll_other": roc_auc_score(inside[52:68], torch.cat([-found.per_example["nll_iwae_2"], tight])),
    }
    assert scores(found) == pytest.approx(expected) and 0.5 not in expected.values()
    sizes = {name: (made["identity"]["images"], made["identity"]["outliers"]) for name, made in found.metrics.items()
             if name.startswith("auroc")}  # fmt: skip
    assert sizes == {"auroc_other": (60, 60), "auroc_nll_other": (8, 8)}
    # Numbers from before outliers had noise of their own do not say so, and share no column with these.
    assert all(found.metrics[name]["identity"]["outlier_noise"] == "own" for name in sizes)


def test_bounds_that_are_kept_of_outliers_are_of_their_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Partial()
    for seed in (5, 6):
        other_data(monkeypatch, seed=seed, n_test=100)
        made = run(tmp_path / str(seed), "vae", "synthetic", "evaluate.anomaly=other")
        assert scores(evaluate(made, partial=kept)) == scores(evaluate(made))


def test_a_set_is_no_outlier_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_data(monkeypatch)
    found = evaluate(run(tmp_path, "vae", "synthetic", "evaluate.anomaly=other")).metrics["auroc_other"]
    assert 0 < abs(found["value"] - 0.5) < found["stderr"] < 0.03  # of other bits and other noise


def test_the_error_of_an_auroc_is_its_spread_over_the_noise_where_there_is_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(tmp_path, "vae", "synthetic", "evaluate.anomaly=fashion_mnist")
    same = Images(made.images["test"].pixels[:1].expand(50, -1, -1, -1))
    monkeypatch.setattr("benchmarks.evaluation.anomaly.load_outliers", lambda config, name: (name, same))
    found = []
    for seed in range(60):
        evaluation = made.config.evaluate.model_copy(update={"seed": seed})
        made = replace(made, config=made.config.model_copy(update={"evaluate": evaluation}))
        elbo = bound(made.model, Batches(same, batch_size=50), seed).elbo
        found.append(anomaly(made, elbo, None)[0]["auroc_fashion_mnist"])
    values, errors = (np.array([metric[name] for metric in found]) for name in ("value", "stderr"))
    assert values.std() == pytest.approx(errors.mean(), rel=0.3)
    assert abs(values.mean() - 0.5) < 4 * errors.mean() / len(found) ** 0.5


@pytest.mark.parametrize("prepared", ["data.binarise=dynamic", "data.dequantise=uniform", "data.binarise=none"])
def test_outliers_have_bits_and_noise_of_their_own(prepared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other_data(monkeypatch)
    held = resolve("vae", "synthetic", settings=[prepared, "evaluate.anomaly=held_out", "data.options.exclude_class=3"])
    (_, theirs), (_, out) = (load_outliers(held, name) for name in ("other", "held_out"))
    own = load_images(resolve("vae", "synthetic", settings=[prepared]))
    for outliers, kept in ((theirs, own["test"]), (out, only_class(own["test"], 3))):
        assert len(outliers) == len(kept) > 0
        assert torch.equal(outliers.pixels, kept.pixels) == (prepared != "data.binarise=dynamic")
        noisy = prepared == "data.dequantise=uniform"
        assert (outliers.noise_seed, kept.noise_seed) == ((780, 777) if noisy else (None, None))


def test_a_class_can_be_held_out_of_training(tmp_path: Path) -> None:
    held = ["data.options.exclude_class=3", "evaluate.anomaly=held-out"]
    made = run(tmp_path, "vae", "synthetic", *held)
    assert not (made.images["train"].labels == 3).any() and made.images.spec.classes == 10
    found = evaluate(made)
    metric = found.metrics["auroc_class_3"]
    every = load_synthetic()["test"].labels
    assert metric["identity"]["outliers"] == (every == 3).sum() and metric["identity"]["images"] == (every != 3).sum()


@pytest.mark.parametrize(
    ("variant", "data", "settings", "said"),
    [
        ("vae", "synthetic", ["evaluate.anomaly=fashion_mnits"], "Did you mean 'fashion_mnist'"),
        ("vae", "mnist", ["evaluate.anomaly=mnist"], "is what the model learns"),
        ("vae", "mnist", ["evaluate.anomaly=shapes"], "images of 'shapes' are 1x64x64"),
        ("vae", "mnist_static", ["evaluate.anomaly=fashion_mnist"], "are 8-bit, and those of 'mnist_static' binary"),
        ("vae", "mnist", ["evaluate.anomaly=mnist_static"], "are binary, and those of 'mnist' 8-bit"),
        ("vae", "mnist", ["evaluate.anomaly=held_out"], "needs a class to hold out: data.options.exclude_class=N"),
    ],
)
def test_outliers_that_there_are_not_are_refused_before_training(variant, data, settings, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve(variant, data, settings=settings)


def test_outliers_whose_shape_only_their_loader_knows_are_left_to_it() -> None:
    assert resolve("vae", "mnist", settings=["evaluate.anomaly=folder"]).evaluate.anomaly == ("folder",)


@pytest.mark.parametrize(
    ("variant", "settings", "name", "said"),
    [
        ("cvae", ["evaluate.anomaly=other"], "auroc", "an outlier has no class"),
        ("vae", ["likelihood.name=bernoulli", "data.binarise=none", "evaluate.anomaly=other"], "auroc", "needs a"),
        ("vae", ["data.options.shape=[1,16,16]", "evaluate.anomaly=other"], "auroc_other", "have the shape"),
        ("vae", ["evaluate.nll_samples=0", "evaluate.anomaly=other"], "auroc_nll_other", "nll_samples is 0"),
    ],
)
def test_outliers_that_cannot_be_scored_have_a_reason(
    variant: str, settings: list[str], name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_data(monkeypatch, n_test=20)
    assert said in evaluate(run(tmp_path, variant, "synthetic", *settings)).skipped[name]


# ---- a class apart ---------------------------------------------------------------------------------------------------


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.equal(left, right)


def test_without_and_only_a_class_are_all_of_a_set() -> None:
    images = load_synthetic()
    rest = without_class(images, 7)
    assert rest.sha256 != images.sha256 and rest.sha256 != without_class(images, 6).sha256
    for split in images.splits:
        kept, left = images[split].labels != 7, only_class(images[split], 7)
        assert same(rest[split].pixels, images[split].pixels[kept]) and set(left.labels.tolist()) == {7}
        assert len(rest[split]) + len(left) == len(images[split])


def test_what_is_left_out_cannot_be_drawn_either() -> None:
    mini: ImageSet = without_class(load_shapes(grid="mini"), 2)
    assert mini.render is None and mini["test"].factors[:, 0].max() == 1


def test_a_class_is_not_left_out_of_images_whose_class_is_hidden() -> None:
    images = load_synthetic()
    labels = images["train"].labels.clone()
    labels[10:] = -1
    hidden = replace(images, splits={**images.splits, "train": replace(images["train"], labels=labels)})
    with pytest.raises(UsageError, match="hides the class of some images, which may be of class 3"):
        without_class(hidden, 3)


@pytest.mark.parametrize("number", [10, -1, "three", True, 1.5])
def test_a_class_that_there_is_not(number) -> None:
    with pytest.raises(UsageError, match="has classes 0 to 9, and exclude_class is"):
        without_class(load_synthetic(), number)
    with pytest.raises(UsageError, match="'ppca' has no classes"):
        without_class(load_ppca(), 0)


def test_the_option_is_every_set_s_and_no_other_is_taken() -> None:
    images = load_images(resolve("vae", "synthetic", settings=["data.options.exclude_class=0"]))
    assert 0 not in images["test"].labels and images.binarise == "dynamic"
    with pytest.raises(UsageError, match="no option 'exclude_clas'. Did you mean 'exclude_class'"):
        load_images(resolve("vae", "synthetic", settings=["data.options.exclude_clas=0"]))


# ---- what a classifier learns ----------------------------------------------------------------------------------------


def test_cas_of_real_images_is_that_of_real_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "STEPS", 50)
    monkeypatch.setattr(classification.learnt, "__defaults__", (50,))
    monkeypatch.setattr(classification, "FEW", 40)
    train = load_synthetic()["train"]

    def real_images(model, n, seed, device, y) -> torch.Tensor:
        places = [(train.labels == one).nonzero().flatten() for one in range(10)]
        return torch.stack([train.pixels[places[one][i // 10]] for i, one in enumerate(y.tolist())])

    monkeypatch.setattr(classification, "generate", real_images)
    made = run(tmp_path, "cvae", "synthetic", "evaluate.cas=200")
    metrics, skipped = classification.classification(made)
    assert not skipped and set(metrics) == set(classification.METRICS)
    for name in ("cas", "cas_real", "cas_augmented"):
        assert metrics[name]["value"] > 0.9 and metrics[name]["n"] == 256
    assert abs(metrics["cas"]["value"] - metrics["cas_real"]["value"]) < 0.08
    assert metrics["cas"]["identity"]["samples"] == 200 and "samples" not in metrics["cas_real"]["identity"]
    assert metrics["cas_augmented"]["identity"]["real_images"] == 40
    assert "over the real images alone" in metrics["cas_augmented"]["note"]


def test_samples_are_of_their_class_and_of_every_class_that_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.Tensor] = []

    def learnt(pixels, labels, test, seed) -> torch.Tensor:
        asked.append(labels)
        assert pixels.dtype == torch.uint8 and len(pixels) == len(labels)
        return torch.ones(len(test))

    monkeypatch.setattr(classification, "learnt", learnt)
    classification.classification(
        run(tmp_path, "cvae", "synthetic", "evaluate.cas=90", "data.options.exclude_class=4")
    )
    assert torch.bincount(asked[0], minlength=10).tolist() == [10, 10, 10, 10, 0, 10, 10, 10, 10, 10]


def test_what_the_samples_add_is_the_difference_from_the_same_real_images_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classification, "FEW", 40)
    right = {90: 0.0, 40: 0.5, 180: 0.75}  # of the samples or as many real images, of few, and of both

    def learnt(pixels, labels, test, seed) -> torch.Tensor:
        return (torch.arange(len(test)) < right[len(pixels)] * len(test)).double()

    monkeypatch.setattr(classification, "learnt", learnt)
    metrics, _ = classification.classification(run(tmp_path, "cvae", "synthetic", "evaluate.cas=90"))
    assert metrics["cas_few"]["value"] == 0.5 and metrics["cas_augmented"]["value"] == 0.75
    # A quarter of 256 images: the error is that of their differences, sqrt(3 / 16 / 255).
    assert metrics["cas_augmented"]["note"].startswith("+0.2500 ± 0.0271 over")


def test_each_classifier_is_taught_what_its_name_says_and_tested_on_grey_images_of_the_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classification, "FEW", 40)
    taught: list[tuple[torch.Tensor, ...]] = []

    def learnt(pixels, labels, test, seed) -> torch.Tensor:
        taught.append((pixels, labels, test.pixels))
        return (torch.arange(len(test)) < 10 * len(taught)).double()

    def samples(model, n, seed, device, y) -> torch.Tensor:
        assert seed == 3
        pictures = torch.full((n, 1, 28, 28), 7) + y.view(-1, 1, 1, 1)
        pictures[:, 0, 0, 1] = torch.arange(n)
        return pictures.to(torch.uint8)

    monkeypatch.setattr(classification, "learnt", learnt)
    monkeypatch.setattr(classification, "generate", samples)
    made = run(tmp_path, "cvae", "synthetic", "evaluate.cas=90", "evaluate.seed=3")
    metrics, _ = classification.classification(made)
    grey = load_grey(made.config)
    known = {
        picture.numpy().tobytes(): label
        for picture, label in zip(grey["train"].pixels, grey["train"].labels.tolist(), strict=True)
    }
    of_samples, of_real, of_few, of_both = taught
    assert (of_samples[0][:, 0, 0, 0] == 7 + of_samples[1]).all()
    for pixels, labels, _ in (of_real, of_few):
        assert [known[picture.numpy().tobytes()] for picture in pixels] == labels.tolist()
    assert (len(of_real[0]), len(of_few[0]), len(of_both[0])) == (90, 40, 180)
    assert torch.equal(of_both[0][90:], of_samples[0]) and torch.equal(of_both[1][90:], of_samples[1])
    assert torch.equal(of_both[0][:90], torch.cat([of_few[0]] * 3)[:90])
    assert torch.equal(of_both[1][:90], torch.cat([of_few[1]] * 3)[:90])
    assert all(torch.equal(one[2], grey["test"].pixels) for one in taught)
    values = {name: round(256 * metric["value"]) for name, metric in metrics.items()}
    assert values == {"cas": 10, "cas_real": 20, "cas_few": 30, "cas_augmented": 40}
    assert metrics["cas_augmented"]["note"].startswith("+0.0391")
    assert {name for name, metric in metrics.items() if metric["better"]} == {"cas", "cas_augmented"}


def test_real_data_has_no_bytes_for_the_classifier(tmp_path: Path) -> None:
    made = run(tmp_path, "cvae", "synthetic", "evaluate.cas=10")
    made.images = replace(made.images, spec=replace(made.images.spec, support="real"), splits={
        name: replace(images, pixels=images.pixels.float()) for name, images in made.images.splits.items()
    }, binarise="none")  # fmt: skip
    metrics, skipped = classification.classification(made)
    assert not metrics and set(skipped) == set(classification.METRICS)
    assert "images of bytes" in skipped["cas"]


@pytest.mark.parametrize(
    ("variant", "settings", "said"),
    [
        ("cvae", [], "evaluate.cas is 0"),
        ("vae", ["evaluate.cas=10"], "needs a model that is told the class"),
        ("cvae", ["evaluate.cas=10", "data.options.shape=[1,16,16]"], "for 1x28x28 images"),
    ],
)
def test_cas_needs_a_class_and_a_digit(variant: str, settings: list[str], said: str, tmp_path: Path) -> None:
    metrics, skipped = classification.classification(run(tmp_path, variant, "synthetic", *settings))
    assert not metrics and set(skipped) == set(classification.METRICS)
    assert all(said in reason for reason in skipped.values())
