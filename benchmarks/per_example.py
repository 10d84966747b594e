"""What a metric came to for each test example, in a file beside the record: two models that were measured on the same
examples can be compared example by example, without the error that both share."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import record
from benchmarks.catalogue import ALL
from benchmarks.record import Cell, Record
from zoo.files import BROKEN_NPZ, atomic_write

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


#: The folder of records, or what says of each cell where its record is.
Records = Path | Callable[[Cell], Path]


def path_of(cell: Cell, records: Records) -> Path:
    """Beside the record of a cell in the folder ``records``, with the ending npz."""
    place = record.path_of(cell, records) if isinstance(records, Path) else records(cell)
    return place.with_suffix(".npz")


def write(values: Mapping[str, Tensor], cell: Cell, records: Records) -> None:
    """Keep ``values``, (n,) each by the name of the metric that is their mean, as float32, in the order of the split;
    nothing where there are none. Those of `of_all` follow from others, and are not kept."""
    keep(values, path_of(cell, records))


def add(values: Mapping[str, Tensor], cell: Cell, records: Records) -> None:
    """As `write`, beside the values that are there. It goes before the record that is to have these metrics: whoever is
    killed between the two leaves values that `read` passes over, as no metric says that it is their mean, and that are
    written again with the metrics. The other way round the record had its metrics for good, and never their values."""
    path = path_of(cell, records)
    there = {}
    with contextlib.suppress(FileNotFoundError):
        try:
            there = _arrays(path)
        except BROKEN_NPZ as error:
            if getattr(error, "errno", None):  # of the disk, and what lies there may be whole
                raise
            log.warning("%s cannot be read (%s), and is written anew.", path, error)
    keep(values, path, there)


def keep(values: Mapping[str, Tensor], path: Path, there: Mapping[str, np.ndarray] | None = None) -> None:
    """As `write`, in the file ``path``, beside what is ``there``."""
    new = {name: each.float().numpy() for name, each in values.items() if not name.endswith(ALL)}
    if new:
        buffer = io.BytesIO()
        np.savez(buffer, **{**(there or {}), **new})
        atomic_write(path, buffer.getvalue())


def read(of: Record, records: Records) -> dict[str, np.ndarray]:
    """(n,) float64 by metric, of a record in ``records``. Without what has not the mean and the n that the record says
    (it is then of another run of the cell), and empty where there is no file or a broken one."""
    path = path_of(of.cell, records)
    try:
        found = {name: each.astype(np.float64) for name, each in _arrays(path).items() if name in of.metrics}
    except FileNotFoundError:
        return {}
    except BROKEN_NPZ as error:
        log.warning("%s cannot be read (%s): differences are not paired by example.", path, error)
        return {}
    for name in of.metrics:
        first = name.removesuffix(ALL)
        if name != first and first in found and "elbo" in found:
            found[name] = -of_all(found["elbo"], -found[first])
    return {name: values for name, values in found.items() if _is_of(values, of, name)}


def of_all(elbo: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """What stands for the k-sample bound of each of n images where the first m alone have one.

    The bound of all is the ELBO of all and the mean gap between the two on the first ones: the difference estimator of
    survey sampling (Cochran 1977, Sampling Techniques, section 7). The first images of a split may be easier than the
    others, as those of MNIST are, by far more than their gap is smaller. The values have that mean, and their spread
    over the root of n is its standard error, for n images that are drawn from others like them and m drawn from those.

    Args:
        elbo: (n,) nats.
        bound: (m,) nats of the first m images, 2 at least.

    Returns:
        (n,) nats.
    """
    n, m = len(elbo), len(bound)
    gap = bound - elbo[:m]
    values = elbo + gap.mean()
    values[:m] += n / m * (gap - gap.mean())
    return values


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _is_of(values: np.ndarray, of: Record, name: str) -> bool:
    metric = of.metrics[name]
    # Each was rounded to float32.
    error = np.abs(values).max(initial=0.0) * np.finfo(np.float32).eps
    return values.shape == (metric.n,) and math.isclose(values.mean(), metric.value, rel_tol=1e-9, abs_tol=error)


def paired_errors(a: list[Record], b: list[Record], records: Records) -> dict[str, float]:
    """The standard error of the mean difference of two rows (records of one seed each) over the examples that both
    were measured on: of the differences of the means over seeds. By metric, of those that every record of both has an
    example; none where they were measured on other examples."""
    if any(one.data != a[0].data for one in (*a, *b)):
        return {}
    each = [[read(one, records) for one in row] for row in (a, b)]
    known = set.intersection(*(set(values) for row in each for values in row)) if a and b else set()
    errors = {}
    for metric in known:
        ours, theirs = ([values[metric] for values in row] for row in each)
        if len({len(values) for values in (*ours, *theirs)}) == 1 and len(ours[0]) > 1:
            difference = np.mean(ours, 0) - np.mean(theirs, 0)
            errors[metric] = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return errors
