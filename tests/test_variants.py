"""What has to hold for every variant in the registry. One that is added there is tested here with no further line."""

from __future__ import annotations

import contextlib
import copy
import math
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn.modules.conv import _ConvNd

from benchmarks.check.examine import PROPERTIES, examine
from benchmarks.check.subject import COLOUR, DIGITS, digits, fit, ids, subject
from benchmarks.report.settings import settings_class
from zoo import create_model, list_models, noise
from zoo.config import TrainConfig, resolve
from zoo.data.images import DataSpec
from zoo.data.synthetic import load_synthetic
from zoo.distributions.gaussians import DiagonalGaussian
from zoo.errors import UsageError
from zoo.flows import Flow
from zoo.likelihoods import LIKELIHOODS
from zoo.models import check_settings, settings_of
from zoo.models.base import VAE, Progress
from zoo.models.vae import VanillaSettings
from zoo.nets.code_prior import CodePrior
from zoo.priors import DiffusionPrior, EnergyPrior, FlowPrior, PriorSettings
from zoo.registry import DatasetEntry, registry
from zoo.runs import train_run
from zoo.settings import parse_setting
from zoo.training.compiled import Compiled
from zoo.training.optimise import Group, backward
from zoo.training.precision import choose
from zoo.training.stages import check_recipe

NAMES = list_models()
BUILT_IN = [name for name in NAMES if registry().variants[name].origin == "built-in"]
every_variant = pytest.mark.parametrize("name", NAMES)


# ---- models and data -------------------------------------------------------------------------------------------------


def make(name: str, spec: DataSpec = DIGITS, **settings: Any) -> VAE:
    """A small fresh model."""
    return subject(name).make(spec, **settings)


def batch(model: VAE, n: int = 16, start: int = 0) -> tuple[Tensor, Tensor | None]:
    x, y = digits()
    return x[start : start + n], y[start : start + n] if model.conditional else None


def known(name: str) -> VAE:
    """A small model after a few steps, in evaluation mode: nothing in it is at the value it was initialised to."""
    return subject(name).known()


def trainable(name: str) -> VAE:
    return subject(name).trainable()


# ---- the registry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_entry_says_what_it_is_and_states_the_class_s_own_defaults(name: str) -> None:
    entry = registry().variants[name]
    assert entry.title and entry.summary.endswith(".") and entry.paper and entry.paper.url.startswith("https://")
    kind = entry.load().Settings
    stated = kind.model_validate(entry.settings)
    # Fields that are the vanilla VAE's are not repeated, unless the class or the entry gives them another default.
    shared = {key for key, field in VanillaSettings.model_fields.items() if kind.model_fields.get(key) == field}
    missing = set(kind.model_fields) - shared - set(entry.settings)
    optional = {key for key in missing if isinstance(getattr(stated, key), BaseModel | None)}
    assert missing <= optional, f"settings that the entry does not state: {sorted(missing - optional)}"
    for key in set(entry.settings) - {"latent"}:
        assert getattr(stated, key) == kind.model_fields[key].get_default(), f"'{key}' has two defaults"


@every_variant
def test_it_can_be_made_without_memory_for_its_weights(name: str) -> None:
    with torch.device("meta"):
        model = make(name)
    assert {part.device.type for part in model.parameters()} == {"meta"}
    real = make(name)
    assert [part.shape for part in model.parameters()] == [part.shape for part in real.parameters()]


