"""MobileFaceNet (Chen et al. 2018, arXiv:1804.07573; a million parameters, for 112x112 faces) and foamliu's variant."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dataprep.models.heads import Backbone, make_embedding_head, output_shape

# (expansion, channels, repeats, first stride), table 1 of the paper
_BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


class MobileFaceNet(nn.Module):
    """(n, 3, h, w) to (n, embedding). By default it ends in a depthwise layer over the whole map (GDC), 7x7 for 112x112
    images. `head` chooses another head (embedding.py)."""

    def __init__(self, embedding: int = 128, *, size: tuple[int, int] = (112, 112), head: str | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 64, 3, stride=2), _conv(64, 64, 3, groups=64)]
        channels = 64
        for expansion, out, repeats, stride in _BOTTLENECKS:
            for index in range(repeats):
                layers.append(_Bottleneck(channels, out, expansion, stride if index == 0 else 1))
                channels = out
        layers.append(_conv(channels, 512, 1))
        self.features = nn.Sequential(*layers)
        shape = output_shape(self.features, size)
        self.head = None if head is None else make_embedding_head(head, shape, embedding)
        if head is None:
            _, height, width = shape
            self.features.append(_conv(512, 512, (height, width), groups=512, activation=False))
            self.project = nn.Linear(512, embedding, bias=False)
            self.norm = nn.BatchNorm1d(embedding)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        embedded: Tensor = self.norm(self.project(x.flatten(1))) if self.head is None else self.head(x)
        return embedded


class FoamliuMobileFaceNet(nn.Module):
    """foamliu/MobileFaceNet, with its parameter names. It differs from the paper by ReLU6 in place of PReLU, an extra 1x1
    convolution in the second layer and a bias in the last. (n, 3, h, w) to (n, embedding)."""

    def __init__(self, embedding: int = 128, *, size: tuple[int, int] = (112, 112)) -> None:
        super().__init__()
        self.conv1 = _conv_relu6(3, 64, 3, stride=2)
        self.dw_conv = _DepthwiseSeparable(64)
        blocks, channels = [], 64
        for expansion, out, repeats, stride in _BOTTLENECKS:
            for index in range(repeats):
                blocks.append(_InvertedResidual(channels, out, expansion, stride if index == 0 else 1))
                channels = out
        self.features = nn.Sequential(*blocks)
        self.conv2 = _conv_relu6(channels, 512, 1)
        body = nn.Sequential(self.conv1, self.dw_conv, self.features, self.conv2)
        _, height, width = output_shape(body, size)
        self.gdconv = nn.Sequential()
        self.gdconv.add_module("depthwise", nn.Conv2d(512, 512, (height, width), groups=512, bias=False))
        self.gdconv.add_module("bn", nn.BatchNorm2d(512))
        self.conv3 = nn.Conv2d(512, embedding, 1)
        self.bn = nn.BatchNorm2d(embedding)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.features(self.dw_conv(self.conv1(x))))
        embedded: Tensor = self.bn(self.conv3(self.gdconv(x))).flatten(1)
        return embedded


class _Bottleneck(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution, 1x1 projection without activation; a shortcut if the shape is unchanged."""

    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.layers = nn.Sequential(
            _conv(channels, wide, 1),
            _conv(wide, wide, 3, stride=stride, groups=wide),
            _conv(wide, out, 1, activation=False),
        )
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


def _conv(
    channels: int,
    out: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    padding = kernel // 2 if isinstance(kernel, int) else 0
    layers: list[nn.Module] = [
        nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]
    if activation:
        layers.append(nn.PReLU(out))
    return nn.Sequential(*layers)


class _DepthwiseSeparable(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.depthwise(x)))
        return torch.relu(self.bn2(self.pointwise(x)))


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.conv = nn.Sequential(
            _conv_relu6(channels, wide, 1),
            _conv_relu6(wide, wide, 3, stride=stride, groups=wide),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


def _conv_relu6(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(),
    )


class WideMobileFaceNet(Backbone):
    """(n, 3, h, w) to (n, embedding). The feature map has a sixteenth of the image's sides. The default head is GDC.

    `blocks` is the number of residual blocks at each of four scales, `scale` the width in units of 64 channels. If the
    first number is 1, a depthwise layer is used there instead, as in the paper.
    """

    def __init__(
        self,
        embedding: int = 512,
        *,
        blocks: tuple[int, int, int, int] = (1, 4, 6, 2),
        scale: int = 2,
        size: tuple[int, int] = (112, 112),
        head: str | None = None,
    ) -> None:
        super().__init__()
        narrow, wide = 64 * scale, 128 * scale
        self.layers = nn.ModuleList(
            [
                _conv_bn(3, narrow, 3, stride=2),
                _conv_bn(narrow, narrow, 3, groups=64) if blocks[0] == 1 else _residual(narrow, blocks[0], 128),
                _bottleneck(narrow, narrow, 128),
                _residual(narrow, blocks[1], 128),
                _bottleneck(narrow, wide, 256),
                _residual(wide, blocks[2], 256),
                _bottleneck(wide, wide, 512),
                _residual(wide, blocks[3], 256),
            ]
        )
        self.conv_sep = _conv_bn(wide, 512, 1)
        shape = self.map_shape(size)
        self.features = _gdc(shape, embedding) if head is None else make_embedding_head(head, shape, embedding)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.features(self.map(x))
        return embedded

    def map(self, x: Tensor) -> Tensor:
        """(n, 512, ceil(h / 16), ceil(w / 16))."""
        for layer in self.layers:
            x = layer(x)
        mapped: Tensor = self.conv_sep(x)
        return mapped


class _Layers(nn.Module):
    """Layers in sequence, with a shortcut around them if `residual`."""

    def __init__(self, *layers: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def _residual(channels: int, blocks: int, middle: int) -> _Layers:
    return _Layers(*(_bottleneck(channels, channels, middle, stride=1, residual=True) for _ in range(blocks)))


def _bottleneck(channels: int, out: int, middle: int, *, stride: int = 2, residual: bool = False) -> _Layers:
    return _Layers(
        _conv_bn(channels, middle, 1),
        _conv_bn(middle, middle, 3, stride=stride, groups=middle),
        _conv_bn(middle, out, 1, activation=False),
        residual=residual,
    )


def _conv_bn(
    channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: bool = True
) -> _Layers:
    convolution = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return _Layers(convolution, nn.BatchNorm2d(out), *([nn.PReLU(out)] if activation else []))


def _gdc(shape: tuple[int, ...], embedding: int) -> _Layers:
    channels, height, width = shape
    whole = nn.Conv2d(channels, channels, (height, width), groups=channels, bias=False)
    linear = nn.Linear(channels, embedding, bias=False)
    return _Layers(_Layers(whole, nn.BatchNorm2d(channels)), nn.Flatten(), linear, nn.BatchNorm1d(embedding))
