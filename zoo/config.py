"""What a run is: everything that decides its numbers, typed, frozen, and refused when misspelt. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from zoo.errors import UsageError
from zoo.files import canonical_json, expanded
from zoo.registry import registry
from zoo.settings import MOST, Config, check_whole, does_nothing, merge, parse_setting, validate

SEEDS = 2**63 - 1  # what a random generator takes, less one: validation bits have the seed after that of the test
Decay = Annotated[float, Field(ge=0, lt=1)]
Length = Annotated[float, Field(ge=0)]
Precision = Literal["auto", "fast", "float32", "bf16", "fp16"]
EXCLUDE = "exclude_class"
HELD_OUT = "held_out"
ROWS = 4096
#: Settings that no number depends on, but for rounding: no part of a run's identity.
NEUTRAL = frozenset(
    {"train.checkpoint_seconds", "train.micro_batch", "train.capture", "train.compile", "evaluate.rows"}
)
#: Settings that came after the first records, with their defaults as JSON has them: left out of a run's identity at
#: their default, so that those keep their keys. Those of `evaluate` ask for further numbers and move none.
LATER: dict[str, dict[str, Any]] = {
    "data": {"dequantise": "none"},
    "train": {"stages": [], "cycles": None, "free_bits": None},
    "evaluate": {
        "latent": "auto", "anomaly": [], "cas": 0, "ex_post": 0, "ex_post_flow": 0, "loss_samples": 0, "coded": 0,
        "gaps": 0, "clustering": False, "ais": 0, "ais_images": 100,
    },
}  # fmt: skip
#: Settings of `evaluate` that decide a number only where one of others is above 0: they have their default in a run's
#: identity elsewhere. In a configuration they stay, for what is measured afterwards.
BESIDE = {
    "nll_images": ("nll_samples", "loss_samples"),
    "ais_images": ("ais",),
    **dict.fromkeys(("inception", "ex_post", "ex_post_flow"), ("quality_samples",)),
}


class DataConfig(Config):
    """Which images, and what is done to them before a model sees them."""

    name: str = "mnist"
    binarise: Literal["auto", "dynamic", "threshold", "none"] = "auto"
    dequantise: Literal["none", "uniform"] = Field(
        "none", description="uniform: x = (byte + u) / 256, u uniform, so that a density of x bounds the bytes' nats"
    )
    test_bits_seed: int = Field(
        777, ge=0, lt=SEEDS, description="validation and test bits, or noise on bytes, are drawn once from this seed"
    )
    options: dict[str, Any] = Field({}, description="given to the data set's loading function")

    @field_validator("options")
    @classmethod
    def _recordable(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            canonical_json(value)
        except (TypeError, ValueError):
            raise ValueError("a record has options as JSON, which knows no NaN, no infinity and no date") from None
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # the path of a folder that is named in another encoding
            raise ValueError("a record is UTF-8, and a text in the options has none") from None
        return value

    @property
    def preparation(self) -> dict[str, Any]:
        """What is done to the images once they are loaded, by setting."""
        return self.model_dump(include={"binarise", "dequantise", "test_bits_seed"})

    def support_of(self, loaded: str | None) -> str | None:
        """The support of data that has the support ``loaded`` before this is done to it; None is not known."""
        if self.dequantise != "none":
            return "dequantised"
        return loaded if self.binarise == "none" else "binary"

    @property
    def asked(self) -> str:
        """As it is asked for on the command line: ``name``, or ``name:folder`` where it reads one."""
        return f"{self.name}:{self.options['root']}" if self.options.get("root") else self.name

    @property
    def stem(self) -> str:
        """A plain name for files: ``name``, or ``name_folder``."""
        top = "".join(c if c.isalnum() or c in "_-" else "_" for c in Path(self.options.get("root") or "").name)
        return f"{self.name}_{top}" if top else self.name


class TrainConfig(Config):
    """How the weights are found. Lengths are in epochs, rates per step."""

    epochs: int = Field(20, ge=0)
    batch_size: int = Field(128, ge=1)
    optimizer: Literal["adam", "adamax", "rmsprop", "adamnormgrad"] = Field(
        "adam", description="adamnormgrad: Adam on each tensor's gradient over its norm; rmsprop has alpha 0.9"
    )
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine", "stages"] = "constant"
    final_learning_rate: float = Field(0.0, ge=0, description="where the cosine ends")
    stages: tuple[tuple[Length, Length], ...] = Field(
        (), description="of `stages`: how many epochs at which learning rate, one after the other; the last goes on"
    )
    warmup: float = Field(0.0, ge=0, description="epochs over which the weight of the rate rises from 0 to 1")
    cycles: int | None = Field(
        None, ge=1, description="so many times, in cycles of one length, that weight rises anew: over `warmup` epochs, "
        "or over half of the cycle where that is 0",
    )
    free_bits: float | None = Field(
        None, ge=0, le=1e6, description="nats of each part of the rate, on average over a batch, that cost nothing: of "
        "each dimension, or of each layer or the whole rate where it is no sum over dimensions",
    )
    clip: float | None = Field(None, gt=0, description="largest gradient norm of a parameter group")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights that are evaluated; 0 is off")
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    keep: Literal["best", "last"] = Field(
        "best",
        description="the weights of the best validation after the warm-up, by the objective that is trained (the ELBO, "
        "unless the variant weighs or tightens it), or the last",
    )
    patience: int | None = Field(None, ge=1, description="stop after so many validations that were not better")
    precision: Precision = Field(
        "auto", description="auto: bf16 on a GPU, float32 on a CPU; fast: whatever trains this model faster here"
    )
    compile: Literal["auto"] | bool = Field(
        "auto", description="compile the losses; auto: dense networks on a CPU, where the run is long enough to pay"
    )
    capture: bool = Field(True, description="on a GPU, a step as one CUDA graph wherever the variant allows it")
    checkpoint_seconds: float = Field(20.0, ge=0, description="time between checkpoints; 0 is after every step")
    micro_batch: int | None = Field(None, ge=1, description="examples at once, their gradients added; rounding only")

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if (self.schedule == "stages") != bool(self.stages):
            raise ValueError("schedule=stages and the stages come together")
        if self.optimizer == "adamnormgrad" and self.clip is not None:
            raise ValueError("adamnormgrad is shown directions alone: clip has nothing to clip")
        if self.cycles and self.epochs and self.warmup and self.warmup * self.cycles >= self.epochs:
            said = f"a warm-up of {self.warmup:g} epochs leaves nothing of a cycle, of which there are {self.cycles} in"
            raise ValueError(f"{said} {self.epochs}: make it shorter, or 0 for half a cycle")
        return self


class EvaluateConfig(Config):
    """How the numbers are measured. ``seed`` fixes the posterior noise, example by example."""

    split: Literal["validation", "test", "train"] = Field("test", description="train: by `zoo evaluate` alone")
    seed: int = Field(0, ge=0, lt=SEEDS)
    nll_samples: int = Field(64, ge=0, description="k of the importance-weighted bound; 0 leaves it out")
    nll_images: int | None = Field(None, ge=1, description="only the first so many images for the k-sample bound")
    loss_samples: int = Field(
        0, ge=0, description="k of the same of a loss that is no likelihood of the data, such as grey pixels under "
        "a Bernoulli, for papers that print it; 0 leaves it out",
    )
    quality_samples: int = Field(10_000, ge=0, description="samples for the Frechet distances; 0 leaves them out")
    inception: Literal["auto", "yes", "no", "bf16"] = Field(
        "auto", description="Inception FID; auto: when there is a GPU; bf16: with the network in bfloat16"
    )
    factor_images: int = Field(10_000, ge=0, description="codes for the disentanglement metrics; 0 leaves them out")
    latent: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="probes, total correlation, PCA of codes; auto: of data with classes or factors; yes: and t-SNE",
    )
    clustering: bool = Field(
        False, description="whether images fall into their classes untold: k-means over codes, and a model's own choice"
    )
    anomaly: tuple[str, ...] = Field((), description=f"data sets that are outliers; '{HELD_OUT}': the class left out")
    cas: int = Field(0, ge=0, description="class-conditional samples that a classifier learns from; 0 leaves it out")
    ex_post: int = Field(
        0, ge=0, description="Gaussians of a density that is fitted to the codes of training images, and whose samples "
        "are measured as well; 0 leaves it out",
    )
    ex_post_flow: int = Field(
        0, ge=0, description="autoregressive steps of a flow that is fitted to those codes as well, and whose samples "
        "have metrics of their own; 0 leaves it out",
    )
    coded: int = Field(
        0, ge=0, description="images that are stored as bits and read back, which shows the length that the bound "
        "promises; 0 leaves it out",
    )
    gaps: int = Field(
        0, ge=0, description="images whose best Gaussian posterior is found, which shows what of the bound the encoder "
        "loses and what the family; 0 leaves it out",
    )
    ais: int = Field(
        0, ge=0, le=1_000_000, description="temperatures of annealed importance sampling, which says how loose the "
        "bound is; 0 leaves it out",
    )
    ais_images: int = Field(100, ge=1, description="only the first so many images for it, and as many simulated ones")
    rows: int = Field(ROWS, ge=1, description="decoder rows at once, at most; no number depends on it")

    @field_validator("split")
    @classmethod
    def _unseen(cls, value: Any) -> Any:
        if value == "train":  # `measured_otherwise` does not come through here
            raise ValueError("a run is measured on images that it does not learn from, `zoo evaluate` on these as well")
        return value

    @field_validator("inception", "latent", mode="before")
    @classmethod
    def _spelt(cls, value: Any) -> Any:
        # YAML 1.1 takes yes and no for truth values.
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value

    @field_validator("anomaly", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class RunConfig(Config):
    """One run: a variant with its settings, a data set, a recipe, a way to evaluate, a seed."""

    variant: str
    model: dict[str, Any] = {}
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    seed: int = Field(0, ge=0, lt=SEEDS)

    def identity(self) -> dict[str, Any]:
        """The part that decides the result: what a record is keyed by."""
        found = decisive(self.model_dump(mode="json"))
        found["train"]["compile"] = False  # as the keys of the first records have it
        return found


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """A dumped `RunConfig` less the settings of `NEUTRAL`, and those of `LATER` that have their default, as those of
    `BESIDE` have that are beside none."""
    kept = dict(config)
    for section, settings in kept.items():
        if isinstance(settings, Mapping):
            settings = _with_idle_ones_as_usual(settings) if section == "evaluate" else settings
            later = LATER.get(section, {})
            kept[section] = {
                name: value
                for name, value in settings.items()
                if f"{section}.{name}" not in NEUTRAL and (name not in later or value != later[name])
            }
    return kept


def _with_idle_ones_as_usual(evaluate: Mapping[str, Any]) -> dict[str, Any]:
    usual = {name: field.default for name, field in EvaluateConfig.model_fields.items()}
    idle = {name for name, others in BESIDE.items() if not any((usual | evaluate)[one] for one in others)}
    return {name: usual[name] if name in idle else value for name, value in evaluate.items()}


def resolve(
    variant: str,
    data: str = "mnist",
    seed: int = 0,
    defaults: Iterable[Mapping[str, Any]] = (),
    settings: Iterable[str] = (),
) -> RunConfig:
    """The full configuration of a run.

    Args:
        variant, data: names in the registry; a dash works for an underscore. ``name:path`` gives a data set the
            folder that it reads (option ``root``).
        defaults: nested mappings applied in order (a suite's, then its overrides for the variant).
        settings: ``a.b=value`` texts, applied last. ``train.``, ``data.`` and ``evaluate.`` name a section;
            any other path is a setting of the model.

    Raises:
        UsageError: an unknown name, key, a value of the wrong kind, or a setting that would do nothing.
    """
    name, entry = registry().variant(variant)
    data_name, root = named_data(data)
    dataset = registry().datasets[data_name]
    tree: dict[str, Any] = {"model": entry.settings, "train": entry.train, "data": {"options": root}}
    layers = [*defaults]
    for layer in layers:
        tree = merge(tree, layer)
    asked: dict[str, Any] = {}
    for text in settings:
        setting = parse_setting(text)
        tree, asked = merge(tree, setting), merge(asked, setting)
    tree = merge(tree, {"variant": name, "data": {"name": data_name}, "seed": seed})
    config = validate(RunConfig, tree)
    _check_counts(config)
    config = config.model_copy(update={"train": _used(config.train, asked.get("train", {}))})
    options = _whole(config.data.options)
    config = config.model_copy(update={"data": config.data.model_copy(update={"options": options})})
    if config.data.binarise == "auto":
        rule = dataset.binarise if config.data.dequantise == "none" else "none"
        config = config.model_copy(update={"data": config.data.model_copy(update={"binarise": rule})})
    _check_bits(config.data, asked.get("data", {}))
    if any("model" in layer for layer in (*layers, asked)):
        from zoo.models import canonical

        config = config.model_copy(update={"model": canonical(name, config.model, entry.settings)})
    if asked.get("model"):
        from zoo.models import check_used

        # Where an entry says neither, its own loader knows both.
        known = dataset.support if dataset.shape or "support" in dataset.model_fields_set else None
        check_used(name, config.model, asked["model"], config.data.support_of(known))
    return _with_outliers(config)


def in_full(name: str) -> str | None:
    """A setting of a run with its section in front, ``train.epochs`` for ``epochs``; None where no section has it."""
    sections = {"train": TrainConfig, "evaluate": EvaluateConfig, "data": DataConfig}
    found = (f"{section}.{name}" for section, kind in sections.items() if name in kind.model_fields)
    return next((full for full in found if full != "data.name"), None)


def check_model(config: RunConfig) -> None:
    """Raise `UsageError` where the variant has no such settings, of one that a section has with its name in full."""
    from zoo.models import check_settings

    check_settings(config.variant, config.model, in_full)


def named_data(data: str) -> tuple[str, dict[str, Any]]:
    """``name`` or ``name:path`` as the registered name of a data set and the options that it is read with.

    Raises:
        UsageError: there is no such data set, or no path after the colon.
    """
    given, colon, root = data.partition(":")
    name, _ = registry().dataset(given)
    if colon and not root:
        raise UsageError(f"'{given}:' names no folder: give it as {name}:PATH.")
    return name, {"root": str(expanded(root).resolve())} if colon else {}


def measured_otherwise(
    config: RunConfig, split: str | None, data: DataConfig | None, settings: Iterable[str] = ()
) -> RunConfig:
    """The configuration of a finished run with another way to measure it.

    Args:
        split: any of the three; None is the run's own.
        data: what it is measured on; None is the run's own.
        settings: ``evaluate.a=value`` texts; with ``data`` also ``data.a=value``.

    Raises:
        UsageError: as `resolve`, or a setting of what is over, such as the training.
    """
    tree: dict[str, Any] = config.model_dump(mode="json")
    if data is not None:
        # What the run was told of outliers may be this very set, or need an option that it has not.
        tree["data"], old = data.model_dump(mode="json"), tree["evaluate"]["anomaly"]
        gone = {data.name} | ({HELD_OUT} if EXCLUDE not in data.options else set())
        tree["evaluate"]["anomaly"] = [name for name in old if name not in gone]
    for text in settings:
        setting = parse_setting(text)
        (section,), path = setting, text.partition("=")[0].strip()
        if section == "data" and data is None:
            raise UsageError(f"'{path}' is of the data: it comes with --data NAME, which may be the run's own.")
        if section == "model" and (full := in_full(path.replace("-", "_")) or "").startswith("evaluate."):
            raise UsageError(f"settings here are those of `evaluate`. Did you mean '{full}' by '{path}'?")
        if section not in ("evaluate", "data"):
            raise UsageError(f"'{path}' is of a training that is over: settings here are those of `evaluate`, as in "
                             "evaluate.nll_samples=5000.")  # fmt: skip
        if isinstance(setting[section], Mapping) and section == "evaluate" and "split" in setting[section]:
            raise UsageError("'evaluate.split' is given as --split.")
        tree = merge(tree, _whole(setting) if section == "data" else setting)
    found = _with_outliers(validate(RunConfig, tree))
    _check_counts(found)
    if split is None:
        return found
    return found.model_copy(update={"evaluate": found.evaluate.model_copy(update={"split": split})})


def _whole(value: Any) -> Any:
    """Options of data with 100 for 100.0, however deep: nobody knows which of them a loading function takes for whole
    numbers, and what loads the same images has the same identity."""
    if isinstance(value, Mapping):
        return {key: _whole(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < MOST else value


def _check_counts(config: RunConfig) -> None:
    # Those of a model are looked at where it is built.
    check_whole({"train": config.train.model_dump(), "evaluate": config.evaluate.model_dump(exclude={"seed"})})


def _used(train: TrainConfig, asked: Mapping[str, Any]) -> TrainConfig:
    """With its default for what would do nothing and give the same run another identity, such as a suite's end of a
    schedule that is another one now; ``UsageError`` where that was ``asked`` for itself. What is read back is not
    looked at: a run of before is loaded as it is."""
    default = TrainConfig()
    for name, used, why in (
        ("betas", train.optimizer != "rmsprop", "train.optimizer=rmsprop has none"),
        ("learning_rate", train.schedule != "stages", "train.schedule=stages has rates of its own"),
        ("final_learning_rate", train.schedule == "cosine", f"train.schedule={train.schedule} has no such end"),
    ):
        usual = getattr(default, name)
        if used or getattr(train, name) == usual:
            continue
        if name in asked:
            raise does_nothing(f"train.{name}", why)
        train = train.model_copy(update={name: usual})
    return train


def _check_bits(data: DataConfig, asked: Mapping[str, Any]) -> None:
    """Raise `UsageError` where bits are to be dequantised, or a seed was ``asked`` for what nobody draws: it would only
    make another identity."""
    if data.dequantise != "none" and data.binarise != "none":
        said = f"data.dequantise={data.dequantise} is for bytes, and data.binarise={data.binarise} makes bits of them"
        raise UsageError(f"{said}: add data.binarise=none.")
    name, usual = "test_bits_seed", DataConfig().test_bits_seed
    drawn = data.binarise == "dynamic" or data.dequantise == "uniform"
    if not drawn and name in asked and data.test_bits_seed != usual:
        raise does_nothing(f"data.{name}", f"data.binarise={data.binarise} draws no bits")


def _with_outliers(config: RunConfig) -> RunConfig:
    """Their names as the registry has them; what cannot be measured is said before anything is trained."""
    # Options may change the shape of a data set, so that only its own loader knows it.
    plain = not config.data.options.keys() - {EXCLUDE}
    own = registry().dataset(config.data.name)[1]
    names = []
    for given in config.evaluate.anomaly:
        if given.replace("-", "_") == HELD_OUT:
            if EXCLUDE not in config.data.options:
                raise UsageError(f"evaluate.anomaly={HELD_OUT} needs a class to hold out: data.options.{EXCLUDE}=N.")
            names.append(HELD_OUT)
            continue
        name, entry = registry().dataset(given)
        if name == config.data.name:
            raise UsageError(f"'{name}' is what the model learns: it has no outliers for evaluate.anomaly.")
        if plain and own.shape and entry.shape:  # else its own loader knows
            shapes = ("x".join(map(str, one.shape)) for one in (own, entry))
            for ours, theirs in (shapes, (own.support, entry.support)):
                if ours != theirs:
                    said = f"images of '{name}' are {theirs}, and those of '{config.data.name}' {ours}"
                    raise UsageError(f"{said}: a model of these can score none of them.")
        names.append(name)
    evaluate = config.evaluate.model_copy(update={"anomaly": tuple(dict.fromkeys(names))})
    return config.model_copy(update={"evaluate": evaluate})
