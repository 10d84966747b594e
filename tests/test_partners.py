"""Partners against their law, by counting: who shares which factors with whom, how often, and from which split."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from zoo.data.batches import Batches
from zoo.data.companions import NUMBERS, parted
from zoo.data.images import Images
from zoo.data.partners import MOST_WAYS, Partners
from zoo.errors import UsageError

SIZES = (2, 3, 4)


def some(values: Tensor, sizes: tuple[int, ...], **known: object) -> Images:
    """Images whose only pixel is their number."""
    names = tuple(f"factor {j}" for j in range(len(sizes)))
    pixels = torch.arange(len(values), dtype=torch.uint8).view(-1, 1, 1, 1)
    return Images(pixels, factors=values, factor_names=names, factor_sizes=sizes, factor_kind="exact", **known)


def a_part_of_a_grid() -> Images:
    """17 of the 24 pictures of a grid, as a training split is."""
    grid = torch.cartesian_prod(*map(torch.arange, SIZES))
    return some(grid[torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))[:17]], SIZES)


def of_classes() -> Images:
    return Images(torch.arange(9, dtype=torch.uint8).view(9, 1, 1, 1), labels=torch.tensor([0, 2, 2, 0, 3, 2, 0, 2, 0]))


def by_hand(images: Images, changed: int | None) -> list[dict[int, Fraction]]:
    """Of each image how likely each is its partner, from what the law says."""
    values, count = images.factors.tolist(), len(images.factor_names)
    numbers = range(1, count) if changed is None else [changed]
    found = []
    for own in values:
        chances: dict[int, Fraction] = Counter()
        for k in numbers:
            for anew in itertools.combinations(range(count), k):
                kept = [j for j in range(count) if j not in anew]
                same = [i for i, other in enumerate(values) if all(other[j] == own[j] for j in kept)]
                for i in same:
                    chances[i] += Fraction(1, len(numbers) * math.comb(count, k) * len(same))
        found.append(dict(chances))
    return found


def counted(partners: Partners, n: int, places: int) -> list[dict[int, Fraction]]:
    """The same from all pairs of numbers up to where both are even; ``places`` is a multiple of every cell's size."""
    ways = len(partners.ways)
    numbers = torch.cartesian_prod(torch.arange(ways), torch.arange(places))
    found = []
    for image in range(n):
        drawn = partners.of(torch.full((len(numbers),), image), numbers)
        found.append({i: Fraction(times, len(numbers)) for i, times in Counter(drawn.tolist()).items()})
    return found


def numbers_of(x: Tensor) -> Tensor:
    return (255 * x).round().long().flatten()


