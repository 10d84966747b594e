"""Everybody who looks at a run: the bar on the terminal and Weights & Biases. None of them changes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.matrix import Places, Planned
from benchmarks.record import moments
from benchmarks.report.bar import Bar
from zoo.config import RunConfig
from zoo.registry import registry


class Watchers:
    """The watchers of one run as one, in the form that the trainer and `benchmarks.matrix.measure` know.

    Args:
        mode: of Weights & Biases: auto, online, offline or disabled.
        config: what is run; sent as it is.
        folder: of the run; W&B keeps its files there.
        name, group: how W&B calls the run and what it files it under. Together they identify it, so a run that was
            killed goes on as the same W&B run, and one of another suite is another one.
    """

    def __init__(self, mode: str, config: RunConfig, folder: Path, name: str, group: str) -> None:
        self.bar = Bar(name)
        self.config = config
        self.told = False
        self.observer: Any = None
        if mode != "disabled":
            from benchmarks.report.wandb import Observer

            self.observer = Observer(mode, dir=folder)
            self.observer.start(config.model_dump(mode="json"), name=name, group=group, run_id=f"{name}-{group}")

    def step(self, state: dict[str, float]) -> None:
        self.bar.step(state)

    def epoch(self, row: dict[str, float]) -> None:
        self.bar.epoch(row)
        self.told = True
        if self.observer:
            self.observer.log(int(row["step"]), {name: value for name, value in row.items() if name != "step"})

    def finish(self, found: Any, content: dict[str, Any]) -> None:
        """``found`` is the run's `benchmarks.evaluate.Evaluation`, ``content`` the parts of its record."""
        self.bar.finish()
        if self.observer:
            step = content["train"]["steps"]
            if not self.told:  # it was trained before, or with others at once
                self._catch_up(content["curves"], step / content["train"]["epochs"] if step else 0)
            if not registry().private(content["data"]["name"]):
                for name, images in found.pictures.items():
                    self.observer.images(step, name, images.numpy())
            summary = {name: metric["value"] for name, metric in found.metrics.items()}
            for one in found.rates:
                summary |= {f"rate/{one['name']}": one["value"], f"active_units/{one['name']}": one["active"]}
            self.observer.finish(summary)
            self.observer = None

    def _catch_up(self, curves: dict[str, list[float | None]], steps: float) -> None:
        every = self.config.train.validate_every
        points = {name: dict(zip(moments(curves, name, every), values)) for name, values in curves.items()}
        for epoch in curves.get("epoch", []):
            row = {name: values[epoch] for name, values in points.items() if epoch in values}
            if epoch is not None:
                self.observer.log(round(steps * epoch), row)

    def close(self) -> None:
        """Stop looking, however the run ended; after `finish` there is nothing left to do."""
        self.bar.finish()
        if self.observer:
            self.observer.finish({}, failed=True)
            self.observer = None


def watching(mode: str, places: Places) -> Callable[[Planned], Watchers]:
    """What gives each cell of a matrix its watchers; ``mode`` as `Watchers` has it."""

    def watchers(planned: Planned) -> Watchers:
        cell = planned.cell
        return Watchers(mode, planned.config, places.run(cell), cell.stem, cell.group)

    return watchers
