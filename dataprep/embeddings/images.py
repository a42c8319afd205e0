"""The image sources of `extract`: a folder, a list of paths, a pack or a .bin, always in one fixed order."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataprep.errors import RecordError
from dataprep.imaging.image_files import list_images
from dataprep.packs.io import pack_digest
from dataprep.packs.lst_files import read_lst
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.verification_bin import bin_image_names, is_bin, read_bin
from dataprep.storage import file_sha256
from dataprep.text import forward_slashes, iterate_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """Images by position; `names` are those used in the output. `digest` changes if the images may have changed."""

    path: Path
    names: Sequence[str]
    digest: str
    read: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.names)


def open_image_source(path: Path, *, root: Path | None = None) -> ImageSource:
    """A .rec, or a folder with one, is a pack; any other folder holds images, sorted by path. A pickle is a .bin. A
    text file lists paths, one per line, or is a .lst or `path label` list; they are relative to `root` (default: the list's
    folder). Raises RecordError."""
    if path.suffix == ".rec" or (path.is_dir() and any(path.glob("*.rec"))):
        return _pack(path)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such folder, list, pack or .bin")
    return _bin(path) if is_bin(path) else _list(path, root or path.parent)


def _folder(path: Path) -> ImageSource:
    files = list_images(path)
    if not files:
        raise RecordError(f"{path} holds no images and no .rec")
    return _files(path, files, [file.relative_to(path).as_posix() for file in files])


def _list(path: Path, root: Path) -> ImageSource:
    lines = (line.strip() for _, line in iterate_lines(path, error=RecordError))
    names = [forward_slashes(line) for line in lines if line and not line.startswith("#")]
    if not names:
        raise RecordError(f"{path} lists no images")
    if not (root / names[0]).is_file():  # paths with labels beside them, then
        with contextlib.suppress(RecordError):
            names = [entry.path for entry in read_lst(path)[1]]
    return _files(path, [root / name for name in names], names)


def _files(path: Path, files: Sequence[Path], names: Sequence[str]) -> ImageSource:
    """The digest covers names, sizes and modification times: reading every image twice would double the work."""
    for name in names:
        if not name.isascii() and any(0xD800 <= ord(c) <= 0xDFFF for c in name):
            raise RecordError(f"{name!a}: the name is not UTF-8, as feature files require; rename the file")
        if any(ord(c) < 32 for c in name):
            raise RecordError(f"{name!a}: the name holds a control character; rename the file")
    digest = hashlib.sha256()
    for file, name in zip(files, names, strict=True):
        try:
            found = file.stat()
            digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{name}\0missing\n".encode())

    def read(position: int) -> bytes:
        try:
            return files[position].read_bytes()
        except OSError as error:
            raise RecordError(f"cannot be read: {error.strerror}") from None

    return ImageSource(path=path, names=names, digest=digest.hexdigest(), read=read)


def _pack(path: Path) -> ImageSource:
    """Names come from the pack's lists, else from label and key: a .rec itself stores no names."""
    pack = RecordPack(path)
    names = [pack.name(position, label) for position, label in enumerate(pack.labels().tolist())]
    return ImageSource(path=path, names=names, digest=pack_digest(pack), read=lambda position: pack[position][0])


def _bin(path: Path) -> ImageSource:
    images, _ = read_bin(path)
    return ImageSource(path=path, names=bin_image_names(len(images)), digest=file_sha256(path), read=images.__getitem__)
