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
from dataprep.models.preprocessing import Input
from dataprep.train.data.augment import Augment
from dataprep.train.data.dataset import Source
from dataprep.train.data.decoding import Batch, Decoder, Rows
from dataprep.train.data.workers import Crew

_crews: weakref.WeakKeyDictionary[Source, Crew] = weakref.WeakKeyDictionary()


class Epoch(NamedTuple):
    """The images of an epoch by place: their positions in the source, and whether they are mirrored."""

    positions: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]


def batches(
    source: Source,
    input: Input,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    skip: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    augment: Augment = Augment(),  # noqa: B008  it is frozen
    order: Sequence[int] | npt.NDArray[np.int64] | None = None,
    dtype: Literal["float32", "uint8"] = "float32",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Full batches of an epoch: images (n, 3, height, width) as `input` wants them, and labels (n,) int64.

    `batch_size` is that of all ranks together; each takes its slice of every batch. The first `skip` batches are left out (a
    resumed run has had them). `order` gives the positions in the source instead of a permutation. `uint8` leaves the
    normalisation to `normalise`, on whatever device. Images are channels_last in memory, the order decoders write.

    What a batch holds depends on source, seed, epoch and its number alone. `workers` processes decode ahead and stay for the
    source's next epoch; 0 decodes here. Raises RecordError for an image that cannot be taken, UsageError for sizes that do
    not fit, DataprepError for a process that died.
    """
    check_input(source, input, augment)
    if batch_size < 1 or batch_size % world:
        raise UsageError(f"a batch of {batch_size} cannot be shared by {world} processes: take a multiple of {world}")
    decoder = Decoder(
        images=source.images,
        height=input.height,
        width=input.width,
        order=input.order,
        table=_table(input) if dtype == "float32" else None,
        augment=augment,
    )
    whole = plan_epoch(source, seed=seed, epoch=epoch, flip=augment.flip, order=order)
    share = batch_size // world
    firsts = [number * batch_size + rank * share for number in range(skip, len(whole.positions) // batch_size)]
    rows = [
        Rows(whole.positions[first : first + share], whole.mirrored[first : first + share], seed, epoch, first)
        for first in firsts
    ]
    for images, each in zip(_decoded(source, decoder, rows, share, workers), rows, strict=True):
        yield _tensor(images), torch.from_numpy(source.labels[each.positions])


def dismiss(source: Source) -> None:
    """End the processes that stayed for a source's next epoch; else they go with the source."""
    crew = _crews.pop(source, None)
    if crew is not None:
        crew.close()


def plan_epoch(
    source: Source,
    *,
    seed: int,
    epoch: int,
    flip: bool = True,
    order: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> Epoch:
    """The order of an epoch and its flips; a function of the arguments only."""
    if order is None:
        positions = np.random.default_rng((seed, epoch)).permutation(len(source))
    else:
        positions = np.asarray(order, np.int64)
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(source):
            raise UsageError(f"the order names image {positions.max()} or {positions.min()} of {len(source)} images")
    mirrored = np.random.default_rng((seed, epoch, 1)).random(len(positions)) < (0.5 if flip else 0.0)
    return Epoch(positions, mirrored)


def normalise(batch: Tensor, input: Input) -> Tensor:
    """`(value - mean) / std` of a uint8 batch (n, 3, height, width) in the input's channel order, on its device; what a
    float32 batch holds, to the bit."""
    if len({*input.mean}) == len({*input.std}) == 1:
        return batch.float().sub_(input.mean[0]).div_(input.std[0])
    mean, std = (torch.tensor(values, device=batch.device).view(1, 3, 1, 1) for values in (input.mean, input.std))
    return batch.float().sub_(mean).div_(std)


def check_input(source: Source, input: Input, augment: Augment = Augment()) -> None:  # noqa: B008  it is frozen
    """RecordError unless the faces are what the network takes: their size, and an order of colours that can be made."""
    if input.order not in ("RGB", "BGR"):
        raise RecordError(f"the network wants its colours as {input.order!r}; faces can be given as RGB or BGR")
    if (source.height, source.width) != (input.height, input.width) and not augment.resize_crop:
        raise RecordError(
            f"the network takes {input.width}x{input.height}; {source.paths[0]} holds {source.width}x{source.height}: "
            "align the faces to that size"
        )


def _decoded(source: Source, decoder: Decoder, rows: Sequence[Rows], share: int, workers: int) -> Iterator[Batch]:
    if not workers or not rows:
        for each in rows:
            out = decoder.empty(len(each.positions))
            decoder.fill(out, each)
            yield out
        return
    crew = _crews.pop(source, None)
    if crew is None or not crew.serves(decoder, rows=share, workers=workers):
        if crew is not None:
            crew.close()
        crew = Crew(decoder, rows=share, workers=workers)
    yield from crew.run(rows)
    if source in _crews:  # of another iterator over the same source
        crew.close()
    else:
        _crews[source] = crew


def _table(input: Input) -> npt.NDArray[np.float32]:
    """(1, 256, 3): what each value of each channel becomes."""
    mean, std = np.array(input.mean, np.float32), np.array(input.std, np.float32)
    values: npt.NDArray[np.float32] = (np.arange(256, dtype=np.float32)[:, None] - mean) / std
    return values[None]


def _tensor(images: Batch) -> Tensor:
    """(n, height, width, 3) as (n, 3, height, width) over the same memory; in pinned memory where there is CUDA, from which
    `to(device, non_blocking=True)` copies beside the computing."""
    batch = torch.from_numpy(images)
    return (batch.pin_memory() if torch.cuda.is_available() else batch).permute(0, 3, 1, 2)
