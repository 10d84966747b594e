"""The numbers of many steps added up at once, so that counting costs the hot loop one operation a number."""

from __future__ import annotations

import torch
from torch import Tensor

LOGGED = ("loss", "elbo", "rate", "distortion")
# Of a model that bounds nothing: what would be its ELBO is minus its reconstruction loss, and it has no rate.
UNBOUNDED = ("loss", "", "", "reconstruction_loss")


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
