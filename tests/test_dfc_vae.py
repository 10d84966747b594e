"""Distances of feature maps, by hand and of networks of timm, and a training that minimises them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import create_model, load_run
from zoo.config import resolve
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models.dfc_vae import DFCVAE, distance
from zoo.nets.features import FeatureSettings, RandomFeatures, TimmFeatures, make_features
from zoo.runs import train_run
from zoo.training.precision import choose

BITS = DataSpec((1, 16, 16), "binary")
COLOUR = DataSpec((3, 32, 32), "8-bit")


def make(spec: DataSpec = BITS, **settings: Any) -> DFCVAE:
    nets = {"encoder": {"hidden": [16]}, "decoder": {"hidden": [16]}, "latent": 4}
    torch.manual_seed(0)
    return create_model("dfc_vae", data=spec, **nets, **settings)


def bits(n: int = 32) -> Tensor:
    return (torch.rand(n, *BITS.shape, generator=torch.Generator().manual_seed(1)) < 0.3).float()


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each network of timm that was made since was to have its published weights; none of them are fetched."""
    asked: list[bool] = []
    create = timm.create_model

    def without(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        asked.append(pretrained)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(asked))
            return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", without)
    return asked


# ---- maps ------------------------------------------------------------------------------------------------------------


def test_random_maps_are_those_of_convolutions_that_halve_the_image_and_keep_its_size() -> None:
    features = RandomFeatures(3, (4, 8, 16))
    x = torch.rand(5, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    maps = features(x)
    assert [tuple(one.shape) for one in maps] == [(5, 4, 12, 10), (5, 8, 6, 5), (5, 16, 3, 3)]
    before = 2 * x - 1
    for layer, after in enumerate(maps):
        weight = features.state_dict()[f"weight{layer}"]
        expected = F.relu(F.conv2d(before, weight, stride=1 if layer == 0 else 2, padding=1))
        torch.testing.assert_close(after, expected)
        before = after
    wide = RandomFeatures(3, (256, 256))
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)) / 2 + 0.5
    for one in wide(noise):  # a ReLU keeps half of the squares, the weights are as much larger
        assert one[..., 1:-1, 1:-1].square().mean() == pytest.approx(1.0, rel=0.15)


def test_random_maps_are_the_same_in_every_run() -> None:
    torch.manual_seed(1)
    one = make().features
    torch.manual_seed(2)
    other = create_model("dfc_vae", data=BITS).features
    for ours, theirs in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    before = torch.random.get_rng_state()
    RandomFeatures(1, (4, 4))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (1, 28, 28), (3, 64, 64)])
def test_images_of_any_size_are_compared_each_by_itself(shape: tuple[int, int, int]) -> None:
    model = make(DataSpec(shape, "8-bit"))
    generator = torch.Generator().manual_seed(0)
    x, shown = torch.rand(3, *shape, generator=generator), torch.rand(3, *shape, generator=generator)
    found = model.unlike(x, shown)
    assert found.shape == (3,) and (found > 0).all()
    torch.testing.assert_close(model.unlike(x, x), torch.zeros(3), rtol=0, atol=1e-12)
    torch.testing.assert_close(model.unlike(shown, x), found)
    alone = torch.cat([model.unlike(a[None], b[None]) for a, b in zip(x, shown, strict=True)])
    torch.testing.assert_close(alone, found)


def test_the_distance_is_half_the_mean_square_of_each_layer_summed() -> None:
    a = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])
    b = torch.tensor([[[[1.0, 5.0]]], [[[2.0, 4.0]]]])
    assert distance(a, b).tolist() == pytest.approx([9 / 4, 20 / 4])
    assert distance(a.bfloat16(), b.bfloat16()).dtype == torch.float32
    model, x = make(features={"channels": [3, 5]}), bits(4)
    shown = 1 - x
    maps = zip(model.features(x), model.features(shown), strict=True)
    expected = sum(0.5 * (one - other).pow(2).mean((1, 2, 3)) for one, other in maps)
    torch.testing.assert_close(model.unlike(x, shown), expected)


