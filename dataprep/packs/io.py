"""The pack formats by name: one function to open any of them, and one to write any of them."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dataprep.errors import RecordError
from dataprep.packs.base import FaceRecord, PackFormat, PackReader, WriteResult, read_pack_json, write_pack_json
from dataprep.packs.image_folder import FolderPack, write_folder
from dataprep.packs.parquet import ParquetPack, list_parquet, read_parquet_image
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.rec_writer import write_flat, write_insightface
from dataprep.packs.recordio import RecordReader, unpack_image
from dataprep.packs.webdataset import WebDatasetPack, list_shards, read_tar_image, write_webdataset
from dataprep.storage import file_sha256, is_url, local_copy, sampled_sha256

_LOOKED_AT = 1000  # files of a folder whose content is part of its digest
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
        place = os.fspath(path).partition("?")[0]
        is_rec = place.endswith(".rec") or (place.startswith("http") and not place.endswith((".tar", ".parquet")))
        return RecordPack(path) if is_rec else open_pack(local_copy(path))
    given = Path(path)
    if not given.exists():
        raise RecordError(f"{given}: no such pack")
    if given.is_file():
        if list_parquet(given):
            return ParquetPack(given)
        return WebDatasetPack(given) if list_shards(given) else RecordPack(given)
    said = read_pack_json(given).get("format")
    if said == "rec" or (said is None and any(found.is_file() for found in given.glob("*.rec"))):
        return RecordPack(given)
    if said == "webdataset" or (said is None and bool(list_shards(given))):
        return WebDatasetPack(given)
    if said is None and list_parquet(given):
        return ParquetPack(given)
    return FolderPack(given)


def read_image_at(path: Path, offset: int) -> bytes:
    """The image at a place that a pack's `place` gave. Raises RecordError."""
    if path.suffix == ".parquet":
        return read_parquet_image(path, offset)
    if path.suffix == ".tar":
        return read_tar_image(path, offset)
    return unpack_image(_records(path).read_at(offset)).image


@functools.lru_cache(maxsize=16)
def _records(path: Path) -> RecordReader:
    return RecordReader(path)


def pack_digest(pack: PackReader) -> str:
    """A digest of a pack that reads part of its images: of names, sizes and samples of the content of its files, of the
    content of a thousand files if there are more."""
    digest = hashlib.sha256()
    files = pack_files(pack)
    looked_at = set(files[:: -(-len(files) // _LOOKED_AT)])
    for path in files:
        content = sampled_sha256(path) if path in looked_at else ""
        named = f"{path.relative_to(pack.path).as_posix()}\0{path.stat().st_size}\0{content}\n"
        digest.update(named.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def pack_files(pack: PackReader) -> list[Path]:
    """The files of a pack, sorted; without pack.json."""
    if isinstance(pack, RecordPack):
        parts = [reader.path for reader in pack.records.readers]
        return parts + [p for p in (pack.path / f"{pack.stem}{s}" for s in (".idx", ".lst")) if p.is_file()]
    if pack.path.is_file():
        return [pack.path]
    return sorted(path for path in pack.path.rglob("*") if path.is_file() and path.name != "pack.json")


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
