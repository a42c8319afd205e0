"""Rebuilds a pack from the readable records of a damaged one, and lists the losses. The damaged pack is only read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
from dataprep.packs.recordio import ImageRecord, RecordReader, unpack_image
from dataprep.packs.recovery import DamagedRange, RecoveredRecord, recover_records
from dataprep.packs.tools.convert import MAX_FACE_PIXELS, CountCallback, close_label_gaps, publish_pack
from dataprep.tar import image_extension


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


def repair_pack(
    source: str | os.PathLike[str],
    target: Path,
    *,
    layout: str | None = None,
    progress: CountCallback = lambda done: None,
) -> dict[str, Any]:
    """Write the readable images of the pack `source` into a new pack at `target`; return its pack.json.

    The index, record 0 and the identities are rebuilt from the records; the old ones are ignored. Damaged records,
    images that cannot be decoded or differ in size from most, and invalid labels are lost; lost.tsv in `target` lists
    file, offset, end, reason and detail of each. Labels left without an image are closed up. People without a name get
    their old label as the name in labels.tsv.
    """
    folder, stem, files = locate_pack(source)
    readers = [RecordReader(path) for path in files]
    scan = _scan(readers, progress)
    _drop_other_sizes(scan, readers, folder)
    if not scan.saved:
        raise RecordError(f"{files[0]}: none of its images can be read")
    form = PackFormat(record_layout=layout or ("insightface" if scan.grouped else "flat"))
    if form.record_layout == "insightface":
        scan.saved.sort(key=lambda saved: saved.label)
    size = scan.saved[0].size
    lost = Counter(loss.reason for loss in scan.losses)
    about = {key: value for key, value in _known(folder).items() if key in ("template", "recipe", "sources", "licence")}
    about["repaired_from"] = {"pack": os.fspath(source), "images": len(scan.saved), "lost": dict(sorted(lost.items()))}
    faces = _rebuild_faces(
        scan, readers, _names(folder, stem, scan.saved), _identities(folder), flat=form.record_layout == "flat"
    )
    text = "".join("\t".join(map(str, loss)) + "\n" for loss in scan.losses)
    return publish_pack(target, faces, size=size, pack_format=form, about=about, beside={"lost.tsv": text.encode()})


def _scan(readers: list[RecordReader], progress: CountCallback) -> SalvageScan:
    scan = SalvageScan(saved=[], losses=[], grouped=False)
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
    return {entry.key: safe_path(entry.path) for _, entry in found}


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
