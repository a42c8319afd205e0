"""dmlc RecordIO: the framing of mxnet's .rec files, byte for byte, and the header of image records.

A part on disk is `u32 magic, u32 (cflag << 29 | length), payload, zeros to a multiple of 4`, little-endian. A payload
that holds the magic at a 4-byte-aligned offset is split there: the magic itself is dropped, the parts carry cflag 1
(first), 2 (middle), 3 (last), and the reader puts the magic back. cflag 0 is a whole record.
Source: dmlc-core include/dmlc/recordio.h and src/recordio.cc; mxnet python/mxnet/recordio.py.
"""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError
from dataprep.packs.record_index import RecordIndex
from dataprep.storage import FileIdentity, local_copy

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
RECORD_HEADER = struct.Struct("<II")
MAX_PAYLOAD = (1 << 29) - 1

_IMAGE_HEAD = struct.Struct("<IfQQ")  # flag, label, id, id2: no holes, 24 bytes
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")  # by size modulo 4
# small enough to stay in a core's cache while it is assembled, searched and written
_CHUNK = 1 << 19
_MOST_VISITS = 4

Buffer = bytes | mmap.mmap | memoryview


class TruncatedRecordError(RecordError):
    """The bytes end before the record does."""


class ImageRecord(NamedTuple):
    """One record of an image .rec: the labels (one or more), the id, and the image file's bytes.

    `flag` is the number of labels after the header, or 0 if the header holds the only label.
    """

    labels: tuple[float, ...]
    id: int
    image: bytes
    id2: int = 0
    flag: int = 0


def encode_record(payload: bytes) -> bytes:
    """A payload as RecordIO stores it. Raises RecordError for 2**29 bytes or more."""
    size = len(payload)
    if size > MAX_PAYLOAD:
        raise RecordError(f"a record holds at most {MAX_PAYLOAD} bytes; this one has {size}")
    cuts = _aligned_magics(payload)
    if not cuts:
        return RECORD_HEADER.pack(MAGIC, size) + payload + _PADDING[size % 4]
    pieces, start = [], 0
    for cut in cuts:
        pieces += [RECORD_HEADER.pack(MAGIC, (2 if start else 1) << 29 | cut - start), payload[start:cut]]
        start = cut + 4
    pieces += [RECORD_HEADER.pack(MAGIC, 3 << 29 | size - start), payload[start:], _PADDING[(size - start) % 4]]
    return b"".join(pieces)


