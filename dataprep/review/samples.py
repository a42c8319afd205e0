"""Finds samples by reason, person or name, with all that the plan and the ledgers know of each."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from dataprep.errors import UsageError, WorkspaceError
from dataprep.pipeline.pipeline import Pipeline, PipelineState
from dataprep.reasons import Reason
from dataprep.stages.base import MERGE_UNIT
from dataprep.text import similar_to
from dataprep.types import Sample
from dataprep.workspace.exclusions import loose_name
from dataprep.workspace.ledger import COMMON_COLUMNS, PAYLOAD_COLUMNS, read_table
from dataprep.workspace.stage_store import Marker
from dataprep.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """A sample of the plan, with its ledger row of every stage that it reached, by stage in build order."""

    sample: Sample
    shard: str
    rows: Mapping[str, Mapping[str, Any]]

    @property
    def stage(self) -> str:
        """The last stage that the sample reached; empty before the first."""
        return list(self.rows)[-1] if self.rows else ""

    @property
    def verdict(self) -> str:
        """ok, dropped or failed; empty before the first stage."""
        return str(self.rows[self.stage]["verdict"]) if self.rows else ""

    @property
    def reason(self) -> str:
        """Why the sample was dropped or failed; empty if it was not."""
        return str(self.rows[self.stage]["reason"] or "") if self.rows else ""

    @property
    def detail(self) -> str:
        return str(self.rows[self.stage]["detail"] or "") if self.rows else ""

    @property
    def location(self) -> str:
        """The URL, or the path with the byte offset of a record."""
        offset = "" if self.sample.offset is None else f" at byte {self.sample.offset}"
        return self.sample.url or f"{self.sample.path}{offset}"

    def flat(self) -> dict[str, Any]:
        """Everything in one dictionary: the plan's columns, and each stage's own as `stage.column`."""
        sample = self.sample
        facts: dict[str, Any] = {
            "key": sample.key,
            "identity": sample.identity,
            "stage": self.stage,
            "verdict": self.verdict,
            "reason": self.reason,
            "detail": self.detail,
            "url": sample.url,
            "path": sample.path,
            "offset": sample.offset,
            "box": list(sample.box) if sample.box else None,
            "box_size": list(sample.box_size) if sample.box_size else None,
            "landmarks": [value for point in sample.landmarks for value in point] if sample.landmarks else None,
            "shard": self.shard,
        }
        for stage, row in self.rows.items():
            facts |= {f"{stage}.{name}": value for name, value in row.items() if name not in COMMON_COLUMNS}
        return facts


def find_samples(
    workspace: str, *, reasons: Collection[str] = (), person: str = "", lost: bool = False, like: str = ""
) -> Iterator[SampleRecord]:
    """Yield the samples, in plan order, that were lost for one of `reasons`, or for any with `lost`; of one `person`, in any
    spelling; or whose key, URL, path, file name or list line is `like`. Conditions add up.

    Raises UsageError for an unknown reason, and WorkspaceError for a person or sample that is not there.
    """
    wanted = {_known_reason(code) for code in reasons}
    opened = Workspace(workspace)
    pipeline = Pipeline(opened, opened.recipe())
    state = PipelineState(pipeline, opened.plan())
    whom = _person(state, person) if person else frozenset[str]()
    merged = _merged_rows(pipeline, reasons=wanted, people=whom, lost=lost)
    late = {key for rows in merged.values() for key, row in rows.items() if row["reason"]}
    found = False
    for shard in state.plan.shards:
        nodes = {node.name: (node.store, state.marker(node, shard.id)) for node in pipeline.nodes}
        here = {code for _, marker in nodes.values() if marker for code in _lost(marker)}
        untouched = (wanted or lost) and not (here if lost else here & wanted)
        if untouched and not late:
            continue
        samples = [
            sample
            for sample in state.plan.samples(shard)
            if (not whom or sample.identity in whom)
            and (not like or _is_like(sample, like))
            and (not untouched or sample.key in late)
        ]
        if not samples:
            continue
        ledgers = {
            name: {row["key"]: row for row in store.rows(marker)} for name, (store, marker) in nodes.items() if marker
        }
        for sample in samples:
            rows = {name: ledger[sample.key] for name, ledger in ledgers.items() if sample.key in ledger}
            rows |= {name: ledger[sample.key] for name, ledger in merged.items() if sample.key in ledger}
            record = SampleRecord(sample=sample, shard=shard.id, rows=rows)
            if (wanted and record.reason not in wanted) or (lost and not record.reason):
                continue
            found = True
            yield record
    if like and not found:
        raise WorkspaceError(
            f"no sample of {workspace} is called {like!r}",
            hint="give a key (PERSON/PHOTO), a URL, a path, a file name, or `line N` of a list",
        )


def count_lost(workspace: str) -> dict[str, int]:
    """The number of lost samples by reason."""
    opened = Workspace(workspace)
    counts: dict[str, int] = {}
    for node in Pipeline(opened, opened.recipe()).nodes:
        for marker in node.store.markers().values():
            for code, count in _lost(marker).items():
                counts[code] = counts.get(code, 0) + count
    return counts


def write_csv(stream: IO[str], workspace: str, records: Iterable[SampleRecord]) -> None:
    """Write the records as CSV, one column per fact; lists are JSON."""
    opened = Workspace(workspace)
    columns = list(SampleRecord(sample=Sample(key="", identity=""), shard="", rows={}).flat())
    for node in Pipeline(opened, opened.recipe()).nodes:
        columns += [f"{node.name}.{name}" for name in (*node.stage.columns, *PAYLOAD_COLUMNS)]
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
        facts = {name: json.dumps(v) if isinstance(v, list) else v for name, v in record.flat().items()}
        writer.writerow(facts)


def _known_reason(code: str) -> str:
    try:
        return Reason.from_code(code).code
    except ValueError as error:
        raise UsageError(str(error), hint=similar_to(code, (reason.code for reason in Reason))) from None


def _person(state: PipelineState, person: str) -> frozenset[str]:
    names = state.plan.photos_per_identity()
    found = frozenset(name for name in names if loose_name(name) == loose_name(person))
    if not found:
        raise WorkspaceError(f"nobody is called {person!r}", hint=similar_to(person, names))
    return found


def _lost(marker: Marker) -> dict[str, int]:
    return {**marker.account["dropped"], **marker.account["failed"]}


def _merged_rows(
    pipeline: Pipeline, *, reasons: Collection[str], people: Collection[str], lost: bool
) -> dict[str, dict[str, dict[str, Any]]]:
    """The rows of the merge stages that a query may need, by stage and key."""
    import pyarrow as pa
    import pyarrow.compute as pc

    merged: dict[str, dict[str, dict[str, Any]]] = {}
    for node in pipeline.merge_nodes:
        marker = node.store.marker(MERGE_UNIT)
        if marker is None:
            continue
        table = read_table(node.store.rows_path(marker))
        if reasons:
            table = table.filter(pc.is_in(table["reason"], pa.array(sorted(reasons))))
        if lost:
            table = table.filter(pc.not_equal(table["verdict"], "ok"))
        if people:
            table = table.filter(pc.is_in(table["identity"], pa.array(sorted(people))))
        merged[node.name] = {row["key"]: row for row in table.to_pylist()}
    return merged


def _is_like(sample: Sample, text: str) -> bool:
    if text in (sample.key, sample.url, sample.path):
        return True
    if sample.path and (sample.path.endswith(f"/{text}") or sample.path == text):
        return True
    if sample.key.casefold() == text.casefold() or sample.key.endswith(f"/{text}") or sample.url.endswith(f"/{text}"):
        return True
    return bool(sample.detail) and f" {text}:" in f" {sample.detail}"
