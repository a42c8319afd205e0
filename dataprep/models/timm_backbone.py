"""`timm:NAME`: any backbone of timm (pip install 'face-dataprep[zoo]') with one of our embedding heads."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dataprep.errors import ModelError
from dataprep.models.heads import make_embedding_head, output_shape

TIMM_PREFIX = "timm:"


class TimmBackbone(nn.Module):
    """(n, 3, h, w) to (n, embedding). The default head is option E on the last map of convolutional networks, and FC and BN
    on the pooled output ("pool") of others, such as transformers."""

    def __init__(
        self, name: str, embedding: int = 512, *, size: tuple[int, int] = (112, 112), head: str | None = None
    ) -> None:
        super().__init__()
        model = _create(name, size)
        maps = len(output_shape(_Map(model), size)) == 3 and getattr(model, "output_fmt", "NCHW") == "NCHW"
        self.body = _Map(model) if maps else model
        self.head = make_embedding_head(head or ("e" if maps else "pool"), output_shape(self.body, size), embedding)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.head(self.body(x))
        return embedded


class _Map(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = self.model.forward_features(x)
        return mapped


def _create(name: str, size: tuple[int, int]) -> Any:
    try:
        import timm
    except Exception as error:  # an incompatible torchvision raises RuntimeError
        raise ModelError(
            f"{TIMM_PREFIX}{name} needs the package timm ({str(error).splitlines()[0]})",
            hint="pip install 'face-dataprep[zoo]'",
        ) from None
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0].rstrip('0123456789')}*")[:5]
        raise ModelError(
            f"timm has no model {name!r}" + (f"; similar: {', '.join(near)}, ..." if near else ""),
            hint="timm.list_models() in Python lists all",
        )
    config = timm.get_pretrained_cfg(name)
    given: dict[str, Any] = {"img_size": size} if config is not None and config.fixed_input_size else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **given)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise ModelError(f"{TIMM_PREFIX}{name} cannot be built for {size[1]}x{size[0]}: {error}") from None
