"""Archives of lists: downloaded completely or not at all, and read without extracting files."""

from __future__ import annotations

import bz2
import gzip
import http.client
import io
import lzma
import re
import tarfile
import tempfile
import urllib.error
import urllib.request
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from dataprep import __version__
from dataprep.errors import SourceError
from dataprep.storage import Folder

# VGG-Face: 2,622 lists of about 150 KB, 390 MB in all
_LARGEST_LIST = 16 << 20
_LARGEST_ARCHIVE = 2 << 30
_MOST_MEMBERS = 50_000
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


def fetch_lists(url: str, target: Path) -> Path:
    """Download the archive from `url` to `target` if it does not exist. Raises SourceError with a hint."""
    if target.is_file():
        return target
    request = urllib.request.Request(url, headers={"User-Agent": f"dataprep/{__version__}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            if not answer.read(2) == b"\x1f\x8b":
                raise _advice(url, "the response is not a .tar.gz")
            with Folder(target.parent).writing(target.name) as stream:
                stream.write(b"\x1f\x8b")
                size = 2
                while block := answer.read(1 << 20):
                    size += stream.write(block)
                    if size > _LARGEST_ARCHIVE:
                        raise _advice(url, f"more than {_LARGEST_ARCHIVE >> 30} GiB received")
                announced = answer.headers.get("Content-Length") or ""
                if announced.isdigit() and size != int(announced):  # urllib does not report a short body
                    raise _advice(url, f"{size} of {announced} bytes received")
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise _advice(url, str(getattr(error, "reason", error) or repr(error))) from None
    return target


class Archive:
    """The .txt files of a tar whose path matches `pattern`, sorted by file name.

    The tar is read once, from start to end, into a temporary file of compressed lists, so nothing is extracted under a
    name from the archive. Links and devices are skipped. Path traversal, huge members and decompression bombs are
    refused. Raises SourceError.
    """

    def __init__(self, path: Path, pattern: str) -> None:
        self._path = path
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the finalizer
        weakref.finalize(self, self._spool.close)
        self._places: list[tuple[str, int, int]] = []
        try:
            with _Bounded(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
                self._read(archive, re.compile(pattern))
        except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
            raise SourceError(f"{path}: not a readable archive of lists ({error})") from None
        self._places.sort(key=lambda place: place[0])

    def __len__(self) -> int:
        return len(self._places)

    def lists(self) -> Iterator[tuple[str, bytes]]:
        """Yield (name without folder and .txt, content) of each list."""
        for name, offset, size in self._places:
            self._spool.seek(offset)
            yield name, zlib.decompress(self._spool.read(size))

    def _read(self, archive: tarfile.TarFile, pattern: re.Pattern[str]) -> None:
        for count, member in enumerate(archive):
            if count >= _MOST_MEMBERS:
                raise SourceError(f"{self._path}: more than {_MOST_MEMBERS} members; is it an archive of lists?")
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise SourceError(
                    f"{self._path}: the member name {member.name[:80]!r} is unsafe; not an archive of lists"
                )
            if not (member.isreg() and pattern.search(member.name)) or member.issparse():
                continue
            if member.size > _LARGEST_LIST:
                raise SourceError(f"{self._path}: {member.name} has {member.size} bytes; a list has only about 150,000")
            stream = archive.extractfile(member)
            data = zlib.compress(stream.read() if stream else b"", 1)
            self._places.append((name.stem, self._spool.tell(), self._spool.write(data)))


class _Bounded(io.RawIOBase):
    """A forward-only stream of a file, decompressed by its magic number. Raises an error if it is too large."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as plain:
            head = plain.read(6)
        opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), open)
        self._stream: IO[bytes] = opener(path, "rb")
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek forward only, which is all that tarfile needs when members are read in order."""
        if whence != io.SEEK_SET or offset < self._at:
            raise tarfile.ReadError("its members are not in sequence")
        while self._at < offset and self.read(min(offset - self._at, 1 << 20)):
            pass
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_LIST:
            raise tarfile.ReadError("a header is larger than any list")
        data = self._stream.read(size)
        self._at += len(data)
        if self._at > _LARGEST_ARCHIVE:
            raise tarfile.ReadError(f"more than {_LARGEST_ARCHIVE >> 30} GiB when decompressed")
        return data

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _advice(url: str, cause: str) -> SourceError:
    return SourceError(
        f"the lists could not be fetched from {url} ({cause})",
        hint="download vgg_face_dataset.tar.gz from there or from a mirror by other means, and pass it with --lists",
    )
