"""Networks by name: what is refused when one is asked for, and what running a model aside leaves as it was."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from zoo import create_model, load_run
from zoo.config import resolve
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models.vae import VanillaVAE
from zoo.nets import EncoderSettings, make_encoder
from zoo.nets.aside import aside
from zoo.nets.backbone import fetches
from zoo.registry import VariantEntry, registry
from zoo.runs import train_run
from zoo.training.precision import choose

SPEC = DataSpec((1, 28, 28), "binary", classes=10)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pretrained": True}, "needs encoder.timm"),
        ({"pretrained": True, "name": "conv"}, "needs encoder.timm"),
        ({"timm": "resnet10t", "name": "conv"}, "in place of encoder.name=conv"),
        ({"name": "timm"}, "needs encoder.timm"),
    ],
)
def test_a_setting_that_the_network_would_not_read_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        create_model("vae", data=SPEC, encoder=settings)


def test_a_timm_network_is_made_where_it_takes_the_images_and_refused_where_not() -> None:
    state = torch.get_rng_state()
    with pytest.raises(UsageError, match="convnext_atto cannot take images of 1x28x28"):
        make_encoder(EncoderSettings(timm="convnext_atto"), SPEC)
    torch.set_rng_state(state)
    encoder = make_encoder(EncoderSettings(timm="resnet10t"), SPEC, condition=10)
    drawn = torch.rand(3)
    torch.set_rng_state(state)
    import timm

    plain = timm.create_model("resnet10t", in_chans=11, num_classes=0)
    assert torch.equal(torch.rand(3), drawn), "trying it draws nothing"
    assert all(torch.equal(value, encoder.backbone.state_dict()[key]) for key, value in plain.state_dict().items())
    assert all(module.training for module in encoder.modules())
    assert encoder(torch.zeros(2, 1, 28, 28), torch.zeros(2, 10)).shape == (2, encoder.features)


@pytest.mark.parametrize("channels", [1, 3])
def test_fetched_weights_see_images_as_their_training_did(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    import timm

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: create(*args, **options | {"pretrained": False}))
    fetched = make_encoder(EncoderSettings(timm="resnet10t", pretrained=True), DataSpec((channels, 32, 32), "8-bit"))
    x = torch.rand(2, channels, 32, 32)
    known = [torch.tensor(fetched.backbone.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std")]
    mean, std = known if channels == 3 else (each.mean() for each in known)
    assert torch.allclose(fetched.eval()(x), fetched.backbone((x - mean) / std), atol=1e-6)


def test_a_run_that_began_with_fetched_weights_is_loaded_without_fetching_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    create = timm.create_model
    asked: list[bool] = []

    def fetch(name: str, pretrained: bool, **options: Any) -> nn.Module:
        asked.append(pretrained)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", fetch)
    settings = ["encoder.timm=resnet10t", "encoder.pretrained=yes", "train.epochs=1", "train.batch_size=32"]
    trained = train_run(resolve("vae", "synthetic", settings=settings), tmp_path, choose("cpu")).model.eval()
    assert asked and all(asked)
    asked.clear()
    loaded, x = load_run(tmp_path), torch.rand(2, *trained.spec.shape)
    assert asked and not any(asked)
    assert torch.equal(loaded.infer(x).centre, trained.infer(x).centre)


class Begun(VanillaVAE):
    """Where it begins with weights of its own kind it has a layer more."""

    class Settings(VanillaVAE.Settings):
        pretrained: bool = False

    fetched: ClassVar[list[bool]] = []

    def __init__(self, spec: DataSpec, settings: Any) -> None:
        super().__init__(spec, settings)
        self.scale = nn.Linear(1, 1) if settings.pretrained else None
        self.fetched.append(fetches())


def test_a_variant_with_fetched_weights_of_its_own_is_loaded_as_it_was_made_and_told_not_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = VariantEntry(target="tests.test_nets:Begun", title="Begun", origin="an author")
    monkeypatch.setitem(registry().variants, "begun", entry)
    config = resolve("begun", "synthetic", settings=["pretrained=yes", "train.epochs=0"])
    trained = train_run(config, tmp_path, choose("cpu")).model.eval()
    assert all(Begun.fetched)
    Begun.fetched.clear()
    loaded, x = load_run(tmp_path), torch.rand(2, *trained.spec.shape)
    assert Begun.fetched and not any(Begun.fetched)
    assert torch.equal(loaded.infer(x).centre, trained.infer(x).centre)


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_run_aside_is_afterwards_as_before(fails: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model[1].eval()
    state, drawn = torch.get_rng_state(), []
    for training in (False, True):
        with contextlib.suppress(ZeroDivisionError), aside(model, training):
            assert all(module.training == training for module in model.modules())
            drawn.append(torch.rand(3))
            if fails:
                raise ZeroDivisionError
        assert [module.training for module in model.modules()] == [True, True, False]
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*drawn)


@pytest.mark.parametrize("name", ["rae", "vae_gan"])
def test_a_model_whose_fitting_fails_is_in_the_mode_that_it_was_in(name: str) -> None:
    model = create_model(name, data=SPEC).train()
    with pytest.raises(RuntimeError):
        model.recollect([(torch.zeros(2, 1, 5, 5), None)])
    assert all(module.training for module in model.modules())
