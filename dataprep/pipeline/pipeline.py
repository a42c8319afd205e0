"""The chain of stages with their parameters over a workspace, and which of their shards are pending, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dataprep.stages.base import MapStage, MergeContext, MergeStage, Stage
from dataprep.stages.detect import DetectParams
from dataprep.stages.download import DownloadStage
from dataprep.stages.order import STAGES
from dataprep.workspace.plan import Plan, Shard
from dataprep.workspace.stage_store import Marker, StageStore
from dataprep.workspace.workspace import Workspace

MERGE_SHARD = "all"  # the shard id of a merge


@dataclass(frozen=True, slots=True)
class StageNode:
    """A stage in the chain: its fingerprint, which covers all upstream stages, and its directory."""

    stage: Stage[Any]
    fingerprint: str
    store: StageStore

    @property
    def name(self) -> str:
        return self.stage.name


class Pipeline:
    """All stages from download to `upto`, with parameters from `recipe` and defaults for the rest."""

    def __init__(self, workspace: Workspace, recipe: Mapping[str, Mapping[str, Any]], upto: str = "pack") -> None:
        self.workspace = workspace
        self.links: list[StageNode] = []
        upstream = ""
        before = workspace.recipe().get("detect", {}).get("backend", "auto")
        for kind in STAGES:
            params = kind.Params.from_mapping(recipe.get(kind.name, {}))
            stage = kind(params.pin_backend(before) if isinstance(params, DetectParams) else params)
            upstream = stage.fingerprint(upstream)
            directory = workspace.open_stage(kind.name, upstream, columns=kind.columns, counted=kind.counted_columns())
            self.links.append(StageNode(stage, upstream, directory))
            if kind.name == upto:
                break

    def recipe(self) -> dict[str, dict[str, Any]]:
        """Every parameter of every stage."""
        return {link.name: link.stage.params.as_dict() for link in self.links}

    def node(self, name: str) -> StageNode:
        return next(link for link in self.links if link.name == name)

    @cached_property
    def map_nodes(self) -> list[StageNode]:
        return [link for link in self.links if isinstance(link.stage, MapStage)]

    @cached_property
    def merge_nodes(self) -> list[StageNode]:
        return [link for link in self.links if isinstance(link.stage, MergeStage)]

    def upstream_of(self, node: StageNode) -> StageNode | None:
        needs = node.stage.needs
        return self.node(needs) if needs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingShard:
    """A shard that a stage still has to process, and why."""

    shard: str
    reason: str


class PipelineState:
    """The completed work of a chain: read once from the markers, and updated as shards are committed."""

    def __init__(self, pipeline: Pipeline, plan: Plan) -> None:
        self.pipeline, self.plan = pipeline, plan
        self.shards = {shard.id: shard for shard in plan.shards}
        self._markers = {link.name: link.store.markers() for link in pipeline.links}
        self._retries = {link.name: link.store.retries() for link in pipeline.links}
        self._never_run: dict[str, str] = {}

    def reload(self, node: StageNode, shard: str) -> None:
        """Reload a shard's marker after a commit by another process."""
        marker = node.store.marker(shard)
        if marker is not None:
            self._markers[node.name][shard] = marker
            self._retries[node.name].pop(shard, None)

    def marker(self, node: StageNode, shard: str) -> Marker | None:
        return self._markers[node.name].get(shard)

    def retry_reasons(self, node: StageNode, shard: str) -> list[str]:
        return self._retries[node.name].get(shard, [])

    def upstream_digest(self, node: StageNode, shard: Shard) -> str | None:
        """Return the digest of a shard's input at a map stage or the download; None while the input is incomplete."""
        before = self.pipeline.upstream_of(node)
        if before is None or (isinstance(before.stage, DownloadStage) and not shard.remote):
            return shard.digest
        if self.pending_reason(before, shard):
            return None
        marker = self.marker(before, shard.id)
        return marker.digest if marker else None

    def pending_reason(self, node: StageNode, shard: Shard) -> str:
        """Return why a shard is pending at a stage; empty if it is done."""
        if isinstance(node.stage, DownloadStage) and not shard.remote:
            return ""
        upstream = self.upstream_digest(node, shard)
        marker = self.marker(node, shard.id)
        if marker is None:
            return self._never(node)
        if self.retry_reasons(node, shard.id):
            return "retry requested: " + ", ".join(self.retry_reasons(node, shard.id))
        if upstream is None:
            return f"waiting for {node.stage.needs}"
        if marker.upstream != upstream:
            return "its input changed"
        return ""

    def merge_digest(self, node: StageNode) -> str | None:
        """Return the digest of all inputs of a merge; None while any of them is incomplete."""
        before = self.pipeline.upstream_of(node)
        assert before is not None
        if isinstance(before.stage, MergeStage):
            marker = self.marker(before, MERGE_SHARD)
            return marker.digest if marker and not self.merge_pending_reason(before) else None
        digests = []
        for shard in self.shards.values():
            marker = self.marker(before, shard.id)
            if marker is None or self.pending_reason(before, shard):
                return None
            digests.append(marker.digest)
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def merge_pending_reason(self, node: StageNode) -> str:
        marker = self.marker(node, MERGE_SHARD)
        if marker is None:
            return self._never(node)
        if self.retry_reasons(node, MERGE_SHARD):
            return "retry requested"
        digest = self.merge_digest(node)
        if digest is None:
            return f"waiting for {node.stage.needs}"
        if marker.upstream != digest:
            return "its input changed"
        assert isinstance(node.stage, MergeStage)
        if not node.stage.output_exists(marker.extra, self.merge_context(node)):
            return "its files are missing or changed"
        return ""

    def pending(self, node: StageNode) -> list[PendingShard]:
        if isinstance(node.stage, MergeStage):
            why = self.merge_pending_reason(node)
            return [PendingShard(shard=MERGE_SHARD, reason=why)] if why else []
        found = []
        for shard in self.shards.values():
            why = self.pending_reason(node, shard)
            if why:
                found.append(PendingShard(shard=shard.id, reason=why))
        return found

    def merge_context(self, node: StageNode) -> MergeContext:
        """Return the context of a merge."""
        faces = self.pipeline.map_nodes[-1]
        payloads = {
            shard: faces.store.folder / f"data/{marker.data}"
            for shard, marker in self._markers[faces.name].items()
            if marker.data
        }
        return MergeContext(
            workspace=self.pipeline.workspace.path,
            recipe=self.pipeline.recipe(),
            sources=[dict(generation.source) for generation in self.plan.generations],
            payloads=payloads,
            progress=lambda done: None,
        )

    def _never(self, node: StageNode) -> str:
        if node.name not in self._never_run:
            self._never_run[node.name] = self._why_never(node)
        return self._never_run[node.name]

    def _why_never(self, node: StageNode) -> str:
        """Say that the stage never ran, or which parameters differ from the most similar earlier run."""
        if node.store.read_description() is not None:
            return "never run"
        now, differences = node.stage.params.counted(), []
        for name in self.pipeline.workspace.stage_names():
            if name.startswith(f"{node.name}@") and name != node.store.folder.path.name:
                before = (self.pipeline.workspace.folder.get_json(f"stages/{name}/stage.json") or {}).get("counted", {})
                changed = [key for key in now if key in before and before[key] != now[key]]
                differences.append(", ".join(f"{key} {now[key]}, was {before[key]}" for key in changed))
        if not differences:
            return "never run"
        return ": ".join(filter(None, ["parameters changed", min(differences, key=len)]))
