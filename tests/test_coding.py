"""Images stored as bits: what is read back is what was stored, and it took as much as the bound says."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import os
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import storing
from benchmarks.check.subject import DIGITS, digits, subject
from benchmarks.evaluation import coding
from tests.test_cli import zoo  # noqa: F401  (a fixture)
from tests.test_evaluate_again import again, mine, trained  # noqa: F401  (a fixture)
from zoo import create_model, list_models, noise
from zoo.coding import Message, compress, decompress, why_not
from zoo.coding.bits_back import BUCKET_BITS
from zoo.coding.masses import GAUSSIAN_BITS, TABLE_BITS, Buckets, masks, pop_symbols, push_symbols, tables
from zoo.coding.stack import Stack
from zoo.coding.stream import MAGIC, MOST_LANES, Header, from_bytes, to_bytes
from zoo.config import resolve
from zoo.data.batches import Batches
from zoo.data.images import DataSpec, Images
from zoo.distributions.gaussians import LOG_2PI
from zoo.errors import UsageError
from zoo.models.base import VAE
from zoo.models.vae import VanillaVAE
from zoo.models.vq_vae import VQVAE
from zoo.training.trainer import Stopped

#: The variants whose images can be stored; each other one says why not.
CODED = {
    "ada_vae", "adversarial_ae", "annealed_vae", "autoencoder_kl", "beta_tcvae", "beta_vae", "dfc_vae", "dip_vae",
    "factor_vae", "geco_vae", "info_vae", "iwae", "ladder_vae", "ms_ssim_vae", "nvae_lite", "s2_beta_tcvae",
    "s2_beta_vae", "s2_dip_vae", "s2_factor_vae", "vae", "vae_gan", "vq_vae", "vq_vae_2",
}  # fmt: skip
LN2 = math.log(2.0)


def in_batches(x: Tensor, lanes: int) -> list[Tensor]:
    return list(x.split(lanes))


def round_trip(model: VAE, x: Tensor, lanes: int = 8, bucket_bits: int = BUCKET_BITS) -> tuple[np.ndarray, float]:
    """What each image took in nats and what the stacks began with, after a look at what comes back."""
    message = compress(model, in_batches(x, lanes), lanes, bucket_bits)
    back = list(decompress(model, message))[::-1]
    assert torch.equal(torch.cat(back), x)
    return message.taken, message.began


# ---- the stack ---------------------------------------------------------------------------------------------------


def symbols_of(rng: np.random.Generator, rows: int, places: int) -> tuple[np.ndarray, np.ndarray]:
    """Symbols drawn from skewed probabilities, and these."""
    probabilities = rng.dirichlet(np.full(5, 0.3), (rows, places))
    below = probabilities.cumsum(-1)
    return (rng.random((rows, places, 1)) > below[..., :-1]).sum(-1), probabilities


def test_what_is_pushed_comes_back_and_the_stack_is_as_it_was() -> None:
    rng, stack = np.random.default_rng(0), Stack(7)
    pushed, before = [], stack.heads.copy()
    for rows in (7, 3, 7, 1, 5):  # the first so many lanes each time
        symbols, probabilities = symbols_of(rng, rows, 900)
        push_symbols(stack, symbols, tables(probabilities))
        pushed.append((symbols, tables(probabilities)))
    assert (stack.used > 0).all() and stack.used[0] > stack.used[6]
    for symbols, starts in reversed(pushed):
        np.testing.assert_array_equal(pop_symbols(stack, starts), symbols)
    np.testing.assert_array_equal(stack.heads, before)
    assert (stack.used == 0).all() and (stack.begun < 32).all()


@pytest.mark.parametrize("mass", [1, 5, 1 << 12, (1 << TABLE_BITS) - 1, 1 << TABLE_BITS])
def test_heads_at_the_ends_of_their_range_stay_within_it_and_come_back(mass: int) -> None:
    full = mass << (63 - TABLE_BITS)  # from which on a word goes onto the stack
    heads = {1 << 31, (1 << 31) + 1, (1 << 63) - 1, *(near for near in (full - 1, full) if 1 << 31 <= near < 1 << 63)}
    before = np.array(sorted(heads), dtype=np.uint64)
    stack = Stack.of(before, [np.arange(2, dtype=np.uint32)] * len(before))
    masses = np.full(len(before), mass, dtype=np.uint64)
    start = np.full(len(before), (1 << TABLE_BITS) - mass, dtype=np.uint64)
    stack.push(start, masses, TABLE_BITS)
    assert (stack.heads >= 1 << 31).all() and (stack.heads < 1 << 63).all()
    assert (stack.peek(len(before), TABLE_BITS) >= start).all()
    stack.pop(start, masses, TABLE_BITS)
    np.testing.assert_array_equal(stack.heads, before)
    assert (stack.used == 2).all()


def test_a_symbol_costs_minus_the_logarithm_of_its_probability() -> None:
    rng, stack = np.random.default_rng(1), Stack(4)
    symbols, probabilities = symbols_of(rng, 4, 3000)
    push_symbols(stack, symbols, tables(probabilities))
    wanted = -np.log2(np.take_along_axis(probabilities, symbols[..., None], -1)).sum((1, 2))
    np.testing.assert_allclose(stack.bits(), wanted, rtol=1e-3)
    # The words of four stacks are what is written, and a head each.
    np.testing.assert_allclose(32 * stack.used + 63, wanted, atol=64 + 1e-3 * wanted.max())


def test_an_empty_stack_begins_with_random_bits_that_count() -> None:
    stack, rows = Stack(400, seed=3), 400
    probabilities = np.broadcast_to([0.5, 0.2, 0.2, 0.1], (rows, 50, 4))
    drawn = pop_symbols(stack, tables(probabilities))
    counts = np.bincount(drawn.ravel(), minlength=4)
    n = drawn.size
    for count, p in zip(counts, probabilities[0, 0], strict=True):
        assert abs(count - n * p) < 4.5 * math.sqrt(n * p * (1 - p))
    assert stack.begun.min() > 60  # 50 symbols of 1.76 bits, and a head of 31
    taken = -np.log2(probabilities[0, 0])[drawn].sum(1)
    np.testing.assert_allclose(-stack.bits(), taken, atol=0.2)
    assert not np.array_equal(Stack(2, seed=1).heads, Stack(2, seed=2).heads)


def test_a_symbol_that_cannot_be_has_a_mass_and_all_masses_are_everything() -> None:
    starts = tables(np.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]))
    masses = np.diff(starts.astype(np.int64))
    assert masses.min() >= 1 and (masses.sum(1) == 1 << TABLE_BITS).all()
    np.testing.assert_allclose(masses[1] / (1 << TABLE_BITS), [0.2, 0.3, 0.5], atol=4 / (1 << TABLE_BITS))


@pytest.mark.parametrize("whole", [1 - 1e-7, 1 + 1e-7])
def test_probabilities_that_add_up_to_one_but_for_rounding_share_all_of_the_mass(whole: float) -> None:
    starts = tables(whole * np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert (starts[:, 0] == 0).all() and (starts[:, -1] == 1 << TABLE_BITS).all()


# ---- Gaussians in buckets ----------------------------------------------------------------------------------------


def test_popped_buckets_are_draws_of_the_gaussian_and_pushing_them_undoes_it() -> None:
    rows, places, buckets = 300, 40, Buckets(12)
    rng, stack = np.random.default_rng(0), Stack(rows)
    mean, deviation = rng.normal(0, 2, (rows, places)), rng.uniform(0.05, 1.5, (rows, places))
    before = stack.bits()
    flips = masks(0, 0, places, rows)
    drawn = buckets.pop(stack, mean, deviation, flips)
    standard = (buckets.centres[drawn] - mean) / deviation
    n = standard.size
    assert abs(standard.mean()) < 4.5 / math.sqrt(n)
    assert abs(standard.var() - 1) < 4.5 * math.sqrt(2 / n)
    assert abs((standard < -1).mean() - 0.158655) < 4.5 * math.sqrt(0.1335 / n)
    assert (stack.bits() < before - 100).all()
    buckets.push(stack, drawn, mean, deviation, flips)
    np.testing.assert_allclose(stack.bits(), before, atol=1e-9)
    buckets.push_prior(stack, drawn)
    np.testing.assert_array_equal(buckets.pop_prior(stack, rows, places), drawn)


def test_each_layer_of_each_batch_is_drawn_by_random_bits_of_its_own() -> None:
    places, rows = 20, 30
    found = [masks(batch, level, places, rows) for batch, level in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for one in found:
        assert one.shape == (places, rows) and one.max() < 1 << GAUSSIAN_BITS
        bits = (one[..., None] >> np.arange(GAUSSIAN_BITS, dtype=np.uint64)) & np.uint64(1)
        assert (abs(bits.mean((0, 1)) - 0.5) < 4.5 * 0.5 / math.sqrt(one.size)).all()
    assert len({one.tobytes() for one in found}) == 4
    np.testing.assert_array_equal(found[2], masks(1, 0, places, rows))


def test_drawing_from_a_prior_and_storing_what_was_drawn_costs_next_to_nothing() -> None:
    # As a latent variable does that says nothing of the image: hundreds of them must not add up.
    rows, places, buckets, stack = 200, 300, Buckets(12), Stack(200)
    before = stack.bits()
    drawn = buckets.pop(stack, np.zeros((rows, places)), np.ones((rows, places)), masks(0, 0, places, rows))
    buckets.push_prior(stack, drawn)
    each = (stack.bits() - before) / places
    assert abs(each.mean()) < 2.5e-4 + 4 * each.std() / math.sqrt(rows)
    assert each.std() / math.sqrt(rows) < 2e-4


def test_a_bucket_costs_the_logarithm_of_its_density_times_its_width() -> None:
    buckets = Buckets(12)
    stack = Stack(1)
    places = 4000
    at = np.full((1, places), np.searchsorted(buckets.centres, 0.7))
    width = buckets.edges[at[0, 0] + 1] - buckets.edges[at[0, 0]]
    for mean, deviation in ((0.5, 0.2), (0.0, 1.0)):
        before = stack.bits()
        if (mean, deviation) == (0.0, 1.0):
            buckets.push_prior(stack, at)
        else:
            even = np.zeros((places, 1), dtype=np.uint64)
            buckets.push(stack, at, np.full((1, places), mean), np.full((1, places), deviation), even)
        z = (buckets.centres[at[0, 0]] - mean) / deviation
        density = math.exp(-0.5 * z * z) / (deviation * math.sqrt(2 * math.pi))
        assert (stack.bits() - before)[0] / places == pytest.approx(-math.log2(density * width), abs=2e-3)


def test_latents_far_from_the_prior_or_hardly_spread_are_stored_all_the_same() -> None:
    buckets, stack = Buckets(12), Stack(3)
    mean = np.array([[9.0, -30.0, 0.0]] * 3)
    deviation = np.array([[0.5, 0.1, 1e-6]] * 3)
    flips = masks(5, 1, 3, 3)
    drawn = buckets.pop(stack, mean, deviation, flips)
    assert abs(buckets.centres[drawn[0, 0]] - 9) < 3 and drawn[0, 1] == 0 and abs(buckets.centres[drawn[0, 2]]) < 0.01
    buckets.push_prior(stack, drawn)
    np.testing.assert_array_equal(buckets.pop_prior(stack, 3, 3), drawn)
    buckets.push(stack, drawn, mean, deviation, flips)
    np.testing.assert_allclose(stack.bits(), 0.0, atol=1e-9)
    assert GAUSSIAN_BITS < 31  # else the heads are too small to draw well


@pytest.mark.parametrize(("z", "cheaper"), [(0.0, False), (-4.0, False), (5.5, True), (8.0, True), (-8.0, True)])
def test_no_latent_variable_costs_more_than_25_bits_under_its_prior(z: float, cheaper: bool) -> None:
    buckets, stack, places = Buckets(BUCKET_BITS), Stack(1), 200
    at = np.searchsorted(buckets.edges, z, side="right") - 1
    before = stack.bits()
    buckets.push_prior(stack, np.full((1, places), at))
    cost = (stack.bits() - before)[0] / places
    width = buckets.edges[at + 1] - buckets.edges[at]
    promised = (0.5 * (LOG_2PI + z * z) - math.log(width)) / LN2
    if cheaper:
        assert 24 < cost < 25.01 < promised - 2
    else:
        assert cost == pytest.approx(promised, abs=0.1)


# ---- models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_models())
def test_the_images_of_a_variant_come_back_or_it_says_why_not(name: str) -> None:
    model = subject(name).known()
    reason = why_not(model)
    assert (reason is None) == (name in CODED), reason
    x = digits()[0][:21]  # the last batch is smaller
    if reason:
        with pytest.raises(UsageError, match="cannot be stored: "):
            compress(model, in_batches(x, 8), 8)
        return
    assert not model.training
    taken, began = round_trip(model, x)
    assert taken.shape == (21,) and began > 0 and np.isfinite(taken).all()


@pytest.mark.parametrize("name", ["vae", "annealed_vae", "vae_gan", "ladder_vae", "nvae_lite"])
def test_an_image_takes_minus_its_bound(name: str) -> None:
    model, x = subject(name).known(), digits()[0][:96]
    taken, _ = round_trip(model, x, lanes=32)
    with torch.no_grad():
        bound = -model.log_weights(x, k=30).double().numpy()
    difference = taken - bound.mean(0)
    error = math.sqrt((difference.var() + bound.var(0).mean() / 30) / len(x))
    assert abs(difference.mean()) < 4 * error + 2e-3 * taken.mean()
    # The bound has to be able to tell: it is far from that of other images.
    assert 4 * error + 2e-3 * taken.mean() < 0.1 * taken.mean()


@pytest.mark.parametrize("name", ["vq_vae", "vq_vae_2"])
def test_codes_of_a_grid_take_the_bound_to_a_fraction_of_a_bit(name: str) -> None:
    model, x = subject(name).known(), digits()[0][:40]
    with torch.no_grad():
        bound = -model.terms(x).elbo.double().numpy()
    taken, began = round_trip(model, x, lanes=40)
    np.testing.assert_allclose(taken, bound, atol=0.1)
    assert began == pytest.approx(Stack(40).begun.sum() * LN2)  # there is nothing to pop


def test_a_model_that_computes_otherwise_reads_other_images_and_nothing_is_warned_of() -> None:
    model, x = subject("ladder_vae").known(), digits()[0][:6]
    message = compress(model, in_batches(x, 2), 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = torch.cat(list(decompress(model, message))[::-1])
    assert back.shape == x.shape and not torch.equal(back, x)


@pytest.mark.parametrize(
    "quantiser",
    [
        {"name": "residual", "codes": 5, "depth": 3}, {"name": "residual", "codes": 5, "depth": 1},
        {"name": "lfq", "bits": 3}, {"name": "fsq", "levels": (3, 4)},
    ],
)  # fmt: skip
def test_so_do_those_of_each_quantiser(quantiser: dict[str, Any]) -> None:
    torch.manual_seed(0)
    given = {"channels": [8, 8], "hidden": 8, "latent": 4, "prior": {"hidden": 16}, "quantiser": quantiser}
    model: VQVAE = create_model("vq_vae", data=DataSpec((1, 10, 14), "binary"), **given)
    x = torch.bernoulli(torch.rand(20, 1, 10, 14))
    with torch.no_grad():
        model.encoder[-1].weight.mul_(30.0)
        model.initialise(x)
        # A prior that no step has moved gives every code the same length.
        model.prior.head.weight.normal_(std=0.5)
    model.eval()
    assert why_not(model) is None
    with torch.no_grad():
        terms = model.terms(x)
        assert terms.rate.std() > 0.3 and len(model.codes(x).unique()) > 2
        bound = -terms.elbo.double().numpy()
    np.testing.assert_allclose(round_trip(model, x, lanes=8)[0], bound, atol=0.1)


@pytest.mark.parametrize("name", ["vae", "ladder_vae", "vq_vae"])
def test_bytes_are_stored_as_bits_are(name: str) -> None:
    spec = DataSpec((1, 8, 8), "8-bit")
    model = create_model(name, data=spec, **({"prior": {"hidden": 8}} if name == "vq_vae" else {})).eval()
    x = torch.randint(0, 256, (12, 1, 8, 8)).float() / 255
    x[0], x[1] = 0.0, 1.0
    taken, _ = round_trip(model, x, lanes=6)
    with torch.no_grad():
        bound = -model.log_weights(x, k=200).double().mean(0).numpy()
    assert taken.mean() == pytest.approx(bound.mean(), rel=0.05)


def test_bytes_under_a_beta_binomial_take_the_bound() -> None:
    torch.manual_seed(0)
    grey = DataSpec((1, 8, 8), "8-bit")
    model: VanillaVAE = create_model("vae", data=grey, latent=4, likelihood={"name": "beta_binomial"}).eval()
    with torch.no_grad():
        # Each pixel has its own alpha and beta, and images say little of their codes.
        [*model.decoder.parameters()][-1].normal_(std=1.5)
        x = model.likelihood.sample(model.decode(model.prior.sample(40)))
        bound = -model.log_weights(x, k=100).double().mean(0).numpy()
        other = -model.log_weights(1 - x, k=100).double().mean(0).numpy()
    assert why_not(model) is None
    taken, _ = round_trip(model, x, lanes=20)
    assert taken.mean() == pytest.approx(bound.mean(), rel=0.02)
    # Which of the two numbers is alpha can be told, and that bytes are not all as likely.
    assert other.mean() > 1.2 * bound.mean() and bound.mean() < 0.95 * 64 * math.log(256)
    colour = create_model("vae", data=DataSpec((3, 8, 8), "8-bit"), likelihood={"name": "beta_binomial"})
    assert why_not(colour) == "its pixels have 3 channels of bytes, of which no more than one is coded"


def test_channels_of_bits_are_pixels_of_their_own_and_those_of_bytes_are_refused() -> None:
    bits = create_model("vae", data=DataSpec((3, 8, 8), "binary")).eval()
    round_trip(bits, torch.bernoulli(torch.full((10, 3, 8, 8), 0.3)))
    assert "channels" in str(why_not(create_model("vae", data=DataSpec((3, 8, 8), "8-bit"))))
    assert "real" in str(why_not(create_model("vae", data=DataSpec((1, 8, 8), "real"))))
    grey = create_model("vae", data=DataSpec((1, 8, 8), "8-bit"), likelihood={"name": "bernoulli"})
    assert "bernoulli" in str(why_not(grey))


def test_more_codes_than_can_be_told_apart_are_refused() -> None:
    for bits, taken in ((14, True), (15, False)):
        model = create_model("vq_vae", data=DIGITS, quantiser={"name": "lfq", "bits": bits}, prior={"hidden": 1})
        assert (why_not(model) is None) == taken
    assert "its quantiser has 32,768 codes, and 16,384 can be told apart" == why_not(model)


@pytest.mark.parametrize(
    "settings",
    [
        {"prior": {"name": "vamp", "components": 4}}, {"prior": {"name": "flow"}},
        {"posterior": {"name": "planar"}},
    ],
)  # fmt: skip
def test_a_posterior_or_a_prior_that_is_no_gaussian_is_refused(settings: dict[str, Any]) -> None:
    assert "not one of Gaussians" in str(why_not(create_model("vae", data=DataSpec((1, 8, 8), "binary"), **settings)))


def test_a_learned_gaussian_prior_is_taken_into_account() -> None:
    model: VanillaVAE = create_model("vae", data=DataSpec((1, 8, 8), "binary"), prior={"name": "diagonal"}).eval()
    with torch.no_grad():
        model.prior.mean.fill_(0.8)
        model.prior.log_variance.fill_(-0.2)
    x = torch.bernoulli(torch.full((64, 1, 8, 8), 0.3))
    with torch.no_grad():
        bound = -model.log_weights(x, k=100).double().mean().item()
    assert round_trip(model, x, lanes=32)[0].mean() == pytest.approx(bound, rel=0.03)
    with torch.no_grad():
        assert model.terms(x).rate.mean() > 10  # the prior is far from the posterior, and that is dear


def test_the_seed_of_the_first_bits_changes_what_is_written_and_nothing_that_is_read() -> None:
    model, x = subject("vae").known(), digits()[0][:6]
    written = [compress(model, in_batches(x, 3), 3, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(written[0].heads, written[1].heads) and not np.array_equal(written[0].heads, written[2].heads)
    for message in written:
        assert torch.equal(torch.cat(list(decompress(model, message))[::-1]), x)


class Boastful(VanillaVAE):
    """Reports half of its rate, as a weight that was left in would."""

    def terms(self, x: Tensor, y: Tensor | None = None):
        found = super().terms(x, y)
        found.rate = 0.5 * found.rate
        return found


def test_a_bound_that_promises_too_much_does_not_come_out_as_bits() -> None:
    honest: VanillaVAE = create_model("vae", data=DIGITS, latent=20).eval()
    with torch.no_grad():
        honest.head.bias.copy_(torch.tensor([1.0, -2.0]).repeat_interleave(20))
    boastful = Boastful(honest.spec, honest.settings).eval()
    boastful.load_state_dict(honest.state_dict())
    x = digits()[0]
    taken, _ = round_trip(boastful, x, lanes=32)
    with torch.no_grad(), noise.keyed(0, torch.arange(len(x))):
        claimed, rate = -boastful.terms(x).elbo.double().numpy(), honest.terms(x).rate.double().sum(1).numpy()
    assert taken.mean() - claimed.mean() == pytest.approx(0.5 * rate.mean(), rel=0.25)
    assert rate.mean() > 15


# ---- the metric --------------------------------------------------------------------------------------------------


def test_an_evaluation_has_the_length_where_it_is_asked_for(mine: Path) -> None:  # noqa: F811
    found = again(mine, None, None, "evaluate.coded=24")
    one = found.metrics["code_length"]
    assert (one.n, one.unit, one.better) == (24, "nats", "lower")
    assert one.identity == {"split": "test", "images": 24, "bucket_bits": BUCKET_BITS}
    assert one.value == pytest.approx(-found.metrics["elbo"].value, rel=0.1)
    more, said = str(one.note).split(maxsplit=1)
    assert said.startswith("nats an image more with what 24 stacks begin with")
    from benchmarks.finished import Finished

    run = Finished(mine)
    began = coding.stored(run.model.eval(), run.first(None, "test"), 24, 24)[0].began
    assert float(more) == pytest.approx(began / 24, abs=0.006)
    assert again(mine).skipped["code_length"] == "evaluate.coded is 0"
    assert again(mine, None, None, "evaluate.coded=1000").metrics["code_length"].n == 40  # all that there are


def test_what_each_image_took_is_kept(mine: Path) -> None:  # noqa: F811
    found = again(mine, "validation", None, "evaluate.coded=20")
    (path,) = (file for file in (mine / "evaluations").glob("validation-*.npz") if found.key in file.name)
    with np.load(path) as kept:
        assert kept["code_length"].shape == (20,)
        assert kept["code_length"].mean() == pytest.approx(found.metrics["code_length"].value, rel=1e-5)
    assert found.metrics["code_length"].identity["split"] == "validation"


def test_where_other_images_come_back_there_is_no_number(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    model, x = subject("vae").known(), digits()[0][:30]
    batches = Batches(Images((x * 255).byte()), batch_size=8, drop_last=False)
    _, given, back = coding.stored(model, batches, 30, 64)
    assert torch.equal(given, back) and torch.equal(given, x.byte())

    def other(*given):
        for place, batch in enumerate(decompress(*given)):
            batch[0, 0, 3, 3] = (1 - batch[0, 0, 3, 3]) if place == 0 else batch[0, 0, 3, 3]
            yield batch

    monkeypatch.setattr(coding, "decompress", other)
    _, given, back = coding.stored(model, batches, 30, 64)
    assert not torch.equal(given, back)
    found = again(mine, None, None, "evaluate.coded=23")
    assert "code_length" not in found.metrics and "is not what was stored" in found.skipped["code_length"]


def test_each_image_is_counted_when_it_is_stored_and_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    @contextmanager
    def counting(total: int, *said: str):
        counts.append(total)
        yield SimpleNamespace(update=lambda rows: counts.append(-rows))

    monkeypatch.setattr(coding, "progress", counting)
    batches = Batches(Images((digits()[0][:10] * 255).byte()), batch_size=4, drop_last=False)
    coding.stored(subject("vae").known(), batches, 7, 3)
    assert counts == [14, -3, -3, -1, -1, -3, -3]


def test_asked_for_nothing_a_run_is_the_run_that_it_was() -> None:
    assert "coded" not in json.dumps(resolve("vae", "synthetic").identity())
    asked = resolve("vae", "synthetic", settings=["evaluate.coded=5"])
    assert asked.identity() != resolve("vae", "synthetic").identity()


# ---- files -------------------------------------------------------------------------------------------------------


def test_a_file_gives_the_images_back_in_their_order(zoo, mine: Path, tmp_path: Path) -> None:  # noqa: F811
    code, out, err = zoo("compress", str(mine), "images.zoo", "--lanes", "4")
    assert code == 0, err
    assert "40 images, read back the same" in out
    code, out, err = zoo("decompress", str(mine), "images.zoo", "back.npz")
    assert (code, out.strip()) == (0, "back.npz  40 images"), err
    with np.load(tmp_path / "back.npz") as file:
        images = file["images"]
    from benchmarks.finished import Finished

    _, x, _ = next(iter(Finished(mine).first(None, "test").sequential(40)))
    np.testing.assert_array_equal(images, x.byte().numpy())


def test_what_is_said_of_a_file_is_what_it_is(zoo, mine: Path) -> None:  # noqa: F811
    code, out, _ = zoo("compress", str(mine), "a.zoo", "--images", "30", "--split", "validation", "--json")
    found = json.loads(out)
    assert code == 0 and found["n"] == 30 and found["split"] == "validation"
    assert found["sizes"]["file"] == os.path.getsize("a.zoo")
    assert found["sizes"]["raw"] == math.ceil(30 * found["dims"] / 8)
    assert found["elbo_bits_per_dim"] == pytest.approx(-found["elbo"] / LN2 / found["dims"])
    assert found["net_bits_per_dim"] == pytest.approx(found["elbo_bits_per_dim"], rel=0.1)


def test_beside_the_file_stands_what_others_make_of_the_same_images(zoo, mine: Path) -> None:  # noqa: F811
    code, out, err = zoo("compress", str(mine), "a.zoo", "--images", "20")
    assert code == 0, err
    assert zoo("decompress", str(mine), "a.zoo", "back.npz")[0] == 0
    with np.load("back.npz") as file:
        images = file["images"]
    raw = np.packbits(images).tobytes()
    sizes = {
        "a.zoo": os.path.getsize("a.zoo"), "raw": len(raw), "gzip": len(gzip.compress(raw, 9)),
        "bz2": len(bz2.compress(raw)), "xz": len(lzma.compress(raw, preset=9)),
    }  # fmt: skip
    assert "20 images" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert {name: rows[name] for name in sizes} == {
        name: [f"{size:,}", f"{8 * size / images.size:.4f}"] for name, size in sizes.items()
    }


def test_a_file_of_bytes_gives_them_back(zoo, tmp_path: Path) -> None:  # noqa: F811
    trained(tmp_path / "grey", "vae", "synthetic", "train.epochs=0", "data.binarise=none", "likelihood.name=logistic")
    code, out, err = zoo("compress", "grey", "a.zoo", "--images", "3", "--split", "validation", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["sizes"]["raw"] == 3 * found["dims"]
    assert zoo("decompress", "grey", "a.zoo", "back.npz")[0] == 0
    from benchmarks.finished import Finished

    _, x, _ = next(iter(Finished(tmp_path / "grey").first(3, "validation").sequential(3)))
    with np.load("back.npz") as file:
        assert len(np.unique(file["images"])) > 2
        np.testing.assert_array_equal(file["images"], (255 * x).round().byte().numpy())


def test_nothing_is_written_over(zoo, mine: Path) -> None:  # noqa: F811
    Path("there").write_text("somebody's")
    code, _, err = zoo("compress", str(mine), "there")
    assert code == 2 and "is there already, and is not written over" in err
    assert Path("there").read_text() == "somebody's"
    assert zoo("compress", str(mine), "a.zoo", "--images", "4")[0] == 0
    Path("there.npz").write_text("somebody's")
    assert zoo("decompress", str(mine), "a.zoo", "there.npz")[0] == 2
    assert Path("there.npz").read_text() == "somebody's"
    Path("link").symlink_to("gone")
    Path("link.npz").symlink_to("gone")
    for words in (("compress", str(mine), "link"), ("decompress", str(mine), "a.zoo", "link.npz")):
        code, _, err = zoo(*words)
        assert code == 2 and "is there already, and is not written over" in err
    assert Path("link").readlink() == Path("link.npz").readlink() == Path("gone")


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_stored(
    zoo, mine: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.setattr(coding, "compress", None)
    Path("file").write_text("somebody's")
    code, _, err = zoo("compress", str(mine), "file/a.zoo")
    assert code == 2 and "file is no folder" in err and err.count("\n") == 1


def test_who_is_stopped_before_the_end_gives_the_same_command_again(
    zoo, mine: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    def stopped(*given):
        raise Stopped("stopped at the user's request.")

    with monkeypatch.context() as patched:
        patched.setattr(storing.likelihood, "bound", stopped)
        code, _, err = zoo("compress", str(mine), "a.zoo", "--images", "4")
    assert code == 130 and "goes on from here" in err and not Path("a.zoo").exists()
    assert zoo("compress", str(mine), "a.zoo", "--images", "4")[0] == 0


def test_a_file_that_is_not_whole_is_refused_in_a_sentence(zoo, mine: Path, tmp_path: Path) -> None:  # noqa: F811
    assert zoo("compress", str(mine), "a.zoo", "--images", "12")[0] == 0
    whole = Path("a.zoo").read_bytes()
    broken = {
        "empty": b"", "other": b"PK\x03\x04" + whole, "magic": whole[:8], "head": whole[:60], "cut": whole[:-1],
        "heads": whole[: len(whole) // 2], "more": whole + b"\0", "json": whole[:14] + b"\0\0\0" + whole[17:],
    }  # fmt: skip
    for name, content in broken.items():
        Path(name).write_bytes(content)
        code, out, err = zoo("decompress", str(mine), name, "out.npz")
        assert (code, out) == (2, ""), name
        assert err.startswith(f"zoo: {name} ") and err.count("\n") == 1, (name, err)
        assert not Path("out.npz").exists()
    code, _, err = zoo("decompress", str(mine), "nowhere", "out.npz")
    assert code == 2 and "nowhere cannot be read" in err


def small_file(**changes: Any) -> bytes:
    """A file of two stacks, of which the head says something else."""
    words = [np.arange(3, dtype=np.uint32), np.zeros(0, np.uint32)]
    message = Message(2, np.array([1 << 31, 1 << 40], np.uint64), words, 12, np.zeros(2), 0.0)
    head = Header(2, (1, 2, 2), "binary", 12, 2, "a", "b", "torch", "processor", 1, "cpu")
    return to_bytes(message, replace(head, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 0}, {"lanes": 0}, {"lanes": MOST_LANES + 1}, {"bucket_bits": 0}, {"bucket_bits": 21},
        {"n": 12.5}, {"n": True}, {"shape": (1, 2, 2.0)}, {"threads": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_a_head_of_what_no_file_has_is_refused(changes: dict[str, Any]) -> None:
    message, header = from_bytes(small_file(), "a.zoo")
    assert (message.n, header.shape, [len(each) for each in message.words]) == (2, (1, 2, 2), [3, 0])
    with pytest.raises(UsageError, match="a.zoo is damaged: its head cannot be read"):
        from_bytes(small_file(**changes), "a.zoo")


@pytest.mark.parametrize(
    "head", [b"[]", b"{}", b'{"shape": [1, 2, 2], "more": 1}', b"[" * 100_000, b"\xff"], ids=lambda head: head[:9]
)
def test_a_head_that_is_something_else_is_refused(head: bytes) -> None:
    told = zlib.compress(head)
    with pytest.raises(UsageError, match="a.zoo is damaged: its head cannot be read"):
        from_bytes(MAGIC + len(told).to_bytes(4, "little") + told, "a.zoo")


def test_wherever_a_file_is_cut_off_that_is_what_is_said() -> None:
    whole = small_file()
    body = len(whole) - (8 + 4) * 2 - 4 * 3  # a head and a length of each stack, and three words
    for end in range(body, len(whole)):
        with pytest.raises(UsageError, match="a.zoo is cut off"):
            from_bytes(whole[:end], "a.zoo")


def test_bits_that_changed_or_another_machine_are_noticed(zoo, mine: Path) -> None:  # noqa: F811
    assert zoo("compress", str(mine), "a.zoo", "--images", "12")[0] == 0
    content = bytearray(Path("a.zoo").read_bytes())
    content[-9] ^= 4
    Path("a.zoo").write_bytes(content)
    code, _, err = zoo("decompress", str(mine), "a.zoo", "out.npz")
    assert code == 1 and "cannot be read here" in err and err.count("\n") == 1
    assert not Path("out.npz").exists()


def test_a_file_is_read_with_as_many_threads_as_it_was_written(
    zoo, mine: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    before, seen = torch.get_num_threads(), []

    def noted(*given):
        seen.append(torch.get_num_threads())
        yield from decompress(*given)

    try:
        torch.set_num_threads(2)
        assert zoo("compress", str(mine), "a.zoo", "--images", "4")[0] == 0
        torch.set_num_threads(1)
        monkeypatch.setattr(coding, "decompress", noted)
        assert zoo("decompress", str(mine), "a.zoo", "a.npz")[0] == 0
        assert (seen, torch.get_num_threads()) == ([2], 1)
    finally:
        torch.set_num_threads(before)


def test_another_model_is_refused_before_anything_is_read(zoo, mine: Path, tmp_path: Path) -> None:  # noqa: F811
    assert zoo("compress", str(mine), "a.zoo", "--images", "4")[0] == 0
    trained(tmp_path / "other", "vae", "synthetic", "train.epochs=0")
    code, _, err = zoo("decompress", str(tmp_path / "other"), "a.zoo", "out.npz")
    assert code == 2 and "was written with another model" in err
    code, _, err = zoo("decompress", "nowhere", "a.zoo", "out.npz")
    assert code == 2 and "nowhere is not a run" in err


def test_a_model_that_cannot_store_says_so(zoo, tmp_path: Path) -> None:  # noqa: F811
    trained(tmp_path / "flow", "flow_vae", "synthetic", "train.epochs=0")
    code, _, err = zoo("compress", str(tmp_path / "flow"), "a.zoo")
    assert code == 2 and "this flow_vae cannot be stored" in err and not Path("a.zoo").exists()
    code, _, err = zoo("compress", str(tmp_path / "nowhere"), "a.zoo")
    assert code == 2 and err.count("\n") == 1


def test_networks_that_compute_something_else_the_second_time_write_nothing(
    zoo, mine: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    original = coding.decompress

    def other(model: VAE, message: Any):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.5)
        return original(model, message)

    monkeypatch.setattr(coding, "decompress", other)
    code, _, err = zoo("compress", str(mine), "a.zoo", "--images", "8")
    assert code == 1 and "do not compute the same twice" in err and not Path("a.zoo").exists()
