"""Checks that a pack is intact: its structure, index, labels, every image, and the hashes in its pack.json."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dataprep.content import explain_error
from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import decode_image
from dataprep.packs.base import PackReader, find_missing_labels, read_identities
from dataprep.packs.io import open_pack
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.recordio import unpack_image
from dataprep.packs.recovery import DamagedRange, recover_records
from dataprep.packs.tools.convert import MAX_FACE_PIXELS, CountCallback
from dataprep.storage import file_sha256

T = TypeVar("T")
_SHOWN = 5
_BATCH = 256


@dataclass(slots=True)
class Finding:
    """A kind of error: how often it occurs, and the first examples. A warning affects no reader."""

    code: str
    meaning: str
    warning: bool = False
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str, times: int = 1) -> None:
        self.count += times
        if len(self.examples) < _SHOWN:
            self.examples.append(example)


class Findings:
    """Findings by code, in the order of _MEANINGS."""

    def __init__(self) -> None:
        self._found = {
            code: Finding(code=code, meaning=meaning, warning=warning) for code, (meaning, warning) in _MEANINGS.items()
        }

    def add(self, code: str, example: str, times: int = 1) -> None:
        self._found[code].add(example, times)

    def to_list(self) -> list[Finding]:
        return [finding for finding in self._found.values() if finding.count]


_MEANINGS = {
    "unopenable": ("the pack cannot be opened", False),
    "empty": ("the pack is empty", False),
    "damaged": ("stretches that hold no record", False),
    "index": ("the .idx does not fit the records", False),
    "id": ("records whose id is not their key in the .idx", True),
    "label": ("labels outside 0..num_classes-1, not whole, or without an image", False),
    "order": ("images of one identity that are not adjacent", False),
    "range": ("identity records that do not fit the labels", False),
    "list": (".lst or labels.tsv that do not fit the records", False),
    "unreadable": ("images that cannot be decoded", False),
    "size": ("images whose size differs from the pack's", False),
    "sha256": ("files that differ from those in pack.json", False),
    "duplicate": ("images that occur more than once within an identity", True),
    "two_names": ("images that occur under several identities", True),
    "mxnet": ("records that mxnet reads differently", False),
}  # fmt: skip


def verify_pack(
    source: str | os.PathLike[str],
    *,
    reader: str = "dataprep",
    jobs: int = 1,
    progress: CountCallback = lambda done: None,
) -> tuple[PackReader | None, list[Finding]]:
    """The pack (None if it cannot be opened) and its errors. Never raises because of the files' contents."""
    found = Findings()
    try:
        pack = open_pack(source)
        labels = pack.labels()
    except RecordError as error:
        explained = (str(error), explain_error(str(error))[0], error.hint)
        found.add("unopenable", "; ".join(text for text in explained if text))
        return None, found.to_list()
    if not len(pack):
        found.add("empty", f"{pack.path} holds no images")
    if isinstance(pack, RecordPack):
        _check_structure(pack, found)
        _check_ranges(pack, labels, found)
        _check_list(pack, labels, found)
    _check_labels(pack, labels, found)
    _check_hashes(pack, found)
    _check_images(pack, labels, found, jobs, progress)
    if reader == "mxnet":
        if not isinstance(pack, RecordPack):
            raise RecordError(f"{pack.path}: mxnet reads .rec packs only", hint="leave out --reader mxnet")
        mxnet = import_mxnet()
        try:
            for example in find_mxnet_differences(pack, mxnet):
                found.add("mxnet", example)
        except RecordError as error:
            found.add("mxnet", str(error))
    return pack, found.to_list()


