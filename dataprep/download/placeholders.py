"""Placeholders: "this image was removed", the same bytes for many URLs of one host, of more than one person.

The rule knows no order: a sha256 that one host served for `least` different URLs or more, of two identities or more, is
a placeholder, and every row with it is one, in whatever shard. `Sightings` applies it to what comes in, so that most
are never stored; `overlooked` finds the rest when all shards are in, from the ledgers' columns.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dataprep.reasons import Reason
from dataprep.types import Row
from dataprep.workspace.stage_store import Marker, StageDir

LEAST_IDENTITIES = 2
_KEPT = 50_000  # bodies whose URLs are counted while they come in
_HOST = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_COLUMNS = ("key", "identity", "reason", "url", "final_url", "sha256", "body_sha256")


class _Count:
    """Different URLs (as 8-byte hashes) and identities that got the same bytes from one host."""

    __slots__ = ("identities", "urls")

    def __init__(self) -> None:
        self.urls: set[int] = set()
        self.identities: set[str] = set()

    def add(self, url: str, identity: str, least: int) -> bool:
        if len(self.urls) < least:
            self.urls.add(_short(url))
        if len(self.identities) < LEAST_IDENTITIES:
            self.identities.add(identity)
        return len(self.urls) >= least and len(self.identities) >= LEAST_IDENTITIES


class Sightings:
    """Counts of what came in lately, bounded; what has passed the threshold stays known."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()
        self._known: set[str] = set()

    def is_placeholder(self, sha256: str, *, url: str, final_url: str, identity: str) -> bool:
        """Count one body. Hot: once per photo."""
        if not self._least:
            return False
        if sha256 in self._known:
            return True
        place = (host_in(final_url or url), sha256)
        count = self._counts.get(place)
        if count is None:
            count = self._counts[place] = _Count()
            if len(self._counts) > _KEPT:
                self._counts.popitem(last=False)
        else:
            self._counts.move_to_end(place)
        if not count.add(url, identity, self._least):
            return False
        self._known.add(sha256)
        return True


def as_placeholder(row: Mapping[str, Any]) -> Row:
    """The row that takes the place of a flat one whose photo is a placeholder; the same whenever it is found out."""
    sha256 = row["sha256"] or row["body_sha256"]
    kept = {name: row.get(name) for name in ("url", "status", "final_url", "attempts", "seconds", "bytes")}
    return Row(
        key=row["key"], identity=row["identity"], reason=Reason.PLACEHOLDER, detail=detail(sha256),
        values={**kept, "body_sha256": sha256},
    )  # fmt: skip


def detail(sha256: str) -> str:
    return f"the same bytes for many URLs: sha256 {sha256[:16]}"


def overlooked(
    directory: StageDir, last: Mapping[str, Iterable[Mapping[str, Any]]], least: int
) -> dict[str, list[dict[str, Any]]]:
    """Rows that are ok and must be placeholders, by shard: of the committed ones, and of `last`, which are not yet.

    First only hashes are read, eight bytes each, so that millions of rows take some tens of megabytes; then all that
    the rule needs, of the shards where a hash is frequent enough.
    """
    if not least:
        return {}
    markers = {shard: marker for shard, marker in directory.markers().items() if shard not in last}
    frequent = _frequent(directory, markers, last, least)
    if not frequent:
        return {}
    counts: dict[tuple[str, str], _Count] = {}
    found: set[str] = set()
    candidates: list[tuple[str, dict[str, Any]]] = []
    for shard, row in _rows(directory, markers, last, frequent):
        sha256 = row["sha256"] or row["body_sha256"]
        place = (host_in(row["final_url"] or row["url"]), sha256)
        if counts.setdefault(place, _Count()).add(row["url"], row["identity"], least):
            found.add(sha256)
        if row["reason"] is None:
            candidates.append((shard, row))
    lost: dict[str, list[dict[str, Any]]] = {}
    for shard, row in candidates:
        if row["sha256"] in found:
            lost.setdefault(shard, []).append(row)
    return lost


def host_in(url: str) -> str:
    """The host of a URL as it is written, in lower case."""
    found = _HOST.match(url.strip())
    return found[1].lower() if found else ""


def _frequent(
    directory: StageDir, markers: Mapping[str, Marker], last: Mapping[str, Iterable[Mapping[str, Any]]], least: int
) -> frozenset[int]:
    import numpy as np

    parts = []
    for marker in markers.values():
        rows = directory.rows(marker, ["reason", "sha256", "body_sha256"])
        parts.append(np.array([_prefix(row) for row in rows if _counts(row)], np.uint64))
    parts.append(np.array([_prefix(row) for rows in last.values() for row in rows if _counts(row)], np.uint64))
    values, times = np.unique(np.concatenate(parts), return_counts=True)
    return frozenset(values[times >= least].tolist())


def _rows(
    directory: StageDir,
    markers: Mapping[str, Marker],
    last: Mapping[str, Iterable[Mapping[str, Any]]],
    frequent: frozenset[int],
) -> Iterator[tuple[str, dict[str, Any]]]:
    for shard, marker in markers.items():
        for row in directory.rows(marker, list(_COLUMNS)):
            if _counts(row) and _prefix(row) in frequent:
                yield shard, row
    for shard, journalled in last.items():
        for found in journalled:
            if _counts(found) and _prefix(found) in frequent:
                yield shard, {**dict.fromkeys(_COLUMNS), **found}


def _counts(row: Mapping[str, Any]) -> bool:
    """Whether a row has bytes that could be, or are, a placeholder: a photo as far as signatures tell."""
    return row["reason"] in (None, Reason.PLACEHOLDER.code) and bool(row["sha256"] or row.get("body_sha256"))


def _prefix(row: Mapping[str, Any]) -> int:
    return int((row["sha256"] or row["body_sha256"])[:16], 16)


def _short(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
