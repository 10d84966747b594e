"""Every loss moves its own group of parameters, all of it and nothing else, in float32 and in half precision."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from benchmarks.check.subject import Subject
from benchmarks.check.verdict import NOT_FINITE, hold
from zoo.models.base import VAE, Losses
from zoo.training.stages import Course

MOMENTS = 20  # of a training, at which it is asked which losses there are
ALL_GROUPS = "list every parameter once, in the group whose loss trains it"


def groups_share_out(subject: Subject) -> None:
    """Each parameter is in exactly one group."""
    model = subject.make()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    seen: dict[int, str] = {}
    for group, members in model.parameter_groups().items():
        for parameter in members:
            what = f"the parameter '{names.get(id(parameter), '?')}' is in the groups '{seen.get(id(parameter))}' and "
            hold(id(parameter) not in seen, f"{what}'{group}', so one loss moves what belongs to the other", ALL_GROUPS)
            seen[id(parameter)] = group
    left = [name for key, name in names.items() if key not in seen]
    hold(not left, f"{_listed(left)} in no parameter group, and never trained", ALL_GROUPS)
    strange = [group for key, group in seen.items() if key not in names]
    hold(
        not strange,
        f"the group '{strange[0] if strange else ''}' has a parameter that is not the model's own",
        "assign modules and parameters as attributes of the model, so that it knows them",
    )


def losses_reach_their_groups(subject: Subject) -> None:
    """Each loss is a scalar whose gradient reaches its whole group; losses() itself moves nothing."""
    model, (x, y) = subject.trainable(), subject.batch(32)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    losses = are_losses(model, x, y)
    groups = model.parameter_groups()
    idle = groups.keys() - losses.keys()
    for step in range(MOMENTS):
        if not idle and type(model).trained_in is VAE.trained_in:
            break
        moment = Course(MOMENTS, MOMENTS // 4).progress(step)
        found = _losses_of(subject.trainable(), x, y, moment).keys()
        idle -= found  # one that has a loss in some other stage of a training
        stage = model.stage(moment)
        unsaid = found - set(model.trained_in(stage))
        hold(
            not unsaid,
            f"losses() has a loss '{min(unsaid, default='')}' in the stage {stage!r}, and trained_in() does not say so",
            "let trained_in(stage) name every group that losses() has a loss for in that stage",
        )
    hold(
        not idle,
        f"the group '{min(idle, default='')}' has no loss, so it is never trained",
        "give losses() one for each group, in some stage of the training",
    )
    for key, parameter in model.named_parameters():
        hold(
            parameter.grad is None,
            f"losses() leaves a gradient in '{key}', which is added to that of whichever loss comes next",
            "call no .backward() in it: the trainer does, for each group's own loss",
        )
        hold(
            torch.equal(parameter, before[key]),
            f"losses() changes the parameter '{key}' by itself",
            "leave updates to the trainer, or make it a buffer and move that in after_step()",
        )
    _reached(model, losses, groups)
    _code_learns(model, x, y)


def are_losses(model: VAE, x: Tensor, y: Tensor | None) -> Losses:
    """What losses() returns, if it is a finite scalar with a gradient for groups that there are."""
    losses, groups = _losses_of(model, x, y, 1.0), model.parameter_groups()
    hold(
        isinstance(losses, Losses) and len(losses) > 0,
        f"losses() returns a {type(losses).__name__}{' without a loss' if losses == {} else ''}",
        "return zoo.models.base.Losses({'vae': loss}, terms)",
    )
    for group, loss in losses.items():
        hold(
            group in groups,
            f"losses() has a loss '{group}', and parameter_groups() has {', '.join(groups)}",
            "name each loss after the group that it moves",
        )
        shape = tuple(loss.shape)
        hold(shape == (), f"the loss '{group}' has shape {shape}, and should be a scalar", "average over the batch")
        hold(
            bool(torch.isfinite(loss)),
            f"the loss '{group}' is {loss.item()}",
            NOT_FINITE,
        )
        hold(
            loss.requires_grad,
            f"the loss '{group}' depends on no parameter",
            "look for a .detach(), .item() or torch.no_grad() on the way to it",
        )
    return losses


def _reached(model: VAE, losses: Losses, groups: dict[str, list[torch.nn.Parameter]]) -> None:
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    for group, loss in losses.items():
        members = groups[group]
        gradients = torch.autograd.grad(loss, members, retain_graph=True, allow_unused=True)
        found = {names[id(one)]: gradient for one, gradient in zip(members, gradients, strict=True)}
        dead = [name for name, gradient in found.items() if gradient is None or not gradient.any()]
        hold(
            not dead,
            f"{_listed(dead)} given no gradient by the loss '{group}', so training leaves it as it is",
            "use it in losses(), take a .detach() away, make it a buffer, or remove it",
        )
        bad = [name for name, gradient in found.items() if not torch.isfinite(gradient).all()]
        hold(
            not bad,
            f"{_listed(bad)} given a gradient that is not finite by the loss '{group}'",
            "look for a square root or a logarithm at zero",
        )


def _code_learns(model: VAE, x: Tensor, y: Tensor | None) -> None:
    """What the code is made of learns where the rate weighs nothing, as at the start of a warm-up."""
    code = model.represent(x, y)
    if not code.requires_grad:
        return
    members = dict(model.named_parameters())
    made_of = torch.autograd.grad(code.square().sum(), list(members.values()), allow_unused=True)
    found = {name for name, gradient in zip(members, made_of, strict=True) if gradient is not None and gradient.any()}
    losses, dead = _losses_of(model, x, y, 0.0), []
    for group, parameters in model.parameter_groups().items():
        of_group = {id(parameter) for parameter in parameters}
        mine = [name for name in found if id(members[name]) in of_group] if group in losses else []
        if not mine:
            continue
        asked = [members[name] for name in mine]
        given = torch.autograd.grad(losses[group], asked, retain_graph=True, allow_unused=True)
        if any(gradient is not None and gradient.any() for gradient in given):
            return  # of several layers of latents the upper may wait for the rate
        dead += mine
    hold(
        not dead,
        f"{_listed(sorted(dead))} given no gradient where the rate weighs nothing, as at the start of a warm-up, so "
        "the code learns from the rate alone",
        "let log p(x | z) reach the encoder: look for a .detach() of z, or an argmax or a .sample() without a gradient",
    )


def weights_weigh(subject: Subject) -> None:
    """A weight of training that changes a loss changes the gradient of one."""
    x, y = subject.shown(32)

    def found(model: VAE, progress: float) -> tuple[list[Tensor], list[Tensor]]:
        model.requires_grad_(True).train()
        groups, gradients = model.parameter_groups(), []
        losses = _losses_of(model, x, y, progress)
        for group, loss in losses.items():
            made = torch.autograd.grad(loss, groups[group], retain_graph=True, allow_unused=True)
            gradients += [gradient for gradient in made if gradient is not None]
        return [loss.detach() for loss in losses.values()], gradients

    as_it_is = [found(subject.known(), progress) for progress in (0.0, 1.0)]
    shows: dict[str, bool] = {}  # of each weight that changes a loss, whether it changes a gradient
    for key, _, model in subject.reweighed():
        for (losses, gradients), progress in zip(as_it_is, (0.0, 1.0), strict=True):
            other_losses, other_gradients = found(copy.deepcopy(model), progress)
            if not _same(losses, other_losses):
                shows[key] = shows.get(key, False) or not _same(gradients, other_gradients)
    for key, moves in shows.items():
        hold(
            moves,
            f"setting `{key}` weighs nothing: it changes a loss, and the gradient of every loss is as it was",
            "let what it weighs reach the parameters: look for a .detach()",
        )


def _same(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.allclose, some, others))


def _losses_of(model: VAE, x: Tensor, y: Tensor | None, progress: float | Tensor) -> Losses:
    torch.manual_seed(5)
    return model.losses(x, y, progress)


def half_precision(subject: Subject) -> None:
    """Under bfloat16 autocast the terms are finite, float32, and near those of full precision."""
    model, (x, y) = subject.trainable(), subject.batch(64)

    def run() -> Losses:
        torch.manual_seed(2)
        return model.losses(x, y, 1.0)

    full = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = run()
    pairs: dict[str, tuple[Tensor, Tensor, float]] = {
        "distortion": (full.terms.distortion, half.terms.distortion, 0.01),
        "rate": (full.terms.rate.sum(1), half.terms.rate.sum(1), 0.01),
    }
    pairs |= {f"loss '{group}'": (loss, half[group], 0.02) for group, loss in full.items()}
    guard = "put zoo.precision.full_precision on the function that sums in nats: 784 terms added in bfloat16 stop at 32"
    for name, (right, found, share) in pairs.items():
        hold(found.dtype == torch.float32, f"under bfloat16 autocast the {name} is {found.dtype}, not float32", guard)
        hold(
            bool(torch.isfinite(found).all()),
            f"under bfloat16 autocast the {name} is not finite",
            guard,
        )
        # bfloat16 has 8 bits: 1 % of the sums, half a nat for what is near zero.
        wanted, got = right.mean().item(), found.mean().item()
        hold(
            abs(got - wanted) <= share * abs(wanted) + 0.5,
            f"under bfloat16 autocast the {name} is {got:.4g} on average, and {wanted:.4g} in float32",
            guard,
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"the parameter{'s' if len(names) > 1 else ''} {shown} {'are' if len(names) > 1 else 'is'}"
