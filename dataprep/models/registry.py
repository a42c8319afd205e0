"""The networks by name: how each is built, its input, and the source of its architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from dataprep.errors import ModelError
from dataprep.models.heads import EMBEDDING_HEADS, ShapeTracer
from dataprep.models.iresnet import DEPTHS, IResNet
from dataprep.models.mobilefacenet import FoamliuMobileFaceNet, MobileFaceNet, WideMobileFaceNet
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.resnet import ResNet50
from dataprep.models.timm_backbone import TIMM_PREFIX, TimmBackbone

_IMAGENET = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
# Cao et al. 2018, in Caffe's BGR order, without division
VGGFACE2 = Preprocessing(height=224, width=224, order="BGR", mean=(91.4953, 103.8827, 131.0912), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """`make(embedding, size=(height, width), head=name or None)` builds it. `last` is a parameter of the embedding's length.

    `input` is the input of the published weights, and the default for new training.
    """

    make: Callable[..., nn.Module]
    preprocessing: Preprocessing
    embedding: int
    heads: tuple[str, ...] = EMBEDDING_HEADS
    embedding_parameter: str
    citation: str


def _ir(depth: int, squeeze: bool) -> NetworkSpec:
    return NetworkSpec(
        make=partial(IResNet, DEPTHS[depth], squeeze=squeeze), preprocessing=Preprocessing(), embedding=512,
        embedding_parameter="features.bias",
        citation=f"arcface_torch's r{depth} (MIT)" + (" with squeeze-and-excitation" if squeeze else ""),
    )  # fmt: skip


def _vggface2(squeeze: bool) -> NetworkSpec:
    return NetworkSpec(
        make=partial(ResNet50, caffe=True, squeeze=squeeze), preprocessing=VGGFACE2, embedding=2048,
        embedding_parameter="feat_extract.weight",
        citation=f"VGGFace2's {'SE-' * squeeze}ResNet-50; 256 and 128 by feat_extract",
    )  # fmt: skip


NETWORKS: Mapping[str, NetworkSpec] = {
    "mobilefacenet": NetworkSpec(
        make=MobileFaceNet, preprocessing=Preprocessing(), embedding=128, embedding_parameter="norm.bias",
        citation="Chen et al. 2018"
    ),
    "mobilefacenet-foamliu": NetworkSpec(
        make=FoamliuMobileFaceNet, preprocessing=_IMAGENET, embedding=128, heads=(), embedding_parameter="bn.bias",
        citation="foamliu/MobileFaceNet (Apache-2.0)",
    ),
    "mobilefacenet-0.45": NetworkSpec(
        make=WideMobileFaceNet, preprocessing=Preprocessing(), embedding=512, embedding_parameter="features.layers.3.bias",
        citation="arcface_torch's mbf (MIT)",
    ),
    "mobilefacenet-large": NetworkSpec(
        make=partial(WideMobileFaceNet, blocks=(2, 8, 12, 4), scale=4), preprocessing=Preprocessing(), embedding=512,
        embedding_parameter="features.layers.3.bias", citation="arcface_torch's mbf_large (MIT)",
    ),
    **{f"ir{depth}": _ir(depth, squeeze=False) for depth in DEPTHS},
    **{f"se-ir{depth}": _ir(depth, squeeze=True) for depth in DEPTHS},
    "vggface2-resnet50": _vggface2(squeeze=False),
    "vggface2-senet50": _vggface2(squeeze=True),
    "resnet50": NetworkSpec(
        make=ResNet50, preprocessing=replace(_IMAGENET, height=224, width=224), embedding=2048,
        embedding_parameter="feat_extract.weight",
        citation="He et al. 2016, with the stride in the 3x3 as in torchvision",
    ),
}  # fmt: skip


def find_network(name: str) -> NetworkSpec:
    """The network of a name, which may be `timm:NAME`. Raises ModelError, which lists the names."""
    if name.startswith(TIMM_PREFIX):
        make = partial(TimmBackbone, name.removeprefix(TIMM_PREFIX))
        return NetworkSpec(
            make=make,
            preprocessing=Preprocessing(),
            embedding=512,
            embedding_parameter="head.features.bias",
            citation="timm (Apache-2.0)",
        )
    if name not in NETWORKS:
        raise ModelError(f"unknown network {name!r}; choose from {', '.join(NETWORKS)}, {TIMM_PREFIX}NAME")
    return NETWORKS[name]


def create_model(
    network: str,
    embedding: int | None = None,
    *,
    input_size: tuple[int, int] | None = None,
    head: str | None = None,
) -> nn.Module:
    """Build a network with random weights for images of `input_size` (height, width), with its original head or one of
    `embedding.HEADS`. Raises ModelError."""
    entry = find_network(network)
    if head is not None and head not in entry.heads:
        known = ", ".join(entry.heads) or "its own only"
        raise ModelError(f"{network} does not support the embedding head {head!r}; supported: {known}")
    size = input_size or (entry.preprocessing.height, entry.preprocessing.width)
    if min(size) < 1 or (embedding is not None and embedding < 1):
        raise ModelError(f"{network} cannot be built for images of {size[1]}x{size[0]} and an embedding of {embedding}")
    options = {} if head is None else {"head": head}
    return entry.make(embedding or entry.embedding, size=size, **options)


def create_meta_model(
    network: str, embedding: int | None = None, *, input_size: tuple[int, int] | None = None, head: str | None = None
) -> nn.Module:
    """Like `create_model`, but on torch's meta device: shapes without memory."""
    with torch.device("meta"), ShapeTracer():
        return create_model(network, embedding, input_size=input_size, head=head)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSummary:
    """A line of `dataprep train --list-networks`. `gflops` is multiply-adds / 1e9 for one image of `input`."""

    name: str
    parameters: int
    gflops: float
    preprocessing: Preprocessing
    embedding: int
    citation: str


def list_networks(names: tuple[str, ...] = tuple(NETWORKS)) -> list[NetworkSummary]:
    """Size and cost of networks, counted on torch's meta device without computation or memory."""
    rows = []
    for name in names:
        entry = find_network(name)
        module = create_meta_model(name)
        rows.append(
            NetworkSummary(
                name=name,
                parameters=sum(parameter.numel() for parameter in module.parameters()),
                gflops=count_multiply_adds(module, (entry.preprocessing.height, entry.preprocessing.width)) / 1e9,
                preprocessing=entry.preprocessing,
                embedding=entry.embedding,
                citation=entry.citation,
            )
        )
    return rows


def format_networks(rows: list[NetworkSummary]) -> str:
    """The rows as a table for a terminal."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'network':{width}}  parameters  GFLOPs  input    embedding  source"]
    lines += [
        f"{row.name:{width}}  {row.parameters / 1e6:8.2f} M  {row.gflops:6.2f}  "
        f"{row.preprocessing.width}x{row.preprocessing.height} "
        f"{row.embedding:>10}  {row.citation}"
        for row in rows
    ]
    lines.append(f"{TIMM_PREFIX}NAME is any backbone of timm. GFLOPs: multiply-adds for one image, in billions.")
    return "\n".join(lines)


def count_multiply_adds(module: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-adds of convolutions and matrix products for one image of `size`. `module` must be on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad(), ShapeTracer(convolve=True):
        module.eval()(torch.empty(1, 3, *size, device="meta"))
    return int(counter.get_total_flops()) // 2
