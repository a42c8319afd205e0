"""Rebuilds a pack from the readable records of a damaged one, and lists the losses. The damaged pack is only read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import decode_image
from dataprep.packs.base import (
    MAX_LABEL,
    FaceRecord,
    PackFormat,
    read_identities,
    read_pack_json,
    read_property,
    safe_path,
)
from dataprep.packs.lst_files import read_lst
from dataprep.packs.rec_reader import locate_pack
from dataprep.packs.record_index import RecordIndex, read_index_leniently
from dataprep.packs.recordio import ImageRecord, RecordReader, unpack_image
from dataprep.packs.recovery import DamagedRange, RecoveredRecord, recover_records
from dataprep.packs.tools.convert import MAX_FACE_PIXELS, CountCallback, close_label_gaps, publish_pack
from dataprep.tar import image_extension

_SHARED = 0.9  # of the readable records: an index that names fewer of them is another pack's


class LostRange(NamedTuple):
    """A stretch of a file that is not in the new pack."""

    file: str
    offset: int
    end: int
    reason: str
    detail: str


class SalvagedImage(NamedTuple):
    """A readable image: its place, and the contents of its record."""

    part: int
    found: RecoveredRecord
    label: int
    id: int
    size: tuple[int, int]


@dataclass(slots=True)
class SalvageScan:
    """The contents of a damaged pack."""

    saved: list[SalvagedImage]
    losses: list[LostRange]
    grouped: bool  # record 0 or identity records were among the records
    ids: set[int]  # of all readable records


def repair_pack(
    source: str | os.PathLike[str],
    target: Path,
    *,
    layout: str | None = None,
    progress: CountCallback = lambda done: None,
) -> dict[str, Any]:
    """Write the readable images of the pack `source` into a new pack at `target`; return its pack.json.

    The index, record 0 and the identities are rebuilt from the records. Damaged records, images that cannot be decoded
    or differ in size from most, invalid labels, and images that the old index names and the file no longer has are
    lost; lost.tsv in `target` lists file, offset, end, reason and detail of each, people.tsv the people left without an
    image. Labels left without an image are closed up. People without a name get their old label as the name in
    labels.tsv.
    """
    folder, stem, files = locate_pack(source)
    readers = [RecordReader(path) for path in files]
    scan = _scan(readers, progress)
    promised = _Promised.read(folder, stem, scan)
    promised.add_missing(scan, files[-1].name)
    _drop_other_sizes(scan, readers, folder)
    if not scan.saved:
        raise RecordError(f"{files[0]}: none of its images can be read")
    form = PackFormat(record_layout=layout or ("insightface" if scan.grouped or promised.grouped else "flat"))
    if form.record_layout == "insightface":
        scan.saved.sort(key=lambda saved: saved.label)
    size = scan.saved[0].size
    lost = Counter(loss.reason for loss in scan.losses)
    about = {key: value for key, value in _known(folder).items() if key in ("template", "recipe", "sources", "licence")}
    gone = promised.people_without_images({saved.label for saved in scan.saved})
    about["repaired_from"] = {
        "pack": os.fspath(source), "images": len(scan.saved), "lost": dict(sorted(lost.items())), "people_lost": len(gone),
    }  # fmt: skip
    faces = _rebuild_faces(
        scan, readers, _names(folder, stem, scan.saved), _identities(folder), flat=form.record_layout == "flat"
    )
    text = "".join("\t".join(map(str, loss)) + "\n" for loss in scan.losses)
    beside = {"lost.tsv": text.encode()} | ({"people.tsv": "".join(gone).encode()} if gone else {})
    return publish_pack(target, faces, size=size, pack_format=form, about=about, beside=beside)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Promised:
    """What the old index, list and names say was in the pack; empty where they are missing or another pack's."""

    index: RecordIndex
    names: Mapping[int, str]
    grouped: bool  # in insightface's layout: record 0 comes after the images
    classes: int | None
    identities: Sequence[str]

    @classmethod
    def read(cls, folder: Path, stem: str, scan: SalvageScan) -> Self:
        index = read_index_leniently(folder / f"{stem}.idx")
        known = set(index.keys.tolist()) if index else set()
        if index is None or len(known & scan.ids) < _SHARED * len(scan.ids) or len(known) < len(index.keys):
            index = RecordIndex(np.zeros(0, np.int64), np.zeros(0, np.int64))
        first = index.find(0)
        try:
            classes = read_property(folder)[0]
        except RecordError:
            classes = None
        return cls(
            index=index, names=_names(folder, stem, scan.saved), classes=classes, identities=_identities(folder),
            grouped=first is not None and bool((index.offsets < index.offsets[first]).any()),
        )  # fmt: skip

    def add_missing(self, scan: SalvageScan, file: str) -> None:
        """Add the images that the index names and no readable record is to the losses; damage of one record names it."""
        keys, offsets = self.index
        images = len(self.names) or (len(keys) - 1 - (self.classes or 0) if self.grouped else len(keys))
        lost = ~np.isin(keys, np.fromiter(scan.ids, np.uint64, len(scan.ids)).astype(np.int64))
        if self.grouped:
            lost &= (keys > 0) & (keys <= images)
        alone = set[int]()
        for place, damaged in enumerate(scan.losses):
            inside = np.flatnonzero(lost & (offsets >= damaged.offset) & (offsets < damaged.end))
            if damaged.reason == "damaged" and len(inside) == 1:
                alone.add(int(inside[0]))
                named = f"{self._shown(int(keys[inside[0]]))}: {damaged.detail}"
                scan.losses[place] = damaged._replace(detail=named)
        scan.losses += [
            LostRange(file, int(offsets[at]), int(offsets[at]), "missing", self._shown(int(keys[at])))
            for at in np.flatnonzero(lost).tolist()
            if at not in alone
        ]

    def people_without_images(self, kept: set[int]) -> list[str]:
        """A line `label TAB name` for each person of whom no image is left."""
        count = max(len(self.identities), self.classes or 0)
        return [
            f"{label}\t{self.identities[label] if label < len(self.identities) else ''}\n"
            for label in range(min(count, MAX_LABEL))
            if label not in kept
        ]

    def _shown(self, key: int) -> str:
        return f"record {key} of the index" + (f", {self.names[key]}" if key in self.names else "")


