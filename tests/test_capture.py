"""A captured training is the training: each variant under a stand-in that repeats what it recorded, as a graph does."""

from __future__ import annotations

import functools
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.check.subject import subject
from tests import tape
from tests.in_pieces import in_pieces
from zoo import list_models, runs
from zoo.config import TrainConfig, resolve
from zoo.data.images import DataSpec
from zoo.likelihoods import LIKELIHOODS, LikelihoodSettings, make_likelihood
from zoo.models.base import Progress, moving
from zoo.runs import together
from zoo.training.average import Average
from zoo.training.capture import WARM_UP, CannotCapture, Captured, Table, rehearsal
from zoo.training.optimise import Group
from zoo.training.precision import choose
from zoo.training.replicas import Replicas
from zoo.training.trainer import Stopped, Trainer

CPU = torch.device("cpu")
# Trained by Adamax, whose steps only a GPU takes without asking the host: `tests/test_cuda.py` has it.
ON_A_GPU_ALONE = {"nvae_lite"}
ALL_THAT_MOVES = ["train.warmup=1.6", "train.schedule=cosine", "train.ema=0.9", "train.clip=50", "train.epochs=3"]


class Rounded(Trainer):
    """The numbers of its schedule are those that float32 has, as they lie on the device."""

    def progress(self, step: int | None = None) -> Progress:
        exact = super().progress(step)
        return Progress(float(np.float32(exact)), float(np.float32(exact.fraction)))

    def rate(self, step: int) -> float:
        return float(np.float32(super().rate(step)))


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "Trainer", functools.partial(Rounded, record=tape.record))


def assert_same(one: runs.Run, other: runs.Run) -> None:
    for name, curve in one.result.curves.items():
        assert other.result.curves[name] == pytest.approx(curve, rel=1e-5, abs=1e-4), name
    for name, value in one.model.state_dict().items():
        # A product with a weight of the rate is rounded elsewhere, and Adam makes steps of a gradient that is all
        # rounding.
        apart = (other.model.state_dict()[name].float() - value.float()).abs()
        assert apart.max() <= 1e-3 and apart.mean() <= 1e-5, (name, apart.max(), apart.mean())


