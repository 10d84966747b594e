"""Dense layers by oneDNN: where, that they are right, and that a model is otherwise the one that it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.check.subject import subject
from tests.test_variants import batch, every_variant, trainable
from zoo import processor
from zoo.config import resolve
from zoo.nets import products
from zoo.runs import load_run, train_run
from zoo.training.precision import choose

ZEN_5 = {"vendor_id": "AuthenticAMD", "cpu family": "26", "flags": "sse2 avx2 avx512f"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a processor that MKL halves; the operator is the same everywhere."""
    products.quick.cache_clear()
    monkeypatch.setattr(products, "halved_by_mkl", lambda: True)
    yield
    products.quick.cache_clear()


def operands(*rows: int, inputs: int = 5, outputs: int = 3, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    made = [torch.randn(*rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)]
    return [tensor.to(dtype).requires_grad_() for tensor in made]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (ZEN_5, True),
        (ZEN_5 | {"cpu family": "27"}, True),
        (ZEN_5 | {"cpu family": "25"}, False),
        (ZEN_5 | {"cpu family": "unknown"}, False),
        (ZEN_5 | {"vendor_id": "GenuineIntel"}, False),
        (ZEN_5 | {"flags": "sse2 avx2"}, False),
        ({}, False),
    ],
)
def test_amd_processors_from_zen_5_on_are_halved_by_mkl(
    fields: dict[str, str], said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "fields", lambda: fields)
    assert processor.halved_by_mkl() is said
    assert not processor.multiplies_bf16()
    monkeypatch.setattr(processor, "fields", lambda: {"flags": "sse2 avx512_bf16"})
    assert processor.multiplies_bf16()


def test_it_is_used_only_where_the_operator_is_there_and_right(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*operands: Tensor | None) -> Tensor:
        raise AttributeError("no such operator")

    assert products.quick()
    for broken in (missing, lambda x, weight, bias: F.linear(x, weight, bias) + 1, lambda *operands: torch.zeros(3, 4)):
        products.quick.cache_clear()
        monkeypatch.setattr(products, "_multiply", broken)
        assert not products.quick()


@pytest.mark.parametrize("rows", [(4,), (1,), (2, 3), (0,), ()], ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_of_both_orders_are_those_of_linear(rows: tuple[int, ...], with_bias: bool) -> None:
    x, weight, bias = operands(*rows)
    found = []
    for function in (F.linear, products.linear):
        leaves = [x, weight, bias] if with_bias else [x, weight]
        out = function(*leaves)
        first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        found.append([out, *first, *second])
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", [4, products.MANY])
@pytest.mark.parametrize("sizes", [(5, 3), (3, 5)], ids=["narrowing", "widening"])
def test_the_weight_s_gradient_is_right_and_lies_as_the_weight_does(rows: int, sizes: tuple[int, int]) -> None:
    x, weight, bias = operands(rows, inputs=sizes[0], outputs=sizes[1])
    outer = torch.randn(rows, sizes[1])
    products.linear(x, weight, bias).backward(outer)
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()
    expected = torch.autograd.grad(F.linear(x, weight, bias), weight, outer)[0]
    torch.testing.assert_close(weight.grad, expected, rtol=1e-5, atol=1e-4)


def test_operands_may_lie_transposed_and_strided() -> None:
    x, weight, _ = operands(4, inputs=6)
    for a, b in ((x.t().contiguous().t(), weight.t().contiguous().t()), (x[:, ::2], weight[:, ::2]), (x, weight[::2])):
        torch.testing.assert_close(products.linear(a, b), F.linear(a, b))


def test_other_types_are_left_to_pytorch() -> None:
    x, weight, bias = operands(4, dtype=torch.float64)
    assert torch.equal(products.linear(x, weight, bias), F.linear(x, weight, bias))
    x, weight, bias = operands(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = products.linear(x, weight, bias)
    assert half.dtype == torch.bfloat16
    half.float().sum().backward()


def test_it_goes_through_torch_func() -> None:
    x, weight, bias = operands(4)
    stack = torch.stack([weight, 2 * weight])
    torch.testing.assert_close(
        torch.vmap(products.linear, (None, 0, None))(x, stack, bias), torch.stack([F.linear(x, w, bias) for w in stack])
    )
    out, pull = torch.func.vjp(lambda x: products.linear(x, weight, bias), x)
    torch.testing.assert_close(pull(torch.ones_like(out))[0], weight.sum(0).expand(4, -1))


@pytest.mark.parametrize("lies", ["strided", "expanded", "whole"])
def test_a_bias_may_lie_as_it_likes(lies: str) -> None:
    x, weight, _ = operands(4)
    bias = {"strided": torch.randn(6)[::2], "expanded": torch.randn(1).expand(3), "whole": torch.randn(3)}[lies]
    torch.testing.assert_close(products.linear(x, weight, bias), F.linear(x, weight, bias))


@pytest.mark.parametrize("transform", ["jacfwd", "jacrev", "hessian"])
def test_derivatives_of_either_mode_are_those_of_torch_s_layers(transform: str, quick: None) -> None:
    torch_s = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    ours = copy.deepcopy(torch_s)
    products.quicken(ours)
    x, found = torch.randn(2, 5), []
    for model in (torch_s, ours):
        assert model is torch_s or type(model[0]) is products.Linear
        found.append(getattr(torch.func, transform)(lambda x, model=model: model(x).sin().sum(1))(x))
        found.append(torch.autograd.functional.jacobian(model, x, vectorize=True))
        parameters = dict(model.named_parameters())
        ones = {name: torch.ones_like(value) for name, value in parameters.items()}
        call = lambda values, model=model: torch.func.functional_call(model, values, (x,))  # noqa: E731
        found.append(torch.func.jvp(call, (parameters,), (ones,))[1])
    torch.testing.assert_close(found[3:], found[:3])


def test_a_graph_has_torch_s_layers_and_they_can_be_had_back(quick: None) -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh())
    products.quicken(model)
    x = torch.randn(2, 5)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x))
    products.plain(model)
    assert type(model[0]) is nn.Linear


