"""The bar of a training run on a terminal; silent when the output is piped."""

from __future__ import annotations

import os
import sys

SHOWN = ("elbo", "rate", "distortion", "reconstruction_loss")
VALIDATED = ("validation_elbo", "validation_reconstruction_loss")


class Bar:
    """A tqdm bar with the bound, its two terms and the speed, for as long as one run trains."""

    def __init__(self, title: str) -> None:
        from tqdm import tqdm

        self.title = title
        self.bar = tqdm(
            total=None,
            desc=title,
            unit="step",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            leave=False,
            position=int(os.environ.get("ZOO_BAR", "0")),  # a line for each worker
            bar_format="{desc} {percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} {remaining} left{postfix}",
        )

    def step(self, state: dict[str, float]) -> None:
        self.bar.total = state["steps"]
        self.bar.n = state["step"]
        shown = {name: f"{state[name]:.1f}" for name in SHOWN if name in state}
        self.bar.set_postfix(shown | {"img/s": f"{state['images_per_second']:,.0f}"})

    def epoch(self, row: dict[str, float]) -> None:
        for value in (row[name] for name in VALIDATED if name in row):
            self.bar.set_description_str(f"{self.title} [validation {value:.2f}]")

    def finish(self, *_: object) -> None:
        self.bar.close()