def drawn(batches: Batches, epochs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The numbers of images and of their partners."""
    batches.generator = torch.Generator().manual_seed(seed)
    pairs = [(x, y) for epoch in range(epochs) for x, y in batches.epoch(epoch)]
    return tuple(numbers_of(torch.cat(part)) for part in zip(*pairs, strict=True))


# ---- the law ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [None, 1, 2])
def test_a_partner_is_as_likely_as_the_law_says(changed: int | None) -> None:
    images = a_part_of_a_grid()
    assert counted(Partners(images, changed), 17, math.lcm(*range(1, 13))) == by_hand(images, changed)


def test_each_number_of_factors_is_as_likely_where_they_can_be_chosen_in_other_numbers_of_ways() -> None:
    # Of four factors one can be chosen in four ways, and two in six.
    grid = torch.cartesian_prod(*[torch.arange(2)] * 4)
    images = some(grid[torch.randperm(16, generator=torch.Generator().manual_seed(0))[:11]], (2,) * 4)
    assert counted(Partners(images), 11, math.lcm(*range(1, 9))) == by_hand(images, None)


def test_of_images_without_factors_the_class_is_shared() -> None:
    images = of_classes()
    same = [(images.labels == label).nonzero().flatten().tolist() for label in images.labels]
    expected = [{i: Fraction(1, len(members)) for i in members} for members in same]
    assert counted(Partners(images), 9, 12) == expected
    # One factor alone cannot be shared and drawn anew.
    images = Images(images.pixels, images.labels, torch.zeros(9, 1).long(), ("a",), (1,), "exact")
    assert counted(Partners(images), 9, 12) == expected


def test_factors_of_very_many_values_are_told_apart() -> None:
    # 400^8 is beyond 64 bits.
    values = torch.randint(0, 2, (12, 8), generator=torch.Generator().manual_seed(1)) * 399
    values[1::2] = values[::2]
    values[1, 0] = 7
    images = some(values, (400,) * 8)
    law = by_hand(images, 1)
    assert counted(Partners(images, 1), 12, math.lcm(*range(1, 13))) == law and len({len(own) for own in law}) > 1


def test_a_factor_whose_place_in_a_number_is_beyond_64_bits_counts() -> None:
    values = torch.zeros(6, 6, dtype=torch.int64)
    values[3:, 0] = 1  # times 2^64 in a number of five digits of 16 bits
    partners = Partners(some(values, (2**16,) * 6), 1)
    shared = [{i for i, share in own.items() if share} for own in counted(partners, 6, 6)]
    # Only where it is the one that is drawn anew are all six alike.
    assert shared == [{*range(6)}] * 6
    ways = torch.arange(len(partners.ways)).repeat_interleave(6)
    numbers = torch.stack([ways, torch.arange(6).repeat(len(partners.ways))], 1)
    others = [(partners.of(torch.full((len(numbers),), i), numbers) // 3 != i // 3).double().mean() for i in range(6)]
    assert torch.stack(others).tolist() == pytest.approx([1 / 6 / 2] * 6)


def test_all_of_it_moves_to_a_device_and_what_there_was_stays() -> None:
    partners = Partners(a_part_of_a_grid())
    moved = partners.to(torch.device("meta"))
    for made, device in ((moved, "meta"), (partners, "cpu")):
        found = {name: value.device.type for name, value in vars(made).items() if isinstance(value, Tensor)}
        assert len(found) == 4 and set(found.values()) == {device}
    assert moved.n == partners.n


@pytest.mark.parametrize("changed", [None, 1])
def test_batches_draw_the_factors_that_are_shared_as_often_as_the_law_says(changed: int | None) -> None:
    images = a_part_of_a_grid()
    first, second = drawn(Batches(images, batch_size=17, shuffle_seed=0, partners=Partners(images, changed)), 600)
    law = by_hand(images, changed)
    assert sorted(first.tolist()) == sorted([*range(17)] * 600)
    for j in range(len(SIZES)):
        column = images.factors[:, j]
        chances = [float(sum(p for other, p in own.items() if column[other] == column[i])) for i, own in enumerate(law)]
        mean = sum(chances) / 17
        error = math.sqrt(sum(p * (1 - p) for p in chances) / 17 / len(first))
        assert abs((column[first] == column[second]).double().mean().item() - mean) < 4.5 * error
    alone = sum(float(own[i]) for i, own in enumerate(law)) / 17
    assert abs((first == second).double().mean().item() - alone) < 4.5 * math.sqrt(alone / len(first))


@pytest.mark.parametrize("changed", [None, 1, 2])
def test_what_is_told_is_the_way_that_a_partner_was_drawn_by(changed: int | None) -> None:
    images = a_part_of_a_grid()
    partners = Partners(images, changed, tell=True)
    ways = len(partners.ways)
    numbers = torch.cartesian_prod(torch.arange(ways), torch.arange(12))
    told = partners.told(numbers)
    # Of all ways each number of factors drawn anew as often, and of a number each choice.
    often = Counter(tuple(row) for row in told.long().tolist())
    asked = range(1, 3) if changed is None else [changed]
    expected = {
        tuple(0 if j in anew else 1 for j in range(3)): Fraction(len(numbers), len(asked) * math.comb(3, k))
        for k in asked
        for anew in itertools.combinations(range(3), k)
    }
    assert often == expected
    for image in range(17):
        other = partners.of(torch.full((len(numbers),), image), numbers)
        same = images.factors[other] == images.factors[image]
        assert (same | (told == 0)).all()
    assert torch.equal(partners.told(numbers.view(ways, 12, 2)), told.view(ways, 12, 3))
    assert Partners(images, changed).told(numbers) is None


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_a_partner_is_drawn_anew_at_each_visit_from_the_generator_of_the_run() -> None:
    images = a_part_of_a_grid()
    batches = Batches(images, batch_size=5, shuffle_seed=0, drop_last=False, partners=Partners(images))
    before = torch.get_rng_state()
    (first, theirs), (again, same) = drawn(batches, 2), drawn(batches, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and torch.equal(theirs, same)
    assert not torch.equal(drawn(batches, 2, seed=1)[1], theirs)
    by_image = [part.gather(0, own.argsort()) for own, part in zip(first.split(17), theirs.split(17), strict=True)]
    assert not torch.equal(*by_image)


def test_an_epoch_that_is_resumed_draws_the_rest_of_its_partners() -> None:
    images = a_part_of_a_grid()
    batches = Batches(images, batch_size=5, shuffle_seed=0, partners=Partners(images))
    batches.generator = torch.Generator().manual_seed(3)
    epoch = batches.epoch(0)
    next(epoch)
    state = batches.generator.get_state()
    rest = list(epoch)
    batches.generator = torch.Generator().set_state(state)
    for (x, y), (other_x, other_y) in zip(rest, batches.epoch(0, start=1), strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)


def test_processes_share_the_pairs_of_a_batch() -> None:
    images = some(a_part_of_a_grid().factors[:16], SIZES)
    common = dict(shuffle_seed=1, partners=Partners(images), binarise_on_the_fly=True)
    whole = Batches(images, batch_size=8, **common)
    parts = [Batches(images, batch_size=4, rank=rank, world=2, **common) for rank in range(2)]
    for batches in (whole, *parts):
        batches.generator = torch.Generator().manual_seed(2)
    for (x, y), *shares in zip(whole.epoch(0), *(part.epoch(0) for part in parts), strict=True):
        for of_all, of_each in zip((x, y), zip(*shares, strict=True), strict=True):
            assert torch.equal(of_all, torch.cat(of_each))
    assert len({batches.generator.get_state().numpy().tobytes() for batches in (whole, *parts)}) == 1


@pytest.mark.parametrize("drawn", ["nothing", "bits", "noise"])
def test_pictures_that_stay_in_host_memory_have_the_same_partners(drawn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.data.batches._room", lambda device, limit: limit)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)  # needs a GPU
    images = dataclasses.replace(a_part_of_a_grid(), noise_seed=3 if drawn == "noise" else None)
    common = dict(shuffle_seed=0, partners=Partners(images), binarise_on_the_fly=drawn == "bits")
    kept, streamed = (Batches(images, batch_size=5, resident_bytes=limit, **common) for limit in (10_000, 10))
    assert kept.resident and not streamed.resident
    for batches in (kept, streamed):
        batches.generator = torch.Generator().manual_seed(4)
    for (x, y), (other_x, other_y) in zip(kept.epoch(1), streamed.epoch(1), strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)
    assert torch.equal(kept.generator.get_state(), streamed.generator.get_state())


@pytest.mark.parametrize("drawn", ["nothing", "bits", "noise"])
def test_what_is_taken_by_number_has_the_partners_of_an_epoch(drawn: str) -> None:
    images = dataclasses.replace(a_part_of_a_grid(), noise_seed=3 if drawn == "noise" else None)
    dynamic = drawn == "bits"
    batches = Batches(images, batch_size=6, shuffle_seed=0, partners=Partners(images), binarise_on_the_fly=dynamic)
    index = batches.order(0)[:6]
    taken = []
    for seed in (4, 5):
        batches.generator = torch.Generator().manual_seed(seed)
        taken.append(batches.take(index))
        batches.generator = torch.Generator().manual_seed(seed)
        for ours, theirs in zip(taken[-1], next(batches.epoch(0)), strict=True):
            assert torch.equal(ours, theirs)
    generators = [torch.Generator().manual_seed(seed) for seed in (4, 5)]
    for several, each in zip(batches.take(index.repeat(2, 1), generators), zip(*taken, strict=True), strict=True):
        assert torch.equal(several, torch.stack(each))


def test_bits_of_an_image_and_of_its_partner_are_drawn_apart() -> None:
    grey = Images(torch.full((8, 1, 20, 20), 128, dtype=torch.uint8), labels=torch.zeros(8).long())
    x, y = next(Batches(grey, batch_size=8, binarise_on_the_fly=True, partners=Partners(grey)).epoch(0))
    assert set(x.unique().tolist()) == set(y.unique().tolist()) == {0.0, 1.0}
    assert 0.4 < (x == y).float().mean() < 0.6


def test_noise_on_an_image_and_on_its_partner_is_drawn_apart() -> None:
    grey = Images(torch.full((8, 1, 20, 20), 128, dtype=torch.uint8), labels=torch.zeros(8).long(), noise_seed=0)
    x, y = next(Batches(grey, batch_size=8, partners=Partners(grey)).epoch(0))
    assert all(torch.equal((256 * one).floor(), torch.full_like(one, 128.0)) for one in (x, y))
    assert torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1].abs() < 0.1 and (x != y).float().mean() > 0.99


def test_telling_changes_no_partner_and_the_word_is_of_the_pair_that_it_comes_with() -> None:
    images = a_part_of_a_grid()
    pairs = []
    for tell in (False, True):
        batches = Batches(images, batch_size=5, shuffle_seed=0, partners=Partners(images, tell=tell))
        batches.generator = torch.Generator().manual_seed(4)
        pairs.append(list(batches.epoch(0)))
        index, generators = batches.order(0)[:5].repeat(2, 1), [torch.Generator().manual_seed(s) for s in (4, 5)]
        pairs[-1].append(batches.take(index, generators))
    for (x, y), (same, both) in zip(*pairs, strict=True):
        assert torch.equal(x, same)
        partners, told = parted(both.flatten(0, -2), (1, 1, 1))
        assert torch.equal(partners, y.view_as(partners)) and told.shape == (len(partners), 3)
        mine, theirs = (images.factors[numbers_of(part)] for part in (x, partners))
        assert ((mine == theirs) | (told == 0)).all() and not (mine == theirs).all()


def test_in_evaluation_nobody_has_a_partner() -> None:
    images = a_part_of_a_grid()
    assert all(y is None for _, _, y in Batches(images, batch_size=5, partners=Partners(images)).sequential())


def test_numbers_are_drawn_so_far_that_a_remainder_is_even() -> None:
    made = torch.empty(10_000, dtype=torch.int64).random_(0, NUMBERS)
    assert made.min() >= 0 and made.max() > NUMBERS * 0.99
    assert 10**9 / NUMBERS < 1e-9


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_pairs_that_cannot_be_drawn_are_refused() -> None:
    grid, classes = a_part_of_a_grid(), of_classes()
    plain = Images(classes.pixels)
    one = some(torch.zeros(5, 1).long(), (1,))
    hidden = Images(classes.pixels, labels=classes.labels - 1)
    faces, thirteen = (some(torch.zeros(5, count).long(), (2,) * count) for count in (40, 13))
    for images, changed, said in (
        (plain, None, "two named factors or more, or with classes"),
        (one, None, "two named factors or more, or with classes"),
        (hidden, None, "hides that of some"),
        (classes, 1, "changed=1 is of data with factors"),
        (grid, 3, "changed=3: of the 3 factors of this data 1 to 2"),
        (faces, None, f"1 to 39 of 40 factors can be chosen in more than {MOST_WAYS} ways"),
        (faces, 2, "^2 of 40 factors"),
        (thirteen, 3, "^3 of 13 factors"),  # 286
    ):
        with pytest.raises(UsageError, match=said):
            Partners(images, changed)
    assert len(Partners(faces, 39).ways) == 40 and len(Partners(thirteen, 2).ways) == 78
    with pytest.raises(UsageError, match="which factors a pair shares can be told of data with two named factors"):
        Partners(classes, tell=True)
