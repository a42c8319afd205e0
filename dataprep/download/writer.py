"""A thread that checks downloaded photos (signatures, hashes, placeholders) and writes them to the journal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dataprep.download.placeholders import DuplicateCounter, placeholder_detail
from dataprep.errors import WorkspaceError
from dataprep.imaging.sniff import reject_reason
from dataprep.reasons import Reason
from dataprep.types import Row, Sample
from dataprep.workspace.journal import Journal

HASH_ALGORITHMS = ("md5", "sha1", "sha256")
_GATHER = 0.01  # seconds to collect a batch: waking a thread costs both threads more than storing a photo
_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(slots=True)
class DownloadShard:
    """A shard being downloaded."""

    id: str
    upstream: str
    samples: Sequence[Sample]
    journal: Journal
    remaining: int
    started: float


@dataclass(slots=True)
class JournalEntry:
    """A row to be written to its shard's journal; `stored` is resolved afterwards.

    The payload of a row without a reason is the unchecked body. The writer replaces `row` with the checked one.
    """

    shard: DownloadShard
    sample: Sample
    row: Row
    stored: asyncio.Future[None] | None = field(default=None)


class JournalWriter:
    """A thread that processes entries in batches: one thread switch and one flush per batch.

    Hot: signature check, SHA-256 and write take some tens of microseconds per photo here, outside the event loop.
    In the loop, `stored` is called with each batch, and `failed` with the error that ended the thread, such as a full
    disk.
    """

    def __init__(
        self,
        *,
        placeholders: int,
        max_pixels: int,
        stored: Callable[[Sequence[JournalEntry]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._sightings, self._max_pixels = DuplicateCounter(placeholders), max_pixels
        self._stored, self._failed = stored, failed
        self._loop = asyncio.get_running_loop()
        self._gathered: list[JournalEntry] = []
        self._queue: queue.SimpleQueue[list[JournalEntry] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="dataprep-writer")
        self._thread.start()

    def put(self, entry: JournalEntry) -> None:
        """Queue an entry. Call this in the event loop."""
        if not self._gathered:
            self._loop.call_later(_GATHER, self._hand_over)
        self._gathered.append(entry)

    def close(self) -> None:
        """Store all queued entries and end the thread."""
        self._hand_over()
        self._queue.put(None)
        self._thread.join()

    def _hand_over(self) -> None:
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    def _run(self) -> None:
        while (entries := self._queue.get()) is not None:
            try:
                self._store(entries)
            except BaseException as error:
                self._tell(self._failed, explain_disk_error(error, entries[0].shard.journal))
                return
            self._tell(self._stored, entries)

    def _tell(self, function: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, value)

    def _store(self, entries: Sequence[JournalEntry]) -> None:
        by_shard: dict[str, list[JournalEntry]] = {}
        for entry in entries:
            entry.row = self._judged(entry)
            by_shard.setdefault(entry.shard.id, []).append(entry)
        for group in by_shard.values():
            group[0].shard.journal.record(*(entry.row for entry in group))

    def _judged(self, entry: JournalEntry) -> Row:
        row = entry.row
        if row.payload is None or row.reason is not None:
            return row
        sha256 = hashlib.sha256(row.payload).hexdigest()
        doubt = (
            reject_reason(row.payload, max_pixels=self._max_pixels, quote=True)
            or _mismatch(entry.sample.hash, row.payload, sha256)
            or self._placeholder(row, sha256)
        )
        if doubt is None:
            return replace(row, values={**row.values, "sha256": sha256})
        return replace(
            row, reason=doubt[0], detail=doubt[1], payload=None, values={**row.values, "body_sha256": sha256}
        )

    def _placeholder(self, row: Row, sha256: str) -> tuple[Reason, str] | None:
        url, final_url = str(row.values["url"]), str(row.values["final_url"])
        if self._sightings.is_placeholder(sha256, url=url, final_url=final_url, identity=row.identity):
            return Reason.PLACEHOLDER, placeholder_detail(sha256)
        return None


def is_known_hash(published: str) -> bool:
    """Whether a published hash is empty or a supported `algorithm:hex`."""
    algorithm, colon, digits = published.partition(":")
    if not published:
        return True
    if not colon or algorithm.lower() not in HASH_ALGORITHMS:
        return False
    size = 2 * hashlib.new(algorithm.lower(), usedforsecurity=False).digest_size
    return len(digits) == size and all(c in "0123456789abcdefABCDEF" for c in digits)


def _mismatch(published: str, body: bytes, sha256: str) -> tuple[Reason, str] | None:
    if not published:
        return None
    algorithm, _, digits = published.lower().partition(":")
    found = sha256 if algorithm == "sha256" else hashlib.new(algorithm, body, usedforsecurity=False).hexdigest()
    return None if found == digits else (Reason.HASH_MISMATCH, f"{algorithm} is {found}, not {digits}")


def explain_disk_error(error: BaseException, journal: Journal) -> BaseException:
    """Convert an OSError into a WorkspaceError with the folder and a hint; return any other error unchanged."""
    if not isinstance(error, OSError):
        return error
    remedy = "fix the disk, or choose another workspace with -w"
    if error.errno in _SPACE:
        remedy = "free some space"
    return WorkspaceError(
        f"{journal.folder} cannot be written: {error.strerror or error}; completed work is kept",
        hint=f"{remedy}, then run the same command again",
    )
