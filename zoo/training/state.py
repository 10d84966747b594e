"""Everything that the rest of a training depends on, as tensors and plain values, and a trainer put back there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.training.choice import is_another
from zoo.training.memory import peak_memory
from zoo.training.optimise import Group

if TYPE_CHECKING:
    from zoo.training.trainer import Trainer

State = tuple[dict[str, Tensor], dict[str, Any]]
TALLIED = ("totals", "in_a_row", "hopeless", "skipped")
VALUES = ("step", "seconds", "retreats")
CHOSEN = ("kept", "best_epoch", "highest", "waited", "stopped_early")


def capture(trainer: Trainer) -> State:
    """The tensors, which are no copies and change as training goes on (see `copied`), and the values."""
    tensors = {f"model/{name}": value for name, value in trainer.model.state_dict().items()}
    for name, group in trainer.stepper.groups.items():
        for index, slots in group.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{name}/{index}/{slot}": value for slot, value in slots.items()}
    if trainer.stepper.average:
        tensors |= {f"average/{name}": value for name, value in trainer.stepper.average.tensors.items()}
    if trainer.choice.best:
        tensors |= {f"best/{name}": value for name, value in trainer.choice.best.items()}
    tensors |= {name: getattr(trainer.tally, name) for name in TALLIED}
    scale = trainer.stepper.scale
    tensors |= {"scale": scale.scale, "good": scale.good, "rng/cpu": torch.get_rng_state()}
    device = trainer.compute.device
    if device.type == "cuda":
        tensors["rng/device"] = torch.cuda.get_rng_state(device)  # dropout draws from it, and takes no other
    if trainer.stepper.generator is not None:
        tensors["rng/cuda"] = trainer.stepper.generator.get_state()
    values = {name: getattr(trainer, name) for name in VALUES}
    values |= {name: getattr(trainer.choice, name) for name in CHOSEN}
    values |= {
        "peak": max(trainer.peak, peak_memory(device)),
        "curves": {name: list(points) for name, points in trainer.curves.items()},
        "averaged": trainer.stepper.average.updates if trainer.stepper.average else 0,
    }
    return tensors, values


def copied(state: State) -> State:
    """The state in host memory of its own, so that training may go on."""
    tensors, values = state
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}, values


def restore(trainer: Trainer, state: State) -> None:
    """Put the trainer where it was when the state was captured; the state stays as it is.

    Raises:
        KeyError, ValueError, TypeError, AttributeError, RuntimeError: it is not the state of such a trainer.
    """
    tensors, values = state
    if not 0 <= values["step"] <= trainer.steps:
        raise ValueError("no such step")
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        head, _, rest = name.partition("/")
        parts.setdefault(head, {})[rest] = value
    trainer.model.load_state_dict(parts["model"])
    for name, group in trainer.stepper.groups.items():
        _restore_optimizer(group, parts.get("optimizer", {}), name)
    if trainer.stepper.average:
        trainer.stepper.average.load(parts["average"])
        trainer.stepper.average.updates = values["averaged"]
    device = trainer.compute.device
    trainer.choice.best = {name: value.to(device) for name, value in parts["best"].items()} if "best" in parts else None
    trainer.tally.totals.copy_(tensors["totals"])
    trainer.tally.in_a_row.copy_(tensors["in_a_row"])
    trainer.tally.hopeless.copy_(tensors.get("hopeless", torch.zeros(())))
    trainer.tally.skipped.copy_(sum(parts["skipped"].values()))  # which a checkpoint of before has for each group
    trainer.stepper.scale.scale.copy_(tensors["scale"])
    trainer.stepper.scale.good.copy_(tensors["good"])
    # A checkpoint of before has the ELBO of what is kept, which no other objective can be compared with.
    if "kept" not in values:
        values = {"highest": values["best_elbo"], **values, "kept": values["best_elbo"]}
        values |= {"highest": math.nan} if is_another(trainer.model) else {}
    for owner, names in ((trainer, VALUES), (trainer.choice, CHOSEN)):
        for name in names:
            setattr(owner, name, values[name])
    trainer.peak = values["peak"]
    trainer.curves = {name: list(points) for name, points in values["curves"].items()}
    # Last: whatever was drawn while building the model must not count.
    torch.set_rng_state(tensors["rng/cpu"])
    if "rng/device" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors["rng/device"], device)
    if "rng/cuda" in tensors and trainer.stepper.generator is not None:
        trainer.stepper.generator.set_state(tensors["rng/cuda"])


def _restore_optimizer(group: Group, tensors: dict[str, Tensor], name: str) -> None:
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        owner, index, slot = key.split("/")
        if owner == name:
            slots.setdefault(int(index), {})[slot] = value.clone()
    for index, parameter in enumerate(group.parameters):
        for slot, value in slots.get(index, {}).items():
            # A file holds tensors in their plain order; a fused optimiser wants the memory layout of the parameter.
            if value.shape == parameter.shape:
                slots[index][slot] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    state = group.optimizer.state_dict()
    group.optimizer.load_state_dict({"state": slots, "param_groups": state["param_groups"]})
