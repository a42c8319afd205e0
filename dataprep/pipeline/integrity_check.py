"""What is damaged in a workspace, and how it is made again: for a run that meets it, and for `check`, which reads all."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dataprep.errors import DataprepError, RecordError
from dataprep.models.zip_checksums import check_archive
from dataprep.packs.base import read_pack_json
from dataprep.pipeline.pipeline import Pipeline
from dataprep.stages.base import MERGE_UNIT
from dataprep.storage import file_sha256, lock_directory
from dataprep.workspace.integrity import check_content
from dataprep.workspace.workspace import Workspace

DAMAGED = "damaged"  # the reason of a retry of photos whose bytes are no longer what was stored
_SHARD_FILE = re.compile(r"(data|rows)/(.+)-[0-9a-f]{12}\.(?:tar|parquet)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged or missing file, what is wrong with it, and what makes it again."""

    path: Path
    what: str
    remedy: str


@dataclass(slots=True, kw_only=True)
class IntegrityReport:
    """How many files and bytes were read, and what is damaged."""

    files: int = 0
    bytes: int = 0
    damaged: list[Damage] = field(default_factory=list)


def check_workspace(
    workspace: str, *, redo: bool = False, progress: Callable[[int, int], None] = lambda files, size: None
) -> IntegrityReport:
    """Read plan, markers, ledgers, payloads, packs and models, and compare each with its checksum. With `redo`, mark what is
    damaged, so that the next run of its stage makes it again. Raises WorkspaceError if the workspace cannot be opened."""
    opened = Workspace(workspace)
    report = IntegrityReport()
    for path, look in _everything(opened):
        try:
            look()
        except (DataprepError, OSError) as error:
            told = getattr(error, "hint", "") if path.is_relative_to(opened.path / "plan") else ""
            report.damaged.append(Damage(path=path, what=str(error), remedy=told or _remedy(opened, path)))
        report.files += 1
        report.bytes += path.stat().st_size if path.exists() else 0
        progress(report.files, report.bytes)
    if redo:
        for damage in report.damaged:
            _redo(opened, damage.path)
    return report


def mark_damaged(pipeline: Pipeline, path: Path) -> bool:
    """Let the next run make again what a damaged file of a stage holds. False if it is no file of this pipeline's stages.

    A download is asked again only for the photos that are damaged, if its ledger is whole.
    """
    for node in pipeline.nodes:
        found = _SHARD_FILE.fullmatch(os.path.relpath(path, node.store.folder.path))
        if found is None:
            continue
        with lock_directory(node.store.folder.path, node.name):
            if node is pipeline.download and found[1] == "data":
                node.store.request_retry(found[2], [DAMAGED])
            else:
                node.store.forget(found[2])
        return True
    return False


def _everything(opened: Workspace) -> Iterator[tuple[Path, Callable[[], object]]]:
    """Each file, and a function that raises an error if it is damaged."""
    recipe, exclusions = opened.path / "recipe.json", opened.path / "exclusions.json"
    yield from (
        (path, look) for path, look in ((recipe, opened.recipe), (exclusions, opened.exclusions)) if path.exists()
    )
    plan = opened.plan()
    for shard in plan.shards:
        yield opened.path / f"plan/{shard.id}.parquet", functools.partial(plan.check_shard, shard)
    for name in opened.stage_names():
        stage, _, fingerprint = name.partition("@")
        store = opened.open_stage(stage, fingerprint, columns={}, counted=())
        description = opened.path / f"stages/{name}/stage.json"
        if description.exists():
            yield description, functools.partial(_require, description, store.read_description() is not None)
        for marker_file in sorted((opened.path / f"stages/{name}/done").glob("*.json")):
            marker = store.marker(marker_file.stem)
            yield marker_file, functools.partial(_require, marker_file, marker is not None)
            for path in [] if marker is None else [store.rows_path(marker), *store.data_paths(marker)]:
                yield path, functools.partial(check_content, path)
    for folder in sorted(path.parent for path in (opened.path / "packs").glob("*/pack.json")):
        files = read_pack_json(folder).get("files")
        for file, sha256 in sorted(files.items()) if isinstance(files, dict) else ():
            yield folder / file, functools.partial(_compare, folder / file, sha256)
    for path in sorted((opened.path / "models").glob("*/*.pt")):
        yield path, functools.partial(check_archive, path)


def _require(path: Path, whole: bool) -> None:
    if not whole:
        raise RecordError(f"{path} is not what was written")


def _compare(path: Path, sha256: object) -> None:
    if file_sha256(path) != sha256:
        raise RecordError(f"{path}: its sha256 differs from the one in pack.json")


def _remedy(opened: Workspace, path: Path) -> str:
    part = path.relative_to(opened.path).parts
    if part[0] == "stages":
        stage = part[1].partition("@")[0]
        return f"`dataprep check --redo`, then `dataprep {'align' if stage == 'detect' else stage}`"
    if part[0] == "packs":
        return "`dataprep check --redo`, then `dataprep pack`; of a pack made elsewhere: `dataprep repair`"
    if part[0] == "models":
        return "train it again; a run goes on from its last whole checkpoint"
    return ""


def _redo(opened: Workspace, path: Path) -> None:
    part = path.relative_to(opened.path).parts
    if path.name == "stage.json":
        return  # the next run writes it
    if part[0] == "stages" and not mark_damaged(Pipeline(opened, opened.recipe()), path):
        stage, _, fingerprint = part[1].partition("@")
        store = opened.open_stage(stage, fingerprint, columns={}, counted=())
        with lock_directory(store.folder.path, stage):
            store.forget(path.stem if part[2] == "done" else path.stem.rpartition("-")[0])
    elif part[0] == "packs":
        for name in opened.folder.folder("stages").names("pack@*"):
            store = opened.open_stage("pack", name.partition("@")[2], columns={}, counted=())
            marker = store.marker(MERGE_UNIT)
            if marker is not None and marker.extra.get("files") == read_pack_json(path.parent).get("files"):
                store.forget(MERGE_UNIT)
