"""Residual and lookup-free quantisers, and the prior of grids that have several codes at each place."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from tests.test_vq_vae import TINY, every_image, grid, train_step, trainer, vq
from zoo import noise
from zoo.data.images import DataSpec
from zoo.models import create_model
from zoo.models.base import Progress
from zoo.models.vq_vae import VQVAE
from zoo.nets.code_prior import CodePrior, CodePriorSettings
from zoo.quantisers import (
    LookupFreeQuantiser,
    QuantiserSettings,
    ResidualQuantiser,
    make_quantiser,
)

SEVERAL = {"residual": {"codes": 2, "depth": 2}, "lfq": {"bits": 2}}


def residual(depth: int = 3, codes: int = 8, size: int = 3, **settings: object) -> ResidualQuantiser:
    settings = QuantiserSettings(name="residual", depth=depth, codes=codes, **settings)
    quantiser = make_quantiser(settings, size)
    assert isinstance(quantiser, ResidualQuantiser)
    return quantiser.double()


def lfq(bits: int = 3, **settings: object) -> LookupFreeQuantiser:
    quantiser = make_quantiser(QuantiserSettings(name="lfq", bits=bits, **settings), 1)
    assert isinstance(quantiser, LookupFreeQuantiser)
    return quantiser.double()


def rows_of(z: Tensor) -> Tensor:
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def left_over(codebook: Tensor, rows: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """What each depth is left to quantise, (N, depth, D), and its code, (N, depth)."""
    left, codes = [rows], []
    for _ in range(depth):
        codes.append(torch.cdist(left[-1], codebook).argmin(1))
        left.append(left[-1] - codebook[codes[-1]])
    return torch.stack(left[:-1], 1), torch.stack(codes, 1)


# ---- the residual quantiser ------------------------------------------------------------------------------------------


def test_each_depth_takes_the_code_nearest_to_what_is_left_and_the_vector_is_their_sum() -> None:
    quantiser, z = residual(depth=4), grid()
    q = quantiser(z)
    assert q.codes.shape == (6, 4, 5, 4) and q.codes.dtype == torch.int64
    assert torch.equal(q.codes.flatten(0, 2), left_over(quantiser.codebook, rows_of(z), 4)[1])
    assert (q.codes[..., 0] != q.codes[..., 1]).any()
    torch.testing.assert_close(rows_of(q.vectors), quantiser.codebook[q.codes].sum(-2).flatten(0, 2))
    assert torch.equal(quantiser.embed(q.codes), q.vectors)


def test_at_depth_one_it_is_the_vector_quantiser() -> None:
    one, other, z = residual(depth=1, codes=16, restart_below=0.5), vq(16, restart_below=0.5), grid(batch=20)
    for quantiser in (one, other):
        torch.manual_seed(3)
        quantiser.initialise(z)
        for _ in range(3):
            train_step(quantiser, z)
    assert torch.equal(one.codebook, other.codebook) and torch.equal(one.cluster_size, other.cluster_size)
    ours, theirs = one(z), other(z)
    assert torch.equal(ours.codes.squeeze(-1), theirs.codes) and torch.equal(ours.vectors, theirs.vectors)
    torch.testing.assert_close(ours.commitment, theirs.commitment)


def test_a_depth_more_keeps_the_codes_before_it_and_with_zero_among_the_vectors_adds_no_error() -> None:
    z, before, errors = grid(), None, [grid().new_full((6, 4, 5), math.inf)]
    codebook = residual().codebook
    codebook[5] = 0.0
    for depth in range(1, 6):
        quantiser = residual(depth=depth)
        quantiser.codebook.copy_(codebook)
        q = quantiser(z)
        assert before is None or torch.equal(q.codes[..., :-1], before)
        before = q.codes
        errors.append((z - q.vectors).square().sum(1))
        assert (errors[-1] <= errors[-2] + 1e-12).all()
    assert errors[-1].mean() < 0.7 * errors[1].mean()


def test_the_commitment_is_a_sum_over_the_depths() -> None:
    quantiser, z = residual(depth=3, commitment=0.7), grid().requires_grad_()
    q = quantiser(z)
    left, _ = left_over(quantiser.codebook, rows_of(z.detach()), 3)
    after = torch.cat([left[:, 1:], (rows_of(z.detach()) - rows_of(q.vectors)).unsqueeze(1)], 1).view(6, 4, 5, 3, 3)
    torch.testing.assert_close(q.commitment.detach(), 0.7 * after.square().flatten(1).sum(1))
    (gradient,) = torch.autograd.grad(q.commitment.mean(), z)
    torch.testing.assert_close(gradient, 2 * 0.7 * after.sum(-2).movedim(-1, 1) / 6)


def test_the_gradient_of_the_sum_is_that_of_z_and_none_reaches_the_codebook() -> None:
    quantiser, z, weight = residual(), grid().requires_grad_(), grid()
    quantiser.codebook.requires_grad_()
    q = quantiser(z)
    (q.vectors * weight).sum().backward()
    assert torch.equal(z.grad, weight)
    q.commitment.sum().backward()
    assert not torch.equal(z.grad, weight)
    assert quantiser.codebook.grad is None and not list(residual().parameters())


def test_without_memory_a_code_is_the_mean_of_what_it_was_chosen_for_at_any_depth() -> None:
    quantiser, z = residual(decay=0.0, restart_below=0.0), grid(batch=20)
    before = quantiser.codebook.clone()
    left, codes = left_over(before, rows_of(z), 3)
    train_step(quantiser, z)
    assert len(codes[:, 0].unique()) > 2 and len(codes[:, 1].unique()) > 2
    for code in range(8):
        expected = left[codes == code].mean(0) if (codes == code).any() else before[code]
        torch.testing.assert_close(quantiser.codebook[code], expected)


def test_a_dead_code_moves_to_what_is_left_at_some_depth() -> None:
    quantiser, z = residual(codes=32, restart_below=0.5, decay=0.0), grid(batch=20)
    quantiser.codebook[4:] = 1e3
    left, _ = left_over(quantiser.codebook, rows_of(z), 3)
    train_step(quantiser, z)
    same = torch.cdist(quantiser.codebook[4:], left.flatten(0, 1), compute_mode="donot_use_mm_for_euclid_dist")
    nearest, which = same.min(1)
    assert nearest.max() < 1e-12
    assert len((which % 3).unique()) == 3


def test_a_batch_in_parts_is_counted_and_restarts_codes_as_the_whole_of_it_does() -> None:
    z, found = grid(batch=8), []
    for cuts in ([(0, 8)], [(0, 4), (4, 8)]):
        torch.manual_seed(1)
        quantiser, tape = residual(codes=16, restart_below=0.9, decay=0.1), []
        codes = quantiser(z).codes
        for start, stop in cuts:
            with noise.part_of(8, start, stop, tape):
                quantiser.observe(z[start:stop], codes[start:stop])
        quantiser.after_step()
        found.append(quantiser.codebook)
    torch.testing.assert_close(*found)


def test_the_codebook_starts_with_a_share_for_each_depth() -> None:
    quantiser, z = residual(depth=2, codes=8), grid(batch=30)
    quantiser.initialise(z)
    first, second = quantiser.codebook.split(4)
    rows = rows_of(z)
    assert (first.unsqueeze(1) == rows).all(2).any(1).all()
    left = rows - first[torch.cdist(rows, first).argmin(1)]
    assert torch.cdist(second, left, compute_mode="donot_use_mm_for_euclid_dist").min(1).values.max() < 1e-12
    assert len(quantiser.codebook.unique(dim=0)) == 8
    assert torch.equal(quantiser.cluster_sum, quantiser.codebook)
    single = residual(depth=3, codes=1)
    single.initialise(z)
    assert (single.codebook == rows).all(1).any()


@pytest.mark.parametrize("name", ["vq", "residual"])
def test_autocast_changes_no_code(name: str) -> None:
    torch.manual_seed(0)
    quantiser = make_quantiser(QuantiserSettings(name=name, codes=64), 16)
    z = torch.randn(50, 16, 4, 4)
    expected = quantiser(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = quantiser(z)
    assert torch.equal(q.codes, expected.codes) and torch.equal(q.vectors, expected.vectors)
    assert torch.equal(q.commitment, expected.commitment) and q.vectors.dtype == torch.float32


EACH = [{"name": "vq"}, {"name": "residual"}, {"name": "fsq"}, {"name": "lfq", "bits": 5}]


@pytest.mark.parametrize("settings", EACH, ids=lambda settings: settings["name"])
def test_what_an_encoder_gives_in_half_precision_is_quantised_in_full(settings: dict[str, object]) -> None:
    quantiser = make_quantiser(QuantiserSettings(**settings), 3)
    half, found = torch.randn(50, quantiser.size, 4, 4).bfloat16(), []
    start = {name: value.clone() for name, value in quantiser.state_dict().items()}
    for z, inside in ((half.float(), False), (half, False), (half, True)):
        torch.manual_seed(0)
        quantiser.load_state_dict(start)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
            quantiser.initialise(z)
            q, penalty = quantiser(z), quantiser.penalty(z)
            quantiser.observe(z, q.codes)
            quantiser.after_step()
        state = [value.clone() for value in quantiser.state_dict().values()]
        found.append([q.vectors, q.codes, q.commitment, *state, *([] if penalty is None else [penalty])])
    for same in zip(*found, strict=True):
        assert same[0].dtype in (torch.float32, torch.int64)
        assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])


def test_what_follows_from_the_settings_is_not_saved() -> None:
    learned = {"codebook", "cluster_size", "cluster_sum", "updates"}
    saved = {"vq": learned, "residual": learned, "fsq": set(), "lfq": {"mean", "deviation"}}
    for settings in EACH:
        assert set(make_quantiser(QuantiserSettings(**settings), 3).state_dict()) == saved[settings["name"]]


def test_where_nobody_says_how_many_there_are_two_depths_and_four_bits() -> None:
    assert make_quantiser(QuantiserSettings(name="residual"), 3)(grid().float()).codes.shape == (6, 4, 5, 2)
    assert make_quantiser(QuantiserSettings(name="lfq"), 1).codes == 16


# ---- the lookup-free quantiser ---------------------------------------------------------------------------------------


def test_a_code_is_the_signs_in_binary_and_back() -> None:
    quantiser, z = lfq(5), grid(size=5)
    q = quantiser(z)
    assert quantiser.size == 5 and quantiser.codes == 32
    assert torch.equal(q.vectors, z.sign())
    assert (quantiser(0.0 * z).codes == 0).all() and (quantiser(0.0 * z).vectors == -1).all()
    written = ["".join("1" if number > 0 else "0" for number in reversed(row)) for row in rows_of(z).tolist()]
    assert q.codes.flatten().tolist() == [int(text, 2) for text in written]
    every = torch.arange(32).view(-1, 1, 1)
    vectors = quantiser.embed(every)
    assert len(vectors.unique(dim=0)) == 32 and (vectors.abs() == 1).all()
    assert torch.equal(quantiser(0.3 * vectors).codes, every)
    torch.testing.assert_close(quantiser(0.5 * vectors).commitment, torch.full((32,), 0.25 * 5 * 0.25).double())


def test_the_signs_are_of_numbers_about_what_the_encoder_first_gave() -> None:
    quantiser, z = lfq(3), 7.0 + 0.01 * grid(batch=50)
    z[:, 2] = 7.0
    assert (quantiser(z).codes == 7).all()
    quantiser.initialise(z)
    up = (rows_of(quantiser(z).vectors) > 0).double().mean(0)
    assert (up[:2] > 0.4).all() and (up[:2] < 0.6).all()
    again = lfq(3)
    again.load_state_dict(quantiser.state_dict())
    assert torch.equal(again(z).codes, quantiser(z).codes)
    weight, shown = grid(batch=50), z.clone().requires_grad_()
    (quantiser(shown).vectors * weight).sum().backward()
    deviation = torch.tensor([*rows_of(z)[:, :2].std(0, correction=0).tolist(), 1.0]).double()
    torch.testing.assert_close(shown.grad, weight / deviation.view(1, 3, 1, 1))


def penalty(z: Tensor, quantiser: LookupFreeQuantiser) -> Tensor:
    """By the definition, over all codes, of a weight of one and one place."""
    vectors = quantiser.embed(torch.arange(quantiser.codes).view(-1, 1, 1)).flatten(1)
    q = torch.softmax(-(rows_of(z).unsqueeze(1) - vectors).square().sum(2), 1)
    mean = q.mean(0)
    return -(q * q.log()).sum(1).mean() + (mean * mean.log()).sum()


def test_the_penalty_is_the_entropy_of_each_place_less_that_of_their_mean() -> None:
    z = grid(scale=0.4) + 0.2
    torch.testing.assert_close(lfq(3, entropy=0.3).penalty(z), 0.3 * 20 * penalty(z, lfq(3)))
    torch.testing.assert_close(lfq(3).penalty(z), lfq(3, entropy=0.1).penalty(z))


def test_of_many_bits_the_entropy_of_the_mean_is_bounded_by_groups() -> None:
    z = grid(size=10, scale=0.4) + 0.2 * grid(size=1)
    groups = penalty(z[:, :8], lfq(8)) + penalty(z[:, 8:], lfq(2))
    found = lfq(10, entropy=1.0).penalty(z)
    torch.testing.assert_close(found, 20 * groups)
    assert found < 20 * penalty(z, lfq(10)) - 0.01


def test_the_penalty_is_least_where_every_place_is_sure_and_all_codes_are_used() -> None:
    quantiser, every = lfq(3, entropy=1.0), torch.arange(8).view(-1, 1, 1)
    spread = 50.0 * quantiser.embed(every)
    for z, expected in ((spread, -3 * math.log(2)), (spread[:1], 0.0), (0.0 * spread, 0.0)):
        assert quantiser.penalty(z).item() == pytest.approx(expected, abs=1e-9)


def test_the_penalty_has_a_gradient_far_from_zero() -> None:
    for scale in (1e-30, 1.0, 1e4):
        z = (scale * torch.ones(4, 3, 2, 2)).requires_grad_()
        LookupFreeQuantiser(QuantiserSettings(name="lfq", bits=3)).penalty(z).backward()
        assert torch.isfinite(z.grad).all()


def test_the_penalty_is_of_training_and_of_the_batch_as_a_whole() -> None:
    x, losses = every_image(), {}
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        model = tiny("lfq", quantiser={"name": "lfq", "bits": 2, "entropy": weight})
        losses[weight] = model.losses(x, None, Progress(1.0, 0.0))["vae"]
        assert model.couples_examples is model.couples_batch is (weight > 0)
        terms = model.terms(x)
        torch.testing.assert_close(losses[0.0], (terms.distortion + terms.aux["commitment"]).mean())
    assert (model.quantiser.penalty(model.encode(x)) - (losses[2.0] - losses[0.0])).abs() < 1e-9
    assert (losses[2.0] - losses[0.0]).abs() > 1e-3
    assert not tiny("residual").couples_examples and tiny("residual").quantiser.penalty(x) is None


# ---- the prior over several codes at each place ----------------------------------------------------------------------


def code_prior(shape: tuple[int, int], codes: int, depth: int, **settings: object) -> CodePrior:
    """A small prior in float64, every number of it away from its start."""
    prior = CodePrior(CodePriorSettings(hidden=12, **settings), shape, codes, depth).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return prior


def every_grid(shape: tuple[int, ...], codes: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(codes), repeat=math.prod(shape)))).view(-1, *shape)


PRIORS = [{"window": 1}, {"window": 2, "blocks": 2}, {"window": 1, "context": False}]


@pytest.mark.parametrize("settings", PRIORS, ids=str)
@pytest.mark.parametrize(("shape", "codes", "depth"), [((1, 2), 3, 2), ((2, 2), 2, 2), ((1, 2), 2, 3), ((1, 1), 5, 3)])
def test_the_prior_of_stacks_is_a_distribution(
    shape: tuple[int, int], codes: int, depth: int, settings: dict[str, object]
) -> None:
    log_prob = code_prior(shape, codes, depth, **settings).log_prob(every_grid((*shape, depth), codes))
    assert log_prob.std() > 0.1
    assert torch.logsumexp(log_prob, 0).item() == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("settings", PRIORS, ids=str)
def test_a_code_sees_those_before_it_at_its_place_and_all_depths_of_places_before(settings: dict[str, object]) -> None:
    prior, codes = code_prior((2, 3), 4, 3, **settings), torch.randint(4, (5, 2, 3, 3))
    before = prior.logits(codes)
    for i in range(18):
        changed = codes.flatten(1).clone()
        changed[:, i] = (changed[:, i] + 1) % 4
        moved = (prior.logits(changed.view(5, 2, 3, 3)) != before).any(2).any(0)
        assert not moved[: i + 1].any()
        # The rest of its own place, and the next one of its row.
        place = i // 3
        assert moved[i + 1 : 3 * (place + 1 + (place % 3 < 2))].all()
        assert moved[i + 1 :].all() or not prior.settings.context


@pytest.mark.parametrize("settings", PRIORS, ids=str)
def test_samples_of_stacks_are_of_the_density_that_log_prob_states(settings: dict[str, object]) -> None:
    prior, n = code_prior((1, 2), 3, 2, **settings), 40_000
    expected = prior.log_prob(every_grid((1, 2, 2), 3)).exp()
    drawn = prior.sample(n)
    assert drawn.shape == (n, 1, 2, 2)
    counts = torch.bincount((drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1), minlength=81).double()
    # Pearson's statistic over the grids that are expected often enough; 6 standard deviations of its chi-square.
    often = expected * n > 5
    statistic = ((counts - n * expected).square() / (n * expected))[often].sum().item()
    freedom = often.sum().item()
    assert freedom > 20
    assert statistic < freedom + 6 * math.sqrt(2 * freedom)


def test_a_stack_of_one_has_the_prior_that_single_codes_have() -> None:
    made = []
    for depth in (None, 1):
        torch.manual_seed(0)
        made.append(CodePrior(CodePriorSettings(hidden=12), (3, 4), 5, depth))
        torch.nn.init.normal_(made[-1].head.weight)
    single, stack = made
    assert all(torch.equal(value, stack.state_dict()[key]) for key, value in single.state_dict().items())
    codes = torch.randint(5, (6, 3, 4))
    assert torch.equal(single.log_prob(codes), stack.log_prob(codes.unsqueeze(-1)))
    with noise.keyed(1, torch.arange(9)):
        drawn = single.sample(9)
    with noise.keyed(1, torch.arange(9)):
        assert torch.equal(drawn.unsqueeze(-1), stack.sample(9))


def test_an_untrained_prior_of_stacks_is_uniform() -> None:
    prior, codes = CodePrior(CodePriorSettings(), (3, 4), 9, 2), torch.randint(9, (4, 3, 4, 2))
    torch.testing.assert_close(-prior.log_prob(codes), torch.full((4,), 24 * math.log(9)))
    torch.testing.assert_close(prior.uniform_rate(codes), torch.full((4,), 24 * math.log(9)))


@pytest.mark.parametrize("depth", [None, 2])
def test_the_prior_is_computed_in_full_precision_under_autocast(depth: int | None) -> None:
    torch.manual_seed(0)
    prior = CodePrior(CodePriorSettings(hidden=32), (4, 4), 7, depth)
    torch.nn.init.normal_(prior.head.weight)
    codes, found = torch.randint(7, (20, *prior.shape)), []
    for inside in (False, True):
        with noise.keyed(1, torch.arange(50)), torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
            found.append((prior.log_prob(codes), prior.sample(50)))
    assert found[0][0].std() > 0.1 and not found[0][1].is_floating_point()
    for same in zip(*found, strict=True):
        assert torch.equal(*same)


# ---- the model -------------------------------------------------------------------------------------------------------


def tiny(name: str, **settings: object) -> VQVAE:
    """A model of 2 x 4 binary pixels whose grid of 1 x 2 places has 16 codes, small enough to add up."""
    quantiser = {"name": name, **SEVERAL[name]}
    small = {"latent": 4, "channels": [6], "hidden": 6, "prior": {"hidden": 8}, "quantiser": quantiser}
    model = create_model("vq_vae", data=TINY, **small | settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    model.initialise(every_image())
    return model.eval()


def grids_of(model: VQVAE) -> Tensor:
    return every_grid(model.prior.shape, model.quantiser.codes)


@pytest.mark.parametrize("name", SEVERAL)
def test_both_terms_of_the_bound_are_exact(name: str) -> None:
    model, x = tiny(name), every_image()
    with torch.no_grad():
        terms, grids = model.terms(x), grids_of(model)
        output = model.decode(model.quantiser.embed(grids))
        joint = torch.stack([model.likelihood.log_prob(o.expand(256, -1, -1, -1), x) for o in output])
        joint = joint + model.prior.log_prob(grids).unsqueeze(1)
        exact = torch.logsumexp(joint, 0)
    assert torch.logsumexp(exact, 0).item() == pytest.approx(0.0, abs=1e-10)
    codes = model.codes(x)
    assert codes.shape == (256, *model.prior.shape) and len(codes.flatten(1).unique(dim=0)) > 1
    which = (codes.flatten(1).unsqueeze(1) == grids.flatten(1)).all(2).long().argmax(1)
    torch.testing.assert_close(terms.elbo, joint.gather(0, which.unsqueeze(0)).squeeze(0))
    assert (terms.elbo < exact).all() and terms.elbo.exp().sum() < 1.0
    assert torch.equal(terms.aux["codes"], codes)
    found = torch.bincount(codes.flatten(), minlength=model.quantiser.codes).double() / codes.numel()
    assert terms.aux["perplexity"].item() == pytest.approx(math.exp(-torch.xlogy(found, found).sum()), rel=1e-5)


@pytest.mark.parametrize("name", SEVERAL)
def test_samples_are_decoded_stacks_of_the_prior(name: str) -> None:
    model = tiny(name)
    with torch.no_grad():
        possible = model.likelihood.mean(model.decode(model.quantiser.embed(grids_of(model)))).flatten(1)
        expected = model.prior.log_prob(grids_of(model)).exp()
        distance, which = torch.cdist(model.sample(2000).flatten(1), possible).min(1)
    assert distance.max() < 1e-6
    # Two stacks whose vectors are the same sum have one picture.
    pictures = (torch.cdist(possible, possible) < 1e-6).long().argmax(1)
    frequency = torch.bincount(pictures[which], minlength=16).double() / 2000
    wanted = torch.zeros(16).double().scatter_add_(0, pictures, expected)
    torch.testing.assert_close(frequency, wanted, atol=0.05, rtol=0)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_stopped_run_of_them_goes_on_to_the_same_bits(tmp_path, name: str) -> None:
    from zoo.training.trainer import Stopped

    def small() -> VQVAE:
        torch.manual_seed(2)
        spec, own = DataSpec(shape=(1, 8, 8), support="binary"), {"decay": 0.5, "restart_below": 0.5}
        quantiser = {"name": name, **SEVERAL[name], **(own if name == "residual" else {})}
        return create_model("vq_vae", data=spec, channels=[4, 8], hidden=8, prior={"hidden": 8}, quantiser=quantiser)

    whole, first, second = small(), small(), small()
    torch.manual_seed(4)
    trainer(whole).fit()
    torch.manual_seed(4)
    with pytest.raises(Stopped):
        trainer(first, tmp_path, steps=5).fit()
    torch.manual_seed(99)
    trainer(second, tmp_path).fit()
    for key, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key
    assert any(not torch.equal(value, small().state_dict()[key]) for key, value in whole.state_dict().items())


def test_what_was_learnt_with_other_quantisers_is_loaded_as_before() -> None:
    prior = {f"prior.{name}" for name in (
        "window", "place", "context", "head.weight", "head.bias", "blocks.0.1.weight", "blocks.0.1.bias",
        "blocks.0.3.weight", "blocks.0.3.bias",
    )}  # fmt: skip
    codebook = {f"quantiser.{name}" for name in ("codebook", "cluster_size", "cluster_sum", "updates")}
    for name, own in (("vq", codebook), ("fsq", set()), ("residual", codebook | {"prior.within"})):
        state = create_model("vq_vae", data=TINY, quantiser={"name": name}).state_dict()
        assert {key for key in state if not key.startswith(("encoder.", "decoder."))} == prior | own
        positions, codes = 1, math.prod((8, 6, 5)) if name == "fsq" else 4
        depth = 2 if name == "residual" else 1
        assert state["prior.context"].shape == (positions * depth * codes, 96)
        assert state["prior.window"].shape == (24 * depth * (codes + 1), 96)


@pytest.mark.parametrize("settings", [{"depth": 0}, {"bits": 0}, {"bits": 19}, {"entropy": -0.1}], ids=str)
def test_their_settings_are_checked(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        QuantiserSettings(**settings)
