"""Metrics of codes, scores and samples beside what is known of them: brute force, closed forms, scikit-learn."""

from __future__ import annotations

import io
import math
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.manifold import TSNE
from sklearn.metrics import roc_auc_score

from benchmarks.check.subject import subject
from benchmarks.digits.model import load_digit_classifier
from benchmarks.evaluate import _of_variables
from benchmarks.evaluation import classification, representation
from benchmarks.evaluation.representation import chosen
from benchmarks.metrics.aggregate import total_correlation
from benchmarks.metrics.auroc import auroc
from benchmarks.metrics.choices import Choices, choices
from benchmarks.metrics.codes import Undefined
from benchmarks.metrics.probes import knn, linear_identity, linear_probe
from benchmarks.metrics.projections import pca, tsne
from benchmarks.report.figures import png, scatter
from zoo import list_models
from zoo.data.batches import Batches
from zoo.data.images import Images
from zoo.data.synthetic import load_synthetic
from zoo.distributions.gaussians import DiagonalGaussian

PROBES = pytest.mark.parametrize("probe", [linear_probe, knn])


def separable(n: int, seed: int = 0, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Four classes far apart in two dimensions, one of them on another scale, and a constant third."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 4, n)
    z = np.array([[0, 0], [0, 9], [9, 0], [9, 9]])[y] + random.normal(size=(n, 2))
    return np.column_stack([z * [1, scale], np.full(n, 3.0)]).astype(np.float32), 3 * y + 1


# ---- choices ---------------------------------------------------------------------------------------------------------


def chosen_by(q: torch.Tensor, batch_size: int = 7) -> tuple[Choices, int]:
    """Of a model that gives image i the probabilities q (B, N, K) of row i."""
    numbers = torch.arange(len(q), dtype=torch.float32).view(-1, 1, 1, 1)
    model = SimpleNamespace(categorical_posterior=lambda x, y: q[x.flatten().long()].log())
    return choices(model, Batches(Images(numbers), batch_size=batch_size, drop_last=False), batch_size)


def test_choices_that_are_known_have_the_closed_form() -> None:
    k, n, wrong = 5, 200, 0.2
    evenly = torch.eye(k, dtype=torch.float64)[torch.arange(n) % k]
    # Told apart; one class for all; anything each time; told apart but for a share of noise.
    noisy = (1 - wrong) * evenly + wrong / k
    q = torch.stack([evenly, evenly[:1].expand(n, -1), torch.full((n, k), 1 / k, dtype=torch.float64), noisy], 1)
    found, classes = chosen_by(q)
    right = 1 - wrong + wrong / k
    left = -right * math.log(right) - (k - 1) * wrong / k * math.log(wrong / k)
    assert classes == k and found.entropy.shape == found.information.shape == (n, 4)
    assert found.entropy.mean(0).tolist() == pytest.approx([math.log(k), 0, math.log(k), math.log(k)], abs=1e-12)
    assert found.information.mean(0).tolist() == pytest.approx([math.log(k), 0, 0, math.log(k) - left], abs=1e-12)


def test_the_information_of_choices_is_that_of_the_table_of_images_and_classes() -> None:
    q = torch.softmax(3 * torch.randn(60, 3, 4, dtype=torch.float64), -1)
    found, _ = chosen_by(q)
    assert all(torch.allclose(a, b) for a, b in zip(found, chosen_by(q, 60)[0], strict=True)), "no batch matters"
    joint = q / len(q)
    of_image, of_class = joint.sum(-1, keepdim=True), joint.sum(0, keepdim=True)
    expected = (joint * (joint / (of_image * of_class)).log()).sum((0, 2))
    assert torch.allclose(found.information.mean(0), expected)
    assert torch.allclose(found.entropy.mean(0), torch.special.entr(q.mean(0)).sum(-1))
    assert (found.information.mean(0) <= found.entropy.mean(0)).all()


def test_what_two_variables_both_say_is_the_mean_and_no_sum() -> None:
    k, n = 3, 90
    one = torch.eye(k, dtype=torch.float64)[torch.arange(n) % k]
    other = torch.eye(k, dtype=torch.float64)[torch.arange(n) // k % k]
    for q, whole in ((torch.stack([one, one], 1), math.log(k)), (torch.stack([one, other], 1), 2 * math.log(k))):
        joint = (q[:, 0, :, None] * q[:, 1, None, :]).flatten(1)  # of the pair of choices as one
        assert chosen_by(joint[:, None])[0].information.mean().item() == pytest.approx(whole, abs=1e-12)
        for values in chosen_by(q)[0]:
            assert _of_variables(values).value == pytest.approx(math.log(k), abs=1e-12)


def test_the_error_of_the_information_is_its_spread_over_draws_of_the_images() -> None:
    draw = torch.distributions.Dirichlet(torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64))
    runs = [chosen_by(draw.sample((400, 1)), 400)[0] for _ in range(300)]
    for part in ("entropy", "information"):
        values = torch.stack([getattr(run, part).mean() for run in runs])
        said = torch.stack([getattr(run, part).std() / 20 for run in runs]).mean()
        # The deviation of 300 has an error of 4 %.
        assert said.item() == pytest.approx(values.std().item(), rel=0.2)


@pytest.mark.parametrize("name", list_models())
def test_the_classes_that_a_variant_says_it_has_are_a_part_of_its_code(name: str) -> None:
    kind = subject(name)
    model, (x, y) = kind.known(), kind.batch(6)
    log_q = model.categorical_posterior(x, y)
    assert (log_q is not None) == (name in ("categorical_vae", "joint_vae", "m2"))
    if log_q is not None:
        assert torch.allclose(log_q.exp().sum(-1), torch.ones(()))
        flat = log_q.exp().flatten(1)
        code = model.represent(x, y)
        part = code[:, : flat.shape[1]] if name == "m2" else code[:, -flat.shape[1] :]
        assert torch.allclose(flat, part)


def test_the_rate_of_choices_is_their_information_and_what_they_leave_unused() -> None:
    kind = subject("joint_vae")
    model, (x, _) = kind.known().eval(), kind.batch(40)
    found, classes = choices(model, Batches(Images(x.float()), batch_size=16, drop_last=False))
    unused = math.log(classes) - found.entropy.mean(0)
    rate = model.terms(x).rate[:, 1].mean().item()
    assert (found.information.mean(0) + unused).sum().item() == pytest.approx(rate, rel=1e-5)


# ---- probes ----------------------------------------------------------------------------------------------------------


@PROBES
def test_separable_codes_are_told_apart(probe) -> None:
    right = probe(*separable(400), *separable(300, seed=1))
    assert right.shape == (300,) and right.mean() == 1.0


def test_the_linear_probe_knows_no_scale_and_neighbours_do() -> None:
    halves = (*separable(400, scale=1e3), *separable(300, seed=1, scale=1e3))
    assert linear_probe(*halves).mean() == 1.0 and 0.4 < knn(*halves).mean() < 0.8


def test_the_linear_probe_does_not_hear_the_rounding_of_single_precision() -> None:
    random = np.random.default_rng(0)
    y, centres = random.integers(0, 10, 12_000), random.normal(size=(10, 20))
    common = random.normal(size=(12_000, 1))  # to all dimensions, so that the solver has a long way
    z = (common + 0.01 * (centres[y] + 2 * random.normal(size=(12_000, 20)))).astype(np.float32)
    single, double = (linear_probe(z[:2000], y[:2000], z[2000:], y[2000:]) for z in (z, z.astype(np.float64)))
    assert np.array_equal(single, double)


@PROBES
def test_random_labels_give_chance_within_the_error(probe) -> None:
    random = np.random.default_rng(2)
    z, y = random.normal(size=(4000, 5)), random.integers(0, 5, 4000)
    right = probe(z[:2000], y[:2000], z[2000:], y[2000:])
    error = right.std(ddof=1) / math.sqrt(len(right))
    assert abs(right.mean() - 0.2) < 4 * error < 0.05


@PROBES
def test_what_a_probe_says_of_a_code_does_not_depend_on_the_others(probe) -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 120)
    z = random.normal(size=(120, 4)) + 5.0 + y[:, None]
    together = probe(z[:80], y[:80], z[80:], y[80:])
    alone = [probe(z[:80], y[:80], z[i : i + 1], y[i : i + 1]).item() for i in range(80, 120)]
    assert together.tolist() == alone and 0.4 < together.mean() < 1


