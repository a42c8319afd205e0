"""The backbone of a run, new or from a file, and its wrappers for distributed training and compilation."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from dataprep.errors import ModelError
from dataprep.models.model_files import FaceModel
from dataprep.models.preprocessing import Preprocessing, parse_channels
from dataprep.models.pretrained import load_pretrained
from dataprep.models.registry import create_model, find_network
from dataprep.train.config import TrainParams
from dataprep.train.distributed.process_group import World
from dataprep.train.distributed.sync_batchnorm import convert_sync_batchnorm

_DEFAULT = "mobilefacenet"


def make_backbone(params: TrainParams, size: tuple[int, int], pretrained: Path | None) -> FaceModel:
    """The initial network for images of `size` (height, width), new or from a file. Raises ModelError."""
    if pretrained is not None:
        return _loaded(params, pretrained)
    name = params.network or _DEFAULT
    entry = find_network(name)
    input = (
        entry.preprocessing
        if params.augment == "vggface2"
        else replace(entry.preprocessing, height=size[0], width=size[1])
    )
    input = _chosen_preprocessing(params, input) or input
    head = None if params.embedding_head == "own" else params.embedding_head
    embedding = params.embedding or entry.embedding
    module = create_model(name, embedding, input_size=(input.height, input.width), head=head)
    return FaceModel(module=module, preprocessing=input, network=name, embedding=embedding, about={}, head=head)


def _loaded(params: TrainParams, path: Path) -> FaceModel:
    model = load_pretrained(path, network=params.network, preprocessing=_chosen_preprocessing(params, Preprocessing()))
    for option, asked, there in (
        ("embedding", params.embedding, model.embedding),
        ("embedding-head", None if params.embedding_head == "own" else params.embedding_head, model.head),
    ):
        if asked not in (None, there):
            raise ModelError(
                f"{path} has the {option.replace('-', ' ')} {there or 'own'}, not {asked}", hint=f"leave out --{option}"
            )
    return model


def _chosen_preprocessing(params: TrainParams, base: Preprocessing) -> Preprocessing | None:
    """`base` with the order, mean and std that were asked for; None if none was."""
    if params.order == "own" and not params.mean and not params.std:
        return None
    chosen = base if params.order == "own" else replace(base, order=params.order)
    if params.mean:
        chosen = replace(chosen, mean=parse_channels(params.mean, "mean"))
    return replace(chosen, std=parse_channels(params.std, "std")) if params.std else chosen


def place_on_device(module: nn.Module, params: TrainParams, world: World, device: torch.device) -> nn.Module:
    """Move the module to its device, and freeze it if only the head is trained."""
    if params.sync_bn and world.size > 1:
        convert_sync_batchnorm(module)
    if (
        params.train == "head"
    ):  # what a network freezes itself, such as arcface_torch's last norm, stays frozen in any case
        module.requires_grad_(False)
    # twice as fast as the default layout on CPUs, and preferred by tensor cores
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return, unused-ignore]


def required_image_size(params: TrainParams, pretrained: Path | None) -> tuple[int, int]:
    """(height, width) that images in a pack for this network should have. With random crops (`vggface2`) it is 256/224 of
    the network's input size."""
    input = (
        _loaded(params, pretrained).preprocessing
        if pretrained
        else find_network(params.network or _DEFAULT).preprocessing
    )
    scale = 256 / 224 if params.augment == "vggface2" else 1.0
    return round(input.height * scale), round(input.width * scale)


def wrap_for_training(module: nn.Module, params: TrainParams, world: World, device: torch.device) -> nn.Module:
    """Wrap the module for training, sharing its weights: DistributedDataParallel and, if asked for, torch.compile.

    Batch norm uses each process's own statistics, or shared ones with --sync-bn, so buffers need no broadcast.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # all batches have the same shape
    if world.size > 1 and params.train == "all":
        devices = [device.index] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # about the name `broadcast_buffers`, the only one in older torch
            module = nn.parallel.DistributedDataParallel(
                module, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
            )
    return torch.compile(module) if params.compile else module  # type: ignore[return-value]
