"""The images of a shard: one tar, written once and read by offset. Any tar program and WebDataset can read it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

from dataprep.errors import DamagedFileError
from dataprep.tar import TAR_END, make_member, make_member_name
from dataprep.workspace.integrity import HINT, check_content


class PayloadWriter:
    """Appends members to a stream. Returns the place of each payload and the hash of the archive."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._position = 0
        self._hash = hashlib.sha256()

    def add(self, key: str, data: bytes) -> tuple[int, int, str]:
        """Append a payload; return its (offset, size, sha256)."""
        framed, start = make_member(make_member_name(key, data), data)
        self._write(framed)
        return self._position - len(framed) + start, len(data), hashlib.sha256(data).hexdigest()

    def finish(self) -> str:
        """Finish the archive; return its SHA-256."""
        self._write(TAR_END)
        return self._hash.hexdigest()

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._hash.update(data)
        self._position += len(data)


class PayloadReader:
    """Reads payloads by offset and size. Raises DamagedFileError if the file is gone or, unless `trusted`, damaged."""

    def __init__(self, path: Path, *, trusted: bool = False) -> None:
        self._path = path
        if not trusted:
            check_content(path)
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DamagedFileError(f"{path}: {error.strerror}", path=path, hint=HINT) from None

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise DamagedFileError(f"{self._path} ends before byte {offset + size}", path=self._path, hint=HINT)
        return data

    def close(self) -> None:
        os.close(self._descriptor)