def test_neighbours_are_those_of_brute_force() -> None:
    random = np.random.default_rng(3)
    z, y = random.normal(size=(300, 4)).astype(np.float32), random.integers(0, 3, 300)
    query, truth = random.normal(size=(80, 4)).astype(np.float32), random.integers(0, 3, 80)
    for k in (1, 4, 10):
        guesses = []
        for one in query:
            near = np.argsort(((z.astype(float) - one) ** 2).sum(1))[:k]
            guesses.append(max(range(3), key=lambda c: ((y[near] == c).sum(), -c)))
        assert np.array_equal(knn(z, y, query, truth, k), (np.array(guesses) == truth).astype(float))


def test_a_code_that_needs_a_curve_is_for_neighbours_and_not_for_lines() -> None:
    random = np.random.default_rng(4)
    y = random.integers(0, 2, 1200)
    angle, radius = random.uniform(0, 2 * np.pi, 1200), 1 + y + 0.1 * random.normal(size=1200)
    z = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    halves = (z[:600], y[:600], z[600:], y[600:])
    assert knn(*halves).mean() > 0.99 > 0.7 > linear_probe(*halves).mean()


@PROBES
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda z, y: (np.full_like(z, 2.0), y), "every dimension of the code is constant"),
        (lambda z, y: (z, np.zeros_like(y)), "all of one class"),
        (lambda z, y: (np.where(z > 0, np.nan, z), y), "not finite"),
        (lambda z, y: (z[:, 0], y), r"codes are \(N, D\)"),
        (lambda z, y: (z[:, :2], y), "training codes have 2 dimensions and the others 3"),
        (lambda z, y: (z, y[:-1]), "codes are"),
        (lambda z, y: (z[:0], y[:0]), r"codes are .* not \(0, 3\) and \(0,\)"),
        (lambda z, y: (z[:, :0], y), r"codes are .* not \(50, 0\) and \(50,\)"),
    ],
)
def test_codes_that_say_nothing_are_refused_in_a_sentence(probe, spoil, said: str) -> None:
    with pytest.raises(Undefined, match=said):
        probe(*spoil(*separable(50)), *separable(20, seed=1))


