"""The table of disentanglement metrics: what each needs, what identifies it, and how to compute a list.

Definitions, sample sizes and settings are those of Locatello et al. 2019 (arXiv:1811.12359, the reference),
on the mean representation; docs/metrics.md says what to make of the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import sklearn
from threadpoolctl import threadpool_limits

from benchmarks.interrupt import stoppable
from benchmarks.metrics import dci, interventions, irs, predictability, unfairness
from benchmarks.metrics.codes import Codes, FactorSpace, Undefined
from benchmarks.metrics.correlation import (
    gaussian_total_correlation,
    gaussian_wasserstein_correlation,
    mutual_info_score,
)
from benchmarks.metrics.mutual_information import BINS, mig, modularity
from zoo.errors import UsageError, unknown

Plain = str | int | float

NO_INTERVENTIONS = "needs interventions: a factor must be set by hand, and these codes are a fixed sample"

_LOGISTIC = {"estimator": "LogisticRegression", "solver": "lbfgs", "C": 1.0, "tol": 1e-4, "max_iter": 100}
_TREES = {"stages": dci.STAGES, "depth": dci.DEPTH, "learning_rate": dci.LEARNING_RATE}
_DCI = ("disentanglement", "completeness", "informativeness_train", "informativeness_test")
_UNFAIRNESS = ("unfairness", "unfairness_worst", "unfairness_chance")
_POINTS = {
    "points_train": interventions.TRAIN,
    "points_evaluation": interventions.EVALUATION,
    "batch": interventions.BATCH,
}


@dataclass(frozen=True)
class Metric:
    """One computation and the scores it yields.

    ``needs`` is empty, ``{"factors"}`` (a sample with factors; ``compute`` takes `Codes`) or ``{"factors",
    "interventions"}`` (``compute`` takes a `FactorSpace` and a seed). ``settings`` complete the identity of
    its scores. A ``slow`` metric is computed only where it is named.
    """

    name: str
    scores: tuple[str, ...]
    compute: Callable[..., dict[str, float]]
    source: str
    needs: frozenset[str] = frozenset({"factors"})
    settings: Mapping[str, Plain] = field(default_factory=dict)
    slow: bool = False

    @property
    def intervenes(self) -> bool:
        return "interventions" in self.needs

    def identity(self) -> dict[str, Plain]:
        """The settings, with the version of scikit-learn where an estimator of its decides the number."""
        version = {"sklearn": sklearn.__version__} if "estimator" in self.settings else {}
        return {**self.settings, **version}


_INTERVENTIONS = frozenset({"factors", "interventions"})
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "beta_vae_score",
            ("beta_vae_score", "beta_vae_score_train"),
            interventions.beta_vae_score,
            "Higgins et al. 2017, openreview.net/forum?id=Sy2fzU9gl",
            needs=_INTERVENTIONS,
            settings={**_LOGISTIC, **_POINTS},
        ),
        Metric(
            "factor_vae_score",
            ("factor_vae_score", "factor_vae_score_train", "factor_vae_active"),
            interventions.factor_vae_score,
            "Kim & Mnih 2018, arXiv:1802.05983",
            needs=_INTERVENTIONS,
            settings={
                "prune_below": interventions.PRUNE_BELOW,
                "n_variance": interventions.VARIANCE_SAMPLE,
                **_POINTS,
            },
        ),
        Metric("mig", ("mig",), mig, "Chen et al. 2018, arXiv:1802.04942", settings={"bins": BINS}),
        Metric(
            "dci@sklearn-gbt",
            _DCI,
            dci.dci_sklearn_gbt,
            "Eastwood & Williams 2018, openreview.net/forum?id=By-7dz-AZ",
            settings={"estimator": "GradientBoostingClassifier", **_TREES, "seed": dci.SEED},
            slow=True,
        ),
        Metric(
            "dci@hist-gbt",
            tuple(f"{name}@hist-gbt" for name in _DCI),
            dci.dci_hist_gbt,
            "Eastwood & Williams 2018, openreview.net/forum?id=By-7dz-AZ",
            settings={
                "estimator": "HistGradientBoostingClassifier",
                **_TREES,
                "importance": "gain",
                "seed": dci.SEED,
            },
        ),
        Metric(
            "unfairness@sklearn-gbt",
            _UNFAIRNESS,
            unfairness.unfairness_sklearn_gbt,
            "Locatello et al. 2019, arXiv:1905.13662",
            settings={"estimator": "GradientBoostingClassifier", **_TREES, "seed": dci.SEED},
            slow=True,
        ),
        Metric(
            "unfairness@hist-gbt",
            tuple(f"{name}@hist-gbt" for name in _UNFAIRNESS),
            unfairness.unfairness_hist_gbt,
            "Locatello et al. 2019, arXiv:1905.13662",
            settings={"estimator": "HistGradientBoostingClassifier", **_TREES, "seed": dci.SEED},
        ),
        Metric(
            "sap_discrete",
            ("sap_discrete",),
            predictability.sap_discrete,
            "Kumar et al. 2018, arXiv:1711.00848",
            settings={"estimator": "LinearSVC", "C": predictability.SVC_C, "class_weight": "balanced"},
        ),
        Metric(
            "sap_continuous",
            ("sap_continuous",),
            predictability.sap_continuous,
            "Kumar et al. 2018, arXiv:1711.00848",
        ),
        Metric(
            "modularity",
            ("modularity",),
            modularity,
            "Ridgeway & Mozer 2018, arXiv:1802.05312",
            settings={"bins": BINS},
        ),
        Metric(
            "explicitness",
            ("explicitness_train", "explicitness_test"),
            predictability.explicitness,
            "Ridgeway & Mozer 2018, arXiv:1802.05312",
            settings=_LOGISTIC,
        ),
        Metric(
            "irs",
            ("irs",),
            irs.irs,
            "Suter et al. 2019, arXiv:1811.00007",
            settings={"bins": BINS, "quantile": irs.QUANTILE},
        ),
        Metric(
            "gaussian_total_correlation",
            ("gaussian_total_correlation",),
            gaussian_total_correlation,
            "Locatello et al. 2019, arXiv:1811.12359",
            needs=frozenset(),
        ),
        Metric(
            "gaussian_wasserstein_correlation",
            ("gaussian_wasserstein_correlation", "gaussian_wasserstein_correlation_norm"),
            gaussian_wasserstein_correlation,
            "Locatello et al. 2019, arXiv:1811.12359",
            needs=frozenset(),
        ),
        Metric(
            "mutual_info_score",
            ("mutual_info_score",),
            mutual_info_score,
            "Locatello et al. 2019, arXiv:1811.12359",
            needs=frozenset(),
            settings={"bins": BINS},
        ),
    )
}


class Scores(dict[str, float]):
    """Values by score name, with ``identity`` (what each depends on) and ``skipped`` (name -> reason)."""

    def __init__(self) -> None:
        super().__init__()
        self.identity: dict[str, dict[str, Plain]] = {}
        self.skipped: dict[str, str] = {}


def choose(names: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Metric name -> the scores wanted of it; names of scores or metrics, None for all but the slow ones.

    Raises:
        UsageError: a name that is not in the table, or an empty list.
    """
    if names is None:
        return {metric.name: metric.scores for metric in METRICS.values() if not metric.slow}
    owner = {score: metric.name for metric in METRICS.values() for score in metric.scores}
    chosen: dict[str, list[str]] = {}
    for name in names:
        if name in owner:
            wanted = chosen.setdefault(owner[name], [])
            wanted += [name] if name not in wanted else []
        elif name in METRICS:
            chosen[name] = list(METRICS[name].scores)
        elif name == "dci":
            raise UsageError(
                "dci depends on its estimator: dci@hist-gbt (seconds) or dci@sklearn-gbt (the reference's)"
            )
        else:
            raise unknown("metric", name, [*owner, *METRICS], "zoo score --help")
    if not chosen:
        raise UsageError("the list of metrics is empty; leave it out for all of them")
    return {name: tuple(scores) for name, scores in chosen.items()}


