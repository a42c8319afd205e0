"""Packs of a few small images that are like no others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dataprep.imaging.codec import encode_jpeg
from dataprep.packs.base import FaceRecord, PackFormat
from dataprep.packs.io import write_pack


def noise(seed: int, side: int = 16) -> bytes:
    """A small JPEG that is like no other seed's."""
    return encode_jpeg(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def people(count: int, photos: int, *, seed: int = 0, name: str = "person") -> list[FaceRecord]:
    return [
        FaceRecord(
            name=f"{name}{label}/{photo}.v1.jpg",
            label=label,
            identity=f"{name}{label}",
            image=noise(1000 * seed + 50 * label + photo),
        )
        for label in range(count)
        for photo in range(photos)
    ]


def pack_writer(root: Path) -> Callable[..., Path]:
    """A function that writes faces as a pack into a new folder under `root`."""

    def write(faces: list[FaceRecord], name: str = "pack", form: PackFormat | None = None, side: int = 16) -> Path:
        folder = root / name
        folder.mkdir()
        write_pack(
            folder, iter(faces), pack_format=form or PackFormat(), height=side, width=side, about={"licence": "none"}
        )
        return folder

    return write
