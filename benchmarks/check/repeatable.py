"""The same question has the same answer: whatever the batch, whoever asked before, and from a file too."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.check.subject import Subject, ids
from benchmarks.check.verdict import Inapplicable, Wrong, hold
from zoo import noise
from zoo.errors import one_line
from zoo.models.base import VAE
from zoo.training import checkpoint

DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
THROUGH_ZOO = "draw with zoo.noise.normal(like) or zoo.noise.uniform(like), not with torch.randn or .sample()"
DRAWS, LEAST = 64, 1.5  # of a training loss, and how much more two copies of an image must vary than 64 do
NEAR = dict(rtol=1e-4, atol=1e-3)


def evaluation_mode(subject: Subject) -> None:
    """After eval() no dropout is active, no batch statistics are taken, and nothing in the model moves."""
    model, (x, y) = subject.known(), subject.batch(16)
    busy = [name or "the model" for name, module in model.named_modules() if module.training]
    hold(
        not busy,
        f"after eval() {busy[0] if busy else ''} is still in training mode",
        "override train() only to call super().train(mode), and keep modules in a ModuleList, not in a list",
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with _watched():
        answers(model, x, y)
    moved = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    hold(
        not moved,
        f"evaluating changes '{moved[0] if moved else ''}' of the model",
        "change state in after_step() or where self.training is true, never in evaluation",
    )


def deterministic(subject: Subject) -> None:
    """Codes and reconstructions are not random, and the code depends on the image."""
    model, (x, y) = subject.known(), subject.batch(16)
    for name in ("represent", "reconstruct"):
        first, second = getattr(model, name)(x, y), getattr(model, name)(x, y)
        hold(
            torch.equal(first, second),
            f"{name}(x) gives another answer each time, by up to {(first - second).abs().max():.2g}",
            "use the centre of the posterior (its mean), not a sample of it",
        )
    hold(
        bool(model.represent(x, y).std(0).max() > 0),
        "represent(x) is the same for every image",
        "return the posterior's centre of the image",
    )


def noise_of_the_image(subject: Subject) -> None:
    """Every random number in evaluation comes from zoo.noise, so that a seed fixes it."""
    model, (x, y) = subject.known(), subject.batch(16)
    asked = {
        "terms(x)": lambda: model.terms(x, y).elbo,
        "log_weights(x)": lambda: model.log_weights(x, y, 1),
        "sample(16)": lambda: model.sample(16, y),
    }
    if not subject.bounds:
        del asked["log_weights(x)"]
    for name, ask in asked.items():
        found = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            with noise.keyed(3, ids(16)):
                found.append(ask())
        hold(
            torch.equal(*found),
            f"{name} changes from call to call inside zoo.noise.keyed, so its noise is not the image's own",
            THROUGH_ZOO,
        )


def batches(subject: Subject) -> None:
    """No number depends on which images are asked for together."""
    model, (x, y) = subject.known(), subject.batch(64)
    whole = _pieces(model, x, y, 64)
    for size in (1, 7):
        for name, found in _pieces(model, x, y, size).items():
            apart = _apart(whole[name], found)
            hold(
                torch.allclose(whole[name], found, **NEAR),
                f"the {name} of an image changes by up to {apart:.3g} with the batch it is in (of {size} or 64)",
                "take no mean, sum or normalisation over the batch in evaluation, and draw noise of shape (B, ...) by "
                "zoo.noise",
            )
    if not subject.bounds:
        return
    model, (x, y) = subject.known(), subject.batch(8)

    def weights(samples: range) -> Tensor:
        with noise.keyed(3, ids(8), samples):
            return model.log_weights(x, y, len(samples))

    parts = torch.cat([weights(range(4)), weights(range(4, 5)), weights(range(5, 6))])
    hold(
        torch.allclose(weights(range(6)), parts, **NEAR),
        "six log-weights asked for at once are not those asked for in parts",
        "keep rows sample-major (zoo.models.base.repeat) and draw the noise of all k samples in one call",
    )


def loss_is_a_mean(subject: Subject) -> None:
    """A loss is a mean over the batch: that of 64 images is the mean of those of its halves."""
    model, (x, y) = subject.known(), subject.batch(64)
    if model.couples_examples:
        raise Inapplicable("its objective compares the examples of a batch with each other")

    def losses(piece: slice) -> dict[str, Tensor]:
        # As the trainer divides a batch: every example has its noise, however many samples it has.
        with torch.random.fork_rng(devices=[]), noise.part_of(64, piece.start, piece.stop, []):
            torch.manual_seed(3)
            return model.losses(x[piece], None if y is None else y[piece], 1.0)

    whole, first, second = losses(slice(0, 64)), losses(slice(0, 32)), losses(slice(32, 64))
    for group, loss in whole.items():
        halves = 0.5 * (first[group] + second[group]).item()
        hold(
            abs(halves - loss.item()) <= 1e-4 * abs(loss.item()) + 1e-6,
            f"the loss '{group}' of 64 images is {loss.item():.6g}, and {halves:.6g} as the mean of two halves",
            "average over the batch and do not sum; an objective that must compare the images of a batch says so with "
            "`couples_examples = True`",
        )


@torch.no_grad()
def noise_of_each(subject: Subject) -> None:
    """In training every image of a batch has noise of its own: 64 copies of one spread less than two do."""
    model, (image, label) = subject.trainable(), subject.shown(1)
    for part in model.modules():
        # Over copies of one image there is nothing to normalise by but their noise.
        if isinstance(part, _BatchNorm):
            part.eval()

    def spread(copies: int) -> dict[str, float]:
        torch.manual_seed(5)
        x, y = image.expand(copies, -1, -1, -1), None if label is None else label.expand(copies, *label.shape[1:])
        drawn = [{group: loss.item() for group, loss in model.losses(x, y, 1.0).items()} for _ in range(DRAWS)]
        return {group: torch.tensor([losses[group] for losses in drawn]).double().std().item() for group in drawn[0]}

    few, many = spread(2), spread(64)
    if not any(few.values()):
        raise Inapplicable("its losses draw no noise")
    for group, of_two in few.items():
        hold(
            # Independent draws are sqrt(32) apart; a normalisation of the variant's own leaves less of that.
            many[group] * LEAST <= of_two or not many[group],
            f"the loss '{group}' of 64 copies of an image varies by {many[group]:.3g} from draw to draw, and of two by "
            f"{of_two:.3g}, so that a batch shares its noise",
            "draw noise of shape (B, ...), a row for each image",
        )


def saved(subject: Subject) -> None:
    """A model that was saved and loaded gives the same bits."""
    model, (x, y) = subject.known(), subject.batch(16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        checkpoint.write(path, model.state_dict(), {})
        torch.manual_seed(6)
        again = subject.make().eval()
        try:
            again.load_state_dict(checkpoint.read(path)[0])
        except RuntimeError as error:
            said = one_line(error)[:200]
            mend = "let __init__ make every parameter and buffer in its final shape"
            raise Wrong(f"what was saved cannot be loaded into a fresh model ({said})", mend) from None
    made = []
    for one in (model, again):
        with noise.keyed(0, ids(16)), torch.no_grad():
            made.append(answers(one, x, y))
    for name in made[0]:
        hold(
            torch.equal(made[0][name], made[1][name]),
            f"after saving and loading {name} is another, by up to {_apart(made[0][name], made[1][name]):.3g}",
            "keep whatever training changes in a parameter or a buffer (register_buffer): attributes are not saved",
        )


def answers(model: VAE, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
    """What a model says of images, by the name of the method."""
    terms = model.terms(x, y)
    return {
        "terms(x).distortion": terms.distortion,
        "terms(x).rate": terms.rate,
        "represent(x)": model.represent(x, y),
        "reconstruct(x)": model.reconstruct(x, y),
        "sample(n)": model.sample(len(x), y),
    }


def _apart(one: Tensor, other: Tensor) -> float:
    # Where there is no posterior a rate has no numbers.
    return (one - other).abs().max().item() if one.numel() else 0.0


def _pieces(model: VAE, x: Tensor, y: Tensor | None, size: int) -> dict[str, Tensor]:
    """What is reported of each image, asked for in batches of ``size``, by name."""
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(x), size):
        piece = slice(start, start + size)
        shown = x[piece], None if y is None else y[piece]
        with noise.keyed(3, ids(len(x))[piece]):
            terms = model.terms(*shown)
            answers = {"distortion": terms.distortion, "rate": terms.rate}
            answers |= {"code": model.represent(*shown), "reconstruction": model.reconstruct(*shown)}
            own = model.measure(*shown).items()
            answers |= {name: value if value.dim() else value.expand(len(shown[0])) for name, value in own}
        for name, value in answers.items():
            found.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in found.items()}


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Raise `Wrong` when dropout is active or batch normalisation takes the batch's statistics."""
    originals: dict[str, Any] = {name: getattr(F, name) for name in (*DROPOUTS, "batch_norm")}

    def dropout(name: str) -> Any:
        def asked(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
            hold(
                not (training and p > 0),
                f"F.{name} drops numbers in evaluation",
                f"use the module, which eval() switches off, or F.{name}(..., training=self.training)",
            )
            return originals[name](input, p, training, inplace)

        return asked

    def batch_norm(input: Tensor, mean: Any, var: Any, *args: Any, **kwargs: Any) -> Tensor:
        # weight, bias, training, ...
        training = kwargs.get("training", args[2] if len(args) > 2 else False)
        hold(
            not training,
            "batch normalisation takes the statistics of the batch in evaluation",
            "keep track_running_stats on, and let eval() switch the module",
        )
        return originals["batch_norm"](input, mean, var, *args, **kwargs)

    try:
        for name in DROPOUTS:
            setattr(F, name, dropout(name))
        F.batch_norm = batch_norm
        yield
    finally:
        for name, original in originals.items():
            setattr(F, name, original)