def score_codes(codes: Codes, metrics: Iterable[str] | None = None, strict: bool | None = None) -> Scores:
    """Scores of a fixed sample: everything that needs no interventions.

    Args:
        codes: the sample.
        metrics: names of scores or metrics (`choose`); None for all but the slow reference DCI.
        strict: raise where a metric has no value on these codes, instead of noting why in ``skipped``; by default
            raise for metrics that were asked for by name.

    Raises:
        UsageError: an unknown name, or (strict) a metric without a value.
    """
    return _score(choose(metrics), codes, None, 0, metrics is not None if strict is None else strict)


def score_space(
    space: FactorSpace,
    metrics: Iterable[str] | None = None,
    seed: int = 0,
    n_train: int = 10_000,
    n_test: int = 5_000,
    strict: bool | None = None,
) -> Scores:
    """Scores of a factor space: on a sample of it, and by interventions for the beta-VAE and FactorVAE score.

    The same seed draws what the reference draws. The codes of all combinations are computed once if that is
    less work.
    """
    chosen = choose(metrics)
    batches = sum({"beta_vae_score": 2, "factor_vae_score": 1}.get(name, 0) for name in chosen)
    points = interventions.TRAIN + interventions.EVALUATION
    encodes = n_train + n_test + batches * points * interventions.BATCH
    space = space.cached(encodes)
    codes = space.sample(n_train, n_test, seed)
    return _score(chosen, codes, space, seed, metrics is not None if strict is None else strict)


def _score(
    chosen: dict[str, tuple[str, ...]], codes: Codes, space: FactorSpace | None, seed: int, strict: bool
) -> Scores:
    result = Scores()
    for name, wanted in stoppable(chosen.items()):
        metric = METRICS[name]
        try:
            try:
                values, sample = _compute(metric, codes, space, seed)
            except np.linalg.LinAlgError as error:
                raise Undefined(f"{metric.name} has no value on these codes: {error}") from None
            for score in wanted:
                if not np.isfinite(values[score]):
                    raise Undefined(f"{score} is not finite on these codes")
        except Undefined as reason:
            if strict:
                raise
            result.skipped.update(dict.fromkeys(wanted, str(reason)))
            continue
        for score in wanted:
            result[score] = values[score]
            result.identity[score] = {**sample, **metric.identity()}
    return result


def _compute(
    metric: Metric, codes: Codes, space: FactorSpace | None, seed: int
) -> tuple[dict[str, float], dict[str, Plain]]:
    """The values of a metric and the part of their identity that the data decides."""
    # Everything here is many small problems: threads inside each only wait for each other.
    with threadpool_limits(1):
        if not metric.intervenes:
            return metric.compute(codes), codes.identity()
        if space is None:
            raise Undefined(f"{metric.name} {NO_INTERVENTIONS}")
        sizes = ",".join(f"{n}:{s}" for n, s in zip(space.names, space.sizes, strict=True))
        return metric.compute(space, seed), {
            "factors": sizes,
            "latents": codes.z_train.shape[1],
            "seed": seed,
        }