def _check_structure(pack: RecordPack, found: Findings) -> None:
    """Every byte must belong to a record, every record to the index, and every line of the index to a record."""
    offsets, ids, begin = [], [], 0
    for part in pack.records.readers:
        for thing in recover_records(part.data):
            if isinstance(thing, DamagedRange):
                found.add("damaged", f"{part.path.name}, bytes {thing.offset} to {thing.end}: {thing.reason}")
                continue
            try:
                ids.append(unpack_image(thing.payload(part.data)).id)
            except RecordError as error:
                found.add("damaged", f"{part.path.name}, byte {thing.offset}: {error}")
                continue
            offsets.append(begin + thing.offset)
        begin += len(part)
    records = np.array(offsets, np.int64)
    for offset in np.setdiff1d(records, pack.index.offsets):
        found.add("index", f"the record at byte {offset} is not in the index")
    for key in pack.index.keys[~np.isin(pack.index.offsets, records)]:
        found.add("index", f"key {key}: no record begins at its offset")
    placed = np.searchsorted(records, pack.index.offsets)
    right = np.isin(pack.index.offsets, records)
    for key, place in zip(pack.index.keys[right].tolist(), placed[right].tolist(), strict=True):
        if ids[place] != key:
            found.add("id", f"key {key}: the record's id is {ids[place]}")


def _check_labels(pack: PackReader, labels: npt.NDArray[np.int64], found: Findings) -> None:
    declared = pack.declared_classes if isinstance(pack, RecordPack) else None
    classes = declared if declared is not None else int(labels.max(initial=-1)) + 1
    for position in np.flatnonzero((labels < 0) | (labels >= classes)):
        found.add("label", f"image {position}: label {labels[position]}, num_classes {classes}")
    missing, first = find_missing_labels(labels, classes, _SHOWN)
    if missing:
        found.add(
            "label", f"no image has the labels {', '.join(map(str, first))}{' ...' * (missing > _SHOWN)}", missing
        )
    if isinstance(pack, RecordPack) and pack.layout == "insightface":
        starts = labels[np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))]
        for label, runs in zip(*np.unique(starts, return_counts=True), strict=True):
            if runs > 1:
                found.add("order", f"label {label} in {runs} places")


def _check_ranges(pack: RecordPack, labels: npt.NDArray[np.int64], found: Findings) -> None:
    """In insightface's layout, identity k is the k-th run of equal labels, keys `first` to `end`."""
    if pack.layout != "insightface" or len(pack.index.keys) >= 1 << 24:  # above that, float32 is inexact
        return
    try:
        ranges = pack.ranges()
    except RecordError as error:
        found.add("range", str(error))
        return
    starts = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))
    ends = [*starts[1:].tolist(), len(labels)]
    # face2rec2 writes no identity for the label -1
    expected = [(start + 1, end + 1) for start, end in zip(starts.tolist(), ends, strict=True) if labels[start] >= 0]
    for number, (says, is_) in enumerate(itertools.zip_longest(ranges, expected)):
        if says != is_:
            found.add("range", f"identity {number}: the record says {says}, the labels {is_}")


def _check_list(pack: RecordPack, labels: npt.NDArray[np.int64], found: Findings) -> None:
    try:
        if (pack.path / f"{pack.stem}.lst").is_file() and pack.names is None:
            found.add("list", f"{pack.stem}.lst does not list these {len(pack)} images")
        names = read_identities(pack.path)
    except RecordError as error:
        found.add("list", str(error))
        return
    if names is not None and len(names) != len(np.unique(labels)):
        found.add("list", f"labels.tsv has {len(names)} identities, the records {len(np.unique(labels))}")
    for label, (said, counted) in enumerate(zip(_counts(pack.path), np.bincount(labels[labels >= 0]), strict=False)):
        if said != str(counted):
            found.add("list", f"labels.tsv counts {said} images of label {label}, there are {counted}")


def _counts(folder: Path) -> list[str]:
    """The third column of labels.tsv."""
    path = folder / "labels.tsv"
    lines = path.read_text("utf-8").split("\n") if path.is_file() else []
    return [fields[2] for line in lines if len(fields := line.split("\t")) == 3]


def _check_hashes(pack: PackReader, found: Findings) -> None:
    try:
        files = pack.metadata().get("files", {})
    except RecordError as error:
        found.add("sha256", str(error))
        return
    for name, sha256 in files.items() if isinstance(files, dict) else ():
        path = pack.path / Path(str(name)).name
        if not path.is_file():
            found.add("sha256", f"{name} is missing")
        elif file_sha256(path) != sha256:
            found.add("sha256", f"{name} has changed")


