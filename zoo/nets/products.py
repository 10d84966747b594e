"""Dense layers on AMD processors whose AVX-512 PyTorch leaves half unused.

PyTorch has MKL multiply float32 matrices on a CPU, and MKL gives a processor that is not Intel's half the width of its
registers. From Zen 5 on, whose units are 512 bits wide, oneDNN, which PyTorch has for convolutions, multiplies twice as
fast (`docs/performance.md`). It is reached by an operator of PyTorch's compiler, so whether it is there and right is
looked at before it is used. The two round differently and agree otherwise.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.processor import halved_by_mkl

#: Rows from which laying an operand anew takes longer than laying the result anew.
MANY = 1024
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # from PyTorch 2.7 on


@functools.cache
def quick() -> bool:
    """Whether oneDNN multiplies here: the processor is one that MKL halves, and the operator is there and right."""
    if not (halved_by_mkl() and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    x, weight, bias = torch.arange(15.0).view(3, 5), torch.arange(20.0).view(4, 5), torch.arange(4.0)
    try:
        found, transposed = _multiply(x, weight, bias), _multiply(x.t(), weight[:3].t(), None)
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(found, F.linear(x, weight, bias)) and torch.equal(transposed, x.t() @ weight[:3])


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    bias = None if bias is None else bias.contiguous()  # whose strides oneDNN does not look at
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")


# As an operator of its own a compiler takes it as it is; it would copy a weight that lies transposed.
_LIBRARY = torch.library.Library("vae_zoo", "DEF")
_LIBRARY.define("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
_LIBRARY.impl("linear", _multiply, "CPU")


@torch.library.register_fake("vae_zoo::linear", lib=_LIBRARY)
def _shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


class _Linear(torch.autograd.Function):
    """(..., I), (O, I) and (O,) or None to (..., O), differentiable as often as one likes."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.vae_zoo.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        # No `flatten`, for which torch has no rule where gradients are taken many at a time.
        rows, outputs = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        return (
            linear(gradient, weight.t()) if of_x else None,
            _of_weight(outputs, rows) if of_weight else None,
            outputs.sum(0) if of_bias else None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *operands: Tensor | None) -> tuple[Tensor, int]:
        return torch.vmap(F.linear, in_dims)(*operands), 0


class _Forward(_Linear):
    """With forward derivatives, of which a compiler takes no function."""

    @staticmethod
    def jvp(ctx: Any, of_x: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        parts = [
            None if of_x is None else F.linear(of_x, weight),
            None if of_weight is None else F.linear(x, of_weight),
            None if of_bias is None else of_bias.expand(*x.shape[:-1], -1),
        ]
        return sum(part for part in parts if part is not None)


def _of_weight(gradient: Tensor, x: Tensor) -> Tensor:
    # (N, O), (N, I) -> (O, I). The first operand is copied to lie transposed: of many rows let it be the narrower one.
    if len(x) >= MANY and x.shape[1] < gradient.shape[1]:
        return linear(x.t(), gradient.t()).t().contiguous()
    return linear(gradient.t(), x.t())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, in float32 on a CPU by oneDNN."""
    if x.dim() < 2 or torch.is_autocast_enabled("cpu") or not (_taken(x) and _taken(weight)):
        return F.linear(x, weight, bias)
    return (_Linear if torch.compiler.is_compiling() else _Forward).apply(x, weight, bias)


def _taken(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`; what leaves Python has PyTorch's own operator in it."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return F.linear(input, self.weight, self.bias)
        else:  # or what is scripted would have the other way in it too
            away = torch.jit.is_tracing() or _is_exporting() or isinstance(input, torch.fx.Proxy)
            return (F.linear if away else linear)(input, self.weight, self.bias)


def quicken(model: nn.Module) -> None:
    """Have the dense layers of ``model`` multiply by `linear` where that is `quick`; nothing else of them changes."""
    for module in model.modules() if quick() else ():
        if type(module) is nn.Linear:
            module.__class__ = Linear


def plain(model: nn.Module) -> None:
    """Undo `quicken`: for what looks for `torch.nn.Linear` by name, as torch's quantisation does."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = nn.Linear
