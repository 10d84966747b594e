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
    Listed("active_units", "", None, "", "code dimensions whose mean varies over the data by more than 0.01"),
    Listed("codebook_perplexity", "", None, "a codebook", "exp of the entropy of code use over the split"),
    Listed("codebook_use", "", "higher", "a codebook", "share of codes that the split uses"),
    Listed("fd_digits", "", "lower", "1x28x28 images", "Frechet distance in the features of our digit classifier"),
    Listed("fid", "", "lower", "--inception or a GPU", "Frechet distance in Inception (2015-12-05) features"),
    Listed("kid", "", "lower", "as fid", "unbiased cubic-kernel distance in the same features"),
    Listed("precision", "", "higher", "as fid", "share of samples inside the real manifold"),
    Listed("recall", "", "higher", "as fid", "share of real images inside the manifold of samples"),
    Listed("density", "", "higher", "as fid", "how densely real neighbourhoods hold samples"),
    Listed("coverage", "", "higher", "as fid", "share of real neighbourhoods that hold a sample"),
    Listed("psnr", "dB", "higher", "", "peak signal-to-noise ratio of reconstructions"),
    Listed("ssim", "", "higher", "", "structural similarity of reconstructions"),
    Listed("mig", "", "higher", "factors", "mutual information gap"),
    Listed("sap", "", "higher", "factors", "separated attribute predictability"),
    Listed("modularity", "", "higher", "factors", "each code informs about one factor"),
    Listed("explicitness", "", "higher", "factors", "factors can be read off linearly (ROC-AUC)"),
    Listed("dci_disentanglement", "", "higher", "factors", "each code matters for one factor"),
    Listed("dci_completeness", "", "higher", "factors", "each factor is carried by one code"),
    Listed("dci_informativeness", "", "higher", "factors", "factors are predictable from the code"),
    Listed("beta_vae_score", "", "higher", "interventions", "linear classifier names the fixed factor"),
    Listed("factor_vae_score", "", "higher", "interventions", "majority vote names the fixed factor"),
    Listed("gaussian_total_correlation", "nats", "lower", "", "dependence between code dimensions"),
)
