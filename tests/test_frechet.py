"""The Frechet distance against closed forms, other routes, pytorch-fid, and its own standard error."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.metrics.frechet import frechet, frechet_estimate, frechet_from_features
from zoo.errors import UsageError


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(0), np.cov(features, rowvar=False)


def correlated(n: int, dimensions: int, seed: int, shift: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (
        generator.standard_normal((n, dimensions)) @ generator.standard_normal((dimensions, dimensions))
        + shift
    )


@given(
    first=st.lists(st.floats(0.01, 10), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    offset=st.floats(-3, 3),
)
@settings(max_examples=40)
def test_covariances_that_commute_have_a_closed_form(first: list[float], seed: int, offset: float) -> None:
    generator = np.random.default_rng(seed)
    second = generator.uniform(0.01, 10, len(first))
    basis, _ = np.linalg.qr(generator.standard_normal((len(first), len(first))))
    covariances = [basis @ np.diag(values) @ basis.T for values in (first, second)]
    expected = len(first) * offset**2 + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum()
    value = frechet(np.zeros(len(first)), covariances[0], np.full(len(first), offset), covariances[1])
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("m1", "s1", "m2", "s2"), [(0, 1, 0, 1), (1, 2, -1, 0.5), (3, 0, 1, 2), (0, 0, 0, 0)]
)
def test_in_one_dimension_it_is_that_of_means_and_deviations(
    m1: float, s1: float, m2: float, s2: float
) -> None:
    assert frechet(m1, s1**2, m2, s2**2) == pytest.approx((m1 - m2) ** 2 + (s1 - s2) ** 2, abs=1e-12)


def test_three_ways_to_the_trace_agree() -> None:
    m1, c1 = moments(correlated(200, 20, 1))
    m2, c2 = moments(correlated(300, 20, 2, shift=0.3))
    rest = ((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2)
    by_square_root = rest - 2 * np.trace(scipy.linalg.sqrtm(c1 @ c2)).real
    by_eigenvalues = rest - 2 * np.sqrt(scipy.linalg.eigvals(c1 @ c2).real).sum()
    values, vectors = np.linalg.eigh(c1)
    root = vectors * np.sqrt(values) @ vectors.T
    by_symmetric = rest - 2 * np.sqrt(np.linalg.eigvalsh(root @ c2 @ root)).sum()
    value = frechet(m1, c1, m2, c2)
    assert value == pytest.approx(by_square_root, rel=1e-10)
    assert value == pytest.approx(by_eigenvalues, rel=1e-10)
    assert value == pytest.approx(by_symmetric, rel=1e-10)


@pytest.mark.parametrize("dimensions", [2, 50, 300])
def test_it_equals_pytorch_fids(dimensions: int) -> None:
    from pytorch_fid.fid_score import calculate_frechet_distance

    fake, real = correlated(2 * dimensions, dimensions, 1), correlated(3 * dimensions, dimensions, 2, shift=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = calculate_frechet_distance(*moments(fake), *moments(real))
        except TypeError:
            pytest.skip("this SciPy no longer has the sqrtm that pytorch-fid calls")
    assert frechet(*moments(fake), *moments(real)) == pytest.approx(expected, rel=1e-6)
    assert frechet_from_features(fake, real) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "m", "dimensions"), [(200, 150, 10), (30, 200, 50), (200, 30, 50), (20, 30, 50)]
)
def test_full_gram_and_estimate_are_one_number(n: int, m: int, dimensions: int) -> None:
    fake, real = correlated(n, dimensions, 1), correlated(m, dimensions, 2, shift=0.5)
    value = frechet_from_features(fake, real)
    # The full route loses half the digits in directions without variance, hence 1e-7.
    assert value == pytest.approx(frechet(*moments(fake), *moments(real)), rel=1e-7)
    assert value == pytest.approx(frechet_estimate(fake, real).value, rel=1e-9)
    assert value == pytest.approx(frechet_from_features(real, fake), rel=1e-9)


@pytest.mark.parametrize(("n", "dimensions"), [(500, 30), (40, 100)])
def test_a_set_is_at_no_distance_from_itself(n: int, dimensions: int) -> None:
    features = correlated(n, dimensions, 3, shift=5)
    scale = np.trace(np.cov(features, rowvar=False))
    assert 0 <= frechet_from_features(features, features) < 1e-9 * scale
    assert 0 <= frechet_estimate(features, features).value < 1e-9 * scale
    assert 0 <= frechet(*moments(features), *moments(features)) < 1e-5 * scale
    assert frechet_from_features(features, features + 1) == pytest.approx(dimensions, rel=1e-6)


def test_dead_features_change_nothing() -> None:
    fake, real = correlated(100, 8, 1), correlated(120, 8, 2)
    pad = [np.hstack([part, np.full((len(part), 3), 7.0)]) for part in (fake, real)]
    expected = frechet_estimate(fake, real)
    assert frechet_from_features(*pad) == pytest.approx(expected.value, rel=1e-7)
    assert frechet_estimate(*pad).value == pytest.approx(expected.value, rel=1e-7)
    assert frechet_estimate(*pad).stderr == pytest.approx(expected.stderr, rel=1e-5)


@pytest.mark.parametrize(("n", "m"), [(100, 120), (15, 120), (15, 12)])
def test_a_common_rotation_and_shift_change_nothing_and_a_scale_squares(n: int, m: int) -> None:
    fake, real = correlated(n, 20, 1), correlated(m, 20, 2, shift=0.4)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))
    expected, moved = frechet_estimate(fake, real), frechet_estimate(fake @ rotation + 3, real @ rotation + 3)
    assert moved.value == pytest.approx(expected.value, rel=1e-7)
    assert moved.stderr == pytest.approx(expected.stderr, rel=1e-5)
    scaled = frechet_estimate(10 * fake, 10 * real)
    assert scaled.value == pytest.approx(100 * expected.value, rel=1e-9)
    assert scaled.stderr == pytest.approx(100 * expected.stderr, rel=1e-7)


@pytest.mark.parametrize(("n", "expected"), [(100, 22.9), (1000, 2.21), (10000, 0.224)])
def test_bias_of_a_finite_sample_falls_as_one_over_n(n: int, expected: float) -> None:
    generator = np.random.default_rng(0)
    pairs = [generator.standard_normal((2, n, 64)) for _ in range(min(40, 40_000 // n))]
    assert np.mean([frechet_from_features(*pair) for pair in pairs]) == pytest.approx(expected, rel=0.05)


def test_few_samples_are_said_to_bias() -> None:
    features = correlated(100, 30, 0)
    assert frechet_estimate(features, features[::-1] + 1).note is None
    assert frechet_estimate(features[:29], features).note == (
        "biased upwards: 29 samples for 30 feature dimensions"
    )
    assert "29 samples" in frechet_estimate(features, features[:29]).note


@pytest.mark.parametrize("n", [15, 60, 400])
def test_standard_error_is_the_spread_over_fresh_samples(n: int) -> None:
    generator = np.random.default_rng(0)
    real = generator.standard_normal((500, 20))

    def draw() -> np.ndarray:
        return 1.5 * generator.standard_normal((n, 20)) * np.linspace(0.3, 1.5, 20) + 0.3

    estimates = [frechet_estimate(draw(), real) for _ in range(200)]
    spread = np.std([e.value for e in estimates], ddof=1)
    # 200 draws know a deviation to 5 %; with fewer samples than dimensions the linearisation is off by more.
    assert np.mean([e.stderr for e in estimates]) == pytest.approx(spread, rel=0.18 if n > 20 else 0.4)


def test_standard_error_of_far_means_is_that_of_the_squared_distance() -> None:
    features = correlated(400, 1, 0)
    # d/dm (m - m2)^2 = 2 (m - m2), and the mean's own standard error is std / sqrt(n).
    expected = 2 * 1000 * features.std(ddof=1) / 400**0.5
    assert frechet_estimate(features, features - 1000).stderr == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("n", [5, 12, 50])
def test_standard_error_is_that_of_the_numerical_derivative_by_the_weights(n: int) -> None:
    fake, real = 1.5 * correlated(n, 4, 1) + 0.5, correlated(200, 4, 2)

    def weighted(weights: np.ndarray) -> float:
        weights = weights / weights.sum()
        mean = weights @ fake
        covariance = n / (n - 1) * (fake - mean).T @ (weights[:, None] * (fake - mean))
        return frechet(mean, covariance, *moments(real))

    even, step = np.full(n, 1 / n), 1e-5 / n * np.eye(n)
    gradient = np.array([(weighted(even + d) - weighted(even - d)) / (2 * d.sum()) for d in step])
    assert frechet_estimate(fake, real).stderr == pytest.approx(gradient.std(ddof=1) / n**0.5, rel=1e-5)


def test_standard_error_is_the_grouped_jackknifes() -> None:
    fake, real = correlated(600, 10, 1), correlated(600, 10, 2, shift=0.5)
    groups = np.arange(600) % 60
    left_out = np.array([frechet_from_features(fake[groups != group], real) for group in range(60)])
    jackknife = np.sqrt(59 / 60 * ((left_out - left_out.mean()) ** 2).sum())
    assert frechet_estimate(fake, real).stderr == pytest.approx(jackknife, rel=0.25)


def broken(value: float) -> np.ndarray:
    features = np.ones((5, 4))
    features[2, 1] = value
    return features


@pytest.mark.parametrize("function", [frechet_from_features, frechet_estimate])
@pytest.mark.parametrize(
    ("fake", "said"),
    [
        (broken(np.nan), "NaN or infinite numbers in 1 of 5 rows"),
        (broken(np.inf), "NaN or infinite numbers in 1 of 5 rows"),
        (np.ones((1, 4)), "1 sample"),
        (np.ones((0, 4)), "0 sample"),
        (np.ones((5, 3)), "3 and 4 dimensions"),
        (np.ones(5), r"shape is \(5,\)"),
    ],
)
def test_bad_features_are_refused_in_one_sentence(function, fake: np.ndarray, said: str) -> None:
    real = np.random.default_rng(0).standard_normal((6, 4))
    with pytest.raises(UsageError, match=said) as caught:
        function(fake, real)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), "2 and 3 dimensions"),
        ((np.zeros(2), np.eye(3), np.zeros(2), np.eye(2)), r"mean \(2,\) and covariance \(3, 3\)"),
        ((np.zeros(2), np.eye(2), np.array([0, np.nan]), np.eye(2)), "second Gaussian has NaN"),
        (
            (np.zeros(2), np.array([[1, 0.5], [0, 1]]), np.zeros(2), np.eye(2)),
            "first Gaussian is not symmetric",
        ),
    ],
)
def test_bad_moments_are_refused_in_one_sentence(arguments: tuple[np.ndarray, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        frechet(*arguments)


def test_tensors_arrays_and_float32_are_taken() -> None:
    fake, real = correlated(50, 4, 1), correlated(60, 4, 2)
    value = frechet_from_features(fake, real)
    assert frechet_from_features(torch.from_numpy(fake).requires_grad_(), torch.from_numpy(real)) == value
    assert frechet_from_features(fake.astype(np.float32), real) == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
def test_what_the_comparison_of_speeds_compares_is_one_number() -> None:
    from benchmarks.performance.frechet import frechet_speed

    result = frechet_speed(dimensions=512, repeats=1)
    if "speedup" not in result:
        pytest.skip("this SciPy no longer has the sqrtm that pytorch-fid calls")
    assert result["relative_difference"] < 1e-6
    assert result["speedup"] == result["reference_seconds"] / result["seconds"]
