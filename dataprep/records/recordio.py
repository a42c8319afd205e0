"""dmlc RecordIO: the framing of mxnet's .rec files, byte for byte, and the header of image records.

A part on disk is `u32 magic, u32 (cflag << 29 | length), payload, zeros to a multiple of 4`, little-endian. A payload
that holds the magic at a 4-byte-aligned offset is split there: the magic itself is dropped, the parts carry cflag 1
(first), 2 (middle), 3 (last), and the reader puts the magic back. cflag 0 is a whole record.
Source: dmlc-core include/dmlc/recordio.h and src/recordio.cc; mxnet python/mxnet/recordio.py.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from dataprep.errors import RecordError

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_HEAD = struct.Struct("<II")
MAX_PAYLOAD = (1 << 29) - 1

_IMAGE_HEAD = struct.Struct("<IfQQ")  # flag, label, id, id2: no holes, 24 bytes


class ImageRecord(NamedTuple):
    """One record of an image .rec: the labels (one or more), the id, and the image file's bytes."""

    labels: tuple[float, ...]
    id: int
    image: bytes
    id2: int = 0


def frame(payload: bytes) -> bytes:
    """A payload as RecordIO stores it. Raises RecordError from 2**29 bytes on."""
    size = len(payload)
    if size > MAX_PAYLOAD:
        raise RecordError(f"a record holds at most {MAX_PAYLOAD} bytes; this one has {size}")
    cuts = _aligned_magics(payload)
    if not cuts:
        return _HEAD.pack(MAGIC, size) + payload + b"\0" * (-size % 4)
    pieces, start = [], 0
    for cut in cuts:
        pieces += [_HEAD.pack(MAGIC, (2 if start else 1) << 29 | cut - start), payload[start:cut]]
        start = cut + 4
    pieces += [_HEAD.pack(MAGIC, 3 << 29 | size - start), payload[start:], b"\0" * (-(size - start) % 4)]
    return b"".join(pieces)


def _aligned_magics(payload: bytes) -> list[int]:
    """Offsets, multiples of 4, at which the whole magic stands; the search is C's, and hits are rare."""
    found, at = [], payload.find(_MAGIC_BYTES)
    while at >= 0:
        if at % 4 == 0:
            found.append(at)
            at += 3
        at = payload.find(_MAGIC_BYTES, at + 1)
    return found


def unframe(data: bytes | mmap.mmap | memoryview, offset: int = 0) -> tuple[bytes, int]:
    """The payload of the record that begins at `offset`, and the offset after it.

    Raises RecordError if there is no record, or only a part of one.
    """
    payload, cflag, after = _part(data, offset)
    if cflag == 0:
        return payload, after
    if cflag != 1:
        raise RecordError(f"at byte {offset}: the middle of a split record (cflag {cflag}), not the start of one")
    pieces = [payload]
    while cflag != 3:
        payload, cflag, after = _part(data, after)
        if cflag not in (2, 3):
            raise RecordError(f"at byte {offset}: a split record without its end")
        pieces += [_MAGIC_BYTES, payload]
    return b"".join(pieces), after


def _part(data: bytes | mmap.mmap | memoryview, offset: int) -> tuple[bytes, int, int]:
    if not 0 <= offset <= len(data) - 8:
        raise RecordError(f"at byte {offset}: the file ends ({len(data)} bytes) where a record should begin")
    magic, word = _HEAD.unpack_from(data, offset)
    if magic != MAGIC:
        raise RecordError(f"at byte {offset}: no record begins here (found {magic:#010x}, expected {MAGIC:#010x})")
    size = word & MAX_PAYLOAD
    end = offset + 8 + size
    if end > len(data):
        raise RecordError(f"at byte {offset}: a record of {size} bytes, but the file ends after {len(data)} bytes")
    # the last record of a file may lack its padding; nothing is lost with it
    return bytes(data[offset + 8 : end]), word >> 29, min(len(data), end + (-size % 4))


def pack_image(labels: Sequence[float], id: int, image: bytes, *, id2: int = 0) -> bytes:
    """An image record's payload with its labels, be it one, behind the header and their number in `flag`."""
    values = np.asarray(labels, "<f4")
    return _IMAGE_HEAD.pack(values.size, 0.0, id, id2) + values.tobytes() + image


def pack_scalar(label: float, id: int, image: bytes, *, id2: int = 0) -> bytes:
    """An image record's payload with its one label in the header (flag 0)."""
    return _IMAGE_HEAD.pack(0, label, id, id2) + image


def unpack_image(payload: bytes) -> ImageRecord:
    """Labels, id and image bytes; both label forms. Raises RecordError if the payload is too short for its header."""
    if len(payload) < _IMAGE_HEAD.size:
        raise RecordError(f"an image record needs {_IMAGE_HEAD.size} bytes of header; this one has {len(payload)}")
    flag, label, id, id2 = _IMAGE_HEAD.unpack_from(payload)
    start = _IMAGE_HEAD.size + 4 * flag
    if start > len(payload):
        raise RecordError(f"record {id}: {flag} labels announced, but only {len(payload)} bytes are there")
    labels = (label,) if flag == 0 else struct.unpack_from(f"<{flag}f", payload, _IMAGE_HEAD.size)
    return ImageRecord(labels, id, payload[start:], id2)


class RecordWriter:
    """Appends records to a stream and remembers where each one begins."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._position = 0
        self.index: list[tuple[int, int]] = []

    def write(self, key: int, payload: bytes) -> None:
        """Append one record under `key`."""
        framed = frame(payload)
        self._stream.write(framed)
        self.index.append((key, self._position))
        self._position += len(framed)


class RecordReader:
    """Records of a memory-mapped file by offset, or all in order. Opened anew in a process that inherits it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._map: mmap.mmap | None = None
        self._owner = 0

    def at(self, offset: int) -> bytes:
        try:
            return unframe(self._bytes(), offset)[0]
        except RecordError as error:
            raise RecordError(f"{self.path}: {error}") from None

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """(offset, payload) of every record; RecordError at the first damage."""
        data, offset = self._bytes(), 0
        while offset < len(data):
            try:
                payload, after = unframe(data, offset)
            except RecordError as error:
                raise RecordError(f"{self.path}: {error}") from None
            yield offset, payload
            offset = after

    def _bytes(self) -> mmap.mmap | bytes:
        if self._map is None or self._owner != os.getpid():
            try:
                with open(self.path, "rb") as stream:
                    if os.fstat(stream.fileno()).st_size == 0:
                        return b""
                    self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:
                raise RecordError(f"{self.path}: {error.strerror}") from None
            self._owner = os.getpid()
        return self._map

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_map": None, "_owner": 0}


def format_index(index: Sequence[tuple[int, int]]) -> bytes:
    """The .idx file: `key TAB offset` lines in writing order."""
    return "".join(f"{key}\t{offset}\n" for key, offset in index).encode()


def read_index(path: str | os.PathLike[str]) -> dict[int, int]:
    """Offsets by key, in file order. Raises RecordError naming the line that is wrong."""
    try:
        text = Path(path).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not a readable .idx ({error})") from None
    index: dict[int, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            key, offset = map(int, line.split("\t"))
        except ValueError:
            raise RecordError(f"{path}, line {number}: expected `key TAB offset`, found {line[:60]!r}") from None
        if key in index:
            raise RecordError(f"{path}, line {number}: key {key} stands there twice")
        index[key] = offset
    return index
