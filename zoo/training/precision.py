"""Which device and which number format a run uses, and why."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from zoo.errors import UsageError


@dataclass(frozen=True)
class Compute:
    """Where and how a run computes: the device, autocast's type (None for float32), whether losses are scaled."""

    device: torch.device
    half: torch.dtype | None = None

    @property
    def scaled(self) -> bool:
        """fp16 needs its losses scaled; bf16 has float32's range and does not."""
        return self.half is torch.float16

    @property
    def name(self) -> str:
        return {None: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.half]

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context in which networks run; likelihoods and KLs leave it by themselves (`zoo.precision`)."""
        if self.half is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.half)


def choose(device: str = "auto", precision: str = "auto") -> Compute:
    """The device and precision for a request.

    ``auto`` takes the GPU if there is one; there bf16, or fp16 where the GPU has no bf16; float32 on a CPU.

    Raises:
        UsageError: an unknown device, or a GPU that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError:
        raise UsageError(f"no device '{device}'. Give auto, cpu, cuda or cuda:N.") from None
    if place.type not in ("cpu", "cuda"):
        raise UsageError(f"device '{device}' is not supported. Give auto, cpu, cuda or cuda:N.")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        shown = torch.cuda.device_count()
        raise UsageError(f"device '{device}' is not there: this machine shows {shown} CUDA devices.")
    if precision == "auto":
        if place.type == "cpu":
            precision = "float32"
        else:
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if precision == "fp16" and place.type == "cpu":
        raise UsageError("train.precision=fp16 needs a GPU; on a CPU use float32 or bf16.")
    return Compute(place, {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision])
