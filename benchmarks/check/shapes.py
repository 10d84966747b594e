"""Shapes, types and ranges of everything a variant answers, for images of several sizes."""

from __future__ import annotations

import torch
from pydantic import ValidationError
from torch import Tensor

from benchmarks.check.subject import COLOUR, DIGITS, Subject
from benchmarks.check.verdict import NOT_FINITE, Wrong, hold
from benchmarks.record import GroupRate, check_measures, first_of
from zoo import noise
from zoo.data.images import DataSpec
from zoo.errors import UsageError, one_line
from zoo.models.base import VAE, Terms

OBLONG = DataSpec((1, 20, 36), "binary", classes=10)
ROWS = 5
PER_IMAGE = "return one number an image: sum over channels and pixels with .flatten(1).sum(1), and leave the mean over "
PER_IMAGE += "the batch to losses()"


def shapes(subject: Subject) -> None:
    """Everything has the shape and type of the contract, for 28x28 bits, 32x32 colours and 20x36 bits."""
    for spec in (DIGITS, COLOUR, OBLONG):
        size = "x".join(map(str, spec.shape)) + (" bits" if spec.support == "binary" else " bytes")
        try:
            model = subject.make(spec).eval()
            with torch.no_grad():
                _shapes_of(model, spec, f"of {size}")
        except Wrong:
            raise
        except Exception as error:
            if spec is DIGITS:
                raise
            said = one_line(error)[:160]
            what = f"it works on 1x28x28 bits and not on {size} ({type(error).__name__}: {said})"
            mend = "take every size from spec.shape (no 28 or 784), give the decoder self.likelihood.channels(C) "
            raise Wrong(what, mend + "channels, and let self.likelihood make log p(x | z) of them") from error


def _shapes_of(model: VAE, spec: DataSpec, of: str) -> None:
    x, y = pictures(spec), torch.arange(ROWS) if model.conditional else None
    terms = model.terms(x, y)
    hold(
        isinstance(terms, Terms),
        f"terms(x) returns a {type(terms).__name__}",
        "return zoo.models.base.Terms(distortion, rate)",
    )
    _has_shape("terms(x).distortion", terms.distortion, (ROWS,), of, PER_IMAGE)
    mend = "return one column for each group of latents, each summed over its dimensions: .sum(1, keepdim=True) for one"
    _has_shape("terms(x).rate", terms.rate, (ROWS, "groups"), of, mend)
    columns = terms.rate.shape[1]
    hold(
        model.bounds or columns == 0,
        f"terms(x).rate has {columns} columns, and the class says that it bounds nothing",
        "return a rate of shape (B, 0) where there is no posterior, or leave `bounds` as it is",
    )
    for name, value in (("terms(x).distortion", terms.distortion), ("terms(x).rate", terms.rate)):
        _finite(name, value)  # or the ELBO below is no sum of them
    hold(
        torch.equal(terms.elbo, -(terms.distortion + terms.rate.sum(1))),
        "terms(x).elbo is not -(distortion + rate)",
        "return zoo.models.base.Terms as it is",
    )
    criterion = model.criterion(x, y, terms)
    _has_shape("criterion()", criterion, (ROWS,), of, PER_IMAGE)
    _measures_of(model, x)
    weights, codes = _log_weights_of(model, x, y, of), model.represent(x, y)
    _has_shape("represent(x)", codes, (ROWS, "D"), of, "return one flat code an image: .flatten(1)")
    _groups_of(model, columns, codes.shape[1])
    made = {"reconstruct(x)": model.reconstruct(x, y), f"sample({ROWS})": model.sample(ROWS, y)}
    made[f"sample({ROWS}, temperature=0.5)"] = model.sample(ROWS, y, temperature=0.5)
    for name, images in made.items():
        shape = tuple(images.shape)
        hold(
            shape == (ROWS, *spec.shape),
            f"{name} has shape {shape}, not {(ROWS, *spec.shape)}",
            "return images shaped as the data",
        )
    named = {"terms(x).distortion": terms.distortion, "terms(x).rate": terms.rate, "criterion()": criterion} | weights
    for name, value in (named | {"represent(x)": codes} | made).items():
        hold(
            value.dtype == torch.float32,
            f"{name} is {value.dtype}, not torch.float32",
            "compute it in float32: zoo.precision.full_precision does",
        )
        _finite(name, value)


def _has_shape(what: str, value: Tensor, wanted: tuple[int | str, ...], of: str, mend: str) -> None:
    # A name in ``wanted`` stands for any size.
    shape = tuple(value.shape)
    fits = len(shape) == len(wanted) and all(
        isinstance(asked, str) or size == asked for size, asked in zip(shape, wanted, strict=True)
    )
    said = f"({', '.join(map(str, wanted))}{',' * (len(wanted) == 1)})"
    hold(fits, f"{what} has shape {shape} for {ROWS} images {of}, not {said}", mend)