def test_it_is_compiled_whole() -> None:
    torch.compiler.reset()
    layer = nn.Linear(5, 3)
    layer.__class__ = products.Linear
    x = torch.randn(4, 5)
    out = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(out, F.linear(x, layer.weight, layer.bias))
    (of_weight,) = torch.autograd.grad(out.square().sum(), layer.weight)
    torch.testing.assert_close(of_weight, 2 * out.t() @ x)


@every_variant
def test_a_variant_loses_what_it_lost_and_keeps_its_state(name: str, quick: None) -> None:
    model = trainable(name)
    placed = choose("cpu").place(copy.deepcopy(model))
    dense = [module for module in model.modules() if type(module) is nn.Linear]
    assert [type(module) for module in placed.modules()].count(products.Linear) == len(dense)
    assert list(placed.state_dict()) == list(model.state_dict())
    assert repr(placed) == repr(model)
    x, y = subject(name).shown(16)
    found = []
    for one in (model, placed):
        torch.manual_seed(1)
        losses = one.losses(x, y, 1.0)
        parameters = [p for p in one.parameters() if p.requires_grad]
        found.append((losses, torch.autograd.grad(sum(losses.values()), parameters, allow_unused=True)))
    (before, gradients), (after, ours) = found
    for key, loss in before.items():
        torch.testing.assert_close(after[key], loss, rtol=1e-4, atol=1e-4)
    for gradient, other in zip(gradients, ours, strict=True):
        assert (gradient is None) == (other is None)
        if gradient is not None:
            torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-4 * max(1.0, gradient.abs().max().item()))


def test_where_nothing_is_gained_a_model_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "quick", lambda: False)
    placed = choose("cpu").place(nn.Sequential(nn.Linear(5, 3)))
    assert type(placed[0]) is nn.Linear


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_leaves_python_knows_no_operator_of_ours(quick: None) -> None:
    model, x = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(4, 5)
    expected = model(x)
    products.quicken(model)
    graphs = torch.jit.trace(model, x), torch.jit.script(model)
    programs = [str(graph.inlined_graph) for graph in graphs]
    if hasattr(torch.compiler, "is_exporting"):  # PyTorch 2.6 does not tell
        programs.append(str(torch.export.export(model, (x,))))
    assert not any("vae_zoo" in program for program in programs)
    for graph in graphs:
        torch.testing.assert_close(graph(x), expected)


def test_a_loaded_model_answers_as_the_trained_one_did(quick: None, tmp_path: Path) -> None:
    config = resolve("vae", "synthetic", settings=["train.epochs=1", "latent=4"])
    trained = train_run(config, tmp_path, choose("cpu")).model
    loaded = load_run(tmp_path)
    assert [type(module) for module in loaded.modules()] == [type(module) for module in trained.modules()]
    assert products.Linear in map(type, loaded.modules())
    x, _ = batch(loaded)
    assert torch.equal(loaded.represent(x), trained.represent(x))
