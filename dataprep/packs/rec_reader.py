"""Reading a pack of .rec files: insightface's layout or the flat one, either label form, one file or several parts."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError
from dataprep.packs.base import MAX_LABEL, FaceRecord, read_identities, read_pack_json, read_property, safe_path
from dataprep.packs.lst_files import read_lst
from dataprep.packs.record_index import RecordIndex, read_index
from dataprep.packs.recordio import MAGIC, ImageRecord, RecordReader, locate_record_parts, unpack_image
from dataprep.storage import is_url, local_copy, local_copy_with
from dataprep.tar import image_extension

_BESIDE = ("property", "labels.tsv", "pack.json", "holdout.bin")
_LARGEST = 2.0**40  # bound on any count stored in a label


class RecordPack:
    """A training pack, for reading: images by position, 0 to len - 1.

    `path` is the folder of a pack, a .rec file, or the URL of either. Raises RecordError if the files do not fit
    together. `height`, `width` and `declared_classes` are None if there is no `property`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.stem, files = locate_pack(path)
        self.records = _Parts(files)
        self.index = self._read_index(files)
        self._check_coverage()
        self.layout, self.positions = self._find_images()
        self.declared_classes, self.height, self.width = read_property(self.path)
        counted = self.metadata().get("counts")
        if isinstance(counted, dict) and counted.get("images", len(self)) != len(self):
            raise RecordError(
                f"{self.path}: pack.json counts {counted['images']} images, the .idx {len(self)}",
                hint="`dataprep repair` makes a new pack from the readable records",
            )

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> tuple[bytes, int]:
        """(image file's bytes, label)."""
        record = self.record(position)
        return record.image, _whole(record.labels[0], f"{self.path}: image {position}")

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return (self[position] for position in range(len(self)))

    def record(self, position: int) -> ImageRecord:
        """The unmodified record of an image."""
        offset = int(self.index.offsets[self.positions[position]])
        return self._unpacked(offset)

    def face(self, position: int) -> FaceRecord:
        record = self.record(position)
        label = _whole(record.labels[0], f"{self.path}: image {position}")
        key = int(self.index.keys[self.positions[position]])
        name = self.name(position, label)
        return FaceRecord(
            name=name if self.names else f"{name}.{image_extension(record.image)}",
            label=label,
            identity=self.identity(label),
            image=record.image,
            key=key if self.layout == "flat" else None,
        )

    def name(self, position: int, label: int) -> str:
        """identity/file of an image according to the .lst; without a .lst, identity/key and no suffix."""
        identity = self.identity(label)
        if not self.names:
            return f"{identity}/{self.index.keys[self.positions[position]]:08d}"
        name = self.names[position]
        return name if name.startswith(f"{identity}/") else f"{identity}/{name.rpartition('/')[2]}"

    def place(self, position: int) -> tuple[Path, int]:
        """The .rec that holds an image, and the offset of its record there."""
        return self.records.place(int(self.index.offsets[self.positions[position]]))

    @property
    def num_classes(self) -> int:
        """The number in `property`, else the largest label + 1."""
        if self.declared_classes is not None:
            return self.declared_classes
        return int(self.labels().max(initial=-1)) + 1

    @property
    def keys(self) -> npt.NDArray[np.int64]:
        """The keys of the images, in order."""
        return self.index.keys[self.positions]

    def labels(self) -> npt.NDArray[np.int64]:
        """The label of every image, in order. Raises RecordError for one that is not a whole number."""
        offsets = self.index.offsets[self.positions]
        labels = self.records.first_labels(offsets)
        for position in np.flatnonzero(np.isnan(labels)):  # split or unusual records
            labels[position] = self._unpacked(int(offsets[position])).labels[0]
        wrong = np.flatnonzero(~(np.abs(labels) < _LARGEST) | (labels != np.floor(labels)))
        if len(wrong):
            _whole(labels[wrong[0]], f"{self.path}: image {wrong[0]}")
        return labels.astype(np.int64)

    def ranges(self) -> list[tuple[int, int]]:
        """The identity records: (first key, last key + 1) of each; empty for the flat layout."""
        if self.layout == "flat":
            return []
        positions = np.setdiff1d(np.arange(len(self.index.keys)), self.positions)
        found = []
        for position in positions[self.index.keys[positions] != 0]:
            labels = self._unpacked(int(self.index.offsets[position])).labels
            where = f"{self.path}: the identity record {self.index.keys[position]}"
            found.append((_whole(labels[0], where), _whole(labels[-1], where)))
        return found

    def identity(self, label: int) -> str:
        """The person's name: from labels.tsv, else the folder in the .lst, else the label as a number."""
        return self._identities.get(label) or f"{label:06d}"

    @cached_property
    def names(self) -> list[str] | None:
        """The images' paths in the .lst; None if there is no .lst that fits the images."""
        path = self.path / f"{self.stem}.lst"
        if not path.is_file():
            return None
        try:
            dialect, entries = read_lst(path)
        except RecordError:
            return None  # `verify` reports the error; the faces are named by number
        by_key = {entry.key: entry for entry in entries}
        if dialect == "insightface" and (self.layout != "insightface" or len(entries) != len(self)):
            return None
        listed = [by_key.get(key) for key in self.keys.tolist()]
        for entry, label in zip(listed, self.labels().tolist(), strict=True):
            if entry is None or entry.labels[0] != label:
                return None  # it lists other images
        return [safe_path(entry.path) for entry in listed if entry]

    def metadata(self) -> dict[str, Any]:
        """The contents of pack.json; empty for packs without one."""
        return read_pack_json(self.path)

    @cached_property
    def _identities(self) -> dict[int, str]:
        listed = read_identities(self.path)
        if listed is not None:
            return dict(enumerate(listed))
        found: dict[int, str] = {}
        for label, name in zip(self.labels().tolist(), self.names or (), strict=False):
            folder = name.rpartition("/")[0].rpartition("/")[2]
            if found.setdefault(label, folder) != folder or not folder:
                return {}  # the folders are not the identities
        return found if len(set(found.values())) == len(found) else {}

    def _read_index(self, files: Sequence[Path]) -> RecordIndex:
        path = self.path / f"{self.stem}.idx"
        if path.is_file() or len(files) > 1:
            return read_index(path, size=self.records.size)
        try:
            found = [(unpack_image(payload).id, offset) for offset, payload in self.records.readers[0]]
        except RecordError as error:
            raise error.within(files[0]) from None
        ids = [id for id, _ in found]
        if len(set(ids)) != len(ids) or max(ids, default=0) >= 1 << 63:
            raise RecordError(
                f"{path} is missing, and the records' ids cannot replace it", hint="`dataprep repair` makes a new one"
            )
        return RecordIndex(*np.array(found, np.int64).reshape(-1, 2).T)

    def _check_coverage(self) -> None:
        """An index that leaves out the beginning or end of a file would silently lose faces."""
        begin = 0
        for reader in self.records.readers:
            here = (
                self.index.offsets[(self.index.offsets >= begin) & (self.index.offsets < begin + len(reader))] - begin
            )
            if len(reader) and (not len(here) or here.min() > 0 or self._end(reader, int(here.max())) < len(reader)):
                raise RecordError(
                    f"{self.path / self.stem}.idx leaves out records of {reader.path.name}",
                    hint="`dataprep repair` rebuilds the index",
                )
            begin += len(reader)

    def _end(self, reader: RecordReader, offset: int) -> int:
        try:
            return locate_record_parts(reader.data, offset)[1]
        except RecordError as error:
            raise RecordError(
                f"{reader.path}, byte {offset}: {error}", hint="`dataprep repair` saves the readable records"
            ) from None

    def _find_images(self) -> tuple[str, npt.NDArray[np.int64]]:
        """The layout, and the index positions of the images."""
        place = self.index.find(0)
        head = self._unpacked(int(self.index.offsets[place])) if place is not None else None
        if place is None or head is None or len(head.labels) < 2 or head.image:
            return "flat", np.arange(len(self.index.keys))  # im2rec: key 0, if present, is an ordinary image
        try:
            return "insightface", find_image_positions(self.index.keys, place, (head.labels[0], head.labels[1]))
        except RecordError as error:
            raise RecordError(
                f"{self.path}: {error}", hint="`dataprep repair` makes a new pack from the readable records"
            ) from None

    def _unpacked(self, offset: int) -> ImageRecord:
        payload = self.records.at(offset)
        try:
            return unpack_image(payload)
        except RecordError as error:
            raise error.within(f"{self.path}, byte {offset}") from None


