"""From a feature map to an embedding: the heads that any backbone can end in."""

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
    """The mean over the map, or what a transformer has pooled already, FC, BN."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, embedding, bias=False)
        self.features = nn.BatchNorm1d(embedding)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.features(self.fc(x.mean((2, 3)) if x.dim() == 4 else x))
        return embedded


EMBEDDING_HEADS = ("e", "gdc", "pool")


class Backbone(nn.Module):
    """A network that makes its feature map in a step of its own."""

    def map(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) to the (n, c, h', w') that the head gets."""
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
    """The head for maps of `shape` (channels, height, width), by its name in `EMBEDDING_HEADS`. Raises ModelError."""
    if head == "pool":
        return PooledHead(shape[0], embedding)
    if head not in EMBEDDING_HEADS:
        raise ModelError(f"unknown embedding head {head!r}; there are: {', '.join(EMBEDDING_HEADS)}")
    if len(shape) != 3:
        raise ModelError(f"the embedding head {head!r} needs a feature map, and this network makes none: take 'pool'")
    return FullyConnectedHead(*shape, embedding) if head == "e" else GlobalDepthwiseHead(*shape, embedding)


def output_shape(body: nn.Module, size: tuple[int, int]) -> tuple[int, ...]:
    """Of what `body` makes of one image of `size`, (channels, height, width) for a map: a dry run without any data.
    Raises ModelError if such an image is too small for it."""
    named = chain(body.named_parameters(), body.named_buffers())
    state = {name: tensor.detach().to("meta") for name, tensor in named}
    training = body.training
    try:
        with torch.no_grad(), ShapeTracer():
            image = torch.empty(1, 3, *size, device="meta")
            made: Tensor = torch.func.functional_call(body.eval(), state, (image,))
    except RuntimeError as error:
        words = str(error).splitlines()[0]
        raise ModelError(f"the network takes no images of {size[1]}x{size[0]} ({words}); 112x112 fits all") from None
    finally:
        body.train(training)
    return tuple(made.shape[1:])


class ShapeTracer(TorchFunctionMode):
    """Works out shapes on the meta device, and leaves out what changes none. `convolve` has torch do the convolutions, for
    those who count them; it imports half of its compiler for that, two seconds of work."""

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
    """An empty tensor of the shape that torch.nn.Conv2d's documentation gives."""
    if x.shape[1] != weight.shape[1] * groups:
        raise RuntimeError(f"{x.shape[1]} channels for a convolution of {weight.shape[1] * groups}")
    sides = [
        (side + 2 * pad - step * (kernel - 1) - 1) // jump + 1
        for side, kernel, jump, pad, step in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    if min(sides) < 1:
        raise RuntimeError(f"nothing is left of a map of {x.shape[3]}x{x.shape[2]}")
    return torch.empty(x.shape[0], weight.shape[0], *sides, device="meta")
