"""The journal of a shard being downloaded: each finished photo survives a kill.

It consists of the unfinished tar and a file with one JSON line per finished sample. A line is valid only if its payload
is complete. A kill between the two writes, or a lost disk cache, therefore costs only the affected samples.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataprep.errors import DamagedFileError
from dataprep.reasons import Reason
from dataprep.tar import TAR_END, make_member, make_member_name
from dataprep.types import Row
from dataprep.workspace import ledger
from dataprep.workspace.payload import PayloadReader, PayloadWriter
from dataprep.workspace.stage_store import Marker, StageStore

_BLOCK = 512


class Journal:
    """One shard's journal. Open it, `record` rows as they arrive, and `commit` when all are recorded.

    `record` and `commit` raise OSError if the disk is full. The journal is then unchanged, and both may be retried.
    """

    def __init__(self, directory: StageStore, shard: str, *, redo: Collection[str] = ()) -> None:
        """Resume the shard's journal, or start it from the committed shard without the rows whose reason is in `redo`.

        An existing journal also drops its rows with these reasons, but only once per reason, so that the results of a
        retry recorded before a kill are kept.
        """
        self._directory = directory
        self._shard = shard
        folder = directory.folder / "journal"
        folder.mkdir(parents=True, exist_ok=True)
        self._tar_path, self._lines_path = folder / f"{shard}.tar", folder / f"{shard}.jsonl"
        self.rows: dict[str, dict[str, Any]] = {}
        self.timed_out: set[str] = set()  # of the rows that are asked for again
        self._ended = False  # whether the tar has its end marker
        self._superseded = False  # the tar holds payloads of rows that others took the place of
        marker = directory.marker(shard)
        if marker is not None:
            self._drop_committed(marker)
            if not self._lines_path.exists():
                self._seed(directory.rows(marker), directory.data_paths(marker), frozenset(redo))
        elif not self._lines_path.exists():
            rows, data = directory.orphaned(shard)  # by a damaged marker
            if rows:
                self._seed(rows, data, frozenset(redo))
        self._resume(frozenset(redo), of=marker.rows if marker else None)

    @property
    def directory(self) -> StageStore:
        return self._directory

    @property
    def folder(self) -> Path:
        """The folder of the journals."""
        return self._lines_path.parent

    def record(self, *rows: Row) -> None:
        """Append finished samples, payloads first. A row replaces an earlier row with the same key.

        A `sha256` among a row's values is used as the hash of its payload.
        """
        framed: list[bytes] = []
        lines: list[bytes] = []
        found: list[dict[str, Any]] = []
        position = self._tar_end
        for row in rows:
            place = None
            if row.payload is not None:
                block, start = make_member(make_member_name(row.key, row.payload), row.payload)
                sha256 = row.values.get("sha256") or hashlib.sha256(row.payload).hexdigest()
                place = (position + start, len(row.payload), sha256)
                position += len(block)
                framed.append(block)
            flat = ledger.flatten_row(row, place)
            lines.append(json.dumps(flat, ensure_ascii=True).encode() + b"\n")
            found.append(flat)
        self._append(b"".join(framed), b"".join(lines))
        for flat in found:
            self._take(flat)

    def commit(self, order: Sequence[str], *, upstream: str, seconds: float) -> Marker:
        """Commit the shard with its rows in the given order of keys, and remove the journal."""
        linked = self._directory.folder / f"data/.{self._shard}.tmp"  # the stage is locked
        linked.parent.mkdir(parents=True, exist_ok=True)
        linked.unlink(missing_ok=True)
        if self._superseded:
            rows, sha256 = self._rewritten(order, linked)
        else:
            if not self._ended:
                self._append(TAR_END, b"")
                self._ended = True
            # a hard link, so that the journal stays complete if a kill comes before the marker
            os.link(self._tar_path, linked)
            rows, sha256 = [self.rows[key] for key in order], self._hash.hexdigest()
        marker = self._directory.commit_flat(
            self._shard, rows, data=(linked, sha256), upstream=upstream, seconds=seconds
        )
        self.close()
        self._lines_path.unlink()
        self._tar_path.unlink()
        return marker

    def close(self) -> None:
        try:
            self._tar.close()
        finally:
            self._lines.close()

    def _take(self, row: dict[str, Any]) -> None:
        before = self.rows.get(row["key"])
        self._superseded = self._superseded or (before is not None and before["size"] is not None)
        self.rows[row["key"]] = row

    def _rewritten(self, order: Sequence[str], target: Path) -> tuple[list[dict[str, Any]], str]:
        """Write a tar without the payloads of replaced rows. Returns rows with new offsets, and the tar's hash."""
        reader = PayloadReader(self._tar_path)
        rows = []
        with open(target, "wb") as stream:
            writer = PayloadWriter(stream)
            for row in (self.rows[key] for key in order):
                if row["size"] is not None:
                    data = reader.read(row["offset"], row["size"])
                    row = {**row, "offset": writer.add(row["key"], data)[0]}
                rows.append(row)
            sha256 = writer.finish()
        reader.close()
        return rows, sha256

    def _append(self, framed: bytes, line: bytes) -> None:
        """Write to both files, or to neither."""
        try:
            _write(self._tar, framed)
            _write(self._lines, line)
        except BaseException:
            os.ftruncate(self._tar.fileno(), self._tar_end)
            os.ftruncate(self._lines.fileno(), self._lines_end)
            raise
        self._hash.update(framed)
        self._tar_end += len(framed)
        self._lines_end += len(line)

    def _drop_committed(self, marker: Marker) -> None:
        """Remove a journal left by a kill right after its commit: its tar is the committed one, or it belongs to a
        retry that started from another commit."""
        committed = self._directory.folder / f"data/{marker.data}"
        same = marker.data and self._tar_path.exists() and self._tar_path.samefile(committed)
        if same or _head(self._lines_path).get("of", marker.rows) != marker.rows:
            self._lines_path.unlink(missing_ok=True)
            self._tar_path.unlink(missing_ok=True)

    def _seed(self, rows: Sequence[dict[str, Any]], data: Sequence[Path], redo: frozenset[str]) -> None:
        """Write a journal that holds the committed rows, except those to be asked for again: those lost for a reason in
        `redo`, and those whose payload is damaged."""
        kept = []
        for row in rows:
            if row["reason"] not in redo:
                kept.append(row)
            elif row["reason"] == Reason.TIMEOUT.code:
                self.timed_out.add(row["key"])
        payloads = PayloadReader(data[0], trusted=True) if data and data[0].exists() else None
        lines = self._lines_path.with_suffix(".seed")
        position = 0
        self._tar_path.unlink(missing_ok=True)
        with open(self._tar_path, "wb") as tar, open(lines, "wb") as out:
            for row in kept:
                if row["size"] is not None:
                    photo = _intact(payloads, row)
                    if photo is None:
                        continue
                    framed, start = make_member(make_member_name(row["key"], photo), photo)
                    tar.write(framed)
                    row["offset"] = position + start
                    position += len(framed)
                out.write(json.dumps(row, ensure_ascii=True).encode() + b"\n")
        if payloads:
            payloads.close()
        os.replace(lines, self._lines_path)

    def _resume(self, redo: frozenset[str], *, of: str | None) -> None:
        """Read the journal of an earlier run, drop incomplete rows and rows to be retried, and open it for appending.

        The first line holds the reasons dropped so far and the commit from which the journal started.
        """
        dropped = frozenset(_head(self._lines_path).get("redo", ()))
        self._hash = hashlib.sha256()
        self._tar_path.touch()
        end = 0
        with open(self._tar_path, "rb") as tar:
            for row in _whole_lines(self._lines_path):
                if "key" not in row:
                    continue
                if row["size"] is not None:
                    after = _after(row)
                    tar.seek(end)
                    stretch = tar.read(after - end)
                    body = stretch[row["offset"] - end : row["offset"] - end + row["size"]]
                    if len(stretch) != after - end or hashlib.sha256(body).hexdigest() != row["sha256"]:
                        break
                    self._superseded = self._superseded or row["offset"] - end != _header_size(row["key"], body)
                    self._hash.update(stretch)
                    end = after
                if row["reason"] not in redo - dropped:
                    self._take(row)
                elif row["reason"] == Reason.TIMEOUT.code:
                    self.timed_out.add(row["key"])
        os.truncate(self._tar_path, end)
        rewritten = self._lines_path.with_suffix(".tmp")
        head = [{"redo": sorted(redo | dropped), "of": of}] if redo or dropped else []
        lines = (json.dumps(line, ensure_ascii=True).encode() + b"\n" for line in [*head, *self.rows.values()])
        rewritten.write_bytes(b"".join(lines))
        os.replace(rewritten, self._lines_path)
        self._tar = open(self._tar_path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        self._lines = open(self._lines_path, "ab", buffering=0)  # noqa: SIM115
        self._tar_end, self._lines_end = end, self._lines_path.stat().st_size


def _intact(payloads: PayloadReader | None, row: Mapping[str, Any]) -> bytes | None:
    """A row's payload; None if it is not what was stored."""
    try:
        data = payloads.read(row["offset"], row["size"]) if payloads else b""
    except DamagedFileError:  # cut off
        return None
    return data if hashlib.sha256(data).hexdigest() == row["sha256"] else None


def _write(stream: io.FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[stream.write(left) :]


def _header_size(key: str, body: bytes) -> int:
    return make_member(make_member_name(key, body), b"")[1]


def _after(row: Mapping[str, Any]) -> int:
    """Return the end of the tar member of a row's payload."""
    end = int(row["offset"]) + int(row["size"])
    return end + (-int(row["size"]) % _BLOCK)


def _head(path: Path) -> dict[str, Any]:
    """Return the line before the rows; only the journal of a retry has one."""
    try:
        with open(path, "rb") as lines:
            first = json.loads(lines.readline())
    except (FileNotFoundError, ValueError):
        return {}
    return first if "redo" in first else {}


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines before the first incomplete one."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
