"""One optimiser a parameter group, and an update that a non-finite gradient cannot reach.

On a GPU whether the gradient is finite is decided there: a fused optimiser is told through its ``found_inf`` flag to
leave everything as it is, so no step waits for the host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.config import TrainConfig

# What torch.amp.GradScaler sets on an optimiser that can skip an update by itself.
SKIPPING = ("grad_scale", "found_inf")


class Group:
    """The parameters that one loss moves, with their optimiser.

    Args:
        capturable: its steps may be captured: the learning rate is a tensor on the device.
    """

    def __init__(
        self, name: str, parameters: list[nn.Parameter], config: TrainConfig, capturable: bool = False
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.config = config
        self.capturable = capturable
        self.optimizer = make_optimizer(parameters, config, **(on_device(parameters, config) if capturable else {}))
        self.fused = bool(self.optimizer.defaults.get("fused"))
        self.taken, self.left_out = torch.zeros(()), torch.ones(())

    def set_rate(self, rate: float | Tensor) -> None:
        set_rate(self.optimizer, rate)

    def step(self, scale: float | Tensor = 1.0) -> Tensor:
        """Unscale, clip and apply the gradients, or leave everything as it is if they are not finite.

        Returns:
            0-dim float tensor: 1 if the update was skipped.
        """
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not isinstance(scale, float) or scale != 1.0:
            torch._foreach_div_(gradients, scale)
        clip, by_direction = self.config.clip, self.config.optimizer == "adamnormgrad"
        on_host = gradients[0].device.type == "cpu" and not self.capturable
        if on_host and clip is None and not by_direction and all(map(Tensor.is_contiguous, gradients)):
            return self._step_from_host(gradients)
        norms = torch._foreach_norm(gradients)
        norm = torch.linalg.vector_norm(torch.stack(norms))
        found_inf = (norm - norm).ne_(0)  # 1 for a norm that is not finite: inf - inf and nan - nan are nan
        if by_direction:
            # Tomczak and Welling (2018): Adam is shown the direction of every tensor's gradient alone.
            torch._foreach_div_(gradients, [part.clamp_min(1e-12) for part in norms])
        if clip is not None:
            torch._foreach_mul_(gradients, (clip / (norm + 1e-6)).clamp(max=1.0))
        if self.fused:
            self.optimizer.grad_scale, self.optimizer.found_inf = None, found_inf
            self.optimizer.step()
        elif self.capturable:
            self._step_unless(found_inf)
        elif not found_inf.item():
            self.optimizer.step()
        return found_inf

    def _step_from_host(self, gradients: list[Tensor]) -> Tensor:
        # A CPU's numbers are the host's without a wait. Squares overflow where norms do, and take half of their time.
        flat = [gradient.view(-1) for gradient in gradients]
        if math.isfinite(sum(torch.dot(part, part).item() for part in flat)):
            if self.fused:
                self.optimizer.grad_scale = self.optimizer.found_inf = None
            self.optimizer.step()
            return self.taken
        return self.left_out

    @torch.no_grad()
    def _step_unless(self, found_inf: Tensor) -> None:
        # A step taken back on the device where it should not have been taken.
        before = {value: value.clone() for value in self._moved()}
        self.optimizer.step()
        bad = found_inf > 0
        for value in self._moved():
            # What there was not before the first step begins at zero.
            value.copy_(torch.where(bad, before.get(value, torch.zeros_like(value)), value))

    def _moved(self) -> list[Tensor]:
        slots = [slot for state in self.optimizer.state.values() for slot in state.values()]
        return [*self.parameters, *(slot for slot in slots if isinstance(slot, Tensor))]


class LeanAdam(torch.optim.Adam):
    """PyTorch's fused Adam of one group of parameters on a CPU. Its tensors are looked up once, not at every step, and
    its parameters have one number of steps together: that saves a twentieth of a small network's step."""

    _slots: tuple[list[Tensor], ...] | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        (group,) = self.param_groups
        gradients = [parameter.grad for parameter in group["params"]]
        if self._slots is None or any(gradient is None for gradient in gradients):
            self._step_as_ever(group["params"])
            return
        means, squares, steps = self._slots
        beta1, beta2 = group["betas"]
        given = {name: group[name] for name in ("lr", "eps", "weight_decay", "maximize", "amsgrad")}
        given |= {name: getattr(self, name, None) for name in SKIPPING}
        steps[0] += 1
        torch._fused_adam_(group["params"], gradients, means, squares, [], steps, beta1=beta1, beta2=beta2, **given)
        if given["found_inf"] is not None:
            steps[0] -= given["found_inf"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._slots = None

    def _step_as_ever(self, parameters: list[nn.Parameter]) -> None:
        if self._slots:
            for parameter in parameters:
                self.state[parameter]["step"] = self.state[parameter]["step"].clone()
        super().step()
        states = [self.state[parameter] for parameter in parameters]
        self._slots = None
        if all(states) and len({state["step"].item() for state in states}) == 1:
            for state in states:
                state["step"] = states[0]["step"]
            self._slots = tuple([state[slot] for state in states] for slot in ("exp_avg", "exp_avg_sq", "step"))


class LossScale:
    """The dynamic loss scale of fp16 training, with all of its state in plain numbers on the device.

    Doubles after 2000 good steps in a row, halves after a bad one (as torch.amp.GradScaler does). It begins low: a loss
    here is in nats, hundreds of them, and the gradient of a last bias is a sum over all pixels.
    """

    GROWTH_INTERVAL = 2000
    FIRST = 2.0**7

    def __init__(self, enabled: bool, device: torch.device) -> None:
        self.enabled = enabled
        self.scale = torch.tensor(self.FIRST if enabled else 1.0, device=device)
        self.good = torch.zeros((), device=device)

    def update(self, found_inf: Tensor) -> None:
        if not self.enabled:
            return
        bad = found_inf > 0
        self.good = torch.where(bad, torch.zeros_like(self.good), self.good + 1)
        grow = self.good >= self.GROWTH_INTERVAL
        factor = torch.where(bad, 0.5, torch.where(grow, 2.0, 1.0))
        self.good = torch.where(grow, torch.zeros_like(self.good), self.good)
        self.scale = (self.scale * factor).clamp(1.0, 2.0**16)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of a step (0-based) of ``steps``."""
    if config.schedule == "stages" and config.stages:
        epoch = step * config.epochs / steps
        for length, rate in config.stages:
            if epoch < length:
                return rate
            epoch -= length
        return rate
    if config.schedule != "cosine" or steps <= 1:
        return config.learning_rate
    low, high = config.final_learning_rate, config.learning_rate
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * step / (steps - 1)))


def backward(
    losses: Mapping[str, Tensor], groups: Mapping[str, Group], scale: float | Tensor = 1.0, add: bool = False
) -> None:
    """Give every group the gradient of its own loss, and of no other. A group without a loss gets none. With ``add``
    they are added to the gradients that are there."""
    if len(groups) == 1:
        ((name, group),) = groups.items()
        if not add:
            for parameter in group.parameters:  # what `zero_grad` does, in a thirtieth of its time
                parameter.grad = None
        (losses[name] if isinstance(scale, float) and scale == 1.0 else losses[name] * scale).backward()
        return
    last = len(losses) - 1
    for index, (name, loss) in enumerate(losses.items()):
        parameters = groups[name].parameters
        gradients = torch.autograd.grad(loss * scale, parameters, retain_graph=index < last, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if add and gradient is not None and parameter.grad is not None:
                parameter.grad += gradient
            elif gradient is not None or not add:
                parameter.grad = gradient


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Set the learning rate of an optimiser; in place where it is a tensor on the device (`on_device`)."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].copy_(rate) if isinstance(rate, Tensor) else group["lr"].fill_(rate)
        else:
            group["lr"] = rate.item() if isinstance(rate, Tensor) else rate


def on_device(parameters: list[nn.Parameter], config: TrainConfig) -> dict[str, Any]:
    """Arguments for `make_optimizer` with which its steps can be captured."""
    device = parameters[0].device
    # On a CPU, where tests capture, Adam knows no such thing, and needs none.
    more = {"capturable": True} if device.type == "cuda" else {}
    return {"lr": torch.tensor(config.learning_rate, device=device), **more}


def make_optimizer(parameters: list[nn.Parameter], config: TrainConfig, **more: Any) -> torch.optim.Optimizer:
    """The optimiser that ``config`` asks for; ``more`` is laid over the arguments that it gives."""
    common = dict(lr=config.learning_rate, weight_decay=config.weight_decay, eps=config.epsilon) | more
    if config.optimizer in ("adam", "adamnormgrad"):
        # Decoupled decay is what people mean by weight decay with Adam; without decay the two are the same.
        lean = LeanAdam if parameters[0].device.type == "cpu" and not more else torch.optim.Adam
        kind = torch.optim.AdamW if config.weight_decay else lean
        return kind(parameters, betas=config.betas, fused=True, **common)
    if config.optimizer == "adamax":
        return torch.optim.Adamax(parameters, betas=config.betas, foreach=True, **common)
    return torch.optim.RMSprop(parameters, alpha=0.9, foreach=True, **common)
