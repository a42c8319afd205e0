"""A board in shared memory, one slot per task: how far each worker is, and where a dead one stood."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

_SLOT = struct.Struct("<q")


class Board:
    """Slots of one 64-bit number in a file; written by workers, read by the run, no locks needed."""

    def __init__(self, path: Path, slots: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(descriptor).st_size < slots * _SLOT.size:
                with open(descriptor, "wb", closefd=False) as stream:
                    stream.write(bytes(slots * _SLOT.size))  # a hole, on a full disk, would be a SIGBUS later
            self._map = mmap.mmap(descriptor, slots * _SLOT.size)
        finally:
            os.close(descriptor)

    def set(self, slot: int, value: int) -> None:
        _SLOT.pack_into(self._map, slot * _SLOT.size, value)

    def get(self, slot: int) -> int:
        return int(_SLOT.unpack_from(self._map, slot * _SLOT.size)[0])