@pytest.mark.parametrize(
    ("needed", "idle", "usual"),
    [
        ([], "prior.components=20", "prior.components=500"),
        (["prior.name=vamp"], "prior.tries=7", "prior.tries=100"),
        ([], "posterior.flows=8", "posterior.flows=4"),
        (["posterior.name=iaf"], "posterior.bins=9", "posterior.bins=8"),
        ([], "encoder.channels=[8]", "encoder.channels=[32,64]"),
        (["encoder.timm=resnet18"], "encoder.hidden=[8]", "encoder.hidden=[400,400]"),
        (["decoder.name=gated"], "decoder.activation=elu", "decoder.activation=relu"),
        ([], "likelihood.sigma=0.1", "likelihood.sigma=learned"),
        (["likelihood.name=gaussian"], "likelihood.components=3", "likelihood.components=5"),
        (["likelihood.name=gaussian"], "likelihood.scale=0.1", "likelihood.scale=learned"),
        (["likelihood.name=laplace"], "likelihood.sigma=0.1", "likelihood.sigma=learned"),
        (["likelihood.name=continuous_bernoulli"], "likelihood.scale=0.1", "likelihood.scale=learned"),
        (["likelihood.name=gaussian", "likelihood.sigma=0.1"], "likelihood.start=data", "likelihood.start=null"),
        (["likelihood.name=log_cosh", "likelihood.scale=1"], "likelihood.start=data", "likelihood.sharpness=3"),
        (["likelihood.name=laplace"], "likelihood.degrees=3", "likelihood.degrees=null"),
    ],
)
def test_a_part_is_asked_for_no_setting_that_it_does_not_read(needed: list[str], idle: str, usual: str) -> None:
    with pytest.raises(UsageError, match=rf"{re.escape(idle.partition('=')[0])} would do nothing: "):
        resolve("vae", settings=[*needed, idle])
    assert resolve("vae", settings=[*needed, usual])
    # What a suite gives to all of its variants is not looked at, nor what a run of before was made with.
    assert resolve("vae", defaults=[parse_setting(idle)], settings=needed)


def test_a_likelihood_that_goes_by_data_which_only_their_loader_knows_may_be_asked_for_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unsaid = DatasetEntry(load="mine:load", title="mine")  # as that of the entry-point group zoo.datasets
    monkeypatch.setitem(registry().datasets, "mine", unsaid)
    assert resolve("vae", "mine", settings=["likelihood.sigma=0.1"])
    with pytest.raises(UsageError, match="prior.tries would do nothing"):
        resolve("vae", "mine", settings=["prior.tries=7"])
    with pytest.raises(UsageError, match="likelihood.sigma would do nothing"):
        resolve("vae", "folder:mine", settings=["likelihood.sigma=0.1"])


@every_variant
def test_what_a_part_says_of_its_settings_is_of_settings_and_names_that_there_are(name: str) -> None:
    for part in parts(settings_of(registry().variants[name], registry().variants[name].settings)):
        names = get_args(type(part).model_fields["name"].annotation)
        read_by = type(part).read_by
        assert read_by.keys() <= type(part).model_fields.keys() - {"name"}
        assert {one for readers in read_by.values() for one in readers} <= set(names)


@every_variant
def test_a_variant_that_has_a_likelihood_takes_any(name: str) -> None:
    if "likelihood" not in registry().variants[name].load().Settings.model_fields:
        pytest.skip("it has a loss of its own")
    for likelihood in LIKELIHOODS:
        torch.manual_seed(0)
        model = make(name, likelihood={"name": likelihood})
        losses = model.losses(*subject(name).shown(8))
        sum(losses.values()).backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert gradients and all(gradient.isfinite().all() for gradient in gradients), likelihood
        shown = model.eval().sample(3, batch(model, 3)[1])
        assert shown.shape == (3, *DIGITS.shape) and 0.0 <= shown.min() and shown.max() <= 1.0, likelihood


def parts(settings: BaseModel) -> Iterator[BaseModel]:
    """Those of a variant that say which of their names read a setting."""
    for key in type(settings).model_fields:
        value = getattr(settings, key)
        if isinstance(value, BaseModel):
            yield from [value] if hasattr(value, "read_by") else parts(value)


def sizes(settings: BaseModel) -> Iterator[tuple[str, Any]]:
    """The settings that are tuples of whole numbers, dotted, at any depth, with zeros in place of the numbers."""

    def zeros(value: Any) -> Any:
        return [zeros(one) for one in value] if isinstance(value, tuple) else 0

    def whole(annotation: Any) -> bool:
        return any(one is int or whole(one) for one in get_args(annotation))

    for key, field in type(settings).model_fields.items():
        value, inner = getattr(settings, key), settings_class(field.annotation)
        if inner is not None:
            yield from ((f"{key}.{path}", wrong) for path, wrong in sizes(value or inner()))
        elif isinstance(value, tuple) and whole(field.annotation):
            yield key, zeros(value) or [0]


