"""Packs of small faces of noise, and their batches, for the tests of the loader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dataprep.imaging.codec import encode_jpeg
from dataprep.models.preprocessing import Preprocessing
from dataprep.packs.base import FaceRecord, PackFormat
from dataprep.packs.io import write_pack
from dataprep.train.data.dataset import PackDataset
from dataprep.train.data.loader import iterate_batches

SIDE = 24
INPUT = Preprocessing(height=SIDE, width=SIDE)
Numbers = np.ndarray
Loaded = list[tuple[torch.Tensor, torch.Tensor]]


def face(label: int, photo: int, data: bytes | None = None) -> FaceRecord:
    pixels = np.random.default_rng((label, photo)).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    image = encode_jpeg(pixels) if data is None else data
    return FaceRecord(name=f"p{label}/{photo}.jpg", label=label, identity=f"p{label}", image=image)


def write(folder: Path, faces: list[FaceRecord], form: PackFormat | None = None) -> Path:
    folder.mkdir()
    write_pack(folder, iter(faces), pack_format=form or PackFormat(), height=SIDE, width=SIDE, about={})
    return folder


def grid(people: int = 5, photos: int = 8) -> list[FaceRecord]:
    return [face(label, photo) for label in range(people) for photo in range(photos)]


def load(source: PackDataset, input: Preprocessing = INPUT, **settings: object) -> Loaded:
    given = {"batch_size": 12, "seed": 3, "epoch": 0, "skip": 0, "workers": 0, **settings}
    return list(iterate_batches(source, input, **given))  # type: ignore[arg-type]


def equal(one: Loaded, other: Loaded) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )
