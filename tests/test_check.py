"""`zoo check`: every shipped variant passes, and each planted mistake gets the right sentence first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.check.bound import several_learn
from benchmarks.check.examine import PROPERTIES, Finding, examine
from benchmarks.check.subject import Subject, subject
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from zoo import list_models
from zoo.registry import VariantEntry, registry

PLANTED = {
    "MeanOverPixels": ("sum_over_pixels", "is 0.69", "a sum over pixels is about 543.4", "sum over channels"),
    "ScalarTerms": ("shapes", "distortion has shape () for 5 images", "leave the mean over the batch to losses()"),
    "MeanOverBatch": ("per_image", "all 16 images have the same distortion", "return each image's own"),
    "NegativeRate": ("rate_not_negative", "a KL divergence is not negative", "turn its sign"),
    "RawSamples": ("pictures_in_range", "sample(32) has pixels from -", "self.likelihood.mean(params)"),
    "UnusedLayer": ("losses_reach_their_groups", "'forgotten.weight', 'forgotten.bias' are given no", "remove"),
    "TwoOwners": ("groups_share_out", "is in the groups 'encoder' and 'decoder'", "every parameter once"),
    "BackwardInside": ("losses_reach_their_groups", "losses() leaves a gradient in", "call no .backward()"),
    "HalfTheRate": ("below_the_evidence", "so it is no lower bound", "missing or weighted"),
    "BetaInTheBound": ("no_training_weight", "when setting `beta` is 10", "weigh in losses()"),
    "FixedBeta": ("no_training_weight", "when setting `beta` is 0", "weigh in losses()"),
    "DetachedPenalty": ("weights_weigh", "setting `beta` weighs nothing", ".detach()"),
    "IdleGroup": ("losses_reach_their_groups", "the group 'decoder' has no loss", "one for each group"),
    "CodeOfTheBatch": ("batches", "the code of an image changes by up to", "normalisation over the batch"),
    "SumsInHalfPrecision": ("half_precision", "distortion is torch.bfloat16, not float32", "full_precision"),
    "Unsaved": ("saved", "after saving and loading terms(x).distortion is another", "register_buffer"),
    "OwnNoise": ("noise_of_the_image", "terms(x) changes from call to call", "zoo.noise.normal(like)"),
    "CentredOnTheBatch": ("batches", "changes by up to", "take no mean, sum or normalisation over the batch"),
    "AlwaysDropping": ("evaluation_mode", "F.dropout drops numbers in evaluation", "training=self.training"),
    "AlwaysTraining": ("evaluation_mode", "is still in training mode", "super().train(mode)"),
    "RandomCode": ("deterministic", "represent(x) gives another answer each time", "the centre of the posterior"),
    "OtherWeights": ("one_bound", "the mean of log_weights is", "the same log p(x | z), log p(z) and log q(z | x)"),
    "DetachedCode": ("losses_reach_their_groups", "so the code learns from the rate alone", ".detach() of z"),
    "SilentStage": ("losses_reach_their_groups", "a loss 'decoder' in the stage None", "let trained_in(stage) name"),
    "DeviationNotHalved": ("one_bound", "the mean of log_weights is", "the same log p(x | z), log p(z) and"),
    "NeedsNoClass": ("condition", "terms(x) without y answers as if that were nothing", "raise a ValueError"),
    "Only28": ("shapes", "it works on 1x28x28 bits and not on 3x32x32 bytes", "take every size from spec.shape"),
    "Ascending": ("it_learns", "nats before and", "the sign of each part of losses()"),
    "NeverInTraining": ("it_learns", "60 steps leaves the group 'decoder' as it was", "whose fraction is not None"),
    "DecoderAscending": ("it_learns", "after 60 steps on them", "the sign of each part of each loss"),
    "SummedLoss": ("loss_is_a_mean", "as the mean of two halves", "average over the batch and do not sum"),
    "SharedNoise": ("noise_of_each", "a batch shares its noise", "a row for each image"),
    "Mirrored": ("reconstructs", "and samples of their posterior the", "decode the posterior's centre"),
    "Echo": ("reconstructs", "returns x itself", "likelihood.mean"),
    "PointWithWeights": ("shapes", "bounds nothing, and log_weights(x) answers", "raise a UsageError there"),
    "PointWithRate": ("shapes", "has 1 columns, and the class says that it bounds nothing", "rate of shape (B, 0)"),
    "PlainLosses": ("trains", "losses() returns a dict", "zoo.models.base.Losses"),
    "BareLoss": ("trains", "losses() returns a Tensor", "zoo.models.base.Losses"),
    "ConstantLoss": ("trains", "the loss 'vae' depends on no parameter", ".detach()"),
    "PairOfTerms": ("shapes", "terms(x) returns a tuple", "zoo.models.base.Terms"),
    "NoVAE": ("works", "'tests.planted:NoVAE' is no variant", "zoo.models.base.VAE", "entry point"),
    "Misspelt": ("works", "has no attribute 'haed' (planted.py, line", "the line named is where to look"),
    "Posing": ("shapes", "'elbo' of `measures` is what the harness measures itself", "only this variant can tell"),
    "Undeclared": ("shapes", "measure(x) gives 'code_norm', which `measures` does not name", "name it there"),
    "MeasureOfCodes": ("shapes", "'code_norm' of measure(x) has shape (5, 4) for 5 images, not (5,)", "one number an"),
    "EndlessMeasure": ("shapes", "'code_norm' of measure(x) has 5 numbers that are not finite", "a logarithm of zero"),
    "NamesOfMoreGroups": ("shapes", "`group_names` has 2 entries, and terms(x).rate 1 columns", "one for each column"),
    "SizesOfAnotherCode": ("shapes", "`group_sizes` add up to 5, and represent(x) has 4 dimensions", "leave it at"),
    "NaNs": ("shapes", "terms(x).distortion has 5 numbers that are not finite", "look for a logarithm of zero"),
    "LaterNaNs": ("trains", "Diverged: no update of epoch 2 had a finite loss", "look for a logarithm of zero"),
    "NoDefault": ("works", "setting 'weight' has no default and was given no value", "the defaults of its Settings"),
    "Untyped": ("works", "the Settings of 'tests.planted:Untyped' name the type 'Nothing', and there", "its Settings"),
    "Quarrelsome": ("works", "the settings: high is below low, of which it", "the defaults of its Settings"),
    "Exiting": ("shapes", "planted.py, line", "as sys.exit('no licence') does", "raise an exception instead"),
    "Unfinished": ("shapes", "NotImplementedError", "implement all of terms, log_weights"),
}


def entry_of(name: str) -> VariantEntry:
    return VariantEntry(target=f"tests.planted:{name}", title=name, settings={"latent": 4})


def first_wrong(name: str) -> Finding:
    findings = examine(Subject(name, entry_of(name)))
    return next(finding for finding in findings if finding.status == "wrong")


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_found_and_named_first(name: str) -> None:
    found = first_wrong(name)
    where, what, *mends = PLANTED[name]
    assert found.property == where, found
    assert what in found.what
    assert all(mend in found.mend or mend in found.what for mend in mends), found
    assert "\n" not in found.what + found.mend


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("zoo.models.vq_vae:VQVAE", {"quantiser": {"name": "fsq"}}),  # which has no commitment to weigh
        ("zoo.models.rae:RAE", {"regulariser": "none"}),
        ("zoo.models.vae:VanillaVAE", {"latent": 4, "likelihood": {"name": "gaussian", "sigma": 0.1}}),  # not of bits
        ("zoo.models.vae:VanillaVAE", {"latent": 4, "likelihood": {"name": "continuous_bernoulli"}}),  # begins at 0
        ("tests.planted:Measured", {"latent": 4}),
        ("tests.planted:Geco", {"latent": 4}),
        ("tests.planted:OptionalPart", {"latent": 4}),
        ("tests.planted:MiddleStage", {"latent": 4}),
    ],
)
def test_what_is_no_mistake_is_not_called_one(target: str, settings: dict) -> None:
    entry = VariantEntry(target=target, title="A variant", settings=settings)
    wanted = ("shapes", "sum_over_pixels", "losses_reach_their_groups", "weights_weigh", "no_training_weight")
    wanted += ("batches",)
    found = list(examine(Subject("one", entry), wanted))
    assert len(found) == len(wanted) and not [one for one in found if one.status == "wrong"], found


def test_every_variant_of_several_losses_is_seen_to_learn_from_wherever_it_starts() -> None:
    several = [name for name in list_models() if len(subject(name).known().parameter_groups()) > 1]
    assert len(several) >= 6
    for name in several:
        for seed in (0, 1):
            several_learn(subject(name), seed)


def test_a_file_that_is_no_python_is_named_with_its_line_and_nothing_else_is(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "half_written.py").write_text("x = 1\ndef terms(:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = VariantEntry(target="half_written:Mine", title="Mine")
    (found,) = examine(Subject("mine", entry))
    assert found.what == "it raises SyntaxError: invalid syntax (half_written.py, line 2)"


def test_a_variant_without_a_likelihood_is_told_what_it_lacks() -> None:
    wanted = ("sum_over_pixels", "below_the_evidence")
    first, last = examine(Subject("one", entry_of("NoLikelihood")), wanted)
    assert first.status == "holds" and last.status == "inapplicable"
    assert last.what.startswith("it has no `likelihood` (of zoo.likelihoods)")


def test_every_property_but_the_statistical_has_a_mistake_that_it_finds() -> None:
    assert set(PROPERTIES) - {where for where, *_ in PLANTED.values()} == {"more_samples_tighten"}


def test_the_command_says_it_in_words_in_json_and_by_its_exit_code(zoo, monkeypatch) -> None:  # noqa: F811
    planted = registry().model_copy(update={"variants": {"wrong_vae": entry_of("ScalarTerms")}})
    monkeypatch.setattr("zoo.registry.registry", lambda: planted)
    code, out, _ = zoo("check", "wrong-vae")
    assert code == 1
    assert "WRONG  Everything has the shape" in out
    assert "terms(x).distortion has shape ()" in out and "To mend it: return one number an image" in out
    assert "The other properties wait" in out and "IndexError" not in out
    code, out, _ = zoo("check", "wrong_vae", "--json")
    made = json.loads(out)
    assert code == 1 and made["passed"] is False and made["variant"] == "wrong_vae"
    assert made["properties"][0]["status"] == "wrong" and len(made["properties"]) == 1
    code, _, err = zoo("check", "wrnog_vae")
    assert code == 2 and "Did you mean 'wrong_vae'?" in err


def test_the_command_checks_a_variant_with_other_settings(zoo) -> None:  # noqa: F811
    code, out, _ = zoo("check", "beta_vae", "--set", "beta=0.5", "--set", "prior.name=vamp", "--json")
    assert code == 0 and json.loads(out)["passed"]
    for variant, texts, said in (
        ("info_vae", ["kernle=rbf"], "Did you mean 'kernel'"),
        ("beta_vae", ["beta=-1"], "beta"),
        ("beta_vae", ["train.epochs=3"], "'train.epochs=3' is of train"),
        ("vae", ["prior.name=vamp", "posterior.name=iaf"], "prior.name=vamp needs posterior.name=diagonal"),
    ):
        code, out, err = zoo("check", variant, *(word for text in texts for word in ("--set", text)))
        assert code == 2 and said in err and err.count("\n") == 1 and not out


def test_a_batch_normalisation_is_not_taken_for_shared_noise() -> None:
    entry = registry().variant("ladder_vae")[1]
    settings = {**entry.settings, "likelihood": {"name": "laplace"}}
    subject = Subject("ladder_vae", entry.model_copy(update={"settings": settings}))
    assert [finding.status for finding in examine(subject, ("noise_of_each",))] == ["holds"]