def _check_images(
    pack: PackReader, labels: npt.NDArray[np.int64], found: Findings, jobs: int, progress: CountCallback
) -> None:
    """Decode each image once, in `jobs` threads (decoders release the GIL)."""
    sizes: set[tuple[int, int]] = set()
    if pack.height is not None and pack.width is not None:
        sizes.add((pack.height, pack.width))
    digests = np.zeros((len(pack), 2), np.uint64)

    def look(position: int) -> tuple[tuple[int, int] | None, bytes, str]:
        digest = b""
        try:
            image = pack.face(position).image
            digest = hashlib.sha256(image).digest()[:16]
            height, width = decode_image(image, max_pixels=MAX_FACE_PIXELS)[0].shape[:2]
            return (height, width), digest, ""
        except (ImagingError, RecordError) as error:
            return None, digest, str(error)

    for position, (size, digest, trouble) in enumerate(_in_threads(look, range(len(pack)), jobs)):
        if size is None:
            found.add("unreadable", f"image {position}: {trouble}")
        else:
            if not sizes:
                sizes.add(size)
            if size not in sizes:
                found.add("size", f"image {position}: {size[1]}x{size[0]}")
        # an unreadable image equals no other
        digests[position] = np.frombuffer(digest, "<u8") if digest else (position, 0)
        if (position + 1) % 500 == 0 or position + 1 == len(pack):
            progress(position + 1)
    _find_duplicates(digests, labels, found)


def _find_duplicates(digests: npt.NDArray[np.uint64], labels: npt.NDArray[np.int64], found: Findings) -> None:
    order = np.lexsort((np.arange(len(labels)), digests[:, 1], digests[:, 0]))
    same = (digests[order][1:] == digests[order][:-1]).all(axis=1)
    for first, second in zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True):
        kind = "duplicate" if labels[first] == labels[second] else "two_names"
        found.add(kind, f"images {first} (label {labels[first]}) and {second} (label {labels[second]})")


def _in_threads(function: Callable[[int], T], items: Iterable[int], jobs: int) -> Iterator[T]:
    """Results in order, with a bounded number pending."""
    if jobs <= 1:
        yield from map(function, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(jobs) as pool:
        while batch := list(itertools.islice(waiting, _BATCH)):
            yield from pool.map(function, batch)


def find_mxnet_differences(pack: RecordPack, mxnet: Any) -> Iterator[str]:
    """Every record whose bytes or labels mxnet reads differently, and every image it cannot decode."""
    for number, part in enumerate(pack.records.readers):
        reader = mxnet.recordio.MXRecordIO(str(part.path), "r")
        for offset, payload in part:
            theirs = _read(reader)
            if theirs != payload:
                size = None if theirs is None else len(theirs)
                yield f"part {number}, byte {offset}: {size} bytes, not {len(payload)}"
                break  # mxnet would continue at the wrong offset
        reader.close()
    for position in range(len(pack)):
        record = pack.record(position)
        header, image = mxnet.recordio.unpack(pack.records.at(int(pack.index.offsets[pack.positions[position]])))
        if tuple(np.ravel(header.label).tolist()) != record.labels or header.id != record.id or image != record.image:
            yield f"image {position}: header {header}"
        try:
            mxnet.image.imdecode(image)
        except Exception as error:
            yield f"image {position}: {str(error).splitlines()[0]}"


def _read(reader: Any) -> bytes | None:
    """A record, or None if mxnet finds none (it raises its own exceptions)."""
    try:
        found: bytes | None = reader.read()
    except Exception:
        return None
    return found


def import_mxnet() -> Any:
    """Import mxnet. Raises RecordError with installation instructions."""
    if not hasattr(np, "bool"):
        vars(np)["bool"] = bool  # mxnet 1.9.1 needs it; numpy 1.24 removed it
    try:
        import mxnet
        import mxnet.recordio
    except ImportError as error:
        raise RecordError(
            f"mxnet cannot be imported ({error})",
            hint="pip install 'face-dataprep[mxnet]' in an environment with numpy 1.26",
        ) from None
    return mxnet