# ---- what is trained -------------------------------------------------------------------------------------------------


def test_the_network_is_never_trained_and_is_kept_with_the_model() -> None:
    model, x = make(), bits()
    features = {name: value.clone() for name, value in model.features.state_dict().items()}
    assert features and not [*model.features.parameters()]
    optimiser = torch.optim.Adam(model.parameter_groups()["vae"], 0.01)
    before = [one.detach().clone() for one in model.decoder.parameters()]
    for _ in range(3):
        optimiser.zero_grad()
        model.losses(x)["vae"].backward()
        optimiser.step()
    assert all(not torch.equal(*pair) for pair in zip(before, model.decoder.parameters(), strict=True))
    for name, value in features.items():
        assert torch.equal(model.state_dict()[f"features.{name}"], value)


# ---- networks of timm ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vgg11", "resnet10t"])  # one of plain convolutions, one with batch normalisation
def test_maps_of_timm_are_those_of_its_network_and_stay_what_they_are(name: str, fetched: list[bool]) -> None:
    features = make_features(FeatureSettings(timm=name, layers=[1, 3]), COLOUR)
    assert isinstance(features, TimmFeatures) and fetched == [True]
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    known = timm.get_pretrained_cfg(name)
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (known.mean, known.std))
    plain = timm.create_model(name, features_only=True, out_indices=(0, 2)).eval()
    assert not plain.load_state_dict(features.network.state_dict(), strict=False).unexpected_keys
    assert any(isinstance(part, nn.BatchNorm2d) for part in plain.modules()) == (name == "resnet10t")
    expected = plain((x - mean) / std)
    assert not any(part.training for part in features.network.modules())
    features.train()
    assert not any(part.training for part in features.modules())
    for one, other in zip(features(x), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not [*features.parameters()]
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in features.modules())
    grey = make_features(FeatureSettings(timm=name, layers=[1]), DataSpec((1, 32, 32), "8-bit"))
    grey.network.load_state_dict(features.network.state_dict(), strict=False)
    torch.testing.assert_close(grey(x[:, :1]), features(x[:, :1].expand(-1, 3, -1, -1))[:1], rtol=1e-4, atol=1e-5)


def test_a_run_comes_back_without_fetching_the_network_that_it_has(fetched: list[bool], tmp_path: Path) -> None:
    settings = ["features.timm=resnet10t", "features.layers=[1]", "train.epochs=1"]
    trained = train_run(resolve("dfc_vae", "synthetic", settings=settings), tmp_path, choose("cpu")).model
    assert fetched.count(True) == 1
    fetched.clear()
    loaded = load_run(tmp_path)
    assert fetched and not any(fetched)
    for ours, theirs in zip(loaded.features.state_dict().values(), trained.features.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_random_maps_compare_real_data_too() -> None:
    spec = DataSpec((1, 8, 8), "real")
    assert make(spec).losses(torch.randn(4, *spec.shape))["vae"].isfinite()


@pytest.mark.parametrize(
    ("spec", "features", "said"),
    [
        (COLOUR, {"name": "timm"}, "features.name=timm needs features.timm=NAME"),
        (COLOUR, {"timm": "vgg91"}, "no timm model 'vgg91'"),
        (COLOUR, {"timm": "vgg11", "layers": [1, 9]}, r"features.timm=vgg11 has no maps features.layers=1,9 \("),
        (COLOUR, {"timm": "vit_tiny_patch16_224"}, "features.timm=vit_tiny_patch16_224 cannot take images of 3x32x32"),
        (DataSpec((2, 32, 32), "8-bit"), {"timm": "vgg11"}, "images of one channel or of three, not of 2"),
        (DataSpec((3, 32, 32), "real"), {"timm": "vgg11"}, "knows pixels in .0, 1.*continuous_bernoulli"),
    ],
    ids=str,
)
def test_a_network_that_cannot_compare_the_images_is_refused_in_a_sentence(
    spec: DataSpec, features: dict[str, Any], said: str, fetched: list[bool]
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        make(spec, features=features)
    assert "\n" not in str(refused.value)
