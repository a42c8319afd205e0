"""Maintenance of a workspace: status, retries and garbage collection."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataprep.errors import UsageError, WorkspaceError
from dataprep.pipeline.photo_changes import find_photo_changes
from dataprep.pipeline.pipeline import Pipeline, PipelineState
from dataprep.reasons import Reason
from dataprep.sources.base import UNUSABLE_IDENTITY
from dataprep.stages.base import MERGE_UNIT
from dataprep.storage import abandoned_directories, lock_directory, lock_holder
from dataprep.workspace.ledger import read_table, sum_counts
from dataprep.workspace.workspace import Workspace

_HOST = r"^[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/?#:]+)"
_TOGETHER = 100  # shards counted before their totals are merged


def workspace_status(workspace: str) -> dict[str, Any]:
    """Return the state of a workspace: its sources, and for each stage its counts and pending shards with reasons."""
    opened = Workspace(workspace)
    plan = opened.plan()
    pipeline = Pipeline(opened, opened.recipe())
    state = PipelineState(pipeline, plan)
    stages = []
    for node in pipeline.nodes:
        pending = state.pending(node) if state.shards else []
        markers = [m for m in (state.marker(node, shard) for shard in [*state.shards, MERGE_UNIT]) if m is not None]
        why: dict[str, int] = {}
        for entry in pending:
            why[entry.reason] = why.get(entry.reason, 0) + 1
        applicable = len(state.units(node))
        stages.append(
            {
                "stage": node.name,
                "directory": node.store.folder.path.name,
                "params": node.stage.params.as_dict(),
                "shards": applicable,
                "pending": len(pending),
                "unfinished": node.store.count_journalled([entry.shard for entry in pending]),
                "waiting": sum(state.shards[entry.shard].size for entry in pending if entry.shard in state.shards),
                "running": lock_holder(node.store.folder.path),
                "why": why,
                "account": sum_counts(marker.account for marker in markers),
                "bytes": sum(marker.data_bytes for marker in markers),
                "extra": dict(markers[-1].extra) if markers and applicable == 1 else {},
            }
        )
    return {
        "changes": find_photo_changes(pipeline, plan).describe(),
        "excluded": len(opened.exclusions().people) + len(opened.exclusions().photos),
        "workspace": str(opened.path),
        "samples": plan.count,
        "people": len(plan.photos_per_identity().keys() - {UNUSABLE_IDENTITY}),
        "sources": [{"source": dict(g.source), "samples": g.count, "shards": len(g.shards)} for g in plan.generations],
        "stages": stages,
        "packs": sorted(path.parent.name for path in (opened.path / "packs").glob("*/pack.json")),
    }


def list_failed_hosts(workspace: str, limit: int) -> list[dict[str, Any]]:
    """Return the hosts with the most failed or dropped downloads: {"host", "ok", "lost": {reason: n}}."""
    import pyarrow as pa
    import pyarrow.compute as pc

    opened = Workspace(workspace)
    directory = Pipeline(opened, opened.recipe()).node("download").store
    tables = []
    for marker in directory.markers().values():
        table = read_table(directory.rows_path(marker), ["url", "reason"])
        host = pc.struct_field(pc.extract_regex(pc.utf8_lower(table["url"]), _HOST), "host")
        one_each = pa.table({"host": host, "reason": table["reason"], "photos": pa.repeat(1, len(table))})
        tables.append(_summed([one_each], ["host", "reason"]))
        if len(tables) == _TOGETHER:
            tables = [_summed(tables, ["host", "reason"])]
    if not tables:
        return []
    photos = _summed(tables, ["host", "reason"])
    lost = _summed([photos.filter(pc.and_(pc.is_valid(photos["reason"]), pc.is_valid(photos["host"])))], ["host"])
    worst = lost.sort_by([("photos", "descending"), ("host", "ascending")])["host"][:limit]
    found: dict[str, dict[str, Any]] = {host: {"host": host, "ok": 0, "lost": {}} for host in worst.to_pylist()}
    for row in photos.filter(pc.is_in(photos["host"], worst.combine_chunks())).to_pylist():
        if row["reason"] is None:
            found[row["host"]]["ok"] = row["photos"]
        else:
            found[row["host"]]["lost"][row["reason"]] = row["photos"]
    return list(found.values())


def _summed(tables: Sequence[Any], by: list[str]) -> Any:
    import pyarrow as pa

    summed = pa.concat_tables(tables).group_by(by).aggregate([("photos", "sum")])
    return summed.rename_columns(["photos" if name == "photos_sum" else name for name in summed.column_names])


def request_retry(workspace: str, reasons: Sequence[str], shards: Sequence[str] = ()) -> dict[str, dict[str, int]]:
    """Request a retry of the samples lost for these reasons, in these shards or in all. Returns counts by stage and
    reason.

    The next run of the stages retries them. Raises UsageError for unknown reasons and shards, WorkspaceError if no
    sample was lost for these reasons.
    """
    try:
        wanted = [Reason.from_code(code).code for code in reasons]
    except ValueError as error:
        raise UsageError(str(error)) from None
    opened = Workspace(workspace)
    pipeline = Pipeline(opened, opened.recipe())
    among = frozenset(shards)
    unknown = among - {shard.id for shard in opened.plan().shards}
    if unknown:
        raise UsageError(f"unknown shard {min(unknown)!r}; shards are named like the files under {opened.path}/plan")
    found: dict[str, dict[str, int]] = {}
    changed: dict[str, list[str]] = {}
    for node in pipeline.nodes:
        asked: dict[str, list[str]] = {}
        for marker in node.store.markers().values():
            lost: Mapping[str, int] = marker.account["dropped"] | marker.account["failed"]
            here = {code: lost[code] for code in wanted if code in lost}
            if not here or (among and marker.shard not in among):
                continue
            asked[marker.shard] = sorted(here)
            if Reason.PHOTO_CHANGED.code in here:  # validate recorded the old hash
                changed[marker.shard] = [Reason.PHOTO_CHANGED.code]
            total = found.setdefault(node.name, {})
            for code, count in here.items():
                total[code] = total.get(code, 0) + count
        node.store.request_retries(asked)
    pipeline.node("validate").store.request_retries(changed)
    if not found:
        where = f" in {', '.join(sorted(among))}" if among else ""
        raise WorkspaceError(f"no sample in {workspace} was lost for {', '.join(wanted)}{where}")
    return found


def collect_garbage(workspace: str, *, remove: bool, other_parameters: bool) -> list[tuple[Path, int]]:
    """Return unreferenced files with their sizes, and optionally stage directories of other parameters.

    The stages' locks are taken first, so files being written by a run are not touched.
    """
    opened = Workspace(workspace)
    pipeline = Pipeline(opened, opened.recipe())
    current = {node.store.folder.path.name for node in pipeline.nodes}
    found: list[tuple[Path, int]] = []
    for name in opened.stage_names():
        folder = opened.path / "stages" / name
        stage = name.partition("@")[0]
        with lock_directory(folder, stage):
            if name not in current and other_parameters:
                garbage = [folder]
            else:
                directory = opened.open_stage(stage, name.partition("@")[2], columns={}, counted=())
                garbage = directory.list_unreferenced()
            for path in garbage:
                found.append((path, _size(path)))
                if remove:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in [*abandoned_directories(opened.path / "packs"), *opened.path.glob("runs/.*.board")]:
        found.append((path, _size(path)))
        if remove:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return found


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
    return path.stat().st_size