@every_variant
def test_a_layer_without_a_unit_is_refused(name: str) -> None:
    kind = registry().variants[name].load().Settings
    for path, wrong in sizes(kind.model_validate(registry().variants[name].settings)):
        with pytest.raises(UsageError, match=path):
            check_settings(name, parse_setting(f"{path}={wrong}")["model"])


def prefixes(kind: type[BaseModel]) -> Iterator[str]:
    """What stands before a setting: before the variant's own "", before those of its encoder "encoder.", and so on."""
    yield ""
    for key, field in kind.model_fields.items():
        if inner := settings_class(field.annotation):
            yield from (f"{key}.{prefix}" for prefix in prefixes(inner))


@every_variant
def test_a_misspelt_setting_is_refused_at_any_depth(name: str) -> None:
    for prefix in prefixes(registry().variants[name].load().Settings):
        with pytest.raises(UsageError, match=f"{prefix}no_such"):
            check_settings(name, parse_setting(f"{prefix}no_such=1")["model"])


@pytest.mark.parametrize("spec", [DIGITS, COLOUR], ids=["digits", "colour"])
@every_variant
def test_the_defaults_make_a_model_that_can_be_trained(name: str, spec: DataSpec) -> None:
    model = create_model(name, data=spec)
    x = torch.randint(0, 2, (2, *spec.shape)).float()
    losses = model.losses(x, torch.tensor([3, 7]) if model.conditional else None, 1.0)
    assert set(losses) <= set(model.parameter_groups())
    assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())


# ---- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prop", PROPERTIES)
@every_variant
def test_the_contract_that_zoo_check_tests(name: str, prop: str) -> None:
    (found,) = examine(subject(name), (prop,))
    if found.status == "inapplicable":
        pytest.skip(found.what)
    assert found.status == "holds", f"{found.what}; {found.mend}"


@every_variant
def test_double_precision_stays_double(name: str) -> None:
    model = known(name).double()
    x, y = batch(model)
    terms = model.terms(x.double(), y)
    assert terms.distortion.dtype == terms.rate.dtype == torch.float64
    assert not model.bounds or model.log_weights(x.double(), y, 2).dtype == torch.float64


@pytest.mark.parametrize("posterior", ["diagonal", "planar"])
@every_variant
def test_a_vamp_prior_is_refused_when_it_is_asked_for_or_can_be_trained(name: str, posterior: str) -> None:
    fields = registry().variants[name].load().Settings.model_fields
    if "prior" not in fields or fields["prior"].annotation is not PriorSettings:
        pytest.skip("its prior is not one of `zoo.priors`")
    # A prior whose draws alone are looked at learns from what stays of the rate.
    asked = {"prior": {"name": "vamp"}, "posterior": {"name": posterior}, "rate": 1.0}
    try:
        model = make(name, **{key: value for key, value in asked.items() if key in fields})
    except UsageError as error:
        assert "prior.name=vamp" in str(error)
        assert posterior != "diagonal" or subject(name).conditional
        return
    assert all(torch.isfinite(loss) for loss in model.losses(*batch(model)).values())


# ---- gradients -------------------------------------------------------------------------------------------------------


@every_variant
def test_each_loss_reaches_its_whole_group_and_nothing_else(name: str) -> None:
    model = trainable(name)
    x, y = subject(name).shown(32)
    names = {id(parameter): key for key, parameter in model.named_parameters()}

    def losses(model: VAE) -> dict[str, Tensor]:
        torch.manual_seed(5)
        return model.losses(x, y, 1.0)

    twins = {group: copy.deepcopy(model) for group in model.parameter_groups()}
    groups = {key: Group(key, members, TrainConfig()) for key, members in model.parameter_groups().items()}
    moved = losses(model)
    assert moved
    backward(moved, groups)
    for key, group in groups.items():
        # The gradient of this loss alone, by autograd, in a model that nobody else has differentiated.
        alone = losses(twins[key])
        members = twins[key].parameter_groups()[key]
        if key in moved:
            expected = torch.autograd.grad(alone[key], members, allow_unused=True)
        else:
            expected = [None] * len(members)
        for parameter, gradient in zip(group.parameters, expected, strict=True):
            where = f"{key}: {names[id(parameter)]}"
            assert (gradient is not None) == (key in moved), where
            assert (parameter.grad is not None) == (key in moved), where
            if gradient is not None:
                assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0, where
                assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6 * gradient.abs().max()), where