def _aligned_magics(payload: bytes) -> list[int]:
    words = np.frombuffer(payload, "<u4", len(payload) // 4)
    return (np.flatnonzero(words == MAGIC) * 4).tolist()


def decode_record(data: Buffer, offset: int = 0) -> tuple[bytes, int]:
    """The payload of the record that begins at `offset`, and the offset after it.

    Raises RecordError if there is no record, only part of one, or one that no writer can have made.
    """
    parts, after = locate_record_parts(data, offset)
    return MAGIC_BYTES.join(bytes(data[start:end]) for start, end in parts), after


def locate_record_parts(
    data: Buffer, offset: int, visits: dict[int, int] | None = None
) -> tuple[list[tuple[int, int]], int]:
    """Where the payload of the record at `offset` lies, part by part, and the offset after the record.

    `visits` counts how often each part was walked. Callers that try many offsets pass the same dictionary each time;
    a hostile file, in which many starts lead to the same parts, then costs only a few walks. Raises RecordError like
    `decode_record`.
    """
    start, end, cflag, after = _part(data, offset)
    if cflag == 0:
        return [(start, end)], after
    if cflag != 1:
        raise RecordError(f"the middle of a split record (cflag {cflag}), not the start of one")
    parts, size = [(start, end)], end - start
    while cflag != 3:
        if visits is not None:
            visits[after] = visits.get(after, 0) + 1
            if visits[after] > _MOST_VISITS:
                raise RecordError("too many split records lead to the same parts")
        start, end, cflag, after = _part(data, after)
        if cflag not in (2, 3):
            raise RecordError("a split record without its end")
        parts.append((start, end))
        size += 4 + end - start
        if size > MAX_PAYLOAD:
            raise RecordError(f"a split record of more than {MAX_PAYLOAD} bytes")
    return parts, after


def _part(data: Buffer, offset: int) -> tuple[int, int, int, int]:
    """Start and end of a part's payload, its cflag, and the offset after it."""
    if not 0 <= offset <= len(data) - 8:
        raise TruncatedRecordError(f"the file ends ({len(data)} bytes) where a record should begin")
    magic, word = RECORD_HEADER.unpack_from(data, offset)
    if magic != MAGIC:
        raise RecordError(f"no record begins here (found {magic:#010x}, expected {MAGIC:#010x})")
    size = word & MAX_PAYLOAD
    end = offset + 8 + size
    if end > len(data):
        raise TruncatedRecordError(f"a record of {size} bytes, but the file ends after {len(data)} bytes")
    # the last record of a file may lack its padding, which is harmless
    return offset + 8, end, word >> 29, min(len(data), end + (-size % 4))


def encode_image_header(labels: Sequence[float], id: int, *, id2: int = 0) -> bytes:
    """The bytes before the image: the header with the number of labels, even if 1, and then the labels."""
    return _labelled_head(len(labels)).pack(len(labels), 0.0, id, id2, *labels)


@functools.cache
def _labelled_head(labels: int) -> struct.Struct:
    return struct.Struct(f"<IfQQ{labels}f")


def encode_scalar_header(label: float, id: int, *, id2: int = 0) -> bytes:
    """The bytes before the image: the header, which holds the only label (flag 0)."""
    return _IMAGE_HEAD.pack(0, label, id, id2)


def unpack_image(payload: bytes) -> ImageRecord:
    """Labels, id and image bytes; both label forms. Raises RecordError if the payload is too short for its header."""
    if len(payload) < _IMAGE_HEAD.size:
        raise RecordError(f"an image record needs {_IMAGE_HEAD.size} bytes of header; this one has {len(payload)}")
    flag, label, id, id2 = _IMAGE_HEAD.unpack_from(payload)
    start = _IMAGE_HEAD.size + 4 * flag
    if start > len(payload):
        raise RecordError(f"record {id}: {flag} labels announced, but it has only {len(payload)} bytes")
    labels = (label,) if flag == 0 else struct.unpack_from(f"<{flag}f", payload, _IMAGE_HEAD.size)
    return ImageRecord(labels, id, payload[start:], id2, flag)


class ByteSink(Protocol):
    """The target of a writer: a file, an fsspec stream, a pipe. It must not keep a reference to the bytes."""

    def write(self, data: memoryview, /) -> int: ...


class RecordWriter:
    """Appends records to a stream in chunks and indexes them. Call `finish` after the last record.

    A whole chunk is searched for magics: if it holds exactly one per record, no record has to be split.
    """

    def __init__(self, stream: ByteSink, *, chunk: int = _CHUNK) -> None:
        self._stream, self._size = stream, chunk
        self._buffer = memoryview(bytearray(chunk))
        self._used = 0  # bytes of the chunk
        self._starts: list[int] = []  # of the records in the chunk
        self._keys: list[int] = []
        self._offsets: list[npt.NDArray[np.int64]] = []
        self._written = 0

    @property
    def position(self) -> int:
        """The size of all records so far in bytes, provided no buffered record has to be split."""
        return self._written + self._used

    def write(self, key: int, payload: bytes, head: bytes = b"") -> None:
        """Append one record, `head` then `payload`, under `key`. Raises RecordError for 2**29 bytes or more."""
        size = len(head) + len(payload)
        start = self._used
        after = start + 8 + size + 3 & -4
        if after > self._size:
            self._flush()
            start, after = 0, 8 + size + 3 & -4
            if after > self._size:
                self._put(memoryview(encode_record(head + payload)), np.zeros(1, np.int64))
                self._keys.append(key)
                return
        buffer = self._buffer
        RECORD_HEADER.pack_into(buffer, start, MAGIC, size)
        body = start + 8
        if head:
            buffer[body : body + len(head)] = head
            body += len(head)
        end = body + len(payload)
        buffer[body:end] = payload
        if end != after:
            buffer[end:after] = _PADDING[size & 3]
        self._used = after
        self._starts.append(start)
        self._keys.append(key)

    def finish(self) -> RecordIndex:
        """Write out the rest; return the index of all records."""
        self._flush()
        offsets = np.concatenate(self._offsets) if self._offsets else np.empty(0, np.int64)
        return RecordIndex(np.array(self._keys, np.int64), offsets)

    def _flush(self) -> None:
        chunk = self._buffer[: self._used]
        starts = np.array(self._starts, np.int64)
        if np.count_nonzero(np.frombuffer(chunk, "<u4") == MAGIC) != len(starts):
            framed = [_reframed(chunk[start:end]) for start, end in itertools.pairwise([*self._starts, self._used])]
            chunk, starts = memoryview(b"".join(framed)), np.cumsum([0, *map(len, framed[:-1])])
        self._put(chunk, starts)
        self._used = 0
        self._starts.clear()

    def _put(self, data: memoryview, starts: npt.NDArray[np.int64]) -> None:
        self._offsets.append(starts + self._written)
        self._written += len(data)
        while data:
            data = data[self._stream.write(data) :]


def _reframed(record: memoryview) -> bytes:
    """A record of a chunk, split where necessary."""
    _, size = RECORD_HEADER.unpack_from(record)
    return encode_record(bytes(record[8 : 8 + size]))


class RecordReader:
    """Records of a memory-mapped file by offset, or all in order.

    Forked processes share the map; this is safe because it is never written and has no position. A process that
    unpickles the reader maps the file again, and raises RecordError if it is another one. `path` may be any fsspec URL:
    the file is first copied to this disk.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = local_copy(path)
        self._data = self._mapped()

    def __len__(self) -> int:
        """The size of the file in bytes."""
        return len(self._data)

    def read_at(self, offset: int) -> bytes:
        """The payload of the record at `offset`. Raises RecordError that names file and offset."""
        data = self._data
        if 0 <= offset <= len(data) - 8:
            magic, size = RECORD_HEADER.unpack_from(data, offset)
            end = offset + 8 + size
            if magic == MAGIC and size <= MAX_PAYLOAD and end <= len(data):  # the common case: a whole record
                return data[offset + 8 : end]
        try:
            return decode_record(data, offset)[0]
        except RecordError as error:
            raise error.within(f"{self.path}, byte {offset}") from None

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """(offset, payload) of every record; RecordError at the first damage."""
        offset = 0
        while offset < len(self._data):
            try:
                payload, after = decode_record(self._data, offset)
            except RecordError as error:
                raise error.within(f"{self.path}, byte {offset}") from None
            yield offset, payload
            offset = after

    @property
    def data(self) -> mmap.mmap | bytes:
        """The file's bytes."""
        return self._data

    def _mapped(self) -> mmap.mmap | bytes:
        try:
            with open(self.path, "rb") as stream:
                self._identity = FileIdentity.of(stream.fileno())
                if self._identity.size == 0:
                    return b""
                return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise RecordError(f"{self.path}: {error.strerror}") from None

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_identity": self._identity}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._data = self._mapped()
        if self._identity != state["_identity"]:
            raise RecordError(f"{self.path}: the file was replaced or changed after it was opened")


def read_stream(stream: IO[bytes], *, block: int = 1 << 22) -> Iterator[tuple[int, bytes]]:
    """(offset, payload) of every record of a stream that need not be seekable: a pipe, a socket, an object store.

    Holds one record and one block in memory. Raises RecordError at the first damage.
    """
    held, start, ended = b"", 0, False  # `held` begins at byte `start` of the stream
    while not ended:
        # a record may be longer than a block: doubling the buffer keeps the copying linear
        more = _read_up_to(stream, max(block, len(held)))
        held, ended, offset = held + more, not more, 0
        while offset < len(held):
            try:
                payload, after = decode_record(held, offset)
            except TruncatedRecordError as error:
                if not ended:
                    break  # cut off by the end of the block only
                raise error.within(f"byte {start + offset}") from None
            except RecordError as error:
                raise error.within(f"byte {start + offset}") from None
            if after == len(held) and not ended:
                break  # its padding may not have arrived yet
            yield start + offset, payload
            offset = after
        held, start = held[offset:], start + offset


def _read_up_to(stream: IO[bytes], size: int) -> bytes:
    """Read `size` bytes, fewer only if the stream ends; a pipe returns a few at a time."""
    pieces, missing = [], size
    while missing and (piece := stream.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
