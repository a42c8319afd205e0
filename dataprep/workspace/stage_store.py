"""The directory of one stage with one set of parameters: payloads, ledgers and the markers that commit them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from dataprep.errors import DamagedFileError, WorkspaceError
from dataprep.storage import Folder, file_sha256
from dataprep.types import Row
from dataprep.workspace import ledger
from dataprep.workspace.payload import PayloadReader, PayloadWriter

_log = logging.getLogger(__name__)
_reported: set[Path] = set()  # damaged markers that this process has told of


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """The commit marker of one shard: its files, the digests of its input and output, and its counts."""

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

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises TypeError for values that are no marker's."""
        marker = cls(**values)
        account = marker.account
        texts = (marker.shard, marker.rows, marker.upstream, marker.digest, marker.rows_sha256)
        if not all(isinstance(text, str) for text in texts) or not isinstance(marker.extra, dict):
            raise TypeError("a value has another type")
        if not isinstance(account, dict) or not all(
            isinstance(account.get(name), kind)
            for name, kind in {"in": int, "ok": int, "dropped": dict, "failed": dict}.items()
        ):
            raise TypeError("its counts are no counts")
        return marker


class StageStore:
    """WORKSPACE/stages/NAME@FINGERPRINT. `columns` are the stage's ledger columns, `counted` those in the digest."""

    def __init__(self, folder: Folder, *, name: str, columns: Mapping[str, str], counted: Sequence[str]) -> None:
        self.folder = folder
        self.name = name
        self._columns = columns
        self._counted = counted

    # finished work --------------------------------------------------------------------------------------------------

    def markers(self) -> dict[str, Marker]:
        """Return the markers by shard."""
        found = {}
        for name in self.folder.folder("done").names("*.json"):
            marker = self.marker(name[:-5])
            if marker is not None:
                found[marker.shard] = marker
        return found

    def marker(self, shard: str) -> Marker | None:
        """The marker of a shard; None if there is none, or if it is damaged, so that the shard is done again."""
        try:
            values = self.folder.get_record(f"done/{shard}.json")
            return None if values is None else Marker.from_json(values)
        except (DamagedFileError, TypeError) as error:
            path = self.folder / f"done/{shard}.json"
            if path not in _reported:
                _reported.add(path)
                why = str(error) if isinstance(error, DamagedFileError) else f"{path} is not a marker ({error})"
                _log.warning("%s; the shard is done again", why)
            return None

    def forget(self, shard: str) -> None:
        """Remove the marker of a shard, so that it is done again."""
        (self.folder / f"done/{shard}.json").unlink(missing_ok=True)

    def rows(self, marker: Marker, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return the ledger of a committed shard as flat rows, in plan order."""
        return ledger.read_ledger(self.rows_path(marker), columns)

    def rows_path(self, marker: Marker) -> Path:
        return self.folder / f"rows/{marker.rows}"

    def orphaned(self, shard: str) -> tuple[list[dict[str, Any]], list[Path]]:
        """The rows and the payload file that a damaged marker has left, if there is no doubt which they are; else
        nothing."""
        ledgers = sorted(self.folder.path.glob(f"rows/{shard}-*.parquet"))
        if not (self.folder / f"done/{shard}.json").exists() or len(ledgers) != 1:
            return [], []
        try:
            return ledger.read_ledger(ledgers[0]), sorted(self.folder.path.glob(f"data/{shard}-*.tar"))[:1]
        except DamagedFileError:
            return [], []

    def data_paths(self, marker: Marker) -> list[Path]:
        """The payload file of a shard, if it has one."""
        return [self.folder / f"data/{marker.data}"] if marker.data else []

    def payloads(self, marker: Marker) -> PayloadReader:
        """Return a reader of the committed images of a shard."""
        return PayloadReader(self.folder / f"data/{marker.data}")

    def count_journalled(self, shards: Iterable[str]) -> int:
        """How many samples of shards that are not committed are finished in their journals (workspace/journal.py)."""
        count = 0
        for shard in shards:
            path = self.folder / f"journal/{shard}.jsonl"
            with contextlib.suppress(FileNotFoundError):
                count += path.read_bytes().count(b"\n")
        return count

    # retry requests -------------------------------------------------------------------------------------------------

    def retries(self) -> dict[str, list[str]]:
        """Return the shards to be rerun, with the reasons of the samples to be retried."""
        asked = self.folder.folder("retry")
        found = {name: asked.get_json(name) for name in asked.names("*.json")}
        for name, reasons in found.items():
            if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
                raise WorkspaceError(
                    f"{asked / name} is not a list of reasons",
                    hint=f"remove {asked / name}, and ask for the retry again",
                )
        return {name[:-5]: reasons for name, reasons in found.items()}

    def request_retry(self, shard: str, reasons: Sequence[str]) -> None:
        self.request_retries({shard: reasons})

    def request_retries(self, asked: Mapping[str, Sequence[str]]) -> None:
        """Request retries of the samples lost for these reasons, by shard, in addition to earlier requests."""
        before = self.retries()
        wanted = {shard: sorted({*before.get(shard, ()), *reasons}) for shard, reasons in asked.items()}
        self.folder.folder("retry").put_all(
            (f"{shard}.json", (json.dumps(reasons) + "\n").encode()) for shard, reasons in wanted.items()
        )

    # commits --------------------------------------------------------------------------------------------------------

    def write_description(self, values: Mapping[str, Any]) -> None:
        """Write stage.json, for inspection and for the version check."""
        self.folder.put_record("stage.json", values)

    def read_description(self) -> dict[str, Any] | None:
        """What stage.json says; None if it does not exist or is damaged, so that the next run writes it again."""
        try:
            found = self.folder.get_record("stage.json")
        except DamagedFileError as error:
            _log.warning("%s; it is written again", error)
            return None
        kinds = {"versions": dict, "counted": dict, "resources": dict}
        whole = found is not None and all(isinstance(found.get(name), kind) for name, kind in kinds.items())
        return found if whole else None

    def commit(
        self,
        shard: str,
        rows: Sequence[Row],
        *,
        upstream: str,
        seconds: float,
        extra: Mapping[str, Any] | None = None,
    ) -> Marker:
        """Write the payloads and the ledger of a shard, and then its marker."""
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
        flat = [ledger.flatten_row(row, place) for row, place in zip(rows, places, strict=True)]
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
        """Commit flat rows and a finished payload file, given as (path in this directory, SHA-256)."""
        digest = ledger.ledger_digest(upstream, rows, self._counted)
        table = ledger.rows_to_table(rows, self._columns)
        return self._commit(shard, table, digest, data=data, upstream=upstream, seconds=seconds, extra=extra)

    def commit_table(
        self, shard: str, table: Any, *, upstream: str, seconds: float, extra: Mapping[str, Any] | None = None
    ) -> Marker:
        """Commit rows given as an Arrow table, without payloads; missing columns are null."""
        complete = ledger.add_missing_columns(table, self._columns)
        digest = ledger.ledger_table_digest(upstream, complete, self._counted)
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
        """Publish payload and ledger under names with their hash, and then the marker. The rename of the marker is the
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
            account=ledger.count_verdicts(table),
            data_bytes=data_bytes,
            rows_sha256=rows_sha256,
            data_sha256=data[1] if data else None,
            seconds=round(seconds, 3),
            extra=dict(extra or {}),
        )
        self.folder.put_record(f"done/{shard}.json", {name: getattr(marker, name) for name in Marker.__slots__})
        (self.folder / f"retry/{shard}.json").unlink(missing_ok=True)
        return marker

    def list_unreferenced(self) -> list[Path]:
        """Return files that no marker references: left by kills or replaced. Not safe while a run is writing."""
        markers, named = self.markers(), set()
        for marker in markers.values():
            named |= {f"rows/{marker.rows}", f"data/{marker.data}"}
        # what a damaged marker named is needed to do its shard again without asking the web for everything
        damaged = tuple(
            f"{name[:-5]}-" for name in self.folder.folder("done").names("*.json") if name[:-5] not in markers
        )
        found = [
            path
            for part in ("rows", "data")
            for path in (self.folder / part).glob("*")
            if f"{part}/{path.name}" not in named and not path.name.startswith(damaged)
        ]
        return sorted([*found, *(self.folder / "done").glob(".*.tmp"), *self.folder.path.glob(".*.tmp")])

    def remove_unreferenced(self) -> None:
        """Remove unreferenced files, so that `rows/*.parquet` holds every sample once and a retry does not double the
        photos. The caller must hold the lock."""
        with contextlib.suppress(OSError):  # a failed cleanup must not fail the run
            for path in self.list_unreferenced():
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _scratch(self, stem: str) -> Iterator[tuple[Path, IO[bytes]]]:
        """A temporary file to write, and to publish after the block. It is removed on an error, such as a full disk."""
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
    """Fsync a finished file and rename it. Equal names mean equal content, so replacing a file is harmless."""
    with open(scratch, "rb") as stream:
        os.fsync(stream.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(scratch, target)
