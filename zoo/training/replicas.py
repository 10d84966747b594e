"""Several seeds of one variant trained at once, as one stacked model.

The parameters of all replicas lie behind each other in one tensor a layer, `torch.func.vmap` makes one batched matrix
product of their products, and one fused optimiser moves them: a step launches as many kernels as that of one model,
which is what a small network costs on a GPU. On a CPU it does not pay (`docs/performance.md`), there seeds are
processes.

Every replica has its own initialisation, order of the data and noise: those of a run of the same seed alone, whose
result it equals but for the rounding of batched products. What surrounds the steps (validation, the weights that are
kept, early stopping) is each replica's own `Trainer`, whose model looks into the stack.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from zoo import noise
from zoo.config import RunConfig
from zoo.errors import UsageError
from zoo.models.base import VAE
from zoo.training.average import Average
from zoo.training.capture import Captured
from zoo.training.optimise import learning_rate, make_optimizer
from zoo.training.precision import CONVOLUTIONS
from zoo.training.trainer import Diverged, Result, Stopped, Trainer

# The batches of an epoch, as `Batches.epoch` gives them.
Supply = Iterator[tuple[Tensor, Tensor | None]]
# What replicas may differ in: a sweep of the weight of the rate, the number by which a loss alone differs.
SWEPT = ("beta",)


def why_not(configs: Sequence[RunConfig], models: Sequence[VAE]) -> str | None:
    """Why these runs cannot be one stack; None if they can."""
    first, kind = configs[0], type(models[0])
    common = first.model_copy(update={"seed": 0, "model": _fixed(first)}).identity()
    if any(c.model_copy(update={"seed": 0, "model": _fixed(c)}).identity() != common for c in configs):
        return f"they differ in more than the seed and {' or '.join(SWEPT)}"
    if kind.losses is not VAE.losses or kind.parameter_groups is not VAE.parameter_groups:
        return f"{kind.__name__} has losses of its own"
    if kind.after_step is not VAE.after_step or kind.recollect is not VAE.recollect:
        return f"{kind.__name__} has state that no gradient moves"
    wrong = (*CONVOLUTIONS, nn.modules.batchnorm._BatchNorm)
    if any(isinstance(module, wrong) for model in models for module in model.modules()):
        return "stacked convolutions are slower than one model after the other"
    train = first.train
    if train.optimizer != "adam" or train.micro_batch is not None:
        return "only Adam on whole batches is stacked"
    return None


class Replicas:
    """Trains the models of several trainers in lockstep.

    Args:
        trainers: one for each replica, of the same configuration but for the seed and what may be swept, without
            folders: a stack that is stopped begins again.
        generators: the state of the random generator at the start of each replica's training, from `generator_state`.

    Raises:
        UsageError: there is nothing to train, or the batch is divided, or losses are scaled (fp16).
    """

    def __init__(self, trainers: Sequence[Trainer], generators: Sequence[Tensor]) -> None:
        if not trainers:
            raise UsageError("no replicas to train.")
        first = trainers[0]
        if first.divided or first.compute.scaled:
            raise UsageError("replicas train on whole batches, in float32 or bf16.")
        self.trainers, self.generators = list(trainers), list(generators)
        self.device, self.config, self.compute = first.compute.device, first.config, first.compute
        self.model = first.model.train()
        self.draws: list[noise.Draw] | None = None
        self.parameters = _stacked([trainer.model for trainer in trainers], nn.Module.named_parameters)
        self.buffers = _stacked([trainer.model for trainer in trainers], nn.Module.named_buffers)
        for index, trainer in enumerate(trainers):
            for name, parameter in trainer.model.named_parameters():
                parameter.data = self.parameters[name].data[index]
            if trainer.average:  # it follows the tensors that it was made with
                trainer.average = Average(trainer.model, self.config.ema)
        self.leaves = [nn.Parameter(value) for value in self.parameters.values()]
        for name, leaf in zip(self.parameters, self.leaves, strict=True):
            self.parameters[name] = leaf
        on_gpu = self.device.type == "cuda"
        self.rate = torch.tensor(self.config.learning_rate, device=self.device) if on_gpu else None
        more = {"lr": self.rate, "capturable": True} if on_gpu else {}
        self.optimizer = make_optimizer(self.leaves, self.config, **more)
        self.taken = 0
        self.step = Captured(self._step, self.device)

    def fit(self, should_stop: Callable[[], bool] = lambda: False) -> list[Result | Diverged]:
        """Train all to the end and leave the weights that each keeps in its model.

        A replica that met a number that is not finite is given back as `Diverged`: alone it would have skipped the
        update or gone back, which a stack cannot do for one of its replicas.

        Raises:
            Stopped: ``should_stop`` said so after a step. Nothing is kept.
        """
        started = time.monotonic()
        lost: dict[int, Diverged] = {}
        first = self.trainers[0]
        for epoch in range(self.config.epochs):
            self._epoch(epoch, should_stop)
            for index, trainer in enumerate(self.trainers):
                if index in lost or trainer.stopped_early:
                    continue
                if not trainer._means() or trainer.in_a_row.item() or trainer.totals[-1].item() < first.steps_per_epoch:
                    lost[index] = Diverged(f"a number of replica {index} was not finite in epoch {epoch + 1}.")
                    continue
                trainer.seconds = time.monotonic() - started
                trainer._end_epoch(epoch)
            if all(index in lost or trainer.stopped_early for index, trainer in enumerate(self.trainers)):
                break
        results: list[Result | Diverged] = []
        for index, trainer in enumerate(self.trainers):
            if index in lost:
                results.append(lost[index])
                continue
            trainer._finish()
            results.append(dataclasses.replace(trainer.result(), together=len(self.trainers)))
        return results

    def _epoch(self, epoch: int, should_stop: Callable[[], bool]) -> None:
        supplies = [trainer.train.epoch(epoch) for trainer in self.trainers]
        for _ in range(self.trainers[0].steps_per_epoch):
            self.advance(supplies)
            if should_stop():
                raise Stopped("stopped at the user's request; seeds that train at once begin again.")

    def advance(self, supplies: list[Supply]) -> None:
        """One step of all replicas on the next batch of each. Waits for nothing."""
        x, y, draws = self._next(supplies)
        weights = [float(trainer.model.rate_weight(trainer.progress())) for trainer in self.trainers]
        self._set_rate(learning_rate(self.config, self.taken, self.trainers[0].steps))
        self.taken += 1
        weight = torch.tensor(weights, device=self.device)
        rows = self.step(x, weight, *draws) if y is None else self.step(x, weight, y, *draws)
        for trainer, row in zip(self.trainers, rows.unbind(0), strict=True):
            if not trainer.stopped_early:
                if trainer.average:
                    trainer.average.update()
                trainer._count(row[:3], row[3])
                trainer.step += 1

    def _next(self, supplies: list[Supply]) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        # Whatever a run alone draws in a step, in its order: first the batch's bits, then the posterior's noise.
        batches, drawn = [], []
        for index, (trainer, supply) in enumerate(zip(self.trainers, supplies, strict=True)):
            _set_state(self.device, self.generators[index])
            x, y = next(supply)
            if self.draws is None:
                state = generator_state(self.device)
                with noise.listen() as heard, torch.no_grad(), self.compute.autocast():
                    trainer.model.terms(x, y)
                self.draws = heard
                _set_state(self.device, state)
            batches.append((x, y))
            drawn.append([draw.again() for draw in self.draws])
            self.generators[index] = generator_state(self.device)
        x = torch.stack([x for x, _ in batches])
        y = None if batches[0][1] is None else torch.stack([y for _, y in batches])
        return x, y, [torch.stack(parts) for parts in zip(*drawn, strict=True)]

    def _step(self, x: Tensor, weight: Tensor, *rest: Tensor) -> Tensor:
        """x (R, B, C, H, W), the weights of the rate (R,), y (R, B, ...) if the model is conditional, then the noise:
        one update of all replicas. Returns (R, 4): loss, rate, distortion, and 1 where a gradient is not finite."""
        y, draws = (rest[0], rest[1:]) if self.model.conditional else (None, rest)
        self.optimizer.zero_grad(set_to_none=True)
        with self.compute.autocast():
            distortion, rate = vmap(self._terms, in_dims=(0, 0, 0, None if y is None else 0, 0))(
                self.parameters, self.buffers, x, y, draws
            )
        loss = (distortion + weight.unsqueeze(1) * rate).mean(1)
        loss.sum().backward()
        with torch.no_grad():
            gradients = [leaf.grad for leaf in self.leaves if leaf.grad is not None]
            rows = [gradient.reshape(len(gradient), -1) for gradient in gradients]
            norm = torch.stack([row.norm(dim=1) for row in rows]).norm(dim=0)
            if self.config.clip is not None:
                factor = (self.config.clip / (norm + 1e-6)).clamp(max=1.0)
                for gradient in gradients:
                    gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
            self.optimizer.step()
            bad = (norm - norm).ne_(0)
            return torch.stack([loss.detach().float(), rate.mean(1), distortion.mean(1), bad], 1)

    def _terms(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor | None, draws: tuple
    ) -> tuple[Tensor, Tensor]:
        with noise.given(draws):
            terms = functional_call(_Terms(self.model), _named(parameters | buffers), (x, y))
        return terms

    def _set_rate(self, rate: float) -> None:
        if self.rate is not None:
            self.rate.fill_(rate)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = rate


class _Terms(nn.Module):
    """`VAE.terms` as the forward of a module, which is what `functional_call` calls."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        terms = self.model.terms(x, y)
        return terms.distortion, terms.rate.sum(1)


def generator_state(device: torch.device) -> Tensor:
    """The state of the generator that training draws from on ``device``, for `Replicas`."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _stacked(models: list[VAE], named: Callable) -> dict[str, Tensor]:
    parts = [dict(named(model)) for model in models]
    return {name: torch.stack([part[name].detach() for part in parts]) for name in parts[0]}


def _named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": value for name, value in tensors.items()}


def _fixed(config: RunConfig) -> dict:
    return {name: value for name, value in config.model.items() if name not in SWEPT}