def test_fewer_codes_than_neighbours() -> None:
    with pytest.raises(Undefined, match="6 training codes do not have 10 neighbours"):
        knn(*separable(6), *separable(20, seed=1))
    # Where there are just as many, all vote: the class that most of them have wins everywhere.
    z = np.arange(10.0)[:, None]
    assert knn(z, np.array([1] * 4 + [7] * 6), np.array([[0.0], [9.0]]), np.array([1, 7])).tolist() == [0.0, 1.0]


def test_the_identity_of_the_linear_probe_is_its_settings_and_the_solver_s_version() -> None:
    settings = {"estimator": "LogisticRegression", "C": 1.0, "tol": 1e-4, "max_iter": 200, "codes": "standardised"}
    assert linear_identity() == settings | {"sklearn": version("scikit-learn")}


# ---- the aggregate posterior -----------------------------------------------------------------------------------------


def test_independent_dimensions_have_no_total_correlation() -> None:
    grid = torch.linspace(-2, 2, 40)
    mean = torch.cartesian_prod(grid, grid)  # a product of marginals, exactly
    correlation, information = total_correlation(mean, torch.full_like(mean, -3.0))
    # log q(z) is the sum of its marginals for every draw: the estimator has no variance at all.
    assert abs(correlation.value) < 1e-4 and correlation.stderr < 1e-5
    assert 0 < information.value < math.log(1600)


