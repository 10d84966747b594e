"""Every metric by name: what it is, its unit, which way is better, what it needs. No torch: it can be listed."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from zoo.errors import fold


@dataclass(frozen=True)
class Listed:
    """One line of `zoo list metrics`. In a name K is any number and OUTLIERS any name. ``over``: which part of its
    identity says how many it is over, for the scores of codes."""

    name: str
    unit: str
    better: str | None
    needs: str
    summary: str
    over: str | None = None

    def matches(self, name: str) -> bool:
        """Whether a recorded metric is this one."""
        pattern = re.sub("OUTLIERS|GRID", ".+", re.escape(self.name)).replace("_K", r"_\d+")
        return re.fullmatch(pattern, name) is not None


STARTS = ("nll", "iwae_loss", "auroc")  # of names that end in a number or in a data set's name
DISTANCES = ("fd_digits", "fd_efficientnet_lite0", "fid", "fid_bf16")
ALL = "_all"  # of a bound of all images that was measured on the first ones, see `benchmarks.per_example.of_all`
# Of a distance whose samples' codes come from a density fitted after training: a mixture of Gaussians, or a flow.
DENSITIES = EX_POST, EX_POST_FLOW = "_ex_post", "_ex_post_flow"
#: what annealed importance sampling says of the bound
ANNEALED = ("nll_ais", "ais_gain", "ais_gap")
# What the bound loses by the encoder, and what by the family of its posterior.
GAPS = ("amortisation_gap", "approximation_gap")
#: of a codebook, or with the name of its grid behind an underscore of one of several
CODEBOOK = ("codebook_perplexity", "codebook_use")
METRICS = (
    Listed("elbo", "nats", "higher", "a likelihood of the data", "lower bound at one posterior sample, beta = 1"),
    Listed("distortion", "nats", None, "", "-log p(x | z), summed over pixels"),
    Listed("rate", "nats", None, "", "KL(q(z | x) || p(z)), summed over latents"),
    Listed("nll_iwae_K", "nats", "lower", "a likelihood of the data", "bound on -log p(x) from K importance samples"),
    Listed("nll_iwae_K_all", "nats", "lower", "", "of all images, by the gap to the ELBO on the first ones"),
    Listed("nll_ais", "nats", "lower", "--set evaluate.ais=T", "bound on -log p(x) from annealed importance sampling"),
    Listed("ais_gain", "nats", None, "--set evaluate.ais=T", "what it is lower by than nll_iwae_K on the same images"),
    Listed("ais_gap", "nats", None, "--set evaluate.ais=T", "what it can be off by: bidirectional Monte Carlo"),
    Listed("bits_per_dim", "bits/dim", "lower", "bytes and a likelihood of them", "nll over dimensions, in bits"),
    Listed("code_length", "nats", "lower", "--set evaluate.coded=N", "what storing an image took; all were read back"),
    *(
        Listed(name, "nats", "lower", "--set evaluate.gaps=N, a diagonal posterior", summary)
        for name, summary in zip(
            GAPS, ("ELBO of each image's best Gaussian above the ELBO", "log p(x) above that of this Gaussian"),
            strict=True,
        )
    ),
    Listed("reconstruction_loss", "", "lower", "", "distortion where the likelihood is not one of the data: not nats"),
    Listed("iwae_loss_K", "", "lower", "--set evaluate.loss_samples=K", "the K-sample bound of such a loss: not nats"),
    Listed("classification_error", "", "lower", "a model with q(y | x)", "share of images given a wrong class"),
    Listed("completion_loss", "", "lower", "a model that completes", "loss of the unseen quadrants given the others"),
    Listed("guess_loss", "", "lower", "a model that completes", "the same of its deterministic first guess"),
    Listed("acceptance", "", None, "an energy-based prior", "share of standard normal draws that the prior accepts"),
    Listed("log_normaliser_error", "nats", "lower", "an energy-based prior", "standard error of its log-normaliser"),
    Listed("lagrange_multiplier", "", None, "a constrained training", "what a nat of distortion weighed at its end"),
    Listed("active_units", "", None, "", "code dimensions whose mean varies by over 0.01 of the prior's variance"),
    Listed("linear_probe", "", "higher", "classes", "accuracy of a linear classifier of codes on unseen images"),
    Listed("knn_accuracy", "", "higher", "classes", "accuracy of the majority of the 10 nearest training codes"),
    *(
        Listed(f"{start}_{end}", "", "higher", f"--set evaluate.clustering=yes, {needs}", f"{what} {groups}")
        for start, needs, groups in (
            ("cluster", "classes", "by k-means over codes"), ("choice", "one categorical variable", "by that variable"),
        )
        for end, what in (
            ("accuracy", "share in the group that is matched to their class,"),
            ("nmi", "mutual information with the class, normalised, of groups"),
            ("ari", "adjusted Rand index of classes and groups"),
        )
    ),
    Listed("total_correlation", "nats", "lower", "a diagonal posterior", "dependence between the dimensions of q(z)"),
    Listed("index_code_information", "nats", None, "a diagonal posterior", "what z says of which image it is of"),
    Listed("auroc_OUTLIERS", "", "higher", "--set evaluate.anomaly=DATASET", "images told from outliers by the ELBO"),
    Listed("auroc_nll_OUTLIERS", "", "higher", "--set evaluate.anomaly=DATASET", "the same by the K-sample bound"),
    Listed("cas", "", "higher", "--set evaluate.cas=N, a class", "accuracy of a classifier that saw samples only"),
    Listed("cas_real", "", None, "--set evaluate.cas=N, a class", "the same of one that saw as many real images"),
    Listed("cas_few", "", None, "--set evaluate.cas=N, a class", "the same of one that saw a few real images"),
    Listed("cas_augmented", "", "higher", "--set evaluate.cas=N, a class", "the same with samples beside those few"),
    Listed("codebook_perplexity", "", None, "a codebook", "exp of the entropy of code use over the split"),
    Listed("codebook_perplexity_GRID", "", None, "grids of codes", "the same of one of several grids"),
    Listed("codebook_use", "", "higher", "a codebook", "share of codes that the split uses"),
    Listed("codebook_use_GRID", "", "higher", "grids of codes", "the same of one of several grids"),
    Listed("choice_entropy", "nats", None, "categorical variables", "entropy of a variable's choice over all images"),
    Listed("choice_information", "nats", None, "categorical variables", "what a variable's choice says of the image"),
    Listed("fd_digits", "", "lower", "1x28x28 images", "Frechet distance in the features of our digit classifier"),
    Listed("fd_efficientnet_lite0", "", "lower", "colour images", "Frechet distance in EfficientNet-Lite0 features"),
    Listed("fid", "", "lower", "--set evaluate.inception=yes or a GPU", "Frechet distance in Inception features"),
    Listed("fid_bf16", "", "lower", "--set evaluate.inception=bf16", "the same with the network in bfloat16"),
    *(
        Listed(distance + suffix, "", "lower", f"--set evaluate.{setting}, a code", f"{distance} by a {what} of codes")
        for suffix, setting, what in ((EX_POST, "ex_post=K", "density"), (EX_POST_FLOW, "ex_post_flow=T", "flow"))
        for distance in DISTANCES
    ),
    *(
        Listed(name + suffix, "", better, f"as {distance}", summary)
        for suffix, distance in (
            ("", "fid"), ("_bf16", "fid"), ("_digits", "fd_digits"), ("_efficientnet_lite0", "fd_efficientnet_lite0"),
        )
        for name, better, summary in (
            ("kid", "lower", "unbiased cubic-kernel distance in the same features"),
            ("precision", "higher", "share of samples inside the real manifold"),
            ("recall", "higher", "share of real images inside the samples' manifold"),
            ("density", None, "how densely real neighbourhoods hold samples"),
            ("coverage", "higher", "share of real neighbourhoods with a sample"),
        )
    ),
    Listed("psnr", "dB", "higher", "", "peak signal-to-noise ratio of reconstructions"),
    Listed("ssim", "", "higher", "", "structural similarity of reconstructions"),
    Listed("mig", "", "higher", "factors", "mutual information gap", "n_train"),
    Listed("sap_discrete", "", "higher", "factors", "separated predictability, linear SVM on one code", "n_test"),
    Listed("sap_continuous", "", "higher", "factors", "separated predictability, squared correlation", "n_train"),
    Listed("modularity", "", "higher", "factors", "each code informs about one factor", "n_train"),
    Listed("explicitness_train", "", None, "factors", "explicitness on the codes it was fitted on", "n_train"),
    Listed("explicitness_test", "", "higher", "factors", "factors can be read off linearly (ROC-AUC)", "n_test"),
    *(
        Listed(name + suffix, "", better, "factors", summary, over)
        for suffix in ("@hist-gbt", "")
        for name, better, summary, over in (
            ("disentanglement", "higher", "DCI: each code matters for one factor", "n_train"),
            ("completeness", "higher", "DCI: each factor is carried by one code", "n_train"),
            ("informativeness_train", None, "DCI: accuracy on the codes it was fitted on", "n_train"),
            ("informativeness_test", "higher", "DCI: factors are predictable from the code", "n_test"),
            ("unfairness", "lower", "how far a prediction of one factor depends on another", "n_test"),
            ("unfairness_worst", "lower", "the same of the worst pair of factors", "n_test"),
            ("unfairness_chance", None, "its mean where factors are dealt out to the codes anew", "n_test"),
        )
    ),
    *(
        Listed(name, "", better, "interventions", summary, over)
        for name, better, summary, over in (
            ("beta_vae_score", "higher", "linear classifier names the fixed factor", "points_evaluation"),
            ("beta_vae_score_train", None, "the same on its training points", "points_train"),
            ("factor_vae_score", "higher", "majority vote names the fixed factor", "points_evaluation"),
            ("factor_vae_score_train", None, "the same on its training votes", "points_train"),
            ("factor_vae_active", None, "codes that are not pruned as constant", "n_variance"),
        )
    ),
    Listed("irs", "", "higher", "factors", "interventional robustness", "n_train"),
    Listed("gaussian_total_correlation", "", "lower", "factors", "dependence between codes, in nats", "n_train"),
    Listed("gaussian_wasserstein_correlation", "", "lower", "factors", "dependence between codes", "n_train"),
    Listed(
        "gaussian_wasserstein_correlation_norm", "", "lower", "factors", "the same over the total variance", "n_train"
    ),
    Listed("mutual_info_score", "", "lower", "factors", "mean mutual information of pairs of codes", "n_train"),
)


DISENTANGLEMENT = ("factors", "interventions")
#: what variants measure themselves (`VAE.measures`)
OF_VARIANTS = (
    "classification_error", "completion_loss", "guess_loss", "acceptance", "log_normaliser_error",
    "lagrange_multiplier",
)  # fmt: skip
#: what a board has a column of beside the metrics
COSTS = ("parameters", "images_per_second", "peak_memory", "seconds")


def distance_of(extractor: str) -> str:
    """The name of the Frechet distance in an extractor's features: Inception's is the ``fid``, others are an ``fd``."""
    inception = extractor.startswith("inception")
    return f"fid{extractor.removeprefix('inception')}" if inception else f"fd_{extractor}"


@functools.cache
def listed(name: str) -> Listed | None:
    """The line of a recorded metric, if it is in the catalogue: the one that says most of its name."""
    return max((one for one in METRICS if one.matches(name)), key=lambda one: len(one.name), default=None)


def taken(name: str) -> bool:
    """Whether the harness measures something under this name, or says under it why it did not."""
    known = listed(fold(name))
    return fold(name) in (*COSTS, *STARTS) or (known is not None and known.name not in OF_VARIANTS)


def explains(skipped: str, metric: str) -> bool:
    """Whether a record's reason for having no ``skipped`` is its reason for having no ``metric``: ``nll`` speaks of
    ``nll_iwae_64``, ``fid`` of ``kid``. Densities of codes have reasons of their own, and so has
    ``codebook_use_GRID``: what has several grids has no ``codebook_use``. Of one of them by its name, such as
    ``codebook_use_top``, only a row of a board is asked that has none of its own: there it speaks."""
    if skipped in CODEBOOK and metric == f"{skipped}_GRID":
        return False
    if skipped.endswith(EX_POST) and metric.endswith(EX_POST_FLOW):
        return False
    if begins_with(metric, skipped) or family(metric) == skipped:
        return True
    known = listed(skipped)
    return known is not None and known.name == metric


def begins_with(metric: str, name: str) -> bool:
    """Whether a metric is called ``name``, or that and something more: ``nll_iwae_64`` begins with ``nll``. That is the
    bound of K samples, and ``nll_ais`` is none."""
    return metric == name or (metric.startswith(f"{name}_") and metric not in ANNEALED)


def family(name: str) -> str:
    """Under which name a record says why it lacks a metric, where it says it once for several: ``fid`` for ``kid``."""
    metric = listed(name)
    if metric is None:
        return name
    if metric.needs in DISENTANGLEMENT:
        return "disentanglement"
    if metric.needs.startswith("as "):
        return metric.needs.removeprefix("as ")
    for start in STARTS:
        if metric.name.startswith(start):
            return start
    return metric.name
