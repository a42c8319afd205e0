"""The chain of stages with their parameters over a workspace, and which of their shards are pending, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dataprep.stages.base import MapStage, MergeContext, MergeStage, Stage
from dataprep.stages.detect import DetectParams
from dataprep.stages.download import Download
from dataprep.stages.order import STAGES
from dataprep.workspace.plan import Plan, Shard
from dataprep.workspace.stage_store import Marker, StageDir
from dataprep.workspace.workspace import Workspace

WHOLE = "all"  # the shard id of a merge


@dataclass(frozen=True, slots=True)
class Link:
    """A stage in the chain: its fingerprint, which covers all upstream stages, and its directory."""

    stage: Stage[Any]
    fingerprint: str
    directory: StageDir

    @property
    def name(self) -> str:
        return self.stage.name


class Chain:
    """All stages from download to `upto`, with parameters from `recipe` and defaults for the rest."""

    def __init__(self, workspace: Workspace, recipe: Mapping[str, Mapping[str, Any]], upto: str = "pack") -> None:
        self.workspace = workspace
        self.links: list[Link] = []
        upstream = ""
        before = workspace.recipe().get("detect", {}).get("backend", "auto")
        for kind in STAGES:
            params = kind.Params.from_mapping(recipe.get(kind.name, {}))
            stage = kind(params.pinned(before) if isinstance(params, DetectParams) else params)
            upstream = stage.fingerprint(upstream)
            directory = workspace.stage_dir(kind.name, upstream, columns=kind.columns, counted=kind.counted_columns())
            self.links.append(Link(stage, upstream, directory))
            if kind.name == upto:
                break

    def recipe(self) -> dict[str, dict[str, Any]]:
        """Every parameter of every stage."""
        return {link.name: link.stage.params.as_dict() for link in self.links}

    def link(self, name: str) -> Link:
        return next(link for link in self.links if link.name == name)

    @cached_property
    def maps(self) -> list[Link]:
        return [link for link in self.links if isinstance(link.stage, MapStage)]

    @cached_property
    def merges(self) -> list[Link]:
        return [link for link in self.links if isinstance(link.stage, MergeStage)]

    def upstream_of(self, link: Link) -> Link | None:
        needs = link.stage.needs
        return self.link(needs) if needs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A shard that a stage still has to process, and why."""

    shard: str
    why: str


class State:
    """The completed work of a chain: read once from the markers, and updated as shards are committed."""

    def __init__(self, chain: Chain, plan: Plan) -> None:
        self.chain, self.plan = chain, plan
        self.shards = {shard.id: shard for shard in plan.shards}
        self._markers = {link.name: link.directory.markers() for link in chain.links}
        self._retries = {link.name: link.directory.retries() for link in chain.links}
        self._never_run: dict[str, str] = {}

    def reload(self, link: Link, shard: str) -> None:
        """Reload a shard's marker after a commit by another process."""
        marker = link.directory.marker(shard)
        if marker is not None:
            self._markers[link.name][shard] = marker
            self._retries[link.name].pop(shard, None)

    def marker(self, link: Link, shard: str) -> Marker | None:
        return self._markers[link.name].get(shard)

    def retry_reasons(self, link: Link, shard: str) -> list[str]:
        return self._retries[link.name].get(shard, [])

    def upstream_digest(self, link: Link, shard: Shard) -> str | None:
        """Return the digest of a shard's input at a map stage or the download; None while the input is incomplete."""
        before = self.chain.upstream_of(link)
        if before is None or (isinstance(before.stage, Download) and not shard.remote):
            return shard.digest
        if self.why(before, shard):
            return None
        marker = self.marker(before, shard.id)
        return marker.digest if marker else None

    def why(self, link: Link, shard: Shard) -> str:
        """Return why a shard is pending at a stage; empty if it is done."""
        if isinstance(link.stage, Download) and not shard.remote:
            return ""
        upstream = self.upstream_digest(link, shard)
        marker = self.marker(link, shard.id)
        if marker is None:
            return self._never(link)
        if self.retry_reasons(link, shard.id):
            return "retry requested: " + ", ".join(self.retry_reasons(link, shard.id))
        if upstream is None:
            return f"waiting for {link.stage.needs}"
        if marker.upstream != upstream:
            return "its input changed"
        return ""

    def merge_digest(self, link: Link) -> str | None:
        """Return the digest of all inputs of a merge; None while any of them is incomplete."""
        before = self.chain.upstream_of(link)
        assert before is not None
        if isinstance(before.stage, MergeStage):
            marker = self.marker(before, WHOLE)
            return marker.digest if marker and not self.why_merge(before) else None
        digests = []
        for shard in self.shards.values():
            marker = self.marker(before, shard.id)
            if marker is None or self.why(before, shard):
                return None
            digests.append(marker.digest)
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def why_merge(self, link: Link) -> str:
        marker = self.marker(link, WHOLE)
        if marker is None:
            return self._never(link)
        if self.retry_reasons(link, WHOLE):
            return "retry requested"
        digest = self.merge_digest(link)
        if digest is None:
            return f"waiting for {link.stage.needs}"
        if marker.upstream != digest:
            return "its input changed"
        assert isinstance(link.stage, MergeStage)
        if not link.stage.still_there(marker.extra, self.context(link)):
            return "its files are missing or changed"
        return ""

    def pending(self, link: Link) -> list[Pending]:
        if isinstance(link.stage, MergeStage):
            why = self.why_merge(link)
            return [Pending(shard=WHOLE, why=why)] if why else []
        found = []
        for shard in self.shards.values():
            why = self.why(link, shard)
            if why:
                found.append(Pending(shard=shard.id, why=why))
        return found

    def context(self, link: Link) -> MergeContext:
        """Return the context of a merge."""
        faces = self.chain.maps[-1]
        payloads = {
            shard: faces.directory.folder / f"data/{marker.data}"
            for shard, marker in self._markers[faces.name].items()
            if marker.data
        }
        return MergeContext(
            workspace=self.chain.workspace.path,
            recipe=self.chain.recipe(),
            sources=[dict(generation.source) for generation in self.plan.generations],
            payloads=payloads,
            tick=lambda done: None,
        )

    def _never(self, link: Link) -> str:
        if link.name not in self._never_run:
            self._never_run[link.name] = self._why_never(link)
        return self._never_run[link.name]

    def _why_never(self, link: Link) -> str:
        """Say that the stage never ran, or which parameters differ from the most similar earlier run."""
        if link.directory.described() is not None:
            return "never run"
        now, differences = link.stage.params.counted(), []
        for name in self.chain.workspace.stage_names():
            if name.startswith(f"{link.name}@") and name != link.directory.folder.path.name:
                before = (self.chain.workspace.folder.get_json(f"stages/{name}/stage.json") or {}).get("counted", {})
                changed = [key for key in now if key in before and before[key] != now[key]]
                differences.append(", ".join(f"{key} {now[key]}, was {before[key]}" for key in changed))
        if not differences:
            return "never run"
        return ": ".join(filter(None, ["parameters changed", min(differences, key=len)]))
