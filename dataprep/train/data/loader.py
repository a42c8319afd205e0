"""Batches of faces: decoded, mirrored and shuffled by seed alone, so that any step can be made again."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataprep.errors import RecordError, UsageError
from dataprep.models.preprocessing import Preprocessing
from dataprep.train.data.augment import AugmentConfig
from dataprep.train.data.dataset import PackDataset
from dataprep.train.data.decoding import Batch, BatchDecoder, BatchIndices
from dataprep.train.data.workers import WorkerPool

_worker_pools: weakref.WeakKeyDictionary[PackDataset, WorkerPool] = weakref.WeakKeyDictionary()


class EpochPlan(NamedTuple):
    """The images of an epoch by place: their positions in the source, and whether they are mirrored."""

    positions: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]


def iterate_batches(
    dataset: PackDataset,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    skip: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    augment: AugmentConfig = AugmentConfig(),  # noqa: B008  it is frozen
    order: Sequence[int] | npt.NDArray[np.int64] | None = None,
    dtype: Literal["float32", "uint8"] = "float32",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Full batches of an epoch: images (n, 3, height, width) as `input` wants them, and labels (n,) int64.

    `batch_size` is that of all ranks together; each takes its slice of every batch. The first `skip` batches are left out (a
    resumed run has had them). `order` gives the positions in the source instead of a permutation. `uint8` leaves the
    normalisation to `normalise_batch`, on whatever device. Images are channels_last in memory, the order decoders write.

    What a batch holds depends on source, seed, epoch and its number alone. `workers` processes decode ahead and stay for the
    source's next epoch; 0 decodes here. Raises RecordError for an image that cannot be taken, UsageError for sizes that do
    not fit, DataprepError for a process that died.
    """
    check_input(dataset, preprocessing, augment)
    if batch_size < 1 or batch_size % world_size:
        raise UsageError(
            f"a batch of {batch_size} cannot be shared by {world_size} processes: take a multiple of {world_size}"
        )
    decoder = BatchDecoder(
        images=dataset.images,
        height=preprocessing.height,
        width=preprocessing.width,
        order=preprocessing.order,
        table=_table(preprocessing) if dtype == "float32" else None,
        augment=augment,
    )
    whole = plan_epoch(dataset, seed=seed, epoch=epoch, flip=augment.flip, order=order)
    share = batch_size // world_size
    firsts = [number * batch_size + rank * share for number in range(skip, len(whole.positions) // batch_size)]
    rows = [
        BatchIndices(whole.positions[first : first + share], whole.mirrored[first : first + share], seed, epoch, first)
        for first in firsts
    ]
    for images, each in zip(_decoded(dataset, decoder, rows, share, workers), rows, strict=True):
        yield _tensor(images), torch.from_numpy(dataset.labels[each.positions])


def close_workers(dataset: PackDataset) -> None:
    """End the processes that stayed for a source's next epoch; else they go with the source."""
    crew = _worker_pools.pop(dataset, None)
    if crew is not None:
        crew.close()


def plan_epoch(
    dataset: PackDataset,
    *,
    seed: int,
    epoch: int,
    flip: bool = True,
    order: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> EpochPlan:
    """The order of an epoch and its flips; a function of the arguments only."""
    if order is None:
        positions = np.random.default_rng((seed, epoch)).permutation(len(dataset))
    else:
        positions = np.asarray(order, np.int64)
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(dataset):
            raise UsageError(f"the order names image {positions.max()} or {positions.min()} of {len(dataset)} images")
    mirrored = np.random.default_rng((seed, epoch, 1)).random(len(positions)) < (0.5 if flip else 0.0)
    return EpochPlan(positions, mirrored)


def normalise_batch(batch: Tensor, preprocessing: Preprocessing) -> Tensor:
    """`(value - mean) / std` of a uint8 batch (n, 3, height, width) in the input's channel order, on its device; what a
    float32 batch holds, to the bit."""
    if len({*preprocessing.mean}) == len({*preprocessing.std}) == 1:
        return batch.float().sub_(preprocessing.mean[0]).div_(preprocessing.std[0])
    mean, std = (
        torch.tensor(values, device=batch.device).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std)
    )
    return batch.float().sub_(mean).div_(std)


def check_input(dataset: PackDataset, preprocessing: Preprocessing, augment: AugmentConfig = AugmentConfig()) -> None:  # noqa: B008  it is frozen
    """RecordError unless the faces are what the network takes: their size, and an order of colours that can be made."""
    if preprocessing.order not in ("RGB", "BGR"):
        raise RecordError(f"the network wants its colours as {preprocessing.order!r}; faces can be given as RGB or BGR")
    if (dataset.height, dataset.width) != (preprocessing.height, preprocessing.width) and not augment.resize_crop:
        raise RecordError(
            f"the network takes {preprocessing.width}x{preprocessing.height}; {dataset.paths[0]} holds "
            f"{dataset.width}x{dataset.height}: "
            "align the faces to that size"
        )


def _decoded(
    dataset: PackDataset, decoder: BatchDecoder, rows: Sequence[BatchIndices], share: int, workers: int
) -> Iterator[Batch]:
    if not workers or not rows:
        for each in rows:
            out = decoder.empty(len(each.positions))
            decoder.fill(out, each)
            yield out
        return
    crew = _worker_pools.pop(dataset, None)
    if crew is None or not crew.matches(decoder, rows=share, workers=workers):
        if crew is not None:
            crew.close()
        crew = WorkerPool(decoder, rows=share, workers=workers)
    yield from crew.decode_batches(rows)
    if dataset in _worker_pools:  # of another iterator over the same source
        crew.close()
    else:
        _worker_pools[dataset] = crew


def _table(preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """(1, 256, 3): what each value of each channel becomes."""
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    values: npt.NDArray[np.float32] = (np.arange(256, dtype=np.float32)[:, None] - mean) / std
    return values[None]


def _tensor(images: Batch) -> Tensor:
    """(n, height, width, 3) as (n, 3, height, width) over the same memory; in pinned memory where there is CUDA, from which
    `to(device, non_blocking=True)` copies beside the computing."""
    batch = torch.from_numpy(images)
    return (batch.pin_memory() if torch.cuda.is_available() else batch).permute(0, 3, 1, 2)
