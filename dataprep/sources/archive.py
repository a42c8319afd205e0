"""A release's archive of lists: fetched whole or not at all, and read without unpacking anything."""

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

# VGG-Face's: 2,622 lists of about 150 KB, 390 MB in all
_LARGEST_LIST = 16 << 20
_LARGEST_ARCHIVE = 2 << 30
_MOST_MEMBERS = 50_000
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


def fetch_lists(url: str, target: Path) -> Path:
    """The archive at `target`, fetched from `url` if it is not there. SourceError says what to do if that fails."""
    if target.is_file():
        return target
    request = urllib.request.Request(url, headers={"User-Agent": f"dataprep/{__version__}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            if not answer.read(2) == b"\x1f\x8b":
                raise SourceError(_advice(url, "what answered is no .tar.gz"))
            with Folder(target.parent).writing(target.name) as stream:
                stream.write(b"\x1f\x8b")
                size = 2
                while block := answer.read(1 << 20):
                    size += stream.write(block)
                    if size > _LARGEST_ARCHIVE:
                        raise SourceError(_advice(url, f"more than {_LARGEST_ARCHIVE >> 30} GiB came"))
                announced = answer.headers.get("Content-Length") or ""
                if announced.isdigit() and size != int(announced):  # which urllib takes for a whole answer
                    raise SourceError(_advice(url, f"{size} of {announced} bytes came"))
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise SourceError(_advice(url, str(getattr(error, "reason", error) or repr(error)))) from None
    return target


class Archive:
    """The .txt files of a tar whose path matches `pattern`, sorted by their last component, whatever their order.

    It is read once, from start to end, into a temporary file of compressed lists: nothing is unpacked under a name from
    the archive, links and devices are passed over, and names that would leave their place, huge members and archives
    that swell beyond measure are refused. Raises SourceError.
    """

    def __init__(self, path: Path, pattern: str) -> None:
        self._path = path
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - goes with the object
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
        """(name without folder and .txt, content) of each."""
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
                    f"{self._path}: a member is called {member.name[:80]!r}; no archive of lists has that"
                )
            if not (member.isreg() and pattern.search(member.name)) or member.issparse():
                continue
            if member.size > _LARGEST_LIST:
                raise SourceError(f"{self._path}: {member.name} has {member.size} bytes; a list has about 150,000")
            stream = archive.extractfile(member)
            data = zlib.compress(stream.read() if stream else b"", 1)
            self._places.append((name.stem, self._spool.tell(), self._spool.write(data)))


class _Bounded(io.RawIOBase):
    """What is in a file, decompressed if its first bytes say so, from start to end; an error instead of too much of it."""

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
        """Forward only, which is all that tarfile does when each member is read as it comes."""
        if whence != io.SEEK_SET or offset < self._at:
            raise tarfile.ReadError("its members do not follow each other")
        while self._at < offset and self.read(min(offset - self._at, 1 << 20)):
            pass
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_LIST:
            raise tarfile.ReadError("a header that is larger than any list")
        data = self._stream.read(size)
        self._at += len(data)
        if self._at > _LARGEST_ARCHIVE:
            raise tarfile.ReadError(f"more than {_LARGEST_ARCHIVE >> 30} GiB when decompressed")
        return data

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _advice(url: str, cause: str) -> str:
    return (
        f"the lists could not be fetched from {url} ({cause}): get vgg_face_dataset.tar.gz from there, or from a mirror, "
        "by other means and give it with --lists"
    )
