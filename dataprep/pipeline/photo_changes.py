"""Photos on this disk that are gone, or have changed, since the workspace took them in."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dataprep.errors import DamagedFileError, ImagingError
from dataprep.pipeline.pipeline import Pipeline
from dataprep.reasons import Reason
from dataprep.stages.base import read_local_photo
from dataprep.types import Sample
from dataprep.workspace.ledger import read_table
from dataprep.workspace.plan import Amendment, Plan
from dataprep.workspace.plan_table import SampleTable, iterate_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoChanges:
    """The photos whose files are gone or hold something else now: {shard: {key: path}}.

    `absent` are those whose whole source folder is not there: a disk that is not mounted, or a folder that moved. They
    are never taken for gone.
    """

    gone: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    changed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    moved: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    absent: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    roots: tuple[str, ...] = ()  # the folders that are not there

    def __bool__(self) -> bool:
        return bool(self.gone or self.changed or self.moved or self.absent)

    def describe(self) -> str:
        """`3 photos are gone (ann/1, ann/2, bob/7), 1 has changed (zed/1)`; empty if nothing has happened."""
        parts = []
        for keys, one, many in (
            (self.gone, "photo is gone", "photos are gone"),
            (self.changed, "photo has changed", "photos have changed"),
            (self.moved, "photo has moved", "photos have moved"),
            (self.absent, "photo is", "photos are"),
        ):
            named = [key for found in keys.values() for key in found]
            if named:
                shown = ", ".join(named[:3]) + (", ..." if len(named) > 3 else "")
                where = f" in {', '.join(self.roots)}, which is not there" if keys is self.absent else ""
                parts.append(f"{len(named)} {one if len(named) == 1 else many}{where} ({shown})")
        return ", ".join(parts)


def find_photo_changes(pipeline: Pipeline, plan: Plan) -> PhotoChanges:
    """Compare the local files of the plan with what `validate` read: by size and time, and by content where the time
    differs. A file that was never read only counts if it is gone. A pipeline of the download alone reads none."""
    if len(pipeline.nodes) == 1:
        return PhotoChanges()
    store = pipeline.node("validate").store
    markers = store.markers()
    gone: dict[str, dict[str, str]] = {}
    changed: dict[str, dict[str, str]] = {}
    absent: dict[str, dict[str, str]] = {}
    roots = {shard.id: generation.root for generation in plan.generations for shard in generation.shards}
    missing = {root for root in roots.values() if root and not os.path.exists(root)}
    stat = functools.lru_cache(maxsize=4)(_stat)  # the records of one .rec share a file
    for shard in plan.shards:
        if shard.remote:
            continue
        marker = markers.get(shard.id)
        columns = ["key", "bytes", "mtime_ns", "photo_sha256"]
        try:
            read = read_table(store.rows_path(marker), columns).to_pylist() if marker else []
        except DamagedFileError:  # the run that reads it next makes it again
            read = []
        known = {row["key"]: row for row in read if row["mtime_ns"] is not None}
        for sample in plan.local_samples(shard):
            now, before = stat(sample.path), known.get(sample.key)
            if now is None and roots[shard.id] in missing:
                absent.setdefault(shard.id, {})[sample.key] = sample.path
            elif now is None:
                gone.setdefault(shard.id, {})[sample.key] = sample.path
            elif before is not None and _is_changed(sample, now, before):
                changed.setdefault(shard.id, {})[sample.key] = sample.path
    return PhotoChanges(gone=gone, changed=changed, absent=absent, roots=tuple(sorted(missing)))


def find_moved(changes: PhotoChanges, listed: Iterable[Sample | SampleTable]) -> dict[str, tuple[str, int | None]]:
    """The new places of photos that are gone or changed, by key, as a source lists them now."""
    affected = (*changes.gone.values(), *changes.changed.values(), *changes.absent.values())
    missing = {key: path for keys in affected for key, path in keys.items()}
    places: dict[str, tuple[str, int | None]] = {}
    if not missing:
        return places
    for table in iterate_tables(listed):
        names = table.select(["key", "path", "offset"]).to_pydict()
        for key, path, offset in zip(*names.values(), strict=True):
            if key in missing and path and (path != missing[key] or offset is not None):
                places.setdefault(key, (path, offset))
    return places


def take_over(
    pipeline: Pipeline, plan: Plan, changes: PhotoChanges, places: Mapping[str, tuple[str, int | None]]
) -> PhotoChanges:
    """Let the plan follow its files: photos that are gone leave everything, those that changed or moved (to `places`)
    are read again by the next run. Absent ones stay as they are. Returns what was taken over, and what is absent."""
    moved: dict[str, dict[str, str]] = {}
    for shard, keys in (*changes.gone.items(), *changes.changed.items(), *changes.absent.items()):
        for key in keys:
            if key in places:
                moved.setdefault(shard, {})[key] = places[key][0]
    gone, changed, absent = (_without(found, moved) for found in (changes.gone, changes.changed, changes.absent))
    plan.amend(
        {
            shard: Amendment(
                gone=frozenset(gone.get(shard, ())), moved={key: places[key] for key in moved.get(shard, ())}
            )
            for shard in {**gone, **moved}
        }
    )
    pipeline.node("validate").store.request_retries(
        {shard: [Reason.PHOTO_CHANGED.code] for shard in {**changed, **moved}}
    )
    return PhotoChanges(gone=gone, changed=changed, moved=moved, absent=absent, roots=changes.roots)


def _without(
    found: Mapping[str, Mapping[str, str]], moved: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    left = {
        shard: {key: path for key, path in keys.items() if key not in moved.get(shard, {})}
        for shard, keys in found.items()
    }
    return {shard: keys for shard, keys in left.items() if keys}


def _stat(path: str) -> tuple[int, int] | None:
    """Size and modification time in ns of a file, None if there is none. A file that cannot be asked counts as there."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _is_changed(sample: Sample, now: tuple[int, int], before: Mapping[str, Any]) -> bool:
    size, modified = now
    if modified == before["mtime_ns"] or size < 0:
        return False
    if sample.offset is None and size != before["bytes"]:
        return True
    try:
        content = hashlib.sha256(read_local_photo(sample)).hexdigest()
        return content != str(before["photo_sha256"])
    except (OSError, ImagingError):
        return True
