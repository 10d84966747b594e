"""Any timm backbone as an encoder."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from zoo.context import holding
from zoo.errors import UsageError, unknown
from zoo.nets import EncoderSettings, require, with_planes

_fetches: ContextVar[bool] = ContextVar("_fetches", default=True)


def unfetched() -> AbstractContextManager[bool]:
    """Inside of the block a backbone is made as for its published weights, and none are fetched: they come after."""
    return holding(_fetches, False)


def fetches() -> bool:
    """Whether a network that begins with published weights is to fetch them, and is not `unfetched`; for a plugin's own
    too, which is made with the settings that it was trained with."""
    return _fetches.get()


class TimmEncoder(nn.Module):
    """A timm model without its classifier, pooled to (B, features).

    Weights are random unless ``pretrained`` is set, which makes timm fetch them. Such weights know images by the mean
    and deviation of their own training (timm's ``pretrained_cfg``), so they are shown those: of three channels each
    its own, of any other number the means of the three. Conditions enter as planes, as they are.

    Raises:
        UsageError: timm has no model of that name, or it cannot take images of this shape.
    """

    def __init__(self, settings: EncoderSettings, shape: tuple[int, int, int], condition: int = 0) -> None:
        super().__init__()
        import timm

        require(settings.timm is not None, "encoder.name=timm needs encoder.timm=NAME, such as resnet18.")
        require_timm(settings.timm)
        asked = f"encoder.timm={settings.timm}"
        options = dict(in_chans=shape[0] + condition, num_classes=0)
        options["pretrained"] = settings.pretrained and fetches()
        try:
            self.backbone = timm.create_model(settings.timm, img_size=shape[1:], **options)
        except TypeError:
            # Convolutional backbones take no img_size.
            self.backbone = timm.create_model(settings.timm, **options)
        except (AssertionError, ValueError) as error:
            raise _unfit(asked, shape, error) from error
        self.standardises = settings.pretrained
        if self.standardises:
            for name in ("mean", "std"):
                known = torch.tensor(self.backbone.pretrained_cfg[name])
                known = known if len(known) == shape[0] else known.mean().repeat(shape[0])
                self.register_buffer(name, known.view(-1, 1, 1))
        self.features = self.backbone.num_features
        if hasattr(self.backbone, "head_hidden_size"):
            self.features = self.backbone.head_hidden_size or self.features
        if next(self.backbone.parameters()).is_meta:  # of a model that is only measured
            return
        require_fit(self.backbone.eval(), asked, shape, condition)
        self.backbone.train()

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        if self.standardises:
            x = (x - self.mean) / self.std
        return self.backbone(with_planes(x, condition))


def require_timm(name: str) -> None:
    """Raise `UsageError` where timm has no model of that name."""
    import timm

    if not timm.is_model(name):
        listing = "python -c 'import timm; print(timm.list_models())'"
        raise unknown("timm model", name, timm.list_models(), listing)


def require_fit(network: nn.Module, asked: str, shape: tuple[int, int, int], beside: int = 0) -> None:
    """Raise `UsageError` where the network that was ``asked`` for cannot take an image of a shape, with so many planes
    ``beside`` its channels. The global random state is the same afterwards."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            network(torch.zeros(1, shape[0] + beside, *shape[1:]))
    except Exception as error:
        raise _unfit(asked, shape, error) from error


def _unfit(asked: str, shape: tuple[int, int, int], error: Exception) -> UsageError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return UsageError(f"{asked} cannot take images of {'x'.join(map(str, shape))} ({reason}).")