def _whole(number: float, where: str) -> int:
    if not abs(number) < _LARGEST or number != int(number):
        raise RecordError(f"{where} has the label {number}, which is not a valid whole number")
    return int(number)


def find_image_positions(keys: npt.NDArray[np.int64], place: int, floats: tuple[float, float]) -> npt.NDArray[np.int64]:
    """The index positions of the images in insightface's layout, given record 0 at position `place` and its two floats.

    The floats are rounded above 2**24. There the index decides: record 0 comes right after the images.
    """
    images, identities = _whole(floats[0], "record 0") - 1, _whole(floats[1] - floats[0], "record 0")
    if len(keys) < MAX_LABEL:
        if images + identities != len(keys) - 1 or min(images, identities) < 0:
            raise RecordError(
                f"record 0 counts {images} images and {identities} identities, the .idx {len(keys) - 1} records"
            )
    else:
        images = place
    positions = np.flatnonzero((keys > 0) & (keys <= images))
    if len(positions) != images:
        raise RecordError(f"record 0 counts {images} images, the .idx {len(positions)}")
    return positions


class _Parts:
    """Several .rec files read as one; offsets continue from file to file."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.readers = [RecordReader(path) for path in files]
        self._ends = list(accumulate(map(len, self.readers)))

    @property
    def size(self) -> int:
        return self._ends[-1]

    def at(self, offset: int) -> bytes:
        if len(self.readers) == 1:
            return self.readers[0].read_at(offset)
        number = self._number(offset)
        return self.readers[number].read_at(offset - (self._ends[number - 1] if number else 0))

    def place(self, offset: int) -> tuple[Path, int]:
        number = self._number(offset)
        return self.readers[number].path, offset - (self._ends[number - 1] if number else 0)

    def _number(self, offset: int) -> int:
        return min(bisect.bisect_right(self._ends, offset), len(self.readers) - 1)

    def first_labels(self, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The first label of the records at the offsets; NaN if a record is not a plain image record."""
        labels = np.full(len(offsets), np.nan)
        begin = 0
        for reader, end in zip(self.readers, self._ends, strict=True):
            here = np.flatnonzero((offsets >= begin) & (offsets < end))
            labels[here] = _first_labels(reader, offsets[here] - begin)
            begin = end
        return labels


