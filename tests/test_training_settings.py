"""What each setting of `train` does: it reaches the optimiser, the weights or the curves, and what is evaluated."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.metrics.likelihood import bound
from zoo.config import NEUTRAL, TrainConfig, resolve
from zoo.errors import UsageError
from zoo.runs import fresh_model, make_trainer
from zoo.runs.images import load_images
from zoo.settings import validate
from zoo.training.choice import VALIDATION_SEED
from zoo.training.optimise import Group
from zoo.training.precision import choose
from zoo.training.trainer import Trainer

SMALL = ["encoder.hidden=[16]", "decoder.hidden=[16]", "latent=4"]
DATA = ["data.options.n_train=256", "data.options.n_validation=64", "data.options.n_test=8"]


def trainer_of(**train: Any) -> Trainer:
    config = resolve("vae", "synthetic", settings=[*SMALL, *DATA])
    recipe = validate(TrainConfig, {"epochs": 2, "batch_size": 64} | train)
    config = config.model_copy(update={"train": recipe})
    images = load_images(config)
    compute = choose("cpu", recipe.precision)
    return make_trainer(config, fresh_model(config, images.spec), images, compute)


def state(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


# ---- every setting decides something ---------------------------------------------------------------------------------

COSINE = {"schedule": "cosine"}
STAGES = {"schedule": "stages", "stages": [[1, 1e-2]]}
STAGED = ["train.schedule=stages", "train.stages=[[1,0.1]]"]
#: The second epoch undoes what the first one learnt.
WORSE = {"schedule": "stages", "stages": [[1, 1e-2], [1, 3.0]]}
#: Another valid value of each setting that is not `NEUTRAL`, and what it needs to matter.
OTHER: dict[str, tuple[Any, dict[str, Any]]] = {
    "epochs": (3, {}),
    "batch_size": (32, {}),
    "optimizer": ("rmsprop", {}),
    "learning_rate": (2e-3, {}),
    "betas": ([0.5, 0.9], {}),
    "epsilon": (0.1, {}),
    "weight_decay": (0.5, {}),
    "schedule": ("cosine", {}),
    "final_learning_rate": (1e-4, COSINE),
    "stages": ([[1, 2e-2]], STAGES),
    "warmup": (1.0, {}),
    "cycles": (2, {}),
    "free_bits": (5.0, {}),
    "clip": (0.1, {}),
    "ema": (0.9, {}),
    "validate_every": (2, {}),
    "keep": ("last", WORSE),
    "patience": (1, WORSE | {"epochs": 3}),
    "precision": ("bf16", {}),
}


def trained(train: dict[str, Any]) -> tuple[list[float], dict[str, list[float]]]:
    trainer = trainer_of(**train)
    curves = trainer.fit().curves
    return torch.cat([value.flatten() for value in trainer.model.state_dict().values()]).tolist(), curves


def test_the_settings_that_are_tried_here_are_all_that_decide_a_number() -> None:
    deciding = {name for name in TrainConfig.model_fields if f"train.{name}" not in NEUTRAL}
    assert set(OTHER) == deciding


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_that_decides_numbers_changes_the_weights_or_the_curves(name: str) -> None:
    value, needs = OTHER[name]
    base = TrainConfig.model_validate(needs)
    assert getattr(base, name) != getattr(TrainConfig.model_validate(needs | {name: value}), name)
    assert trained(needs) == trained(needs), "the same settings give the same"
    assert trained(needs) != trained(needs | {name: value})


@pytest.mark.parametrize(
    ("needed", "idle", "usual"),
    [
        (["train.optimizer=rmsprop"], "train.betas=[0.5,0.999]", "train.betas=[0.9,0.999]"),
        ([], "train.final_learning_rate=1e-4", "train.final_learning_rate=0.0"),
        (STAGED, "train.final_learning_rate=1e-4", "train.final_learning_rate=0.0"),
        (STAGED, "train.learning_rate=2e-3", "train.learning_rate=0.001"),
        (["data.binarise=threshold"], "data.test_bits_seed=5", "data.test_bits_seed=777"),
        (["data.binarise=none"], "data.test_bits_seed=5", "data.test_bits_seed=777"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused_unless_it_has_its_default(
    needed: list[str], idle: str, usual: str
) -> None:
    with pytest.raises(UsageError, match=rf"{re.escape(idle.partition('=')[0])} would do nothing: "):
        resolve("vae", settings=[*needed, idle])
    assert resolve("vae", settings=[*needed, usual]) == resolve("vae", settings=needed)


def test_dequantisation_is_of_bytes_and_leaves_the_identity_of_runs_without_it_alone() -> None:
    plain, noisy = resolve("vae"), resolve("vae", settings=["data.dequantise=uniform", "data.test_bits_seed=5"])
    assert plain.identity()["data"].keys() == {"name", "binarise", "test_bits_seed", "options"}
    assert noisy.data.preparation == {"binarise": "none", "dequantise": "uniform", "test_bits_seed": 5}
    assert noisy.identity()["data"]["dequantise"] == "uniform"
    assert resolve("vae", settings=["data.dequantise=none"]) == plain
    with pytest.raises(UsageError, match="data.binarise=dynamic makes bits of them: add data.binarise=none"):
        resolve("vae", settings=["data.dequantise=uniform", "data.binarise=dynamic"])
    # A density of bytes has a scale, and their own likelihood components.
    for settings, said in ((["data.dequantise=uniform"], "components=3"), (["data.binarise=none"], "sigma=0.1")):
        with pytest.raises(UsageError, match=f"likelihood.{said[:5]}.* would do nothing"):
            resolve("vae", settings=[*settings, f"likelihood.{said}"])
    resolve("vae", settings=["data.dequantise=uniform", "likelihood.sigma=0.1"])


def test_what_a_suite_sets_and_the_command_line_makes_idle_makes_no_other_run() -> None:
    layer = {"train": {"schedule": "cosine", "final_learning_rate": 1e-4}}
    made = [resolve("vae", defaults=defaults, settings=["train.schedule=constant"]) for defaults in ((), [layer])]
    assert made[0] == made[1] and made[0].identity() == made[1].identity()
    plain, other = (resolve(name, settings=["train.optimizer=rmsprop"]).train for name in ("vae", "vae_gan"))
    assert plain.betas == other.betas != resolve("vae_gan").train.betas
    plain, other = (resolve(name, settings=STAGED).train for name in ("vae", "vae_gan"))
    assert plain.learning_rate == other.learning_rate != resolve("vae_gan").train.learning_rate


# ---- the optimisers --------------------------------------------------------------------------------------------------

RATE, BETAS, EPSILON = 0.1, (0.5, 0.8), 1e-3


def adam_w(parameters: list[Tensor], decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=decay)


#: With Adam weight decay is decoupled; Adamax and RMSprop have it in the gradient. RMSprop forgets a tenth a step.
BY_TORCH = {
    "adam": adam_w,
    "adamnormgrad": adam_w,
    "adamax": lambda p, decay: torch.optim.Adamax(p, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=decay),
    "rmsprop": lambda p, decay: torch.optim.RMSprop(p, lr=RATE, alpha=0.9, eps=EPSILON, weight_decay=decay),
}


def test_every_optimiser_is_compared() -> None:
    assert set(BY_TORCH) == set(TrainConfig.model_fields["optimizer"].annotation.__args__)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("name", BY_TORCH)
def test_betas_epsilon_and_weight_decay_reach_the_optimiser(name: str, decay: float) -> None:
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5])) for _ in range(2))
    settings = {"learning_rate": RATE, "betas": BETAS, "epsilon": EPSILON, "weight_decay": decay}
    group, reference = Group("g", [ours], TrainConfig(optimizer=name, **settings)), BY_TORCH[name]([theirs], decay)
    for gradient in torch.randn(4, 3):
        ours.grad = gradient.clone()
        theirs.grad = gradient / gradient.norm() if name == "adamnormgrad" else gradient.clone()
        group.step()
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


# ---- the average, and patience ---------------------------------------------------------------------------------------


def test_the_averaged_weights_are_the_ones_that_are_validated_and_kept() -> None:
    trainer = trainer_of(ema=0.9, learning_rate=1e-2, keep="last")
    states: list[dict[str, Tensor]] = []
    step = trainer.stepper.apply

    def watched(*given: Any) -> tuple[Tensor, Tensor]:
        if not states:
            states.append(state(trainer.model))
        found = step(*given)
        states.append(state(trainer.model))
        return found

    trainer.stepper.apply = watched
    curves = trainer.fit().curves
    assert len(states) == 1 + trainer.steps == 9
    average, averages = states[0], []
    for n, live in enumerate(states[1:]):
        decay = min(0.9, (1 + n) / (10 + n))
        average = {name: decay * average[name] + (1 - decay) * live[name] for name in live}
        averages.append(average)
    kept, fresh = trainer.model.state_dict(), trainer_of()
    for name, value in kept.items():
        torch.testing.assert_close(value, average[name], rtol=1e-5, atol=1e-6)

    def elbo(weights: dict[str, Tensor]) -> float:
        fresh.model.load_state_dict(weights)
        return bound(fresh.model.eval(), fresh.validation, VALIDATION_SEED).elbo.mean().item()

    assert curves["validation_elbo"] == pytest.approx([elbo(averages[3]), elbo(averages[7])], abs=1e-3)
    assert abs(elbo(states[-1]) - elbo(average)) > 0.1, "the average is not the weights themselves"


@pytest.mark.parametrize(("warmup", "last"), [(0, 3), (2, 4), (4, 6)])
def test_patience_begins_when_the_warm_up_is_over(warmup: int, last: int) -> None:
    # Never better than the first with the weight of the rate at its end: two validations later it is over.
    trainer, falling = trainer_of(epochs=8, warmup=warmup, patience=2), iter(range(0, -8, -1))
    trainer.validate = lambda: (float(next(falling)),) * 2
    result = trainer.fit()
    assert result.stopped_early and (result.epochs, result.best_epoch) == (last, last - 2)
