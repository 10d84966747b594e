"""Which device and which number format a run uses, and why."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from zoo.config import TrainConfig
from zoo.errors import UsageError
from zoo.models.base import VAE
from zoo.nets.features import RandomFeatures
from zoo.nets.products import quicken
from zoo.processor import multiplies_bf16
from zoo.training import memory, subnormal
from zoo.training.compiled import has_compiler

HALVES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {half: name for name, half in HALVES.items()}
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, RandomFeatures)
#: Operations of a training from which compiling it pays. A core does 1e11 of them a second, compiling takes up to half
#: a minute, and a dense network then trains a twentieth to three quarters faster: at the worst that is even after some
#: eight minutes, at the best after one.
COMPILE_FROM = 3e13


@dataclass(frozen=True)
class Compute:
    """Where and how a run computes.

    Attributes:
        device: where.
        half: autocast's type; None for float32.
        channels_last: pictures and convolutional weights lie in memory pixel by pixel.
        compiled: the losses are compiled.
        fast: precision and memory format are not decided yet: `for_run` decides when the model is known.
    """

    device: torch.device
    half: torch.dtype | None = None
    channels_last: bool = False
    compiled: bool = False
    fast: bool = False

    @property
    def scaled(self) -> bool:
        """fp16 needs its losses scaled; bf16 has float32's range and does not."""
        return self.half is torch.float16

    @property
    def name(self) -> str:
        name = NAMES[self.half]
        more = [word for word, is_so in (("channels last", self.channels_last), ("compiled", self.compiled)) if is_so]
        return ", ".join([name, *more])

    def for_run(self, model: VAE, train: TrainConfig, images: int) -> Compute:
        """What ``fast`` comes to for ``model``, and whether it is compiled when it is trained on ``images`` images.

        Both are rules and no race between two ways at the start: the same command on the same machine gives the same
        numbers. `docs/performance.md` has the measurements behind them. On a processor that multiplies bf16 that type
        wins, for convolutions with channels last; elsewhere everything stays as ``auto`` has it.
        """
        convolutional = any(isinstance(module, CONVOLUTIONS) for module in model.modules())
        decided = replace(self, fast=False, compiled=train.compile is True)
        if self.fast and self.device.type == "cpu" and multiplies_bf16():
            decided = replace(decided, half=torch.bfloat16, channels_last=convolutional)
        elif self.fast and self.device.type == "cuda":
            decided = replace(decided, channels_last=convolutional)
        if train.compile == "auto":
            # Three products of each weight with each decoding; of dense layers, which is what is compiled by this rule.
            operations = 6.0 * sum(p.numel() for p in model.parameters()) * images * train.epochs * model.decodings
            # Compiled, the gradient of one of several losses costs what that of all of them does.
            gains = self.device.type == "cpu" and not convolutional and len(model.parameter_groups()) == 1
            decided = replace(decided, compiled=gains and operations >= COMPILE_FROM and has_compiler())
        return decided

    def decision(self) -> dict[str, Any]:
        """What a run remembers, so that it goes on as it began on whatever machine: see `decided`."""
        return {"precision": NAMES[self.half], "channels_last": self.channels_last, "compiled": self.compiled}

    def decided(self, before: dict[str, Any], goes_on: bool = True) -> Compute:
        """This, with what a run decided `before`.

        Raises:
            UsageError: fp16, and this is a CPU, and the run ``goes_on``.
            KeyError: it is no such decision.
        """
        half = HALVES[before["precision"]]
        if goes_on and half is torch.float16 and self.device.type == "cpu":
            raise UsageError("this run was begun in fp16 on a GPU; it cannot go on on a CPU.")
        compiled = bool(before.get("compiled", False))  # which runs of before there was a choice do not say
        return replace(self, half=half, channels_last=bool(before["channels_last"]), compiled=compiled, fast=False)

    def place(self, model: nn.Module) -> nn.Module:
        """``model`` on the device, in the memory format of the run, its dense layers as they are quick there."""
        model.to(self.device)
        if self.device.type == "cpu":
            quicken(model)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context in which networks run; likelihoods and KLs leave it by themselves (`zoo.precision`)."""
        if self.half is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.half)


def choose(device: str = "auto", precision: str = "auto") -> Compute:
    """The device and precision for a request.

    ``auto`` takes the GPU if there is one; there bf16, or fp16 where the GPU has no bf16; float32 on a CPU. What
    ``fast`` is `Compute.for_run` decides.

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
    fast = precision == "fast"
    if precision in ("auto", "fast"):
        if place.type == "cpu":
            precision = "float32"
        else:
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if precision == "fp16" and place.type == "cpu":
        raise UsageError("train.precision=fp16 needs a GPU; on a CPU use float32 or bf16.")
    if place.type == "cpu":
        subnormal.start_threads()
        memory.keep_freed()
    else:
        # float32 means float32, and the same run the same numbers: neither is what cuDNN does by itself.
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    return Compute(place, HALVES[precision], fast=fast)
