"""Writing a pack as .rec, .idx and .lst, in the two layouts of the field.

insightface (face2rec2): images take keys 1..N with labels [label, aligned]. Key 0 comes after them with labels
[N+1, N+1+K] and no image. Keys N+1..N+K are the identities, each with [first key, last key + 1] of its images, and no
image. Source: insightface (2020) src/data/face2rec2.py and src/image_iter.py.

flat (im2rec, DALI): every record is an image with its one label in the header. Keys count up from 0, or are the faces'
own. Source: mxnet tools/im2rec.py.

In parts, each train-NNNNN.rec has its own .idx and is a valid .rec by itself. train.idx indexes the concatenated parts,
so that `cat train-*.rec > train.rec` gives the pack in one piece.
"""

from __future__ import annotations

import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dataprep.packs.base import FaceRecord, LabelCounter, WriteResult
from dataprep.packs.lst_files import format_insightface_line, format_mxnet_line
from dataprep.packs.record_index import RecordIndex, format_index
from dataprep.packs.recordio import RecordWriter, encode_image_header, encode_scalar_header
from dataprep.storage import HashedFile

RECORD_LAYOUTS = ("insightface", "flat")


def write_insightface(
    folder: Path, faces: Iterable[FaceRecord], *, height: int, width: int, max_part: int | None = None
) -> WriteResult:
    """Write train.rec, train.idx, train.lst, property and labels.tsv into `folder`.

    `faces` must be grouped by label, with labels counting up from 0. Anything else raises RecordError: readers of such
    a file would split one person into several. Above 2**24 images, the float32 values of record 0 and of the identities
    are rounded; exact counts are in the index and in pack.json.
    """
    tally = LabelCounter()
    firsts = array.array("q")
    key = 0
    with _Parts(folder, max_part) as parts, open(folder / "train.lst", "w", encoding="utf-8") as lst:
        for face in tally.check_grouped(faces):
            key += 1
            if face.label == len(firsts):
                firsts.append(key)
            parts.write(key, face.image, encode_image_header((face.label, 1), key))
            lst.write(format_insightface_line(face.name, face.label))
        edges = [*firsts, key + 1]
        parts.write(0, b"", encode_image_header((key + 1, key + 1 + len(firsts)), 0))
        for number in range(len(firsts)):
            identity = key + 1 + number
            parts.write(identity, b"", encode_image_header((edges[number], edges[number + 1]), identity))
        files = parts.finish()
    return WriteResult(counts=tally.write_sidecars(folder, height=height, width=width), files=files)


def write_flat(
    folder: Path, faces: Iterable[FaceRecord], *, height: int, width: int, max_part: int | None = None
) -> WriteResult:
    """Write the same files in the flat layout. `faces` may come in any order; train.lst is in im2rec's dialect."""
    tally = LabelCounter()
    with _Parts(folder, max_part) as parts, open(folder / "train.lst", "w", encoding="utf-8") as lst:
        for number, face in enumerate(tally.check_any_order(faces)):
            key = number if face.key is None else face.key
            parts.write(key, face.image, encode_scalar_header(face.label, key))
            lst.write(format_mxnet_line(key, face.label, face.name))
        files = parts.finish()
    return WriteResult(counts=tally.write_sidecars(folder, height=height, width=width), files=files)


class _Parts:
    """One .rec with its .idx, or several parts within a size limit, and the index over all of them."""

    def __init__(self, folder: Path, limit: int | None) -> None:
        self._folder, self._limit = folder, limit
        self._files: dict[str, str] = {}
        self._indices: list[RecordIndex] = []
        self._begun = 0  # bytes in the parts before this one
        self._open()

    def write(self, key: int, payload: bytes, head: bytes) -> None:
        size = 8 + len(head) + len(payload) + 3 & -4
        if self._limit and self._writer.position and self._writer.position + size > self._limit:
            self._close()
            self._open()
        self._writer.write(key, payload, head)

    def finish(self) -> dict[str, str]:
        """Close the parts and write their index; return the sha256 of each .rec."""
        self._close()
        keys, offsets = (np.concatenate(found) for found in zip(*self._indices, strict=True))
        (self._folder / "train.idx").write_bytes(format_index(RecordIndex(keys, offsets)))
        return self._files

    def _open(self) -> None:
        self._name = f"train-{len(self._indices):05d}.rec" if self._limit else "train.rec"
        self._stream = HashedFile(self._folder / self._name)
        self._writer = RecordWriter(self._stream)

    def _close(self) -> None:
        index = self._writer.finish()
        self._files[self._name] = self._stream.close()
        if self._limit:
            (self._folder / self._name).with_suffix(".idx").write_bytes(format_index(index))
        self._indices.append(RecordIndex(index.keys, index.offsets + self._begun))
        self._begun += self._writer.position

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.abandon()
