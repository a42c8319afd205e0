"""A table of URLs: .csv, .tsv or .parquet; columns url, identity and, if known, left, top, right, bottom, key."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dataprep.errors import SourceError
from dataprep.samples import Box, Sample
from dataprep.sources.base import bad_line, unsafe_sample
from dataprep.storage import file_sha256, is_safe

_EDGES = ("left", "top", "right", "bottom")


class Urls:
    """The rows of one table. Without a key column, a row's key is a hash of its URL, so that tables may grow."""

    def __init__(self, table: Path, *, limit: int | None = None) -> None:
        self._table, self._limit = table, limit
        if not table.is_file():
            raise SourceError(f"{table}: no such file")
        if table.suffix.lower() not in (".csv", ".tsv", ".parquet"):
            raise SourceError(f"{table}: a table is .csv, .tsv or .parquet")

    def describe(self) -> dict[str, Any]:
        return {"kind": "urls", "table": str(self._table), "limit": self._limit}

    def digest(self) -> str:
        return file_sha256(self._table)

    def samples(self) -> Iterator[Sample]:
        for number, row in enumerate(self._rows()):
            if self._limit is not None and number >= self._limit:
                return
            yield _sample(row, f"{self._table.name} row {number + 1}")

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        if self._table.suffix.lower() == ".parquet":
            yield from self._parquet()
            return
        delimiter = "\t" if self._table.suffix.lower() == ".tsv" else ","
        try:
            with open(self._table, encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream, delimiter=delimiter)
                self._check(reader.fieldnames or [])
                yield from reader
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"{self._table}: not a readable table in UTF-8 ({error})") from None

    def _parquet(self) -> Iterator[Mapping[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(self._table)
            self._check(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=4096):
                yield from batch.to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{self._table}: not a readable Parquet file ({error})") from None

    def _check(self, names: list[str] | Any) -> None:
        missing = [name for name in ("url", "identity") if name not in names]
        if missing:
            raise SourceError(
                f"{self._table}: the column {missing[0]!r} is missing; its columns are: {', '.join(map(str, names))}"
            )
        edges = [name for name in _EDGES if name in names]
        if edges and len(edges) < 4:
            raise SourceError(
                f"{self._table}: a box needs left, top, right and bottom; only {', '.join(edges)} is there"
            )


def _sample(row: Mapping[str, Any], where: str) -> Sample:
    url, identity = str(row.get("url") or "").strip(), str(row.get("identity") or "").strip()
    if not url or not identity:
        return bad_line(where, "url or identity is empty")
    name = str(row.get("key") or "").strip() or hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:16]
    if not (is_safe(identity) and is_safe(name)):
        return unsafe_sample(identity, name, where)
    edges = [row.get(name) for name in _EDGES]
    box = None
    if any(edge not in (None, "") for edge in edges):
        try:
            box = Box(*(float(str(edge)) for edge in edges))
        except ValueError:
            box = None
        if box is None or not all(map(math.isfinite, box)):
            return bad_line(where, f"the box {edges} is not four numbers")
    return Sample(key=f"{identity}/{name}", identity=identity, url=url, box=box, box_frame="stored")
