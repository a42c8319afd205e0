"""The directory of one stage with one set of parameters: payloads, ledgers, and the markers that make them count."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dataprep.errors import WorkspaceError
from dataprep.storage import Folder, file_sha256
from dataprep.types import Row
from dataprep.workspace import ledger
from dataprep.workspace.payload import PayloadReader, PayloadWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """The commit of one shard: which files hold it, what it builds on, what it is, and the account."""

    shard: str
    rows: str
    data: str | None
    upstream: str
    digest: str
    account: Mapping[str, Any]
    data_bytes: int
    rows_sha256: str
    data_sha256: str | None
    seconds: float
    extra: Mapping[str, Any]


class StageDir:
    """WORKSPACE/stages/NAME@FINGERPRINT. `columns` are the ledger's own columns, `counted` those in the digest."""

    def __init__(self, folder: Folder, *, name: str, columns: Mapping[str, str], counted: Sequence[str]) -> None:
        self.folder = folder
        self.name = name
        self._columns = columns
        self._counted = counted

    # what was done --------------------------------------------------------------------------------------------------

    def markers(self) -> dict[str, Marker]:
        """The markers by shard."""
        found = {}
        for name in self.folder.folder("done").names("*.json"):
            marker = self.marker(name[:-5])
            if marker is not None:
                found[marker.shard] = marker
        return found

    def marker(self, shard: str) -> Marker | None:
        values = self.folder.get_json(f"done/{shard}.json")
        if values is None:
            return None
        try:
            return Marker(**values)
        except TypeError as error:
            path = self.folder / f"done/{shard}.json"
            raise WorkspaceError(f"{path} is not a marker ({error}); remove it to redo the shard") from None

    def rows(self, marker: Marker, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The ledger of a committed shard, flat, in plan order."""
        return ledger.read_ledger(self.rows_path(marker), columns)

    def rows_path(self, marker: Marker) -> Path:
        return self.folder / f"rows/{marker.rows}"

    def payloads(self, marker: Marker) -> PayloadReader:
        """The committed images of a shard."""
        return PayloadReader(self.folder / f"data/{marker.data}")

    # what is asked for ----------------------------------------------------------------------------------------------

    def retries(self) -> dict[str, list[str]]:
        """Shards that are to run again, with the reasons of the samples that this is about."""
        asked = self.folder.folder("retry")
        return {name[:-5]: asked.get_json(name) for name in asked.names("*.json")}

    def ask_retry(self, shard: str, reasons: Sequence[str]) -> None:
        self.ask_retries({shard: reasons})

    def ask_retries(self, asked: Mapping[str, Sequence[str]]) -> None:
        """Ask for the samples that were lost for these reasons, by shard; what was asked for before stays."""
        before = self.retries()
        wanted = {shard: sorted({*before.get(shard, ()), *reasons}) for shard, reasons in asked.items()}
        self.folder.folder("retry").put_all(
            (f"{shard}.json", (json.dumps(reasons) + "\n").encode()) for shard, reasons in wanted.items()
        )

    # commits --------------------------------------------------------------------------------------------------------

    def describe(self, values: Mapping[str, Any]) -> None:
        """Write stage.json, for people and for the check of versions."""
        self.folder.put_json("stage.json", values)

    def described(self) -> dict[str, Any] | None:
        found = self.folder.get_json("stage.json")
        return dict(found) if found is not None else None

    def commit(
        self,
        shard: str,
        rows: Sequence[Row],
        *,
        upstream: str,
        seconds: float,
        extra: Mapping[str, Any] | None = None,
    ) -> Marker:
        """Write the payloads and the ledger of a shard, then its marker."""
        places: list[tuple[int, int, str] | None] = [None] * len(rows)
        if any(row.payload is not None for row in rows):
            with self._scratch(f"data/{shard}") as (scratch, stream):
                writer = PayloadWriter(stream)
                for position, row in enumerate(rows):
                    if row.payload is not None:
                        places[position] = writer.add(row.key, row.payload)
                data: tuple[Path, str] | None = (scratch, writer.finish())
        else:
            data = None
        flat = [ledger.flat(row, place) for row, place in zip(rows, places, strict=True)]
        return self.commit_flat(shard, flat, data=data, upstream=upstream, seconds=seconds, extra=extra)

    def commit_flat(
        self,
        shard: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        data: tuple[Path, str] | None,
        upstream: str,
        seconds: float,
        extra: Mapping[str, Any] | None = None,
    ) -> Marker:
        """Commit flat rows and a finished payload file (its path in this directory, its SHA-256)."""
        digest = ledger.digest(upstream, rows, self._counted)
        table = ledger.as_table(rows, self._columns)
        return self._commit(shard, table, digest, data=data, upstream=upstream, seconds=seconds, extra=extra)

    def commit_table(
        self, shard: str, table: Any, *, upstream: str, seconds: float, extra: Mapping[str, Any] | None = None
    ) -> Marker:
        """Commit rows that come as an Arrow table, without payloads; columns that it lacks are null."""
        complete = ledger.completed(table, self._columns)
        digest = ledger.digest_of_table(upstream, complete, self._counted)
        return self._commit(shard, complete, digest, data=None, upstream=upstream, seconds=seconds, extra=extra)

    def _commit(
        self,
        shard: str,
        table: Any,
        digest: str,
        *,
        data: tuple[Path, str] | None,
        upstream: str,
        seconds: float,
        extra: Mapping[str, Any] | None,
    ) -> Marker:
        """Payload and ledger get names that hold their hash; the marker, renamed into place last, is the only point of
        commit."""
        data_name, data_bytes = None, 0
        if data is not None:
            path, data_sha256 = data
            data_bytes = path.stat().st_size
            data_name = f"{shard}-{data_sha256[:12]}.tar"
            _publish(path, self.folder / f"data/{data_name}")
        with self._scratch(f"rows/{shard}") as (scratch, stream):
            ledger.write_ledger(stream, table)
        rows_sha256 = file_sha256(scratch)
        rows_name = f"{shard}-{rows_sha256[:12]}.parquet"
        _publish(scratch, self.folder / f"rows/{rows_name}")
        marker = Marker(
            shard=shard,
            rows=rows_name,
            data=data_name,
            upstream=upstream,
            digest=digest,
            account=ledger.counts(table),
            data_bytes=data_bytes,
            rows_sha256=rows_sha256,
            data_sha256=data[1] if data else None,
            seconds=round(seconds, 3),
            extra=dict(extra or {}),
        )
        self.folder.put_json(f"done/{shard}.json", {name: getattr(marker, name) for name in Marker.__slots__})
        (self.folder / f"retry/{shard}.json").unlink(missing_ok=True)
        return marker

    def garbage(self) -> list[Path]:
        """Files that no marker names: left by kills, or replaced by a later commit. Not for use while a run writes."""
        named = set()
        for marker in self.markers().values():
            named |= {f"rows/{marker.rows}", f"data/{marker.data}"}
        found = [
            path
            for part in ("rows", "data")
            for path in (self.folder / part).glob("*")
            if f"{part}/{path.name}" not in named
        ]
        return sorted([*found, *(self.folder / "done").glob(".*.tmp"), *self.folder.path.glob(".*.tmp")])

    def sweep(self) -> None:
        """Remove what later commits took the place of: a ledger read by `rows/*.parquet` has every sample once, and a
        retry does not double the photos. For who holds the lock."""
        with contextlib.suppress(OSError):  # no run fails for the sake of tidiness
            for path in self.garbage():
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _scratch(self, stem: str) -> Iterator[tuple[Path, IO[bytes]]]:
        """A file to write and to publish after the block; one that cannot be written, on a full disk say, is removed."""
        target = self.folder / f"{stem}.{os.getpid()}-{time.monotonic_ns():x}.tmp"
        target.parent.mkdir(parents=True, exist_ok=True)
        path = target.with_name(f".{target.name}")
        try:
            with open(path, "wb") as stream:
                yield path, stream
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _publish(scratch: Path, target: Path) -> None:
    """Make a finished file durable and give it its name; equal names mean equal content, so replacing is harmless."""
    with open(scratch, "rb") as stream:
        os.fsync(stream.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(scratch, target)