def test_a_correlated_gaussian_has_the_closed_form() -> None:
    rho, s2, n = 0.9, 0.3, 3000
    generator = torch.Generator().manual_seed(0)
    root = torch.linalg.cholesky(torch.tensor([[1.0, rho], [rho, 1.0]]))
    mean = torch.randn(n, 2, generator=generator) @ root.T
    # The moments that were drawn, not those they were drawn from: what is estimated is of these images.
    covariance = torch.cov(mean.T) + s2 * torch.eye(2)
    expected = -0.5 * math.log(1 - covariance[0, 1] ** 2 / (covariance[0, 0] * covariance[1, 1]))
    found, information = total_correlation(mean, torch.full((n, 2), math.log(s2)), samples=3000)
    assert abs(found.value - expected) < 4 * found.stderr < 0.06
    # I(x; z) of a Gaussian channel: log det (S + s2 I) / s2^D over two.
    capacity = 0.5 * float(torch.logdet(covariance) - 2 * math.log(s2))
    assert abs(information.value - capacity) < 4 * information.stderr + 0.01


def test_with_narrow_posteriors_the_information_is_the_image_s_number() -> None:
    mean = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
    _, information = total_correlation(mean, torch.full_like(mean, -20.0), samples=50)
    assert information.value == pytest.approx(math.log(500), abs=1e-3)


def test_wide_posteriors_hide_the_image() -> None:
    mean = torch.randn(500, 3, generator=torch.Generator().manual_seed(1)) * 1e-3
    correlation, information = total_correlation(mean, torch.zeros_like(mean))
    assert abs(correlation.value) < 1e-3 and abs(information.value) < 1e-3


def test_it_is_brute_force_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(5)
    mean, log_variance = torch.randn(60, 3, generator=generator), torch.randn(60, 3, generator=generator)
    whole = total_correlation(mean, log_variance, seed=7)
    monkeypatch.setattr("benchmarks.metrics.aggregate.ELEMENTS", 60 * 7)
    assert total_correlation(mean, log_variance, seed=7)[0].value == pytest.approx(whole[0].value, abs=1e-6)
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    components = torch.distributions.Normal(mean.double(), (0.5 * log_variance.double()).exp())
    each = components.log_prob((components.mean + components.stddev * noise)[:, None])  # draw, image, dimension
    joint = each.sum(2).logsumexp(1) - math.log(60)
    product = (each.logsumexp(1) - math.log(60)).sum(1)
    assert whole[0].value == pytest.approx((joint - product).mean().item(), abs=1e-5)
    assert whole[1].value == pytest.approx((each.sum(2).diagonal() - joint).mean().item(), abs=1e-5)
    assert whole[0].stderr == pytest.approx(((joint - product).std() / math.sqrt(60)).item(), rel=1e-4)


