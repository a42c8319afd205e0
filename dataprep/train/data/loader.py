"""Batches of faces, shuffled, mirrored and decoded deterministically by seed, so that any step is reproducible."""

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
    """The images of an epoch, in order: their positions in the source, and whether they are mirrored."""

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
    """Yield the full batches of an epoch: images (n, 3, height, width) as `input` describes, and labels (n,) int64.

    `batch_size` counts all ranks together; each rank gets its slice of every batch. The first `skip` batches are skipped,
    for a resumed run. `order` gives positions in the source to use instead of a random permutation. With `uint8`, the
    caller normalises on any device with `normalise_batch`. Images are channels_last in memory, the order that
    decoders write.

    The content of a batch depends only on the source, seed, epoch and batch number. `workers` processes decode ahead and
    stay alive for the source's next epoch; 0 decodes in this process. Raises RecordError for an image that cannot be used,
    UsageError for sizes that do not fit and DataprepError for a process that died.
    """
    check_input(dataset, preprocessing, augment)
    if batch_size < 1 or batch_size % world_size:
        raise UsageError(
            f"a batch of {batch_size} cannot be split over {world_size} processes: use a multiple of {world_size}"
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
    """End the processes kept for a source's next epoch. Otherwise they end when the source is deleted."""
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
    """The order of an epoch and its flips. They depend on the arguments only."""
    if order is None:
        positions = np.random.default_rng((seed, epoch)).permutation(len(dataset))
    else:
        positions = np.asarray(order, np.int64)
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(dataset):
            raise UsageError(
                f"the order contains image {positions.max()} or {positions.min()}, but there are {len(dataset)} images"
            )
    mirrored = np.random.default_rng((seed, epoch, 1)).random(len(positions)) < (0.5 if flip else 0.0)
    return EpochPlan(positions, mirrored)


def normalise_batch(batch: Tensor, preprocessing: Preprocessing) -> Tensor:
    """`(value - mean) / std` of a uint8 batch (n, 3, height, width) in the input's channel order, on the batch's device.
    The result equals a float32 batch bit for bit."""
    if len({*preprocessing.mean}) == len({*preprocessing.std}) == 1:
        return batch.float().sub_(preprocessing.mean[0]).div_(preprocessing.std[0])
    mean, std = (
        torch.tensor(values, device=batch.device).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std)
    )
    return batch.float().sub_(mean).div_(std)


def check_input(dataset: PackDataset, preprocessing: Preprocessing, augment: AugmentConfig = AugmentConfig()) -> None:  # noqa: B008  it is frozen
    """Raise RecordError unless the faces have the network's size and its channel order is RGB or BGR."""
    if preprocessing.order not in ("RGB", "BGR"):
        raise RecordError(f"the network's channel order is {preprocessing.order!r}; only RGB and BGR are supported")
    if (dataset.height, dataset.width) != (preprocessing.height, preprocessing.width) and not augment.resize_crop:
        raise RecordError(
            f"the network takes {preprocessing.width}x{preprocessing.height}, but {dataset.paths[0]} holds faces of "
            f"{dataset.width}x{dataset.height}: align them to the network's size"
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
    if dataset in _worker_pools:  # another iterator over the same source put its pool there
        crew.close()
    else:
        _worker_pools[dataset] = crew


def _table(preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """(1, 256, 3): the normalised value of each byte value, by channel."""
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    values: npt.NDArray[np.float32] = (np.arange(256, dtype=np.float32)[:, None] - mean) / std
    return values[None]


def _tensor(images: Batch) -> Tensor:
    """View (n, height, width, 3) as (n, 3, height, width). With CUDA the batch is copied to pinned memory, so that
    `to(device, non_blocking=True)` overlaps with computation."""
    batch = torch.from_numpy(images)
    return (batch.pin_memory() if torch.cuda.is_available() else batch).permute(0, 3, 1, 2)
