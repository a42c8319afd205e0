"""Ledgers: one row per sample that reached a stage. Parquet, so that any tool can ask them questions."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dataprep.errors import Reason, WorkspaceError
from dataprep.samples import Row

COMMON = ("key", "identity", "verdict", "reason", "detail")
PLACE = ("offset", "size", "sha256")  # of the payload in the shard's tar


def write_ledger(stream: IO[bytes], rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Write flat rows; `columns` gives the stage's own columns as Arrow type names (`int32`, `list<float>`, ...)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            *((name, pa.string()) for name in COMMON),
            *((name, _arrow(kind)) for name, kind in columns.items()),
            ("offset", pa.int64()),
            ("size", pa.int64()),
            ("sha256", pa.string()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), stream, compression="zstd")


def read_ledger(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Flat rows in plan order; WorkspaceError if the file is missing or damaged."""
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path, columns=columns).to_pylist()
    except (OSError, ValueError) as error:
        raise WorkspaceError(
            f"{path} cannot be read ({error}); remove its marker under done/ to make it again"
        ) from None
    return rows


def flat(row: Row, place: tuple[int, int, str] | None) -> dict[str, Any]:
    """A row as the ledger stores it; `place` is (offset, size, sha256) of its payload."""
    return {
        "key": row.key,
        "identity": row.identity,
        "verdict": row.verdict,
        "reason": row.reason.code if row.reason else None,
        "detail": row.detail,
        **row.values,
        **dict(zip(PLACE, place or (None, None, None), strict=True)),
    }


def row_of(found: Mapping[str, Any]) -> Row:
    """The row that was stored, without its payload; the payload's place is among its values."""
    values = {name: value for name, value in found.items() if name not in COMMON}
    return Row(
        key=found["key"],
        identity=found["identity"],
        reason=Reason.from_code(found["reason"]) if found["reason"] else None,
        detail=found["detail"] or "",
        values=values,
    )


def counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The account of a ledger: {"in": n, "ok": n, "dropped": {reason: n}, "failed": {reason: n}}."""
    dropped: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    total = ok = 0
    for row in rows:
        total += 1
        if row["verdict"] == "ok":
            ok += 1
        else:
            (dropped if row["verdict"] == "dropped" else failed)[row["reason"]] += 1
    return {"in": total, "ok": ok, "dropped": dict(sorted(dropped.items())), "failed": dict(sorted(failed.items()))}


def add_counts(accounts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of several accounts."""
    dropped: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    total = ok = 0
    for account in accounts:
        total += account["in"]
        ok += account["ok"]
        dropped.update(account["dropped"])
        failed.update(account["failed"])
    return {"in": total, "ok": ok, "dropped": dict(sorted(dropped.items())), "failed": dict(sorted(failed.items()))}


def digest(upstream: str, rows: Iterable[Mapping[str, Any]], counted: Sequence[str]) -> str:
    """What later stages depend on: keys, verdicts, payloads and the `counted` columns, on top of what came before.

    Times, attempts and the reasons of what is lost are left out, so that a retry in vain makes nothing run again.
    """
    state = hashlib.sha256(upstream.encode())
    for row in rows:
        line = [row["key"], row["verdict"], row["sha256"], *(row.get(name) for name in counted)]
        state.update(json.dumps(line, ensure_ascii=True).encode())
    return state.hexdigest()


def _arrow(kind: str) -> Any:
    import pyarrow as pa

    if kind.startswith("list<"):
        return pa.list_(_arrow(kind[5:-1]))
    return pa.type_for_alias(kind)
