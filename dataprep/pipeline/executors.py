"""Where tasks run. An executor takes tasks as they become ready and gives results as they come; no task makes it raise.

Dask, Ray or a batch system fit behind the same protocol: a task is a few hundred bytes, names its workspace by path, and
commits its own output.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Protocol

from dataprep.pipeline.worker import Result, Task, prepare_worker, work

_POLL = 0.1  # seconds between two looks at whether a task has become ready


class Executor(Protocol):
    """Runs `work` on tasks. None among the tasks means that none is ready yet: ask again in a moment."""

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Result | None]:
        """Results in the order in which they come; None now and then, so that the caller can look around."""
        ...

    def alone(self, task: Task) -> Result:
        """Run one task with nothing else beside it, so that a death can only be its own."""
        ...


class SerialExecutor:
    """Everything in this process: for debuggers, and for tests."""

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Result | None]:
        for task in tasks:
            if task is None:
                time.sleep(_POLL)
            yield work(task) if task else None

    def alone(self, task: Task) -> Result:
        return work(task)


class LokyExecutor:
    """Worker processes by joblib's loky. When one dies, the others' tasks are lost with it, and reported as `died`."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Result | None]:
        out: dict[Future[Result], Task] = {}
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

    def alone(self, task: Task) -> Result:
        future = self._submit(task)
        return _result(future, task)

    def _submit(self, task: Task) -> Future[Result]:
        from joblib.externals.loky import get_reusable_executor

        with _interrupts_held():
            pool = get_reusable_executor(
                max_workers=self._jobs, timeout=300, initializer=prepare_worker, kill_workers=False
            )
            future: Future[Result] = pool.submit(work, task)
        return future


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes and threads begun meanwhile are deaf to Ctrl-C, which goes to all of a terminal's processes.

    `prepare_worker` comes too late for that: a worker takes a second to get there. The resource trackers are started
    first, because each ends its start by letting Ctrl-C through.
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


def stop_workers() -> None:
    """End the worker processes now, whatever they do; what they have not committed will be done again."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor(max_workers=1).shutdown(wait=True, kill_workers=True)


def _result(future: Future[Result], task: Task) -> Result:
    try:
        return future.result()
    except Exception:  # BrokenProcessPool and its kin: a worker was killed, or ran out of memory
        return Result(task=task, died=True)


def make_executor(jobs: int) -> Executor:
    """Worker processes, or this process for `jobs` 0."""
    return LokyExecutor(jobs) if jobs else SerialExecutor()
