"""The networks by name: how each is built, what it takes, whose structure it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from dataprep.errors import ModelError
from dataprep.models.heads import HEADS, ShapesOnly
from dataprep.models.iresnet import DEPTHS, IResNet
from dataprep.models.mobilefacenet import FoamliuMobileFaceNet, MobileFaceNet, WideMobileFaceNet
from dataprep.models.preprocessing import Input
from dataprep.models.resnet import ResNet50
from dataprep.models.timm_backbone import PREFIX, ZooNetwork

_IMAGENET = Input(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
# Cao et al. 2018 in Caffe's order; nothing is divided
VGGFACE2 = Input(height=224, width=224, order="BGR", mean=(91.4953, 103.8827, 131.0912), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """`make(embedding, size=(height, width), head=name or None)`; `last` is the parameter whose length is the embedding's.

    `input` is what the published weights of this structure take, and the default of a new training.
    """

    make: Callable[..., nn.Module]
    input: Input
    embedding: int
    heads: tuple[str, ...] = HEADS
    last: str
    source: str


def _ir(depth: int, squeeze: bool) -> Network:
    return Network(
        make=partial(IResNet, DEPTHS[depth], squeeze=squeeze), input=Input(), embedding=512, last="features.bias",
        source=f"arcface_torch's r{depth} (MIT)" + (" with squeeze-and-excitation" if squeeze else ""),
    )  # fmt: skip


def _vggface2(squeeze: bool) -> Network:
    return Network(
        make=partial(ResNet50, caffe=True, squeeze=squeeze), input=VGGFACE2, embedding=2048, last="feat_extract.weight",
        source=f"VGGFace2's {'SE-' * squeeze}ResNet-50; 256 and 128 by its feat_extract",
    )  # fmt: skip


NETWORKS: Mapping[str, Network] = {
    "mobilefacenet": Network(
        make=MobileFaceNet, input=Input(), embedding=128, last="norm.bias", source="Chen et al. 2018"
    ),
    "mobilefacenet-foamliu": Network(
        make=FoamliuMobileFaceNet, input=_IMAGENET, embedding=128, heads=(), last="bn.bias",
        source="foamliu/MobileFaceNet (Apache-2.0)",
    ),
    "mobilefacenet-0.45": Network(
        make=WideMobileFaceNet, input=Input(), embedding=512, last="features.layers.3.bias",
        source="arcface_torch's mbf (MIT)",
    ),
    "mobilefacenet-large": Network(
        make=partial(WideMobileFaceNet, blocks=(2, 8, 12, 4), scale=4), input=Input(), embedding=512,
        last="features.layers.3.bias", source="arcface_torch's mbf_large (MIT)",
    ),
    **{f"ir{depth}": _ir(depth, squeeze=False) for depth in DEPTHS},
    **{f"se-ir{depth}": _ir(depth, squeeze=True) for depth in DEPTHS},
    "vggface2-resnet50": _vggface2(squeeze=False),
    "vggface2-senet50": _vggface2(squeeze=True),
    "resnet50": Network(
        make=ResNet50, input=replace(_IMAGENET, height=224, width=224), embedding=2048, last="feat_extract.weight",
        source="He et al. 2016, the stride in the 3x3 as torchvision has it",
    ),
}  # fmt: skip


def find_network(name: str) -> Network:
    """The network of a name, `timm:NAME` among them; ModelError lists the names."""
    if name.startswith(PREFIX):
        make = partial(ZooNetwork, name.removeprefix(PREFIX))
        return Network(make=make, input=Input(), embedding=512, last="head.features.bias", source="timm (Apache-2.0)")
    if name not in NETWORKS:
        raise ModelError(f"unknown network {name!r}; there are: {', '.join(NETWORKS)}, {PREFIX}NAME")
    return NETWORKS[name]


def build(
    network: str,
    embedding: int | None = None,
    *,
    input_size: tuple[int, int] | None = None,
    head: str | None = None,
) -> nn.Module:
    """A fresh network by name for images of `input_size` (height, width), with the head of its authors or one of
    `embedding.HEADS`. Raises ModelError."""
    entry = find_network(network)
    if head is not None and head not in entry.heads:
        known = ", ".join(entry.heads) or "its own only"
        raise ModelError(f"{network} takes no embedding head {head!r}; there are: {known}")
    size = input_size or (entry.input.height, entry.input.width)
    if min(size) < 1 or (embedding is not None and embedding < 1):
        raise ModelError(f"{network} cannot be built for images of {size[1]}x{size[0]} and {embedding} numbers")
    options = {} if head is None else {"head": head}
    return entry.make(embedding or entry.embedding, size=size, **options)


def outline(
    network: str, embedding: int | None = None, *, input_size: tuple[int, int] | None = None, head: str | None = None
) -> nn.Module:
    """What `build` would make, as shapes without memory (torch's meta device)."""
    with torch.device("meta"), ShapesOnly():
        return build(network, embedding, input_size=input_size, head=head)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRow:
    """One line of `dataprep train --list-networks`. `gflops` are multiply-adds / 1e9 of one image of `input`."""

    name: str
    parameters: int
    gflops: float
    input: Input
    embedding: int
    source: str


def list_networks(names: tuple[str, ...] = tuple(NETWORKS)) -> list[NetworkRow]:
    """Size and cost of networks, counted on torch's meta device: nothing is computed, no memory is taken."""
    rows = []
    for name in names:
        entry = find_network(name)
        module = outline(name)
        rows.append(
            NetworkRow(
                name=name,
                parameters=sum(parameter.numel() for parameter in module.parameters()),
                gflops=multiply_adds(module, (entry.input.height, entry.input.width)) / 1e9,
                input=entry.input,
                embedding=entry.embedding,
                source=entry.source,
            )
        )
    return rows


def format_networks(rows: list[NetworkRow]) -> str:
    """The rows as a table for a terminal."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'network':{width}}  parameters  GFLOPs  input    embedding  after"]
    lines += [
        f"{row.name:{width}}  {row.parameters / 1e6:8.2f} M  {row.gflops:6.2f}  {row.input.width}x{row.input.height} "
        f"{row.embedding:>10}  {row.source}"
        for row in rows
    ]
    lines.append(f"{PREFIX}NAME is any backbone of timm. GFLOPs: multiply-adds of one image, in thousand millions.")
    return "\n".join(lines)


def multiply_adds(module: nn.Module, size: tuple[int, int]) -> int:
    """Of convolutions and matrix products for one image of `size`; `module` lies on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad(), ShapesOnly(convolve=True):
        module.eval()(torch.empty(1, 3, *size, device="meta"))
    return int(counter.get_total_flops()) // 2
