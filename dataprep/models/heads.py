"""Embedding heads, which map a backbone's feature map to an embedding."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dataprep.errors import ModelError


class FullyConnectedHead(nn.Module):
    """Option E of ArcFace (Deng et al. 2019, section 3.2): BN, dropout, FC, BN. (n, c, h, w) to (n, embedding)."""

    def __init__(self, channels: int, height: int, width: int, embedding: int, *, dropout: float = 0.4) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels * height * width, embedding)
        self.features = nn.BatchNorm1d(embedding)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.features(self.fc(self.dropout(self.bn(x).flatten(1))))
        return embedded


class GlobalDepthwiseHead(nn.Module):
    """GDC (Chen et al. 2018, section 3.2): a depthwise convolution over the whole map, BN, FC, BN."""

    def __init__(self, channels: int, height: int, width: int, embedding: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, (height, width), groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, embedding, bias=False)
        self.features = nn.BatchNorm1d(embedding)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.features(self.fc(self.bn(self.depthwise(x)).flatten(1)))
        return embedded


class PooledHead(nn.Module):
    """Mean over the map (or a transformer's pooled output), FC, BN."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, embedding, bias=False)
        self.features = nn.BatchNorm1d(embedding)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.features(self.fc(x.mean((2, 3)) if x.dim() == 4 else x))
        return embedded


EMBEDDING_HEADS = ("e", "gdc", "pool")


class Backbone(nn.Module):
    """A network with a separate method for its feature map."""

    def map(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) to the feature map (n, c, h', w') for the head."""
        raise NotImplementedError

    def map_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """(c, h', w') for images of `size` (height, width)."""
        return output_shape(_Map(self), size)


class _Map(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone.map(x)


def make_embedding_head(head: str, shape: tuple[int, ...], embedding: int) -> nn.Module:
    """Make a head by its name in `EMBEDDING_HEADS`, for maps of `shape` (channels, height, width). Raises ModelError."""
    if head == "pool":
        return PooledHead(shape[0], embedding)
    if head not in EMBEDDING_HEADS:
        raise ModelError(f"unknown embedding head {head!r}; choose from {', '.join(EMBEDDING_HEADS)}")
    if len(shape) != 3:
        raise ModelError(f"the embedding head {head!r} needs a feature map, but this network has none: use 'pool'")
    return FullyConnectedHead(*shape, embedding) if head == "e" else GlobalDepthwiseHead(*shape, embedding)


def output_shape(body: nn.Module, size: tuple[int, int]) -> tuple[int, ...]:
    """The output shape of `body` for one image of `size`, without the batch axis; (channels, height, width) for a map.
    Runs on the meta device, without data. Raises ModelError if the image is too small."""
    named = chain(body.named_parameters(), body.named_buffers())
    state = {name: tensor.detach().to("meta") for name, tensor in named}
    training = body.training
    try:
        with torch.no_grad(), ShapeTracer():
            image = torch.empty(1, 3, *size, device="meta")
            made: Tensor = torch.func.functional_call(body.eval(), state, (image,))
    except RuntimeError as error:
        words = str(error).splitlines()[0]
        raise ModelError(
            f"the network does not support images of {size[1]}x{size[0]} ({words}); 112x112 always works"
        ) from None
    finally:
        body.train(training)
    return tuple(made.shape[1:])


class ShapeTracer(TorchFunctionMode):
    """Computes shapes on the meta device and skips functions that do not change shapes. With `convolve`, torch runs the
    convolutions, which is needed to count operations but imports much of its compiler and takes two seconds."""

    _LEFT_OUT = (
        functional.batch_norm, functional.prelu, functional.layer_norm, torch.relu, torch.sigmoid,
        Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_,
    )  # fmt: skip

    def __init__(self, *, convolve: bool = False) -> None:
        super().__init__()
        self._convolve = convolve

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._LEFT_OUT or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func is Tensor.add and isinstance(args[1], Tensor) and args[0].shape == args[1].shape:
            return args[0]
        if func is functional.conv2d and not self._convolve and len(args) == 7 and not isinstance(args[4], str):
            return _convolved(*args)
        return func(*args, **kwargs)


def _convolved(x: Tensor, weight: Tensor, _: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    """An empty tensor of a convolution's output shape, by the formula in the documentation of torch.nn.Conv2d."""
    if x.shape[1] != weight.shape[1] * groups:
        raise RuntimeError(f"the convolution expects {weight.shape[1] * groups} channels, not {x.shape[1]}")
    sides = [
        (side + 2 * pad - step * (kernel - 1) - 1) // jump + 1
        for side, kernel, jump, pad, step in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    if min(sides) < 1:
        raise RuntimeError(f"a map of {x.shape[3]}x{x.shape[2]} is too small")
    return torch.empty(x.shape[0], weight.shape[0], *sides, device="meta")
