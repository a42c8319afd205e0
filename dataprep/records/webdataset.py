"""A pack as WebDataset shards: train-NNNNNN.tar, each face as NNNNNNNNN.jpg (or .png), .cls and .json.

Names of faces may hold dots, which WebDataset takes for the end of the key; so keys are numbers, and the name is in the
.json. Source: webdataset's tariterators.base_plus_ext: the key ends at the first dot of the file name.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError
from dataprep.records.faces import Face, Tally, Written, read_identities, read_manifest, read_property
from dataprep.storage import HashedFile
from dataprep.tars import END, extension, member

_SHARD = 256 << 20


def write_webdataset(
    folder: Path, faces: Iterable[Face], *, height: int, width: int, max_part: int | None = None
) -> Written:
    """Write train-NNNNNN.tar of at most `max_part` bytes (default 256 MiB), property and labels.tsv into `folder`.

    Faces may come in any order, as long as every label up to the largest has one.
    """
    limit = max_part or _SHARD
    tally = Tally()
    files: dict[str, str] = {}
    stream: HashedFile | None = None
    name, used = "", 0
    try:
        for number, face in enumerate(tally.any_order(faces)):
            sample = _members(f"{number:09d}", face)
            if stream is None or used + len(sample) + len(END) > limit:
                if stream:
                    stream.write(END)
                    files[name] = stream.close()
                name, used = f"train-{len(files):06d}.tar", 0
                stream = HashedFile(folder / name)
            stream.write(sample)
            used += len(sample)
        if stream:
            stream.write(END)
            files[name] = stream.close()
    finally:
        if stream:
            stream.abandon()
    return Written(counts=tally.finish(folder, height=height, width=width), files=files)


def _members(key: str, face: Face) -> bytes:
    about = json.dumps({"name": face.name, "identity": face.identity, "label": face.label}, ensure_ascii=False)
    files = {"cls": str(face.label).encode(), extension(face.image): face.image, "json": about.encode()}
    return b"".join(member(f"{key}.{suffix}", data)[0] for suffix, data in files.items())


class TarPack:
    """WebDataset shards of faces for reading: those written here, and others whose samples have an image and a .cls."""

    layout = "webdataset"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shards = sorted(path.glob("*.tar"))
        _, self.height, self.width = read_property(path)
        self._identities = read_identities(path) or []
        self._samples = [sample for shard in self._shards for sample in _samples(shard)]

    def __len__(self) -> int:
        return len(self._samples)

    def labels(self) -> npt.NDArray[np.int64]:
        return np.array([sample.label for sample in self._samples], np.int64)

    def face(self, position: int) -> Face:
        sample = self._samples[position]
        image = _read(sample.shard, *sample.image)
        about = _about(sample)
        identity = about.get("identity") or (
            self._identities[sample.label] if sample.label < len(self._identities) else f"{sample.label:06d}"
        )
        name = about.get("name") or f"{identity}/{sample.key}.{extension(image)}"
        return Face(name=name, label=sample.label, identity=identity, image=image)

    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.path)


class _Sample:
    """Where the members of one sample lie: (offset, size) in the shard."""

    __slots__ = ("about", "image", "key", "label", "shard")

    def __init__(self, shard: Path, key: str, members: dict[str, tuple[int, int]]) -> None:
        self.shard, self.key = shard, key
        image = next((members[suffix] for suffix in ("jpg", "jpeg", "png", "webp", "bin") if suffix in members), None)
        if image is None or "cls" not in members:
            raise RecordError(f"{shard}: sample {key} has {', '.join(sorted(members))}; an image and a .cls are needed")
        text = _read(shard, *members["cls"])
        if not text.isdigit() or len(text) > 18:
            raise RecordError(f"{shard}: {key}.cls holds {text[:20]!r}, no label that counts up from 0")
        self.image, self.about, self.label = image, members.get("json"), int(text)


def _samples(shard: Path) -> Iterator[_Sample]:
    """The samples of a shard in order. Nothing is unpacked: names in the archive are never used as paths."""
    key, members = "", dict[str, tuple[int, int]]()
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in archive:
                if not info.isfile():
                    continue
                stem, _, suffix = os.path.basename(info.name).partition(".")
                stem = os.path.join(os.path.dirname(info.name), stem)
                if stem != key and members:
                    yield _Sample(shard, key, members)
                    members = {}
                key = stem
                members[suffix.lower()] = (info.offset_data, info.size)
    except (OSError, tarfile.TarError) as error:
        raise RecordError(f"{shard}: not a readable tar ({error})") from None
    if members:
        yield _Sample(shard, key, members)


def _about(sample: _Sample) -> dict[str, str]:
    """What the .json says that can be used; other people's may hold anything."""
    if sample.about is None:
        return {}
    try:
        found = json.loads(_read(sample.shard, *sample.about))
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: found[name] for name in ("name", "identity") if isinstance(found.get(name), str)}


def _read(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as stream:
        stream.seek(offset)
        data = stream.read(size)
    if len(data) != size:
        raise RecordError(f"{path}: ends before byte {offset + size}")
    return data
