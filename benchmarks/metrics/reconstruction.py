"""How close reconstructions are to their images: PSNR and SSIM, per image, averaged over images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.interrupt import stoppable
from benchmarks.metrics.features import entry, in_range, mean_and_error
from zoo.errors import UsageError

PSNR_LIMIT = 100.0  # dB; an exact copy would have infinity, which no record can hold
WINDOW = 11  # pixels, with a Gaussian of 1.5, as in Wang et al. 2004


def reconstruction_quality(x: Tensor, reconstruction: Tensor, batch: int = 256) -> dict[str, dict[str, Any]]:
    """PSNR (dB) and SSIM of reconstructions of images, in the metrics format of a record.

    Both are computed for every image (torchmetrics, data range 1) and averaged over images; the mean of a
    logarithm is not the logarithm of the mean, so a PSNR of the pooled error is another number. PSNR stops at
    100 dB. Wang et al. 2004 for SSIM.

    Args:
        x, reconstruction: float (N, C, H, W) in [0, 1] on one device, H and W at least 11.

    Raises:
        UsageError: shapes differ, the images are too small for SSIM's window, there are none, or values are NaN or
            outside [0, 1].
    """
    for name, images in (("the images", x), ("the reconstructions", reconstruction)):
        if not images.is_floating_point():
            kind = str(images.dtype).removeprefix("torch.")
            raise UsageError(f"{name} must be floats in [0, 1], not {kind}.")
    if x.shape != reconstruction.shape or x.ndim != 4:
        shapes = f"{tuple(x.shape)} and {tuple(reconstruction.shape)}"
        raise UsageError(f"images and reconstructions must both be (N, C, H, W), not {shapes}.")
    if not len(x) or min(x.shape[2:]) < WINDOW:
        raise UsageError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels, not {tuple(x.shape)}.")
    psnr, ssim = [], []
    for left, right in stoppable(zip(x.split(batch), reconstruction.split(batch), strict=True)):
        left, right = left.float(), right.float()
        for name, images in (("the images", left), ("the reconstructions", right)):
            if not in_range(images):
                low, high = (float(bound) for bound in images.aminmax())
                raise UsageError(f"{name} must lie in [0, 1], but reach from {low:g} to {high:g}.")
        psnr.append(_psnr(left, right))
        ssim.append(_ssim(left, right))
    return {
        "psnr": _entry(torch.cat(psnr), "dB", {"data_range": 1, "mean": "over images", "limit": PSNR_LIMIT}),
        "ssim": _entry(torch.cat(ssim), "", {"data_range": 1, "window": WINDOW, "sigma": 1.5}),
    }


def _psnr(left: Tensor, right: Tensor) -> Tensor:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    values = peak_signal_noise_ratio(right, left, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=PSNR_LIMIT).double().cpu()


def _ssim(left: Tensor, right: Tensor) -> Tensor:
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = structural_similarity_index_measure(
        right, left, data_range=1.0, kernel_size=WINDOW, sigma=1.5, reduction="none"
    )
    # One image comes back without its batch dimension.
    return values.reshape(-1).double().cpu()


def _entry(values: Tensor, unit: str, identity: dict[str, Any]) -> dict[str, Any]:
    return entry(mean_and_error(values), "higher", {"implementation": "torchmetrics", **identity}, unit)