@pytest.mark.parametrize(("offset", "scale", "log_variance"), [(0, 1e3, -20.0), (1e4, 1, -6.0)])
def test_codes_far_out_are_not_rounded_by_a_part_of_their_deviation(
    offset: float, scale: float, log_variance: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    mean = offset + scale * torch.randn(200, 3, generator=generator)
    found = total_correlation(mean, torch.full_like(mean, log_variance), seed=7)
    # The same draws about the same means in units of the scale, where nothing is rounded that counts.
    near = (mean.double() - offset) / scale
    there = total_correlation(near, torch.full_like(near, log_variance - 2 * math.log(scale)), seed=7)
    for one, other in zip(found, there, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-4)


def test_moments_that_are_no_numbers() -> None:
    with pytest.raises(Undefined, match="moments are not finite"):
        total_correlation(torch.full((4, 2), torch.nan), torch.zeros(4, 2))
    with pytest.raises(Undefined, match="at least two images"):
        total_correlation(torch.zeros(1, 2), torch.zeros(1, 2))


# ---- those of a run ------------------------------------------------------------------------------------------------


class Splits(dict):
    """The images of a run by their split, of three classes without names."""

    classes, spec = (), SimpleNamespace(classes=3)


def run_of(images: Images, model: SimpleNamespace | None = None, latent: str = "auto") -> SimpleNamespace:
    """What is read of a run, whose test images these are; of a model that has no code to speak of if none is given."""
    config = SimpleNamespace(evaluate=SimpleNamespace(split="test", seed=3, latent=latent))
    model = model or SimpleNamespace(diagonal_posterior=lambda x, y: None, conditional=False)
    return SimpleNamespace(config=config, images=Splits(test=images), model=model)


@pytest.mark.parametrize("conditional", [False, True])
def test_the_aggregate_posterior_is_that_of_the_first_images_and_its_numbers_say_so(
    conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(representation, "COMPONENTS", 30)
    monkeypatch.setattr(representation, "DRAWS", 20)
    mean, log_variance = torch.randn(2, 50, 2, generator=torch.Generator().manual_seed(0))
    read = []

    def posterior(x: torch.Tensor, y: torch.Tensor | None) -> DiagonalGaussian:
        read.append(x.flatten().long())
        return DiagonalGaussian(mean[read[-1]], log_variance[read[-1]])

    images = Images(torch.arange(50, dtype=torch.float32).view(-1, 1, 1, 1))
    run = run_of(images, SimpleNamespace(diagonal_posterior=posterior, conditional=conditional))
    metrics, skipped = representation._aggregate(run, Batches(images, batch_size=7, drop_last=False))
    assert not skipped and torch.cat(read).tolist() == [*range(35)]
    identity = {"split": "test", "components": 30, "seed": 3}
    identity |= {"posterior": "q(z | x, y)"} if conditional else {}
    expected = total_correlation(mean[:30], log_variance[:30], 20, 3)
    for name, estimate, better in zip(
        ("total_correlation", "index_code_information"), expected, ("lower", None), strict=True
    ):
        made = metrics[name]
        assert (made["value"], made["stderr"], made["n"]) == (estimate.value, estimate.stderr, estimate.n)
        assert (made["better"], made["unit"], made["identity"]) == (better, "nats", identity)


@pytest.mark.parametrize("latent", ["auto", "yes"])
def test_a_picture_shows_some_codes_each_in_the_colour_of_its_class(
    latent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(representation, "PLOTTED", 40)
    monkeypatch.setattr("benchmarks.report.figures.scatter", lambda *given: drawn.append(given) or np.zeros(1))
    monkeypatch.setattr("benchmarks.metrics.projections.tsne", lambda z, seed: z + seed)
    random = np.random.default_rng(0)
    codes, labels = torch.from_numpy(random.normal(size=(100, 2)) * [3, 1]), torch.arange(100) % 3
    images = Images(torch.zeros(100, 1, 1, 1), labels)
    pictures, skipped = representation._pictures(run_of(images, latent=latent), images, codes)
    kept = chosen(100, 40, 3)
    points, colours, names, title, axes = drawn[0]
    assert np.array_equal(points, pca(codes[kept])[0]) and torch.equal(colours, labels[kept])
    assert (names, title) == (("0", "1", "2"), "class")
    named = run_of(images)
    named.images.classes = ("a", "b", "c")
    assert representation._colours(named, images)[1:] == ("class", ("a", "b", "c"))
    shares = pca(codes[kept])[1]
    assert axes == tuple(f"component {i}, {100 * shares[i - 1]:.0f} % of the variance" for i in (1, 2))
    assert skipped.keys() == {"tsne"} - pictures.keys() and ("tsne" in pictures) == (latent == "yes")
    for points, colours, *_ in drawn[1:]:
        assert np.array_equal(points, codes[kept].numpy() + 3) and torch.equal(colours, labels[kept])
    assert len(drawn) == len(pictures)


def test_a_picture_is_coloured_by_the_factor_that_is_spread_most_evenly_over_its_values() -> None:
    # The second has more nats, and of those that it could have a smaller share; the first never changes.
    factors = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 1], [0, 0, 0], [0, 2, 1], [0, 0, 0], [0, 3, 1]])
    images = Images(torch.zeros(8, 1, 1, 1), None, factors, ("one", "skew", "even"), (1, 4, 2), "exact")
    colours, title, names = representation._colours(run_of(images), images)
    assert title == "even" and names == ("0", "1") and torch.equal(colours, factors[:, 2])