class OneDevice(TorchDispatchMode):
    """Raises where an operation has a tensor that does not lie on the device ``meta``."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, made)):
            assert not isinstance(value, Tensor) or value.device.type == "meta", f"{func} has a tensor of the host"
        return made


@pytest.mark.parametrize("variant", list_models())
def test_a_step_on_a_device_has_nothing_from_the_host(variant: str) -> None:
    # A copy from the host waits for the device: no graph can hold it, and each step pays for it.
    config = resolve(variant, "synthetic", settings=["train.batch_size=64"])
    model = runs.build_model(config, runs.load_images(config).spec).train().to("meta")
    model.train_size = 512
    x, y = (None if part is None else part.to("meta") for part in subject(variant).shown(64))
    for progress in (Progress(0.0, 0.0), Progress(1.0, 0.9)):
        numbers = torch.zeros(2, device="meta").unbind(0)
        groups = model.parameter_groups()
        with OneDevice():
            losses = model.losses(x, y, moving(*numbers, model.stage(progress)))
            for name, loss in losses.items():
                torch.autograd.grad(loss, groups[name], retain_graph=True, allow_unused=True)
            model.after_step()


@pytest.mark.parametrize("support", ["binary", "8-bit", "real"])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_no_likelihood_has_anything_from_the_host(name: str, support: str) -> None:
    likelihood = make_likelihood(LikelihoodSettings(name=name), DataSpec((2, 4, 4), support)).to("meta")
    params = torch.zeros(3, likelihood.channels(2), 4, 4, device="meta", requires_grad=True)
    with OneDevice():
        for value in (likelihood.log_prob(params, torch.zeros(3, 2, 4, 4, device="meta")), likelihood.mean(params)):
            torch.autograd.grad(value.sum(), params)
        likelihood.sample(params)


@pytest.mark.parametrize("variant", sorted({*list_models()} - ON_A_GPU_ALONE))
def test_a_captured_training_is_the_training(tmp_path: Path, taped: None, variant: str) -> None:
    few = ["data.options.n_train=128", "data.options.n_validation=64", "train.batch_size=32"]
    config = resolve(variant, "synthetic", settings=[*ALL_THAT_MOVES, *few])
    # What is written down is the same at any width.
    config = config.model_copy(update={"model": subject(variant).settings})
    free = config.model_copy(update={"train": config.train.model_copy(update={"capture": False})})
    one, other = (
        runs.train_run(config, tmp_path / str(at), choose("cpu")) for at, config in enumerate((free, config))
    )
    assert not one.result.captured
    assert other.result.captured
    assert one.result.steps == other.result.steps > 2 * WARM_UP
    assert_same(one, other)


def test_a_captured_training_that_is_killed_ends_in_the_same_weights(tmp_path: Path, taped: None) -> None:
    settings = [*ALL_THAT_MOVES, "train.batch_size=64", "train.checkpoint_seconds=0"]
    config = resolve("vae", "synthetic", settings=settings)
    whole = runs.train_run(config, tmp_path / "whole", choose("cpu"))
    pieces, stops = in_pieces(
        lambda stop: runs.train_run(config, tmp_path / "pieces", choose("cpu"), should_stop=stop), every=6
    )
    assert whole.result.captured and pieces.result.captured and stops >= 2
    assert whole.result.curves == pieces.result.curves
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, pieces.model.state_dict()[name]), name


def test_a_recorder_that_fails_loses_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(step, generators):
        raise RuntimeError("operation not permitted when stream is capturing")

    config = resolve("vae", "synthetic", settings=["train.epochs=2", "train.batch_size=64"])
    one = runs.train_run(config, tmp_path / "one", choose("cpu"))
    monkeypatch.setattr(runs, "Trainer", functools.partial(Trainer, record=refuses))
    other = runs.train_run(config, tmp_path / "other", choose("cpu"))
    assert not other.result.captured
    assert_same(one, other)


class StopsBefore(TorchDispatchMode):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ == self.name:
            raise RuntimeError("operation not permitted when stream is capturing")
        return func(*args, **(kwargs or {}))


def test_a_recorder_that_fails_half_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(step, generators):
        raise RuntimeError("operation not permitted when stream is capturing")

    def fails(step, generators):
        before = torch.get_rng_state()  # which a step that is only recorded does not move
        try:
            with StopsBefore("_foreach_norm"):
                step()
        finally:
            torch.set_rng_state(before)

    config = resolve("vq_vae", "synthetic", settings=["train.epochs=3", "train.batch_size=64"])
    found = []
    for record in (refuses, fails):
        monkeypatch.setattr(runs, "Trainer", functools.partial(Trainer, record=record))
        found.append(runs.train_run(config, tmp_path / record.__name__, choose("cpu")))
    assert not found[0].result.captured and not found[1].result.captured
    assert found[0].result.curves == found[1].result.curves


def test_what_was_captured_is_let_go_at_the_end_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def record(*given):
        replay = tape.record(*given)
        made.append(weakref.ref(replay))
        return replay

    config = resolve("vae", "synthetic", settings=["train.epochs=2", "train.batch_size=64"])
    images = runs.load_images(config)
    monkeypatch.setattr(runs, "Trainer", functools.partial(Trainer, record=record))
    trainers = [runs.make_trainer(config, runs.fresh_model(config, images.spec), images, choose("cpu")) for _ in "ab"]
    trainers[1].should_stop = lambda: trainers[1].step == 6
    gc.disable()
    try:
        assert trainers[0].fit().captured
        with pytest.raises(Stopped):
            trainers[1].fit()
        assert [kept() for kept in made] == [None, None]
        left = [weakref.ref(trainer) for trainer in trainers]
        trainers.clear()
        assert left[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "setting", ["train.optimizer=adamax", "train.micro_batch=64", "train.capture=false", "train.compile=true"]
)
def test_what_is_never_captured(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve("vae", "synthetic", settings=[setting])
    images = runs.load_images(config)
    monkeypatch.setattr(runs, "Trainer", functools.partial(Trainer, record=tape.record))
    model = runs.fresh_model(config, images.spec)
    compute = choose("cpu").for_run(model, config.train, 1000)
    assert runs.make_trainer(config, model, images, compute).graph is None


def test_going_back_captures_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def record(*given):
        made.append(1)
        return tape.record(*given)

    monkeypatch.setattr(runs, "Trainer", functools.partial(Trainer, record=record))
    config = resolve("vae", "synthetic", settings=["train.epochs=3", "train.batch_size=128"])
    images = runs.load_images(config)
    trainer = runs.make_trainer(config, runs.fresh_model(config, images.spec), images, choose("cpu"))
    original, spoilt = trainer._check_alive, []

    def once() -> None:
        if trainer.step == 2 * trainer.steps_per_epoch and not spoilt:
            spoilt.append(1)
            trainer.tally.hopeless.fill_(1)
        original()

    monkeypatch.setattr(trainer, "_check_alive", once)
    result = trainer.fit()
    assert result.retreats == 1 and result.captured and len(made) == 2
    assert result.curves["train_elbo"][-1] > result.curves["train_elbo"][0]


def test_replicas_that_are_captured_are_those_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["encoder.hidden=[16]", "decoder.hidden=[16]", "latent=4", "train.batch_size=128"]
    configs = [resolve("cvae", "synthetic", seed, settings=[*small, *ALL_THAT_MOVES]) for seed in range(2)]
    curves = []
    for record in (None, tape.record):
        trainers, generators, _ = together._prepared(configs, choose("cpu"))
        curves.append([result.curves for result in Replicas(trainers, generators, record).fit()])
    for one, other in zip(*curves, strict=True):
        for name, curve in one.items():
            assert other[name] == pytest.approx(curve, rel=1e-5, abs=1e-4), name


def test_a_captured_step_moves_through_its_table() -> None:
    table = Table(10, 3, 2, 1, CPU)
    order = torch.randint(0, 50, (10, 3))
    schedule = [[float(step), 0.5] for step in range(10)]
    values = torch.randn(50)

    def step() -> None:
        index, numbers = table.here()
        table.leave((values.index_select(0, index).sum() * numbers[0] + numbers[1]).view(1))

    captures = []
    captured = Captured(step, CPU, record=lambda *given: captures.append(1) or tape.record(*given))
    wanted = values[order].sum(1) * torch.arange(10.0) + 0.5
    for start in (0, 4):
        table.begin(order, schedule, start)
        table.results.zero_()
        for _ in range(start, 10):
            captured()
        assert torch.allclose(table.results[start:, 0], wanted[start:], atol=1e-6)
    assert captures == [1]
    captured.forget()
    table.begin(order, schedule, 0)
    for _ in range(WARM_UP + 1):
        captured()
    assert captures == [1, 1]


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0]),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x.clone().__setitem__(x > 0, torch.zeros(())),
    ],
)
def test_a_rehearsal_finds_what_waits_for_the_device(wait) -> None:
    x = torch.randn(5)
    with pytest.raises(CannotCapture, match="waits"), rehearsal(CPU):
        wait(x)
    with rehearsal(CPU):
        torch.where(x > 0, x, 0.0).sum()


def test_the_average_is_the_same_by_a_number_and_by_a_tensor() -> None:
    def averaged(of: type) -> Tensor:
        torch.manual_seed(0)
        model = torch.nn.Linear(5, 5)
        average = Average(model, decay=0.9)
        for update in range(20):
            torch.nn.init.normal_(model.weight)
            weight = average.weight(update)
            average.blend(torch.tensor(weight) if of is Tensor else weight)
        return average.tensors["weight"]

    assert torch.allclose(averaged(Tensor), averaged(float), atol=1e-6)


@pytest.mark.skipif(torch.version.cuda is None, reason="PyTorch without CUDA")
@pytest.mark.parametrize("optimizer", ["adamax", "rmsprop"])
def test_an_update_on_a_gpu_asks_the_host_for_nothing(optimizer: str) -> None:
    # Of tensors that have no numbers, any of which the host would ask for raises; no GPU is needed for them.
    with FakeTensorMode():
        try:
            torch.empty((), device="cuda").copy_(torch.empty((), device="cuda"))
        except RuntimeError as error:
            pytest.skip(f"this PyTorch wants a driver to copy what has no numbers: {str(error).splitlines()[0]}")
        parameter = torch.nn.Parameter(torch.empty(3, device="cuda"))
        group = Group("g", [parameter], TrainConfig(optimizer=optimizer, clip=1.0, weight_decay=0.1))
        group.capturable = True
        group.optimizer.param_groups[0] |= {"capturable": True, "lr": torch.ones((), device="cuda")}
        for _ in range(2):
            parameter.grad = torch.empty(3, device="cuda")
            group.set_rate(torch.empty((), device="cuda"))
            assert group.step().device.type == "cuda"
        assert {slot.device.type for slot in group.optimizer.state[parameter].values()} == {"cuda"}
        with pytest.raises(DataDependentOutputException):
            parameter.sum().item()


def test_a_step_that_is_taken_back_leaves_no_trace() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    group = Group("g", [parameter], TrainConfig(optimizer="adamax"))
    group.capturable = True
    weights, steps, skipped = [], [], []
    for gradient in ([float("nan"), 1.0], [1.0, -1.0], [float("inf"), 0.0], [0.5, 0.5]):
        parameter.grad = torch.tensor(gradient)
        skipped.append(group.step().item())
        weights.append(parameter.detach().clone())
        steps.append(group.optimizer.state[parameter]["step"].item())
    assert weights[0].tolist() == [1.0, -2.0] and torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[2], weights[3])
    assert steps == [0, 1, 1, 2] and skipped == [1, 0, 1, 0]
    alone = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    other = torch.optim.Adamax([alone], lr=1e-3)
    for gradient in ([1.0, -1.0], [0.5, 0.5]):
        alone.grad = torch.tensor(gradient)
        other.step()
    assert torch.allclose(weights[3], alone.detach(), atol=1e-7)
