"""Runs a pipeline: executes all pending work in order, in parallel where possible, and commits it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataprep.download.settings import DownloadCallbacks
from dataprep.download.writer import DownloadShard
from dataprep.errors import DamagedFileError, DataprepError, Interrupted, WorkspaceError
from dataprep.interrupts import stop_requests
from dataprep.pipeline.executors import Executor, make_executor
from dataprep.pipeline.integrity_check import mark_damaged
from dataprep.pipeline.pipeline import PendingShard, Pipeline, PipelineState, StageNode
from dataprep.pipeline.progress import LastingDisplay, ProgressDisplay, RunLog, StageProgress, make_display
from dataprep.pipeline.shard_scheduler import ShardScheduler
from dataprep.pipeline.worker import Task
from dataprep.reasons import Reason
from dataprep.stages.base import MERGE_UNIT, MergeInput, MergeStage, Prospect, Stage
from dataprep.stages.download import DownloadStage
from dataprep.storage import lock_directory
from dataprep.types import Row
from dataprep.workspace.journal import Journal
from dataprep.workspace.ledger import sum_counts

_log = logging.getLogger(__name__)
_PATIENCE = 1.0  # seconds for the download to end when everything is to stop at once
_EVENT_EVERY = 5.0  # seconds between progress events in the log


def plan_work(pipeline: Pipeline) -> list[tuple[StageNode[Stage[Any]], list[PendingShard]]]:
    """Return the pending work by stage. Raises WorkspaceError if nothing is planned yet."""
    plan = pipeline.workspace.plan()
    if not plan.generations:
        raise WorkspaceError(
            f"{pipeline.workspace.path} has no samples yet",
            hint="add some with `dataprep download vggface`, `dataprep download urls TABLE` or "
            "`dataprep import folder PHOTOS`",
        )
    state = PipelineState(pipeline, plan)
    return [(node, state.pending(node)) for node in pipeline.nodes]


def run_pipeline(
    pipeline: Pipeline, *, jobs: int, accept_versions: bool = False, display: ProgressDisplay | None = None
) -> RunReport:
    """Run all pending work of the pipeline. Interrupted is raised after finished work has been committed.

    Where a file that an earlier stage committed is damaged or gone, that stage's shard is done again first, once.
    """
    redone = set[Path]()
    while True:
        error: DamagedFileError | None = None
        try:
            report = _run_once(pipeline, jobs=jobs, accept_versions=accept_versions, display=display)
            damaged = report.damaged
        except DamagedFileError as raised:
            error, damaged = raised, [raised.path]
        new = [path for path in dict.fromkeys(damaged) if path not in redone and mark_damaged(pipeline, path)]
        if not new:
            if error is not None:
                raise error
            return report
        for path in new:
            _log.warning("%s is damaged or gone; its shard is done again", path)
        redone.update(new)


def _run_once(pipeline: Pipeline, *, jobs: int, accept_versions: bool, display: ProgressDisplay | None) -> RunReport:
    work = [(node, pending) for node, pending in plan_work(pipeline) if pending]
    if not work:
        pipeline.workspace.write_recipe(pipeline.recipe())
        return build_report(pipeline, {}, {})
    photos = functools.cache(pipeline.workspace.plan().photos_per_identity)
    prospect = Prospect(workspace=pipeline.workspace.path, recipe=pipeline.recipe(), photos=photos)
    for node, _ in work:
        node.stage.check(prospect)
    with contextlib.ExitStack() as stack:
        for node, _ in work:
            stack.enter_context(lock_directory(node.store.folder.path, node.name))
            if node is pipeline.download:  # only one run may contact hosts, whatever its parameters
                stack.enter_context(lock_directory(pipeline.workspace.path / "stages", "the download"))
            check_versions(node, accept_versions)
        pipeline.workspace.write_recipe(pipeline.recipe())
        log = RunLog(pipeline.workspace.path / "runs")
        stack.callback(log.close)
        for node, pending in work:
            log.write_event("pending", stage=node.name, shards=len(pending), why=pending[0].reason)
        shown = display or make_display()
        try:
            return _PipelineRun(pipeline, [node for node, _ in work], make_executor(jobs), log, shown).go()
        finally:  # not earlier, since stages read each other's shards during the run
            for node, _ in work:
                node.store.remove_unreferenced()


class _PipelineRun:
    """The state of one run, and the observer of its shards. Everything but the download runs in the thread of `go`."""

    def __init__(
        self,
        pipeline: Pipeline,
        active: Sequence[StageNode[Stage[Any]]],
        executor: Executor,
        log: RunLog,
        display: ProgressDisplay,
    ) -> None:
        self._pipeline, self._log, self._display = pipeline, log, LastingDisplay(display)
        self._executor = executor
        self._names = [node.name for node in active]
        self._state = PipelineState(pipeline, pipeline.workspace.plan())
        self._stop = threading.Event()
        self._next_event = time.monotonic() + _EVENT_EVERY
        self._downloaded: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._download_thread: threading.Thread | None = None
        self._download_error: BaseException | None = None
        self._committed: dict[str, int] = {}
        self._errors: dict[str, str] = {}
        self._damaged: list[Path] = []
        self._finished: Counter[str] = Counter()  # samples in shards committed by this run, by map stage
        self._progress = {node.name: self._stage_progress(node) for node in active}
        self._scheduler = ShardScheduler(
            pipeline,
            self._state,
            [node for node in pipeline.map_nodes if node.name in self._names],
            executor=executor,
            board_path=log.board_path,
            observer=self,
            stopped=self._stop.is_set,
        )

    def go(self) -> RunReport:
        patience: float | None = None  # of waiting for the download's thread
        with stop_requests(self._request_stop):
            try:
                if self._pipeline.download.name in self._names:
                    self._start_download(self._pipeline.download)
                self._scheduler.run()
                self._join_download()
                self._check_interrupt()
                if not self._errors:
                    self._run_merges()
            except KeyboardInterrupt:
                self._log.write_event("stopped at once")
                patience = _PATIENCE
                self._executor.stop()
                raise Interrupted(
                    "stopped; committed work is kept", hint="run the same command again to continue"
                ) from None
            finally:
                self._stop.set()
                if self._download_thread:
                    self._download_thread.join(patience)
                self._display.close(self._progress)
        report = replace(build_report(self._pipeline, self._committed, self._errors), damaged=self._damaged)
        self._log.write_event("end", committed=self._committed, errors=len(self._errors))
        return report

    # what the scheduler reports -------------------------------------------------------------------------------------

    def poll(self) -> bool:
        alive = self._download_thread is not None and self._download_thread.is_alive()
        self._drain_downloaded()
        self._show()
        return alive

    def committed(self, stage: str, shard: str) -> None:
        self._record_commit(self._pipeline.node(stage), shard)
        self._finished[stage] += self._state.shards[shard].size
        marker = self._state.marker(self._pipeline.node(stage), shard)
        assert marker is not None
        verdicts = self._progress[stage].verdicts
        verdicts["ok"] += marker.account["ok"]
        verdicts.update(marker.account["dropped"])
        verdicts.update(marker.account["failed"])

    def failed(self, shard: str, error: str, damaged: Path | None = None) -> None:
        self._errors[shard] = error
        if damaged is not None:
            self._damaged.append(damaged)
        self._log.write_event("shard failed", shard=shard, error=error)
        self._display.note(f"shard {shard} failed: {error.strip().splitlines()[-1]}")

    def worker_died(self, task: Task, *, isolated: bool, sample: str | None) -> None:
        self._log.write_event("worker died", shard=task.shard, stages=task.stages, alone=isolated, sample=sample)

    def skipped(self, sample: str, deaths: int) -> None:
        self._display.note(f"{sample}: killed a worker process {deaths} times, skipped as worker_died")

    # download -------------------------------------------------------------------------------------------------------

    def _start_download(self, node: StageNode[DownloadStage]) -> None:
        gauge = self._progress[node.name]

        def sample(row: Row) -> None:
            gauge.advance(1)
            gauge.verdicts[row.reason.code if row.reason else "ok"] += 1
            gauge.bytes += row.values.get("bytes") or 0

        def lost(count: int) -> None:
            gauge.verdicts["ok"] -= count
            gauge.verdicts[Reason.PLACEHOLDER.code] += count

        def main() -> None:
            try:
                hooks = DownloadCallbacks(
                    on_sample=sample, on_shard=self._downloaded.put, on_reclassified=lost, on_message=self._display.note
                )
                asyncio.run(node.stage.process(self._open_shards(node, gauge), hooks, self._stop))
            except BaseException as error:
                self._download_error = error

        self._download_thread = threading.Thread(target=main, name="dataprep-download", daemon=True)
        self._download_thread.start()

    def _open_shards(self, node: StageNode[DownloadStage], gauge: StageProgress) -> Iterator[DownloadShard]:
        for pending in self._state.pending(node):
            shard = self._state.shards[pending.shard]
            journal = Journal(node.store, shard.id, redo=self._state.retry_reasons(node, shard.id))
            gauge.done += len(journal.rows)
            yield DownloadShard(
                id=shard.id,
                upstream=shard.digest,
                samples=self._state.plan.samples(shard),
                journal=journal,
                remaining=0,
                started=time.monotonic(),
            )

    def _drain_downloaded(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                shard = self._downloaded.get_nowait()
                self._record_commit(self._pipeline.download, shard)
                self._scheduler.add(shard)

    def _join_download(self) -> None:
        if self._download_thread:
            while self._download_thread.is_alive():
                self._download_thread.join(0.1)
                self._refresh()
            self._drain_downloaded()
        error = self._download_error
        if isinstance(error, (DataprepError, OSError)):
            raise error
        if error is not None:
            raise DataprepError(f"the download ended unexpectedly: {error!r}") from error

    # merges ---------------------------------------------------------------------------------------------------------

    def _run_merges(self) -> None:
        for node in self._pipeline.merge_nodes:
            if node.name not in self._names or not self._state.pending_reason(node, MERGE_UNIT):
                continue
            digest = self._state.input_digest(node, MERGE_UNIT)
            if digest is None:
                raise WorkspaceError(f"{node.name} cannot run: {self._state.pending_reason(node, MERGE_UNIT)}")
            began = time.monotonic()
            gauge = self._progress[node.name]
            parts = self._inputs(node)
            gauge.total = self._count_input(node)
            gauge.advance(0)

            def tick(done: int, gauge: StageProgress = gauge) -> None:
                gauge.advance(max(0, min(done, gauge.total) - gauge.done))
                self._show()
                self._check_interrupt()

            merged = node.stage.merge(parts, replace(self._state.merge_context(), progress=tick))
            node.store.commit_table(
                MERGE_UNIT, merged.table, upstream=digest, seconds=time.monotonic() - began, extra=merged.extra
            )
            gauge.done = gauge.total
            self._record_commit(node, MERGE_UNIT)

    def _inputs(self, node: StageNode[MergeStage[Any]]) -> list[MergeInput]:
        names = [earlier.name for earlier in self._pipeline.nodes]
        earlier = self._pipeline.nodes[: names.index(node.name)]
        parts = []
        for unit in self._state.units(earlier[-1]):
            markers = {one.name: (one, self._state.marker(one, unit)) for one in earlier}
            ledgers = {name: one.store.rows_path(marker) for name, (one, marker) in markers.items() if marker}
            parts.append(MergeInput(shard=unit, ledgers=ledgers))
        return parts

    def _count_input(self, node: StageNode[MergeStage[Any]]) -> int:
        """Return the number of input rows of a merge."""
        before = self._pipeline.upstream_of(node)
        assert before is not None
        markers = (self._state.marker(before, unit) for unit in self._state.units(before))
        return sum(marker.account["ok"] for marker in markers if marker)

    # bookkeeping ----------------------------------------------------------------------------------------------------

    def _stage_progress(self, node: StageNode[Stage[Any]]) -> StageProgress:
        """The progress of a stage over the samples of its pending shards; a merge knows its total when it begins."""
        shards = (self._state.shards.get(pending.shard) for pending in self._state.pending(node))
        return StageProgress(stage=node.name, total=sum(shard.size for shard in shards if shard))

    def _record_commit(self, node: StageNode[Stage[Any]], unit: str) -> None:
        self._state.reload(node, unit)
        self._committed[node.name] = self._committed.get(node.name, 0) + 1
        marker = self._state.marker(node, unit)
        assert marker is not None
        self._log.write_event("commit", stage=node.name, shard=unit, seconds=marker.seconds, **marker.account)

    def _show(self) -> None:
        """Update the map stages' progress from the board, and show all progress."""
        for node in self._scheduler.nodes:
            progress = self._progress[node.name]
            done = self._finished[node.name] + self._scheduler.in_progress(node.name)
            progress.advance(max(0, min(done, progress.total) - progress.done))
        self._refresh()

    def _refresh(self) -> None:
        """Show all progress, and log it from time to time."""
        self._display.refresh(self._progress)
        if time.monotonic() >= self._next_event:
            self._next_event = time.monotonic() + _EVENT_EVERY
            for progress in self._progress.values():
                if progress.processed and progress.done < progress.total:
                    self._log.write_event(
                        "progress", stage=progress.stage, done=progress.done, total=progress.total,
                        verdicts=dict(progress.verdicts),
                    )  # fmt: skip

    def _check_interrupt(self) -> None:
        if self._stop.is_set():
            self._log.write_event("stopped", committed=self._committed)
            raise Interrupted("stopped; finished work is committed", hint="run the same command again to continue")

    def _request_stop(self) -> None:
        """On the first request, finish the running shards; on the second, stop at once."""
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._stop.set()
        self._display.note("stopping after the running shards (press Ctrl-C again to stop at once)")


