"""Walks through latents: where they begin and end, what they hold, and which dimension comes first."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import gamma

from benchmarks import latents
from benchmarks.check.subject import DIGITS, digits, subject
from benchmarks.pictures import to_bytes
from zoo import list_models
from zoo.data.batches import Batches
from zoo.data.images import DataSpec, Images
from zoo.distributions.gaussians import kl_diagonal
from zoo.errors import UsageError

NO_SCALE = {"vq_vae", "vq_vae_2", "categorical_vae"}
COMPLETES = {"quadrant_cvae"}


def asked(name: str, n: int = 24):
    model = subject(name).known()
    x, y = subject(name).batch(n)
    return model, x, y


@pytest.mark.parametrize("way", ["linear", "spherical"])
@pytest.mark.parametrize("name", [name for name in list_models() if name not in COMPLETES])
def test_an_interpolation_goes_from_one_reconstruction_to_the_other(name: str, way: str) -> None:
    model, x, y = asked(name, 8)
    ya, yb = (None, None) if y is None else (y[:4], y[4:])
    images = latents.interpolate(model, x[:4], x[4:], ya, yb, steps=5, way=way)
    assert images.dtype == torch.uint8 and images.shape == (20, 1, 28, 28)
    rows = images.unflatten(0, (4, 5)).int()
    ends = to_bytes(model.reconstruct(x, y)).int()
    # A code that went through a half-turn and back may round a pixel the other way.
    assert (rows[:, 0] - ends[:4]).abs().max() <= 1 and (rows[:, -1] - ends[4:]).abs().max() <= 1
    assert name in NO_SCALE or (rows[:, 2] != rows[:, 0]).any()


@pytest.mark.parametrize("name", [name for name in list_models() if name not in NO_SCALE | COMPLETES])
def test_a_traversal_has_the_most_informative_dimension_first(name: str) -> None:
    model, x, y = asked(name)
    images, dims, rates = latents.traverse(model, x, y, dims=3, steps=5)
    assert images.shape == (len(dims) * 5, 1, 28, 28) and len(set(dims)) == len(dims) <= 3
    assert rates == sorted(rates, reverse=True) and rates[0] > 0
    every = latents.traverse(model, x, y, dims=10_000, steps=1)[2]
    assert rates == pytest.approx(every[: len(dims)])


def test_a_traversal_holds_the_other_dimensions_and_measures_in_deviations_of_the_prior() -> None:
    model, x, _ = asked("vae")
    images, dims, rates = latents.traverse(model, x, None, image=2, dims=6, steps=7)
    q = model.infer(x)
    zero = torch.zeros_like(q.mean)
    expected = kl_diagonal(q.mean, q.log_variance, zero, zero).mean(0)
    assert rates == pytest.approx(expected[dims].tolist())
    code = model.represent(x)[2].clone()
    code[dims[1]] = -3 + 6 * 4 / 6
    assert torch.equal(images[7 + 4], to_bytes(model.likelihood.mean(model.decode(code[None])))[0])


def test_positive_codes_are_walked_along_their_cube_roots_in_deviations_of_the_prior_down_to_zero() -> None:
    model, x, _ = asked("gamma_vae")
    images, dims, rates = latents.traverse(model, x, None, image=2, dims=6, steps=7)
    assert rates == pytest.approx(model.terms(x).divergence.mean(0)[dims].tolist())
    shape, rate = model.settings.prior_shape, model.settings.prior_rate
    first, second = (gamma.expect(lambda z, p=p: z**p, (shape,), scale=1 / rate) for p in (1 / 3, 2 / 3))
    code = model.represent(x)[2].clone()
    code[dims[1]] = (first + (-3 + 6 * 4 / 6) * math.sqrt(second - first**2)) ** 3
    expected = to_bytes(model.likelihood.mean(model.decode(code[None])))[0]
    assert (images[7 + 4].int() - expected.int()).abs().max() <= 1  # a root and back may round a pixel otherwise
    walk = latents.latents_of(model)
    below = torch.tensor([[-0.5] * 6, [0.0] * 6])
    assert torch.equal(*walk.images(below, None))


def test_a_hierarchy_is_walked_along_its_top_layer_and_the_others_follow() -> None:
    model, x, _ = asked("ladder_vae")
    _, dims, _ = latents.traverse(model, x, None, dims=1000, steps=2)
    top = model.sizes[-1]
    assert sorted(dims) == list(range(top))
    walk = latents.latents_of(model)
    codes = walk.codes(x, None)[:, :top]
    below = model.prior[-1](model.down[-1](codes))[0]
    assert torch.equal(walk.images(codes, None), walk.images(torch.cat([codes, below], 1), None))


def test_a_class_is_carried_along_and_mixed() -> None:
    model, x, y = asked("cvae", 4)
    held = latents.interpolate(model, x[:1], x[:1], y[:1], (y[:1] + 1) % 10, steps=3)
    q = model.likelihood.mean(model.decode(model.represent(x[:1], (y[:1] + 1) % 10), (y[:1] + 1) % 10))
    assert torch.equal(held[2], to_bytes(q)[0])
    assert not torch.equal(held[0], held[2])


def test_a_class_is_mixed_where_the_data_has_attributes_too() -> None:
    model = subject("cvae").make(DataSpec((1, 8, 8), "binary", classes=3, attributes=2)).eval()
    x, y = torch.ones(2, 1, 8, 8), torch.tensor([0, 2])
    images = latents.interpolate(model, x[:1], x[1:], y[:1], y[1:], steps=2)
    assert torch.equal(images, to_bytes(model.reconstruct(x, y)))


@pytest.mark.parametrize("name", sorted(NO_SCALE | COMPLETES))
def test_what_has_no_way_says_why_in_one_sentence(name: str) -> None:
    model, x, _ = asked(name)
    with pytest.raises(UsageError, match="zoo (interpolate|reconstruct)"):
        latents.traverse(model, x, None)


@pytest.mark.parametrize("name", ["rae", "svae", "hvae", "vamp_vae"])
def test_one_code_has_no_deviation_to_walk_in(name: str) -> None:
    model, x, _ = asked(name, 1)
    with pytest.raises(UsageError, match="at least two images, and there is 1"):
        latents.traverse(model, x, None)


def test_no_pair_has_no_way_from_one_to_the_other() -> None:
    model, x, _ = asked("vae", 1)
    with pytest.raises(UsageError, match="from one image to another needs two"):
        latents.interpolate(model, x[:0], x[:0])


def test_spherical_steps_are_equal_angles_and_keep_the_length() -> None:
    a, b = torch.randn(2, 5, 40)
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    whole = torch.acos((a * b).sum(1))
    for t in (0.0, 0.25, 0.5, 1.0):
        z = latents.slerp(a, b, t)
        assert torch.allclose(z.norm(dim=1), torch.ones(5), atol=1e-5)
        assert torch.allclose(torch.acos((a * z).sum(1).clamp(-1, 1)), t * whole, atol=2e-3)
    assert torch.allclose(latents.slerp(a, 2 * a, 0.5), 1.5 * a, atol=1e-5)
    assert torch.isfinite(latents.slerp(a, -a, 0.5)).all() and torch.isfinite(latents.slerp(0 * a, b, 0.5)).all()
    right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert torch.allclose(latents.slerp(*right, 0.5), torch.full((1, 2), math.sqrt(0.5)))


def test_evaluation_gets_both_pictures_or_what_there_is() -> None:
    x, y = digits()
    images = Images((x * 255).to(torch.uint8), y)
    made = {}
    for name in ("vae", "vq_vae", "quadrant_cvae"):
        made[name] = latents.pictures(subject(name).known(), Batches(images, batch_size=64))
    assert set(made["vae"]) == {"traversals", "interpolations"}
    assert set(made["vq_vae"]) == {"interpolations"} and not made["quadrant_cvae"]
    assert made["vae"]["interpolations"].shape == (64, *DIGITS.shape)
    # Eight rows of eight, whose dimensions there are fewer of here.
    assert made["vae"]["traversals"].shape == (6 * 8, *DIGITS.shape)


def test_an_animation_goes_there_and_back() -> None:
    images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1)
    shown = [frame.flatten().tolist() for frame in latents.frames(images, 3)]
    assert shown == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11], [2, 6, 10], [1, 5, 9]]
