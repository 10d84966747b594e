"""The bar of a training run on a terminal; silent when the output is piped."""

from __future__ import annotations

from benchmarks.progress import progress

SHOWN = ("elbo", "rate", "distortion", "reconstruction_loss")
VALIDATED = ("validation_elbo", "validation_reconstruction_loss")


class Bar:
    """A tqdm bar with the bound, its two terms and the speed, for as long as one run trains."""

    def __init__(self, title: str) -> None:
        self.title = title
        shown = "{desc} {percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} {remaining} left{postfix}"
        self.bar = progress(None, title, "step", bar_format=shown, delay=0)

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
