"""Evaluation noise: standard normal, and a function of the example alone."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from zoo import noise


def draw(ids: torch.Tensor, samples: range = range(1), seed: int = 3, width: int = 20) -> torch.Tensor:
    with noise.keyed(seed, ids, samples):
        return noise.normal(torch.empty(len(ids) * len(samples), width))


def test_keyed_numbers_are_standard_normal_and_uncorrelated() -> None:
    values = draw(torch.arange(500), range(20))
    assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3
    table = values.view(20, 500, 20)
    error = (500 * 20) ** -0.5
    for a, b in ((table[0], table[1]), (table[:, :250], table[:, 250:])):
        assert abs((a * b).mean()) < 5 * error
    assert abs((values[:, 1:] * values[:, :-1]).mean()) < 5 * values.numel() ** -0.5


def test_a_number_depends_on_its_example_and_sample_only() -> None:
    whole = draw(torch.arange(64), range(8)).view(8, 64, 20)
    piece = draw(torch.tensor([40, 7]), range(3, 5)).view(2, 2, 20)
    assert torch.equal(piece, whole[3:5][:, [40, 7]])
    assert not torch.equal(whole, draw(torch.arange(64), range(8), seed=4).view(8, 64, 20))


def test_each_draw_of_a_block_is_new() -> None:
    with noise.keyed(0, torch.arange(1000)):
        first, second = noise.normal(torch.empty(1000, 4)), noise.normal(torch.empty(1000, 4))
    assert abs((first * second).mean()) < 5 * 4000**-0.5


def test_uniform_is_open_at_both_ends() -> None:
    with noise.keyed(0, torch.arange(200_000)):
        values = noise.uniform(torch.empty(200_000, 10))
    assert 0 < values.min() and values.max() < 1
    assert stats.kstest(values.flatten()[:50_000].numpy(), "uniform").pvalue > 1e-3


def test_outside_the_block_the_global_generator_is_used_and_inside_it_is_not() -> None:
    torch.manual_seed(1)
    expected = torch.randn(3, 2)
    torch.manual_seed(1)
    draw(torch.arange(5))
    assert torch.equal(noise.normal(torch.empty(3, 2)), expected)


def test_the_wrong_number_of_rows_is_refused() -> None:
    with noise.keyed(0, torch.arange(4)), pytest.raises(ValueError, match="4 rows"):
        noise.normal(torch.empty(3, 2))
    with noise.keyed(0, torch.arange(4)), pytest.raises(ValueError, match="for training"):
        noise.normal(torch.empty(4, 2), shared=True)


def test_what_is_shared_is_the_same_for_every_part_of_a_batch() -> None:
    torch.manual_seed(5)
    whole = noise.normal(torch.empty(12, 3), shared=True), noise.normal(torch.empty(6, 2))
    for size in (1, 2, 3, 6):
        torch.manual_seed(5)
        tape: list[torch.Tensor] = []
        for start in range(0, 6, size):
            with noise.part_of(6, start, start + size, tape):
                assert torch.equal(noise.normal(torch.empty(12, 3), shared=True), whole[0])
                assert torch.equal(noise.normal(torch.empty(size, 2)), whole[1][start : start + size])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_half_types_give_float32(dtype: torch.dtype) -> None:
    expected = torch.float64 if dtype is torch.float64 else torch.float32
    assert noise.normal(torch.empty(2, 2, dtype=dtype)).dtype is expected


def test_a_source_is_what_is_drawn_from_and_nothing_else_moves() -> None:
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    wanted = [noise.normal(torch.empty(4, 5)), noise.uniform(torch.empty(3))]
    before = torch.get_rng_state()
    with noise.source(generator):
        found = [noise.normal(torch.empty(4, 5)), noise.uniform(torch.empty(3))]
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert torch.equal(before, torch.get_rng_state())
    with noise.source(generator), noise.part_of(6, 2, 4, []):
        part = noise.normal(torch.empty(2, 5))
    torch.testing.assert_close(part, noise.normal(torch.empty(6, 5))[2:4])
