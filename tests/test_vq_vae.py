"""VQ-VAE: the quantisers of section "VQ / FSQ" of the oracles, a prior that is a distribution, a bound that is one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from zoo import noise
from zoo.config import TrainConfig
from zoo.data.batches import Batches
from zoo.data.images import DataSpec, Images
from zoo.errors import UsageError
from zoo.models import create_model
from zoo.models.base import Progress
from zoo.models.quantised import QuantisedVAE
from zoo.models.vq_vae import VQVAE
from zoo.nets.code_prior import CodePrior, CodePriorSettings
from zoo.quantisers import (
    FiniteScalarQuantiser,
    QuantiserSettings,
    VectorQuantiser,
    code_counts,
    code_use,
    codebook,
    make_quantiser,
    perplexity,
    straight_through,
)
from zoo.training.precision import choose
from zoo.training.trainer import Trainer

TINY = DataSpec(shape=(1, 2, 4), support="binary")
FSQ_LEVELS = [(2,), (3,), (8, 6, 5), (4, 7, 2), (5, 5, 5, 5)]


def vq(codes: int = 8, size: int = 3, **settings: object) -> VectorQuantiser:
    """A codebook of float64 vectors."""
    quantiser = make_quantiser(QuantiserSettings(codes=codes, **settings), size)
    assert isinstance(quantiser, VectorQuantiser)
    return quantiser.double()


def fsq(*levels: int) -> FiniteScalarQuantiser:
    quantiser = make_quantiser(QuantiserSettings(name="fsq", levels=levels), 1)
    assert isinstance(quantiser, FiniteScalarQuantiser)
    return quantiser.double()


def grid(batch: int = 6, size: int = 3, height: int = 4, width: int = 5, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(batch, size, height, width, dtype=torch.float64)


def train_step(quantiser: VectorQuantiser, z: Tensor) -> None:
    quantiser.observe(z, quantiser(z).codes)
    quantiser.after_step()


# ---- the codebook --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [1, 7, 512])
def test_the_nearest_code_is_the_one_at_the_least_distance(codes: int) -> None:
    quantiser, rows = vq(codes, size=16), torch.randn(400, 16, dtype=torch.float64)
    expected = torch.cdist(rows, quantiser.codebook).argmin(1)
    assert torch.equal(quantiser.nearest(rows), expected)


def test_codes_are_told_apart_in_float32_whatever_they_have_in_common() -> None:
    # An encoder that nothing has moved gives nearly the same vector everywhere.
    quantiser, rows = vq(512, size=64).float(), 30 + 0.1 * torch.randn(400, 64)
    quantiser.codebook.copy_(30 + 0.1 * torch.randn(512, 64))
    expected = torch.cdist(rows.double(), quantiser.codebook.double()).argmin(1)
    assert (quantiser.nearest(rows) == expected).double().mean() > 0.99  # two may be as near but for a rounding


def test_the_vectors_are_the_codebook_s_to_the_last_bit() -> None:
    quantiser, z = vq(), grid(scale=100.0)
    q = quantiser(z)
    assert torch.equal(q.vectors, quantiser.codebook[q.codes].movedim(-1, 1))
    assert torch.equal(quantiser.embed(q.codes), q.vectors)


@pytest.mark.parametrize("make", [vq, lambda: fsq(8, 6, 5)], ids=["vq", "fsq"])
def test_straight_through_hands_the_gradient_on_bit_by_bit(make) -> None:
    weight = grid()
    z = grid().requires_grad_()
    quantised = make()(grid()).vectors.detach().requires_grad_()
    (straight_through(z, quantised) * weight).sin().sum().backward()
    through = z.grad
    direct = quantised.detach().clone().requires_grad_()
    (direct * weight).sin().sum().backward()
    assert torch.equal(through, direct.grad)
    assert quantised.grad is None


def test_no_gradient_reaches_the_codebook() -> None:
    quantiser = vq()
    quantiser.codebook.requires_grad_()
    z = grid().requires_grad_()
    q = quantiser(z)
    (q.vectors.square().sum() + q.commitment.sum()).backward()
    assert quantiser.codebook.grad is None
    assert z.grad.abs().sum() > 0
    assert not list(vq().parameters())


def test_the_commitment_pulls_z_to_its_code_with_twice_beta() -> None:
    quantiser, z = vq(commitment=0.7), grid().requires_grad_()
    q = quantiser(z)
    distance = z.detach() - quantiser.embed(q.codes)
    torch.testing.assert_close(q.commitment.detach(), 0.7 * distance.square().flatten(1).sum(1))
    (gradient,) = torch.autograd.grad(q.commitment.mean(), z)
    torch.testing.assert_close(gradient, 2 * 0.7 * distance / len(z))


def test_data_that_lie_on_the_codes_cost_nothing() -> None:
    quantiser = vq(codes=5)
    codes = torch.randint(5, (6, 4, 5))
    q = quantiser(quantiser.embed(codes))
    assert torch.equal(q.codes, codes)
    assert q.commitment.abs().max() == 0.0


def test_without_memory_a_code_is_the_mean_of_its_cluster() -> None:
    quantiser, z = vq(decay=0.0, restart_below=0.0), grid(batch=20)
    before, codes = quantiser.codebook.clone(), quantiser(z).codes.flatten()
    train_step(quantiser, z)
    rows = z.movedim(1, -1).reshape(-1, 3)
    used = codes.unique()
    assert len(used) > 2
    for code in range(quantiser.codes):
        expected = rows[codes == code].mean(0) if code in used else before[code]
        torch.testing.assert_close(quantiser.codebook[code], expected)


def test_a_code_that_one_vector_of_thousands_chose_is_at_that_vector() -> None:
    quantiser = vq(codes=2, size=1, decay=0.0, restart_below=0.0)
    quantiser.codebook.copy_(torch.tensor([[0.0], [100.0]]))
    z = 0.01 * grid(batch=200, size=1)
    z[0, 0, 0, 0] = 98.0
    train_step(quantiser, z)
    assert quantiser.codebook[1].item() == pytest.approx(98.0) and quantiser.cluster_size[1] < 1e-3


def test_the_codebook_is_the_ratio_of_two_moving_averages() -> None:
    quantiser = vq(codes=4, decay=0.9, restart_below=0.0)
    size, total = torch.ones(4, dtype=torch.float64), quantiser.codebook.clone()
    for n in range(120):
        z, decay = grid(), min(0.9, (1 + n) / (10 + n))
        codes, rows = quantiser(z).codes.flatten(), z.movedim(1, -1).reshape(-1, 3)
        hot = torch.nn.functional.one_hot(codes, 4).double()
        size = decay * size + (1 - decay) * hot.sum(0) * 4 / len(rows)
        total = decay * total + (1 - decay) * hot.T @ rows * 4 / len(rows)
        train_step(quantiser, z)
        torch.testing.assert_close(quantiser.codebook, total / size.unsqueeze(1))


def test_cluster_sizes_start_at_one_and_the_first_step_blows_nothing_up() -> None:
    quantiser, z = vq(codes=512, size=16, restart_below=0.0), grid(batch=2, size=16)
    assert torch.equal(quantiser.cluster_size, torch.ones(512, dtype=torch.float64))
    before = quantiser.codebook.norm(dim=1)
    train_step(quantiser, z)
    after = quantiser.codebook.norm(dim=1)
    assert after.max() < max(before.max(), z.norm(dim=1).max()) + 1e-12
    unused = torch.bincount(quantiser(z).codes.flatten(), minlength=512) == 0
    assert unused.sum() > 400
    torch.testing.assert_close(after[unused], before[unused])
    torch.testing.assert_close(quantiser.cluster_size.mean(), torch.ones((), dtype=torch.float64))


def test_the_update_of_a_batch_is_that_of_its_halves_together() -> None:
    z = grid(batch=8)
    together, apart, other = vq(), vq(), vq()
    apart.load_state_dict(together.state_dict())
    other.load_state_dict(together.state_dict())
    train_step(together, z)
    codes = apart(z).codes
    apart.observe(z[:4], codes[:4])
    apart.observe(z[4:], codes[4:])
    apart.after_step()
    torch.testing.assert_close(apart.codebook, together.codebook)
    # Neither does the same batch said twice count twice: sizes are shares.
    train_step(other, torch.cat([z, z]))
    torch.testing.assert_close(other.codebook, together.codebook)


def test_dead_codes_move_to_vectors_of_the_batch() -> None:
    quantiser = vq(codes=16, restart_below=0.5, decay=0.5)
    quantiser.codebook[4:] = 1e3
    quantiser.cluster_sum.copy_(quantiser.codebook)
    z = grid(batch=20)
    for _ in range(3):
        train_step(quantiser, z)
    rows = z.movedim(1, -1).reshape(-1, 3)
    assert quantiser.codebook.abs().max() < 10
    assert torch.cdist(quantiser.codebook[4:], rows).min(1).values.max() < 2.0
    assert len(quantiser(z).codes.unique()) > 8


def test_without_restarts_dead_codes_stay_where_they_are() -> None:
    quantiser = vq(codes=16, restart_below=0.0, decay=0.5)
    quantiser.codebook[4:] = 1e3
    quantiser.cluster_sum.copy_(quantiser.codebook)
    for _ in range(40):
        train_step(quantiser, grid())
    torch.testing.assert_close(quantiser.codebook[4:], torch.full_like(quantiser.codebook[4:], 1e3))


def test_restarts_are_a_function_of_the_generator() -> None:
    z = grid()
    first = vq(codes=64, restart_below=0.9, decay=0.1)
    second = vq(codes=64, restart_below=0.9, decay=0.1)
    second.load_state_dict(first.state_dict())
    for quantiser in (first, second):
        torch.manual_seed(5)
        train_step(quantiser, z)
    assert torch.equal(first.codebook, second.codebook)


def test_a_restart_is_drawn_from_the_run_s_own_generator() -> None:
    z, found = grid(batch=20), []
    for seed in (0, 0, 1):
        torch.manual_seed(7)
        quantiser = vq(restart_below=0.9)
        torch.manual_seed(len(found))
        with noise.source(torch.Generator().manual_seed(seed)):
            train_step(quantiser, z)
        found.append(quantiser.codebook)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_what_was_observed_before_other_weights_were_read_moves_nothing() -> None:
    quantiser = vq()
    state = {name: value.clone() for name, value in quantiser.state_dict().items()}
    quantiser.observe(grid(), quantiser(grid()).codes)
    quantiser.load_state_dict(state)
    quantiser.after_step()
    assert all(torch.equal(quantiser.state_dict()[name], value) for name, value in state.items())


def test_a_batch_that_is_not_finite_leaves_the_codebook_alone() -> None:
    quantiser, z = vq(), grid()
    before = {name: value.clone() for name, value in quantiser.state_dict().items()}
    z[0, 0, 0, 0] = math.nan
    train_step(quantiser, z)
    for name, value in quantiser.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_codebook_starts_at_distinct_vectors_of_the_data() -> None:
    quantiser, z = vq(codes=16), grid(batch=30)
    quantiser.initialise(z)
    rows = z.movedim(1, -1).reshape(-1, 3)
    assert (quantiser.codebook.unsqueeze(1) == rows).all(2).any(1).all()
    assert len(quantiser.codebook.unique(dim=0)) == 16
    # Nearly all of it background: the rest still gets codes.
    z[:29], z[29, :, 1:] = 0.5, 0.5
    quantiser.initialise(z)
    assert len(quantiser.codebook.unique(dim=0)) == 6
    few = vq(codes=16)
    few.initialise(grid(batch=1, height=1, width=2))
    assert len(few.codebook.unique(dim=0)) == 2


def test_the_codebook_starts_from_so_many_vectors_drawn_from_all_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codebook, "SHOWN", 50)
    rows = codebook.shown(torch.arange(200.0).view(10, 1, 4, 5)).flatten()
    assert len(rows) == len(rows.unique()) == 50 and rows.min() < 50 and rows.max() >= 150
    assert len(codebook.shown(torch.zeros(2, 1, 4, 5))) == 40


def test_a_code_starts_at_a_vector_in_proportion_to_the_square_of_its_distance() -> None:
    quantiser, z, far = vq(codes=2, size=1), torch.tensor([0.0, 1.0, 3.0]).double().view(3, 1, 1, 1), []
    for _ in range(900):
        quantiser.initialise(z)
        first, second = quantiser.codebook.flatten().tolist()
        if first < 3:
            far.append(second == 3)
    # Of 0 and 1 as the first the other two are at squares of 1 and 9, and of 1 and 4.
    mean = (9 / 10 + 4 / 5) / 2
    assert abs(sum(far) / len(far) - mean) < 4.5 * math.sqrt(mean * (1 - mean) / len(far))


# ---- perplexity ----------------------------------------------------------------------------------------------------


def test_perplexity_lies_between_one_and_the_number_of_codes() -> None:
    for number in (1, 2, 64, 5000, 2**18):  # as many as lfq may have
        assert perplexity(code_counts(torch.arange(number).repeat(3), number)).item() == number
        assert perplexity(code_counts(torch.zeros(9, dtype=torch.int64), number)).item() == pytest.approx(1.0)
    counts = torch.tensor([1.0, 1.0, 2.0, 0.0])
    assert perplexity(counts).item() == pytest.approx(2**1.5)
    assert code_use(counts).item() == 0.75


def test_counts_of_batches_add_up() -> None:
    codes = torch.randint(11, (40, 7, 7))
    halves = code_counts(codes[:9], 11) + code_counts(codes[9:], 11)
    assert torch.equal(halves, torch.bincount(codes.flatten(), minlength=11))


def test_counts_are_exact_beyond_what_float32_holds() -> None:
    few = code_counts(torch.tensor([0, 0, 0, 1]), 3)
    total = few * 2**23 + few  # as a long split adds up
    assert total.tolist() == [3 * (2**23 + 1), 2**23 + 1, 0]
    share = 0.25
    assert perplexity(total).item() == pytest.approx(share**-share * (1 - share) ** -(1 - share))
    assert code_use(total).item() == pytest.approx(2 / 3)


# ---- FSQ -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", FSQ_LEVELS)
def test_fsq_has_exactly_its_levels(levels: tuple[int, ...]) -> None:
    vectors = fsq(*levels)(grid(batch=50, size=len(levels), scale=3.0)).vectors
    for dimension, number in enumerate(levels):
        values = vectors[:, dimension].unique()
        torch.testing.assert_close(values, torch.linspace(-1, 1, number, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("levels", FSQ_LEVELS)
def test_fsq_codes_and_vectors_are_a_bijection(levels: tuple[int, ...]) -> None:
    quantiser = fsq(*levels)
    codes = torch.arange(quantiser.codes).view(-1, 1, 1)
    assert quantiser.codes == math.prod(levels)
    vectors = quantiser.embed(codes)
    assert len(vectors.unique(dim=0)) == quantiser.codes
    # atanh takes a vector back to the z whose bounded value it is; the ends lie at infinity.
    z = torch.atanh(vectors.clamp(-1 + 1e-9, 1 - 1e-9))
    q = quantiser(z)
    assert torch.equal(q.codes, codes)
    torch.testing.assert_close(q.vectors, vectors)
    assert torch.equal(quantiser.embed(q.codes), quantiser.embed(codes))


@pytest.mark.parametrize("levels", [*FSQ_LEVELS, (1000,)])
def test_fsq_vectors_are_those_of_their_codes_to_the_last_bit(levels: tuple[int, ...]) -> None:
    quantiser = fsq(*levels).float()
    q = quantiser(grid(batch=50, size=len(levels), scale=2.0).float())
    assert torch.equal(quantiser.embed(q.codes), q.vectors)


@pytest.mark.parametrize("levels", FSQ_LEVELS)
def test_fsq_rounding_is_idempotent_and_to_the_nearest_level(levels: tuple[int, ...]) -> None:
    quantiser = fsq(*levels)
    half = quantiser.spread.view(1, -1, 1, 1)
    bounded = half * torch.tanh(grid(batch=50, size=len(levels), scale=2.0))
    once = quantiser.round(bounded)
    assert torch.equal(quantiser.round(once), once)
    assert (once - bounded).abs().max() <= 0.5 + 1e-12


def test_fsq_gradient_is_that_of_the_bound_alone() -> None:
    quantiser, z = fsq(8, 6, 5), grid().requires_grad_()
    weight = grid()
    (through,) = torch.autograd.grad((quantiser(z).vectors * weight).sum(), z)
    (bound,) = torch.autograd.grad((torch.tanh(z) * weight).sum(), z)
    torch.testing.assert_close(through, bound)
    assert quantiser(z).commitment.abs().max() == 0.0


def test_settings_are_checked() -> None:
    for wrong in ({"codes": 0}, {"decay": 1.0}, {"levels": [1]}, {"levels": []}, {"name": "rvq"}, {"code": 3}):
        with pytest.raises(ValueError):
            QuantiserSettings(**wrong)


# ---- the prior -----------------------------------------------------------------------------------------------------


def code_prior(height: int, width: int, codes: int, depth: int | None = None, **settings: object) -> CodePrior:
    """A small prior in float64, every number of it away from its start."""
    prior = CodePrior(CodePriorSettings(hidden=12, **settings), (height, width), codes, depth).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return prior


def every_grid(height: int, width: int, codes: int) -> Tensor:
    grids = list(itertools.product(range(codes), repeat=height * width))
    return torch.tensor(grids).view(-1, height, width)


PRIORS = [{"window": 1}, {"window": 3, "blocks": 2}, {"window": 1, "context": False}]


@pytest.mark.parametrize("settings", PRIORS, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 3), (3, 2, 3), (1, 1, 5), (2, 2, 4), (3, 3, 2)])
def test_the_prior_is_a_distribution(shape: tuple[int, int, int], settings: dict[str, object]) -> None:
    log_prob = code_prior(*shape, **settings).log_prob(every_grid(*shape))
    assert log_prob.std() > 0.1
    assert torch.logsumexp(log_prob, 0).item() == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("settings", PRIORS, ids=str)
def test_the_prior_looks_at_earlier_codes_only(settings: dict[str, object]) -> None:
    prior = code_prior(4, 5, 6, **settings)
    codes = torch.randint(6, (3, 4, 5))
    before = prior.logits(codes)
    for i in range(20):
        changed = codes.flatten(1).clone()
        changed[:, i] = (changed[:, i] + 1) % 6
        after = prior.logits(changed.view(3, 4, 5))
        assert torch.equal(after[:, : i + 1], before[:, : i + 1])
        if i < 19:
            assert (after[:, i + 1] != before[:, i + 1]).any() or i % 5 == 4 and not prior.settings.context


def test_looking_up_and_multiplying_are_the_same_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, codes = code_prior(3, 4, 5), torch.randint(5, (6, 3, 4))
    results = []
    for limit in (0, 10**6):
        monkeypatch.setattr("zoo.nets.code_prior.ONE_HOT", limit)
        log_prob = prior.log_prob(codes)
        results.append((log_prob, *torch.autograd.grad(log_prob.sum(), list(prior.parameters()))))
    for looked_up, multiplied in zip(*results):
        torch.testing.assert_close(looked_up, multiplied)


def test_with_context_every_code_sees_all_before_it() -> None:
    prior = code_prior(4, 5, 6, window=1)
    codes = torch.randint(6, (1, 4, 5))
    changed = codes.clone()
    changed[0, 0, 0] = (codes[0, 0, 0] + 1) % 6
    assert (prior.logits(changed) != prior.logits(codes)).any(2).flatten()[1:].all()


def test_an_untrained_prior_is_uniform() -> None:
    prior = CodePrior(CodePriorSettings(), (7, 7), 9)
    codes = torch.randint(9, (4, 7, 7))
    torch.testing.assert_close(-prior.log_prob(codes), torch.full((4,), 49 * math.log(9)))
    torch.testing.assert_close(prior.uniform_rate(codes), torch.full((4,), 49 * math.log(9)))


@pytest.mark.parametrize("settings", PRIORS, ids=str)
def test_samples_are_of_the_density_that_log_prob_states(settings: dict[str, object]) -> None:
    prior, n = code_prior(2, 2, 3, **settings), 40_000
    grids = every_grid(2, 2, 3)
    expected = prior.log_prob(grids).exp()
    drawn = prior.sample(n)
    index = (drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1)
    counts = torch.bincount(index, minlength=81).double()
    # Pearson's statistic over the grids that are expected often enough; 6 standard deviations of its chi-square.
    often = expected * n > 5
    statistic = ((counts - n * expected).square() / (n * expected))[often].sum().item()
    freedom = often.sum().item()
    assert freedom > 20
    assert statistic < freedom + 6 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("depth", [None, 2])
def test_what_a_prior_is_told_moves_its_density_and_its_samples_alike(depth: int | None) -> None:
    prior, n = code_prior(1, 2, 3, depth), 40_000
    told = 2.0 * torch.randn(2, 2, 12, dtype=torch.float64)
    codes = torch.tensor(list(itertools.product(range(3), repeat=prior.length))).view(-1, *prior.shape)
    places = 3 ** torch.arange(prior.length - 1, -1, -1)
    found = []
    for one in told:
        expected = prior.log_prob(codes, one.expand(len(codes), -1, -1)).exp()
        assert expected.sum().item() == pytest.approx(1.0, abs=1e-10)
        index = (prior.sample(n, told=one.expand(n, -1, -1)).flatten(1) * places).sum(1)
        frequency = torch.bincount(index, minlength=len(codes)).double() / n
        error = (expected * (1 - expected) / n).sqrt()
        assert ((frequency - expected).abs() < 4.5 * error + 1e-3).all()
        found.append(expected)
    assert (found[0] - found[1]).abs().max() > 0.05
    # A position is told its own features, which say nothing of those before it.
    changed = told[:1].clone()
    changed[:, 1] += 1.0
    before, after = prior.logits(codes[:1], told[:1]), prior.logits(codes[:1], changed)
    first = depth or 1
    assert torch.equal(before[:, :first], after[:, :first]) and not torch.equal(before[:, first:], after[:, first:])


def test_temperature_divides_the_logits() -> None:
    prior = code_prior(1, 1, 4)
    logits = prior.logits(torch.zeros(1, 1, 1, dtype=torch.int64)).flatten()
    for temperature in (0.5, 2.0):
        counts = torch.bincount(prior.sample(40_000, temperature).flatten(), minlength=4) / 40_000
        torch.testing.assert_close(counts.double(), torch.softmax(logits / temperature, 0), atol=0.015, rtol=0)
    assert (prior.sample(50, 0.0).flatten() == logits.argmax()).all()


def test_temperature_zero_takes_the_most_probable_code_however_little_it_is_ahead() -> None:
    prior = CodePrior(CodePriorSettings(hidden=4), (1, 2), 3)
    with torch.no_grad():
        prior.head.bias.copy_(torch.tensor([0.0, 1e-3, -1.0]))
    assert (prior.sample(200, 0.0) == 1).all()


def test_each_sample_is_a_function_of_its_own_number() -> None:
    prior = code_prior(3, 3, 4)
    with noise.keyed(1, torch.arange(10)):
        together = prior.sample(10)
    with noise.keyed(1, torch.arange(4, 10)):
        apart = prior.sample(6)
    assert torch.equal(together[4:], apart)
    assert len(together.flatten(1).unique(dim=0)) > 1


def test_the_prior_learns_what_the_codes_are() -> None:
    # Rows of a grid repeat the first, so all of the information is in the first row: 3 log 4 nats.
    prior = CodePrior(CodePriorSettings(hidden=32), (3, 3), 4)
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(150):
        codes = torch.randint(4, (64, 1, 3)).expand(64, 3, 3)
        loss = -prior.log_prob(codes).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 3 * math.log(4) - 0.1 < loss.item() < 3 * math.log(4) + 0.3


# ---- the model -----------------------------------------------------------------------------------------------------


def tiny(name: str = "vq", variant: str = "vq_vae", **settings: object) -> QuantisedVAE:
    """A model of 2 x 4 binary pixels with a 1 x 2 grid of codes, small enough to add up."""
    quantiser = {"name": "vq", "codes": 3} if name == "vq" else {"name": "fsq", "levels": [3, 2]}
    small = {"latent": 4, "channels": [6], "hidden": 6, "prior": {"hidden": 8}, "quantiser": quantiser}
    model = create_model(variant, data=TINY, **small | settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.eval()


def every_image() -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)), dtype=torch.float64).view(-1, 1, 2, 4)


@pytest.mark.parametrize("name", ["vq", "fsq"])
def test_the_bound_is_below_the_exact_log_likelihood_and_sums_to_at_most_one(name: str) -> None:
    model, x = tiny(name), every_image()
    with torch.no_grad():
        elbo = model.terms(x).elbo
        grids = every_grid(1, 2, model.quantiser.codes)
        output = model.decode(model.quantiser.embed(grids).double())
        joint = torch.stack([model.likelihood.log_prob(o.expand(256, -1, -1, -1), x) for o in output])
        exact = torch.logsumexp(joint + model.prior.log_prob(grids).unsqueeze(1), 0)
    assert torch.logsumexp(exact, 0).item() == pytest.approx(0.0, abs=1e-10)
    assert (elbo <= exact + 1e-12).all()
    assert elbo.exp().sum() < 1.0
    assert len(model.codes(x).flatten(1).unique(dim=0)) > 1


def test_the_terms_are_the_two_halves_of_the_bound() -> None:
    model, x = tiny(), every_image()
    terms = model.terms(x)
    codes = model.codes(x)
    output = model.decode(model.quantiser.embed(codes))
    torch.testing.assert_close(terms.distortion, -model.likelihood.log_prob(output, x))
    torch.testing.assert_close(terms.rate, -model.prior.log_prob(codes).unsqueeze(1))
    assert torch.equal(model.log_weights(x, k=3), terms.elbo.expand(3, 256))
    assert torch.equal(terms.aux["codes"], codes)
    torch.testing.assert_close(terms.aux["perplexity"], perplexity(code_counts(codes, 3)), check_dtype=False)


def test_samples_are_decoded_codes_of_the_prior() -> None:
    model = tiny()
    with torch.no_grad():
        possible = model.likelihood.mean(model.decode(model.quantiser.embed(every_grid(1, 2, 3)))).flatten(1)
        distance, which = torch.cdist(model.sample(2000).flatten(1), possible).min(1)
    assert distance.max() < 1e-6
    expected = model.prior.log_prob(every_grid(1, 2, 3)).exp()
    frequency = torch.bincount(which, minlength=9).double() / 2000
    torch.testing.assert_close(frequency, expected, atol=0.05, rtol=0)


def test_the_model_s_codebook_starts_at_what_its_encoder_makes_of_the_first_images() -> None:
    model, x = tiny(), every_image()
    with torch.no_grad():
        rows = model.encode(x).movedim(1, -1).flatten(0, -2)
        model.initialise(x)
    assert torch.cdist(model.quantiser.codebook, rows).min(1).values.max() < 1e-6
    assert torch.equal(model.quantiser.cluster_sum, model.quantiser.codebook)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (1, 7, 9), (3, 5, 2)])
@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_any_size_of_image(shape: tuple[int, int, int], halvings: int) -> None:
    spec = DataSpec(shape=shape, support="8-bit")
    model = create_model("vq_vae", data=spec, channels=[4] * halvings, hidden=4, prior={"hidden": 4})
    x = torch.rand(2, *shape)
    assert model.reconstruct(x).shape == model.sample(2).shape == x.shape
    assert model.grid == tuple(math.ceil(side / 2**halvings) for side in shape[1:])
    assert torch.isfinite(model.terms(x).elbo).all()


def test_the_code_of_an_image_is_what_its_reconstruction_needs() -> None:
    model, x = tiny(), every_image()
    vectors = model.represent(x).view(256, 4, 1, 2)
    torch.testing.assert_close(model.likelihood.mean(model.decode(vectors)), model.reconstruct(x))


def test_the_stages_follow_the_fraction_of_training() -> None:
    model, x = tiny(prior_from=0.5).train(), every_image()
    assert set(model.losses(x, None, Progress(1.0, 0.0))) == set(model.losses(x, None, Progress(1.0, 0.49))) == {"vae"}
    assert set(model.losses(x, None, Progress(1.0, 0.5))) == {"prior"}
    assert set(model.losses(x)) == set(model.losses(x, None, Progress(1.0))) == {"vae", "prior"}


def test_the_loss_is_distortion_and_commitment_whatever_the_batch() -> None:
    model, x = tiny(), every_image()
    terms = model.terms(x)
    expected = (terms.distortion + terms.aux["commitment"]).mean()
    torch.testing.assert_close(model.losses(x)["vae"], expected)
    halves = [model.losses(x[:128]), model.losses(x[128:])]
    for name in ("vae", "prior"):
        torch.testing.assert_close(0.5 * (halves[0][name] + halves[1][name]), model.losses(x)[name])


def test_the_codebook_moves_in_training_of_the_autoencoder_only() -> None:
    model, x = tiny(prior_from=0.5), every_image()

    def moved(progress: float) -> bool:
        before = model.quantiser.codebook.clone()
        model.losses(x, None, progress)
        model.after_step()
        return not torch.equal(model.quantiser.codebook, before)

    assert not moved(Progress(1.0, 0.0)), "in evaluation mode"
    model.train()
    assert moved(Progress(1.0, 0.0))
    assert not moved(Progress(1.0, 0.7)), "while the prior is trained"
    assert moved(1.0)
    before = model.quantiser.codebook.clone()
    model.terms(x)
    model.after_step()
    assert torch.equal(model.quantiser.codebook, before), "terms only measure"


def test_without_memory_a_step_of_the_model_leaves_each_code_at_the_mean_of_what_was_encoded_to_it() -> None:
    model, x = tiny(quantiser={"codes": 3, "decay": 0.0, "restart_below": 0.0}).train(), every_image()
    rows = model.encode(x).movedim(1, -1).flatten(0, -2).detach()
    codes = model.codes(x).flatten()
    model.losses(x, None, Progress(1.0, 0.0))
    model.after_step()
    for code in codes.unique():
        torch.testing.assert_close(model.quantiser.codebook[code], rows[codes == code].mean(0), rtol=1e-4, atol=1e-5)


def test_an_image_that_the_halvings_do_not_divide_is_padded_below_and_to_the_right() -> None:
    model, x = create_model("vq_vae", data=DataSpec((1, 5, 7), "binary")), torch.rand(2, 1, 5, 7)
    padded = torch.zeros(2, 1, 8, 8)
    padded[:, :, :5, :7] = x
    torch.testing.assert_close(model.encode(x), model.encoder(padded))


class Interrupted:
    """Asks for a stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def trainer(model: VQVAE, folder=None, steps: int = 0) -> Trainer:
    pixels = (torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(3)) < 0.3).to(torch.uint8) * 255
    batches = Batches(Images(pixels), batch_size=16, shuffle_seed=0)
    config = TrainConfig(epochs=5, batch_size=16, learning_rate=5e-3, keep="last")
    return Trainer(model, batches, batches, config, choose("cpu"), folder, should_stop=Interrupted(steps))


