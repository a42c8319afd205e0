"""Batches from a pack: decoded, flipped and shuffled by seed alone, so that any step can be made again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.photo import decode
from dataprep.models.files import Input
from dataprep.records.faces import missing_labels
from dataprep.records.pack import Pack


@dataclass(frozen=True, slots=True)
class Place:
    """One item of one epoch: which image, and whether it is mirrored."""

    position: int
    mirrored: bool


class PackDataset(Dataset[tuple[Tensor, int]]):
    """Images of a pack as normalised tensors with their labels, addressed by `Place`."""

    def __init__(self, pack: Pack, input: Input) -> None:
        self._pack, self._input = pack, input

    def __len__(self) -> int:
        return len(self._pack)

    def __getitem__(self, place: Place) -> tuple[Tensor, int]:
        data, label = self._pack[place.position]
        try:
            pixels, _ = decode(data)
        except ImagingError as error:
            raise RecordError(f"{self._pack.folder}: image {place.position}: {error}; pack again") from None
        if pixels.shape[:2] != (self._input.height, self._input.width):
            raise RecordError(
                f"{self._pack.folder}: image {place.position} is {pixels.shape[1]}x{pixels.shape[0]}, the network takes "
                f"{self._input.width}x{self._input.height}"
            )
        if place.mirrored:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        return self._input.normalise(pixels[None])[0], label


def epoch_places(images: int, *, seed: int, epoch: int) -> list[Place]:
    """The order of an epoch and its flips; a function of the arguments only."""
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(images)
    mirrored = generator.random(images) < 0.5
    return [Place(int(position), bool(flip)) for position, flip in zip(order, mirrored, strict=True)]


def batches(
    dataset: PackDataset, *, batch_size: int, seed: int, epoch: int, skip: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Full batches of an epoch, the first `skip` left out (a resumed run has had them)."""
    places = epoch_places(len(dataset), seed=seed, epoch=epoch)
    count = len(places) // batch_size
    chunks = [places[i * batch_size : (i + 1) * batch_size] for i in range(skip, count)]
    loader = DataLoader(
        dataset,
        batch_sampler=chunks,  # places stand in for the usual integers
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),  # the global one belongs to the training
    )
    yield from loader


def check_labels(pack: Pack) -> npt.NDArray[np.int64]:
    """The labels of a pack, checked: each in 0..num_classes-1, none without an image. Raises RecordError."""
    labels = pack.labels()
    if not len(labels):
        raise RecordError(f"{pack.folder} holds no images")
    wrong = labels[(labels < 0) | (labels >= pack.num_classes)]
    if len(wrong):
        raise RecordError(f"{pack.folder}: label {wrong[0]} is not among 0..{pack.num_classes - 1} of `property`")
    missing, first = missing_labels(labels, pack.num_classes)
    if missing:
        raise RecordError(
            f"{pack.folder}: {missing} labels have no image, {first[0]} for one; labels must be contiguous from 0"
        )
    return labels
