"""The .idx file beside a .rec: `key TAB offset` lines in the order of writing."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError
from dataprep.storage import local_copy

_LINE = re.compile(rb"(\d{1,19})\t(\d{1,20})")


class RecordIndex(NamedTuple):
    """Keys and the offsets of their records, both (n,) int64, in the order of the file."""

    keys: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    def digest(self) -> str:
        """The sha256 of keys and offsets."""
        return hashlib.sha256(self.keys.tobytes() + self.offsets.tobytes()).hexdigest()

    def find(self, key: int) -> int | None:
        """The position of a key, or None."""
        found = np.flatnonzero(self.keys == key)
        return int(found[0]) if len(found) else None


def format_index(index: RecordIndex) -> bytes:
    numbers = np.stack(index, axis=1).ravel().tolist()
    return (
        "%d\t%d\n" * len(index.keys) % tuple(numbers)
    ).encode()  # one format for all lines: twice as fast as one each


def read_index(path: str | os.PathLike[str], *, size: int) -> RecordIndex:
    """The index of a .rec of `size` bytes.

    Raises RecordError naming a line that is not `key TAB offset`, repeats a key, or has an offset outside the .rec
    (mxnet on a full disk wrote 18446744073709551615).
    """
    try:
        data = Path(local_copy(path)).read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}", hint="`dataprep repair` rebuilds it from the .rec") from None
    numbers = _numbers(data, path)
    keys, offsets = numbers[0::2], numbers[1::2]
    outside = np.flatnonzero(offsets >= max(size, 1))
    if len(outside):
        raise RecordError(
            f"{path}, line {outside[0] + 1}: offset {offsets[outside[0]]}, but the .rec has {size} bytes: one of them "
            f"is cut off or belongs to another pack",
            hint="`dataprep repair` makes a new pack from the readable records",
        )
    order = np.argsort(keys, kind="stable")
    twice = order[1:][keys[order][1:] == keys[order][:-1]]
    if len(twice):
        line = int(twice.min())
        raise RecordError(f"{path}, line {line + 1}: key {keys[line]} occurs twice")
    return RecordIndex(keys.astype(np.int64), offsets.astype(np.int64))


def read_index_leniently(path: Path) -> RecordIndex | None:
    """What an index promises, whether or not its .rec still has it; None if it cannot be read."""
    try:
        numbers = _numbers(path.read_bytes(), path)
    except (OSError, RecordError):
        return None
    return RecordIndex(numbers[0::2].astype(np.int64), numbers[1::2].astype(np.int64))


def _numbers(data: bytes, path: str | os.PathLike[str]) -> npt.NDArray[np.uint64]:
    """All numbers of the file. Its form is checked as a whole, and line by line only to locate an error."""
    if data and not data.endswith(b"\n"):
        data += b"\n"
    whole = data.translate(None, b"0123456789") == b"\t\n" * data.count(b"\n")
    if not whole or data.startswith(b"\t") or b"\t\n" in data or b"\n\t" in data:
        for number, line in enumerate(data.splitlines(), 1):
            if not _LINE.fullmatch(line):
                raise RecordError(
                    f"{path}, line {number}: expected `key TAB offset`, found {line[:60].decode('latin1')!r}"
                )
    numbers = np.fromstring(data, np.uint64, sep=" ")  # numbers beyond 64 bits become the largest
    largest = np.flatnonzero(numbers[0::2] > np.iinfo(np.int64).max)
    if len(largest):
        raise RecordError(f"{path}, line {largest[0] + 1}: the key does not fit into 64 bits")
    return numbers
