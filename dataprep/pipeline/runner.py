"""Runs a chain: executes all pending work in order, in parallel where possible, and commits it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dataprep.download.config import DownloadCallbacks
from dataprep.download.writer import DownloadShard
from dataprep.errors import DataprepError, Interrupted, WorkspaceError
from dataprep.pipeline.executors import Executor, make_executor, stop_workers
from dataprep.pipeline.pipeline import MERGE_SHARD, PendingShard, Pipeline, PipelineState, StageNode
from dataprep.pipeline.progress import ProgressDisplay, RunLog, StageProgress, make_display
from dataprep.pipeline.worker import ProgressBoard, Task, TaskResult, key_at_position
from dataprep.reasons import Reason
from dataprep.stages.base import MergeInput, MergeStage
from dataprep.stages.download import DownloadStage
from dataprep.storage import lock_directory
from dataprep.types import Row
from dataprep.workspace.journal import Journal
from dataprep.workspace.ledger import sum_counts

_DEATHS = 3  # a photo that kills this many workers is skipped


def plan_work(pipeline: Pipeline) -> list[tuple[StageNode, list[PendingShard]]]:
    """Return the pending work by stage. Raises WorkspaceError if nothing is planned yet."""
    plan = pipeline.workspace.plan()
    if not plan.generations:
        raise WorkspaceError(
            f"{pipeline.workspace.path} has no samples yet",
            hint="add some with `dataprep download vggface`, `dataprep download urls TABLE` or "
            "`dataprep import folder PHOTOS`",
        )
    state = PipelineState(pipeline, plan)
    return [(link, state.pending(link)) for link in pipeline.links]


def run_pipeline(
    pipeline: Pipeline, *, jobs: int, accept_versions: bool = False, display: ProgressDisplay | None = None
) -> RunReport:
    """Run all pending work of the chain. Interrupted is raised after finished work has been committed."""
    work = [(link, pending) for link, pending in plan_work(pipeline) if pending]
    if not work:
        pipeline.workspace.write_recipe(pipeline.recipe())
        return build_report(pipeline, {}, {})
    photos = functools.cache(pipeline.workspace.plan().photos_per_identity)
    for link, _ in work:
        link.stage.check(photos)
    with contextlib.ExitStack() as stack:
        for link, _ in work:
            stack.enter_context(lock_directory(link.store.folder.path, link.name))
            if isinstance(link.stage, DownloadStage):  # only one run may contact hosts, whatever its parameters
                stack.enter_context(lock_directory(pipeline.workspace.path / "stages", "the download"))
            check_versions(link, accept_versions)
        pipeline.workspace.write_recipe(pipeline.recipe())
        log = RunLog(pipeline.workspace.path / "runs")
        stack.callback(log.close)
        for link, pending in work:
            log.write_event("pending", stage=link.name, shards=len(pending), why=pending[0].reason)
        shown = display or make_display()
        try:
            return _PipelineRun(pipeline, [link for link, _ in work], make_executor(jobs), log, shown).go()
        finally:  # not earlier, since stages read each other's shards during the run
            for link, _ in work:
                link.store.remove_unreferenced()


class _PipelineRun:
    """The state of one run. Everything except the download runs in the thread that calls `go`."""

    def __init__(
        self, pipeline: Pipeline, active: Sequence[StageNode], executor: Executor, log: RunLog, display: ProgressDisplay
    ) -> None:
        self._chain, self._active, self._executor, self._log, self._display = pipeline, active, executor, log, display
        self._state = PipelineState(pipeline, pipeline.workspace.plan())
        self._maps = [link for link in pipeline.map_nodes if link in active]
        self._download = next((link for link in active if isinstance(link.stage, DownloadStage)), None)
        self._gauges = self._make_gauges()
        self._stop = threading.Event()
        self._downloaded: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._download_thread: threading.Thread | None = None
        self._download_error: BaseException | None = None
        self._committed: dict[str, int] = {}
        self._errors: dict[str, str] = {}
        self._suspects: list[Task] = []
        self._out: dict[str, Task] = {}  # by shard
        self._ready: deque[str] = deque()
        self._again: set[str] = set()  # shards to check again when their running task returns
        self._finished: Counter[str] = Counter()  # samples in shards committed by this run, by stage
        self._board = ProgressBoard(log.board_path, max(1, len(self._state.shards)))
        self._slots = {shard: slot for slot, shard in enumerate(self._state.shards)}

    def go(self) -> RunReport:
        with self._signals():
            try:
                self._start_download()
                self._run_maps()
                self._join_download()
                self._check_interrupt()
                if not self._errors:
                    self._run_merges()
            except KeyboardInterrupt:
                stop_workers()
                raise Interrupted(
                    "stopped; committed work is kept", hint="run the same command again to continue"
                ) from None
            finally:
                self._stop.set()
                if self._download_thread:
                    self._download_thread.join()
                self._display.close(self._gauges)
        report = build_report(self._chain, self._committed, self._errors)
        self._log.write_event("end", committed=self._committed, errors=len(self._errors))
        return report

    # download -------------------------------------------------------------------------------------------------------

    def _start_download(self) -> None:
        if self._download is None:
            return
        link = self._download
        stage = link.stage
        assert isinstance(stage, DownloadStage)
        gauge = self._gauges[link.name]

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
                asyncio.run(stage.process(self._open_shards(link, gauge), hooks, self._stop))
            except BaseException as error:
                self._download_error = error

        self._download_thread = threading.Thread(target=main, name="dataprep-download")
        self._download_thread.start()

    def _open_shards(self, node: StageNode, gauge: StageProgress) -> Iterator[DownloadShard]:
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
                assert self._download is not None
                self._commit_noted(self._download, shard)
                self._ready.append(shard)

    def _join_download(self) -> None:
        if self._download_thread:
            while self._download_thread.is_alive():
                self._download_thread.join(0.1)
                self._display.refresh(self._gauges)
            self._drain_downloaded()
        error = self._download_error
        if isinstance(error, (DataprepError, OSError)):
            raise error
        if error is not None:
            raise DataprepError(f"the download ended unexpectedly: {error!r}") from error

    # map stages -----------------------------------------------------------------------------------------------------

    def _run_maps(self) -> None:
        if not self._maps:
            return
        for result in self._executor.run(self._ready_tasks()):
            self._drain_downloaded()
            if result is not None:
                self._take(result)
            self._show()
        deaths: dict[tuple[str, str], int] = {}
        while self._suspects and not self._stop.is_set():
            self._retry_alone(self._suspects.pop(0), deaths)
            self._show()

    def _ready_tasks(self) -> Iterator[Task | None]:
        """Yield tasks for shards with complete input, and None while the download may still deliver more."""
        for shard in self._state.shards:
            if self._task(shard) is not None:
                self._ready.append(shard)
        while not self._stop.is_set():
            alive = self._download_thread is not None and self._download_thread.is_alive()
            self._drain_downloaded()
            if self._ready:
                task = self._task(self._ready.popleft())
                if task is not None and task.shard in self._out:
                    self._again.add(task.shard)  # committed again while a worker was processing it
                elif task is not None:
                    self._out[task.shard] = task
                    yield task
            elif alive or self._again:
                yield None
            else:
                return

    def _pending_maps(self, shard: str) -> list[StageNode]:
        """Return the active map stages to run over a shard, from the first pending one on."""
        found = self._state.shards[shard]
        pending = [bool(self._state.pending_reason(link, found)) for link in self._maps]
        return self._maps[pending.index(True) :] if any(pending) else []

    def _task(self, shard: str) -> Task | None:
        links = self._pending_maps(shard)
        if not links:
            return None
        upstream = self._state.upstream_digest(links[0], self._state.shards[shard])
        if upstream is None:
            return None
        return Task(
            workspace=str(self._chain.workspace.path),
            recipe=self._chain.recipe(),
            stages=tuple(link.name for link in links),
            shard=shard,
            upstream=upstream,
            board_path=str(self._log.board_path),
            slot=self._slots[shard],
            slots=len(self._slots),
        )

    def _take(self, result: TaskResult) -> None:
        task = result.task
        self._out.pop(task.shard, None)
        if task.shard in self._again:
            self._again.discard(task.shard)
            self._ready.append(task.shard)
        if result.died:
            self._log.write_event("worker died", shard=task.shard, stages=task.stages)
            self._suspects.append(task)
        elif result.error:
            self._errors[task.shard] = result.error
            self._log.write_event("shard failed", shard=task.shard, error=result.error)
            self._display.note(f"shard {task.shard} failed: {result.error.strip().splitlines()[-1]}")
        else:
            for name in task.stages:
                self._commit_noted(self._chain.node(name), task.shard)

    def _retry_alone(self, task: Task, deaths: dict[tuple[str, str], int]) -> None:
        """Rerun a shard whose worker died, with no other task running. A photo that repeatedly kills it is skipped.

        If the worker dies again, the shard is at fault: from then on it is processed photo by photo, so that the board
        shows which photo it was.
        """
        self._out[task.shard] = task
        result = self._executor.run_isolated(task)
        if not result.died:
            self._take(result)
            return
        self._out.pop(task.shard, None)
        key = key_at_position(task, self._board.get(task.slot)) if task.one_by_one else None
        blame = (task.shard, key or "")
        deaths[blame] = deaths.get(blame, 0) + 1
        self._log.write_event("worker died", shard=task.shard, alone=True, sample=key)
        if deaths[blame] >= _DEATHS:
            if key is None:
                self._errors[task.shard] = "its worker process died three times, possibly out of memory; use fewer jobs"
                return
            self._display.note(f"{key}: killed a worker process {_DEATHS} times, skipped as worker_died")
            task = replace(task, skip=task.skip | {key})
        self._suspects.append(replace(task, one_by_one=True))

    # merges ---------------------------------------------------------------------------------------------------------

    def _run_merges(self) -> None:
        for link in self._chain.merge_nodes:
            if link not in self._active or not self._state.merge_pending_reason(link):
                continue
            digest = self._state.merge_digest(link)
            if digest is None:
                raise WorkspaceError(f"{link.name} cannot run: {self._state.merge_pending_reason(link)}")
            began = time.monotonic()
            gauge = self._gauges[link.name]
            parts = self._parts(link)
            gauge.total = self._coming(link)
            gauge.advance(0)

            def tick(done: int, gauge: StageProgress = gauge) -> None:
                gauge.advance(max(0, min(done, gauge.total) - gauge.done))
                self._show()
                self._check_interrupt()

            stage = link.stage
            assert isinstance(stage, MergeStage)
            merged = stage.merge(parts, replace(self._state.merge_context(link), progress=tick))
            link.store.commit_table(
                MERGE_SHARD, merged.table, upstream=digest, seconds=time.monotonic() - began, extra=merged.extra
            )
            gauge.done = gauge.total
            self._commit_noted(link, MERGE_SHARD)

    def _parts(self, node: StageNode) -> list[MergeInput]:
        earlier = self._chain.links[: self._chain.links.index(node)]
        before = earlier[-1]
        shards = [MERGE_SHARD] if isinstance(before.stage, MergeStage) else list(self._state.shards)
        parts = []
        for shard in shards:
            markers = {one.name: (one, self._state.marker(one, shard)) for one in earlier}
            ledgers = {name: one.store.rows_path(marker) for name, (one, marker) in markers.items() if marker}
            parts.append(MergeInput(shard=shard, ledgers=ledgers))
        return parts

    def _coming(self, node: StageNode) -> int:
        """Return the number of input rows of a merge."""
        before = self._chain.upstream_of(node)
        assert before is not None
        markers = (self._state.marker(before, shard) for shard in [*self._state.shards, MERGE_SHARD])
        return sum(marker.account["ok"] for marker in markers if marker)

    # bookkeeping ----------------------------------------------------------------------------------------------------

    def _make_gauges(self) -> dict[str, StageProgress]:
        gauges = {}
        for link in self._active:
            pending = {p.shard for p in self._state.pending(link)}
            counts = {shard.id: shard.size for shard in self._state.shards.values()}
            if isinstance(link.stage, MergeStage):
                gauges[link.name] = StageProgress(stage=link.name, total=0)
            else:
                gauges[link.name] = StageProgress(stage=link.name, total=sum(counts[shard] for shard in pending))
        return gauges

    def _commit_noted(self, node: StageNode, shard: str) -> None:
        self._state.reload(node, shard)
        self._committed[node.name] = self._committed.get(node.name, 0) + 1
        marker = self._state.marker(node, shard)
        assert marker is not None
        self._log.write_event("commit", stage=node.name, shard=shard, seconds=marker.seconds, **marker.account)
        if node in self._maps:
            self._finished[node.name] += self._state.shards[shard].size
            gauge = self._gauges[node.name]
            gauge.verdicts["ok"] += marker.account["ok"]
            gauge.verdicts.update(marker.account["dropped"])
            gauge.verdicts.update(marker.account["failed"])

    def _show(self) -> None:
        """Update the map stages' gauges from the board and show all gauges."""
        for link in self._maps:
            in_hand = sum(self._board.get(task.slot) for task in self._out.values() if link.name in task.stages)
            gauge = self._gauges[link.name]
            gauge.advance(max(0, min(self._finished[link.name] + in_hand, gauge.total) - gauge.done))
        self._display.refresh(self._gauges)

    def _check_interrupt(self) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped; finished work is committed", hint="run the same command again to continue")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """On the first Ctrl-C or SIGTERM, finish the running shards; on the second, stop at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: Any) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()
            self._display.note("stopping after the running shards (press Ctrl-C again to stop at once)")

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(slots=True, kw_only=True)
class RunReport:
    """Shards committed by stage, errors by shard, and the counts of every stage."""

    committed: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)


def build_report(pipeline: Pipeline, committed: dict[str, int], errors: dict[str, str]) -> RunReport:
    """Return the report of a run over `chain`, with the current counts of all stages."""
    report = RunReport(committed=committed, errors=errors)
    for link in pipeline.links:
        markers = link.store.markers()
        if markers:
            report.accounts[link.name] = sum_counts(marker.account for marker in markers.values())
        if MERGE_SHARD in markers:
            report.extras[link.name] = dict(markers[MERGE_SHARD].extra)
    return report


def check_versions(node: StageNode, accept: bool) -> None:
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
