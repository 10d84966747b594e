"""The bar of a long loop on a terminal; silent when the output is piped, and where the loop is done in a second."""

from __future__ import annotations

import os
import sys
from typing import Any


def progress(total: int | None, title: str, unit: str, **settings: Any) -> Any:
    """A tqdm bar of ``total`` items that is gone once it is closed; each worker has a line of its own."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
        leave=False,
        position=int(os.environ.get("ZOO_BAR", "0")),
        **{"delay": 1.0} | settings,
    )
