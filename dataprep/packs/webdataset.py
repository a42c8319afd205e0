"""A pack as WebDataset shards: train-NNNNNN.tar, each face as NNNNNNNNN.jpg (or .png), .cls and .json.

WebDataset ends a key at the first dot of the file name, and names of faces may contain dots. So the keys are numbers,
and the name is in the .json. Source: webdataset's tariterators.base_plus_ext.
"""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import mmap
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError
from dataprep.packs.base import (
    FaceRecord,
    LabelCounter,
    WriteResult,
    read_identities,
    read_pack_json,
    read_property,
    safe_path,
)
from dataprep.storage import FileIdentity, HashedFile
from dataprep.tar import TAR_END, image_extension, make_member

_log = logging.getLogger(__name__)

_SHARD = 256 << 20
_BLOCK = 512
_SHARDS = (".tar", ".tar.gz", ".tgz")
_IMAGES = ("jpg", "jpeg", "png", "webp", "bin")
_LONGEST_JSON = 1 << 16
_LONGEST_CAPTION = 200
_UNLABELLED = -1


def write_webdataset(
    folder: Path, faces: Iterable[FaceRecord], *, height: int, width: int, max_part: int | None = None
) -> WriteResult:
    """Write train-NNNNNN.tar of at most `max_part` bytes (default 256 MiB), property and labels.tsv into `folder`.

    Faces may come in any order, as long as every label up to the largest has a face.
    """
    limit = max_part or _SHARD
    tally = LabelCounter()
    files: dict[str, str] = {}
    stream: HashedFile | None = None
    name, used = "", 0
    try:
        for number, face in enumerate(tally.check_any_order(faces)):
            sample = _members(f"{number:09d}", face)
            if stream is None or used + len(sample) + len(TAR_END) > limit:
                if stream:
                    stream.write(TAR_END)
                    files[name] = stream.close()
                name, used = f"train-{len(files):06d}.tar", 0
                stream = HashedFile(folder / name)
            stream.write(sample)
            used += len(sample)
        if stream:
            stream.write(TAR_END)
            files[name] = stream.close()
    finally:
        if stream:
            stream.abandon()
    return WriteResult(counts=tally.write_sidecars(folder, height=height, width=width), files=files)


def _members(key: str, face: FaceRecord) -> bytes:
    about = json.dumps({"name": face.name, "identity": face.identity, "label": face.label}, ensure_ascii=False)
    files = {"cls": str(face.label).encode(), image_extension(face.image): face.image, "json": about.encode()}
    return b"".join(make_member(f"{key}.{suffix}", data)[0] for suffix, data in files.items())


