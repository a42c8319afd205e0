"""STUB until the loader comes."""

from __future__ import annotations

import numpy as np
import torch

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.photo import decode
from dataprep.records.faces import missing_labels
from dataprep.records.pack import Pack


class Source:
    def __init__(self, packs):
        (self.pack,) = map(Pack, packs)
        self.labels = check_labels(self.pack)
        self.num_classes = self.pack.num_classes
        self.height, self.width = self.pack.height, self.pack.width

    def digest(self):
        return self.pack.index.digest() + f"{self.num_classes},{self.height},{self.width}"


def open_source(packs):
    return Source(packs)


def batches(
    source, input, *, batch_size, seed, epoch, skip, workers, rank=0, world=1, augment=None, order=None, dtype="float32"
):
    generator = np.random.default_rng((seed, epoch))
    chosen = generator.permutation(len(source.labels)) if order is None else order
    mirrored = generator.random(len(chosen)) < 0.5
    part = batch_size // world
    for i in range(skip, len(chosen) // batch_size):
        images, labels = [], []
        for j in range(i * batch_size + rank * part, i * batch_size + (rank + 1) * part):
            data, label = source.pack[int(chosen[j])]
            try:
                pixels, _ = decode(data)
            except ImagingError as error:
                raise RecordError(f"{error}")
            images.append(pixels[:, ::-1] if mirrored[j] else pixels)
            labels.append(label)
        yield input.normalise(np.ascontiguousarray(np.stack(images))), torch.tensor(labels)


def normalise(batch, input):
    raise NotImplementedError


def check_labels(pack):
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
