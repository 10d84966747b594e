"""vae-zoo: interchangeable VAE variants, one trainer, one evaluation, one board.

    >>> from zoo import create_model, list_models
    >>> model = create_model("beta_vae", beta=4.0)
    >>> model.sample(16).shape
    torch.Size([16, 1, 28, 28])
"""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["create_model", "list_models", "load_run"]

if TYPE_CHECKING:
    from zoo.models import create_model
    from zoo.runs import load_run


def list_models(pattern: str = "*") -> list[str]:
    """The names of the registered variants that match ``pattern`` (``"*vae"``); imports no torch."""
    from zoo.registry import registry

    return [name for name in registry().variants if fnmatch.fnmatch(name, pattern)]


def __getattr__(name: str) -> Any:
    # Torch takes a second to import: `import zoo` and every listing do without it.
    if name == "create_model":
        from zoo.models import create_model

        return create_model
    if name == "load_run":
        from zoo.runs import load_run

        return load_run
    raise AttributeError(f"module 'zoo' has no attribute '{name}'")
