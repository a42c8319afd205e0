"""ResNet-50 (He et al. 2016), as in torchvision and as in VGGFace2, with and without squeeze-and-excitation.

VGGFace2's networks come from Caffe (Cao et al. 2018): the stride is in a stage's first 1x1 convolution instead of its 3x3,
and the first pooling rounds up instead of padding. Parameters are named as in torchvision and cydonia999's VGGFace2-pytorch
(conv4 and conv5 of a block are squeeze and excitation), so that published weights load by key.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dataprep.models.heads import Backbone, make_embedding_head

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride


class ResNet50(Backbone):
    """(n, 3, h, w) to (n, embedding). Without `head`, the embedding is the 2048 channel means of the map (VGGFace2's
    pool5/7x7_s1), or a 1x1 convolution of them to another length (its feat_extract, 256 or 128)."""

    def __init__(
        self,
        embedding: int = 2048,
        *,
        size: tuple[int, int] = (224, 224),
        caffe: bool = False,
        squeeze: bool = False,
        head: str | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True) if caffe else nn.MaxPool2d(3, 2, padding=1)
        channels = 64
        for stage, (width, count, stride) in enumerate(_STAGES, start=1):
            layer = [_Bottleneck(channels, width, stride, caffe, squeeze)]
            layer += [_Bottleneck(4 * width, width, 1, caffe, squeeze) for _ in range(count - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*layer))
            channels = 4 * width
        self.head = None if head is None else make_embedding_head(head, self.map_shape(size), embedding)
        self.feat_extract = None
        if head is None and embedding != channels:
            self.feat_extract = nn.Conv2d(channels, embedding, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.map(x)
        if self.head is None:
            x = x.mean((2, 3), keepdim=True)
            return (x if self.feat_extract is None else self.feat_extract(x)).flatten(1)
        embedded: Tensor = self.head(x)
        return embedded

    def map(self, x: Tensor) -> Tensor:
        """(n, 2048, about h / 32, about w / 32)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return x


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, caffe: bool, squeeze: bool) -> None:
        super().__init__()
        first, second = (stride, 1) if caffe else (1, stride)
        self.conv1 = nn.Conv2d(channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.squeeze = squeeze
        if squeeze:
            self.conv4 = nn.Conv2d(4 * width, width // 4, 1)
            self.conv5 = nn.Conv2d(width // 4, 4 * width, 1)
        self.downsample = None
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.squeeze:
            y = y * torch.sigmoid(self.conv5(torch.relu(self.conv4(y.mean((2, 3), keepdim=True)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))
