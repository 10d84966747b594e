"""`zoo score FILE.npz`: disentanglement scores of codes that somebody else computed.

The file holds ``z_train`` (N, D), ``factors_train`` (N, F), ``z_test`` (M, D), ``factors_test`` (M, F), and
if wanted ``factor_names`` (F,) and ``metrics`` (names, used where none are given).

Several files are of one model each, trained with other seeds, and have a UDR, which needs no factors: ``z_test`` of the
same images in the same order, and ``kl`` (D,), the mean over them of the KL of each code to its prior, in nats.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.metrics import disentanglement, udr
from benchmarks.metrics.codes import Codes
from benchmarks.metrics.disentanglement import Scores, score_codes
from zoo.errors import UsageError
from zoo.files import BROKEN_NPZ, npz_error

ARRAYS = ("z_train", "factors_train", "z_test", "factors_test")
MORE = ("factor_names", "metrics")
AGREEING = ("z_test", "kl")  # what several files need

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


def compare_files(paths: Sequence[str | Path]) -> list[udr.Agreement]:
    """The UDR of the codes in each of several npz files beside those in the others, in the order of ``paths``.

    Raises:
        UsageError: a file alone or twice, codes of other images (or factors of others), or as `score_file` and
            `benchmarks.metrics.udr.pairwise`.
    """
    names = list(map(str, paths))
    places = [Path(name).resolve() for name in names]
    if twice := [name for i, name in enumerate(names) if places[i] in places[:i]]:
        raise UsageError(f"{twice[0]} is given twice: the UDR is that of a model beside others.")
    files = [_read(Path(path), AGREEING, ("factors_test",)) for path in paths]
    factors = [file.get("factors_test") for file in files]
    for name, other in zip(names, factors, strict=True):
        if factors[0] is not None and other is not None and not np.array_equal(factors[0], other):
            raise UsageError(f"{names[0]} and {name} are of other images: their factors_test differ.")
    return udr.agreements([file["z_test"] for file in files], [file["kl"] for file in files], names)


def _read(path: Path, needed: Sequence[str] = ARRAYS, more: Sequence[str] = MORE) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UsageError(f"{path} is a folder." if path.is_dir() else f"there is no file {path}.")
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise UsageError(f"{path} is a single array; `zoo score` reads an npz with {', '.join(needed)}.")
        with file:
            missing = [name for name in needed if name not in file]
            if missing:
                raise UsageError(f"{path} has no array {', '.join(missing)}; it needs {', '.join(needed)}.")
            return {name: file[name] for name in (*needed, *more) if name in file}
    except BROKEN_NPZ as error:
        raise npz_error(path, error) from error
