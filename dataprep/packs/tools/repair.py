"""A new pack of what still stands in a damaged one, and an account of what is lost. The damaged one is only read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import decode
from dataprep.packs.base import MAX_LABEL, Face, Form, read_identities, read_manifest, read_property, tidied
from dataprep.packs.lst_files import read_list
from dataprep.packs.rec_reader import locate
from dataprep.packs.recordio import ImageRecord, RecordReader, unpack_image
from dataprep.packs.recovery import Found, Gap, salvage
from dataprep.packs.tools.convert import MOST_PIXELS, Tick, closed_up, publish
from dataprep.tar import extension


class Loss(NamedTuple):
    """A stretch of a file that did not make it into the new pack."""

    file: str
    offset: int
    end: int
    reason: str
    detail: str


class Saved(NamedTuple):
    """An image that stands: where, and what its record says."""

    part: int
    found: Found
    label: int
    id: int
    size: tuple[int, int]


@dataclass(slots=True)
class Scan:
    """What a damaged pack holds."""

    saved: list[Saved]
    losses: list[Loss]
    grouped: bool  # record 0 or identity records were among the records


def repair(
    source: str | os.PathLike[str], target: Path, *, style: str | None = None, tick: Tick = lambda done: None
) -> dict[str, Any]:
    """Write the images that can be read of the pack `source` into a new pack at `target`; its pack.json.

    The index, record 0 and the identities are made anew from the records; the old ones are not even looked at. Lost are
    records that are damaged, images that cannot be decoded or are of another size than most, and labels that no reader
    takes; `target` gets lost.tsv with file, offset, end, reason and detail of each. Labels left without an image are
    closed up; labels.tsv has the old numbers as names where there were no names.
    """
    folder, stem, files = locate(source)
    readers = [RecordReader(path) for path in files]
    scan = _scan(readers, tick)
    _drop_other_sizes(scan, readers, folder)
    if not scan.saved:
        raise RecordError(f"{files[0]}: no image in it can be read; nothing to make a pack of")
    form = Form(style=style or ("insightface" if scan.grouped else "flat"))
    if form.style == "insightface":
        scan.saved.sort(key=lambda saved: saved.label)
    size = scan.saved[0].size
    lost = Counter(loss.reason for loss in scan.losses)
    about = {key: value for key, value in _known(folder).items() if key in ("template", "recipe", "sources", "licence")}
    about["repaired_from"] = {"pack": os.fspath(source), "images": len(scan.saved), "lost": dict(sorted(lost.items()))}
    faces = _faces(scan, readers, _names(folder, stem, scan.saved), _identities(folder), flat=form.style == "flat")
    text = "".join("\t".join(map(str, loss)) + "\n" for loss in scan.losses)
    return publish(target, faces, size=size, form=form, about=about, beside={"lost.tsv": text.encode()})


def _scan(readers: list[RecordReader], tick: Tick) -> Scan:
    scan = Scan(saved=[], losses=[], grouped=False)
    looked = 0
    for number, reader in enumerate(readers):
        name = reader.path.name
        for thing in salvage(reader.data):
            if isinstance(thing, Gap):
                scan.losses.append(Loss(name, thing.offset, thing.end, "damaged", thing.why))
                continue
            looked += 1
            if looked % 500 == 0:
                tick(looked)
            end = thing.parts[-1][1]
            try:
                record = unpack_image(thing.payload(reader.data))
                if not record.image and len(record.labels) == 2:
                    scan.grouped = True  # record 0 or an identity: made anew
                    continue
                scan.saved.append(
                    Saved(
                        number,
                        thing,
                        _label(record),
                        record.id,
                        decode(record.image, max_pixels=MOST_PIXELS)[0].shape[:2],
                    )
                )
            except ImagingError as error:
                scan.losses.append(Loss(name, thing.offset, end, error.reason.code, error.detail))
            except RecordError as error:
                scan.losses.append(Loss(name, thing.offset, end, "header", str(error)))
    tick(looked)
    return scan


def _label(record: ImageRecord) -> int:
    label = record.labels[0]
    if not 0 <= label < MAX_LABEL or label != int(label):
        raise RecordError(f"record {record.id}: label {label} is none that counts up from 0")
    return int(label)


def _drop_other_sizes(scan: Scan, readers: list[RecordReader], folder: Path) -> None:
    """Keep the images of the size that most have; of two that equally many have, the one that `property` names."""
    sizes = Counter(saved.size for saved in scan.saved)
    try:
        _, height, width = read_property(folder)
    except RecordError:
        height = width = None
    wanted = max(sizes, key=lambda size: (sizes[size], size == (height, width)), default=(0, 0))
    for saved in scan.saved:
        if saved.size != wanted:
            file, end = readers[saved.part].path.name, saved.found.parts[-1][1]
            scan.losses.append(Loss(file, saved.found.offset, end, "size", f"{saved.size[1]}x{saved.size[0]}"))
    scan.saved = [saved for saved in scan.saved if saved.size == wanted]


def _faces(
    scan: Scan, readers: list[RecordReader], names: dict[int, str], identities: list[str], *, flat: bool
) -> Iterator[Face]:
    labels = closed_up(np.array([saved.label for saved in scan.saved], np.int64))
    keys = Counter(saved.id for saved in scan.saved)
    keep_keys = flat and max(keys.values()) == 1 and max(keys) < 1 << 63
    for saved in scan.saved:
        image = unpack_image(saved.found.payload(readers[saved.part].data)).image
        identity = identities[saved.label] if saved.label < len(identities) else f"{saved.label:06d}"
        name = names.get(saved.id, f"{saved.id:08d}.{extension(image)}")
        yield Face(
            name=name if name.startswith(f"{identity}/") else f"{identity}/{name.rpartition('/')[2]}",
            label=labels[saved.label],
            identity=identity,
            image=image,
            key=saved.id if keep_keys else None,
        )


def _names(folder: Path, stem: str, saved: list[Saved]) -> dict[int, str]:
    """Paths by record id, from a .lst that can be read: line k of insightface's is record k, mxnet's has the ids.

    None of them if the labels disagree anywhere: face2rec2 skips lines, and the list would name the neighbour's face.
    """
    try:
        _, entries = read_list(folder / f"{stem}.lst")
    except RecordError:
        return {}
    listed = {entry.key: entry for entry in entries}
    found = [(one, listed[one.id]) for one in saved if one.id in listed]
    if any(entry.labels[0] != one.label for one, entry in found):
        return {}
    return {entry.key: tidied(entry.path) for _, entry in found}


def _identities(folder: Path) -> list[str]:
    try:
        return read_identities(folder) or []
    except RecordError:
        return []


def _known(folder: Path) -> dict[str, Any]:
    try:
        return read_manifest(folder)
    except RecordError:
        return {}
