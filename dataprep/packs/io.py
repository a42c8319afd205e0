"""The formats a pack can have, by name: one way to open any of them, and one to write any of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dataprep.errors import RecordError
from dataprep.packs.base import Face, Form, PackReader, Written, read_manifest, write_manifest
from dataprep.packs.image_folder import FolderPack, write_folder
from dataprep.packs.rec_reader import Pack
from dataprep.packs.rec_writer import write_flat, write_insightface
from dataprep.packs.webdataset import TarPack, write_webdataset
from dataprep.storage import file_sha256, is_url, local_copy

FORMATS = ("rec", "webdataset", "folder")

_WRITERS: Mapping[str, Callable[..., Written]] = {
    "insightface": write_insightface,
    "flat": write_flat,
    "webdataset": write_webdataset,
    "folder": write_folder,
}


def open_pack(path: str | os.PathLike[str]) -> PackReader:
    """A pack of any format: a folder, a .rec file, or the URL of either. Raises RecordError."""
    if is_url(path):
        return Pack(path) if os.fspath(path).endswith(".rec") else open_pack(local_copy(path))
    given = Path(path)
    if not given.exists():
        raise RecordError(f"{given}: no such pack")
    if given.is_file():
        return Pack(given)
    said = read_manifest(given).get("format")
    if said == "rec" or (said is None and any(found.is_file() for found in given.glob("*.rec"))):
        return Pack(given)
    if said == "webdataset" or (said is None and any(found.is_file() for found in given.glob("*.tar"))):
        return TarPack(given)
    return FolderPack(given)


def pack_digest(pack: PackReader) -> str:
    """What a pack holds, without reading it: the index of a .rec; else names and sizes of the files."""
    if isinstance(pack, Pack):
        return pack.index.digest()
    digest = hashlib.sha256()
    for path in sorted(path for path in pack.path.rglob("*") if path.is_file() and path.name != "pack.json"):
        named = f"{path.relative_to(pack.path).as_posix()}\0{path.stat().st_size}\n"
        digest.update(named.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def write_pack(
    folder: Path, faces: Iterable[Face], *, form: Form, height: int, width: int, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a pack with its sidecars and pack.json into an existing folder; what pack.json says.

    Files that are there already belong to the pack and are hashed too. Raises RecordError for labels with gaps, for
    ungrouped ones where the layout does not take them, and for names that no list can hold.
    """
    before = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    written = _WRITERS[form.layout](folder, faces, height=height, width=width, max_part=form.max_part)
    files = {**before, **written.files}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in files:  # what is small, and was not hashed while it was written
            files[path.name] = file_sha256(path)
    if not written.counts["images"]:
        raise RecordError(f"{folder}: no face to put into the pack")
    complete = Written(counts=written.counts, files=files)
    return write_manifest(folder, complete, form=form, height=height, width=width, about=about)
