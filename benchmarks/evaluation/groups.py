"""What each of several groups of latents carries: its part of the rate, and how many of its dimensions are active."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmarks.metrics.features import mean_and_error
from benchmarks.metrics.likelihood import active
from zoo.errors import ZooError
from zoo.models.base import VAE


def group_rates(model: VAE, rates: Tensor) -> list[dict[str, Any]]:
    """Of each group, as a record has it (`benchmarks.record.GroupRate`), the mean of ``rates`` (N, G) nats over the
    images; nothing where there is one group, whose rate is the rate.

    Raises:
        ZooError: the variant names, or sizes, another number of groups.
    """
    count = rates.shape[1]
    if count < 2:
        return []
    names = model.group_names or tuple(map(str, range(1, count + 1)))
    sizes = model.group_sizes or (None,) * count
    for what, said in (("group_names", names), ("group_sizes", sizes)):
        if len(said) != count:
            raise ZooError(f"its rate has {count} groups, and its `{what}` {len(said)}.")
    made = []
    for name, size, values in zip(names, sizes, rates.unbind(1), strict=True):
        found = mean_and_error(values)
        made.append({"name": name, "value": found.value, "stderr": found.stderr, "dimensions": size, "active": None})
    return made


def with_active(made: list[dict[str, Any]], model: VAE, representation: Tensor) -> list[dict[str, Any]]:
    """What `group_rates` gave, each with how many dimensions of its part of the code (N, D) are active over N images;
    as they are where the code is not made of those of each group, and of one image.

    Raises:
        ZooError: the sizes of the groups do not add up to D.
    """
    n, dimensions = representation.shape
    if not made or model.group_sizes is None or n < 2:
        return made
    if (total := sum(model.group_sizes)) != dimensions:
        raise ZooError(f"its code has {dimensions} dimensions, and its `group_sizes` add up to {total}.")
    parts = active(representation, model.code_variance).split(model.group_sizes)
    return [one | {"active": int(part.sum())} for one, part in zip(made, parts, strict=True)]
