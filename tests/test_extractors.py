"""Extractors and what is built on them: identity, bytes and floats, the feature cache, folders, Inception."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from safetensors.torch import load_file, save
from torch import nn

from benchmarks import fid
from benchmarks.digits.model import SHA256, DigitClassifier, load_digit_classifier, weights_path
from benchmarks.digits.train import accuracy, train
from benchmarks.metrics import extractors, weights
from benchmarks.metrics.extractors import Extractor, as_bytes, exact_float32, make_extractor
from benchmarks.metrics.frechet import frechet_from_features
from benchmarks.metrics.manifold import kernel_distance, manifold_quality
from benchmarks.metrics.quality import image_quality
from benchmarks.metrics.reconstruction import reconstruction_quality
from zoo.data.folder import SUFFIXES
from zoo.errors import UsageError, ZooError
from zoo.files import sha256_file


class Pixels(Extractor):
    """The first pixels themselves, and a count of how often they were asked for."""

    name = "pixels"
    dimensions = 4
    batch = 7

    def __init__(self, **identity: object) -> None:
        super().__init__(nn.Identity(), {"sha256": "none", "resize": "none", **identity})
        self.seen = 0

    def features(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return images.flatten(1)[:, :4].float()


def noise(n: int, channels: int = 1, size: int = 28, seed: int = 0, top: int = 256) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, top, (n, channels, size, size), generator=generator, dtype=torch.uint8)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAE_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def digits() -> Extractor:
    return make_extractor("digits")


# --- images in


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, np.float32])
def test_floats_are_the_bytes_they_came_from(dtype) -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    exact = images.double() / 255
    given = exact.numpy().astype(dtype) if dtype is np.float32 else exact.to(dtype)
    assert torch.equal(as_bytes(given), images)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.full((2, 1, 4, 4), 200.0), "reach from 200 to 200"),
        (torch.full((2, 1, 4, 4), -0.5), "reach from -0.5"),
        (torch.full((2, 1, 4, 4), torch.nan), "reach from nan"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), "not int64"),
        (torch.zeros(2, 2, 4, 4), r"shape is \(2, 2, 4, 4\)"),
        (torch.zeros(2, 4, 4), r"shape is \(2, 4, 4\)"),
    ],
)
def test_bad_images_are_refused_in_one_sentence(images: torch.Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        as_bytes(images)
    with pytest.raises(UsageError, match=said):
        image_quality(images, noise(10), Pixels())


# --- the digit classifier


def test_shipped_weights_are_the_hashed_ones_and_small() -> None:
    assert sha256_file(weights_path()) == SHA256
    assert weights_path().name == f"digits-{SHA256[:8]}.safetensors"
    assert weights_path().stat().st_size < 1_000_000


def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / weights_path().name
    path.write_bytes(weights_path().read_bytes()[:-1] + b"!")
    monkeypatch.setattr("benchmarks.digits.model.weights_path", lambda: path)
    with pytest.raises(ZooError, match="missing or changed"):
        load_digit_classifier()


def test_digit_classifier_knows_the_official_test_digits() -> None:
    from zoo.data.fetch import ASSETS
    from zoo.data.mnist import load_mnist

    if not weights.is_cached(ASSETS["mnist"]):
        pytest.skip("MNIST is not in the cache")
    mnist = load_mnist()
    model = load_digit_classifier()
    for images, least in ((mnist["test"], 0.988), (mnist.prepare("dynamic")["test"], 0.98)):
        assert accuracy(model, images.pixels.float() / 255, images.labels) >= least


def test_training_is_deterministic_and_learns() -> None:
    # Ten classes that a bright row tells apart.
    labels = torch.arange(1000) % 10
    pixels = noise(1000, top=60)
    pixels[torch.arange(1000), 0, 4 + 2 * labels, 4:24] = 255
    first, second = (train(pixels, labels, seed=3, epochs=8) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    # Shifts move one row onto its neighbour class's, so it cannot be perfect; chance is .1.
    assert accuracy(first, pixels.float() / 255, labels) > 0.3
    assert not torch.equal(first.conv1.weight, DigitClassifier().conv1.weight)


def test_digits_take_other_sizes_but_not_colour(digits: Extractor) -> None:
    assert digits(noise(3, size=32)).shape == (3, 64)
    with pytest.raises(UsageError, match="grey images"):
        digits(noise(3, channels=3))
    with pytest.raises(UsageError, match="no images"):
        digits(noise(0))


@pytest.mark.parametrize("size", [(64, 64), (28, 40), (20, 20)])
def test_digits_of_other_sizes_are_resized_as_their_identity_says(digits: Extractor, size: tuple[int, int]) -> None:
    # Pillow's bilinear filter grows with the step, which is what antialiasing means here. Stripes show it best.
    images = torch.randint(0, 256, (4, 1, *size), dtype=torch.uint8)
    images[:2, :, ::2], images[:2, :, 1::2] = 255, 0
    small = [
        np.asarray(Image.fromarray(picture[0].numpy().astype(np.float32)).resize((28, 28), Image.Resampling.BILINEAR))
        for picture in images
    ]
    assert digits.identity["resize"] == "bilinear, antialias" and digits.identity["input"] == 28
    by_pillow = torch.from_numpy(np.stack(small))[:, None]
    torch.testing.assert_close(digits.features(images), digits.features(by_pillow), rtol=1e-3, atol=1e-3)


def test_features_do_not_depend_on_the_batch_or_on_settings_around(digits: Extractor) -> None:
    images = noise(20)
    whole = digits(images)
    assert whole.dtype == torch.float32 and whole.shape == (20, digits.dimensions)
    torch.testing.assert_close(digits(images[7:9]), whole[7:9], rtol=1e-5, atol=1e-5)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(digits(images), whole)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_exact_float32_restores_after_an_error() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with pytest.raises(RuntimeError), exact_float32():
        assert not torch.backends.cudnn.allow_tf32
        raise RuntimeError
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_unknown_extractor_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'inception'"):
        make_extractor("inceptoin")


# --- the cache of reference features


def test_features_that_cannot_be_remembered_are_the_same(cache: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(extractors, "PART", 6)
    cache.write_text("where no folder can be made")
    images, extractor = noise(20), Pixels()
    assert torch.equal(extractor.cached(images, "reference"), extractor(images))
    assert len(caplog.records) == 1 and "cannot be written" in caplog.text


def test_features_are_remembered_by_content(cache: Path) -> None:
    images, extractor = noise(20), Pixels()
    first = extractor.cached(images, "mnist/test")
    assert extractor.seen == 20
    assert torch.equal(extractor.cached(images.float() / 255, "mnist/test"), first)
    assert extractor.seen == 20  # the same bytes, though given as floats
    other = images.clone()
    other[3, 0, 0, 0] += 1
    assert not torch.equal(extractor.cached(other, "mnist/test"), first)
    assert extractor.seen == 40  # the same key, another content
    Pixels(sha256="other weights").cached(images, "mnist/test")
    names = sorted(path.name for path in (cache / "features").iterdir())
    assert len(names) == 3 and all(name.startswith("pixels-mnist_test-") for name in names)
    assert torch.equal(extractor.cached(images, None), first)
    assert extractor.seen == 60  # without a key nothing is looked up


def test_features_that_were_interrupted_go_on(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractors, "PART", 6)
    images, extractor, features = noise(20), Pixels(), Pixels.features

    def killed(self, images: torch.Tensor) -> torch.Tensor:
        if self.seen == 12:
            raise KeyboardInterrupt
        return features(self, images)

    monkeypatch.setattr(Pixels, "features", killed)
    with pytest.raises(KeyboardInterrupt):
        extractor.cached(images, "reference")
    monkeypatch.setattr(Pixels, "features", features)
    spoilt = sorted((cache / "features").rglob("*.safetensors"))
    assert len(spoilt) == 2
    spoilt[0].write_bytes(b"half")
    assert torch.equal(extractor.cached(images, "reference"), Pixels()(images))
    assert extractor.seen == 12 + 6 + 8  # the spoilt part and what was missing
    assert len(list((cache / "features").iterdir())) == 1


def test_a_spoilt_cache_is_made_again(cache: Path) -> None:
    images, extractor = noise(20), Pixels()
    first = extractor.cached(images, "reference")
    (path,) = (cache / "features").iterdir()
    for content in (b"not safetensors", save({"features": torch.zeros(3, 4)}), save({"other": first})):
        path.write_bytes(content)
        assert torch.equal(extractor.cached(images, "reference"), first)
        assert torch.equal(load_file(path)["features"], first)


# --- image quality


def test_image_quality_is_in_the_records_format(cache: Path, digits: Extractor) -> None:
    from benchmarks.record import Metric

    fake, real = noise(70, seed=1), noise(80, seed=2)
    quality = image_quality(fake, real, digits, cache_key="noise", split="test")
    kinds = ("fd", "kid", "precision", "recall", "density", "coverage")
    assert list(quality) == [f"{kind}_digits" for kind in kinds]
    for name, metric in quality.items():
        Metric.model_validate(metric)
        json.dumps(metric, allow_nan=False)
        identity = metric["identity"]
        # Recall and coverage are means over the real images.
        assert metric["n"] == (80 if name.startswith(("recall", "coverage")) else 70)
        assert identity["n"] == 70 and identity["reference_n"] == 80
        assert identity["split"] == "test" and identity["sha256"] == SHA256
        assert identity["resize"] == "bilinear, antialias" and identity["extractor"] == "digits"
        assert metric["stderr"] > 0 or metric["value"] in (0, 1)
    assert quality["fd_digits"]["value"] == pytest.approx(frechet_from_features(digits(fake), digits(real)))
    for name, estimate in manifold_quality(digits(fake), digits(real), k=3, coverage_k=5).items():
        assert quality[f"{name}_digits"]["value"] == estimate.value
    # fd and kid have no neighbours; density is not better where it is higher.
    assert [metric["identity"].get("k") for metric in quality.values()] == [None, None, 3, 3, 5, 5]
    assert [metric["better"] for metric in quality.values()] == [*["lower"] * 2, *["higher"] * 2, None, "higher"]
    assert quality["kid_digits"]["identity"]["subset_size"] == 35
    kid, deviation = kernel_distance(digits(fake), digits(real), subsets=100, size=35)
    note = quality["kid_digits"]["note"]
    assert quality["kid_digits"]["value"] == pytest.approx(kid.value)
    assert note == f"standard deviation over 100 subsets of 35: {deviation:.3g}"


def test_identity_changes_with_what_makes_numbers_incomparable(digits: Extractor) -> None:
    fake, real = noise(30, seed=1), noise(40, seed=2)

    def identity(*arguments: object, **settings: object) -> dict:
        return image_quality(*arguments, **settings)["fd_" + arguments[2].name]["identity"]

    base = identity(fake, real, digits)
    assert identity(noise(30, seed=5), real, digits) == base
    others = [
        identity(fake[:20], real, digits),
        identity(fake, real[:30], digits),
        identity(fake, real.flip(0), digits),
        identity(fake, real, digits, split="test"),
        identity(fake, real, Pixels()),
    ]
    assert all(other != base for other in others)
    flat = [images.view(len(images), 1, 14, 56) for images in (fake, real)]
    assert identity(*flat, Pixels()) != identity(fake, real, Pixels()), "the same bytes are other images"


def test_features_of_the_reference_are_remembered_and_of_samples_kept_where_they_are_slow(
    cache: Path, tmp_path: Path
) -> None:
    fake, real, parts = noise(10, seed=1), noise(12, seed=2), tmp_path / "parts"
    found = []
    for slow, seen in ((False, 22), (False, 10), (True, 10), (True, 0)):
        extractor = Pixels()
        extractor.slow = slow
        found.append(image_quality(fake, real, extractor, "noise", parts=parts))
        assert extractor.seen == seen and parts.exists() == slow
    assert found[1:] == found[:-1]


def test_floats_and_bytes_of_the_same_images_have_the_same_score(digits: Extractor) -> None:
    fake, real = noise(40, seed=1), noise(40, seed=2)
    as_given = image_quality(fake, real, digits)
    assert image_quality(fake.float() / 255, real.double() / 255, digits) == as_given


def test_few_images_are_said_to_bias(digits: Extractor) -> None:
    quality = image_quality(noise(30, seed=1), noise(90, seed=2), digits)
    assert quality["fd_digits"]["note"] == "biased upwards: 30 samples for 64 feature dimensions"
    assert image_quality(noise(90, seed=1), noise(90, seed=2), digits)["fd_digits"]["note"] is None


@pytest.mark.parametrize(
    ("fake", "real", "said"),
    [
        (noise(10), noise(10, size=32), "1x28x28 and the real ones 1x32x32"),
        (noise(10, channels=3), noise(10), "3x28x28 and the real ones 1x28x28"),
        (noise(1), noise(10), "at least 6 images on each side, not 1 and 10"),
        (noise(10), noise(5), "at least 6 images on each side, not 10 and 5"),
    ],
)
def test_pairs_that_cannot_be_compared_are_refused(fake: torch.Tensor, real: torch.Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        image_quality(fake, real, Pixels())


def test_worse_digits_have_a_larger_distance(digits: Extractor) -> None:
    from zoo.data.fetch import ASSETS
    from zoo.data.mnist import load_mnist

    if not weights.is_cached(ASSETS["mnist"]):
        pytest.skip("MNIST is not in the cache")
    pixels = load_mnist()["test"].pixels
    half, rest = pixels[:1000], pixels[1000:2000]
    spoilt = [rest.float() + strength * torch.randn(rest.shape) for strength in (0, 20, 40, 80)]
    scores = [frechet_from_features(digits(x.clamp(0, 255).byte()), digits(half)) for x in spoilt]
    assert scores == sorted(scores) and scores[-1] > 3 * scores[0]


# --- folders


def write(folder: Path, images: torch.Tensor) -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        array = image.permute(1, 2, 0).numpy()
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(folder / f"{i:04d}.png")
    return folder


@pytest.mark.parametrize("channels", [1, 3])
def test_folders_and_npz_load_the_same_images(tmp_path: Path, channels: int) -> None:
    images = noise(5, channels=channels, size=12)
    folder = write(tmp_path / "a", images)
    (folder / "notes.txt").write_text("not an image")
    assert torch.equal(fid.load_images(folder), images)
    np.savez(tmp_path / "first.npz", images.numpy())
    np.savez(tmp_path / "last.npz", images=images.permute(0, 2, 3, 1).numpy(), labels=np.arange(5))
    assert torch.equal(fid.load_images(tmp_path / "first.npz"), images)
    assert torch.equal(fid.load_images(tmp_path / "last.npz"), images)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_picture_that_a_folder_of_training_may_have_is_scored(tmp_path: Path, suffix: str) -> None:
    colour = suffix in (".jpg", ".ppm")  # a portable grey map has no colour
    picture = np.full((4, 4, 3) if colour else (4, 4), 128, np.uint8)
    Image.fromarray(picture).save(tmp_path / f"a{suffix}")
    images = fid.load_images(tmp_path)
    assert images.shape[0] == 1 and images.shape[2:] == (4, 4) and abs(int(images.float().mean()) - 128) < 3


def test_hidden_files_are_no_images_of_a_folder(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 7).save(tmp_path / "seen.png")
    Image.new("L", (4, 4), 9).save(tmp_path / ".thumb.png")
    (tmp_path / "._seen.png").write_bytes(b"what some systems keep beside a file on a disk of another kind")
    assert fid.load_images(tmp_path).tolist() == [[[[7] * 4] * 4]]


def test_one_colour_image_makes_the_folder_colour(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", noise(3, size=12))
    write(tmp_path / "b", noise(1, channels=3, size=12))
    (tmp_path / "b" / "0000.png").rename(folder / "zz.png")
    loaded = fid.load_images(folder)
    assert loaded.shape == (4, 3, 12, 12)
    assert torch.equal(loaded[:3], noise(3, size=12).expand(-1, 3, -1, -1))


def test_score_folders_is_image_quality_of_the_files(tmp_path: Path, cache: Path, digits: Extractor) -> None:
    fake, real = noise(20, seed=1), noise(25, seed=2)
    write(tmp_path / "fake", fake)
    np.savez(tmp_path / "real.npz", real.numpy())
    scores = fid.score_folders(tmp_path / "fake", tmp_path / "real.npz", extractor="digits")
    expected = image_quality(fake, real, digits)
    assert scores["n"] == 20 and scores["reference_n"] == 25
    for name, metric in expected.items():
        assert scores[name] == pytest.approx(metric["value"], rel=1e-6)
        assert scores[f"{name}_stderr"] == pytest.approx(metric["stderr"], rel=1e-6)
    assert len(scores) == 2 * len(expected) + 2


def test_bad_folders_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    mixed = write(tmp_path / "mixed", noise(2, size=12))
    write(tmp_path / "large", noise(1, size=13))
    (tmp_path / "large" / "0000.png").rename(mixed / "zz.png")
    (tmp_path / "spoilt").mkdir()
    (tmp_path / "spoilt" / "a.png").write_bytes(b"no image")
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "floats.npz", np.zeros((3, 4, 4)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "floats.npz").read_bytes()[:200])
    np.savez(tmp_path / "objects.npz", np.array([{}, {}], dtype=object))
    np.savez(tmp_path / "flat.npz", np.zeros((3, 4), np.uint8))
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    for name, said in {
        "absent": "does not exist",
        "empty": "holds no images",
        "mixed": "different sizes: 0000.png 12x12, zz.png 13x13",
        "spoilt": "not a readable image",
        "text.txt": "neither a folder nor an .npz",
        "broken.npz": "not an npz of plain numbers: an npz is a zip file, and this is none",
        "cut.npz": "not an npz of plain numbers: an npz is a zip file, and this is none, or not all of one",
        "objects.npz": "not an npz of plain numbers: Object arrays cannot be loaded",
        "floats.npz": "holds float64 numbers; images must be uint8",
        "flat.npz": r"shape \(3, 4\)",
        "two.npz": "holds 2 arrays",
    }.items():
        with pytest.raises(UsageError, match=said) as caught:
            fid.load_images(tmp_path / name)
        assert "\n" not in str(caught.value) and "pickle.load" not in str(caught.value)


# --- fetched weights


def test_inception_tensors_are_kept_only_when_nothing_is_lost() -> None:
    state = {
        "Conv2d_1a_3x3.conv.weight": torch.ones(2),
        "Conv2d_1a_3x3.bn.weight": torch.ones(2),
        "Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(0),
        "fc.weight": torch.ones(2),
    }
    assert list(weights.keep_inception(state)) == ["Conv2d_1a_3x3.conv.weight"]
    state["Conv2d_1a_3x3.bn.weight"][0] = 2
    with pytest.raises(ZooError, match="not the Inception of 2015-12-05"):
        weights.keep_inception(state)


def test_a_mirrors_wrong_bytes_are_never_parsed(tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(b"anything")
    with pytest.raises(ZooError, match="wrong SHA256"):
        weights._read(tmp_path / "file.pth", "0" * 64)


@pytest.mark.slow
def test_efficientnet_takes_colour_and_grey() -> None:
    if not weights.is_cached(weights.EFFICIENTNET_LITE0):
        pytest.skip("EfficientNet-Lite0's weights are not in the cache")
    extractor = make_extractor("efficientnet_lite0")
    grey = noise(2, size=64)
    features = extractor(grey)
    assert features.shape == (2, 1280)
    torch.testing.assert_close(extractor(grey.expand(-1, 3, -1, -1)), features)
    assert extractor(noise(2, channels=3, size=32)).isfinite().all()


@pytest.fixture(scope="module")
def inception_state() -> dict[str, torch.Tensor]:
    """The weights as the complete state that pytorch-fid and torch-fidelity load."""
    if not weights.is_cached(weights.INCEPTION):
        pytest.skip("Inception's weights are not in the cache: fetching them is 81 MB")
    state = load_file(weights.inception_weights())
    for name in [name for name in state if name.endswith("bn.bias")]:
        state[name.replace("bias", "weight")] = torch.ones_like(state[name])
        state[name.replace("bias", "num_batches_tracked")] = torch.tensor(0)
    return state | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


@pytest.mark.slow
def test_inception_features_are_pytorch_fids(
    inception_state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytorch_fid import fid_score, inception

    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: inception_state)
    images = noise(3, channels=3, size=40)
    folder = write(tmp_path / "a", images)
    expected = fid_score.get_activations(
        sorted(folder.iterdir()), inception.InceptionV3([3]), 3, 2048, "cpu", 0
    )
    found = make_extractor("inception")(images)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_inception_in_bfloat16_says_so_and_is_near(inception_state: dict[str, torch.Tensor]) -> None:
    images = noise(4, channels=1, size=28)
    exact, rounded = make_extractor("inception"), make_extractor("inception_bf16")
    assert rounded.identity == exact.identity | {"extractor": "inception_bf16", "arithmetic": "bfloat16"}
    expected, found = exact(images), rounded(images)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.slow
def test_the_fid_of_two_folders_is_pytorch_fids(
    inception_state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own way from files to a number: its reading, its network, its moments, its general matrix square root."""
    from pytorch_fid import fid_score, inception

    from zoo.data.synthetic import load_synthetic

    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: inception_state)
    images = load_synthetic(n_train=24, shape=(3, 32, 32))["train"].pixels
    folders = [write(tmp_path / name, part) for name, part in zip("ab", images.split(12), strict=True)]
    distance = fid_score.calculate_frechet_distance

    def rotated(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
        # The distance is the same in any orthonormal basis, and 24 images reach 23 of the 2048 directions: those are
        # enough, and the root of a small matrix.
        reached = np.linalg.qr(np.column_stack([mu1 - mu2, sigma1[:, :11], sigma2[:, :11]]))[0]
        assert reached.shape == (2048, 23)
        for sigma in (sigma1, sigma2):
            assert np.abs(reached @ (reached.T @ sigma @ reached) @ reached.T - sigma).max() < 1e-9 * sigma.max()
        small = [(reached.T @ mu, reached.T @ sigma @ reached) for mu, sigma in ((mu1, sigma1), (mu2, sigma2))]
        return distance(*small[0], *small[1])

    monkeypatch.setattr(fid_score, "calculate_frechet_distance", rotated)
    expected = fid_score.calculate_fid_given_paths([str(folder) for folder in folders], 12, "cpu", 2048, 0)
    extractor = make_extractor("inception")
    fake, real = (extractor(fid.load_images(folder)) for folder in folders)
    assert expected > 1
    assert frechet_from_features(fake, real) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_the_value_that_torchmetrics_prints_comes_out(
    inception_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    pytest.importorskip("torch_fidelity")
    from torchmetrics.image.fid import FrechetInceptionDistance

    from benchmarks.metrics.inception import inception_network

    torch.save(inception_state, tmp_path / "state.pth")
    torch.manual_seed(123)
    # Made as in the docstring: its construction draws from the same generator as the images.
    FrechetInceptionDistance(feature=64, feature_extractor_weights_path=str(tmp_path / "state.pth"))
    fake = torch.randint(0, 200, (100, 3, 299, 299), dtype=torch.uint8)
    real = torch.randint(100, 255, (100, 3, 299, 299), dtype=torch.uint8)
    network = inception_network(weights.inception_weights(), last="maxpool1")

    def features(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            parts = [network((part.float() - 128) / 128).mean((2, 3)) for part in images.split(20)]
        return torch.cat(parts)

    assert frechet_from_features(features(fake), features(real)) == pytest.approx(12.7202, abs=1e-4)


# --- reconstruction


def test_psnr_and_ssim_of_known_errors() -> None:
    x = torch.rand(6, 3, 16, 16) * 0.8 + 0.1
    off = torch.tensor([0.1, 0.01] * 3).view(6, 1, 1, 1)
    quality = reconstruction_quality(x, x + off, batch=4)
    assert quality["psnr"]["value"] == pytest.approx((20 + 40) / 2, abs=1e-3)
    assert quality["psnr"]["stderr"] == pytest.approx(np.std([20, 40] * 3, ddof=1) / 6**0.5, rel=1e-3)
    assert quality["psnr"]["unit"] == "dB" and quality["ssim"]["n"] == 6
    assert 0.9 < quality["ssim"]["value"] < 1
    exact = reconstruction_quality(x, x)
    assert exact["psnr"]["value"] == 100 and exact["ssim"]["value"] == pytest.approx(1, abs=1e-6)
    assert abs(reconstruction_quality(x, torch.rand_like(x))["ssim"]["value"]) < 0.2
    one = reconstruction_quality(x[:1], x[:1] + 0.1)
    assert one["psnr"]["value"] == pytest.approx(20, abs=1e-3) and one["psnr"]["stderr"] is None


def test_ssim_is_that_of_wang_et_al_with_the_image_mirrored_at_its_border() -> None:
    random = np.random.RandomState(0)
    x = random.rand(2, 1, 17, 20)
    y = np.clip(x + 0.2 * random.randn(*x.shape), 0, 1)
    bell = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(bell, bell) / bell.sum() ** 2

    def mean(image: np.ndarray) -> np.ndarray:
        return (sliding_window_view(np.pad(image, 5, mode="reflect"), (11, 11)) * window).sum((-2, -1))

    found = []
    for a, b in zip(x[:, 0], y[:, 0], strict=True):
        means, squares, product = (mean(a), mean(b)), (mean(a * a), mean(b * b)), mean(a * b)
        variances = [square - m**2 for square, m in zip(squares, means, strict=True)]
        light = (2 * means[0] * means[1] + 0.01**2) / (means[0] ** 2 + means[1] ** 2 + 0.01**2)
        rest = (2 * (product - means[0] * means[1]) + 0.03**2) / (sum(variances) + 0.03**2)
        found.append((light * rest).mean())
    made = reconstruction_quality(*(torch.from_numpy(images).float() for images in (x, y)))["ssim"]
    assert made["value"] == pytest.approx(np.mean(found), abs=1e-4)
    assert made["stderr"] == pytest.approx(np.std(found, ddof=1) / 2**0.5, abs=1e-4)


def test_batches_do_not_change_reconstruction_quality() -> None:
    x, y = torch.rand(2, 5, 1, 28, 28)
    whole, parts = reconstruction_quality(x, y), reconstruction_quality(x, y, batch=1)
    assert parts["ssim"]["value"] == pytest.approx(whole["ssim"]["value"], rel=1e-5)
    assert parts["psnr"]["value"] == pytest.approx(whole["psnr"]["value"], rel=1e-5)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (torch.zeros(2, 1, 16, 16), torch.zeros(3, 1, 16, 16), "must both be"),
        (torch.zeros(2, 1, 8, 16), torch.zeros(2, 1, 8, 16), "at least 11x11"),
        (torch.zeros(0, 1, 16, 16), torch.zeros(0, 1, 16, 16), "at least 11x11"),
        (torch.zeros(2, 1, 16, 16), torch.full((2, 1, 16, 16), torch.nan), "reconstructions must lie in"),
        (torch.full((2, 1, 16, 16), 255.0), torch.zeros(2, 1, 16, 16), "images must lie in"),
        (torch.zeros(2, 1, 16, 16, dtype=torch.uint8), torch.zeros(2, 1, 16, 16), "floats in"),
    ],
)
def test_bad_reconstructions_are_refused(x: torch.Tensor, y: torch.Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        reconstruction_quality(x, y)
