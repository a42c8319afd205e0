"""What can still be read of a damaged .rec: the records that stand, and the stretches that are lost."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

from dataprep.errors import RecordError
from dataprep.packs.recordio import HEAD, MAGIC, MAGIC_BYTES, MAX_PAYLOAD, extent


class Found(NamedTuple):
    """A whole record at byte `offset`; `parts` are where its payload lies."""

    offset: int
    parts: list[tuple[int, int]]

    def payload(self, data: bytes | mmap.mmap) -> bytes:
        return MAGIC_BYTES.join(data[start:end] for start, end in self.parts)


class Gap(NamedTuple):
    """Bytes `offset` to `end` hold no record that can be read, and why."""

    offset: int
    end: int
    why: str


def salvage(data: bytes | mmap.mmap) -> Iterator[Found | Gap]:
    """All records that stand in `data`, damaged stretches between them as gaps; together they cover every byte.

    After damage the search goes to the next head of a record whose own end is another head or the end of the file. It
    looks at every byte, not every fourth as dmlc does, so that a file that lost some bytes is read on behind them.
    """
    offset, visits = 0, dict[int, int]()
    while offset < len(data):
        try:
            parts, after = extent(data, offset, visits)
        except RecordError as error:
            after = _next_head(data, offset + 1)
            yield Gap(offset, after, str(error))
            offset = after
            continue
        if _is_head_or_end(data, after):
            yield Found(offset, parts)
            offset = after
            continue
        # the record stands as far as its frame says, but nothing follows: is its length wrong, or what comes after it?
        head = _next_head(data, offset + 1)
        if head < after:
            yield Gap(offset, head, "a length that reaches into the next record")
        else:
            yield Found(offset, parts)
            yield Gap(after, head, "no record begins here")
        offset = head


def _next_head(data: bytes | mmap.mmap, start: int) -> int:
    """Where the next record that can be read begins, at `start` or after; the size of the data if nowhere."""
    at = data.find(MAGIC_BYTES, start)
    while at >= 0:
        if _is_plausible(data, at):
            return at
        at = data.find(MAGIC_BYTES, at + 1)
    return len(data)


def _is_plausible(data: bytes | mmap.mmap, offset: int) -> bool:
    """Whether a record's first part begins here and ends where another part begins or the file ends."""
    if offset + 8 > len(data):
        return False
    word = HEAD.unpack_from(data, offset)[1]
    size = word & MAX_PAYLOAD
    return word >> 29 in (0, 1) and _is_head_or_end(data, offset + 8 + size + (-size % 4))


def _is_head_or_end(data: bytes | mmap.mmap, offset: int) -> bool:
    if offset >= len(data):
        return offset - len(data) < 4  # the last record's padding may be missing
    return offset + 8 <= len(data) and HEAD.unpack_from(data, offset)[0] == MAGIC
