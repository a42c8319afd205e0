"""Recovery of a damaged .rec: the readable records, and the stretches that are lost."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

from dataprep.errors import RecordError
from dataprep.packs.recordio import MAGIC, MAGIC_BYTES, MAX_PAYLOAD, RECORD_HEADER, locate_record_parts


class RecoveredRecord(NamedTuple):
    """An intact record at byte `offset`; `parts` are the byte ranges of its payload."""

    offset: int
    parts: list[tuple[int, int]]

    def payload(self, data: bytes | mmap.mmap) -> bytes:
        return MAGIC_BYTES.join(data[start:end] for start, end in self.parts)


class DamagedRange(NamedTuple):
    """Bytes `offset` to `end` hold no readable record; `why` is the reason."""

    offset: int
    end: int
    reason: str


def recover_records(data: bytes | mmap.mmap) -> Iterator[RecoveredRecord | DamagedRange]:
    """All readable records in `data`, and the damaged stretches between them as gaps; together they cover every byte.

    After damage, reading resumes at the next record head whose record ends at another head or at the end of the file.
    The search checks every byte, not every fourth as dmlc does, so that records after lost bytes are found.
    """
    offset, visits = 0, dict[int, int]()
    while offset < len(data):
        try:
            parts, after = locate_record_parts(data, offset, visits)
        except RecordError as error:
            after = _next_head(data, offset + 1)
            yield DamagedRange(offset, after, str(error))
            offset = after
            continue
        if _is_head_or_end(data, after):
            yield RecoveredRecord(offset, parts)
            offset = after
            continue
        # the frame is intact, but no record follows: either its length is wrong, or the bytes after it are damaged
        head = _next_head(data, offset + 1)
        if head < after:
            yield DamagedRange(offset, head, "a length that reaches into the next record")
        else:
            yield RecoveredRecord(offset, parts)
            yield DamagedRange(after, head, "no record begins here")
        offset = head


def _next_head(data: bytes | mmap.mmap, start: int) -> int:
    """The offset of the next readable record, at `start` or after; the size of the data if there is none."""
    at = data.find(MAGIC_BYTES, start)
    while at >= 0:
        if _is_plausible(data, at):
            return at
        at = data.find(MAGIC_BYTES, at + 1)
    return len(data)


def _is_plausible(data: bytes | mmap.mmap, offset: int) -> bool:
    """Whether a record's first part begins here and ends at the start of another part or the end of the file."""
    if offset + 8 > len(data):
        return False
    word = RECORD_HEADER.unpack_from(data, offset)[1]
    size = word & MAX_PAYLOAD
    return word >> 29 in (0, 1) and _is_head_or_end(data, offset + 8 + size + (-size % 4))


def _is_head_or_end(data: bytes | mmap.mmap, offset: int) -> bool:
    if offset >= len(data):
        return offset - len(data) < 4  # the last record's padding may be missing
    return offset + 8 <= len(data) and RECORD_HEADER.unpack_from(data, offset)[0] == MAGIC
