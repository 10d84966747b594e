"""A step as one CUDA graph: what a small network costs on a GPU is the launching of its kernels, one by one.

The first calls run as they are, on a side stream as capturing wants it, and are steps like any other; then the step is
captured once and replayed from then on. Inputs are copied into the tensors that were captured. Nothing in the step may
wait for the device or ask a generator for numbers (`zoo.noise.given` hands them in).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
Step = Callable[..., Tensor]
# (step, its inputs) -> (replay it, where its output is found)
Recorder = Callable[[Step, list[Tensor]], tuple[Callable[[], None], Tensor]]


class Captured:
    """``step`` as it is on a CPU, and captured after some calls on a GPU.

    Args:
        step: takes and returns tensors, of the same shapes at every call.
        device: where it runs.
        record: what captures; None takes CUDA graphs on a GPU and captures nothing on a CPU.
    """

    def __init__(self, step: Step, device: torch.device, record: Recorder | None = None) -> None:
        self.step, self.device = step, device
        self.record = record or (_cuda_graph if device.type == "cuda" else None)
        self.calls = 0
        self.inputs: list[Tensor] = []
        self.replay: Callable[[], None] | None = None
        self.output: Tensor | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The output of the step; a tensor of its own, which the next call leaves alone."""
        self.calls += 1
        if self.record is None:
            return self.step(*inputs)
        if self.calls <= WARM_UP:
            return self._aside(inputs)
        if self.replay is None:
            self.inputs = [value.clone() for value in inputs]
            self.replay, self.output = self.record(self.step, self.inputs)
        else:
            for place, value in zip(self.inputs, inputs, strict=True):
                place.copy_(value)
        self.replay()
        return self.output.clone()

    def _aside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if self.device.type != "cuda":
            return self.step(*inputs)
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            output = self.step(*inputs)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        return output


def _cuda_graph(step: Step, inputs: list[Tensor]) -> tuple[Callable[[], None], Tensor]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step(*inputs)
    return graph.replay, output