class WebDatasetPack:
    """WebDataset shards of faces, for reading: ours, and others whose samples have an image and a label, as a .cls or as
    `label` or `cls` in a .json. Where none has one, the captions (.txt), as img2dataset writes them, are the people's names.
    `path` is a folder of shards, which may be gzipped, or one shard."""

    layout = "webdataset"

    def __init__(self, path: Path) -> None:
        self.path = path
        beside = path.parent if path.is_file() else path
        _, self.height, self.width = read_property(beside)
        self._identities = read_identities(beside) or []
        self._shards = [_Shard(shard) for shard in list_shards(path)]
        listed = self.metadata().get("files")
        missing = [name for name in listed if not (path / name).is_file()] if isinstance(listed, dict) else []
        missing = [] if path.is_file() else missing
        if missing:
            raise RecordError(f"{path}: pack.json lists {missing[0]}, which is missing")
        self._samples = [(shard, sample) for shard in self._shards for sample in shard.samples()]
        if any(sample.label == _UNLABELLED for _, sample in self._samples):
            self._name_by_captions()

    def _name_by_captions(self) -> None:
        """Take the captions as names of people, and their order as labels."""
        labelled = any(sample.label != _UNLABELLED for _, sample in self._samples)
        people = [shard.caption(sample) for shard, sample in self._samples]
        for (shard, sample), person in zip(self._samples, people, strict=True):
            if (labelled and sample.label == _UNLABELLED) or not person:
                raise shard.incomplete(sample.key, "an image and a label (.cls, or `label` in the .json), or a caption")
        self._identities = sorted(set(people))
        place = {person: label for label, person in enumerate(self._identities)}
        self._samples = [
            (shard, sample._replace(label=place[person]))
            for (shard, sample), person in zip(self._samples, people, strict=True)
        ]
        _log.info("%s: no labels; the captions (.txt) are taken as names of people, %d of them", self.path, len(place))

    def __len__(self) -> int:
        return len(self._samples)

    def labels(self) -> npt.NDArray[np.int64]:
        return np.array([sample.label for _, sample in self._samples], np.int64)

    def face(self, position: int) -> FaceRecord:
        shard, sample = self._samples[position]
        image = shard.read(sample.image)
        identity, name = self.named(position)
        name = name or f"{identity}/{sample.key}.{image_extension(image)}"
        return FaceRecord(name=name, label=sample.label, identity=identity, image=image)

    def named(self, position: int) -> tuple[str, str]:
        """The identity of an image, and its name in lists if the shard has one."""
        shard, sample = self._samples[position]
        about = _about(shard.read(sample.about)) if sample.about else {}
        known = self._identities[sample.label] if sample.label < len(self._identities) else f"{sample.label:06d}"
        return safe_path(about.get("identity", "")) or known, safe_path(about.get("name", ""))

    def place(self, position: int) -> tuple[Path, int]:
        """The shard that holds an image, and the offset of its bytes there."""
        shard, sample = self._samples[position]
        if not shard.path.name.endswith(".tar") or shard.is_zipped:
            raise RecordError(
                f"{shard.path}: a gzipped shard has to be unpacked as a whole", hint="gunzip the shards first"
            )
        return shard.path, sample.image.offset

    def metadata(self) -> dict[str, Any]:
        return read_pack_json(self.path.parent if self.path.is_file() else self.path)


def list_shards(path: Path) -> list[Path]:
    """The shards in a folder, or `path` itself; empty if there are none."""
    if path.is_file():
        return [path] if path.name.endswith(_SHARDS) else []
    return sorted(found for found in path.iterdir() if found.name.endswith(_SHARDS) and found.is_file())


def read_tar_image(path: Path, offset: int) -> bytes:
    """The bytes of the file that begins at `offset` in a tar: the header before it has their number. Raises RecordError."""
    try:
        with open(path, "rb") as stream:
            stream.seek(offset - _BLOCK)
            info = tarfile.TarInfo.frombuf(stream.read(_BLOCK), "utf-8", "surrogateescape")
            data = stream.read(info.size)
    except (OSError, tarfile.TarError, ValueError, OverflowError) as error:
        raise RecordError(f"{path}, byte {offset}: no file of a tar ({error})") from None
    if len(data) != info.size:
        raise RecordError(f"{path}, byte {offset}: the file ends after {len(data)} of {info.size} bytes")
    return data


class TarMember(NamedTuple):
    """Where a file lies in a tar."""

    offset: int
    size: int


class _Sample(NamedTuple):
    key: str
    label: int  # _UNLABELLED until the captions are looked at
    image: TarMember
    about: TarMember | None
    caption: TarMember | None


