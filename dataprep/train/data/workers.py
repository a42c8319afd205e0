"""Loader processes that decode into a ring of batches in shared memory.

They are started as new processes rather than forked, so they inherit no locks, threads or CUDA context. Starting one
takes a third of a second, without torch. They persist between epochs and exit whenever their parent process exits.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from dataprep.errors import DataprepError, RecordError
from dataprep.train.data.decoding import Batch, BatchDecoder, BatchIndices, DecodeTask

_START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from dataprep.train.data.decoding import run_decoder_process as main; main()"
)
_LEAST = 16  # rows of a job: with fewer, the hand-over would cost as much as the decoding
_LENT = 2  # batches in shared memory that the caller may hold; further ones are copied


class WorkerPool:
    """A pool of `workers` processes that decode batches of at most `rows` rows."""

    def __init__(self, decoder: BatchDecoder, *, rows: int, workers: int) -> None:
        self.decoder, self._asked, self._owner = decoder, (rows, workers), os.getpid()
        self._share = min(rows, max(_LEAST, -(-rows // workers)))  # rows of a job
        jobs = -(-rows // self._share)
        self._ahead = max(2, -(-2 * workers // jobs))  # batches, so that every process has two jobs queued
        one = decoder.empty(1)
        self._row_size = one.nbytes
        self._slot_size = -(-rows * one.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        slots = self._ahead + _LENT
        with _anonymous(slots * self._slot_size) as descriptor:
            self._memory = mmap.mmap(descriptor, slots * self._slot_size)
            self._free = deque(range(slots))
            self._lent: set[int] = set()
            self._workers: list[_Worker] = []
            self._end = weakref.finalize(self, _end, self._workers, self._owner)
            for _ in range(workers):
                self._workers.append(_Worker(descriptor))
            for worker in self._workers:
                worker.send((decoder, descriptor, slots * self._slot_size))
        self._turn = 0

    def decode_batches(self, batches: Iterable[BatchIndices]) -> Iterator[Batch]:
        """Decode the batches, in order. A batch's memory is reused once nothing refers to it.

        Raises RecordError for an image that cannot be used and DataprepError for a process that died. The pool is closed
        after an error, or if the iterator is closed early.
        """
        left, waiting = iter(batches), deque[tuple[int, int, list[_Worker]]]()
        try:
            while True:
                while len(waiting) < self._ahead and (rows := next(left, None)) is not None:
                    waiting.append(self._send(rows))
                if not waiting:
                    return
                slot, count, workers = waiting.popleft()
                for worker in workers:
                    worker.receive()
                yield self._handed_over(slot, count)
        except BaseException:
            self.close()
            raise

    def matches(self, decoder: BatchDecoder, *, rows: int, workers: int) -> bool:
        """Whether this pool has these settings and belongs to this process."""
        mine = not self.closed and self._owner == os.getpid()  # a fork must not use its parent's pool
        return mine and self._asked == (rows, workers) and self.decoder.equals(decoder)

    @property
    def closed(self) -> bool:
        return not self._end.alive

    def close(self) -> None:
        """End the processes. Batches already yielded stay valid."""
        self._end()

    def _send(self, rows: BatchIndices) -> tuple[int, int, list[_Worker]]:
        slot, count = self._free.popleft(), len(rows.positions)
        workers = []
        for start in range(0, count, self._share):
            worker = self._workers[self._turn]
            self._turn = (self._turn + 1) % len(self._workers)
            offset = slot * self._slot_size + start * self._row_size
            worker.send(DecodeTask(offset, rows.part(start, min(count, start + self._share))))
            workers.append(worker)
        return slot, count, workers

    def _handed_over(self, slot: int, count: int) -> Batch:
        one = self.decoder.empty(1)
        flat = np.frombuffer(self._memory, one.dtype, count * one.size, slot * self._slot_size)
        shaped: Batch = flat.reshape(count, *one.shape[1:])  # type: ignore[assignment]  # views and tensors keep `flat`
        if len(self._lent) < _LENT:
            self._lent.add(slot)
            weakref.finalize(flat, _taken_back, slot, self._lent, self._free).atexit = False
            return shaped
        copied = shaped.copy()  # the caller holds earlier batches; the pool needs the memory
        self._free.append(slot)
        return copied


class _Worker:
    def __init__(self, descriptor: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(descriptor,),
            process_group=0,  # Ctrl-C must reach only the parent
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self.send(sys.path)

    def send(self, message: object) -> None:
        assert self._process.stdin
        try:
            pickle.dump(message, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except OSError:
            raise self._death() from None

    def receive(self) -> None:
        """Wait until a job is done."""
        assert self._process.stdout
        try:
            answer = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise self._death() from None
        if answer is not None:
            known, what, hint = answer
            raise RecordError(what, hint=hint) if known else DataprepError(f"a loader process failed:\n{what}")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # unwritten data has no reader
                if stream:
                    stream.close()

    def _death(self) -> DataprepError:
        self._process.kill()
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        return DataprepError(
            f"a loader process {how}",
            hint="run the same command again to resume from the last checkpoint; if memory ran out (see dmesg), lower "
            "--num-workers or --batch-size",
        )


@contextlib.contextmanager
def _anonymous(size: int) -> Iterator[int]:
    """An unnamed file, in memory where memfd_create exists (/dev/shm is small in containers)."""
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("dataprep-batches")
            stack.callback(os.close, descriptor)
        else:
            descriptor = stack.enter_context(tempfile.TemporaryFile()).fileno()
        os.ftruncate(descriptor, size)
        yield descriptor


def _end(workers: list[_Worker], owner: int) -> None:
    if os.getpid() == owner:  # not when a fork exits
        for worker in workers:
            worker.end()


def _taken_back(slot: int, lent: set[int], free: deque[int]) -> None:
    lent.discard(slot)
    free.append(slot)
