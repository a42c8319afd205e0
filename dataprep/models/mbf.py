"""insightface's wider MobileFaceNets, arcface_torch's mbf (0.45 GFLOPs) and mbf_large, parameters named as there."""

from __future__ import annotations

from torch import Tensor, nn

from dataprep.models.embedding import Backbone, make_head


class WideMobileFaceNet(Backbone):
    """(n, 3, h, w) to (n, embedding); the map in front of the head, a GDC by default, is a sixteenth of the image.

    `blocks` are the residual blocks at the four scales, `scale` the width in 64 channels. A first of 1 stands for one
    depthwise layer, as in the paper; more are residual blocks.
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
                _conv(3, narrow, 3, stride=2),
                _conv(narrow, narrow, 3, groups=64) if blocks[0] == 1 else _residual(narrow, blocks[0], 128),
                _bottleneck(narrow, narrow, 128),
                _residual(narrow, blocks[1], 128),
                _bottleneck(narrow, wide, 256),
                _residual(wide, blocks[2], 256),
                _bottleneck(wide, wide, 512),
                _residual(wide, blocks[3], 256),
            ]
        )
        self.conv_sep = _conv(wide, 512, 1)
        shape = self.map_shape(size)
        self.features = _gdc(shape, embedding) if head is None else make_head(head, shape, embedding)
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
    """Layers one after another; with a shortcut past them if `residual`."""

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
        _conv(channels, middle, 1),
        _conv(middle, middle, 3, stride=stride, groups=middle),
        _conv(middle, out, 1, activation=False),
        residual=residual,
    )


def _conv(
    channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: bool = True
) -> _Layers:
    convolution = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return _Layers(convolution, nn.BatchNorm2d(out), *([nn.PReLU(out)] if activation else []))


def _gdc(shape: tuple[int, ...], embedding: int) -> _Layers:
    channels, height, width = shape
    whole = nn.Conv2d(channels, channels, (height, width), groups=channels, bias=False)
    linear = nn.Linear(channels, embedding, bias=False)
    return _Layers(_Layers(whole, nn.BatchNorm2d(channels)), nn.Flatten(), linear, nn.BatchNorm1d(embedding))
