"""Executors: they run tasks as these become ready and yield results as tasks finish. A failing task never raises.

Dask, Ray or a batch system can implement the same protocol: a task is a few hundred bytes, names its workspace by path
and commits its own output.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from dataprep.pipeline.worker import Task, TaskResult, prepare_worker, run_task

_POLL = 0.1  # seconds between checks for ready tasks


class Executor(Protocol):
    """Runs `work` on tasks. A None among the tasks means that no task is ready yet."""

    def run(self, tasks: Iterable[Task | None]) -> Iterator[TaskResult | None]:
        """Yield results in order of completion, and None from time to time so that the caller can do other work."""
        ...

    def run_isolated(self, task: Task) -> TaskResult:
        """Run one task with no other task running, so that only it can have killed the worker."""
        ...

    def stop(self) -> None:
        """End at once, whatever the tasks are waiting for. Uncommitted work is repeated by the next run."""
        ...


class SerialExecutor:
    """Runs all tasks in this process, for debugging and tests."""

    def run(self, tasks: Iterable[Task | None]) -> Iterator[TaskResult | None]:
        for task in tasks:
            if task is None:
                time.sleep(_POLL)
            yield run_task(task) if task else None

    def run_isolated(self, task: Task) -> TaskResult:
        return run_task(task)

    def stop(self) -> None:
        pass


class LokyExecutor:
    """Worker processes of joblib's loky. If one dies, all running tasks are lost and reported as `died`."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool: Any = None

    def run(self, tasks: Iterable[Task | None]) -> Iterator[TaskResult | None]:
        out: dict[Future[TaskResult], Task] = {}
        coming = iter(tasks)
        exhausted = False
        while True:
            while not exhausted and len(out) < self._jobs:
                try:
                    task = next(coming)
                except StopIteration:
                    exhausted = True
                    break
                if task is None:
                    break
                out[self._submit(task)] = task
            if exhausted and not out:
                return
            if not out:
                time.sleep(_POLL)
                yield None
                continue
            done, _ = wait(out, timeout=_POLL, return_when=FIRST_COMPLETED)
            for future in done:
                yield _result(future, out.pop(future))
            if not done:
                yield None

    def run_isolated(self, task: Task) -> TaskResult:
        future = self._submit(task)
        return _result(future, task)

    def stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, kill_workers=True)

    def _submit(self, task: Task) -> Future[TaskResult]:
        from joblib.externals.loky import get_reusable_executor

        with _interrupts_held():
            self._pool = get_reusable_executor(
                max_workers=self._jobs, timeout=300, initializer=prepare_worker, kill_workers=False
            )
            future: Future[TaskResult] = self._pool.submit(run_task, task)
        return future


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Block SIGINT while workers and threads are started, so that they inherit the mask; Ctrl-C reaches all of them.

    `prepare_worker` would be too late, because a worker needs a second to reach it. The resource trackers are started
    first, because each unblocks SIGINT at the end of its start.
    """
    import multiprocessing.resource_tracker as its_own

    from joblib.externals.loky.backend import resource_tracker as lokys

    its_own.ensure_running()
    lokys.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _result(future: Future[TaskResult], task: Task) -> TaskResult:
    try:
        return future.result()
    except Exception:  # such as BrokenProcessPool: a worker was killed or ran out of memory
        return TaskResult(task=task, died=True)


def make_executor(jobs: int) -> Executor:
    """Return an executor with `jobs` worker processes, or one in this process if `jobs` is 0."""
    return LokyExecutor(jobs) if jobs else SerialExecutor()
