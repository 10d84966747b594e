"""Counting many steps at once is counting one after the other, wherever the run was cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zoo.training import tally
from zoo.training.tally import LOGGED, Tally, settle


def counted(rows: Tensor, cuts: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    totals, in_a_row = torch.zeros(len(LOGGED) + 1, dtype=torch.float64), torch.zeros(())
    pieces = [piece for piece in rows.tensor_split(cuts) if len(piece)]
    skipped = [settle(piece[:, :3], piece[:, 3], totals, in_a_row) for piece in pieces]
    return totals, in_a_row, torch.cat(skipped).amax()


@pytest.mark.parametrize("cuts", [[], [1], [37, 38, 90], list(range(1, 100))])
def test_the_sums_do_not_depend_on_where_the_steps_are_cut(cuts: list[int]) -> None:
    # Eleven orders of magnitude apart: a sum in another order would round otherwise.
    rows = torch.randn(100, 4) * 10.0 ** torch.randint(-6, 6, (100, 4))
    rows[:, 3] = (torch.rand(100) < 0.2).float()
    whole, pieces = counted(rows, []), counted(rows, cuts)
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_a_skipped_or_non_finite_step_is_left_out() -> None:
    nan = float("nan")
    rows = torch.tensor([[3.0, 1.0, 2.0, 0.0], [nan, 1.0, 2.0, 0.0], [9.0, 4.0, 5.0, 1.0], [5.0, 2.0, 3.0, 0.0]])
    totals, _, _ = counted(rows, [])
    assert totals.tolist() == [8.0, -8.0, 3.0, 5.0, 2.0]


def test_what_is_logged_goes_by_its_name() -> None:
    made = Tally(torch.device("cpu"))
    for loss, rate, distortion in ((10.0, 3.0, 4.0), (30.0, 5.0, 8.0)):
        made.note(torch.tensor([loss, rate, distortion]), torch.tensor(0.0))
    made.count()
    assert made.means(LOGGED) == {"loss": 20.0, "elbo": -10.0, "rate": 4.0, "distortion": 6.0}
    assert made.means(tally.UNBOUNDED) == {"loss": 20.0, "reconstruction_loss": 6.0}


@pytest.mark.parametrize("cut", range(6))
@pytest.mark.parametrize(
    ("skips", "last", "longest"), [("000111", 3, 3), ("111111", 6, 6), ("111110", 0, 5), ("101011", 2, 2)]
)
def test_skipped_updates_are_counted_in_a_row(skips: str, last: int, longest: int, cut: int) -> None:
    rows = torch.zeros(6, 4)
    rows[:, 3] = torch.tensor([float(skip) for skip in skips])
    assert [value.item() for value in counted(rows, [cut])[1:]] == [last, longest]


@pytest.mark.parametrize("together", [1, 3, 100])
def test_no_update_after_the_one_that_is_hopeless_is_counted_as_skipped(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "HOPELESS", 4)
    made = Tally(torch.device("cpu"))
    found = []
    for step, skip in enumerate("0110111111"):
        made.note(torch.ones(3), torch.tensor(float(skip)))
        if (step + 1) % together == 0 or step == 9:
            made.count()
            found.append(bool(made.hopeless))
    assert not made.waiting and made.skipped.item() == 2 + 4
    assert found == sorted(found) and found[-1], "it stays hopeless"
    assert made.means(("a", "", "b", "")) == {"a": 1.0, "b": 1.0} and made.totals[-1] == 2