class _Shard:
    """A mapped .tar."""

    def __init__(self, path: Path) -> None:
        self.path, self.is_zipped = path, False
        self._data = self._mapped()

    def _mapped(self) -> mmap.mmap:
        try:
            with open(self.path, "rb") as stream:
                self._identity = FileIdentity.of(stream.fileno())
                self.is_zipped = stream.read(2) == b"\x1f\x8b"
                if not self.is_zipped:
                    return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            with gzip.open(self.path, "rb") as packed, tempfile.TemporaryFile() as whole:  # the map keeps it
                shutil.copyfileobj(packed, whole)
                whole.flush()
                return mmap.mmap(whole.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise RecordError(f"{self.path}: not a readable tar ({error})") from None

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_identity": self._identity}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._data = self._mapped()
        if self._identity != state["_identity"]:
            raise RecordError(f"{self.path}: the file was replaced or changed after it was opened")

    def read(self, member: TarMember) -> bytes:
        return self._data[member.offset : member.offset + member.size]

    def samples(self) -> Iterator[_Sample]:
        """The samples in order. Nothing is unpacked: names in the archive are never used as paths."""
        for stem, members in itertools.groupby(self._members(), key=lambda member: member[0]):
            yield self._sample(stem, {suffix: place for _, suffix, place in members})

    def _sample(self, key: str, members: dict[str, TarMember]) -> _Sample:
        last = {suffix.rpartition(".")[2]: place for suffix, place in members.items()}  # 0001.face.jpg
        image = next((last[suffix] for suffix in _IMAGES if suffix in last), None)
        about = last.get("json")
        about = about if about and about.size <= _LONGEST_JSON else None
        label = self._label(key, last, about)
        if image is None or (label == _UNLABELLED and "txt" not in last):
            shown = f"an image and a label (.cls, or `label` in the .json); it has {sorted(members)}"
            raise self.incomplete(key, shown)
        return _Sample(key, label, image, about, last.get("txt"))

    def caption(self, sample: _Sample) -> str:
        """The first line of the caption, as a name; empty if it cannot be one."""
        text = self.read(sample.caption) if sample.caption and sample.caption.size <= _LONGEST_CAPTION else b""
        return safe_path(text.decode("utf-8", "replace").strip().partition("\n")[0].replace("/", "_"))

    def incomplete(self, key: str, needed: str) -> RecordError:
        return RecordError(
            f"{self.path}: sample {key!r} needs {needed}",
            hint="photos of unknown people belong into a folder for each person, for `dataprep import folder`",
        )

    def _label(self, key: str, members: dict[str, TarMember], about: TarMember | None) -> int:
        if "cls" in members:
            text = self.read(members["cls"]).strip() if members["cls"].size <= 20 else b""
            if not text.isdigit():
                raise RecordError(f"{self.path}: {key}.cls holds {text[:20]!r}, not a label of 0 or more")
            return int(text)
        found = _json_object(self.read(about)) if about else {}
        labels = [found[name] for name in ("label", "cls") if type(found.get(name)) is int and found[name] >= 0]
        return labels[0] if labels else _UNLABELLED

    def _members(self) -> Iterator[tuple[str, str, TarMember]]:
        """(key, suffix, place) of the files. tarfile itself would take a damaged header for the end of the archive."""
        offset, name = 0, None
        while (block := self._data[offset : offset + _BLOCK]) != b"\0" * _BLOCK:
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except (tarfile.TarError, ValueError, OverflowError) as error:
                raise RecordError(
                    f"{self.path}, byte {offset}: not a tar header ({error}); the file is damaged or cut off"
                ) from None
            place = TarMember(offset + _BLOCK, info.size)
            offset = place.offset + info.size + (-info.size % _BLOCK)
            if info.size < 0 or offset > len(self._data):
                raise RecordError(f"{self.path}: {info.name!r} has {info.size} bytes, but the file ends before that")
            if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                name = _pax_name(self.read(place)) or name
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                name = self.read(place).rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type == tarfile.GNUTYPE_SPARSE:
                raise RecordError(
                    f"{self.path}: {info.name!r} is a sparse file", hint="make the tar again without --sparse"
                )
            else:
                if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    folder, _, base = (name or info.name).rpartition("/")
                    stem, _, suffix = base.partition(".")
                    yield f"{folder}/{stem}" if folder else stem, suffix.lower(), place
                name = None


def _pax_name(header: bytes) -> str | None:
    """The path in a pax header: `length key=value` lines."""
    for line in header.split(b"\n"):
        _, _, record = line.partition(b" ")
        if record.startswith(b"path="):
            return record[5:].decode("utf-8", "surrogateescape")
    return None


def _json_object(text: bytes) -> dict[str, Any]:
    """The .json of a sample; in other tools' packs it may hold anything, and is then empty."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _about(text: bytes) -> dict[str, str]:
    found = _json_object(text)
    return {name: found[name] for name in ("name", "identity") if isinstance(found.get(name), str)}
