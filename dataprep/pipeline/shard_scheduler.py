"""Runs the map stages: hands shards to an executor as their input becomes complete, and isolates those that kill workers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from dataprep.pipeline.executors import Executor
from dataprep.pipeline.pipeline import Pipeline, PipelineState, StageNode
from dataprep.pipeline.worker import ProgressBoard, Task, TaskResult, key_at_position
from dataprep.stages.base import MapStage

_DEATHS = 3  # a photo that kills this many workers is skipped


class Observer(Protocol):
    """What the run around the scheduler is told."""

    def poll(self) -> bool:
        """Called between results. Whether more shards may still become ready."""
        ...

    def committed(self, stage: str, shard: str) -> None: ...

    def failed(self, shard: str, error: str, damaged: Path | None = None) -> None: ...

    def worker_died(self, task: Task, *, isolated: bool, sample: str | None) -> None: ...

    def skipped(self, sample: str, deaths: int) -> None: ...


class ShardScheduler:
    """The map part of a run. Everything happens in the thread that calls `run`."""

    def __init__(
        self,
        pipeline: Pipeline,
        state: PipelineState,
        nodes: Sequence[StageNode[MapStage[Any]]],
        *,
        executor: Executor,
        board_path: Path,
        observer: Observer,
        stopped: Callable[[], bool],
    ) -> None:
        self._pipeline, self._state, self.nodes = pipeline, state, list(nodes)
        self._executor, self._observer, self._stopped = executor, observer, stopped
        self._suspects: list[Task] = []
        self._running: dict[str, Task] = {}  # by shard
        self._ready: deque[str] = deque()
        self._recheck: set[str] = set()  # shards to check again when their running task returns
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._slots = {shard: slot for slot, shard in enumerate(state.shards)}
        self._board = ProgressBoard(board_path, max(1, len(self._slots)))

    def run(self) -> None:
        """Run all shards whose input is complete, or becomes so while `Observer.poll` says that more may come."""
        if not self.nodes:
            return
        for result in self._executor.run(self._tasks()):
            if result is not None:
                self._take(result)
            self._observer.poll()
        while self._suspects and not self._stopped():
            self._run_isolated(self._suspects.pop(0))
            self._observer.poll()

    def add(self, shard: str) -> None:
        """Check a shard whose input was committed."""
        self._ready.append(shard)

    def in_progress(self, stage: str) -> int:
        """How many samples of the shards now in workers have been looked at."""
        return sum(max(0, self._board.get(task.slot)) for task in self._running.values() if stage in task.stages)

    def _tasks(self) -> Iterator[Task | None]:
        """Yield tasks for shards with complete input, and None while more may become ready."""
        for shard in self._state.shards:
            if self._task(shard) is not None:
                self._ready.append(shard)
        while not self._stopped():
            more = self._observer.poll()
            if self._ready:
                task = self._task(self._ready.popleft())
                if task is not None and task.shard in self._running:
                    self._recheck.add(task.shard)  # committed again while a worker was processing it
                elif task is not None:
                    self._running[task.shard] = task
                    yield task
            elif more or self._recheck:
                yield None
            else:
                return

    def _task(self, shard: str) -> Task | None:
        """The task of a shard: the active stages from the first pending one on. None if nothing can run now."""
        pending = [bool(self._state.pending_reason(node, shard)) for node in self.nodes]
        if not any(pending):
            return None
        nodes = self.nodes[pending.index(True) :]
        upstream = self._state.input_digest(nodes[0], shard)
        if upstream is None:
            return None
        return Task(
            workspace=str(self._pipeline.workspace.path),
            recipe=self._pipeline.recipe(),
            stages=tuple(node.name for node in nodes),
            shard=shard,
            upstream=upstream,
            board_path=str(self._board.path),
            slot=self._slots[shard],
            slots=len(self._slots),
        )

    def _take(self, result: TaskResult) -> None:
        task = result.task
        self._running.pop(task.shard, None)
        if task.shard in self._recheck:
            self._recheck.discard(task.shard)
            self._ready.append(task.shard)
        if result.died:
            self._observer.worker_died(task, isolated=False, sample=None)
            self._suspects.append(task)
        elif result.error:
            self._observer.failed(task.shard, result.error, result.damaged)
        else:
            for name in task.stages:
                self._observer.committed(name, task.shard)

    def _run_isolated(self, task: Task) -> None:
        """Rerun a shard whose worker died, with no other task running. A photo that repeatedly kills it is skipped.

        If the worker dies again, the shard is at fault: from then on it is processed photo by photo, so that the board
        shows which photo it was.
        """
        self._running[task.shard] = task
        result = self._executor.run_isolated(task)
        if not result.died:
            self._take(result)
            return
        self._running.pop(task.shard, None)
        key = key_at_position(task, self._board.get(task.slot)) if task.one_by_one else None
        self._deaths[task.shard, key or ""] += 1
        self._observer.worker_died(task, isolated=True, sample=key)
        if self._deaths[task.shard, key or ""] >= _DEATHS or key in task.skip:
            if key is None or key in task.skip:
                self._observer.failed(
                    task.shard, "its worker process died three times, possibly out of memory; use fewer jobs"
                )
                return
            self._observer.skipped(key, _DEATHS)
            task = replace(task, skip=task.skip | {key})
        self._suspects.append(replace(task, one_by_one=True))