def _first_labels(reader: RecordReader, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Vectorised: magic, lrec, flag, label and the first label after the header are words 0, 1, 2, 3 and 8."""
    words = np.frombuffer(reader.data, "<u4", len(reader) // 4)
    labels = np.full(len(offsets), np.nan)
    plain = (offsets % 4 == 0) & (offsets // 4 + 8 < len(words))
    at = offsets[plain] // 4
    whole = (words[at] == MAGIC) & (words[at + 1] >> 29 == 0) & (words[at + 1] >= 24)
    several = words[at + 2] > 0
    place = np.where(several, at + 8, at + 3)
    found = words[place].view("<f4").astype(np.float64)
    labels[plain] = np.where(whole & (~several | (words[at + 1] >= 28)), found, np.nan)
    return labels


def _local_pack(url: str) -> Path:
    """A local copy of a pack: of a .rec with the files that belong to it, or of a folder, which http has none of."""
    place, mark, query = url.partition("?")
    if place.startswith(("http://", "https://")) and not place.endswith(".rec"):
        place = f"{place.rstrip('/')}/train.rec"
    if not place.endswith(".rec"):
        return local_copy(url)
    stem = place.rpartition("/")[2].removesuffix(".rec")
    return local_copy_with(f"{place}{mark}{query}", (f"{stem}.idx", f"{stem}.lst", *_BESIDE))


def locate_pack(path: str | os.PathLike[str]) -> tuple[Path, str, list[Path]]:
    """The folder, the stem (`train`) and the .rec files of a pack."""
    if is_url(path):
        given = _local_pack(os.fspath(path))
    else:
        given = Path(path)
    if given.is_file():
        if given.suffix != ".rec":
            raise RecordError(
                f"{given}: a pack is a .rec file, or a folder that holds one",
                hint="`dataprep bins show` reads verification sets" if given.suffix == ".bin" else "",
            )
        return given.parent, given.stem, [given]
    if not given.is_dir():
        raise RecordError(f"{given}: no such pack")
    whole = given / "train.rec"
    if whole.is_file():
        return given, "train", [whole]
    parts = sorted(given.glob("train-[0-9][0-9][0-9][0-9][0-9].rec"))
    if parts:
        if [part.stem for part in parts] != [f"train-{number:05d}" for number in range(len(parts))]:
            raise RecordError(f"{given}: a part of the pack is missing; found {', '.join(p.name for p in parts)[:200]}")
        return given, "train", parts
    others = sorted(given.glob("*.rec"))
    if len(others) != 1:
        named = ", ".join(path.name for path in others)[:200]
        raise RecordError(
            f"{given} holds no train.rec: is it the folder of a pack?" if not others
            else f"{given} holds several packs ({named}): give the path of one .rec"
        )  # fmt: skip
    return given, others[0].stem, others
