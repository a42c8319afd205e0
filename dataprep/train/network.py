"""The backbone of a run: fresh, or from a file; and what is called in its place on several devices."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dataprep.models.files import Input, build
from dataprep.train.batchnorm import synchronise
from dataprep.train.distributed import World
from dataprep.train.params import TrainParams


def make_backbone(
    params: TrainParams, size: tuple[int, int], pretrained: Path | None, world: World, device: torch.device
) -> tuple[nn.Module, Input]:
    """The network for images of `size` (height, width) on its device, and its input. Raises ModelError."""
    module, input = build(params.network, params.embedding), Input()
    if params.sync_bn and world.size > 1:
        synchronise(module)
    module.requires_grad_(params.learn == "all")
    # twice as fast as the default layout on CPUs, and what tensor cores like
    return module.to(device, memory_format=torch.channels_last), input  # type: ignore[call-overload, unused-ignore]


def wrap(module: nn.Module, params: TrainParams, world: World, device: torch.device) -> nn.Module:
    """What is called in training: gradients averaged over the processes, and compiled where asked for. It shares the weights.

    Each process normalises by its own images (or all by all, --sync-bn), so no buffers are sent around at each step.
    """
    if world.size > 1 and params.learn == "all":
        devices = [device.index] if device.type == "cuda" else None
        module = nn.parallel.DistributedDataParallel(
            module, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    return torch.compile(module) if params.compile else module  # type: ignore[return-value]