def small(**settings: object) -> VQVAE:
    torch.manual_seed(2)
    spec = DataSpec(shape=(1, 8, 8), support="binary")
    quantiser = {"codes": 8, "decay": 0.5, "restart_below": 0.5}
    model = create_model("vq_vae", data=spec, channels=[4, 8], hidden=8, prior={"hidden": 8}, quantiser=quantiser)
    torch.manual_seed(4)
    return model


@pytest.mark.parametrize("stop", [5, 14], ids=["autoencoder", "prior"])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, stop: int) -> None:
    from zoo.training.trainer import Stopped

    whole = small()
    trainer(whole).fit()
    first = small()
    with pytest.raises(Stopped):
        trainer(first, tmp_path, steps=stop).fit()
    second = small()
    torch.manual_seed(99)
    trainer(second, tmp_path).fit()
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_the_autoencoder_stands_still_while_the_prior_is_trained() -> None:
    model = small()
    seen = []

    def look() -> bool:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return False

    run = trainer(model)
    run.should_stop = look
    run.fit()
    first, middle, last = seen[0], seen[9], seen[-1]
    frozen = [name for name in last if not name.startswith("prior.")]
    assert run.steps == 20 and model.settings.prior_from == 0.6
    assert any(not torch.equal(first[name], middle[name]) for name in frozen)
    later = seen[-4]
    assert all(torch.equal(later[name], last[name]) for name in frozen)
    assert any(not torch.equal(later[name], last[name]) for name in last if name.startswith("prior."))


def test_fsq_needs_at_least_two_levels() -> None:
    with pytest.raises(UsageError, match="levels"):
        create_model("vq_vae", data=TINY, channels=[4], quantiser={"name": "fsq", "levels": [3, 1]})