# ---- the bound -------------------------------------------------------------------------------------------------------


@every_variant
def test_the_bound_is_below_zero_for_bits_before_anything_is_learnt(name: str) -> None:
    model = make(name).eval()
    terms = model.terms(*batch(model, 64))
    assert (terms.distortion > 0).all()
    assert terms.elbo.mean() < 0


def test_beta_weighs_the_rate_in_training_only() -> None:
    states = []
    for beta in (1.0, 10.0):
        torch.manual_seed(0)
        model = make("beta_vae", beta=beta)
        x, _ = batch(model)
        with noise.keyed(0, ids(16)):
            terms = model.terms(x)
        with noise.keyed(0, ids(16)):
            loss = model.losses(x)["vae"]
        assert loss.item() == pytest.approx((terms.distortion + beta * terms.rate.sum(1)).mean().item(), rel=1e-6)
        states.append(terms)
    assert torch.equal(states[0].elbo, states[1].elbo)


# What a warm-up weighs in place of the whole rate, by variant.
WARMED_UP = {
    "annealed_vae": "the capacity",
    "beta_tcvae": "three parts of the rate",
    "iwae": "the rate inside of each sample's weight",
    "joint_vae": "the two capacities",
    "nvae_lite": "the rate of each group by itself",
    "quadrant_cvae": "nothing: it parts two stages",
    "rae": "nothing: it has no rate",
    "s2_beta_tcvae": "three parts of the rate",
    "two_stage_vae": "the rate of the first stage",
    "vq_vae": "nothing: it has a rate that no gradient of the encoder lowers",
    "vq_vae_2": "nothing, as vq_vae's",
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WARMED_UP])
def test_a_warm_up_weighs_the_rate_from_nothing_on(name: str) -> None:
    model = make(name).double()
    x, y = batch(model)

    def loss(progress: float) -> tuple[float, float]:
        torch.manual_seed(5)
        losses = model.losses(x.double(), y, progress)
        return sum(losses.values()).item(), losses.terms.rate.sum(1).mean().item()

    (start, rate), (half, _), (over, _) = loss(0.0), loss(0.5), loss(1.0)
    assert float(model.rate_weight(0.0)) == 0.0 and abs(rate) > 1e-3
    for weight, found in ((model.rate_weight(0.5), half), (model.rate_weight(1.0), over)):
        unlike = "its warm-up weighs something else than the whole rate: say in WARMED_UP what"
        assert found - start == pytest.approx(weight * rate, rel=1e-5), unlike


# What training minimises beside the criterion, by variant.
BESIDE = {
    "ada_vae": "partners, with whose posteriors it averages",
    "vq_vae": "the distance of codes and encoder, and a prior that has a loss of its own",
    "vq_vae_2": "those distances, and priors that have a loss of their own",
    "vae_gan": "an adversary's opinion",
    "autoencoder_kl": "an adversary's opinion",
    "factor_vae": "an adversary's opinion",
    "s2_factor_vae": "an adversary's opinion",
    "adversarial_ae": "an adversary's opinion",
    "m2": "the labels of some examples",
    "nvae_lite": "a penalty of its weights",
    "two_stage_vae": "a stage at a time",
    "quadrant_cvae": "a stage at a time",
    "rae": "penalties of codes and weights",
}


OBJECTIVES = [(name, {}) for name in NAMES if name not in BESIDE] + [
    ("beta_vae", {"beta": 0.3}),
    ("annealed_vae", {"capacity": 3.0}),
    ("joint_vae", {"capacity": 3.0, "discrete_capacity": 0.5}),
    ("dip_vae", {"version": "I"}),
    ("info_vae", {"alpha": 1.0, "kernel": "imq"}),
    ("info_vae", {"alpha": 1.0, "kernel": "sliced"}),
    ("beta_tcvae", {"alpha": 0.5, "gamma": 2.0, "estimator": "mws"}),
    ("hvae", {"k": 4}),
    *(("iwae", {"k": 4, "bound": bound}) for bound in ("iwae", "ciwae")),
    *(("iwae", {"k": 4, "bound": bound, "groups": 2}) for bound in ("miwae", "piwae")),
]


