"""The backbone of a run: fresh, or from a file; and what is called in its place on several devices."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from dataprep.models.input import Input
from dataprep.models.registry import build, find_network
from dataprep.train.batchnorm import synchronise
from dataprep.train.distributed import World
from dataprep.train.params import TrainParams


def make_backbone(
    params: TrainParams, size: tuple[int, int], pretrained: Path | None, world: World, device: torch.device
) -> tuple[nn.Module, Input, int]:
    """The network for images of `size` (height, width) on its device, its input, and the length of its embedding.

    Raises ModelError.
    """
    entry = find_network(params.network)
    embedding = params.embedding or entry.embedding
    head = None if params.embedding_head == "own" else params.embedding_head
    module = build(params.network, embedding, input_size=size, head=head)
    input = replace(entry.input, height=size[0], width=size[1])
    if params.sync_bn and world.size > 1:
        synchronise(module)
    module.requires_grad_(params.train == "all")
    # twice as fast as the default layout on CPUs, and what tensor cores like
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    return module, input, embedding


def image_size(params: TrainParams) -> tuple[int, int]:
    """(height, width) of the images that a pack for this network should hold: 256/224 of its own where a window of them is
    drawn at each turn."""
    entry = find_network(params.network)
    scale = 256 / 224 if params.augment == "vggface2" else 1.0
    return round(entry.input.height * scale), round(entry.input.width * scale)


def wrap(module: nn.Module, params: TrainParams, world: World, device: torch.device) -> nn.Module:
    """What is called in training, with the same weights: gradients averaged over processes, compiled where asked for.

    Each process normalises by its own images (or all by all, --sync-bn), so no buffers are sent around at each step.
    """
    if world.size > 1 and params.train == "all":
        devices = [device.index] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # of the name `broadcast_buffers`; older torch knows no other
            module = nn.parallel.DistributedDataParallel(
                module, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
            )
    return torch.compile(module) if params.compile else module  # type: ignore[return-value]
