"""The batches of a session on its device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dataprep.train.loader import batches, normalise
from dataprep.train.session import Session, augmentation, epoch_order


def feed(session: Session, *, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of an epoch's batches, the first `skip` left out: normalised images in channels-last, and labels.

    On a GPU the bytes travel, and are normalised there.
    """
    params, device = session.params, session.device
    stream = batches(
        session.source,
        session.input,
        batch_size=params.batch_size,
        seed=params.seed,
        epoch=epoch,
        skip=skip,
        workers=params.workers,
        rank=session.world.rank,
        world=session.world.size,
        augment=augmentation(params),
        order=epoch_order(params, session.source, epoch),
        dtype="uint8" if device.type == "cuda" else "float32",
    )
    for images, labels in stream:
        moved = images.to(device, non_blocking=True)
        if moved.dtype == torch.uint8:
            moved = normalise(moved, session.input)
        yield moved.contiguous(memory_format=torch.channels_last), labels.to(device, non_blocking=True)