@pytest.mark.parametrize(("name", "settings"), OBJECTIVES, ids=str)
def test_what_is_kept_is_decided_by_what_is_trained(name: str, settings: dict[str, Any]) -> None:
    if settings.get("bound") == "ciwae":
        settings = settings | {"share": 0.3}
    model = make(name, **settings).eval()
    x, y = batch(model)
    with torch.no_grad():
        with noise.keyed(3, ids(16), range(model.drawn)):
            loss = model.losses(x, y, 1.0)["vae"]
        with noise.keyed(3, ids(16)):
            terms = model.terms(x, y)
            criterion = model.criterion(x, y, terms) if model.drawn == 1 else None
        if criterion is None:
            with noise.keyed(3, ids(16), range(model.drawn)):
                criterion = model.criterion(x, y, terms)
    assert criterion.shape == (16,)
    assert -criterion.mean().item() == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["iwae", "hvae"])
def test_samples_that_are_averaged_outside_of_the_logarithm_are_kept_by_the_bound(name: str) -> None:
    model = make(name, k=4, bound="vae").eval()
    terms = model.terms(*batch(model))
    assert torch.equal(model.criterion(*batch(model), terms), terms.elbo)


@every_variant
def test_a_step_decodes_as_often_as_it_says(name: str) -> None:
    model, rows = make(name), []
    if len(model.parameter_groups()) > 1:
        pytest.skip("nobody asks how often one of several losses decodes")
    decode = model.decode
    model.decode = lambda z, *rest: rows.append(len(z)) or decode(z, *rest)
    model.losses(*subject(name).shown(4))
    assert sum(rows) == 4 * model.decodings


@every_variant
def test_losses_can_be_compiled_and_stay_the_losses(name: str) -> None:
    # With the compiler's front alone: that is what the code of a variant can stop.
    plain, traced = (make(name).train() for _ in range(2))
    traced.load_state_dict(plain.state_dict())
    x, y = subject(name).shown(16)
    backend = CompileCounter()
    compiled = Compiled(lambda model, *args: dict(model.losses(*args)), backend=backend)
    compilations: dict[Hashable, int] = {}
    for fraction in (0.1, 0.2, 0.3, 0.8, 0.9, 1.0):
        progress = Progress(min(1.0, 2 * fraction), fraction=fraction)
        torch.manual_seed(0)
        expected = plain.losses(x, y, progress)
        torch.manual_seed(0)
        found = compiled(traced, x, y, progress)
        # A stage is compiled once, however its warm-up goes on. What has several losses is compiled when somebody asks
        # for it; PyTorch 2.6 compiles vae_gan at each step.
        once = compilations.setdefault(traced.stage(progress), backend.frame_count)
        assert backend.frame_count == once or len(plain.parameter_groups()) > 1, fraction
        assert found.keys() == expected.keys()
        for group, loss in expected.items():
            assert torch.allclose(found[group], loss, rtol=1e-4, atol=1e-5), (fraction, group)
            assert found[group].requires_grad == loss.requires_grad
        plain.after_step()
        traced.after_step()


@every_variant
def test_what_a_stage_says_that_it_trains_is_what_has_a_loss_in_it(name: str) -> None:
    model = make(name).train()
    x, y = subject(name).shown(4)
    found = set()
    for progress in (Progress(0.0, 0.0), Progress(0.5, 0.3), Progress(1.0, 0.99), Progress(1.0)):
        groups = set(model.losses(x, y, progress))
        assert groups == set(model.trained_in(model.stage(progress)))
        found |= groups
    assert found == set(model.parameter_groups())


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("quadrant_cvae", ["train.warmup=0"], "'guess' of quadrant_cvae"),
        ("quadrant_cvae", ["train.warmup=2"], "'vae' of quadrant_cvae"),
        ("vq_vae", ["prior_from=0"], "prior_from"),
        ("vq_vae", ["prior_from=1"], "prior_from"),
        ("vq_vae", ["prior_from=0.999"], "'prior' of vq_vae"),
        ("two_stage_vae", ["first_stage=0"], "first_stage"),
        ("two_stage_vae", ["first_stage=1"], "first_stage"),
    ],
)
def test_a_training_that_leaves_a_part_as_it_began_is_refused(
    name: str, settings: list[str], said: str, tmp_path: Path
) -> None:
    config = resolve(name, "synthetic", settings=["train.epochs=2", *settings])
    with pytest.raises(UsageError, match=said):
        train_run(config, tmp_path, choose("cpu"))
    assert not (tmp_path / "run.json").exists()


