"""MobileFaceNet (Chen et al. 2018, arXiv:1804.07573): a million parameters, made for faces of 112x112."""

from __future__ import annotations

from torch import Tensor, nn

# (expansion, channels, repeats, stride of the first), table 1 of the paper
_BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


class MobileFaceNet(nn.Module):
    """(n, 3, 112, 112) normalised RGB to (n, embedding). The last depthwise layer spans the whole 7x7 map (GDC)."""

    def __init__(self, embedding: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 64, 3, stride=2), _conv(64, 64, 3, groups=64)]
        channels = 64
        for expansion, out, repeats, stride in _BOTTLENECKS:
            for index in range(repeats):
                layers.append(_Bottleneck(channels, out, expansion, stride if index == 0 else 1))
                channels = out
        layers += [_conv(channels, 512, 1), _conv(512, 512, 7, padding=0, groups=512, activation=False)]
        self.features = nn.Sequential(*layers)
        self.project = nn.Linear(512, embedding, bias=False)
        self.norm = nn.BatchNorm1d(embedding)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).flatten(1)
        embedded: Tensor = self.norm(self.project(x))
        return embedded


class _Bottleneck(nn.Module):
    """Widen, filter depthwise, narrow without activation; with a shortcut where the shape stays."""

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
    kernel: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(
            channels, out, kernel, stride, kernel // 2 if padding is None else padding, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out),
    ]
    if activation:
        layers.append(nn.PReLU(out))
    return nn.Sequential(*layers)