def _measures_of(model: VAE, x: Tensor) -> None:
    try:
        check_measures(model.measures)
    except UsageError as error:
        mend = "name what only this variant can tell, with its unit and its better direction, such as "
        raise Wrong(str(error).rstrip("."), mend + "{'code_norm': ('nats', 'lower')}") from None
    y = torch.arange(ROWS) if model.conditional or model.supervised else None
    for name, values in model.measure(x, y).items():
        hold(
            name in model.measures,
            f"measure(x) gives '{name}', which `measures` does not name",
            "name it there with its unit and its better direction",
        )
        shape = tuple(values.shape)
        hold(
            shape in ((ROWS,), ()),
            f"'{name}' of measure(x) has shape {shape} for {ROWS} images, not ({ROWS},)",
            "return one number an image, or one without a dimension that is of the model itself",
        )
        _finite(f"'{name}' of measure(x)", values)


def _groups_of(model: VAE, groups: int, dimensions: int) -> None:
    for name, said in (("group_names", model.group_names), ("group_sizes", model.group_sizes)):
        hold(
            not said or len(said) == groups,
            f"`{name}` has {len(said or ())} entries, and terms(x).rate {groups} columns",
            "have one for each column, in the same order",
        )
    for name in model.group_names:
        try:
            GroupRate(name=name, value=0.0)
        except ValidationError as error:
            mend = "call it by letters, digits and underscores, such as z_top"
            raise Wrong(f"'{name}' of `group_names`: {first_of(error)}", mend) from None
    hold(
        len(set(model.group_names)) == len(model.group_names),
        f"`group_names` has a name twice: {', '.join(model.group_names)}",
        "give each group a name of its own",
    )
    sizes = model.group_sizes
    hold(
        sizes is None or sum(sizes) == dimensions,
        f"`group_sizes` add up to {sum(sizes or ())}, and represent(x) has {dimensions} dimensions",
        "count the dimensions of the code that are of each group, or leave it at None",
    )


def _finite(name: str, value: Tensor) -> None:
    bad = int((~torch.isfinite(value)).sum())
    hold(
        bad == 0,
        f"{name} has {bad} numbers that are not finite on a fresh model",
        NOT_FINITE,
    )


def _log_weights_of(model: VAE, x: Tensor, y: Tensor | None, of: str) -> dict[str, Tensor]:
    """Those of three samples by the name of the method; none of a model that bounds nothing, which has to refuse."""
    if not model.bounds:
        try:
            model.log_weights(x, y, 3)
        except UsageError:
            return {}
        raise Wrong(
            "the class says that it bounds nothing, and log_weights(x) answers",
            "raise a UsageError there, since whatever is made of log-weights is called a bound on log p(x)",
        )
    weights = model.log_weights(x, y, 3)
    mend = "put the samples first: .view(k, len(x)) where rows are sample-major, as zoo.models.base.repeat makes them"
    _has_shape("log_weights(x, k=3)", weights, (3, ROWS), of, mend)
    return {"log_weights(x)": weights}


def pictures_in_range(subject: Subject) -> None:
    """Samples and reconstructions lie in [0, 1]."""
    model, (x, y) = subject.known(), subject.batch(32)
    colour = subject.make(COLOUR).eval()
    y5 = torch.arange(ROWS) if subject.conditional else None
    made = {
        "sample(32)": model.sample(32, y),
        "sample(32, temperature=2)": model.sample(32, y, 2.0),
        "reconstruct(x)": model.reconstruct(x, y),
        f"sample({ROWS}) of bytes": colour.sample(ROWS, y5),
        f"sample({ROWS}, temperature=0.5) of bytes": colour.sample(ROWS, y5, 0.5),
        "reconstruct(x) of bytes": colour.reconstruct(pictures(COLOUR), y5),
    }
    for name, images in made.items():
        low, high = images.min().item(), images.max().item()
        hold(
            0 <= low and high <= 1,
            f"{name} has pixels from {low:.2f} to {high:.2f}, and pictures lie in [0, 1]",
            "return self.likelihood.mean(params), not the decoder's raw output",
        )


def condition(subject: Subject) -> None:
    """Only a conditional variant reads y, and it does not do without."""
    model, x = subject.known(), subject.batch(16)[0]
    y = torch.arange(16) % 10

    def elbo(y: Tensor | None) -> Tensor:
        with noise.keyed(0, torch.arange(len(x))):
            return model.terms(x, y).elbo

    if not subject.conditional:
        hold(
            torch.equal(elbo(None), elbo(y)),
            "the ELBO changes with y, and the class does not say that it is conditional",
            "set `conditional = True` in the class, or do not read y",
        )
        return
    for name in ("terms", *(["log_weights"] if subject.bounds else []), "represent", "reconstruct"):
        try:
            getattr(model, name)(x, None)
        except ValueError:
            continue
        raise Wrong(
            f"it is conditional, and {name}(x) without y answers as if that were nothing",
            "raise a ValueError: zoo.models.base.condition_vector(self.spec, y, x) does",
        )
    hold(
        bool((elbo(y) != elbo((y + 1) % 10)).all()),
        "it is conditional, and there are images whose ELBO is the same whatever y says",
        "give y to the encoder and the decoder, or set `conditional = False`",
    )


def pictures(spec: DataSpec, n: int = ROWS) -> Tensor:
    """(n, *spec.shape) random bits or bytes."""
    generator = torch.Generator().manual_seed(0)
    if spec.support == "binary":
        return torch.rand(n, *spec.shape, generator=generator).round()
    return torch.randint(256, (n, *spec.shape), generator=generator) / 255