@every_variant
def test_a_warm_up_moves_the_weights_or_the_variant_says_that_it_has_none(name: str) -> None:
    ends = []
    for warmup in (0, 3):
        torch.manual_seed(1)
        ends.append(fit(make(name), registry().variants[name], 16, 3, warmup))
    one, other = (model.state_dict() for model in ends)
    assert all(torch.equal(one[key], other[key]) for key in one) != ends[0].warms_up


@pytest.mark.parametrize(
    ("name", "settings"), [("beta_vae", {"beta": 0.0}), ("info_vae", {"alpha": 1.0}), ("adversarial_ae", {"rate": 0.1})]
)
def test_whether_a_warm_up_moves_anything_goes_by_the_weight_of_the_rate(name: str, settings: dict[str, float]) -> None:
    assert make(name).warms_up != make(name, **settings).warms_up


@pytest.mark.parametrize(
    ("stages", "left"),
    [
        ({0.0: "vae"}, "'prior'"),
        ({0.0: "prior"}, "'vae'"),
        ({0.0: "vae", 0.9999: "prior"}, None),
        ({0.0: "vae", 0.3: "prior", 0.6: "vae"}, None),
        ({0.0: "none", 0.501: "vae", 0.502: "prior", 0.503: "none", 0.6: "vae"}, None),
    ],
)
def test_of_how_many_steps_nobody_knows_no_stage_is_missed_that_some_would_be_in(
    stages: dict[float, str], left: str | None
) -> None:
    model, config = make("vq_vae"), resolve("vq_vae", "synthetic", settings=["train.epochs=2"])
    model.stage = lambda progress: next(stages[start] for start in sorted(stages)[::-1] if progress.fraction >= start)
    model.trained_in = lambda stage: {stage} & {"vae", "prior"}
    for images in (None, 10**6):
        with pytest.raises(UsageError, match=f"would move {left} of") if left else contextlib.nullcontext():
            check_recipe(config, model, images)


def test_what_no_training_would_move_is_known_without_a_look_at_its_every_step() -> None:
    model, asked = make("quadrant_cvae"), []
    stage = model.stage
    model.stage = lambda progress: asked.append(progress) or stage(progress)
    config = resolve("quadrant_cvae", "synthetic", settings=["train.epochs=1000", "train.warmup=0"])
    with pytest.raises(UsageError, match="would move 'guess' of"):
        check_recipe(config, model, 5_000)
    assert len(asked) < 1000


@every_variant
def test_distortion_is_a_sum_over_pixels(name: str) -> None:
    # The contract leaves a factor of two, for whoever starts elsewhere; here a pixel that is not shown to the model
    # costs about log 2, or the square of a half.
    torch.manual_seed(0)
    model = make(name).eval()
    assert model.predicted == 28 * 28 or model.completes
    distortion = model.terms(*batch(model, 32)).distortion.mean().item()
    assert distortion == pytest.approx(model.predicted * (math.log(2) if model.bounds else 0.25), rel=0.2)


# ---- codes, reconstructions, samples ---------------------------------------------------------------------------------


@every_variant
def test_samples_differ_and_at_temperature_zero_are_the_prior_s_centres(name: str) -> None:
    model = known(name)
    n = 24
    y = torch.full((n,), 3) if model.conditional else None
    assert len(model.sample(n, y).flatten(1).unique(dim=0)) > 1
    cold = model.sample(n, y, temperature=0.0).flatten(1)
    prior = getattr(model, "prior", None)
    centres = prior.settings.components if hasattr(prior, "components") else model.centres
    assert len((cold * 1e4).round().unique(dim=0)) <= centres
    torch.manual_seed(1)
    with noise.keyed(0, ids(n)):
        first = model.sample(n, y)
    with noise.keyed(0, ids(n)):
        assert torch.equal(first, model.sample(n, y))


