"""torch.hub entry points, one for each variant of the registry, by its name.

    >>> import torch
    >>> model = torch.hub.load("OWNER/vae-zoo", "beta_vae", beta=4.0)              # freshly initialised
    >>> model = torch.hub.load("OWNER/vae-zoo", "beta_vae", pretrained=True)       # a released run

`torch.hub.load(FOLDER, NAME, source="local")` does the same from a checkout.
"""

from __future__ import annotations

# Whatever is callable here and has a plain name is an entry point.
from collections.abc import Callable as _Callable
from pathlib import Path as _Path
from typing import Any as _Any

from zoo import create_model as _create_model
from zoo import list_models as _list_models
from zoo import load_run as _load_run
from zoo.errors import UsageError as _UsageError
from zoo.registry import registry as _registry

dependencies = ["torch", "numpy", "pydantic", "yaml", "safetensors", "tqdm"]
_WEIGHTS = _Path(__file__).resolve().parent / "leaderboard" / "weights"


def _entry(name: str) -> _Callable[..., _Any]:
    def make(pretrained: bool = False, *, device: str = "cpu", **settings: _Any) -> _Any:
        if not pretrained:
            return _create_model(name, **settings).to(device)
        if settings:
            raise _UsageError(f"released weights come with their own settings: leave out {', '.join(settings)}.")
        folder = _WEIGHTS / name
        if not (folder / "config.json").exists():
            raise _UsageError(
                f"no weights of '{name}' are released: leave out pretrained=True, or train some: `zoo train {name}`."
            )
        return _load_run(folder, device)

    entry = _registry().variants[name]
    make.__name__ = name
    make.__doc__ = (
        f"{entry.title}: {entry.summary}\n\n"
        "Args:\n"
        "    pretrained: the released weights, in evaluation mode, instead of fresh ones.\n"
        "    device: where the model is to live.\n"
        f"    settings: as `zoo.create_model('{name}', ...)` takes them, `data` among them.\n"
    )
    return make


for _name in _list_models():
    globals()[_name] = _entry(_name)
