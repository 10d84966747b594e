"""MS-SSIM beside torchmetrics and by hand, and a training that minimises it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from zoo import create_model
from zoo.data.images import DataSpec
from zoo.errors import UsageError
from zoo.models.ms_ssim_vae import C1, FLOOR, MSSSIMVAE, WEIGHTS, MultiScaleSimilarity, window_means

BITS = DataSpec((1, 16, 16), "binary")
#: shapes with how many scales of them have room for a window
SHAPES = [((1, 28, 28), 2), ((3, 32, 32), 2), ((3, 64, 64), 3), ((1, 64, 28), 2), ((1, 176, 180), 5)]
every_shape = pytest.mark.parametrize(("shape", "scales"), SHAPES, ids=str)


def images(shape: tuple[int, ...], n: int = 3) -> Tensor:
    """Some of bits and some grey, smooth ones and noise, (n, *shape)."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(n, *shape, generator=generator, dtype=torch.float64)
    smooth = F.avg_pool2d(drawn, 5, 1, 2, count_include_pad=False)
    return torch.stack([(smooth[0] > 0.5).double(), *smooth[1:2], *drawn[2:]])


def altered(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.1 + 0.6 * x + 0.3 * torch.rand(x.shape, generator=generator, dtype=x.dtype)


def make(spec: DataSpec = BITS, **settings) -> MSSSIMVAE:
    nets = {"encoder": {"hidden": [16]}, "decoder": {"hidden": [16]}, "latent": 4}
    torch.manual_seed(0)
    return create_model("ms_ssim_vae", data=spec, **nets, **settings)


def bits(n: int = 32) -> Tensor:
    return (torch.rand(n, *BITS.shape, generator=torch.Generator().manual_seed(1)) < 0.3).float()


# ---- the similarity --------------------------------------------------------------------------------------------------


@every_shape
def test_it_is_that_of_torchmetrics_with_the_weights_of_the_scales_there_is_room_for(
    shape: tuple[int, int, int], scales: int
) -> None:
    x, weights = images(shape), WEIGHTS[:scales]
    powers = tuple(weight / sum(weights) for weight in weights)
    gradients, found = [], []
    for similarity in (
        MultiScaleSimilarity(*shape[1:]).double(),
        lambda x, y: multiscale_structural_similarity_index_measure(
            y, x, reduction="none", data_range=1.0, betas=powers
        ),
    ):
        y = altered(x).requires_grad_()
        found.append(similarity(x, y))
        gradients.append(torch.autograd.grad(found[-1].sum(), y)[0])
    assert found[0].shape == (3,) and 0.1 < found[0].min() and found[0].max() < 0.999
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)


@every_shape
def test_an_image_is_like_itself_and_nothing_near_it_is_more_so(shape: tuple[int, int, int], scales: int) -> None:
    similarity, x = MultiScaleSimilarity(*shape[1:]).double(), images(shape)
    for there, largest in ((x, 1e-12), (altered(x), None)):
        y = there.clone().requires_grad_()
        found = similarity(x, y)
        (gradient,) = torch.autograd.grad(found.sum(), y)
        if largest is None:
            assert (found < 0.999).all() and gradient.abs().max() > 1e-6
        else:
            torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-12)
            assert gradient.abs().max() < largest


def test_of_constant_images_the_luminance_at_the_coarsest_scale_is_left() -> None:
    similarity = MultiScaleSimilarity(64, 64).double()
    levels = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=torch.float64)
    a, b = torch.cartesian_prod(levels, levels).T
    x, y = (level.view(-1, 1, 1, 1).expand(-1, 3, 64, 64) for level in (a, b))
    luminance = (2 * a * b + C1) / (a.square() + b.square() + C1)
    expected = luminance.clamp_min(FLOOR) ** (WEIGHTS[2] / sum(WEIGHTS[:3]))
    torch.testing.assert_close(similarity(x, y), expected, rtol=0, atol=1e-5)


def test_each_image_is_compared_by_itself_the_same_in_both_directions_and_left_as_it_is() -> None:
    similarity, x = MultiScaleSimilarity(28, 28).double(), images((3, 28, 28))
    y = altered(x).requires_grad_()
    before = x.clone(), y.detach().clone()
    together = similarity(x, y)
    alone = torch.cat([similarity(one.unsqueeze(0), other.unsqueeze(0)) for one, other in zip(x, y, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert together.unique().numel() == 3
    (gradient,) = torch.autograd.grad(together[1], y)
    assert (gradient[1] != 0).any() and not (gradient[[0, 2]] != 0).any()
    torch.testing.assert_close(similarity(y, x), together, rtol=0, atol=1e-12)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


def test_images_that_oppose_each_other_are_hardly_alike_and_find_their_way_back() -> None:
    similarity, x = MultiScaleSimilarity(28, 28), images((1, 28, 28)).float()
    for start in (1.0 - x, torch.full_like(x, -0.2)):
        y = start.clone().requires_grad_()
        assert 0.0 < similarity(x, y)[0] < 0.01
        optimiser = torch.optim.Adam([y], 0.05)
        for _ in range(100):
            optimiser.zero_grad()
            (-similarity(x, y).sum()).backward()
            optimiser.step()
        assert (similarity(x, y) > 0.1).all()


@pytest.mark.parametrize(("side", "window"), [(1, 1), (2, 1), (7, 7), (8, 7), (11, 11), (21, 11)])
def test_a_side_has_the_means_of_a_gaussian_window_that_it_has_room_for(side: int, window: int) -> None:
    half = window // 2
    x = torch.rand(1, 1, side, generator=torch.Generator().manual_seed(0))
    taps = torch.exp(-0.5 * (torch.arange(-half, half + 1) / 1.5) ** 2)
    taps = (taps / taps.sum()).view(1, 1, -1)
    mirrored, inside = window_means(side, window, False), window_means(side, window, True)
    assert torch.equal(MultiScaleSimilarity(side, side + 40).rows0, mirrored)
    torch.testing.assert_close(mirrored @ x[0, 0], F.conv1d(F.pad(x, (half, half), "reflect"), taps)[0, 0])
    torch.testing.assert_close(inside @ x[0, 0], F.conv1d(x, taps)[0, 0])


def test_half_precision_is_computed_in_float32() -> None:
    similarity, x = MultiScaleSimilarity(28, 28), images((1, 28, 28)).bfloat16()
    y = altered(x.double()).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = similarity(x, y)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, similarity(x.float(), y.float()), rtol=0, atol=0)


# ---- what is trained -------------------------------------------------------------------------------------------------


def test_how_unlike_images_are_is_one_less_their_similarity() -> None:
    model, x = make(), bits()
    shown = 0.1 + 0.6 * x
    torch.testing.assert_close(model.unlike(x, shown), 1.0 - MultiScaleSimilarity(16, 16)(x, shown))


def test_real_data_is_refused_unless_its_likelihood_is_of_numbers_between_0_and_1() -> None:
    spec = DataSpec((1, 28, 28), "real")
    for name in ("auto", "gaussian", "student_t"):
        with pytest.raises(UsageError, match=r"^MS-SSIM is of pixels in \[0, 1\].*continuous_bernoulli") as refused:
            make(spec, likelihood={"name": name})
        assert "\n" not in str(refused.value)
    model = make(spec, likelihood={"name": "continuous_bernoulli"})
    assert torch.isfinite(model.losses(torch.rand(4, *spec.shape))["vae"])