def _scan(readers: list[RecordReader], progress: CountCallback) -> SalvageScan:
    scan = SalvageScan(saved=[], losses=[], grouped=False, ids=set())
    looked = 0
    for number, reader in enumerate(readers):
        name = reader.path.name
        for thing in recover_records(reader.data):
            if isinstance(thing, DamagedRange):
                scan.losses.append(LostRange(name, thing.offset, thing.end, "damaged", thing.reason))
                continue
            looked += 1
            if looked % 500 == 0:
                progress(looked)
            end = thing.parts[-1][1]
            try:
                record = unpack_image(thing.payload(reader.data))
                scan.ids.add(record.id)
                if not record.image and len(record.labels) == 2:
                    scan.grouped = True  # record 0 or an identity: rebuilt
                    continue
                scan.saved.append(
                    SalvagedImage(
                        number,
                        thing,
                        _label(record),
                        record.id,
                        decode_image(record.image, max_pixels=MAX_FACE_PIXELS)[0].shape[:2],
                    )
                )
            except ImagingError as error:
                scan.losses.append(LostRange(name, thing.offset, end, error.reason.code, error.detail))
            except RecordError as error:
                scan.losses.append(LostRange(name, thing.offset, end, "header", str(error)))
    progress(looked)
    return scan


def _label(record: ImageRecord) -> int:
    label = record.labels[0]
    if not 0 <= label < MAX_LABEL or label != int(label):
        raise RecordError(f"record {record.id}: label {label} is not a whole number below {MAX_LABEL}")
    return int(label)


def _drop_other_sizes(scan: SalvageScan, readers: list[RecordReader], folder: Path) -> None:
    """Keep the images of the most common size; in a tie, of the size in `property`."""
    sizes = Counter(saved.size for saved in scan.saved)
    try:
        _, height, width = read_property(folder)
    except RecordError:
        height = width = None
    wanted = max(sizes, key=lambda size: (sizes[size], size == (height, width)), default=(0, 0))
    for saved in scan.saved:
        if saved.size != wanted:
            file, end = readers[saved.part].path.name, saved.found.parts[-1][1]
            scan.losses.append(LostRange(file, saved.found.offset, end, "size", f"{saved.size[1]}x{saved.size[0]}"))
    scan.saved = [saved for saved in scan.saved if saved.size == wanted]


def _rebuild_faces(
    scan: SalvageScan, readers: list[RecordReader], names: dict[int, str], identities: list[str], *, flat: bool
) -> Iterator[FaceRecord]:
    labels = close_label_gaps(np.array([saved.label for saved in scan.saved], np.int64))
    keys = Counter(saved.id for saved in scan.saved)
    keep_keys = flat and max(keys.values()) == 1 and max(keys) < 1 << 63
    for saved in scan.saved:
        image = unpack_image(saved.found.payload(readers[saved.part].data)).image
        identity = identities[saved.label] if saved.label < len(identities) else f"{saved.label:06d}"
        name = names.get(saved.id, f"{saved.id:08d}.{image_extension(image)}")
        yield FaceRecord(
            name=name if name.startswith(f"{identity}/") else f"{identity}/{name.rpartition('/')[2]}",
            label=labels[saved.label],
            identity=identity,
            image=image,
            key=saved.id if keep_keys else None,
        )


def _names(folder: Path, stem: str, saved: list[SalvagedImage]) -> dict[int, str]:
    """Paths by record id, from a readable .lst: line k of insightface's is record k; mxnet's holds the ids.

    Empty if any label disagrees: face2rec2 skips lines, and the list would give faces their neighbour's name.
    """
    try:
        _, entries = read_lst(folder / f"{stem}.lst")
    except RecordError:
        return {}
    listed = {entry.key: entry for entry in entries}
    found = [(one, listed[one.id]) for one in saved if one.id in listed]
    if any(entry.labels[0] != one.label for one, entry in found):
        return {}
    return {entry.key: safe_path(entry.path) for entry in entries}


def _identities(folder: Path) -> list[str]:
    try:
        return read_identities(folder) or []
    except RecordError:
        return []


def _known(folder: Path) -> dict[str, Any]:
    try:
        return read_pack_json(folder)
    except RecordError:
        return {}
