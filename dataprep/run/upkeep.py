"""Looking after a workspace: what is done and lost, asking again, clearing away."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataprep.errors import Reason, WorkspaceError
from dataprep.manifest.ledger import add_counts
from dataprep.manifest.locks import locked
from dataprep.manifest.workspace import Workspace
from dataprep.run.chain import WHOLE, Chain, State
from dataprep.stages.base import MergeStage


def status(workspace: str) -> dict[str, Any]:
    """The workspace in numbers: sources, and for each stage of its recipe the account and what is pending, and why."""
    opened = Workspace(workspace)
    plan = opened.plan()
    chain = Chain(opened, opened.recipe())
    state = State(chain, plan)
    stages = []
    for link in chain.links:
        pending = state.pending(link) if state.shards else []
        markers = [m for m in (state.marker(link, shard) for shard in [*state.shards, WHOLE]) if m is not None]
        why: dict[str, int] = {}
        for entry in pending:
            why[entry.why] = why.get(entry.why, 0) + 1
        applicable = 1 if isinstance(link.stage, MergeStage) else len(state.shards)
        stages.append(
            {
                "stage": link.name,
                "directory": link.directory.folder.path.name,
                "params": link.stage.params.as_dict(),
                "shards": applicable,
                "pending": len(pending),
                "why": why,
                "account": add_counts(marker.account for marker in markers),
                "bytes": sum(marker.data_bytes for marker in markers),
            }
        )
    return {
        "workspace": str(opened.path),
        "samples": plan.count,
        "sources": [{"source": dict(g.source), "samples": g.count, "shards": len(g.shards)} for g in plan.generations],
        "stages": stages,
        "packs": sorted(path.parent.name for path in (opened.path / "packs").glob("*/pack.json")),
    }


def ask_retry(workspace: str, reasons: Sequence[str]) -> dict[str, dict[str, int]]:
    """Note that samples lost for these reasons are to be tried again; how many, by stage and reason.

    The stages' next run does it. Raises UsageError for unknown reasons, WorkspaceError if no sample was lost for them.
    """
    wanted = [Reason.from_code(code).code for code in reasons]
    opened = Workspace(workspace)
    chain = Chain(opened, opened.recipe())
    found: dict[str, dict[str, int]] = {}
    for link in chain.links:
        for marker in link.directory.markers().values():
            lost: Mapping[str, int] = marker.account["dropped"] | marker.account["failed"]
            here = {code: lost[code] for code in wanted if code in lost}
            if here:
                link.directory.ask_retry(marker.shard, sorted(here))
                if Reason.PHOTO_CHANGED.code in here:  # it is validate that knows the photo as it was
                    chain.link("validate").directory.ask_retry(marker.shard, [Reason.PHOTO_CHANGED.code])
                total = found.setdefault(link.name, {})
                for code, count in here.items():
                    total[code] = total.get(code, 0) + count
    if not found:
        raise WorkspaceError(f"no sample in {workspace} was lost for {', '.join(wanted)}")
    return found


def collect_garbage(workspace: str, *, remove: bool, other_parameters: bool) -> list[tuple[Path, int]]:
    """Files that no marker names, with their sizes, and stage directories of other parameters if asked for.

    Takes the stages' locks first, so that nothing a run is writing is touched.
    """
    opened = Workspace(workspace)
    chain = Chain(opened, opened.recipe())
    current = {link.directory.folder.path.name for link in chain.links}
    found: list[tuple[Path, int]] = []
    for name in opened.stage_names():
        folder = opened.path / "stages" / name
        stage = name.partition("@")[0]
        with locked(folder, stage):
            if name not in current and other_parameters:
                garbage = [folder]
            else:
                directory = opened.stage_dir(stage, name.partition("@")[2], columns={}, counted=())
                garbage = directory.garbage()
            for path in garbage:
                found.append((path, _size(path)))
                if remove:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in [*opened.path.glob("packs/.*"), *opened.path.glob("runs/.*.board")]:
        found.append((path, _size(path)))
        if remove:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return found


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
    return path.stat().st_size