@dataclass(slots=True, kw_only=True)
class RunReport:
    """Shards committed by stage, errors by shard, the counts of every stage, and the files that were damaged."""

    committed: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)
    damaged: list[Path] = field(default_factory=list)


def build_report(pipeline: Pipeline, committed: dict[str, int], errors: dict[str, str]) -> RunReport:
    """Return the report of a run over `pipeline`, with the current counts of all stages."""
    report = RunReport(committed=committed, errors=errors)
    for node in pipeline.nodes:
        markers = node.store.markers()
        if markers:
            report.accounts[node.name] = sum_counts(marker.account for marker in markers.values())
        if MERGE_UNIT in markers:
            report.extras[node.name] = dict(markers[MERGE_UNIT].extra)
    return report


def check_versions(node: StageNode[Stage[Any]], accept: bool) -> None:
    """Write stage.json when a stage starts; later, raise WorkspaceError if relevant library versions have changed."""
    versions = node.stage.versions()
    described = node.store.read_description()
    if described is not None and described["versions"] != versions and node.store.markers() and not accept:
        changed = ", ".join(
            f"{name} {described['versions'].get(name, 'none')} -> {versions.get(name, 'none')}"
            for name in sorted({*versions, *described["versions"]})
            if versions.get(name) != described["versions"].get(name)
        )
        raise WorkspaceError(
            f"{node.name} was started with other library versions ({changed}), which may change its output",
            hint="install those versions, or continue with --accept-versions",
        )
    if described is None or described["versions"] != versions:
        node.store.write_description(
            {
                "stage": node.name,
                "version": node.stage.version,
                "params": node.stage.params.as_dict(),
                "counted": node.stage.params.counted(),
                "resources": node.stage.resources(),
                "fingerprint": node.fingerprint,
                "versions": versions,
            }
        )
