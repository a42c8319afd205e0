"""A training pack as insightface lays it out (face2rec2): train.rec, train.idx, train.lst and property.

Images take keys 1..N with labels [label, aligned]. Key 0 comes after them with labels [N+1, N+1+K] and no image. Keys
N+1..N+K are the identities, each with [first key, last key + 1] of its images, and no image.
Source: insightface (2020) src/data/face2rec2.py and src/image_iter.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError
from dataprep.records.recordio import (
    RecordReader,
    RecordWriter,
    format_index,
    pack_image,
    read_index,
    unpack_image,
)

# a label is stored as float32, which is exact for integers up to here only
MAX_LABEL = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One aligned face on its way into a pack: `name` is the path in the list, `image` the file's bytes."""

    name: str
    label: int
    image: bytes


def write_pack(folder: Path, faces: Iterable[Face], *, height: int, width: int) -> dict[str, int]:
    """Write train.rec, train.idx, train.lst and property into `folder`; returns the counts.

    `faces` come grouped by label, labels counting up from 0; anything else raises RecordError, since readers of such a
    file would make several people of one. Labels from 2**24 on are refused.
    """
    firsts: list[int] = []
    key = 0
    with open(folder / "train.rec", "wb") as rec, open(folder / "train.lst", "w", encoding="utf-8") as lst:
        writer = RecordWriter(rec)
        for face in faces:
            _check_order(face, len(firsts))
            key += 1
            if face.label == len(firsts):
                firsts.append(key)
            writer.write(key, pack_image([face.label, 1], key, face.image))
            lst.write(format_line(face.name, face.label))
        edges = [*firsts, key + 1]
        writer.write(0, pack_image([key + 1, key + 1 + len(firsts)], 0, b""))
        for number, first in enumerate(firsts):
            identity = key + 1 + number
            writer.write(identity, pack_image([first, edges[number + 1]], identity, b""))
    (folder / "train.idx").write_bytes(format_index(writer.index))
    (folder / "property").write_text(f"{len(firsts)},{height},{width}\n")
    return {"images": key, "identities": len(firsts)}


def format_line(name: str, label: int) -> str:
    """A line of insightface's .lst for an aligned image: `1 TAB path TAB label`."""
    if "\t" in name or "\n" in name:
        raise RecordError(f"{name!r}: a .lst is TAB-separated, so a path in it cannot hold TABs or line breaks")
    return f"1\t{name}\t{label}\n"


def _check_order(face: Face, seen: int) -> None:
    if face.label >= MAX_LABEL:
        raise RecordError(f"label {face.label}: labels are float32 in a .rec, exact below {MAX_LABEL} only")
    if not seen - 1 <= face.label <= seen or face.label < 0:
        raise RecordError(
            f"{face.name}: label {face.label} after {seen - 1}; labels must be grouped and count up from 0"
        )


class Pack:
    """A training pack for reading: images by position, 0 to len - 1.

    Reads face2rec2's layout and the flat one of im2rec, either form of label. Raises RecordError if the files do not
    fit together.
    """

    def __init__(self, folder: str | Path, prefix: str = "train") -> None:
        self.folder = Path(folder)
        rec = self.folder / f"{prefix}.rec"
        if not rec.is_file():
            raise RecordError(f"{self.folder} holds no {prefix}.rec: is it the folder of a pack?")
        self._reader = RecordReader(rec)
        index = read_index(self.folder / f"{prefix}.idx")
        keys = self._image_keys(index)
        missing = [key for key in keys if key not in index]
        if missing:
            raise RecordError(f"{rec}: key {missing[0]} should be an image and is not in the .idx")
        self.keys = keys
        self._offsets = np.array([index[key] for key in keys], np.int64)
        self.num_classes, self.height, self.width = self._read_property()

    def _image_keys(self, index: dict[int, int]) -> range | list[int]:
        if 0 not in index:
            return list(index)
        head = unpack_image(self._reader.at(index[0]))
        if len(head.labels) < 2 or head.image:
            return list(index)  # im2rec: key 0 is an image like the others
        exact = len(index) - 1  # record 0's floats round above 2**24, so the count is checked against the index
        images, identities = int(head.labels[0]) - 1, int(head.labels[1] - head.labels[0])
        if images + identities != exact and exact < MAX_LABEL:
            raise RecordError(
                f"{self.folder}: record 0 speaks of {images} images and {identities} identities, "
                f"the .idx of {exact} records"
            )
        return range(1, images + 1)

    def _read_property(self) -> tuple[int, int, int]:
        path = self.folder / "property"
        try:
            classes, height, width = (int(field) for field in path.read_text().splitlines()[0].split(","))
        except FileNotFoundError:
            raise RecordError(f"{path} is missing: one line `num_classes,height,width`") from None
        except (ValueError, IndexError):
            raise RecordError(f"{path}: expected one line `num_classes,height,width`") from None
        return classes, height, width

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> tuple[bytes, int]:
        """(image file's bytes, label)."""
        record = unpack_image(self._reader.at(int(self._offsets[position])))
        return record.image, int(record.labels[0])

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return (self[position] for position in range(len(self)))

    def labels(self) -> npt.NDArray[np.int64]:
        """The label of every image, in order."""
        return np.array([self[i][1] for i in range(len(self))], np.int64)

    def manifest(self) -> dict[str, Any]:
        """What pack.json says; empty for packs of others."""
        path = self.folder / "pack.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {}
