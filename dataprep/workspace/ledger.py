"""Ledgers: one row per sample that reached a stage, in Parquet, which any tool can query."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dataprep.errors import DamagedFileError
from dataprep.reasons import Reason
from dataprep.types import Row
from dataprep.workspace.integrity import HINT, check_content

COMMON_COLUMNS = ("key", "identity", "verdict", "reason", "detail")
PAYLOAD_COLUMNS = ("offset", "size", "sha256")  # of the payload in the shard's tar


def rows_to_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Any:
    """Convert flat rows to an Arrow table. `columns` maps the stage's columns to Arrow types such as `int32`."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=_schema(columns))


def add_missing_columns(table: Any, columns: Mapping[str, str]) -> Any:
    """Return the table with all columns of a ledger in order; missing columns are null."""
    import pyarrow as pa

    schema = _schema(columns)
    found = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(found, schema=schema)


def write_ledger(stream: IO[bytes], table: Any) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, stream, compression="zstd")


def read_table(
    path: Path, columns: Sequence[str] | None = None, *, ok: bool = False, repeated: Sequence[str] = ()
) -> Any:
    """Read a ledger as an Arrow table; with `ok`, only the ok rows. Columns in `repeated`, which hold few distinct
    texts, are dictionary-encoded. Raises DamagedFileError if the file is missing or damaged."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = [*columns, "verdict"] if ok and columns is not None else columns
    check_content(path)
    try:
        with pq.ParquetFile(path, read_dictionary=list(repeated)) as file:
            table = file.read(wanted)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DamagedFileError(f"{path} cannot be read ({error})", path=path, hint=HINT) from None
    if ok:
        table = table.filter(pc.equal(table["verdict"], "ok"))
    return table if columns is None else table.select(columns)


def read_ledger(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Read flat rows in plan order. Raises DamagedFileError if the file is missing or damaged."""
    rows: list[dict[str, Any]] = read_table(path, columns).to_pylist()
    return rows


def flatten_row(row: Row, location: tuple[int, int, str] | None) -> dict[str, Any]:
    """Return a row as stored in the ledger. `place` is (offset, size, sha256) of its payload."""
    return {
        "key": row.key,
        "identity": row.identity,
        "verdict": row.verdict,
        "reason": row.reason.code if row.reason else None,
        "detail": row.detail,
        **row.values,
        **dict(zip(PAYLOAD_COLUMNS, location or (None, None, None), strict=True)),
    }


def row_from_ledger(found: Mapping[str, Any]) -> Row:
    """Return the stored row without its payload; the place of the payload is among its values."""
    values = {name: value for name, value in found.items() if name not in COMMON_COLUMNS}
    return Row(
        key=found["key"],
        identity=found["identity"],
        reason=Reason.from_code(found["reason"]) if found["reason"] else None,
        detail=found["detail"] or "",
        values=values,
    )


def count_verdicts(table: Any) -> dict[str, Any]:
    """Return the counts of a ledger: {"in": n, "ok": n, "dropped": {reason: n}, "failed": {reason: n}}."""
    grouped = table.select(["verdict", "reason"]).group_by(["verdict", "reason"]).aggregate([([], "count_all")])
    ok = 0
    lost: dict[str, dict[str, int]] = {"dropped": {}, "failed": {}}
    for row in grouped.to_pylist():
        if row["verdict"] == "ok":
            ok += row["count_all"]
        else:
            lost[row["verdict"]][row["reason"]] = row["count_all"]
    return {"in": len(table), "ok": ok, **{verdict: dict(sorted(found.items())) for verdict, found in lost.items()}}


def sum_counts(accounts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of several counts."""
    dropped: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    total = ok = 0
    for account in accounts:
        total += account["in"]
        ok += account["ok"]
        dropped.update(account["dropped"])
        failed.update(account["failed"])
    return {"in": total, "ok": ok, "dropped": dict(sorted(dropped.items())), "failed": dict(sorted(failed.items()))}


def ledger_digest(upstream: str, rows: Iterable[Mapping[str, Any]], counted: Sequence[str]) -> str:
    """Hash what later stages depend on: the upstream digest, keys, verdicts, payloads and the `counted` columns.

    Times, attempts and reasons are left out, so that an unsuccessful retry does not rerun later stages.
    """
    names = ("key", "verdict", "sha256", *counted)
    return _digest(upstream, ([row.get(name) for name in names] for row in rows))


def ledger_table_digest(upstream: str, table: Any, counted: Sequence[str]) -> str:
    """The same digest for a large table, if its columns store the rows without loss."""
    chosen = table.select(["key", "verdict", "sha256", *counted])
    batches = (batch.to_pydict().values() for batch in chosen.to_batches(max_chunksize=10_000))
    return _digest(upstream, (line for columns in batches for line in zip(*columns, strict=True)))


def _digest(upstream: str, lines: Iterable[Sequence[Any]]) -> str:
    state = hashlib.sha256(upstream.encode())
    for line in lines:
        state.update(json.dumps(line, ensure_ascii=True).encode())
    return state.hexdigest()


def _schema(columns: Mapping[str, str]) -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            *((name, pa.string()) for name in COMMON_COLUMNS),
            *((name, _arrow(kind)) for name, kind in columns.items()),
            ("offset", pa.int64()),
            ("size", pa.int64()),
            ("sha256", pa.string()),
        ]
    )


def _arrow(kind: str) -> Any:
    import pyarrow as pa

    if kind.startswith("list<"):
        return pa.list_(_arrow(kind[5:-1]))
    return pa.type_for_alias(kind)
