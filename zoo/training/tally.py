"""The numbers of many steps added up at once, so that counting costs the hot loop one operation a number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LOGGED = ("loss", "elbo", "rate", "distortion")
# Of a model that bounds nothing: what would be its ELBO is minus its reconstruction loss, and it has no rate.
UNBOUNDED = ("loss", "", "", "reconstruction_loss")
# A run whose updates are skipped this many times in a row will not recover by waiting.
HOPELESS = 100


class Tally:
    """What the steps of a training came to.

    Attributes:
        totals, in_a_row: as `settle` has them, of the epoch and of the run.
        skipped: 0-dim, how many updates were left out in all.
        hopeless: 0-dim, whether `HOPELESS` of them were so in a row. It stays set until somebody looks: when that is
            depends on the clock, what comes of it must not. So no update after the one that set it is counted.
    """

    def __init__(self, device: torch.device) -> None:
        self.totals = torch.zeros(len(LOGGED) + 1, device=device, dtype=torch.float64)
        self.in_a_row = torch.zeros((), device=device)
        self.skipped = torch.zeros((), device=device)
        self.hopeless = torch.zeros((), device=device)
        self.waiting: list[tuple[Tensor, Tensor]] = []

    def note(self, row: Tensor, skipped: Tensor) -> None:
        """Keep the numbers of one step (3,), and how many of its updates were skipped, for `count`."""
        self.waiting.append((row, skipped))

    def count(self) -> None:
        """Count the steps that were noted, of which there are some."""
        rows, skips = zip(*self.waiting, strict=True)
        self.waiting.clear()
        self.add(torch.stack(rows), torch.stack(skips))

    def add(self, rows: Tensor, skips: Tensor) -> None:
        """Count steps, of ``rows`` (n, 3) and ``skips`` (n,), as `settle` says."""
        in_a_row = settle(rows, skips, self.totals, self.in_a_row)
        hopeless = torch.cat([self.hopeless.view(1), (in_a_row >= HOPELESS).float()]).cummax(0).values
        self.skipped += (skips * (1 - hopeless[:-1])).sum()
        self.hopeless = hopeless[-1]

    def means(self, names: Sequence[str]) -> dict[str, float]:
        """The means of what is counted, under those of ``names`` that are not empty; none where no step counts. Waits
        for the device."""
        *sums, count = self.totals.tolist()
        return {name: value / count for name, value in zip(names, sums, strict=True) if name} if count else {}


@torch.no_grad()
def settle(rows: Tensor, skipped: Tensor, totals: Tensor, in_a_row: Tensor) -> Tensor:
    """Add the numbers of consecutive steps to what was counted before them, in place. Waits for nothing.

    The result is that of adding one step after the other, however the steps were cut into calls, so that a run that
    was stopped in between counts the same.

    Args:
        rows: (n, 3) loss, rate and distortion in nats.
        skipped: (n,) how many updates of a step were left out, one a parameter group at most.
        totals: float64 (5,), the sums of `LOGGED` and the number of steps that were counted. A skipped step, and one
            whose numbers are not finite, is left out: it would hide the others.
        in_a_row: 0-dim, how many steps in a row up to the last one had an update that was skipped.

    Returns:
        (n,): how many steps in a row up to each of these had an update that was skipped.
    """
    loss, rate, distortion = rows.unbind(1)
    numbers = torch.stack([loss, -(rate + distortion), rate, distortion, torch.ones_like(loss)], 1)
    applied = skipped == 0
    good = torch.isfinite(numbers).all(1) & applied
    numbers = torch.where(good.unsqueeze(1), numbers, 0.0).to(totals.dtype)
    # A running sum adds in order; `sum` would add in pairs.
    totals.copy_(torch.cat([totals.unsqueeze(0), numbers]).cumsum(0)[-1])
    step = torch.arange(1, len(rows) + 1, device=rows.device)
    last_applied = torch.where(applied, step, 0).cummax(0).values
    run = step - last_applied + torch.where(last_applied == 0, in_a_row, 0.0)
    in_a_row.copy_(run[-1])
    return run
