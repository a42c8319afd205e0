"""The pipeline of stages with their parameters over a workspace, and which of their shards are pending, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dataprep.stages.base import MergeContext, Stage
from dataprep.stages.download import DownloadStage
from dataprep.stages.order import MAP_STAGES, MERGE_STAGES
from dataprep.workspace.plan import Plan
from dataprep.workspace.stage_store import Marker, StageStore
from dataprep.workspace.workspace import Workspace

S = TypeVar("S", bound=Stage[Any], covariant=True)


@dataclass(frozen=True, slots=True)
class StageNode(Generic[S]):
    """A stage in the pipeline: its fingerprint, which covers all upstream stages, and its directory."""

    stage: S
    fingerprint: str
    store: StageStore

    @property
    def name(self) -> str:
        return self.stage.name


class Pipeline:
    """All stages from the download to `until`, with parameters from `recipe` and defaults for the rest."""

    def __init__(self, workspace: Workspace, recipe: Mapping[str, Mapping[str, Any]], until: str = "pack") -> None:
        self.workspace = workspace
        self.nodes: list[StageNode[Stage[Any]]] = []
        self._recipe, self._until = recipe, until
        self.download = self._node(DownloadStage)
        self.map_nodes = [self._node(kind) for kind in MAP_STAGES if not self._is_complete]
        self.merge_nodes = [self._node(kind) for kind in MERGE_STAGES if not self._is_complete]

    def recipe(self) -> dict[str, dict[str, Any]]:
        """Every parameter of every stage."""
        return {node.name: node.stage.params.as_dict() for node in self.nodes}

    def node(self, name: str) -> StageNode[Stage[Any]]:
        return next(node for node in self.nodes if node.name == name)

    def upstream_of(self, node: StageNode[Stage[Any]]) -> StageNode[Stage[Any]] | None:
        return self.node(node.stage.needs) if node.stage.needs else None

    @property
    def _is_complete(self) -> bool:
        return self.nodes[-1].name == self._until

    def _node(self, kind: type[S]) -> StageNode[S]:
        stage = kind.in_workspace(kind.Params.from_mapping(self._recipe.get(kind.name, {})), self.workspace)
        fingerprint = stage.fingerprint(self.nodes[-1].fingerprint if self.nodes else "")
        store = self.workspace.open_stage(kind.name, fingerprint, columns=kind.columns, counted=kind.counted_columns())
        node = StageNode(stage, fingerprint, store)
        self.nodes.append(node)
        return node


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingShard:
    """A shard that a stage still has to process, and why."""

    shard: str
    reason: str


class PipelineState:
    """The completed work of a pipeline: read once from the markers, and updated as shards are committed."""

    def __init__(self, pipeline: Pipeline, plan: Plan) -> None:
        self.pipeline, self.plan = pipeline, plan
        self.shards = {shard.id: shard for shard in plan.shards}
        self._markers = {node.name: node.store.markers() for node in pipeline.nodes}
        self._retries = {node.name: node.store.retries() for node in pipeline.nodes}
        self._never_run: dict[str, str] = {}

    def reload(self, node: StageNode[Stage[Any]], shard: str) -> None:
        """Reload a shard's marker after a commit by another process."""
        marker = node.store.marker(shard)
        if marker is not None:
            self._markers[node.name][shard] = marker
            self._retries[node.name].pop(shard, None)

    def marker(self, node: StageNode[Stage[Any]], shard: str) -> Marker | None:
        return self._markers[node.name].get(shard)

    def retry_reasons(self, node: StageNode[Stage[Any]], shard: str) -> list[str]:
        return self._retries[node.name].get(shard, [])

    def units(self, node: StageNode[Stage[Any]]) -> list[str]:
        """What a stage commits one by one: shards of the plan, or the one unit of a merge."""
        return node.stage.units(self.shards)

    def input_digest(self, node: StageNode[Stage[Any]], unit: str) -> str | None:
        """Return the digest of a unit's input; None while the input is incomplete."""
        before = self.pipeline.upstream_of(node)
        available = self.units(before) if before else []
        if before is None or (unit in self.shards and unit not in available):
            return self.shards[unit].digest
        digests = []
        for needed in [unit] if unit in self.shards else available:
            marker = self.marker(before, needed)
            if marker is None or self.pending_reason(before, needed):
                return None
            digests.append(marker.digest)
        return digests[0] if unit in available else hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def pending_reason(self, node: StageNode[Stage[Any]], unit: str) -> str:
        """Return why a unit is pending at a stage; empty if it is done."""
        marker = self.marker(node, unit)
        if marker is None:
            return self._never(node)
        if self.retry_reasons(node, unit):
            return "retry requested: " + ", ".join(self.retry_reasons(node, unit))
        upstream = self.input_digest(node, unit)
        if upstream is None:
            return f"waiting for {node.stage.needs}"
        if marker.upstream != upstream:
            return "its input changed"
        if not node.stage.output_exists(marker.extra, self.pipeline.workspace.path):
            return "its files are missing or changed"
        return ""

    def pending(self, node: StageNode[Stage[Any]]) -> list[PendingShard]:
        found = []
        for unit in self.units(node):
            reason = self.pending_reason(node, unit)
            if reason:
                found.append(PendingShard(shard=unit, reason=reason))
        return found

    def merge_context(self) -> MergeContext:
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

    def _never(self, node: StageNode[Stage[Any]]) -> str:
        if node.name not in self._never_run:
            self._never_run[node.name] = self._why_never(node)
        return self._never_run[node.name]

    def _why_never(self, node: StageNode[Stage[Any]]) -> str:
        """Say that the stage never ran, or which parameters differ from the most similar earlier run."""
        if node.store.read_description() is not None:
            return "never run"
        now, resources, differences = node.stage.params.counted(), node.stage.resources(), []
        for name in self.pipeline.workspace.stage_names():
            if name.startswith(f"{node.name}@") and name != node.store.folder.path.name:
                store = self.pipeline.workspace.open_stage(*name.split("@"), columns={}, counted=())
                described = store.read_description() or {}
                before, others = described.get("counted", {}), described.get("resources", {})
                changed = [
                    f"{key} {now[key]}, was {before[key]}" for key in now if before.get(key, now[key]) != now[key]
                ]
                changed += [key for key in {**resources, **others} if others.get(key) != resources.get(key)]
                differences.append(", ".join(changed))
        if not differences:
            return "never run"
        return ": ".join(filter(None, ["parameters changed", min(differences, key=len)]))
