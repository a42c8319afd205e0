"""Detects placeholders ("this image was removed"): one host serves the same bytes for many URLs of several people.

The rule does not depend on the download order. A sha256 that one host served for at least `threshold` different URLs of at
least two identities is a placeholder, and so is every row with it, in any shard. `DuplicateCounter` applies the rule to
incoming photos, so that most placeholders are never stored; `find_missed_placeholders` finds the rest in the ledgers
at the end.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dataprep.reasons import Reason
from dataprep.types import Row
from dataprep.workspace.stage_store import Marker, StageStore

MIN_IDENTITIES = 2
_KEPT = 50_000  # bodies whose URLs are counted during the download
_HOST = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_COLUMNS = ("key", "identity", "reason", "url", "final_url", "sha256", "body_sha256")


class _Count:
    """Distinct URLs (as 8-byte hashes) and identities for which one host served the same bytes."""

    __slots__ = ("identities", "urls")

    def __init__(self) -> None:
        self.urls: set[int] = set()
        self.identities: set[str] = set()

    def add(self, url: str, identity: str, threshold: int) -> bool:
        if len(self.urls) < threshold:
            self.urls.add(_short(url))
        if len(self.identities) < MIN_IDENTITIES:
            self.identities.add(identity)
        return len(self.urls) >= threshold and len(self.identities) >= MIN_IDENTITIES


class DuplicateCounter:
    """Bounded counts of recent bodies. A body that has passed the threshold is remembered."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()
        self._known: set[str] = set()

    def is_placeholder(self, sha256: str, *, url: str, final_url: str, identity: str) -> bool:
        """Count one body; return whether it is a placeholder. Hot: called once per photo."""
        if not self._threshold:
            return False
        if sha256 in self._known:
            return True
        place = (parse_host(final_url or url), sha256)
        count = self._counts.get(place)
        if count is None:
            count = self._counts[place] = _Count()
            if len(self._counts) > _KEPT:
                self._counts.popitem(last=False)
        else:
            self._counts.move_to_end(place)
        if not count.add(url, identity, self._threshold):
            return False
        self._known.add(sha256)
        return True


def make_placeholder_row(row: Mapping[str, Any]) -> Row:
    """Return the row that replaces a flat row whose photo is a placeholder. It does not depend on when it was found."""
    sha256 = row["sha256"] or row["body_sha256"]
    kept = {name: row.get(name) for name in ("url", "status", "final_url", "attempts", "seconds", "bytes")}
    return Row(
        key=row["key"], identity=row["identity"], reason=Reason.PLACEHOLDER, detail=placeholder_detail(sha256),
        values={**kept, "body_sha256": sha256},
    )  # fmt: skip


def placeholder_detail(sha256: str) -> str:
    return f"the same bytes for many URLs: sha256 {sha256[:16]}"


def find_missed_placeholders(
    directory: StageStore, last: Mapping[str, Iterable[Mapping[str, Any]]], threshold: int
) -> dict[str, list[dict[str, Any]]]:
    """Return ok rows that are placeholders, by shard, among committed shards and the uncommitted ones in `last`.

    The first pass reads only hashes, eight bytes each: tens of megabytes for millions of rows. The second pass reads
    the other columns of the rows whose hash is frequent enough.
    """
    if not threshold:
        return {}
    markers = {shard: marker for shard, marker in directory.markers().items() if shard not in last}
    frequent = _frequent(directory, markers, last, threshold)
    if not frequent:
        return {}
    counts: dict[tuple[str, str], _Count] = {}
    found: set[str] = set()
    candidates: list[tuple[str, dict[str, Any]]] = []
    for shard, row in _rows(directory, markers, last, frequent):
        sha256 = row["sha256"] or row["body_sha256"]
        place = (parse_host(row["final_url"] or row["url"]), sha256)
        if counts.setdefault(place, _Count()).add(row["url"], row["identity"], threshold):
            found.add(sha256)
        if row["reason"] is None:
            candidates.append((shard, row))
    lost: dict[str, list[dict[str, Any]]] = {}
    for shard, row in candidates:
        if row["sha256"] in found:
            lost.setdefault(shard, []).append(row)
    return lost


def parse_host(url: str) -> str:
    """Return the host of a URL as written, in lower case."""
    found = _HOST.match(url.strip())
    return found[1].lower() if found else ""


def _frequent(
    directory: StageStore,
    markers: Mapping[str, Marker],
    last: Mapping[str, Iterable[Mapping[str, Any]]],
    threshold: int,
) -> frozenset[int]:
    import numpy as np

    parts = []
    for marker in markers.values():
        rows = directory.rows(marker, ["reason", "sha256", "body_sha256"])
        parts.append(np.array([_prefix(row) for row in rows if _counts(row)], np.uint64))
    parts.append(np.array([_prefix(row) for rows in last.values() for row in rows if _counts(row)], np.uint64))
    values, times = np.unique(np.concatenate(parts), return_counts=True)
    return frozenset(values[times >= threshold].tolist())


def _rows(
    directory: StageStore,
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
    """Whether a row has a body that is, or could be, a placeholder."""
    return row["reason"] in (None, Reason.PLACEHOLDER.code) and bool(row["sha256"] or row.get("body_sha256"))


def _prefix(row: Mapping[str, Any]) -> int:
    return int((row["sha256"] or row["body_sha256"])[:16], 16)


def _short(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
