"""GECO: a multiplier by hand, a gradient, and a distortion that ends where it was asked to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zoo import create_model
from zoo.config import TrainConfig
from zoo.data.images import DataSpec
from zoo.models.base import Progress, Terms
from zoo.models.geco_vae import GECOVAE, LARGEST
from zoo.training.distributed import World
from zoo.training.precision import Compute
from zoo.training.stepper import Stepper

SPEC = DataSpec((1, 4, 4), "binary")


def make(**settings: float) -> GECOVAE:
    small = {"latent": 3, "encoder": {"hidden": [16]}, "decoder": {"hidden": [16]}}
    return create_model("geco_vae", data=SPEC, **small, **settings).double().train()


def bits(n: int = 8) -> Tensor:
    return torch.randint(0, 2, (n, 1, 4, 4)).double()


def see(model: GECOVAE, *distortion: float, progress: float | Tensor = 1.0) -> float:
    """A step on images of these distortions; the logarithm of the multiplier after it."""
    model.observe(Terms(torch.tensor(distortion).double(), torch.ones(len(distortion), 1).double()), progress)
    model.after_step()
    return model.log_multiplier.item()


def test_the_multiplier_follows_the_moving_average_by_hand() -> None:
    model = make(target=5.0, step=0.1, largest_step=1.0, decay=0.75)
    # Beyond the target by 5, -11, -7 nats: on average by 5, 1, -1.
    found = [see(model, 12.0, 8.0), see(model, -4.0, -8.0), see(model, -3.0, -1.0)]
    assert found == pytest.approx([0.5, 0.5 + 0.1, 0.6 - 0.1])
    assert model.excess.item() == pytest.approx(-1.0)
    assert model.measure(bits())["lagrange_multiplier"].item() == pytest.approx(math.exp(0.5))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_target_that_is_never_met_or_always_moves_it_evenly_to_a_bound(sign: float) -> None:
    model = make(target=0.0, step=1.0, largest_step=0.25)
    found = [see(model, sign * 1e30) for _ in range(60)]
    assert found[:3] == pytest.approx([sign * 0.25, sign * 0.5, sign * 0.75])
    assert found[-1] == pytest.approx(sign * LARGEST) and math.exp(LARGEST) == pytest.approx(1e4)
    assert all(torch.isfinite(loss) for loss in model.losses(bits()).values())


def test_what_is_not_finite_leaves_it_as_it_was() -> None:
    model = make(target=5.0)
    see(model, 9.0)
    before = [value.clone() for value in (model.log_multiplier, model.excess, model.updates)]
    for wrong in (math.inf, math.nan):
        see(model, 9.0, wrong)
        assert [model.log_multiplier, model.excess, model.updates] == before


def test_the_gradient_is_that_of_the_rate_and_the_weighed_distortion_of_the_batch() -> None:
    model, x = make(target=7.0), bits()
    model.log_multiplier.fill_(math.log(3.0))
    model.excess.fill_(100.0)
    parameters = list(model.parameters())
    torch.manual_seed(1)
    losses = model.losses(x, None, 0.25)
    torch.manual_seed(1)
    terms = model.terms(x)
    expected = (0.25 * terms.rate.sum(1) + 3.0 * terms.distortion).mean()
    assert losses["vae"].item() == pytest.approx(expected.item() - 3.0 * 7.0)
    found, wanted = (torch.autograd.grad(loss, parameters) for loss in (losses["vae"], expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_it_waits_for_the_end_of_the_warm_up_and_knows_the_average_by_then() -> None:
    for early, late in ((0.0, 1.0), (torch.tensor(0.99), torch.tensor(1.0))):
        model = make(target=5.0, step=0.01, largest_step=1.0, decay=0.5)
        assert see(model, 25.0, progress=early) == 0.0 and model.excess.item() == 20.0
        assert see(model, 15.0, progress=late) == pytest.approx(0.01 * 15.0)


def test_only_training_is_counted_and_other_weights_forget_it() -> None:
    model, x = make(), bits()
    model.eval().losses(x)
    model.after_step()
    assert model.updates == 0
    model.train().losses(x)
    model.load_state_dict(model.state_dict())
    model.after_step()
    assert model.updates == 0
    model.losses(x)
    model.after_step()
    assert model.updates == 1


def test_parts_of_a_batch_move_it_as_the_whole_does() -> None:
    found = []
    for size in (12, 5):
        torch.manual_seed(0)
        model, config = make(target=5.0, step=0.01, largest_step=1.0), TrainConfig(micro_batch=size)
        stepper = Stepper(model, config, Compute(torch.device("cpu")), 12, World(), captured=False)
        torch.manual_seed(1)
        x = bits(12)
        for _ in range(3):
            stepper.apply(x, None, Progress(1.0), 1e-2)
        found.append([model.updates, model.excess, model.log_multiplier, *model.parameters()])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-9)
    assert found[0][0] == 3 and found[0][2] > 0.1


def test_the_distortion_ends_at_its_target_at_a_rate_that_is_lower_the_more_is_left() -> None:
    x, rates = bits(16), []
    for target in (2.0, 6.0):
        torch.manual_seed(0)
        model = make(target=target, step=0.03, largest_step=0.03, decay=0.9)
        optimizer, found = torch.optim.Adam(model.parameters(), lr=1e-2), []
        for _ in range(500):
            optimizer.zero_grad()
            losses = model.losses(x.repeat(2, 1, 1, 1))
            losses["vae"].backward()
            optimizer.step()
            model.after_step()
            terms = losses.terms
            found.append([terms.distortion.mean().item(), terms.rate.mean().item(), model.log_multiplier.item()])
        before, last = torch.tensor(found[-200:]).view(2, 100, 3).unbind(0)
        distortion, rate, _ = last.mean(0).tolist()
        assert distortion == pytest.approx(target, abs=0.3)
        assert abs(last[:, 2].mean() - before[:, 2].mean()) < 0.3 and abs(last[:, 2]).max() < 0.5 * LARGEST
        rates.append(rate)
    assert rates[1] < rates[0] - 0.5
