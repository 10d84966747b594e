"""Every metric by name: what it is, its unit, which way is better, what it needs. No torch: it can be listed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """One line of `zoo list metrics`."""

    name: str
    unit: str
    better: str | None
    needs: str
    summary: str


METRICS = (
    Listed("elbo", "nats", "higher", "a likelihood of the data", "lower bound at one posterior sample, beta = 1"),
    Listed("distortion", "nats", None, "", "-log p(x | z), summed over pixels"),
    Listed("rate", "nats", None, "", "KL(q(z | x) || p(z)), summed over latents"),
    Listed("nll_iwae_K", "nats", "lower", "a likelihood of the data", "bound on -log p(x) from K importance samples"),
    Listed("bits_per_dim", "bits/dim", "lower", "8-bit data and a likelihood of it", "nll over dimensions, in bits"),
    Listed("reconstruction_loss", "", "lower", "", "distortion where the likelihood is not one of the data: not nats"),
    Listed("classification_error", "", "lower", "a model with q(y | x)", "share of images given a wrong class"),
    Listed("completion_loss", "", "lower", "a model that completes", "loss of the unseen quadrants given the others"),
    Listed("guess_loss", "", "lower", "a model that completes", "the same of its deterministic first guess"),
    Listed("total_correlation", "nats", "lower", "beta_tcvae", "KL from q(z) to its marginals, stratified sampling"),
    Listed("active_units", "", None, "", "code dimensions whose mean varies over the data by more than 0.01"),
    Listed("codebook_perplexity", "", None, "a codebook", "exp of the entropy of code use over the split"),
    Listed("codebook_use", "", "higher", "a codebook", "share of codes that the split uses"),
    Listed("fd_digits", "", "lower", "1x28x28 images", "Frechet distance in the features of our digit classifier"),
    Listed("fd_efficientnet_lite0", "", "lower", "colour images", "Frechet distance in EfficientNet-Lite0 features"),
    Listed("fid", "", "lower", "--set evaluate.inception=yes or a GPU", "Frechet distance in Inception features"),
    *(
        Listed(name + suffix, "", better, f"as {distance}", summary)
        for suffix, distance in (("", "fid"), *((f"_{net}", f"fd_{net}") for net in ("digits", "efficientnet_lite0")))
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
    Listed("mig", "", "higher", "factors", "mutual information gap"),
    Listed("sap_discrete", "", "higher", "factors", "separated predictability, linear SVM on one code"),
    Listed("sap_continuous", "", "higher", "factors", "separated predictability, squared correlation"),
    Listed("modularity", "", "higher", "factors", "each code informs about one factor"),
    Listed("explicitness_train", "", "higher", "factors", "explicitness on the codes it was fitted on"),
    Listed("explicitness_test", "", "higher", "factors", "factors can be read off linearly (ROC-AUC)"),
    *(
        Listed(name + suffix, "", "higher", "factors", summary)
        for suffix in ("@hist-gbt", "")
        for name, summary in (
            ("disentanglement", "DCI: each code matters for one factor"),
            ("completeness", "DCI: each factor is carried by one code"),
            ("informativeness_train", "DCI: accuracy on the codes it was fitted on"),
            ("informativeness_test", "DCI: factors are predictable from the code"),
        )
    ),
    Listed("beta_vae_score", "", "higher", "interventions", "linear classifier names the fixed factor"),
    Listed("beta_vae_score_train", "", "higher", "interventions", "the same on its training points"),
    Listed("factor_vae_score", "", "higher", "interventions", "majority vote names the fixed factor"),
    Listed("factor_vae_score_train", "", "higher", "interventions", "the same on its training votes"),
    Listed("factor_vae_active", "", "higher", "interventions", "codes that are not pruned as constant"),
    Listed("irs", "", "higher", "factors", "interventional robustness"),
    Listed("gaussian_total_correlation", "", "lower", "factors", "dependence between codes, in nats"),
    Listed("gaussian_wasserstein_correlation", "", "lower", "factors", "dependence between codes"),
    Listed("gaussian_wasserstein_correlation_norm", "", "lower", "factors", "the same over the total variance"),
    Listed("mutual_info_score", "", "lower", "factors", "mean mutual information of pairs of codes"),
)


def listed(name: str) -> bool:
    """Whether a recorded metric is in the catalogue; the k of ``nll_iwae_K`` is any number."""
    stem = name.rstrip("0123456789")
    return any(metric.name in (name, stem + "K") for metric in METRICS)
