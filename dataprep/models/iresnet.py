"""The improved residual networks of ArcFace (Deng et al. 2019): insightface's r18 to r200, and their SE variants.

Parameters are named as in insightface's arcface_torch, so that its backbone.pth files load by key. The SE variants are
Face_Pytorch's SERes50_IR and SERes100_IR: the same block, with squeeze-and-excitation (Hu et al. 2018, reduction 16, no
biases) on the residual branch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dataprep.models.heads import Backbone, make_embedding_head

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 200: (6, 26, 60, 6)}
_WIDTHS = (64, 128, 256, 512)


class IResNet(Backbone):
    """(n, 3, h, w) to (n, embedding). The feature map has a sixteenth of the image's sides, rounded up.

    `head` is a name from embedding.py. The default is option E without dropout, as in arcface_torch.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        embedding: int = 512,
        *,
        size: tuple[int, int] = (112, 112),
        squeeze: bool = False,
        head: str | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        channels = 64
        for stage, (count, width) in enumerate(zip(blocks, _WIDTHS, strict=True), start=1):
            layer = [_Block(channels, width, 2, squeeze), *(_Block(width, width, 1, squeeze) for _ in range(count - 1))]
            self.add_module(f"layer{stage}", nn.Sequential(*layer))
            channels = width
        shape = self.map_shape(size)
        self.head = None if head is None else make_embedding_head(head, shape, embedding)
        if head is None:
            self.bn2 = nn.BatchNorm2d(channels)
            self.fc = nn.Linear(math.prod(shape), embedding)
            self.features = nn.BatchNorm1d(embedding)
            self.features.weight.requires_grad = False  # fixed at 1
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.map(x)
        embedded: Tensor = self.features(self.fc(self.bn2(x).flatten(1))) if self.head is None else self.head(x)
        return embedded

    def map(self, x: Tensor) -> Tensor:
        """(n, 512, ceil(h / 16), ceil(w / 16))."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in range(1, len(_WIDTHS) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return x


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.se = SqueezeExcite(width) if squeeze else None
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        if self.se is not None:
            y = self.se(y)
        return y + (x if self.downsample is None else self.downsample(x))


class SqueezeExcite(nn.Module):
    """Channel weights computed from the mean over the map (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))
        return x * weights