# ---- files and precision ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
@every_variant
def test_the_largest_and_smallest_variances_stay_finite(name: str, half: bool, monkeypatch) -> None:
    model = trainable(name)
    x, y = subject(name).shown(16)
    seen = []
    original = DiagonalGaussian.__init__

    def extreme(self: DiagonalGaussian, mean: Tensor, log_variance: Tensor) -> None:
        signs = torch.ones_like(log_variance)
        signs[..., ::2] = -1
        original(self, mean, log_variance + 100 * signs)
        seen.append(self.log_variance.detach().abs().min().item())

    monkeypatch.setattr(DiagonalGaussian, "__init__", extreme)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        losses = model.losses(x, y, 1.0)
    if not seen:
        pytest.skip("it has no Gaussian latents")
    assert min(seen) == 20
    assert torch.isfinite(losses.terms.elbo).all()
    assert all(torch.isfinite(loss) for loss in losses.values())
    backward(losses, {key: Group(key, members, TrainConfig()) for key, members in model.parameter_groups().items()})
    for key, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), key


# Networks whose output is a log-probability already: what they round is in the bound.
FULL = (CodePrior, DiffusionPrior, EnergyPrior, FlowPrior, Flow)


@every_variant
def test_in_half_precision_every_layer_of_its_networks_multiplies_in_it(name: str) -> None:
    model = trainable(name)
    x, y = subject(name).shown(16)
    exempt = {layer for part in model.modules() if isinstance(part, FULL) for layer in part.modules()}
    found: dict[str, set[torch.dtype]] = {}
    for key, layer in model.named_modules():
        if isinstance(layer, nn.Linear | _ConvNd) and layer not in exempt:
            layer.register_forward_hook(lambda _, __, out, key=key: found.setdefault(key, set()).add(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for progress in (0.0, 1.0):
            losses = model.losses(x, y, progress)
            assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert found and {key: kinds for key, kinds in found.items() if kinds != {torch.bfloat16}} == {}


# ---- training --------------------------------------------------------------------------------------------------------


@every_variant
def test_one_batch_can_be_learnt_in_two_hundred_steps(name: str) -> None:
    torch.manual_seed(0)
    model = make(name)
    x, y = batch(model, 32)
    before, spread = model.terms(x, y).elbo.mean().detach(), (x - x.mean(0)).square().mean()
    # What an adversarial variant minimises is not the bound.
    bounded = len(model.parameter_groups()) == 1
    for _ in range(4):
        fit(model, registry().variants[name], n=32, steps=50, learning_rate=3e-3)
        after = torch.stack([model.terms(x, y).elbo.detach() for _ in range(8)]).mean()
        error = (model.reconstruct(x, y) - x).square().mean()
        if error < 0.75 * spread and (after > before / 3 or not bounded):
            return
    assert after > before / 3 or not bounded
    assert error < 0.75 * spread, "it reconstructs hardly better than the mean image"


@every_variant
def test_colour_images_can_be_learnt(name: str) -> None:
    torch.manual_seed(0)
    model = make(name, COLOUR)
    x = load_synthetic(8, 1, 1, shape=COLOUR.shape)["train"]
    pixels = x.pixels.float() / 255
    groups = {key: Group(key, members, TrainConfig()) for key, members in model.parameter_groups().items()}
    bits = []
    for _ in range(10):
        losses = model.losses(pixels, x.labels if model.conditional else None, 1.0)
        backward(losses, groups)
        for key in losses:
            assert groups[key].step() == 0
        bits.append(losses.terms.distortion.mean().item() / (COLOUR.dims * math.log(2)))
    assert 0 < bits[-1] < 16
    # What has another likeness in place of the likelihood, or an adversary, may lose by that.
    assert bits[-1] < bits[0] or not model.seeks_likelihood or len(groups) > 1
