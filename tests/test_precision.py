"""`train.precision=fast`: what it decides, and that a run goes on as it began."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from benchmarks.export import export
from zoo import create_model, noise
from zoo.config import TrainConfig, resolve
from zoo.errors import UsageError
from zoo.models.base import Progress
from zoo.runs import load_run, train_run
from zoo.training import precision, stepper
from zoo.training.compiled import Compiled
from zoo.training.precision import Compute, choose
from zoo.training.trainer import Stopped

CONVOLUTIONS = [
    *("encoder.name=conv", "encoder.channels=[4,8]", "encoder.hidden=[16]"),
    *("decoder.name=conv", "decoder.channels=[8,4]", "decoder.hidden=[16]", "latent=4", "train.batch_size=128"),
]


@pytest.fixture(params=[True, False], ids=["bf16", "no bf16"])
def has_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: request.param)
    return request.param


def test_fast_on_a_cpu_is_bf16_where_that_wins_and_float32_elsewhere(has_bf16: bool) -> None:
    dense, convolutional = create_model("vae"), create_model("vae", encoder={"name": "conv"}, decoder={"name": "conv"})
    slow, asked = choose("cpu", "float32"), choose("cpu", "fast")
    fast = Compute(torch.device("cpu"), torch.bfloat16)
    assert asked.for_run(dense, TrainConfig(), 50_000) == (fast if has_bf16 else slow)
    fast = replace(fast, channels_last=True)
    assert asked.for_run(convolutional, TrainConfig(), 50_000) == (fast if has_bf16 else slow)


@pytest.mark.parametrize("asked", ["auto", "float32", "bf16"])
def test_what_is_asked_for_by_name_is_left_as_it_is(asked: str, has_bf16: bool) -> None:
    model = create_model("vae", encoder={"name": "conv"}, decoder={"name": "conv"})
    compute = choose("cpu", asked)
    assert compute.for_run(model, TrainConfig(), 50_000) == compute
    assert not compute.channels_last


def test_a_run_goes_on_as_it_began_on_a_machine_that_would_decide_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*CONVOLUTIONS, "train.epochs=1", "train.precision=fast", "train.checkpoint_seconds=0", "train.ema=0.9"]
    config = resolve("vae", "synthetic", settings=options)
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    whole = train_run(config, tmp_path / "whole", choose("cpu", "fast"))
    assert whole.compute.name == "bf16, channels last"
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["compute"] == whole.compute.decision()
    machine = True
    while not (tmp_path / "pieces" / "model.safetensors").exists():
        monkeypatch.setattr(precision, "multiplies_bf16", lambda says=machine: says)
        machine = False
        try:
            train_run(config, tmp_path / "pieces", choose("cpu", "fast"), should_stop=lambda: True)
        except Stopped:
            continue
    a, b = (load_run(tmp_path / name).state_dict() for name in ("whole", "pieces"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    float32 = train_run(
        resolve("vae", "synthetic", settings=[*options, "train.precision=float32"]), tmp_path / "c", choose("cpu")
    )
    assert not all(torch.equal(a[name], value) for name, value in float32.model.state_dict().items())


def test_a_run_with_channels_last_is_loaded_and_given_away_to_the_bit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    options = [*CONVOLUTIONS, "train.epochs=1", "train.precision=fast"]
    run = train_run(resolve("vae", "synthetic", settings=options), tmp_path / "run", choose("cpu", "fast"))
    assert run.compute.channels_last
    export(tmp_path / "run", tmp_path / "given")
    x = run.images["test"].pixels[:64] / 255
    elbos = []
    for model in (run.model, load_run(tmp_path / "run"), load_run(tmp_path / "given")):
        with noise.keyed(0, torch.arange(len(x))), torch.no_grad():
            elbos.append(model.terms(x).elbo)
    assert torch.equal(elbos[0], elbos[1]) and torch.equal(elbos[0], elbos[2])


def test_the_number_format_that_auto_began_with_is_kept(tmp_path: Path) -> None:
    options = ["train.epochs=1", "encoder.hidden=[8]", "train.checkpoint_seconds=0"]
    config = resolve("vae", "synthetic", settings=options)
    other = replace(choose("cpu"), half=torch.bfloat16)  # as auto has it on a GPU
    with pytest.raises(Stopped):
        train_run(config, tmp_path / "auto", other, should_stop=lambda: True)
    assert train_run(config, tmp_path / "auto", choose("cpu")).compute == other
    asked = config.model_copy(update={"train": config.train.model_copy(update={"precision": "float32"})})
    with pytest.raises(Stopped):
        train_run(asked, tmp_path / "asked", choose("cpu"), should_stop=lambda: True)
    assert train_run(asked, tmp_path / "asked", choose("cpu")).compute.name == "float32"


def test_a_run_that_ended_in_fp16_is_loaded_on_a_cpu_and_says_so(tmp_path: Path) -> None:
    config = resolve("vae", "synthetic", settings=["train.epochs=1", "encoder.hidden=[8]"])
    train_run(config, tmp_path, choose("cpu"))
    path = tmp_path / "run.json"
    begun = {"precision": "fp16", "channels_last": False, "compiled": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"compute": begun}))
    assert train_run(config, tmp_path, choose("cpu")).compute.name == "fp16"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "compute"}))
    train_run(config, tmp_path, choose("cpu"))
    assert "compute" not in json.loads(path.read_text())  # nobody knows now


def test_a_decision_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    cpu = choose("cpu", "fast")
    with pytest.raises(UsageError, match="fp16"):
        cpu.decided({"precision": "fp16", "channels_last": False})
    config = resolve("vae", "synthetic", settings=["train.epochs=1", "train.precision=fast", "encoder.hidden=[8]"])
    train_run(config, tmp_path, cpu)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"compute": {"precision": "int3"}}))
    with pytest.raises(UsageError, match="how the run computes"):
        train_run(config, tmp_path, cpu)


@pytest.mark.parametrize("asked", [True, False, "auto"])
@pytest.mark.parametrize("compiler", [True, False])
def test_losses_are_compiled_where_it_is_asked_for_or_pays(
    asked: bool | str, compiler: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_compiler", lambda: compiler)
    dense = create_model("vae")
    convolutional = create_model("vae", encoder={"name": "conv"}, decoder={"name": "conv"})
    weights = sum(parameter.numel() for parameter in dense.parameters())
    enough = int(precision.COMPILE_FROM / (6 * weights)) + 1
    config = TrainConfig(compile=asked, epochs=1)
    tries = [(dense, enough, True), (dense, enough - 2, False), (convolutional, enough, False)]
    tries.append((create_model("iwae", k=50), enough // 30, True))
    tries.append((create_model("dfc_vae"), enough, False))  # its fixed network convolves
    for model, images, pays in tries:
        compiled = choose("cpu").for_run(model, config, images).compiled
        assert compiled == (asked is True or (asked == "auto" and pays and compiler))


def test_a_compiled_run_is_the_same_run_but_for_rounding_and_goes_on_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not precision.has_compiler():
        pytest.skip("needs a C++ compiler")
    options = ["train.epochs=2", "train.checkpoint_seconds=0", "encoder.hidden=[16]", "decoder.hidden=[16]", "latent=2"]
    eager = train_run(resolve("vae", "synthetic", settings=options), tmp_path / "eager", choose("cpu"))
    config = resolve("vae", "synthetic", settings=[*options, "train.compile=auto"])
    monkeypatch.setattr(precision, "COMPILE_FROM", 1.0)
    whole = train_run(config, tmp_path / "whole", choose("cpu"))
    assert whole.compute.name == "float32, compiled"
    assert whole.result.curves.keys() == eager.result.curves.keys()
    for name, values in eager.result.curves.items():
        assert whole.result.curves[name] == pytest.approx(values, rel=1e-4), name
    monkeypatch.setattr(precision, "COMPILE_FROM", float("inf"))  # as a machine would that decides otherwise
    again = train_run(config, tmp_path / "whole", choose("cpu"))
    assert again.compute == whole.compute
    monkeypatch.setattr(stepper, "has_compiler", lambda: False)
    assert train_run(config, tmp_path / "whole", choose("cpu")).compute == whole.compute, "it is only loaded"
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler"):
        train_run(resolve("vae", "synthetic", settings=["train.compile=true"]), tmp_path / "new", choose("cpu"))


class _NoPython(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        raise TorchDynamoException("no Python.h\nand more")


def _fails(where: str, function: Callable[..., Any], **how: object) -> Callable[..., Any]:
    # As torch.compile, of which the compiler fails when the function has run, or on the way back.
    def call(*args: object) -> Any:
        losses, row = function(*args)
        if where == "forward":
            raise TorchDynamoException("no Python.h\nand more")
        return {name: _NoPython.apply(loss) for name, loss in losses.items()}, row

    return call


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_run_whose_compiler_fails_is_the_run_that_was_never_compiled(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = ["train.epochs=1", "encoder.hidden=[16]", "decoder.hidden=[16]", "latent=2"]
    config = resolve("vae", "synthetic", settings=options)
    plain = train_run(config, tmp_path / "plain", choose("cpu"))
    monkeypatch.setattr(precision, "COMPILE_FROM", 1.0)
    monkeypatch.setattr(precision, "has_compiler", lambda: True)
    monkeypatch.setattr(stepper, "has_compiler", lambda: True)
    monkeypatch.setattr(torch, "compile", partial(_fails, where))
    with caplog.at_level("INFO"):
        run = train_run(config, tmp_path / "run", choose("cpu"))
    assert [line for line in caplog.messages if "cannot be compiled (no Python.h)" in line]
    assert run.compute == plain.compute and run.compute.name == "float32"
    for name, weights in plain.model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], weights), name
    assert train_run(config, tmp_path / "run", choose("cpu")).compute.name == "float32", "it remembers"
    asked = resolve("vae", "synthetic", settings=[*options, "train.compile=true"])
    with pytest.raises(UsageError, match=r"cannot be compiled \(no Python.h\); train.compile=false"):
        train_run(asked, tmp_path / "asked", choose("cpu"))


def test_a_step_that_is_taken_again_leaves_what_no_gradient_moves_as_one_step_does() -> None:
    model, reasons = create_model("cvae", latent=2), []
    compiled = Compiled(lambda model, *args: None, reasons.append)

    def step() -> float:
        model.seen += 1
        drawn = torch.rand(()).item()
        if not reasons:
            raise TorchDynamoException("no Python.h")
        return drawn

    torch.manual_seed(0)
    once = torch.rand(()).item()
    torch.manual_seed(0)
    before = model.seen.clone()
    assert compiled.attempt(model, Progress(1.0), step) == once
    assert torch.equal(model.seen, before + 1) and len(reasons) == 1


def test_a_run_that_began_compiled_goes_on_where_there_is_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["train.epochs=1", "encoder.hidden=[16]", "decoder.hidden=[16]", "latent=2"]
    config = resolve("vae", "synthetic", settings=options)
    monkeypatch.setattr(precision, "COMPILE_FROM", 1.0)
    monkeypatch.setattr(precision, "has_compiler", lambda: True)
    monkeypatch.setattr(stepper, "has_compiler", lambda: False)
    assert train_run(config, tmp_path, choose("cpu")).compute.name == "float32"
