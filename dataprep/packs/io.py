"""The pack formats by name: one function to open any of them, and one to write any of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dataprep.errors import RecordError
from dataprep.packs.base import FaceRecord, PackFormat, PackReader, WriteResult, read_pack_json, write_pack_json
from dataprep.packs.image_folder import FolderPack, write_folder
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.rec_writer import write_flat, write_insightface
from dataprep.packs.webdataset import WebDatasetPack, list_shards, write_webdataset
from dataprep.storage import file_sha256, is_url, local_copy

PACK_FORMATS = ("rec", "webdataset", "folder")

_WRITERS: Mapping[str, Callable[..., WriteResult]] = {
    "insightface": write_insightface,
    "flat": write_flat,
    "webdataset": write_webdataset,
    "folder": write_folder,
}


def open_pack(path: str | os.PathLike[str]) -> PackReader:
    """A pack of any format: a folder, a .rec file, or the URL of either. Raises RecordError."""
    if is_url(path):
        return RecordPack(path) if os.fspath(path).endswith(".rec") else open_pack(local_copy(path))
    given = Path(path)
    if not given.exists():
        raise RecordError(f"{given}: no such pack")
    if given.is_file():
        return WebDatasetPack(given) if list_shards(given) else RecordPack(given)
    said = read_pack_json(given).get("format")
    if said == "rec" or (said is None and any(found.is_file() for found in given.glob("*.rec"))):
        return RecordPack(given)
    if said == "webdataset" or (said is None and bool(list_shards(given))):
        return WebDatasetPack(given)
    return FolderPack(given)


def pack_digest(pack: PackReader) -> str:
    """A digest of a pack without reading its images: of a .rec's index, else of file names and sizes."""
    if isinstance(pack, RecordPack):
        return pack.index.digest()
    digest = hashlib.sha256()
    for path in sorted(path for path in pack.path.rglob("*") if path.is_file() and path.name != "pack.json"):
        named = f"{path.relative_to(pack.path).as_posix()}\0{path.stat().st_size}\n"
        digest.update(named.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def write_pack(
    folder: Path,
    faces: Iterable[FaceRecord],
    *,
    pack_format: PackFormat,
    height: int,
    width: int,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a pack with its sidecars and pack.json into an existing folder; return the contents of pack.json.

    Files already in the folder belong to the pack and are hashed too. Raises RecordError for labels with gaps, for
    ungrouped labels if the layout requires grouping, and for names that a list cannot hold.
    """
    before = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    written = _WRITERS[pack_format.layout](folder, faces, height=height, width=width, max_part=pack_format.max_part)
    files = {**before, **written.files}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in files:  # small files that were not hashed while written
            files[path.name] = file_sha256(path)
    if not written.counts["images"]:
        raise RecordError(f"{folder}: there are no faces to pack")
    complete = WriteResult(counts=written.counts, files=files)
    return write_pack_json(folder, complete, pack_format=pack_format, height=height, width=width, about=about)