@pytest.mark.parametrize("latent", ["auto", "yes", "no"])
def test_codes_are_looked_at_where_something_is_known_of_the_images_or_it_is_asked_for(
    latent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(representation, "_pictures", lambda *given: ({"pca": torch.zeros(1)}, {}))
    pixels, factors = torch.zeros(8, 1, 1, 1), torch.arange(8).unsqueeze(1) % 2
    known = Images(pixels, None, factors, ("side",), (2,), "exact")
    for images, looked in ((known, latent != "no"), (Images(pixels), latent == "yes")):
        run, codes = run_of(images, latent=latent), torch.zeros(8, 2)
        _, skipped, pictures = representation.represented(run, Batches(images, batch_size=8), codes)
        assert ("pca" in pictures) == looked
        assert skipped["linear_probe"] == {
            "no": "evaluate.latent is no", "yes": "needs classes",
            "auto": "needs classes" if looked else "no classes and no factors; --set evaluate.latent=yes asks for it",
        }[latent]  # fmt: skip


def test_pictures_that_training_sees_several_times_are_there_once_where_some_hide_their_class() -> None:
    pixels = torch.tensor([5, 7, 5, 9, 7, 5], dtype=torch.uint8).view(-1, 1, 1, 1)
    whole = Images(pixels, torch.tensor([0, 1, 0, 1, 1, 0]))
    assert representation.once(whole) is whole and representation.once(Images(pixels)).labels is None
    found = representation.once(Images(pixels, torch.tensor([0, 1, 0, -1, 1, 0])))
    assert found.pixels.flatten().tolist() == [5, 7, 9] and found.labels.tolist() == [0, 1, -1]


def test_indices_are_drawn_by_the_seed_once_each_and_in_order() -> None:
    some = chosen(1000, 50, 1)
    assert len(some) == 50 and (some.diff() > 0).all() and 0 <= some.min() < 100 and 900 <= some.max() < 1000
    assert torch.equal(some, chosen(1000, 50, 1)) and not torch.equal(some, chosen(1000, 50, 2))
    assert torch.equal(chosen(50, 50, 1), torch.arange(50))


# ---- AUROC -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [None, 7, 2])
def test_auroc_is_scikit_learns_with_ties_and_without(levels: int | None) -> None:
    random = np.random.default_rng(6)
    inside, outside = random.normal(0.7, 1, 300), random.normal(0, 1.5, 200)
    if levels:
        inside, outside = (np.clip(np.round(part * levels / 4), -levels, levels) for part in (inside, outside))
    truth = np.r_[np.ones(300), np.zeros(200)]
    expected = roc_auc_score(truth, np.r_[inside, outside])
    assert auroc(inside, outside).value == pytest.approx(expected, abs=1e-12)
    assert auroc(outside, inside).value == pytest.approx(1 - expected, abs=1e-12)
    assert auroc(np.exp(inside), np.exp(outside)).value == pytest.approx(expected, abs=1e-12)


def test_its_error_is_delong_s_by_hand() -> None:
    # Of the inliers a third and all of the outliers lie below; of the outliers all and half of the inliers above.
    found = auroc([1.0, 4.0], [0.0, 2.0, 3.0])
    assert found.value == pytest.approx(2 / 3)
    assert found.stderr == pytest.approx(math.sqrt((2 / 3) ** 2 / 2 / 2 + (1 / 12) / 3))


def test_its_error_is_the_spread_over_draws() -> None:
    random = np.random.default_rng(7)
    draws = [auroc(random.normal(1, 1, 80), random.normal(0, 2, 50)) for _ in range(600)]
    spread = np.std([draw.value for draw in draws])
    assert np.mean([draw.stderr for draw in draws]) == pytest.approx(spread, rel=0.1)


def test_groups_that_are_apart_or_the_same() -> None:
    apart = auroc([3, 4, np.inf], [1, 2, -np.inf])
    assert apart.value == 1 and apart.stderr == 0 and apart.n == 6
    same = auroc(np.ones(5), np.ones(7))
    assert same.value == 0.5


@pytest.mark.parametrize(
    ("inside", "outside", "said"), [([1, np.nan], [1, 2], "NaN"), ([1], [1, 2], "at least two"), ([1, 2], [], "two")]
)
def test_scores_that_cannot_be_ranked(inside: list[float], outside: list[float], said: str) -> None:
    with pytest.raises(Undefined, match=said):
        auroc(inside, outside)


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_principal_components_are_those_of_the_covariance() -> None:
    random = np.random.default_rng(8)
    for shape in ((200, 6), (5, 9)):
        z = random.normal(size=shape) * np.arange(1, shape[1] + 1) + 10
        points, shares = pca(z)
        values = np.linalg.eigvalsh(np.cov(z.T))[::-1]
        assert shares == pytest.approx(values[:2] / values.sum())
        assert points.var(0, ddof=1) == pytest.approx(values[:2]) and points.mean(0) == pytest.approx([0, 0])
        assert abs(points.T @ points)[0, 1] < 1e-6 * abs(points.T @ points)[0, 0]
    points, shares = pca(random.normal(size=(20, 1)))
    assert shares == pytest.approx([1, 0]) and not points[:, 1].any()


def test_tsne_keeps_clusters_and_repeats_itself() -> None:
    z, y = separable(120)
    points = tsne(z)
    assert points.shape == (120, 2) and np.array_equal(points, tsne(z))
    assert knn(points[::2], y[::2], points[1::2], y[1::2], k=3).mean() > 0.95
    assert tsne(z[:4]).shape == (4, 2)


def test_codes_wider_than_fifty_are_shown_to_tsne_by_their_principal_components(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []
    monkeypatch.setattr(TSNE, "fit_transform", lambda self, codes: shown.append(codes))
    wide = np.random.default_rng(0).normal(size=(80, 60)) * np.arange(1, 61)
    for codes in (wide, wide[:, :50]):
        tsne(codes)
    assert np.array_equal(shown[0], pca(wide, 50)[0].astype(np.float32))
    assert np.array_equal(shown[1], wide[:, :50].astype(np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_the_sign_of_an_axis_is_that_of_its_largest_entry(seed: int) -> None:
    z = np.random.default_rng(seed).normal(size=(60, 7)) * np.arange(1, 8)
    points, _ = pca(z)
    axes = (z - z.mean(0)).T @ points
    assert (axes[np.abs(axes).argmax(0), [0, 1]] > 0).all()


def test_tsne_begins_close_together_at_the_principal_components_and_has_its_seed(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[TSNE] = []
    monkeypatch.setattr(TSNE, "fit_transform", lambda self, codes: made.append(self))
    z = np.random.default_rng(0).normal(size=(200, 5)) * np.arange(1, 6)
    for rows in (200, 10):
        tsne(z[:rows], 7)
    for model, rows, perplexity in zip(made, (200, 10), (30, 3), strict=True):
        assert (model.random_state, model.perplexity) == (7, perplexity)
        points, _ = pca(z[:rows])
        assert model.init == pytest.approx(points * 1e-4 / points[:, 0].std(), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("project", [pca, tsne])
def test_codes_without_a_plane(project) -> None:
    with pytest.raises(Undefined, match="constant"):
        project(np.ones((20, 3)))
    with pytest.raises(Undefined, match="not finite"):
        project(np.full((20, 3), np.inf))
    with pytest.raises(Undefined, match="at least two rows"):
        project(np.ones((1, 3)))


def test_a_scatter_is_a_small_picture_with_a_colour_a_class() -> None:
    random = np.random.default_rng(9)
    points = random.normal(size=(2000, 2))
    picture = scatter(points, random.integers(0, 10, 2000), [f"class {i}" for i in range(10)], "class", ("a", "b"))
    assert picture.dtype == np.uint8 and picture.shape == (1, 3, 420, 480)
    with Image.open(io.BytesIO(png(picture))) as file:
        assert file.mode == "P" and 5_000 < len(png(picture)) < 20_000
        assert (np.asarray(file.convert("RGB"))[2:-2, 2:-2] == picture[0].transpose(1, 2, 0)).all()
    few = {tuple(pixel) for pixel in scatter(points, points[:, 0] > 0, ["no", "yes"])[0].reshape(3, -1).T}
    assert {(31, 119, 180), (255, 127, 14)} < few
    assert scatter(points).shape == scatter(points, np.arange(2000) % 40, [str(i) for i in range(40)]).shape


def test_a_class_may_have_any_name_in_a_picture() -> None:
    points, values = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
    # Between two dollars other names would be formulae, and these are none.
    strange = scatter(points, values, ["$5_{ and $10", "_b"], "$x_{$")
    assert not np.array_equal(strange, scatter(points, values, ["$5_{ and $10", ""], "$x_{$"))


def test_a_point_whose_class_nobody_knows_has_the_colour_of_none() -> None:
    points = np.random.default_rng(9).normal(size=(200, 2))

    def of_last_class(value: int) -> int:
        picture = scatter(points, np.full(200, value), ["no", "yes"])[0]
        return int((picture.transpose(1, 2, 0) == (255, 127, 14)).all(-1).sum())

    assert of_last_class(-1) == of_last_class(0) < of_last_class(1)  # the legend's


def test_what_is_chosen_of_a_sorted_split_has_every_class() -> None:
    kept = chosen(10_000, 500, seed=0)
    assert len(kept) == len(kept.unique()) == 500 and bool((kept.diff() > 0).all())
    assert set((kept // 1000).tolist()) == set(range(10))
    assert torch.equal(kept, chosen(10_000, 500, seed=0)) and not torch.equal(kept, chosen(10_000, 500, seed=1))
    assert chosen(3, 5, 0).tolist() == [0, 1, 2]


# ---- classifiers -----------------------------------------------------------------------------------------------------


def test_real_images_in_place_of_samples_teach_what_real_images_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the device's generator is left alone"))
    images = load_synthetic(n_train=500)
    train, test, state = images["train"], images["test"], torch.get_rng_state()
    right = classification.learnt(train.pixels, train.labels, test, seed=0, steps=60)
    assert right.shape == (256,) and right.mean() > 0.95
    assert torch.equal(torch.get_rng_state(), state)
    once, again = (classification.learnt(train.pixels, train.labels, test, seed=0, steps=2) for _ in range(2))
    assert torch.equal(once, again)


def test_samples_without_their_class_teach_nothing() -> None:
    images = load_synthetic(n_train=60)
    pixels, labels = images["train"].pixels, images["train"].labels
    assert classification.learnt(pixels, labels, images["test"], seed=0, steps=40).mean() > 0.5
    shuffled = labels[torch.randperm(60)]
    assert abs(classification.learnt(pixels, shuffled, images["test"], seed=0, steps=40).mean() - 0.1) < 0.15


def test_the_classifier_is_that_of_the_digits() -> None:
    from benchmarks.digits import train

    made = train.train(torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.arange(10), epochs=1)
    assert type(made) is type(load_digit_classifier())
