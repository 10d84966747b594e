"""`zoo score FILE.npz`: disentanglement scores of codes that somebody else computed.

The file holds ``z_train`` (N, D), ``factors_train`` (N, F), ``z_test`` (M, D), ``factors_test`` (M, F), and
if wanted ``factor_names`` (F,) and ``metrics`` (names, used where none are given).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.metrics import disentanglement
from benchmarks.metrics.codes import Codes
from benchmarks.metrics.disentanglement import Scores, score_codes
from zoo.errors import UsageError
from zoo.files import BROKEN_NPZ

ARRAYS = ("z_train", "factors_train", "z_test", "factors_test")

# Every score that a file can have. A metric's name (dci@hist-gbt) asks for all of its scores.
METRICS: tuple[str, ...] = tuple(
    score for metric in disentanglement.METRICS.values() if not metric.intervenes for score in metric.scores
)


def score_file(path: str | Path, metrics: Iterable[str] | None = None) -> Scores:
    """Scores of the codes in an npz file: a dict by name, with ``identity`` and ``skipped`` on the side.

    Without a list (here or in the file): everything but the reference's DCI, which takes minutes; what these
    codes cannot have is logged with its reason. With a list: exactly that, or an error.

    Raises:
        UsageError: no such file, not an npz, an array missing, arrays that do not fit together, an unknown metric, a
            metric that was asked for and has no value.
    """
    arrays = _read(Path(path))
    names = [str(name) for name in arrays["factor_names"].ravel()] if "factor_names" in arrays else ()
    if metrics is None and "metrics" in arrays:
        metrics = [str(name) for name in arrays["metrics"].ravel()]
    wanted = None if metrics is None else list(metrics)
    disentanglement.choose(wanted)  # a wrong name is said before anything is computed
    codes = Codes(*(arrays[name] for name in ARRAYS), factor_names=names)
    scores = score_codes(codes, wanted, strict=wanted is not None)
    by_reason: dict[str, list[str]] = {}
    for name, reason in scores.skipped.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, skipped in by_reason.items():
        logging.getLogger(__name__).warning("skip %s: %s", ", ".join(skipped), reason)
    return scores


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UsageError(f"no file {path}")
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise UsageError(f"{path} is a single array; `zoo score` reads an npz with {', '.join(ARRAYS)}")
        with file:
            missing = [name for name in ARRAYS if name not in file]
            if missing:
                raise UsageError(f"{path} has no array {', '.join(missing)}; it needs {', '.join(ARRAYS)}")
            return {name: file[name] for name in (*ARRAYS, "factor_names", "metrics") if name in file}
    except BROKEN_NPZ as problem:
        raise UsageError(f"{path} is not an npz of plain numbers: {str(problem).splitlines()[0]}") from problem
