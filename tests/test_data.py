"""Images, splits, binarisation and batches: the rules a reported number stands on."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo import noise
from zoo.data.batches import AHEAD, Batches, dequantised
from zoo.data.images import SPLITS, DataSpec, Images, ImageSet
from zoo.data.synthetic import load_ppca, load_synthetic, ppca_log_prob, ppca_ml_optimum, ppca_truth
from zoo.errors import UsageError
from zoo.models import data_spec


@pytest.fixture(scope="module")
def synthetic() -> ImageSet:
    return load_synthetic(n_train=100, n_validation=40, n_test=30)


def numbered(n: int = 50) -> Images:
    """Images whose every pixel is the number of the image."""
    pixels = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 2, 3, 4).contiguous()
    return Images(pixels, labels=torch.arange(n) % 7)


def drawn(batches: Batches, epoch: int, start: int = 0) -> list[list[int]]:
    return [(x[:, 0, 0, 0] * 255).round().long().tolist() for x, _ in batches.epoch(epoch, start)]


# -- the types


@pytest.mark.parametrize(
    "changes",
    [
        {"pixels": torch.zeros(4, 3, 3, dtype=torch.uint8)},
        {"pixels": torch.zeros(4, 1, 3, 3, dtype=torch.int64)},
        {"labels": torch.zeros(5, dtype=torch.int64)},
        {"labels": torch.zeros(4, dtype=torch.int32)},
        {"attributes": torch.zeros(4, 2, dtype=torch.uint8)},  # no names
        {"attribute_names": ("a",)},  # no attributes
        {
            "factors": torch.zeros(4, 1, dtype=torch.int64),
            "factor_names": ("a",),
            "factor_sizes": (3,),
        },  # no kind
        {
            "factors": torch.full((4, 1), 3),
            "factor_names": ("a",),
            "factor_sizes": (3,),
            "factor_kind": "exact",
        },
    ],
)
def test_images_refuse_what_does_not_fit(changes: dict) -> None:
    whole = {"pixels": torch.zeros(4, 1, 3, 3, dtype=torch.uint8)}
    Images(**whole)
    with pytest.raises(ValueError):
        Images(**(whole | changes))


def test_numpy_arrays_are_taken_over_without_a_copy(tmp_path) -> None:
    path = tmp_path / "map.u8"
    np.arange(2 * 3 * 4 * 5, dtype=np.uint8).tofile(path)
    mapped = np.memmap(path, np.uint8, "r", shape=(2, 3, 4, 5))
    images = Images(mapped)
    assert images.pixels.data_ptr() == mapped.ctypes.data
    assert images.pixels[1, 2, 3, 4] == 119


def test_image_set_refuses_splits_that_contradict_the_spec(synthetic: ImageSet) -> None:
    for spec in (
        DataSpec((1, 28, 27), "8-bit", classes=10),
        DataSpec((1, 28, 28), "real", classes=10),
        DataSpec((1, 28, 28), "8-bit"),
        DataSpec((1, 28, 28), "8-bit", classes=10, attributes=2),
    ):
        with pytest.raises(ValueError):
            ImageSet("wrong", synthetic.splits, spec)
    with pytest.raises(ValueError, match="train: labels are classes from 0 to 8, or -1 .*; not from 0 to 9"):
        ImageSet("wrong", synthetic.splits, DataSpec((1, 28, 28), "8-bit", classes=9))
    with pytest.raises(UsageError, match="train, validation, test"):
        synthetic["tset"]


def of_kind(support: str, pixels: dict[str, torch.Tensor], **more) -> ImageSet:
    return ImageSet("mine", {s: Images(pixels[s]) for s in SPLITS}, DataSpec((1, 2, 2), support), **more)


@pytest.mark.parametrize(
    ("support", "right", "wrong", "said"),
    [
        ("binary", [0, 255], 1, "bytes other than 0 and 255"),
        ("binary", [0, 255], 254, "bytes other than 0 and 255"),
        ("real", [-1e30, 0.5], math.nan, "NaN or infinity"),
        ("real", [-1e30, 0.5], -math.inf, "NaN or infinity"),
    ],
)
@pytest.mark.parametrize("split", SPLITS)
def test_pixels_that_their_kind_of_data_cannot_have_are_counted_and_their_split_is_named(
    split: str, support: str, right: list, wrong: float, said: str
) -> None:
    kind = torch.float32 if support == "real" else torch.uint8
    pixels = {s: torch.tensor(right * 2, dtype=kind).repeat(9000, 1).view(-1, 1, 2, 2) for s in SPLITS}
    of_kind(support, pixels).check_pixels()
    for image in (0, 8500, 8999):
        pixels[split][image, 0, 1] = wrong
    with pytest.raises(UsageError, match=f"^'mine' is {support} data, and 3 of the 9,000 .* {split} split hold {said}"):
        of_kind(support, pixels).check_pixels()


def test_bytes_that_are_still_to_be_drawn_may_be_grey_and_drawn_ones_may_not(synthetic: ImageSet) -> None:
    for binarise in ("none", "threshold", "dynamic"):
        synthetic.prepare(binarise).check_pixels()
    drawn = synthetic.prepare("dynamic")
    grey = replace(drawn, splits={**drawn.splits, "test": synthetic["test"]})
    with pytest.raises(UsageError, match="30 of the 30 images of its test split"):
        grey.check_pixels()


def test_content_hash_sees_every_part(synthetic: ImageSet) -> None:
    images = synthetic["train"]
    again = Images(images.pixels.clone(), images.labels.clone())
    assert again.sha256 == images.sha256
    changed = images.pixels.clone()
    changed[17, 0, 3, 3] ^= 1
    swapped = images.labels.clone()
    swapped[[0, 1]] = (swapped[[0, 1]] + 1) % 10
    hashes = {
        images.sha256,
        Images(changed, images.labels).sha256,
        Images(images.pixels, swapped).sha256,
        Images(images.pixels).sha256,
        Images(images.pixels.transpose(2, 3), images.labels).sha256,
    }
    assert len(hashes) == 5


def test_synthetic_is_the_same_everywhere() -> None:
    first, second = load_synthetic(64, 16, 16), load_synthetic(64, 16, 16)
    assert first.sha256 == second.sha256
    assert first.sha256 != load_synthetic(64, 16, 16, seed=1).sha256
    assert load_synthetic(8, 8, 8, shape=(3, 32, 24)).spec.shape == (3, 32, 24)
    # Labels mean something: a picture is nearest to the mean of its own class far more often than by chance.
    train, test = load_synthetic()["train"], load_synthetic()["test"]
    means = torch.stack([train.pixels[train.labels == c].float().mean(0) for c in range(10)]).flatten(1)
    guess = torch.cdist(test.pixels.float().flatten(1), means).argmin(1)
    assert (guess == test.labels).float().mean() > 0.9


# -- binarisation


def test_dynamic_bits_have_the_right_mean_and_come_from_the_seed() -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(4000, 1, 16, 16)
    raw = ImageSet(
        "ramp", dict.fromkeys(("train", "validation", "test"), Images(grey)), DataSpec((1, 16, 16), "8-bit")
    )
    ready = raw.prepare("dynamic")
    assert ready.spec.support == "binary" and ready.test_bits_seed == 777 and ready.sha256 == raw.sha256
    assert ready["train"] is raw["train"]
    bits = ready["test"].pixels
    assert set(bits.unique().tolist()) == {0, 255}
    mean = (bits // 255).float().mean(0).flatten()
    p = torch.arange(256) / 255
    assert ((mean - p).abs() <= 4.5 * (p * (1 - p) / 4000).sqrt()).all()  # the ends exactly
    assert torch.equal(bits, raw.prepare("dynamic")["test"].pixels)
    assert not torch.equal(bits, raw.prepare("dynamic", test_bits_seed=778)["test"].pixels)
    assert not torch.equal(bits, ready["validation"].pixels)


def test_test_bits_are_the_published_ones() -> None:
    # A record names only the seed; these are the bits it stands for, whatever the machine.
    pixels = torch.full((1, 1, 4, 8), 128, dtype=torch.uint8)
    raw = ImageSet(
        "flat", dict.fromkeys(("train", "validation", "test"), Images(pixels)), DataSpec((1, 4, 8), "8-bit")
    )
    bits = (raw.prepare("dynamic")["test"].pixels.flatten() // 255).tolist()
    assert "".join(map(str, bits)) == "01110001100101011110011001000101"


def test_dynamic_bits_of_a_subset_are_the_same_bits(synthetic: ImageSet) -> None:
    whole = synthetic.prepare("dynamic").subset(7)
    part = synthetic.subset(7).prepare("dynamic")
    for split in ("train", "validation", "test"):
        assert torch.equal(whole[split].pixels, part[split].pixels)
    assert whole.sha256 == part.sha256 != synthetic.sha256
    assert synthetic.subset(10_000).sha256 == synthetic.sha256
    assert synthetic.subset({"train": 5}).sizes == {"train": 5, "validation": 40, "test": 30}


def test_threshold_and_none(synthetic: ImageSet) -> None:
    ready = synthetic.prepare("threshold")
    for split in ("train", "test"):
        assert torch.equal(ready[split].pixels == 255, synthetic[split].pixels >= 128)
        assert set(ready[split].pixels.unique().tolist()) == {0, 255}
    assert ready.spec == DataSpec((1, 28, 28), "binary", classes=10)
    assert synthetic.prepare("none") is synthetic


@pytest.mark.parametrize("support", ["binary", "real"])
def test_only_grey_bytes_are_binarised(support: str, synthetic: ImageSet) -> None:
    spec = DataSpec((1, 2, 2), support)
    assert spec.prepared("none") == spec
    for how in ("dynamic", "threshold"):
        with pytest.raises(UsageError, match=support):
            spec.prepared(how)
    with pytest.raises(UsageError):  # twice
        synthetic.prepare("threshold").prepare("dynamic")
    with pytest.raises(UsageError, match="dinamic"):
        synthetic.prepare("dinamic")


@pytest.mark.parametrize("support", ["binary", "real"])
def test_only_bytes_are_dequantised_and_not_those_that_are_bits(support: str, synthetic: ImageSet) -> None:
    with pytest.raises(UsageError, match=f"{support} data cannot be dequantised"):
        DataSpec((1, 2, 2), support).prepared("none", "uniform")
    with pytest.raises(UsageError, match="binary data cannot be dequantised"):
        synthetic.prepare("dynamic", dequantise="uniform")
    with pytest.raises(UsageError, match="uniformly"):
        synthetic.prepare("none", dequantise="uniformly")
    with pytest.raises(UsageError, match="dequantised data cannot be"):  # twice
        synthetic.prepare("none", dequantise="uniform").prepare("none", dequantise="uniform")
    with pytest.raises(ValueError, match="only bytes"):
        Images(torch.zeros(4, 1, 2, 2), noise_seed=1)


@pytest.mark.parametrize("asked", [("shapes_mini", "auto", "uniform"), ("mnist", "dynamic", "uniform"),
                                   ("mnist", "none", "uniformly"), ("mnist_static", "threshold", "none")])  # fmt: skip
def test_the_spec_of_a_registered_set_is_refused_where_its_images_are(asked: tuple[str, str, str]) -> None:
    assert data_spec("mnist", dequantise="uniform").support == "dequantised"
    assert [data_spec("mnist").support, data_spec("mnist", "none").support] == ["binary", "8-bit"]
    with pytest.raises(UsageError):
        data_spec(*asked)


def test_dequantised_images_are_the_same_bytes_with_a_seed_for_each_split(synthetic: ImageSet) -> None:
    ready = synthetic.prepare("none", 5, "uniform")
    assert ready.spec == replace(synthetic.spec, support="dequantised")
    assert (ready.dequantise, ready.test_bits_seed, ready.sha256) == ("uniform", 5, synthetic.sha256)
    assert all(ready[split].pixels is synthetic[split].pixels for split in SPLITS)
    assert len({ready[split].noise_seed for split in SPLITS}) == 3 and ready["test"].noise_seed == 5
    assert ready.subset(3)["test"].noise_seed == 5
    ready.check_pixels()


# -- batches


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own() -> None:
    batches = Batches(numbered(), batch_size=10, shuffle_seed=3)
    first, again, second = drawn(batches, 0), drawn(batches, 0), drawn(batches, 1)
    assert first == again != second
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(50))
    assert drawn(Batches(numbered(), batch_size=10, shuffle_seed=4), 0) != first
    assert sum(drawn(Batches(numbered(), batch_size=10), 5), []) == list(range(50))


@given(start=st.integers(0, 6), size=st.integers(1, 20), drop=st.booleans())
@settings(max_examples=25)
def test_an_epoch_resumed_is_the_rest_of_the_epoch(start: int, size: int, drop: bool) -> None:
    batches = Batches(numbered(), batch_size=size, shuffle_seed=3, drop_last=drop)
    whole = drawn(batches, 2)
    assert len(whole) == len(batches) == (50 // size if drop else math.ceil(50 / size))
    assert drawn(batches, 2, start) == whole[start:]


def test_the_order_does_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    drawn(Batches(numbered(), batch_size=10, shuffle_seed=3), 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("drop", [True, False])
def test_processes_share_an_epoch_between_them(drop: bool) -> None:
    parts = [
        Batches(numbered(47), batch_size=5, shuffle_seed=1, rank=rank, world=3, drop_last=drop)
        for rank in range(3)
    ]
    assert {len(part) for part in parts} == {3 if drop else 4}
    seen = sum((sum(drawn(part, 0), []) for part in parts), [])
    assert len(seen) == len(set(seen)) == (45 if drop else 47)


def test_x_is_the_byte_over_255_and_y_belongs_to_it() -> None:
    images = Images(torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1), labels=torch.arange(256))
    for x, y in Batches(images, batch_size=32, shuffle_seed=0, condition="class").epoch(0):
        assert x.dtype == torch.float32 and x.shape == (32, 1, 1, 1)
        assert torch.equal(x.flatten(), y.float() / 255)
    ids, x, y = next(Batches(images, batch_size=32).sequential(200))
    assert torch.equal(ids, torch.arange(200)) and y is None and torch.equal(x.flatten(), ids.float() / 255)


def test_attributes_condition_as_floats() -> None:
    marks = (torch.arange(12).view(6, 2) % 2).to(torch.uint8)
    images = Images(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), attributes=marks, attribute_names=("a", "b"))
    _, _, y = next(Batches(images, batch_size=6, condition="attributes").sequential())
    assert y.dtype == torch.float32 and torch.equal(y, marks.float())
    with pytest.raises(UsageError, match="no labels"):
        Batches(images, batch_size=6, condition="class")
    with pytest.raises(UsageError, match="no attributes"):
        Batches(numbered(), batch_size=6, condition="attributes")


def test_bits_on_the_fly_are_new_at_each_visit_and_have_the_right_mean() -> None:
    images = Images(torch.full((64, 1, 20, 20), 64, dtype=torch.uint8))
    batches = Batches(images, batch_size=64, binarise_on_the_fly=True)
    (first, _), (second, _) = next(batches.epoch(0)), next(batches.epoch(0))
    assert set(first.unique().tolist()) == {0.0, 1.0} and not torch.equal(first, second)
    p, n = 64 / 255, first.numel()
    assert abs(first.mean().item() - p) < 4.5 * math.sqrt(p * (1 - p) / n)


def test_bits_for_evaluation_do_not_depend_on_the_batch_size() -> None:
    images = Images(torch.full((30, 1, 5, 5), 100, dtype=torch.uint8))
    batches = Batches(images, batch_size=4, binarise_on_the_fly=True)
    whole = [torch.cat([x for _, x, _ in batches.sequential(size)]) for size in (1, 7, 30)]
    assert torch.equal(whole[0], whole[1]) and torch.equal(whole[0], whole[2])
    assert 0 < whole[0].mean() < 1


def noisy(n: int = 64, seed: int = 3) -> Images:
    """All bytes, four a picture, with the noise of a seed."""
    pixels = torch.arange(4 * n, dtype=torch.int64).remainder(256).to(torch.uint8).view(n, 1, 2, 2)
    return Images(pixels, noise_seed=seed)


def shown(images: Images, size: int = 64) -> torch.Tensor:
    return torch.cat([x for _, x, _ in Batches(images, batch_size=size, drop_last=False).sequential()])


def test_a_dequantised_byte_is_uniform_in_its_256th_of_the_unit_interval() -> None:
    images = noisy(4096)
    batches = Batches(images, batch_size=4096)
    for x in (next(batches.epoch(0))[0], batches.take(torch.arange(4096))[0], shown(images)):
        assert x.dtype == torch.float32 and x.min() >= 0 and x.max() < 1
        assert torch.equal((256 * x).floor(), images.pixels.float())
        u = (256 * x - images.pixels).flatten().double().sort().values
        # The largest distance between the distribution functions, at its 0.1 % point.
        steps = torch.arange(1, len(u) + 1, dtype=torch.float64) / len(u)
        assert (steps - u).abs().max() < 1.95 / math.sqrt(len(u))


def test_the_noise_of_a_byte_never_reaches_the_next_one() -> None:
    values = torch.arange(256, dtype=torch.float32)
    assert torch.equal((256 * dequantised(values, torch.ones(256) - 2.0**-24)).floor(), values)
    assert torch.equal(dequantised(values, torch.zeros(256)) * 256, values)


def test_dequantisation_noise_is_new_at_each_visit_in_training_and_comes_from_the_generator() -> None:
    batches = Batches(noisy(), batch_size=64)
    batches.generator = torch.Generator().manual_seed(1)
    first, second = (next(batches.epoch(0))[0] for _ in range(2))
    batches.generator.manual_seed(1)
    assert torch.equal(next(batches.epoch(0))[0], first) and not torch.equal(first, second)
    # As each of several models that are trained at once draws its own.
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    both, _ = batches.take(torch.arange(64).expand(2, 64), generators)
    assert torch.equal(both[0], first) and not torch.equal(both[1], first)


def test_processes_that_share_a_batch_dequantise_it_as_one_does() -> None:
    def batch(rank: int, world: int) -> torch.Tensor:
        made = Batches(noisy(), batch_size=64 // world, rank=rank, world=world)
        made.generator = torch.Generator().manual_seed(1)
        return next(made.epoch(0))[0]

    assert torch.equal(torch.cat([batch(rank, 4) for rank in range(4)]), batch(0, 1))


def test_dequantisation_noise_in_evaluation_is_of_the_seed_and_the_image_alone() -> None:
    whole = shown(noisy())
    assert all(torch.equal(shown(noisy(), size), whole) for size in (1, 7, 64))
    assert torch.equal(shown(noisy().subset(5)), whole[:5])
    assert not torch.equal(shown(noisy(seed=4)), whole)
    # It is no draw of a posterior, which is keyed by a seed of its own.
    u = 256 * whole - noisy().pixels
    for seed in (0, 3):
        with noise.keyed(seed, torch.arange(64)):
            assert not torch.allclose(noise.uniform(u), u, atol=0.01)


def test_streamed_bytes_are_dequantised_alike(monkeypatch) -> None:
    monkeypatch.setattr("zoo.data.batches._room", lambda device, limit: limit)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # needs a GPU
    kept, streamed = (Batches(noisy(), batch_size=8, resident_bytes=size) for size in (10_000, 10))
    assert kept.resident and not streamed.resident
    for draw in ("epoch", "sequential"):
        found = []
        for batches in (kept, streamed):
            batches.generator = torch.Generator().manual_seed(1)
            some = batches.epoch(0) if draw == "epoch" else ((x, y) for _, x, y in batches.sequential())
            found.append(torch.cat([x for x, _ in some]))
        assert torch.equal(*found)


def test_pictures_lie_on_a_device_once_for_all_who_train_on_them() -> None:
    images = Images(torch.zeros(64, 1, 2, 2, dtype=torch.uint8))
    first, second = (Batches(images, batch_size=8, device="meta", resident_bytes=256) for _ in range(2))
    assert first._pixels is second._pixels and first._pixels.device.type == "meta"
    others = Batches(images.subset(32), batch_size=8, device="meta", resident_bytes=256)
    assert others._pixels is not first._pixels
    # There is no room for another copy, and none is needed.
    assert Batches(images, batch_size=8, device="meta", resident_bytes=0).resident
    assert not Batches(images.subset(32), batch_size=8, device="meta", resident_bytes=0).resident
    del first, second
    assert not Batches(images, batch_size=8, device="meta", resident_bytes=0).resident


def test_streaming_gives_the_same_batches(monkeypatch) -> None:
    monkeypatch.setattr("zoo.data.batches._room", lambda device, limit: limit)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # needs a GPU
    kept = Batches(numbered(), batch_size=8, shuffle_seed=5, condition="class")
    streamed = Batches(numbered(), batch_size=8, shuffle_seed=5, condition="class", resident_bytes=10)
    assert kept.resident and not streamed.resident
    for (x, y), (other_x, other_y) in zip(kept.epoch(1), streamed.epoch(1), strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)
    for a, b in zip(kept.sequential(9), streamed.sequential(9), strict=True):
        assert all(torch.equal(u, v) for u, v in zip(a, b, strict=True))


def test_streamed_batches_are_collected_ahead_by_a_thread(monkeypatch) -> None:
    collected, main = [], threading.get_ident()

    def pinned(self):
        assert threading.get_ident() != main
        collected.append(self)
        if len(collected) == 5:
            raise MemoryError("no more pinned memory")
        return self

    monkeypatch.setattr("zoo.data.batches._room", lambda device, limit: limit)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    streamed = Batches(numbered(), batch_size=5, shuffle_seed=5, resident_bytes=10)
    supply = streamed.epoch(0)
    next(supply)
    supply.close()  # in the middle of an epoch: the rest of it is not collected
    assert 1 <= len(collected) <= 1 + AHEAD
    del collected[:]
    with pytest.raises(MemoryError, match="pinned"):
        list(streamed.epoch(0))
    assert 5 <= len(collected) <= 5 + AHEAD


def test_batches_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(UsageError, match="50 images do not fill one batch of 51: train.batch_size has to be"):
        Batches(numbered(), batch_size=51)
    with pytest.raises(UsageError):
        Batches(numbered(), batch_size=26, world=2)
    assert len(Batches(numbered(), batch_size=51, drop_last=False)) == 1
    with pytest.raises(UsageError):
        Batches(numbered(), batch_size=0)
    with pytest.raises(UsageError, match="real"):
        Batches(load_ppca(8, 8, 8)["train"], batch_size=4, binarise_on_the_fly=True)


# -- probabilistic PCA


def test_ppca_density_is_the_multivariate_normal() -> None:
    weight, mean = ppca_truth()
    x = torch.randn(20, 10, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(mean, weight @ weight.T + 0.3 * torch.eye(10, dtype=torch.float64))
    torch.testing.assert_close(ppca_log_prob(x, weight, mean, 0.3), normal.log_prob(x), rtol=0, atol=1e-9)


def test_ppca_optimum_is_reached_and_is_the_best() -> None:
    data = load_ppca()
    assert data.spec == DataSpec((1, 1, 10), "real")
    x = data["train"].pixels.flatten(1).double()
    weight, mean, s2, best = ppca_ml_optimum(x, 3)
    assert ppca_log_prob(x, weight, mean, s2).mean().item() == pytest.approx(best.item(), abs=1e-9)
    truth = ppca_log_prob(x, *ppca_truth(), 0.3).mean()
    assert 0 < best - truth < 0.02  # the fit beats the truth on its own sample, by about parameters / 2N
    assert s2.item() == pytest.approx(0.3, abs=0.01)
    for change in (weight * 1.02, weight * 0.98, weight + 0.02 * torch.randn_like(weight)):
        assert ppca_log_prob(x, change, mean, s2).mean() < best
    with pytest.raises(ValueError):
        ppca_ml_optimum(x, 10)
    xs, _ = next(Batches(data["train"], batch_size=16).epoch(0))
    assert torch.equal(xs, data["train"].pixels[:16])  # real data is not scaled


def test_a_spec_may_be_counted_by_numpy() -> None:
    labels = np.array([0, 2, 1])
    spec = DataSpec(np.zeros((3, 1, 8, 8)).shape[1:], "8-bit", classes=labels.max() + 1, attributes=np.uint8(0))
    plain = DataSpec((1, 8, 8), "8-bit", classes=3)
    assert spec == plain and json.dumps(asdict(spec)) == json.dumps(asdict(plain))
    assert DataSpec([1, 8, 8], "8-bit").shape == (1, 8, 8)
